"""A task that came with a UID keeps it: the same file twice changes nothing, wherever it was made."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Answer, Person
from tests.transfer.test_imports import JSON, Newcomer, done, faults, send, stored, todo
from tests.transfer.test_transfer import CALENDAR, CSV

Sql = Callable[..., list[tuple[Any, ...]]]
LONGEST = "\N{GRINNING FACE}" * 1000  # more bytes than a key of an index may have


def calendar(*uids: str) -> str:
    todos = [line for uid in uids for line in ("BEGIN:VTODO", f"UID:{uid}", f"SUMMARY:of {uid[:20]}", "END:VTODO")]
    return "\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", *todos, "END:VCALENDAR", ""])


async def uids(person: Person) -> list[str]:
    sheet = (await person.get("/task?format=csv")).text.splitlines()
    return [line.split(",")[0] for line in sheet[1:]]


async def test_a_calendar_that_is_imported_twice_changes_nothing(alice: Person, sql: Sql) -> None:
    first = await send(alice, CALENDAR, todo("UID:abc@app", "SUMMARY:Milk"))
    assert first.json == done(0, 1, 1)
    before = stored(alice, sql)
    assert (await send(alice, CALENDAR, todo("UID:abc@app", "SUMMARY:Milk"))).json == done(1, 1, 0)
    assert stored(alice, sql) == before
    assert (await send(alice, CALENDAR, todo("UID:abc@app", "SUMMARY:Bread"))).json["count"] == 1
    assert [task["name"] for task in (await alice.get("/task")).json] == ["Bread"]
    assert await uids(alice) == ["abc@app"]


async def test_so_does_a_sheet(alice: Person) -> None:
    sheet = "uid,name,description,status\r\nx-1,Milk,,new\r\nx-2,Bread,,new\r\n"
    assert (await send(alice, CSV, sheet)).json["count"] == 2
    assert (await send(alice, CSV, sheet)).json["count"] == 0
    assert (await send(alice, CSV, "uid,status\r\nx-2,completed\r\n")).json["count"] == 1
    assert [task["status"] for task in (await alice.get("/task")).json] == ["new", "completed"]


async def test_a_uid_alone_makes_no_task(alice: Person) -> None:
    answer = await send(alice, CSV, "uid,status\r\nx-2,completed\r\n")
    assert faults(answer) == [("line 2", "is of a task that is not there: to create it, it needs name, description and status")]


async def test_what_one_account_gives_another_one_takes_and_knows_again(alice: Person, mallory: Person) -> None:
    await alice.new_task()
    for kind, form in ((CALENDAR, "ics"), (CSV, "csv")):
        taken = (await alice.get(f"/task?format={form}")).text
        assert (await send(mallory, kind, taken)).json["count"] == int(kind == CALENDAR)
    assert await uids(mallory) == await uids(alice)
    assert (await send(alice, CSV, (await mallory.get("/task?format=csv")).text)).json["count"] == 0


async def test_case_and_form_of_a_uid_count(alice: Person) -> None:
    assert (await send(alice, CALENDAR, calendar("a", "A", "\u00e9", "e\u0301"))).json["count"] == 4
    assert await uids(alice) == ["a", "A", "\u00e9", "e\u0301"]


async def test_a_uid_has_up_to_1000_characters(alice: Person) -> None:
    other = LONGEST[:-1] + "x"
    for count in (2, 0):
        assert (await send(alice, CALENDAR, calendar(LONGEST, other))).json["count"] == count
    assert await uids(alice) == [LONGEST, other]
    assert faults(await send(alice, CALENDAR, calendar(LONGEST + "x"))) == [("line 4", "UID must have at most 1000 characters")]
    assert faults(await send(alice, CSV, "uid,name,description,status\r\na\tb,x,,new\r\n")) == [
        ("line 2", "uid must not contain control characters")
    ]


@pytest.mark.parametrize("uid", ["a,b;c\\d", "x\\ny", "{}", "1-1", "=1+1", "'a"])
async def test_a_uid_of_any_characters_goes_out_and_comes_back(alice: Person, sql: Sql, uid: str) -> None:
    assert (await send(alice, JSON, export(uid))).status == 200
    before = stored(alice, sql)
    for kind, form in ((CALENDAR, "ics"), (CSV, "csv")):
        assert (await send(alice, kind, (await alice.get(f"/task?format={form}")).text)).json["count"] == 0, form
    assert stored(alice, sql) == before
    assert json.loads((await alice.get("/export")).text)["tasks"][0]["uid"] == uid


async def test_without_a_uid_each_import_creates(alice: Person) -> None:
    for _ in range(2):
        assert (await send(alice, CALENDAR, todo("SUMMARY:x", "UID:"))).json["count"] == 1


async def test_one_uid_twice_in_a_file_is_named(alice: Person) -> None:
    assert faults(await send(alice, CALENDAR, calendar("a", "b", "a"))) == [("line 11", "has the UID of line 3")]


async def test_a_task_that_is_gone_is_created_anew_once(alice: Person) -> None:
    await alice.new_task()
    taken = (await alice.get("/task?format=ics")).text
    await alice.delete("/task/1?forever=true")
    for count in (1, 0):
        assert (await send(alice, CALENDAR, taken)).json["count"] == count
    assert [task["id"] for task in (await alice.get("/task")).json] == [2]


async def test_a_uid_that_is_still_to_come_is_not_taken(alice: Person) -> None:
    await alice.new_task()
    [mine] = await uids(alice)
    ours = mine.removeprefix("1-")
    answer = await send(alice, CALENDAR, calendar(f"3-{ours}") + calendar())
    assert faults(answer) == [("line 3", "has the UID that a task of yours is still to have: to create one, leave the UID out")]
    for _ in range(2):
        await alice.new_task()
    assert (await send(alice, CALENDAR, calendar(f"3-{ours}"))).json["count"] == 1
    assert await uids(alice) == [mine, f"2-{ours}", f"3-{ours}"]


async def test_ours_comes_back_from_the_trash_and_anothers_stays_there(alice: Person) -> None:
    await alice.new_task()
    await send(alice, CALENDAR, calendar("a"))
    taken = (await alice.get("/task?format=ics")).text
    await alice.delete("/task/1")
    await alice.delete("/task/2")
    answer = await send(alice, CALENDAR, taken)
    assert (answer.json["count"], answer.json["skipped_count"]) == (1, 1)
    assert answer.json["skipped"] == [{"line": 13, "code": "in_trash", "reason": "is of a task that is in the trash, and stays there"}]
    assert [task["id"] for task in (await alice.get("/task")).json] == [1]


async def test_the_past_has_it_too(alice: Person) -> None:
    await send(alice, CALENDAR, calendar("a"))
    await alice.patch("/task/1", json={"name": "other"})
    assert (await alice.get("/task?format=csv&revision=1")).text.splitlines()[1].startswith("a,1,of a,")


async def test_an_export_has_it_and_brings_it_back(alice: Person, newcomer: Newcomer) -> None:
    await send(alice, CALENDAR, calendar("a", "b"))
    await alice.new_task()
    taken = (await alice.get("/export")).text
    again = await newcomer("alice")
    assert (await send(again, JSON, taken)).status == 200
    assert (await again.get("/export")).text == taken
    assert (await send(again, CALENDAR, calendar("a", "b"))).json["count"] == 0
    assert [task.get("uid") for task in json.loads(taken)["tasks"]] == ["a", "b", None]


def export(*uids: str) -> str:
    moment = "2026-11-24T09:30:00.123456Z"
    account = {"revision": len(uids), "last_task_id": len(uids), "kept_from": 0, "kept_from_at": moment, "purged": 0, "changed_at": moment}
    shown = {
        "name": "x",
        "description": "",
        "status": "new",
        "created_at": moment,
        "updated_at": moment,
        "completed_at": None,
        "deleted_at": None,
    }
    tasks = [shown | {"id": n, "revision": n, "created_revision": n, "uid": uid} for n, uid in enumerate(uids, start=1)]
    return json.dumps({"account": account, "tasks": tasks, "log": []}, indent=0)


async def test_an_export_with_one_uid_twice_is_refused(newcomer: Newcomer) -> None:
    answer: Answer = await send(await newcomer("alice"), JSON, export("a", "b", "a"))
    [(line, words)] = faults(answer)
    assert words.startswith("has the uid of line ")
    assert int(line.removeprefix("line ")) > int(words.removeprefix("has the uid of line "))


async def test_an_export_on_one_line_with_one_uid_twice_is_refused(newcomer: Newcomer) -> None:
    answer = await send(await newcomer("alice"), JSON, export("a", "b", "a").replace("\n", ""))
    assert faults(answer) == [("line 1", "has the uid of line 1")]

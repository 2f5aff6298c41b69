"""A moment of completion that a file says is kept: by the log, by the past, by undo, and by every form in which tasks go out."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Person
from tests.history.test_verify import faults as broken
from tests.history.test_verify import faults_after
from tests.transfer.test_imports import JSON, Newcomer, send, stored, todo
from tests.transfer.test_imports import done as answered
from tests.transfer.test_transfer import CALENDAR, CSV

Sql = Callable[..., list[tuple[Any, ...]]]
SAID = "2018-04-17T18:43:02.000000Z"
LATER = "2019-01-01T00:00:00.000000Z"


def done(said: str | None = "20180417T184302Z") -> str:
    return todo("UID:a", "SUMMARY:x", "STATUS:COMPLETED", *([f"COMPLETED:{said}"] if said else []))


@pytest.fixture
async def alice(alice: Person) -> Person:
    """The one with a task that was completed when a file says."""
    assert (await send(alice, CALENDAR, done())).json["count"] == 1
    return alice


async def task(person: Person, query: str = "") -> dict[str, Any]:
    shown: dict[str, Any] = (await person.get(f"/task/1{query}")).json
    return shown


async def log(person: Person, field: str = "completed_at") -> list[tuple[int, Any, Any]]:
    entries = (await person.get("/task/1/log")).json
    return [(entry["revision"], entry["old"], entry["new"]) for entry in entries if entry["field"] == field]


async def test_a_file_says_when_a_task_was_completed(alice: Person) -> None:
    assert (await task(alice))["completed_at"] == SAID
    assert await log(alice) == []
    assert f"COMPLETED:{SAID[:19].replace('-', '').replace(':', '')}Z" in (await alice.get("/task?format=ics")).text
    assert [t["id"] for t in (await alice.get("/task?completed_to=2018-04-18T00:00:00Z")).json] == [1]


async def test_a_sheet_says_it_too(mallory: Person) -> None:
    head = "name,description,status,completed_at\r\n"
    await send(mallory, CSV, f"{head}x,,completed,{SAID}\r\ny,,new,{SAID}\r\nz,,completed,\r\n")
    first, second, third = (await mallory.get("/task")).json
    assert first["completed_at"] == SAID
    assert second["completed_at"] is None
    assert third["completed_at"] == third["created_at"]


async def test_what_is_so_to_the_second_changes_nothing(alice: Person, sql: Sql) -> None:
    await alice.new_task(status="completed")
    before = stored(alice, sql)
    for kind, form in ((CALENDAR, "ics"), (CSV, "csv")):
        assert (await send(alice, kind, (await alice.get(f"/task?format={form}")).text)).json["count"] == 0
    assert (await send(alice, CALENDAR, done(None))).json["count"] == 0
    assert stored(alice, sql) == before


async def test_another_moment_is_a_change_with_an_entry(alice: Person, sql: Sql) -> None:
    assert (await send(alice, CALENDAR, done("20190101T000000Z"))).json == answered(1, 2, 1)
    assert await log(alice) == [(2, SAID, LATER)]
    assert (await task(alice, "?revision=1"))["completed_at"] == SAID
    assert (await task(alice))["completed_at"] == LATER
    assert (await alice.post("/task/undo", json={"since": 1})).json["count"] == 1
    assert (await task(alice))["completed_at"] == SAID
    assert await log(alice) == [(2, SAID, LATER), (3, LATER, SAID)]
    assert broken(sql, alice) == []


async def test_the_end_of_such_a_moment_has_an_entry_and_can_be_taken_back(alice: Person, sql: Sql) -> None:
    await alice.patch("/task/1", json={"status": "new"})
    assert await log(alice) == [(2, SAID, None)]
    assert [entry["field"] for entry in (await alice.get("/task/1/log")).json] == ["status", "completed_at"]
    assert (await task(alice, "?revision=1"))["completed_at"] == SAID
    await alice.post("/task/1/restore", json={"revision": 1})
    assert (await task(alice))["completed_at"] == SAID
    assert await log(alice) == [(2, SAID, None), (3, None, SAID)]
    for revision, moment in ((1, SAID), (2, None), (3, SAID)):
        assert (await task(alice, f"?revision={revision}"))["completed_at"] == moment
    assert broken(sql, alice) == []


async def test_what_the_rule_gives_has_no_entry(alice: Person, sql: Sql) -> None:
    await alice.patch("/task/1", json={"status": "new"})
    for status in ("completed", "planned", "completed"):
        await alice.patch("/task/1", json={"status": status})
    assert await log(alice) == [(2, SAID, None)]
    at_3 = (await alice.get("/task/1/log")).json[2]["changed_at"]
    assert (await task(alice, "?revision=3"))["completed_at"] == at_3
    assert (await task(alice, "?revision=4"))["completed_at"] is None
    assert (await task(alice, "?revision=1"))["completed_at"] == SAID
    assert (await send(alice, CALENDAR, done())).json["count"] == 1
    assert await log(alice) == [(2, SAID, None), (6, (await task(alice, "?revision=5"))["completed_at"], SAID)]
    assert (await task(alice, "?revision=3"))["completed_at"] == at_3
    assert (await task(alice, "?revision=1"))["completed_at"] == SAID
    assert broken(sql, alice) == []


async def test_what_a_file_said_is_taken_back_to_what_the_rule_gave(alice: Person, sql: Sql) -> None:
    await alice.patch("/task/1", json={"status": "new"})
    by_rule = (await alice.patch("/task/1", json={"status": "completed"})).json["completed_at"]  # 3
    await alice.patch("/task/1", json={"status": "new"})
    await send(alice, CALENDAR, done("20190101T000000Z"))  # 5
    await alice.post("/task/undo", json={"since": 3})
    assert (await task(alice))["completed_at"] == by_rule
    assert (await log(alice))[1:] == [(5, None, LATER), (6, LATER, by_rule)]
    await alice.post("/task/1/restore", json={"revision": 1})
    assert (await task(alice))["completed_at"] == SAID
    assert broken(sql, alice) == []


async def test_a_change_doesnt_say_it(alice: Person) -> None:
    read = await task(alice)
    assert (await alice.patch("/task/1", json=read | {"completed_at": LATER})).json == read
    await alice.patch("/task/1", json={"status": "new", "completed_at": LATER})
    assert (await task(alice))["completed_at"] is None


async def test_the_trash_keeps_it(alice: Person) -> None:
    await alice.delete("/task/1")
    assert (await alice.post("/task/1/restore", json={})).json["completed_at"] == SAID
    assert (await task(alice, "?revision=1"))["completed_at"] == SAID


async def test_changes_that_come_together_know_each_others_moments(alice: Person, sql: Sql) -> None:
    changes = [{"status": "new"}, {"status": "completed"}, {"name": "y"}, {"status": "planned"}]
    caller = alice.caller
    assert caller
    sql(
        "SELECT * FROM task_write(array_fill(%s, ARRAY[4]), array_fill(%s, ARRAY[4]), '{1,1,1,1}'::bigint[], '{}', %s::jsonb[], '{}', true)",
        caller.user_id, caller.generation, list(map(json.dumps, changes)),
    )  # fmt: skip
    assert await log(alice) == [(2, SAID, None)]
    assert broken(sql, alice) == []


LOG = "UPDATE task_log SET {} WHERE user_id = %(user)s AND revision = {} AND field = 'completed_at'"
GONE = "DELETE FROM task_log WHERE user_id = %(user)s AND revision = {} AND field = 'completed_at'"
ENTRY = (
    "INSERT INTO task_log (user_id, task_id, revision, field, old, new, changed_at)"
    " SELECT user_id, task_id, revision, 'completed_at', NULL, {}, changed_at FROM task_log"
    " WHERE user_id = %(user)s AND revision = {} AND field = 'status'"
)
BREAKS = [
    (LOG.format("new = '2019-01-01 00:00:01+00'", 4), (1, 5, "the old completed_at is not what it was")),
    (LOG.format("old = NULL", 2), (1, 2, "its completed_at is not as its status is")),
    (LOG.format("new = NULL", 4), (1, 4, "its completed_at is not as its status is")),
    (LOG.format("new = '2019-01-01 00:00:00+00'", 5), (1, 5, "its completed_at is not as its status is")),
    (LOG.format("new = 'infinity'", 4), (1, 4, "the entry has a completed_at that no task can have")),
    (ENTRY.format("'2019-01-01 00:00:00+00'", 3), (1, 4, "the old completed_at is not what it was")),
    (ENTRY.format("changed_at::text", 3), (1, 3, "its entry of completed_at says nothing new")),
    ("UPDATE task SET completed_at = now() WHERE user_id = %(user)s AND id = 2", (2, 7, "its completed_at is not when it was completed")),
    ("UPDATE task SET completed_at = now() WHERE user_id = %(user)s AND id = 3", (3, 9, "its completed_at is not when it was completed")),
]


@pytest.mark.parametrize(("statement", "expected"), BREAKS)
async def test_a_break_is_found_and_named(alice: Person, sql: Sql, statement: str, expected: tuple[Any, ...]) -> None:
    await alice.patch("/task/1", json={"status": "new"})
    await alice.patch("/task/1", json={"status": "completed"})
    await send(alice, CALENDAR, done("20190101T000000Z"))
    await alice.patch("/task/1", json={"status": "new"})
    await send(alice, CALENDAR, done("20190101T000000Z").replace("UID:a", "UID:b"))  # 6
    await send(alice, CALENDAR, done("20190102T000000Z").replace("UID:a", "UID:b"))  # 7
    await alice.new_task()  # 8
    await alice.patch("/task/3", json={"status": "completed"})  # 9
    assert broken(sql, alice) == []
    assert expected in faults_after(sql, alice, statement)


async def test_what_the_version_before_has_reopened_is_no_break(alice: Person, sql: Sql) -> None:
    await alice.patch("/task/1", json={"status": "new"})
    assert faults_after(sql, alice, GONE.format(2)) == []


def forged(*log: tuple[int, str, str | None, str | None], status: str = "new") -> str:
    """Return an export of one task with this log: revisions, fields, what they were and became."""
    first, *moments = [f"2026-11-24T09:30:{second:02}.000000Z" for second in range(9)]
    last = max(revision for revision, *_ in log)
    account = {"revision": last, "last_task_id": 1, "kept_from": 0, "kept_from_at": first, "purged": 0, "changed_at": moments[last]}
    task = {"id": 1, "name": "x", "description": "", "status": status, "created_at": moments[1], "updated_at": moments[last]}
    task |= {"completed_at": None, "deleted_at": None, "revision": last, "created_revision": 1}
    entries = [
        {"task_id": 1, "revision": revision, "changed_at": moments[revision], "field": field, "old": old, "new": new}
        for revision, field, old, new in log
    ]
    return json.dumps({"account": account, "tasks": [task], "log": entries})


@pytest.mark.parametrize(
    ("log", "fault"),
    [
        ([(2, "completed_at", SAID, LATER)], "task 1, revision 2: its completed_at is not as its status is"),
        ([(2, "completed_at", SAID, None)], "task 1, revision 2: its completed_at is not as its status is"),
        (
            [
                (2, "completed_at", SAID, LATER),
                (3, "status", "new", "completed"),
                (4, "completed_at", None, None),
                (4, "status", "completed", "new"),
            ],
            "task 1, revision 2: its completed_at is not as its status is",
        ),
    ],
)
async def test_a_forged_moment_is_refused(newcomer: Newcomer, log: list[Any], fault: str) -> None:
    answer = await send(await newcomer("alice"), JSON, forged(*log))
    assert fault in [error["message"] for error in answer.json["errors"]]


async def test_an_export_brings_it_back(alice: Person, newcomer: Newcomer, sql: Sql) -> None:
    await alice.patch("/task/1", json={"status": "new"})
    await send(alice, CALENDAR, done("20190101T000000Z"))
    taken = (await alice.get("/export")).text
    again = await newcomer("alice")
    assert (await send(again, JSON, taken)).status == 200
    assert (await again.get("/export")).text == taken
    for revision in (1, 2, 3):
        assert await task(again, f"?revision={revision}") == await task(alice, f"?revision={revision}")
    await again.patch("/task/1", json={"status": "new"})
    assert (await log(again))[-1] == (4, LATER, None)
    assert broken(sql, again) == []

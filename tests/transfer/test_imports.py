"""Files that come in: all of it or nothing, the line at fault named, and what went out comes back as it was."""

import asyncio
import json
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from typing import Any

import pytest

from bench.transfer import history
from tests.conftest import Answer, Person, Server, Start, configured, connection_to, write_task
from tests.rest.test_bodies import exchange, is_problem, request_of
from tests.transfer.test_csv_format import NASTY
from tests.transfer.test_transfer import CALENDAR, CSV, busy, make_tasks, sheet
from tests.waiting import PATIENCE_SECONDS, connected, until
from transfer import aside, imports
from transfer.entries import BYTES_PER_PIECE, read_pieces

Sql = Callable[..., list[tuple[Any, ...]]]
JSON = "application/json"
Newcomer = Callable[[str], Any]
SHEET = "name,description,status,completion_at\r\n"


async def send(person: Person, kind: str, body: str | bytes, query: str = "", **headers: str) -> Answer:
    return await person.post(
        f"/import{query}", data=body.encode() if isinstance(body, str) else body, headers={"Content-Type": kind} | headers
    )


def todo(*properties: str) -> str:
    return "\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", "BEGIN:VTODO", *properties, "END:VTODO", "END:VCALENDAR", ""])


def done(before: int, revision: int, count: int) -> dict[str, Any]:
    """Return what is answered where all was taken."""
    return {"before": before, "revision": revision, "count": count, "skipped": [], "skipped_count": 0}


def faults(answer: Answer) -> list[tuple[str, str]]:
    """Return the lines at fault, and what is wrong with each."""
    is_problem(answer, 400)
    assert answer.json["detail"] == "Some lines can't be taken, so nothing was imported."
    return [(error["field"], error["message"]) for error in answer.json["errors"]]


def stored(person: Person, sql: Sql) -> list[Any]:
    assert person.caller
    tables = ("user_state", "task", "task_log", "import_row", "idempotency_key")
    return [sql(f"SELECT * FROM {table} t WHERE user_id = %s ORDER BY t", person.caller.user_id) for table in tables]


def lines_left(sql: Sql, person: Person) -> int:
    assert person.caller
    return sql("SELECT count(*) FROM import_row WHERE user_id = %s", person.caller.user_id)[0][0]


# An export


async def test_an_export_of_what_only_an_earlier_version_took_restores_it(alice: Person, newcomer: Newcomer, sql: Sql) -> None:
    assert alice.caller
    marks = "q" + "\u0308\u0301" * 30
    for change in ({"name": "\u200b", "description": marks, "status": "new"}, {"name": marks, "description": ""}, {"name": "\u3164"}):
        write_task(sql, alice.caller, 1 if "status" not in change else None, change)
    export = (await alice.get("/export")).text
    again = await newcomer("alice")
    assert (await send(again, JSON, export)).json == done(0, 3, 1)
    assert (await again.get("/export")).text == export
    assert faults(await send(alice, CSV, f"{SHEET}\u200b,,new,\r\n{marks},,new,\r\n")) == [
        ("line 2", "name must not be blank: something in it must be visible"),
        ("line 3", "name must not contain more than 30 combining marks in a row"),
    ]


async def test_an_export_restores_the_account_exactly(alice: Person, newcomer: Newcomer, sql: Sql) -> None:
    await busy(alice)
    export = (await alice.get("/export")).text
    again = await newcomer("alice")
    answer = await send(again, JSON, export)
    assert answer.status == 200, answer
    assert answer.json == done(0, int(answer.headers["X-Revision"]), 5)
    assert (await again.get("/export")).text == export
    assert (await again.get("/export")).headers["X-Revision"] == answer.headers["X-Revision"]
    for path in ("/task", "/task?deleted=true", "/task/log", "/task?since=0", "/task/1/log", "/task?revision=12"):
        assert (await again.get(path)).text == (await alice.get(path)).text, path
    assert lines_left(sql, again) == 0
    task = await again.new_task()
    assert (task["id"], task["revision"]) == (7, int(answer.headers["X-Revision"]) + 1)


async def test_an_account_without_tasks_can_be_restored_too(alice: Person, newcomer: Newcomer) -> None:
    answer = await send(await newcomer("alice"), JSON, (await alice.get("/export")).text)
    assert (answer.status, answer.json) == (200, done(0, 0, 0))


async def test_what_has_been_purged_stays_counted(alice: Person, newcomer: Newcomer) -> None:
    await alice.new_task()
    await alice.delete("/task/1?forever=true")
    export, again = (await alice.get("/export")).text, await newcomer("alice")
    assert (await send(again, JSON, export)).json == done(0, 2, 0)
    assert (await again.get("/export")).text == export
    assert (await again.get("/task?revision=1")).status == 410
    assert (await again.new_task())["id"] == 2


@pytest.mark.parametrize("purged", [False, True])
async def test_an_export_goes_only_into_an_account_that_never_had_a_task(alice: Person, mallory: Person, sql: Sql, purged: bool) -> None:
    await mallory.new_task()
    await alice.new_task()
    if purged:
        await alice.delete("/task/1?forever=true")
    before = stored(alice, sql)
    for headers in ({}, {"Idempotency-Key": "k"}):
        answer = await send(alice, JSON, (await mallory.get("/export")).text, **headers)
        assert (answer.status, answer.json["type"]) == (409, "/docs/problems#account-in-use")
        assert answer.headers["X-Revision"] == ("2" if purged else "1")
    assert stored(alice, sql) == before


async def test_line_ends_blank_lines_and_a_bom_are_no_matter(alice: Person, newcomer: Newcomer) -> None:
    await busy(alice)
    export, again = (await alice.get("/export")).text, await newcomer("alice")
    assert (await send(again, JSON, "\ufeff" + export.replace("\n", "\r\n\r\n  "))).status == 200
    assert (await again.get("/export")).text == export


TAMPERED = [  # what is looked for, what is put there, and what is said of that line
    (r'"account"', '"acount"', "acount is not known here"),
    (r'(?<="last_task_id":)6', "-1", "last_task_id must be greater than or equal to 0"),
    (r'(?<="revision":)[0-9]+', "9007199254740993", "revision must be less than or equal to 9007199254740992"),
    (r'(?<="kept_from":)[0-9]+', "4711", "kept_from must not be later than revision"),
    (r'(?<="kept_from_at":")[^"]*', "9999-12-31T00:00:00Z", "kept_from_at must not be later than changed_at"),
    (r'(?<="purged":)1', "true", "purged must be a whole number"),
    (r'(?<="purged":)1,"changed_at":"[^"]+"', '1,"changed_at":"9999-12-31T00:00:00Z"', "changed_at must not lie in the future"),
    (r'"purged":1,', '"purged":1,"more":1,', "more is not known here"),
    (r'"tasks":\[', '"task":[', "task is not known here"),
    (r'"log":\[', '"logs":[', "logs is not known here"),
    (r'\{"id":2,', '{"id":1,', "id must be greater than that of the task before"),
    (r'\{"id":3,', '{"id":9223372036854775808,', "id must be less than or equal to"),
    (r'(?<=\{"id":1,"name":)"[^"]*"', f'"{"x" * 201}"', "name must have at most 200 characters"),
    (r'(?<=\{"id":1,"name":)"[^"]*"', '" "', "name must not be blank"),
    (r'(?<=\{"id":2,"name":)"', "", "is not what an export has there"),
    (r'(?<="status":")in_work', "done", "status must be 'new', 'planned', 'in_work' or 'completed'"),
    (r'(?<="status":")in_work', "completed", "completed_at must be there where the status is completed, and only there"),
    (r'(?<="created_at":")[^"]*', "yesterday", "created_at must be a moment as RFC 3339 writes it"),
    (r',"created_revision":2\b', "", "created_revision must be sent"),
    (r'\{"task_id":1,"revision":7,', '{"task_id":1,"revision":1,', "task 1, revision 1: "),
    (r'(?<="field":"status","old":)"planned"', '"in_work"', "task 1, revision 8: the old status is not what the entry before made it"),
    (r'(?<="field":"status","old":)"new"', '"gone"', "old must be 'new', 'planned', 'in_work' or 'completed'"),
    (r'"field":"status"', '"field":"priority"', "field must be 'name', 'description', 'status', 'completion_at', 'completed_at' or 'deleted_at'"),
    (r'\{"task_id":1,"revision":7,', '{"task_id":7,"revision":7,', "is of a task that there isn't"),
    (r'\{"task_id":1,"revision":8,', '{"task_id":1,"revision":7,', "revision and field must be greater than those of the entry before"),
    (r'(?<="field":"deleted_at","old":null,"new":)"[^"]*"', '"01-01-2020"', "new must be a moment as RFC 3339 writes it"),
    (r'(?<="field":"completion_at","old":null,"new":)"[^"]*"', '"30-02-2024"', "new must be a day that the calendar has"),
    (r"\]\}\n", "]}\nmore", "stands after the end"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "instead", "message"), TAMPERED)
async def test_an_export_that_is_not_as_it_was_is_refused_by_its_line(
    alice: Person, newcomer: Newcomer, sql: Sql, pattern: str, instead: str, message: str
) -> None:
    await busy(alice)
    export, again = (await alice.get("/export")).text, await newcomer("alice")
    place = re.search(pattern, export)
    assert place, export
    tampered = export[: place.start()] + instead + export[place.end() :]
    line = export[: place.start()].count("\n") + 1 + (pattern == r"\]\}\n")
    before = stored(again, sql)
    named = faults(await send(again, JSON, tampered))
    assert [True for where, words in named if where == f"line {line}" and words.startswith(message)], named
    assert named == sorted(named, key=lambda fault: int(fault[0].removeprefix("line ")))
    assert stored(again, sql) == before
    assert lines_left(sql, again) == 0


@pytest.mark.long
async def test_an_export_may_be_written_anew(alice: Person, newcomer: Newcomer, sql: Sql) -> None:
    make_tasks(sql, alice, 1500)
    await busy(alice)
    export = (await alice.get("/export")).text
    read = json.loads(export)
    turned = {name: read[name] if name == "account" else [dict(reversed(one.items())) for one in read[name]] for name in reversed(read)}
    for text in (json.dumps(read), json.dumps(read, indent=4), json.dumps(turned)):
        again = await newcomer("alice")
        answers = [await send(again, JSON, each, **{"Idempotency-Key": "once"}) for each in (text, json.dumps(turned))]
        assert [(answer.status, answer.text) for answer in answers] == [(200, answers[0].text)] * 2, "the same, in another order"
        assert (await again.get("/export")).text == export


async def test_the_longest_entry_is_taken_however_it_is_written(alice: Person, newcomer: Newcomer) -> None:
    await alice.new_task(description="\N{GRINNING FACE}" * 10_000)
    await alice.patch("/task/1", json={"description": "\N{SMILING FACE WITH OPEN MOUTH}" * 10_000})
    again = await newcomer("alice")
    text = json.dumps((await alice.get("/export")).json).replace('"account"', '"\\u0061ccount"')
    assert len(text) > 360_000
    assert (await send(again, JSON, text)).status == 200
    assert (await again.get("/export")).text == (await alice.get("/export")).text


@pytest.mark.long
async def test_what_comes_in_small_pieces_is_put_together_first(alice: Person) -> None:
    """Or each would be read again and again from where its item began."""

    class Dripping:
        content_length = None
        left = 3 * BYTES_PER_PIECE + 7

        @property
        def content(self) -> "Dripping":
            return self

        async def read(self, most: int) -> bytes:
            self.left -= 1
            return b"x" if self.left >= 0 else b""

    request: Any = Dripping()
    request.app = alice.client.app
    assert [len(piece) async for piece in read_pieces(request, 10**6)] == [BYTES_PER_PIECE] * 3 + [7]


ACCOUNT = '"last_task_id":0,"kept_from":0,"kept_from_at":"1970-01-01T00:00:00Z","purged":0,"changed_at":"1970-01-01T00:00:00Z"'
TWICE = '{"account":{"revision":0,"revision":0,' + ACCOUNT + "}}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"account":{},"account":{}}', "account must not stand twice"),
        ('{"tasks":[],"tasks":[]}', "tasks must not stand twice"),
        ('{"tasks":{}}', "tasks must be an array"),
        ('{"tasks":[],"account":[]}', "account must be an object"),
        ('{"tasks":[],"more":[]}', "more is not known here"),
        (TWICE, "revision must not stand twice"),
        (TWICE.replace("revision", "r\\u0065vision", 1), "revision must not stand twice"),
    ],
)
async def test_what_is_no_export_is_named(alice: Person, text: str, fault: str) -> None:
    assert faults(await send(alice, JSON, text))[-1] == ("line 1", fault)


async def test_an_export_without_tasks_goes_into_no_account_with_another_revision(alice: Person) -> None:
    account = ACCOUNT.replace('"last_task_id":0', '"last_task_id":2').replace('"purged":0', '"purged":2')
    empty = '{"account":{"revision":0,' + account + '},"tasks":[],"log":[]}'
    first, second = (
        empty.replace('"revision":0', f'"revision":{revision}').replace('"kept_from":0', f'"kept_from":{revision}') for revision in (100, 5)
    )
    assert (await send(alice, JSON, first, **{"Idempotency-Key": "first"})).json == done(0, 100, 0)
    refused = await send(alice, JSON, second, **{"Idempotency-Key": "second"})
    assert (refused.status, refused.json["type"], refused.headers["X-Revision"]) == (409, "/docs/problems#account-in-use", "100")
    assert (await alice.get("/export")).json["account"]["revision"] == 100


@pytest.mark.parametrize("missing", ["account", "tasks", "log"])
async def test_what_an_export_lacks_is_named(alice: Person, newcomer: Newcomer, missing: str) -> None:
    export = (await alice.get("/export")).json
    del export[missing]
    answer = await send(await newcomer("alice"), JSON, json.dumps(export))
    is_problem(answer, 400)
    assert answer.json["detail"] == f"It isn't the whole of an export: {missing} must be there."


async def test_what_no_line_has_is_named_with_the_first(alice: Person, newcomer: Newcomer) -> None:
    await alice.new_task()
    await alice.delete("/task/1")
    await alice.post("/task/1/restore")
    await alice.patch("/task/1", json={"name": "last"})
    lines = [line for line in (await alice.get("/export")).text.split("\n") if '"deleted_at","old"' not in line]
    assert faults(await send(await newcomer("alice"), JSON, "\n".join(lines))) == [("line 1", "revision 2: it is missing")]


async def test_a_part_of_an_export_is_never_taken_for_the_whole(alice: Person, newcomer: Newcomer, sql: Sql) -> None:
    await busy(alice)
    export, again = (await alice.get("/export")).text, await newcomer("alice")
    before = stored(again, sql)
    lines = export.split("\n")
    for n in range(len(lines) - 2):
        answer = await send(again, JSON, "\n".join(lines[:n]))
        is_problem(answer, 400)
    assert stored(again, sql) == before


async def test_many_lines_at_fault_are_named_up_to_a_hundred(alice: Person, newcomer: Newcomer, sql: Sql) -> None:
    make_tasks(sql, alice, 300)
    export = (await alice.get("/export")).text.replace('"status":"new"', '"status":"old"')
    named = faults(await send(await newcomer("alice"), JSON, export))
    assert [line for line, _ in named] == [f"line {n}" for n in range(3, 103)]


# Sheets and calendars


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CSV, SHEET + "Купить молоко,,planned,02-10-2020\r\n"),
        (CALENDAR, todo("SUMMARY:Купить молоко", "STATUS:NEEDS-ACTION", "X-TASK-STATUS:planned", "DUE;VALUE=DATE:20201002")),
    ],
)
async def test_a_file_creates_tasks(alice: Person, kind: str, body: str) -> None:
    await alice.new_task()
    answer = await send(alice, kind, body)
    assert (answer.status, answer.json, answer.headers["X-Revision"]) == (200, done(1, 2, 1), "2")
    task = (await alice.get("/task/2")).json
    assert (task["name"], task["description"], task["status"], task["completion_at"]) == ("Купить молоко", "", "planned", "02-10-2020")
    assert (task["created_at"], task["completed_at"], task["revision"]) == (task["updated_at"], None, 2)
    assert (await alice.get("/task/2/log")).json == []


async def test_what_is_created_is_as_post_would_have_it(alice: Person) -> None:
    rows = ["e\u0301,,completed,", "'=1+1,''x',new,2020-10-02", '"a ""b""","one\r\ntwo",in_work,']
    assert (await send(alice, CSV, SHEET + "\r\n".join(rows))).json["count"] == 3
    tasks = (await alice.get("/task")).json
    assert [task["name"] for task in tasks] == ["é", "=1+1", 'a "b"']
    assert [task["description"] for task in tasks] == ["", "'x'", "one\r\ntwo"]
    assert [task["completed_at"] for task in tasks] == [tasks[0]["created_at"], None, None]


@pytest.mark.parametrize(("form", "kind"), [("csv", CSV), ("ics", CALENDAR)])
async def test_what_went_out_comes_back_as_it_was(alice: Person, newcomer: Newcomer, form: str, kind: str) -> None:
    for n, text in enumerate(text for text in NASTY if text.strip()):
        status = ("new", "planned", "in_work", "completed")[n % 4]
        await alice.new_task(name=text, description=text * 2, status=status, completion_at="29-02-2024" if n % 2 else None)
    export = (await alice.get(f"/task?format={form}")).text
    answer = await send(alice, kind, export)
    revision = answer.json["revision"]
    assert answer.json == done(revision, revision, 0)  # nothing differed
    again = await newcomer("alice")
    assert (await send(again, kind, export)).json == done(0, revision, revision)
    fields = ("id", "name", "description", "status", "completion_at", "revision")
    theirs, ours = [[[task[name] for name in fields] for task in (await person.get("/task")).json] for person in (alice, again)]
    assert ours == theirs


async def test_a_uid_of_ours_changes_that_task_and_any_other_creates_one(alice: Person, mallory: Person, sql: Sql) -> None:
    for person in (alice, mallory):
        await person.new_task(name=f"of {person.login}", description="d", completion_at="02-10-2020")
    uids = [sheet(await person.get("/task?format=csv"))[0]["uid"] for person in (alice, mallory)]
    uids += [uids[1].upper(), f" {uids[1]}", f"0{uids[1]}", "99999999999999999999" + uids[1][1:], "x@y", ""]
    before = stored(alice, sql)
    answer = await send(mallory, CSV, "uid,name,status,description\r\n" + "".join(f"{uid},changed,new,\r\n" for uid in uids))
    assert answer.json == done(1, 9, 8)
    assert stored(alice, sql) == before
    changed, *created = (await mallory.get("/task")).json
    assert (changed["name"], changed["description"], changed["completion_at"]) == ("changed", "", "02-10-2020")
    assert [task["id"] for task in created] == list(range(2, 9))


async def test_changes_take_revisions_in_the_order_of_ids_and_one_moment(alice: Person) -> None:
    for n in range(3):
        await alice.new_task(name=f"{n}")
    uid = sheet(await alice.get("/task?format=csv"))[0]["uid"][1:]
    rows = f"uid,name,description,status\r\n3{uid},c,,new\r\n,new,,new\r\n1{uid},a,,completed\r\n2{uid},1,,new\r\n,newer,,completed\r\n"
    assert (await send(alice, CSV, rows)).json == done(3, 7, 4)
    tasks = (await alice.get("/task")).json
    assert [(task["id"], task["name"], task["revision"]) for task in tasks] == [
        (1, "a", 4), (2, "1", 2), (3, "c", 5), (4, "new", 6), (5, "newer", 7),
    ]  # fmt: skip
    assert len({task["updated_at"] for task in tasks if task["revision"] > 3}) == 1
    assert [entry["field"] for entry in (await alice.get("/task/1/log")).json] == ["name", "status"]
    undone = await alice.post("/task/undo", json={"since": 3})
    assert undone.json["count"] == 4
    assert [task["name"] for task in (await alice.get("/task")).json] == ["0", "1", "2"]


async def test_a_task_in_the_trash_comes_back(alice: Person) -> None:
    await alice.new_task(name="back")
    row = (await alice.get("/task?format=csv")).text
    await alice.delete("/task/1")
    assert (await send(alice, CSV, row)).json == done(2, 3, 1)
    assert (await alice.get("/task/1")).json["name"] == "back"


async def test_a_task_that_is_gone_is_created_anew_or_its_line_named(alice: Person) -> None:
    await alice.new_task(name="gone")
    row = (await alice.get("/task?format=csv")).text
    uid = sheet(await alice.get("/task?format=csv"))[0]["uid"]
    await alice.delete("/task/1?forever=true")
    answer = await send(alice, CSV, f"uid,name\r\n,\r\n{uid},x\r\n".replace(",\r\n", f"{uid},y\r\n", 1))
    assert faults(answer) == [("line 2", "is of a task that is not there: to create it, it needs name, description and status"),
                              ("line 3", "has the UID of line 2")]  # fmt: skip
    assert (await send(alice, CSV, row)).json["count"] == 1
    assert [(task["id"], task["name"]) for task in (await alice.get("/task")).json] == [(2, "gone")]


async def test_a_calendar_that_dropped_our_status_changes_it_only_where_it_must(alice: Person) -> None:
    for status in ("planned", "planned", "new"):
        await alice.new_task(status=status)
    text = (await alice.get("/task?format=ics")).text
    stripped = re.sub(r"X-TASK-STATUS:[^\r]*\r\n", "", text)
    assert (await send(alice, CALENDAR, stripped)).json["count"] == 0
    completed = re.sub(r"(UID:2-.*?)STATUS:NEEDS-ACTION", r"\1STATUS:COMPLETED", stripped, flags=re.DOTALL)
    assert (await send(alice, CALENDAR, completed)).json["count"] == 1
    assert [task["status"] for task in (await alice.get("/task")).json] == ["planned", "completed", "new"]
    assert (await send(alice, CALENDAR, text)).json["count"] == 1
    assert [task["status"] for task in (await alice.get("/task")).json] == ["planned", "planned", "new"]


@pytest.mark.parametrize(
    ("kind", "body", "named"),
    [
        (CSV, SHEET + ",,new,\r\n", [("line 2", "name must have at least 1 character(s)")]),
        (CSV, SHEET + "a,,new,\r\nb,,done,\r\n", [("line 3", "status must be 'new', 'planned', 'in_work' or 'completed'")]),
        (CSV, "name,description\r\na,\r\n", [("line 2", "status must be sent")]),
        (CSV, SHEET + f"{'x' * 201},,new,31-02-2020\r\n",
         [("line 2", "name must have at most 200 characters"), ("line 2", "completion_at must be a day that the calendar has")]),
        (CSV, SHEET + "a,,new,\r\nb\r\nc,,old,\r\n",
         [("line 3", "has 1 cells, where the first line names 4 columns"), ("line 4", "status must be 'new', 'planned', 'in_work' or 'completed'")]),
        (CSV, SHEET + "a,,old,\r\n\"broken", [("line 2", "status must be 'new', 'planned', 'in_work' or 'completed'"),
                                              ("line 3", "has a quotation mark that is never closed")]),
        (CSV, SHEET + "a,\0,new,\r\n", [("line 2", "description must not contain NUL")]),
        (CSV, "", [("line 1", "must name the columns")]),
        (CALENDAR, "", [("line 1", "must be BEGIN:VCALENDAR")]),
        (CALENDAR, todo("SUMMARY:" + "x" * 201), [("line 4", "SUMMARY must have at most 200 characters")]),
        (CALENDAR, todo("SUMMARY:a", "DUE;VALUE=DATE:18991231"), [("line 5", "DUE must be in the years 1900 to 9999")]),
        (CALENDAR, todo("SUMMARY:a", "DUE:20130931T000000Z"), [("line 5", "DUE must be a day that the calendar has")]),
        (CALENDAR, todo("DURATION:P1D", "SUMMARY:a") + todo("SUMMARY:b") + todo("STATUS:CANCELLED", "SUMMARY:c"),
         [("line 4", "DURATION is not taken: say by DUE when the task is to be completed"),
          ("line 17", "STATUS must be one of NEEDS-ACTION, IN-PROCESS, COMPLETED")]),
    ],
)  # fmt: skip
async def test_lines_that_cannot_be_taken_are_named_and_nothing_is_done(
    alice: Person, sql: Sql, kind: str, body: str, named: list[tuple[str, str]]
) -> None:
    await alice.new_task()
    before = stored(alice, sql)
    assert faults(await send(alice, kind, body)) == named
    assert stored(alice, sql) == before


# How it is sent


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonl"},
        {"Content-Type": "text/*"},
        {"Content-Type": ""},
    ],
)
async def test_a_file_of_another_type_is_refused(alice: Person, headers: dict[str, str]) -> None:
    is_problem(await alice.post("/import", data=b"name\r\n", headers=headers), 415)
    assert (await alice.post("/import", data=SHEET.encode(), headers={"Content-Type": "Text/CSV; charset=windows-1251"})).status == 200


async def test_a_file_in_a_coding_is_refused(alice: Person) -> None:
    request = request_of(alice, "POST /import", f"Content-Type: {CSV}", "Content-Encoding: gzip", body=SHEET.encode())
    assert (await exchange(alice.client, request)).startswith(b"HTTP/1.1 415 ")


async def test_a_file_that_is_too_large_is_refused(alice: Person, sql: Sql, start: Start) -> None:
    alice.client = await start(import_max_bytes=2000)

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 500):
            yield body[begin : begin + 500]

    fits = (SHEET + "a,,new,\r\n" * 1000)[: 1999 // 9 * 9].rpartition("\n")[0].encode()
    before = stored(alice, sql)
    for body in (fits + b"x" * (2001 - len(fits)), b"x" * 100_000):
        for sent in (body, pieces(body)):
            is_problem(await alice.post("/import", data=sent, headers={"Content-Type": CSV}), 413)
    assert stored(alice, sql) == before
    assert (await alice.post("/import", data=pieces(fits), headers={"Content-Type": CSV})).status == 200


async def test_a_file_may_be_larger_than_other_bodies(alice: Person) -> None:
    body = SHEET + f"a,{'x' * 10_000},new,\r\n" * 20
    assert len(body) > configured().max_body_bytes
    assert (await send(alice, CSV, body)).json["count"] == 20


def head(person: Person, length: int) -> bytes:
    lines = [
        "POST /import HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {person.token}",
        f"Content-Type: {CSV}",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.long
async def test_a_file_that_stops_coming_is_given_up(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer.entries.IDLE_SECONDS", 0.3)
    before = stored(alice, sql)
    async with connected(alice.client) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(head(alice, 10_000) + SHEET.encode())
        for _ in range(3):  # slowly is fine
            await asyncio.sleep(0.2)
            writer.write(b"a,,new,\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert stored(alice, sql) == before


async def test_a_client_that_goes_away_leaves_nothing(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "BYTES_PER_PART", 0)
    before = stored(alice, sql)
    async with connected(alice.client) as (_, writer):
        rows = b"a,,new,\r\n" * 2000  # more than a piece
        writer.write(head(alice, len(rows) + 1000) + SHEET.encode() + rows)
        await until(lambda: lines_left(sql, alice))
    await until(lambda: not lines_left(sql, alice))
    assert stored(alice, sql) == before


async def test_a_user_has_two_imports_at_once_and_the_third_waits(alice: Person, mallory: Person) -> None:
    assert alice.caller
    under_way = alice.client.app[imports.IMPORTS]._by_caller
    async with connected(alice.client) as (_, first):
        async with connected(alice.client) as (_, second):
            for writer in (first, second):
                writer.write(head(alice, 10_000) + SHEET.encode())
            await until(lambda: under_way[alice.caller] == 2)
            refused = await send(alice, CSV, SHEET + "a,,new,\r\n")
            is_problem(refused, 429)
            assert refused.headers["Retry-After"] == "15"
            assert (await send(mallory, CSV, SHEET + "a,,new,\r\n")).status == 200
        await until(lambda: under_way[alice.caller] == 1)
        assert (await send(alice, CSV, SHEET + "a,,new,\r\n")).json["count"] == 1
    await until(lambda: under_way[alice.caller] == 0)
    assert alice.caller not in under_way


async def test_what_was_swept_meanwhile_is_not_taken_for_the_whole(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    do = imports._do

    async def after_a_sweep(*arguments: Any) -> Any:
        sql("DELETE FROM import_row")
        return await do(*arguments)

    monkeypatch.setattr(imports, "_do", after_a_sweep)
    is_problem(await send(alice, CSV, SHEET + "a,,new,\r\n"), 408)
    assert (await alice.get("/task")).json == []


async def test_what_is_being_imported_is_not_swept(alice: Person, sql: Sql, server: Server) -> None:
    assert alice.caller
    sql("INSERT INTO import_row VALUES (%s, %s::uuid, 1, 'change', '[]', now() - interval '2 hours')", alice.caller.user_id, "0" * 32)
    with connection_to(server) as importing:
        importing("BEGIN")
        assert importing("SELECT refused FROM import_open(%s, %s, %s::uuid, 1, NULL, '')", *alice.caller, "0" * 32) == [(None,)]
        sql("SELECT leftover_sweep(10000)")
        assert lines_left(sql, alice) == 1
        importing("ROLLBACK")
    sql("SELECT leftover_sweep(10000)")
    assert lines_left(sql, alice) == 0


async def test_a_token_that_ends_meanwhile_ends_the_import(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alice.caller
    user_id = alice.caller.user_id
    do = imports._do

    async def after_an_end(*arguments: Any) -> Any:
        sql("UPDATE user_state SET token_generation = token_generation + 1 WHERE user_id = %s", user_id)
        return await do(*arguments)

    monkeypatch.setattr(imports, "_do", after_an_end)
    assert (await send(alice, CSV, SHEET + "a,,new,\r\n")).status == 401
    assert sql("SELECT count(*) FROM task WHERE user_id = %s", user_id) == [(0,)]
    assert lines_left(sql, alice) == 0


# Sent again


async def test_an_import_under_a_key_is_done_once(alice: Person) -> None:
    body = SHEET + "a,,new,\r\nb,,new,\r\n"
    first = await send(alice, CSV, body, **{"Idempotency-Key": "k"})
    await alice.new_task()
    for again in (body, body.replace("\r\n", "\n"), "\ufeff" + body, body.replace(",", ";"), body.replace("\r\n", "\r\n\r\n")):
        answer = await send(alice, CSV, again, **{"Idempotency-Key": '"k"'})
        assert (answer.status, answer.text, answer.headers["X-Revision"]) == (200, first.text, "3")
    assert len((await alice.get("/task")).json) == 3
    for other in (SHEET + "a,,new,\r\n", SHEET + "b,,new,\r\na,,new,\r\n"):
        answer = await send(alice, CSV, other, **{"Idempotency-Key": "k"})
        assert (answer.status, answer.json["type"]) == (422, "/docs/problems#key-reused")
    answer = await alice.post("/task", json={"name": "a", "description": "", "status": "new"}, headers={"Idempotency-Key": "k"})
    assert answer.status == 422
    assert (await send(alice, CSV, body)).json["count"] == 2  # without a key it is another one


async def test_an_export_under_a_key_is_imported_once(alice: Person, newcomer: Newcomer) -> None:
    await busy(alice)
    export, again = (await alice.get("/export")).text, await newcomer("alice")
    first = await send(again, JSON, export, **{"Idempotency-Key": "k"})
    assert first.status == 200
    assert (await send(again, JSON, export, **{"Idempotency-Key": "k"})).text == first.text
    assert (await send(again, JSON, export.replace('"purged":1', '"purged":2'), **{"Idempotency-Key": "k"})).status == 422
    assert (await again.get("/export")).text == export


async def test_of_imports_at_once_under_a_key_one_is_done(alice: Person) -> None:
    body = SHEET + "a,,new,\r\n" * 50
    answers = await asyncio.gather(*(send(alice, CSV, body, **{"Idempotency-Key": "k"}) for _ in range(imports.MAX_IMPORTS_PER_USER)))
    assert {(answer.status, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert len((await alice.get("/task")).json) == 50


async def test_a_refusal_is_not_kept(alice: Person) -> None:
    assert (await send(alice, CSV, SHEET + "a,,old,\r\n", **{"Idempotency-Key": "k"})).status == 400
    assert (await send(alice, CSV, SHEET + "a,,new,\r\n", **{"Idempotency-Key": "k"})).status == 200


# Large accounts


@pytest.mark.long
async def test_a_large_account_goes_through_in_little_memory(alice: Person, newcomer: Newcomer, sql: Sql) -> None:
    """A worker's memory, with a hundred times as much, is measured by `make bench ARGS=--transfer`."""
    again, tasks = await newcomer("alice"), 3000
    assert alice.caller
    for statement in history(alice.caller.user_id, tasks, 10):
        sql(statement)
    digests, most = [], 0
    tracemalloc.start()
    try:
        for source, target in ((alice, again), (again, None)):
            digest = sha256()

            async def body(source: Person = source, digest: Any = digest) -> AsyncIterator[bytes]:
                headers = {"Authorization": f"Bearer {source.token}"}
                async with source.client.get("/export", headers=headers) as response:
                    async for piece in response.content.iter_any():
                        digest.update(piece)
                        yield piece

            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            if target:
                answer = await target.post("/import", data=body(), headers={"Content-Type": JSON})
                assert (answer.status, answer.json) == (200, done(0, 11 * tasks, tasks))
            else:
                async for _ in body():
                    pass
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
            digests.append(digest.hexdigest())
    finally:
        tracemalloc.stop()
    assert digests[0] == digests[1]
    assert most < 16 * 2**20

"""What an import passes over, and tells of: what no task is, and with `skip=true` also what can't be taken."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Answer, Person
from tests.rest.test_bodies import is_problem
from tests.transfer.test_imports import JSON, SHEET, faults, send, stored, todo
from tests.transfer.test_transfer import CALENDAR, CSV, sheet

Sql = Callable[..., list[tuple[Any, ...]]]
SKIP = "?skip=true"
EVENT = "BEGIN:VEVENT\r\nSUMMARY:Party\r\nEND:VEVENT\r\n"


def told(answer: Answer) -> list[tuple[int, str, str]]:
    """Return what was passed over."""
    assert answer.status == 200, answer
    skipped = [(one["line"], one["code"], one["reason"]) for one in answer.json["skipped"]]
    assert len(skipped) == min(answer.json["skipped_count"], 100)
    return skipped


async def names(person: Person) -> list[str]:
    return [task["name"] for task in (await person.get("/task")).json]


async def test_what_is_no_task_is_passed_over_and_told_of(alice: Person) -> None:
    body = todo("SUMMARY:a", "X-FOO_BAR:1").replace("END:VCALENDAR", EVENT + "BEGIN:X_OTHER\r\nEND:X_OTHER\r\nEND:VCALENDAR")
    answer = await send(alice, CALENDAR, body)
    assert told(answer) == [
        (7, "not_a_task", "begins a VEVENT: only a VTODO is a task"),
        (10, "not_a_task", "begins a X_OTHER: only a VTODO is a task"),
    ]
    assert (answer.json["count"], await names(alice)) == (1, ["a"])


async def test_a_calendar_without_tasks_does_nothing_and_says_so(alice: Person) -> None:
    answer = await send(alice, CALENDAR, "BEGIN:VCALENDAR\r\n" + EVENT + "END:VCALENDAR\r\n")
    assert (answer.json["count"], answer.json["revision"], len(told(answer))) == (0, 0, 1)


async def test_a_recurring_one_of_hundreds_is_taken_once_and_told_of(alice: Person) -> None:
    body = "".join(todo(f"UID:{n}", f"SUMMARY:{n}", *(["RRULE:FREQ=DAILY"] if n == 150 else [])) for n in range(1, 301))
    answer = await send(alice, CALENDAR, body)
    assert told(answer) == [(149 * 7 + 6, "recurrence_not_kept", "a task of ours doesn't recur: it is taken once, without its rule")]
    assert await names(alice) == [str(n) for n in range(1, 301)]


async def test_very_much_is_counted_and_a_hundred_told_of(alice: Person) -> None:
    answer = await send(alice, CALENDAR, "BEGIN:VCALENDAR\r\n" + EVENT * 1000 + "END:VCALENDAR\r\n")
    assert answer.json["skipped_count"] == 1000
    assert [line for line, *_ in told(answer)] == [2 + 3 * n for n in range(100)]


ROWS = SHEET + f'a,,new,\r\n{"x" * 201},,old,\r\nshort\r\nb,,new,31-02-2020\r\nc,,new,\r\n"d" e,,new,\r\n'


async def test_rows_that_cannot_be_taken_are_skipped_where_it_is_wished(alice: Person, sql: Sql) -> None:
    before = stored(alice, sql)
    for query in ("", "?skip=false"):
        assert [line for line, _ in faults(await send(alice, CSV, ROWS, query))] == ["line 3", "line 3", "line 4", "line 5", "line 7"]
    assert stored(alice, sql) == before
    answer = await send(alice, CSV, ROWS, SKIP)
    assert told(answer) == [
        (3, "not_taken", "name must have at most 200 characters; status must be 'new', 'planned', 'in_work' or 'completed'"),
        (4, "not_taken", "has 1 cells, where the first line names 4 columns"),
        (5, "not_taken", "completion_at must be a day that the calendar has"),
        (7, "not_taken", "is not CSV: a cell with a line end or a quotation mark in it must stand in quotation marks"),
    ]
    assert (answer.json["count"], await names(alice)) == (2, ["a", "c"])


async def test_entries_that_cannot_be_taken_are_skipped_where_it_is_wished(alice: Person) -> None:
    body = todo("SUMMARY:a") + todo("SUMMARY:b", "STATUS:CANCELLED", "DUE:x") + todo("SUMMARY:" + "x" * 201) + todo("SUMMARY:c")
    body += todo("SUMMARY:d", "no colon")
    assert [line for line, _ in faults(await send(alice, CALENDAR, body))] == ["line 11", "line 12", "line 18", "line 31"]
    answer = await send(alice, CALENDAR, body, SKIP)
    assert [(line, code) for line, code, _ in told(answer)] == [(9, "not_taken"), (17, "not_taken"), (29, "not_taken")]
    assert told(answer)[0][2] == "STATUS must be one of NEEDS-ACTION, IN-PROCESS, COMPLETED; DUE must be a date, or a date and a time"
    assert await names(alice) == ["a", "c"]


async def test_more_than_a_hundred_may_be_skipped(alice: Person) -> None:
    answer = await send(alice, CSV, SHEET + "a,,old,\r\n" * 500 + "b,,new,\r\n", SKIP)
    assert (answer.json["skipped_count"], len(told(answer)), await names(alice)) == (500, 100, ["b"])


async def test_what_is_found_to_be_wrong_at_the_end_is_skipped_too(alice: Person) -> None:
    await alice.new_task(name="gone")
    await alice.new_task(name="there")
    gone, there = (row["uid"] for row in sheet(await alice.get("/task?format=csv")))
    await alice.delete("/task/1?forever=true")
    rows = f"uid,name,status\r\n{gone},x,new\r\n{there},y,old\r\n{there},z,new\r\n" + f"{there},again,new\r\n" * 200
    assert [line for line, _ in faults(await send(alice, CSV, rows.replace("old", "new")))] == [f"line {n}" for n in (2, *range(4, 103))]
    answer = await send(alice, CSV, rows, SKIP)
    assert (answer.json["count"], answer.json["skipped_count"]) == (1, 202)
    assert told(answer)[:3] == [
        (2, "not_taken", "is of a task that is not there: to create it, it needs name, description and status"),
        (3, "not_taken", "status must be 'new', 'planned', 'in_work' or 'completed'"),
        (5, "not_taken", "has the UID of line 4"),
    ]
    assert await names(alice) == ["z"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CSV, SHEET + 'a,,new,\r\n"broken'),
        (CSV, "nam\r\na\r\n"),
        (CALENDAR, todo("SUMMARY:a") + "x"),
        (CSV, SHEET.encode() + b"\xff,,new,"),
    ],
)
async def test_a_file_that_is_broken_is_refused_all_the_same(alice: Person, kind: str, body: str) -> None:
    faults(await send(alice, kind, body, SKIP))
    assert await names(alice) == []


async def test_an_export_is_restored_as_a_whole_or_not_at_all(alice: Person) -> None:
    answer = await send(alice, JSON, (await alice.get("/export")).text, SKIP)
    is_problem(answer, 400)
    assert answer.json["errors"][0]["field"] == "skip"


@pytest.mark.parametrize("query", ["?skip=", "?skip=yes", "?skip=true&skip=true", "?skp=true"])
async def test_another_query_is_refused(alice: Person, query: str) -> None:
    is_problem(await send(alice, CSV, SHEET, query), 400)


async def test_under_a_key_the_same_is_told_again_and_skip_is_part_of_it(alice: Person) -> None:
    key = {"Idempotency-Key": "k"}
    first = await send(alice, CSV, ROWS, SKIP, **key)
    assert len(told(first)) == 4
    again = await send(alice, CSV, ROWS.replace("\r\n", "\n"), SKIP, **key)
    assert (again.status, again.text) == (200, first.text)
    for other, query in (
        (ROWS.replace("old", "older"), SKIP),
        (ROWS.replace("short", "shorter"), SKIP),
        (SHEET + "a,,new,\r\nc,,new,\r\n", ""),
    ):
        assert (await send(alice, CSV, other, query, **key)).status == 422
    assert await names(alice) == ["a", "c"]


async def test_calendars_that_differ_in_what_is_wrong_are_not_the_same(alice: Person) -> None:
    for day, status in (("x", 200), ("x", 200), ("y", 422)):
        body = todo("SUMMARY:a", f"DUE:{day}")
        assert (await send(alice, CALENDAR, body, SKIP, **{"Idempotency-Key": "k"})).status == status


async def test_a_task_of_ours_keeps_its_name_where_the_calendar_has_none(alice: Person) -> None:
    await alice.new_task(name="Milk", description="two litres")
    body = (await alice.get("/task?format=ics")).text.replace("SUMMARY:Milk\r\n", "")
    assert (await send(alice, CALENDAR, body)).json["count"] == 0
    assert (await send(alice, CALENDAR, todo("DESCRIPTION:two litres"))).json["count"] == 1
    assert await names(alice) == ["Milk", "two litres"]

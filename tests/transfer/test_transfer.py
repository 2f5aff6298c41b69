"""In and out: listings as CSV and iCalendar, whole accounts."""

import asyncio
import csv
import io
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import icalendar
import pytest
from aiohttp import ClientPayloadError

from postgres.database import MAX_HEAVY_AT_ONCE
from rest import overload
from rest.bodies import JSON
from rest.errors import Conflict
from rest.values import MAX_PER_PAGE
from tasks import listing
from tasks.schemas import TaskQuery
from tests.conftest import Answer, Person, create_tasks, let_happen_before
from tests.rest.test_bodies import is_problem
from tests.waiting import PATIENCE_SECONDS, connected, until
from transfer import exports
from transfer.json_format import Export

Sql = Callable[..., list[tuple[Any, ...]]]
CSV, CALENDAR = "text/csv", "text/calendar"


def sheet(answer: Answer) -> list[dict[str, str]]:
    """Return the rows of a CSV answer, as a spreadsheet has them."""
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"), newline="")))


def todos(answer: Answer) -> list[icalendar.Todo]:
    """Return the VTODOs of an iCalendar answer."""
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "text/calendar; charset=utf-8"
    return icalendar.Calendar.from_ical(answer.text).todos


def make_tasks(sql: Sql, person: Person, count: int) -> None:
    """Make many tasks at once."""
    assert person.caller
    create_tasks(sql, person.caller, count)


async def read(form: str, person: Person, **query: Any) -> tuple[listing.Listed, Any]:
    assert person.caller
    asked = listing.TaskListing(person.service, person.caller, TaskQuery(**query))
    return await exports.list_in_form(asked, exports.FORMS[form], whole=True)


def names(parts: list[bytes]) -> list[str]:
    return [row["name"] for row in csv.DictReader(io.StringIO(b"".join(parts).decode("utf-8-sig"), newline=""))]


# Listings in other forms


async def test_a_listing_opens_in_a_spreadsheet(alice: Person) -> None:
    task = await alice.new_task(name='=1+1 "Молоко", ё', description="one\r\ntwo", completion_at="02-10-2020")
    [row] = sheet(await alice.get("/task?format=csv"))
    uid = row.pop("uid")
    assert uid.startswith("1-")
    assert row == {name: "" if value is None else str(value) for name, value in task.items()} | {"name": "'" + task["name"]}


async def test_a_listing_opens_in_a_calendar(alice: Person) -> None:
    await alice.new_task(name="Молоко; ё", description="one\ntwo", completion_at="02-10-2020", status="planned")
    [todo] = todos(await alice.get("/task?format=ics"))
    assert (todo["SUMMARY"], todo["DESCRIPTION"]) == ("Молоко; ё", "one\ntwo")
    assert (todo["STATUS"], todo["X-TASK-STATUS"], todo["DUE"].to_ical()) == ("NEEDS-ACTION", "planned", b"20201002")


async def test_a_uid_is_the_same_every_time_and_nobody_elses(alice: Person, mallory: Person) -> None:
    for person in (alice, mallory):
        await person.new_task()
    before = todos(await alice.get("/task?format=ics"))[0]["UID"]
    await alice.patch("/task/1", json={"name": "another", "status": "completed"})
    assert todos(await alice.get("/task?format=ics"))[0]["UID"] == before
    assert sheet(await alice.get("/task?format=csv"))[0]["uid"] == before
    assert todos(await mallory.get("/task?format=ics"))[0]["UID"] != before


@pytest.mark.parametrize(
    ("query", "accept", "media_type"),
    [
        ("", None, JSON),
        ("", "*/*", JSON),
        ("", "text/html,*/*;q=0.8", JSON),
        ("", CSV, CSV),
        ("", "text/calendar;q=0.9, text/csv;q=0.8", CALENDAR),
        ("?format=csv", None, CSV),
        ("?format=ics", CSV, CALENDAR),
        ("?format=json", CSV, JSON),
        ("?limit=1", CSV, CSV),
        ("?since=0", CSV, JSON),
    ],
)
async def test_the_parameter_says_in_which_form_or_else_accept_does(alice: Person, query: str, accept: str | None, media_type: str) -> None:
    await alice.new_task()
    answer = await alice.get("/task" + query, headers={"Accept": accept} if accept else {})
    assert answer.status == 200
    assert answer.headers["Content-Type"].partition(";")[0] == media_type
    assert answer.headers["Vary"] == "Authorization, Accept"
    assert answer.headers["X-Revision"] == "1"


@pytest.mark.parametrize("query", ["format=xml", "format=CSV", "format=csv&format=csv", "since=0&format=csv"])
async def test_another_form_is_refused(alice: Person, query: str) -> None:
    is_problem(await alice.get(f"/task?{query}"), 400)


async def test_filters_and_orders_hold_in_every_form(alice: Person) -> None:
    for name, status in (("b milk", "new"), ("a milk", "completed"), ("c milk", "new"), ("bread", "new")):
        await alice.new_task(name=name, status=status)
    await alice.patch("/task/1", json={"name": "d milk"})
    await alice.delete("/task/4")
    for query in ("q=milk&status=new&sort=-name", "status=completed", "revision=4&sort=name", "deleted=true", "q=nothing"):
        listed = [task["name"] for task in (await alice.get(f"/task?{query}")).json]
        assert [row["name"] for row in sheet(await alice.get(f"/task?{query}&format=csv"))] == listed, query
        assert [todo["SUMMARY"] for todo in todos(await alice.get(f"/task?{query}&format=ics"))] == listed, query


async def test_with_a_limit_there_are_pages(alice: Person, sql: Sql) -> None:
    make_tasks(sql, alice, 5)
    path, found = "/task?format=csv&limit=2&sort=-id", []
    for _ in range(3):
        answer = await alice.get(path)
        found += [row["id"] for row in sheet(answer)]
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert (found, path) == (["5", "4", "3", "2", "1"], "")


@pytest.mark.parametrize("sort", ["id", "-updated_at"])
async def test_without_a_limit_there_is_all_of_it(alice: Person, sql: Sql, sort: str) -> None:
    make_tasks(sql, alice, 2 * MAX_PER_PAGE + 1)
    answer = await alice.get(f"/task?format=csv&sort={sort}")
    ids = [int(row["id"]) for row in sheet(answer)]
    assert ids == sorted(range(1, 2 * MAX_PER_PAGE + 2), reverse=sort != "id")
    assert "Link" not in answer.headers


async def test_all_of_it_is_as_of_one_revision(alice: Person, sql: Sql) -> None:
    make_tasks(sql, alice, 2 * MAX_PER_PAGE + 1)
    first, body = await read("csv", alice, sort="name")
    before = [await anext(body), await anext(body)]
    last = (await alice.get("/task?sort=-name&limit=1")).json[0]["id"]
    await alice.patch(f"/task/{last}", json={"name": "as of another revision"})
    await alice.delete(f"/task/{last - 1}")
    await alice.new_task(name="zzz")
    listed = names([*before, *[part async for part in body]])
    assert listed == sorted(f"task {n}" for n in range(1, 2 * MAX_PER_PAGE + 2))
    assert first.state.user_revision == 2 * MAX_PER_PAGE + 1


async def test_a_trash_that_changes_meanwhile_breaks_off(alice: Person, sql: Sql) -> None:
    make_tasks(sql, alice, MAX_PER_PAGE + 1)
    await alice.post("/task/undo", json={"since": 0})
    _, body = await read("csv", alice, deleted=True)
    await anext(body)
    await alice.post("/task/1/restore")
    with pytest.raises(Conflict):
        [part async for part in body]


async def test_each_form_has_a_tag_of_its_own(alice: Person) -> None:
    await alice.new_task()
    paths = ["/task", "/task?format=csv", "/task?format=ics", "/task?format=csv&limit=1000", "/task?format=csv&sort=name"]
    tags = [(await alice.get(path)).headers["ETag"] for path in paths]
    assert len(set(tags)) == len(tags)
    assert (await alice.get("/task", headers={"Accept": CSV})).headers["ETag"] not in tags[:1]
    for path, tag in zip(paths, tags, strict=True):
        for known in (tag, "*"):
            answer = await alice.get(path, headers={"If-None-Match": known})
            assert (answer.status, answer.text, answer.headers["ETag"]) == (304, "", tag)
            assert (answer.headers["X-Revision"], answer.headers["X-Purged"]) == ("1", "0")
    await alice.patch("/task/1", json={"name": "another"})
    assert (await alice.get(paths[1], headers={"If-None-Match": tags[1]})).status == 200


@pytest.mark.parametrize("form", ["csv", "ics"])
async def test_a_browser_keeps_it_as_a_file(alice: Person, form: str) -> None:
    await alice.new_task()
    for query in (f"?format={form}", f"?format={form}&limit=1"):
        assert (await alice.get("/task" + query)).headers["Content-Disposition"] == f'attachment; filename="tasks.{form}"'
    assert "Content-Disposition" not in (await alice.get("/task")).headers


@pytest.mark.parametrize("query", ["format=csv&", ""])
async def test_cells_are_separated_as_one_wishes(alice: Person, query: str) -> None:
    for name in ("a,b;c", "second", "third"):
        await alice.new_task(name=name)
    headers = {} if query else {"Accept": CSV}
    plain = await alice.get(f"/task?{query}", headers=headers)
    answer = await alice.get(f"/task?{query}separator=;", headers=headers)
    assert (answer.headers["Content-Type"], answer.headers["Content-Disposition"]) == (
        "text/csv; charset=utf-8",
        'attachment; filename="tasks.csv"',
    )
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"), newline=""), delimiter=";"))
    assert rows == sheet(plain)
    assert answer.headers["ETag"] != plain.headers["ETag"]
    again = await alice.get(f"/task?{query}separator=%3B", headers=headers | {"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304
    comma = await alice.get(f"/task?{query}separator=,", headers=headers)
    assert comma.text == plain.text
    assert (await alice.post("/import", data=answer.text.encode(), headers={"Content-Type": CSV})).json["count"] == 0
    path, found = f"/task?{query}separator=;&limit=2", []
    for _ in range(2):
        page = await alice.get(path, headers=headers)
        found += list(csv.DictReader(io.StringIO(page.text.removeprefix("\ufeff"), newline=""), delimiter=";"))
        path = page.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert (found, path) == (rows, "")


@pytest.mark.parametrize(
    "query",
    ["separator=;", "format=ics&separator=;", "format=json&separator=;", "since=0&separator=;", "since=0&separator=,", "separator=,",
     "format=csv&separator=", "format=csv&separator=%09", "format=csv&separator=;&separator=;"],
)  # fmt: skip
async def test_where_there_are_no_cells_a_separator_is_refused(alice: Person, query: str) -> None:
    answer = await alice.get(f"/task?{query}")
    is_problem(answer, 400)
    assert {error["field"] for error in answer.json["errors"]} <= {"separator", "since"}


@pytest.mark.parametrize("form", ["csv", "ics"])
async def test_head_says_what_get_would(alice: Person, form: str) -> None:
    await alice.new_task()
    get, head = [await alice(method, f"/task?format={form}") for method in ("GET", "HEAD")]
    differing = {"Date", "X-Request-ID", "Transfer-Encoding"}
    assert [(name, value) for name, value in head.headers.items() if name not in differing] == [
        (name, value) for name, value in get.headers.items() if name not in differing
    ]
    assert (head.status, head.text) == (200, "")


@pytest.mark.long
async def test_a_reader_that_takes_nothing_is_given_up(
    alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rest.streamed_response.IDLE_SECONDS", 0.2)
    make_tasks(sql, alice, 300)
    assert alice.caller
    sql("UPDATE task SET look = 0, description = repeat('x', 10000) WHERE user_id = %s", alice.caller.user_id)
    request = f"GET /task?format=csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n\r\n".encode()
    async with connected(alice.client, limit=1024) as (reader, writer):
        writer.write(10 * request)  # more than the buffers on the way hold
        await until(lambda: "the client took too long" in caplog.text)
        received = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                received = await reader.read()
    assert not received.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.long
@pytest.mark.parametrize("form", ["csv", "ics", "export"])
async def test_while_a_client_reads_a_part_nothing_else_is_kept(alice: Person, sql: Sql, form: str) -> None:
    make_tasks(sql, alice, 500)
    assert alice.caller
    description = "ж" * 9_999 + "\U0001f600"  # as a text it takes twice as much as its bytes do
    sql("UPDATE task SET look = 0, description = %s WHERE user_id = %s", description, alice.caller.user_id)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        if form == "export":
            body = exports.export(alice.service, alice.caller, await exports.get_account(alice.service, alice.caller))
        else:
            _, body = await read(form, alice)
        await anext(body)  # the head
        parts = 0
        async for part in body:
            parts += 1
            assert tracemalloc.get_traced_memory()[0] < before + len(part) + 2**18
            assert len(part) < 2.2 * 2**20
        assert parts > 5
    finally:
        tracemalloc.stop()


async def test_one_page_of_one_user_is_fetched_and_converted_at_once(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else those that wait to be converted would be in memory all together."""
    await alice.new_task()
    convert, turns = exports._convert, alice.service.database.heavy_turns
    at_once = most = 0

    async def counted(*arguments: Any) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        return await convert(*arguments)

    monkeypatch.setattr(exports, "_convert", counted)
    answers = await asyncio.gather(*(alice.get(f"/task?format={form}") for form in 8 * ("csv", "ics")))
    assert {answer.status for answer in answers} == {200}
    assert (most, at_once) == (1, 0)
    async with AsyncExitStack() as others:
        for n in range(MAX_HEAVY_AT_ONCE):
            await others.enter_async_context(turns.of(f"other {n}"))
        waiting = [asyncio.create_task(alice.get(path)) for path in ("/task?format=csv", "/export")]
        await asyncio.sleep(0.1)
        assert not any(each.done() for each in waiting)
    assert [(await each).status for each in waiting] == [200, 200]


# The whole account


async def busy(person: Person) -> None:
    """Make somebody's account one in which everything has happened: texts of all kinds, the trash, a purge, an undo."""
    for number, name in enumerate(("Купить молоко", '"=1+1"\n\\', "👩‍👩‍👧 e\u0301", "\u0001\u007f\u2028", "to be purged", "deleted")):
        await person.new_task(name=name, description=name * number, status="completed" if number % 2 else "new")
    await person.patch("/task/1", json={"name": "Купить хлеб", "completion_at": "29-02-2024", "status": "planned"})
    await person.patch("/task/1", json={"description": "x" * 10_000, "completion_at": None, "status": "completed"})
    await person.delete("/task/2")
    await person.post("/task/2/restore")
    await person.delete("/task/5?forever=true")
    await person.delete("/task/6")
    await person.post("/task/undo", json={"since": (await person.get("/task")).headers["X-Revision"]})
    await person.post("/task/2/restore", json={"revision": 2})
    await person.patch("/task/3", json={"status": "in_work"})


async def exported(person: Person) -> list[bytes]:
    assert person.caller
    return [part async for part in exports.export(person.service, person.caller, await exports.get_account(person.service, person.caller))]


async def test_an_export_has_everything_each_on_its_line(alice: Person) -> None:
    await busy(alice)
    answer = await alice.get("/export")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="tasks.json"'
    account, tasks, log = answer.json["account"], answer.json["tasks"], answer.json["log"]
    Export.model_validate_json(answer.text)
    assert (account["revision"], account["last_task_id"], account["purged"]) == (int(answer.headers["X-Revision"]), 6, 1)
    assert account["kept_from"] == next(entry for entry in log if entry["task_id"] == 6)["revision"] - 1
    listed = (await alice.get("/task")).json + (await alice.get("/task?deleted=true")).json
    assert [{name: task[name] for name in task if name != "created_revision"} for task in tasks] == listed
    whole_log = (await alice.get("/task/log")).json
    assert sorted(log, key=repr) == sorted(whole_log, key=repr)
    lines = answer.text.split("\n")
    assert [json.loads(line.removesuffix(",")) for line in lines if line.startswith('{"id"')] == tasks
    assert [json.loads(line.removesuffix(",")) for line in lines if line.startswith('{"task_id"')] == log
    assert (await alice.get("/export")).text == answer.text


async def test_an_empty_account_has_an_export_too(alice: Person) -> None:
    answer = await alice.get("/export")
    assert (answer.json["tasks"], answer.json["log"], answer.json["account"]["revision"]) == ([], [], 0)


async def test_an_export_is_as_of_the_revision_at_its_start(alice: Person, sql: Sql) -> None:
    make_tasks(sql, alice, 1001)
    await alice.patch("/task/1001", json={"name": "before"})
    await alice.delete("/task/1000")
    whole = b"".join(await exported(alice))
    assert alice.caller
    body = exports.export(alice.service, alice.caller, await exports.get_account(alice.service, alice.caller))
    begun = [await anext(body), await anext(body)]
    assert b'{"id":1001,' not in b"".join(begun)
    await alice.patch("/task/1001", json={"name": "after", "status": "completed"})
    await alice.post("/task/1000/restore")
    await alice.delete("/task/1")
    await alice.new_task()
    assert b"".join([*begun, *[part async for part in body]]) == whole


async def test_a_long_log_goes_out_in_parts(alice: Person) -> None:
    await alice.new_task()
    for n in range(40):
        await alice.patch("/task/1", json={"description": f"{n}" + "\x01" * 9_000, "name": f"{n}"})
    parts = await exported(alice)
    assert max(map(len, parts)) < 500_000
    assert len(json.loads(b"".join(parts))["log"]) == 80


@pytest.mark.parametrize("how", ["a purge", "a purge from the trash", "another generation"])
async def test_what_would_make_an_export_wrong_breaks_the_connection(
    alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    for _ in range(3):
        await alice.new_task()
    await alice.delete("/task/1")
    await alice.patch("/task/3", json={"name": "later"})
    assert alice.caller
    user_id = alice.caller.user_id

    async def meanwhile() -> None:
        monkeypatch.undo()  # it happens once
        if how == "another generation":
            sql("UPDATE user_state SET token_generation = token_generation + 1 WHERE user_id = %s", user_id)
        else:
            assert (await alice.delete(f"/task/{1 if 'trash' in how else 2}?forever=true")).status == 204

    let_happen_before(monkeypatch, exports._EXPORTED_LOG, meanwhile)
    with pytest.raises(ClientPayloadError):
        await alice.get("/export")
    assert ("an answer was broken off" in caplog.text, "unexpected" in caplog.text) == (True, False)


async def test_an_export_has_a_tag(alice: Person) -> None:
    await alice.new_task()
    tag = (await alice.get("/export")).headers["ETag"]
    for known in (tag, "*"):
        answer = await alice.get("/export", headers={"If-None-Match": known})
        assert (answer.status, answer.text, answer.headers["ETag"], answer.headers["X-Revision"]) == (304, "", tag, "1")
    await alice.delete("/task/1?forever=true")
    assert (await alice.get("/export", headers={"If-None-Match": tag})).status == 200


async def test_a_file_may_take_longer_than_a_request(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alice.client.app
    monkeypatch.setattr(alice.client.app[overload.UNDER_WAY], "_seconds", 0.2)

    async def slowly() -> AsyncIterator[bytes]:
        for piece in (b"name,description,status\r\n", b"a,,new\r\n", b"b,,new\r\n"):
            await asyncio.sleep(0.15)
            yield piece

    answer = await alice.post("/import", data=slowly(), headers={"Content-Type": "text/csv"})
    assert (answer.status, answer.json["count"]) == (200, 2)

"""The history of a task."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Answer, Person

Sql = Callable[..., list[tuple[Any, ...]]]

FIELDS = ("name", "description", "status", "completion_at")
FULL = {"name": "a", "description": "b", "status": "planned", "completion_at": "03-11-2021"}


def values(log: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(entry["field"], entry["old"], entry["new"]) for entry in log]


async def log_of(person: Person, task_id: int = 1) -> list[dict[str, Any]]:
    answer = await person.get(f"/task/{task_id}/log")
    assert answer.status == 200
    assert "Link" not in answer.headers
    log: list[dict[str, Any]] = answer.json
    return log


async def pages_of(person: Person, path: str) -> list[Answer]:
    """Follow the links from a page to the last."""
    pages = [await person.get(path)]
    while "Link" in pages[-1].headers:
        pages.append(await person.get(next_of(pages[-1])))
    assert {page.status for page in pages} == {200}
    return pages


def next_of(page: Answer) -> str:
    address, relation = page.headers["Link"].split("; ")
    assert (address[:2], address[-1], relation) == ("</", ">", 'rel="next"')
    return str(address[1:-1])


# Entries


async def test_a_change_is_logged_field_by_field(alice: Person) -> None:
    task = await alice.new_task(name="old")
    await alice.patch("/task/1", json={"name": "new", "status": "planned"})
    log = (await alice.get("/task/1/log")).json
    assert [(entry["field"], entry["old"], entry["new"]) for entry in log] == [("name", "old", "new"), ("status", "new", "planned")]
    assert {entry["revision"] for entry in log} == {task["revision"] + 1}


async def test_an_entry_has_these_keys_and_the_changes_revision_and_moment(alice: Person) -> None:
    await alice.new_task(name="old")
    task = (await alice.patch("/task/1", json={"name": "new"})).json
    entry = {"revision": 2, "changed_at": task["updated_at"], "field": "name", "old": "old", "new": "new"}
    assert await log_of(alice) == [entry]
    assert list((await log_of(alice))[0]) == list(entry)


@pytest.mark.parametrize("status", ["new", "completed"])
async def test_a_creation_writes_no_entry(alice: Person, status: str) -> None:
    await alice.new_task(status=status, completion_at="02-10-2020")
    assert await log_of(alice) == []


@pytest.mark.parametrize("sent", [FIELDS, FIELDS[::-1]])
async def test_the_entries_of_a_revision_come_in_the_order_of_the_fields(alice: Person, sent: tuple[str, ...]) -> None:
    await alice.new_task()
    await alice.patch("/task/1", json={field: FULL[field] for field in sent})
    assert [entry["field"] for entry in await log_of(alice)] == list(FIELDS)


async def test_entries_come_oldest_first(alice: Person) -> None:
    await alice.new_task()
    for n in range(2, 13):  # as text, 10 would come before 9
        await alice.patch("/task/1", json={"name": str(n)})
    assert [(entry["revision"], entry["new"]) for entry in await log_of(alice)] == [(n, str(n)) for n in range(2, 13)]


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("completion_at", None, "02-10-2020"),
        ("completion_at", "29-02-2024", "01-01-1900"),
        ("completion_at", "31-12-9999", None),
        ("description", "", 'quo"tes, back\\slashes\nand lines'),
        ("description", "x" * 10_000, ""),
        ("name", "02-10-2020", "null"),
        ("name", "Задача ё \U0001f95b", "2020-10-02"),
    ],
)
async def test_values_are_written_as_in_the_task(alice: Person, field: str, old: str | None, new: str | None) -> None:
    await alice.new_task(**{field: old})
    task = (await alice.patch("/task/1", json={field: new})).json
    assert values(await log_of(alice)) == [(field, old, task[field])]
    assert task[field] == new


async def test_what_follows_from_a_status_is_not_logged_beside_it(alice: Person) -> None:
    await alice.new_task()
    await alice.patch("/task/1", json={"status": "completed"})
    assert values(await log_of(alice)) == [("status", "new", "completed")]


async def test_a_deletion_is_logged_as_its_moment(alice: Person, sql: Sql) -> None:
    assert alice.caller
    await alice.new_task()
    await alice.delete("/task/1")
    [(entry, deleted_at)] = sql(
        "SELECT log_json(l)::json, moment_text(t.deleted_at) FROM task_log l JOIN task t ON t.user_id = l.user_id AND t.id = l.task_id"
        " WHERE l.user_id = %s",
        alice.caller.user_id,
    )
    assert entry == {"revision": 2, "changed_at": deleted_at, "field": "deleted_at", "old": None, "new": deleted_at}


async def test_a_log_is_of_one_task(alice: Person, mallory: Person) -> None:
    for person in (alice, mallory):
        await person.new_task()
        await person.new_task()
    await alice.patch("/task/1", json={"name": "one"})
    await alice.patch("/task/2", json={"name": "two"})
    assert [values(await log_of(alice, task_id)) for task_id in (1, 2)] == [[("name", "Buy milk", name)] for name in ("one", "two")]
    assert await log_of(mallory) == []


# What holds for every history


async def test_created_state_and_log_make_the_current_state(alice: Person) -> None:
    state = await alice.new_task()
    for change in (
        FULL,
        {"status": "completed", "completion_at": None},
        {"name": "c", "status": "in_work"},
        {"name": "c"},
        {"description": "", "completion_at": "04-12-2022", "status": "completed"},
        {"name": "Buy milk", "completion_at": "05-12-2022"},
    ):
        assert (await alice.patch("/task/1", json=change)).status == 200
    for entry in await log_of(alice):
        assert state[entry["field"]] == entry["old"]
        state |= {entry["field"]: entry["new"], "revision": entry["revision"], "updated_at": entry["changed_at"]}
        if entry["field"] == "status":
            state["completed_at"] = entry["changed_at"] if entry["new"] == "completed" else None
    assert state == (await alice.get("/task/1")).json


async def test_the_revisions_of_an_account_have_no_gap(alice: Person, sql: Sql) -> None:
    assert alice.caller
    for n in range(3):
        await alice.new_task()
        await alice.patch("/task/1", json=FULL | {"name": f"name {n}"})
        await alice.patch("/task/1", json={"name": f"name {n}"})
        await alice.patch(f"/task/{n + 1}", json={"name": "late"}, headers={"If-Match": '"99"'})
        await alice.patch("/task/9", json={"name": "nobody's"})
    await alice.delete("/task/2")
    taken = sql(
        "SELECT created_revision FROM task WHERE user_id = %s UNION SELECT revision FROM task_log WHERE user_id = %s ORDER BY 1",
        alice.caller.user_id,
        alice.caller.user_id,
    )
    assert [revision for (revision,) in taken] == list(range(1, 8))
    assert (await alice.get("/task")).headers["X-Revision"] == "7"


@pytest.mark.parametrize("clock", ["as it is", "an hour back"])
async def test_changed_at_ascends_strictly_from_one_request_to_the_next(alice: Person, sql: Sql, clock: str) -> None:
    assert alice.caller
    await alice.new_task()
    if clock == "an hour back":
        sql("UPDATE user_state SET changed_at = now() + interval '1 hour' WHERE user_id = %s", alice.caller.user_id)
    moments = [moment for (moment,) in sql("SELECT moment_text(changed_at) FROM user_state WHERE user_id = %s", alice.caller.user_id)]
    for n in range(5):
        moments += [(await alice.new_task())["created_at"], (await alice.patch("/task/1", json={"name": str(n)})).json["updated_at"]]
    await alice.delete("/task/2")
    moments += [moment for (moment,) in sql("SELECT moment_text(deleted_at) FROM task WHERE user_id = %s AND id = 2", alice.caller.user_id)]
    moments += [(await alice.new_task())["created_at"]]
    assert moments == sorted(set(moments))
    assert [entry["changed_at"] for entry in await log_of(alice)] == moments[2:12:2]


# Pages


@pytest.fixture
async def long_log(alice: Person) -> list[dict[str, Any]]:
    """The log of Alice's first task: three revisions of four, four and two entries. Her second has one too."""
    await alice.new_task()
    await alice.new_task()
    await alice.patch("/task/2", json=FULL)
    for change in (FULL, {"name": "c", "description": "d", "status": "new", "completion_at": None}, {"name": "e", "status": "completed"}):
        await alice.patch("/task/1", json=change)
    return await log_of(alice)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 9, 10, 11, 1000])
async def test_pages_skip_no_entry_and_repeat_none(alice: Person, long_log: list[dict[str, Any]], limit: int) -> None:
    pages = await pages_of(alice, f"/task/1/log?limit={limit}")
    assert [entry for page in pages for entry in page.json] == long_log
    assert [len(page.json) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 0 < len(pages[-1].json) <= limit


async def test_a_page_is_a_thousand_entries_where_no_limit_is_given(alice: Person, sql: Sql) -> None:
    assert alice.caller
    await alice.new_task()
    sql(
        "INSERT INTO task_log (user_id, task_id, revision, field, old, new, changed_at)"
        " SELECT %s, 1, 1 + n, 'name', n::text, (n + 1)::text, now() FROM generate_series(1, 1001) n",
        alice.caller.user_id,
    )
    assert [len(page.json) for page in await pages_of(alice, "/task/1/log")] == [1000, 1]


async def test_what_is_added_between_two_pages_follows(alice: Person, long_log: list[dict[str, Any]]) -> None:
    first = await alice.get("/task/1/log?limit=7")
    await alice.patch("/task/1", json={"name": "added"})
    rest = await pages_of(alice, next_of(first))
    entries = [entry for page in [first, *rest] for entry in page.json]
    assert entries[:-1] == long_log
    assert entries[-1]["new"] == "added"


@pytest.mark.parametrize("other", ["/task/2/log?limit=2", "/task/1/log?limit=3", "/task/1/log?", "/task?limit=2"])
async def test_a_cursor_is_good_only_for_the_query_that_made_it(alice: Person, long_log: list[dict[str, Any]], other: str) -> None:
    cursor = next_of(await alice.get("/task/1/log?limit=2")).split("cursor=")[1].split("&")[0]
    assert (await alice.get(f"/task/1/log?limit=2&cursor={cursor}")).json == long_log[2:4]
    answer = await alice.get(f"{other}&cursor={cursor}")
    assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["cursor"])


async def test_a_cursor_is_good_only_for_the_user_who_got_it(alice: Person, mallory: Person, long_log: list[dict[str, Any]]) -> None:
    await mallory.new_task()
    following = next_of(await alice.get("/task/1/log?limit=2"))
    assert (await mallory.get(following)).status == 400
    assert (await alice.get(following)).json == long_log[2:4]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *[(f"limit={limit}", "limit") for limit in ("", "0", "-1", "1001", "01", "1.0", "x", "١", "9" * 30)],
        *[(f"cursor={cursor}", "cursor") for cursor in ("", "x", "%00", "%F0%9F%A5%9B", "AAAA" * 10, "=", "-_" * 500)],
        ("limit=1&limit=1", "limit"),
        *[(f"{name}=1", name) for name in ("sort", "status", "q", "Limit")],
    ],
)
async def test_a_log_refuses_parameters_that_it_has_not(alice: Person, query: str, field: str) -> None:
    await alice.new_task()
    answer = await alice.get(f"/task/1/log?{query}")
    assert (answer.status, {error["field"] for error in answer.json["errors"]}) == (400, {field})

"""Everything can be seen, and taken back: the trash, the past, undo, sync, the whole log, and conflicts that explain themselves."""

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest

from postgres.database import MAX_SLOW_AT_ONCE
from tasks import store
from tests.conftest import Answer, Person, Start, create_tasks, let_happen_before

Sql = Callable[..., list[tuple[Any, ...]]]
OF_A_USER = ("id", "name", "description", "status", "completion_at")


def fields(tasks: list[dict[str, Any]]) -> list[list[Any]]:
    """Return what an undo brings back of each task."""
    return [[task[name] for name in OF_A_USER] for task in tasks]


async def listed(person: Person, query: str = "") -> list[dict[str, Any]]:
    answer = await person.get(f"/task{query}")
    assert answer.status == 200, answer
    tasks: list[dict[str, Any]] = answer.json
    return tasks


def problem(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["type"].rpartition("#")[2]


def purge(sql: Sql, person: Person, task_id: int) -> None:
    """Do to a task what a purge does: it and its log are gone, and kept_from says since when the history is whole."""
    assert person.caller
    user_id = person.caller.user_id
    [(revision, moment)] = sql("SELECT revision, updated_at FROM task WHERE user_id = %s AND id = %s", user_id, task_id)
    sql("DELETE FROM task_log WHERE user_id = %s AND task_id = %s", user_id, task_id)
    sql("DELETE FROM task WHERE user_id = %s AND id = %s", user_id, task_id)
    sql(
        "UPDATE user_state SET kept_from = greatest(kept_from, %s), kept_from_at = greatest(kept_from_at, %s), purged = purged + 1"
        " WHERE user_id = %s",
        revision,
        moment,
        user_id,
    )


def before(moment: str) -> str:
    """Return a moment that is a tenth of a microsecond before this one."""
    return (datetime.fromisoformat(moment) - timedelta(microseconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%f9Z")


# The trash


async def test_the_trash_lists_what_was_deleted_and_nothing_else(alice: Person) -> None:
    for name in "abc":
        await alice.new_task(name=name)
    await alice.delete("/task/2")
    [deleted] = await listed(alice, "?deleted=true")
    assert (deleted["id"], deleted["name"], deleted["revision"]) == (2, "b", 4)
    assert deleted["deleted_at"] == deleted["updated_at"]
    assert [task["id"] for task in await listed(alice)] == [task["id"] for task in await listed(alice, "?deleted=false")] == [1, 3]
    assert await listed(alice, "?deleted=true&status=completed") == []
    assert await listed(alice, "?deleted=true&q=B") == [deleted]


async def test_a_task_in_the_trash_is_shown_where_it_is_asked_for(alice: Person) -> None:
    await alice.new_task()
    await alice.patch("/task/1", json={"status": "planned"})
    for path in ("/task/1", "/task/1/log"):
        assert (await alice.get(f"{path}?deleted=true")).status == 404
    await alice.delete("/task/1")
    for path in ("/task/1", "/task/1/log"):
        assert (await alice.get(path)).status == 404
    shown = await alice.get("/task/1?deleted=true")
    assert (shown.json["status"], shown.headers["ETag"]) == ("planned", '"3"')
    assert (await alice.get("/task/1?deleted=true&status=new")).status == 404
    assert [entry["field"] for entry in (await alice.get("/task/1/log?deleted=true")).json] == ["status", "deleted_at"]


async def test_what_is_restored_is_as_it_was(alice: Person) -> None:
    task = await alice.new_task(name="a", status="completed", completion_at="02-10-2020")
    await alice.delete("/task/1")
    restored = await alice.post("/task/1/restore")
    assert (restored.status, restored.headers["ETag"], restored.headers["X-Revision"]) == (200, '"3"', "3")
    moved = {"revision": 3, "updated_at": restored.json["updated_at"]}
    assert restored.json == task | moved
    assert [(entry["field"], entry["old"] is None, entry["new"] is None) for entry in (await alice.get("/task/1/log")).json] == [
        ("deleted_at", True, False),
        ("deleted_at", False, True),
    ]
    again = await alice.post("/task/1/restore")
    assert (again.status, again.json) == (200, restored.json)


@pytest.mark.parametrize(
    ("sent", "field"), [({"deleted": "yes"}, "deleted"), ({"deleted": "true", "revision": "1"}, "deleted"), ({"deleted": ""}, "deleted")]
)
async def test_a_flag_is_true_or_false_and_the_trash_is_of_now(alice: Person, sent: dict[str, str], field: str) -> None:
    for path in ("/task", "/task/1"):
        answer = await alice.get(path, params=sent)
        assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, [field])


# Time travel


async def test_a_task_is_shown_as_it_was_at_each_revision(alice: Person) -> None:
    states = [await alice.new_task(name="a", completion_at="02-10-2020")]
    changes = [
        {"status": "completed"},
        {"name": "b", "completion_at": None},
        {"status": "new"},
        {"status": "completed", "description": "x"},
    ]
    states += [(await alice.patch("/task/1", json=change)).json for change in changes]
    for state in states:
        answer = await alice.get(f"/task/1?revision={state['revision']}")
        assert (answer.json, answer.headers["ETag"], answer.headers["X-Revision"]) == (state, f'"{state["revision"]}"', "5")
    await alice.delete("/task/1")
    assert (await alice.get("/task/1?revision=5")).json == states[-1]
    assert (await alice.get("/task/1?revision=6")).status == 404
    assert (await alice.get("/task/1?revision=2&status=new")).status == 404
    assert (await alice.get("/task/1?revision=2&status=completed")).json == states[1]


async def test_a_task_was_not_there_before_its_creation(alice: Person) -> None:
    await alice.new_task()
    await alice.new_task()
    answer = await alice.get("/task/2?revision=1")
    assert (answer.status, answer.headers["X-Revision"]) == (404, "2")
    assert (await alice.get("/task/2?revision=0")).status == 404


@pytest.mark.parametrize("path", ["/task", "/task/1"])
@pytest.mark.parametrize("revision", ["3", "-1", "x", "1.0", "", "9223372036854775808"])
async def test_a_revision_that_has_not_been_is_refused(alice: Person, path: str, revision: str) -> None:
    await alice.new_task()
    await alice.new_task()
    answer = await alice.get(path, params={"revision": revision})
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "revision")


async def test_the_list_is_shown_as_it_was_with_filters_orders_and_pages(alice: Person) -> None:
    for name, status in (("c", "new"), ("a", "planned"), ("b", "new")):
        await alice.new_task(name=name, status=status)
    await alice.patch("/task/1", json={"status": "planned"})
    await alice.delete("/task/3")
    queries = ["", "?status=new", "?status=new,planned&sort=-name", "?sort=updated_at", "?q=B", "?completion_at=none&limit=2"]
    before = {query: await listed(alice, query) for query in queries}
    await alice.post("/task/undo", json={"since": 1})
    await alice.new_task(name="new")
    for query, tasks in before.items():
        assert await listed(alice, query + ("&" if query else "?") + "revision=5") == tasks, query
    assert [task["name"] for task in await listed(alice, "?revision=2&sort=name")] == ["a", "c"]
    assert await listed(alice, "?revision=0") == []


async def test_pages_go_over_a_frozen_list(alice: Person) -> None:
    tasks = [await alice.new_task(name=name) for name in "abcd"]
    path, read = "/task?revision=4&limit=2", []
    while path:
        answer = await alice.get(path)
        read += answer.json
        await alice.patch("/task/3", json={"name": f"changed after {path}"[:50]})
        await alice.delete("/task/4")
        link = answer.headers.get("Link")
        path = link.partition("<")[2].partition(">")[0] if link else ""
    assert read == tasks


async def test_a_moment_stands_for_the_last_revision_not_later(alice: Person) -> None:
    first = await alice.new_task(name="a")
    second = (await alice.patch("/task/1", json={"name": "b"})).json
    third = await alice.new_task(name="c")
    earlier = re.sub(r"T.*", "T00:00:00Z", first["created_at"]).replace("20", "19", 1)
    for moment, tasks in (
        (earlier, []),
        (first["created_at"], [first]),
        (second["updated_at"], [second]),
        ("2999-01-01T00:00:00Z", [second, third]),
    ):
        assert (await alice.get("/task", params={"at": moment})).json == tasks, moment
    assert (await alice.get("/task/1", params={"at": first["created_at"]})).json == first
    assert (await alice.get("/task", params={"at": before(second["updated_at"])})).json == [first]
    assert (await alice.get("/task/2", params={"at": first["created_at"]})).status == 404
    answer = await alice.get("/task", params={"at": first["created_at"], "revision": "1"})
    assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["at"])


async def test_pages_of_a_moment_to_come_stay_with_the_revision_of_the_first(alice: Person) -> None:
    tasks = [await alice.new_task(name=name) for name in "abc"]
    first = await alice.get("/task?at=2999-01-01T00:00:00Z&limit=2")
    await alice.new_task(name="d")
    following = first.headers["Link"].partition("<")[2].partition(">")[0]
    assert "revision=3" in following
    assert "at=" not in following
    assert first.json + (await alice.get(following)).json == tasks


async def test_what_was_before_a_purge_is_gone(alice: Person, sql: Sql) -> None:
    for name in "abc":
        await alice.new_task(name=name)
    deleted = await alice.delete("/task/2")
    await alice.patch("/task/1", json={"name": "x"})
    at_deletion = (await alice.get("/task/2?deleted=true")).json["deleted_at"]
    assert deleted.headers["X-Revision"] == "4"
    tag = (await alice.get("/task?deleted=true")).headers["ETag"]
    purge(sql, alice, 2)
    for query in ("?revision=3", "?revision=0", "?since=3", "?revision=3&limit=1"):
        answer = await alice.get(f"/task{query}")
        assert (problem(answer), answer.json["kept_from"], answer.json["revision"]) == ((410, "history-gone"), 4, 5), query
        assert answer.headers["X-Revision"] == "5"
    assert [task["name"] for task in await listed(alice, "?revision=4")] == ["a", "c"]
    assert [task["id"] for task in (await alice.get("/task", params={"at": at_deletion})).json] == [1, 3]
    assert (await alice.get("/task/1?revision=1")).json["name"] == "a"  # one task's own past stays
    assert problem(await alice.post("/task/undo", json={"since": 3})) == (410, "history-gone")
    emptied = await alice.get("/task?deleted=true", headers={"If-None-Match": tag})
    assert (emptied.status, emptied.json, emptied.headers["X-Purged"]) == (200, [], "1")


# Undo


async def test_a_task_goes_back_to_what_it_was(alice: Person) -> None:
    first = await alice.new_task(name="a", completion_at="02-10-2020")
    await alice.patch("/task/1", json={"name": "b", "status": "completed", "completion_at": None})
    await alice.delete("/task/1")
    answer = await alice.post("/task/1/restore", data={"revision": "1"})
    assert fields([answer.json]) == fields([first])
    assert (answer.json["deleted_at"], answer.json["revision"], answer.json["completed_at"]) == (None, 4, None)
    assert {entry["field"] for entry in (await alice.get("/task/1/log")).json if entry["revision"] == 4} == {
        "name",
        "status",
        "completion_at",
        "deleted_at",
    }
    assert (await alice.post("/task/1/restore", json={"revision": 1})).json == answer.json
    by_moment = await alice.post("/task/1/restore", json={"at": (await alice.get("/task/1?revision=2")).json["updated_at"]})
    assert by_moment.json["name"] == "b"


async def test_a_restoration_has_its_conditions(alice: Person) -> None:
    await alice.new_task()
    await alice.new_task(name="a")
    await alice.patch("/task/2", json={"name": "b"})
    assert (await alice.post("/task/2/restore", json={"revision": 1})).status == 404
    for sent, field in (
        ({"revision": 4}, "revision"),
        ({"revision": 1, "at": "2020-01-01T00:00:00Z"}, "at"),
        ({"revision": "x"}, "revision"),
    ):
        answer = await alice.post("/task/2/restore", json=sent)
        assert (answer.status, answer.json["errors"][0]["field"]) == (400, field)
    stale = await alice.post("/task/2/restore", json={"revision": 2}, headers={"If-Match": '"2"'})
    assert (problem(stale), stale.json["current"]["name"], stale.json["changed"]) == ((412, "changed-meanwhile"), "b", ["name"])
    assert (await alice.post("/task/2/restore", headers={"If-Match": '"2"'})).status == 200  # it holds already
    assert (await alice.post("/task/2/restore", json={"revision": 2}, headers={"If-Match": '"3"'})).json["name"] == "a"


async def all_sorts(alice: Person) -> None:
    """Do something of each kind: five tasks by revision 5, then changes up to revision 10."""
    for name in "abcde":
        await alice.new_task(name=name)
    await alice.patch("/task/1", json={"name": "A", "status": "completed"})
    await alice.delete("/task/2")
    await alice.new_task(name="f")
    await alice.delete("/task/3")
    await alice.post("/task/3/restore")


async def test_undo_takes_back_everything_since_and_can_be_undone(alice: Person) -> None:
    await all_sorts(alice)
    present, past = await listed(alice), await listed(alice, "?revision=5")
    undone = await alice.post("/task/undo", json={"since": 5})
    assert undone.status == 200
    assert (undone.json["before"], undone.json["count"], undone.json["revision"]) == (10, 3, 13)
    assert undone.headers["X-Revision"] == "13"
    assert [(task["id"], task["revision"]) for task in undone.json["tasks"]] == [(1, 11), (2, 12), (6, 13)]
    assert len({task["updated_at"] for task in undone.json["tasks"]}) == 1
    assert fields(await listed(alice)) == fields(past)
    assert [task["id"] for task in await listed(alice, "?deleted=true")] == [6]
    again = await alice.post("/task/undo", data={"since": str(undone.json["before"])})
    assert again.json["count"] == 3
    assert fields(await listed(alice)) == fields(present)
    log = (await alice.get("/task/1/log")).json
    assert [(entry["revision"], entry["field"], entry["new"]) for entry in log if entry["field"] == "name"] == [
        (6, "name", "A"),
        (11, "name", "a"),
        (14, "name", "A"),
    ]


async def test_undo_of_nothing_does_nothing(alice: Person) -> None:
    await all_sorts(alice)
    answer = await alice.post("/task/undo", json={"since": 10})
    assert answer.json == {"before": 10, "revision": 10, "count": 0, "tasks": []}
    moment = (await alice.get("/task/3")).json["updated_at"]
    assert (await alice.post("/task/undo", json={"at": moment})).json["count"] == 0


async def test_a_dry_run_says_what_would_be_and_does_nothing(alice: Person, sql: Sql) -> None:
    await all_sorts(alice)
    assert alice.caller
    everything = (
        "SELECT (SELECT jsonb_agg(t ORDER BY id) FROM task t WHERE user_id = %s), (SELECT jsonb_agg(l ORDER BY revision, field) FROM task_log l"
        " WHERE user_id = %s), (SELECT to_jsonb(s) FROM user_state s WHERE user_id = %s)"
    )
    before = sql(everything, *[alice.caller.user_id] * 3)
    dry = await alice.post("/task/undo", json={"since": 5, "dry_run": True})
    assert sql(everything, *[alice.caller.user_id] * 3) == before
    assert dry.headers["X-Revision"] == "10"
    real = await alice.post("/task/undo", json={"since": 5, "expected": dry.json["before"]})
    for answer in (dry, real):
        for task in answer.json["tasks"]:
            task.update(updated_at="", deleted_at=task["deleted_at"] and "")
    assert dry.json == real.json


async def test_undo_does_nothing_where_something_else_has_happened(alice: Person) -> None:
    await all_sorts(alice)
    dry = await alice.post("/task/undo", json={"since": 5, "dry_run": True})
    await alice.patch("/task/4", json={"name": "x"})
    answer = await alice.post("/task/undo", json={"since": 5, "expected": dry.json["before"]})
    assert (problem(answer), answer.headers["X-Revision"]) == ((409, "not-as-expected"), "11")
    assert (await alice.get("/task/1")).json["name"] == "A"


async def test_too_much_is_not_undone(alice: Person, start: Start) -> None:
    await all_sorts(alice)
    present = await listed(alice)
    alice.client = await start(undo_max_tasks=2)
    for dry_run in (True, False):
        assert problem(await alice.post("/task/undo", json={"since": 5, "dry_run": dry_run})) == (409, "too-many-tasks")
    assert await listed(alice) == present


@pytest.mark.long
@pytest.mark.parametrize(("count", "description"), [(1001, ""), (80, "\x01" * 10_000)], ids=["many", "long"])
async def test_of_all_that_it_altered_an_undo_shows_what_fits(alice: Person, sql: Sql, count: int, description: str) -> None:
    assert alice.caller
    create_tasks(sql, alice.caller, count, description=description)
    for dry_run in (True, False):
        answer = await alice.post("/task/undo", json={"since": 0, "dry_run": dry_run})
        shown = [task["id"] for task in answer.json["tasks"]]
        assert answer.json["count"] == count
        assert shown == list(range(1, 1 + len(shown)))
        if description:
            assert 4 * 2**20 - 61_000 < len(answer.text) < 4 * 2**20 + 100
        else:
            assert len(shown) == 1000


async def test_undos_take_turns_and_no_long_list_waits_for_them(alice: Person, mallory: Person, sql: Callable[..., Any]) -> None:
    await all_sorts(alice)
    assert mallory.caller
    create_tasks(sql, mallory.caller, 10, description="x" * 9_000)
    async with AsyncExitStack() as others:
        for n in range(MAX_SLOW_AT_ONCE):
            await others.enter_async_context(alice.service.database.slow_turns.of(f"other {n}"))
        undoing = asyncio.create_task(alice.post("/task/undo", json={"since": 5}))
        assert len((await mallory.get("/task")).json) == 10
        await asyncio.sleep(0.1)
        assert not undoing.done()
    assert (await undoing).json["count"] == 3


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({}, ["at"]),
        ({"since": 1, "at": "2020-01-01T00:00:00Z"}, ["at"]),
        ({"since": 11}, ["since"]),
        ({"since": -1}, ["since"]),
        ({"since": "1"}, ["since"]),
        ({"since": 1, "dry_run": "yes", "expected": "x"}, ["dry_run", "expected"]),
        ({"since": 1, "revision": 1}, ["revision"]),
    ],
)
async def test_an_undo_must_say_since_when(alice: Person, sent: dict[str, Any], named: list[str]) -> None:
    await all_sorts(alice)
    answer = await alice.post("/task/undo", json=sent)
    assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, named)


async def test_it_says_whether_neither_or_both_were_sent(alice: Person) -> None:
    for sent, words in (({}, "must be sent, or since"), ({"since": 0, "at": "2020-01-01T00:00:00Z"}, "can't be sent together with since")):
        answer = await alice.post("/task/undo", json=sent)
        assert [error["message"] for error in answer.json["errors"]] == [words]


async def test_undo_touches_nobody_elses_tasks(alice: Person, mallory: Person) -> None:
    await all_sorts(alice)
    present = await listed(alice)
    await mallory.new_task()
    assert (await mallory.post("/task/undo", json={"since": 0})).json["count"] == 1
    assert await listed(alice) == present


# Sync


async def pull(person: Person, copy: dict[int, Any], since: int, limit: int = 1000) -> int:
    """Bring a copy into step as api clients do, and give the revision of which it then is."""
    path = f"/task?since={since}&limit={limit}"
    while True:
        answer = await person.get(path)
        assert answer.status == 200, answer
        copy.update({task["id"]: task for task in answer.json})
        if "Link" not in answer.headers:
            return int(answer.headers["X-Revision"])
        path = answer.headers["Link"].partition("<")[2].partition(">")[0]


async def everything(person: Person) -> dict[int, Any]:
    return {task["id"]: task for task in await listed(person) + await listed(person, "?deleted=true")}


async def test_a_copy_stays_in_step(alice: Person) -> None:
    copy: dict[int, Any] = {}
    await all_sorts(alice)
    revision = await pull(alice, copy, 0, limit=2)
    assert (revision, copy) == (10, await everything(alice))
    for act in (
        alice.patch("/task/4", json={"name": "x"}),
        alice.delete("/task/5"),
        alice.new_task(name="g"),
        alice.post("/task/undo", json={"since": 3}),
    ):
        await act
        revision = await pull(alice, copy, revision, limit=1)
        assert copy == await everything(alice)
    assert await listed(alice, f"?since={revision}") == []


async def test_sync_tells_the_changed_tasks_by_revision(alice: Person) -> None:
    await all_sorts(alice)
    assert [(task["id"], task["revision"]) for task in await listed(alice, "?since=5")] == [(1, 6), (2, 7), (6, 8), (3, 10)]
    assert [task["id"] for task in await listed(alice, "?since=0")] == [4, 5, 1, 2, 6, 3]


async def test_sync_after_a_restored_backup_or_a_purge_begins_anew(alice: Person, sql: Sql) -> None:
    await all_sorts(alice)
    assert problem(await alice.get("/task?since=11")) == (410, "history-gone")
    first = await alice.get("/task?since=5&limit=1")
    following = first.headers["Link"].partition("<")[2].partition(">")[0]
    purge(sql, alice, 2)
    assert problem(await alice.get(following)) == (410, "history-gone")
    assert problem(await alice.get("/task?since=6", headers={"If-None-Match": first.headers["ETag"]})) == (410, "history-gone")
    answer = await alice.get("/task?since=0")
    assert (answer.status, len(answer.json), answer.headers["X-Purged"]) == (200, 5, "1")
    assert (await alice.get("/task?since=7")).status == 200


async def test_a_pull_from_the_start_begins_anew_once_what_it_has_shown_may_be_purged(alice: Person, sql: Sql) -> None:
    await all_sorts(alice)
    first = await alice.get("/task?since=0&limit=1")
    following = first.headers["Link"].partition("<")[2].partition(">")[0]
    purge(sql, alice, 2)  # it was in the trash when the pull began: X-Purged tells of it
    assert (await alice.get(following)).status == 200
    await alice.delete("/task/4")
    purge(sql, alice, 4)  # whoever has read the first page has it as a task that is there
    assert problem(await alice.get(following)) == (410, "history-gone")
    copy: dict[int, Any] = {}
    await pull(alice, copy, 0, limit=1)
    assert copy == await everything(alice)


@pytest.mark.parametrize(
    "other", ["status=new", "sort=name", "deleted=true", "revision=1", "q=a", "completion_from=2020-01-01", "at=2020-01-01T00:00:00Z"]
)
async def test_sync_goes_with_limit_and_cursor_only(alice: Person, other: str) -> None:
    answer = await alice.get(f"/task?since=0&{other}")
    assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["since"])


async def test_sync_by_the_log_and_by_the_list_find_the_same(alice: Person) -> None:
    """Where the log since then is shorter than the list, it is read instead."""
    for n in range(30):
        await alice.new_task(name=str(n))
    for n in range(40):
        await alice.patch(f"/task/{n % 7 + 1}", json={"name": f"again {n}"})
    for since in (0, 10, 29, 30, 50, 69):
        tasks = sorted((task for task in await listed(alice) if task["revision"] > since), key=lambda task: task["revision"])
        assert await listed(alice, f"?since={since}") == tasks


# The whole log


async def test_the_log_of_all_tasks_goes_by_revision(alice: Person, mallory: Person) -> None:
    await all_sorts(alice)
    await mallory.new_task(name="mine")
    await mallory.patch("/task/1", json={"name": "other"})
    entries = (await alice.get("/task/log")).json
    assert [(entry["revision"], entry["task_id"], entry["field"]) for entry in entries] == [
        (6, 1, "name"),
        (6, 1, "status"),
        (7, 2, "deleted_at"),
        (9, 3, "deleted_at"),
        (10, 3, "deleted_at"),
    ]
    own = [{"task_id": 1} | entry for entry in (await alice.get("/task/1/log")).json]
    assert [entry for entry in entries if entry["task_id"] == 1] == own
    path, read = "/task/log?limit=1", []
    while path:
        answer = await alice.get(path)
        read += answer.json
        path = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert read == entries
    tag = answer.headers["ETag"]
    assert (await alice.get("/task/log", headers={"If-None-Match": (await alice.get("/task/log")).headers["ETag"]})).status == 304
    assert tag != (await alice.get("/task/log")).headers["ETag"]


# Conflicts


@pytest.mark.parametrize(
    ("if_match", "changed"),
    [
        ('"1"', ["description", "name", "status"]),
        ('"2"', ["description", "status"]),
        ('"1", "2"', ["description", "status"]),
        ('"4"', None),
        ('"3"', ["status"]),
        ('W/"5", "1"', []),
    ],
)
async def test_a_conflict_says_what_is_and_what_has_changed(alice: Person, if_match: str, changed: list[str] | None) -> None:
    await alice.new_task(name="a")
    await alice.patch("/task/1", json={"name": "b"})
    await alice.patch("/task/1", json={"description": "x"})
    await alice.new_task(name="other")  # the revision 4 is no revision of the first task
    current = (await alice.patch("/task/1", json={"status": "planned"})).json
    kind = "weak-tag" if "W/" in if_match else "changed-meanwhile"
    for method, options in (("PATCH", {"json": {"name": "c"}}), ("PUT", {"data": {"name": "c"}}), ("DELETE", {})):
        answer = await alice(method, "/task/1", headers={"If-Match": if_match}, **options)
        assert (problem(answer), answer.json["current"], answer.json.get("changed")) == ((412, kind), current, changed)
        assert answer.headers["X-Revision"] == "5"
    answer = await alice.patch("/task/1", json={"name": "c", "revision": 3})
    assert (answer.status, answer.json["changed"]) == (412, ["status"])


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_a_task_that_goes_before_its_conflict_is_explained_is_404(
    alice: Person, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def delete() -> None:
        assert (await alice.delete("/task/1")).status == 204

    await alice.new_task(name="a")
    await alice.patch("/task/1", json={"name": "b"})
    let_happen_before(monkeypatch, store._CONFLICT, delete)
    answer = await alice(method, "/task/1", headers={"If-Match": '"1"'}, **({"json": {"name": "c"}} if method == "PATCH" else {}))
    assert (problem(answer), answer.headers["X-Revision"]) == ((404, "about:blank"), "3")


async def test_many_undos_at_once_leave_one_history(alice: Person) -> None:
    await all_sorts(alice)
    answers = await asyncio.gather(*(alice.post("/task/undo", json={"since": since}) for since in (1, 3, 5, 7, 9)))
    assert {answer.status for answer in answers} == {200}
    taken = [revision for answer in answers for revision in range(answer.json["before"] + 1, answer.json["revision"] + 1)]
    assert sorted(taken) == list(range(11, 11 + len(taken)))

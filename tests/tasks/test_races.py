"""Changes at once: none is lost, none waits for another user's. Each lock is shown by what happens without it."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from tests.conftest import PASSWORD, Answer, Person, Start
from tests.waiting import until

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
async def client(start: Start) -> TestClient[Any, Any]:
    """A client of an application of this test's own: some tests change what its connections find."""
    return await start()


@contextmanager
def row_held(sql: Sql, person: Person) -> Iterator[None]:
    """Hold the lock under which a person's changes wait for one another."""
    assert person.caller
    sql("BEGIN")
    try:
        sql("SELECT FROM user_state WHERE user_id = %s FOR UPDATE", person.caller.user_id)
        yield
    finally:
        sql("COMMIT")


async def until_waiting(sql: Sql, requests: int) -> None:
    """Wait until that many connections of the service, at least, wait for a lock."""
    await until(lambda: waiting(sql) >= requests)


def waiting(sql: Sql) -> int:
    """Return how many connections of the service wait for a lock."""
    sql("SELECT pg_stat_clear_snapshot()")  # a transaction would see the first count for ever
    [(count,)] = sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    return int(count)


async def at_once(sql: Sql, person: Person, *requests: Awaitable[Answer]) -> list[Answer]:
    """Make these requests wait for one another's lock, then let them go, and give their answers."""
    with row_held(sql, person):
        answers = asyncio.gather(*requests)
        limits = person.service.settings
        at_most = 1 if limits.batch_size > 1 else limits.db_pool_size  # in batches, one waits for all of a user's
        await until_waiting(sql, min(len(requests), at_most))
    return await answers


# Many changes of one task


async def faults_of_changes_at_once(person: Person, count: int) -> list[str]:
    """Change one task so many times at once, and say what has come of it that must not."""
    state = await person.new_task(name="0")
    answers = await asyncio.gather(*(person.patch("/task/1", json={"name": str(n)}) for n in range(1, count + 1)))
    log = (await person.get("/task/1/log")).json
    final = (await person.get("/task/1")).json
    faults = [f"a change was answered {answer.status}" for answer in answers if answer.status != 200]
    if sorted(answer.json.get("revision", 0) for answer in answers) != list(range(2, count + 2)):
        faults.append("the answers have other revisions than the next ones, each once")
    if {entry["new"] for entry in log} != {str(n) for n in range(1, count + 1)}:
        faults.append("not every change is in the log")
    for revision, entry in enumerate(log, start=2):
        if (entry["revision"], entry["old"]) != (revision, state["name"]) or entry["changed_at"] <= state["updated_at"]:
            faults.append(f"the chain is broken at {entry}")
        state |= {"name": entry["new"], "revision": entry["revision"], "updated_at": entry["changed_at"]}
    if state != final:
        faults.append("the log does not lead to the task")
    return faults


@pytest.fixture
def no_lock(sql: Sql) -> Iterator[None]:
    """Make the writer look at the user's row without locking it, and take its time."""
    [(definition,)] = sql("SELECT pg_get_functiondef('task_write'::regproc)")
    unlocked = re.sub("FOR NO KEY UPDATE( SKIP LOCKED)?", "", definition).replace("clock := ", "PERFORM pg_sleep(0.3); clock := ")
    assert unlocked.count("pg_sleep") == 1
    sql(unlocked)
    yield
    sql(definition)


async def test_of_many_changes_at_once_none_is_lost(alice: Person) -> None:
    assert await faults_of_changes_at_once(alice, 50) == []


@pytest.mark.usefixtures("no_lock")
@pytest.mark.crashes
@pytest.mark.long
async def test_without_the_lock_changes_at_once_break_the_history(alice: Person, mallory: Person) -> None:
    assert await faults_of_changes_at_once(mallory, 1) == []
    assert await faults_of_changes_at_once(alice, 50) != []


async def test_creations_at_once_have_consecutive_ids_and_revisions(alice: Person) -> None:
    made = await asyncio.gather(*(alice.new_task(name=str(n)) for n in range(20)))
    tasks = (await alice.get("/task")).json
    assert sorted(made, key=lambda task: int(task["id"])) == tasks
    assert [(task["id"], task["revision"]) for task in tasks] == [(n, n) for n in range(1, 21)]
    assert [task["created_at"] for task in tasks] == sorted({task["created_at"] for task in tasks})


# Two changes of one task


async def test_two_changes_at_once_both_happen_one_after_the_other(alice: Person, sql: Sql) -> None:
    await alice.new_task(name="0")
    answers = await at_once(sql, alice, alice.patch("/task/1", json={"name": "1"}), alice.patch("/task/1", json={"name": "2"}))
    assert sorted((answer.status, answer.json["revision"]) for answer in answers) == [(200, 2), (200, 3)]
    first, second = sorted((answer.json for answer in answers), key=lambda task: int(task["revision"]))
    log = (await alice.get("/task/1/log")).json
    assert [(entry["old"], entry["new"]) for entry in log] == [("0", first["name"]), (first["name"], second["name"])]


async def test_two_changes_at_once_of_different_fields_keep_both(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    await at_once(sql, alice, alice.patch("/task/1", json={"name": "other"}), alice.patch("/task/1", json={"status": "planned"}))
    task = (await alice.get("/task/1")).json
    assert (task["name"], task["status"], task["revision"]) == ("other", "planned", 3)


@pytest.mark.parametrize(("one", "another"), [("PATCH", "PATCH"), ("PUT", "POST"), ("DELETE", "PATCH")])
async def test_of_two_changes_at_once_of_one_revision_only_one_happens(alice: Person, sql: Sql, one: str, another: str) -> None:
    await alice.new_task()

    def seen(method: str, name: str) -> Awaitable[Answer]:
        return alice(method, "/task/1", headers={"If-Match": '"1"'}, **({} if method == "DELETE" else {"json": {"name": name}}))

    answers = await at_once(sql, alice, seen(one, "1"), seen(another, "2"))
    done = [answer for answer in answers if answer.status < 300]
    [refused] = [answer for answer in answers if answer not in done]
    assert refused.status == 404 if done[0].status == 204 else refused.status == 412
    assert [answer.headers["X-Revision"] for answer in answers] == ["2", "2"]


async def test_of_two_deletions_at_once_only_one_happens(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    answers = await at_once(sql, alice, alice.delete("/task/1"), alice.delete("/task/1"))
    assert sorted(answer.status for answer in answers) == [204, 404]


# One user's lock


async def test_while_one_users_row_is_locked_the_others_go_on(alice: Person, mallory: Person, sql: Sql) -> None:
    await alice.new_task()
    await mallory.new_task()
    with row_held(sql, alice):
        held = asyncio.ensure_future(alice.patch("/task/1", json={"name": "held"}))
        await until_waiting(sql, 1)
        for revision in range(2, 40):  # an answer that came before the row was let go waited for nobody
            answer = await mallory.patch("/task/1", json={"name": f"name {revision}"})
            assert (answer.status, answer.json["revision"]) == (200, revision)
        assert (await alice.get("/task/1")).json["name"] == "Buy milk"
        assert not held.done()
    answer = await held
    assert (answer.status, answer.json["name"], answer.json["revision"]) == (200, "held", 2)


async def test_of_what_takes_long_or_ends_tokens_one_at_a_time_waits_for_a_users_row(alice: Person, mallory: Person, sql: Sql) -> None:
    await mallory.new_task()
    calls = {"/task/undo": {"since": 0, "dry_run": True}, "/revoke-tokens": {}, "/delete-account": {"password": PASSWORD}}
    with row_held(sql, mallory):
        held = [asyncio.ensure_future(mallory.post(path, json=body)) for path, body in calls.items() for _ in range(5)]
        await until_waiting(sql, 1)
        for _ in range(20):  # as long as the row is held
            assert (await alice.get("/task")).status == 200
        assert waiting(sql) == 1
    assert {answer.status for answer in await asyncio.gather(*held)} <= {200, 204, 401}


async def test_a_change_that_waits_too_long_is_503_and_has_not_happened(alice: Person, sql: Sql, start: Start) -> None:
    alice.client = await start(lock_timeout_seconds=0.1)
    task = await alice.new_task()
    with row_held(sql, alice):  # it would wait for ever
        answer = await alice.patch("/task/1", json={"name": "late"})
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    assert (await alice.get("/task/1")).json == task
    assert (await alice.patch("/task/1", json={"name": "again"})).status == 200


@pytest.mark.parametrize("path", ["/task", "/task?status=new", "/task/1", "/task/1/log"])
async def test_a_read_waits_for_no_change(alice: Person, sql: Sql, path: str) -> None:
    await alice.new_task()
    with row_held(sql, alice):
        assert (await alice.get(path)).status == 200


@pytest.mark.long
@pytest.mark.parametrize("other", ["PATCH /task/1", "DELETE /task/1", "DELETE /task/1?forever=true", "POST /task/1/restore"])
async def test_a_change_sees_under_its_lock_what_if_none_match_names(alice: Person, sql: Sql, other: str) -> None:
    """Of two changes at once each that comes second knows what the first has made: revision 2, at which the second is not wanted."""
    method, path = other.split()
    outcomes = set()
    for number in range(1, 9):
        await alice.new_task(name="0")
        present = (await alice.get("/task")).headers["X-Revision"]
        named: dict[str, Any] = {"headers": {"If-None-Match": f'"{int(present) + 1}"'}}
        body: dict[str, Any] = (
            {} if method == "DELETE" else {"json": {"revision": int(present)} if "restore" in path else {"status": "completed"}}
        )
        first = alice.patch(f"/task/{number}", json={"name": "1"})
        second = alice(method, path.replace("/1", f"/{number}"), **named, **body)
        requests = (first, second) if number % 2 else (second, first)
        with row_held(sql, alice):
            earlier = asyncio.ensure_future(requests[0])
            await until_waiting(sql, 1)
            later = asyncio.ensure_future(requests[1])
            await asyncio.sleep(0.05)
        answers = [await earlier, await later]
        plain, conditional = answers if number % 2 else reversed(answers)
        after = int((await alice.get("/task")).headers["X-Revision"]) - int(present)
        if conditional.status == 412:
            assert (plain.json["name"], plain.json["revision"], after) == ("1", int(present) + 1, 1)
            assert conditional.json["current"] == plain.json
        else:
            assert conditional.status in (200, 204)
            assert plain.status == 404 or plain.json["name"] == "1"
        outcomes.add(conditional.status)
    assert 412 in outcomes

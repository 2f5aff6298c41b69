"""One user's many hold up nobody else: a share of each batch, of the connections, of what takes long and of what waits for locks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from postgres import batches
from postgres import database as database_module
from postgres.database import Database
from postgres.errors import DatabaseUnavailable
from postgres.queries import Query
from rest.errors import Unavailable
from rest.overload import TooManyAtOnce
from tasks import queries, store
from tests.conftest import Answer, Person, Running
from tests.postgres.test_batching import HELD, LOCK, OWN, Release, Sql, ask, lock, noted, query_of, statements
from tests.tasks.test_races import until_waiting
from tests.waiting import until

__all__ = ["lock"]

HELD_IF_0 = f"CASE q.number WHEN 0 THEN {HELD} END"


@pytest.fixture
async def database(running: Running) -> AsyncIterator[Database]:
    async with running(batch_size=8, statement_timeout_seconds=60, lock_timeout_seconds=60, db_wait_seconds=60) as database:
        yield database


def count_waiting(sql: Sql) -> int:
    """Count the connections that wait for a lock."""
    [(count,)] = sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    return int(count)


# What takes long


async def test_one_owners_slow_questions_are_asked_one_after_another_and_hold_up_nobody(
    database: Database, sql: Sql, lock: Release
) -> None:
    slow = query_of("q.number", HELD_IF_0, slow=True, read=True)
    asking = [asyncio.create_task(database.ask(slow, 1, 0)) for _ in range(5)]
    await until_waiting(sql, 1)
    assert [rows[0][0] for rows in await ask(database, slow, (2, 2), (3, 3))] == [2, 3]
    assert count_waiting(sql) == 1
    lock()
    assert statements(await asyncio.gather(*asking)) == 5


async def test_a_slow_question_with_a_long_answer_takes_a_turn_of_those_too(database: Database) -> None:
    text = "CASE WHEN q.wait THEN repeat('x', 100000) END"
    slow = query_of("q.number", text, names="number json moment", slow=True, heavy=True, read=True)
    async with AsyncExitStack() as turns:
        for n in range(database_module.MAX_HEAVY_AT_ONCE):
            await turns.enter_async_context(database.heavy_turns.of(f"other {n}"))
        asking = asyncio.create_task(database.ask(slow, 1, 5))
        await until(lambda: database.heavy_turns.count_waiting(1))
    assert (await asking)[0].json == b"x" * 100_000


async def test_of_one_owners_slow_questions_only_so_many_wait(database: Database) -> None:
    slow = query_of("q.number", slow=True, read=True)
    async with database.slow_turns.of(1):
        asking = [asyncio.create_task(database.ask(slow, 1, n)) for n in range(database_module.MAX_SLOW_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyAtOnce):
            await database.ask(slow, 1, 99)
        assert (await database.ask(slow, 2, 2))[0][0] == 2
    assert [rows[0][0] for rows in await asyncio.gather(*asking)] == [*range(database_module.MAX_SLOW_WAITING)]


@pytest.mark.long
async def test_what_took_too_long_together_is_asked_again_in_turns(running: Running) -> None:
    async with running(batch_size=32, statement_timeout_seconds=0.3, db_wait_seconds=60) as database:
        sleeping = query_of("q.number", "pg_sleep(q.seconds)", types=OWN | {"seconds": "float"})
        answers = await ask(database, sleeping, *((1, n, 5) for n in range(6)), (2, 6, 0))
        assert [type(answer) for answer in answers[:6]] == [DatabaseUnavailable] * 6
        assert answers[6][0][0] == 6
        assert database.pool_backend.pool.size == 2  # connections: one for each owner's turn


# Batches


async def test_of_a_batch_each_of_several_owners_has_a_share(database: Database) -> None:
    numbers = query_of("q.number")
    answers = await ask(database, numbers, *((1, n) for n in range(20)), (2, 20))
    share = 8 // batches.SHARES
    assert [rows[0][0] for rows in answers] == [*range(21)]
    assert statements([*answers[:share], answers[20]]) == 1
    assert statements([answers[share - 1], answers[share]]) == 2
    assert statements(answers) == 1 + 3  # what is left of one owner's needs no shares


async def test_an_owner_has_few_slow_batches_at_once_and_the_others_go_on(
    database: Database, sql: Sql, lock: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "SECONDS_OF_PATIENCE", 0.01)
    slow = [query_of(f"q.number + {n}", HELD_IF_0) for n in range(3)]
    asking = []
    for n in range(5):
        asking.append(asyncio.create_task(database.ask(slow[n % 3], 1, 0)))
        await until_waiting(sql, min(n + 1, batches.MAX_SLOW_OF_ONE))
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    assert (await database.ask(slow[0], 2, 2))[0][0] == 2
    assert count_waiting(sql) == batches.MAX_SLOW_OF_ONE
    lock()
    assert [rows[0][0] for rows in await asyncio.gather(*asking)] == [0, 1, 2, 0, 1]


# Locks


async def test_of_one_owners_changes_of_all_kinds_one_waits_for_the_lock(database: Database, sql: Sql, lock: Release) -> None:
    kinds: list[Query[Any]] = [query_of(LOCK, f"q.number + {n}", names="refused number moment") for n in range(7)]
    asking = [asyncio.create_task(database.ask(kind, 1, 0)) for kind in kinds]
    await until_waiting(sql, 1)
    await until(lambda: len(database._lock_queues.behind[1]) == 6)
    assert count_waiting(sql) == 1
    reading = query_of("q.number", "NULL::text", names="number refused moment", read=True)
    assert (await database.ask(reading, 1, 5))[0].number == 5
    lock()
    assert [rows[0].number for rows in await asyncio.gather(*asking)] == [*range(7)]


async def test_only_so_many_owners_wait_for_a_lock_on_a_connection(database: Database, sql: Sql, lock: Release) -> None:
    changing = query_of(LOCK, "q.number", names="refused number moment")
    asking = [asyncio.create_task(database.ask(changing, n, n)) for n in range(6)]
    await until(lambda: len(database._lock_queues.behind) == 6)
    await until_waiting(sql, database_module.MAX_LOCKS_AT_ONCE)
    await asyncio.sleep(0.1)
    assert count_waiting(sql) == database_module.MAX_LOCKS_AT_ONCE
    lock()
    assert [rows[0].number for rows in await asyncio.gather(*asking)] == [*range(6)]


async def test_a_change_waits_behind_what_has_the_owners_line(running: Running, sql: Sql, lock: Release) -> None:
    changing = query_of(LOCK, "q.number", names="refused number moment")
    async with running(lock_timeout_seconds=0.3) as database:
        async with database.locked(1):
            [refused] = await ask(database, changing, (1, 1))
        assert isinstance(refused, Unavailable)
        assert "Another change of yours" in str(refused)
        assert count_waiting(sql) == 0
        lock()
        assert (await database.ask(changing, 1, 2))[0].number == 2


# What clients ask

Requests = Callable[[Person], Any]
SLOW = {
    "words": lambda alice: alice.get("/task?q=milk"),
    "names": lambda alice: alice.get("/task?sort=-name"),
    "past": lambda alice: alice.get("/task?revision=1"),
    "past of one": lambda alice: alice.get("/task/1?revision=1"),
    "conflict": lambda alice: alice.patch("/task/1", json={"name": "b"}, headers={"If-Match": '"9"'}),
    "restoration": lambda alice: alice.post("/task/1/restore", json={"revision": 1}),
    "undo": lambda alice: alice.post("/task/undo", json={"since": 1, "dry_run": True}),
}
QUICK = {
    "list": lambda alice: alice.get("/task?status=new&limit=10"),
    "task": lambda alice: alice.get("/task/1"),
    "change": lambda alice: alice.patch("/task/1", json={"name": "c"}),
    "restoration": lambda alice: alice.post("/task/1/restore", json={}),
    "creation": lambda alice: alice.post("/task", json={"name": "d", "description": "", "status": "new"}),
    "log": lambda alice: alice.get("/task/1/log"),
}


@pytest.mark.parametrize("name", SLOW)
async def test_what_may_take_long_waits_for_its_users_turn(alice: Person, mallory: Person, name: str) -> None:
    await alice.new_task()
    await mallory.new_task()
    assert alice.caller
    async with alice.service.database.slow_turns.of(alice.caller.user_id):
        asking = asyncio.create_task(SLOW[name](alice))
        await until(lambda: alice.caller and alice.service.database.slow_turns.count_waiting(alice.caller.user_id))
        others: Answer = await SLOW[name](mallory)
        assert others.status in (200, 412)
        assert not asking.done()
    assert (await asking).status == others.status


@pytest.mark.parametrize("name", QUICK)
async def test_what_is_quick_waits_for_no_turn(alice: Person, name: str) -> None:
    await alice.new_task()
    async with AsyncExitStack() as turns:
        for n in range(database_module.MAX_SLOW_AT_ONCE):
            await turns.enter_async_context(alice.service.database.slow_turns.of(f"other {n}"))
        answer: Answer = await QUICK[name](alice)
        assert answer.status in (200, 201)


async def test_an_import_waits_behind_its_users_changes_and_others_do_not(alice: Person, mallory: Person, sql: Sql) -> None:
    assert alice.caller
    sheet, is_csv = "name,description,status\r\na,b,new\r\n", {"Content-Type": "text/csv"}
    async with alice.service.database.locked(alice.caller.user_id):
        importing = asyncio.create_task(alice.post("/import", data=sheet, headers=is_csv))
        await until(lambda: sql("SELECT 1 FROM import_row"))
        assert (await mallory.post("/import", data=sheet, headers=is_csv)).status == 200
        assert not importing.done()
    assert (await importing).status == 200


async def test_what_needs_a_long_log_holds_up_no_batch(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alice.caller
    new, headers = {"name": "a", "description": "", "status": "new"}, {"Idempotency-Key": "a"}
    created = await alice.post("/task", json=new, headers=headers)
    for table in ("user_state", "task"):
        sql(f"UPDATE {table} SET revision = revision + 10001 WHERE user_id = %s", alice.caller.user_id)
    sizes = noted(alice.service.database, monkeypatch, store._CREATE_ONCE)
    again = await alice.post("/task", json=new, headers=headers)
    assert (again.status, again.json) == (201, created.json)
    assert sizes == [1, 1, 1, 0]


async def test_who_has_too_much_under_way_is_told_so(alice: Person, mallory: Person) -> None:
    assert alice.caller
    async with alice.service.database.slow_turns.of(alice.caller.user_id):
        waiting = [asyncio.create_task(alice.get(f"/task?q={n}")) for n in range(database_module.MAX_SLOW_WAITING)]
        await until(lambda: alice.caller and alice.service.database.slow_turns.count_waiting(alice.caller.user_id) == len(waiting))
        assert (await alice.post("/task/undo", json={"since": 0})).status == 429
        refused = await alice.get("/task?q=too+many")
        assert (refused.status, refused.headers["Retry-After"], refused.json["type"]) == (429, "1", "about:blank")
        assert "too many requests under way" in refused.json["detail"]
        assert (await mallory.get("/task?q=others")).status == 200
        assert (await alice.get("/task")).status == 200
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}


def test_the_present_page_by_id_is_quick() -> None:
    for asked in ((), ("status",), ("statuses",), ("completion_at",), ("completion_from", "completion_to")):
        assert not queries.task_page("live", asked, "id", False, "the start", short=False).is_slow

"""What goes by itself: the trash when it is old, all that a closed account had, and leftovers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

import app
from postgres import housekeeping
from postgres.database import Database
from rest.errors import Unavailable
from service import Service
from tests.conftest import Person, Running, Server, Start, configured, connection_to
from tests.tasks.test_tasks import rows
from tests.waiting import PATIENCE_SECONDS, until

Sql = Callable[..., list[tuple[Any, ...]]]

DAYS = 24 * 3600


def trash_chore() -> housekeeping.Chore:
    """The chore that purges what is in the trash."""
    [chore] = [chore for chore in app.chores(configured()) if chore.call.startswith("trash")]
    return chore


async def sweep(service: Service) -> int:
    """Do each chore of a service once, and return how many rows are gone."""
    return sum([await housekeeping.sweep(service.database, chore) for chore in app.chores(service.settings)])


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    """A client of an application that keeps house only when a test says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(housekeeping, "SECONDS_BETWEEN_ROUNDS", 3600)
        async with TestClient(TestServer(await app.create_app(configured()))) as client:
            yield client


@pytest.fixture(autouse=True)
async def house_kept(service: Service, sql: Sql) -> None:
    """Begin with nothing to do: other tests delete accounts, too, and what they counted ends when its time is over."""
    sql("DELETE FROM rate_limit")
    while await sweep(service):  # some of it goes in several steps
        pass


@pytest.fixture
def other_sql(server: Server) -> Iterator[Sql]:
    """A second connection."""
    with connection_to(server) as sql:
        yield sql


@contextmanager
def held(sql: Sql, statement: str, *parameters: Any) -> Iterator[None]:
    """Hold what a statement locks."""
    sql("BEGIN")
    try:
        sql(statement, *parameters)
        yield
    finally:
        sql("ROLLBACK")


def age(sql: Sql, person: Person, task_id: int, seconds: float) -> None:
    """Let a task have been in the trash for so long."""
    assert person.caller
    sql(
        "UPDATE task SET deleted_at = now() - make_interval(secs => %s) WHERE user_id = %s AND id = %s",
        seconds,
        person.caller.user_id,
        task_id,
    )


def ids(sql: Sql, person: Person) -> list[int]:
    assert person.caller
    return [task_id for (task_id,) in sql("SELECT id FROM task WHERE user_id = %s ORDER BY id", person.caller.user_id)]


async def trash(person: Person, sql: Sql, *seconds: float) -> None:
    """Put tasks into a person's trash that have been there for so long."""
    for each in seconds:
        task = await person.new_task()
        await person.delete(f"/task/{task['id']}")
        age(sql, person, task["id"], each)


# The trash


async def test_what_was_in_the_trash_for_its_time_is_purged_and_nothing_else(alice: Person, mallory: Person, sql: Sql) -> None:
    for person in (alice, mallory):
        await trash(person, sql, 31 * DAYS, 30 * DAYS + 5, 30 * DAYS - 3600, 0)
        await person.new_task()
    assert await sweep(alice.service) == 4
    for person in (alice, mallory):
        assert ids(sql, person) == [3, 4, 5]
        [(state, _, log)] = rows(sql, person)
        assert (state["kept_from"], state["purged"], state["revision"]) == (4, 2, 9)
        assert {entry["task_id"] for entry in log} == {3, 4}
    assert await sweep(alice.service) == 0


async def test_history_is_whole_from_the_last_change_of_what_was_purged(alice: Person, sql: Sql) -> None:
    await trash(alice, sql, 0, 31 * DAYS, 31 * DAYS)
    [(expected,)] = sql("SELECT updated_at FROM task WHERE user_id = %s AND id = 3", alice.caller.user_id)
    assert await sweep(alice.service) == 2
    state = sql("SELECT kept_from, kept_from_at, purged FROM user_state WHERE user_id = %s", alice.caller.user_id)
    assert state == [(6, expected, 2)]


async def test_the_operator_says_how_long(alice: Person, sql: Sql, service: Service) -> None:
    await trash(alice, sql, 5, 100)
    await sweep(Service(configured(trash_lifetime_seconds=60), service.database))
    assert ids(sql, alice) == [1]


async def test_who_is_changing_something_is_left_for_the_next_time(alice: Person, mallory: Person, sql: Sql, other_sql: Sql) -> None:
    await trash(alice, sql, 31 * DAYS)
    await trash(mallory, sql, 31 * DAYS)
    with held(other_sql, "SELECT FROM user_state WHERE user_id = %s FOR NO KEY UPDATE", alice.caller.user_id):
        assert await asyncio.wait_for(sweep(alice.service), PATIENCE_SECONDS) == 1
        assert (ids(sql, alice), ids(sql, mallory)) == ([1], [])
    assert await sweep(alice.service) == 1
    assert ids(sql, alice) == []


async def test_nobody_is_held_up_for_more_than_a_step(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TASKS_PER_STEP", 2)
    monkeypatch.setattr(app, "ROWS_PER_STEP", 3)
    await trash(alice, sql, *[31 * DAYS] * 5)
    for n in range(3):
        task = await alice.new_task()
        for name in "abcd"[: 1 + n]:
            await alice.patch(f"/task/{task['id']}", json={"name": name})
        await alice.delete(f"/task/{task['id']}")
        age(sql, alice, task["id"], 31 * DAYS - n)
    steps = []
    while step := await housekeeping._take_step(alice.service.database, trash_chore()):
        steps.append(step)
    assert steps == [2, 2, 2, 1, 1]  # the last two have three and four entries
    assert ids(sql, alice) == []


async def test_only_one_worker_is_at_it(alice: Person, sql: Sql, other_sql: Sql) -> None:
    await trash(alice, sql, 31 * DAYS)
    with held(other_sql, "SELECT pg_advisory_xact_lock(%s, n) FROM generate_series(0, 9) n", housekeeping.ADVISORY_LOCKS):
        assert await asyncio.wait_for(sweep(alice.service), PATIENCE_SECONDS) == 0
        assert ids(sql, alice) == [1]
    assert await sweep(alice.service) == 1


# Closed accounts


def tables_of_users(sql: Sql) -> dict[str, str]:
    """Return the tables that hold what is a user's, each with the column that says whose."""
    tables = sql(
        "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables USING (table_name, table_schema)"
        " WHERE table_schema = 'public' AND column_name = 'user_id' AND table_type = 'BASE TABLE'"
    )
    return dict(tables) | {"users": "id"}


def count(sql: Sql, person: Person) -> dict[str, int]:
    """Return how many rows of a person each table has."""
    assert person.caller
    return {
        table: sql(f"SELECT count(*) FROM {table} WHERE {column} = %s", person.caller.user_id)[0][0]
        for table, column in tables_of_users(sql).items()
    }


async def furnish(person: Person, sql: Sql) -> None:
    """Give a person rows in every table."""
    assert person.caller
    for _ in range(3):
        await person.new_task()
    await person.patch("/task/1", json={"name": "other"})
    await person.delete("/task/2")
    sql("INSERT INTO idempotency_key VALUES (%s, 'key', 'digest', 1, NULL, now())", person.caller.user_id)
    sql("INSERT INTO event_stream VALUES (%s, 1, now())", person.caller.user_id)
    sql("INSERT INTO import_row VALUES (%s, gen_random_uuid(), 1, 'task', '{}', now())", person.caller.user_id)
    sql("INSERT INTO one_time_code VALUES (sha256(%s), %s, now() + interval '1 day')", person.login.encode(), person.caller.user_id)
    assert all(count(sql, person).values()), count(sql, person)


def close(sql: Sql, person: Person) -> None:
    assert person.caller
    sql("UPDATE user_state SET token_generation = -1 WHERE user_id = %s", person.caller.user_id)


@pytest.mark.parametrize("rows_per_step", [10_000, 2, 1])
async def test_of_a_closed_account_no_row_is_left(
    alice: Person, mallory: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch, rows_per_step: int
) -> None:
    monkeypatch.setattr(app, "ROWS_PER_STEP", rows_per_step)
    monkeypatch.setattr(housekeeping, "SECONDS_BETWEEN_STEPS", 0)
    for person in (alice, mallory):
        await furnish(person, sql)
    others = count(sql, mallory)
    close(sql, alice)
    await sweep(alice.service)
    assert not any(count(sql, alice).values()), count(sql, alice)
    assert count(sql, mallory) == others


async def test_a_closed_account_that_is_held_is_left_for_the_next_time(alice: Person, mallory: Person, sql: Sql, other_sql: Sql) -> None:
    for person in (alice, mallory):
        await furnish(person, sql)
        close(sql, person)
    with held(other_sql, "SELECT FROM user_state WHERE user_id = %s FOR NO KEY UPDATE", alice.caller.user_id):
        await asyncio.wait_for(sweep(alice.service), PATIENCE_SECONDS)
        assert (all(count(sql, alice).values()), any(count(sql, mallory).values())) == (True, False)
    await sweep(alice.service)
    assert not any(count(sql, alice).values())


# Leftovers


async def test_leftovers_go_when_their_time_is_over(alice: Person, sql: Sql) -> None:
    user = alice.caller.user_id  # none of the young gets old before the next test
    for key, hours in (("young", 20), ("old", 24.1)):
        sql("INSERT INTO idempotency_key VALUES (%s, %s, '', 1, NULL, now() - %s * interval '1 hour')", user, key, hours)
    for line, minutes in ((1, 30), (2, 61)):
        sql("INSERT INTO import_row VALUES (%s, %s::uuid, %s, '', '{}', now() - %s * interval '1 minute')", user, "0" * 32, line, minutes)
    for slot, minutes in ((1, -30), (2, 30), (3, 61)):
        sql("INSERT INTO event_stream VALUES (%s, %s, now() - %s * interval '1 minute')", user, slot, minutes)
    for code, minutes in ((b"young", 30), (b"old", -1)):
        sql("INSERT INTO one_time_code VALUES (%s, NULL, now() + %s * interval '1 minute')", code, minutes)
    assert await sweep(alice.service) == 4
    assert sql("SELECT digest = 'young' FROM one_time_code WHERE digest IN ('young', 'old')") == [(True,)]
    assert sql("SELECT key FROM idempotency_key WHERE user_id = %s", user) == [("young",)]
    assert sql("SELECT part FROM import_row WHERE user_id = %s", user) == [(1,)]
    assert sorted(sql("SELECT slot FROM event_stream WHERE user_id = %s", user)) == [(1,), (2,)]


# By itself


async def test_where_nothing_is_to_do_only_indexes_are_looked_at(alice: Person, sql: Sql, other_sql: Sql) -> None:
    await furnish(alice, sql)
    await sweep(alice.service)
    with held(other_sql, "SET LOCAL enable_seqscan = off"):
        for chore in app.chores(alice.service.settings):
            assert other_sql(f"SELECT {chore.call}", *chore.values) == [(0,)]
        scanned = dict(other_sql("SELECT relname::text, seq_scan FROM pg_stat_xact_user_tables"))
    assert {table for table, scans in scanned.items() if scans} <= {"event_stream", "functions_used"}


async def test_a_chore_that_cannot_go_on_is_no_matter_to_the_others(
    start: Start, alice: Person, mallory: Person, sql: Sql, other_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trash(alice, sql, 31 * DAYS)
    await furnish(mallory, sql)
    close(sql, mallory)
    monkeypatch.setattr(housekeeping, "SECONDS_BETWEEN_ROUNDS", 0.01)
    with held(other_sql, "SELECT FROM task_log WHERE user_id = %s FOR KEY SHARE", alice.caller.user_id):
        await start()
        await until(lambda: not any(count(sql, mallory).values()))
        assert ids(sql, alice) == [1]
    await until(lambda: not ids(sql, alice))  # or else the next test would find it


@pytest.mark.long
async def test_a_task_with_a_log_that_takes_longer_than_a_statement_may_is_purged_too(running: Running, alice: Person, sql: Sql) -> None:
    await trash(alice, sql, 31 * DAYS)
    sql("CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.1); RETURN NULL; END'")
    sql("CREATE TRIGGER dawdling AFTER DELETE ON task_log EXECUTE FUNCTION dawdle()")
    try:
        async with running(statement_timeout_seconds=1) as database:
            assert await housekeeping.sweep(database, trash_chore()) == 1
    finally:
        sql("DROP FUNCTION dawdle CASCADE")
    assert ids(sql, alice) == []


async def test_it_is_done_without_anyone_asking_and_survives_trouble(
    start: Start, alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await trash(alice, sql, 31 * DAYS)
    troubles: list[Exception] = [Unavailable("gone for a moment"), RuntimeError("nobody thought of this")]
    step = housekeeping._take_step

    async def troubled_step(database: Database, chore: housekeeping.Chore) -> int:
        if chore == trash_chore() and troubles:
            raise troubles.pop(0)
        return await step(database, chore)

    monkeypatch.setattr(housekeeping, "SECONDS_BETWEEN_ROUNDS", 0.01)
    monkeypatch.setattr(housekeeping, "_take_step", troubled_step)

    def messages() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "postgres.housekeeping"]

    with caplog.at_level(logging.INFO, "postgres.housekeeping"):
        await start()
        await until(lambda: len(messages()) >= 2)
    assert messages() == [
        "housekeeping failed, and will try again",
        "housekeeping: trash_sweep did 1",
    ]
    assert ids(sql, alice) == []

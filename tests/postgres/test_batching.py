"""Requests that travel together: each gets its own answer, nobody waits for a neighbour, and the answer comes after the commit."""

import asyncio
import json
import time
from collections import namedtuple
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime
from typing import Any

import psycopg2
import pytest
from aiohttp.test_utils import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from peewee import SQL, Select

from postgres import batches, heavy_lane
from postgres import database as database_module
from postgres.batches import MAX_TIMES_BUSY
from postgres.database import Database
from postgres.errors import DatabaseUnavailable
from postgres.queries import BUSY, Query, SetQuery
from rest.errors import Unavailable
from tasks import store
from tests.conftest import Person, Running, Server, Start, configured, connection_to
from tests.tasks.test_races import row_held, until_waiting
from tests.waiting import ENDLESS, PATIENCE_SECONDS

Sql = Callable[..., list[tuple[Any, ...]]]

OWN = {"owner": "bigint", "number": "int"}
ONE_ROW = SQL("(SELECT 1) one_row")
STATEMENT = SQL("statement_timestamp()")  # the same for all that travel together, and for nobody else
Release = Callable[[], None]


def query_of(*columns: str, source: SQL = ONE_ROW, types: dict[str, str] | None = None, names: str = "", **options: Any) -> Query[Any]:
    """Declare a query of these columns, and of the moment of its statement."""
    row = namedtuple("row", names.split() or [*(f"column_{n}" for n in range(len(columns))), "moment"])  # type: ignore[misc]  # noqa: PYI024
    return Query(row, Select([source], [*map(SQL, columns), STATEMENT]), types or OWN, **options)


@pytest.fixture
async def database(running: Running) -> AsyncIterator[Database]:
    async with running(batch_size=32, statement_timeout_seconds=60, lock_timeout_seconds=60) as database:
        yield database


@pytest.fixture
def counter(server: Server) -> Iterator[Callable[[], dict[int, int]]]:
    """A function in PostgreSQL that counts its calls by number, divides by the number that it counted, and ours that gives the counts."""
    with connection_to(server) as sql:
        sql("CREATE TABLE counter (number int PRIMARY KEY, calls int NOT NULL)")
        sql(
            "CREATE FUNCTION counted(n int, divisor int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO counter VALUES (n, 1) ON CONFLICT (number) DO UPDATE SET calls = counter.calls + 1;"
            " RETURN n / divisor; END $$"
        )
        yield lambda: dict(sql("SELECT number, calls FROM counter"))
        sql("DROP FUNCTION counted")
        sql("DROP TABLE counter")


HELD = "pg_advisory_xact_lock(4711)::text"  # waits until the lock is let go
LOCK = f"CASE WHEN q.wait THEN {HELD} WHEN NOT pg_try_advisory_xact_lock(4711) THEN '{BUSY}' END"


@pytest.fixture
def lock(server: Server) -> Iterator[Release]:
    """Hold the lock of LOCK, until what is given is called."""
    with connection_to(server) as sql:
        sql("SELECT pg_advisory_lock(4711)")

        def release() -> None:
            sql("SELECT pg_advisory_unlock_all()")

        yield release


async def ask(database: Database, query: Query[Any], *requests: tuple[Any, ...]) -> list[Any]:
    """Ask all of this at once and give the rows, or the error, of each."""
    return await asyncio.gather(*(database.ask(query, *request) for request in requests), return_exceptions=True)


async def ask_after(database: Database, query: Query[Any], turns: int) -> list[Any]:
    """Ask once the loop has turned so often."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return await database.ask(query, 1, turns)


def statements(answers: list[Any]) -> int:
    """Tell in how many statements these answers came."""
    return len({rows[0][-1] for rows in answers})


# Who travels with whom


async def test_requests_that_arrive_together_travel_together_and_each_gets_its_own_rows(database: Database) -> None:
    numbers = query_of("g.n", source=SQL("generate_series(1, q.number) g(n)"))
    answers = await ask(database, numbers, *((7 - n, n) for n in range(6)))
    assert [[n for n, _ in rows] for rows in answers] == [list(range(1, n + 1)) for n in range(6)]
    assert statements(answers[1:]) == 1


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody go without the others because the machine is slow."""
    monkeypatch.setattr(batches, "SECONDS_OF_PATIENCE", 60)


@pytest.mark.usefixtures("patience")
async def test_who_arrives_while_a_statement_is_under_way_travels_in_the_next(database: Database, sql: Sql, lock: Release) -> None:
    slow = query_of("q.number", HELD)
    first = asyncio.create_task(database.ask(slow, 1, 0))
    await until_waiting(sql, 1)
    asking = asyncio.create_task(ask(database, slow, (1, 1), (2, 2)))
    await asyncio.sleep(0.01)
    lock()
    later = await asking
    assert [rows[0][0] for rows in later] == [1, 2]
    assert statements(later) == 1
    assert statements([*later, await first]) == 2


@pytest.mark.usefixtures("patience")
async def test_who_comes_just_after_a_statement_has_ended_travels_in_the_next_too(database: Database, sql: Sql, lock: Release) -> None:
    slow = query_of("q.number", HELD)
    first = asyncio.create_task(database.ask(slow, 1, 0))
    await until_waiting(sql, 1)
    second = asyncio.create_task(database.ask(slow, 1, 1))
    await asyncio.sleep(0.01)
    lock()
    answers = [await first, await database.ask(slow, 1, 2), await second]
    assert [rows[0][0] for rows in answers] == [0, 2, 1]
    assert statements(answers[1:]) == 1


@pytest.mark.usefixtures("patience")
async def test_a_batch_takes_along_whoever_is_near(database: Database) -> None:
    numbers = query_of("q.number")
    answers = await asyncio.gather(*(ask_after(database, numbers, turns) for turns in reversed(range(5))))
    assert [number for [(number, _)] in answers] == [4, 3, 2, 1, 0]
    assert statements(answers) == 1
    near, far = await asyncio.gather(ask_after(database, numbers, 0), ask_after(database, numbers, 4))
    assert statements([near, far]) == 2


async def test_a_batch_does_not_wait_for_ever_for_those_who_come_one_by_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "SECONDS_OF_PATIENCE", 0)
    numbers = query_of("q.number")
    assert statements(await asyncio.gather(*(ask_after(database, numbers, turns) for turns in reversed(range(5))))) > 1


async def test_a_batch_has_a_most(running: Running) -> None:
    async with running(batch_size=4) as database:
        assert statements(await ask(database, query_of("q.number"), *((1, n) for n in range(10)))) == 3


async def test_a_batch_size_of_one_lets_each_travel_alone(running: Running) -> None:
    async with running(batch_size=1) as database:
        assert statements(await ask(database, query_of("q.number"), *((1, n) for n in range(5)))) == 5


@pytest.mark.usefixtures("patience")
async def test_a_request_that_finds_nothing_under_way_goes_at_once(database: Database) -> None:
    statement = query_of("q.number")
    async with asyncio.timeout(PATIENCE_SECONDS):  # half as long as one that waited for others
        for n in range(100):
            assert (await database.ask(statement, 1, n))[0][0] == n


async def test_a_slow_neighbour_holds_up_nobody_for_long(database: Database, sql: Sql, lock: Release) -> None:
    sleeper = query_of("q.number", f"CASE q.number WHEN 0 THEN {HELD} END", types=OWN)
    slow = asyncio.create_task(database.ask(sleeper, 1, 0))
    await until_waiting(sql, 1)
    answers = await ask(database, sleeper, (2, 2), (3, 3))
    assert [rows[0][0] for rows in answers] == [2, 3]
    assert not slow.done()
    lock()
    await slow


async def test_a_caller_that_has_gone_is_left_out(database: Database, counter: Callable[[], dict[int, int]]) -> None:
    counting = query_of("counted(q.number, 1)")
    requests = [asyncio.ensure_future(database.ask(counting, 1, n)) for n in range(3)]
    await asyncio.sleep(0)
    requests[1].cancel()
    answers: list[Any] = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert [rows[0][0] for rows in (answers[0], answers[2])] == [0, 2]
    assert counter() == {0: 1, 2: 1}


# What is too long to travel


@pytest.fixture
def long(counter: Callable[[], dict[int, int]]) -> Query[Any]:
    """Return so many bytes, but, where others wait, none if they are too many."""
    text = "CASE WHEN q.wait OR q.number < 100000 THEN repeat('x', q.number) END"
    return query_of("counted(q.number, 1)", "pg_sleep(0.02)", text, names="count slept json moment", read=True, heavy=True)


async def test_what_is_too_long_is_sent_again_alone_and_in_turn(
    database: Database, long: Query[Any], counter: Callable[[], dict[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as others:
        for n in range(database_module.MAX_HEAVY_AT_ONCE - 1):
            await others.enter_async_context(database.heavy_turns.of(f"other {n}"))
        for calls in (2, 3):  # the second time it is known beforehand
            began_at = loop.time()
            answers = await ask(database, long, *((n, 100_000 + n) for n in range(1, 6)), (6, 6))
            assert loop.time() - began_at > 5 * 0.02
            assert [rows[0][2] for rows in answers] == [b"x" * (100_000 + n) for n in range(1, 6)] + [b"x" * 6]
            assert counter() == {100_000 + n: calls for n in range(1, 6)} | {6: calls - 1}


async def test_one_who_asks_for_much_waits_behind_himself(database: Database, long: Query[Any]) -> None:
    order: list[int] = []

    async def answer(owner: int) -> None:
        await database.ask(long, owner, 100_000)
        order.append(owner)

    await database.ask(long, 1, 100_000)  # from now on it is known whose answers are long
    await database.ask(long, 2, 100_000)
    async with AsyncExitStack() as others:
        for n in range(database_module.MAX_HEAVY_AT_ONCE - 1):
            await others.enter_async_context(database.heavy_turns.of(f"other {n}"))
        await asyncio.gather(*(answer(owner) for owner in (*[1] * 20, 2)))
    assert order == [1, 2, *[1] * 19]


async def test_what_is_long_and_goes_alone_always_takes_a_turn(database: Database) -> None:
    query = query_of("NULL::text", names="json moment", read=True, heavy=True, alone=True)
    async with AsyncExitStack() as others:
        for n in range(database_module.MAX_HEAVY_AT_ONCE):
            await others.enter_async_context(database.heavy_turns.of(f"other {n}"))
        asking = asyncio.create_task(database.ask(query, 1, 1))
        await asyncio.sleep(0.1)
        assert not asking.done()
        assert [row.json for row in await database.ask_alone(query, 1, 1)] == [None]
    assert [row.json for row in await asking] == [None]


async def test_who_has_short_answers_again_travels_again(
    database: Database, long: Query[Any], counter: Callable[[], dict[int, int]]
) -> None:
    for number in (100_000, 10, 11, 12):
        assert (await database.ask(long, 1, number))[0][2] == b"x" * number
    assert counter() == {100_000: 2, 10: 1, 11: 1, 12: 1}
    assert not database._batches[long]._heavy_lane.owners


async def test_without_batching_too_only_so_many_long_answers_are_made_at_once(
    running: Running, long: Query[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "MAX_HEAVY_AT_ONCE", 1)
    async with running(batch_size=1) as database:
        began_at = time.monotonic()
        await ask(database, long, *((n, 100_000) for n in range(5)))
        assert time.monotonic() - began_at > 5 * 0.02


async def test_only_so_many_are_remembered_for_their_long_answers(
    database: Database, long: Query[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heavy_lane, "MAX_REMEMBERED", 2)
    await ask(database, long, *((n, 100_000) for n in range(5)))
    assert len(database._batches[long]._heavy_lane.owners) == 2


# What goes wrong


async def test_nobody_suffers_for_a_neighbours_fault(database: Database, counter: Callable[[], dict[int, int]]) -> None:
    dividing = query_of("counted(q.number, q.divisor)", types=OWN | {"divisor": "int"})
    answers = await ask(database, dividing, (1, 1, 1), (2, 2, 0), (3, 3, 1))
    assert isinstance(answers[1], psycopg2.errors.DivisionByZero)
    assert [rows[0][0] for rows in (answers[0], answers[2])] == [1, 3]
    assert counter() == {1: 1, 3: 1}


@pytest.mark.long
async def test_a_neighbour_over_its_limit_ends_alone(running: Running, counter: Callable[[], dict[int, int]]) -> None:
    async with running(batch_size=32, statement_timeout_seconds=0.5) as database:
        sleeping = query_of("counted(q.number, 1)", "pg_sleep(q.seconds)", types=OWN | {"seconds": "float"})
        answers = await ask(database, sleeping, (1, 1, 0), (2, 2, 5), (3, 3, 0))
        assert isinstance(answers[1], Unavailable)
        assert [rows[0][0] for rows in (answers[0], answers[2])] == [1, 3]
        assert counter() == {1: 1, 3: 1}


async def test_of_a_batch_whose_connection_broke_reads_are_repeated_and_changes_are_not(running: Running) -> None:
    async with running(batch_size=32, db_pool_size=1) as database:
        ending = "CASE WHEN current_setting('application_name') = 'first' THEN pg_terminate_backend(pg_backend_pid()) END"
        for read in (True, False):
            await database.rows("SELECT set_config('application_name', 'first', false)", ())
            answers = await ask(database, query_of("q.number", ending, read=read), (1, 1), (2, 2))
            if read:
                assert [rows[0][0] for rows in answers] == [1, 2]
            else:
                assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 2


async def test_a_batch_that_finds_no_connection_is_unavailable(running: Running) -> None:
    async with running(batch_size=32, db_pool_size=1, db_wait_seconds=0.1) as database:
        async with database.aio_connection():
            assert [type(answer) for answer in await ask(database, query_of("q.number"), (1, 1), (2, 2))] == [DatabaseUnavailable] * 2
        assert statements(await ask(database, query_of("q.number"), (1, 1), (2, 2))) == 1


# What is sent arrives as it is, together and alone

ANY = {
    "owner": "bigint",
    "text": "text",
    "json": "jsonb",
    "ids": "bigint[]",
    "words": "text[]",
    "day": "date",
    "moment": "timestamptz",
    "yes": "boolean",
}
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.sampled_from(
    ["NULL", "{}", "{a,b}", '"', "\\", "'", "%s", "$1", ","]
)
values = st.tuples(
    st.integers(1, 2**63 - 1),
    texts | st.none(),
    texts.map(lambda text: json.dumps({"a": text})) | st.none(),
    st.lists(st.integers(0, 2**63 - 1) | st.none()) | st.none(),
    st.lists(texts) | st.none(),
    st.dates(date(1900, 1, 1)) | st.none(),
    st.datetimes(datetime(1900, 1, 1), timezones=st.just(UTC)) | st.none(),  # noqa: DTZ001 - hypothesis wants it so
    st.booleans() | st.none(),
)


@given(requests=st.lists(values, min_size=2, max_size=5))
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.long
def test_every_value_arrives_as_it_is(sql: Sql, requests: list[tuple[Any, ...]]) -> None:
    columns = [f"q.{name}" for name in ANY]
    statement = query_of(*columns, types=ANY)
    alone = [sql(statement.one.text, *request, False)[0][:-1] for request in requests]
    together = {number: tuple(row) for number, *row, _ in sql(statement.many.text, *statement.columns(requests))}
    assert [together[number] for number in range(1, len(requests) + 1)] == alone
    assert [(row[0], row[1], row[3], row[4], row[5], row[7]) for row in alone] == [(r[0], r[1], r[3], r[4], r[5], r[7]) for r in requests]


# Plans


async def test_a_connection_keeps_the_plans_of_so_many_statements(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "MAX_PREPARED", 3)
    async with running(batch_size=32, db_pool_size=1, db_prepare=True) as database:
        several = [query_of(f"q.number + {n}") for n in range(5)]
        for _ in range(2):
            assert [(await database.ask(statement, 1, 10))[0][0] for statement in several] == [10, 11, 12, 13, 14]
        kept = await database.rows("SELECT count(*) FROM pg_prepared_statements", ())
        assert kept == [(3,)]


async def test_without_preparing_nothing_is_kept(running: Running) -> None:
    async with running(batch_size=32, db_pool_size=1, db_prepare=False) as database:
        assert [rows[0][0] for rows in await ask(database, query_of("q.number"), (1, 1), (2, 2))] == [1, 2]
        assert await database.rows("SELECT count(*) FROM pg_prepared_statements", ()) == [(0,)]


# Changes of tasks


@pytest.fixture
async def client(start: Start) -> TestClient[Any, Any]:
    return await start(batch_size=32, **ENDLESS)


async def test_an_answer_comes_after_the_commit_that_holds_its_change(alice: Person, mallory: Person, sql: Sql) -> None:
    await alice.new_task()
    await mallory.new_task()

    async def change(person: Person, name: str) -> bool:
        answer = await person.patch("/task/1", json={"name": name})
        assert answer.status == 200, answer
        assert person.caller
        [(revision,)] = sql("SELECT revision FROM task WHERE user_id = %s", person.caller.user_id)
        return bool(revision >= answer.json["revision"])

    assert all(await asyncio.gather(*(change(person, str(n)) for n in range(50) for person in (alice, mallory))))


@pytest.mark.long
async def test_while_one_users_row_is_locked_twelve_others_go_on_at_full_speed(
    alice: Person, newcomer: Callable[[str], Any], sql: Sql
) -> None:
    others = [await newcomer("bob") for _ in range(12)]
    for person in (alice, *others):
        await person.new_task()

    async def changes(person: Person, ends: float) -> tuple[int, float]:
        count, slowest = 0, 0.0
        while (started := time.monotonic()) < ends:
            assert (await person.patch("/task/1", json={"name": f"{count}"})).status == 200
            count, slowest = count + 1, max(slowest, time.monotonic() - started)
        return count, slowest

    async def made_in(seconds: float) -> tuple[int, float]:
        ends = time.monotonic() + seconds
        made = await asyncio.gather(*(changes(person, ends) for person in others))
        return sum(count for count, _ in made), max(slowest for _, slowest in made)

    free, _ = await made_in(0.75)
    with row_held(sql, alice):
        held = [asyncio.ensure_future(alice.patch("/task/1", json={"name": f"held {n}"})) for n in range(5)]
        await until_waiting(sql, 1)
        locked, slowest = await made_in(1.2)
        assert not [answer for answer in held if answer.done()]
        assert sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == [(1,)]
    assert 4 * locked > free, (locked, free)  # in twice the time: whoever had to wait for that row would do next to nothing
    assert slowest < configured().lock_timeout_seconds
    answers = await asyncio.gather(*held)
    assert sorted(answer.json["revision"] for answer in answers) == [2, 3, 4, 5, 6]


def noted(database: Database, monkeypatch: pytest.MonkeyPatch, query: Query[Any], after: Callable[[], None] = lambda: None) -> list[int]:
    """Note, after each statement of a query, how many requests travelled in it; 0: one that waited for the lock."""
    sizes: list[int] = []
    for_one, for_many, rows_of_one, rows_of_many = query.for_one, query.for_many, query.rows_of_one, query.rows_of_many

    def one(arguments: Any, *, wait: bool) -> Any:
        sizes.append(0 if wait else 1)
        return for_one(arguments, wait=wait)

    def many(requests: Any) -> Any:
        sizes.append(len(requests))
        return for_many(requests)

    def end_one(rows: Any) -> Any:
        after()
        return rows_of_one(rows)

    def end_many(rows: Any, requests: int) -> Any:
        after()
        return rows_of_many(rows, requests)

    for name, function in {"for_one": one, "for_many": many, "rows_of_one": end_one, "rows_of_many": end_many}.items():
        monkeypatch.setattr(query, name, function)
    return sizes


async def test_revisions_arrive_as_they_are_also_where_one_is_none(alice: Person, mallory: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    await alice.new_task()
    await mallory.new_task()
    assert alice.caller
    assert mallory.caller
    sizes = noted(alice.service.database, monkeypatch, store._WRITE)
    change = '{"name": "b"}'
    answers = await ask(
        alice.service.database, store._WRITE, (*alice.caller, 1, [1, None], change, None), (*mallory.caller, 1, [2, None], change, None)
    )
    assert [rows[0].refused for rows in answers] == [None, "changed_meanwhile"]
    assert sizes == [2]


@pytest.mark.usefixtures("patience")
async def test_whoever_meets_a_lock_that_is_gone_soon_goes_in_the_next_batch(
    database: Database, lock: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = query_of(LOCK, "q.number", names="refused number moment")
    sizes = noted(database, monkeypatch, changing, after=lock)
    answers = await ask(database, changing, *((n, n) for n in range(4)))
    assert [rows[0].number for rows in answers] == [0, 1, 2, 3]
    assert sizes == [4, 4]


@pytest.mark.usefixtures("patience")
async def test_whoever_meets_a_lock_that_stays_waits_for_it_alone_and_is_joined_by_nobody(
    database: Database, lock: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = query_of(LOCK, "q.number", names="refused number moment")
    sizes = noted(database, monkeypatch, changing)
    asking = asyncio.create_task(ask(database, changing, (1, 1), (2, 2)))
    expected = [2] * (1 + MAX_TIMES_BUSY) + [0, 0]
    while len(sizes) < len(expected):
        await asyncio.sleep(0.01)
    behind = [asyncio.create_task(database.ask(changing, 1, n)) for n in (3, 4)]
    other = asyncio.create_task(database.ask(query_of("q.number"), 1, 5))  # another query knows nothing of that
    await other
    assert sizes == expected
    lock()
    assert [rows[0].number for rows in await asking] == [1, 2]
    assert [rows[0].number for rows in await asyncio.gather(*behind)] == [3, 4]
    assert sizes[: len(expected)] == expected


async def test_whoever_meets_a_lock_goes_no_more_where_another_of_the_same_owner_waits_for_it(
    database: Database, lock: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_TIMES_BUSY", 0)
    changing = query_of(LOCK, "q.number", names="refused number moment")
    sizes = noted(database, monkeypatch, changing)
    asking = asyncio.create_task(ask(database, changing, (1, 1), (1, 2), (1, 3)))
    while len(sizes) < 2:
        await asyncio.sleep(0.01)
    monkeypatch.undo()  # of those behind, none is to be tried again meanwhile
    sizes = noted(database, monkeypatch, changing)
    late = asyncio.create_task(database.ask(changing, 1, 4))
    await asyncio.sleep(0.05)
    assert sizes == []
    lock()
    assert [rows[0].number for rows in [*await asking, await late]] == [1, 2, 3, 4]
    assert sizes == [3]


async def test_a_function_of_arrays_is_asked_by_one_and_by_many(database: Database, sql: Sql) -> None:
    sql(
        "CREATE FUNCTION doubled(owners bigint[], numbers int[], wait boolean) RETURNS TABLE (n bigint, twice int, waits boolean)"
        " LANGUAGE sql AS 'SELECT n, 2 * number, wait FROM unnest(numbers) WITH ORDINALITY r (number, n) ORDER BY n DESC'"
    )
    doubled: SetQuery[Any] = SetQuery(namedtuple("row", "twice waits"), "doubled", OWN)  # noqa: PYI024
    try:
        assert await database.ask(doubled, 1, 4) == [(8, False)]
        assert await ask(database, doubled, *((1, n) for n in range(5))) == [[(2 * n, False)] for n in range(5)]
    finally:
        sql("DROP FUNCTION doubled")


async def test_two_databases_share_no_batch(running: Running) -> None:
    numbers = query_of("q.number")
    async with running(batch_size=32) as one, running(batch_size=32) as other:
        answers = await asyncio.gather(ask(one, numbers, (1, 1), (2, 2)), ask(other, numbers, (1, 3), (2, 4)))
    assert [statements(each) for each in answers] == [1, 1]
    assert statements([*answers[0], *answers[1]]) == 2


async def test_of_queries_beyond_so_many_only_those_under_way_are_remembered(
    database: Database, sql: Sql, lock: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "MAX_QUERIES", 3)
    slow = query_of("q.number", HELD)
    asking = asyncio.create_task(database.ask(slow, 1, 1))
    await until_waiting(sql, 1)
    for n in range(10):
        await database.ask(query_of(f"q.number + {n}"), 1, 1)
        assert len(database._batches) <= 3
    assert slow in database._batches
    lock()
    await asking


async def test_whoever_waits_too_long_behind_a_lock_is_refused_then(
    running: Running, counter: Callable[[], dict[int, int]], sql: Sql
) -> None:
    async with running(batch_size=32, lock_timeout_seconds=0.2) as database:
        changing = query_of(LOCK, "counted(q.number, 1)", names="refused count moment")
        sql("SELECT pg_advisory_lock(4711)")
        async with asyncio.timeout(PATIENCE_SECONDS):
            answers = await ask(database, changing, *((1, n) for n in range(4)))
        sql("SELECT pg_advisory_unlock(4711)")
        assert [type(answer) for answer in answers] == [DatabaseUnavailable, *[Unavailable] * 3]
        assert [rows[0][1] for rows in await ask(database, changing, (1, 8), (1, 9))] == [8, 9]

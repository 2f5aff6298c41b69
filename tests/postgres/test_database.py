"""Talking to PostgreSQL: the fixes of aiopg, each beside what happens without it; the limits; what is Unavailable."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any

import aiopg
import peewee
import psycopg2
import pytest
import uvloop

from models import User
from postgres import aiopg_fixes, migrate
from postgres.database import MIGRATIONS
from postgres.errors import NoConnectionError
from rest.errors import Unavailable
from tests.conftest import Person, Running, Server, Start, configured, connection_parameters, contents
from tests.waiting import PATIENCE_SECONDS

# The fixes


@asynccontextmanager
async def bare_pool(server: Server, **options: Any) -> AsyncIterator[aiopg.Pool]:
    async with aiopg.create_pool(
        dbname=server.ours, minsize=0, maxsize=1, enable_hstore=False, **connection_parameters(), **options
    ) as bare:
        yield bare


async def error_of_a_slow_statement(server: Server) -> type[BaseException]:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # aiopg's own way reports it there
    async with bare_pool(server, options="-c statement_timeout=50") as bare, bare.acquire() as connection, connection.cursor() as cursor:
        with pytest.raises(BaseException) as caught:
            await cursor.execute("SELECT pg_sleep(5)")
        return caught.type


async def test_a_statement_over_its_limit_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await error_of_a_slow_statement(server) is psycopg2.errors.QueryCanceled
    monkeypatch.setattr(aiopg.connection.Connection, "_poll", aiopg_fixes.aiopgs_poll)
    assert await error_of_a_slow_statement(server) is asyncio.CancelledError


async def test_an_answer_that_does_not_come_is_a_timeout_and_closes_the_connection(server: Server) -> None:
    async with bare_pool(server) as bare, bare.acquire() as connection, connection.cursor() as cursor:
        with pytest.raises(TimeoutError):
            await cursor.execute("SELECT pg_sleep(5)", timeout=0.05)
        assert connection.closed


async def outcome_of_waiting_for_a_dead_connection(server: Server) -> object:
    async with bare_pool(server, timeout=0.5) as bare:
        connection = await bare.acquire()

        async def wait() -> None:
            bare.release(await bare.acquire())

        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        connection.close()
        bare.release(connection)
        return (await asyncio.gather(waiter, return_exceptions=True))[0]


async def test_whoever_waits_is_served_when_a_dead_connection_comes_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await outcome_of_waiting_for_a_dead_connection(server) is None
    monkeypatch.setattr(aiopg.Pool, "release", aiopg_fixes.aiopgs_release)
    assert isinstance(await outcome_of_waiting_for_a_dead_connection(server), TimeoutError)


async def outcome_of_a_free_connection_that_dies_while_another_is_made(server: Server) -> object:
    async with aiopg.create_pool(dbname=server.ours, minsize=0, maxsize=2, enable_hstore=False, **connection_parameters()) as pool:
        connection = await pool.acquire()
        another = asyncio.create_task(pool.acquire())  # begins to connect
        await asyncio.sleep(0)
        pool.release(connection)
        connection.close()
        outcome = (await asyncio.gather(another, return_exceptions=True))[0]
        if not isinstance(outcome, BaseException):
            assert not outcome.closed
            pool.release(outcome)
            return None
        return outcome


async def test_a_connection_that_died_while_it_was_free_is_not_handed_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await outcome_of_a_free_connection_that_dies_while_another_is_made(server) is None
    monkeypatch.setattr(aiopg.Pool, "_fill_free_pool", aiopg_fixes.aiopgs_fill)
    assert isinstance(await outcome_of_a_free_connection_that_dies_while_another_is_made(server), AssertionError)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_under_uvloop_every_refused_connection_says_so(unused_tcp_port: int) -> None:
    async def errors(connect: Callable[..., Any]) -> list[type[BaseException]]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        caught = []
        for _ in range(4):
            with pytest.raises(BaseException) as error:
                await connect(host="127.0.0.1", port=unused_tcp_port, dbname="postgres", user="postgres")
            caught.append(error.type)
        return caught

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(errors(aiopg_fixes.connect)) == [psycopg2.OperationalError] * 4
        assert RuntimeError in runner.run(errors(aiopg_fixes.aiopgs_connect))


class LastWords(asyncio.Protocol):
    """A backend that is killed: it takes a connection and, without reading what it is asked, warns and is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.pause_reading()
        warning = b"SWARNING\0C57P02\0Mterminating connection because of crash of another server process\0\0"
        greeting = [(b"R", bytes(4)), (b"S", b"client_encoding\0UTF8\0"), (b"S", b"DateStyle\0ISO, MDY\0"), (b"Z", b"I")]
        self._transport.write(b"".join(self._message(*each) for each in greeting))
        asyncio.get_running_loop().call_later(0.1, self._end, self._message(b"N", warning))

    @staticmethod
    def _message(kind: bytes, content: bytes) -> bytes:
        return kind + (len(content) + 4).to_bytes(4, "big") + content

    def _end(self, words: bytes) -> None:
        self._transport.write(words)
        self._transport.abort()


def error_of_last_words(directory: Path) -> type[BaseException]:
    async def ask() -> type[BaseException]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # uvloop's and aiopg's words about it
        async with await asyncio.get_running_loop().create_unix_server(LastWords, directory / ".s.PGSQL.5432"):
            connection = await aiopg.connect(host=str(directory), dbname="a", user="a", timeout=1, enable_hstore=False)
            with pytest.raises((psycopg2.Error, TimeoutError)) as caught:
                await aiopg_fixes.execute(connection, "SELECT 1", ())
            connection.close()
            return caught.type

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ask())


@pytest.mark.long
def test_under_uvloop_the_end_of_a_killed_backend_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="task-test-") as directory:
        assert issubclass(error_of_last_words(Path(directory)), psycopg2.OperationalError)
        monkeypatch.setattr(aiopg_fixes, "SECONDS_BETWEEN_LOOKS", 60)
        assert error_of_last_words(Path(directory)) is TimeoutError


async def test_a_name_is_looked_up_beside_the_event_loop(server: Server, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(host: str, port: int, **options: Any) -> list[Any]:
        await asyncio.sleep(0)
        assert host == "db.invalid"
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    real = connection_parameters()
    async with way_to_the_database(unused_tcp_port, real):
        connection = await aiopg_fixes.connect(
            dbname=server.ours, enable_hstore=False, **real | {"host": "db.invalid", "port": unused_tcp_port}
        )
        assert await aiopg_fixes.execute(connection, "SELECT 1", ()) == [(1,)]
        connection.close()


# The pool


async def test_the_limits_are_in_force_on_the_pools_connections(running: Running) -> None:
    async with running(statement_timeout_seconds=3, lock_timeout_seconds=1.5) as database:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "client_connection_check_interval", "TimeZone")
        [shown] = await database.rows("SELECT " + ", ".join(f"current_setting('{name}')" for name in names), ())
        assert shown == ("3s", "1500ms", "5s", "500ms", "UTC")


async def test_a_statement_over_its_limit_is_unavailable(running: Running) -> None:
    async with running(statement_timeout_seconds=0.1) as database:
        with pytest.raises(Unavailable):
            await database.rows("SELECT pg_sleep(5)", (), read=True)
        assert await database.rows("SELECT 1", ()) == [(1,)]


@pytest.mark.long
async def test_a_long_statement_has_a_limit_of_its_own_and_leaves_that_of_the_others(running: Running) -> None:
    async with running(statement_timeout_seconds=0.1, db_pool_size=1) as database:
        assert await database.run_long("SELECT 1 FROM pg_sleep(1.5)", (), 3) == [(1,)]
        with pytest.raises(Unavailable):
            await database.rows("SELECT pg_sleep(1)", ())
        with pytest.raises(Unavailable):
            await database.run_long("SELECT pg_sleep(5)", (), 0.2)
        assert await database.rows("SELECT current_setting('statement_timeout')", ()) == [("100ms",)]


async def test_a_long_statement_that_fails_leaves_nothing(running: Running) -> None:
    async with running(db_pool_size=1) as database:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await database.run_long("SELECT set_config('x.y', 'kept', false), 1 / 0", (), 3)
        assert await database.rows("SELECT current_setting('x.y', true)", ()) in ([(None,)], [("",)])


async def test_a_pool_without_a_free_connection_is_unavailable(running: Running) -> None:
    async with running(db_pool_size=1, db_wait_seconds=0.1) as database:
        async with database.aio_connection():
            waiting = asyncio.create_task(database.rows("SELECT 1", ()), context=Context())
            with pytest.raises(Unavailable):
                await waiting
        assert await database.rows("SELECT 1", ()) == [(1,)]


async def test_whoever_waits_for_a_connection_is_overtaken_by_nobody(running: Running) -> None:
    async with running(db_pool_size=1) as database:
        served: list[int] = []

        async def take(number: int) -> None:
            connection = await database.pool_backend.acquire()
            served.append(number)
            await asyncio.sleep(0)
            await database.pool_backend.release(connection)

        first = await database.pool_backend.acquire()
        waiting = [asyncio.create_task(take(number)) for number in range(3)]
        await asyncio.sleep(0.01)
        await database.pool_backend.release(first)
        while len(served) < 3:
            waiting.append(asyncio.create_task(take(len(waiting))))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert served == sorted(served)


async def test_whoever_waits_too_long_for_an_owners_lock_is_refused_and_others_have_locks_of_their_own(running: Running) -> None:
    async with running(lock_timeout_seconds=0.1) as database:
        async with asyncio.timeout(PATIENCE_SECONDS), database.locked(1), database.locked(2):
            with pytest.raises(Unavailable, match="Another change of yours took too long"):
                async with database.locked(1):
                    raise AssertionError
        async with database.locked(1):
            pass


async def test_a_read_is_tried_again_on_a_broken_connection_and_a_change_is_not(running: Running) -> None:
    async with running(db_pool_size=1) as database:
        end_oneself_once = "SELECT pg_terminate_backend(pg_backend_pid()) WHERE current_setting('application_name') = 'first'"
        for read in (True, False):
            await database.rows("SELECT set_config('application_name', 'first', false)", ())
            if read:
                assert await database.rows(end_oneself_once, (), read=True) == []
            else:
                with pytest.raises(Unavailable):
                    await database.rows(end_oneself_once, ())


async def test_what_was_not_sent_is_sent_when_the_server_is_back(
    running: Running, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = connection_parameters()
    async with AsyncExitStack() as first_life, AsyncExitStack() as second_life:
        await first_life.enter_async_context(way_to_the_database(unused_tcp_port, real))
        async with running(db_host="127.0.0.1", db_port=unused_tcp_port) as database:
            assert await database.rows("SELECT 1", ()) == [(1,)]
            await database.pool_backend.pool.clear()
            await first_life.aclose()
            change = asyncio.create_task(database.rows("SELECT 2", ()))
            await asyncio.sleep(0.2)
            assert not change.done()
            await second_life.enter_async_context(way_to_the_database(unused_tcp_port, real))
            assert await change == [(2,)]
            await database.pool_backend.pool.clear()
            await second_life.aclose()
            monkeypatch.setattr(aiopg_fixes, "PAUSES_SECONDS", (0.01,))
            with pytest.raises(Unavailable) as caught:
                await database.rows("SELECT 3", (), read=True)
            assert isinstance(caught.value.__cause__, NoConnectionError)


async def test_what_was_taken_back_in_a_deadlock_is_tried_again_once(running: Running, sql: Callable[..., Any]) -> None:
    sql("CREATE SEQUENCE attempt")
    sql(
        "CREATE FUNCTION deadlocked(times int) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN IF nextval('attempt') <= times THEN"
        " RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; END IF; RETURN currval('attempt'); END $$"
    )
    try:
        async with running() as database:
            assert await database.rows("SELECT deadlocked(1)", ()) == [(2,)]
            with pytest.raises(Unavailable):
                await database.rows("SELECT deadlocked(9)", ())
            assert sql("SELECT last_value FROM attempt") == [(4,)]
    finally:
        sql("DROP FUNCTION deadlocked")
        sql("DROP SEQUENCE attempt")


async def test_a_fault_of_the_statement_is_not_taken_for_trouble_of_the_database(running: Running) -> None:
    async with running() as database:
        with pytest.raises(peewee.ProgrammingError):
            await database.rows("SELECT no_such_column", ())


async def test_trouble_inside_a_transaction_is_unavailable(running: Running) -> None:
    async with running() as database:
        with pytest.raises(Unavailable):
            async with database.aio_atomic():
                await database.aio_execute(User.select(User.id).limit(1))
                await database.aio_execute_sql("SELECT pg_terminate_backend(pg_backend_pid())")


async def test_a_synchronous_query_is_refused(running: Running) -> None:
    async with running() as database:
        for synchronous in (lambda: User.select().execute(database), lambda: list(User.select())):
            with pytest.raises(RuntimeError):
                synchronous()


# The schema


@asynccontextmanager
async def way_to_the_database(port: int, real: dict[str, Any]) -> AsyncIterator[None]:
    """Open a way to the real server on a port where nobody listens yet."""
    busy: set[asyncio.Task[None]] = set()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            busy.add(task)
        if real["host"].startswith("/"):
            far_reader, far_writer = await asyncio.open_unix_connection(f"{real['host']}/.s.PGSQL.{real['port']}")
        else:
            far_reader, far_writer = await asyncio.open_connection(real["host"], real["port"])
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        await asyncio.gather(writer.wait_closed(), far_writer.wait_closed(), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield
        await asyncio.wait(busy)


@pytest.mark.long
async def test_started_before_its_database_it_answers_503_and_then_serves(start: Start, unused_tcp_port: int, alice: Person) -> None:
    real = connection_parameters()
    alice.client = await start(db_host="127.0.0.1", db_port=unused_tcp_port)
    assert (await alice.get("/health/live")).status == 200
    for path in ("/health/ready", "/task", "/task/1"):
        answer = await alice.get(path)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    async with way_to_the_database(unused_tcp_port, real):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await alice.get("/health/ready")).status == 503:
                await asyncio.sleep(0.1)
        assert (await alice.get("/task")).status == 200
        await alice.client.close()


@pytest.mark.long
async def test_a_database_that_takes_the_call_and_says_nothing_does_not_hold_up_the_start(
    start: Start, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    silent: list[asyncio.StreamWriter] = []
    monkeypatch.setattr("postgres.database.SECONDS_FOR_THE_FIRST_CONTACT", 0.2)
    monkeypatch.setattr(migrate, "SECONDS_TO_CONNECT", 2)  # libpq's least
    async with await asyncio.start_server(lambda reader, writer: silent.append(writer), "127.0.0.1", unused_tcp_port):
        stranger = Person(await start(db_host="127.0.0.1", db_port=unused_tcp_port))
        assert (await stranger.get("/health/live")).status == 200
        assert (await stranger.get("/health/ready")).status == 503
        await stranger.client.close()
        for writer in silent:
            writer.close()


def test_many_may_make_the_database_and_the_schema_at_once_and_again(fresh_name: str) -> None:
    def upgrade(_: int) -> migrate.Schema:
        return migrate.upgrade(fresh_name, connection_parameters(), MIGRATIONS)

    with ThreadPoolExecutor(6) as threads:
        assert {schema.fault for schema in threads.map(upgrade, range(6))} == {None}
    assert upgrade(0).fault is None


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Path]:
    """Return steps that may be added to."""
    steps = tmp_path / "steps"
    shutil.copytree(MIGRATIONS, steps)
    _forget_what_is_there()
    yield steps
    _forget_what_is_there()


def _forget_what_is_there() -> None:
    for known in (migrate.steps, migrate.functions_schema):
        known.cache_clear()


def test_a_step_that_fails_leaves_nothing_behind_and_is_taken_up_again(fresh_name: str, steps: Path) -> None:
    (steps / "0002.second.sql").write_text("CREATE TABLE half (a int); SELECT 1/0;")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        migrate.upgrade(fresh_name, connection_parameters(), steps)
    migrate.steps.cache_clear()
    (steps / "0002.second.sql").write_text("CREATE TABLE half (a int);")
    assert migrate.upgrade(fresh_name, connection_parameters(), steps).fault is None
    newer = migrate.upgrade(fresh_name, connection_parameters(), MIGRATIONS)
    assert newer.remark == "The database's schema is newer than this version of the service: it has 0002.second."


@pytest.fixture
def step(fresh_name: str, steps: Path) -> Path:
    """Return a step that wants a table for itself; the others have been taken."""
    migrate.upgrade(fresh_name, connection_parameters(), steps)
    migrate.steps.cache_clear()
    step = steps / "0099.more.sql"
    step.write_text("ALTER TABLE users ADD COLUMN more int;")
    return step


@pytest.mark.long
def test_a_step_that_waits_for_a_table_lets_the_others_by(fresh_name: str, step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "SECONDS_BETWEEN_LOCKS", 0.05)
    connect = partial(psycopg2.connect, dbname=fresh_name, **connection_parameters())
    with ThreadPoolExecutor(1) as thread, closing(connect()) as reader, closing(connect()) as other:
        other.autocommit = True
        reader.cursor().execute("SELECT FROM users")  # and its transaction goes on
        upgrading = thread.submit(migrate.upgrade, fresh_name, connection_parameters(), step.parent)
        cursor = other.cursor()
        cursor.execute("SET statement_timeout = '30s'")
        waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'ALTER TABLE users%%' AND wait_event = 'relation'"
        for _ in range(2):  # it comes again
            while cursor.execute(waits) or cursor.fetchone() == (0,):
                time.sleep(0.01)
            cursor.execute("SELECT FROM users")
        assert not upgrading.done()
        reader.rollback()
        assert upgrading.result(timeout=PATIENCE_SECONDS).fault is None


def test_a_step_waits_until_an_autovacuum_has_given_way(sql: Callable[..., list[tuple[Any, ...]]]) -> None:
    [(milliseconds,)] = sql("SELECT boot_val::int FROM pg_settings WHERE name = 'deadlock_timeout'")
    assert milliseconds / 1000 < migrate.SECONDS_FOR_A_LOCK


def test_a_step_that_never_gets_its_table_says_so(fresh_name: str, step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SECONDS_FOR_A_LOCK": 0.05, "SECONDS_BETWEEN_LOCKS": 0, "TRIES_FOR_A_LOCK": 2}.items():
        monkeypatch.setattr(migrate, name, value)
    with closing(psycopg2.connect(dbname=fresh_name, **connection_parameters())) as reader:
        reader.cursor().execute("SELECT FROM users")
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            migrate.upgrade(fresh_name, connection_parameters(), step.parent)


def test_the_steps_are_found_whatever_the_directory_is_called(fresh_name: str, tmp_path: Path) -> None:
    steps = tmp_path / "a [b] *?"
    shutil.copytree(MIGRATIONS, steps)
    assert migrate.upgrade(fresh_name, connection_parameters(), steps).fault is None


async def test_a_database_without_a_schema_makes_the_service_unready(stranger: Person, sql: Callable[..., Any]) -> None:
    sql("ALTER TABLE _yoyo_migration RENAME TO elsewhere")
    try:
        assert (await stranger.get("/health/ready")).status == 503
    finally:
        sql("ALTER TABLE elsewhere RENAME TO _yoyo_migration")
    assert (await stranger.get("/health/ready")).status == 200


async def test_however_many_ask_whether_it_is_ready_one_connection_finds_out(running: Running) -> None:
    async with running(db_pool_size=1) as database:
        held = await database.pool_backend.acquire()
        checks = [asyncio.create_task(database.check()) for _ in range(20)]
        await asyncio.sleep(0.05)
        checks[0].cancel()  # whoever asked first may go
        assert database.pool_backend.waiting == 1
        await database.pool_backend.release(held)
        assert await asyncio.gather(*checks[1:]) == [None] * 19
        assert await database.check() is None


async def test_a_server_that_takes_no_changes_is_unavailable_until_it_does(running: Running) -> None:
    read_only = "SELECT set_config('default_transaction_read_only', 'on', false)"  # as a session has it that began while the database was
    async with running(db_pool_size=1) as database:
        await database.rows(read_only, ())
        with pytest.raises(Unavailable):
            await database.rows("DELETE FROM users WHERE false RETURNING id", ())
        await database.rows("DELETE FROM users WHERE false RETURNING id", ())
        await database.rows(read_only, ())
        assert await database.check() == "The database takes no changes: it is a standby, or read-only (transaction_read_only)."
        assert await database.check() is None
        await database.rows(read_only, ())
        with pytest.raises(Unavailable):
            async with database.aio_atomic():
                await database.aio_execute(User.delete().where(User.id < 0))
        async with database.aio_atomic():
            await database.aio_execute(User.delete().where(User.id < 0))


def test_an_old_postgresql_is_refused_with_a_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "MIN_POSTGRESQL_VERSION", 99)
    with pytest.raises(migrate.UnusableError, match=r"^PostgreSQL 99 or newer is needed; this server is \d\d\.$"):
        migrate.upgrade(server.ours, connection_parameters(), MIGRATIONS)


def test_a_database_in_another_encoding_is_refused_with_a_sentence(fresh_name: str, sql: Callable[..., Any]) -> None:
    sql(f"CREATE DATABASE \"{fresh_name}\" ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    with pytest.raises(migrate.UnusableError, match=r"^A database in UTF8 is needed; this one is in SQL_ASCII\. "):
        migrate.upgrade(fresh_name, connection_parameters(), MIGRATIONS)


async def test_a_newer_schema_is_logged_and_served(start: Start, sql: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    sql("INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc) VALUES ('x', '9999.future', now())")
    try:
        stranger = Person(await start())
        assert "newer than this version" in caplog.text
        assert (await stranger.get("/health/ready")).status == 200
    finally:
        sql("DELETE FROM _yoyo_migration WHERE migration_id = '9999.future'")


async def test_without_its_functions_the_service_is_not_ready(stranger: Person, sql: Callable[..., Any]) -> None:
    ours = migrate.functions_schema(MIGRATIONS)
    sql(f"ALTER SCHEMA {ours} RENAME TO elsewhere")
    try:
        answer = await stranger.get("/health/ready")
        assert (answer.status, answer.json["detail"]) == (503, f"The database's schema lacks {ours}.")
    finally:
        sql(f"ALTER SCHEMA elsewhere RENAME TO {ours}")
    assert (await stranger.get("/health/ready")).status == 200


def test_a_database_of_before_the_first_release_is_refused(fresh_name: str, steps: Path) -> None:
    (steps / "0000.before.sql").write_text("SELECT 1;")
    migrate.upgrade(fresh_name, connection_parameters(), steps)
    with closing(psycopg2.connect(dbname=fresh_name, **connection_parameters())) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM _yoyo_migration WHERE migration_id <> '0000.before'")
    with pytest.raises(migrate.UnusableError) as refused:
        migrate.upgrade(fresh_name, connection_parameters(), MIGRATIONS)
    words = f"{refused.value}"
    assert words.startswith("This database was made before version 0.1.0")
    assert "GET /export" in words
    assert "POST /import" in words


def test_versions_functions_stand_side_by_side_until_nobody_uses_them(fresh_name: str, steps: Path) -> None:
    names = []
    for n in range(4):
        (steps / "functions/zzz.sql").write_text(f"CREATE FUNCTION number() RETURNS int LANGUAGE sql RETURN {n};")
        for each in (migrate.steps, migrate.functions_schema):
            each.cache_clear()
        assert migrate.upgrade(fresh_name, connection_parameters(), steps).fault is None
        names.append(migrate.functions_schema(steps))
    with closing(psycopg2.connect(dbname=fresh_name, **connection_parameters())) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def there() -> list[str]:
            cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '^functions_' ORDER BY oid")
            return [name for (name,) in cursor]

        def sweep(version: str) -> int:
            cursor.execute(f"SET search_path = {version}, public; SELECT functions_sweep('30 days')")
            [number] = cursor.fetchone() or (0,)
            return int(number)

        for n, name in enumerate(names):
            assert sweep(name) == 0
            cursor.execute("SELECT number()")
            assert cursor.fetchone() == (n,)
        cursor.execute("UPDATE functions_used SET used_at = now() - interval '31 days' WHERE name <> %s", (names[2],))
        assert sweep(names[0]) == 2  # itself it doesn't remove, nor what was used lately
        assert there() == [names[0], names[2]]
        cursor.execute("UPDATE functions_used SET used_at = now() - interval '31 days'")
        migrate.upgrade(fresh_name, connection_parameters(), steps)  # the last one starts again
        assert sweep(names[0]) == 1
        assert there() == [names[0], names[3]]


def test_the_operators_database_is_untouched(server: Server) -> None:
    assert configured().db == server.ours != server.theirs
    assert contents(server.theirs) == server.theirs_before

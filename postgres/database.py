"""The pool of connections: peewee-async's database with the limits that keep a request from hanging."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import peewee
import peewee_async
import psycopg2
from aiohttp import web
from peewee_async.databases import FetchResults, fetchall
from peewee_async.pool import AioPgPoolBackend

import settings
from postgres import aiopg_fixes, migrate
from rest import overload
from rest.errors import Unavailable
from telemetry import metrics

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "migrations"
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4)  # before a read is tried again
SECONDS_FOR_THE_FIRST_CONTACT = 3  # then the service starts without its database, and answers 503
SECONDS_BETWEEN_ATTEMPTS = 0.5  # to bring the schema up to date
HEAVY_AT_ONCE = 3  # answers that are too long to travel with others: some 12 MiB each, until they are on their way to the client
WAITED_TOO_LONG = "Another change of yours took too long: try again."
MOST_PREPARED = 100  # statements per connection: a plan of a listing takes PostgreSQL some 100 KiB

Rows = list[tuple[Any, ...]]

aiopg_fixes.apply()


CONNECTIONS = metrics.Gauge("database_connections", "Connections to PostgreSQL, by what they are doing.", "state")
MOST_CONNECTIONS = metrics.Gauge("database_connections_most", "Connections to PostgreSQL that there may be.")
WAITING = metrics.Gauge("database_waiting", "Statements that wait for a connection.")


class Pool(AioPgPoolBackend):
    """aiopg's pool, with a wait for a connection that is shorter than the one for an answer."""

    waiting = 0  # for a connection

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._line = asyncio.Lock()  # of those who wait: the first alone asks aiopg, which would let any of them overtake

    async def acquire(self) -> Any:
        """Give a connection. Raises NoConnectionError where none gets free, or none can be made, in time."""
        if (
            self.pool is not None
            and (not self.waiting or self.pool.size < self.pool.maxsize)  # where more can be made, nobody waits for this one
            and (connection := aiopg_fixes.take_free(self.pool))
        ):
            return connection
        self.waiting += 1
        try:
            async with asyncio.timeout(settings.load().db_wait_seconds), self._line:
                return await super().acquire()
        except (psycopg2.OperationalError, OSError) as error:
            raise NoConnectionError(str(error).strip() or "no connection got free in time") from error
        finally:
            self.waiting -= 1

    def tell(self) -> None:
        """Let it be measured."""
        CONNECTIONS.ask(lambda: self.pool.size - self.pool.freesize if self.pool else 0, ("in use",))
        CONNECTIONS.ask(lambda: self.pool.freesize if self.pool else 0, ("free",))
        MOST_CONNECTIONS.ask(lambda: settings.load().db_pool_size)
        WAITING.ask(lambda: self.waiting)


class NoConnectionError(ConnectionError):
    """There is no connection, after several attempts: nothing was sent, and it is too late to try again."""


class DatabaseUnavailable(Unavailable):
    """There is something wrong between the service and its database."""

    kind = "database-unavailable"
    detail = "The database can't be reached, or didn't answer in time: try again."


class Statement:
    """A statement that is run often, so that each connection may keep its plan. Its parameters come before its constants."""

    count = 0

    def __init__(self, text: str, parameters: int, constants: Sequence[Any], *, undecoded: bool = False) -> None:
        Statement.count += 1
        self.text, self.constants, self.undecoded = text, tuple(constants), undecoded
        before, *after = text.split("%s", parameters)
        numbered = before + "".join(f"${number}{part}" for number, part in enumerate(after, start=1))
        self.prepare = f"PREPARE s{self.count} AS {numbered}"
        self.execute = f"EXECUTE s{self.count} ({', '.join(['%s'] * parameters)})"
        self.deallocate = f"DEALLOCATE s{self.count}"


class Database(peewee_async.PostgresqlDatabase):
    """PostgreSQL for asyncio; what goes wrong between it and us is Unavailable, and only that."""

    pool_backend_cls = Pool
    is_usable = False  # until the schema has been seen to

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.turns = asyncio.Semaphore(HEAVY_AT_ONCE)  # of statements whose answers are long
        self.checking: asyncio.Task[str | None] | None = None  # the last check, or the present one
        self._prepared: WeakKeyDictionary[Any, dict[Statement, None]] = WeakKeyDictionary()  # by connection
        self._lines: WeakValueDictionary[Any, asyncio.Lock] = WeakValueDictionary()  # by whose data it is

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a synchronous query would hold up every other request (peewee-async's own refusal is an `assert`)."""
        raise RuntimeError("a synchronous query")

    async def aio_execute_sql(self, sql: str, params: Sequence[Any] | None = None, fetch_results: FetchResults | None = None) -> Any:
        """Run a statement on a connection of the pool. Raises Unavailable, and peewee's errors where the statement is at fault."""
        with self._trouble_is_unavailable():
            return await super().aio_execute_sql(sql, params, fetch_results)

    @asynccontextmanager
    async def aio_atomic(self) -> AsyncIterator[None]:
        """Run what is inside in one transaction. Never start a task inside: it would inherit the connection."""
        with self._trouble_is_unavailable():
            async with super().aio_atomic():
                yield

    @asynccontextmanager
    async def in_line(self, owner: Any) -> AsyncIterator[None]:
        """Run what is inside after the others of this owner: only one of them holds a connection while it waits. Raises Unavailable."""
        line = self._lines.setdefault(owner, asyncio.Lock())
        async with overload.in_turn(line, settings.load().lock_timeout_seconds, Unavailable(WAITED_TOO_LONG)):
            yield

    async def rows(self, sql: str, params: Sequence[Any], *, read: bool = False) -> Rows:
        """Run a statement and give its rows. A `read` is tried again where the connection broke, anything where nothing of it happened."""
        return await _tried(lambda: self.aio_execute_sql(sql, params, fetchall), read=read)

    async def run(self, statement: Statement, values: Sequence[Any], *, read: bool = False) -> Rows:
        """Do what `rows` does with a statement that is run often."""
        return await _tried(lambda: self._run(statement, values), read=read)

    async def _run(self, statement: Statement, values: Sequence[Any]) -> Rows:
        with self._trouble_is_unavailable():
            backend = self.pool_backend  # a later one doesn't know this one's connections
            connection = await backend.acquire()
            try:
                if not settings.load().db_prepare:
                    values = *values, *statement.constants
                    return await aiopg_fixes.execute(connection, statement.text, values, undecoded=statement.undecoded)
                await self._prepare(connection, statement)
                return await aiopg_fixes.execute(connection, statement.execute, values, undecoded=statement.undecoded)
            finally:
                await backend.release(connection)

    async def run_long(self, sql: str, values: Sequence[Any], seconds: float) -> Rows:
        """Run a statement that may take longer than others do, in a transaction of its own, and give its rows."""
        with self._trouble_is_unavailable():
            backend = self.pool_backend
            connection = await backend.acquire()
            try:
                await aiopg_fixes.execute(connection, f"BEGIN; SET LOCAL statement_timeout = {int(seconds * 1000)}", ())
                rows = await aiopg_fixes.execute(connection, sql, values, seconds + 1)
                await aiopg_fixes.execute(connection, "COMMIT", ())
                return rows
            finally:
                await backend.release(connection)  # where the transaction hasn't ended, this closes it, which ends it

    async def _prepare(self, connection: Any, statement: Statement) -> None:
        """Let the connection plan the statement, unless it has; what it planned first goes where that becomes too much."""
        prepared = self._prepared.setdefault(connection, {})
        if statement in prepared:
            return
        await aiopg_fixes.execute(connection, statement.prepare, statement.constants)
        prepared[statement] = None
        if len(prepared) > MOST_PREPARED:
            oldest = next(iter(prepared))
            del prepared[oldest]
            await aiopg_fixes.execute(connection, oldest.deallocate, ())

    @staticmethod
    def took_nothing(error: Exception) -> bool:
        """Tell whether PostgreSQL refused the statement: then nothing of it happened. What was lost on the way may have."""
        code = _code(error.__cause__ if isinstance(error, Unavailable) else error)
        return code is not None and not _is_of_connection(code)

    async def check(self) -> str | None:
        """Give what is wrong between the database and this version's schema; None where nothing is. Who ask at once share an answer."""
        if self.checking is None or self.checking.done():
            self.checking = asyncio.create_task(self._check())
        return await asyncio.shield(self.checking)

    async def _check(self) -> str | None:
        try:
            applied = await self.rows(migrate.APPLIED, (migrate.functions_schema(MIGRATIONS),), read=True)
        except peewee.ProgrammingError:  # not even yoyo's table is there
            applied = []
        return migrate.compare({step for (step,) in applied}, migrate.steps(MIGRATIONS)).fault

    @contextmanager
    def _trouble_is_unavailable(self) -> Iterator[None]:
        if not self.is_usable:
            raise DatabaseUnavailable("The database isn't ready yet: try again.")
        try:
            yield
        except TROUBLE as error:
            log.warning("the database is in trouble: %s", str(error).strip() or type(error).__name__)
            raise DatabaseUnavailable() from error


# asyncio's TimeoutError is Python's; QueryCanceled passes peewee's own wrapper by, as do all errors of BEGIN and COMMIT.
# InternalError: the server takes no changes, as after a failover.
TROUBLE = (
    *(peewee.OperationalError, peewee.InterfaceError, peewee.InternalError),
    *(psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.InternalError),
    *(peewee.NotSupportedError, psycopg2.NotSupportedError),  # a standby has no unlogged tables
    *(TimeoutError, OSError),
)


async def _tried(attempt: Callable[[], Awaitable[Rows]], *, read: bool) -> Rows:
    for pause in PAUSES_SECONDS if read else PAUSES_SECONDS[:1]:
        try:
            return await attempt()
        except Unavailable as error:
            if not (_was_a_deadlock(error.__cause__) or (read and _connection_broke(error.__cause__))):
                raise
            await asyncio.sleep(pause)
    return await attempt()


def _was_a_deadlock(error: BaseException | None) -> bool:
    """Tell whether PostgreSQL took everything back for another's sake: then it may be tried again, a change too."""
    return (_code(error) or "").startswith("40")


def _connection_broke(error: BaseException | None) -> bool:
    """Tell a broken connection from a limit that was reached."""
    if error is None or isinstance(error, TimeoutError | NoConnectionError):
        return False
    code = _code(error)
    return code is None or _is_of_connection(code)


def _code(error: BaseException | None) -> str | None:
    """Give the SQLSTATE with which PostgreSQL refused a statement; None where it wasn't PostgreSQL that spoke."""
    code: str | None = getattr(getattr(error, "orig", None) or error, "pgcode", None)
    return code


def _is_of_connection(code: str) -> bool:
    return code.startswith(("08", "57P0"))  # connection exceptions; the server goes down, or comes up


database = Database(None)


def connection_parameters() -> dict[str, Any]:
    """Give what libpq needs to find the database."""
    given = settings.load()
    return {
        "host": given.db_host,
        "port": given.db_port,
        "user": given.db_user,
        "password": given.db_password.get_secret_value(),
        "client_encoding": "UTF8",
    }


def _limits() -> str:
    given = settings.load()
    limits = {
        "statement_timeout": f"{given.statement_timeout_seconds}s",
        "lock_timeout": f"{given.lock_timeout_seconds}s",
        "idle_in_transaction_session_timeout": "5s",
        "client_connection_check_interval": "500ms",  # a client that went away keeps no lock
        "TimeZone": "UTC",
        "DateStyle": "ISO",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",  # or it may plan each batch anew, for ever
        "search_path": migrate.search_path(MIGRATIONS),
    }
    return " ".join(f"-c {name}={value}" for name, value in limits.items())


async def pool(app: web.Application) -> AsyncIterator[None]:
    """Hold the pool while the application runs, and see to the schema before anything is asked of it."""
    given = settings.load()
    database.init(
        given.db,
        **connection_parameters(),
        options=_limits(),
        pool_params={
            "minsize": 0,  # so that the service starts without its database, and answers 503
            "maxsize": given.db_pool_size,
            "timeout": given.statement_timeout_seconds + 1,  # for an answer: later than PostgreSQL's own limit
            "enable_hstore": False,
        },
    )
    database.pool_backend.tell()
    database.is_usable = False
    database.turns, database.checking = asyncio.Semaphore(HEAVY_AT_ONCE), None  # of this event loop
    upgrading = asyncio.create_task(_see_to_the_schema())
    await asyncio.wait([upgrading], timeout=SECONDS_FOR_THE_FIRST_CONTACT)
    yield
    upgrading.cancel()
    with suppress(asyncio.CancelledError):
        await upgrading
    database.is_usable = False
    await database.aio_close()


async def _see_to_the_schema() -> None:
    while not database.is_usable:
        try:
            schema = await asyncio.to_thread(migrate.upgrade, settings.load().db, connection_parameters(), MIGRATIONS)
        except psycopg2.Error as error:
            log.warning("the database isn't ready yet: %s", str(error).strip())
        except Exception:
            log.exception("the schema can't be brought up to date")
        else:
            if schema.fault:
                log.error("%s", schema.fault)
            if schema.remark:
                log.warning("%s", schema.remark)
            database.is_usable = not schema.missing
        if not database.is_usable:
            await asyncio.sleep(SECONDS_BETWEEN_ATTEMPTS)

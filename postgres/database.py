"""The database of an application: peewee-async's, with limits that keep a request from hanging."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import peewee
import psycopg2
import psycopg2.errors
from aiohttp import web
from peewee_async.databases import FetchResults, fetchall

from postgres import aiopg_fixes, migrate, start
from postgres.batches import Batches, Environment
from postgres.errors import TROUBLE, DatabaseUnavailable, explain, may_be_repeated
from postgres.lock_queues import LockQueues
from postgres.pool import Pool
from postgres.queries import AsyncPostgresql, Query, Row, Statement
from rest.errors import Unavailable
from rest.turns import Turns

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "migrations"
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4)  # before a read is tried again
SECONDS_FOR_THE_FIRST_CONTACT = 3  # then the service starts without its database, and answers 503
MAX_HEAVY_AT_ONCE = 3  # answers that are too long to travel with others: some 12 MiB each, until they are on their way to the client
MAX_SLOW_AT_ONCE = 2  # statements that may take seconds: what is long but quick doesn't wait for them
MAX_LOCKS_AT_ONCE = 3  # that are waited for, each on a connection
MAX_SLOW_WAITING = 16  # of one user's: each is one of the requests that may be at work at once
MAX_PREPARED = 100  # statements per connection: a plan of a listing takes PostgreSQL some 100 KiB
MAX_QUERIES = 1000  # whose batches are kept: listings are asked for in more ways than that

Rows = list[tuple[Any, ...]]


class DatabaseConfiguration(NamedTuple):
    """Where the database is, how many connections to it there may be, and how long anything may take."""

    name: str
    host: str
    port: int
    user: str
    password: str
    pool_size: int
    prepare: bool
    batch_size: int
    wait_seconds: float
    statement_timeout_seconds: float
    lock_timeout_seconds: float

    @property
    def parameters(self) -> dict[str, Any]:
        """What libpq needs to find the server."""
        return {"host": self.host, "port": self.port, "user": self.user, "password": self.password, "client_encoding": "UTF8"}


@contextmanager
def cursor_of(configuration: DatabaseConfiguration, options: str = "") -> Iterator[Any]:
    """Give a command a cursor that finds this version's functions; each statement is a transaction. Raises psycopg2.Error."""
    given = {"options": f"-c search_path={migrate.search_path(MIGRATIONS)} {options}", "connect_timeout": migrate.SECONDS_TO_CONNECT}
    reached = psycopg2.connect(dbname=configuration.name, **configuration.parameters | given)
    with closing(reached) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield cursor


class Database(AsyncPostgresql):
    """PostgreSQL for asyncio; what goes wrong between it and us is Unavailable, and only that."""

    pool_backend_cls = Pool
    is_usable = False  # until the schema has been seen to

    def __init__(self, configuration: DatabaseConfiguration, heavy_turns: Turns | None = None) -> None:
        self.configuration = configuration
        super().__init__(
            configuration.name, **configuration.parameters, options=_options(configuration), pool_params=_pool_params(configuration)
        )
        self.listeners: set[Callable[[Any], None]] = set()  # called, after each query that is no read, with whose data it was for
        self.heavy_turns = heavy_turns or Turns(MAX_HEAVY_AT_ONCE, most_of_one=1)
        self.slow_turns = Turns(MAX_SLOW_AT_ONCE, most_of_one=1, most_of_one_waiting=MAX_SLOW_WAITING)
        self._lock_queues = LockQueues(MAX_LOCKS_AT_ONCE, configuration.lock_timeout_seconds)
        turns = self.heavy_turns, self.slow_turns
        self._environment = Environment(self.run, configuration.batch_size, self._lock_queues, *turns, {}, self.listeners)
        self._batches: dict[Query[Any], Batches[Any]] = {}
        self._check: asyncio.Task[str | None] | None = None  # the last one, or the present one
        self._prepared: WeakKeyDictionary[Any, dict[Statement, None]] = WeakKeyDictionary()  # by connection

    @asynccontextmanager
    async def running(self, app: web.Application | None = None) -> AsyncIterator[None]:
        """Hold the pool while the application runs, and see to the schema before anything is asked of it."""
        upgrading = asyncio.create_task(self._become_usable())
        await asyncio.wait([upgrading], timeout=SECONDS_FOR_THE_FIRST_CONTACT)
        try:
            with self.pool_backend.measuring():
                yield
        finally:
            upgrading.cancel()
            with suppress(asyncio.CancelledError):
                await upgrading
            self.is_usable = False
            await self.aio_close()

    # What is asked

    def ask(self, query: Query[Row], *arguments: Any) -> Coroutine[Any, Any, list[Row]]:
        """Ask for one request and return the rows: together with the requests that ask the same at the same time."""
        batches = self._batches.get(query)
        return (batches or self._begin(query)).ask(arguments)

    def ask_alone(self, query: Query[Row], *arguments: Any) -> Coroutine[Any, Any, list[Row]]:
        """Do what `ask` does, for whoever has the turns that it needs: by itself, and however long the answer is."""
        batches = self._batches.get(query)
        return (batches or self._begin(query)).ask_alone(arguments)

    def _begin(self, query: Query[Row]) -> Batches[Row]:
        if len(self._batches) >= MAX_QUERIES:
            self._batches = {query: batches for query, batches in self._batches.items() if not batches.is_idle}
        batches = self._batches[query] = Batches(query, self._environment)
        return batches

    async def rows(self, sql: str, params: Sequence[Any], *, read: bool = False) -> Rows:
        """Run a statement and return its rows. A `read` is tried again where the connection broke, all else where nothing happened."""
        return await _try(lambda: self.aio_execute_sql(sql, params, fetchall), read=read)

    async def run(self, statement: Statement, values: Sequence[Any], *, read: bool = False) -> Rows:
        """Do what `rows` does with a statement that is run often."""
        return await _try(lambda: self._run(statement, values), read=read)

    async def _run(self, statement: Statement, values: Sequence[Any]) -> Rows:
        with self._trouble_is_unavailable():
            connection = await self.pool_backend.acquire()
            try:
                if not self.configuration.prepare:
                    values = *values, *statement.constants
                    return await aiopg_fixes.execute(connection, statement.text, values, raw=statement.raw)
                await self._prepare(connection, statement)
                return await aiopg_fixes.execute(connection, statement.execute, values, raw=statement.raw)
            finally:
                await self.pool_backend.release(connection)

    async def run_long(self, sql: str, values: Sequence[Any], seconds: float) -> Rows:
        """Run a statement that may take longer than others do, in a transaction of its own, and return its rows."""
        with self._trouble_is_unavailable():
            connection = await self.pool_backend.acquire()
            try:
                await aiopg_fixes.execute(connection, f"BEGIN; SET LOCAL statement_timeout = {int(seconds * 1000)}", ())
                rows = await aiopg_fixes.execute(connection, sql, values, seconds + 1)
                await aiopg_fixes.execute(connection, "COMMIT", ())
                return rows
            finally:
                await self.pool_backend.release(connection)  # where the transaction hasn't ended, this closes it, which ends it

    async def _prepare(self, connection: Any, statement: Statement) -> None:
        """Let the connection plan the statement, unless it has; what it planned first goes where that becomes too much."""
        prepared = self._prepared.setdefault(connection, {})
        if statement in prepared:
            return
        await aiopg_fixes.execute(connection, statement.prepare, statement.constants)
        prepared[statement] = None
        if len(prepared) > MAX_PREPARED:
            oldest = next(iter(prepared))
            del prepared[oldest]
            await aiopg_fixes.execute(connection, oldest.deallocate, ())

    # peewee-async's own ways

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

    def locked(self, owner: Any) -> AbstractAsyncContextManager[None]:
        """Run what is inside after the others of this owner: only one of them holds a connection while it waits. Raises Unavailable."""
        return self._lock_queues.line(owner)

    # How the database is

    async def check(self) -> str | None:
        """Return what is wrong between the database and this version's schema; None where nothing is. Who ask at once share an answer."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._compare_schemas())
        return await asyncio.shield(self._check)

    async def _compare_schemas(self) -> str | None:
        try:
            applied = await self.rows(migrate.IN_USE, (migrate.functions_schema(MIGRATIONS),), read=True)
            await self.rows(migrate.CHANGE_NOTHING, (), read=True)
        except peewee.ProgrammingError:  # not even yoyo's table is there
            applied = []
        except DatabaseUnavailable as error:
            if isinstance(getattr(error.__cause__, "orig", None), psycopg2.errors.ReadOnlySqlTransaction):
                return "The database takes no changes: it is a standby, or read-only (transaction_read_only)."
            raise
        return migrate.compare({step for (step,) in applied}, migrate.steps(MIGRATIONS)).fault

    async def _become_usable(self) -> None:
        await start.see_to_the_schema(self.configuration.name, self.configuration.parameters, MIGRATIONS)
        self.is_usable = True

    @contextmanager
    def _trouble_is_unavailable(self) -> Iterator[None]:
        if not self.is_usable:
            raise DatabaseUnavailable("The database isn't ready yet: try again.")
        try:
            yield
        except TROUBLE as error:
            log.warning("the database is in trouble: %s", explain(error, self.configuration.parameters) or type(error).__name__)
            raise DatabaseUnavailable() from error


async def _try(attempt: Callable[[], Awaitable[Rows]], *, read: bool) -> Rows:
    for pause in PAUSES_SECONDS if read else PAUSES_SECONDS[:1]:
        try:
            return await attempt()
        except Unavailable as error:
            if not may_be_repeated(error, read=read):
                raise
            await asyncio.sleep(pause)
    return await attempt()


def _options(configuration: DatabaseConfiguration) -> str:
    limits = {
        "statement_timeout": f"{configuration.statement_timeout_seconds}s",
        "lock_timeout": f"{configuration.lock_timeout_seconds}s",
        "idle_in_transaction_session_timeout": "5s",
        "client_connection_check_interval": "500ms",  # a client that went away keeps no lock
        "TimeZone": "UTC",
        "DateStyle": "ISO",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",  # left to itself PostgreSQL may plan what is kept by name anew for each batch, for ever
        "search_path": migrate.search_path(MIGRATIONS),
    }
    return " ".join(f"-c {name}={value}" for name, value in limits.items())


def _pool_params(configuration: DatabaseConfiguration) -> dict[str, Any]:
    return {
        "wait_seconds": configuration.wait_seconds,
        "minsize": 0,  # so that the service starts without its database, and answers 503
        "maxsize": configuration.pool_size,
        "timeout": configuration.statement_timeout_seconds + 1,  # for an answer: later than PostgreSQL's own limit
        "enable_hstore": False,
    }

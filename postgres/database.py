"""The pool of connections: peewee-async's database with the limits that keep a request from hanging."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee
import peewee_async
import psycopg2
from aiohttp import web
from peewee_async.databases import FetchResults, fetchall
from peewee_async.pool import AioPgPoolBackend

import settings
from postgres import aiopg_mends, migrate
from rest.errors import Unavailable

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "migrations"
PAUSES_SECONDS = (0.05, 0.1, 0.2)  # before a read is tried again
SECONDS_FOR_THE_FIRST_CONTACT = 3  # then the service starts without its database, and answers 503
SECONDS_BETWEEN_ATTEMPTS = 0.5  # to bring the schema up to date

aiopg_mends.apply()


class Pool(AioPgPoolBackend):
    """aiopg's pool, with a wait for a connection that is shorter than the one for an answer."""

    async def acquire(self) -> Any:
        """Give a connection. Raises TimeoutError where none gets free in time."""
        async with asyncio.timeout(settings.load().db_wait_seconds):
            return await super().acquire()


class Database(peewee_async.PostgresqlDatabase):
    """PostgreSQL for asyncio; what goes wrong between it and us is Unavailable, and only that."""

    pool_backend_cls = Pool
    is_usable = False  # until the schema has been seen to

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

    async def rows(self, sql: str, params: Sequence[Any], *, read: bool = False) -> list[tuple[Any, ...]]:
        """Run a statement and give its rows. A `read` is tried again on another connection where one was broken."""
        for pause in PAUSES_SECONDS if read else ():
            try:
                return await self.aio_execute_sql(sql, params, fetchall)  # type: ignore[no-any-return]
            except Unavailable as error:
                if not _connection_broke(error.__cause__):
                    raise
                await asyncio.sleep(pause)
        return await self.aio_execute_sql(sql, params, fetchall)  # type: ignore[no-any-return]

    async def check(self) -> str | None:
        """Give what is wrong between the database and this version's schema; None where nothing is."""
        try:
            applied = await self.rows(migrate.APPLIED, (), read=True)
        except peewee.ProgrammingError:  # not even yoyo's table is there
            applied = []
        return migrate.compare({step for (step,) in applied}, migrate.steps(MIGRATIONS)).words

    @contextmanager
    def _trouble_is_unavailable(self) -> Iterator[None]:
        if not self.is_usable:
            raise Unavailable("The database isn't ready yet: try again.")
        try:
            yield
        except TROUBLE as error:
            log.warning("the database is in trouble: %s", str(error).strip() or type(error).__name__)
            raise Unavailable("The database can't be reached, or didn't answer in time: try again.") from error


# asyncio's TimeoutError is Python's; QueryCanceled passes peewee's own wrapper by, as do all errors of BEGIN and COMMIT.
# InternalError: the server takes no changes, as after a failover.
TROUBLE = (
    *(peewee.OperationalError, peewee.InterfaceError, peewee.InternalError),
    *(psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.InternalError),
    *(TimeoutError, OSError),
)


def _connection_broke(error: BaseException | None) -> bool:
    """Tell a broken connection (class 08, a server that goes down: 57P0x, or no code at all) from a limit that was reached."""
    error = getattr(error, "orig", None) or error
    if error is None or isinstance(error, TimeoutError):
        return False
    code = getattr(error, "pgcode", None)
    return code is None or code.startswith(("08", "57P0"))


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
    database.is_usable = False
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
            if schema.words:
                log.error("%s", schema.words)
            database.is_usable = not schema.missing
        if not database.is_usable:
            await asyncio.sleep(SECONDS_BETWEEN_ATTEMPTS)

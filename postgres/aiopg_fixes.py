"""Faults of aiopg 1.4.0, fixed here until it fixes them itself. Each has a test that fails without its fix."""

import asyncio
from collections.abc import Sequence
from socket import SOCK_STREAM
from typing import Any

import aiopg.connection
import aiopg.pool
import psycopg2
import psycopg2.errors
from aiopg.utils import create_completed_future
from psycopg2._psycopg import BYTES
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, register_type

CONNECT_TRIES = 3
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4)  # before a server that restarts is called again
SECONDS_BETWEEN_LOOKS = 0.2  # at a connection from which nothing comes

aiopgs_poll = aiopg.connection.Connection._poll
aiopgs_connect = aiopg.connection.connect
aiopgs_fill = aiopg.pool.Pool._fill_free_pool
aiopgs_release = aiopg.pool.Pool.release


def apply() -> None:
    """Put the fixes in place, for every connection and pool that is made afterwards."""
    setattr(aiopg.connection.Connection, "_poll", poll)  # noqa: B010 - mypy knows that nobody does this
    setattr(aiopg.pool, "connect", connect)  # noqa: B010
    setattr(aiopg.pool.Pool, "_fill_free_pool", fill)  # noqa: B010
    setattr(aiopg.pool.Pool, "release", release)  # noqa: B010


async def poll(self: Any, waiter: "asyncio.Future[None]", timeout: float) -> None:
    """Wait for PostgreSQL's answer. An error passes as it is (aiopg #537).

    aiopg's own turns a cancelled statement into a CancelledError, which ends the request without any answer. And it waits in vain where a
    backend was killed: its last words and the end of the connection come at once, and uvloop tells of a connection in error only once.
    """
    self._ready(self._weakref)
    pause = min(timeout, SECONDS_BETWEEN_LOOKS)
    timer = self._loop.call_later(pause, _look, self, waiter, timeout - pause)
    try:
        await waiter
    except (asyncio.CancelledError, TimeoutError, psycopg2.errors.ReadOnlySqlTransaction):  # a session may stay so when the server isn't
        self._close()
        raise
    finally:
        timer.cancel()
        self._waiter = None


def _look(connection: Any, waiter: "asyncio.Future[None]", seconds_left: float) -> None:
    if waiter.done():
        return
    if seconds_left <= 0:
        waiter.set_exception(TimeoutError("PostgreSQL didn't answer in time"))
        return
    connection._ready(connection._weakref)
    pause = min(seconds_left, SECONDS_BETWEEN_LOOKS)
    connection._loop.call_later(pause, _look, connection, waiter, seconds_left - pause)


async def connect(*args: Any, **options: Any) -> aiopg.connection.Connection:
    """Connect, and again where uvloop stumbles over the remains of a connection that was refused (aiopg #856, #909).

    The name is looked up beforehand: libpq would hold up the event loop with it, for seconds where a name server is away.
    """
    options |= await _addresses(options.get("host", ""), options.get("port"))
    for last in (False,) * (CONNECT_TRIES - 1) + (True,):
        try:
            return await aiopgs_connect(*args, **options)
        except RuntimeError as error:
            if last or "handler is closed" not in str(error):
                raise
    raise AssertionError("unreachable")


async def _addresses(host: str, port: Any) -> dict[str, str]:
    if not host or host.startswith(("/", "@")) or "," in host:  # sockets, and what libpq alone understands
        return {}
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    return {"host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses)}


def release(self: Any, connection: aiopg.connection.Connection) -> "asyncio.Future[None]":
    """Take a connection back. A dead one frees its place too, so whoever waits for one must hear of it (as in asyncmy #154).

    aiopg's own makes a task for each live one, also where nobody waits.
    """
    if connection in self._terminated:
        self._terminated.remove(connection)
    else:
        self._used.remove(connection)
        if not connection.closed:
            if self._closing or connection.raw.get_transaction_status() != TRANSACTION_STATUS_IDLE:
                connection.close()
            else:
                self._free.append(connection)
    return asyncio.ensure_future(self._wakeup()) if self._cond._waiters else create_completed_future(self._loop)


async def fill(self: Any, override_min: bool) -> None:
    """Have a free connection; whoever waits for one waits meanwhile, so that a server that restarts isn't called by all of them.

    One that was given back and died while another was being made would be handed out, and fail an assertion.
    """
    pauses = iter(PAUSES_SECONDS)
    while True:
        try:
            await aiopgs_fill(self, override_min)
        except (psycopg2.OperationalError, OSError):
            if (pause := next(pauses, None)) is None:
                raise
            await asyncio.sleep(pause)
            continue
        dead = [connection for connection in self._free if connection.closed]
        for connection in dead:
            self._free.remove(connection)
        if self._free or not dead:
            return


# Two ways that are shorter than aiopg's, which makes a task, a timer and four objects for each statement.


def take_free(pool: Any) -> Any:
    """Return the free connection that was used last, whose plans and caches are warm; None where aiopg must make or await one."""
    while pool._free and not pool._closing:
        connection = pool._free.pop()
        if not connection.closed:
            pool._used.add(connection)
            return connection
    return None


async def execute(
    connection: Any, sql: str, values: Sequence[Any], timeout: float | None = None, *, raw: bool = False
) -> list[tuple[Any, ...]]:
    """Run a statement on a connection and give its rows. Raises TimeoutError where it takes longer than usual, or than `timeout`.

    Texts that come `raw` are bytes: they take a quarter of the memory, and much less time.
    """
    waiter = connection._create_waiter("execute")
    cursor = connection.raw.cursor()
    if raw:
        register_type(BYTES, cursor)
    try:
        cursor.execute(sql, values)
    except BaseException:
        connection._waiter = None
        raise
    await connection._poll(waiter, connection.timeout if timeout is None else timeout)
    return cursor.fetchall() if cursor.description else []

"""Four faults of aiopg 1.4.0, mended until it mends them itself. Each has a test that fails without its mend."""

import asyncio
from collections.abc import Sequence
from typing import Any

import aiopg.connection
import aiopg.pool
from aiopg.utils import create_completed_future
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

CONNECT_TRIES = 3

aiopgs_poll = aiopg.connection.Connection._poll
aiopgs_connect = aiopg.connection.connect
aiopgs_fill = aiopg.pool.Pool._fill_free_pool
aiopgs_release = aiopg.pool.Pool.release


def apply() -> None:
    """Put the mends in place, for every connection and pool that is made afterwards."""
    setattr(aiopg.connection.Connection, "_poll", poll)  # noqa: B010 - mypy knows that nobody does this
    setattr(aiopg.pool, "connect", connect)  # noqa: B010
    setattr(aiopg.pool.Pool, "_fill_free_pool", fill)  # noqa: B010
    setattr(aiopg.pool.Pool, "release", release)  # noqa: B010


async def poll(self: Any, waiter: "asyncio.Future[None]", timeout: float) -> None:
    """Wait for PostgreSQL's answer. An error passes as it is (aiopg #537).

    aiopg's own turns a cancelled statement into a CancelledError, which ends the request without any answer.
    """
    self._ready(self._weakref)
    timer = self._loop.call_later(timeout, _expire, waiter)
    try:
        await waiter
    except (asyncio.CancelledError, TimeoutError):
        self._close()
        raise
    finally:
        timer.cancel()
        self._waiter = None


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError("PostgreSQL didn't answer in time"))


async def connect(*args: Any, **options: Any) -> aiopg.connection.Connection:
    """Connect, and again where uvloop stumbles over the remains of a connection that was refused (aiopg #856, #909)."""
    for last in (False,) * (CONNECT_TRIES - 1) + (True,):
        try:
            return await aiopgs_connect(*args, **options)
        except RuntimeError as error:
            if last or "handler is closed" not in str(error):
                raise
    raise AssertionError("unreachable")


def release(self: Any, connection: aiopg.connection.Connection) -> "asyncio.Future[None]":
    """Give a connection back. A dead one frees its place too, so whoever waits for one must hear of it (as in asyncmy #154).

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
    """Have a free connection. One that was given back and died while another was being made would be handed out, and fail an assertion."""
    while True:
        await aiopgs_fill(self, override_min)
        dead = [connection for connection in self._free if connection.closed]
        for connection in dead:
            self._free.remove(connection)
        if self._free or not dead:
            return


# Two ways that are shorter than aiopg's, which makes a task, a timer and four objects for each statement.


def take_free(pool: Any) -> Any:
    """Give the free connection that was used last, whose plans and caches are warm; None where aiopg must make or await one."""
    while pool._free and not pool._closing:
        connection = pool._free.pop()
        if not connection.closed:
            pool._used.add(connection)
            return connection
    return None


async def execute(connection: Any, sql: str, values: Sequence[Any], timeout: float | None = None) -> list[tuple[Any, ...]]:
    """Run a statement on a connection and give its rows. Raises TimeoutError where it takes longer than usual, or than `timeout`."""
    waiter = connection._create_waiter("execute")
    cursor = connection.raw.cursor()
    try:
        cursor.execute(sql, values)
    except BaseException:
        connection._waiter = None
        raise
    await connection._poll(waiter, connection.timeout if timeout is None else timeout)
    return cursor.fetchall() if cursor.description else []

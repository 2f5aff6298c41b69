"""Four faults of aiopg 1.4.0, mended until it mends them itself. Each has a test that fails without its mend."""

import asyncio
from typing import Any

import aiopg.connection
import aiopg.pool

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
    """Give a connection back. A dead one frees its place too, so whoever waits for one must hear of it (as in asyncmy #154)."""
    released: asyncio.Future[None] = aiopgs_release(self, connection)
    if connection.closed and self._cond._waiters:
        released = asyncio.ensure_future(self._wakeup())
    return released


async def fill(self: Any, override_min: bool) -> None:
    """Have a free connection. One that was given back and died while another was being made would be handed out, and fail an assertion."""
    while True:
        await aiopgs_fill(self, override_min)
        dead = [connection for connection in self._free if connection.closed]
        for connection in dead:
            self._free.remove(connection)
        if self._free or not dead:
            return

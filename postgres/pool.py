"""The pool of connections: aiopg's, with a short wait for one, and measured."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from peewee_async.pool import AioPgPoolBackend

from postgres import aiopg_fixes
from postgres.errors import NoConnectionError
from telemetry import metrics

aiopg_fixes.apply()

CONNECTIONS = metrics.Gauge("database_connections", "Connections to PostgreSQL, by what they are doing.", "state")
MAX_CONNECTIONS = metrics.Gauge("database_connections_max", "Connections to PostgreSQL that there may be.")
WAITING = metrics.Gauge("database_waiting", "Statements that wait for a connection.")


class Pool(AioPgPoolBackend):
    """aiopg's pool, with a wait for a connection that is shorter than the one for an answer."""

    waiting = 0  # for a connection

    def __init__(self, *, wait_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._wait_seconds, self._max_size = wait_seconds, options["maxsize"]
        self._queue = asyncio.Lock()  # of those who wait: the first alone asks aiopg, which would let any of them overtake

    async def acquire(self) -> Any:
        """Return a connection. Raises NoConnectionError where none gets free, or none can be made, in time."""
        if (
            self.pool is not None
            and (not self.waiting or self.pool.size < self.pool.maxsize)  # where more can be made, nobody waits for this one
            and (connection := aiopg_fixes.take_free(self.pool))
        ):
            return connection
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds), self._queue:
                return await super().acquire()
        except (psycopg2.OperationalError, OSError) as error:
            raise NoConnectionError(str(error).strip() or "no connection got free in time") from error
        finally:
            self.waiting -= 1

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Let it be measured while what is inside runs."""
        with (
            CONNECTIONS.measuring(lambda: self.pool.size - self.pool.freesize if self.pool else 0, ("in use",)),
            CONNECTIONS.measuring(lambda: self.pool.freesize if self.pool else 0, ("free",)),
            MAX_CONNECTIONS.measuring(lambda: self._max_size),
            WAITING.measuring(lambda: self.waiting),
        ):
            yield

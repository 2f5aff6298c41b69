"""All connections of a worker: not too many, and little that is kept for those who don't read."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from aiohttp.web_protocol import RequestHandler

from server.connection import Connection, ConnectionLimits, Holder, Refusal
from telemetry import metrics

MAX_UNREAD_BYTES = 48 * 1024 * 1024  # of all answers together; then whoever has been slow for longest goes
SECONDS_TO_BE_SLOW = 2  # before that, unless it is twice as much
SECONDS_BETWEEN_LOOKS = 0.02  # whether all connections have ended

CONNECTIONS = metrics.Gauge("http_connections", "Connections of clients.")
MAX_CONNECTIONS = metrics.Gauge("http_connections_max", "Connections of clients that there may be.")


class Server(Holder):
    """What holds the connections of a worker."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, refusal: Refusal, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.limits, self.refusal = limits, refusal
        self.slow = {}
        self._is_retiring = False
        self._measuring = ExitStack()
        self._measuring.enter_context(CONNECTIONS.measuring(lambda: len(self._connections)))
        self._measuring.enter_context(MAX_CONNECTIONS.measuring(lambda: limits.max_connections))

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take a connection; where there are too many, in the place of the one that is idle and would be closed next."""
        super().connection_made(handler, transport)
        if len(self._connections) > self.limits.max_connections:
            idle = [connection for connection in self._ours() if connection.is_idle]
            if idle:
                min(idle, key=lambda connection: connection.closes_at).force_close()
            else:
                self.refusal.count_one()
                transport.write(self.refusal.response)
                transport.close()
        if self._is_retiring and isinstance(handler, Connection):
            handler.retire()

    def keep_little_unread(self, connection: Connection) -> None:
        """Note that a client is slow to read, and give up those who have been for longest while too much is kept for all of them."""
        self.slow[connection] = None
        unread = sum(each.unread for each in self.slow)
        for each in list(self.slow):
            is_slow = each.slow_since <= self._loop.time() - SECONDS_TO_BE_SLOW
            if unread <= (1 if is_slow else 2) * MAX_UNREAD_BYTES:
                break
            unread -= each.unread
            each.abort()

    def retire(self) -> None:
        """Let every connection, also those that are still to come, end with its next answer."""
        self._is_retiring = True
        for connection in self._ours():
            connection.retire()

    async def wait_until_ended(self, seconds: float, seconds_of_idleness: float, is_to_wait: Callable[[], bool] = lambda: True) -> None:
        """Wait until no connections are left, or, after some time, only idle ones: for so many seconds at most, while it `is_to_wait`."""
        began_at = self._loop.time()
        while self._connections and (passed := self._loop.time() - began_at) < seconds and is_to_wait():
            if passed >= seconds_of_idleness and all(connection.is_idle for connection in self._ours()):
                break
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    def close(self) -> None:
        """Be measured no more."""
        self._measuring.close()

    def _ours(self) -> list[Connection]:
        return [connection for connection in self._connections if isinstance(connection, Connection)]

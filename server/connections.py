"""All connections of a worker: not too many."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from aiohttp.web_protocol import RequestHandler

from server.connection import Connection, ConnectionLimits, Holder, Refusal
from server.giving_way import GivingWay, Whose, address
from server.unread import Unread
from telemetry import metrics

SECONDS_BETWEEN_LOOKS = 0.02  # whether all connections have ended

CONNECTIONS = metrics.Gauge("http_connections", "Connections of clients.")
MAX_CONNECTIONS = metrics.Gauge("http_connections_max", "Connections of clients that there may be.")


class Server(Holder):
    """What holds the connections of a worker."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, refusal: Refusal, unread: Unread, whose: Whose, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.limits, self.refusal, self.unread = limits, refusal, unread
        self._giving_way = GivingWay(limits.max_connections, whose)
        self._leaving = set[RequestHandler]()
        self._is_retiring = False
        self._measuring = ExitStack()
        self._measuring.enter_context(CONNECTIONS.measuring(lambda: len(self._connections)))
        self._measuring.enter_context(MAX_CONNECTIONS.measuring(lambda: limits.max_connections))

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def has_room(self, transport: asyncio.Transport) -> bool:
        """Return whether there is room for one more, as there is where another gives way. If not, its client has been told."""
        if len(self._connections) < self.limits.max_connections:
            return True
        self._leaving &= self._connections.keys()
        if len(self._connections) - len(self._leaving) < self.limits.max_connections:
            return True
        other = self._giving_way.next(self._staying, address(transport.get_extra_info("peername")), self._loop.time())
        if other is None or not other.is_idle:
            self.refusal.count_one()
        if other is None:
            transport.write(self.refusal.response)
            transport.close()
            return False
        self._leaving.add(other)
        other.give_way(self.refusal.response)
        return True

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take a connection."""
        super().connection_made(handler, transport)
        if self._is_retiring and isinstance(handler, Connection):
            handler.retire()

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

    def _staying(self) -> Iterator[Connection]:
        return (connection for connection in self._ours() if connection not in self._leaving)

    def _ours(self) -> list[Connection]:
        return [connection for connection in self._connections if isinstance(connection, Connection)]

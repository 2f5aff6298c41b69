"""What runs an application on connections of ours: none for ever, not too many, and to an end that loses no request.

A proxy in front, such as nginx, would do most of it, and aiohttp does a part: it has no limit to how many connections there are or how
slowly a client reads, no deadline for a head but the one for idleness, and an end that breaks requests off. `make run` has no proxy.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from aiohttp import web

from server.connection import ConnectionLimits, Refusal
from server.connections import Server
from server.descriptors import room_for
from server.giving_way import Whose
from server.routing import Routing
from server.unread import Unread

BACKLOG = 2048  # connections that wait to be taken, as gunicorn has it; aiohttp would make it 128, which a burst outgrows
SYSTEMS_BYTES = 256 * 1024  # of an answer; where it isn't told, the system keeps up to some MiB for a client that doesn't read
SECONDS_OF_LINGERING = 2  # in which the rest of a body that nobody wants is taken and thrown away, so that its sender sees the answer
SECONDS_FOR_SUCCESSORS = 1  # in which a worker that stops still takes connections, until those that come after it do
SECONDS_FOR_A_LAST_REQUEST = 2  # on a connection that is idle when the service stops
SECONDS_TO_RETIRE = 600  # for what takes long, where others have taken over
SECONDS_TO_BREAK_OFF = 1  # what goes on beyond its time when the service stops
LIMITS = web.AppKey("connection_limits", ConnectionLimits)
REFUSAL = web.AppKey("refusal", Refusal)
UNREAD = web.AppKey("unread", Unread)
WHOSE: web.AppKey[Whose] = web.AppKey("whose")


class Runner(web.AppRunner):
    """What runs an application: on connections of ours, and to an end that loses no request."""

    def __init__(self, app: web.Application, takes_its_time: Callable[[], bool] = lambda: False, **options: Any) -> None:
        """Run an application. While it `takes_its_time`, its end waits also for what takes longer than requests may; not for ever."""
        limits, self._takes_its_time = app[LIMITS], takes_its_time
        self._limits = limits._replace(max_connections=room_for(limits.max_connections))
        super().__init__(
            app,
            **options,
            access_log=None,
            auto_decompress=False,  # rest/bodies.py refuses what is coded
            keepalive_timeout=self._limits.keepalive_seconds,
            lingering_time=SECONDS_OF_LINGERING,
            max_field_size=self._limits.max_header_bytes,
            max_line_size=self._limits.max_header_bytes,
            shutdown_timeout=SECONDS_TO_BREAK_OFF,
        )
        self._is_shut_down = False

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return Server(
            Routing(self.app).handle,
            request_factory=made.request_factory,
            loop=made._loop,
            limits=self._limits,
            refusal=self.app.get(REFUSAL) or Refusal(),
            unread=self.app.get(UNREAD) or Unread(),
            whose=self.app.get(WHOSE) or (lambda address, request: address),
            **made._kwargs,
        )

    def _reg_site(self, site: web.BaseSite) -> None:
        super()._reg_site(site)
        site._backlog = BACKLOG
        if isinstance(site, web.SockSite):
            site._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SYSTEMS_BYTES)  # of each connection that is taken

    async def cleanup(self) -> None:
        """Serve on until every client has got an answer that said that it was the last, or wants none; not for ever."""
        if isinstance(self._server, Server):
            await self.shutdown()
            self._server.retire()
            await self._server.wait_until_ended(SECONDS_FOR_SUCCESSORS, SECONDS_FOR_SUCCESSORS)
            await self._close_listeners(self._server)
            await self._server.wait_until_ended(self._limits.request_timeout_seconds, SECONDS_FOR_A_LAST_REQUEST - SECONDS_FOR_SUCCESSORS)
            await self._server.wait_until_ended(SECONDS_TO_RETIRE, 0, self._takes_its_time)
        await super().cleanup()

    async def _cleanup_server(self) -> None:
        if isinstance(self._server, Server):
            self._server.close()
        await super()._cleanup_server()

    async def _close_listeners(self, server: Server) -> None:
        """Take no more connections, but those that wait to be taken: if no other process has the listener, the system would reset them."""
        came: list[socket.socket] = []
        for site in self.sites:
            listener = _second(site)
            await site.stop()
            if listener is not None:
                with listener:
                    came.extend(_waiting(listener))
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.connect_accepted_socket(server, each) for each in came), return_exceptions=True)

    async def shutdown(self) -> None:
        """Tell the application, once, that it stops: what streams would go on for ever."""
        if not self._is_shut_down:
            self._is_shut_down = True
            await super().shutdown()


def _second(site: web.BaseSite) -> socket.socket | None:
    """Return the site's listener once more, so that it outlives the site; None where that can't be."""
    if isinstance(site, web.SockSite) and site._ssl_context is None:
        with suppress(OSError):  # there is no descriptor left
            return site._sock.dup()
    return None


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Take the connections that wait to be taken."""
    with suppress(OSError):  # there is none, or no descriptor left
        for _ in range(BACKLOG):
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection

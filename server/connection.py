"""One client's connection: how slowly its answers may be taken, and its last answer."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, NamedTuple, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from server.arrival import Arrival, last
from server.unread import Unread
from telemetry.logs import USER_ID

MIN_READ_BYTES = 64 * 1024  # by a client that is slow to take an answer, within a request's time
BYTES_PER_PIECE = 64 * 1024
RESET, FINISH = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)  # how a socket is closed, by SO_LINGER


class ConnectionLimits(NamedTuple):
    """How long what concerns connections may take, how many there are, and how long a line of a request's head is, at most."""

    request_timeout_seconds: float
    keepalive_seconds: float
    max_connections: int
    max_header_bytes: int


class Refusal(NamedTuple):
    """What is said to clients whom no application hears, and what counts those for whom there is no room."""

    response: bytes = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    headers: Mapping[str, str] = {}  # of the parser's own answers
    count_one: Callable[[], None] = lambda: None


class Holder(web.Server):
    """What holds connections, as far as one of them knows it."""

    limits: ConnectionLimits
    refusal: Refusal
    unread: Unread

    def has_room(self, transport: asyncio.Transport) -> bool:
        """Return whether there is room for one more connection. If not, its client has been told."""
        raise NotImplementedError


class Connection(Arrival):
    """A client's connection."""

    __slots__ = ("_look", "_wire", "answer_bytes", "came_at", "kept_bytes", "request", "slow_since")
    _manager: "Holder | None"
    _wire: asyncio.Transport  # also when aiohttp has closed it, and it waits until the client reads the rest

    def __init__(self, holder: Holder, **options: Any) -> None:
        super().__init__(holder, timeout_seconds=holder.limits.request_timeout_seconds, **options)
        self._look: asyncio.TimerHandle | None = None  # at a client that is slow to read
        self.request: web.BaseRequest | None = None  # the one that came last: aiohttp keeps it as well
        self.came_at = self._loop.time()  # that one or, before the first, the connection
        self.answer_bytes = 0  # of an answer that is being sent: kept until all of it is
        self.kept_bytes = 0  # of that, still to be sent
        self.slow_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        if self._manager is not None and not self._manager.has_room(self._wire):
            return  # before aiohttp begins with it
        self._wire.set_write_buffer_limits(high=0)  # of what isn't sent at once nothing goes unseen
        super().connection_made(transport)

    def _handle_request(self, request: web.BaseRequest, start_time: float | None, request_handler: Any) -> Coroutine[Any, Any, Any]:
        self.request, self.came_at = request, self._loop.time()
        return super()._handle_request(request, start_time, request_handler)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError) and self._wire.is_closing():
            raise exc  # the client has gone: nobody is at fault, and nobody would hear it
        response = super().handle_error(request, status, exc, message)
        if self._manager is not None:
            response.headers.update(self._manager.refusal.headers)
        return response

    def log_exception(self, *words: Any, exc_info: Any = True, **options: Any) -> None:
        """Say what is wrong, but not that a client has gone, be it while the rest of a body that nobody wants is thrown away."""
        if not isinstance(exc_info, ConnectionError):
            super().log_exception(*words, exc_info=exc_info, **options)

    # A client that is slow to read. aiohttp would keep its answer for as long as it likes.

    def pause_writing(self) -> None:
        super().pause_writing()
        self.slow_since = self._loop.time()
        self._look_again()
        if self._manager is not None:
            self._manager.unread.add(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_of_slowness()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end_of_slowness()
        super().connection_lost(exc)
        self.request = None

    def _end_of_slowness(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
            if self._manager is not None:
                self._manager.unread.discard(self)

    @property
    def unread(self) -> int:
        """How many bytes wait until the client reads them: here, and in the system's buffer, which is emptied in large steps."""
        return self.kept_bytes + self._written

    @property
    def held_bytes(self) -> int:
        """How many bytes are kept for the client: what it has read of an answer, too, until it has read the whole."""
        return self.answer_bytes + self._written

    @property
    def _written(self) -> int:
        number = fcntl.ioctl(self._wire.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return self._wire.get_write_buffer_size() + int.from_bytes(number, sys.byteorder)

    def _look_again(self) -> None:
        self._look = self._loop.call_later(self._timeout_seconds, self._look_whether_it_reads, self.unread)

    def _look_whether_it_reads(self, unread_before: int) -> None:
        if unread_before - self.unread < MIN_READ_BYTES:
            self.abort()
        else:
            self._look_again()

    def abort(self) -> None:
        """Abandon the client."""
        self._end_of_slowness()
        close_by(self._wire, RESET)
        self._wire.abort()

    # The end

    @property
    def is_idle(self) -> bool:
        """Whether the client wants nothing at this moment, as far as is known."""
        return self._waiter is not None and not self._begun and not self._messages and not self._paused

    @property
    def closes_at(self) -> float:
        """When it is closed if nothing comes."""
        return self._next_keepalive_close_time

    @property
    def is_at_work(self) -> bool:
        """Whether the application has the request, and hasn't answered yet."""
        return self._current_request is not None

    @property
    def is_known(self) -> bool:
        """Whether auth has let in whoever sent the request that came last."""
        return self.request is not None and USER_ID in self.request._state

    @property
    def waits_since(self) -> float | None:
        """Since when it waits for the first request, or the rest of one; None where it doesn't."""
        if self._waiter is None and not self._request_count:  # aiohttp hasn't begun with it
            return self.came_at
        if not self._request_count or self._begun:
            return self._next_keepalive_close_time - self._timeout_seconds
        return None if self._body.is_eof() else self.came_at

    def give_way(self, refusal: bytes) -> None:
        """Close it for another one. Who has begun to ask, and has heard nothing yet, is told why."""
        request = self._current_request
        if self._paused or (request is not None and request.writer.output_size):
            self.abort()
            return
        if self._begun or request is not None:
            self._wire.write(refusal)
        if self._waiter is not None:
            self.force_close()
        else:  # who reads its body would find that there is no connection, before it has heard that it is lost
            self._force_close = True
            self._wire.close()

    def retire(self) -> None:
        """Answer the request that is under way, or the next one; with that say that it was the last, and close.

        aiohttp would close idle connections at once, also where a request is on its way on them; and those that aren't, after an
        answer that promised otherwise. Of a body that is still arriving it would take no more.
        """
        if self._current_request is not None:
            self._current_request._message = last(self._current_request._message)
        if make_request := self._request_factory:
            self._request_factory = lambda message, *others: make_request(last(message), *others)


def close_by(transport: asyncio.Transport, how: bytes) -> None:
    """Say how the system is to close a connection, whoever lets it: by RESET, be it that the process is killed, or by FINISH.

    A client of HTTP/1.0 takes what has come before the latter for the whole of an answer that has no length.
    """
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)


def pieces(connection: RequestHandler, body: bytes) -> Iterator[bytes]:
    """Yield what is to be written piece by piece, and let the connection know how much of it is kept meanwhile."""
    for start in range(0, len(body), BYTES_PER_PIECE):
        if isinstance(connection, Connection):
            connection.answer_bytes, connection.kept_bytes = len(body), len(body) - start
        yield body[start : start + BYTES_PER_PIECE]
    if isinstance(connection, Connection):
        connection.answer_bytes = connection.kept_bytes = 0

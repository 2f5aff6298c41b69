"""How the requests of a connection arrive: one after the other, in time and not too large; and what is said where it is none."""

import asyncio
import re
import sys
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web, web_protocol
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from telemetry import metrics

LINES_OF_A_HEAD = 8  # of the longest that there may be: so much a head may have
REQUESTS_AHEAD = 2  # that are taken while another is at work; aiohttp takes 32, of up to a MiB each
BYTES_OF_CHUNKS = 4096  # that are taken at once: where such a body ends, only the parser sees
END_OF_HEAD = b"\n\r\n"  # a line's end, which has a carriage return as well, and an empty line
LINE_ENDS = re.compile(rb"[\r\n]+")
TOO_LARGE = "The head of the request is too large."
NO_HOST = "Missing 'Host' header in request."  # as the parser says it
NO_VERSION = "This service speaks HTTP/1.1 and HTTP/1.0."
VERSIONS = HttpVersion10, HttpVersion11  # that are spoken here; the parser lets 0.9 and 2.0 through as well
OTHER_VERSION = HttpProcessingError(code=HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, message=NO_VERSION)

# The parser would count the requests that have come as a whole, and stop at so many; but what is taken off the count are those whose
# heads have come. Each body that comes later than its head stays on it, and in the end what waits in the parser is never looked at.
web_protocol.MAX_MSG_QUEUE_SIZE = sys.maxsize

NO_HTTP = metrics.Counter("http_malformed_total", "What came and was no HTTP: the parser's own 400.")
NO_HTTP.count(amount=0)


class Arrival(RequestHandler):
    """A connection, as far as it listens.

    What comes is given to the parser one head or body at a time, and the rest is kept as it came. So no more requests are taken ahead
    than there may be, and what follows one that asks for another protocol isn't lost: the parser would drop it.
    """

    __slots__ = ("_ahead", "_begun", "_body", "_come", "_given", "_is_in_chunks", "_is_last", "_left", "_timeout_seconds", "is_endless")

    def __init__(self, *arguments: Any, timeout_seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._max_msg_queue_size, self._msg_queue_resume_size = REQUESTS_AHEAD, REQUESTS_AHEAD - 1
        self._timeout_seconds = timeout_seconds
        self._come, self._given = b"", 0  # and how much of it the parser has
        self._begun = 0  # bytes of a head that is arriving
        self._ahead = 0  # and of it before, while another request was at work
        self._body: StreamReader = EMPTY_PAYLOAD  # of the request that came last
        self._left = 0  # bytes of it that are still to come; of one in chunks, as many as are taken at once
        self._is_in_chunks = False
        self.is_endless = False  # the answer that is under way: it ends when its client closes its side
        self._is_last = False  # the request that came last, so what comes after it is nothing to us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if not data:
            super().data_received(data)  # the parser goes on with a body that was read too slowly
        else:
            self._come, self._given = (self._come[self._given :] + data if self._come else data), 0
        self._take()

    def _resume_reading_if_drained(self) -> None:
        self._take()

    def _take(self) -> None:
        """Give the parser what has come, as long as there aren't too many requests ahead, and the last one's body is read."""
        while self._given < len(self._come) and not self._force_close:
            is_head = self._body is EMPTY_PAYLOAD or self._body.is_eof()
            if is_head and (self._is_last or self._close):
                break
            if len(self._messages) >= REQUESTS_AHEAD or self._reading_paused:
                self._pause_reading_for_buffer()
                return
            if is_head:
                self._take_of_a_head()
            else:
                self._take_of_a_body()
            if self._upgraded and self._parser is not None:  # to no other protocol: the request is answered as any other
                self._parser.set_upgraded(False)
                self._upgraded = False
        self._come = b""
        if self._buffer_paused and len(self._messages) < REQUESTS_AHEAD:
            self._resume_reading_for_buffer()

    def _take_of_a_head(self) -> None:
        come, given, requests, arrived = self._come, self._given, self._request_count, self._begun + self._ahead
        if not arrived and come[given] in b"\r\n":  # RFC 9112, section 2.2
            self._given = LINE_ENDS.match(come, given).end()  # type: ignore[union-attr]  # it is there
            return
        if arrived and not given:  # of what ends it, a part may have come before
            end = come.find(b"\n") + 1 or len(come)
        else:
            end = come.find(END_OF_HEAD, given - 1 if given else 0)
            end = len(come) if end < 0 else end + len(END_OF_HEAD)
        self._given = end
        if arrived + end - given > LINES_OF_A_HEAD * self.max_line_size:
            self._refuse_head()
            return
        super().data_received(come[given:end])
        if self._request_count != requests:
            self._begun = self._ahead = 0
            self._note_request()
        elif self._waiter is None:
            self._ahead += end - given
        else:
            if not self._begun and requests:  # the first is expected since the connection was made
                self._expect_head()
            self._begun += end - given

    def _note_request(self) -> None:
        message, self._body = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._is_last = True
        elif self._body is EMPTY_PAYLOAD:
            self._is_last = message.should_close
        elif message.chunked:
            self._messages[-1] = last(message), self._body  # the parser would take its trailers for headers of the next request
            self._is_last = self._is_in_chunks = True
            self._left = BYTES_OF_CHUNKS
        else:
            self._is_last = message.should_close
            self._left = int(message.headers.get(hdrs.CONTENT_LENGTH, 0))

    def _take_of_a_body(self) -> None:
        requests, piece = self._request_count, self._come[self._given : self._given + self._left]
        self._given += len(piece)
        super().data_received(piece)
        if not self._is_in_chunks:
            self._left -= len(piece)
        for _ in range(self._request_count - requests):  # what follows the last request, or the word that its body is none
            self._messages.pop()
        if self._request_count != requests and not self._body.is_eof():
            self._body.set_exception(RequestPayloadError("this is no body"))
            self._body.feed_eof()

    def eof_received(self) -> bool:  # type: ignore[override]  # whether our side stays open
        """Answer the requests that have come as a whole, though the client has closed its side; else close ours."""
        is_free = self._waiter is not None  # for the next, which it may have been told of
        if self.is_endless or ((is_free or not self._request_count) and not self._messages):
            return False
        if not self._body.is_eof():
            if len(self._messages) == is_free:
                return False
            self._messages.pop()
            self._body = EMPTY_PAYLOAD
        self._is_last = True
        if not self._messages:
            self._close = True  # with the answer that is under way
        elif not isinstance(message := self._messages[-1][0], _ErrInfo):
            self._messages[-1] = last(message), self._messages[-1][1]
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        gone = exc if isinstance(exc, ConnectionError) else ConnectionResetError("the client has gone")
        if not self._body.is_eof():  # aiohttp tells it where its request is at work, not where that is about to be
            self._body.set_exception(gone)
        super().connection_lost(exc and gone)

    # A head that takes too long to arrive. aiohttp gives it as long as a connection may be idle.

    def _expect_head(self) -> None:
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._next_keepalive_close_time = self._loop.time() + self._timeout_seconds
        self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    # What is no request

    def _refuse_head(self) -> None:
        error = HttpProcessingError(code=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message=TOO_LARGE)
        self._messages.append((_told(error), EMPTY_PAYLOAD))
        self._is_last = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _handle_request(self, request: web.BaseRequest, start_time: float | None, request_handler: Any) -> Coroutine[Any, Any, Any]:
        if request._version not in VERSIONS:  # RFC 9110, section 15.6.6
            request_handler, request._version = self._make_error_handler(_told(OTHER_VERSION)), HttpVersion10
        self.is_endless = False
        return super()._handle_request(request, start_time, request_handler)

    def _make_error_handler(self, err_info: _ErrInfo) -> Any:
        NO_HTTP.count()
        if "Invalid HTTP version" in err_info.message:
            err_info = _told(OTHER_VERSION)
        return super()._make_error_handler(_ErrInfo(err_info.status, err_info.exc, _words(err_info)))


def end_with_client(request: web.BaseRequest) -> None:
    """Let the answer that is under way, which goes on for ever, end where the client closes its side."""
    if isinstance(request.protocol, Arrival):
        request.protocol.is_endless = True


def last(message: Any) -> Any:
    """Return the request as one after which its connection is closed."""
    return message._replace(should_close=True)


def _told(error: HttpProcessingError) -> _ErrInfo:
    return _ErrInfo(error.code, error, error.message)


def _words(error: _ErrInfo) -> str:
    """Say why something is no HTTP. The parser would send back what it can't read, which may be a token or a password."""
    if isinstance(error.exc, LineTooLong):
        return "A line of the request's head is too long."
    return error.message if error.message in (TOO_LARGE, NO_HOST, NO_VERSION) else "This is no HTTP that can be read."

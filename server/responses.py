"""Answers of JSON: a short one goes out in one step, and of a long one nothing is kept."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion11, hdrs, web, web_response
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import _serialize_headers

from server.connection import pieces

LONG_BYTES = 64 * 1024
CONTENT_TYPE = "application/json; charset=utf-8"


def json_answer(body: bytes, headers: Mapping[str, str], status: int = HTTPStatus.OK) -> web.Response:
    """Return an answer of JSON, which ends with a line feed: a terminal shows it."""
    kind = ShortResponse if len(body) < LONG_BYTES else LongResponse
    return kind(body=body, status=status, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE, **headers})


class ShortResponse(web.Response):
    """An answer that is short: head and body go out in one piece, and in one step where aiohttp takes a dozen.

    That is for every method but HEAD, in HTTP/1.1, with bytes for a body; all else goes aiohttp's way.
    """

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send it, as a whole."""
        if self.prepared or request.method == hdrs.METH_HEAD or request.version != HttpVersion11 or not isinstance(self._body, bytes):
            return await super().prepare(request)
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        await request._prepare_hook(self)
        headers = self._headers
        headers[hdrs.CONTENT_LENGTH] = str(len(self._body))
        headers.setdefault(hdrs.DATE, rfc822_formatted_time())
        headers.setdefault(hdrs.SERVER, web_response.SERVER_SOFTWARE)  # type: ignore[attr-defined]  # aiohttp_fixes sets it
        if not self._keep_alive:
            headers[hdrs.CONNECTION] = "close"
        self._eof_sent = True
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(_serialize_headers(f"HTTP/1.1 {self._status} {self._reason}", headers) + self._body)
        await request.writer.drain()
        return request.writer


class LongResponse(web.Response):
    """An answer that is long: it goes out piece by piece, and nothing of it is kept.

    aiohttp copies a body as a whole, and keeps the last answer of each connection until there is another one.
    """

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body."""
        body, self._body = self._body, None
        if isinstance(body, bytes) and self._req is not None and not self._must_be_empty_body:
            for piece in pieces(self._req.protocol, body):
                await self.write(piece)
        await web.StreamResponse.write_eof(self)

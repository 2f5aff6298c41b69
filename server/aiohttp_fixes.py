"""Faults of aiohttp 3.14, fixed here until it fixes them itself: requests that pass the middlewares, a version told. Each has a test."""

from typing import Any

from aiohttp import web, web_response, web_urldispatcher
from yarl import URL

MAX_PARTS = 16  # of a path: no route has more
NOWHERE = URL("//", encoded=True)
aiohttps_make_request = web.Application._make_request  # noqa: SLF001


def apply(name: str) -> None:
    """Put the fixes in place, for every application of the process; `name` is what its answers call their server."""
    setattr(web_urldispatcher, "_default_expect_handler", expect)  # noqa: B010 - mypy knows that nobody does this
    setattr(web.Application, "_make_request", make_request)  # noqa: B010
    setattr(web_response, "SERVER_SOFTWARE", name)  # noqa: B010 - also of answers that the parser gives


async def expect(request: web.Request) -> None:
    """Ask for the body where the client waits for that; any other expectation is ignored, as RFC 9110, section 10.1.1, allows.

    aiohttp answers it with a 417 of its own.
    """
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # what has gone out is no part of the answer


def make_request(self: web.Application, message: Any, *rest: Any, **options: Any) -> web.Request:
    """Make the request; one for an address with a host is one for its path, and one for a path of very many parts is one for nothing.

    aiohttp would decode the host, which may be impossible, and look for a route at each beginning of the path: both take the square of
    their length.
    """
    if message.url.absolute:
        message = message._replace(url=message.url.relative())
    if message.url.raw_path.count("/") > MAX_PARTS:
        message = message._replace(url=NOWHERE)
    return aiohttps_make_request(self, message, *rest, **options)

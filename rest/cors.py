"""Pages of other origins (Fetch, section 3.3): those that the operator names may use the API.

aiohttp-cors would want a mixin in each view, and leaves out Vary and the answers of addresses that there aren't.
"""

from collections.abc import Collection, Iterable
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

EXPOSED = ("ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID")
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-ID",
    "Access-Control-Max-Age": "7200",  # seconds; no browser keeps it longer
}


def allow(app: web.Application, origins: Collection[str], headers: Iterable[str] = ()) -> None:
    """Let pages of these origins read all answers, refusals and streams included, and of their headers these besides.

    No credentials: nothing here takes cookies.
    """
    exposed = ", ".join(sorted({*EXPOSED, *headers}))

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Vary"] = ", ".join(filter(None, (response.headers.get("Vary"), "Origin")))
        if (origin := request.headers.get("Origin")) in origins:
            response.headers["Access-Control-Allow-Origin"] = str(origin)
            response.headers["Access-Control-Expose-Headers"] = exposed

    app.on_response_prepare.append(add_headers)


def middleware(origins: Collection[str]) -> Middleware:
    """Make the middleware that answers what a browser asks before a page's request, which has no token yet."""

    @web.middleware
    async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if asked and request.headers.get("Origin") in origins and request.match_info.http_exception is None:
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=PREFLIGHT)
        return await handler(request)

    return preflight

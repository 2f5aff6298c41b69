"""The least that aiohttp can do under the same gunicorn: read the body where there is one, and answer 200 bytes."""

from aiohttp import web

import settings
from app import connection_limits
from server.runner import LIMITS

BODY = b'{"text": "' + 188 * b"x" + b'"}'


async def hello(request: web.Request) -> web.Response:
    """Answer 200 bytes of JSON."""
    if request.can_read_body:
        await request.read()
    return web.Response(body=BODY, content_type="application/json")


async def create_app() -> web.Application:
    """Make the application; gunicorn calls this in each worker."""
    app = web.Application()
    app[LIMITS] = connection_limits(settings.load())
    app.add_routes([web.get("/task", hello), web.post("/task", hello), web.get("/task/{id}", hello), web.patch("/task/{id}", hello)])
    return app

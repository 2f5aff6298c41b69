"""Read me first: what there is, who guards it, and how it starts. `python app.py` runs one process for development."""

from aiohttp import web
from aiohttp.typedefs import Middleware

import auth
import settings
import views
from postgres import database
from rest import errors, telemetry

TASK = "/task/{id:[1-9][0-9]{0,18}}"


def route(path: str, view: type[web.View]) -> web.RouteDef:
    """Give the route of a resource."""
    return web.view(path, view, expect_handler=errors.expect)


PUBLIC = [
    route("/register", views.Accounts),
    route("/get-token", views.Tokens),
    route("/health/live", views.Live),
    route("/health/ready", views.Ready),
]
PRIVATE = [  # auth lets nobody in without a token
    route("/task", views.TaskList),
    route(TASK, views.TaskItem),
    route(TASK + "/log", views.TaskHistory),
]


def middlewares() -> list[Middleware]:
    """Give the middlewares, outermost first: whatever happens further in is named, logged and answered."""
    return [telemetry.middleware, errors.middleware, auth.middleware(PRIVATE)]


async def create_app() -> web.Application:
    """Make the application; gunicorn calls this in each worker."""
    app = web.Application(middlewares=middlewares(), client_max_size=settings.load().max_body_bytes)
    app.add_routes(PUBLIC + PRIVATE)
    app.cleanup_ctx.extend([database.pool, auth.hashing])
    return app


if __name__ == "__main__":
    telemetry.log_to_stdout(settings.load().log_level)
    web.run_app(create_app(), host=settings.load().host, port=settings.load().port, access_log=None)

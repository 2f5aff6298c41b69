"""Read me first: what there is, who guards it, and how it starts. `python app.py` runs one process for development."""

import asyncio
from functools import cache

import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware

import account_views
import auth
import events
import history_views
import housekeeping
import limits
import passwords
import scalars
import settings
import transfer_views
import views
from postgres import database
from rest import aiohttp_mends, cors, errors, metrics, openapi, overload, telemetry

aiohttp_mends.apply()

INFO = openapi.Info(
    title="Tasks",
    version="0.1.0",
    description="A task manager: one's own tasks, and the whole history of every change.",
)
TASK = "/task/{id:[1-9][0-9]{0,18}}"


PUBLIC = [
    web.view("/register", account_views.Accounts),
    web.view("/get-token", account_views.Tokens),
    web.view("/health/live", views.Live),
    web.view("/health/ready", views.Ready),
    *openapi.ROUTES,
]
PRIVATE = [  # auth lets nobody in without a token
    web.view("/change-password", account_views.Password),
    web.view("/revoke-tokens", account_views.Revocation),
    web.view("/delete-account", account_views.AccountClosure),
    web.view("/task", views.TaskList),
    web.view(TASK, views.TaskItem),
    web.view("/task/undo", history_views.TaskUndo),
    web.view("/task/log", history_views.AccountHistory),
    web.view(TASK + "/log", views.TaskHistory),
    web.view(TASK + "/restore", history_views.TaskRestoration),
    web.view("/task/events", history_views.Events),
    web.view("/export", transfer_views.Export),
    web.view("/import", transfer_views.Import),
]
OPERATORS = [web.view("/metrics", views.Metrics)]  # there only with METRICS_TOKEN, which it needs


ALWAYS = (views.Live, views.Ready, views.Metrics)  # answered however much there is to do
REMEDIES = (account_views.Password, account_views.Revocation)  # what ends a stolen token: its thief leaves room for that


def middlewares(under_way: overload.UnderWay) -> list[Middleware]:
    """Give the middlewares, outermost first: whatever happens further in is named, logged and answered, and nothing takes too long."""
    origins = settings.load().cors_origins
    preflights = [cors.middleware(origins)] if origins else []
    counted = [limits.middleware(REMEDIES)] if limits.is_on() else []
    return [telemetry.middleware, errors.middleware, *preflights, under_way.middleware, auth.middleware(PRIVATE), *counted]


@cache
def document() -> bytes:
    """Give the OpenAPI document."""
    return orjson.dumps(openapi.make(INFO, PUBLIC, PRIVATE, OPERATORS, {"id": scalars.Id}))


async def create_app() -> web.Application:
    """Make the application; gunicorn calls this in each worker."""
    given = settings.load()
    under_way = overload.UnderWay(given.max_requests_at_once, given.request_timeout_seconds, ALWAYS)
    app = web.Application(middlewares=middlewares(under_way), client_max_size=given.max_body_bytes)
    app.add_routes(PUBLIC + PRIVATE)
    if given.cors_origins:
        cors.allow(app, given.cors_origins)
    app[overload.UNDER_WAY] = under_way
    app[openapi.DOCUMENT] = document()
    app[transfer_views.TURNS] = asyncio.Semaphore(transfer_views.IMPORTS_AT_ONCE)
    if given.metrics_token:
        app.add_routes(OPERATORS)
        app.cleanup_ctx.append(metrics.writing)
    app.cleanup_ctx.extend(
        [telemetry.access_lines, database.pool, limits.door, passwords.hashing, housekeeping.housekeeping, events.watching]
    )
    app.on_shutdown.append(events.end_streams)
    return app


if __name__ == "__main__":
    telemetry.log_to_stdout(settings.load().log_level)
    web.run_app(create_app(), host=settings.load().host, port=settings.load().port, access_log=None)

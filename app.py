"""Read me first: what there is, who guards it, and how it starts. `python app.py` runs one process for development."""

import logging
from functools import cache

import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware

import auth
import settings
import views
from accounts import passwords, rate_limits
from accounts import views as account_views
from accounts.values import AccountLimits
from history import event_watcher
from history import views as history_views
from postgres.housekeeping import Chore, keep_house
from rest import addresses, cors, docs_pages, errors, openapi, operation, overload, values
from server import aiohttp_fixes, runner
from server.connection import ConnectionLimits
from server.unread import Unread
from service import SERVICE, make_service
from settings import Settings
from telemetry import logs, metrics
from transfer import imports
from transfer import views as transfer_views

aiohttp_fixes.apply("task")
errors.Unauthorized.realm = "task"

INFO = openapi.Info(
    title="Tasks",
    version="0.1.0",
    description="A task manager: one's own tasks, and the whole history of every change.",
    tags={
        "Accounts": "An account, its password and its tokens.",
        "Tasks": "One's tasks as they are, as they were, and as they are to be.",
        "History": "What was changed, as a log and as it happens; and taking it back.",
        "Transfer": "The whole account out, and files in.",
        "Service": "This document, whether the service is well, and what it measures.",
    },
)
HEADERS = {  # what answers carry of ours: words and an example
    "Content-Disposition": ("the name of the file that it is", 'attachment; filename="tasks.json"'),
    "Link": ('where the next page is, if one follows: <...>; rel="next"', '</task?limit=1&cursor=abc>; rel="next"'),
    "Location": ("where the new thing is", "/task/1"),
    "WWW-Authenticate": ("how to say who one is (RFC 6750)", 'Bearer realm="task"'),
    "X-Purged": ("how many tasks are gone for good: where it differs from the last pull's, forget what the trash has no more", "0"),
    "X-Revision": ("the user's revision in the snapshot that made the answer", "7"),
}
PARTICULARS = openapi.Particulars({"id": values.Id}, HEADERS, ["X-Revision"], "what the setting METRICS_TOKEN holds")
TASK = "/task/{id:[1-9][0-9]{0,18}}"


PUBLIC = [
    web.view("/register", account_views.Accounts),
    web.view("/get-token", account_views.Tokens),
    web.view("/reset-password", account_views.ForgottenPassword),
    web.view("/health/live", views.Live),
    web.view("/health/ready", views.Ready),
    *docs_pages.ROUTES,
]
PRIVATE = [  # auth lets nobody in without a token
    web.view("/change-password", account_views.Password),
    web.view("/revoke-tokens", account_views.Revocation),
    web.view("/delete-account", account_views.AccountClosure),
    web.view("/task", views.TaskList),
    web.view(TASK, views.TaskItem),
    web.view("/task/undo", history_views.TaskUndo),
    web.view("/task/log", history_views.AccountHistory),
    web.view(TASK + "/log", history_views.TaskHistory),
    web.view(TASK + "/restore", history_views.TaskRestoration),
    web.view("/task/events", history_views.Events),
    web.view("/export", transfer_views.Export),
    web.view("/import", transfer_views.Import),
]
OPERATORS = [web.view("/metrics", views.Metrics)]  # there only with METRICS_TOKEN, which it needs


ROWS_PER_STEP, TASKS_PER_STEP, PAGES_PER_STEP = 10_000, 200, 20
DAYS_UNTIL_FUNCTIONS_GO = 30  # those of a version that nobody runs


def chores(given: Settings) -> list[Chore]:
    """Return what goes by itself."""
    trash = given.trash_lifetime_seconds, TASKS_PER_STEP, ROWS_PER_STEP
    return [
        Chore(0, "account_sweep(%s)", (ROWS_PER_STEP,)),
        Chore(1, "leftover_sweep(%s)", (ROWS_PER_STEP,)),
        Chore(2, "limits_sweep(%s, %s)", (given.known_address_seconds, ROWS_PER_STEP)),
        Chore(3, "trash_sweep(now() - make_interval(secs => %s), %s, %s)", trash),
        Chore(4, "look_sweep(%s)", (PAGES_PER_STEP,)),
        Chore(5, "functions_sweep(make_interval(days => %s))", (DAYS_UNTIL_FUNCTIONS_GO,)),
    ]


ALWAYS = (views.Live, views.Ready, views.Metrics, history_views.Events)  # answered however much there is to do: it is little work
REMEDIES = (account_views.Password, account_views.Revocation)  # what ends a stolen token: its thief leaves room for that


def middlewares(given: Settings, under_way: overload.UnderWay) -> list[Middleware]:
    """Return the middlewares, outermost first: whatever happens further in is named, logged and answered, and nothing takes too long."""
    preflights = [cors.middleware(given.cors_origins)] if given.cors_origins else []
    guard = auth.middleware(PRIVATE, given.jwt_secrets)
    counted = [rate_limits.middleware(REMEDIES, given.user_limit_per_minute)] if given.rate_limit == "on" else []
    return [logs.middleware, errors.middleware, *preflights, under_way.middleware, guard, *counted]


@cache
def document(public_url: str = "") -> bytes:
    """Return the OpenAPI document."""
    public = [route for route in PUBLIC if route not in docs_pages.PAGES]
    particulars = PARTICULARS._replace(public_url=public_url)
    return orjson.dumps(openapi.make(INFO, public, PRIVATE, OPERATORS, particulars), option=orjson.OPT_APPEND_NEWLINE)


def connection_limits(given: Settings) -> ConnectionLimits:
    """Return what the settings say of connections."""
    return ConnectionLimits(given.request_timeout_seconds, given.keepalive_seconds, given.max_connections, given.max_header_bytes)


async def create_app(given: Settings | None = None) -> web.Application:
    """Make an application with these settings, or with the environment's; gunicorn calls this in each worker."""
    given = given or settings.load()
    unread = Unread()
    service, whose = make_service(given, unread), addresses.sites(given.trusted_proxies)
    under_way = overload.UnderWay(given.max_requests_at_once, given.request_timeout_seconds, ALWAYS, whose)
    app = web.Application(middlewares=middlewares(given, under_way), client_max_size=given.max_body_bytes)
    app.add_routes(PUBLIC + PRIVATE)
    if given.cors_origins:
        cors.allow(app, given.cors_origins, ["X-Purged", "X-Revision"])
    app[SERVICE] = service
    app[overload.UNDER_WAY] = under_way
    app[operation.CONTEXT] = AccountLimits(given.password_min_length, given.token_lifetime_max_seconds, given.registration == "invited")
    app[runner.LIMITS] = connection_limits(given)
    app[runner.REFUSAL] = overload.refusal()
    app[runner.UNREAD] = unread
    app[runner.WHOSE] = whose
    app[errors.PUBLIC_PATH] = given.public_path
    app[docs_pages.DOCUMENT] = document(given.public_url)
    if given.metrics_token:
        app.add_routes(OPERATORS)
        app.cleanup_ctx.append(metrics.writing)
    app.cleanup_ctx.extend(
        [
            logs.access_lines,
            under_way.measuring,
            service.database.running,
            rate_limits.counting,
            passwords.hashing,
            imports.importing,
            keep_house(service.database, chores(given)),
            event_watcher.watching,
        ]
    )
    app.on_shutdown.append(event_watcher.end_streams)
    return app


if __name__ == "__main__":
    environment = settings.load()
    logs.log_to_stdout(environment.log_level)
    for doubt in settings.doubts():
        logging.getLogger("settings").warning(doubt)
    say = logging.getLogger("server").info  # as all else, so that nothing waits for who reads it
    web.run_app(create_app(environment), host=environment.host, port=environment.port, access_log=None, print=say)

"""What each layer of the service costs a request, in CPU time: applications of one layer more each are asked here, without a socket."""

import asyncio
import json
import logging
import os
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiohttp import streams, web
from aiohttp.test_utils import make_mocked_request

from bench.data import GENERATION, LISTED, seeded_task
from bench.jobs import JOBS, REQUESTS, body
from bench.peers.hello import hello
from bench.results import Record
from bench.systems import given
from postgres.queries import Query
from settings import Settings

TURNS = 5
REQUESTS_PER_TURN = 100
USER, TASK = 1, 77
LAYERS = {
    "handler": "a handler that answers 200 bytes",
    "telemetry": "the request's id, its access line",
    "errors": "whatever fails is answered; the headers that every answer has",
    "overload": "no more at once than can be served, and none for ever",
    "auth": "the token, remembered",
    "operation": "the operation: what was sent is checked, the answer is made; PostgreSQL and the way to it left out",
}


def run() -> list[Record]:
    """Ask each application, in turn, and give the CPU time of a request, in microseconds."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        logging.getLogger().setLevel(logging.INFO)
        return asyncio.run(_measure(given()))


class _Nobody:
    """Who is on the other end. A Mock would do, but costs more than what is measured."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_: Any, **__: Any) -> None:
        pass


NOBODY: Any = _Nobody()


async def _measure(given: Settings) -> list[Record]:
    import app
    import auth
    from models import Caller
    from postgres.database import Database
    from rest import errors, overload
    from telemetry import logs

    routes = [web.route(request.method, request.path.split("?")[0], hello) for request in REQUESTS.values()]
    under_way = overload.UnderWay(256, 10, ())
    middlewares = [logs.middleware, errors.middleware, under_way.middleware, auth.middleware(routes, given.jwt_secrets)]
    applications = [web.Application(middlewares=middlewares[:count]) for count in range(5)]
    for application in applications:
        application.add_routes(routes)
    applications.append(await app.create_app(given))
    token = f"Bearer {auth.issue_token(given, Caller(USER, GENERATION)).access_token}"
    with patch.object(Database, "ask", _answer):
        for application in applications:
            application.freeze()
        return [
            {"turn": turn, "job": job, "layer": layer, "us": await _cost(application, job, token)}
            for turn in range(TURNS)
            for job in JOBS
            for layer, application in zip(LAYERS, applications, strict=True)
        ]


async def _cost(application: web.Application, job: str, token: str) -> float:
    from server.routing import Routing
    from telemetry import logs

    respond = Routing(application).handle
    requests = [_request(application, job, token) for _ in range(REQUESTS_PER_TURN)]
    logs.ENDED.tell()
    started = time.process_time()
    for request in requests:
        response = await respond(request)
        if response.status >= 300:
            raise AssertionError(response)
    logs.ENDED.tell()  # which it does by itself where the loop turns
    return (time.process_time() - started) / REQUESTS_PER_TURN * 1e6


def _request(application: web.Application, job: str, token: str) -> web.Request:
    request, sent = REQUESTS[job], (body(REQUESTS[job], TASK) or "").encode()
    payload = streams.StreamReader(NOBODY, 2**16, loop=asyncio.get_running_loop())
    payload.feed_data(sent)
    payload.feed_eof()
    headers = {"Host": "localhost", "Authorization": token}
    if sent:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(sent))}
    path, nobody = request.path.replace("{id}", str(TASK)), dict.fromkeys(("transport", "protocol", "writer"), NOBODY)
    return make_mocked_request(request.method, path, headers, app=application, payload=payload, **nobody)


TASK_AS_STORED = json.dumps(seeded_task(USER, TASK), separators=(",", ":"))
PAGE = ",".join([TASK_AS_STORED] * (LISTED + 1)).encode()


async def _answer(_: Any, query: Query[Any], *__: Any) -> list[tuple[Any, ...]]:
    """Answer as PostgreSQL would: a page, a change, or a task."""
    task = (TASK, TASK, TASK_AS_STORED, TASK)
    if query.is_heavy:
        return [query.make_row((TASK, TASK, 0, 0, b'[null, "%d"]' % TASK, len(",") + len(TASK_AS_STORED), PAGE))]
    return [query.make_row((None, *task) if query.may_be_busy else task)]

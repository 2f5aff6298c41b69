"""What one sees from outside: an id for every request, and a line of JSON in the log for each."""

import logging
import re
import sys
import time
import uuid
from contextvars import ContextVar
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from pythonjsonlogger.json import JsonFormatter

log = logging.getLogger("access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
CLIENT_CLOSED_REQUEST: Final = 499  # nginx's number, never sent: the client went before there was an answer
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
USER_ID = web.RequestKey("user_id", int)  # who is calling, once that is known


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, answer under that name, and log how it went."""
    started = time.perf_counter()
    sent = request.headers.get("X-Request-ID", "")
    name = sent if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
    request_id.set(name)
    status = CLIENT_CLOSED_REQUEST
    try:
        response = await handler(request)
        status = response.status
    finally:
        _write_line(request, status, time.perf_counter() - started)
    if not response.prepared:
        response.headers["X-Request-ID"] = name
    return response


def _write_line(request: web.Request, status: int, seconds: float) -> None:
    resource = request.match_info.route.resource
    log.info(
        "request",
        extra={
            "method": request.method,
            "route": resource.canonical if resource else None,  # the pattern: a path is the client's text
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "user_id": request.get(USER_ID),
        },
    )


class _WithRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class _NoBadHttp(logging.Filter):
    """Keep out what aiohttp says of bytes that are no HTTP: a traceback for each, with what the client sent in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], (HttpProcessingError, web.RequestPayloadError)))


def log_to_stdout(level: str) -> None:
    """Write log records to stdout, as lines of JSON with the id of the request that they belong to; gunicorn's own stay its own."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_WithRequestId())
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
        )
    )
    for server in ("aiohttp.server", "gunicorn.error"):
        logging.getLogger(server).addFilter(_NoBadHttp())
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every broken form
    logging.getLogger("yoyo").setLevel(logging.WARNING)  # it tells of each statement
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)

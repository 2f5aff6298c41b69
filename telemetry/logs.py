"""The log: an id for every request, and a line about each: of JSON, or of words where stdout is a terminal."""

import asyncio
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache, partial
from random import getrandbits
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from aiohttp.web_urldispatcher import AbstractResource
from multidict import istr
from pythonjsonlogger.json import JsonFormatter

from telemetry import metrics, readable
from telemetry.log_writer import WRITER

log = logging.getLogger("access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
CLIENT_CLOSED_REQUEST: Final = 499  # nginx's number, never sent: the client went before there was an answer
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
SECONDS_BETWEEN_WRITES = 0.1  # of access lines
MAX_NOTES = 60  # of requests; then they are told of at once
SECONDS_BETWEEN_LIKES = 1  # of warnings
LINES_AT_ONCE = 15  # surely fit into the 4096 bytes that a pipe takes in one piece: a larger one may end up among those of other workers
X_REQUEST_ID = istr("X-Request-ID")
USER_ID = web.RequestKey("user_id", int)  # who is calling, once that is known


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, answer under that name, and note how it went."""
    started = time.perf_counter()
    sent = request.headers.get(X_REQUEST_ID)
    name = sent if sent and REQUEST_ID.fullmatch(sent) else f"{getrandbits(64):016x}"
    request_id.set(name)
    status = CLIENT_CLOSED_REQUEST
    try:
        response = await handler(request)
        status = response.status
    finally:
        seconds, resource = time.perf_counter() - started, request.match_info.route.resource
        ENDED.note(request.method, resource, status, seconds, name, request.get(USER_ID))
    if not response.prepared:
        response.headers[X_REQUEST_ID] = name
    return response


# What is told of requests, a little later: of many together it costs less, since what it takes is in the processor's caches then.

METHODS = hdrs.METH_ALL
REQUESTS = metrics.Counter("http_requests_total", "Requests that were answered.", "method", "route", "status")
DURATIONS = metrics.Histogram(
    "http_request_duration_seconds",
    "How long they took.",
    *("method", "route"),
    bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

Note = tuple[str, AbstractResource | None, int, float, str, int | None, float]


class Ended:
    """The requests that have ended, and of which nothing has been told."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.line_of: Callable[[Note], str] = _json_line
        self._timer: asyncio.TimerHandle | None = None

    def note(self, method: str, resource: AbstractResource | None, status: int, seconds: float, name: str, user_id: int | None) -> None:
        """Note one, to be told of soon."""
        self.notes.append((method, resource, status, seconds, name, user_id, time.time()))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS_BETWEEN_WRITES, self.tell)
        if len(self.notes) % MAX_NOTES == 0:
            asyncio.get_running_loop().call_soon(self.tell)

    def tell(self) -> None:
        """Count them, and write their lines."""
        notes, self.notes = self.notes, []
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for method, resource, status, seconds, *_ in notes:
            what = method if method in METHODS else "other", _route(resource) or "none"
            REQUESTS.count((*what, status))
            DURATIONS.observe(seconds, what)
        if log.isEnabledFor(logging.INFO):  # and past logging's handlers, which format and write each by itself
            for first in range(0, len(notes), LINES_AT_ONCE):
                lines = notes[first : first + LINES_AT_ONCE]
                WRITER.put("".join(map(self.line_of, lines)), len(lines))


def _route(resource: AbstractResource | None) -> str | None:
    return None if resource is None else resource.canonical  # the pattern: a path is the client's text


def _readable_line(note: Note) -> str:
    method, resource, status, seconds, _, _, moment = note
    return readable.access_line(method, _route(resource), status, seconds, moment)


def _json_line(note: Note) -> str:
    method, resource, status, seconds, name, user_id, moment = note
    what, whose = _what(method, _route(resource)), "null" if user_id is None else user_id
    return f'{_when(int(moment))}"{name}",{what}{status},"duration_ms":{seconds * 1000:.3f},"user_id":{whose}}}\n'


@lru_cache(2)
def _when(moment: int) -> str:
    time_text = time.strftime(TIME_FORMAT, time.localtime(moment))
    return f'{{"time":"{time_text}","level":"INFO","logger":"access","request_id":'


@lru_cache(1000)
def _what(method: str, route: str | None) -> str:
    return f'"method":{json.dumps(method)},"route":{json.dumps(route)},"status":'


ENDED = Ended()
metrics.before_writing.append(ENDED.tell)


async def access_lines(app: web.Application) -> AsyncIterator[None]:
    """Let no access line be lost when the application stops."""
    yield
    ENDED.tell()


# What others log.


class _WithRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class _NoBadHttp(logging.Filter):
    """Keep out what aiohttp says of bytes that are no HTTP: a traceback for each, with what the client sent in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], (HttpProcessingError, web.RequestPayloadError)))


class _Sparing(logging.Filter):
    """Let a warning that comes again and again through once a second, and say how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: dict[tuple[str, str], tuple[float, int]] = {}  # when last, and how many were left out since

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        heard_at, left_out = self._heard.get((record.name, record.msg), (0.0, 0))
        if heard_at <= record.created < heard_at + SECONDS_BETWEEN_LIKES:  # and not as long as the clock has stepped back
            self._heard[record.name, record.msg] = heard_at, left_out + 1
            return False
        self._heard[record.name, record.msg] = record.created, 0
        record.left_out = left_out
        return True


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            WRITER.put(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001 - as logging's own handlers do: nothing fails since it is told of
            self.handleError(record)


class _Formatter(JsonFormatter):
    """Make JSON of a record. Of an error it has the places in the code and few words: the rest may be what a client sent."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _told(ei[1])


def _told(error: BaseException) -> str:
    return "".join(_parts(error))


def _parts(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause:
        yield from _parts(cause)
        yield "and then\n"
    yield from traceback.format_tb(error.__traceback__)
    words = str(error).partition("\n")[0]  # psycopg2 goes on with the statement, pydantic with the value
    yield f"{type(error).__name__}: {_QUOTED.sub('...', words)[:MAX_WORDS]}\n"


_QUOTED = re.compile("""['"`](.*['"`]|.*)""")
MAX_WORDS = 200


def are_read_by_people() -> bool:
    """Return whether the lines go to a terminal."""
    return sys.stdout.isatty()


def log_to_stdout(level: str) -> None:
    """Write log records to stdout: as lines of JSON with the id of the request that they belong to, or as words on a terminal."""
    handler = _Handler()
    handler.addFilter(_WithRequestId())
    handler.addFilter(_Sparing())
    if are_read_by_people():
        handler.setFormatter(readable.Formatter(_told))
        ENDED.line_of = _readable_line
    else:
        handler.setFormatter(_json_formatter())
        ENDED.line_of = _json_line
    for server in ("aiohttp.server", "gunicorn.error"):
        logging.getLogger(server).addFilter(_NoBadHttp())
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every broken form
    logging.getLogger("yoyo").setLevel(logging.WARNING)  # it tells of each statement
    logging.getLogger("peewee").setLevel(logging.INFO)  # it would tell of each with its values
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _json_formatter() -> _Formatter:
    return _Formatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
        json_serializer=partial(json.dumps, separators=(",", ":")),  # as access lines are written
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        datefmt=TIME_FORMAT,
    )

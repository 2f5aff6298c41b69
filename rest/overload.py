"""How much is under way: what is more than can be served is refused at once, and what takes too long is given up.

`asyncio.timeout` around each request would do the latter: it costs a request 24 us, a timer and a context manager; this costs 1.3.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from rest.errors import HEADERS, PROBLEM, REFUSALS, Failure, Overloaded, RequestTimeout, TooManyRequests, Unavailable
from server.connection import Refusal
from server.giving_way import PART_OF_ONE, Whose
from telemetry import metrics
from telemetry.logs import USER_ID

AT_WORK = metrics.Gauge("http_requests_at_work", "Requests that are being answered.")
MAX_AT_WORK = metrics.Gauge("http_requests_at_work_max", "Requests that may be answered at once.")
SECONDS_TO_BE_SLOW = 0.5
SECONDS_BETWEEN_LOOKS = 0.02  # at all requests
SECONDS_BETWEEN_ENDS = 0.005  # of those past their deadline: where they are many, others have their turns meanwhile
FULL = "The service has as much to do as it can at this moment: try again."


class TookTooLong(Unavailable):
    """It wasn't done by its deadline."""

    kind = "took-too-long"
    detail = "The service couldn't do this in time: try again."


class TooManyAtOnce(TooManyRequests):
    """As much of one user's as may take long is under way, and waits, as may at once; nothing was done."""

    kind = "too-many-at-once"
    detail = "You have too many requests under way: send this one when some of them have been answered."


class TooManyConnections(Overloaded):
    """There are as many connections as there may be."""

    kind = "too-many-connections"
    detail = "There are too many connections: try again."


def refusal() -> Refusal:
    """Return what a connection is refused with for which there is no room."""
    problem = orjson.dumps(TooManyConnections().document(), option=orjson.OPT_APPEND_NEWLINE)
    fields = {"Content-Type": PROBLEM, "Content-Length": f"{len(problem)}", "Retry-After": "1", "Connection": "close"}
    head = "HTTP/1.1 503 Service Unavailable\r\n" + "".join(f"{name}: {value}\r\n" for name, value in (fields | HEADERS).items())
    return Refusal(f"{head}\r\n".encode() + problem, HEADERS, lambda: REFUSALS.count((TooManyConnections.kind,)))


class _Heavy(NamedTuple):
    """A slow request of whoever has more than its part."""

    handling: asyncio.Task[Any]
    shown: str | None  # the address or token by which a newcomer would be the same one


class UnderWay:
    """The requests under way in this process, each with the moment (in the loop's seconds) at which it came.

    They stand in the order of these moments, and so of their deadlines too: one timer, for the first, does for all.
    """

    def __init__(self, most: int, seconds: float, always: Collection[Any], whose: Whose = lambda address, request: "") -> None:
        """Serve so many at once, each for so long; those of the handlers `always`, however many there are. Know whose each is."""
        self._most, self._seconds, self._always, self._whose = most, seconds, always, whose
        self._since: dict[asyncio.Task[Any], tuple[float, web.Request]] = {}
        self._given_up: set[asyncio.Task[Any]] = set()  # and not yet ended
        self._arriving: set[asyncio.Task[Any]] = set()  # their bodies are on the way, so they cost no more than their connections do
        self._heavy: list[_Heavy] = []  # slowest first
        self._looked_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()  # to ask for it costs a system call in Python 3.11

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request, until its time is over. Raises Unavailable then and where there are too many, RequestTimeout."""
        if self._at_work() >= self._most and request.match_info.handler not in self._always and not self._makes_room(request):
            raise Overloaded(FULL)
        handling = self._handling()
        self._since[handling] = self._loop.time(), request
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._give_up)
        try:
            return await handler(request)
        except asyncio.CancelledError:
            if handling not in self._given_up:
                raise
            handling.uncancel()
            raise _too_late(request) from None
        finally:
            self._since.pop(handling, None)
            self._given_up.discard(handling)

    async def measuring(self, app: web.Application) -> AsyncIterator[None]:
        """Let it be measured while the application runs."""
        with AT_WORK.measuring(self._at_work), MAX_AT_WORK.measuring(lambda: self._most):
            yield

    def _at_work(self) -> int:
        return len(self._since) - len(self._arriving)

    def _makes_room(self, request: web.Request) -> bool:
        """Give up one that is slow, of another user or address, with more than its part. Return whether there was one."""
        now = self._loop.time()
        if now >= self._looked_at + SECONDS_BETWEEN_LOOKS:
            self._look(now)
        newcomer = self._site(request), request.headers.get(hdrs.AUTHORIZATION, ...)
        for each in [each for each in self._heavy if each.shown not in newcomer]:
            self._heavy.remove(each)
            if each.handling in self._since:
                self._end(each.handling)
                return True
        return False

    def _look(self, now: float) -> None:
        self._looked_at, self._heavy = now, []
        at_work = [(handling, *each) for handling, each in self._since.items() if handling not in self._arriving]
        owned = [(handling, came_at, request, (request.get(USER_ID), self._site(request))) for handling, came_at, request in at_work]
        number = Counter(owner for *_, owners in owned for owner in owners if owner is not None)
        for handling, came_at, request, owners in owned:
            if came_at > now - SECONDS_TO_BE_SLOW:
                break
            user_id, address = owners
            if number[user_id] > self._most // PART_OF_ONE:
                self._heavy.append(_Heavy(handling, request.headers.get(hdrs.AUTHORIZATION)))
            elif number[address] > self._most // PART_OF_ONE:
                self._heavy.append(_Heavy(handling, address))
            else:
                continue
            number.subtract(owners)

    def _site(self, request: web.Request) -> str:
        return self._whose(request.remote or "", request)

    def _give_up(self) -> None:
        """Cancel the first one where it is past its deadline, and come back at that of the next one."""
        now = self._loop.time()
        if self._first_deadline() <= now:
            self._end(next(iter(self._since)))
        moment = max(self._first_deadline(), now + SECONDS_BETWEEN_ENDS)
        self._timer = self._loop.call_at(moment, self._give_up) if self._since else None

    def _first_deadline(self) -> float:
        return next((came_at for came_at, _ in self._since.values()), math.inf) + self._seconds

    def _end(self, handling: asyncio.Task[Any]) -> None:
        del self._since[handling]
        self._arriving.discard(handling)
        self._given_up.add(handling)
        handling.cancel()

    @asynccontextmanager
    async def arriving(self, request: web.Request) -> AsyncIterator[None]:
        """Wait inside for the body of the request that is being handled. Raises Unavailable where there are too many once it is there."""
        handling = self._handling()
        self._arriving.add(handling)
        try:
            yield
        finally:
            self._arriving.discard(handling)
        if self._at_work() > self._most and not self._makes_room(request):
            raise Overloaded(FULL)

    def let_take_its_time(self) -> None:
        """Let the request that is being handled take as long as it likes, and count it no more."""
        self._since.pop(self._handling(), None)

    def _handling(self) -> asyncio.Task[Any]:
        """Return what handles the present request: aiohttp makes one for each."""
        return cast("asyncio.Task[Any]", asyncio.current_task(self._loop))


def _too_late(request: web.Request) -> Failure:
    if request.content.is_eof():
        return TookTooLong()
    return RequestTimeout()


@asynccontextmanager
async def in_turn(lock: asyncio.Lock | asyncio.Semaphore, seconds: float, refusal: Failure) -> AsyncIterator[None]:
    """Run what is inside when its turn comes. Raises the refusal where that takes longer."""
    try:
        async with asyncio.timeout(seconds):
            await lock.acquire()
    except TimeoutError:
        raise refusal from None
    try:
        yield
    finally:
        lock.release()


UNDER_WAY = web.AppKey("under_way", UnderWay)


async def read(request: web.Request) -> bytes:
    """Return a request's body, which may be long in coming: others don't wait for that. Raises Unavailable."""
    if request.content.is_eof():  # it is there already: aiohttp would come back to see whether there is more, and copy it twice
        body = request.content.read_nowait()
        if len(body) > request.client_max_size:
            raise web.HTTPRequestEntityTooLarge(request.client_max_size, len(body))
        return body
    if (under_way := request.app.get(UNDER_WAY)) is None:
        body = await request.read()
    else:
        async with under_way.arriving(request):
            if request.transport is None:
                raise ConnectionResetError("the client has gone")
            body = await request.read()
    request._read_bytes = None  # noqa: SLF001 - aiohttp keeps the last request of each connection until there is another one
    return body


def let_take_its_time(request: web.Request) -> None:
    """Exempt a request from the deadline: whoever answers it piece by piece, or reads its body so, sees to it that this ends."""
    if under_way := request.app.get(UNDER_WAY):
        under_way.let_take_its_time()

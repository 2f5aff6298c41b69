"""Live events: every change of a user's goes to their open streams, once and in order, whichever worker or host made it."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any, NamedTuple

from aiohttp import web
from peewee import fn

from history import event_stream
from history.event_stream import Stream, Waiting
from models import CALLER_TYPES, Caller
from postgres.arrays import array
from postgres.database import Database
from postgres.queries import Query, q
from rest.errors import InvalidToken, TooManyRequests, Unavailable
from rest.values import MAX_ID
from service import SERVICE
from telemetry import metrics

log = logging.getLogger(__name__)

STREAMS_PER_USER = 10  # over all workers and hosts
SECONDS_BETWEEN_QUESTIONS = 0.25  # about what other workers and hosts have changed
SECONDS_AFTER_TROUBLE = 1
SECONDS_UNTIL_ONE_IS_MISSED = (0.5, 1, 2)  # when to ask again for a place, where a client that comes back may have left its own
SECONDS_OF_A_PLACE = 45  # it stays taken for so long when its worker crashes
SECONDS_BETWEEN_HOLDS = 15
SYSTEMS_BYTES = 32 * 1024  # that wait for a client to read, before ours do: there may be many streams, and of each little comes

OPEN_STREAMS = metrics.Gauge("event_streams", "Streams of events that are open.")


class _Taken(NamedTuple):
    refused: str | None
    number: int
    holder: str
    user_revision: int
    kept_from: int


class _Nothing(NamedTuple):
    nothing: None


_HELD = f"{SECONDS_OF_A_PLACE} seconds"
_TAKE = Query(_Taken, fn.event_place_take(q.user_id, q.generation, STREAMS_PER_USER, _HELD), CALLER_TYPES)
_HOLD = Query(
    _Nothing,
    fn.event_places_hold(q.user_ids, q.places, q.holders, _HELD),
    {"user_ids": "bigint[]", "places": "int[]", "holders": "uuid[]"},
    alone=True,
)
_FREE = Query(_Nothing, fn.event_place_free(q.user_id, q.place, q.holder), {"user_id": "bigint", "place": "int", "holder": "uuid"})


class Place(NamedTuple):
    """One of the places that a user has over all workers, and who holds it: another may, where this worker didn't come back in time."""

    number: int
    holder: str


class TooManyStreams(TooManyRequests):
    """As many streams are open as a user may have."""

    kind = "too-many-streams"
    detail = f"You have {STREAMS_PER_USER} streams open, which is the most: close one. One that broke is noticed within a minute."

    def __init__(self) -> None:
        super().__init__(retry_after_seconds=15)


class Watcher:
    """What asks PostgreSQL, for all streams of this worker together, what is new; while there are none it asks nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._streams: dict[int, dict[Stream, Place]] = {}  # by user; and the place that each holds
        self._waiting = Waiting()
        self._changed: set[int] = set()  # users of whom there may be news
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_steady = asyncio.Event()  # no places are just being held for longer
        self._is_steady.set()
        self._is_closing = False

    @asynccontextmanager
    async def stream(
        self, caller: Caller, since: int | None, expires_at: int, transport: asyncio.Transport | None
    ) -> AsyncIterator[Stream]:
        """Hold a stream open, from the revision `since` or from now on. Raises InvalidToken, TooManyStreams, Unavailable."""
        if self._is_closing or transport is None:  # the worker is stopping, or the client went before its turn came
            raise Unavailable()
        taken = await self._take_place(caller)
        if taken.refused:
            raise TooManyStreams() if taken.refused == "too_many" else InvalidToken()
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SYSTEMS_BYTES)
        stream, place = Stream(self._database, self._waiting, caller, expires_at, transport), Place(taken.number, taken.holder)
        stream.begin(since, taken.kept_from, taken.user_revision)
        self._add(stream, place)
        try:
            yield stream
        finally:
            self._remove(stream)
            await self._is_steady.wait()  # or else the place might be taken again for a stream that is no more
            with suppress(Unavailable):  # then it gets free by itself
                await self._database.ask(_FREE, caller.user_id, *place)

    def _add(self, stream: Stream, place: Place) -> None:
        self._streams.setdefault(stream.caller.user_id, {})[stream] = place
        if self._is_closing:
            stream.end()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), context=Context())  # it is nobody's request

    def _remove(self, stream: Stream) -> None:
        stream.forget()
        of_user = self._streams[stream.caller.user_id]
        del of_user[stream]
        if not of_user:
            del self._streams[stream.caller.user_id]
            self._wake.set()  # the watching ends with the last one

    def _of(self, user_ids: Iterable[int]) -> list[Stream]:
        return [stream for user_id in user_ids for stream in self._streams.get(user_id, ())]

    def count_streams(self) -> int:
        """Return how many streams this worker has open."""
        return sum(map(len, self._streams.values()))

    def hear(self, user_id: Any) -> None:
        """Ask at once what is new to this user, of whom this worker has changed something."""
        if user_id in self._streams:
            self._changed.add(user_id)
            self._wake.set()

    async def _take_place(self, caller: Caller) -> _Taken:
        """Ask for a place. Where all are taken, one whose client has just gone, and comes back, is missed soon: ask again."""
        [taken] = await self._database.ask(_TAKE, *caller)
        for seconds in SECONDS_UNTIL_ONE_IS_MISSED:
            if taken.refused != "too_many":
                break
            await asyncio.sleep(seconds)
            [taken] = await self._database.ask(_TAKE, *caller)
        return taken

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        ask_at = held_at = loop.time()
        while self._streams:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ask_at):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if loop.time() >= ask_at:
                    ask_at = loop.time() + SECONDS_BETWEEN_QUESTIONS
                    self._changed.update(self._streams)
                    for stream in self._of(self._streams):
                        stream.end_if_due()
                if loop.time() >= held_at + SECONDS_BETWEEN_HOLDS:
                    held_at = loop.time()
                    await self._hold()  # first: the places stay taken also while there is no feeding
                await self._feed()
            except Exception as error:
                if not isinstance(error, Unavailable):  # which has been logged
                    log.exception("the watcher of events stumbled")
                await asyncio.sleep(SECONDS_AFTER_TROUBLE)

    async def _feed(self) -> None:
        """Hand their news to the streams of those who may have some; where one answer doesn't hold them all, ask on at once.

        Streams that lack much catch up by themselves: what one user's changes cost isn't the others' to wait for.
        """
        since: dict[Caller, int] = {}
        for stream in self._of(self._changed):
            place = stream.revision if stream.is_live else MAX_ID  # after which nothing comes but the end of the token
            since[stream.caller] = min(place, since.get(stream.caller, place))
        self._changed.clear()
        if not since:
            return
        callers = list(since)
        found = await event_stream.ask(self._database, since, reach=event_stream.MAX_OF_ONE_USER)
        more = dict.fromkeys(callers if len(found) >= event_stream.MAX_OF_ALL else (), True)
        for news in found:
            caller = callers[news.n - 1]
            more[caller] = news.revision != news.user_revision and news.revision is not None
            for stream in self._of([caller.user_id]):
                if stream.caller == caller and (stream.is_live or news.user_revision is None):
                    stream.take(since[caller], news)
        self._waiting.keep_little()
        for caller, has_more in more.items():
            if has_more:
                self.hear(caller.user_id)

    async def _hold(self) -> None:
        held = [(stream.caller.user_id, *place) for of_user in self._streams.values() for stream, place in of_user.items()]
        if not held:
            return
        self._is_steady.clear()
        try:
            await self._database.ask(_HOLD, *(array(map(str, column)) for column in zip(*held, strict=True)))
        finally:
            self._is_steady.set()

    def end_all(self) -> None:
        """End every stream, and open no more: their clients go on elsewhere."""
        self._is_closing = True
        for stream in self._of(self._streams):
            stream.end()

    async def close(self) -> None:
        """Let the watching end."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


WATCHER = web.AppKey("watcher", Watcher)


async def watching(app: web.Application) -> AsyncIterator[None]:
    """Hold the watcher while the application runs, and let it hear of what this worker changes."""
    database = app[SERVICE].database
    watcher = app[WATCHER] = Watcher(database)
    database.listeners.add(watcher.hear)
    with OPEN_STREAMS.measuring(watcher.count_streams):
        yield
    database.listeners.discard(watcher.hear)
    await watcher.close()


async def end_streams(app: web.Application) -> None:
    """End the streams of an application that stops, so that it needn't wait for them."""
    app[WATCHER].end_all()

"""One open stream of events: how far it has come, what waits to be sent, and when it is over."""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from peewee import fn

from models import Caller
from postgres.arrays import array
from postgres.database import Database
from postgres.queries import Query, q
from rest.turns import Turns

SECONDS_BETWEEN_COMMENTS = 15  # for proxies, which cut what is silent, and to find out who isn't there any more
SECONDS_OF_PATIENCE = 13  # with a client that takes or acknowledges nothing: one that dies just after a comment is gone within 30
MAX_OF_ONE_USER, MAX_OF_ALL = 50, 200  # changes that one question brings, of up to 60 KiB each
MAX_CATCHING_UP = 2  # streams of a worker that ask at once what they lack
MAX_WAITING_BYTES = 8 * 1024 * 1024  # in all streams of a worker; what one question of one stream brings fits
NO_REVISION = -1  # what an id names that is none of ours


class Event(NamedTuple):
    """What a client gets: `revision` (where it is), `task` (one was changed) or `reset` (changes are missing: read all again)."""

    kind: str
    id: int  # the revision up to which the client then has everything
    data: bytes

    @property
    def text(self) -> bytes:
        """It, as it is sent. JSON has no line ends."""
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (self.id, self.kind.encode(), self.data)


class News(NamedTuple):
    """What there is after the revision that somebody has: a change, with the task as it was right after, or why there is none."""

    n: int  # whose it is: the number of the one who asked, from 1
    user_revision: int | None  # None: the account is gone, or the token's generation past
    revision: int | None  # None: the changes can't be had
    body: bytes | None  # None: there are more than were to be reached


_AFTER = Query(
    News,
    fn.events_after(q.user_ids, q.generations, q.since, q.reach, MAX_OF_ONE_USER, MAX_OF_ALL),
    {"user_ids": "bigint[]", "generations": "bigint[]", "since": "bigint[]", "reach": "bigint"},
    read=True,
    alone=True,
    raw=True,
)


async def ask(database: Database, since: Mapping[Caller, int], reach: int | None = None) -> list[News]:
    """Ask what is new to each caller after a revision, all in one statement. Nothing comes of those to whom nothing is.

    Of a caller who lacks more than `reach` changes none comes, but word of that.
    """
    user_ids, generations = zip(*since, strict=True)
    columns = user_ids, generations, since.values()
    return await database.ask(_AFTER, *(array(map(str, column)) for column in columns), reach)


def revision_of(event_id: str) -> int:
    """Return the revision that a Last-Event-ID names."""
    return int(event_id) if re.fullmatch("[0-9]{1,19}", event_id) else NO_REVISION


class Waiting:
    """What waits to be sent, in all streams of a worker: not more than so much. What is left out is fetched again when its time comes."""

    def __init__(self) -> None:
        self.turns = Turns(MAX_CATCHING_UP, most_of_one=1)
        self._streams: dict[Stream, None] = {}  # in which something waits, for longest first
        self._bytes = 0

    def add(self, stream: "Stream", length: int) -> None:
        """Note that so much more waits in a stream, or less, and that then nothing does."""
        self._bytes += length
        if stream.waiting_bytes:
            self._streams[stream] = None
        else:
            self._streams.pop(stream, None)

    def keep_little(self) -> None:
        """Let those whose clients read slowest give way while it is too much."""
        for stream in list(self._streams):
            if self._bytes <= MAX_WAITING_BYTES:
                break
            stream.give_way()


class Stream:
    """An open stream. Iterate over it for its events."""

    def __init__(self, database: Database, waiting: Waiting, caller: Caller, expires_at: int, transport: asyncio.Transport) -> None:
        self._database, self._waiting_in_all, self.caller = database, waiting, caller
        self.revision = NO_REVISION  # of the last event that it took
        self._sent = NO_REVISION  # of the last one that didn't wait any more
        self.user_revision = NO_REVISION  # when it began
        self.is_live = False  # it has caught up, and is told what happens
        self._is_over = False
        self._expires_at, self._transport = expires_at, transport
        self._waiting: deque[Event] = deque()
        self.waiting_bytes = 0
        self._news = asyncio.Event()

    def begin(self, since: int | None, kept_from: int, user_revision: int) -> None:
        """Say where the client is: where it says, or, where the changes after that can't be had, at the present."""
        self.user_revision = user_revision
        where = user_revision if since is None else since
        is_kept = kept_from <= where <= user_revision
        self._put(Event("revision", where, _state(user_revision)) if is_kept else _reset(user_revision))
        self.is_live = self.revision == user_revision

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield what was missed, at the client's pace, then what happens, until the stream is over."""
        while not self._is_over:
            if self._waiting:
                yield self._next()
            elif self.is_live:
                self._news.clear()
                await self._news.wait()
            else:
                await self._catch_up()

    def _next(self) -> Event:
        event = self._waiting.popleft()
        self._sent = event.id
        self._note(-len(event.data))
        return event

    async def _catch_up(self) -> None:
        since, present = self.revision, self.revision
        async with self._waiting_in_all.turns.of(self.caller.user_id):
            found = [] if self._is_over else await ask(self._database, {self.caller: since})
        for news in found:
            self.take(since, news)
            present = news.user_revision or present
        self.is_live = self.revision == present and not self._is_over
        self._waiting_in_all.keep_little()

    def take(self, since: int, news: News) -> None:
        """Take what comes after the revision `since`, if this stream has all that comes before it, and not itself.

        Once all that came at the same time has been taken, little is to be kept.
        """
        if news.user_revision is None:
            self.end()
        elif news.revision is None:
            if self.revision == since:
                self._put(_reset(news.user_revision))
        elif news.body is None:
            if self.revision == since:  # it catches up by itself
                self.is_live = False
                self._news.set()
        elif since <= self.revision < news.revision:
            self._put(Event("task", news.revision, news.body))

    def _put(self, event: Event) -> None:
        self.revision = event.id
        self._waiting.append(event)
        self._note(len(event.data))
        self._news.set()

    def _note(self, length: int) -> None:
        self.waiting_bytes += length
        self._waiting_in_all.add(self, length)

    def give_way(self) -> None:
        """Keep no changes: when the client has read what it is being sent, the stream catches up from there, and nothing is lost."""
        while self._waiting and self._waiting[-1].kind == "task":
            self._note(-len(self._waiting.pop().data))
        self.revision = self._waiting[-1].id if self._waiting else self._sent
        self.is_live = False
        self._news.set()

    def forget(self) -> None:
        """Keep nothing: it isn't sent any more."""
        self._waiting.clear()
        self._note(-self.waiting_bytes)

    def end_if_due(self) -> None:
        """End it where its token has ended, or its client has gone."""
        if self._transport.is_closing() or time.time() >= self._expires_at:
            self.end()

    def end(self) -> None:
        """Let it be over: what waits isn't sent any more, and nobody waits for a client that doesn't read."""
        self._is_over, self.is_live = True, False
        self.forget()
        self._news.set()
        if self._transport.get_write_buffer_size():  # the system's buffer is full, too
            self._transport.abort()


def _reset(user_revision: int) -> Event:
    return Event("reset", user_revision, _state(user_revision))


def _state(user_revision: int) -> bytes:
    return b'{"revision":%d}' % user_revision

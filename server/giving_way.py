"""Which connection gives way to a new one: who keeps others waiting, then who wants nothing, and first whose address has most of them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from enum import IntEnum
from operator import attrgetter
from typing import NamedTuple

from aiohttp import web

from server.connection import Connection

SECONDS_TO_BE_SLOW = 2  # to ask, to read an answer, or to be at work
PART_OF_ONE = 4  # of all places: no address, and no user, has more than a quarter of them at work for long while others find none
SECONDS_BETWEEN_LOOKS = 0.5  # at all connections, which takes some milliseconds; meanwhile they give way in the order that was found
SECONDS_BEFORE_NEXT_LOOK = 0.1  # where all of these have gone
PART_BETWEEN_LOOKS = 8  # or until so many have gone as an eighth of all
SECONDS_BETWEEN_ONES_OWN = 0.05  # where one that is slow gives way to another from its own address: to refuse it is much cheaper

Whose = Callable[[str, web.BaseRequest | None], str]  # of a connection from an address, with the request on it: what counts as one client


class Standing(IntEnum):
    """What a connection is doing."""

    ASKING = 1  # nobody knows for whom: the request isn't whole, or its answer isn't read
    IDLE = 2
    AT_WORK = 3


class _Place(NamedTuple):
    """A connection with what it does since when; of one that is idle, until when."""

    standing: Standing
    moment: float
    connection: Connection
    whose: str
    urgency: tuple[bool, float]  # of one client's the least goes first


class GivingWay:
    """The connections in the order in which they give way."""

    def __init__(self, most: int, whose: Whose) -> None:
        """Know for how many there is room, and whose they are."""
        self._most, self._whose = most, whose
        self._looked_at = self._chased_at = -math.inf
        self._gone = 0  # since the last look
        self._line: list[_Place] = []  # last first
        self._heavy: list[_Place] = []  # at work, of those who have more than their part

    def next(self, connections: Callable[[], Iterable[Connection]], peer: str, now: float) -> Connection | None:
        """Return who gives way to somebody from there; None where nobody does."""
        seconds = SECONDS_BETWEEN_LOOKS if self._line else SECONDS_BEFORE_NEXT_LOOK
        if now >= self._looked_at + seconds or self._gone * PART_BETWEEN_LOOKS >= self._most:
            self._look(connections(), now)
        newcomer = self._whose(peer, None)
        while self._line:
            if place := self._again(self._line.pop(), now):
                if place.whose == newcomer and place.standing == Standing.ASKING:
                    if not _is_slow(place, now) or now < self._chased_at + SECONDS_BETWEEN_ONES_OWN:
                        self._line.append(place)
                        return None  # they would chase one another, which is much to do
                    self._chased_at = now
                self._gone += 1
                return place.connection
        for heavy in [each for each in self._heavy if each.whose != newcomer]:
            self._heavy.remove(heavy)
            if self._again(heavy, now):
                return heavy.connection
        return None

    def _look(self, connections: Iterable[Connection], now: float) -> None:
        self._looked_at, self._gone = now, 0
        keep_waiting, others, at_work = [], [], []
        for connection in connections:
            if connection.transport is None:  # its client has gone
                continue
            place = self._place(connection, now)
            if place.standing == Standing.AT_WORK:
                at_work.append(place)
            elif place.standing == Standing.ASKING and _is_slow(place, now):
                keep_waiting.append(place)
            else:
                others.append(place)
        self._line = [place for _, place in _most_first(keep_waiting) + _most_first(others)][::-1]
        part = self._most // PART_OF_ONE
        self._heavy = [place for number, place in _most_first(at_work) if number > part and _is_slow(place, now)]

    def _place(self, connection: Connection, now: float) -> _Place:
        standing, moment = Standing.AT_WORK, connection.came_at
        if connection.writing_paused:
            moment = connection.slow_since
            if moment <= now - SECONDS_TO_BE_SLOW and not connection.is_known:
                standing = Standing.ASKING
        elif (since := connection.waits_since) is not None:
            moment = since
            if not (connection.is_at_work and connection.is_known):
                standing = Standing.ASKING
        elif connection.is_idle:
            standing, moment = Standing.IDLE, connection.closes_at
        whose = self._whose(address(connection.peername), connection.request)
        return _Place(standing, moment, connection, whose, (standing != Standing.IDLE, moment))

    def _again(self, place: _Place, now: float) -> _Place | None:
        """Return what the connection does now, where that is the same still: who asks may have got on with it."""
        if place.connection.transport is None:
            return None
        there = self._place(place.connection, now)
        is_same = there.standing == place.standing and (there.moment == place.moment or there.standing == Standing.ASKING)
        return there if is_same else None


def _is_slow(place: _Place, now: float) -> bool:
    return place.moment <= now - SECONDS_TO_BE_SLOW


def _most_first(places: list[_Place]) -> list[tuple[int, _Place]]:
    """Return them in such an order that always one goes of whoever has most of them: how many those were then, and it.

    Of one client's the idle go first, then those that have been so for longest.
    """
    numbers: defaultdict[str, int] = defaultdict(int)
    numbered = []
    for place in sorted(places, key=attrgetter("urgency"), reverse=True):
        numbers[place.whose] += 1
        numbered.append((numbers[place.whose], place))
    return sorted(numbered, key=lambda each: (-each[0], each[1].urgency))


def address(peername: object) -> str:
    """Return the address at the other end of a socket; nothing where it has none, as in the file system."""
    return str(peername[0]) if isinstance(peername, tuple) else ""

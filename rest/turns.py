"""Turns: only a few do at once what takes much memory or long, and who asks for it often waits behind himself, not before others."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from rest.overload import TooManyAtOnce

MAX_REMEMBERED = 1000  # owners


async def _at_once() -> None:
    """Wait for no room."""


class Turns:
    """A few turns for all, and one of each owner's: the next is of who had none for longest; each owner's come in the order of asking."""

    def __init__(self, most: int, make_room: Callable[[], Awaitable[None]] = _at_once, *, most_waiting: float = inf) -> None:
        """Let so many have a turn at once, and so many of one owner's wait. Each waits first until there is room for what it makes."""
        self._free, self._make_room, self._most_waiting = most, make_room, most_waiting
        self._owners: set[Any] = set()  # who have one
        self._waiting: dict[Any, deque[asyncio.Future[None]]] = {}  # by owner
        self._had: dict[Any, int] = {}  # numbers of the last turns of those who had one lately, the latest last
        self._count = 0

    def count_waiting(self, owner: Any) -> int:
        """Return how many of an owner's wait."""
        return sum(not turn.done() for turn in self._waiting.get(owner, ()))

    @asynccontextmanager
    async def of(self, owner: Any) -> AsyncIterator[None]:
        """Run what is inside when the owner's turn comes. It must not ask for another turn of these. Raises TooManyAtOnce."""
        await self._take(owner)
        try:
            await self._make_room()
            yield
        finally:
            self._give_back(owner)

    async def _take(self, owner: Any) -> None:
        if self._free and owner not in self._owners:
            self._give(owner)
            return
        if self.count_waiting(owner) >= self._most_waiting:
            raise TooManyAtOnce()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had just come
                self._give_back(owner)
            raise

    def _give_back(self, owner: Any) -> None:
        self._free += 1
        self._owners.remove(owner)
        while self._free and (able := [each for each in self._waiting if each not in self._owners]):
            owner = min(able, key=lambda each: self._had.get(each, 0))
            turn = self._waiting[owner].popleft()
            if not self._waiting[owner]:
                del self._waiting[owner]
            if not turn.done():
                self._give(owner)
                turn.set_result(None)

    def _give(self, owner: Any) -> None:
        self._free -= 1
        self._owners.add(owner)
        self._count += 1
        self._had.pop(owner, None)
        self._had[owner] = self._count
        if len(self._had) > MAX_REMEMBERED:
            del self._had[next(iter(self._had))]

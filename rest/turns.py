"""Turns: only a few do at once what takes much memory, or long, and one user who asks for it often waits behind himself, not before all."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any


async def _at_once() -> None:
    """Wait for no room."""


class Turns:
    """A few turns for all, and one for each owner: those who wait get them owner by owner, each owner's in the order in which they came."""

    def __init__(self, most: int, make_room: Callable[[], Awaitable[None]] = _at_once) -> None:
        """Let so many have a turn at once. Each waits first until there is room for what it makes."""
        self._free, self._make_room = most, make_room
        self._owners: set[Any] = set()  # who have one
        self._waiting: dict[Any, deque[asyncio.Future[None]]] = {}  # by owner, whose turn comes next first

    def count_waiting(self, owner: Any) -> int:
        """Return how many of an owner's wait."""
        return len(self._waiting.get(owner, ()))

    @asynccontextmanager
    async def of(self, owner: Any) -> AsyncIterator[None]:
        """Run what is inside when the owner's turn comes. It must not ask for another turn."""
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
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had just come
                self._give_back(owner)
            elif owner in self._waiting:
                self._keep(owner, self._waiting[owner])
            raise

    def _give(self, owner: Any) -> None:
        self._free -= 1
        self._owners.add(owner)

    def _give_back(self, owner: Any) -> None:
        self._free += 1
        self._owners.remove(owner)
        if owner in self._waiting:
            self._waiting[owner] = self._waiting.pop(owner)  # behind the others
        for next_owner in [each for each in self._waiting if each not in self._owners]:
            if not self._free:
                break
            theirs = self._waiting.pop(next_owner)
            if turn := next((each for each in theirs if not each.done()), None):
                self._give(next_owner)
                turn.set_result(None)
            self._keep(next_owner, theirs)

    def _keep(self, owner: Any, waiting: Iterable[asyncio.Future[None]]) -> None:
        """Let those of an owner's wait who still do."""
        if still := deque(turn for turn in waiting if not turn.done()):
            self._waiting[owner] = still
        else:
            self._waiting.pop(owner, None)

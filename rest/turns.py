"""Turns: only a few do at once what takes much memory, and one user who asks for it often waits behind himself, not before others."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any


async def _at_once() -> None:
    """Wait for no room."""


MAX_REMEMBERED = 1000


class Turns:
    """A few turns for all: the next is of the owner who has had none for longest, and each owner's come in the order in which he asked."""

    def __init__(self, most: int, make_room: Callable[[], Awaitable[None]] = _at_once) -> None:
        """Let so many have a turn at once. Each waits first until there is room for what it makes."""
        self._free, self._make_room = most, make_room
        self._waiting: dict[Any, deque[asyncio.Future[None]]] = {}  # by owner
        self._had: dict[Any, int] = {}  # numbers of the last turns of those who had one lately, the latest last
        self._count = 0

    @asynccontextmanager
    async def of(self, owner: Any) -> AsyncIterator[None]:
        """Run what is inside when the owner's turn comes. It must not ask for another turn."""
        await self._take(owner)
        try:
            await self._make_room()
            yield
        finally:
            self._give_back()

    async def _take(self, owner: Any) -> None:
        if self._free:
            self._free -= 1
            self._remember(owner)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had just come
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._waiting:
            owner = min(self._waiting, key=lambda each: self._had.get(each, 0))
            turn = self._waiting[owner].popleft()
            if not self._waiting[owner]:
                del self._waiting[owner]
            if not turn.done():
                self._remember(owner)
                turn.set_result(None)
                return
        self._free += 1

    def _remember(self, owner: Any) -> None:
        self._count += 1
        self._had.pop(owner, None)
        self._had[owner] = self._count
        if len(self._had) > MAX_REMEMBERED:
            del self._had[next(iter(self._had))]

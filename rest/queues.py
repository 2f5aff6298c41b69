"""Queues in which clients follow one another: whoever has many requests waiting waits behind itself, not before the others."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from rest.errors import Failure


class FairQueue:
    """A few turns at once, and those who wait for one: client by client, each client's in the order in which they came."""

    def __init__(self, most: int, most_waiting: int | None = None) -> None:
        """Give so many turns at once; let so many wait, or as many as there are."""
        self.free, self.waiting, self._most_waiting = most, 0, most_waiting
        self._lines: dict[Hashable, deque[asyncio.Future[None]]] = {}  # of each client; the first one's turn is next

    @asynccontextmanager
    async def of(self, whose: Hashable, refusal: Failure, seconds: float | None = None) -> AsyncIterator[None]:
        """Run what is inside when its turn comes. Raises the refusal where that takes longer, or there is no room to wait.

        Where there is none, it is the last of whoever has most waiting that is refused.
        """
        if self.free:
            self.free -= 1
        else:
            await self._wait(whose, refusal, seconds)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, whose: Hashable, refusal: Failure, seconds: float | None) -> None:
        if self.waiting == self._most_waiting:
            self._make_room(whose, refusal)
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(whose, deque()).append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._pass_on()  # it came as the wait was given up
            else:
                self._leave(whose, turn)
            if isinstance(error, TimeoutError):
                raise refusal from None
            raise

    def _make_room(self, whose: Hashable, refusal: Failure) -> None:
        heaviest = max(self._lines, key=lambda each: len(self._lines[each]), default=None)
        if heaviest is None or len(self._lines[heaviest]) <= len(self._lines.get(whose, ())) + 1:
            raise refusal
        last = self._lines[heaviest][-1]
        self._leave(heaviest, last)
        last.set_exception(refusal)

    def _leave(self, whose: Hashable, turn: "asyncio.Future[None]") -> None:
        line = self._lines.get(whose)
        if line and turn in line:
            line.remove(turn)
            self.waiting -= 1
            if not line:
                del self._lines[whose]

    def _pass_on(self) -> None:
        """Give a turn to the client that has waited for one for longest; behind its other requests it waits again."""
        while self._lines:
            whose, line = next(iter(self._lines.items()))
            turn = line.popleft()
            self.waiting -= 1
            del self._lines[whose]
            if line:
                self._lines[whose] = line
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

"""Turns: only a few do at once what takes long or much memory, and whoever asks for many waits behind himself, not before others."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from math import inf

from rest.errors import Failure
from rest.overload import TooManyAtOnce


async def _at_once() -> None:
    """Wait for no room."""


class Turns:
    """A few turns at once, and those who wait for one: the next is of who has fewest, then of who has had none for longest.

    Each one's own come in the order of asking.
    """

    def __init__(
        self,
        most: int,
        make_room: Callable[[], Awaitable[None]] = _at_once,
        *,
        most_of_one: float = inf,
        most_waiting: float = inf,
        most_of_one_waiting: float = inf,
    ) -> None:
        """Give so many turns at once, and so many of one's; let so many wait. Each waits first until there is room for what it makes."""
        self.free, self.waiting = most, 0
        self._make_room, self._most_of_one = make_room, most_of_one
        self._most_waiting, self._most_of_one_waiting = most_waiting, most_of_one_waiting
        self._having: Counter[Hashable] = Counter()  # how many turns each has
        self._lines: dict[Hashable, deque[asyncio.Future[None]]] = {}  # of each who waits; who is next comes first

    def count_waiting(self, whose: Hashable) -> int:
        """Return how many of one's wait."""
        return len(self._lines.get(whose, ()))

    @asynccontextmanager
    async def of(self, whose: Hashable, refusal: Failure | None = None, seconds: float | None = None) -> AsyncIterator[None]:
        """Run what is inside when its turn comes. It must not ask for another turn of these.

        Raises the refusal, or TooManyAtOnce, where that takes longer than so many seconds, or there is no room to wait. Where all that may
        wait do, it is the last of whoever has most waiting that is refused.
        """
        if self.free and self._having[whose] < self._most_of_one:
            self._give(whose)
        else:
            await self._wait(whose, refusal or TooManyAtOnce(), seconds)
        try:
            await self._make_room()
            yield
        finally:
            self._give_back(whose)

    async def _wait(self, whose: Hashable, refusal: Failure, seconds: float | None) -> None:
        if self.count_waiting(whose) >= self._most_of_one_waiting:
            raise refusal
        if self.waiting >= self._most_waiting:
            self._refuse_last(whose, refusal)
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(whose, deque()).append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(whose)  # it came as the wait was given up
            else:
                self._leave(whose, turn)
            if isinstance(error, TimeoutError):
                raise refusal from None
            raise

    def _refuse_last(self, whose: Hashable, refusal: Failure) -> None:
        heaviest = max(self._lines, key=self.count_waiting, default=None)
        if heaviest is None or self.count_waiting(heaviest) <= self.count_waiting(whose) + 1:
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

    def _give(self, whose: Hashable) -> None:
        self.free -= 1
        self._having[whose] += 1

    def _give_back(self, whose: Hashable) -> None:
        self.free += 1
        self._having[whose] -= 1
        if not self._having[whose]:
            del self._having[whose]
            if whose in self._lines:
                self._lines[whose] = self._lines.pop(whose)
        while self.free and (able := [each for each in self._lines if self._having[each] < self._most_of_one]):
            follower = min(able, key=lambda each: self._having[each])
            line = self._lines.pop(follower)
            turn = line.popleft()
            self.waiting -= 1
            if line:
                self._lines[follower] = line
            if not turn.done():
                self._give(follower)
                turn.set_result(None)

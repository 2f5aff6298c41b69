"""Long work in the event loop, a few milliseconds at a time, so that whoever has little to do needn't wait for its end."""

import asyncio
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TypeVar

Thing = TypeVar("Thing")
SECONDS_AT_A_TIME = 0.002  # what asks little comes through some turns of the loop, and so waits for this a few times


class LongWork:
    """The turns of all who have much to do in one event loop: in each of its turns one of them has one, and they follow one another."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def each(self, things: Iterable[Thing], do: Callable[[Thing], object]) -> None:
        """Do it with each of the things, which may be made meanwhile; none of them may take long."""
        remaining = iter(things)
        while True:
            await self._turn.acquire()
            asyncio.get_running_loop().call_soon(self._turn.release)  # not before the loop's next turn, however short this one is
            ends_at = perf_counter() + SECONDS_AT_A_TIME
            for thing in remaining:
                do(thing)
                if perf_counter() >= ends_at:
                    break
            else:
                return

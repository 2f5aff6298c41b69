"""Queues: clients follow one another however much each asks for, and nobody's turn is lost."""

import asyncio
from typing import Any

import pytest

from rest.errors import Overloaded
from rest.queues import FairQueue


class Counter:
    """Where those come who want something; it lets them go on one by one."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue, self.served = queue, list[str]()
        self._go_on = asyncio.Semaphore(0)

    async def _ask(self, whose: str, seconds: float | None) -> None:
        async with self.queue.of(whose, Overloaded(whose), seconds):
            self.served.append(whose)
            await self._go_on.acquire()

    async def come(self, everybody: str, seconds: float | None = None) -> list[asyncio.Task[None]]:
        """Let some come, one after the other: a letter for each."""
        tasks = [asyncio.ensure_future(self._ask(whose, seconds)) for whose in everybody]
        await asyncio.sleep(0)
        return tasks

    async def serve_all(self, tasks: list[asyncio.Task[None]]) -> list[Any]:
        for _ in tasks:
            self._go_on.release()
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_client_has_a_turn_before_any_has_another() -> None:
    counter = Counter(FairQueue(2))
    tasks = await counter.come("MMMMMMAMBB")
    await counter.serve_all(tasks)
    assert "".join(counter.served) == "MMMABMBMMM"
    assert (counter.queue.free, counter.queue.waiting) == (2, 0)


async def test_where_no_more_may_wait_it_is_the_last_of_whoever_has_most_that_is_refused() -> None:
    counter = Counter(FairQueue(1, 3))
    tasks = await counter.come("MMMMMABC")
    answers = await counter.serve_all(tasks)
    assert "".join(counter.served) == "MMAB"
    assert [isinstance(answer, Overloaded) for answer in answers] == [False, False, True, True, True, False, False, True]
    assert (counter.queue.free, counter.queue.waiting) == (1, 0)


@pytest.mark.parametrize("is_late", [False, True], ids=["before its turn", "as its turn comes"])
async def test_who_waits_no_longer_leaves_its_turn_to_others(is_late: bool) -> None:
    counter = Counter(FairQueue(1))
    async with counter.queue.of("T", Overloaded()):
        tasks = await counter.come("AMB")
        if not is_late:
            tasks[0].cancel()
    tasks[0].cancel()  # which hasn't gone on yet
    await counter.serve_all(tasks)
    assert "".join(counter.served) == "MB"
    assert (counter.queue.free, counter.queue.waiting) == (1, 0)


async def test_who_waits_for_too_long_is_refused() -> None:
    counter = Counter(FairQueue(1))
    tasks = await counter.come("M")
    [late] = await counter.come("A", seconds=0.01)
    with pytest.raises(Overloaded):
        await late
    await counter.serve_all(tasks)
    assert (counter.queue.free, counter.queue.waiting) == (1, 0)

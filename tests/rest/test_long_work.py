"""Who has much to do in the event loop lets everybody else have a turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rest import long_work
from rest.long_work import LongWork


class Loop:
    """Counts the turns of the event loop."""

    turns = 0


@asynccontextmanager
async def counted() -> AsyncIterator[Loop]:
    """Count the loop's turns while what is inside runs."""
    loop = Loop()

    async def count() -> None:
        while True:
            loop.turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        yield loop
    finally:
        counting.cancel()


async def test_a_long_work_is_done_in_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_work, "SECONDS_AT_A_TIME", 0)
    done: list[int] = []
    async with counted() as loop:
        await LongWork().each(range(100), done.append)
    assert done == [*range(100)]
    assert loop.turns >= 99


async def test_in_one_turn_of_the_loop_one_of_many_gets_on() -> None:
    shared, at = LongWork(), list[int]()
    async with counted() as loop:
        await asyncio.gather(*(shared.each([None], lambda _: at.append(loop.turns)) for _ in range(20)))
    assert len(set(at)) == len(at) == 20


async def test_who_has_more_to_do_goes_to_the_end_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_work, "SECONDS_AT_A_TIME", 0)
    shared, done = LongWork(), list[str]()
    await asyncio.gather(*(shared.each(whose, done.append) for whose in ("x", "aaa", "bbb", "ccc")))
    assert "".join(done) == "xabcabcabc"  # x came when nobody waited


async def test_who_gives_up_or_fails_takes_no_turn_along() -> None:
    shared, done = LongWork(), list[str]()
    with pytest.raises(ZeroDivisionError):
        await shared.each([0], lambda number: 1 // number)
    working, waiting = (asyncio.create_task(shared.each(whose, done.append)) for whose in "ab")
    await working
    waiting.cancel()
    await shared.each("c", done.append)
    assert done == ["a", "c"]

"""Turns: few at once, and whoever asks for many waits behind himself."""

import asyncio
from typing import Any

import pytest

from rest.errors import Overloaded
from rest.overload import TooManyAtOnce
from rest.turns import Turns


class Queue:
    """Turns, and those who asked for one."""

    def __init__(self, most: int, **options: Any) -> None:
        self.turns = Turns(most, **options)
        self.order: list[str] = []  # in which they had them
        self.at_once = self.most_at_once = 0

    async def ask(self, owner: str) -> None:
        async with self.turns.of(owner):
            self.order.append(owner)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            for _ in range(3):
                await asyncio.sleep(0)
            self.at_once -= 1

    async def asked(self, owner: str) -> asyncio.Task[None]:
        """Ask for a turn, and wait in line."""
        asking = asyncio.create_task(self.ask(owner))
        await asyncio.sleep(0)
        return asking


class Counter:
    """Where those come who want something; it lets them go on one by one."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.served = turns, list[str]()
        self._go_on = asyncio.Semaphore(0)

    async def _ask(self, whose: str, seconds: float | None, told: bool) -> None:
        async with self.turns.of(whose, Overloaded(whose) if told else None, seconds):
            self.served.append(whose)
            await self._go_on.acquire()

    async def come(self, everybody: str, seconds: float | None = None, told: bool = True) -> list[asyncio.Task[None]]:
        """Let some come, one after the other: a letter for each."""
        tasks = [asyncio.ensure_future(self._ask(whose, seconds, told)) for whose in everybody]
        await asyncio.sleep(0)
        return tasks

    async def serve_all(self, tasks: list[asyncio.Task[None]]) -> list[Any]:
        for _ in tasks:
            self._go_on.release()
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_only_so_many_have_a_turn_at_once() -> None:
    queue = Queue(3)
    await asyncio.gather(*(queue.ask(owner) for owner in 5 * "abcd"))
    assert (queue.most_at_once, queue.at_once, len(queue.order)) == (3, 0, 20)


async def test_who_asks_for_many_waits_behind_himself() -> None:
    queue = Queue(1)
    asking = [await queue.asked("mallory") for _ in range(120)]
    asking += [await queue.asked("alice"), await queue.asked("alice"), await queue.asked("bob")]
    had = len(queue.order)
    await asyncio.gather(*asking)
    assert {*queue.order[:had]} == {"mallory"}
    assert queue.order[had:] == ["alice", "bob", "mallory", "alice", *["mallory"] * (119 - had)]


@pytest.mark.parametrize("when", ["while it waits", "when its turn has just come"])
async def test_the_turn_of_one_who_goes_is_anothers(when: str) -> None:
    queue = Queue(1)
    first, goes, other = [await queue.asked(owner) for owner in "abc"]
    if when == "while it waits":
        goes.cancel()
        await asyncio.gather(goes, return_exceptions=True)
    else:
        await first
        goes.cancel()
    await asyncio.gather(first, goes, other, return_exceptions=True)
    assert queue.order in (["a", "c"], ["a", "b", "c"] if when != "while it waits" else [])
    await queue.ask("d")
    assert queue.order[-1] == "d"


async def test_whoever_has_a_turn_waits_until_there_is_room() -> None:
    room = asyncio.Event()

    async def make_room() -> None:
        await room.wait()

    queue = Queue(1, make_room=make_room)
    asking = [await queue.asked("a"), await queue.asked("b")]
    await asyncio.sleep(0)
    assert queue.order == []
    asking[0].cancel()  # and its turn isn't lost
    room.set()
    await asyncio.gather(*asking, return_exceptions=True)
    assert queue.order == ["b"]


async def test_one_has_no_more_turns_than_one_may_have_and_the_others_go_first() -> None:
    counter = Counter(Turns(3, most_of_one=1))
    tasks = await counter.come("MMMAAB")
    assert "".join(counter.served) == "MAB"
    await counter.serve_all(tasks)
    assert "".join(counter.served) == "MABMAM"
    assert (counter.turns.free, counter.turns.waiting, counter.turns._having) == (3, 0, {})


async def test_of_one_no_more_wait_than_may() -> None:
    counter = Counter(Turns(1, most_of_one_waiting=2))
    tasks = await counter.come("MMMMAAA", told=False)
    answers = await counter.serve_all(tasks)
    assert [isinstance(answer, TooManyAtOnce) for answer in answers] == [False, False, False, True, False, False, True]


async def test_each_client_has_a_turn_before_any_has_another() -> None:
    counter = Counter(Turns(2))
    tasks = await counter.come("MMMMMMAMBB")
    await counter.serve_all(tasks)
    assert "".join(counter.served) == "MMABMBMMMM"
    assert (counter.turns.free, counter.turns.waiting) == (2, 0)


async def test_where_no_more_may_wait_it_is_the_last_of_whoever_has_most_that_is_refused() -> None:
    counter = Counter(Turns(1, most_waiting=3))
    tasks = await counter.come("MMMMMABC")
    answers = await counter.serve_all(tasks)
    assert "".join(counter.served) == "MABM"
    assert [isinstance(answer, Overloaded) for answer in answers] == [False, False, True, True, True, False, False, True]
    assert (counter.turns.free, counter.turns.waiting) == (1, 0)


@pytest.mark.parametrize("is_late", [False, True], ids=["before its turn", "as its turn comes"])
async def test_who_waits_no_longer_leaves_its_turn_to_others(is_late: bool) -> None:
    counter = Counter(Turns(1))
    async with counter.turns.of("T", Overloaded()):
        tasks = await counter.come("AMB")
        if not is_late:
            tasks[0].cancel()
    tasks[0].cancel()  # which hasn't gone on yet
    await counter.serve_all(tasks)
    assert "".join(counter.served) == "MB"
    assert (counter.turns.free, counter.turns.waiting) == (1, 0)


async def test_who_waits_for_too_long_is_refused() -> None:
    counter = Counter(Turns(1))
    tasks = await counter.come("M")
    [late] = await counter.come("A", seconds=0.01)
    with pytest.raises(Overloaded):
        await late
    await counter.serve_all(tasks)
    assert (counter.turns.free, counter.turns.waiting) == (1, 0)


async def test_turns_go_round_by_owner_and_each_has_one() -> None:
    turns, begun = Turns(2, most_of_one=1), []
    hold = asyncio.Event()

    async def take(owner: str) -> None:
        async with turns.of(owner):
            begun.append(owner)
            await hold.wait()
            await asyncio.sleep(0)

    taking = [asyncio.create_task(take(owner)) for owner in ["a", "a", "a", "b", "c", "c", "d"]]
    await asyncio.sleep(0)
    assert begun == ["a", "b"]
    assert [turns.count_waiting(owner) for owner in "abcde"] == [2, 0, 2, 1, 0]
    hold.set()
    await asyncio.gather(*taking)
    assert begun[:5] == ["a", "b", "c", "d", "a"]
    assert sorted(begun[5:]) == ["a", "c"]
    assert turns.count_waiting("a") == 0


async def test_a_turn_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    turns = Turns(1)
    async with turns.of("a"):
        gone, coming, next_one = (asyncio.create_task(turns.of(owner).__aenter__()) for owner in ("b", "c", "d"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        assert turns.count_waiting("b") == 0
    coming.cancel()  # its turn has just come
    async with asyncio.timeout(30):
        await next_one
    assert (gone.cancelled(), coming.cancelled()) == (True, True)


async def test_who_gives_up_as_a_turn_is_given_back_takes_none() -> None:
    turns = Turns(1)
    async with turns.of("a"):
        going = [asyncio.create_task(turns.of(owner).__aenter__()) for owner in ("a", "b", "b")]
        staying = asyncio.create_task(turns.of("b").__aenter__())
        await asyncio.sleep(0)
        for each in going:
            each.cancel()  # which they hear of in the loop's next turn
    async with asyncio.timeout(30):
        await staying
    await asyncio.wait(going)
    assert all(each.cancelled() for each in going)
    assert [turns.count_waiting(owner) for owner in "ab"] == [0, 0]

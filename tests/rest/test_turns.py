"""Turns: few at once, and whoever asks for many waits behind himself."""

import asyncio
from typing import Any

import pytest

from rest import turns
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


async def test_of_those_who_lately_had_turns_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_REMEMBERED", 2)
    queue = Queue(1)
    for owner in "abcb":
        await queue.ask(owner)
    assert [*queue.turns._had] == ["c", "b"]


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

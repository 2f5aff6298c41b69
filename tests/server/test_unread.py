"""What is kept for those who don't read: not more than so much, whoever makes more waits for them, and the slowest give way."""

import asyncio

import pytest

from server import unread
from server.unread import Unread
from tests.waiting import PATIENCE_SECONDS


class Reader:
    """One for whom so much is kept."""

    def __init__(self, kept_by: Unread, held_bytes: int, slow_for: float = 0) -> None:
        self.slow_since = asyncio.get_running_loop().time() - slow_for
        self.held_bytes, self._kept_by, self.is_abandoned = held_bytes, kept_by, False

    def abort(self) -> None:
        self.is_abandoned = True
        self._kept_by.discard(self)


def readers(kept_by: Unread, *held: int, slow_for: float = 0) -> list[Reader]:
    found = [Reader(kept_by, each, slow_for) for each in held]
    for reader in found:
        kept_by.add(reader)
    return found


@pytest.fixture(autouse=True)
def of_ten_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "MAX_UNREAD_BYTES", 10)
    monkeypatch.setattr(unread, "SECONDS_WITHOUT_ROOM", 600)


async def test_where_there_is_room_nobody_waits() -> None:
    kept = Unread()
    [reader] = readers(kept, 10)
    await kept.make_room()
    assert not reader.is_abandoned


async def test_for_room_the_slowest_give_way_and_no_more_than_must() -> None:
    kept = Unread()
    slow = readers(kept, 4, 4, slow_for=100)
    reading = readers(kept, 4)
    await kept.make_room()
    assert [reader.is_abandoned for reader in slow + reading] == [True, False, False]
    assert kept.held_bytes == 8


async def test_those_who_read_are_waited_for() -> None:
    kept = Unread()
    one, other = readers(kept, 6, 6)
    waiting = asyncio.create_task(kept.make_room())
    await asyncio.sleep(2 * unread.SECONDS_BETWEEN_LOOKS)
    assert not waiting.done()
    one.held_bytes = 2  # and so it has read
    await waiting
    assert not one.is_abandoned
    assert not other.is_abandoned


async def test_though_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they may take as little as keeps them from being slow."""
    kept = Unread()
    one, other = readers(kept, 6, 6)
    monkeypatch.setattr(unread, "SECONDS_WITHOUT_ROOM", 0.01)
    monkeypatch.setattr(unread, "SECONDS_TO_BE_SLOW", 600)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await kept.make_room()
    assert (one.is_abandoned, other.is_abandoned) == (True, False)


async def test_while_it_is_full_they_are_waited_for_once_and_not_by_each_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_more(seconds: float) -> None:
        raise AssertionError("it waits again")

    kept = Unread()
    readers(kept, 6, 6)
    monkeypatch.setattr(unread, "SECONDS_WITHOUT_ROOM", 0.01)
    await kept.make_room()
    with monkeypatch.context() as afterwards:
        afterwards.setattr(asyncio, "sleep", no_more)
        afterwards.setattr(unread, "SECONDS_WITHOUT_ROOM", 0.01)
        for _ in range(5):
            readers(kept, 6)
            await kept.make_room()
        assert kept.held_bytes == 6
    for reader in [*kept.readers]:
        kept.discard(reader)
    await kept.make_room()  # when there is much room again, those who read are waited for once more
    monkeypatch.setattr(unread, "SECONDS_WITHOUT_ROOM", 600)
    readers(kept, 6, 6)
    waiting = asyncio.create_task(kept.make_room())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    waiting.cancel()

"""What a worker keeps for those who are slow to read: not more than so much, and the slowest give way."""

import asyncio
from typing import Protocol

MAX_UNREAD_BYTES = 48 * 1024 * 1024  # of all answers together
SECONDS_TO_BE_SLOW = 2  # before that nobody gives way, unless it is twice as much, or there has been no room for too long
SECONDS_WITHOUT_ROOM = 1  # for which those who read are waited for; then, until half of it is free, nobody waits any more
SECONDS_BETWEEN_LOOKS = 0.05


class Reader(Protocol):
    """One who is slow to read."""

    slow_since: float  # in the loop's seconds

    @property
    def held_bytes(self) -> int:
        """What is kept for it."""

    def abort(self) -> None:
        """Abandon it; it is discarded then."""


class Unread:
    """Those who are slow to read, the slowest first: who has taken nothing for longest."""

    def __init__(self) -> None:
        self.readers: dict[Reader, None] = {}
        self._full_since: float | None = None  # in the loop's seconds

    @property
    def held_bytes(self) -> int:
        """What is kept for all of them."""
        return sum(each.held_bytes for each in self.readers)

    def add(self, reader: Reader) -> None:
        """Note that one is slow to read, and give up those who have been for longest while too much is kept for all of them."""
        self.readers[reader] = None
        held, slow_at = self.held_bytes, asyncio.get_running_loop().time() - SECONDS_TO_BE_SLOW
        for each in list(self.readers):
            if held <= (1 if each.slow_since <= slow_at else 2) * MAX_UNREAD_BYTES:
                break
            held -= each.held_bytes
            each.abort()

    def discard(self, reader: Reader) -> None:
        """Note that one is slow no more."""
        self.readers.pop(reader, None)

    async def make_room(self) -> None:
        """Let whoever makes a long answer wait while too much is kept; those who read are waited for, though not for long."""
        while (held := self.held_bytes) > MAX_UNREAD_BYTES:
            now, slowest = asyncio.get_running_loop().time(), next(iter(self.readers))
            self._full_since = now if self._full_since is None else self._full_since
            if now >= min(self._full_since + SECONDS_WITHOUT_ROOM, slowest.slow_since + SECONDS_TO_BE_SLOW):
                slowest.abort()
            else:
                await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        if held <= MAX_UNREAD_BYTES / 2:
            self._full_since = None

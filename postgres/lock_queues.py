"""Requests on their way, and the queues of those that wait for a lock which somebody else holds."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, Protocol
from weakref import WeakValueDictionary

from postgres.errors import WAITED_TOO_LONG
from rest.errors import Unavailable
from rest.overload import in_turn

NOBODYS = Context()  # in which tasks run that are of no request: what one has in its own isn't its neighbours'


class Pending:
    """A request on its way: its arguments, its answer to come, when it was asked (in the loop's seconds), and how often it met a lock."""

    __slots__ = ("answer", "arguments", "asked_at", "times_busy")

    def __init__(self, arguments: Sequence[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.arguments, self.answer, self.asked_at, self.times_busy = arguments, loop.create_future(), loop.time(), 0

    def succeed(self, rows: list[Any]) -> None:
        """Answer with these rows, unless whoever asked has gone."""
        if not self.answer.done():
            self.answer.set_result(rows)

    def fail(self, error: BaseException) -> None:
        """Let the error be raised where the request was made, unless whoever asked has gone."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Traffic(Protocol):
    """The requests of one query."""

    async def ask_alone(self, arguments: Sequence[Any]) -> list[Any]:
        """Run one, and wait for its owner's lock."""

    def join(self, pending: Pending) -> None:
        """Let one take its place in a batch."""


class LockQueues:
    """One request of each owner waits for the owner's lock, on a connection of its own; the others, of all queries, wait behind it."""

    def __init__(self, most: int, timeout_seconds: float) -> None:
        """Let so many owners' requests wait for a lock at once, and refuse those behind them that have waited for too long."""
        self._turns, self._timeout_seconds = asyncio.Semaphore(most), timeout_seconds
        self._lines: WeakValueDictionary[Any, asyncio.Lock] = WeakValueDictionary()  # by owner
        self._waiting: set[asyncio.Task[None]] = set()
        self.behind: dict[Any, list[tuple[Traffic, Pending]]] = {}  # by owner

    @asynccontextmanager
    async def line(self, owner: Any) -> AsyncIterator[None]:
        """Run what is inside after the others of this owner. Raises Unavailable where that takes too long."""
        line = self._lines.setdefault(owner, asyncio.Lock())
        async with in_turn(line, self._timeout_seconds, Unavailable(WAITED_TOO_LONG)):
            yield

    def add(self, traffic: Traffic, pending: Pending) -> None:
        """Let a request wait: behind another one of its owner's, where there is one."""
        owner = pending.arguments[0]
        if owner in self.behind:
            self.behind[owner].append((traffic, pending))
            return
        self.behind[owner] = []
        waiting = asyncio.get_running_loop().create_task(self._wait(traffic, pending), context=NOBODYS)
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _wait(self, traffic: Traffic, pending: Pending) -> None:
        owner = pending.arguments[0]
        try:
            async with self.line(owner), in_turn(self._turns, self._timeout_seconds, Unavailable(WAITED_TOO_LONG)):
                pending.succeed(await traffic.ask_alone(pending.arguments))
        except Exception as error:  # noqa: BLE001 - it is raised where the request was made
            pending.fail(error)
        finally:
            too_long_ago = asyncio.get_running_loop().time() - self._timeout_seconds
            for others, other in self.behind.pop(owner):
                if other.asked_at < too_long_ago:
                    other.fail(Unavailable(WAITED_TOO_LONG))
                else:
                    others.join(other)

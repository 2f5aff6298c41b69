"""Requests on their way, and the queues of those that wait for a lock which somebody else holds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any

from postgres.errors import WAITED_TOO_LONG
from rest.errors import Unavailable

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


class LockQueues:
    """One request of each owner waits for that owner's lock, on a connection of its own; the owner's others wait behind it."""

    def __init__(
        self, run: Callable[[Sequence[Any]], Awaitable[list[Any]]], join: Callable[[Pending], None], timeout_seconds: float
    ) -> None:
        """Let `run` wait for the lock, and those behind it then `join` a batch, or be refused where they have waited too long."""
        self._run, self._join, self._timeout_seconds = run, join, timeout_seconds
        self._waiting: set[asyncio.Task[None]] = set()
        self.behind: dict[Any, list[Pending]] = {}  # by owner

    def add(self, pending: Pending) -> None:
        """Let a request wait: behind another one of its owner's, where there is one."""
        owner = pending.arguments[0]
        if owner in self.behind:
            self.behind[owner].append(pending)
            return
        self.behind[owner] = []
        waiting = asyncio.get_running_loop().create_task(self._wait(pending), context=NOBODYS)
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _wait(self, pending: Pending) -> None:
        try:
            pending.succeed(await self._run(pending.arguments))
        except Exception as error:  # noqa: BLE001 - it is raised where the request was made
            pending.fail(error)
        finally:
            too_long_ago = asyncio.get_running_loop().time() - self._timeout_seconds
            for other in self.behind.pop(pending.arguments[0]):
                if other.asked_at < too_long_ago:
                    other.fail(Unavailable(WAITED_TOO_LONG))
                else:
                    self._join(other)

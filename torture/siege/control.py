"""Harmless load that costs as much CPU time as an attack did: many accounts that list, read and change, none beyond its limits."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench import measure
from torture import wire
from torture.siege.connection import Connection
from torture.siege.crowds import Where
from torture.siege.victim import FORM

SECONDS_BETWEEN_LOOKS = 0.1  # at what it has cost so far
SECONDS_TO_CATCH_UP = 0.5
SECONDS_BETWEEN_CENSUSES = 2  # of the processes, which take some milliseconds
FIRST_GUESS_SECONDS = 0.002  # CPU time of a request
CHANGED_BY = 0.2  # of a new guess
MIN_PER_SECOND, MAX_PER_SECOND = 5, 5000


class Costs:
    """The CPU time that processes and their descendants have had."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self._pids: list[int] = []
        self._counted_at = float("-inf")

    def seconds(self) -> float:
        """Return it. What a process has had that has ended since is its parent's."""
        if time.monotonic() - self._counted_at > SECONDS_BETWEEN_CENSUSES:
            self._pids = [process.pid for root in self._roots for process in measure.tree(root)]
            self._counted_at = time.monotonic()
        ticks = 0
        for pid in self._pids:
            with suppress(FileNotFoundError, ProcessLookupError):
                ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        return ticks / measure.TICKS_PER_SECOND


class Plan(NamedTuple):
    """Which accounts do it, over how many connections, and what the processes that descend from `roots` are to need."""

    tokens: Sequence[str]
    connections: int
    roots: Sequence[int]
    cores: float


class Control:
    """The load: its pace follows from what it has cost."""

    def __init__(self, plan: Plan, where: Where) -> None:
        self._plan, self._where = plan, where
        self._costs = Costs(plan.roots)
        self._per_second = plan.cores / FIRST_GUESS_SECONDS / 2
        self._next_at = where.starts_at
        self.sent = 0
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        """Keep the pace for some time."""
        await asyncio.sleep(self._where.starts_at - time.monotonic())
        tasks = [asyncio.create_task(each) for each in (self._steer(), *(self._send() for _ in range(self._plan.connections)))]
        ended, _ = await asyncio.wait(tasks, timeout=self._where.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in ended:
            task.result()

    async def _steer(self) -> None:
        before, sent_before, cost = self._costs.seconds(), 0, FIRST_GUESS_SECONDS
        began_with = before
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            now, passed = self._costs.seconds(), time.monotonic() - self._where.starts_at
            if sent := self.sent - sent_before:
                cost += CHANGED_BY * ((now - before) / sent - cost)
            before, sent_before = now, self.sent
            lacking = self._plan.cores * (passed + SECONDS_TO_CATCH_UP) - (now - began_with)
            self._per_second = min(max(lacking / SECONDS_TO_CATCH_UP / max(cost, 1e-4), MIN_PER_SECOND), MAX_PER_SECOND)

    async def _send(self) -> None:
        connection = Connection(self._where.address, self._where.port)
        try:
            while True:
                now = time.monotonic()
                self._next_at = max(self._next_at, now - SECONDS_BETWEEN_LOOKS) + 1 / self._per_second
                await asyncio.sleep(max(0, self._next_at - now))
                self.sent += 1
                try:
                    if not connection.is_open:
                        await connection.open()
                    self.answers[f"{await connection.ask(self._request(self.sent))}"] += 1
                except OSError as error:
                    self.answers[type(error).__name__] += 1
                    connection.close()
        finally:
            connection.close()

    def _request(self, number: int) -> bytes:
        token = self._plan.tokens[number % len(self._plan.tokens)]
        turn, task = number // len(self._plan.tokens), number % 9 + 1
        match turn % 3:
            case 0:
                return wire.request("GET /task?limit=20", token=token, close=False)
            case 1:
                return wire.request(f"GET /task/{task}", token=token, close=False)
            case _:
                return wire.request(f"PATCH /task/{task}", FORM, body=b"name=changed-%d" % number, token=token, close=False)


def run(plan: Plan, where: Where) -> Counter[str]:
    """Be the load, in a process of one's own, and return how many answers there were, by status."""
    import uvloop

    async def main() -> Counter[str]:
        control = Control(plan, where)
        await control.run()
        return control.answers

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())

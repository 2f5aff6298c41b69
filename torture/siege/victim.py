"""The victim: somebody who works at a steady pace, and whose every request is timed from the moment for which it was planned.

So who is held up for a second is held up with all requests of that second, not with one.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torture import wire
from torture.siege.connection import Connection
from torture.siege.figures import Sample

PER_SECOND = 18  # in 30 s, and with what prepares them, fewer than the 600 of a user's minute
KEPT_PER_WORKER = 4  # connections; a worker that stands still is felt on those that it has
EVERY_NEW = 5  # each such request comes on a connection of its own, which whichever worker is free may take
SECONDS_TO_ANSWER = 15
TRIES, SECONDS_BETWEEN_TRIES = 20, 0.02
LIVE = wire.request("GET /health/live", close=False)
ESTABLISHED = "01"  # include/net/tcp_states.h
FORM = "Content-Type: application/x-www-form-urlencoded"


class Plan(NamedTuple):
    """Who works where, and when: `starts_at` is in seconds of the system's monotonic clock, which all processes share."""

    address: str
    port: int
    token: str
    workers: Sequence[int]  # process ids
    starts_at: float
    seconds: float


def requests(token: str, number: int) -> tuple[str, bytes]:
    """Return the kind of a request, in turn, and its bytes: the account has tasks 1 to 9 at least."""
    task = number // 4 % 9 + 1
    match number % 4:
        case 0:
            return "list", wire.request("GET /task?limit=20", token=token, close=False)
        case 1:
            return "read", wire.request(f"GET /task/{task}", token=token, close=False)
        case 2:
            return "change", wire.request(f"PATCH /task/{task}", FORM, body=b"name=changed-%d" % number, token=token, close=False)
        case _:
            body = b"name=created-%d&description=by+the+victim&status=new" % number
            return "create", wire.request("POST /task", FORM, body=body, token=token, close=False)


class Victim:
    """Somebody at work."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._kept: list[tuple[Connection, asyncio.Lock]] = []
        self.samples: list[Sample] = []

    async def connect(self) -> None:
        """Have the connections that are kept. Raises OSError."""
        plan = self._plan
        self._kept = [(connection, asyncio.Lock()) for connection in await connect(plan.address, plan.port, plan.workers)]

    async def work(self, starts_at: float) -> None:
        """Send all requests, each at its moment, and wait for the answers."""
        under_way = []
        for number in range(round(self._plan.seconds * PER_SECOND)):
            planned_at = starts_at + number / PER_SECOND
            await asyncio.sleep(planned_at - time.monotonic())
            under_way.append(asyncio.create_task(self._send(number, planned_at)))
        await asyncio.gather(*under_way)
        for connection, _ in self._kept:
            connection.close()

    async def _send(self, number: int, planned_at: float) -> None:
        kind, request = requests(self._plan.token, number)
        status = 0
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(planned_at + SECONDS_TO_ANSWER - time.monotonic()):
                status = await (self._ask_anew(request) if number % EVERY_NEW == 0 else self._ask(number, request))
        self.samples.append(Sample(kind, time.monotonic() - planned_at, status))

    async def _ask_anew(self, request: bytes) -> int:
        connection = Connection(self._plan.address, self._plan.port)
        try:
            await connection.open()
            return await connection.ask(request)
        finally:
            connection.close()

    async def _ask(self, number: int, request: bytes) -> int:
        connection, is_free = self._kept[number % len(self._kept)]
        async with is_free:
            try:
                if not connection.is_open:
                    await connection.open()
                return await connection.ask(request)
            except BaseException:
                connection.close()
                raise


async def connect(address: str, port: int, workers: Sequence[int]) -> list[Connection]:
    """Open as many connections to each worker, which left to chance one might all have. Raises OSError where a worker takes none."""
    by_worker: defaultdict[int, list[Connection]] = defaultdict(list)
    for _ in range(TRIES):
        made = [Connection(address, port) for _ in range(2 * KEPT_PER_WORKER * len(workers))]
        await asyncio.gather(*(connection.open() for connection in made))
        await asyncio.gather(*(connection.ask(LIVE) for connection in made))
        holders = held_by(workers, port)
        for connection in made:
            worker = holders.get(connection.local_port, 0)
            if worker and len(by_worker[worker]) < KEPT_PER_WORKER:
                by_worker[worker].append(connection)
            else:
                connection.close()
        if sum(map(len, by_worker.values())) == KEPT_PER_WORKER * len(workers):
            return [connection for place in zip(*by_worker.values(), strict=True) for connection in place]
        await asyncio.sleep(SECONDS_BETWEEN_TRIES)
    for connection in (each for held in by_worker.values() for each in held):
        connection.close()
    raise ConnectionError(f"of {len(workers)} workers not all take connections")


def held_by(workers: Sequence[int], port: int) -> dict[int, int]:
    """Return which worker holds the connection that comes from each port of a client's."""
    clients = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, _, _, _, _, _, inode, *_ = line.split()
        if state == ESTABLISHED and int(local.partition(":")[2], 16) == port:
            clients[f"socket:[{inode}]"] = int(remote.partition(":")[2], 16)
    found = {}
    for worker in workers:
        for descriptor in Path(f"/proc/{worker}/fd").iterdir():
            with suppress(FileNotFoundError):
                if (held := os.readlink(descriptor)) in clients:  # noqa: PTH115 - no file
                    found[clients[held]] = worker
    return found


def work(plan: Plan) -> list[Sample]:
    """Work as planned, in a process of one's own, and return how it went."""
    import uvloop

    async def run() -> list[Sample]:
        victim = Victim(plan)
        await victim.connect()
        if time.monotonic() > plan.starts_at:
            raise ConnectionError("the victim came too late: its connections took too long")
        await victim.work(plan.starts_at)
        return victim.samples

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())

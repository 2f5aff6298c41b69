"""Where a siege takes place: PostgreSQL, the service as docker-compose.yml has it, and processes for those who use it."""

import asyncio
import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

from bench import measure
from torture import ordeal, wire
from torture.server import Server
from torture.service import Service
from torture.siege import accounts, control, victim
from torture.siege.crowds import Crowd, Where, attack
from torture.siege.figures import Run, run_of

OF_THE_CONTAINER = {
    "WEB_CONCURRENCY": "2",
    "RATE_LIMIT": "on",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}  # all else by default
SECONDS_BETWEEN_SAMPLES = 0.25  # of memory
SECONDS_TO_BEGIN = 3  # for the victim to have its connections
CALM_SECONDS, TIMES_CALM, SECONDS_TO_CALM_DOWN = 0.1, 3, 180  # between one run and the next
MIN_HARMLESS, HARMLESS_PER_SECOND = 8, 2  # accounts, each with 600 requests a minute from each worker
MIN_CONNECTIONS, MAX_CONNECTIONS = 8, 40  # of the control


class Reader(threading.Thread):
    """Reads the service's log from a pipe, as Docker does, and may stop for a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR)  # so that it never ends
        self.reads = threading.Event()
        self.reads.set()
        self.size = 0

    def run(self) -> None:
        """Read."""
        while True:
            self.reads.wait()
            self.size += len(os.read(self._pipe, 4096))


class Field:
    """A siege's field."""

    def __init__(self, server: Server, service: Service, pool: ProcessPoolExecutor, reader: Reader | None) -> None:
        self.server, self.service, self._pool, self.reader = server, service, pool, reader
        self.port = service.port
        self._harmless: list[str] = []
        self._victims: list[str] = []
        self._askers: Iterator[str] = iter(())

    @property
    def log_size(self) -> int:
        """How long the service's log is."""
        return self.reader.size if self.reader else self.service.log.stat().st_size

    async def prepare(self, runs: int, seconds: float) -> None:
        """Make the accounts of so many runs of some seconds: after an attack it may not be possible at once."""
        self._victims = await accounts.register_many(self.port, runs, accounts.FEW)
        number = max(MIN_HARMLESS, round(HARMLESS_PER_SECOND * seconds))
        self._harmless = await accounts.register_many(self.port, number, accounts.FEW)
        self._askers = cycle(self._harmless)

    def run(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Run a function in one of the two processes."""
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def attacked(self, crowds: Sequence[Crowd], seconds: float) -> Run:
        """Measure beside an attack."""
        address = accounts.new_address()
        return await self._measure(seconds, lambda at: self.run(attack, crowds, Where(address, self.port, at, seconds)))

    async def controlled(self, beside: Run, crowds: Sequence[Crowd], seconds: float) -> Run:
        """Measure beside harmless load that costs as much CPU time as the attack did."""
        connections = min(max(sum(crowd.size for crowd in crowds), MIN_CONNECTIONS), MAX_CONNECTIONS)
        plan = control.Plan(self._harmless, connections, self._roots(), beside.cores)
        address = accounts.new_address()
        return await self._measure(seconds, lambda at: self.run(control.run, plan, Where(address, self.port, at, seconds)))

    async def _measure(self, seconds: float, load: Callable[[float], asyncio.Future[Counter[str]]]) -> Run:
        workers = [worker.pid for worker in self.service.workers()]
        await self._calm(workers)
        log_size, starts_at = self.log_size, time.monotonic() + SECONDS_TO_BEGIN
        plan = victim.Plan(accounts.new_address(), self.port, self._victims.pop(), workers, starts_at, seconds)
        working, loading = self.run(victim.work, plan), load(starts_at)
        await asyncio.sleep(starts_at - time.monotonic())
        cost, began_at = self._cpu_seconds(), time.monotonic()
        most = 0.0
        while (now := time.monotonic()) < starts_at + seconds:
            most = max(most, self._pss(workers))
            await asyncio.sleep(min(SECONDS_BETWEEN_SAMPLES, starts_at + seconds - now))
        cores = (self._cpu_seconds() - cost) / (time.monotonic() - began_at)
        answers, samples = await loading, await working
        ended = len({*workers} - {worker.pid for worker in self.service.workers()})
        more = {"cores": round(cores, 2), "pss_mib": round(most), "log_bytes": self.log_size - log_size, "ended": ended}
        return run_of(samples, answers=dict(answers), **more)

    async def _calm(self, workers: Sequence[int]) -> None:
        """Wait until what was before is over: until all workers take connections and answer at once."""
        until, times = time.monotonic() + SECONDS_TO_CALM_DOWN, 0
        while times < TIMES_CALM and time.monotonic() < until:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(SECONDS_TO_CALM_DOWN):
                    connections = await victim.connect(accounts.new_address(), self.port, workers)
                    began_at = time.monotonic()
                    token = next(self._askers)
                    statuses = [
                        await connection.ask(wire.request("GET /task?limit=1", token=token, close=False)) for connection in connections
                    ]
                    is_calm = {*statuses} <= {200, 429} and time.monotonic() < began_at + CALM_SECONDS * len(connections)
                    times = times + 1 if is_calm else 0
                    for connection in connections:
                        connection.close()
            await asyncio.sleep(CALM_SECONDS)

    def _pss(self, workers: Sequence[int]) -> float:
        total = 0.0
        for worker in workers:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += measure.memory(worker).pss
        return total

    def _roots(self) -> list[int]:
        return [self.service.pid, self.server.postmaster().pid]

    def _cpu_seconds(self) -> float:
        return sum(map(measure.cpu_seconds, self._roots()))


def _warm_up() -> None:
    """Import in a process what it will need, and take so long that each of the two has to."""
    importlib.import_module("uvloop")
    time.sleep(1)


@contextlib.asynccontextmanager
async def pitched(directory: Path, *, log_is_piped: bool = False) -> AsyncIterator[Field]:
    """Pitch a field in a directory; nothing of it runs afterwards."""
    reader = Reader(directory / "service.log") if log_is_piped else None
    if reader:
        reader.start()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:
        async with ordeal.stage(directory, OF_THE_CONTAINER) as (server, service):
            try:
                field = Field(server, service, pool, reader)
                await asyncio.gather(*(field.run(_warm_up) for _ in range(2)))
                yield field
            finally:
                if reader:
                    reader.reads.set()

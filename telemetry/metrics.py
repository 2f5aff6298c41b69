"""What is measured: counted in plain dicts, and written every second to prometheus-client's files, where all workers' counts meet.

prometheus-client alone would do: its counters write to the files at each event, which costs a request 26 us; this costs 2.
What is measured is of the process: two applications in it count together.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import prometheus_client
from aiohttp import web
from prometheus_client import CollectorRegistry, multiprocess, values

SECONDS_BETWEEN_WRITES = 1
CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there is ours alone
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # the library's variable

Labels = tuple[str | int, ...]


class Family(ABC):
    """What is measured under one name, told apart by labels. None of them is a client's text: each would cost memory for good."""

    every: Final[list["Family"]] = []
    registry: Final = CollectorRegistry()

    def __init__(self, name: str, words: str, *labels: str) -> None:
        self.description = name, words, labels
        Family.every.append(self)

    @cached_property
    @abstractmethod
    def library(self) -> Any:
        """The library's metric, made when it is first written: by then it is known where."""

    @abstractmethod
    def write(self) -> None:
        """Pass on to the library what was counted since the last time."""

    def child(self, labels: Labels) -> Any:
        """Return the library's metric for these labels."""
        return self.library.labels(*labels) if labels else self.library


class Counter(Family):
    """How often it happened, or how much it was in all."""

    def __init__(self, name: str, words: str, *labels: str) -> None:
        super().__init__(name, words, *labels)
        self._amounts: dict[Labels, float] = {}

    def count(self, labels: Labels = (), amount: float = 1) -> None:
        """Count it."""
        self._amounts[labels] = self._amounts.get(labels, 0) + amount

    @cached_property
    def library(self) -> Any:
        return prometheus_client.Counter(*self.description, registry=self.registry)

    def write(self) -> None:
        for labels, amount in self._amounts.items():
            self.child(labels).inc(amount)
        self._amounts.clear()


class Histogram(Family):
    """How large it was: how many were no larger than each of some bounds."""

    def __init__(self, name: str, words: str, *labels: str, bounds: tuple[float, ...]) -> None:
        super().__init__(name, words, *labels)
        self._bounds = bounds
        self._tallies: dict[Labels, list[float]] = {}  # how many between each two bounds, and their sum

    def observe(self, value: float, labels: Labels = ()) -> None:
        """Count one of this size."""
        tally = self._tallies.get(labels)
        if tally is None:
            tally = self._tallies[labels] = [0] * (len(self._bounds) + 2)
        tally[bisect_left(self._bounds, value)] += 1
        tally[-1] += value

    @cached_property
    def library(self) -> Any:
        return _Histogram(*self.description, buckets=self._bounds, registry=self.registry)

    def write(self) -> None:
        for labels, (*numbers, total) in self._tallies.items():
            self.child(labels).add(numbers, total)
        self._tallies.clear()


class _Histogram(prometheus_client.Histogram):
    def add(self, numbers: Iterable[float], total: float) -> None:
        """Take many observations at once."""
        for bucket, number in zip(self._buckets, numbers, strict=True):
            if number:
                bucket.inc(number)
        self._sum.inc(total)


class Gauge(Family):
    """How much of it there is at this moment, in all workers together. Of several functions, as of two applications, the sum."""

    def __init__(self, name: str, words: str, *labels: str) -> None:
        super().__init__(name, words, *labels)
        self._functions: dict[Labels, list[Callable[[], float]]] = {}

    def add_function(self, function: Callable[[], float], labels: Labels = ()) -> None:
        """Let this function, too, say how much there is."""
        self._functions.setdefault(labels, []).append(function)

    def remove_function(self, function: Callable[[], float], labels: Labels = ()) -> None:
        """Ask this function no more."""
        self._functions[labels].remove(function)

    @contextmanager
    def measuring(self, function: Callable[[], float], labels: Labels = ()) -> Iterator[None]:
        """Let this function say how much there is while what is inside runs."""
        self.add_function(function, labels)
        try:
            yield
        finally:
            self.remove_function(function, labels)

    @cached_property
    def library(self) -> Any:
        return prometheus_client.Gauge(*self.description, registry=self.registry, multiprocess_mode="livesum")

    def write(self) -> None:
        for labels, functions in self._functions.items():
            self.child(labels).set(sum(function() for function in functions))


# Writing and showing

before_writing: list[Callable[[], None]] = []  # what is counted a little later than it happened: this counts it


def write() -> None:
    """Write what was counted since the last time."""
    for count in before_writing:
        count()
    for family in Family.every:
        family.write()


def show() -> bytes:
    """Return what all workers have written, as Prometheus reads it. Not for the event loop: this reads files."""
    registry = Family.registry
    if _Files.directory:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(registry)


async def writing(app: web.Application) -> AsyncIterator[None]:
    """Write every second while the application runs, and once more as it ends."""
    writing = asyncio.create_task(_write_on())
    yield
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    write()


async def _write_on() -> None:
    loop, spent_before = asyncio.get_running_loop(), 0.0
    while True:
        due = loop.time() + SECONDS_BETWEEN_WRITES
        await asyncio.sleep(SECONDS_BETWEEN_WRITES)
        LAG.observe(loop.time() - due)
        spent = time.process_time()
        PROCESSOR.count(amount=spent - spent_before)
        spent_before = spent
        write()


# The workers' files. A worker has a place, and adds to what others before it have counted there: nothing is lost, and nothing piles up.


class _Files:
    directory = ""
    place = 0


def share() -> None:
    """Let the processes that this one will make count together, in a new directory. On a reload the old one stays."""
    if not _Files.directory:
        _Files.directory = tempfile.mkdtemp(prefix="metrics-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        os.environ[DIRECTORY] = _Files.directory
        values.ValueClass = values.MultiProcessValue(lambda: _Files.place)  # type: ignore[no-untyped-call]


def free_place(taken: Iterable[int]) -> int:
    """Return the first place that nobody has."""
    places = set(taken)
    return next(place for place in itertools.count() if place not in places)


def take_place(place: int) -> None:
    """Let this process write to the files of a place."""
    _Files.place = place


def leave_place(place: int) -> None:
    """Forget how much of everything there was in a process that has ended; what it counted stays."""
    if _Files.directory:
        multiprocess.mark_process_dead(place)  # type: ignore[no-untyped-call]


def unshare() -> None:
    """Remove the directory."""
    shutil.rmtree(_Files.directory, ignore_errors=True)


# The workers themselves

WORKERS = Gauge("workers", "Processes that serve.")
WORKERS.add_function(lambda: 1)
MEMORY_IN_USE = Gauge("process_resident_memory_bytes", "Memory of all workers; what they share is counted in each.")
MEMORY_IN_USE.add_function(lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
PROCESSOR = Counter("process_cpu_seconds_total", "Processor time that the workers have spent.")
LAG = Histogram(
    "event_loop_lag_seconds",
    "How late a worker came to what it does every second.",
    bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)

"""A soak: the same workers go on for long, while one thing a minute goes wrong beside them, and need no more at the end than at the beginning."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import psycopg2

from settings import Settings
from torture.server import Server
from torture.service import WORKERS, Service

SECONDS_BETWEEN_SAMPLES = 10
MAX_GROWTH = 0.05  # of a worker's memory, from the second sixth of the time, when all has been done once, to the last
MAX_CONNECTIONS = WORKERS * Settings.model_fields["db_pool_size"].default


class Sample(NamedTuple):
    """What there was at a moment."""

    workers: frozenset[int]  # their process ids
    memory: float  # MiB of the largest
    connections: int


@asynccontextmanager
async def watched(server: Server, service: Service) -> AsyncIterator[list[Sample]]:
    """Take samples meanwhile."""
    samples: list[Sample] = []
    watching = asyncio.create_task(_watch(server, service, samples))
    yield samples
    if not watching.cancel():
        watching.result()  # why it ended


async def _watch(server: Server, service: Service, samples: list[Sample]) -> None:
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_SAMPLES)
        with suppress(psycopg2.Error, OSError):  # PostgreSQL is away just now
            connections = len(await asyncio.to_thread(server.backends))
            workers = frozenset(worker.pid for worker in service.workers())
            samples.append(Sample(workers, service.memory(), connections))


def judge(samples: Sequence[Sample]) -> tuple[list[str], dict[str, int]]:
    """Find what should not have grown, or ended. Returns the counts, too."""
    sixth = len(samples) // 6
    early, late = samples[sixth : 2 * sixth], samples[-sixth:]
    before, after = (statistics.median(sample.memory for sample in part) for part in (early, late))
    connections = max(sample.connections for sample in samples)
    found = []
    if len({sample.workers for sample in samples}) > 1:
        found.append("a worker ended")
    if after > before * (1 + MAX_GROWTH):
        found.append(f"a worker grew from {before:.0f} to {after:.0f} MiB")
    if connections > MAX_CONNECTIONS:
        found.append(f"there were {connections} connections")
    return found, {"MiB of a worker before": round(before), "MiB of a worker after": round(after), "connections, at most": connections}

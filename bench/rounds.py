"""The rounds: every system in turn does the same work, and its answers are checked before anything counts."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import direct, generators, load, systems
from bench.checks import Books, OurAnswers, Sampler, counter
from bench.cluster import Cluster
from bench.data import Part, Size, parts
from bench.jobs import JOBS, WRITING
from bench.load import Cost, Figures, Meter, Refused, Run
from bench.measure import cpu_seconds
from bench.peers.kinto import KINTO
from bench.systems import Running, System

WARM_UP_SECONDS = 1
MAX_REFUSED = 2  # rounds
SYSTEMS = {system.name: system for system in (systems.HELLO, systems.OURS, systems.UNBATCHED, systems.TWIN, KINTO)}
NAMES = ("ours", "unbatched", "pgbench", "twin", "hello")
ALL_NAMES = (*NAMES, "kinto")
TITLES = {name: system.title for name, system in SYSTEMS.items()} | {direct.NAME: direct.TITLE}


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    size: Size
    systems: Sequence[str]
    jobs: Sequence[str]
    connections: Sequence[int]
    rounds: int
    seconds: int


RunJob = Callable[[str, Part, int, int, Meter], Run]  # a job, where on the walk, with how many connections, for how many seconds


@dataclass(frozen=True)
class Load:
    """How a system is loaded, what its processes cost, and how it is checked."""

    run: RunJob
    service_seconds: Callable[[], float]
    sampler: Sampler
    books: Books | None


@contextmanager
def loaded(cluster: Cluster, name: str, size: Size, directory: Path) -> Iterator[Load]:
    """Start a system on a fresh copy of its database."""
    store = direct.STORE if name == direct.NAME else SYSTEMS[name].store
    database = f"measured_{name}"
    with ExitStack() as stack:
        books = None
        if store:
            cluster.copy(cluster.seed(store, size), database)
            stack.callback(cluster.drop, database)
            books = Books(counter(cluster, store.count, database), size)
        if name == direct.NAME:
            run_job: RunJob = lambda job, *rest: direct.run(cluster, database, job, size, *rest)  # noqa: E731
            yield Load(run_job, lambda: 0.0, Sampler(direct.by_sql(cluster, database), OurAnswers(), size), books)
            return
        system = SYSTEMS[name]
        running = stack.enter_context(system.run(cluster, database, size, directory))
        sampler = Sampler(running.ask, system.make_answers(), size)
        yield Load(by_wrk(system, running, size), lambda: cpu_seconds(running.pid), sampler, books)


def by_wrk(system: System, running: Running, size: Size) -> RunJob:
    """Return what runs a job by wrk."""
    return lambda job, *rest: generators.wrk(running.target, system.requests[job], size, *rest)


def measure(cluster: Cluster, what: Load, job: str, room: Sequence[Part], connections: int, seconds: int) -> Figures:
    """Measure one job with so many connections, each part of the walk once: one to warm up, one that counts. Raises Refused."""

    def meter() -> Cost:
        return Cost(what.service_seconds(), cluster.cpu_seconds())

    what.sampler.sample(job)
    warm_up = what.run(job, room[0], connections, WARM_UP_SECONDS, meter)
    run = what.run(job, room[1], connections, seconds, meter)
    what.sampler.sample(job)
    if what.books:
        for each in (warm_up, run) if job in WRITING else ():
            what.books.acknowledge(job, each.acknowledged, connections)
        what.books.check(what.sampler.asked)
    return load.figures(run)


def run(cluster: Cluster, plan: Plan, directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Run the rounds: give a record of each cell, and what was wrong in rounds that don't count and were run again.

    Raises Refused where that were too many.
    """
    records: list[dict[str, Any]] = []
    refused: list[str] = []
    for turn in range(plan.rounds):
        while True:
            try:
                records += list(_round(cluster, plan, directory, turn))
                break
            except Refused as error:
                print(f"Refused: {error}", file=sys.stderr)
                refused.append(str(error))
                if len(refused) > MAX_REFUSED:
                    raise
    return records, refused


def _round(cluster: Cluster, plan: Plan, directory: Path, turn: int) -> Iterator[dict[str, Any]]:
    room = parts(plan.size, 2 * len(plan.connections))
    first = turn % len(plan.systems)
    for name in [*plan.systems[first:], *plan.systems[:first]]:  # so that none is always the first
        with loaded(cluster, name, plan.size, directory) as what:
            for job in (job for job in JOBS if job in plan.jobs):  # in this order: what is read has not been changed
                for place, connections in enumerate(plan.connections):
                    where = f"round {turn + 1}, {name}, {job}, {connections} connections"
                    try:
                        found = measure(cluster, what, job, room[2 * place : 2 * place + 2], connections, plan.seconds)
                    except Refused as refused:
                        raise Refused(f"{where}: {refused}") from refused
                    print(f"{where}: {found.rate:.0f}/s", file=sys.stderr)
                    yield {"round": turn, "system": name, "job": job, "connections": connections} | found.to_json()

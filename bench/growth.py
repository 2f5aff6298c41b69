"""Whether it stays as fast: the four jobs of the service at 10^4 to 10^7 tasks."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import stores
from bench.checks import Books, Sampler, counter
from bench.cluster import Cluster
from bench.data import TASKS_PER_USER, Size, parts
from bench.jobs import JOBS
from bench.load import Refused
from bench.measure import cpu_seconds
from bench.rounds import Load, by_wrk, measure
from bench.systems import OURS

TASKS = (10_000, 100_000, 1_000_000, 10_000_000)
CONNECTIONS = 32
TURNS = 3
SECONDS = 3


class Grown:
    """The service on a database of one size, started for each measurement; what was changed before is remembered."""

    def __init__(self, cluster: Cluster, size: Size, directory: Path, turns: int) -> None:
        self._cluster, self.size, self._directory = cluster, size, directory
        self._database = f"grown_{size.tasks}"
        self._answers = OURS.make_answers()
        self._books = Books(counter(cluster, stores.OURS.count, self._database), size)
        self._room = parts(size, 2 * turns)
        self._sampler: Sampler | None = None

    def make(self) -> None:
        """Seed the database."""
        self._cluster.drop(self._database)
        self._cluster.rename(self._cluster.seed(stores.OURS, self.size), self._database)

    def drop(self) -> None:
        """Drop the database: its room is another's."""
        self._cluster.drop(self._database)

    def measure(self, job: str, turn: int) -> dict[str, Any]:
        """Measure one job. Raises Refused."""
        self._cluster.warm_up(self._database)
        with OURS.run(self._cluster, self._database, self.size, self._directory) as running:
            self._sampler = self._sampler or Sampler(running.ask, self._answers, self.size)
            self._sampler.ask = running.ask
            what = Load(by_wrk(OURS, running, self.size), lambda: cpu_seconds(running.pid), self._sampler, self._books)
            found = measure(self._cluster, what, job, self._room[2 * turn : 2 * turn + 2], CONNECTIONS, SECONDS)
        return {"tasks": self.size.tasks, "job": job, "turn": turn} | found.to_json()


def run(cluster: Cluster, directory: Path, tasks: Sequence[int], jobs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Measure each job on all sizes in turn, some times, and give a record of each. Raises Refused where an answer was wrong."""
    sizes = [Grown(cluster, Size(number // TASKS_PER_USER), directory, TURNS) for number in tasks]
    try:
        for each in sizes:
            print(f"making {each.size.tasks} tasks ...", file=sys.stderr)
            each.make()
        for job in (job for job in JOBS if job in jobs):  # all of one job before the next: what is read has not been changed
            for turn in range(TURNS):
                for each in sizes:
                    where = f"growth, {job} at {each.size.tasks} tasks, turn {turn + 1}"
                    try:
                        record = each.measure(job, turn)
                    except Refused as refused:
                        raise Refused(f"{where}: {refused}") from refused
                    print(f"{where}: {record['rate']:.0f}/s", file=sys.stderr)
                    yield record
    finally:
        for each in sizes:
            each.drop()

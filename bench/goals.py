"""What is to be reached, and whether it is."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from bench import rounds
from bench.jobs import JOBS
from bench.results import Record, Results, choose, column, ratios

CONNECTIONS = 32  # where nothing else is said
OF_CAPACITY = {  # of whose, the least
    "W1": {"hello": 0.50, "pgbench": 0.35, "twin": 18},
    "W2": {"hello": 0.35, "pgbench": 0.6, "twin": 13},
    "W3": {"hello": 0.30, "pgbench": 1.0, "twin": 19},
    "W4": {"hello": 0.30, "pgbench": 1.3, "twin": 20},
}
READING = ("W1", "W2")
MAX_P99_OF_P50 = 3
MAX_OF_UNBATCHED_P50 = 1.1
MIN_KEPT = 0.85
MAX_SECONDS_TO_START = 1
MAX_MIB = 75


class Goal(NamedTuple):
    """A bound for the median of some figures."""

    what: str
    figures: Sequence[float]
    least: float | None = None
    most: float | None = None

    @property
    def words(self) -> str:
        """The bound."""
        return f"{self.least:g} at least" if self.least is not None else f"{self.most:g} at most"

    @property
    def is_reached(self) -> bool:
        """Whether the median is within the bound."""
        middle = median(self.figures)
        return (self.least is None or middle >= self.least) and (self.most is None or middle <= self.most)


def goals(results: Results) -> Iterator[Goal]:
    """Return the goals; those that nothing was measured for have no figures."""
    records = results.get("rounds", {}).get("records", [])
    grown = results.get("growth", {}).get("records", [])
    started = choose(results.get("starts", {}).get("records", []), system="ours")
    for job, others in OF_CAPACITY.items():
        for other, least in others.items():
            what = f"{job}: capacity, as a part of that of {rounds.TITLES[other].split(':')[0]}"
            yield Goal(what, ratios(records, "ours", other, job=job, connections=CONNECTIONS), least=least)
    for job in READING:
        cell = choose(records, system="ours", job=job, connections=CONNECTIONS)
        yield Goal(f"{job}: p99, as a multiple of p50", [each["p99_ms"] / each["p50_ms"] for each in cell], most=MAX_P99_OF_P50)
    for job in JOBS:
        what = f"{job}: p50 with one connection, as a part of that with batching off"
        yield Goal(what, ratios(records, "ours", "unbatched", "p50_ms", job=job, connections=1), most=MAX_OF_UNBATCHED_P50)
    for job in JOBS:
        yield Goal(f"{job}: capacity with the most tasks, as a part of that with the fewest", kept(grown, job), least=MIN_KEPT)
    yield Goal("Seconds from the start to the first answer", column(started, "seconds"), most=MAX_SECONDS_TO_START)
    yield Goal("RSS of an idle worker, MiB", column(started, "rss_mib"), most=MAX_MIB)


def kept(records: Sequence[Record], job: str) -> list[float]:
    """Return what the largest size keeps of the smallest one's capacity, turn by turn."""
    sizes = sorted({each["tasks"] for each in records})
    first, last = (column(choose(records, job=job, tasks=size), "capacity") for size in (sizes[:1] or [0]) + (sizes[-1:] or [0]))
    return [many / few for few, many in zip(first, last, strict=True)]

"""What a run of load is: what is asked of whom, what was seen, and what it cost."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from bench.measure import cores


class Refused(Exception):
    """Something was answered wrongly, so that nothing that was measured counts."""


class Cost(NamedTuple):
    """The CPU seconds that the service and PostgreSQL have had, or had in some time."""

    service: float
    postgresql: float

    def since(self, earlier: "Cost") -> "Cost":
        """Return what was had since an earlier moment."""
        return Cost(self.service - earlier.service, self.postgresql - earlier.postgresql)


Meter = Callable[[], Cost]


@dataclass(frozen=True)
class Seen:
    """What a generator saw in the time that counts."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Run:
    """A run: what was seen, what it cost, the generator's own CPU time, and what was acknowledged in all, counted or not."""

    seen: Seen
    cost: Cost
    generator_seconds: float
    acknowledged: int


@dataclass(frozen=True)
class Request:
    """What a job asks of a system: `{id}` and `{user}` stand for a task and a user; a change takes the bodies in turn."""

    method: str
    path: str
    bodies: Sequence[str] = ()


@dataclass(frozen=True)
class Target:
    """Where a system is, how users prove who they are (a header's value each), and how it numbers tasks."""

    url: str
    tokens: Sequence[str]
    numbers: str = "own"


@dataclass(frozen=True)
class Figures:
    """One measurement: the rate, the latencies, and the CPU time per request of all that took part."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    service_us: float
    postgresql_us: float
    generator_us: float
    busy_cores: float

    @property
    def cpu_us(self) -> float:
        """All CPU time per request."""
        return self.service_us + self.postgresql_us + self.generator_us

    @property
    def capacity(self) -> float:
        """Requests per second that this machine's cores could serve, were they all busy with them."""
        return capacity(cores(), self.cpu_us)

    def to_json(self) -> dict[str, float]:
        """Return all figures, the derived ones too."""
        return asdict(self) | {"cpu_us": self.cpu_us, "capacity": self.capacity}


def capacity(cores: int, cpu_us: float) -> float:
    """Return the requests per second of so many cores."""
    return cores * 1e6 / cpu_us


def figures(run: Run) -> Figures:
    """Put together what a run saw and what it cost."""
    us = 1e6 / run.seen.requests
    return Figures(
        requests=run.seen.requests,
        rate=run.seen.requests / run.seen.seconds,
        p50_ms=run.seen.p50_ms,
        p99_ms=run.seen.p99_ms,
        service_us=run.cost.service * us,
        postgresql_us=run.cost.postgresql * us,
        generator_us=run.generator_seconds * us,
        busy_cores=(sum(run.cost) + run.generator_seconds) / run.seen.seconds,
    )

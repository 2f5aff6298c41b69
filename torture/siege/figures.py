"""What became of the victim, beside an attack and beside harmless load; and whether that is within what is promised."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from torture.figures import percentile

MAX_RATIO = 3  # of the victim's p99 beside the attack to that beside the control: the median of all pairs
MAX_PSS_MIB = 450  # of all workers together; docker-compose.yml gives the container 512
MAX_LOG_BYTES = 1_000_000  # in the time of an attack
Row = dict[str, Any]


class Sample(NamedTuple):
    """A request of the victim's: what it was, the seconds from the moment for which it was planned to its answer, and its status.

    Status 0: no answer came.
    """

    kind: str
    seconds: float
    status: int

    @property
    def is_served(self) -> bool:
        """Whether it got what it asked for."""
        return 200 <= self.status < 300


class Run(NamedTuple):
    """What was measured beside an attack, or beside its control."""

    p50_ms: float
    p99_ms: float
    requests: int  # of the victim's
    not_served: Mapping[str, int]  # by status: how many of them
    cores: float  # that the service and PostgreSQL used, on the average
    pss_mib: float  # of all workers, at most
    log_bytes: int
    ended: int  # workers
    answers: Mapping[str, int]  # to the attack, or to the control, by status


class Pair(NamedTuple):
    """An attack, and right after it harmless load that costs as much CPU time."""

    attack: Run
    control: Run

    @property
    def ratio(self) -> float:
        """How many times longer the victim waits beside the attack."""
        return self.attack.p99_ms / self.control.p99_ms if self.control.p99_ms else float("inf")


def run_of(samples: Sequence[Sample], **others: Any) -> Run:
    """Return what samples of the victim's come to, beside what else was measured."""
    took = [1000 * sample.seconds for sample in samples]
    refused: dict[str, int] = {}
    for sample in samples:
        if not sample.is_served:
            refused[f"{sample.status}"] = refused.get(f"{sample.status}", 0) + 1
    return Run(round(percentile(took, 0.5), 1), round(percentile(took, 0.99), 1), len(samples), refused, **others)


def judge(name: str, pairs: Sequence[Pair]) -> list[str]:
    """Return in what an attack came to more than is promised."""
    attacks = [pair.attack for pair in pairs]
    found = []
    if (ratio := median(pair.ratio for pair in pairs)) > MAX_RATIO:
        p99 = median(attack.p99_ms for attack in attacks), median(pair.control.p99_ms for pair in pairs)
        found.append(f"the victim's p99 is {ratio:.1f} x the control's ({p99[0]:.0f} ms and {p99[1]:.0f} ms)")
    if refused := sum(sum(attack.not_served.values()) for attack in attacks):
        statuses = sorted({"no answer" if status == "0" else status for attack in attacks for status in attack.not_served})
        found.append(
            f"{refused} of the victim's {sum(attack.requests for attack in attacks)} requests weren't served ({', '.join(statuses)})"
        )
    if (most := max(attack.pss_mib for attack in attacks)) > MAX_PSS_MIB:
        found.append(f"the workers had {most:.0f} MiB")
    if (most := max(attack.log_bytes for attack in attacks)) > MAX_LOG_BYTES:
        found.append(f"the log grew by {most / 1e6:.1f} MB")
    if ended := sum(attack.ended for attack in attacks):
        found.append(f"{ended} workers ended")
    return [f"{name}: {words}" for words in found]


def row(name: str, says: str, pairs: Sequence[Pair], faults: Sequence[str]) -> Row:
    """Return what is kept of an attack's pairs."""
    return {
        "kind": name,
        "says": says,
        "pairs": [{"attack": pair.attack._asdict(), "control": pair.control._asdict()} for pair in pairs],
        "ratio": round(median(pair.ratio for pair in pairs), 2),
        "good": not faults,
    }


HEAD = f"{'':22}{'p50':>8}{'p99, ms':>9}{'not served':>12}{'cores':>7}{'PSS, MiB':>10}{'log, kB':>9}  answered"


def line(name: str, run: Run) -> str:
    """Put a run on a line for the terminal."""
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(run.answers.items()))
    refused = f"{sum(run.not_served.values())}/{run.requests}"
    figures = f"{run.p50_ms:>8.1f}{run.p99_ms:>9.1f}{refused:>12}{run.cores:>7.2f}{run.pss_mib:>10.0f}{run.log_bytes / 1000:>9.0f}"
    return f"{name:22}{figures}  {answers}"

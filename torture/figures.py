"""What a run was like, in figures: how many requests failed of which fault, and how soon the service was itself again."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from torture.answers import SECONDS_TO_RECOVER
from torture.faults import KINDS, Fault
from torture.journal import CHANGES, Request

Figures = dict[str, Any]


def by_kind(requests: Sequence[Request], faults: Sequence[Fault], end: float) -> list[Figures]:
    """Return for each kind of fault how often it was, the requests that failed from its beginning to the next one's, and its recovery times."""
    rows: defaultdict[str, Figures] = defaultdict(lambda: {"times": 0, "requests": 0, "unavailable": 0, "dropped": 0, "recovery": []})
    requests = [request for request in requests if request.trouble != "gave up"]
    for fault, until in zip(faults, [*(following.began_at for following in faults[1:]), end], strict=True):
        row = rows[fault.kind]
        row["times"] += 1
        touched = [request for request in requests if fault.began_at <= request.answered_at and request.asked_at < until]
        row["requests"] += len(touched)
        row["unavailable"] += sum(request.status == 503 for request in touched if request.answered_at < until)
        row["dropped"] += sum(request.status is None for request in touched if request.answered_at < until)
        if (seconds := _recovery(fault, faults, requests, end)) is not None:
            row["recovery"].append(seconds)
    return [{"kind": kind} | rows[kind] for kind in KINDS if kind in rows]


def slow(rows: Sequence[Figures]) -> list[str]:
    """Return the faults after which changes weren't soon done again."""
    times = [(row["kind"], seconds) for row in rows for seconds in row["recovery"] if seconds > SECONDS_TO_RECOVER]
    return [f"{kind}: it was {seconds:.1f} s from its end until all was well again" for kind, seconds in times]


def _recovery(fault: Fault, faults: Sequence[Fault], requests: Sequence[Request], end: float) -> float | None:
    """Return the seconds from its end to the first change done and the last failure of what was asked for since, if nothing else was wrong then."""
    if any(other.began_at <= fault.returned_at < other.returned_at for other in faults):
        return None
    until = min((other.began_at for other in faults if other.began_at > fault.returned_at), default=end)
    since = [request for request in requests if fault.returned_at <= request.asked_at and request.answered_at < until]
    done = [request.answered_at for request in since if request.is_done and request.kind in CHANGES]
    failed = [request.answered_at for request in since if request.is_open]
    return max([min(done), *failed]) - fault.returned_at if done else None


def table(rows: Sequence[Figures]) -> str:
    """Put them as a table for the terminal."""
    lines = [f"{'':36}{'times':>7}{'requests':>10}{'503':>7}{'dropped':>9}{'recovery: median':>18}{'max, s':>9}"]
    for row in rows:
        times = "".join(f"{value:>{width}.2f}" for value, width in zip(spread(row["recovery"]), (18, 9), strict=False))
        lines.append(f"{row['kind']:36}{row['times']:>7}{row['requests']:>10}{row['unavailable']:>7}{row['dropped']:>9}{times}")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> tuple[float, ...]:
    """Return median and maximum, or nothing."""
    return (median(values), max(values)) if values else ()


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that so large a part of them doesn't exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0

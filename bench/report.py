"""The figures in words and tables."""

from collections.abc import Sequence
from statistics import median
from typing import Any

Record = dict[str, Any]
COLUMNS = {
    "rate": "requests/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "service_us": "service us",
    "postgresql_us": "PostgreSQL us",
    "generator_us": "generator us",
    "cpu_us": "CPU us",
    "capacity": "capacity/s",
    "busy_cores": "busy cores",
}


def summary(records: Sequence[Record]) -> str:
    """Give the medians in a table for the terminal, with each capacity as a part of the least handler's in the same round."""
    lines = ["  ".join(f"{name:>13}" for name in ("job", "connections", "system", *COLUMNS.values(), "of hello's"))]
    for job, connections, system in dict.fromkeys((each["job"], each["connections"], each["system"]) for each in records):
        of_these = [each for each in records if (each["job"], each["connections"], each["system"]) == (job, connections, system)]
        middle = [f"{median(each[name] for each in of_these):13.{1 if name[-2:] in ('ms', 'es') else 0}f}" for name in COLUMNS]
        parts = ratios(records, of_these)
        lines.append("  ".join([f"{job:>13}", f"{connections:>13}", f"{system:>13}", *middle, f"{median(parts):13.3f}" if parts else ""]))
    return "\n".join(lines)


def ratios(records: Sequence[Record], of_these: Sequence[Record], other: str = "hello") -> list[float]:
    """Give the capacities as parts of another system's, for the same work in the same round."""
    others = {(each["round"], each["job"], each["connections"]): each["capacity"] for each in records if each["system"] == other}
    keys = [(each["round"], each["job"], each["connections"]) for each in of_these]
    return [each["capacity"] / others[key] for each, key in zip(of_these, keys, strict=True) if key in others]

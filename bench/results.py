"""The records of measurements: kept in a file, chosen, compared within a round, and put as a median with its spread."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

Record = dict[str, Any]
Results = dict[str, dict[str, Any]]  # by part: rounds, starts, growth

FILE = Path(__file__).with_name("results.json")
SAME_WORK = ("round", "job", "connections")


def load() -> Results:
    """Return what earlier runs found."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def keep(part: str, machine: dict[str, str], records: Sequence[Record], **plan: Any) -> None:
    """Put a part of the results in the place of an earlier run's."""
    found = load() | {part: {"when": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine, "plan": plan, "records": records}}
    FILE.write_text(json.dumps(found, indent=1))


def choose(records: Iterable[Record], **values: Any) -> list[Record]:
    """Return the records that have these values."""
    return [record for record in records if all(record[name] == value for name, value in values.items())]


def column(records: Iterable[Record], name: str) -> list[float]:
    """Return one figure of each."""
    return [record[name] for record in records]


def ratios(records: Sequence[Record], system: str, other: str, name: str = "capacity", **values: Any) -> list[float]:
    """Return a system's figures as parts of another's, each for the same work in the same round."""
    others = {tuple(record[key] for key in SAME_WORK): record[name] for record in choose(records, system=other, **values)}
    ours = {tuple(record[key] for key in SAME_WORK): record[name] for record in choose(records, system=system, **values)}
    return [figure / others[key] for key, figure in ours.items() if key in others]


def spread(values: Sequence[float]) -> str:
    """Put values as their median and, in brackets, the least and the greatest."""
    if not values:
        return ""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} [{number(min(values))}, {number(max(values))}]"


def number(value: float) -> str:
    """Put a number with as many digits as it deserves."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"

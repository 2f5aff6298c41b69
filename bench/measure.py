"""What processes cost: CPU time and memory, as /proc has them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """A line of /proc/<pid>/stat: whose child it is, and the CPU time of itself and of the children that it has buried."""

    pid: int
    parent: int
    ticks: int


def processes() -> Iterator[Process]:
    """Return all processes."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        yield Process(int(directory.name), int(fields[1]), sum(map(int, fields[11:15])))


def tree(root: int) -> list[Process]:
    """Return a process and all that descend from it."""
    everybody = list(processes())
    found = [process for process in everybody if process.pid == root]
    for ancestor in found:  # it grows while we go through it
        found += [process for process in everybody if process.parent == ancestor.pid]
    return found


def cpu_seconds(root: int) -> float:
    """Return the CPU time that a process and its descendants have had, those that have ended included."""
    return sum(process.ticks for process in tree(root)) / TICKS_PER_SECOND


class Memory(NamedTuple):
    """What a process has in memory, in MiB: PSS shares out what several have in common, RSS counts it for each."""

    pss: float
    rss: float


def memory(pid: int) -> Memory:
    """Return the memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(kibibytes["Pss"] / 1024, kibibytes["Rss"] / 1024)


def cores() -> int:
    """Return how many cores we may use."""
    return len(os.sched_getaffinity(0))

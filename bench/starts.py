"""How long a start takes, and what an idle worker has in memory."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.cluster import Cluster
from bench.data import Size
from bench.measure import memory, tree
from bench.rounds import SYSTEMS
from bench.systems import WORKERS

TIMES = 5
FIRST_ANSWERS = 20
NAMES = ("ours", "twin", "hello")


def run(cluster: Cluster, size: Size, directory: Path) -> Iterator[dict[str, Any]]:
    """Start the systems in turn, some times, with their schema in place, and give a record of each start."""
    databases = {name: f"started_{name}" for name in NAMES}
    stores = {name: store for name in NAMES if (store := SYSTEMS[name].store)}
    for name, store in stores.items():
        cluster.copy(cluster.seed(store, size), databases[name])
    for turn in range(TIMES):
        for name in NAMES:
            with SYSTEMS[name].run(cluster, databases[name], size, directory) as running:
                for _ in range(FIRST_ANSWERS):
                    running.ask("W1", 1, 1)
                largest = sorted((memory(process.pid) for process in tree(running.pid)[1:]), key=lambda each: each.rss)[-WORKERS:]
                pss, rss = (sum(each[place] for each in largest) / len(largest) for place in (0, 1))
            print(f"start {turn + 1} of {name}: {running.seconds_to_start:.2f} s, {rss:.0f} MiB", file=sys.stderr)
            yield {"system": name, "turn": turn, "seconds": running.seconds_to_start, "pss_mib": pss, "rss_mib": rss}
    for name in stores:
        cluster.drop(databases[name])

"""`make bench`: measure, check, and write docs/performance.md with its pictures. What is chosen, or quick, is only printed."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import bloat, cluster, costs, generators, growth, machine, more, report, results, rounds, starts, transfer
from bench.cluster import Cluster
from bench.data import Size
from bench.jobs import JOBS
from bench.load import Refused
from bench.results import Record
from bench.rounds import NAMES, Plan


def arguments() -> argparse.Namespace:
    """Read what was asked for."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 3 s, ours and hello, 32 connections")
    parser.add_argument("--systems", help=f"of {','.join(NAMES)}")
    parser.add_argument("--kinto", action="store_true", help="and Kinto, which needs more packages")
    parser.add_argument("--jobs", help=f"of {','.join(JOBS)}")
    parser.add_argument("--connections", help="how many, with commas between; 1,32,256 where not said")
    parser.add_argument("--rounds", type=int, help="3 where not said")
    parser.add_argument("--seconds", type=int, help="of each measurement; 5 where not said")
    parser.add_argument("--users", type=int, default=1000, help="each has 200 tasks; %(default)s where not said")
    parser.add_argument("--starts", action="store_true", help="only the time to start, and memory")
    parser.add_argument("--costs", action="store_true", help="only what each layer of the service costs a request")
    parser.add_argument(
        "--growth", action="store_true", help=f"only the growth from {growth.TASKS[0]} to {growth.TASKS[-1]} tasks; some GB"
    )
    parser.add_argument("--tasks", help="sizes for --growth, with commas between; the size for --transfer")
    parser.add_argument("--transfer", action="store_true", help="only how a long history goes out and comes in; some GB")
    parser.add_argument("--more", action="store_true", help="only what may take long, each beside the plain statement")
    parser.add_argument("--bloat", action="store_true", help="only how large the tasks become that are changed again and again")
    parser.add_argument("--report", action="store_true", help="only write the page again, from the results of before")
    parser.add_argument("--data-dir", type=Path, help="keep PostgreSQL's data there for the next run")
    return parser.parse_args()


def plan(given: argparse.Namespace, jobs: Sequence[str]) -> Plan:
    """Return what the rounds measure."""
    systems, connections, turns, seconds = ("hello,ours", "32", 1, 3) if given.quick else (",".join(NAMES), "1,32,256", 3, 5)
    return Plan(
        Size(given.users),
        [*(given.systems or systems).split(","), *(["kinto"] if given.kinto else [])],
        jobs,
        [int(number) for number in (given.connections or connections).split(",")],
        given.rounds or turns,
        given.seconds or seconds,
    )


def main() -> None:
    """Run the benchmark."""
    given = arguments()
    if not given.report:
        generators.require_wrk()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            server = stack.enter_context(cluster.running(given.data_dir or directory / "data"))
            is_for_the_page = measure(server, given, directory)
        if not is_for_the_page:
            return
    write_page()


def measure(server: Cluster, given: argparse.Namespace, directory: Path) -> bool:
    """Measure what was asked for and keep it, if it is for the page. Raises Refused."""
    where = machine.describe(server)
    jobs = (given.jobs or ",".join(JOBS)).split(",")
    if given.growth:
        tasks = [int(number) for number in given.tasks.split(",")] if given.tasks else growth.TASKS
        grown = list(growth.run(server, directory, tasks, jobs))
        print(report.growth_summary(grown))
        if given.tasks or given.jobs:
            return False
        results.keep("growth", where, grown, tasks=tasks, connections=growth.CONNECTIONS, turns=growth.TURNS, seconds=growth.SECONDS)
        return True
    if given.transfer:
        transfer.run(server, directory, int(given.tasks or transfer.TASKS))
        return False
    alone: dict[str, Callable[[], Iterable[Record]]] = {
        "costs": costs.run,
        "more": partial(more.run, server),
        "bloat": partial(bloat.run, server),
    }
    for part, run in alone.items():
        if getattr(given, part):
            results.keep(part, where, list(run()))
            return True
    is_chosen = given.quick or given.systems or given.jobs or given.connections
    if not given.starts:
        wanted = plan(given, jobs)
        records, refused = rounds.run(server, wanted, directory)
        print(report.summary(records))
        if is_chosen:
            return False
        results.keep("rounds", where, records, **asdict(wanted) | {"users": wanted.size.users, "refused": refused})
        results.keep("costs", where, costs.run())
    results.keep("starts", where, list(starts.run(server, Size(given.users), directory)))
    return True


def write_page() -> None:
    """Write the page and its pictures from the results that there are."""
    from bench import pictures

    found = results.load()
    report.PAGE.write_text(report.page(found, report.PAGE.read_text()))
    pictures.draw(found, report.PAGE.parent / "performance")
    print(f"Written: {report.PAGE.relative_to(report.HOUSE)} and its pictures.")


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(f"Refused: {refused}")
    except KeyboardInterrupt:
        sys.exit(130)

"""`make bench`: measure, check, and write docs/performance.md."""

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import cluster, load, report, rounds
from bench.data import Size
from bench.jobs import JOBS
from bench.load import Refused
from bench.rounds import NAMES, Plan
from bench.systems import SECRETS


def arguments() -> argparse.Namespace:
    """Read what was asked for."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 3 s of ours and hello, with 32 connections")
    parser.add_argument("--systems", help=f"of {','.join(NAMES)}")
    parser.add_argument("--jobs", default=",".join(JOBS), help="of %(default)s")
    parser.add_argument("--connections", help="how many, with commas between; 1,32,256 where not said")
    parser.add_argument("--rounds", type=int, help="3 where not said")
    parser.add_argument("--seconds", type=int, help="of each measurement; 5 where not said")
    parser.add_argument("--users", type=int, default=1000, help="each has 200 tasks; %(default)s where not said")
    parser.add_argument("--data-dir", type=Path, help="keep PostgreSQL's data here for the next run")
    parser.add_argument("--output", type=Path, help="write all figures there, as JSON")
    return parser.parse_args()


def plan(given: argparse.Namespace) -> Plan:
    """Give what to measure."""
    systems, connections, turns, seconds = ("hello,ours", "32", 1, 3) if given.quick else (",".join(NAMES), "1,32,256", 3, 5)
    return Plan(
        Size(given.users),
        (given.systems or systems).split(","),
        given.jobs.split(","),
        [int(number) for number in (given.connections or connections).split(",")],
        given.rounds or turns,
        given.seconds or seconds,
    )


def main() -> None:
    """Run the benchmark."""
    given = arguments()
    load.require_wrk()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        os.environ |= SECRETS | {"DB_HOST": "unused: the settings are read for the tokens"}
        server = stack.enter_context(cluster.running(given.data_dir or directory / "data"))
        records = list(rounds.run(server, plan(given), directory))
    if given.output:
        given.output.write_text(json.dumps(records, indent=1))
    print(report.summary(records))


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(f"Refused: {refused}")
    except KeyboardInterrupt:
        sys.exit(130)

"""`make torture`: kill, freeze and restart the service and its PostgreSQL under load, and compare what was promised with what is there."""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from pathlib import Path

from torture import figures, ordeal, report

MAX_SHOWN = 20


def arguments() -> argparse.Namespace:
    """Read what was asked for."""
    parser = argparse.ArgumentParser(prog="make torture ARGS=...", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long; %(default)s where not said")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of what goes wrong, and when")  # noqa: S311
    parser.add_argument(
        "--soak", action="store_true", help="instead, one fault a minute, none that ends a worker: what they need may not grow"
    )
    parser.add_argument(
        "--hostile", type=int, nargs="?", const=10_000, metavar="N", help="instead, send N hostile requests; %(const)s where not said"
    )
    parser.add_argument("--report", action="store_true", help="only write docs/reliability.md, from the long runs that there were")
    parser.add_argument("--keep", type=Path, help="keep the journal, the service's log and the data in this new directory")
    given = parser.parse_args()
    if given.soak and given.seconds < report.MIN_SECONDS:
        parser.error(f"a soak takes --seconds {report.MIN_SECONDS} at least")
    return given


def main() -> int:
    """Run it, and give the exit code."""
    given = arguments()
    if given.report:
        report.write()
        return 0
    part = "hostile" if given.hostile else "soak" if given.soak else "fire"
    what = f"{given.hostile:,} hostile requests" if given.hostile else f"{'A soak' if given.soak else 'Torture'} for {given.seconds:g} s"
    print(f"{what}, seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
        directory = given.keep or Path(scratch)
        directory.mkdir(exist_ok=True)
        outcome = asyncio.run(_run(given, directory.absolute()))
    if given.hostile or given.seconds >= report.MIN_SECONDS:
        report.keep(part, given.seed, given.seconds, outcome)
    if outcome.rows:
        print(figures.table(outcome.rows))
    for what, count in outcome.counts.items():
        print(f"{count:>10,} {what}")
    if outcome.verified:
        print(outcome.verified)
    for fault in outcome.faults[:MAX_SHOWN]:
        print(f"DISAGREEMENT: {fault[:3000]}")
    agree = "All is as it was, and everybody was answered." if given.hostile else "Journal, database and logs agree."
    print(f"{len(outcome.faults)} disagreements; seed {given.seed}" if outcome.faults else agree)
    return bool(outcome.faults)


async def _run(given: argparse.Namespace, directory: Path) -> ordeal.Outcome:
    me = asyncio.current_task()
    for interruption in (signal.SIGINT, signal.SIGTERM):  # so that what was started is stopped
        asyncio.get_running_loop().add_signal_handler(interruption, lambda: me and me.cancel())
    if given.hostile:
        return await ordeal.storm(directory, given.hostile, given.seed)
    return await ordeal.run(directory, given.seconds, given.seed, lambda words: print(f"  {words}", flush=True), soak=given.soak)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except asyncio.CancelledError:
        sys.exit(130)

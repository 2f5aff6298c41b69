"""`make torture`: kill, freeze and restart the service and its PostgreSQL under load, and compare what was promised with what is there."""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from pathlib import Path

from torture import figures, ordeal, report
from torture.siege import campaign

MAX_SHOWN = 20


def arguments() -> argparse.Namespace:
    """Read what was asked for."""
    parser = argparse.ArgumentParser(prog="make torture ARGS=...", description=__doc__)
    parser.add_argument("--seconds", type=float, help="how long; 60 where not said, and 30 for each run of a siege")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of what goes wrong, and when")  # noqa: S311
    parser.add_argument(
        "--soak", action="store_true", help="instead, one fault a minute, none that ends a worker: what they need may not grow"
    )
    parser.add_argument(
        "--hostile", type=int, nargs="?", const=10_000, metavar="N", help="instead, send N hostile requests; %(const)s where not said"
    )
    parser.add_argument("--siege", action="store_true", help="instead, measure what one hostile client costs everybody else")
    parser.add_argument(
        "--pairs", type=int, default=report.MIN_PAIRS, help="of a siege: how often each attack runs; %(default)s where not said"
    )
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of a siege: the attacks that run, of {', '.join(campaign.NAMES)}")
    parser.add_argument("--report", action="store_true", help="only write docs/reliability.md, from the long runs that there were")
    parser.add_argument("--keep", type=Path, help="keep the journal, the service's log and the data in this new directory")
    given = parser.parse_args()
    given.seconds = given.seconds or (report.MIN_SIEGE_SECONDS if given.siege else 60)
    given.only = [name for name in given.only.split(",") if name]
    if unknown := sorted({*given.only} - {*campaign.NAMES}):
        parser.error(f"no such attack: {', '.join(unknown)}; there are {', '.join(campaign.NAMES)}")
    if given.siege and not 0 < given.seconds <= campaign.MAX_SECONDS:
        parser.error(f"a run of a siege takes --seconds {campaign.MAX_SECONDS} at most: the victim keeps to its limits")
    if given.soak and given.seconds < report.MIN_SECONDS:
        parser.error(f"a soak takes --seconds {report.MIN_SECONDS} at least")
    return given


def main() -> int:
    """Run it, and give the exit code."""
    given = arguments()
    if given.report:
        report.write()
        return 0
    if given.siege:
        return _besiege(given)
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


def _besiege(given: argparse.Namespace) -> int:
    faults: list[str] = []

    async def run(directory: Path) -> None:
        _stop_when_interrupted()
        async for name, outcome in campaign.run(directory, given.seconds, given.pairs, given.only, lambda words: print(words, flush=True)):
            faults.extend(outcome.faults)
            for fault in outcome.faults:
                print(f"TOO MUCH: {fault}", flush=True)
            if given.seconds >= report.MIN_SIEGE_SECONDS and given.pairs >= report.MIN_PAIRS and outcome.rows:
                report.keep("siege", name, given.seconds, outcome)

    with tempfile.TemporaryDirectory(prefix="siege-") as scratch:
        directory = given.keep or Path(scratch)
        directory.mkdir(exist_ok=True)
        asyncio.run(run(directory.absolute()))
    print(f"{len(faults)} times too much." if faults else "One hostile client hurts nobody else.")
    return bool(faults)


def _stop_when_interrupted() -> None:
    me = asyncio.current_task()
    for interruption in (signal.SIGINT, signal.SIGTERM):  # so that what was started is stopped
        asyncio.get_running_loop().add_signal_handler(interruption, lambda: me and me.cancel())


async def _run(given: argparse.Namespace, directory: Path) -> ordeal.Outcome:
    _stop_when_interrupted()
    if given.hostile:
        return await ordeal.storm(directory, given.hostile, given.seed)
    return await ordeal.run(directory, given.seconds, given.seed, lambda words: print(f"  {words}", flush=True), soak=given.soak)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except asyncio.CancelledError:
        sys.exit(130)

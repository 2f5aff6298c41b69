"""`make prove`: what needs load or hours, one part after the other; whatever fails is named at the end."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HOUSE = Path(__file__).parent.parent
SEEDS = (7, 11, 2026)  # on docs/reliability.md a run takes the place of the one before with its seed


class Part(NamedTuple):
    """Commands for a shell, and what one wants to know before they run."""

    proves: str
    takes: str  # on two cores
    figures: str  # where they are afterwards
    commands: list[str]


KEPT = "kept for docs/reliability.md, which `report` writes"

PARTS = {
    "fuzz": Part("the service keeps to its document, asked 10,000 things", "10 minutes", "printed", ["make fuzz"]),
    "effort": Part(
        "what one request or line of a file costs grows no faster than it does",
        "a minute",
        "printed",
        ["make test-all ARGS='-m effort --numprocesses 0'"],
    ),
    "models": Part(
        "what random users, histories and copies come to, 3,000 of each, is what a model in memory says",
        "two hours",
        "printed",
        ["HYPOTHESIS_PROFILE=long make test-all ARGS=tests/model"],
    ),
    "resilience": Part(
        "with anything broken under load, 20 times each, everybody is answered as promised",
        "an hour",
        "printed",
        ["REPEAT=20 make test-all ARGS='tests/process/test_resilience.py --numprocesses 0'"],
    ),
    "torture": Part(
        "nothing that was answered is lost, whatever is killed",
        "35 minutes",
        KEPT,
        [f"make torture ARGS='--seconds 600 --seed {seed}'" for seed in SEEDS],
    ),
    "hostile": Part("10,000 hostile requests do nothing", "5 minutes", KEPT, ["make torture ARGS='--hostile --seed 5'"]),
    "soak": Part("nothing grows in an hour", "an hour", KEPT, ["make torture ARGS='--soak --seconds 3600 --seed 40'"]),
    "siege": Part("one hostile client hurts nobody else", "80 minutes", KEPT, ["make torture ARGS=--siege"]),
    "report": Part("the page says what those four found", "a second", "docs/reliability.md", ["make torture ARGS=--report"]),
    "growth": Part(
        "what a request costs with 10^4 and with 10^7 tasks; needs wrk and some GB",
        "two hours",
        "docs/performance.md",
        ["make bench ARGS=--growth"],
    ),
    "more": Part(
        "what may take long, each beside the plain statement; some GB",
        "10 minutes",
        "docs/performance.md",
        ["make bench ARGS=--more"],
    ),
    "transfer": Part(
        "an account of 100,000 tasks goes out and comes in, in little memory; needs some GB",
        "10 minutes",
        "printed",
        ["make bench ARGS=--transfer"],
    ),
}


def plan(names: list[str]) -> str:
    """Return what is to be run, in words."""
    lines = []
    for name in names:
        part = PARTS[name]
        lines += [f"{name}: {part.proves}", f"    about {part.takes}; figures: {part.figures}", *(f"    {each}" for each in part.commands)]
    return "\n".join(lines)


def run(name: str) -> bool:
    """Run a part to its end, or to its first failure, and tell whether it was good."""

    def is_done(command: str) -> bool:
        print(f"\n== {name}: {command}", flush=True)
        return subprocess.run(["sh", "-c", command], cwd=HOUSE, env=environment, check=False).returncode == 0

    environment = {key: value for key, value in os.environ.items() if key not in ("ARGS", "MAKEFLAGS")}  # make hands its own on
    began_at = time.monotonic()
    is_good = all(map(is_done, PARTS[name].commands))
    print(f"== {name}: {'good' if is_good else 'FAILED'} after {time.monotonic() - began_at:.0f} s", flush=True)
    return is_good


def main() -> int:
    """Print the plan, run it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make prove ARGS=...", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--plan", action="store_true", help="only print the plan")
    given = parser.parse_args()
    if unknown := sorted(set(given.parts) - PARTS.keys()):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    names = [name for name in PARTS if name in given.parts or not given.parts]
    print(plan(names), flush=True)
    failed = [] if given.plan else [name for name in names if not run(name)]
    if not given.plan:
        print(f"\nFailed: {', '.join(failed)}." if failed else f"\nGood: {', '.join(names)}.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

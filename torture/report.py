"""What long runs found: kept in a file, and put on a page."""

import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torture.answers import DEADLINE_SECONDS, SECONDS_TO_RECOVER
from torture.faults import KINDS
from torture.figures import spread
from torture.ordeal import Outcome
from torture.service import HOUSE

FILE = Path(__file__).with_name("results.json")
PAGE = HOUSE / "docs" / "reliability.md"
MIN_SECONDS = 600  # of a run that goes on the page
MIN_SIEGE_SECONDS, MIN_PAIRS = 30, 5  # of an attack that does
PACKAGES = ("aiohttp", "gunicorn", "uvloop", "aiopg", "peewee-async", "psycopg2-binary")
TEXT = """# Reliability

## What is promised

- **Nothing is lost.** A change that was answered is there, with its revision and its values, whatever is killed afterwards, and when. A change whose answer was lost, or was 503, has happened whole or not at all; it can be
  sent again, a creation with `Idempotency-Key`. Every log leads from its task's creation to the task as it is, and a user's revisions have no gap.
- **There is always an answer.** Never 500, never later than the request's deadline ({deadline:g} s unless set otherwise). While PostgreSQL can't be used it is 503 with `Retry-After`, and within {recover} s of its return changes are done again,
  with no restart of the service. Only who was talking to a process that is killed loses an answer.
- **Answers are true.** Each shows the account as it was at the revision in its `X-Revision`, never an older one than somebody had been shown before.

## How it is proved

`make torture` starts a PostgreSQL as it comes (fsync on) and the service under gunicorn with two workers. Clients work with it: {hot} accounts are shared by {sharing} clients each, which get in each other's way, {cold} have one client. They create (half with `Idempotency-Key`, then repeated until
answered), change (some with `If-Match`), delete, erase, restore, undo, read, list, list the past, follow what changed and read logs; some give up in the middle. A journal on the disk has each request before it is sent, and each answer. Meanwhile one thing after
another is broken, in an order that a seed gives, now and then two at once. At the end the journal is compared with the database:

- every log is replayed to its task, in Python from the bare rows and by `python models.py verify`, and with it every task at every revision is known;
- every answer, reads and refusals too, is compared with the tasks as they were at the revision that it shows: whole tasks, whole lists, whole logs, the 404 and the 412;
- every revision must have been asked for by exactly one request. Each change brings a word of its own with it, so that its author is known; deletions, restorations and undos that nobody acknowledged are matched with open requests that would have had
  exactly that effect. What was refused may not be there; what is there by half is found;
- no answer is 500 or late; a lost one needs a killed process, a 503 needs PostgreSQL to be in trouble; the service's log has no error.

The judge itself is tested: `tests/torture/test_torture.py` plants each kind of difference and expects it to be found; and with `synchronous_commit = off`, with which PostgreSQL loses in a crash what it had acknowledged, 20 s are enough to find dozens of disagreements. A run of 20 s is part of `make test-all`; `make prove ARGS="torture hostile soak siege report"` runs all that stands here, and writes it.

`make torture ARGS=--hostile` sends at least 10,000 hostile requests of {attacks} kinds (forged tokens, texts that are none, broken JSON, forms and multipart, bombs, impossible dates and ids, smuggling, ...), each of which must be refused with one answer and change nothing, and a good one after
every nine, which must succeed.

`make torture ARGS=--siege` measures what one hostile client costs everybody else. A victim with an account and an address of its own lists, reads, changes and creates {per_second} times a second, on connections that it keeps to each worker and on new ones; each request is timed from the moment for which it was planned, so that who is held up for a second is held up with all
requests of that second. Beside it runs an attack for {siege_seconds} s, and then, as its control, harmless load on as many connections (8 to 40), whose pace follows from the CPU time that the service and PostgreSQL spend: it is to cost as much as the attack did, or what so many connections can (the table has the cores of both). That is a pair; there are {pairs}. The service has the settings of `docker-compose.yml` and all its limits. An attack comes from one address,
mostly by one account, at the pace that was seen to be enough. It is too much where the median of the pairs' ratios of the victim's p99 exceeds {ratio}, where anything of the victim's isn't served, where the workers together have more than {pss} MiB (PSS; the container has 512), or the log grows by more than {log:g} MB. Attacks whose aim is another have an end of their own, which is looked for.
`ARGS="--siege --only searches,writers --seconds 5 --pairs 1"` chooses some and is short.

`make torture ARGS="--soak --seconds 3600"` goes on for long: the same clients, a fault a minute that ends no worker, and in the end the same judge; beside that no worker's memory may have grown by more than {growth:.0%}, and there may be no more connections than the
pools have places.

## What `verify` can't see

`python models.py verify` finds what contradicts something else that is stored; `tests/history/test_verify.py` breaks each of it. What stands in one place alone it takes as it is:

- of a task what it was created with, if nothing has altered it since, and its UID; of a field the value before its first entry; that a revision of several entries lacks one at the end of its field's chain;
- moments, as long as they stay between their neighbours', or before the first, and those of an account that has no history to compare them with;
- of an account its login with the `login_key` that belongs to it, its password, its tokens' generation and the moment of its creation; whose revisions and tasks the purged ones were;
- what was kept under an Idempotency-Key, but for a task that there never was; codes, counts of attempts, and files on their way in;
- the text in which a task of an older look is kept: it is made anew before anybody sees it;
- what PostgreSQL's own constraints keep out (two tasks with one id, a task or an entry of nobody, an unsound one), and pages that the disk has spoilt: `pg_amcheck` looks for those. The rows of closed accounts, which are on their way out.
"""
HEAD = "| what went wrong | times | requests meanwhile | 503 | answers lost | recovery, s: median | most |\n|---|---|---|---|---|---|---|\n"
EXPLAINED = """
*Meanwhile* is from its beginning to the next one's, so where two things went wrong at once the later one has the requests; *lost* are answers that never came, since a process was killed. *Recovery* counts from the moment when what had been broken was there again (PostgreSQL takes connections; gunicorn has its workers) until the first change that was asked for afterwards was done and
the last refusal had been given. The clients that `clients dropped` made go away aren't counted as failures.
"""


def keep(part: str, seed: int | str, seconds: float, outcome: Outcome) -> None:
    """Put a run beside the others; it takes the place of one with the same seed."""
    found = {(run["part"], run["seed"]): run for run in _load()}
    run = {"part": part, "seed": seed, "seconds": seconds, "when": f"{datetime.now(UTC):%Y-%m-%d}", "on": _machine()}
    found[part, seed] = run | {"faults": len(outcome.faults), "counts": outcome.counts, "rows": outcome.rows}
    FILE.write_text(json.dumps(list(found.values()), indent=1))


def write() -> None:
    """Write the page. What was not run since keeps what the page says of it."""
    runs, kept = _load(), _sections(PAGE.read_text())
    sections = [words(), "## What was found"]
    for heading, part, told in SECTIONS:
        of_part = [run for run in runs if run["part"] == part]
        if of_part or heading in kept:
            sections.append("\n".join([heading, "", *told(of_part)]) if of_part else kept[heading])
    PAGE.write_text("\n\n".join(section.rstrip("\n") for section in sections) + "\n")


def _sections(page: str) -> dict[str, str]:
    """Return what a page has found, by its headings."""
    return {text.partition("\n")[0]: text for text in re.findall(r"^### .*?(?=^### |\Z)", page, re.MULTILINE | re.DOTALL)}


def words() -> str:
    """Return what the page says before it comes to what was found."""
    from torture import attacks, client, fleet, soak
    from torture.siege import figures, victim

    return TEXT.format(
        deadline=DEADLINE_SECONDS, recover=SECONDS_TO_RECOVER, attacks=len(attacks.KINDS), hot=fleet.HOT_USERS,
        sharing=client.CLIENTS["hot"], cold=fleet.COLD_USERS, growth=soak.MAX_GROWTH,
        per_second=victim.PER_SECOND, siege_seconds=MIN_SIEGE_SECONDS, pairs=MIN_PAIRS, ratio=figures.MAX_RATIO, pss=figures.MAX_PSS_MIB,
        log=figures.MAX_LOG_BYTES / 1e6,
    )  # fmt: skip


def _under_fire(runs: Sequence[Any]) -> Iterable[str]:
    yield from (_runs(runs), HEAD + "".join(_rows(runs)) + EXPLAINED)


def _runs(runs: Sequence[Any]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run["counts"]))
    lines = [
        ["", *(f"seed {run['seed']}" for run in runs)],
        ["---"] * (len(runs) + 1),
        ["seconds under fire", *(f"{run['seconds']:g}" for run in runs)],
    ]
    lines += [[name, *(f"{run['counts'].get(name, 0):,}" for run in runs)] for name in names]
    lines += [["**disagreements**", *(f"**{run['faults']}**" for run in runs)]]
    where = ". ".join(dict.fromkeys(f"{run['when']}: {run['on']}" for run in runs))
    return f"{where}.\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rows(runs: Iterable[Any]) -> Iterable[str]:
    rows = [row for run in runs for row in run["rows"]]
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        sums = [f"{sum(row[name] for row in of_kind):,}" for name in ("times", "requests", "unavailable", "dropped")]
        times = [f"{seconds:.2f}" for seconds in spread([seconds for row in of_kind for seconds in row["recovery"]])]
        yield f"| {' | '.join([kind, *sums, *times])} |\n"


def _soak(run: Any) -> str:
    counts = run["counts"]
    times = sum(row["times"] for row in run["rows"])
    memory = f"the larger worker had {counts['MiB of a worker before']} MiB in the second sixth of the time, {counts['MiB of a worker after']} in the last"
    what = f"{counts['requests']:,} requests, {times} faults, {counts['open']:,} changes that got no answer, or 503"
    return (
        f"A soak, seed {run['seed']} ({run['when']}), {run['seconds']:g} s: {what}; {memory}; at most {counts['connections, at most']} connections. "
        f"**{run['faults']} disagreements.**\n"
    )


def _storm(run: Any) -> str:
    counts = run["counts"]
    answers = ", ".join(f"{count:,} x {name.removeprefix('answered ')}" for name, count in counts.items() if name.startswith("answered "))
    kinds = ", ".join(f"{count:,} {name}" for name, count in counts.items() if not name.startswith(("answered", "MiB")))
    memory = f"A worker had {counts['MiB of a worker before']} MiB before and {counts['MiB of a worker after']} MiB after"
    return f"Hostile requests, seed {run['seed']} ({run['when']}): {kinds}. They were answered {answers}. {memory}. **{run['faults']} faults.**\n"


SIEGE_HEAD = (
    "| attack | p50, ms | control | p99, ms | control | p99 : control's, median | not served | cores | control | PSS, MiB, most | log, kB, most | |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)
TRIALS_HEAD = "| attack | what was seen | |\n|---|---|---|\n"


def _siege(runs: Sequence[Any]) -> Iterable[str]:
    """Return the tables of a siege: of the attacks beside which a victim was measured, and of the others."""
    rows = [row for run in runs for row in run["rows"]]
    if measured := [row for row in rows if "pairs" in row]:
        when = ", ".join(sorted({run["when"] for run in runs}))
        yield f"A siege ({when}), the victim beside each attack and beside its control, pair by pair:\n"
        yield SIEGE_HEAD + "".join(map(_measured, measured))
    if others := [row for row in rows if "pairs" not in row]:
        yield TRIALS_HEAD + "".join(f"| {row['says']} | {row['found']} | {_good(row)} |\n" for row in others)


def _measured(row: Any) -> str:
    def each(side: str, figure: str, form: str = ".0f") -> str:
        return " ".join(f"{pair[side][figure]:{form}}" for pair in row["pairs"])

    figures = [each(side, figure) for figure in ("p50_ms", "p99_ms") for side in ("attack", "control")]
    cores = [each(side, "cores", ".1f") for side in ("attack", "control")]
    attacks = [pair["attack"] for pair in row["pairs"]]
    refused = f"{sum(sum(run['not_served'].values()) for run in attacks)} of {sum(run['requests'] for run in attacks):,}"
    most = f"{max(run['pss_mib'] for run in attacks)}", f"{max(run['log_bytes'] for run in attacks) / 1000:.0f}"
    return f"| {' | '.join([row['says'], *figures, str(row['ratio']), refused, *cores, *most, _good(row)])} |\n"


def _good(row: Any) -> str:
    return "good" if row["good"] else "**too much**"


SECTIONS: list[tuple[str, str, Callable[[Sequence[Any]], Iterable[str]]]] = [
    ("### Under fire", "fire", _under_fire),
    ("### For an hour", "soak", lambda runs: map(_soak, runs)),
    ("### Hostile requests", "hostile", lambda runs: map(_storm, runs)),
    ("### A siege", "siege", _siege),
]


def _load() -> list[Any]:
    return json.loads(FILE.read_text()) if FILE.exists() else []


def _machine() -> str:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({model[1] if model else platform.machine()}), {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {packages}"

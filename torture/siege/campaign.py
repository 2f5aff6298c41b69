"""A siege from its beginning to its end: one attack after the other, each on a field of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp

from torture.ordeal import Outcome
from torture.siege import accounts, figures
from torture.siege.attacks import ATTACKS, Attack
from torture.siege.field import pitched
from torture.siege.figures import Pair
from torture.siege.trials import TRIALS, Trial

NAMES = [*(attack.name for attack in ATTACKS), *(trial.name for trial in TRIALS)]
MAX_SECONDS = 31  # so that the victim, who makes 20 requests before, stays within the 600 of a user's minute
Tell = Callable[[str], None]


async def run(directory: Path, seconds: float, pairs: int, only: Sequence[str], tell: Tell) -> AsyncIterator[tuple[str, Outcome]]:
    """Run all attacks, or `only` some, and yield the name of each and what came of it."""
    for attack in ATTACKS:
        if not only or attack.name in only:
            yield attack.name, await _or_why_not(attack.name, _attacked(_made(directory / attack.name), attack, seconds, pairs, tell))
    for trial in TRIALS:
        if not only or trial.name in only:
            yield trial.name, await _or_why_not(trial.name, _tried(_made(directory / trial.name), trial, tell))


async def _or_why_not(name: str, coming: Awaitable[Outcome]) -> Outcome:
    try:
        return await coming
    except (accounts.CannotBegin, aiohttp.ClientError, OSError, TimeoutError) as error:  # the other attacks go on
        return Outcome([f"{name}: it couldn't be measured: {type(error).__name__}: {error}"], {})


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


async def _attacked(directory: Path, attack: Attack, seconds: float, number: int, tell: Tell) -> Outcome:
    tell(f"{attack.name}: {attack.says}\n{figures.HEAD}")
    found: list[Pair] = []
    async with pitched(directory, log_is_piped=attack.stalls_log) as field:
        await field.prepare(2 * number, seconds)
        crowds = await attack.prepare(field)
        for _ in range(number):
            if field.reader and attack.stalls_log:
                field.reader.reads.clear()
            beside = await field.attacked(crowds, seconds)
            if field.reader:
                field.reader.reads.set()
            tell(figures.line("  attack", beside))
            found.append(Pair(beside, await field.controlled(beside, crowds, seconds)))
            tell(figures.line("  control", found[-1].control))
    faults = figures.judge(attack.name, found)
    return Outcome(faults, {}, [figures.row(attack.name, attack.says, found, faults)])


async def _tried(directory: Path, trial: Trial, tell: Tell) -> Outcome:
    tell(f"{trial.name}: {trial.says}")
    faults, found = await trial.run(directory)
    tell(f"  {found}")
    faults = [f"{trial.name}: {words}" for words in faults]
    return Outcome(faults, {}, [{"kind": trial.name, "says": trial.says, "found": found, "good": not faults}])

"""Housekeeping: each worker does the chores that it is given now and then, step by step, waiting for no other."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple

from aiohttp import web

from postgres.database import Database
from rest.errors import Unavailable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 20  # a closed account is gone within a minute
SECONDS_BETWEEN_STEPS = 0.05  # in which others get on
SECONDS_OF_A_STEP = 600  # at most: what goes as a whole may have a million rows, which take seconds
ADVISORY_LOCKS = 7461737  # any number that no other program takes in this database


class Chore(NamedTuple):
    """What is to be done again and again, by one worker at a time: the number of its lock, a call in SQL, and the call's values."""

    lock_number: int
    call: str
    values: tuple[Any, ...]


def keep_house(database: Database, chores: Iterable[Chore]) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what does these chores while the application runs. One that takes long, or fails, is no matter to the others."""

    async def housekeeping(app: web.Application) -> AsyncIterator[None]:
        under_way = [asyncio.create_task(_repeat(database, chore)) for chore in chores]
        yield
        for each in under_way:
            each.cancel()
        await asyncio.wait(under_way)

    return housekeeping


async def _repeat(database: Database, chore: Chore) -> None:
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * SECONDS_BETWEEN_ROUNDS)  # noqa: S311 - so that workers don't ask all at once
        try:
            await sweep(database, chore)
        except Unavailable:
            pass  # the log has it already
        except Exception:
            log.exception("housekeeping failed, and will try again")


async def sweep(database: Database, chore: Chore) -> int:
    """Do a chore step by step until nothing is left to do, and return how many rows that were. Raises Unavailable."""
    removed = 0
    while step := await _take_step(database, chore):
        removed += step
        await asyncio.sleep(SECONDS_BETWEEN_STEPS)
    if removed:
        log.info("housekeeping: %s did %d", chore.call.partition("(")[0], removed)
    return removed


async def _take_step(database: Database, chore: Chore) -> int:
    is_ours = f"pg_try_advisory_xact_lock({ADVISORY_LOCKS}, {chore.lock_number})"  # or else another worker is at it
    [(removed,)] = await database.run_long(f"SELECT CASE WHEN {is_ours} THEN {chore.call} ELSE 0 END", chore.values, SECONDS_OF_A_STEP)
    return int(removed)

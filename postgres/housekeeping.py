"""What goes by itself: each worker asks now and then for what is past its time, and removes it step by step, waiting for no other."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple

from aiohttp import web

from postgres.database import database
from rest.errors import Unavailable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 20  # a closed account is gone within a minute
SECONDS_BETWEEN_STEPS = 0.05  # in which others get on
SECONDS_OF_A_STEP = 600  # at most: what goes as a whole may have a million rows, which take seconds
ADVISORY_LOCKS = 7461737  # any number that no other program takes in this database


class Chore(NamedTuple):
    """What is to be removed again and again: the number of its lock, a call in SQL, and a function that gives the call's values."""

    lock: int
    call: str
    values: Callable[[], tuple[Any, ...]]


def keep_house(chores: Iterable[Chore]) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what does these chores while the application runs. One that takes long, or fails, is no matter to the others."""

    async def housekeeping(app: web.Application) -> AsyncIterator[None]:
        under_way = [asyncio.create_task(_repeat(chore)) for chore in chores]
        yield
        for each in under_way:
            each.cancel()
        await asyncio.wait(under_way)

    return housekeeping


async def _repeat(chore: Chore) -> None:
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * SECONDS_BETWEEN_ROUNDS)  # noqa: S311 - so that workers don't ask all at once
        try:
            await sweep(chore)
        except Unavailable:
            pass  # the log has it already
        except Exception:
            log.exception("housekeeping failed, and will try again")


async def sweep(chore: Chore) -> int:
    """Remove what is past its time, and give how many rows that were. Raises Unavailable."""
    removed = 0
    while step := await _step(chore):
        removed += step
        await asyncio.sleep(SECONDS_BETWEEN_STEPS)
    if removed:
        log.info("housekeeping removed %d rows", removed)
    return removed


async def _step(chore: Chore) -> int:
    is_ours = f"pg_try_advisory_xact_lock({ADVISORY_LOCKS}, {chore.lock})"  # or else another worker is at it
    [(removed,)] = await database.run_long(f"SELECT CASE WHEN {is_ours} THEN {chore.call} ELSE 0 END", chore.values(), SECONDS_OF_A_STEP)
    return int(removed)

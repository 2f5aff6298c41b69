"""What goes by itself: each worker asks now and then for what is past its time, and removes it step by step, waiting for no other."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

import settings
from postgres.database import database
from rest.errors import Unavailable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 20  # a closed account is gone within a minute
SECONDS_BETWEEN_STEPS = 0.05  # in which others get on
SECONDS_OF_A_STEP = 600  # at most: a task goes together with all its log, of which a million entries take seconds
TASKS_PER_STEP, ROWS_PER_STEP = 200, 10_000
ADVISORY_LOCKS = 7461737  # any number that no other program takes in this database

CHORES: dict[str, Callable[[], tuple[Any, ...]]] = {  # each goes on by itself: one that takes long, or fails, is no matter to the others
    "account_sweep(%s)": lambda: (ROWS_PER_STEP,),
    "leftover_sweep(%s)": lambda: (ROWS_PER_STEP,),
    "limits_sweep(%s, %s)": lambda: (settings.load().known_address_seconds, ROWS_PER_STEP),
    "trash_sweep(now() - make_interval(secs => %s), %s, %s)": lambda: (
        settings.load().trash_lifetime_seconds,
        TASKS_PER_STEP,
        ROWS_PER_STEP,
    ),
}


async def housekeeping(app: web.Application) -> AsyncIterator[None]:
    """Keep house while the application runs."""
    keeping = [asyncio.create_task(_keep_house(chore)) for chore in CHORES]
    yield
    for each in keeping:
        each.cancel()
    await asyncio.wait(keeping)


async def _keep_house(chore: str) -> None:
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * SECONDS_BETWEEN_ROUNDS)  # noqa: S311 - so that workers don't ask all at once
        try:
            await sweep(chore)
        except Unavailable:
            pass  # the log has it already
        except Exception:
            log.exception("housekeeping failed, and will try again")


async def sweep(chore: str) -> int:
    """Remove what is past its time, and give how many rows that were. Raises Unavailable."""
    removed = 0
    while step := await _step(chore):
        removed += step
        await asyncio.sleep(SECONDS_BETWEEN_STEPS)
    if removed:
        log.info("housekeeping removed %d rows", removed)
    return removed


async def _step(chore: str) -> int:
    is_ours = f"pg_try_advisory_xact_lock({ADVISORY_LOCKS}, {list(CHORES).index(chore)})"  # or else another worker is at it
    [(removed,)] = await database.run_long(f"SELECT CASE WHEN {is_ours} THEN {chore} ELSE 0 END", CHORES[chore](), SECONDS_OF_A_STEP)
    return int(removed)

"""What goes by itself: each worker asks now and then for what is past its time, and removes it step by step, waiting for no other."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web

import settings
from postgres.database import database
from rest.errors import Unavailable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 20  # a closed account is gone within a minute
SECONDS_BETWEEN_STEPS = 0.05  # in which others get on
TASKS_PER_STEP, ROWS_PER_STEP = 200, 10_000


async def housekeeping(app: web.Application) -> AsyncIterator[None]:
    """Keep house while the application runs."""
    keeping = asyncio.create_task(_keep_house())
    yield
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def _keep_house() -> None:
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * SECONDS_BETWEEN_ROUNDS)  # noqa: S311 - so that workers don't ask all at once
        try:
            await sweep()
        except Unavailable:
            pass  # the log has it already
        except Exception:
            log.exception("housekeeping failed, and will try again")


async def sweep() -> int:
    """Remove what is past its time, and give how many rows that were. Raises Unavailable."""
    removed = 0
    while step := await _step():
        removed += step
        await asyncio.sleep(SECONDS_BETWEEN_STEPS)
    if removed:
        log.info("housekeeping removed %d rows", removed)
    return removed


async def _step() -> int:
    given = settings.load()
    values = given.trash_lifetime_seconds, TASKS_PER_STEP, ROWS_PER_STEP, given.known_address_seconds, ROWS_PER_STEP
    [(removed,)] = await database.rows("SELECT sweep(%s, %s, %s) + limits_sweep(%s, %s)", values)
    return int(removed)

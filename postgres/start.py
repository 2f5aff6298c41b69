"""The start of an application: its database's schema is brought up to date, however long that takes, and what hinders it is told once."""

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2

from postgres import migrate
from postgres.errors import explain

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ATTEMPTS = 0.5
WORKER_BOOT_ERROR = 3  # the exit code at which gunicorn gives up; at any other it starts the next worker, for ever
MAX_WORDS_BYTES = 10_000
_TOLD = os.memfd_create("told")  # the last words of all workers that are forked from here, of whom one speaks for the others


class Trouble(NamedTuple):
    """What hinders the start, and how much: what is critical never passes."""

    level: int
    words: str
    error: Exception | None = None


async def see_to_the_schema(database: str, parameters: dict[str, Any], directory: Path) -> None:
    """Return when this version can work with the database's schema; `directory` has its steps. Exits where it never can."""
    last = ""
    while trouble := await _attempt(database, parameters, directory):
        if trouble.words != last and _is_news(trouble.words):
            log.log(trouble.level, trouble.words, exc_info=trouble.error)
            if trouble.level == logging.CRITICAL:
                raise SystemExit(WORKER_BOOT_ERROR)  # of this worker alone: gunicorn stops the others
        last = trouble.words
        await asyncio.sleep(SECONDS_BETWEEN_ATTEMPTS)
    if last and _is_news(""):
        log.info("the database is ready")


async def _attempt(database: str, parameters: dict[str, Any], directory: Path) -> Trouble | None:
    try:
        schema = await asyncio.to_thread(migrate.upgrade, database, parameters, directory)
    except migrate.UnusableError as error:
        return Trouble(logging.CRITICAL, f"{error}")
    except psycopg2.Error as error:
        return Trouble(logging.WARNING, f"the database isn't ready yet: {explain(error, parameters)}")
    except Exception as error:  # noqa: BLE001 - it is told, and tried again
        return Trouble(logging.ERROR, f"the schema can't be brought up to date: {type(error).__name__}", error)
    if schema.missing:
        return Trouble(logging.ERROR, f"{schema.fault}")
    if schema.remark:
        log.warning(schema.remark)
    return None


def _is_news(words: str) -> bool:
    """Note what is told, and return whether something else was told before."""
    fcntl.lockf(_TOLD, fcntl.LOCK_EX)  # whoever is killed lets go of it
    try:
        before = os.pread(_TOLD, MAX_WORDS_BYTES, 0)
        now = words.encode()[:MAX_WORDS_BYTES]
        os.ftruncate(_TOLD, 0)
        os.pwrite(_TOLD, now, 0)
        return now != before
    finally:
        fcntl.lockf(_TOLD, fcntl.LOCK_UN)

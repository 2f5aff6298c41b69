"""Accounts for a siege, each registered from an address of its own, so that no limit is met before the siege begins."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from torture.siege.connection import HOST

PASSWORD = "correct horse battery staple"  # noqa: S105 - of accounts that live for minutes
SECONDS_TO_PREPARE = 300
AT_ONCE = 4  # that are registered: passwords are hashed for it
_NUMBERS = count(1)


class CannotBegin(Exception):
    """What a siege needs can't be had."""


def new_address() -> str:
    """Return an address of this machine's that nobody has used yet."""
    number = next(_NUMBERS)
    return f"127.{number // 62500 + 1}.{number // 250 % 250 + 1}.{number % 250 + 1}"


@asynccontextmanager
async def client(port: int, address: str = "", token: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """Be an ordinary client, from an address of one's own where none is said."""
    connector = aiohttp.TCPConnector(local_addr=(address or new_address(), 0), force_close=True)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(SECONDS_TO_PREPARE)
    async with aiohttp.ClientSession(f"http://{HOST}:{port}", connector=connector, headers=headers, timeout=timeout) as session:
        yield session


async def done(answer: aiohttp.ClientResponse) -> Any:
    """Return what a request that prepares something was answered with."""
    text = await answer.text()
    if answer.status not in (200, 201):
        raise CannotBegin(f"{answer.method} {answer.url.path} was answered {answer.status} {text}")
    return orjson.loads(text)


async def register(port: int, tasks: str = "", login: str = "") -> str:
    """Make an account, with the tasks of a sheet, and return its token."""
    async with client(port) as session:
        values = {"login": login or f"siege-{secrets.token_hex(6)}", "password": PASSWORD}
        async with session.post("/register", data=urlencode(values).encode(), headers=FORM) as answer:
            token = str((await done(answer))["access_token"])
    if tasks:
        async with client(port, token=token) as session, session.post("/import", data=tasks.encode(), headers=SHEET) as answer:
            await done(answer)
    return token


async def register_many(port: int, number: int, tasks: str) -> list[str]:
    """Make so many accounts with the same tasks."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with turns:
            return await register(port, tasks)

    return await asyncio.gather(*(one() for _ in range(number)))


FORM, SHEET = {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "text/csv"}


def sheet(
    number: int, description: str = "", *, names: str = "Task", statuses: Sequence[str] = ("new", "planned"), uids: bool = False
) -> str:
    """Return a CSV of so many tasks; those with UIDs are found again by them."""
    head = "uid,name,description,status" if uids else "name,description,status"
    rows = (f"{f'siege-{n},' if uids else ''}{names} {n},{description},{statuses[n % len(statuses)]}" for n in range(number))
    return "\r\n".join([head, *rows, ""])


FEW = sheet(20, "What there is to do")  # as victims and harmless clients have

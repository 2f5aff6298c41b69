"""Clients that keep a service busy, and what they were answered."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

HANG_SECONDS = 20  # no answer is a long time in coming; who waits so long calls it a hang


class Outcome(NamedTuple):
    """What came of a request: a status, or how it failed."""

    is_change: bool
    began_at: float  # in the monotonic clock's seconds
    seconds: float
    result: int | str

    @property
    def is_good(self) -> bool:
        return self.result == 200


class Load:
    """So many clients, each with a task of its own (or all with one): half of them read and half of them change it, at some rate."""

    def __init__(self, url: str, tokens: Sequence[str], *, clients: int, per_second: float) -> None:
        self._url, self._tokens, self._clients, self._pause = url, tokens, clients, clients / per_second
        self.outcomes: list[Outcome] = []
        self.changes = Counter[str]()  # that were answered well, by token
        self._over = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Let the clients run."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(total=HANG_SECONDS)
        async with aiohttp.ClientSession(self._url, connector=connector, timeout=timeout) as session:
            clients = [asyncio.create_task(self._client(session, number)) for number in range(self._clients)]
            yield self
            self._over.set()
            await asyncio.gather(*clients)

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        token = self._tokens[number % len(self._tokens)]
        await asyncio.sleep(self._pause * number / self._clients)
        while not self._over.is_set():
            began_at = time.monotonic()
            is_change = len(self.outcomes) % 2 == 0
            result = await self._request(session, token, is_change=is_change)
            seconds = time.monotonic() - began_at
            self.outcomes.append(Outcome(is_change, began_at, seconds, result))
            if is_change and result == 200:
                self.changes[token] += 1
            await asyncio.sleep(max(0, self._pause - seconds))

    async def _request(self, session: aiohttp.ClientSession, token: str, *, is_change: bool) -> int | str:
        headers = {"Authorization": token}
        body = {"name": secrets.token_hex(8)} if is_change else None  # which is never the same: that would be no change
        try:
            async with session.request("PATCH" if is_change else "GET", "/task/1", headers=headers, json=body) as answer:
                await answer.read()
                if answer.status == 503 and "Retry-After" not in answer.headers:
                    return "503 without Retry-After"
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__

    def failed(self, which: Callable[[Outcome], bool] = lambda outcome: True) -> Counter[int | str]:
        """Count the failures by what they were."""
        return Counter(outcome.result for outcome in self.outcomes if not outcome.is_good and which(outcome))

"""What the clients share: some of them an account, all of them the journal in which they write down what happens to them."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
import orjson

from torture.journal import Journal, Json, Request, condensed, digest

HOT_USERS, COLD_USERS = 3, 18
SECONDS_OF_PATIENCE = 15  # then a client gives up for good: no answer may take so long
MAX_AT_ONCE = 8  # registrations at the start: each takes a core for some time
PASSWORD = "correct horse battery staple"  # noqa: S105 - of accounts that live for minutes


@dataclass
class Person:
    """An account, and what its clients have heard of it."""

    user_id: int
    token: str
    pace: str
    tasks: dict[int, int] = field(default_factory=dict)  # the revision of each that is there
    trash: set[int] = field(default_factory=set)
    revision: int = 0


class Fleet:
    """Clients that go on until they are told to stop."""

    def __init__(self, url: str, journal: Journal, seed: int) -> None:
        self.people: list[Person] = []
        self.random = random.Random(seed)  # noqa: S311 - not a secret
        self.lags: list[tuple[float, float]] = []  # when this process itself was held up, and how long
        self.health: list[tuple[float, float]] = []  # when the service was asked whether it lives, and how long its answer took
        self._url, self._journal = url, journal
        self._stopping = asyncio.Event()
        self._flights: dict[asyncio.Task[Any], None] = {}

    async def enlist(self) -> None:
        """Register everybody."""
        limit = asyncio.Semaphore(MAX_AT_ONCE)

        async def register(pace: str) -> None:
            async with limit, self.session() as session:
                login = f"{pace}-{secrets.token_hex(6)}"
                async with session.post("/register", json={"login": login, "password": PASSWORD}) as answer:
                    token = (await answer.json())["access_token"]
            user_id = int(jwt.decode(token, options={"verify_signature": False})["sub"])
            self.people.append(Person(user_id, token, pace))

        await asyncio.gather(*(register(pace) for pace in ["hot"] * HOT_USERS + ["cold"] * COLD_USERS))

    @asynccontextmanager
    async def at_work(self, *clients: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Let all clients work; afterwards each ends what it has begun."""
        beside = self._watch_the_clock(), self._watch_health(), self._register_now_and_then()
        async with asyncio.TaskGroup() as group:
            for work in (*clients, *beside):
                group.create_task(work)
            try:
                yield
            finally:
                self._stopping.set()

    def drop(self, part: float) -> None:
        """Have some of the clients go away in the middle of what they asked."""
        for flight in list(self._flights):
            if self.random.random() < part:
                flight.cancel()

    async def pause(self, mean_seconds: float) -> bool:
        """Wait a while; False where it is time to stop."""
        try:
            await asyncio.wait_for(self._stopping.wait(), self.random.uniform(0.5, 1.5) * mean_seconds)
        except TimeoutError:
            return True
        return False

    async def send(self, session: aiohttp.ClientSession, method: str, path: str, request: Request, **options: Any) -> Request:
        """Send a request and write down what came back. A client that is dropped leaves its outcome open."""
        flight = asyncio.create_task(_exchange(session, method, path, request.kind, **options))
        self._flights[flight] = None
        try:
            how = await flight
        except asyncio.CancelledError:
            if (me := asyncio.current_task()) and me.cancelling():
                raise
            how = {"trouble": "gave up"}
        except TimeoutError:
            how = {"trouble": "no answer"}
        except (aiohttp.ClientError, OSError) as error:
            how = {"trouble": f"dropped: {type(error).__name__}"}
        del self._flights[flight]
        self._journal.answered(request, time.monotonic(), **how)
        return request

    def note(self, kind: str, user_id: int, **more: Any) -> Request:
        """Write down that a request is about to be sent."""
        return self._journal.asked(kind, user_id, time.monotonic(), **more)

    def session(self, token: str = "", *, keep: bool = True) -> aiohttp.ClientSession:
        """Return what sends requests, over connections that are kept or not."""
        session = aiohttp.ClientSession(
            self._url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            connector=aiohttp.TCPConnector(force_close=not keep, limit=0),
            timeout=aiohttp.ClientTimeout(SECONDS_OF_PATIENCE),
        )
        session._retry_connection = False  # noqa: SLF001 - else it would send some requests twice, and we write down one
        return session

    async def _watch_the_clock(self) -> None:
        while not self._stopping.is_set():
            before = time.monotonic()
            await asyncio.sleep(0.05)
            if (lag := time.monotonic() - before - 0.05) > 0.1:
                self.lags.append((before, lag))

    async def _watch_health(self) -> None:
        async with self.session(keep=False) as session:
            while await self.pause(0.2):
                asked_at = time.monotonic()
                try:
                    async with session.get("/health/live") as answer:
                        await answer.read()
                except (aiohttp.ClientError, TimeoutError):
                    continue
                self.health.append((asked_at, time.monotonic() - asked_at))

    async def _register_now_and_then(self) -> None:
        async with self.session(keep=False) as session:
            while await self.pause(2):
                login = f"newcomer-{secrets.token_hex(6)}"
                request = self.note("register", 0, tag=login)
                await self.send(session, "POST", "/register", request, json={"login": login, "password": PASSWORD})


async def _exchange(session: aiohttp.ClientSession, method: str, path: str, kind: str, **options: Any) -> Json:
    async with session.request(method, path, **options) as response:
        body = await response.read()
        revision = response.headers.get("X-Revision")
        content: Any = orjson.loads(body) if body else None
        if response.status < 300 and kind in ("list", "list_at", "since"):
            content = condensed(content)
        elif response.status < 300 and kind == "log":
            content = [digest(entry) for entry in content]
        elif kind == "register":
            content = None
        how = {"status": response.status, "revision": revision and int(revision), "answer": content}
        return how | ({"trouble": "without Retry-After"} if response.status == 503 and "Retry-After" not in response.headers else {})

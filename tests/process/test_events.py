"""Live events with real workers: many streams, changes from elsewhere, clients that are cut off, and a stop."""

import asyncio
import random
import secrets
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientSession, ClientTimeout, TCPConnector

import auth
from models import Caller
from tests.conftest import configured, write_task
from tests.process.service import running
from tests.waiting import PATIENCE_SECONDS, slowness

pytestmark = pytest.mark.long

USERS, STREAMS_EACH = 100, 10
CHANGES, SECONDS_BETWEEN_CHANGES = 150, 0.02
NEW = {"name": "Buy milk", "description": "", "status": "new"}

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def callers(sql: Sql) -> list[Caller]:
    """Many users, without the cost of their passwords."""
    logins = [f"follower-{secrets.token_hex(6)}" for _ in range(USERS)]
    users = sql("INSERT INTO users (login, login_key, password_hash) SELECT l, l, '' FROM unnest(%s) l RETURNING id", logins)
    for user in users:
        sql("INSERT INTO user_state (user_id, token_generation) VALUES (%s, 1)", user)
    return [Caller(user_id, 1) for (user_id,) in users]


class Follower:
    """A client that follows a user's changes, and goes on where it was whenever it is cut off."""

    def __init__(self, caller: Caller) -> None:
        self.user_id = caller.user_id
        self.headers = {"Authorization": f"Bearer {auth.issue_token(configured(), caller).access_token}"}
        self.got: dict[int, float] = {}  # revisions, in the order of their coming, and when each came
        self.openings: list[int] = []
        self.faults: list[str] = []
        self.is_open = False
        self.broken_off = 0
        self.task: asyncio.Task[None] | None = None

    async def follow(self, session: ClientSession, url: str) -> None:
        """Follow until the stream ends. One that is broken off, since there is too much to do, goes on where it was."""
        try:
            await self._follow(session, url)
        except ClientPayloadError:
            self.broken_off += 1
            await self.follow(session, url)

    async def _follow(self, session: ClientSession, url: str) -> None:
        headers = self.headers | ({"Last-Event-ID": f"{max(self.got, default=0)}"} if self.openings else {})
        async with session.get(f"{url}/task/events", headers=headers) as response:
            if response.status != 200:
                self.faults.append(f"{response.status} {await response.text()}")
                return
            self.is_open = True
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    revision = int(value)
                elif name == "event" and value == "revision":
                    self.openings.append(revision)
                elif name == "event":
                    if value != "task" or revision in self.got:
                        self.faults.append(f"{value} {revision}")
                    self.got[revision] = time.monotonic()

    def start(self, session: ClientSession, url: str) -> None:
        self.task = asyncio.create_task(self.follow(session, url))

    async def cut_off(self) -> None:
        """Let the connection be closed, as when a train enters a tunnel."""
        assert self.task
        self.is_open = False
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def changes(sql: Sql, callers: list[Caller], count: int) -> Iterator[tuple[int, int, float]]:
    """Change something of somebody's, as another process does; give whose, the revision, and when."""
    for _ in range(count):
        caller = random.choice(callers)
        began = time.monotonic()
        yield caller.user_id, write_task(sql, caller, None, NEW), began


async def all_of(followers: list[Follower], holds: Callable[[Follower], bool]) -> None:
    """Wait until it holds for all of them, and say how many it doesn't hold for where it takes too long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        await asyncio.sleep(0.05)
        lacking = [follower for follower in followers if not holds(follower)]
        if not lacking:
            return
    raise AssertionError(f"{len(lacking)} of {len(followers)}: {[vars(follower) for follower in lacking[:3]]}")


async def test_many_streams_on_two_workers(
    callers: list[Caller], sql: Sql, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    times = slowness()
    followers = [Follower(caller) for caller in callers for _ in range(STREAMS_EACH)]
    made: dict[tuple[int, int], float] = {}
    revisions = dict.fromkeys((caller.user_id for caller in callers), 0)

    def note(user_id: int, revision: int, began: float) -> None:
        made[user_id, revision] = began
        revisions[user_id] = revision

    def has_everything(follower: Follower) -> bool:
        return len(follower.got) == revisions[follower.user_id]

    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None)) as session:
        with running(unused_tcp_port, MAX_CONNECTIONS="1200") as service:
            for follower in followers:
                follower.start(session, service.url)
            await all_of(followers, lambda follower: bool(follower.openings))
            for n, change in enumerate(changes(sql, callers, CHANGES)):
                note(*change)
                if n % 4 == 0:
                    follower = random.choice([follower for follower in followers if follower.task and not follower.task.done()])
                    await follower.cut_off()
                    asyncio.get_running_loop().call_later(random.random(), follower.start, session, service.url)
                await asyncio.sleep(SECONDS_BETWEEN_CHANGES)
            await all_of(followers, lambda follower: follower.is_open and has_everything(follower))
            waits = sorted(
                came - made[follower.user_id, revision]
                for follower in followers
                if len(follower.openings) == 1  # those that weren't cut off
                for revision, came in follower.got.items()
            )
            began = time.monotonic()
            assert await asyncio.to_thread(service.stop, signal.SIGTERM) == 0
            stopped_in = time.monotonic() - began
            assert "SIGKILL" not in service.output
        await asyncio.wait([follower.task for follower in followers if follower.task], timeout=1)
        assert all(follower.task and follower.task.done() for follower in followers)
        assert sql("SELECT count(*) FROM event_stream WHERE user_id = ANY(%s)", list(revisions)) == [(0,)]

        for change in changes(sql, callers, CHANGES // 2):
            note(*change)
        with running(unused_tcp_port, MAX_CONNECTIONS="1200") as service:
            for follower in followers:
                follower.start(session, service.url)
            await all_of(followers, has_everything)
            for follower in followers:
                await follower.cut_off()

    with capsys.disabled():
        print(
            f"\n{len(followers)} streams, {len(made)} changes, {len(waits)} events timed: median {statistics.median(waits) * 1000:.0f} ms,"
            f" p99 {waits[len(waits) * 99 // 100] * 1000:.0f} ms; stopped in {stopped_in:.1f} s"
        )
    assert [fault for follower in followers for fault in follower.faults] == []
    for follower in followers:
        assert [*follower.got] == list(range(1, revisions[follower.user_id] + 1))
    assert sum(len(follower.openings) > 2 for follower in followers) > CHANGES // 8
    times = max(times, slowness())
    assert times > 1.5 or not any(follower.broken_off for follower in followers)
    assert statistics.median(waits) < 0.6 * times
    assert stopped_in < 10  # well before gunicorn would kill the workers

"""The service under load while something goes wrong. REPEAT=20 does each of it so many times: for faults that show now and then."""

import asyncio
import gzip
import os
import secrets
import signal
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import psycopg2
import pytest
import requests

import auth
from models import Caller
from tests.conftest import configured
from tests.process.cluster import Cluster, running_cluster
from tests.process.load import Load, Outcome
from tests.process.service import Service, running
from tests.waiting import PATIENCE_SECONDS, slowness

pytestmark = pytest.mark.long

REPEAT = int(os.environ.get("REPEAT", "1"))
CLIENTS = 20
MEGABYTE = 1024 * 1024
repeated = pytest.mark.parametrize("turn", range(REPEAT))


class World:
    """A service, its PostgreSQL, and users with a task each."""

    def __init__(self, cluster: Cluster, service: Service) -> None:
        self.cluster, self.service = cluster, service

    def users(self, count: int) -> dict[str, int]:
        """Make users with a task each, and give their ids by what speaks for them."""
        made = {}
        for _ in range(count):
            name = secrets.token_hex(8)
            [(user_id,)] = self.sql(f"INSERT INTO users (login, login_key, password_hash) VALUES ('{name}', '{name}', 'none') RETURNING id")
            self.sql(f"INSERT INTO user_state (user_id, token_generation) VALUES ({user_id}, 1)")
            token = auth.issue_token(configured(), Caller(user_id, 1)).access_token
            made[f"Bearer {token}"] = user_id
            answer = requests.post(
                f"{self.service.url}/task",
                json={"name": "a", "description": "", "status": "new"},
                headers={"Authorization": f"Bearer {token}"},
                timeout=10,
            )
            assert answer.status_code == 201, answer.text
        return made

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self.cluster(statement, "service")

    def changes(self, user_id: int) -> int:
        """Count a user's changes, in the log, by the revision and by the task."""
        [(logged, revision, stored)] = self.sql(
            "SELECT (SELECT count(*) FROM task_log WHERE user_id = s.user_id), s.revision - 1, (SELECT revision - 1 FROM task"
            f" WHERE user_id = s.user_id) FROM user_state s WHERE user_id = {user_id}"
        )
        assert logged == revision == stored
        return int(logged)

    def memory(self) -> int:
        """Return the bytes that gunicorn and its workers have, each page counted once."""
        return sum(proportional_set_size(pid) for pid in [self.service.process.pid, *self.service.workers()])

    @asynccontextmanager
    async def load(self, *, users: int = CLIENTS, per_second: float = 200) -> AsyncIterator[Load]:
        """Keep the service busy, and make sure afterwards that nothing answered was lost, nothing was done twice, and nothing was a fault."""
        made = await asyncio.to_thread(self.users, users)
        load = Load(self.service.url, list(made), clients=CLIENTS, per_second=per_second)
        async with load.running():
            yield load
        assert len(load.outcomes) > 50
        for token, user_id in made.items():
            unknown = sum(outcome.is_change and not outcome.is_good for outcome in load.outcomes)
            assert load.changes[token] <= self.changes(user_id) <= load.changes[token] + unknown


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def proportional_set_size(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@pytest.fixture(scope="module")
def cluster(server: Any) -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def opened(cluster: Cluster, unused_tcp_port_factory: Any) -> Callable[..., Any]:
    """Return a function that starts a service of two workers on that PostgreSQL."""

    def run(**environment: str) -> Any:
        where = {
            "DB_HOST": cluster.host,
            "DB_PORT": "5432",
            "DB": "service",
            "DB_USER": "postgres",
            "LOG_LEVEL": "WARNING",
            "RATE_LIMIT": "off",
        }
        return running(unused_tcp_port_factory(), **where | environment)

    return run


@pytest.fixture(scope="module")
def world(cluster: Cluster, opened: Any) -> Iterator[World]:
    """A service that outlives the tests here."""
    with opened() as service:
        yield World(cluster, service)


# PostgreSQL


def ready(cluster: Cluster) -> bool:
    try:
        return cluster("SELECT 1") == [(1,)]
    except psycopg2.Error:
        return False


def restart(cluster: Cluster, how: signal.Signals, away_seconds: float = 0) -> None:
    cluster.stop(how)
    time.sleep(away_seconds)
    cluster.start()


def crash(cluster: Cluster) -> None:
    os.kill(cluster.backends()[0], signal.SIGKILL)
    time.sleep(0.1)
    while not ready(cluster):
        time.sleep(0.01)


TROUBLES: dict[str, Callable[[Cluster], Any]] = {
    "restarted fast": lambda cluster: restart(cluster, signal.SIGINT),
    "restarted at once": lambda cluster: restart(cluster, signal.SIGQUIT),
    "crashed": crash,
    "connections cut": lambda cluster: cluster("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'service'"),
    "away for 2 s": lambda cluster: restart(cluster, signal.SIGINT, 2),
}


@repeated
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_postgresql_in_trouble_is_answered_503_and_service_is_back_at_once(world: World, trouble: str, turn: int) -> None:
    times = slowness()
    async with world.load() as load:
        await asyncio.sleep(0.3)
        began_at = time.monotonic()
        await asyncio.to_thread(TROUBLES[trouble], world.cluster)
        back_at = time.monotonic()
        await asyncio.sleep(1.2 + times)
    times = max(times, slowness())

    def is_late(outcome: Outcome) -> bool:
        return outcome.began_at > back_at + times

    assert set(load.failed()) <= {503}
    assert not load.failed(is_late)
    assert max(outcome.seconds for outcome in load.outcomes) < 3 * times
    if back_at - began_at < 0.4:
        assert not load.failed(lambda outcome: not outcome.is_change)
        assert load.failed().total() <= CLIENTS


@repeated
async def test_a_postgresql_that_stands_still_is_answered_503_soon_and_health_at_once(world: World, turn: int) -> None:
    slowest, times = 0.0, slowness()
    async with world.load() as load:
        await asyncio.sleep(0.3)
        with world.cluster.frozen():
            end = time.monotonic() + 3
            async with aiohttp.ClientSession() as session:
                while time.monotonic() < end:
                    asked_at = time.monotonic()
                    async with session.get(f"{world.service.url}/health/live") as answer:
                        assert answer.status == 200
                    slowest = max(slowest, time.monotonic() - asked_at)
                    await asyncio.sleep(0.05)
        back_at = time.monotonic()
        await asyncio.sleep(0.5 + times)
    times = max(times, slowness())
    assert slowest < 0.3 * times
    assert set(load.failed()) <= {503}
    assert all(outcome.seconds < 2.6 * times for outcome in load.outcomes if not outcome.is_good)
    assert not load.failed(lambda outcome: outcome.began_at > back_at + times)


async def test_of_a_standby_one_reads_and_changes_are_503(cluster: Cluster, opened: Any) -> None:
    async def ask(session: aiohttp.ClientSession) -> list[int]:
        answers = [
            await session.get("/task"),
            await session.get("/health/ready"),
            await session.get("/task/1/log"),
            await session.post("/task", json={"name": "a", "description": "", "status": "new"}),
            await session.delete("/task/7"),
            await session.post("/get-token", json={"login": "nobody", "password": "wrong password"}),  # counted in an unlogged table
            await session.get("/task/events"),
            await session.post("/import", data="name,description,status\na,b,new\n", headers={"Content-Type": "text/csv"}),
        ]
        answers[-2].close()
        assert all("Retry-After" in answer.headers for answer in answers if answer.status == 503)
        return [answer.status for answer in answers]

    with opened(RATE_LIMIT="on") as service:
        [token] = World(cluster, service).users(1)
        async with aiohttp.ClientSession(service.url, headers={"Authorization": token}) as session:
            assert await ask(session) == [200, 200, 200, 201, 404, 401, 200, 200]
            with cluster.standby():
                await asyncio.sleep(1)
                assert await ask(session) == [200, 503, 200, 503, 503, 503, 503, 503]
            await asyncio.sleep(1)
            assert await ask(session) == [200, 200, 200, 201, 404, 401, 200, 200]


# gunicorn


@repeated
@pytest.mark.parametrize("users", [CLIENTS, 1], ids=["many users", "one user"])
async def test_new_workers_take_over_and_nobody_notices(world: World, users: int, turn: int) -> None:
    before = set(world.service.workers())
    async with world.load(users=users) as load:
        await asyncio.sleep(0.3)
        world.service.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while before & set(world.service.workers()):
                await asyncio.sleep(0.1)
    assert not load.failed()
    assert len(world.service.workers()) == 2


@repeated
async def test_workers_that_end_after_so_many_requests_lose_none(cluster: Cluster, opened: Any, turn: int) -> None:
    with opened(GUNICORN_CMD_ARGS="--max-requests 150 --max-requests-jitter 100") as service:
        async with World(cluster, service).load() as load:
            seen: set[int] = set()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(seen) < 4:
                    seen.update(service.workers())
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
    assert not load.failed()


@repeated
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_when_gunicorn_ends_every_answered_change_is_there(cluster: Cluster, opened: Any, how: signal.Signals, turn: int) -> None:
    with opened() as service:
        async with World(cluster, service).load(per_second=20_000) as load:
            await asyncio.sleep(0.5)
            workers = service.workers()
            service.process.send_signal(how)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while any(map(lives, workers)):  # that lose their master end by themselves
                    await asyncio.sleep(0.05)
    failed = load.failed()
    assert failed.pop("ClientConnectorError")  # nobody listens any more: no request was on its way
    assert failed.total() <= 1  # who came between the last look at who waits and the listener's end, some microseconds later


# Clients


@repeated
def test_of_a_thousand_clients_that_go_away_none_leaves_anything_behind(world: World, turn: int) -> None:
    users = world.users(4)
    address = ("127.0.0.1", int(world.service.url.rpartition(":")[2]))
    bodies = {"PATCH": b'{"name": "%d"}', "POST": b'{"name": "%d", "description": "", "status": "new"}', "GET": b""}
    random = Random(turn)

    def go_away(numbers: range) -> None:
        for number in numbers:
            ask_and_go(number)

    def ask_and_go(number: int) -> None:
        token = random.choice(list(users))
        method = random.choice(["PATCH", "PATCH", "POST", "GET"])
        body = bodies[method] % number if b"%" in bodies[method] else b""
        head = f"{method} /task{'' if method == 'POST' else '/1'} HTTP/1.1\r\nHost: us\r\nAuthorization: {token}\r\n"
        data = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        with socket.create_connection(address) as connection, suppress(ConnectionError):
            connection.sendall(data[: random.randrange(len(data) // 2, len(data) + len(data) // 2)])
            time.sleep(random.choice([0, 0, 0.001, 0.005]))
            if random.random() < 0.5:  # with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    threads = [threading.Thread(target=go_away, args=(range(start, start + 125),)) for start in range(0, 1000, 125)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before: list[Any] = []
    while before != (before := world.sql("SELECT sum(revision) FROM user_state")):  # what was sent goes on
        time.sleep(0.3)
    assert world.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'service' AND state LIKE 'idle in transaction%'") == [(0,)]
    for token, user_id in users.items():
        [(revision, tasks, logged)] = world.sql(
            f"SELECT (SELECT revision FROM user_state WHERE user_id = {user_id}), (SELECT count(*) FROM task WHERE user_id = {user_id}),"
            f" (SELECT count(*) FROM task_log WHERE user_id = {user_id})"
        )
        assert revision == tasks + logged  # each change altered one field
        answer = requests.patch(f"{world.service.url}/task/1", json={"name": "last"}, headers={"Authorization": token}, timeout=5)
        assert answer.json()["revision"] == revision + 1


async def p99(world: World) -> float:
    async with world.load(per_second=100) as load:
        await asyncio.sleep(2)
    assert not load.failed()
    return statistics.quantiles((outcome.seconds for outcome in load.outcomes), n=100)[98]


async def test_500_slow_clients_slow_nobody_else_down_and_are_cut_off(opened: Any, cluster: Cluster) -> None:
    with opened(REQUEST_TIMEOUT_SECONDS="4") as service:
        world = World(cluster, service)
        [token] = world.users(1)
        times, alone = slowness(), await p99(world)
        head = f"POST /task HTTP/1.1\r\nHost: us\r\nAuthorization: {token}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
        began_at = time.monotonic()
        slow = [await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2])) for _ in range(500)]
        for number, (_, writer) in enumerate(slow):
            writer.write((head + ("\r\n{" if number % 2 else "")).encode())

        async def drip() -> None:
            while True:
                await asyncio.sleep(0.5)
                for _, writer in slow:
                    if not writer.is_closing():
                        writer.write(b"x")

        dripping = asyncio.create_task(drip())
        with_them = await p99(world)
        answers = await asyncio.gather(*(asyncio.wait_for(reader.read(), PATIENCE_SECONDS) for reader, _ in slow), return_exceptions=True)
        seconds = time.monotonic() - began_at
        dripping.cancel()
        for _, writer in slow:
            writer.close()
    times = max(times, slowness())
    assert with_them < (2 * alone + 0.05) * times
    assert seconds < 4 + 2 + 2 * times  # their deadline, what lingers, and what the machine needs
    assert not [answer for answer in answers if isinstance(answer, bytes) and answer and not answer.startswith(b"HTTP/1.1 408 ")]


def chunked(size: int) -> Iterator[bytes]:
    for _ in range(size // 65536):
        yield bytes(65536)


@pytest.mark.parametrize("kind", ["gzip", "deflate", "br", "zstd", "chunked", "long"])
def test_a_body_that_is_a_bomb_or_too_large_costs_no_memory(world: World, kind: str) -> None:
    [token] = world.users(1)
    headers = {"Authorization": token, "Content-Type": "application/json"}
    if kind in ("chunked", "long"):
        data: Any = chunked(64 * MEGABYTE) if kind == "chunked" else bytes(64 * MEGABYTE)
        expected = 413
    else:
        data, expected = gzip.compress(bytes(100 * MEGABYTE)), 415  # whatever it is: nobody looks into it
        headers["Content-Encoding"] = kind
    before, peak, over = world.memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.01):
            peak = max(peak, world.memory())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        answer = requests.post(f"{world.service.url}/task", data=data, headers=headers, timeout=20)
        assert answer.status_code == expected
    except requests.ConnectionError:
        assert kind in ("chunked", "long")  # it was still sending when the service had heard enough
    over.set()
    watching.join()
    assert peak - before < 20 * MEGABYTE


def give_the_largest_tasks(world: World, users: Iterable[int]) -> None:
    for user_id in users:
        columns = "user_id, id, name, description, status, created_at, updated_at, created_revision, revision"
        long = "repeat('a', 9999) || U&'\\+01F600'"  # as Python's text, four times as long
        world.sql(
            f"INSERT INTO task ({columns}) SELECT user_id, n, name, {long}, status, created_at, updated_at, n, n"
            f" FROM task, generate_series(2, 430) n WHERE user_id = {user_id} AND id = 1"
        )
        world.sql(f"UPDATE user_state SET revision = 430 WHERE user_id = {user_id}")


async def test_32_clients_that_list_the_largest_tasks_fit_into_512_megabytes(opened: Any, cluster: Cluster) -> None:
    with opened() as service:
        world = World(cluster, service)
        users = world.users(4)
        give_the_largest_tasks(world, users.values())
        peak, sizes = 0, set[int]()

        async def list_tasks(session: aiohttp.ClientSession, token: str) -> None:
            for _ in range(2):
                async with session.get(f"{service.url}/task", headers={"Authorization": token}) as answer:
                    assert answer.status == 200
                    sizes.add(len(await answer.read()))

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            listing = asyncio.gather(*(list_tasks(session, token) for token in users for _ in range(8)))
            while not listing.done():
                peak = max(peak, world.memory())
                await asyncio.sleep(0.02)
            await listing
    assert min(sizes) > 3.9 * MEGABYTE
    assert peak < 400 * MEGABYTE  # which leaves something to the system's buffers


@pytest.mark.parametrize(
    ("paths", "users", "connections"),
    [
        (("/task", "/task?format=csv", "/task?format=ics", "/export"), 8, 160),
        (("/task?format=ics",), 1, 120),
        (("/task/events?since=0",), 40, 400),
    ],
    ids=["all kinds of long answers", "one user's calendars", "streams of events"],
)
async def test_many_who_do_not_read_fit_into_512_megabytes_and_others_are_answered(
    opened: Any, cluster: Cluster, paths: tuple[str, ...], users: int, connections: int
) -> None:
    with opened() as service:
        world = World(cluster, service)
        slow = world.users(users)
        give_the_largest_tasks(world, slow.values())
        [(other, user_id)] = world.users(1).items()
        give_the_largest_tasks(world, [user_id])
        tokens, peak = list(slow), 0
        with ExitStack() as opened_ones:
            for number in range(connections):
                connection = opened_ones.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                connection.connect(("127.0.0.1", int(service.url.rpartition(":")[2])))
                head = f"GET {paths[number // users % len(paths)]} HTTP/1.1\r\nHost: x\r\nAuthorization: {tokens[number % users]}\r\n\r\n"
                connection.sendall(head.encode())

            async def list_tasks() -> None:
                async with aiohttp.ClientSession() as session:
                    for path in (*["/task"] * 10, "/task?format=ics", "/export"):
                        async with session.get(f"{service.url}{path}", headers={"Authorization": other}) as answer:
                            assert answer.status == 200
                            await answer.read()

            listing = asyncio.create_task(list_tasks())
            while not listing.done():
                peak = max(peak, world.memory())
                await asyncio.sleep(0.05)
            await listing
    assert peak < 400 * MEGABYTE


# Too much


async def test_more_than_can_be_served_is_503_at_once_and_health_is_not(opened: Any, cluster: Cluster) -> None:
    with opened(MAX_REQUESTS_AT_ONCE="16") as service:
        world = World(cluster, service)
        tokens = list(world.users(16))
        over = threading.Event()
        healthy: list[float] = []

        def watch() -> None:
            while not over.wait(0.05):
                with closing(requests.Session()) as session:
                    asked_at = time.monotonic()
                    assert session.get(f"{service.url}/health/live", timeout=5).status_code == 200
                    healthy.append(time.monotonic() - asked_at)

        watching = threading.Thread(target=watch)
        watching.start()
        statuses = dict[int, list[float]]()

        async def hammer(session: aiohttp.ClientSession, token: str, end: float) -> None:
            while time.monotonic() < end:
                asked_at = time.monotonic()
                async with session.patch("/task/1", json={"name": "a"}, headers={"Authorization": token}) as answer:
                    await answer.read()
                statuses.setdefault(answer.status, []).append(time.monotonic() - asked_at)

        async with aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=0)) as session:
            end = time.monotonic() + 2
            await asyncio.gather(*(hammer(session, token, end) for token in tokens for _ in range(10)))
        over.set()
        watching.join()
    assert set(statuses) == {200, 503}
    assert len(statuses[200]) > 100
    assert statistics.median(healthy) < 0.1 * slowness()

"""What is measured, and who may see it."""

import asyncio
import hmac
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp.test_utils import TestClient
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from accounts import passwords
from rest import overload
from telemetry import metrics
from tests.conftest import Person, Start, configured
from tests.waiting import PATIENCE_SECONDS

TOKEN = "only-for-prometheus"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
Measured = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch, start: Start) -> TestClient[Any, Any]:
    """A client of an application that is measured."""
    monkeypatch.setattr(metrics, "SECONDS_BETWEEN_WRITES", 0.05)
    return await start(metrics_token=TOKEN)


@pytest.fixture
async def watched(client: TestClient[Any, Any]) -> Person:
    """Somebody without a token, before a service that is measured."""
    return Person(client)


async def measured(watched: Person) -> Measured:
    """Return all numbers, by name and labels."""
    answer = await watched.get("/metrics", headers=OPERATOR)
    assert answer.status == 200
    return numbers(answer.text)


def numbers(text: str) -> Measured:
    families = text_string_to_metric_families(text)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


class Difference:
    """What has come to the numbers since."""

    def __init__(self, watched: Person) -> None:
        self.watched = watched

    async def __aenter__(self) -> Self:
        self.before = await measured(self.watched)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.after = await measured(self.watched)

    def __call__(self, name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return self.after[key] - self.before.get(key, 0)

    def new(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return set(self.after) - set(self.before)


# Who may see it


async def test_without_the_setting_there_is_no_such_address(start: Start) -> None:
    stranger = Person(await start())
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        for headers in ({}, OPERATOR, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            assert (await stranger(method, "/metrics", headers=headers)).status == 404


@pytest.mark.parametrize("sent", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN} "])
async def test_prometheus_is_let_in(watched: Person, sent: str) -> None:
    answer = await watched.get("/metrics", headers={"Authorization": sent})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "http_requests_total{" in answer.text


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN} x",
        f"Bearer {TOKEN.upper()}",
        "Bearer \xff\xfe",
        "Bearer \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        "Bearer " + "x" * 7000,
    ],
)
async def test_another_token_is_refused(watched: Person, sent: str) -> None:
    answer = await watched.get("/metrics", headers={"Authorization": sent})
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="task", error="invalid_token"')


@pytest.mark.parametrize("sent", [None, "", TOKEN, f"Basic {TOKEN}", f"BearerX {TOKEN}", f"Token {TOKEN}"])
async def test_without_a_token_the_answer_says_how(watched: Person, sent: str | None) -> None:
    answer = await watched.get("/metrics", headers={} if sent is None else {"Authorization": sent})
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="task"')


async def test_two_tokens_are_refused(watched: Person) -> None:
    async with watched.client.get(
        "/metrics", headers=[("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]
    ) as answer:
        assert answer.status == 401


async def test_a_users_token_is_refused(watched: Person, newcomer: Any) -> None:
    watched.token = (await newcomer("alice")).token
    assert (await watched.get("/task")).status == 200
    assert (await watched.get("/metrics")).status == 401


async def test_the_token_opens_nothing_else(watched: Person) -> None:
    assert (await watched.get("/task", headers=OPERATOR)).status == 401


async def test_the_address_has_its_methods(watched: Person) -> None:
    head = await watched("HEAD", "/metrics", headers=OPERATOR)
    assert (head.status, head.text) == (200, "")
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = await watched(method, "/metrics", headers=OPERATOR)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
    assert (await watched.get("/metrics?x=y", headers=OPERATOR)).status == 400


async def test_the_tokens_are_compared_in_constant_time(watched: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert (await watched.get("/metrics", headers=OPERATOR)).status == 401
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


# What is measured


async def test_requests_are_counted_by_pattern_method_and_status(watched: Person, newcomer: Any) -> None:
    watched.token = (await newcomer("alice")).token
    async with Difference(watched) as difference:
        await watched.new_task()
        for task_id in (1, 1, 2, 3):
            await watched.get(f"/task/{task_id}")
        await watched.get("/nowhere/secret")
    assert difference("http_requests_total", method="POST", route="/task", status="201") == 1
    assert difference("http_requests_total", method="GET", route="/task/{id}", status="200") == 2
    assert difference("http_requests_total", method="GET", route="/task/{id}", status="404") == 2
    assert difference("http_requests_total", method="GET", route="none", status="404") == 1
    assert difference("http_request_duration_seconds_count", method="GET", route="/task/{id}") == 4
    assert difference("http_request_duration_seconds_bucket", method="GET", route="/task/{id}", le="+Inf") == 4
    assert 0 < difference("http_request_duration_seconds_sum", method="GET", route="/task/{id}") < 4


async def test_what_a_client_writes_makes_no_new_series(watched: Person) -> None:
    for method in ("PROPFIND", "GET"):
        await watched(method, "/nowhere")
    await watched.get("/metrics", headers={"Authorization": "Bearer x"})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while ("event_loop_lag_seconds_sum", frozenset()) not in await measured(watched):  # what is measured every second is there, too
            await asyncio.sleep(0.01)
    async with Difference(watched):
        pass
    async with Difference(watched) as difference:
        for n in range(20):
            await watched.get(f"/nowhere/{n}?{n}={n}", headers={"X-Request-ID": f"mine-{n}", "User-Agent": f"mine-{n}"})
            await watched.get("/metrics", headers={"Authorization": f"Bearer {n}"})
        for method in ("MKCOL", "M-SEARCH", "REPORT", "LOCK", "UNLOCK"):
            await watched(method, "/nowhere")
    assert difference("http_requests_total", method="GET", route="none", status="404") == 20
    assert difference("http_requests_total", method="other", route="none", status="404") == 5
    assert difference.new() == set()


async def test_refused_tokens_are_counted(watched: Person, newcomer: Any, sql: Callable[..., Any]) -> None:
    alice = await newcomer("alice")
    async with Difference(watched) as difference:
        for _ in range(3):
            await watched.get("/task", headers={"Authorization": "Bearer x.y.z"})
        await watched.get("/task")
        sql("UPDATE user_state SET token_generation = token_generation + 1 WHERE user_id = %s", alice.caller.user_id)
        await watched.get("/task", headers={"Authorization": f"Bearer {alice.token}"})
    assert difference("http_refusals_total", kind="invalid-token") == 4
    assert difference("http_refusals_total", kind="unauthorized") == 1


async def test_what_went_wrong_is_counted_by_why(watched: Person, newcomer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.token = (await newcomer("alice")).token
    async with Difference(watched) as difference:
        for broken in ((watched.service.database, "is_usable", False), (watched.client.app[overload.UNDER_WAY], "_most", 0)):
            with monkeypatch.context() as patch:
                patch.setattr(*broken)
                assert (await watched.get("/task")).status == 503
    assert difference("http_refusals_total", kind="database-unavailable") == 1
    assert difference("http_refusals_total", kind="overloaded") == 1
    assert difference("http_requests_total", method="GET", route="/task", status="503") == 2
    assert difference.after["http_requests_at_work", frozenset()] == 1  # the one that asks
    assert difference.after["http_requests_at_work_max", frozenset()] == configured().max_requests_at_once


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attempts to get in be counted."""
    monkeypatch.setenv("RATE_LIMIT", "on")


async def test_each_quota_that_is_used_up_is_counted(limited: None, watched: Person) -> None:
    async with Difference(watched) as difference:
        statuses = [
            (await watched.post("/get-token", data={"login": "nobody-counts-this", "password": "wrong password"})).status for _ in range(7)
        ]
    assert statuses == [401] * 5 + [429] * 2
    assert difference("http_refusals_total", kind="quota-exceeded: login") == 2
    assert difference("http_refusals_total", kind="wrong-credentials") == 5


async def test_a_refusal_that_never_happened_is_0(watched: Person) -> None:
    async with Difference(watched) as difference:
        pass
    for kind in (
        "unexpected",
        "database-unavailable",
        "overloaded",
        "took-too-long",
        "too-many-connections",
        "broken-off",
        "invalid-token",
    ):
        assert ("http_refusals_total", frozenset({("kind", kind)})) in difference.before


async def test_requests_that_travel_together_are_one_batch(watched: Person, newcomer: Any) -> None:
    watched.token = (await newcomer("alice")).token
    async with Difference(watched) as difference:
        await watched.new_task()
        await asyncio.gather(*(watched.get("/task/1") for _ in range(10)))
        await watched.get("/task")
    assert difference("database_batch_size_sum", statement="task_write") == 1
    assert difference("database_batch_size_sum", statement="task_find") == 10
    assert difference("database_batch_size_sum", statement="task_page") == 1
    if configured().batch_size > 1:
        assert 1 <= difference("database_batch_size_count", statement="task_find") < 10


async def test_the_pool_is_seen(watched: Person) -> None:
    await watched.get("/health/ready")
    most = configured().db_pool_size
    pool = watched.service.database.pool_backend
    held = [await pool.acquire() for _ in range(most)]
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    seen = await measured(watched)
    await pool.release(held.pop())
    held.append(await waiting)
    for connection in held:
        await pool.release(connection)
    later = await measured(watched)
    states = [("database_connections", frozenset({("state", state)})) for state in ("in use", "free")]
    waits, limit = ("database_waiting", frozenset()), ("database_connections_max", frozenset())
    assert [seen[key] for key in (*states, waits, limit)] == [most, 0, 1, most]
    assert [later[key] for key in (*states, waits, limit)] == [0, most, 0, most]


async def test_passwords_that_wait_are_seen(watched: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    hashing, go_on = watched.client.app[passwords.HASHING], asyncio.Event()
    loop = asyncio.get_running_loop()
    threads = configured().hashing_threads
    wait = asyncio.run_coroutine_threadsafe
    calls = [asyncio.create_task(hashing.run(lambda: wait(go_on.wait(), loop).result())) for _ in range(threads + 3)]
    await asyncio.sleep(0)
    seen = await measured(watched)
    go_on.set()
    await asyncio.gather(*calls)
    assert seen["passwords_waiting", frozenset()] == 3
    assert seen["passwords_waiting_max", frozenset()] == configured().hashing_queue
    assert (await measured(watched))["passwords_waiting", frozenset()] == 0


async def test_open_streams_are_seen(watched: Person, newcomer: Any) -> None:
    headers = {"Authorization": f"Bearer {(await newcomer('alice')).token}"}
    streams = "event_streams", frozenset()
    async with watched.client.get("/task/events", headers=headers), watched.client.get("/task/events", headers=headers):
        assert (await measured(watched))[streams] == 2
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await measured(watched))[streams]:
            await asyncio.sleep(0.05)


async def test_the_process_is_seen(watched: Person) -> None:
    async with Difference(watched) as difference:
        await asyncio.sleep(10 * metrics.SECONDS_BETWEEN_WRITES)
    assert difference.after["workers", frozenset()] == 1
    assert 30e6 < difference.after["process_resident_memory_bytes", frozenset()] < 3e9
    assert difference("process_cpu_seconds_total") > 0
    assert difference("event_loop_lag_seconds_count") >= 1


# The files


def test_the_workers_have_places_and_the_dead_leave_theirs() -> None:
    assert metrics.free_place([]) == 0
    assert metrics.free_place(iter([0, 1, 3])) == 2
    assert metrics.free_place([0, 1]) == 2


def test_where_there_is_no_shared_memory_the_files_are_temporary_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metrics, "MEMORY", tmp_path / "nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setattr(metrics._Files, "directory", "")
    monkeypatch.setenv(metrics.DIRECTORY, "that of another service")
    metrics.share()
    [directory] = tmp_path.iterdir()
    assert os.environ[metrics.DIRECTORY] == str(directory)
    metrics.share()
    assert [*tmp_path.iterdir()] == [directory]
    metrics.unshare()
    assert [*tmp_path.iterdir()] == []


async def test_a_stopping_worker_writes_what_it_has(watched: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SECONDS_BETWEEN_WRITES", 60)
    await asyncio.sleep(0.1)  # the next time is far away now
    before = await measured(watched)
    for _ in range(5):
        await watched.get("/nowhere")
    missed = "http_requests_total", frozenset({("method", "GET"), ("route", "none"), ("status", "404")})
    await watched.client.close()
    assert numbers(metrics.show().decode())[missed] - before.get(missed, 0) == 5

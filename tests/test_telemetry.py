"""What one sees from outside: the name of a request and its line in the log."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

import app
from rest import telemetry
from tests.conftest import Person

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Lines:
    """Give a function that gives the access lines written since."""
    telemetry.flush()
    capsys.readouterr()
    caplog.set_level(logging.INFO)
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_each_request_has_its_line(alice: Person, stranger: Person, lines: Lines) -> None:
    assert alice.caller
    await alice.new_task()
    await alice.get("/task/1?status=new")
    named = await stranger.get("/nowhere/secret", headers={"X-Request-ID": "mine"})
    telemetry.flush()
    made, read, missed = lines()
    assert set(made) == {"time", "level", "logger", "message", "request_id", "method", "route", "status", "duration_ms", "user_id"}
    assert (made["method"], made["route"], made["status"], made["user_id"]) == ("POST", "/task", 201, alice.caller.user_id)
    assert (read["method"], read["route"], read["status"]) == ("GET", "/task/{id}", 200)
    assert (missed["request_id"], missed["route"], missed["status"], missed["user_id"]) == ("mine", None, 404, None)
    assert named.headers["X-Request-ID"] == "mine"
    assert made["request_id"] != read["request_id"]
    assert made["duration_ms"] > 0


async def test_lines_are_written_soon_by_themselves(stranger: Person, lines: Lines) -> None:
    await stranger.get("/health/live")
    written: list[dict[str, Any]] = []
    async with asyncio.timeout(2):
        while not written:
            await asyncio.sleep(0.02)
            written = lines()
    assert [line["route"] for line in written] == ["/health/live"]


async def test_a_stopping_service_writes_what_it_has(aiohttp_client: Any, lines: Lines) -> None:
    client: TestClient[Any, Any] = await aiohttp_client(await app.create_app())
    await client.get("/health/live")
    await client.close()
    assert [line["route"] for line in lines()] == ["/health/live"]


async def test_above_info_nothing_is_written(stranger: Person, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await stranger.get("/health/live")
    telemetry.flush()
    assert lines() == []


@pytest.mark.parametrize("method", ["PROPFIND", "M-SEARCH", "QUERY"])
async def test_a_line_is_json_whatever_the_method(stranger: Person, lines: Lines, method: str) -> None:
    assert (await stranger(method, "/task")).status in (401, 405)
    telemetry.flush()
    assert [line["method"] for line in lines()] == [method]


async def test_the_names_of_requests_differ(stranger: Person) -> None:
    names = {(await stranger.get("/health/live")).headers["X-Request-ID"] for _ in range(100)}
    assert len(names) == 100
    assert all(telemetry.REQUEST_ID.fullmatch(name) for name in names)

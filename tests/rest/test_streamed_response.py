"""Answers that are written piece by piece: they are headed as all are, and one that fails half-way is never taken for whole."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_sse import EventSourceResponse

from rest import errors, streamed_response
from rest.errors import Gone
from telemetry import logs
from tests.conftest import Person
from tests.waiting import PATIENCE_SECONDS

Write = Callable[[bytes], Awaitable[None]]
Streams = Callable[..., Awaitable[Person]]


async def at_once(request: web.Request) -> None:
    """Let the answer begin."""


@pytest.fixture
async def streams() -> AsyncIterator[Streams]:
    """Return a function that gives somebody who is answered by what a coroutine writes, at an address that the document has.

    What is done before that, and of which kind the answer is, may be said.
    """
    clients: list[TestClient[Any, Any]] = []

    async def start(
        body: Callable[[Write], Awaitable[None]],
        before: Callable[[web.Request], Awaitable[None]] = at_once,
        kind: type[web.StreamResponse] = web.StreamResponse,
    ) -> Person:
        async def handler(request: web.Request) -> web.StreamResponse:
            await before(request)
            request[errors.EXTRA_HEADERS] = {"Cache-Control": "no-store"}
            response = kind()
            response.content_type = "application/json"
            async with streamed_response.answering(request, response):
                await body(response.write)
            return response

        application = web.Application(middlewares=[logs.middleware, errors.middleware])
        application.router.add_get("/health/ready", handler)
        server = TestServer(application)
        clients.append(TestClient(server))
        await clients[-1].start_server()
        assert server.runner
        assert server.runner.server
        server.runner.server.handler_cancellation = False  # as it is in production: nobody is told that a client has gone
        return Person(clients[-1])

    yield start
    for client in clients:
        await client.close()


async def test_it_has_the_headers_that_every_answer_has(streams: Streams) -> None:
    async def body(write: Write) -> None:
        await write(b"[1,")
        await write(b"2]")

    answer = await (await streams(body)).get("/health/ready", headers={"X-Request-ID": "mine"})
    assert (answer.status, answer.json) == (200, [1, 2])
    assert answer.headers["X-Request-ID"] == "mine"
    assert answer.headers["Cache-Control"] == "no-store"
    assert errors.HEADERS.items() <= dict(answer.headers).items()


@pytest.mark.parametrize("error", [RuntimeError("SELECT secret"), Gone("it was purged"), TimeoutError()], ids=repr)
async def test_what_fails_half_way_breaks_the_connection(streams: Streams, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    async def body(write: Write) -> None:
        await write(b"[1,")
        await asyncio.sleep(0.05)  # or else the head would not have left yet
        raise error

    somebody = await streams(body)
    with pytest.raises(ClientPayloadError):
        await somebody.get("/health/ready")
    [record] = [record for record in caplog.records if record.name == "rest.streamed_response"]
    assert (record.levelno, bool(record.exc_info)) == (
        (logging.ERROR, True) if isinstance(error, RuntimeError) else (logging.WARNING, False)
    )


async def test_a_client_that_goes_is_no_failure(streams: Streams, caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def body(write: Write) -> None:
        try:
            while True:
                await write(b" ")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    somebody = await streams(body)
    async with somebody.client.get("/health/ready") as response:
        assert response.status == 200
    async with asyncio.timeout(PATIENCE_SECONDS):
        await ended.wait()
    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("kind", [web.StreamResponse, EventSourceResponse])
async def test_a_client_that_goes_before_it_begins_is_no_failure(
    streams: Streams, caplog: pytest.LogCaptureFixture, kind: type[web.StreamResponse]
) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()
    written: list[bytes] = []

    async def until_it_is_gone(request: web.Request) -> None:
        arrived.set()
        while request.transport is not None:
            await asyncio.sleep(0.01)
        gone.set()

    async def body(write: Write) -> None:
        written.append(b" ")

    somebody = await streams(body, until_it_is_gone, kind)
    asking = asyncio.create_task(somebody.get("/health/ready"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await arrived.wait()
        asking.cancel()
        await gone.wait()
    await asyncio.sleep(0)
    assert written == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

"""Connections: answers are what they would be, slow clients are cut off, there are never too many, and at the end no request is lost; each beside what aiohttp does."""

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from rest import overload, streamed_response
from rest.errors import EXTRA_HEADERS, HEADERS
from server import connections, descriptors, runner, unread
from server.connection import ConnectionLimits
from server.responses import LongResponse, ShortResponse
from server.runner import Runner
from tests.waiting import PATIENCE_SECONDS, until

HEAD = b"GET /here HTTP/1.1\r\nHost: us\r\n"
REQUEST = HEAD + b"\r\n"
POST = b"POST /here HTTP/1.1\r\nHost: us\r\nContent-Length: 4\r\n\r\n"


class Wire(NamedTuple):
    """A connection on which a test says what it likes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> bytes:
        """Return an answer of Content-Length; nothing where the connection ended instead."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return head + await self.reader.readexactly(length)

    async def seconds_until_closed(self) -> float:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass
        return loop.time() - began_at


class House:
    """An application whose one handler does what the test says, on a port."""

    def __init__(self, runner: web.BaseRunner) -> None:
        self.runner = runner
        self._wires: list[Wire] = []

    async def call(self, **options: Any) -> Wire:
        """Open a connection to it."""
        wire = Wire(*await asyncio.open_connection(*self.runner.addresses[0], **options))
        self._wires.append(wire)
        return wire

    async def hang_up(self) -> None:
        for wire in self._wires:
            wire.writer.close()
            with suppress(ConnectionError):
                await wire.writer.wait_closed()


USUAL = ConnectionLimits(request_timeout_seconds=10, keepalive_seconds=75, max_connections=800, max_header_bytes=8190)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Open = Callable[..., Any]


async def at_once(request: web.Request) -> web.Response:
    return web.Response(text=(await request.text())[:100])


@pytest.fixture
def opened() -> Open:
    """Return a function that opens a house with some limits."""

    @asynccontextmanager
    async def run(
        handler: Handler = at_once, kind: Any = Runner, on_shutdown: Any = None, whose: Any = None, **limits: Any
    ) -> AsyncIterator[House]:
        application = web.Application()
        application[runner.REFUSAL] = overload.refusal()
        if whose:
            application[runner.WHOSE] = whose
        application[runner.LIMITS] = USUAL._replace(**limits)
        application.router.add_route("*", "/here", handler)
        application.on_shutdown.extend([on_shutdown] if on_shutdown else [])
        house = House(kind(application))
        await house.runner.setup()
        await web.SockSite(house.runner, socket.create_server(("127.0.0.1", 0))).start()  # as gunicorn's worker does
        try:
            yield house
        finally:
            await house.hang_up()
            await house.runner.cleanup()

    return run


# Short answers


@pytest.mark.parametrize("request_line", ["GET /here HTTP/1.1", "GET /here HTTP/1.0", "HEAD /here HTTP/1.1", "POST /here HTTP/1.1"])
@pytest.mark.parametrize("header", ["X-Nothing: 1", "Connection: close", "Connection: keep-alive", "X-Last: 1"])
async def test_a_short_answer_is_byte_by_byte_what_aiohttp_would_send(opened: Open, request_line: str, header: str) -> None:
    sent = f"{request_line}\r\nHost: us\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode()

    async def heard(kind: type[web.Response]) -> bytes:
        async def answer(request: web.Request) -> web.Response:
            response = kind(body=b"[1]", status=201, headers={"Content-Type": "application/json", "ETag": '"7"', "Date": "today"})
            if "X-Last" in request.headers:
                response.force_close()
            return response

        async with opened(answer) as house, asyncio.timeout(PATIENCE_SECONDS):
            wire = await house.call()
            wire.send(sent)
            return await wire.reader.readuntil(b"\r\n\r\n") + await wire.reader.readexactly(0 if request_line.startswith("HEAD") else 3)

    ours = await heard(ShortResponse)
    assert ours == await heard(web.Response)
    assert b" 201 Created\r\n" in ours


async def test_a_short_answer_to_a_client_that_has_gone_is_no_error(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[ShortResponse] = []

    async def answer(request: web.Request) -> web.Response:
        answers.append(ShortResponse(body=b"[1]"))
        if request.transport and "X-Gone" in request.headers:
            request.transport.abort()
        return answers[-1]

    async with opened(answer) as house:
        gone, there = await house.call(), await house.call()
        gone.send(HEAD + b"X-Gone: 1\r\n\r\n")
        await gone.seconds_until_closed()
        there.send(REQUEST)
        assert b"200 OK" in await there.answer()
    assert len(answers) == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_nor_is_a_client_that_goes_while_the_rest_of_its_body_is_thrown_away(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="not read")

    async with opened(answer) as house:
        wire = await house.call()
        wire.send(POST)
        await wire.answer()
        [connection] = house.runner.server.connections
        task = connection._task_handler
        wire.writer.close()
        await until(task.done)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Bodies


@pytest.mark.parametrize(("length", "status"), [(0, b"200"), (1024, b"200"), (1025, b"413")])
@pytest.mark.parametrize("is_there", [True, False])
async def test_a_body_may_be_so_long_be_it_there_already_or_not(opened: Open, length: int, status: bytes, *, is_there: bool) -> None:
    async def echo(request: web.Request) -> web.Response:
        while is_there and not request.content.is_eof():
            await asyncio.sleep(0)
        return web.Response(body=await overload.read(request.clone(client_max_size=1024)))

    async with opened(echo) as house:
        wire = await house.call()
        wire.send(b"POST /here HTTP/1.1\r\nHost: us\r\nContent-Length: %d\r\n\r\n" % length)
        await asyncio.sleep(0 if is_there else 0.02)
        wire.send(bytes(length))
        answer = await wire.answer()
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert status == b"413" or answer.endswith(b"\r\n\r\n" + bytes(length))


# Slow clients


async def test_a_head_that_does_not_come_in_time_closes_the_connection(opened: Open) -> None:
    async with opened(request_timeout_seconds=0.3, keepalive_seconds=600) as house:
        silent, slow, second = await house.call(), await house.call(), await house.call()
        second.send(REQUEST)
        assert b"200 OK" in await second.answer()
        second.send(HEAD)

        async def drip() -> None:
            with suppress(ConnectionError):
                while True:  # whoever took this for a head that gets on would never close
                    slow.send(b"X: y\r\n")
                    await slow.writer.drain()
                    await asyncio.sleep(0.05)

        slow.send(HEAD)
        dripping = asyncio.create_task(drip())
        took = await asyncio.gather(*(wire.seconds_until_closed() for wire in (silent, slow, second)))
        assert min(took) > 0.2, took
        dripping.cancel()


async def test_a_connection_may_be_idle_for_longer_than_a_head_may_take(opened: Open) -> None:
    async with opened(request_timeout_seconds=0.1, keepalive_seconds=600) as house:
        wire = await house.call()
        for _ in range(2):
            wire.send(REQUEST)
            assert b"200 OK" in await wire.answer()
            await asyncio.sleep(0.3)


async def test_a_connection_is_not_idle_for_ever(opened: Open) -> None:
    async with opened(request_timeout_seconds=0.1, keepalive_seconds=0.3) as house:
        wire = await house.call()
        wire.send(REQUEST)
        assert b"200 OK" in await wire.answer()
        assert await wire.seconds_until_closed() > 0.2


def has_the_security_headers(answer: bytes) -> bool:
    return all(f"\r\n{name}: {value}\r\n".encode() in answer for name, value in HEADERS.items())


NO_HTTP = [
    b"hunter2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: us\r\nAuthorization: Bearer hunter2\x01\r\n\r\n",
    b"GET / HTTP/1.1\r\nhunter2 : x\r\n\r\n",
    b"GET /\x01hunter2 HTTP/1.1\r\n\r\n",
    b"GET http://hunter2[ HTTP/1.1\r\nHost: us\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: us\r\nContent-Length: hunter2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: us\r\nAuthorization: Bearer " + b"hunter2" * 2000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("sent", NO_HTTP, ids=lambda sent: sent[:60])
async def test_what_is_no_http_is_not_sent_back(opened: Open, sent: bytes) -> None:
    """It may be a token, in a header that a program wrote wrongly. aiohttp shows what it can't read."""
    for kind, is_shown in ((Runner, False), (web.AppRunner, True)):
        async with opened(kind=kind) as house:
            wire = await house.call()
            wire.send(sent)
            answer = await wire.answer()
            assert answer.startswith(b"HTTP/1.0 400 "), answer
            assert (b"hunter2" in answer) == is_shown, answer


@pytest.mark.parametrize("lines", [[b"X: " + b"y" * 9000], [b"X: " + b"y" * 4000] * 17], ids=["one line", "all lines"])
async def test_a_head_may_not_be_too_large(opened: Open, lines: list[bytes]) -> None:
    async with opened() as house:
        wire = await house.call()
        wire.send(HEAD)
        for line in lines:
            wire.send(line + b"\r\n")
            await asyncio.sleep(0.001)
        answer = await wire.answer()
        assert answer.startswith(b"HTTP/1.0 4"), answer
        assert has_the_security_headers(answer)
        await wire.seconds_until_closed()


@asynccontextmanager
async def at_work(opened: Open) -> AsyncIterator[tuple[House, Wire, asyncio.Event]]:
    """Return a connection whose first request is at work until the event."""
    go, began = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request) -> web.Response:
        began.set()
        await go.wait()
        return web.Response(text="done")

    async with opened(waits) as house:
        wire = await house.call()
        wire.send(REQUEST)
        await began.wait()
        yield house, wire, go
        go.set()


LINES = 12 * [b"X: " + b"y" * 8000 + b"\r\n"]


@pytest.mark.parametrize("pieces", [[HEAD, *LINES], [HEAD + b"".join(LINES) + b"\r\n"]], ids=["line by line", "all at once"])
async def test_nor_may_one_that_comes_while_another_request_is_at_work(opened: Open, pieces: list[bytes]) -> None:
    async with at_work(opened) as (_, wire, go):
        for piece in pieces:
            wire.send(piece)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        go.set()
        assert b"done" in await wire.answer()
        assert (await wire.answer()).startswith(b"HTTP/1.0 431 ")
        await wire.seconds_until_closed()


async def test_of_the_requests_behind_one_that_is_at_work_few_are_taken_ahead(opened: Open) -> None:
    async with at_work(opened) as (house, wire, go):
        wire.send(20 * REQUEST)
        await asyncio.sleep(0.05)
        assert [len(connection._messages) for connection in house.runner.server.connections] == [2]
        go.set()
        assert all([b"done" in await wire.answer() for _ in range(21)])


async def test_a_body_behind_a_request_that_is_at_work_is_no_head(opened: Open) -> None:
    async with at_work(opened) as (_, wire, go):
        wire.send(POST.replace(b"Length: 4", b"Length: 300000") + bytes(100_000))
        await asyncio.sleep(0.05)
        wire.send(bytes(200_000) + REQUEST)
        await asyncio.sleep(0.05)
        go.set()
        assert [b"done" in await wire.answer() for _ in range(3)] == [True] * 3


LONG = 12 * 1024 * 1024  # more than the system's buffers hold


async def long_answer(request: web.Request) -> web.Response:
    return LongResponse(body=bytes(LONG))


async def long_stream(request: web.Request) -> web.StreamResponse:
    async def body() -> AsyncGenerator[bytes]:
        yield bytes(LONG)

    request[EXTRA_HEADERS] = {}
    return await streamed_response.send(request, web.StreamResponse(), body())


async def slow_reader(house: House, request: bytes = REQUEST) -> Wire:
    """Ask for a long answer, and read none of it."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    narrow.connect(house.runner.addresses[0])
    wire = Wire(*await asyncio.open_connection(sock=narrow))
    house._wires.append(wire)
    wire.send(request)
    return wire


async def test_a_client_that_does_not_read_its_answer_is_given_up(opened: Open) -> None:
    async with opened(long_answer, request_timeout_seconds=0.3) as house:
        await slow_reader(house)
        slow = house.runner.server.unread.readers
        await until(lambda: len(slow) == 1)
        await until(lambda: not slow and not house.runner.server.connections)


async def a_little_too_much(request: web.Request) -> web.Response:
    """Leave something unsent, but less than what asyncio calls much."""
    transport = request.transport
    assert transport
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    while not transport.get_write_buffer_size():
        while not transport.get_write_buffer_size():
            transport.write(bytes(1024))
        await asyncio.sleep(0.05)  # in which the system might yet find room
    return LongResponse(body=b"done", headers={"Connection": "close"} if "last" in request.query else {})


@pytest.mark.long
@pytest.mark.parametrize("query", [b"", b"?last"], ids=["when it has been idle for long enough", "after the last answer"])
async def test_nor_is_a_little_kept_for_a_client_that_does_not_read(opened: Open, query: bytes) -> None:
    async with opened(a_little_too_much, request_timeout_seconds=0.5, keepalive_seconds=0.1) as house:
        await slow_reader(house, REQUEST.replace(b"/here", b"/here" + query))
        await until(lambda: len(house.runner.server.connections) == 1)
        await until(lambda: not house.runner.server.connections)


async def test_who_has_not_read_its_answer_yet_is_not_idle(opened: Open) -> None:
    async with opened(a_little_too_much, max_connections=1) as house:
        await slow_reader(house)
        await until(lambda: any(connection.writing_paused and connection._waiter for connection in house.runner.server.connections))
        assert b"503 Service Unavailable" in await (await house.call()).answer()


@pytest.mark.long
async def test_a_client_that_reads_slowly_gets_all_of_it(opened: Open) -> None:
    async with opened(long_answer, request_timeout_seconds=0.2) as house:
        wire = await slow_reader(house)
        taken = 0
        for _ in range(10):
            taken += len(await wire.reader.read(256 * 1024))
            await asyncio.sleep(0.1)
        while chunk := await wire.reader.read(1024 * 1024):
            taken += len(chunk)
            if taken > LONG:
                break
        assert taken > LONG


@pytest.mark.long
@pytest.mark.parametrize("handler", [long_answer, long_stream])
@pytest.mark.parametrize(
    ("most", "seconds"), [(2.5 * LONG, 0), (1.25 * LONG, 60)], ids=["too much", "far too much, though none is slow yet"]
)
async def test_of_many_that_do_not_read_those_who_began_first_are_given_up(
    opened: Open, monkeypatch: pytest.MonkeyPatch, handler: Handler, most: float, seconds: float
) -> None:
    monkeypatch.setattr(unread, "MAX_UNREAD_BYTES", most)
    monkeypatch.setattr(unread, "SECONDS_TO_BE_SLOW", seconds)
    async with opened(handler) as house:
        for _ in range(6):
            await slow_reader(house)
            await asyncio.sleep(0.05)
        slow = house.runner.server.unread.readers
        await until(lambda: len(slow) == 2)
        assert sum(connection.held_bytes for connection in slow) <= 2.5 * LONG


@pytest.mark.parametrize("handler", [long_answer, long_stream])
async def test_a_long_answer_is_kept_and_counted_as_a_whole_until_it_is_read(opened: Open, handler: Handler) -> None:
    """Or else whoever leaves but its end unread would have all of it kept for next to nothing."""
    async with opened(handler) as house:
        wire = await slow_reader(house)
        taken = 0
        while taken < LONG - 1024 * 1024:
            taken += len(await wire.reader.read(64 * 1024))
        [connection] = house.runner.server.connections
        await until(lambda: connection.slow_since and connection in house.runner.server.unread.readers)
        assert connection.unread < 2 * 1024 * 1024
        assert connection.held_bytes >= LONG
        while taken < LONG:
            taken += len(await wire.reader.read(1024 * 1024))
        await until(lambda: not connection.answer_bytes)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_of_a_long_answer_nothing_is_kept(opened: Open, method: str) -> None:
    body = bytes(range(256)) * 1000
    answers: list[LongResponse] = []

    async def handler(request: web.Request) -> web.Response:
        answers.append(LongResponse(body=body))
        return answers[-1]

    async with opened(handler) as house:
        wire = await house.call()
        for _ in range(2):
            wire.send(REQUEST.replace(b"GET", method.encode()))
            head = await wire.reader.readuntil(b"\r\n\r\n")
            assert b"Content-Length: 256000\r\n" in head
            assert method == "HEAD" or await wire.reader.readexactly(len(body)) == body
        await asyncio.sleep(0.01)
        assert [answer.body for answer in answers] == [None, None]
        assert [connection.kept_bytes for connection in house.runner.server.connections] == [0]


# How many


async def test_a_new_connection_takes_the_place_of_one_that_is_idle(opened: Open) -> None:
    async with opened(max_connections=3, keepalive_seconds=600) as house:
        idle = [await house.call() for _ in range(3)]
        for wire in idle:
            wire.send(REQUEST)
            assert b"200 OK" in await wire.answer()
        fourth = await house.call()
        fourth.send(REQUEST)
        assert b"200 OK" in await fourth.answer()
        await idle[0].seconds_until_closed()
        for wire in idle[1:]:
            wire.send(REQUEST)
            assert b"200 OK" in await wire.answer()


async def test_where_none_is_idle_a_new_connection_is_told_so(opened: Open) -> None:
    go = asyncio.Event()

    async def waits(request: web.Request) -> web.Response:
        await go.wait()
        return web.Response(text="done")

    async with opened(waits, max_connections=2) as house:
        busy = [await house.call() for _ in range(2)]
        for wire in busy:
            wire.send(REQUEST)
        await asyncio.sleep(0.05)
        third = await house.call()
        answer = await third.answer()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in answer
        assert has_the_security_headers(answer)
        assert b"too many connections" in answer
        go.set()
        assert all([b"done" in await wire.answer() for wire in busy])


FEW_DESCRIPTORS = """
import asyncio, resource, socket, sys
import uvloop
from aiohttp import web
from server import runner
from server.connection import ConnectionLimits

resource.setrlimit(resource.RLIMIT_NOFILE, (230, 230))

async def waits(request):
    print("at work", flush=True)
    await asyncio.sleep(3600)

async def main():
    application = web.Application()
    application[runner.LIMITS] = ConnectionLimits(3600, 75, 800, 8190)
    application.router.add_get("/here", waits)
    house = runner.Runner(application)
    await house.setup()
    listener = socket.create_server(("127.0.0.1", 0), backlog=500)
    await web.SockSite(house, listener).start()
    print(listener.getsockname()[1], flush=True)
    await asyncio.sleep(3600)

uvloop.run(main())
"""


async def test_where_descriptors_are_few_connections_are_too_and_each_is_answered() -> None:
    command = [sys.executable, "-c", FEW_DESCRIPTORS]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=os.environ | {"PYTHONPATH": "."})
    assert process.stdout
    assert process.stderr
    async with AsyncExitStack() as stack:
        stack.callback(process.kill)
        port = int(await process.stdout.readline())
        wires = []
        for number in range(300):
            wires.append(Wire(*await asyncio.open_connection("127.0.0.1", port)))
            stack.callback(wires[-1].writer.close)
            if number < 30:
                wires[-1].send(REQUEST)
                assert await process.stdout.readline() == b"at work\n"
        assert {(await wire.answer()).partition(b"\r\n")[0] for wire in wires[30:]} == {b"HTTP/1.1 503 Service Unavailable"}
        assert b"No more than 30 connections of 800: this process may open 230 files" in await process.stderr.readline()
    await process.wait()


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    less = before if most == resource.RLIM_INFINITY else most - 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (less, most))
        wanted = less + 1 - descriptors.FOR_OTHERS
        assert descriptors.room_for(wanted) == wanted
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (less + 1, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


# The end


@pytest.mark.parametrize(("kind", "is_ours"), [(Runner, True), (web.AppRunner, False)], ids=["ours", "aiohttp's"])
async def test_a_runner_that_ends_answers_every_request(opened: Open, kind: Any, is_ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS_FOR_SUCCESSORS", 0.1)
    monkeypatch.setattr(runner, "SECONDS_FOR_A_LAST_REQUEST", 0.3)

    async def slowly(request: web.Request) -> web.Response:
        text = await request.text()
        await asyncio.sleep(0.1)
        return web.Response(text=f"done {text}")

    async with opened(slowly, kind, request_timeout_seconds=600, keepalive_seconds=600) as house:
        under_way, half_sent, idle, head_begun, silent = [await house.call() for _ in range(5)]
        idle.send(REQUEST)
        assert b"done" in await idle.answer()
        under_way.send(REQUEST)
        half_sent.send(POST + b"bo")
        head_begun.send(HEAD)
        await asyncio.sleep(0.05)
        ending = asyncio.create_task(house.runner.cleanup())
        await asyncio.sleep(0.02)
        with suppress(ConnectionError):
            half_sent.send(b"dy")
            idle.send(REQUEST)
            head_begun.send(b"\r\n")
        answers = [await wire.answer() if is_ours or wire is under_way else b"" for wire in (under_way, half_sent, idle, head_begun)]
        assert [b"done" in answer for answer in answers] == [True, is_ours, is_ours, is_ours]
        assert [b"Connection: close" in answer for answer in answers] == [is_ours] * 4
        assert b"done body" in answers[1] or not is_ours
        if is_ours:
            await silent.seconds_until_closed()
            await asyncio.wait_for(ending, PATIENCE_SECONDS)
        else:
            await house.hang_up()
            await ending


async def test_an_application_is_told_once_and_before_its_requests_have_ended(opened: Open) -> None:
    told: list[str] = []
    over = asyncio.Event()

    async def goes_on(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response(text="done")

    async def tell(application: web.Application) -> None:
        told.append("shut down")
        over.set()

    async with opened(goes_on, on_shutdown=tell) as house:
        wire = await house.call()
        wire.send(REQUEST)
        await asyncio.sleep(0.05)
        ending = asyncio.create_task(house.runner.cleanup())
        assert b"done" in await wire.answer()
        await ending
    assert told == ["shut down"]


async def test_until_others_take_them_connections_are_taken(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS_FOR_SUCCESSORS", 0.2)
    async with opened() as house:
        await house.call()
        address = house.runner.addresses[0]
        ending = asyncio.create_task(house.runner.cleanup())
        await asyncio.sleep(0.1)
        late = await house.call()
        late.send(REQUEST)
        assert b"Connection: close" in await late.answer()
        await asyncio.sleep(0.2)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        await house.hang_up()
        await ending


async def test_whom_the_system_has_taken_when_the_listener_closes_is_answered(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS_FOR_SUCCESSORS", 0)
    async with opened() as house:
        ended = connections.Server.wait_until_ended
        with ExitStack() as late:
            came: list[socket.socket] = []

            async def ended_while_some_come(server: connections.Server, *how_long: Any) -> None:
                if not came:
                    for _ in range(3):  # while the loop is held up, so that nobody takes them
                        came.append(late.enter_context(socket.create_connection(house.runner.addresses[0])))
                        came[-1].sendall(REQUEST)
                else:
                    await ended(server, *how_long)

            monkeypatch.setattr(connections.Server, "wait_until_ended", ended_while_some_come)
            await house.runner.cleanup()
            assert [each.recv(1024)[:15] for each in came] == [b"HTTP/1.1 200 OK"] * 3


async def test_what_takes_long_is_finished_where_others_have_taken_over(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS_FOR_SUCCESSORS", 0.1)
    may_end, asked = asyncio.Event(), list[float]()

    async def work(request: web.Request) -> web.Response:
        await may_end.wait()
        return web.Response()

    def takes_its_time() -> bool:
        asked.append(asyncio.get_running_loop().time())
        return True

    async with opened(work, request_timeout_seconds=0.2) as house:
        house.runner._takes_its_time = takes_its_time
        wire = await house.call()
        wire.send(REQUEST)
        await asyncio.sleep(0.05)
        ending = asyncio.create_task(house.runner.cleanup())
        await until(lambda: len(asked) > 3)  # its time is over
        may_end.set()
        assert (await wire.answer()).startswith(b"HTTP/1.1 200 OK\r\n")
        await asyncio.wait_for(ending, PATIENCE_SECONDS)


async def test_what_goes_on_for_ever_is_broken_off(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS_FOR_SUCCESSORS", 0.1)
    monkeypatch.setattr(runner, "SECONDS_TO_BREAK_OFF", 0.1)

    async def for_ever(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with opened(for_ever, request_timeout_seconds=0.2) as house:
        wire = await house.call()
        wire.send(REQUEST)
        await asyncio.sleep(0.05)
        await asyncio.wait_for(house.runner.cleanup(), PATIENCE_SECONDS)
        assert await wire.answer() == b""

"""HTTP of other versions than 1.1, and connections that close: the client sees where each answer ends, and whether it is whole."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from aiohttp import web

import app
from rest import streamed_response
from rest.errors import EXTRA_HEADERS, Gone
from server import runner
from server.runner import Runner
from tests.conftest import Person, configured
from tests.server.test_connections import LONG, USUAL, House, slow_reader
from tests.waiting import PATIENCE_SECONDS, until

METRICS_TOKEN = "a token for Prometheus"
STREAMED = ["/task?format=csv", "/task?format=ics", "/export"]
ADDRESSES = [
    *("/task", "/task/1", "/task/log", "/task/1/log", "/health/live", "/health/ready"),
    *("/docs", "/docs/problems", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json", "/nowhere", "/task?x=y", "/task/9", "/metrics"),
]


class Heard(NamedTuple):
    """An answer."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """A connection on which Alice says what she likes, to the service as it runs in production."""

    def __init__(self, token: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._token, self.reader, self.writer = token, reader, writer

    def send(self, request_line: str, *headers: str, body: bytes = b"") -> None:
        lines = [request_line, "Host: us", f"Authorization: Bearer {self._token}", *headers]
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body)

    async def head(self) -> Heard:
        async with asyncio.timeout(PATIENCE_SECONDS):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        version, status, _ = first.split(" ", 2)
        return Heard(version, int(status), {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}, b"")

    async def answer(self, *, has_body: bool = True) -> Heard:
        """Return an answer that says its length."""
        head = await self.head()
        return head._replace(body=await self.reader.readexactly(int(head.headers["content-length"]) if has_body else 0))

    async def to_the_end(self) -> bytes:
        """Return what comes until the service closes the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()


Call = Callable[..., Awaitable[Line]]


@pytest.fixture
async def call(alice: Person) -> AsyncIterator[Call]:
    """Return a function that opens a connection of Alice's, who has a task; what the service's settings are besides may be said once."""
    task, runners, lines = await alice.new_task(), [], []

    async def open_line(token: str | None = alice.token, **overrides: Any) -> Line:
        if not runners:
            runners.append(Runner(await app.create_app(configured(metrics_token=METRICS_TOKEN, **overrides))))
            await runners[0].setup()
            await web.SockSite(runners[0], socket.create_server(("127.0.0.1", 0))).start()
        lines.append(Line(str(token), *await asyncio.open_connection(*runners[0].addresses[0])))
        return lines[-1]

    yield open_line
    assert task["id"] == 1
    for line in lines:
        line.writer.close()
    await runners[0].cleanup()


# Where an answer ends


async def test_a_streamed_answer_in_http_1_0_ends_with_its_connection(alice: Person, call: Call) -> None:
    for path in STREAMED:
        line = await call()
        line.send(f"GET {path} HTTP/1.0", "Connection: keep-alive")
        head = await line.head()
        assert (head.status, {"connection", "content-length", "transfer-encoding"} & {*head.headers}) == (200, set())
        assert (await line.to_the_end()).decode() == (await alice.get(path)).text


async def test_other_answers_in_http_1_0_say_their_length_and_leave_it_open(call: Call) -> None:
    line = await call()
    for path in ADDRESSES:
        for method in ("GET", "HEAD"):
            line.send(f"{method} {path} HTTP/1.0", "Connection: keep-alive")
            answer = await line.answer(has_body=method == "GET")
            assert (answer.version, answer.headers["connection"]) == ("HTTP/1.0", "keep-alive"), path


@pytest.mark.parametrize(("path", "status"), [("/task", 304), ("/task?format=csv", 304), ("/openapi.json", 304), ("/task/1", 204)])
async def test_so_do_those_that_never_have_a_body(alice: Person, call: Call, path: str, status: int) -> None:
    line, tag = await call(), (await alice.get(path)).headers["ETag"]
    method, *known = ["DELETE"] if status == 204 else ["GET", f"If-None-Match: {tag}"]
    for expected in (status, 404 if status == 204 else status):
        line.send(f"{method} {path} HTTP/1.0", "Connection: keep-alive", *known)
        answer = await (line.head() if expected == status else line.answer())
        assert (answer.status, answer.headers["connection"]) == (expected, "keep-alive")


async def test_nobody_is_asked_for_a_body_in_http_1_0(call: Call) -> None:
    line = await call()
    body = b'{"name": "Milk", "description": "", "status": "new"}'
    line.send("POST /task HTTP/1.0", "Expect: 100-continue", "Content-Type: application/json", f"Content-Length: {len(body)}")
    line.writer.write(body)
    assert (await line.answer()).status == 201


async def test_whoever_says_close_is_told_so_and_it_is_done(call: Call) -> None:
    for path in (*ADDRESSES, *STREAMED):
        for method in ("GET", "HEAD"):
            line = await call()
            line.send(f"{method} {path} HTTP/1.1", "Connection: close")
            assert (await line.head()).headers["connection"] == "close", path
            await line.to_the_end()


@pytest.mark.parametrize(
    ("version", "said", "told"),
    [("1.1", "close", "close"), ("1.1", "keep-alive", None), ("1.0", "keep-alive", None), ("1.0", "close", None)],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_stream_of_events_is_no_exception(
    alice: Person, call: Call, version: str, said: str, told: str | None, method: str
) -> None:
    line = await call()
    line.send(f"{method} /task/events HTTP/{version}", f"Connection: {said}")
    head = await line.head()
    if (version, method, said) == ("1.0", "HEAD", "keep-alive"):
        told = said  # it has a length
    assert (head.status, head.headers.get("connection")) == (200, told)
    assert method == "HEAD" or "transfer-encoding" in head.headers or version == "1.0"
    await alice.post("/revoke-tokens")
    if said == "close" or (version, method) == ("1.0", "GET"):
        await line.to_the_end()
    elif method == "GET":
        async with asyncio.timeout(PATIENCE_SECONDS):
            await line.reader.readuntil(b"\r\n0\r\n\r\n")
        line.send("GET /health/live HTTP/1.1")
        assert (await line.answer()).status == 200


@pytest.mark.long
async def test_a_request_that_took_too_long_to_arrive_is_the_last(call: Call) -> None:
    line = await call(request_timeout_seconds=1)
    line.send("POST /task HTTP/1.1", "Content-Type: application/json", "Content-Length: 4", body=b"tr")
    answer = await line.answer()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    line.writer.write(b"ue")  # what is late is no reason to go on
    assert await line.to_the_end() == b""


# Whether an answer is whole


HAS_COME = asyncio.Event()  # the head, and a part of the body


async def broken_off() -> AsyncGenerator[bytes]:
    yield b"[1,"
    await HAS_COME.wait()
    raise Gone("it was purged")


async def endless() -> AsyncGenerator[bytes]:
    yield b"[1,"
    await asyncio.sleep(60)


async def long() -> AsyncGenerator[bytes]:
    yield bytes(LONG)


@pytest.mark.long
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("body", [broken_off, endless, long], ids=["it failed", "the service stopped", "the client read too slowly"])
async def test_a_part_of_an_answer_never_looks_whole(monkeypatch: pytest.MonkeyPatch, body: Any, version: str) -> None:
    monkeypatch.setattr("server.runner.SECONDS_FOR_SUCCESSORS", 0.1)
    monkeypatch.setattr("server.runner.SECONDS_TO_BREAK_OFF", 0.1)
    HAS_COME.clear()

    async def handler(request: web.Request) -> web.StreamResponse:
        request[EXTRA_HEADERS] = {}
        return await streamed_response.send(request, web.StreamResponse(), body())

    application = web.Application()
    application[runner.LIMITS] = USUAL._replace(request_timeout_seconds=1)
    application.router.add_get("/here", handler)
    house = House(Runner(application))
    await house.runner.setup()
    await web.SockSite(house.runner, socket.create_server(("127.0.0.1", 0))).start()
    line = await slow_reader(house, f"GET /here HTTP/{version}\r\nHost: us\r\nConnection: keep-alive\r\n\r\n".encode())
    if body is long:
        await until(lambda: len(house.runner.server.unread.readers) == 1)
        await until(lambda: not house.runner.server.connections)
    else:
        await line.reader.readuntil(b"[1,")
        HAS_COME.set()
    if body is endless:
        await house.runner.cleanup()
    with pytest.raises(ConnectionResetError):
        await line.reader.read()
    await house.hang_up()
    await house.runner.cleanup()


# Versions that aren't spoken


@pytest.mark.parametrize(
    "request_line", ["GET /task HTTP/2.0", "GET /task HTTP/0.9", "GET /task", "GET /task HTTP/3.0", "GET /task HTTP/1.2"]
)
async def test_other_versions_are_refused(call: Call, request_line: str) -> None:
    line = await call()
    line.send("GET /health/live HTTP/1.1")
    assert (await line.answer()).status == 200
    line.send(request_line)
    answer = await line.answer()
    assert (answer.version, answer.status) == ("HTTP/1.0", 505)
    assert answer.body == b"This service speaks HTTP/1.1 and HTTP/1.0."
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert await line.to_the_end() == b""


@pytest.mark.parametrize("request_line", ["GET /task HTTP/11", "GET /task HTTP/2", "GET /task http/1.1", "PRI * HTTP/2.0"])
async def test_what_is_no_http_is_no_version(call: Call, request_line: str) -> None:
    line = await call()
    line.send(request_line)
    assert (await line.answer()).status == 400
    assert await line.to_the_end() == b""


async def test_nobody_goes_on_in_http_2(call: Call) -> None:
    line = await call()
    line.send("GET /health/live HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert (await line.answer()).status == 200
    line.send("GET /health/live HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", body=b"GET /task HTTP/2.0\r\n\r\n")
    assert (await line.answer()).status == 200
    assert (await line.answer()).status == 505

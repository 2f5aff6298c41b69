"""How requests arrive: each that is whole gets its answer, in order, however it comes and whatever stands behind it; what is none is told so."""

import asyncio
import hashlib
import logging
import random
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from rest import overload
from server import aiohttp_fixes
from server.arrival import end_with_client
from server.connection import Connection
from tests.server.test_connections import HEAD, POST, REQUEST, Open, Wire
from tests.waiting import PATIENCE_SECONDS, until

CHUNKED = b"POST /here HTTP/1.1\r\nHost: us\r\nTransfer-Encoding: chunked\r\n\r\n"


def numbered(number: int, *headers: str, method: str = "GET", body: str = "") -> bytes:
    lines = [f"{method} /here?{number} HTTP/1.1", "Host: us", *headers, *([f"Content-Length: {len(body)}"] if body else [])]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def tells_its_number(request: web.Request) -> web.Response:
    await overload.read(request)
    return web.Response(text=f"the answer to {request.query_string}")


async def answers(wire: Wire, numbers: Sequence[int]) -> list[bool]:
    return [(await wire.answer()).endswith(b"the answer to %d" % number) for number in numbers]


# What stands behind a request


async def test_requests_that_come_after_bodies_that_came_late_are_answered(opened: Open) -> None:
    async with opened(tells_its_number) as house:
        wire = await house.call()
        for n in range(0, 40, 4):
            wire.send(POST.replace(b"/here", b"/here?%d" % n))
            await until(lambda: any(connection._current_request for connection in house.runner.server.connections))
            wire.send(b"body")
            assert await answers(wire, [n]) == [True]
            wire.send(b"".join(numbered(n + k) for k in (1, 2, 3)))
            assert await answers(wire, [n + 1, n + 2, n + 3]) == [True] * 3


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("body", ["", "body"], ids=["without a body", "with one"])
async def test_what_stands_behind_a_wish_for_another_protocol_is_answered(opened: Open, protocol: str, body: str) -> None:
    async with opened(tells_its_number) as house:
        wire = await house.call()
        wish = numbered(1, "Connection: Upgrade", f"Upgrade: {protocol}", method="POST", body=body)
        wire.send(wish + numbered(2) + wish.replace(b"?1", b"?3") + numbered(4))
        assert await answers(wire, [1, 2, 3, 4]) == [True] * 4


@pytest.mark.parametrize(
    ("request_", "rest"),
    [
        (numbered(1), b"\x01\r\n\r\n"),
        (numbered(1, method="POST", body="body"), b"no request\r\n\r\n"),
        (numbered(1) + numbered(2), b"GET / HTTP/1.1\r\n\r\n"),
    ],
    ids=["bytes", "words", "no host"],
)
async def test_a_request_is_answered_whatever_stands_behind_it(opened: Open, request_: bytes, rest: bytes) -> None:
    async with opened(tells_its_number) as house:
        wire = await house.call()
        wire.send(request_ + rest)
        assert all(await answers(wire, range(1, request_.count(b"Host") + 1)))
        assert (await wire.answer()).startswith(b"HTTP/1.0 400 ")
        await wire.seconds_until_closed()


@pytest.mark.parametrize(
    "request_",
    [
        numbered(1, "Connection: close"),
        numbered(1).replace(b"HTTP/1.1", b"HTTP/1.0"),
        CHUNKED.replace(b"here", b"here?1") + b"0\r\nX: y\r\n\r\n",
    ],
    ids=["close", "1.0", "chunks"],
)
@pytest.mark.parametrize("rest", [numbered(2), b"\x01\r\n\r\n", 30_000 * b"x"], ids=["a request", "no request", "more"])
async def test_behind_the_last_request_nothing_counts(opened: Open, request_: bytes, rest: bytes) -> None:
    async with opened(tells_its_number) as house:
        wire = await house.call()
        wire.send(request_ + rest)
        assert await answers(wire, [1]) == [True]
        assert await wire.answer() == b""


async def test_the_trailers_of_a_body_are_no_headers_of_the_next_request(opened: Open) -> None:
    async def shows(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("X-Smuggled", "nothing"))

    async with opened(shows) as house:
        wire = await house.call()
        wire.send(CHUNKED + b"0\r\nX-Smuggled: something\r\n\r\n" + REQUEST)
        assert (await wire.answer()).endswith(b"\r\n\r\nnothing")
        assert await wire.answer() == b""


@pytest.mark.parametrize("pieces", [[CHUNKED, b"zz\r\n"], [CHUNKED + b"4\r\nbody\r\n", b"zz\r\n"], [CHUNKED + b"4\r\nbodyzz\r\n"]], ids=str)
async def test_a_body_that_is_none_is_refused_at_once(opened: Open, pieces: list[bytes]) -> None:
    async def reads(request: web.Request) -> web.Response:
        try:
            return web.Response(body=await overload.read(request))
        except web.RequestPayloadError:
            return web.Response(text="broken")

    async with opened(reads) as house:
        wire = await house.call()
        for piece in pieces:
            wire.send(piece)
            await asyncio.sleep(0.05)
        answer = await wire.answer()
        assert answer.endswith(b"broken")
        assert b"Connection: close\r\n" in answer
        assert await wire.answer() == b""


async def test_empty_lines_before_a_request_are_nothing(opened: Open) -> None:
    async with opened(tells_its_number) as house:
        wire = await house.call()
        for n in range(3):
            wire.send(b"\r\n\r" + b"\n\r\n" * n + b"\n" + numbered(n) + b"\r")
            assert await answers(wire, [n]) == [True]


# Clients that go


async def test_a_client_that_has_closed_its_side_is_answered(opened: Open) -> None:
    go = asyncio.Event()

    async def waits(request: web.Request) -> web.Response:
        await go.wait()
        return await tells_its_number(request)

    async with opened(waits) as house:
        for sent, numbers in (
            (numbered(1), [1]),
            (numbered(1, method="POST", body="body") + numbered(2) + numbered(3), [1, 2, 3]),
            (b"".join(map(numbered, range(9))), range(9)),
            (numbered(1) + numbered(2, "Content-Length: 9", method="POST") + b"half", [1]),
            (numbered(1) + HEAD, [1]),
        ):
            go.clear()
            wire = await house.call()
            wire.send(sent)
            wire.writer.write_eof()
            await asyncio.sleep(0.05)
            go.set()
            assert all(await answers(wire, numbers))
            assert await wire.answer() == b""


@pytest.mark.parametrize("sent", [b"", HEAD, POST, POST + b"bo", CHUNKED + b"4\r\nbo"], ids=str)
async def test_one_that_has_closed_its_side_in_the_middle_is_not(opened: Open, sent: bytes) -> None:
    async with opened(tells_its_number) as house:
        wire = await house.call()
        wire.send(sent)
        wire.writer.write_eof()
        assert await wire.answer() == b""
        await until(lambda: not house.runner.server.connections)


async def test_an_answer_that_goes_on_for_ever_ends_with_its_client(opened: Open) -> None:
    over = asyncio.Event()

    async def for_ever(request: web.Request) -> web.StreamResponse:
        end_with_client(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await over.wait()
        return response

    async with opened(for_ever) as house:
        wire = await house.call()
        wire.send(REQUEST)
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.writer.write_eof()
        await wire.seconds_until_closed()
        over.set()


async def test_a_client_that_resets_its_connection_is_no_error(
    opened: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiohttp.web_urldispatcher._default_expect_handler", aiohttp_fixes.expect)

    async def reads(request: web.Request) -> web.Response:
        with suppress(ConnectionError):
            await overload.read(request)
        return web.Response(text="done")

    async with opened(reads) as house:
        for sent in (POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), POST, REQUEST, HEAD, CHUNKED + b"4\r\nbo"):
            for _ in range(20):
                wire = await house.call()
                wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.send(sent)
                wire.writer.close()
        await until(lambda: not house.runner.server.connections)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("error", [None, ConnectionResetError(), TimeoutError()], ids=repr)
async def test_nor_is_one_that_goes_as_its_request_begins(
    opened: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    heard: list[BaseException] = []
    begin = Connection._handle_request

    async def reads(request: web.Request) -> web.Response:
        try:
            return web.Response(body=await overload.read(request))
        except Exception as failure:
            heard.append(failure)
            raise

    def goes(connection: Connection, *arguments: Any) -> Any:
        connection._wire._force_close(error)  # type: ignore[attr-defined]  # asyncio's
        return begin(connection, *arguments)

    monkeypatch.setattr(Connection, "_handle_request", goes)
    async with opened(reads) as house:
        (await house.call()).send(POST + b"bo")
        await until(lambda: heard)
        await until(lambda: not house.runner.server.connections)
    assert isinstance(heard[0], ConnectionError)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


# However they come


class Talk(NamedTuple):
    """What a client says on one connection, and what it is to hear: the number, and the digest of the body that came; how it ends."""

    said: bytes
    heard: list[bytes]
    closes: bool


def talk(chance: random.Random) -> Talk:
    said, heard = b"", []
    how_many, closes = chance.randrange(1, 12), chance.random() < 0.5
    for number in range(how_many):
        is_last = closes and number == how_many - 1
        method = chance.choice(["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"])
        body = chance.randbytes(chance.choice([0, 1, 5, 100, 5000, 70_000])) if method in ("POST", "PUT") else b""
        target = chance.choice(["", "", "", "http://us", "http://xn--"]) + f"/here?{number}"
        version = "1.0" if chance.random() < 0.1 else "1.1"
        headers = ["Host: us", f"X-Padding: {'p' * chance.randrange(300)}"]
        headers += ["Connection: keep-alive"] if version == "1.0" and not is_last else []
        headers += ["Connection: close"] if is_last and version == "1.1" else []
        if version == "1.1" and not is_last and chance.random() < 0.1:
            headers += ["Connection: Upgrade", f"Upgrade: {chance.choice(['h2c', 'websocket'])}"]
        if is_last and version == "1.1" and body and chance.random() < 0.5:
            headers.append("Transfer-Encoding: chunked")
            sent = b""
            for start in range(0, len(body), size := chance.randrange(1, 1000)):
                piece = body[start : start + size]
                sent += b"%x%s\r\n%b\r\n" % (len(piece), chance.choice([b"", b";a", b';a="b"']), piece)
            sent += b"0\r\n" + chance.choice([b"", b"X-Trailer: y\r\n"]) + b"\r\n"
        else:
            headers += [f"Content-Length: {len(body)}"] if body or chance.random() < 0.2 else []
            sent = body
        headers += ["Expect: 100-continue"] if body and chance.random() < 0.2 else []
        headers += ["X-Ignore: 1"] if body and not is_last and chance.random() < 0.2 else []
        chance.shuffle(headers)
        said += chance.choice([b"", b"", b"\r\n"]) + "\r\n".join([f"{method} {target} HTTP/{version}", *headers, "", ""]).encode() + sent
        known = b"ignored" if "X-Ignore: 1" in headers else hashlib.md5(body).hexdigest().encode()
        heard.append(b"" if method == "HEAD" else b"%d %b" % (number, known))
    return Talk(said, heard, closes)


def pieces_of(said: bytes, chance: random.Random) -> Iterator[bytes]:
    while said:
        size = chance.choice([1, 3, 50, 500, 10_000, len(said)])
        yield said[:size]
        said = said[size:]


async def tells_what_came(request: web.Request) -> web.Response:
    chance = random.Random(request.query_string)
    for _ in range(chance.choice([0, 0, 1, 5])):
        await asyncio.sleep(chance.choice([0, 0.001]))
    known = "ignored" if "X-Ignore" in request.headers else hashlib.md5(await overload.read(request)).hexdigest()
    return web.Response(text=f"{request.query_string} {known}")


async def hold(talk: Talk, wire: Wire, chance: random.Random) -> None:
    """Say it, in pieces of any size at any moment, and hear each answer, in order and once."""

    async def say() -> None:
        with suppress(ConnectionError):
            for piece in pieces_of(talk.said, chance):
                wire.send(piece)
                await wire.writer.drain()
                await asyncio.sleep(chance.choice([0, 0, 0, 0, 0.001]))
            if not talk.closes:
                wire.writer.write_eof()

    saying = asyncio.create_task(say())
    for body in talk.heard:
        head = b"HTTP/1.1 100 "
        while head.startswith(b"HTTP/1.1 100 "):
            head = await wire.reader.readuntil(b"\r\n\r\n")
        assert head.split(b" ")[1] == b"200", head
        assert not body or await wire.reader.readexactly(len(body)) == body
    assert await wire.reader.read() == b""
    await saying
    wire.writer.close()


@pytest.mark.parametrize("connections", [200, pytest.param(10_000, marks=pytest.mark.long)])
async def test_each_request_gets_its_answer_in_whatever_pieces_it_comes(
    opened: Open, connections: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aiohttp.web_urldispatcher._default_expect_handler", aiohttp_fixes.expect)
    monkeypatch.setattr(web.Application, "_make_request", aiohttp_fixes.make_request)
    seed = random.SystemRandom().randrange(10**9)
    seeds = iter(range(seed, seed + connections))

    async def one_after_the_other() -> None:
        for each in seeds:
            chance = random.Random(each)
            wire = Wire(*await asyncio.open_connection(*house.runner.addresses[0]))
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await hold(talk(chance), wire, chance)
            except (AssertionError, TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
                raise AssertionError(f"seed {each}: {error!r}") from error

    async with opened(tells_what_came) as house:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(one_after_the_other())
        await until(lambda: not house.runner.server.connections)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []

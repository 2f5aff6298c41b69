"""What a request costs grows with its length, and no faster: nobody stops a worker with a short one that takes long to read."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import pytest
from aiohttp import web

import app
from auth import HEADER
from server.runner import Runner
from tests.conftest import Person, configured
from tests.waiting import PATIENCE_SECONDS

FORM, JSON, MULTIPART = "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=b"
TIMES = 3  # each is asked; the quickest counts
MOST = 7  # times as much, for what is 4 times as long; what takes the square of its length would take 16
ROUNDS = 4  # what costs too much is measured again: on a machine with other things to do, one may have had bad luck
MOST_OF_A_HEAD = 30  # times as much as an ordinary one
LINE, BODY = 8000, 120_000  # about as long as they may be
NUMBERS = count(1)  # so that nothing is remembered

Make = Callable[[int], bytes]

pytestmark = pytest.mark.effort


def some(unit: str, length: int) -> str:
    """Return units one after the other."""
    return unit * (length // len(unit.encode()))


def head(target: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: us", f"X-Request-ID: n{next(NUMBERS)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def header(name: str, unit: str, before: str = "", after: str = "", target: str = "/task", method: str = "GET") -> Make:
    """Return what makes a request with a long header."""
    return lambda length: head(target, f"{name}: {before}{next(NUMBERS)}{some(unit, length)}{after}", method=method)


def path(unit: str, before: str = "/", method: str = "GET") -> Make:
    return lambda length: head(f"{before}{next(NUMBERS)}{some(unit, length)}", method=method)


def body(kind: str, unit: str, before: str = "", after: str = "") -> Make:
    """Return what makes a request with a long body."""

    def make(length: int) -> bytes:
        sent = f"{before}{some(unit, length)}{after}".encode()
        return head("/get-token", f"Content-Type: {kind}", f"Content-Length: {len(sent)}", method="POST") + sent

    return make


def chunks(unit: str, before: str = "", after: str = "0\r\n\r\n") -> Make:
    start = ["Transfer-Encoding: chunked", f"Content-Type: {FORM}"]
    return lambda length: head("/get-token", *start, method="POST") + f"{before}{some(unit, length)}{after}".encode()


FILE = "/docs/swagger-ui.css"
DISPOSITION = 'Content-Disposition: form-data; name="login"'
LINES: dict[str, Make] = {
    **{f"Content-Type {unit}": header("Content-Type", unit, "text/plain", method="POST") for unit in (";a=", ';"', ";a=\"", "; ", '\\";')},
    **{f"a form's {unit}": header("Content-Type", unit, "multipart/form-data", target="/get-token", method="POST") for unit in (";a=", ';"')},
    **{f"a charset {unit}": header("Content-Type", unit, "text/csv;charset=", target="/import", method="POST") for unit in ("_", ";", ";a=")},
    **{f"Cookie {unit}": header("Cookie", unit, "a=") for unit in ("; a=b", ";", '="', "\\")},
    **{f"Authorization {unit}": header("Authorization", unit, f"Bearer {HEADER}.") for unit in ("a", ".", " ")},
    **{f"a scheme and {unit}": header("Authorization", unit, "Bearer") for unit in (" ", "Bearer ")},
    **{f"Accept {unit}": header("Accept", unit) for unit in (",", ";q=1", "a/b;q=0.1,")},
    **{f"If-None-Match {unit}": header("If-None-Match", unit, '"a"', "x") for unit in (",", ' ,"a"', " ", '"')},
    **{f"If-Match {unit}": header("If-Match", unit, '"1', "x", "/task/1", "DELETE") for unit in (',"2"', '"', ",")},
    "Idempotency-Key": header("Idempotency-Key", '"', '"', target="/task", method="POST"),
    "Last-Event-ID": header("Last-Event-ID", "1", target="/task/events"),
    **{f"X-Forwarded-For {unit}": header("X-Forwarded-For", unit, target="/get-token", method="POST") for unit in (",", "1.", ":1", "[", " ")},
    **{f"Forwarded {unit}": header("Forwarded", unit, "for=") for unit in (";for=a", '"', ",")},
    **{f"of a file {name}": header(name, unit, begins, target=FILE, method="HEAD") for name, unit, begins in (
        ("If-Modified-Since", "1 ", "Mon, "), ("If-Unmodified-Since", ",", ""), ("If-Range", "-", "Mon, 1 Jan 2020 "), ("Range", "1", "bytes="),
        ("If-None-Match", '"a" , ', ""), ("If-Match", " ", '"a"'), ("Accept-Encoding", ",", ""),
    )},
    **{f"{name} {unit}": header(name, unit, begins) for name, unit, begins in (
        ("Host", ".", "xn--"), ("Host", ":", ""), ("Connection", "a,", ""), ("Expect", "a,", ""), ("X-Request-ID", "a", ""),
        ("Upgrade", "a,", ""), ("Origin", "a", ""), ("X-Other", " ", ""), ("X-Forwarded-Host", "a.", ""),
    )},
    "a name": lambda length: head("/task", f"X{some('a', length)}: 1"),
    **{f"a path of {unit}": path(unit) for unit in ("/", "/a", "a", "%41", "%2F", "%d0%80", "%d0", "/..", ";", "//task")},
    **{f"below a task {unit}": path(unit, "/task/") for unit in ("/", "9", "%31")},
    **{f"the method {method}": path("/", method=method) for method in ("OPTIONS", "PROPFIND")},
    **{f"a query of {unit}": path(unit, "/get-token?") for unit in ("&", "&a=b", ";", "+", "=", "%41", "%", "a", "/", "?")},
    **{f"a host {unit}": path(unit, f"http://{begins}") for unit, begins in (
        ("a", "xn--a-"), ("-9", "xn--"), (".xn--e1a", ""), ("a.", ""), ("%41", ""), (":1", "[1"), ("a:b@", "a"), ("a", "[::1%"),
    )},
    "a scheme": lambda length: head(f"{some('a', length)}://b/"),
    "whom to connect": lambda length: head(f"xn--{next(NUMBERS)}{some('a', length)}:1", method="CONNECT"),
}  # fmt: skip
BODIES: dict[str, Make] = {
    **{f"a form of {unit}": body(FORM, unit, "login=") for unit in ("&", "&a=b", ";", "+", "=", "%41", "%", "%d0", "%e2%82", "а", "\ufeff")},
    **{f"a form like JSON {unit}": body(FORM, unit) for unit in ("%20", "+", "\ufeff", "\r\n")},
    **{f"JSON {name}": body(JSON, unit, begins, ends) for name, unit, begins, ends in (
        ("in itself", '{"a":', "", ""), ("arrays", "[", "", ""), ("digits", "1", '{"a":', "}"), ("of numbers", "1" * 4000 + ",", '{"a":[', "1]}"),
        ("fractions", "1", '{"a":1.', "}"), ("exponents", "1", '{"a":1e', "}"), ("escapes", "\\u0041", '{"a":"', '"}'), ("backslashes", "\\", '{"a":"', ""),
        ("spaces", " ", "{", "}"), ("surrogates", "\\ud800", '{"login":"', '"}'), ("names", '"a":0,', "{", '"b":0}'), ("text", "ё", '{"login":"', '"}'),
        ("marks", "\u0301", '{"login":"', '"}'), ("jamo", "\u1100\u1161\u11a8", '{"login":"', '"}'), ("ligatures", "\ufdfa", '{"login":"', '"}'),
    )},
    **{f"parts {name}": body(MULTIPART, unit, begins, "\r\n--b--\r\n") for name, unit, begins in (
        ("without anything", "\r\n--b", f"--b\r\n{DISPOSITION}\r\n\r\n"), ("almost ended", "\r\n--", f"--b\r\n{DISPOSITION}\r\n\r\n"),
        ("of returns", "\r", f"--b\r\n{DISPOSITION}\r\n\r\n"), ("many", f"--b\r\n{DISPOSITION}\r\n\r\nx\r\n", ""),
        ("with parameters", "--b\r\nContent-Disposition: form-data" + ";a=" * 1300 + "\r\n\r\nx\r\n", ""),
        ("with quotes", "--b\r\nContent-Disposition: form-data" + ';"' * 1900 + "\r\n\r\nx\r\n", ""),
        ("with headers", "--b\r\n" + "a: b\r\n" * 7 + "\r\nx\r\n", ""), ("with a header", "a", "--b\r\nX: "), ("with no name", "a", "--b\r\n"),
    )},
    "an epilogue": body(MULTIPART, "\r\n--b", f"--b\r\n{DISPOSITION}\r\n\r\nx\r\n--b--\r\n"),
    "chunks": chunks("1\r\n=\r\n"),
    "long chunk extensions": chunks("a", "1;", "\r\n=\r\n0\r\n\r\n"),
    "chunk extensions": chunks('1;a="b"\r\n=\r\n'),
    "the size of a chunk": chunks("0", "", "1\r\n=\r\n0\r\n\r\n"),
    "trailers": chunks("a: b\r\n", "0\r\n", "\r\n"),
    "empty lines": lambda length: b"\r\n" * (length // 4) + head("/get-token"),
    "requests": lambda length: head("/nowhere") * (length // 100),
}  # fmt: skip

Cost = Callable[[Make, int], Awaitable[float]]


@pytest.fixture
async def cost(alice: Person) -> AsyncIterator[Cost]:
    """Return a function that tells the seconds of CPU time that a request takes whoever asks it; with Alice's token where it has none."""
    runner = Runner(await app.create_app(configured(trusted_proxies="127.0.0.0/8", user_limit_per_minute=100_000)))
    await runner.setup()
    await web.SockSite(runner, socket.create_server(("127.0.0.1", 0))).start()

    async def ask(sent: bytes) -> float:
        if b"Authorization: " not in sent:
            sent = sent.replace(b"Host: us\r\n", f"Host: us\r\nAuthorization: Bearer {alice.token}\r\n".encode(), 1)
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        began_at = time.process_time()
        writer.write(sent)
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(sent.count(b" HTTP/1.1\r\n")):
                answer = await reader.readuntil(b"\r\n\r\n")
                assert re.match(rb"HTTP/1\.[01] [234]", answer), (sent[:200], answer)
                if b"HEAD " not in sent[:5] and (length := re.search(rb"Content-Length: ([0-9]+)", answer)):
                    await reader.readexactly(int(length[1]))
        took = time.process_time() - began_at
        writer.close()
        return took

    async def least(make: Make, length: int) -> float:
        return min([await ask(make(length)) for _ in range(TIMES)])

    yield least
    await runner.cleanup()


async def costly(cost: Cost, kinds: dict[str, Make], length: int, most_times: float) -> dict[str, tuple[float, float]]:
    """Return the kinds that cost too much each time: beyond what an ordinary request does, a quarter as long, and that long."""
    took: dict[str, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        ordinary = await cost(header("X-Ordinary", "a"), LINE)
        costs = {name: (await cost(make, length // 4) - ordinary, await cost(make, length) - ordinary) for name, make in kinds.items()}
        took = {name: (n, n4) for name, (n, n4) in costs.items() if n4 > min(MOST * max(n, ordinary), most_times * ordinary)}
        kinds = {name: kinds[name] for name in took}
    return took


async def test_a_head_costs_little_however_long_it_is(cost: Cost) -> None:
    assert await costly(cost, LINES, LINE, MOST_OF_A_HEAD) == {}


async def test_a_body_that_is_four_times_as_long_takes_little_more_than_four_times_as_long(cost: Cost) -> None:
    assert await costly(cost, BODIES, BODY, float("inf")) == {}

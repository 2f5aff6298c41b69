"""A request finds the handler that aiohttp's router would find, whatever is asked for, and however it is written."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from tests.conftest import Routed

METHODS = ("GET", "HEAD", "PATCH", "POST", "OPTIONS", "TRACE", "get", "PURGE", "*", "_ITER")
PATHS = (
    *(
        "/thing",
        "/thing?a=1",
        "/thing?a=/thing/7",
        "/thing#x",
        "/thing/",
        "//thing",
        "/THING",
        "/thin",
        "/things",
        "/%74hing",
        "/thing%20",
        "/thing;a",
    ),
    *(
        "/thing/7",
        "/thing/7?a=1",
        "/thing/7#x",
        "/thing/0",
        "/thing/07",
        "/thing/7/",
        "/thing/%37",
        "/thing/7%20",
        "/thing/-7",
        "/thing/x",
        "/thing/٧",
    ),
    *(
        "/thing/1234567890123456789",
        "/thing/12345678901234567890",
        "/thing/7/log",
        "/thing/7/log/",
        "/thing/x/log",
        "/thing/7%2Flog",
        "/thing//log",
    ),
    *(
        "/thing/log",
        "/thing/../thing",
        "/thing/./7",
        "/a/b",
        "/a/b%20c",
        "/a/b+c",
        "/a/ж",
        "/a/",
        "/a",
        "/plain",
        "/posted",
        "/either",
        "/",
        "",
        "?",
        "*",
    ),
    *("http://elsewhere/thing", "http://elsewhere/thing/7?a=1", "http://elsewhere/plain", "/" + "a/" * 20),
)


class Thing(web.View):
    """A resource that says what it was asked."""

    async def get(self) -> web.Response:
        return _said("get", self.request)

    async def patch(self) -> web.Response:
        return _said("patch", self.request)

    head = get


class Log(web.View):
    """Another one."""

    async def get(self) -> web.Response:
        return _said("log", self.request)


def _function(name: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return _said(name, request)

    return handler


def _said(what: str, request: web.Request) -> web.Response:
    resource = request.match_info.route.resource
    assert resource
    return web.Response(text=json.dumps([what, resource.canonical, dict(request.match_info), request["passed"], request.path_qs]))


def _note(name: str) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request["passed"] = [*request.get("passed", ()), name, request.match_info.handler is Thing]
        return await handler(request)

    return middleware


def _application() -> web.Application:
    application = web.Application(middlewares=[_note("outer"), _note("inner")])
    thing = "/thing/{id:[1-9][0-9]{0,18}}"
    application.add_routes([web.view("/thing", Thing), web.view(thing, Thing), web.view(thing + "/log", Log), web.view("/thing/log", Log)])
    application.add_routes([web.get("/plain", _function("plain")), web.post("/posted", _function("posted"))])
    application.add_routes([web.route("*", "/either", _function("either")), web.get("/a/{rest}", _function("a"))])
    return application


@pytest.fixture
async def runners() -> AsyncIterator[list[web.AppRunner]]:
    """What runs the same application twice: with our routing, and with aiohttp's."""
    both = [Routed(_application()), web.AppRunner(_application())]
    for runner in both:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield both
    for runner in both:
        await runner.cleanup()


async def _answer(runner: web.AppRunner, method: str, target: str, *headers: str) -> list[bytes]:
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write("\r\n".join([f"{method} {target} HTTP/1.1", "Host: here", "Connection: close", *headers, "", ""]).encode())
    answer = await reader.read()
    writer.close()
    return [line for line in answer.split(b"\r\n") if not line.startswith(b"Date: ")]


async def test_it_finds_what_aiohttp_finds(runners: list[web.AppRunner]) -> None:
    statuses = set()
    for method in METHODS:
        for path in PATHS:
            ours, theirs = await asyncio.gather(*(_answer(runner, method, path) for runner in runners))
            assert ours == theirs, (method, path)
            statuses.add(ours[0].split()[1])
    assert statuses >= {b"200", b"400", b"404", b"405"}


async def test_an_expectation_is_met(runners: list[web.AppRunner]) -> None:
    for method in ("POST", "PATCH", "PURGE"):
        for path in ("/posted", "/thing/7", "/nowhere"):
            ours, theirs = await asyncio.gather(*(_answer(runner, method, path, "Expect: 100-continue") for runner in runners))
            assert ours == theirs


async def test_what_is_plain_needs_no_router(runners: list[web.AppRunner], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would compare aiohttp's router with itself."""
    monkeypatch.setattr(runners[0].app.router, "resolve", None)
    for path in ("/thing", "/thing/7?a=1", "/thing/7/log", "/plain", "/a/b"):
        assert (await _answer(runners[0], "GET", path))[0] == b"HTTP/1.1 200 OK"
    assert (await _answer(runners[0], "GET", "/thing/%37"))[0] == b"HTTP/1.1 500 Internal Server Error"

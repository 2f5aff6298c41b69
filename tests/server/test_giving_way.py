"""Where there is no room for another connection: who keeps others waiting gives way, no address has all, and nothing is said in the log."""

import asyncio
import gc
import logging
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web

from rest import addresses
from server import giving_way
from server.arrival import end_with_client
from telemetry.logs import USER_ID
from tests.server.test_connections import HEAD, POST, REQUEST, House, Open, Wire, has_the_security_headers, long_answer, opened, slow_reader
from tests.waiting import PATIENCE_SECONDS, until

__all__ = ["opened"]
MALLORY, ALICE = "127.0.0.2", "127.0.0.3"
KNOWN = b"X-User: 7\r\n"  # what a token is elsewhere
PATIENT = {"request_timeout_seconds": 600, "keepalive_seconds": 600}
ALIKE = [b"", HEAD, POST, POST + b"bo"]
IDS = ["nothing", "half a head", "no body", "half a body"]


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer once the body is there, or only when the client has gone; and know who asks if a header says so."""
    if "X-User" in request.headers:
        request[USER_ID] = int(request.headers["X-User"])
    if "X-Long" in request.headers:
        return await long_answer(request)
    if "X-Never" in request.headers:
        end_with_client(request)
        while request.transport:
            await asyncio.sleep(0.01)
    return web.Response(text=f"done {await request.text()}")


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let everybody who isn't there at once be slow; return a function that sets how long it takes to be."""
    for name in ("SECONDS_BETWEEN_LOOKS", "SECONDS_BEFORE_NEXT_LOOK", "SECONDS_BETWEEN_ONES_OWN"):
        monkeypatch.setattr(giving_way, name, 0)

    def set_seconds(seconds: float) -> None:
        monkeypatch.setattr(giving_way, "SECONDS_TO_BE_SLOW", seconds)

    set_seconds(0)
    return set_seconds


async def call(house: House, data: bytes, address: str = MALLORY) -> Wire:
    """Open a connection from an address, send something, and wait until it is there."""
    server = house.runner.server
    before = {*server.connections}
    wire = await house.call(local_addr=(address, 0))
    await until(lambda: {*server.connections} - before)
    [made] = {*server.connections} - before
    wire.send(data)
    await until(lambda: made._request_count or (made._waiter and (made._begun or not data)))
    if made._request_count:
        await until(lambda: made.is_at_work or made.is_idle or made.writing_paused)
    return wire


async def served(house: House) -> Wire:
    """Open a connection of Alice's that has been answered, and is idle."""
    wire = await call(house, REQUEST, ALICE)
    assert b"done" in await wire.answer()
    return wire


async def is_open(wire: Wire) -> bool:
    """Return whether it is still there, and answers."""
    wire.send(REQUEST)
    return b"done" in await wire.answer()


async def heard(wire: Wire) -> bytes:
    """Return all that comes until it is closed."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await wire.reader.read()


def is_gone(wire: Wire) -> bool:
    return bool(wire.reader._eof or wire.reader.exception())  # type: ignore[attr-defined]


async def answered(house: House, address: str) -> bytes:
    """Ask from an address, and return the answer."""
    wire = await house.call(local_addr=(address, 0))
    wire.send(REQUEST)
    return await wire.answer()


async def test_who_is_refused_leaves_nothing_in_the_log(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(answer, max_connections=1, **PATIENT) as house:
        await call(house, HEAD + b"X-Never: 1\r\n\r\n")
        caplog.clear()
        wires = await asyncio.gather(*(house.call(local_addr=(MALLORY, 0)) for _ in range(20)))
        answers = [await wire.answer() for wire in wires]
        assert len(house.runner.server.connections) == 1
    gc.collect()
    await asyncio.sleep(0)
    assert [each.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1\r\n" in each for each in answers] == [True] * 20
    assert [record for record in caplog.records if record.name != "asyncio" or record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("data", ALIKE, ids=IDS)
async def test_who_keeps_others_waiting_gives_way_before_who_is_idle(opened: Open, data: bytes) -> None:
    async with opened(answer, max_connections=3, **PATIENT) as house:
        idle = [await served(house) for _ in range(2)]
        slow = await call(house, data)
        assert b"200 OK" in await answered(house, ALICE)
        told = await heard(slow)
        assert (b"503 Service Unavailable" in told and has_the_security_headers(told)) if data else not told
        assert all([await is_open(wire) for wire in idle])


@pytest.mark.parametrize("data", ALIKE, ids=IDS)
async def test_of_those_the_one_goes_whose_address_has_most_of_them(opened: Open, data: bytes, time: Callable[[float], None]) -> None:
    for seconds in (0, 600):  # slow, or with too many others
        time(seconds)
        async with opened(answer, max_connections=6, **PATIENT) as house:
            idle, first = await served(house), await call(house, data, "127.0.0.4")
            slow = [await call(house, data) for _ in range(4)]
            assert b"200 OK" in await answered(house, ALICE)
            await slow[0].seconds_until_closed()
            more = await house.call(local_addr=(MALLORY, 0))  # from there takes nobody else's place
            more.send(data)
            assert b"503 " in await heard(more if seconds else slow[1]) or not data
            assert await is_open(idle)
            assert not any(is_gone(wire) for wire in (first, *slow[1 if seconds else 2 :]))


async def test_who_has_a_token_may_take_its_time(opened: Open) -> None:
    post = POST.replace(b"\r\n\r\n", b"\r\n" + KNOWN + b"\r\n")
    async with opened(answer, max_connections=2, **PATIENT) as house:
        slow, other = await call(house, post), await call(house, POST)
        assert b"200 OK" in await answered(house, MALLORY)
        await other.seconds_until_closed()
        slow.send(b"body")
        assert b"done body" in await slow.answer()


async def test_where_some_are_idle_newcomers_leave_one_another_alone(opened: Open, time: Callable[[float], None]) -> None:
    time(600)
    async with opened(answer, max_connections=4, **PATIENT) as house:
        idle = [await call(house, REQUEST) for _ in range(4)]
        newcomers = [await call(house, b"") for _ in range(3)]
        assert all([await is_open(wire) for wire in newcomers])
        assert await is_open(idle[3])


async def test_a_burst_finds_room_where_there_is_any(opened: Open, time: Callable[[float], None]) -> None:
    """Many are taken in one turn of the loop: none of them takes the place of another that isn't gone yet, nor of one just made."""
    time(600)
    async with opened(answer, max_connections=10, **PATIENT) as house:
        idle = [await call(house, REQUEST) for _ in range(10)]
        assert len(idle) == 10
        wires = await asyncio.gather(*(house.call(local_addr=(MALLORY, 0)) for _ in range(10)))
        for wire in wires:
            wire.send(REQUEST)
        assert [b"done" in await wire.answer() for wire in wires] == [True] * 10
        await until(lambda: len(house.runner.server.connections) == 10)


@pytest.mark.parametrize("header", [b"", KNOWN], ids=["for nobody", "for somebody"])
async def test_who_does_not_read_what_needs_no_token_gives_way(opened: Open, header: bytes) -> None:
    async with opened(answer, max_connections=1, **PATIENT) as house:
        await slow_reader(house, HEAD + header + b"X-Long: 1\r\n\r\n")
        await until(lambda: any(connection.writing_paused for connection in house.runner.server.connections))
        assert (b"503 " if header else b"200 OK") in await answered(house, "127.0.0.1")


@pytest.mark.parametrize(
    ("seconds", "most", "address", "status"),
    [(0, 7, ALICE, b"200"), (600, 7, ALICE, b"503"), (0, 8, ALICE, b"200"), (0, 7, MALLORY, b"503")],
)
async def test_no_address_keeps_all_places_at_work(
    opened: Open, time: Callable[[float], None], seconds: float, most: int, address: str, status: bytes
) -> None:
    """What has been at work for long gives way to another address, where its own has more than a quarter; never to its own."""
    time(seconds)
    async with opened(answer, max_connections=most, **PATIENT) as house:
        busy = [await call(house, HEAD + KNOWN + b"X-Never: 1\r\n\r\n") for _ in range(most - 1)]
        await call(house, HEAD + KNOWN + b"X-Never: 1\r\n\r\n", "127.0.0.4")
        assert (await answered(house, address)).startswith(b"HTTP/1.1 " + status)
        await until(lambda: is_gone(busy[0]) == (status == b"200"))
        assert not any(is_gone(wire) for wire in busy[1:])


@pytest.mark.parametrize(("networks", "is_room"), [("127.0.0.0/8", True), ("10.0.0.0/8", False)], ids=["trusted", "not"])
async def test_behind_a_proxy_that_is_trusted_it_is_the_client_that_counts(opened: Open, networks: str, is_room: bool) -> None:
    async def ask(name: str) -> Wire:
        return await call(house, HEAD + KNOWN + f"X-Never: 1\r\nX-Forwarded-For: {name}\r\n\r\n".encode())

    names = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "192.0.2.3", "2001:db8::3", "192.0.2.4", "192.0.2.4")
    async with opened(answer, max_connections=8, whose=addresses.sites([ip_network(networks)]), **PATIENT) as house:
        wires = [await ask(name) for name in names]
        assert (b"200 OK" in await answered(house, MALLORY)) == is_room
        await until(lambda: [is_gone(wire) for wire in wires] == [is_room and wire is wires[2] for wire in wires])


async def test_who_floods_from_one_address_is_refused_rather_than_let_in_for_its_own(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "SECONDS_BETWEEN_ONES_OWN", 600)
    async with opened(answer, max_connections=4, **PATIENT) as house:
        slow = [await call(house, POST) for _ in range(4)]
        assert b"200 OK" in await answered(house, MALLORY)
        assert b"503 " in await answered(house, MALLORY)
        assert b"200 OK" in await answered(house, ALICE)
        await until(lambda: [is_gone(wire) for wire in slow] == [True, True, False, False])


async def test_who_gets_on_with_asking_stays_in_line_before_who_is_idle(
    opened: Open, time: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    time(600)
    async with opened(answer, max_connections=6, **PATIENT) as house:
        idle = await served(house)
        wires = [await call(house, b"") for _ in range(5)]
        monkeypatch.setattr(giving_way, "SECONDS_BETWEEN_LOOKS", 600)
        assert b"503 " in await heard(await house.call(local_addr=(MALLORY, 0)))  # so there has been a look
        for wire in wires:
            wire.send(POST)
        await until(lambda: sum(connection.is_at_work for connection in house.runner.server.connections) == 5)
        assert b"503 " in await heard(await house.call(local_addr=(MALLORY, 0)))
        assert await is_open(idle)


async def test_who_has_only_just_come_gives_way_before_who_is_idle(
    opened: Open, time: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """With those who come in one turn of the loop aiohttp hasn't begun when another comes."""
    time(600)
    async with opened(answer, max_connections=5, **PATIENT) as house:
        idle = await served(house)
        crowd = [MALLORY] * 4
        wires = await asyncio.gather(*(house.call(local_addr=(address, 0)) for address in [*crowd, "127.0.0.4", *crowd]))
        await until(lambda: len(house.runner.server.connections) == 5)
        assert await is_open(wires[4])
        assert await is_open(idle)
    assert not caplog.records


@pytest.mark.long
async def test_a_flood_does_not_make_us_look_at_all_connections_for_each(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(giving_way, "SECONDS_BETWEEN_LOOKS", 6000)
    look = giving_way.GivingWay._look

    def counted(*arguments: Any) -> None:
        looks.append(1)
        look(*arguments)

    monkeypatch.setattr(giving_way.GivingWay, "_look", counted)
    async with opened(answer, max_connections=80, **PATIENT) as house:
        for _ in range(80):
            await call(house, POST)
        for _ in range(80):
            await call(house, POST)
        assert len(looks) == 8


async def test_who_is_idle_stays_when_many_come_in_one_turn_of_the_loop(opened: Open, time: Callable[[float], None]) -> None:
    time(600)
    async with opened(answer, max_connections=5, **PATIENT) as house:
        idle = await served(house)
        for _ in range(5):
            await asyncio.gather(*(house.call(local_addr=(MALLORY, 0)) for _ in range(20)))
        assert await is_open(idle)

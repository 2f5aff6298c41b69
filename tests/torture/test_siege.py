"""A siege's figures are right: what held the victim up is seen whole, what is too much is named, and an attack ends by itself."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from torture import report
from torture.ordeal import Outcome
from torture.service import HOUSE
from torture.siege import campaign, figures
from torture.siege.accounts import new_address, sheet
from torture.siege.connection import Connection
from torture.siege.control import Control, Costs, Plan
from torture.siege.crowds import Crowd, Where, gather
from torture.siege.figures import Pair, Run, Sample
from torture.siege.victim import PER_SECOND, Victim, held_by
from torture.siege.victim import Plan as VictimPlan

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.long


async def at_once(writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)


class Stub:
    """A server that answers every request as it is told, and counts."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self.port, self.requests, self.connections = answer, 0, 0, 0
        self.addresses: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.addresses.add(writer.get_extra_info("peername")[0])
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections -= 1
            writer.close()


@asynccontextmanager
async def serving(answer: Answer = at_once) -> AsyncIterator[Stub]:
    stub = Stub(answer)
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    stub.port = server.sockets[0].getsockname()[1]
    async with server:
        yield stub


def where(stub: Stub, seconds: float) -> Where:
    return Where(new_address(), stub.port, time.monotonic(), seconds)


# Figures


def run(p99_ms: float = 10, **more: Any) -> Run:
    usual: dict[str, Any] = {"requests": 540, "not_served": {}, "cores": 1.0, "pss_mib": 200, "log_bytes": 1000, "ended": 0, "answers": {}}
    return Run(5, p99_ms, **usual | more)


def test_what_is_not_served_is_counted_by_its_status() -> None:
    samples = [Sample("read", n / 1000, 200 if n > 3 else 503) for n in range(1, 100)] + [Sample("list", 15, 0)]
    found = figures.run_of(samples, cores=1.5, pss_mib=180, log_bytes=5, ended=0, answers={})
    assert (found.p50_ms, found.p99_ms, found.requests, found.not_served) == (51, 15000, 100, {"503": 3, "0": 1})


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        ({"p99_ms": 31}, "the victim's p99 is 3.1 x the control's"),
        ({"not_served": {"503": 2}}, "10 of the victim's 2700 requests weren't served (503)"),
        ({"pss_mib": 451}, "the workers had 451 MiB"),
        ({"log_bytes": 1_200_000}, "the log grew by 1.2 MB"),
        ({"ended": 1}, "5 workers ended"),
    ],
)
def test_what_is_too_much_is_named(attack: dict[str, Any], named: str) -> None:
    assert figures.judge("planted", [Pair(run(**attack), run())] * 5)[0].startswith(f"planted: {named}")


def test_of_slowness_the_median_of_the_pairs_decides() -> None:
    well, slow = Pair(run(30), run(10)), Pair(run(900), run(10))
    assert figures.judge("x", [well, slow, well, slow, well]) == []
    assert len(figures.judge("x", [well, slow, slow, slow, well])) == 1


def test_what_a_control_costs_the_victim_is_nobody_s_fault() -> None:
    assert figures.judge("x", [Pair(run(), run(5000, not_served={"503": 1}, pss_mib=600, log_bytes=10**9))]) == []


# The victim


async def worked(stub: Stub, seconds: float, starts_at: Callable[[], float] = time.monotonic) -> list[Sample]:
    victim = Victim(VictimPlan("127.0.0.2", stub.port, "token", [os.getpid()], 0, seconds))
    await victim.connect()
    await victim.work(starts_at())
    return victim.samples


async def test_the_victim_keeps_its_pace_and_does_everything_in_turn() -> None:
    async with serving() as stub:
        samples = await worked(stub, 1)
    assert len(samples) == PER_SECOND
    assert {sample.kind for sample in samples} == {"list", "read", "change", "create"}
    assert all(sample.is_served for sample in samples)
    assert stub.addresses == {"127.0.0.2"}


async def test_who_is_held_up_is_so_with_every_request_of_that_time() -> None:
    held_from, held_until = float("inf"), float("inf")

    async def answer(writer: asyncio.StreamWriter) -> None:
        if held_from <= time.monotonic() < held_until:
            await asyncio.sleep(held_until - time.monotonic())
        writer.write(ANSWER)

    def begin() -> float:
        nonlocal held_from, held_until
        now = time.monotonic()
        held_from, held_until = now + 0.5, now + 1.0
        return now

    async with serving(answer) as stub:
        samples = await worked(stub, 1, begin)
    planned_while_held = [n for n in range(PER_SECOND) if 0.5 <= n / PER_SECOND < 0.9]
    assert sum(sample.seconds >= 0.09 for sample in samples) >= len(planned_while_held)


async def test_a_planted_slowness_is_found() -> None:
    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(ANSWER)

    rest = {"cores": 1.0, "pss_mib": 100, "log_bytes": 0, "ended": 0, "answers": {}}
    async with serving(late) as stub:
        slow = figures.run_of(await worked(stub, 0.5), **rest)
    assert slow.p50_ms >= 300
    assert figures.judge("late", [Pair(slow, run(slow.p50_ms / 4))])


async def test_a_connection_that_ends_without_an_answer_is_one_that_was_not_served() -> None:
    answered = 0

    async def now_and_then(writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        if answered > 20:  # of which the first tell which worker has which connection
            writer.close()
        else:
            writer.write(ANSWER)

    async with serving(now_and_then) as stub:
        samples = await worked(stub, 1)
    assert len(samples) == PER_SECOND
    assert {sample.status for sample in samples} == {200, 0}


async def test_it_is_known_which_worker_has_a_connection() -> None:
    async with serving() as stub:
        connection = Connection("127.0.0.3", stub.port)
        await connection.open()
        assert await connection.ask(REQUEST) == 200
        assert held_by([os.getpid()], stub.port) == {connection.local_port: os.getpid()}
        connection.close()


# Connections


@pytest.mark.parametrize(
    "answers",
    [
        [ANSWER, ANSWER],
        [b"HTTP/1.1 204 No Content\r\n\r\n", ANSWER],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab:0\n\r\n3\r\nc\r\n\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_is_read_to_its_end_however_it_comes(answers: list[bytes], size: int) -> None:
    async def in_pieces(writer: asyncio.StreamWriter) -> None:
        sent = b"".join(answers)
        for start in range(0, len(sent), size):
            writer.write(sent[start : start + size])
            await asyncio.sleep(0)

    async with serving(in_pieces) as stub:
        connection = Connection("127.0.0.2", stub.port)
        await connection.open()
        await connection.send(REQUEST)
        assert [await connection.answer() for _ in answers] == [int(answer[9:12]) for answer in answers]
        connection.close()


# Crowds and controls


async def test_an_attack_ends_by_itself_and_leaves_nothing_open() -> None:
    async with serving() as stub:
        crowds = [
            Crowd(3, [REQUEST], pause_seconds=0.01),
            Crowd(2, [REQUEST], reads=0),
            Crowd(2, [REQUEST], reads=1000),
            Crowd(2, [REQUEST], drip_seconds=0.1),
        ]
        answers = await gather(crowds, where(stub, 0.5))
        await until(lambda: stub.connections == 0)
    assert answers["200"] >= 3
    assert stub.requests >= 9
    assert len(stub.addresses) == 1


async def test_a_body_that_drips_comes_byte_by_byte() -> None:
    received = bytearray()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(100):
            received.extend(part)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await gather([Crowd(1, [REQUEST], drip_seconds=0.01)], Where(new_address(), port, time.monotonic(), 0.5))
    assert bytes(received[: len(REQUEST)]) == REQUEST
    assert set(received[len(REQUEST) :]) == {ord("x")}


async def test_who_refuses_an_attack_is_come_back_to_and_it_is_counted() -> None:
    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(close) as stub:
        answers = await gather([Crowd(2, [REQUEST])], where(stub, 0.5))
    assert answers == {"ConnectionResetError": 2}  # and then they wait for a second


async def test_harmless_load_goes_on_with_whatever_it_costs() -> None:
    async with serving() as stub:
        control = Control(Plan(["one", "two"], 4, [os.getpid()], 0.3), where(stub, 1))
        await control.run()
        await until(lambda: stub.connections == 0)
    assert control.answers["200"] > 0
    assert {*control.answers} == {"200"}


def test_what_processes_cost_only_grows() -> None:
    costs = Costs([os.getpid()])
    before = costs.seconds()
    worked_at = time.thread_time()
    while time.thread_time() < worked_at + 0.05:
        pass
    assert costs.seconds() >= before + 0.03


# What is told


def test_every_attack_has_a_name_and_an_address_of_its_own() -> None:
    assert len({*campaign.NAMES}) == len(campaign.NAMES)
    assert len({new_address() for _ in range(1000)}) == 1000


def test_a_sheet_has_the_tasks_that_it_is_to_have() -> None:
    assert sheet(2, "why", uids=True).split("\r\n") == [
        "uid,name,description,status",
        "siege-0,Task 0,why,new",
        "siege-1,Task 1,why,planned",
        "",
    ]


def test_the_page_shows_each_pair_and_what_is_too_much() -> None:
    pairs = [Pair(run(20 + n), run(10 + n)) for n in range(5)]
    rows = [figures.row("a", "many a word", pairs, []), {"kind": "b", "says": "an end", "found": "nothing", "good": False}]
    measured, others = [*report._siege([{"when": "2026-01-01", "rows": rows}])][1:]
    assert "| many a word | 5 5 5 5 5 | 5 5 5 5 5 | 20 21 22 23 24 | 10 11 12 13 14 | 1.83 | 0 of 2,700 |" in measured
    assert measured.endswith("| good |\n")
    assert others.endswith("| an end | nothing | **too much** |\n")


def test_the_page_on_security_names_every_attack() -> None:
    [named] = re.findall(r"^Of API4 .*?\n\n", (HOUSE / "docs/security.md").read_text(), re.MULTILINE | re.DOTALL)
    assert {*re.findall("`([a-z-]+)`", named)} == {*campaign.NAMES}


def test_the_page_begins_with_the_words_that_are_written_for_it() -> None:
    assert report.PAGE.read_text().startswith(report.words())


def test_what_was_not_run_again_keeps_its_place_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(report.PAGE.read_text())
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "FILE", tmp_path / "results.json")
    report.write()
    assert page.read_text() == (HOUSE / "docs/reliability.md").read_text()
    row = {"kind": "b", "says": "an end", "found": "nothing", "good": True}
    report.keep("siege", "b", 30, Outcome([], {}, [row]))
    report.write()
    before, after = (HOUSE / "docs/reliability.md").read_text(), page.read_text()
    assert "| an end | nothing | good |" in after
    assert after.startswith(before[: before.index("### Hostile requests")])

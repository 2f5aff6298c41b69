"""What one sees from outside: the name of a request and its line in the log."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from aiohttp.web_urldispatcher import PlainResource
from pydantic import BaseModel

from telemetry import log_writer, logs
from telemetry.log_writer import WRITER
from tests import document
from tests.conftest import Person, Start
from tests.waiting import PATIENCE_SECONDS, until_then

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Lines:
    """Return a function that gives the access lines written since."""

    def written() -> list[dict[str, Any]]:
        WRITER.drain()
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    logs.ENDED.tell()
    written()
    caplog.set_level(logging.INFO)
    return written


async def test_each_request_has_its_line(alice: Person, stranger: Person, lines: Lines) -> None:
    assert alice.caller
    await alice.new_task()
    await alice.get("/task/1?status=new")
    named = await stranger.get("/nowhere/secret", headers={"X-Request-ID": "mine"})
    logs.ENDED.tell()
    made, read, missed = lines()
    assert set(made) == {"time", "level", "logger", "request_id", "method", "route", "status", "duration_ms", "user_id"}
    assert (made["method"], made["route"], made["status"], made["user_id"]) == ("POST", "/task", 201, alice.caller.user_id)
    assert (read["method"], read["route"], read["status"]) == ("GET", "/task/{id}", 200)
    assert (missed["request_id"], missed["route"], missed["status"], missed["user_id"]) == ("mine", None, 404, None)
    assert named.headers["X-Request-ID"] == "mine"
    assert made["request_id"] != read["request_id"]
    assert made["duration_ms"] > 0


async def test_lines_are_written_soon_by_themselves(stranger: Person, lines: Lines) -> None:
    await stranger.get("/health/live")
    written: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not written:
            await asyncio.sleep(0.02)
            written = lines()
    assert [line["route"] for line in written] == ["/health/live"]


async def test_many_lines_are_written_without_a_wait(stranger: Person, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SECONDS_BETWEEN_WRITES", 60)
    monkeypatch.setattr(logs, "MAX_NOTES", 3)
    for _ in range(4):
        await stranger.get("/health/live")
    assert 3 <= len(lines()) <= 4


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Return a function that gives how many lines were counted as lost since."""
    WRITER.count_lost()
    amounts: list[float] = []
    monkeypatch.setattr(log_writer.LOST, "count", lambda **counted: amounts.append(counted["amount"]))

    def number() -> float:
        WRITER.count_lost()
        return sum(amounts)

    return number


async def test_a_log_that_cannot_be_written_is_no_matter_to_requests_and_metrics(
    stranger: Person, lines: Lines, lost: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines() == []
    with open("/dev/full", "wb") as full:  # noqa: PTH123, ASYNC230
        monkeypatch.setattr(WRITER, "_descriptor", full.fileno())
        assert [(await stranger.get("/health/live")).status for _ in range(2)] == [200, 200]
        logs.ENDED.tell()
        WRITER.drain()
    assert lost() == 2


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the end of a pipe that nobody reads, and which is full; the log goes into it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 4096)
    os.set_blocking(writing, True)
    WRITER.drain()
    monkeypatch.setattr(WRITER, "_descriptor", writing)
    yield reading
    os.close(reading)  # which ends the thread's wait
    until_then(lambda: not WRITER._bytes_waiting)
    os.close(writing)


async def test_a_log_that_nobody_reads_is_no_matter_to_requests(
    stranger: Person, unread: int, lost: Callable[[], float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(log_writer, "MAX_BYTES_WAITING", 3000)
    assert [(await stranger.get("/health/live")).status for _ in range(50)] == [200] * 50
    logs.ENDED.tell()
    for _ in range(50):
        WRITER.put("a record of others\n")
    assert 0 < WRITER._bytes_waiting <= 3000
    lost_before = lost()
    assert lost_before > 50
    kept = b""
    os.set_blocking(unread, False)

    def reads_on() -> bool:
        nonlocal kept
        with suppress(BlockingIOError):
            kept += os.read(unread, 4096)
        return not WRITER._bytes_waiting and kept.endswith(b"\n")

    until_then(reads_on)
    WRITER.put("the last\n")
    until_then(lambda: reads_on() and b"last" in kept)
    assert kept.endswith(b"a record of others\nthe last\n")  # what was taken is there, in its order
    assert lost() == lost_before


@pytest.mark.usefixtures("unread")
def test_a_log_that_nobody_reads_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "SECONDS_AT_THE_END", 0)
    WRITER.put("one line\n")
    WRITER.drain()
    assert WRITER._bytes_waiting


@pytest.fixture(params=["pipe", "file"])
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[log_writer.Writer, Callable[[], bytes]]]:
    """Return a writer into a pipe, or a file, in which there is room; and what reads that."""
    if request.param == "file":
        reading, writing = os.open(tmp_path / "log", os.O_RDONLY | os.O_CREAT), os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND)
    else:
        reading, writing = os.pipe()
    yield log_writer.Writer(writing), lambda: os.read(reading, 100_000)
    os.close(reading)
    os.close(writing)


def test_where_there_is_room_no_thread_is_woken(writer: tuple[log_writer.Writer, Callable[[], bytes]]) -> None:
    written, read = writer
    for number in range(3):
        written.put(f"line {number}\n")
    assert read() == b"line 0\nline 1\nline 2\n"
    assert written._thread is None


FORKING = """
import os
from telemetry.log_writer import WRITER
for _ in range(1000):
    WRITER.put("the parent's\\n")
if not os.fork():
    WRITER.put("the child's\\n")
"""


def test_a_process_that_is_forked_writes_its_own_lines_and_no_others_before_it_ends() -> None:
    made = subprocess.run([sys.executable, "-c", FORKING], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}, check=True)
    assert sorted(made.stdout.splitlines()) == [b"the child's"] + [b"the parent's"] * 1000


async def test_a_stopping_service_writes_what_it_has(start: Start, lines: Lines) -> None:
    client = await start()
    await client.get("/health/live")
    await client.close()
    assert [line["route"] for line in lines()] == ["/health/live"]


async def test_above_info_nothing_is_written(stranger: Person, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await stranger.get("/health/live")
    logs.ENDED.tell()
    assert lines() == []


@pytest.mark.parametrize("method", ["PROPFIND", "M-SEARCH", "QUERY"])
async def test_a_line_is_json_whatever_the_method(stranger: Person, lines: Lines, method: str) -> None:
    assert (await stranger(method, "/task")).status in (401, 405)
    logs.ENDED.tell()
    assert [line["method"] for line in lines()] == [method]


async def test_the_names_of_requests_differ(stranger: Person) -> None:
    names = {(await stranger.get("/health/live")).headers["X-Request-ID"] for _ in range(100)}
    assert len(names) == 100
    assert all(logs.REQUEST_ID.fullmatch(name) for name in names)


# What a client sends is not in the log


Logged = Callable[[BaseException], str]


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Logged:
    """Return a function that lets an error be logged, and gives what was written."""

    def log(error: BaseException) -> str:
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        monkeypatch.setattr(root, "level", root.level)
        logs.log_to_stdout("INFO")
        try:
            raise error
        except BaseException:
            logging.getLogger("rest.errors").exception("unexpected failure")
        monkeypatch.undo()
        WRITER.drain()
        [line] = capfd.readouterr().out.splitlines()
        record = json.loads(line)
        assert (record["message"], record["level"], record["logger"]) == ("unexpected failure", "ERROR", "rest.errors")
        return record["exc_info"]

    return log


def test_a_warning_that_comes_again_and_again_is_written_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SECONDS_BETWEEN_LIKES", 60)
    sparing = logs._Sparing()

    def passes(words: str, level: int = logging.WARNING) -> Any:
        record = logging.LogRecord("postgres.database", level, "", 0, words, (), None)
        return getattr(record, "left_out", None) if sparing.filter(record) else "left out"

    assert [passes("in trouble: %s") for _ in range(4)] == [0, "left out", "left out", "left out"]
    assert passes("another") == 0
    assert [passes("in trouble: %s", logging.ERROR) for _ in range(2)] == [None, None]
    with monkeypatch.context() as later:
        later.setattr(logs, "SECONDS_BETWEEN_LIKES", 0)
        assert passes("in trouble: %s") == 3
    assert passes("in trouble: %s") == "left out"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert passes("in trouble: %s") == 1  # a clock that has stepped back silences nobody


class Number(BaseModel):
    """What refuses a text, and would say which."""

    number: int


def of_pydantic(text: str) -> BaseException:
    try:
        Number(number=text)  # type: ignore[arg-type]
    except ValueError as error:
        return error
    raise AssertionError


def of_a_conversion(text: str) -> BaseException:
    try:
        int(text)
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("text", ["my secret", "my 'secret'", 'my "secret', "my\nsecret", "secret\x1b[31m\r", "sec\udcffret", "'secret"])
@pytest.mark.parametrize(
    "make",
    [
        of_pydantic,
        of_a_conversion,
        KeyError,
        lambda text: psycopg2.DataError(f"invalid input syntax for type bigint: \"{text}\"\nLINE 1: SELECT '{text}'"),
        lambda text: psycopg2.IntegrityError(f"duplicate key value\nDETAIL: Key (login_key)=({text}) already exists."),
    ],
)
def test_an_error_is_told_without_what_was_sent(logged: Logged, make: Callable[[str], BaseException], text: str) -> None:
    error = make(text)
    error.__cause__ = of_a_conversion(text)
    told = logged(error)
    assert "secret" not in told
    assert "my" not in told
    assert "test_logs.py" in told  # where it was
    assert f"{type(error).__name__}: " in told
    assert "ValueError: invalid literal for int() with base 10: ...\nand then\n" in told


def test_an_error_of_our_own_is_told_as_it_is(logged: Logged) -> None:
    assert logged(RuntimeError("a synchronous query")).endswith("\nRuntimeError: a synchronous query\n")
    assert len(logged(RuntimeError("x" * 5000))) < 1000


SPLICING = """
from aiohttp.web_urldispatcher import PlainResource
from telemetry import log_writer, logs
from telemetry.log_writer import WRITER
logs.log.setLevel("INFO")
for _ in range(100):
    logs.ENDED.notes += [("GET", PlainResource("/task"), 200, 0.001, "0" * 64, None, 0.0)] * 80
    logs.ENDED.tell()
    logs.WRITER.drain()
"""


@pytest.mark.long
def test_the_lines_of_several_workers_stay_whole() -> None:
    reading, writing = os.pipe()
    workers = [subprocess.Popen([sys.executable, "-c", SPLICING], stdout=writing, env=os.environ | {"PYTHONPATH": "."}) for _ in range(2)]
    os.close(writing)
    lines = []
    with os.fdopen(reading) as pipe:
        for line in pipe:
            lines.append(line)
            if len(lines) % 50 == 0:
                time.sleep(0.001)  # slower than they write: the pipe is full at times
    assert [worker.wait() for worker in workers] == [0, 0]
    assert len(lines) == 2 * 100 * 80
    assert {json.loads(line)["request_id"] for line in lines} == {"0" * 64}


def test_what_is_written_at_once_fits_into_a_pipe() -> None:
    longest = logs._json_line(("UNSUBSCRIBE", PlainResource(max(document.PATHS, key=len)), 200, 86400, "x" * 64, 2**63, time.time()))
    assert len(longest.encode()) * logs.LINES_AT_ONCE <= 4096

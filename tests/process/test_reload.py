"""On SIGHUP new workers take over, and the old ones finish what takes long; SIGTERM ends them all soon."""

import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
import requests

from tests.process.service import Service, register, running
from tests.waiting import until_then

pytestmark = pytest.mark.long

SECONDS = 2.0  # that a request may take
LIMITS = {"REQUEST_TIMEOUT_SECONDS": f"{SECONDS}", "STATEMENT_TIMEOUT_SECONDS": "1", "LOCK_TIMEOUT_SECONDS": "1", "DB_WAIT_SECONDS": "1"}
GRACEFUL_SECONDS = math.ceil(SECONDS) + 4  # as gunicorn.conf.py has it
ROWS = 1000
HEAD = "name,description,status\n"
ROW = "a,,new\n"


@pytest.fixture
def service(unused_tcp_port: int) -> Iterator[Service]:
    """A service that one test may reload and stop."""
    with running(unused_tcp_port, **LIMITS) as service:
        yield service


class Import:
    """A file that arrives slowly."""

    def __init__(self, service: Service, token: dict[str, str]) -> None:
        address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
        length = len(HEAD) + ROWS * len(ROW)
        self._socket = socket.create_connection(address, timeout=30)
        self._socket.sendall(
            f"POST /import HTTP/1.1\r\nHost: us\r\nAuthorization: {token['Authorization']}\r\nContent-Type: text/csv\r\n"
            f"Content-Length: {length}\r\n\r\n{HEAD}".encode()
        )

    def go_on(self, rows: int) -> None:
        """Send some rows."""
        self._socket.sendall((ROW * rows).encode())

    def answer(self) -> bytes:
        """Return all that comes back; nothing where the connection is broken off."""
        answer = b""
        try:
            while piece := self._socket.recv(65536):
                answer += piece
        except ConnectionError:
            pass
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@contextmanager
def reloaded(service: Service, token: dict[str, str]) -> Iterator[tuple[Import, int]]:
    """Reload the service while a file arrives; give it, and the process that goes on with it when all others of the old have ended."""
    old = set(service.workers())
    with closing(Import(service, token)) as file:
        file.go_on(1)
        service.process.send_signal(signal.SIGHUP)
        until_then(lambda: len(old & set(service.workers())) == 1 and len(service.workers()) == 3)
        [retiring] = old & set(service.workers())
        yield file, retiring


def go_on_for(file: Import, seconds: float) -> int:
    """Go on sending for so long, and return how many rows that were."""
    for _ in range(math.ceil(seconds)):
        time.sleep(1)
        file.go_on(1)
    return math.ceil(seconds)


def test_an_import_goes_on_beyond_a_reload(service: Service) -> None:
    token = register(service, "reloading-alice")
    with ExitStack() as stack:
        events = f"{service.url}/task/events"
        following = [stack.enter_context(requests.get(events, headers=token, stream=True, timeout=30)) for _ in range(4)]
        file, retiring = stack.enter_context(reloaded(service, token))
        for stream in following:
            assert list(stream.iter_content(1024))  # they end at once
        sent = 1 + go_on_for(file, GRACEFUL_SECONDS + SECONDS)
        os.kill(next(worker for worker in service.workers() if worker != retiring), signal.SIGKILL)
        until_then(lambda: len(service.workers()) == 3)  # one that dies is replaced
        file.go_on(ROWS - sent)
        answer = file.answer()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b'{"before":0,"revision":1000,"count":1000,"skipped":[],"skipped_count":0}\n')
    until_then(lambda: retiring not in service.workers())
    assert len(service.workers()) == 2
    assert requests.get(f"{service.url}/task?limit=1", headers=token, timeout=10).headers["X-Revision"] == "1000"


def test_an_end_waits_for_nobody_who_has_outlived_a_reload(service: Service) -> None:
    with reloaded(service, register(service, "ending-alice")) as (file, _):
        go_on_for(file, SECONDS + 1)
        service.process.send_signal(signal.SIGTERM)
        assert file.answer() == b""
        assert service.stop() == 0
    assert "SIGKILL" not in service.output


def test_a_second_reload_ends_what_the_first_has_left(service: Service) -> None:
    with reloaded(service, register(service, "twice-alice")) as (file, _):
        go_on_for(file, SECONDS + 1)
        before = set(service.workers())
        service.process.send_signal(signal.SIGHUP)
        assert file.answer() == b""
        until_then(lambda: not before & set(service.workers()))
    assert len(service.workers()) == 2


def test_a_signal_that_comes_while_a_worker_ends_does_not_break_it_off(service: Service) -> None:
    """Ctrl-C reaches the workers themselves, and then gunicorn tells them to stop: by the time one hears that, it may be about to end."""
    for victim in service.workers():
        handle = os.pidfd_open(victim)
        os.kill(victim, signal.SIGINT)
        with suppress(ProcessLookupError), os.fdopen(handle):
            while True:
                signal.pidfd_send_signal(handle, signal.SIGQUIT)
    until_then(lambda: len(service.workers()) == 2)
    assert service.stop() == 0
    assert "was sent" not in service.output

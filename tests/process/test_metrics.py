"""The numbers of several workers are one, also when one of them has died."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from server import arrival
from telemetry.metrics import Family
from tests.process.service import Service, register, running
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.long

OPERATOR = {"Authorization": "Bearer only-for-prometheus"}


@pytest.fixture
def service(unused_tcp_port: int) -> Iterator[Service]:
    """A service on the run's database, which is measured."""
    with running(unused_tcp_port, METRICS_TOKEN="only-for-prometheus") as service:
        yield service


def shown(service: Service) -> str:
    """Return what /metrics shows."""
    answer = requests.get(f"{service.url}/metrics", headers=OPERATOR, timeout=10)
    assert answer.status_code == 200
    return answer.text


def number(service: Service, series: str) -> float:
    """Return one of the numbers; 0 where there is none."""
    found = re.findall(rf"^{re.escape(series)} (\S+)$", shown(service), re.MULTILINE)
    return float(found[0]) if found else 0


def comes_true(condition: Callable[[], bool]) -> bool:
    """Return whether a condition comes to hold: each worker writes every second."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (holds := condition()) and time.monotonic() < end:
        threading.Event().wait(0.1)
    return holds


def comes_to(service: Service, series: str, expected: float) -> bool:
    """Return whether a number reaches a value."""
    return comes_true(lambda: number(service, series) == expected)


def ask(service: Service, times: int) -> None:
    """Ask for something, each time on a connection of its own, so that every worker has its turn."""
    for _ in range(times):
        assert requests.get(f"{service.url}/task", timeout=10).status_code == 401


ASKED = 'http_requests_total{method="GET",route="/task",status="401"}'
TIMED = 'http_request_duration_seconds_count{method="GET",route="/task"}'


def files(service: Service) -> list[Path]:
    """Return the files in which the workers count: they have been opened by now."""
    held = {link.readlink() for pid in service.workers() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    return [path for path in held if path.suffix == ".db"]


def replaced(service: Service, pid: int) -> bool:
    """Return whether two workers come to serve, and none of them is this one."""
    return comes_true(lambda: len(workers := service.workers()) == 2 and pid not in workers)


def test_the_numbers_of_the_workers_are_added_and_stay_when_one_is_killed(service: Service) -> None:
    headers = register(service, "measured-alice")
    requests.get(f"{service.url}/task", headers=headers, timeout=10)
    ask(service, 50)
    assert comes_to(service, ASKED, 50)
    assert comes_to(service, TIMED, 51)
    assert comes_to(service, "workers", 2)
    directories = {path.parent for path in files(service)}
    [directory] = directories

    for times in (1, 2, 3):
        victim = service.workers()[0]
        os.kill(victim, signal.SIGKILL)
        assert replaced(service, victim)
        assert number(service, ASKED) >= 50 * times  # nothing is forgotten meanwhile, nor counted twice
        ask(service, 50)
        assert comes_to(service, ASKED, 50 + 50 * times)
        assert comes_to(service, TIMED, 51 + 50 * times)
        assert comes_to(service, "workers", 2)
        assert comes_to(service, "database_connections_max", 20)
    kinds = ("counter", "histogram", "gauge_livesum")
    assert {path.name for path in directory.iterdir()} == {f"{kind}_{place}.db" for kind in kinds for place in (0, 1)}  # none piles up


def test_a_reload_and_an_end_lose_nothing_and_a_stop_leaves_nothing(service: Service) -> None:
    ask(service, 20)
    assert comes_to(service, ASKED, 20)
    [directory] = {path.parent for path in files(service)}
    assert directory.stat().st_mode & 0o777 == 0o700
    old = service.workers()
    ask(service, 10)
    service.process.send_signal(signal.SIGHUP)
    assert comes_true(lambda: len(workers := service.workers()) == 2 and not set(old) & set(workers))
    assert comes_to(service, ASKED, 30)  # what the old ones had not yet written they wrote as they went
    assert comes_to(service, "workers", 2)
    service.process.send_signal(signal.SIGTTOU)  # one worker less
    assert comes_to(service, "workers", 1)
    assert comes_to(service, "database_connections_max", 10)
    assert number(service, ASKED) == 30
    assert service.stop() == 0
    assert not directory.exists()


def test_everything_that_alerts_and_dashboard_may_name_is_there(service: Service) -> None:
    headers = register(service, "measured-bob")
    assert requests.get(f"{service.url}/task", headers=headers, timeout=10).status_code == 200
    assert arrival.NO_HTTP in Family.every

    def missing() -> list[str]:
        text = f"\n{shown(service)}"
        return [family.description[0] for family in Family.every if f"\n# TYPE {family.description[0]} " not in text]

    assert comes_true(lambda: not missing()), missing()


def test_connections_and_what_is_no_http_are_counted(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))), socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\x16\x03\x01 as TLS begins\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 400 ")
        assert comes_to(service, "http_malformed_total", 1)
        assert comes_to(service, "http_connections", 2)  # the one that is idle, and the one that asks
    assert comes_to(service, "http_connections_max", 2 * 800)


def test_without_a_token_nothing_is_written(unused_tcp_port: int) -> None:
    with running(unused_tcp_port) as service:
        ask(service, 4)
        assert files(service) == []
        assert requests.get(f"{service.url}/metrics", headers=OPERATOR, timeout=10).status_code == 404

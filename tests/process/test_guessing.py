"""Guessing passwords, with all the workers of two hosts to do it at."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.process.service import Service, running

pytestmark = pytest.mark.long

FAILURES = 20
ON = {"RATE_LIMIT": "on", "TRUSTED_PROXIES": "127.0.0.1", "LOGIN_FAILURES_PER_HOUR": str(FAILURES)}
HOME, ELSEWHERE = "198.51.100.1", "203.0.113.1"


@pytest.fixture
def hosts(unused_tcp_port_factory: Any) -> Iterator[list[Service]]:
    """Two services of two workers each, on one database."""
    with running(unused_tcp_port_factory(), **ON) as one, running(unused_tcp_port_factory(), **ON) as other:
        yield [one, other]


def ask(host: Service, path: str, address: str, login: str, password: str = "correct horse") -> requests.Response:
    """Ask on a connection of its own, so that every worker has its turn."""
    fields = {"login": login, "password": password}
    return requests.post(host.url + path, data=fields, headers={"X-Forwarded-For": address}, timeout=30)


def guess(hosts: list[Service], tries: list[tuple[str, str]]) -> dict[tuple[int, ...], int]:
    """Try a wrong password for each address and login, many at once; count what was answered, and by which quota."""

    def one(number: int) -> tuple[Any, ...]:
        answer = ask(hosts[number % len(hosts)], "/get-token", *tries[number], password="a wrong guess")
        return answer.status_code, *answer.json().get("violated-policies", [])

    with ThreadPoolExecutor(12) as threads:
        return Counter(threads.map(one, range(len(tries))))


def test_the_limits_are_exact_over_all_workers_and_hosts_and_lock_nobody_out(hosts: list[Service]) -> None:
    login = "process-guessed"
    assert ask(hosts[0], "/register", HOME, login).status_code == 201
    assert guess(hosts, [(ELSEWHERE, login)] * 60) == {(401,): 5, (429, "login"): 55}
    assert guess(hosts, [("203.0.113.2", f"{login}-{n}") for n in range(60)]) == {(401,): 10, (429, "address"): 50}
    assert [ask(host, "/get-token", ELSEWHERE, login).status_code for host in hosts] == [429, 429]
    assert ask(hosts[1], "/get-token", "203.0.113.3", login).status_code == 200  # with the right password, from another address
    botnet = [(f"203.0.113.{n}", login) for n in range(100, 160)]
    assert guess(hosts, botnet) == {(401,): FAILURES - 5, (429, "failures"): 60 - FAILURES + 5}
    assert [ask(host, "/get-token", "203.0.113.4", login).status_code for host in hosts] == [429, 429]
    assert [ask(host, "/get-token", address, login).status_code for host in hosts for address in (HOME, "203.0.113.3")] == [200] * 4
    for host in hosts:
        assert "Traceback" not in host.output

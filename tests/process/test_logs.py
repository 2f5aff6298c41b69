"""What the service writes while it is used and attacked: lines of JSON, few, and nothing of what clients sent."""

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import jwt
import pytest
import requests

from tests.process.service import HOUSE, Service, register, running
from tests.waiting import PATIENCE_SECONDS, until_then

pytestmark = pytest.mark.long

SECRET = "do-not-log-me"  # in everything that is sent; no part of any name or address
PASSWORD = f"{SECRET} battery"
ACCESS = {"time", "level", "logger", "request_id", "method", "route", "status", "duration_ms", "user_id"}
OTHER = {"time", "level", "logger", "message", "request_id"}


@pytest.fixture
def service(unused_tcp_port: int) -> Iterator[Service]:
    """A service that tells as much as it can."""
    with running(unused_tcp_port, LOG_LEVEL="DEBUG", METRICS_TOKEN=f"{SECRET}-to-measure") as service:
        yield service


def lines(service: Service) -> list[dict[str, Any]]:
    """Stop the service and give all that it has written; each line must be an object."""
    service.stop()
    return [json.loads(line) for line in service.output.splitlines()]


def send(service: Service, *texts: bytes) -> None:
    """Send bytes, each text on a connection of its own, and wait for an answer or the end."""
    host, port = service.url.removeprefix("http://").split(":")
    for text in texts:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(text)
            connection.recv(65536)


def test_nothing_that_is_sent_is_in_the_log(service: Service) -> None:
    login = f"{SECRET}-{secrets.token_hex(4)}"
    account = {"login": login, "password": PASSWORD}
    tokens = [requests.post(f"{service.url}/register", data=account, timeout=10).json()["access_token"]]
    tokens.append(requests.post(f"{service.url}/get-token", json=account, timeout=10).json()["access_token"])
    headers = {"Authorization": f"Bearer {tokens[1]}", "User-Agent": SECRET, "Cookie": f"{SECRET}={SECRET}", "Referer": SECRET}
    headers |= {"X-Forwarded-For": SECRET, "X-Request-ID": f"{SECRET} is no name", "Accept": SECRET, "If-None-Match": f'"{SECRET}"'}
    task = {"name": SECRET, "description": SECRET, "status": "new"}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/register", {"data": account}),
        ("POST", "/register", {"data": account | {"login": f"{SECRET} {SECRET}"}}),
        ("POST", "/get-token", {"data": account | {"password": f"{PASSWORD}x"}}),
        ("POST", "/get-token", {"data": account | {SECRET: SECRET}}),
        ("POST", "/register", {"data": account | {"invitation": SECRET}}),
        ("POST", "/reset-password", {"data": {"code": SECRET, "new": PASSWORD}}),
        ("POST", "/task", {"json": task, "headers": {"Idempotency-Key": SECRET}}),
        ("POST", "/task", {"data": f"{SECRET}{{", "headers": {"Content-Type": "application/json"}}),
        ("POST", "/task", {"data": SECRET, "headers": {"Content-Type": SECRET}}),
        ("POST", "/task", {"data": f"--x\r\n{SECRET}", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
        ("PATCH", "/task/1", {"json": {"name": f"{SECRET} again", "status": SECRET}}),
        ("PATCH", "/task/1", {"json": {"name": f"{SECRET} again"}, "headers": {"If-Match": f'"{SECRET}"'}}),
        ("PATCH", "/task/1", {"json": {"name": f"{SECRET} again"}}),
        ("GET", f"/task?q={SECRET}", {}),
        ("GET", f"/task?cursor={SECRET}", {}),
        ("GET", f"/{SECRET}/%0a%0d{{", {}),
        ("GET", "/task/1/log", {}),
        ("GET", "/metrics", {"headers": {"Authorization": f"Bearer {SECRET}-to-measure"}}),
        ("GET", "/metrics", {"headers": {"Authorization": f"Bearer {SECRET}"}}),
        ("POST", "/change-password", {"data": {"old": f"{PASSWORD}x", "new": PASSWORD}}),
        ("POST", "/change-password", {"data": {"old": PASSWORD, "new": f"{PASSWORD} new"}}),
    ]
    statuses = []
    for method, path, options in asked:
        options["headers"] = headers | options.get("headers", {})
        answer = requests.request(method, service.url + path, timeout=10, **options)
        statuses.append(answer.status_code)
        tokens += [answer.json()["access_token"]] if path == "/change-password" and answer.status_code == 200 else []
    assert {200, 201, 400, 401, 404, 409, 415} <= set(statuses)
    assert 500 not in statuses
    assert len(tokens) == 3
    written = lines(service)
    assert len([line for line in written if line["logger"] == "access"]) >= len(asked) + 2
    assert SECRET not in service.output
    assert "battery" not in service.output
    for token in tokens:
        assert token not in service.output
        assert token.rpartition(".")[2] not in service.output


def test_nobody_writes_a_line_of_his_own(service: Service) -> None:
    forged = b'"}\n{"level":"ERROR","forged":true}\n'
    host = b"Host: x\r\n"
    send(
        service,
        b"GET / HTTP/1.1\r\n" + host + b'X-Request-ID: x","forged":"true\r\n\r\n',
        b"GET / HTTP/1.1\r\n" + host + b"X-Request-ID: x\x0b{\r\n\r\n",
        b"GET /%22%7D%0A%7B%22forged%22:true%7D HTTP/1.1\r\n" + host + b"\r\n",
        b'GET /"forged":true HTTP/1.1\r\n' + host + b"\r\n",
        b'"forged":true / HTTP/1.1\r\n' + host + b"\r\n",
        b"PROPFIND /task HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /task HTTP/1.1\r\n" + host + b'Authorization: Bearer \xff\xfe"forged"\r\n\r\n',
        b"GET /task HTTP/1.1\r\n" + host + b"forged\r\n\r\n",
        b"GET /task HTTP/9.9 forged\r\n" + host + b"\r\n",
        b"POST /get-token HTTP/1.1\r\n"
        + host
        + b"Content-Type: multipart/form-data; boundary="
        + b"forged" * 20
        + b"\r\nContent-Length: 6\r\n\r\nforged",
        b"POST /get-token HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nforged\r\n",
        b"POST /get-token HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(forged) + forged,
        forged,
        b"\x16\x03\x01forged",  # as TLS begins
    )
    written = lines(service)
    assert "forged" not in service.output
    assert {frozenset(line) for line in written} <= {frozenset(ACCESS), frozenset(OTHER), frozenset(OTHER | {"left_out"})}
    assert {line["method"] for line in written if line["logger"] == "access"} == {"GET", "POST", "PROPFIND"}
    loud = [line for line in written if line["level"] in ("WARNING", "ERROR", "CRITICAL")]
    assert not [line for line in loud if "RATE_LIMIT is off" not in line["message"]]  # as it is in tests


def test_bad_tokens_are_counted_and_cost_the_log_little(service: Service) -> None:
    good = register(service, f"process-bad-tokens-{secrets.token_hex(4)}")
    token = good["Authorization"].removeprefix("Bearer ")
    with requests.Session() as session:
        crit = jwt.encode({"sub": "1"}, "x" * 32, headers={"crit": [SECRET * 100]})
        bad = ["x", "x.y.z", SECRET * 200, crit, f"{token}x", f"{token[:-9]}AAAAAAAAA", '{"forged":true}']
        before = len(service.output)
        for n in range(1000):
            answer = session.get(f"{service.url}/task", headers={"Authorization": f"Bearer {bad[n % len(bad)]}"}, timeout=10)
            assert answer.status_code == 401
        assert session.get(f"{service.url}/task", headers=good, timeout=10).status_code == 200
        measured = session.get(f"{service.url}/metrics", headers={"Authorization": f"Bearer {SECRET}-to-measure"}, timeout=10)
    assert lines(service)
    written = service.output[before:]
    refused = [line for line in written.splitlines() if '"status":401' in line]
    assert len(refused) == 1000
    assert max(map(len, refused)) < 200
    assert len("".join(line for line in written.splitlines() if '"logger":"access"' not in line)) < 2000  # it stops
    assert SECRET not in written
    assert 'http_refusals_total{kind="invalid-token"} 1000.0' in measured.text


def test_what_gunicorn_says_is_json_too(service: Service) -> None:
    said = [line for line in lines(service) if line["logger"] in ("gunicorn.error", "server")]
    words = " ".join(line["message"] for line in said)
    for expected in ("Starting gunicorn", f"Listening on {service.url}", "Booting worker", "Handling signal: term", "Shutting down"):
        assert expected in words
    assert "Bad file descriptor" not in words


class Unread(Service):
    """A service whose log nobody reads, until the test wants it."""

    def __init__(self, port: int, **environment: str) -> None:
        self.is_read = threading.Event()
        super().__init__(port, **environment)
        assert self.process.stdout
        fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # some twenty lines

    def _read(self) -> None:
        self.is_read.wait()
        super()._read()


@pytest.fixture
def unread(unused_tcp_port: int) -> Iterator[Unread]:
    service = Unread(unused_tcp_port)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.is_read.set()
        service.stop()


def ask_often(url: str) -> None:
    """Fill many pipes with lines."""
    with requests.Session() as session:
        for _ in range(400):
            assert session.get(f"{url}/health/live", timeout=PATIENCE_SECONDS).status_code == 200


def test_whoever_reads_late_gets_every_line(unread: Unread) -> None:
    ask_often(unread.url)
    unread.is_read.set()
    assert len([line for line in lines(unread) if line.get("route") == "/health/live"]) == 400


def test_a_log_that_nobody_reads_stops_neither_the_workers_nor_who_watches_them(unread: Unread) -> None:
    ask_often(unread.url)
    killed = unread.workers()
    for worker in killed:
        os.kill(worker, signal.SIGKILL)  # gunicorn has a word to say of each, and then makes others
    until_then(lambda: len(set(unread.workers()) - set(killed)) == 2)
    unread.wait_until_ready()
    ask_often(unread.url)
    unread.process.send_signal(signal.SIGTERM)
    assert unread.process.wait(PATIENCE_SECONDS) == 0


def test_one_process_alone_has_such_a_log_too(unused_tcp_port: int) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    environment = os.environ | {"PORT": f"{unused_tcp_port}", "HOST": "127.0.0.1"}
    with subprocess.Popen([sys.executable, "app.py"], cwd=HOUSE, env=environment, stdout=writing, stderr=writing) as process:
        try:
            until_then(lambda: process.poll() is not None or is_up(f"http://127.0.0.1:{unused_tcp_port}"))
            ask_often(f"http://127.0.0.1:{unused_tcp_port}")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0
        finally:
            process.kill()
            os.close(reading)
            os.close(writing)


def is_up(url: str) -> bool:
    with suppress(requests.ConnectionError):
        return requests.get(f"{url}/health/live", timeout=PATIENCE_SECONDS).ok
    return False

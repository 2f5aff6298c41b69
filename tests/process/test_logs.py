"""What the service writes while it is used and attacked: lines of JSON, few, and nothing of what clients sent."""

import json
import secrets
import socket
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import requests

from tests.process.service import Service, register, running

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

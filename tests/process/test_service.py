"""The service as it runs: gunicorn, its workers, signals, and what stops a start."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests

from settings import EXAMPLE_SECRET
from tests.process.service import HOUSE, Service, register, running
from tests.waiting import PATIENCE_SECONDS, until_then

pytestmark = pytest.mark.long


@pytest.fixture
def service(unused_tcp_port: int) -> Iterator[Service]:
    """A service on the run's database."""
    with running(unused_tcp_port) as service:
        yield service


def new_task(service: Service, headers: dict[str, str]) -> requests.Response:
    """Create a task on a connection of its own, so that every worker has its turn."""
    return requests.post(f"{service.url}/task", data={"name": "a", "description": "", "status": "new"}, headers=headers, timeout=10)


def all_tasks(service: Service, headers: dict[str, str]) -> Iterator[int]:
    """Return the id of every task, page after page."""
    following = "/task"
    while following:
        answer = requests.get(service.url + following, headers=headers, timeout=10)
        yield from (task["id"] for task in answer.json())
        following = answer.links.get("next", {}).get("url", "")


def test_every_request_is_one_line_of_json_without_secrets(service: Service) -> None:
    headers = register(service, "process-logs")
    requests.get(f"{service.url}/task/7?status=new", headers=headers | {"X-Request-ID": "find-me"}, timeout=10)
    service.stop()
    [line] = [line for line in service.output.splitlines() if "find-me" in line]
    assert (json.loads(line)["route"], json.loads(line)["status"]) == ("/task/{id}", 404)
    assert "correct horse" not in service.output
    assert headers["Authorization"].split()[1] not in service.output


def test_what_is_no_http_leaves_nothing_of_it_in_the_log(service: Service) -> None:
    answer = requests.get(f"{service.url}/task", headers={"Authorization": "Bearer " + "secret" * 2000}, timeout=10)
    assert answer.status_code == 400
    assert requests.get(f"{service.url}/nowhere", headers={"X-Request-ID": "find-me"}, timeout=10).status_code == 404
    service.stop()
    assert "find-me" in service.output
    assert "secret" not in service.output
    assert "Traceback" not in service.output


def test_a_killed_worker_loses_no_acknowledged_change_and_is_replaced(service: Service) -> None:
    headers = register(service, "process-killed")
    acknowledged: list[int] = []
    failures: list[object] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            try:
                answer = new_task(service, headers)
            except requests.ConnectionError as error:
                failures.append(error)
            else:
                (acknowledged if answer.status_code == 201 else failures).append(answer.json()["id"])

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    try:
        until_then(lambda: len(acknowledged) > 10)
        victim = service.workers()[0]
        os.kill(victim, signal.SIGKILL)
        until_then(lambda: victim not in service.workers() and len(service.workers()) == 2)
        before = len(acknowledged)
        until_then(lambda: len(acknowledged) > before + 10)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    there = set(all_tasks(service, headers))
    assert set(acknowledged) <= there
    assert len(failures) <= len(writers)  # no more than were under way


def test_a_request_under_way_is_answered_before_it_stops(service: Service) -> None:
    register(service, "process-term")
    body = json.dumps(
        {"login": "process-term", "password": "correct horse"}
    )  # to hash it takes long enough for the signal to come in between
    with closing(HTTPConnection(service.url.removeprefix("http://"), timeout=PATIENCE_SECONDS)) as connection:
        connection.request("POST", "/get-token", body, {"Content-Type": "application/json"})
        service.process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 200
    assert service.process.wait(PATIENCE_SECONDS) == 0


def start(*command: str, **environment: str | None) -> "subprocess.CompletedProcess[str]":
    """Run a command of ours to its end, with some of the environment changed or (None) left out."""
    env = {name: value for name, value in (os.environ | environment).items() if value is not None}
    return subprocess.run([sys.executable, *command], cwd=HOUSE, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("JWT_SECRET", None, "is not set"),
        ("JWT_SECRET", "x" * 31, "at least 32 bytes"),
        ("JWT_SECRET", EXAMPLE_SECRET, "the example's"),
        ("PASS_SALT", None, "is not set"),
        ("PASS_SALT", "short", "at least 16 bytes"),
        ("PASS_SALT", EXAMPLE_SECRET, "the example's"),
        ("DB_HOST", None, "is not set"),
        ("PORT", "http", "PORT: "),
    ],
)
@pytest.mark.parametrize("command", [("-m", "gunicorn", "app:create_app"), ("app.py",), ("models.py",)], ids=["gunicorn", "app", "models"])
def test_a_missing_or_weak_setting_stops_the_start_and_is_named(
    command: tuple[str, ...], variable: str, value: str | None, words: str
) -> None:
    outcome = start(*command, **{variable: value})
    assert outcome.returncode != 0
    assert variable in outcome.stderr
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_misspelt_setting_is_told_once_and_not_its_value(unused_tcp_port: int) -> None:
    with running(unused_tcp_port, PROT="do-not-tell-me") as service:
        service.stop()
    assert service.output.count("PROT in the environment is no setting, and is ignored. Is PORT meant?") == 1
    assert "do-not-tell-me" not in service.output


def test_python_app_py_without_settings_points_to_make_run() -> None:
    outcome = start("app.py", JWT_SECRET=None, PASS_SALT=None, DB_HOST=None)
    assert "make run" in outcome.stderr


def test_python_models_py_makes_the_schema_as_often_as_one_likes() -> None:
    for _ in range(2):
        assert start("models.py").returncode == 0


@pytest.mark.parametrize("command", [("-m", "gunicorn", "app:create_app"), ("models.py",)], ids=["gunicorn", "models"])
def test_an_old_postgresql_stops_the_start_with_a_sentence(command: tuple[str, ...], tmp_path: Path, unused_tcp_port: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.path.insert(0, '.')\nfrom postgres import migrate\nmigrate.MIN_POSTGRESQL_VERSION = 99"
    )
    outcome = start(*command, PYTHONPATH=str(tmp_path), PORT=str(unused_tcp_port))
    assert outcome.returncode != 0
    assert (outcome.stderr + outcome.stdout).count("PostgreSQL 99 or newer is needed") == 1
    assert "Traceback" not in outcome.stderr


def test_what_hinders_the_start_is_told_once_and_not_for_ever(unused_tcp_port_factory: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as no_postgresql:
        where = {"DB_HOST": "127.0.0.1", "DB_PORT": f"{no_postgresql.getsockname()[1]}"}
        service = Service(unused_tcp_port_factory(), **where)
        try:
            for _ in range(10):  # attempts of two workers
                no_postgresql.settimeout(PATIENCE_SECONDS)
                with no_postgresql.accept()[0] as connection:
                    connection.recv(1024)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        finally:
            service.stop()
    assert service.output.count("is no PostgreSQL: set DB_HOST and DB_PORT to where it is") == 1


def serves(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).json() == {"status": "ok"}
    except requests.ConnectionError:
        return False


def test_python_app_py_serves(unused_tcp_port: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=HOUSE, env=os.environ | {"PORT": str(unused_tcp_port)}, stdout=subprocess.DEVNULL
    )
    try:
        until_then(lambda: serves(unused_tcp_port))
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)

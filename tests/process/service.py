"""The service as a process of its own: what the tests in this directory talk to."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

import app
from bench import measure
from tests.waiting import PATIENCE_SECONDS

HOUSE = Path(app.__file__).parent


class Service:
    """A gunicorn with two workers, and what it has written."""

    def __init__(self, port: int, house: Path = HOUSE, /, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._lines: list[str] = []
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "app:create_app"],
            cwd=house,
            env=os.environ | {"PORT": str(port), "HOST": "127.0.0.1", "WEB_CONCURRENCY": "2"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def output(self) -> str:
        """What it has written so far."""
        return "".join(self._lines)

    def workers(self) -> list[int]:
        """Return the process ids of the workers that live. The number of a dead one may be a stranger's, whom a test must not kill."""
        return [process.pid for process in measure.tree(self.process.pid) if process.parent == self.process.pid]

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            with suppress(requests.ConnectionError, requests.Timeout):
                if requests.get(f"{self.url}/health/ready", timeout=5).status_code == 200 and len(self.workers()) == 2:
                    return
            threading.Event().wait(0.05)
        raise AssertionError(self.output)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, and give its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(30)
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()
        return code


@contextmanager
def running(port: int, house: Path = HOUSE, /, **environment: str) -> Iterator[Service]:
    """Run the service, or the one of another house."""
    service = Service(port, house, **environment)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.stop()


def register(service: Service, login: str) -> dict[str, str]:
    """Make an account and give the header that speaks for it."""
    answer = requests.post(f"{service.url}/register", data={"login": login, "password": "correct horse"}, timeout=10)
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}

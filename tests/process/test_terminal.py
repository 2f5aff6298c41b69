"""What the service shows on a real terminal: few lines, in words; and nothing more when Ctrl-C ends it."""

import fcntl
import os
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from tests.process.service import HOUSE
from tests.waiting import PATIENCE_SECONDS, until_then

pytestmark = pytest.mark.long

CTRL_C, CTRL_S, CTRL_Q = b"\x03", b"\x13", b"\x11"
LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) +\S.*")
PATIENCE = int(PATIENCE_SECONDS * 20)  # looks, a twentieth of a second apart


class Terminal:
    """A command at a terminal of its own, and what is to be read there."""

    def __init__(self, *command: str, **environment: str) -> None:
        self._keyboard, end = os.openpty()
        self._shown = b""
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=HOUSE,
            env=os.environ | {"HOST": "127.0.0.1", "WEB_CONCURRENCY": "2", "RATE_LIMIT": "on"} | environment,
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - so that Ctrl-C is the kernel's
        )
        os.close(end)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # how Linux says that nobody has the other end any more
            while read := os.read(self._keyboard, 65536):
                self._shown += read

    @property
    def lines(self) -> list[str]:
        """What it shows; the echo of Ctrl-C aside."""
        return self._shown.decode().replace("^C", "").splitlines()

    def wait_for(self, words: str) -> None:
        """Wait until it shows these words."""
        for _ in range(PATIENCE):
            if words in self._shown.decode() or self.process.poll() is not None:
                break
            threading.Event().wait(0.05)
        assert words in self._shown.decode()

    def press(self, key: bytes) -> int:
        """Press a key that ends it, and return its exit code."""
        os.write(self._keyboard, key)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join()
        return code


@contextmanager
def terminal(*command: str, **environment: str) -> Iterator[Terminal]:
    """Run a command at a terminal."""
    shown = Terminal(*command, **environment)
    try:
        yield shown
    finally:
        if shown.process.poll() is None:
            os.killpg(shown.process.pid, 9)
        shown.wait()
        os.close(shown._keyboard)


def wait_until_ready(url: str) -> None:
    for _ in range(PATIENCE):
        with suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(f"{url}/health/ready", timeout=5).status_code == 200:
                return
        threading.Event().wait(0.05)
    raise AssertionError(url)


def test_it_says_once_where_it_is_and_each_request_in_a_line_of_words(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with terminal("-m", "gunicorn", "app:create_app", PORT=f"{unused_tcp_port}") as shown:
        wait_until_ready(url)
        assert requests.get(f"{url}/task/7", timeout=10).status_code == 401
        assert requests.get(f"{url}/secret", timeout=10).status_code == 404
        shown.wait_for("404")
        shown.wait_for("401")
        assert shown.press(CTRL_C) == 0
    assert all(LINE.fullmatch(line) for line in shown.lines if line), shown.lines
    first, *others = [re.sub(r"^[0-9:]{8} ", "", line) for line in shown.lines if line]
    assert first == f"INFO     Listening on {url}; its documentation is {url}/docs"
    asked = [line for line in others if "/health/ready" not in line]
    assert {re.sub(r"[0-9.]+ ms", "... ms", re.sub(" +", " ", line)) for line in asked} == {  # of two workers: either may be the first
        "INFO GET /task/{id} 401 ... ms",
        "INFO GET (no such address) 404 ... ms",
    }


def test_log_level_is_that_of_all_lines(unused_tcp_port: int) -> None:
    with terminal("-m", "gunicorn", "app:create_app", PORT=f"{unused_tcp_port}", LOG_LEVEL="WARNING") as shown:
        wait_until_ready(f"http://127.0.0.1:{unused_tcp_port}")
        assert shown.press(CTRL_C) == 0
    assert [line for line in shown.lines if line] == []


def test_ctrl_s_stops_what_is_shown_and_nothing_else(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with terminal("-m", "gunicorn", "app:create_app", PORT=f"{unused_tcp_port}") as shown:
        wait_until_ready(url)
        os.write(shown._keyboard, CTRL_S)
        with requests.Session() as session:
            for _ in range(400):
                assert session.get(f"{url}/task/7", timeout=PATIENCE_SECONDS).status_code == 401
        os.write(shown._keyboard, CTRL_Q)
        until_then(lambda: shown._shown.decode().count("/task/{id}") == 400)
        assert shown.press(CTRL_C) == 0


def test_ctrl_c_ends_the_start_too_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(600)\n")
    with terminal("-m", "gunicorn", "slow:create_app", PYTHONPATH=f"{tmp_path}") as shown:
        shown.wait_for("loading")
        assert shown.press(CTRL_C) != 0
    assert [line for line in shown.lines if line] == ["loading"]


@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_without_a_terminal_it_is_that_of_all_lines_too(unused_tcp_port: int, level: str) -> None:
    environment = {"PORT": f"{unused_tcp_port}", "HOST": "127.0.0.1", "WEB_CONCURRENCY": "1", "RATE_LIMIT": "on", "LOG_LEVEL": level}
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "app:create_app"],
        cwd=HOUSE,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{unused_tcp_port}")
        finally:
            os.killpg(process.pid, 2)  # as a terminal does: to all of them
            try:
                written = process.communicate(timeout=PATIENCE_SECONDS)[0]
            finally:
                process.kill()
    assert (process.returncode, written) == (0, b"")

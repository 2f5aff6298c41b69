"""The service under fire: a real gunicorn with two workers, killed and started like any other."""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp

from bench import measure
from torture.processes import Handle, descendants
from torture.server import DATABASE, ROLE, Server

HOUSE = Path(__file__).parent.parent
WORKERS = 2
SECONDS_TO_START = 30
SECONDS_TO_STOP = 15
SECONDS_FOR_ORPHANS = 5  # a worker whose master was killed sees it within two


class Service:
    """A gunicorn and its workers. What they write goes to `log`."""

    def __init__(self, server: Server, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "service.log"
        self.secret = secrets.token_hex(32)
        self.settings = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.settings |= {"PYTHONPATH": f"{HOUSE}", "HOST": "127.0.0.1", "PORT": f"{self.port}", "WEB_CONCURRENCY": f"{WORKERS}"}
        self.settings |= {"JWT_SECRET": self.secret, "PASS_SALT": secrets.token_hex(16), "RATE_LIMIT": "off"}
        self.settings |= {"DB_HOST": server.host, "DB": DATABASE, "DB_USER": ROLE, "LOG_LEVEL": "INFO"}
        self._directory = directory
        self._master: subprocess.Popen[bytes]
        self._is_started = False
        self._orphans: list[Handle] = []

    def start(self) -> None:
        """Start it; who wants it to answer waits with `until_ready`."""
        # setpriv: should we be killed, gunicorn is told to stop. It hears of the thread that starts it, so that must be the main one.
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "gunicorn", "-c", f"{HOUSE}/gunicorn.conf.py", "app:create_app"]
        with self.log.open("ab") as log:
            self._master = subprocess.Popen(command, cwd=self._directory, env=self.settings, stdout=log, stderr=log)  # no .env there
        self._is_started = True

    async def until_ready(self) -> None:
        """Wait until it answers and has all its workers; start it again where it couldn't have its port yet."""
        async with asyncio.timeout(SECONDS_TO_START), aiohttp.ClientSession() as session:
            while True:
                if self._master.poll() is not None:
                    self.start()
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.url}/health/ready", timeout=aiohttp.ClientTimeout(2)) as answer:
                        if answer.status == 200 and len(self.workers()) == WORKERS:
                            return
                await asyncio.sleep(0.02)

    @property
    def pid(self) -> int:
        """The master's process id."""
        return self._master.pid

    def workers(self) -> list[Handle]:
        """Return the workers that live."""
        return list(descendants(self._master.pid, only_children=True))

    def memory(self) -> float:
        """Return the MiB of the largest worker."""
        return max(measure.memory(worker.pid).rss for worker in self.workers())

    def reload(self) -> None:
        """Have it start new workers and let the old ones end."""
        self._master.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill the master. Its workers see that it is gone, and end."""
        self._orphans += self.workers()
        self._master.kill()
        self._master.wait()

    def stop(self) -> int | None:
        """End it as an operator does, make sure that nothing of it is left, and give its exit code."""
        if not self._is_started:
            return None
        self._orphans += self.workers()
        self._master.terminate()
        try:
            code = self._master.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._master.kill()
            code = self._master.wait()
        for orphan in self._orphans:
            if not orphan.has_ended(SECONDS_FOR_ORPHANS):
                orphan.send(signal.SIGKILL)
        self._is_started = False
        return code

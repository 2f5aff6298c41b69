"""A PostgreSQL of a test's own, at one address however often it is stopped and started."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from postgres import embedded


class Cluster:
    """A PostgreSQL; `host` is a link to where its socket is at present."""

    def __init__(self, directory: Path) -> None:
        self.host = str(directory / "db")
        self._directory = directory
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        """Start it, and return once it answers."""
        sockets = self._running.enter_context(embedded.server(self._directory / "data"))
        link = self._directory / "link"
        link.symlink_to(sockets)
        link.replace(self.host)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT fast, SIGQUIT at once."""
        os.kill(self.postmaster(), how)
        self._running.close()

    def close(self) -> None:
        self._running.close()

    def postmaster(self) -> int:
        """Return the process that started all others."""
        return int((self._directory / "data/postgresql/postmaster.pid").read_text().split()[0])

    def backends(self) -> list[int]:
        """Return the process ids of those that serve the service."""
        return [pid for (pid,) in self("SELECT pid FROM pg_stat_activity WHERE datname = 'service'")]

    def __call__(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL past the service and give the rows."""
        with closing(psycopg2.connect(host=self.host, user="postgres", dbname=database, connect_timeout=10)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    @contextmanager
    def standby(self) -> Iterator[None]:
        """Have it be one that follows another, which is away."""
        signal_of_it = self._directory / "data/postgresql/standby.signal"
        self.stop()
        signal_of_it.touch()
        self.start()
        yield
        self.stop()
        signal_of_it.unlink()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it stand still, as it is."""
        processes = [self.postmaster(), *(int(pid) for pid in _children(self.postmaster()))]
        try:
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            yield
        finally:
            for process in reversed(processes):
                os.kill(process, signal.SIGCONT)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="task-test-") as directory:
        cluster = Cluster(Path(directory))
        try:
            yield cluster
        finally:
            cluster.close()

"""The PostgreSQL under fire: a real one, with all that makes it durable, at one address however often it is started anew."""

import signal
import tempfile
import threading
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psycopg2

from postgres import embedded
from torture.processes import Handle, descendants

DATABASE = ROLE = "task"  # an ordinary role that owns its database, as in production


class Server:
    """A PostgreSQL; `host` is a link to where its socket is at present."""

    def __init__(self, directory: Path) -> None:
        self.host = str(directory / "db")
        self._directory = directory / "data"
        self._running = ExitStack()
        self._busy = threading.Lock()  # who is interrupted stops it while it may still be starting in a thread

    def start(self) -> None:
        """Start it, and return once it answers."""
        with self._busy, tempfile.TemporaryDirectory(dir=Path(self.host).parent) as beside:
            sockets = self._running.enter_context(embedded.server(self._directory))
            link = Path(beside) / "link"
            link.symlink_to(sockets)
            link.replace(self.host)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT fast, SIGQUIT at once, SIGKILL without its knowing. Returns once it is gone."""
        with self._busy:
            if self._pid_file.exists():
                with suppress(ProcessLookupError):
                    self.postmaster().send(how)
            self._running.close()

    @property
    def _pid_file(self) -> Path:
        return self._directory / "postgresql" / "postmaster.pid"

    def postmaster(self) -> Handle:
        """Return the process that started all others."""
        return Handle(int(self._pid_file.read_text().split()[0]))

    def family(self) -> list[Handle]:
        """Return all its processes, the postmaster first."""
        postmaster = self.postmaster()
        return [postmaster, *descendants(postmaster.pid)]

    def connect(self, database: str = DATABASE) -> Any:
        """Connect past the service, as a superuser."""
        connection = psycopg2.connect(host=self.host, user="postgres", dbname=database, connect_timeout=10)
        connection.autocommit = True
        return connection

    def run(self, *statements: str, values: Any = None, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Run statements and give the rows of the last."""
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def make_database(self) -> None:
        """Make the database, empty, and the role that owns it."""
        self.run(f"CREATE ROLE {ROLE} LOGIN", f"CREATE DATABASE {DATABASE} OWNER {ROLE}", database="postgres")

    def backends(self) -> list[int]:
        """Return the process ids of those that serve the service."""
        return [pid for (pid,) in self.run("SELECT pid FROM pg_stat_activity WHERE usename = %s", values=(ROLE,))]

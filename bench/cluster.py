"""The PostgreSQL of the benchmark: seeded databases, made once, and a copy of one for each system that is measured."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from bench import measure
from bench.data import Size
from postgres import embedded
from postgres.database import MIGRATIONS

MEBIBYTE = 1024 * 1024
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
PRODUCTION = {  # what its documentation says of a machine that has other tenants; all else is as it comes, fsync on
    "shared_buffers": f"{MEMORY // 4 // MEBIBYTE}MB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
}


class Cluster:
    """A PostgreSQL that runs."""

    def __init__(self, host: str, directory: Path) -> None:
        self.host = host
        self.pid = int((directory / "postgresql" / "postmaster.pid").read_text().split()[0])
        self.programs = Path(f"/proc/{self.pid}/exe").readlink().parent

    def run(self, database: str, *statements: str | sql.Composed, values: Any = None) -> list[tuple[Any, ...]]:
        """Run statements, each by itself, and give the rows of the last."""
        connection = psycopg2.connect(host=self.host, user="postgres", dbname=database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def exists(self, database: str) -> bool:
        """Return whether there is such a database."""
        return bool(self.run("postgres", "SELECT 1 FROM pg_database WHERE datname = %s", values=(database,)))

    def drop(self, database: str) -> None:
        """Drop a database if it is there, whoever uses it."""
        self.run("postgres", sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    def rename(self, database: str, name: str) -> None:
        """Rename a database."""
        self.run("postgres", sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(database), sql.Identifier(name)))

    def copy(self, template: str, database: str) -> None:
        """Make a database like another, with what it has in memory."""
        self.drop(database)
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        self.run("postgres", make.format(sql.Identifier(database), sql.Identifier(template)))
        self.warm_up(database)

    def warm_up(self, database: str) -> None:
        """Put down what is only in memory, and read what will be asked for."""
        self.run(
            database,
            "CREATE EXTENSION IF NOT EXISTS pg_prewarm",
            "SELECT pg_prewarm(oid) FROM pg_class WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace",
            "DROP EXTENSION pg_prewarm",
            "CHECKPOINT",
        )

    def seed(self, store: "Store", size: Size) -> str:
        """Make a database with users and tasks, unless it is there from an earlier run, and give its name."""
        digest = hashlib.blake2b(store.seed.encode(), digest_size=4)
        for path in sorted(MIGRATIONS.rglob("*.sql")):
            digest.update(path.read_bytes())
        name = f"{store.name}_{size.tasks}_{digest.hexdigest()}"
        if not self.exists(name):
            partial = f"{name}_partial"
            self.drop(partial)
            self.run("postgres", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(partial)))
            store.make_schema(self, partial)
            self._fill(partial, store.seed, size)
            self.rename(partial, name)
        return name

    def _fill(self, database: str, statements: str, size: Size) -> None:
        found = self.run(
            database,
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE NOT indisunique"
            " AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)",
        )
        self.run(database, *(f"DROP INDEX {name}" for name, _ in found), "SELECT 1")
        self.run(database, "SET session_replication_role = replica", *_each(statements), values={"users": size.users})
        self.run(database, *(definition for _, definition in found), "VACUUM (FREEZE, ANALYZE)", "CHECKPOINT")

    def cpu_seconds(self) -> float:
        """Return the CPU time that all of it has had."""
        return measure.cpu_seconds(self.pid)


@dataclass(frozen=True)
class Store:
    """The tables of a system: what makes them, fills them, and counts tasks, entries of the log, revisions and contradictions."""

    name: str
    make_schema: Callable[[Cluster, str], None]
    seed: str
    count: str


def _each(statements: str) -> list[str]:
    return [statement for statement in statements.split(";") if statement.strip()]


@contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """Run a PostgreSQL with settings as in production, in a directory that may have one already."""
    with embedded.server(directory) as host:
        Cluster(host, directory).run("postgres", *(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in PRODUCTION.items()))
    with embedded.server(directory) as host:
        yield Cluster(host, directory)

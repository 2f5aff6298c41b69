"""A backup is one: what pg_dump wrote while the service worked comes back whole into an empty database."""

import os
import re
import secrets
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests

from postgres import embedded, migrate
from postgres.database import MIGRATIONS
from tests.conftest import Server, another_database, connection_parameters, connection_to
from tests.process.service import HOUSE, Service, register, running

pytestmark = pytest.mark.long

ALL = {  # of a table's rows that must be there again
    table: f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)), count(*) FROM {table} t"
    for table in ("users", "user_state", "task", "task_log", "idempotency_key")
}


UMASK = 0o022  # as most have it
README, OPERATIONS = ((HOUSE / page).read_text() for page in ("README.md", "docs/operations.md"))


def printed(text: str, word: str) -> str:
    """Return the one block of commands in which this word stands."""
    [block] = [block for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE) if word in block]
    return "".join(line[4:] + "\n" for line in block.splitlines())


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A directory as `make run` keeps it, and the PostgreSQL of it."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "models.py").symlink_to(HOUSE / "models.py")
    with embedded.server(tmp_path / ".data") as host:
        for name in ("JWT_SECRET", "PASS_SALT"):
            (tmp_path / ".data" / name).write_text(secrets.token_hex(32))
        migrate.upgrade("postgres", {"host": host, "user": "postgres"}, MIGRATIONS)
        yield tmp_path


def shell(commands: str, place: Path) -> str:
    """Run commands in a place that is also the home, with no settings in the environment; give what they wrote."""
    bare = {"PATH": os.environ["PATH"], "HOME": f"{place}"}
    done = subprocess.run(
        ["sh", "-e"], input=commands, cwd=place, env=bare, umask=UMASK, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_printed_commands_back_up_restore_and_verify_and_nobody_else_reads_the_backup(checkout: Path) -> None:
    shell(printed(README, "$BIN/pg_dump"), checkout)
    assert stat.S_IMODE((checkout / "tasks.dump").stat().st_mode) == 0o600
    assert "Every log leads to its task" in shell(printed(README, ".venv/bin/python models.py verify"), checkout)
    assert "Every log leads to its task" in shell(printed(OPERATIONS, "$BIN/pg_restore"), checkout)
    shell(printed(README, "tar -czf").splitlines()[-1], checkout)
    assert stat.S_IMODE((checkout / "tasks.tar.gz").stat().st_mode) == 0o600


@pytest.mark.parametrize("page", ["README.md", "README.ru.md", "docs/operations.md"])
def test_every_printed_backup_is_for_its_owner_alone(page: str) -> None:
    writes = re.findall(r"^    .*(?:pg_dump .*(?:-f|>)|tar -c).*$", (HOUSE / page).read_text(), re.MULTILINE)
    assert [line for line in writes if not line.startswith("    (umask 077; ")] == []


@contextmanager
def empty_database(server: Server) -> Iterator[str]:
    """Make a database beside that of the run, and drop it afterwards."""
    with another_database(server) as name, connection_to(server) as sql:
        sql(f'CREATE DATABASE "{name}"')
        yield name


def run(*command: str | Path, **settings: str) -> str:
    """Run a command to its end and give what it wrote."""
    where = {f"PG{name.upper()}": str(connection_parameters()[name]) for name in ("host", "port", "user", "password")}
    environment = os.environ | where | settings
    done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    return done.stdout


def contents(database: str) -> dict[str, list[tuple[Any, ...]]]:
    with closing(psycopg2.connect(dbname=database, **connection_parameters())) as connection, connection.cursor() as cursor:
        found = {}
        for table, statement in ALL.items():
            cursor.execute(statement)
            found[table] = cursor.fetchall()
        return found


@pytest.fixture
def original(server: Server) -> Iterator[str]:
    """A database of its own: in the run's there is what other tests have put there past the service."""
    with empty_database(server) as name:
        yield name


@pytest.fixture
def service(unused_tcp_port: int, original: str) -> Iterator[Service]:
    """A service on it."""
    with running(unused_tcp_port, DB=original) as service:
        yield service


def test_a_dump_made_while_the_service_works_is_restored_whole(
    service: Service, original: str, server: Server, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    dump, programs = tmp_path / "tasks.dump", embedded._programs()
    headers = register(service, f"backup-{secrets.token_hex(4)}")
    task = {"name": "Купить молоко", "description": "", "status": "new", "completion_at": "02-10-2020"}
    url = f"{service.url}/task"
    assert requests.post(url, data=task, headers=headers | {"Idempotency-Key": "1"}, timeout=10).status_code == 201
    assert requests.post(url, data=task, headers=headers, timeout=10).status_code == 201
    assert requests.delete(f"{url}/2", headers=headers, timeout=10).status_code == 204
    stop = threading.Event()

    def write() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                assert session.patch(f"{url}/1", data={"name": secrets.token_hex(4)}, headers=headers, timeout=10).status_code == 200

    writing = threading.Thread(target=write)
    writing.start()
    try:
        run(programs / "pg_dump", "-Fc", "-f", dump, original)
    finally:
        stop.set()
        writing.join()
    with empty_database(server) as restored:
        run(programs / "pg_restore", "--no-owner", "-d", restored, dump)
        assert "Every log leads to its task" in run(sys.executable, "models.py", "verify", DB=restored)
        with running(unused_tcp_port_factory(), DB=restored) as other:
            assert requests.get(f"{other.url}/task/1", headers=headers, timeout=10).json()["completion_at"] == "02-10-2020"
            assert requests.post(f"{other.url}/task/2/restore", headers=headers, timeout=10).status_code == 200
            assert requests.post(f"{other.url}/task", data=task, headers=headers, timeout=10).json()["id"] == 3

    service.stop()
    run(programs / "pg_dump", "-Fc", "-f", dump, original)  # now nothing changes, and every row can be compared
    with empty_database(server) as restored:
        run(programs / "pg_restore", "--no-owner", "-d", restored, dump)
        assert contents(restored) == contents(original)

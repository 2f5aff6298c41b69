"""What hinders the start is told once, in words that help; and so is its end."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from postgres import embedded, errors, migrate, start
from postgres.database import MIGRATIONS
from tests.conftest import configured, connection_parameters
from tests.waiting import PATIENCE_SECONDS


def words(**where: Any) -> str:
    """Return what is said of the attempt to connect there."""
    parameters = connection_parameters() | where
    with pytest.raises(psycopg2.OperationalError) as refused:
        psycopg2.connect(dbname="postgres", connect_timeout=2, **parameters)
    return errors.explain(refused.value, parameters)


def test_a_host_that_there_is_not_points_to_compose_and_make_run() -> None:
    said = words(host="no-such-host.invalid")
    assert said.startswith('there is no host "no-such-host.invalid" here (DB_HOST).')
    assert "docker compose" in said
    assert "make run" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "/nowhere"])
def test_where_nobody_listens_host_and_port_are_named(host: str, unused_tcp_port: int) -> None:
    expected = f"no PostgreSQL listens at {host}, port {unused_tcp_port}: start it, or set DB_HOST and DB_PORT to where it is"
    assert words(host=host, port=unused_tcp_port) == expected


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """Listen on a port: answer so, or (None) never."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1024)
                connection.sendall(answer or b"")

        thread = threading.Thread(target=serve) if answer else None
        if thread:
            thread.start()
        yield listening.getsockname()[1]
        if thread:
            thread.join()


def test_another_service_at_that_port_is_told_from_postgresql() -> None:
    with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert words(host="127.0.0.1", port=port).startswith(f"what listens at 127.0.0.1, port {port} is no PostgreSQL")


@pytest.mark.long
def test_who_never_answers_is_told() -> None:
    with listener(None) as port:
        assert words(host="127.0.0.1", port=port).startswith(f"nothing answers at 127.0.0.1, port {port}")


@pytest.mark.long
def test_a_refused_password_names_the_settings(tmp_path: Path) -> None:
    with embedded.server(tmp_path / "data", durable=False):
        pass
    (tmp_path / "data/postgresql/pg_hba.conf").write_text("local all all scram-sha-256\n")
    with embedded.server(tmp_path / "data", durable=False) as host:
        for password in ("wrong", ""):
            said = words(host=host, port=5432, user="postgres", password=password)
            assert said.startswith(f'PostgreSQL at {host}, port 5432 refuses the user "postgres" with this password')
            assert "DB_USER and DB_PASSWORD" in said


def test_what_is_not_known_is_passed_on_in_one_line() -> None:
    assert errors.explain(psycopg2.OperationalError("FATAL:  too many\n\tclients\n"), {}) == "FATAL: too many clients"


async def test_each_change_of_what_hinders_the_start_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(start, "SECONDS_BETWEEN_ATTEMPTS", 0)
    caplog.set_level(logging.INFO, "postgres.start")
    troubles = iter([*[psycopg2.OperationalError("first 100%")] * 5, *[psycopg2.OperationalError("second")] * 5, *[ValueError("x")] * 5])
    upgrade = migrate.upgrade

    def troubled(*arguments: Any) -> migrate.Schema:
        for trouble in troubles:
            raise trouble
        return upgrade(*arguments)

    monkeypatch.setattr(migrate, "upgrade", troubled)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await start.see_to_the_schema(configured().db, connection_parameters(), MIGRATIONS)
    assert [record.getMessage() for record in caplog.records] == [
        "the database isn't ready yet: first 100%",
        "the database isn't ready yet: second",
        "the schema can't be brought up to date: ValueError",
        "the database is ready",
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [False, False, True, False]

"""Bring the schema up to date, one process at a time: yoyo's numbered steps, then this version's functions, in a schema of their own.

So two versions run side by side, each with its own functions on its search path, and to go back is to start the version before.

yoyo finds, orders and runs the steps. Three things of its own are replaced: its lock is a row that a kill leaves behind; a step and its
mark are two transactions; and a step that waits for a table makes everybody wait.
"""

import glob
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import errors, sql

MIN_POSTGRESQL_VERSION = 17
ENCODING = "UTF8"
TOO_OLD = """This database was made before version 0.1.0, from which on databases are upgraded. To take an account along, GET /export
with the version that made it, then start this one on another database (DB), register, and POST /import."""
ADVISORY_LOCK = 7_461_736  # any number that no other program takes in this database
SECONDS_TO_CONNECT = 5
SECONDS_BETWEEN_TRIES = 0.05
SECONDS_FOR_A_LOCK = 1.2  # PostgreSQL ends an autovacuum that is in the way after one; meanwhile everybody queues behind the step
TRIES_FOR_A_LOCK, SECONDS_BETWEEN_LOCKS = 60, 1  # who holds it may take long: an import, housekeeping
APPLIED = "SELECT migration_id FROM _yoyo_migration UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = %s"
CHANGE_NOTHING = "SELECT 1 FROM _yoyo_migration WHERE false FOR KEY SHARE"  # which is refused where nothing can be changed
IN_USE = f"{APPLIED} AND nspname = ANY (current_schemas(false))"  # as a connection of the service must find it


class UnusableError(Exception):
    """This version can't work with the database, however often it tries."""


class Schema(NamedTuple):
    """How the database's schema stands to this version's."""

    missing: frozenset[str]
    unknown: frozenset[str]

    @property
    def fault(self) -> str | None:
        """What keeps this version from working with it."""
        return f"The database's schema lacks {', '.join(sorted(self.missing))}." if self.missing else None

    @property
    def remark(self) -> str | None:
        """What is new to this version, which works with it all the same: steps only add, until no version needs what they remove."""
        if self.unknown:
            return f"The database's schema is newer than this version of the service: it has {', '.join(sorted(self.unknown))}."
        return None


def compare(applied: set[str], known: frozenset[str]) -> Schema:
    """Compare the steps that a database has with those that this version knows."""
    return Schema(missing=known - applied, unknown=frozenset(applied - known))


@cache
def steps(directory: Path) -> frozenset[str]:
    """Return the names of this version's steps, and of the schema that holds its functions."""
    return frozenset(path.stem for path in directory.glob("*.sql")) | {functions_schema(directory)}


@cache
def functions_schema(directory: Path) -> str:
    """Return the name of the schema that holds this version's functions: other functions have another name."""
    return f"functions_{hashlib.sha256(_functions(directory).encode()).hexdigest()[:8]}"


def search_path(directory: Path) -> str:
    """Return the search path of this version's connections."""
    return f'{functions_schema(directory)},"$user",public'


def _functions(directory: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((directory / "functions").glob("*.sql")))


def upgrade(database: str, parameters: dict[str, Any], directory: Path) -> Schema:
    """Make the database where it is missing and apply the steps that it lacks, each in one transaction; any number of processes may.

    A schema that is newer than `directory` is left alone. Raises psycopg2.OperationalError where the server can't be
    reached, and UnusableError where it is too old, or the database is of before the first release, or isn't in UTF-8.
    """
    with closing(_connect_or_create(database, parameters)) as connection:
        connection.autocommit = True
        if wanting := _what_is_wanting(connection, directory):
            raise UnusableError(wanting)
        found = _compared(connection, directory)
        if found.missing and _may_be_made(found, directory):
            with _alone(connection):
                found = _compared(connection, directory)
                if found.missing - {functions_schema(directory)}:
                    _apply(database, parameters, directory)
                if functions_schema(directory) in found.missing:
                    _make_functions(database, parameters, directory)
        _note_use(connection, directory)
        return _compared(connection, directory)


def _note_use(connection: Any, directory: Path) -> None:
    """Let housekeeping know that this version's functions are used, before it may find that they weren't for long."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('functions_used')")
        if cursor.fetchone() != (None,):
            cursor.execute("UPDATE functions_used SET used_at = now() WHERE name = %s", (functions_schema(directory),))


def _compared(connection: Any, directory: Path) -> Schema:
    return compare(_applied(connection, directory), steps(directory))


def _may_be_made(schema: Schema, directory: Path) -> bool:
    """Return whether what is missing can be made: steps where the schema has no later ones, functions where all steps are there."""
    return not schema.unknown or schema.missing == {functions_schema(directory)}


def _what_is_wanting(connection: Any, directory: Path) -> str | None:
    if connection.server_version < MIN_POSTGRESQL_VERSION * 10_000:
        return f"PostgreSQL {MIN_POSTGRESQL_VERSION} or newer is needed; this server is {connection.server_version // 10_000}."
    if (encoding := connection.get_parameter_status("server_encoding")) != ENCODING:
        return f"A database in {ENCODING} is needed; this one is in {encoding}. ENCODING 'UTF8' TEMPLATE template0 makes one."
    applied = _applied(connection, directory)
    if applied and min(steps(directory)) not in applied:
        return TOO_OLD
    return None


def _connect_or_create(database: str, parameters: dict[str, Any]) -> Any:
    parameters = parameters | {"connect_timeout": SECONDS_TO_CONNECT}
    with suppress(psycopg2.OperationalError):  # without an SQLSTATE, and in the server's language: so one has to look
        return psycopg2.connect(dbname=database, **parameters)
    with closing(psycopg2.connect(dbname="postgres", **parameters)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (database,))
        if cursor.fetchone() is None:
            with suppress(errors.DuplicateDatabase, errors.UniqueViolation):  # another process was faster, or as fast
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    return psycopg2.connect(dbname=database, **parameters)


def _applied(connection: Any, directory: Path) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('_yoyo_migration')")
        if cursor.fetchone() == (None,):
            return set()
        cursor.execute(APPLIED, (functions_schema(directory),))
        return {step for (step,) in cursor}


@contextmanager
def _alone(connection: Any) -> Iterator[None]:
    """Hold the advisory lock; it goes with the connection, so nothing is left behind by a kill.

    Asked for in a loop: to wait inside pg_advisory_lock holds a snapshot, for which CREATE INDEX CONCURRENTLY waits.
    """
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (ADVISORY_LOCK,))
            if cursor.fetchone() == (True,):
                break
            time.sleep(SECONDS_BETWEEN_TRIES)
        yield
        cursor.execute("SELECT pg_advisory_unlock(%s)", (ADVISORY_LOCK,))


def _apply(database: str, parameters: dict[str, Any], directory: Path) -> None:
    """Apply what is missing. yoyo's own `apply_migrations` puts a step and its mark into two transactions; here they are one."""
    from yoyo import read_migrations  # 60 ms to import, for what most starts don't need
    from yoyo.backends.core.postgresql import PostgresqlBackend
    from yoyo.connections import DatabaseURI

    class Backend(PostgresqlBackend):
        def lock(self, timeout: float = 0) -> AbstractContextManager[None]:
            return nullcontext()  # we hold a better one; yoyo's is a row that stays behind after a kill

        def log_migration(self, migration: Any, operation: str) -> None:
            """Leave out yoyo's log: it asks for the names of user and host, and there may be neither (`docker run --user 54321`)."""

    backend = Backend(DatabaseURI("postgresql", None, None, None, None, database, parameters), "_yoyo_migration")
    with closing(backend.connection):
        backend.ensure_internal_schema_updated()
        pending = list(backend.to_apply(read_migrations(glob.escape(str(directory)))))
        for step in pending:
            step.load()
        for step in pending:
            if step.use_transactions:
                _give_way(partial(_apply_one, backend, step))
            else:  # must be repeatable: a kill may leave it done and not marked
                backend.apply_one(step)


def _apply_one(backend: Any, step: Any) -> None:
    with backend.transaction():
        backend.cursor().execute(f"SET LOCAL lock_timeout = '{SECONDS_FOR_A_LOCK}s'")
        step.process_steps(backend, "apply")
        backend.mark_one(step)


def _make_functions(database: str, parameters: dict[str, Any], directory: Path) -> None:
    """Make this version's functions. Those of other versions stay, until housekeeping finds that nobody uses them."""
    with closing(psycopg2.connect(dbname=database, **parameters)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {functions_schema(directory)}; SET LOCAL search_path = {search_path(directory)}")
        if functions := _functions(directory):
            cursor.execute(functions)


def _give_way(attempt: Callable[[], None]) -> None:
    """Try until the locks can be had, and let the others by in between. Raises LockNotAvailable where that takes too long."""
    for _ in range(TRIES_FOR_A_LOCK):
        try:
            return attempt()
        except errors.LockNotAvailable:
            time.sleep(SECONDS_BETWEEN_LOCKS)
    return attempt()

"""What goes wrong between us and PostgreSQL: what of it is Unavailable to a client, and what may be tried again."""

import re
from typing import Any

import peewee
import psycopg2

from rest.errors import Unavailable

WAITED_TOO_LONG = "Another change of yours took too long: try again."

# asyncio's TimeoutError is Python's; QueryCanceled passes peewee's own wrapper by, as do all errors of BEGIN and COMMIT.
# InternalError: the server takes no changes, as after a failover.
TROUBLE = (
    *(peewee.OperationalError, peewee.InterfaceError, peewee.InternalError),
    *(psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.InternalError),
    *(peewee.NotSupportedError, psycopg2.NotSupportedError),  # a standby has no unlogged tables
    *(TimeoutError, OSError),
)


class NoConnectionError(ConnectionError):
    """There is no connection, after several attempts: nothing was sent, and it is too late to try again."""


class DatabaseUnavailable(Unavailable):
    """There is something wrong between the service and its database."""

    kind = "database-unavailable"
    detail = "The database can't be reached, or didn't answer in time: try again."


def was_refused(error: Exception) -> bool:
    """Return whether PostgreSQL refused the statement: then nothing of it happened. What was lost on the way may have."""
    code = _code(error.__cause__ if isinstance(error, Unavailable) else error)
    return code is not None and not _is_of_connection(code)


def may_be_repeated(error: Unavailable, *, read: bool) -> bool:
    """Return whether a statement may be tried again: where nothing of it happened, and a read where the connection broke."""
    return _was_a_deadlock(error.__cause__) or (read and _connection_broke(error.__cause__))


def _was_a_deadlock(error: BaseException | None) -> bool:
    """Return whether PostgreSQL took everything back for another's sake: then it may be tried again, a change too."""
    return (_code(error) or "").startswith("40")


def _connection_broke(error: BaseException | None) -> bool:
    """Tell a broken connection from a limit that was reached."""
    if error is None or isinstance(error, TimeoutError | NoConnectionError):
        return False
    code = _code(error)
    return code is None or _is_of_connection(code)


def _code(error: BaseException | None) -> str | None:
    """Return the SQLSTATE with which PostgreSQL refused a statement; None where it wasn't PostgreSQL that spoke."""
    code: str | None = getattr(getattr(error, "orig", None) or error, "pgcode", None)
    return code


def _is_of_connection(code: str) -> bool:
    return code.startswith(("08", "57P0"))  # connection exceptions; the server goes down, or comes up


HINTS = {  # what libpq says of a connection that can't be made, as far as it says so in English
    "could not translate host name": 'there is no host "{host}" here (DB_HOST). Was .env made for docker compose? Then start the service'
    " by docker compose, or leave DB_HOST, JWT_SECRET and PASS_SALT out: `make run` brings a PostgreSQL along, and secrets",
    "Connection refused|No such file or directory": "no PostgreSQL listens at {host}, port {port}: start it, or set DB_HOST and DB_PORT to"
    " where it is",
    "timeout expired|No route to host|Network is unreachable": "nothing answers at {host}, port {port}: set DB_HOST and DB_PORT to where"
    " PostgreSQL is, or open the way to it",
    "received invalid response|expected authentication request": "what listens at {host}, port {port} is no PostgreSQL: set DB_HOST and"
    " DB_PORT to where it is",
    "password authentication failed|no password supplied": 'PostgreSQL at {host}, port {port} refuses the user "{user}" with this password:'
    " set DB_USER and DB_PASSWORD. (Under docker compose it has kept the password of its first start.)",
}


def explain(error: BaseException, parameters: dict[str, Any]) -> str:
    """Return what is wrong between us and the database with these parameters, and what helps; else what PostgreSQL says of it."""
    said = " ".join(f"{error}".split())
    hints = {} if _code(error) else HINTS  # a server that answers has a code
    return next((hint.format(**parameters) for words, hint in hints.items() if re.search(words, said)), said)

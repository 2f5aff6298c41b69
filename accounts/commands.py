"""What an operator does about accounts on the command line: `python models.py accounts | invite | reset-password LOGIN | close LOGIN`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg2
from psycopg2 import errors

from accounts import codes
from accounts.values import login_key
from postgres.database import DatabaseConfiguration, cursor_of
from postgres.errors import explain

ACCOUNTS_AT_ONCE = 1000
LIST = """
SELECT u.id, u.login, u.created_at, nullif(s.changed_at, 'epoch'), s.last_task_id - s.purged
  FROM users u JOIN user_state s ON s.user_id = u.id
 WHERE u.id > %s AND s.token_generation >= 0 ORDER BY u.id LIMIT %s
"""  # in a statement for each page: a reader may take its time, and no snapshot is held for it
FIND = """
SELECT u.id, u.login, u.created_at, s.last_task_id - s.purged
  FROM users u JOIN user_state s ON s.user_id = u.id WHERE u.login_key = %s AND s.token_generation >= 0
"""
INVITE = "INSERT INTO one_time_code (digest, expires_at) VALUES (%s, now() + make_interval(days => %s)) RETURNING expires_at"
LET_RESET = """
INSERT INTO one_time_code (digest, user_id, expires_at)
SELECT %s, s.user_id, now() + make_interval(days => %s) FROM user_state s WHERE s.user_id = %s AND s.token_generation >= 0 FOR SHARE
ON CONFLICT (user_id) DO UPDATE SET digest = excluded.digest, expires_at = excluded.expires_at
RETURNING expires_at
"""  # locked, so that nobody closes the account meanwhile
LINE = "{:<16}  {:<16}  {:>7}  {}"


def list_accounts(configuration: DatabaseConfiguration) -> None:
    """Print a line for each account, oldest first: when it was made and last changed, its tasks (the trash included) and its login."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it
    _allow_any_letter()
    last, found = 0, None
    with _connected(configuration) as cursor:
        while found is None or len(found) == ACCOUNTS_AT_ONCE:
            cursor.execute(LIST, (last, ACCOUNTS_AT_ONCE))
            found = cursor.fetchall()
            if not last:
                print(LINE.format("created (UTC)", "last change", "tasks", "login"))
            for last, login, created_at, changed_at, tasks in found:  # noqa: B007 - the next page begins after it
                print(LINE.format(_minute(created_at), _minute(changed_at), tasks, login))


def invite(configuration: DatabaseConfiguration, registration: str) -> None:
    """Print an invitation on stdout, and beside it (on stderr) for how long it is good."""
    code = codes.make_code()
    with _connected(configuration) as cursor:
        cursor.execute(INVITE, (codes.digest(code), codes.INVITATION_DAYS))
        [(expires_at,)] = cursor.fetchall()
    words = f"One account can be registered with it (`invitation`) until {_minute(expires_at)} UTC."
    if registration != "invited":
        words += f" It is asked for where REGISTRATION is `invited`; here, for this command, it is `{registration}`."
    _hand_out(code, words)


def let_reset_password(configuration: DatabaseConfiguration, login: str) -> None:
    """Print a code on stdout with which this login's password can be set again, and on stderr for how long. An earlier one is dead."""
    code = codes.make_code()
    with _connected(configuration) as cursor:
        user_id, login, *_ = _find(cursor, login)
        cursor.execute(LET_RESET, (codes.digest(code), codes.RESET_DAYS, user_id))
        for (expires_at,) in cursor.fetchall():
            words = f"With it (`code`) {login} can set a new password, by POST /reset-password, until {_minute(expires_at)} UTC."
            return _hand_out(code, f"{words} Earlier codes of this account are dead.")
    raise SystemExit(f"The account {login} has just been closed.")


def close(configuration: DatabaseConfiguration, login: str) -> None:
    """Close the account of this login, with all that is in it. On a terminal the login is asked for once more."""
    _allow_any_letter()
    with _connected(configuration) as cursor:
        user_id, login, created_at, tasks = _find(cursor, login)
        account = f"the account {login} (since {_minute(created_at)} UTC, {tasks} task(s))"
        if sys.stdin.isatty() and not _is_confirmed(login, f"This deletes {account} for good. To go on, type its login: "):
            raise SystemExit("Nothing has been done.")
        cursor.execute("SELECT account_close(%s, NULL)", (user_id,))
        if cursor.fetchone() != (True,):
            raise SystemExit(f"The account {login} has just been closed.")
    print(f"Closed: {account}. Its tokens are dead, its login is free, what was in it goes by itself while the service runs.")


def _allow_any_letter() -> None:
    """Let logins be printed that have letters which the terminal's encoding hasn't."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _is_confirmed(login: str, question: str) -> bool:
    try:
        return login_key(input(question).strip()) == login_key(login)
    except (EOFError, KeyboardInterrupt):
        print()
        return False


def _find(cursor: Any, login: str) -> Any:
    """Return id, login as typed, moment of creation and number of tasks of an account. Exits where there is none of this login."""
    try:
        cursor.execute(FIND, (login_key(login),))
        [found] = cursor.fetchall()
    except (ValueError, UnicodeError):  # none, or what no login can be
        raise SystemExit(f"There is no account with the login {login!r}.") from None
    return found


def _hand_out(code: str, words: str) -> None:
    print(code, flush=True)
    print(words, file=sys.stderr)


def _minute(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment else "-"


@contextmanager
def _connected(configuration: DatabaseConfiguration) -> Iterator[Any]:
    """Give a cursor. Exits with a sentence where the database can't be asked."""
    try:
        with cursor_of(configuration) as cursor:
            yield cursor
    except (errors.UndefinedTable, errors.UndefinedFunction):
        raise SystemExit("The database doesn't have this version's schema yet: run `python models.py`, or start the service.") from None
    except psycopg2.Error as error:
        raise SystemExit(f"The database can't be asked: {explain(error, configuration.parameters)}") from None

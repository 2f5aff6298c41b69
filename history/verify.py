"""Check what is stored: the log of every task leads from its creation to the task as it is. `python models.py verify` runs it."""

import psycopg2

from accounts.values import login_key
from postgres.database import DatabaseConfiguration, cursor_of
from postgres.errors import explain

USERS_AT_ONCE = 100
TWINS = "SELECT id FROM users WHERE uid IN (SELECT uid FROM users GROUP BY uid HAVING count(*) > 1)"
CHECK = """
SELECT u.id, u.login, u.login_key, u.user_id IS NOT NULL,
       (SELECT count(*) FROM task t WHERE t.user_id = u.id),
       (SELECT count(*) FROM task_log l WHERE l.user_id = u.id),
       f.task_id, f.revision, f.fault
  FROM (SELECT * FROM users LEFT JOIN user_state ON user_id = id
         WHERE id > %s AND coalesce(token_generation >= 0, true) ORDER BY id LIMIT %s) u
       LEFT JOIN LATERAL (SELECT * FROM account_faults(u.user_id) ORDER BY task_id, revision LIMIT 1) f ON true
 ORDER BY u.id
"""  # in one snapshot for each user; of closed accounts some rows are gone already


def verify(configuration: DatabaseConfiguration) -> None:
    """Check all users' tasks and logs, say of each user what is wrong first, and how much was checked. Exits where anything is wrong."""
    try:
        broken = _check(configuration)
    except psycopg2.Error as error:
        raise SystemExit(f"The database can't be checked: {explain(error, configuration.parameters)}") from None
    if broken:
        raise SystemExit(f"{broken:,} user(s) are broken.")


def _check(configuration: DatabaseConfiguration) -> int:
    """Return of how many users something is wrong."""
    users = tasks = entries = broken = last = 0
    with cursor_of(configuration, "-c enable_seqscan=off") as cursor:
        cursor.execute(TWINS)
        twins = {user_id for (user_id,) in cursor}
        while True:
            cursor.execute(CHECK, (last, USERS_AT_ONCE))
            checked = cursor.fetchall()
            for last, login, key, has_state, n_tasks, n_entries, task_id, revision, fault_of_tasks in checked:
                users, tasks, entries = users + 1, tasks + n_tasks, entries + n_entries
                if fault := fault_of_tasks or _fault_of_user(login, key, has_state=has_state, has_twin=last in twins):
                    broken += 1
                    where = f"user {last}" + (f", task {task_id}" if task_id else "") + (f", revision {revision}" if revision else "")
                    print(f"Broken at {where}: {fault}.")
            if len(checked) < USERS_AT_ONCE:
                break
    words = "" if broken else " Every log leads to its task."
    print(f"Checked: {users:,} user(s), {tasks:,} task(s), {entries:,} log entries.{words}")
    return broken


def _fault_of_user(login: str, key: str, *, has_state: bool, has_twin: bool) -> str | None:
    if not has_state:
        return "nothing counts its changes, and it has no token"
    if has_twin:
        return "another user has its uid, and with it the UIDs of its tasks"
    if key != login_key(login):
        return "its login_key is not that of its login"
    return None

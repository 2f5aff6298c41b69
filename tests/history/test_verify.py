"""What is stored is checked: all that the service writes hangs together, and each kind of break is found and named."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from docs.house import HOUSE
from history import verify
from postgres import migrate
from postgres.database import MIGRATIONS
from service import database_configuration
from tests.conftest import Person, Server, configured, connection_parameters, connection_to
from tests.tasks.test_functions import Account, rolled_back

Sql = Callable[..., list[tuple[Any, ...]]]


def faults(sql: Sql, person: Person) -> list[tuple[Any, ...]]:
    assert person.caller
    return sql("SELECT * FROM account_faults(%s) ORDER BY 1, 2", person.caller.user_id)


@pytest.fixture
async def alice(alice: Person) -> Person:
    """The one with a history of ten revisions: a task with changes, one in the trash, one erased, one just created."""
    await alice.new_task(completion_at="02-10-2020")  # 1
    await alice.new_task(status="completed")  # 2
    await alice.patch("/task/1", json={"name": "other", "status": "completed", "completion_at": None})  # 3
    await alice.patch("/task/2", json={"status": "in_work"})  # 4
    await alice.new_task()  # 5
    await alice.delete("/task/3?forever=true")  # 6
    await alice.delete("/task/2")  # 7
    await alice.patch("/task/1", json={"name": "Buy milk", "description": "fresh"})  # 8
    await alice.new_task()  # 9
    await alice.patch("/task/1", json={"name": "third", "status": "new"})  # 10
    return alice


def faults_after(sql: Sql, person: Person, statement: str) -> list[tuple[Any, ...]]:
    """Return what is wrong once something else has written this, which is taken back."""
    assert person.caller
    with rolled_back(sql):
        sql("SET LOCAL session_replication_role = replica")  # so that no foreign key keeps it from happening
        sql(statement.replace("%(user)s", str(person.caller.user_id)))
        return faults(sql, person)


# What the service writes


async def test_a_history_of_every_kind_of_change_hangs_together(alice: Person, sql: Sql) -> None:
    assert faults(sql, alice) == []
    undone = await alice.post("/task/undo", json={"since": 6})
    assert undone.json["count"] == 3
    assert faults(sql, alice) == []
    await alice.post("/task/undo", json={"since": undone.json["before"]})
    assert faults(sql, alice) == []


async def test_an_account_without_tasks_hangs_together(mallory: Person, sql: Sql) -> None:
    assert faults(sql, mallory) == []
    assert sql("SELECT * FROM account_faults(-1)") == []


@pytest.mark.parametrize("seed", range(5))
async def test_random_histories_hang_together(mallory: Person, sql: Sql, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        path = f"/task/{chance.randint(1, 8)}"
        fields = {
            "name": chance.choice(["a", "b", "c"]),
            "status": chance.choice(["new", "planned", "completed"]),
            "completion_at": chance.choice(["", "02-10-2020", "03-10-2020"]),
        }
        match chance.randint(0, 9):
            case 0 | 1 | 2:
                await mallory.new_task(**fields)
            case 3 | 4 | 5:
                await mallory.patch(path, json={name: fields[name] for name in chance.sample(sorted(fields), chance.randint(1, 3))})
            case 6:
                await mallory.delete(path)
            case 7:
                await mallory.post(f"{path}/restore", json={})
            case 8:
                await mallory.delete(f"{path}?forever=true")
            case 9:
                revision = int((await mallory.get("/task")).headers["X-Revision"])
                await mallory.post("/task/undo", json={"since": max(revision - chance.randint(0, 15), 0)})
    assert faults(sql, mallory) == []


# What something else wrote

LOG = "UPDATE task_log SET {} WHERE user_id = %(user)s AND revision = {}"
GONE = "DELETE FROM task_log WHERE user_id = %(user)s AND revision = {}"
TASK = "UPDATE task SET {} WHERE user_id = %(user)s AND id = {}"
STATE = "UPDATE user_state SET {} WHERE user_id = %(user)s"
ENTRY = (
    "INSERT INTO task_log (user_id, task_id, revision, field, old, new, changed_at)"
    " SELECT user_id, {}, {}, {}, changed_at FROM user_state WHERE user_id = %(user)s"
)
KEY = "INSERT INTO idempotency_key (user_id, key, digest, task_id, created_at) VALUES (%(user)s, 'key', '', {}, now())"
SOONER = "deleted_at = deleted_at - interval '1 hour'"
MOMENT = "((SELECT {} FROM task t WHERE t.user_id = %(user)s AND t.id = 2) AT TIME ZONE 'UTC')::text || '+00'"  # as the log has it
CREATED_AT, DELETED_AT = MOMENT.format("created_at"), MOMENT.format("deleted_at")
OF_TASK_4 = "(SELECT created_at FROM task t WHERE t.user_id = task_log.user_id AND t.id = 4)"
BREAKS = [
    # the chains
    (LOG.format("old = 'never'", "8 AND field = 'name'"), (1, 8, "the old name is not what the entry before made it")),
    (LOG.format("new = 'never'", "3 AND field = 'name'"), (1, 8, "the old name is not what the entry before made it")),
    (GONE.format("8 AND field = 'name'"), (1, 10, "the old name is not what the entry before made it")),
    (LOG.format("new = 'never'", "10 AND field = 'name'"), (1, None, "its name is not what its last entry made it")),
    (TASK.format("name = 'never'", 1), (1, None, "its name is not what its last entry made it")),
    (TASK.format("completion_at = '2020-10-02'", 1), (1, None, "its completion_at is not what its last entry made it")),
    (TASK.format("deleted_at = NULL", 2), (2, None, "its deleted_at is not what its last entry made it")),
    (TASK.format("deleted_at = now()", 4), (4, None, "it is in the trash before any entry says so")),
    (LOG.format("old = '2020-10-02 00:00:00+00'", 7), (2, 7, "it is in the trash before any entry says so")),
    (LOG.format("old = new", "8 AND field = 'description'"), (1, 8, "the entry alters nothing")),
    (LOG.format("old = 'done'", 4), (2, 4, "the entry has a status that no task can have")),
    (LOG.format("field = 'Name'", "3 AND field = 'name'"), (1, 3, "the entry has a Name that no task can have")),
    (LOG.format("old = ''", "3 AND field = 'name'"), (1, 3, "the entry has a name that no task can have")),
    (LOG.format("old = repeat('x', 201)", "3 AND field = 'name'"), (1, 3, "the entry has a name that no task can have")),
    (LOG.format("old = NULL", "8 AND field = 'description'"), (1, 8, "the entry has a description that no task can have")),
    *[
        (LOG.format(f"old = '{day}'", "3 AND field = 'completion_at'"), (1, 3, "the entry has a completion_at that no task can have"))
        for day in ("soon", "2020-02-30", "1899-12-31", "infinity", "02-10-2020", "10000-01-01")
    ],
    (LOG.format("new = 'infinity'", 7), (2, 7, "the entry has a deleted_at that no task can have")),
    # the revisions
    (LOG.format("revision = 12", 10), (None, 10, "it is missing")),
    (GONE.format(10), (None, 10, "it is missing")),
    (GONE.format(7), (None, 7, "it is missing")),
    ("DELETE FROM task WHERE user_id = %(user)s AND id = 4", (None, 9, "it is missing")),
    (STATE.format("revision = 11"), (None, 11, "it is missing")),
    (STATE.format("kept_from = 3"), (None, 5, "it is missing")),
    (STATE.format("revision = 9"), (1, 10, "the user never had this revision")),
    (LOG.format("revision = 11", 10), (1, 11, "the user never had this revision")),
    (LOG.format("revision = 7", 10), (2, 7, "it is a change of two tasks")),
    (TASK.format("created_revision = 8", 4), (4, 8, "it is a change of two tasks")),
    (ENTRY.format(4, 9, "'name', 'x', 'Buy milk'"), (4, 9, "it creates the task and changes it")),
    (LOG.format("changed_at = changed_at + interval '1 microsecond'", "8 AND field = 'name'"), (1, 8, "it has two moments")),
    (LOG.format("changed_at = '2020-01-01'", 8), (1, 8, "it is earlier than the revision before")),
    (LOG.format(f"changed_at = {OF_TASK_4}", 10), (1, 10, "it has the moment of the revision before, and is not of the same request")),
    (STATE.format("changed_at = changed_at + interval '1 second'"), (1, 10, "it has another moment than the user's last change")),
    # the tasks
    (TASK.format("revision = 9", 1), (1, 9, "its revision is not that of its last change")),
    (TASK.format("updated_at = updated_at + interval '1 second'", 1), (1, 10, "its updated_at is not the moment of its last change")),
    (TASK.format("status = 'completed', completed_at = now()", 4), (4, 9, "it is kept otherwise than it looks")),
    (TASK.format("created_revision = 11", 1), (1, 10, "it was changed before its creation")),
    (TASK.format("created_revision = 4", 1), (2, 7, "it was created before a task of a lower id")),
    (TASK.format("id = 9", 4), (9, 9, "the user never had this task")),
    (TASK.format("body = replace(body, '\"id\"', '\"di\"')", 1), (1, 10, "it is kept otherwise than it looks")),
    (
        f"{TASK.format(SOONER, 2)}; {LOG.format(f'new = {DELETED_AT}', 7)}; UPDATE task t SET body = task_json(t) WHERE user_id = %(user)s",
        (2, 7, "it goes to the trash at another moment than its entry has"),
    ),
    (
        ENTRY.format(2, 4, f"'completed_at', {CREATED_AT}, NULL").replace("user_state WHERE", "task_log WHERE revision = 4 AND"),
        (2, 4, "its entry of completed_at says nothing new"),
    ),
    # what the user's state says
    (STATE.format("last_task_id = 3"), (4, 9, "the user never had this task")),
    (STATE.format("last_task_id = 5"), (None, None, "there are 3 tasks of 5, and 1 were purged")),
    (STATE.format("purged = 2"), (None, None, "there are 3 tasks of 4, and 2 were purged")),
    (STATE.format("kept_from = 11"), (None, None, "its history is kept from revision 11 on, which the user never had")),
    (STATE.format("kept_from = 7"), (None, 7, "it is said to be purged, and is there")),
    (STATE.format("kept_from = 0"), (None, None, "its history is kept from revision 0 on, and 1 tasks were purged")),
    (STATE.format("kept_from = 5"), (None, None, "its history is kept from revision 5 on, and 1 tasks were purged")),
    (STATE.format("purged = 0, last_task_id = 3"), (None, None, "its history is kept from revision 6 on, and 0 tasks were purged")),
    (STATE.format("kept_from_at = '2020-01-01'"), (None, 6, "it is earlier than the revision before")),
    (STATE.format("kept_from_at = now() + interval '1 hour'"), (2, 7, "it is earlier than the revision before")),
    (
        STATE.format("kept_from_at = now() + interval '1 hour'"),
        (None, None, "its history is kept from a moment on that is later than its last change"),
    ),
    (STATE.format("log_counted = 4, log_entries = 5"), (None, None, "there are 4 log entries up to revision 4, and 5 were counted")),
    (STATE.format("log_counted = 11, log_entries = 9"), (None, None, "there are 9 log entries up to revision 11, and 9 were counted")),
    (KEY.format(5), (None, None, "an Idempotency-Key is of task 5, which the user never had")),
]


@pytest.mark.parametrize(("statement", "expected"), BREAKS)
async def test_a_break_is_found_and_named(alice: Person, sql: Sql, statement: str, expected: tuple[Any, ...]) -> None:
    assert expected in faults_after(sql, alice, statement)
    assert faults(sql, alice) == []


# From the command line


@pytest.fixture
def of_its_own(server: Server, fresh_name: str) -> Iterator[Sql]:
    """A database for this test alone."""
    migrate.upgrade(fresh_name, connection_parameters(), MIGRATIONS)
    with connection_to(server._replace(ours=fresh_name)) as sql:
        yield sql


def check(sql: Sql) -> None:
    """Check the database of this connection."""
    [(name,)] = sql("SELECT current_database()")
    verify.verify(database_configuration(configured(db=name)))


def with_tasks(sql: Sql, n: int) -> Account:
    """Make a user with tasks, of which each was changed once."""
    account = Account(sql)
    for task_id in range(1, n + 1):
        account.create()
        account.update(task_id=task_id, name="other", description="other")
    return account


def test_it_says_what_it_has_checked(of_its_own: Sql, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "USERS_AT_ONCE", 2)
    check(of_its_own)
    assert capsys.readouterr().out == "Checked: 0 user(s), 0 task(s), 0 log entries. Every log leads to its task.\n"
    for n in range(5):
        with_tasks(of_its_own, n)
    check(of_its_own)
    assert capsys.readouterr().out == "Checked: 5 user(s), 10 task(s), 20 log entries. Every log leads to its task.\n"


def test_it_says_of_each_user_what_breaks_first(of_its_own: Sql, capsys: pytest.CaptureFixture[str]) -> None:
    people = [with_tasks(of_its_own, 3) for _ in range(4)]
    for person, task_id in ((people[2], 3), (people[1], 3), (people[1], 2)):
        of_its_own("UPDATE task SET revision = 1 WHERE user_id = %s AND id = %s", person.user_id, task_id)
    with pytest.raises(SystemExit, match=r"^2 user\(s\) are broken\.$"):
        check(of_its_own)
    assert capsys.readouterr().out.splitlines() == [
        f"Broken at user {people[1].user_id}, task 2, revision 1: its revision is not that of its last change.",
        f"Broken at user {people[2].user_id}, task 3, revision 1: its revision is not that of its last change.",
        "Checked: 4 user(s), 12 task(s), 24 log entries.",
    ]


OF_USERS = {
    "nothing counts its changes, and it has no token": "INSERT INTO users (login, login_key, password_hash) VALUES ('bob', 'bob', '')",
    "another user has its uid, and with it the UIDs of its tasks": "UPDATE users SET uid = (SELECT uid FROM users WHERE id = 1) WHERE id = 2",
    "its login_key is not that of its login": "UPDATE users SET login = upper(login), login_key = upper(login) WHERE id = 1",
}


@pytest.mark.parametrize("fault", OF_USERS)
def test_what_is_wrong_with_a_user_is_said_too(of_its_own: Sql, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    for login in ("alice", "mallory"):
        of_its_own("UPDATE users SET login = %s, login_key = %s WHERE id = %s", login, login, with_tasks(of_its_own, 1).user_id)
    check(of_its_own)
    of_its_own(OF_USERS[fault])
    with pytest.raises(SystemExit):
        check(of_its_own)
    assert f": {fault}.\n" in capsys.readouterr().out


def test_a_closed_account_is_not_looked_at(of_its_own: Sql, capsys: pytest.CaptureFixture[str]) -> None:
    closed = with_tasks(of_its_own, 2)
    of_its_own("UPDATE user_state SET token_generation = -1 WHERE user_id = %s", closed.user_id)
    of_its_own("DELETE FROM task_log WHERE user_id = %s", closed.user_id)
    check(of_its_own)
    assert "Checked: 0 user(s)" in capsys.readouterr().out


def test_without_a_database_it_says_so() -> None:
    with pytest.raises(SystemExit, match=r"The database can't be checked: .*no-such-database"):
        verify.verify(database_configuration(configured(db="no-such-database")))


@pytest.mark.long
@pytest.mark.parametrize(("arguments", "code"), [(["verify"], 0), (["check"], 1)])
def test_it_is_a_command(of_its_own: Sql, arguments: list[str], code: int) -> None:
    [(name,)] = of_its_own("SELECT current_database()")
    environment = os.environ | {"DB": name}
    ended = subprocess.run(
        [sys.executable, "models.py", *arguments], cwd=HOUSE, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, bool(ended.stdout)) == (code, code == 0), ended


@pytest.mark.long
def test_a_small_account_does_not_wait_until_the_large_ones_are_read(of_its_own: Sql) -> None:
    large, small = with_tasks(of_its_own, 500), with_tasks(of_its_own, 0)
    of_its_own("ANALYZE")
    with rolled_back(of_its_own):
        of_its_own("SET LOCAL plan_cache_mode = force_generic_plan")  # which is made for users of the average size
        assert [of_its_own("SELECT * FROM account_faults(%s)", account.user_id) for account in (small, large)] == [[], []]
        scanned = dict(of_its_own("SELECT relname::text, seq_scan FROM pg_stat_xact_user_tables"))
    assert {table for table, scans in scanned.items() if scans} == set()

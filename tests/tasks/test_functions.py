"""The operations inside PostgreSQL, without the service: what they answer, whom they wait for, how they are planned."""

import json
import random
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg2
import pytest
from aiohttp.test_utils import TestClient
from psycopg2 import errors

import models
from postgres import migrate
from postgres.database import MIGRATIONS, Database
from postgres.queries import Query
from tasks.queries import task_page
from tests.conftest import Person, Server, connection_parameters, connection_to, create_tasks

Sql = Callable[..., list[tuple[Any, ...]]]

GENERATION = 7


class Answered(NamedTuple):
    """What an operation answers."""

    refused: str | None
    id: int | None
    revision: int | None
    task: dict[str, Any] | None
    user_revision: int | None


class Account:
    """A user, and the operations on their tasks."""

    def __init__(self, sql: Sql) -> None:
        self.sql = sql
        name = secrets.token_hex(6)
        [(self.user_id,)] = sql("INSERT INTO users (login, login_key, password_hash) VALUES (%s, %s, 'no hash') RETURNING id", name, name)
        sql("INSERT INTO user_state (user_id, token_generation) VALUES (%s, %s)", self.user_id, GENERATION)

    def create(
        self, *, sql: Sql | None = None, generation: int = GENERATION, wait: bool = True, most: int | None = None, **fields: Any
    ) -> Answered:
        new = json.dumps({"name": "Buy milk", "description": "", "status": "new"} | fields)
        return self._write(sql, generation, wait, None, None, new, most)

    def update(
        self,
        *,
        sql: Sql | None = None,
        generation: int = GENERATION,
        wait: bool = True,
        if_match: list[int] | None = None,
        task_id: int = 1,
        most: int | None = None,
        **fields: Any,
    ) -> Answered:
        return self._write(sql, generation, wait, task_id, if_match, json.dumps(fields), most)

    def delete(self, **options: Any) -> Answered:
        return self.update(**options, deleted=True)

    def get(self, task_id: int = 1) -> Answered:
        [row] = self.sql(
            "SELECT NULL, t.id, t.revision, t.body::json, s.revision FROM task t JOIN user_state s USING (user_id) WHERE user_id = %s AND id = %s",
            self.user_id,
            task_id,
        )
        return Answered(*row)

    def stored(self) -> list[tuple[Any, ...]]:
        """Return all that is stored of this user."""
        return self.sql(
            "SELECT to_jsonb(s), (SELECT jsonb_agg(t ORDER BY t.id) FROM task t WHERE t.user_id = s.user_id),"
            " (SELECT jsonb_agg(l ORDER BY l.revision, l.field) FROM task_log l WHERE l.user_id = s.user_id)"
            " FROM user_state s WHERE s.user_id = %s",
            self.user_id,
        )

    def _write(
        self, sql: Sql | None, generation: int, wait: bool, task_id: int | None, if_match: list[int] | None, change: str, most: int | None
    ) -> Answered:
        statement = (
            "SELECT refused, f.id, revision, body::json, user_revision"
            " FROM task_write(ARRAY[%s]::bigint[], ARRAY[%s]::bigint[], ARRAY[%s]::bigint[], ARRAY[%s::bigint[]::text], ARRAY[%s]::jsonb[], ARRAY[%s]::bigint[], %s) f"
        )
        [row] = (sql or self.sql)(statement, self.user_id, generation, task_id, if_match, change, most, wait)
        return Answered(*row)


CHANGES: dict[str, Callable[..., Answered]] = {
    "create": Account.create,
    "update": lambda account, **options: account.update(name="other", **options),
    "update that changes nothing": Account.update,
    "delete": Account.delete,
}

every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@pytest.fixture
def account(sql: Sql) -> Account:
    """A user with one task, at revision 1."""
    account = Account(sql)
    account.create(completion_at="2020-10-02")
    return account


@pytest.fixture
def other_sql(server: Server) -> Iterator[Sql]:
    """A second connection, which gives up waiting for a lock at once."""
    with connection_to(server) as sql:
        sql("SET lock_timeout = '20ms'")
        yield sql


@contextmanager
def rolled_back(sql: Sql) -> Iterator[None]:
    """Run what is inside in a transaction that leaves nothing behind."""
    sql("BEGIN")
    try:
        yield
    finally:
        sql("ROLLBACK")


# What they answer


def test_a_change_answers_the_task_as_it_is_then(account: Account) -> None:
    answered = account.update(name="other", status="completed")
    assert answered == Answered(None, 1, 2, account.get().task, 2)
    assert answered.task
    assert (answered.task["name"], answered.task["status"], answered.task["revision"]) == ("other", "completed", 2)


@pytest.mark.parametrize("if_match", [None, [1], [9, 1], [9], []])
@pytest.mark.parametrize("fields", [{}, {"name": "Buy milk"}, {"status": "new", "completion_at": "2020-10-02", "description": ""}])
def test_what_is_so_already_is_not_written_whatever_was_seen(account: Account, if_match: list[int] | None, fields: dict[str, Any]) -> None:
    before = account.stored()
    assert account.update(if_match=if_match, **fields) == account.get()
    assert account.stored() == before


@pytest.mark.parametrize("if_match", [[], [2], [0, 2, 3], [2**63 - 1], [None], [2, None]])
@pytest.mark.parametrize("change", [CHANGES["update"], CHANGES["delete"]], ids=["update", "delete"])
def test_a_stale_change_is_refused_with_the_task_as_it_is(account: Account, change: Callable[..., Answered], if_match: list[int]) -> None:
    before = account.stored()
    assert change(account, if_match=if_match) == account.get()._replace(refused="changed_meanwhile")
    assert account.stored() == before


@pytest.mark.parametrize("if_match", [None, [1], []])
@pytest.mark.parametrize("change", [CHANGES["update"], CHANGES["delete"]], ids=["update", "delete"])
def test_what_is_not_there_is_not_found_before_it_is_stale(
    account: Account, change: Callable[..., Answered], if_match: list[int] | None
) -> None:
    account.create()
    account.delete(task_id=2)
    before = account.stored()
    for task_id in (2, 3):
        assert change(account, task_id=task_id, if_match=if_match) == Answered("not_found", None, None, None, 3)
    assert account.stored() == before


def test_absent_stays_and_null_clears(account: Account) -> None:
    before = account.get().task
    assert before
    cleared = account.update(completion_at=None).task
    assert cleared
    assert {key for key in cleared if cleared[key] != before[key]} == {"completion_at", "updated_at", "revision"}
    assert cleared["completion_at"] is None


@every_change
@pytest.mark.parametrize("generation", [GENERATION + 1, 0, -1])
def test_a_token_of_another_generation_changes_nothing(account: Account, change: Callable[..., Answered], generation: int) -> None:
    before = account.stored()
    assert change(account, generation=generation) == Answered("unauthorized", None, None, None, None)
    assert account.stored() == before


@every_change
def test_a_user_who_is_gone_changes_nothing(account: Account, change: Callable[..., Answered]) -> None:
    before = account.stored()
    there, account.user_id = account.user_id, -1
    assert change(account) == Answered("unauthorized", None, None, None, None)
    account.user_id = there
    assert account.stored() == before


# Whom they wait for


@every_change
def test_a_change_that_may_not_wait_is_busy_while_another_holds_the_user(
    account: Account, other_sql: Sql, change: Callable[..., Answered]
) -> None:
    with rolled_back(account.sql):
        account.update(name="held")
        assert change(account, sql=other_sql, wait=False) == Answered("busy", None, None, None, None)
        with pytest.raises(errors.LockNotAvailable):
            change(account, sql=other_sql, wait=True)
    assert change(account, sql=other_sql, wait=False).refused is None


@every_change
def test_a_busy_user_keeps_no_other_from_changing(account: Account, other_sql: Sql, change: Callable[..., Answered]) -> None:
    other = Account(account.sql)
    other.create()
    with rolled_back(account.sql):
        account.update(name="held")
        assert change(other, sql=other_sql, wait=False).refused is None
        assert change(account, sql=other_sql, wait=False).refused == "busy"


def test_the_moment_of_a_change_is_not_that_of_its_transaction(account: Account) -> None:
    with rolled_back(account.sql):
        account.sql("SELECT pg_sleep(0.001)")
        account.update(name="other")
        assert account.sql("SELECT updated_at > now() FROM task WHERE user_id = %s", account.user_id) == [(True,)]


# What can't be stored

MOMENTS_THAT_RFC_3339_LACKS = ("infinity", "-infinity", "10000-01-01 12:00+00")
POISON = [
    *[f"completion_at = '{day}'" for day in ("10000-01-01", "1899-12-31", "infinity", "-infinity", "0001-01-01 BC")],
    *[f"{column} = repeat('x', {length})" for column, length in (("name", 0), ("name", 201), ("description", 10_001))],
    *[f"status = '{status}'" for status in ("", "New", "done", "new ")],
    *[f"{column} = NULL" for column in ("name", "description", "status", "created_at", "updated_at", "revision", "created_revision")],
    "status = 'completed'",
    "completed_at = now()",
    *[f"{column} = '{moment}'" for column in ("created_at", "updated_at", "deleted_at") for moment in MOMENTS_THAT_RFC_3339_LACKS],
    *[f"status = 'completed', completed_at = '{moment}'" for moment in MOMENTS_THAT_RFC_3339_LACKS],
]


@pytest.mark.parametrize("poison", POISON)
def test_a_row_that_could_not_be_shown_is_refused(account: Account, poison: str) -> None:
    before = account.stored()
    with pytest.raises(psycopg2.IntegrityError):
        account.sql(f"UPDATE task SET {poison} WHERE user_id = %s", account.user_id)
    assert account.stored() == before


@pytest.mark.parametrize(
    "antidote",
    [
        "name = repeat('\U0001f95b', 200), description = repeat('\U0001f95b', 10000)",
        "completion_at = '1900-01-01'",
        "completion_at = '9999-12-31'",
        "completion_at = NULL",
        "status = 'completed', completed_at = now()",
    ],
)
def test_a_row_at_the_limits_is_stored_and_shown(account: Account, antidote: str) -> None:
    account.sql(f"UPDATE task SET {antidote} WHERE user_id = %s", account.user_id)
    assert account.get().task


def test_no_constraint_has_rows_that_it_has_not_seen(sql: Sql) -> None:
    """But for one of a single column, which came with it: the rows of before have its default."""
    assert sql("SELECT conname FROM pg_constraint WHERE NOT convalidated AND cardinality(conkey) <> 1") == []


def test_changes_of_one_call_happen_one_after_the_other(account: Account) -> None:
    """Each to what those before it have left; so do a batch's, of which several may be of one task."""
    changes: list[tuple[int | None, list[int] | None, dict[str, Any]]] = [
        (1, None, {"name": "a"}),
        (None, None, {"name": "new", "description": "", "status": "new"}),
        (1, [1], {"name": "stale"}),
        (1, [2], {"name": "b", "status": "completed"}),
        (1, None, {"name": "b"}),
        (1, None, {"deleted": True}),
        (1, None, {"name": "c"}),
        (1, None, {"deleted": False}),
        (1, None, {"name": "d"}),
    ]
    statement = (
        "SELECT n, refused, id, revision FROM task_write(array_fill(%s::bigint, ARRAY[9]), array_fill(%s::bigint, ARRAY[9]), %s::bigint[], %s::text[],"
        " %s::jsonb[], '{}', true) ORDER BY n"
    )
    ids, tags, values = zip(*changes, strict=True)
    texts = [None if tag is None else f"{{{tag[0]}}}" for tag in tags]
    rows = account.sql(statement, account.user_id, GENERATION, [*ids], texts, [json.dumps(value) for value in values])
    assert [row[1:] for row in rows] == [
        (None, 1, 2),
        (None, 2, 3),
        ("changed_meanwhile", 1, 2),
        (None, 1, 4),
        (None, 1, 4),
        (None, 1, 5),
        ("not_found", None, None),
        (None, 1, 6),
        (None, 1, 7),
    ]
    task = account.get().task
    assert task
    assert (task["name"], task["status"], task["deleted_at"], task["revision"]) == ("d", "completed", None, 7)
    assert account.sql("SELECT f.* FROM account_faults(%s) f", account.user_id) == []
    assert account.sql("SELECT revision, field FROM task_log WHERE user_id = %s ORDER BY 1, 2", account.user_id) == [
        (2, "name"),
        (4, "name"),
        (4, "status"),
        (5, "deleted_at"),
        (6, "deleted_at"),
        (7, "name"),
    ]


# How they are planned


def plan(sql: Sql, statement: str, *parameters: Any) -> str:
    return "\n".join(line for (line,) in sql(f"EXPLAIN (VERBOSE, COSTS OFF) {statement}", *parameters))


def test_the_planner_inlines_how_log_entries_look(sql: Sql) -> None:
    text = plan(sql, "SELECT log_json(l) FROM task_log l")
    assert "to_json" in text
    assert not [name for name in ("log_json", "log_value") if f"{name}(" in text]


@pytest.mark.parametrize(
    ("change", "hot"),
    [({"name": "other"}, True), ({"description": "other"}, True), ({"status": "planned"}, False), ({"completion_at": None}, False)],
)
def test_a_change_is_heap_only_unless_it_changes_what_is_indexed(account: Account, change: dict[str, Any], hot: bool) -> None:
    with rolled_back(account.sql):
        account.create(completion_at="2020-10-02")  # on a page that keeps 15 % free, as its fillfactor says: one more version finds room
        account.update(task_id=2, **change)
        counted = account.sql("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'task'")
    assert counted == [(1, int(hot))]


@pytest.fixture(scope="session")
def settled(server: Server) -> models.Caller:
    """One of three users with 5,000 tasks each, few of them planned or with a day, and 10,000 log entries, among 200,000 tasks."""
    with connection_to(server) as sql:
        accounts = [Account(sql) for _ in range(3)]
        sql(
            "WITH u AS (INSERT INTO users (login, login_key, password_hash) SELECT x, x, '' FROM (SELECT 'many-' || n AS x FROM generate_series(1, 925) n) RETURNING id)"
            " INSERT INTO user_state (user_id, token_generation) SELECT id, 0 FROM u"
        )
        sql(
            "INSERT INTO task (user_id, id, name, description, status, completion_at, created_at, updated_at, created_revision, revision)"
            " SELECT u.id, n, 'name', 'description', CASE WHEN n %% 100 = 0 THEN 'planned' ELSE 'new' END,"
            " CASE WHEN n %% 50 = 0 THEN '2020-01-01'::date + n / 10 END, now(), now(), n, n"
            " FROM users u, generate_series(1, CASE WHEN starts_with(login, 'many-') THEN 200 ELSE 5000 END) n"
            " WHERE starts_with(login, 'many-') OR u.id = ANY (%s)",
            [account.user_id for account in accounts],
        )
        for account in accounts:
            sql(
                "INSERT INTO task_log (user_id, task_id, revision, field, old, new, changed_at)"
                " SELECT %s, 1 + n %% 5000, n, 'name', 'old', 'new', now() FROM generate_series(1, 10000) n",
                account.user_id,
            )
        sql("ANALYZE task, task_log, user_state")
        return models.Caller(accounts[1].user_id, GENERATION)


@pytest.mark.long  # 200,000 tasks
@pytest.mark.parametrize(
    ("path", "index"),
    [
        ("/task?limit=10", "task_pkey"),
        ("/task?sort=-id&limit=10", "task_pkey"),
        ("/task?sort=created_at&limit=10", "task_pkey"),
        ("/task?sort=-created_at&limit=10", "task_pkey"),
        ("/task?status=planned", "task_by_status"),
        ("/task?status=planned,in_work", "(task_pkey|task_by_status)"),
        ("/task?status=planned&limit=10", "task_by_status"),
        ("/task?completion_at=05-02-2020", "task_by_day"),
        ("/task?completion_from=05-02-2020&completion_to=12-02-2020", "task_by_day"),
        ("/task/1?status=new", "(task_pkey|task_by_status)"),
        ("/task/1/log", "task_log_by_task"),
        ("/task/1/log?limit=1", "task_log_by_task"),
    ],
)
async def test_a_listing_uses_the_index_made_for_it(
    client: TestClient[Any, Any], sql: Sql, settled: models.Caller, monkeypatch: pytest.MonkeyPatch, path: str, index: str
) -> None:
    sent: list[tuple[Query[Any], tuple[Any, ...]]] = []
    ask = Database.ask

    def record(database: Database, query: Query[Any], *arguments: Any) -> Any:
        sent.append((query, arguments))
        return ask(database, query, *arguments)

    monkeypatch.setattr(Database, "ask", record)
    answer = await Person(client, caller=settled).get(path)
    assert (answer.status, bool(answer.json)) == (200, True)
    [(query, arguments)] = sent
    for kind in ("force_generic_plan", "force_custom_plan"):
        sql("SELECT set_config('plan_cache_mode', %s, false)", kind)
        for statement, values in (query.for_one(arguments, wait=False), query.for_many([arguments] * 8)):
            sql(statement.prepare, *statement.constants)
            planned = plan(sql, statement.execute, *values)
            sql(statement.deallocate)
            assert re.search(rf"Index (Only )?Scan (Backward )?(using|on) {index}\b", planned), planned
            assert "Seq Scan" not in planned


def pages_read(sql: Sql, statement: str, *parameters: Any) -> int:
    """Run a statement and give how many pages of tables and indexes it looked at."""
    [(found,)] = sql(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", *parameters)
    return int(found[0]["Plan"]["Shared Hit Blocks"] + found[0]["Plan"]["Shared Read Blocks"])


def test_tasks_are_looked_up_however_little_the_planner_knows_of_them(server: Server, fresh_name: str) -> None:
    migrate.upgrade(fresh_name, connection_parameters(), MIGRATIONS)
    with connection_to(server._replace(ours=fresh_name)) as sql:
        sql("ALTER TABLE task SET (autovacuum_enabled = off)")
        account = Account(sql)
        new = json.dumps({"name": "x", "description": "", "status": "new"})
        creations = f"(SELECT * FROM task_write(array_fill({account.user_id}::bigint, ARRAY[25]), array_fill({GENERATION}::bigint, ARRAY[25]), '{{}}', '{{}}', array_fill(%s::jsonb, ARRAY[25]), '{{}}', true))"
        for _ in range(20):  # from the sixth on PostgreSQL may keep one plan for all
            sql(creations, new)
        with rolled_back(sql):
            sql(creations, new)
            account.update(name="y", task_id=7)
            [(fetched,)] = sql("SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'task'")
        assert fetched <= 10  # and not all hundred for each


@pytest.mark.long
def test_a_page_of_the_past_looks_at_no_more_tasks_than_it_shows(sql: Sql, settled: models.Caller) -> None:
    page = task_page("past", (), "id", False, "the start", short=True).one
    values = [*settled, 5000, 20, True, *page.constants]
    assert pages_read(sql, page.text, *values) < 1000  # some 20 for each task; all 5,000 tasks were before 50,000


@pytest.mark.long
def test_a_moment_long_ago_is_found_without_reading_all_since(sql: Sql, settled: models.Caller) -> None:
    whole = """jsonb_populate_record(s, '{"revision": 10000, "last_task_id": 5000}')"""
    moment = f"SELECT revision_at({whole}, now() - interval '1 day') FROM user_state s WHERE user_id = %s"
    assert pages_read(sql, moment, settled.user_id) < 200  # all 10,000 entries are on more


@pytest.mark.parametrize(("tasks", "changes"), [(20, 60), (3, 60), (40, 5)], ids=["as many", "many changes of few", "few changes of many"])
def test_what_was_changed_since_is_what_the_list_has(sql: Sql, tasks: int, changes: int) -> None:
    account, chance = Account(sql), random.Random(f"{tasks} {changes}")
    for n in range(tasks + changes):
        if n < 2 or (chance.random() < tasks / (tasks + changes)):
            account.create()
        else:
            account.update(task_id=chance.randint(1, n), name=f"name {n}")
    account.delete(task_id=1)
    sql("SELECT task_erase(%s, %s, true, 2, NULL, NULL)", account.user_id, GENERATION)
    of_list = "SELECT revision, body FROM task WHERE user_id = %s AND revision > %s ORDER BY revision LIMIT %s"
    for since in range(account.get().user_revision or 0 + 1):
        for most in (1, 4, 1000):
            since_then = sql("SELECT * FROM tasks_since(%s, %s, %s)", account.user_id, since, most)
            assert since_then == sql(of_list, account.user_id, since, most)


@pytest.mark.long
def test_a_page_of_what_was_changed_reads_no_whole_list(sql: Sql) -> None:
    account = Account(sql)
    create_tasks(sql, models.Caller(account.user_id, GENERATION), 5000)
    sql(
        "SELECT count(*) FROM (SELECT array_agg(i) AS ids, array_agg(change) AS changes FROM generate_series(1, 2500) i, jsonb_build_object('name', i::text) change) c,"
        " LATERAL task_write(array_fill(%s::bigint, ARRAY[2500]), array_fill(%s::bigint, ARRAY[2500]), ids, '{}', changes, '{}', true)",
        *(account.user_id, GENERATION),
    )
    for since in (2500, 3000, 5000, 6000, 7400):
        assert (
            pages_read(sql, "SELECT * FROM tasks_since(%s, %s, 20)", account.user_id, since) < 500
        )  # some 15 for each task; 5,000 for all

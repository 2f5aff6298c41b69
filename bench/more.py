"""What may take long, each beside the plain statement that finds or does the same: in one PostgreSQL, in turn, without the service."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import psycopg2

from bench import stores
from bench.cluster import Cluster
from bench.data import GENERATION, Size
from bench.results import Record
from bench.transfer import history
from postgres.queries import Query
from tasks import queries

CROWD = Size(500)  # others, among whose tasks these are
TASKS, FEW = 100_000, 1_000  # of the two accounts that are asked
ENTRIES = 3  # of each task's log
TURNS = 9
DATABASE = "more"


class Account(NamedTuple):
    """Whose tasks they are, and how many."""

    user: int
    tasks: int

    @property
    def revision(self) -> int:
        """The present one."""
        return self.tasks * (ENTRIES + 1)


class Work(NamedTuple):
    """Something that may take long, and what it is compared with: statements with their values, which are rolled back."""

    what: str
    ours: tuple[str, tuple[Any, ...]]
    plain: tuple[str, tuple[Any, ...]]


def run(cluster: Cluster, crowd: Size = CROWD, tasks: int = TASKS, few: int = FEW, turns: int = TURNS) -> Iterator[Record]:
    """Measure each in turn, and give how many milliseconds it and the plain statement took."""
    accounts = Account(crowd.users + 1, tasks), Account(crowd.users + 2, few)
    _make(cluster, crowd, accounts)
    with closing(psycopg2.connect(host=cluster.host, user="postgres", dbname=DATABASE)) as connection:
        for work in works(*accounts):
            print(f"{work.what} ...", file=sys.stderr)
            for turn in range(turns + 1):
                took = [_milliseconds(connection, *statement) for statement in (work.ours, work.plain)]
                if turn:  # the first one makes plans, and finds what it reads elsewhere
                    yield {"what": work.what, "turn": turn, "ours_ms": took[0], "plain_ms": took[1]}
    cluster.drop(DATABASE)


def _make(cluster: Cluster, crowd: Size, accounts: Sequence[Account]) -> None:
    cluster.copy(cluster.seed(stores.OURS, crowd), DATABASE)
    for user, tasks in accounts:
        cluster.run(
            DATABASE,
            "INSERT INTO users (id, login, login_key, password_hash) OVERRIDING SYSTEM VALUE"
            f" VALUES ({user}, 'user-{user}', 'user-{user}', '')",
            f"INSERT INTO user_state (user_id, token_generation) VALUES ({user}, {GENERATION})",
            *history(user, tasks, ENTRIES),
        )
    cluster.run(DATABASE, "VACUUM (ANALYZE)")
    cluster.warm_up(DATABASE)


def _milliseconds(connection: Any, statement: str, values: tuple[Any, ...]) -> float:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        started = time.perf_counter()
        cursor.execute(statement, values)
        took = time.perf_counter() - started
    connection.rollback()
    return took * 1000


def works(many: Account, few: Account) -> Iterator[Work]:
    """Return what is measured."""
    plain = "SELECT t.body FROM task t WHERE t.user_id = %s AND t.deleted_at IS NULL"
    for words, what in (("отчёт", "that all match"), ("насос", "that none matches"), ("pump", "in other letters, that none matches")):
        like = f"{plain} AND lower(t.name || t.description) LIKE %s ORDER BY t.id LIMIT 20"
        yield Work(f"words {what}", _page("live", many.user, 20, q=[words]), (like, (many.user, f"%{words}%")))
    for sort in ("name", "status", "completion_at", "created_at", "updated_at"):
        column = f"lower(t.{sort})" if sort == "name" else f"t.{sort}"
        for sign, way in (("", "ASC"), ("-", "DESC NULLS LAST")):
            ordered = f"{plain} ORDER BY {column} {way}, t.id {way.split()[0]} LIMIT 20"
            yield Work(f"sort={sign}{sort}", _page("live", many.user, 20, sort=sort, descending=bool(sign)), (ordered, (many.user,)))
    live = _page("live", few.user, few.tasks)
    for part, revision in (("half", few.revision // 2), ("a quarter", few.revision // 4)):
        past = _page("past", few.user, few.tasks, revision=revision)
        yield Work(f"{few.tasks:,} tasks as they were {part} of the way; plain: as they are", past, live)
    of_list = "SELECT t.revision, t.body FROM task t WHERE t.user_id = %s AND t.revision > %s ORDER BY t.revision LIMIT 1000"
    for since in (0, many.revision - many.tasks // 2):
        page = _sent(queries.changed_page(short=False), many.user, 1000, since)
        yield Work(f"1,000 changed since {since:,} of {many.revision:,}", page, (of_list, (many.user, since)))
    undo = "SELECT * FROM task_undo(%s, %s, true, %s, %s, 100000, false)"
    since = few.revision - few.tasks
    ours = undo, (few.user, GENERATION, since, few.revision)
    yield Work(f"undo of {few.tasks:,} changes", ours, (PLAIN_UNDO, (few.user, since, few.user, few.revision, few.user, few.user)))


PLAIN_UNDO = """
WITH first AS (SELECT DISTINCT ON (l.task_id) l.task_id, l.old FROM task_log l
                WHERE l.user_id = %s AND l.revision > %s AND l.field = 'status' ORDER BY l.task_id, l.revision),
     before AS (SELECT t.id, t.status FROM task t WHERE t.user_id = %s),
     altered AS (UPDATE task t
                    SET status = f.old, completed_at = CASE f.old WHEN 'completed' THEN t.updated_at END,
                        updated_at = now(), look = 0, revision = %s + t.id
                   FROM first f WHERE t.user_id = %s AND t.id = f.task_id AND f.old <> t.status RETURNING t.id, t.status, t.revision)
INSERT INTO task_log (user_id, task_id, revision, field, old, new, changed_at)
SELECT %s, a.id, a.revision, 'status', b.status, a.status, now() FROM altered a JOIN before b USING (id)"""


def _page(
    source: queries.SourceName,
    user: int,
    most: int,
    *,
    sort: str = "id",
    descending: bool = False,
    revision: int | None = None,
    **asked: Any,
) -> tuple[str, tuple[Any, ...]]:
    query = queries.task_page(source, tuple(asked), sort, descending, "the start", short=most <= 32)
    return _sent(query, user, *(() if revision is None else (revision,)), most, *asked.values())


def _sent(query: Query[Any], user: int, *values: Any) -> tuple[str, tuple[Any, ...]]:
    statement, sent = query.for_one((user, GENERATION, *values), wait=True)
    return statement.text, (*sent, *statement.constants)

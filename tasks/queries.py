"""The queries of listings: a listing's parameters become one peewee query per combination, made once and kept.

Of each query's parameters whose they are comes first; then as of when; then which part of the listing; then what the filters need.
"""

from collections.abc import Collection, Iterable
from functools import cache, lru_cache, reduce
from operator import and_
from typing import Any, Literal, NamedTuple

from peewee import JOIN, SQL, Expression, ModelSelect, Select, fn

from models import CALLER_TYPES, Task, UserState
from postgres import pages
from postgres.pages import After, Order
from postgres.queries import Query, Row, q
from tasks import filters
from tasks.store import TaskAsStored


class State(NamedTuple):
    """On what a listing depends: the revisions, and how many tasks are gone for good."""

    revision: int  # of what is listed: the user's for tasks, the task's for its log
    user_revision: int
    kept_from: int
    purged: int


class PageRow(NamedTuple):
    """A page as PostgreSQL gives it: the state of which it is, then what postgres.pages says of a page."""

    revision: int
    user_revision: int
    kept_from: int
    purged: int
    last: bytes | None
    spare: int
    json: bytes | None

    @property
    def state(self) -> State:
        """The state of which it is."""
        return State(*self[:4])


class RevisionRow(NamedTuple):
    """A revision alone."""

    revision: int


SourceName = Literal["live", "trash", "past"]


class Source(NamedTuple):
    """Among which tasks to look: the tables, the columns, a row as clients see it, which rows count, and the parameters that this needs."""

    tables: list[Any]
    task: Any
    shown: Any
    conditions: tuple[Expression, ...]
    types: dict[str, str]


def _conditions(source: Source, names: tuple[str, ...]) -> list[Expression]:
    every = filters.filters(source.task)
    return [*source.conditions, *(every[name].condition for name in names)]


def _all_of(name: SourceName, with_uid: bool) -> Source:
    source = _as_shown(name)
    return source._replace(shown=fn.with_uid(source.shown, Task.uid)) if with_uid else source


def _as_shown(name: SourceName) -> Source:
    if name == "past":
        was_there = Task.user == q.user_id, Task.created_revision <= q.revision, SQL("past.deleted_at").is_null()
        not_long_gone = (Task.revision > q.revision) | Task.deleted_at.is_null()
        return Source(
            [Task, fn.task_at(Task, q.revision).alias("past")],
            _Past(),
            SQL("past.body"),
            (*was_there, not_long_gone),
            {"revision": "bigint"},
        )
    return Source([Task], Task, fn.task_shown(Task), (Task.user == q.user_id, Task.deleted_at.is_null(name == "live")), {})


class _Past:
    """A task's columns as they were; what never changes comes from the table, so that a page in the order of ids looks at few tasks."""

    def __getattr__(self, column: str) -> Any:
        return getattr(Task, column) if column in ("id", "created_at", "created_revision") else SQL(f"past.{column}")


def one_of(name: SourceName) -> Source:
    if name == "past":
        return _made_by(fn.task_past(q.user_id, q.id, q.revision), {"revision": "bigint"})
    return Source(
        [Task], Task, fn.task_shown(Task), (Task.user == UserState.user, Task.id == q.id, Task.deleted_at.is_null(name == "live")), {}
    )


def _made_by(function: Any, types: dict[str, str]) -> Source:
    made = Select([function], [SQL("*")]).alias("made")
    return Source([made], made.c, made.c.body, (), types)


STATE = (UserState.revision, UserState.kept_from, UserState.purged)


@lru_cache(500)
def task_page(
    name: SourceName, asked: tuple[str, ...], sort: str, descending: bool, after: After, *, short: bool, with_uid: bool = False
) -> Query[PageRow]:
    source = _all_of(name, with_uid)
    order = Order(filters.keys(source.task)[sort], source.task.id, descending)
    types = source.types | pages.parameters(order, after) | {name: filters.FILTER_TYPES[name] for name in asked}
    return _page(source, _conditions(source, asked), order, after, short, types, slow=is_slow(name, asked, sort), to_convert=with_uid)


def is_slow(name: SourceName, asked: Collection[str], sort: str) -> bool:
    """Return whether a page may take long to make: the texts, or the logs, of all tasks are read for it."""
    return name == "past" or "q" in asked or sort.endswith("name")


@cache
def changed_page(short: bool) -> Query[PageRow]:
    source = _made_by(fn.tasks_since(q.user_id, q.since, SQL("q.most + 1")), {"most": "int", "since": "bigint"})
    return _page(source, [], Order(None, source.task.revision), "the start", short, source.types)


def _page(
    source: Source,
    conditions: list[Expression],
    order: Order,
    after: After,
    short: bool,
    types: dict[str, str],
    *,
    slow: bool = False,
    to_convert: bool = False,
) -> Query[PageRow]:
    tasks = Select(source.tables, [source.shown.alias("body")])
    page = pages.page_of(tasks.where(*conditions) if conditions else tasks, order, after, short, to_convert=to_convert)
    return query_of_caller(PageRow, "task_page", with_page(UserState.revision, page).join(page, JOIN.CROSS), types, heavy=True, slow=slow)


def with_page(revision: Any, page: Select) -> ModelSelect:
    """Select what a listing's row holds, in the order of a PageRow: the state of what has this revision, then the page."""
    selected: ModelSelect = UserState.select(revision, *STATE, page.c.last, page.c.spare, page.c.json)
    return selected


@cache
def matching_task(name: SourceName, asked: tuple[str, ...]) -> Query[TaskAsStored]:
    source = one_of(name)
    state = UserState.select(source.task.id, source.task.revision, source.shown.alias("body"), UserState.revision)
    types = {"id": "bigint"} | source.types | {name: filters.FILTER_TYPES[name] for name in asked}
    return query_of_caller(TaskAsStored, "task_find", with_task(state, source, _conditions(source, asked)), types, slow=name == "past")


def with_task(state: ModelSelect, source: Source, conditions: Iterable[Expression]) -> ModelSelect:
    """Join a state to a task, or to nothing."""
    [table] = source.tables
    return state.join(table, JOIN.LEFT_OUTER, on=reduce(and_, conditions, SQL("true"))).switch(UserState)


def query_of_caller(row: type[Row], name: str, state: ModelSelect, types: dict[str, str], **kinds: bool) -> Query[Row]:
    """Declare the query that reads something beside the caller's state; its `kinds` are those of a Query."""
    known = (UserState.user == q.user_id) & (UserState.token_generation == q.generation)
    return Query(row, state.where(known), CALLER_TYPES | types, read=True, name=name, **kinds)


ACCOUNT_STATE = query_of_caller(State, "account_state", UserState.select(UserState.revision, *STATE), {})
REVISION_AT = query_of_caller(RevisionRow, "revision_at", UserState.select(fn.revision_at(UserState, q.at)), {"at": "timestamptz"})

"""Which tasks, as of when, page by page: a listing's parameters become one peewee query per combination, made once and kept."""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache, reduce
from operator import and_
from typing import Any, Literal, NamedTuple

import orjson
from peewee import JOIN, SQL, Expression, ModelSelect, Select, fn

from models import CALLER_TYPES, Caller, Task, UserState
from postgres import pages
from postgres.pages import After, Order
from postgres.queries import Query, Row, q
from rest import cursors
from rest.errors import FieldError, InvalidInput, InvalidToken, NotFound
from rest.values import Page
from service import Service
from tasks import filters
from tasks.errors import HistoryGone, at_revision, refuse_future
from tasks.schemas import TaskMatch, TaskQuery
from tasks.store import TaskAsStored, unwrap_task

SURELY_FIT = 32  # even of the longest log entries, with two descriptions of 10,000 characters, each written as six


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


class Listed(NamedTuple):
    """A page: the state of which it is, the JSON between its brackets, and where the next one begins if one follows."""

    state: State
    json: bytes
    cursor: str | None


SourceName = Literal["live", "trash", "past"]


class Source(NamedTuple):
    """Among which tasks to look: the table, its columns, a row as clients see it, which rows count, and the parameters that this needs."""

    table: Any
    task: Any
    shown: Any
    conditions: tuple[Expression, ...]
    types: dict[str, str]


async def list_tasks(service: Service, caller: Caller, query: TaskQuery, part_of: TaskQuery | None = None) -> Listed:
    """Return a page of the tasks that match. Raises InvalidInput (not a cursor of this listing; a revision to come), HistoryGone.

    Its cursors are those of the listing that it is `part_of`, where that is another one in the same order.
    """
    scope = f"{caller.user_id} tasks {(part_of or query).listing}"
    place = read_cursor(service, scope, query)
    if query.since is not None:
        began, after = place or (None, query.since)
        rows = await service.database.ask(_changed_page(query.limit <= SURELY_FIT), *caller, query.limit, after)
        return _list_changed(service, scope, rows, query, began)
    values = _filter_values(query)
    order = query.sort.removeprefix("-"), query.sort.startswith("-")
    statement = _task_page(query.source, tuple(values), *order, pages.after(place), query.limit <= SURELY_FIT)
    as_of = () if query.revision is None else (query.revision,)
    rows = await service.database.ask(statement, *caller, *as_of, *pages.values(query.limit, place), *values.values())
    return make_page(service, scope, rows, query)


def _list_changed(service: Service, scope: str, rows: Sequence[PageRow], query: TaskQuery, began: int | None) -> Listed:
    """Return a page of what has changed. Its cursor holds the revision at which the pull began: what was purged since may be known."""
    state = check_state([row.state for row in rows], query)
    began = state.user_revision if began is None else began
    if began < state.kept_from:
        raise HistoryGone(state.kept_from, state.user_revision)
    [row] = rows
    last = row.last and orjson.dumps([began, orjson.loads(row.last)[1]])
    return make_page(service, scope, [row._replace(last=last)], query)


async def get_state(service: Service, caller: Caller, query: Page) -> State:
    """Return the state of which a page of all tasks or logs would be. Raises InvalidInput (a revision to come), HistoryGone."""
    return check_state(await service.database.ask(_ACCOUNT_STATE, *caller), query)


async def find_task(service: Service, caller: Caller, task_id: int, match: TaskMatch) -> TaskAsStored:
    """Return a task if it is as it must be. Raises NotFound, and InvalidInput where the revision is still to come."""
    values = _filter_values(match)
    as_of = () if match.revision is None else (match.revision,)
    rows = await service.database.ask(_matching_task(match.source, tuple(values)), *caller, task_id, *as_of, *values.values())
    if rows and match.revision is not None and match.revision > rows[0].user_revision:
        raise refuse_future("revision", rows[0].user_revision)
    return unwrap_task(rows)


async def resolve_moment(service: Service, caller: Caller, query: Any) -> Any:
    """Return the query with the revision that its moment `at` names; as it is where it names none."""
    if query.at is None:
        return query
    return query.model_copy(update={"at": None, "revision": await get_revision_at(service, caller, query.at)})


async def get_revision_at(service: Service, caller: Caller, moment: Any) -> int:
    """Return the last revision not later than a moment. Raises InvalidToken."""
    for row in await service.database.ask(_REVISION_AT, *caller, moment):
        return row.revision
    raise InvalidToken()


@lru_cache(256)
def _filter_values(match: TaskMatch) -> dict[str, Any]:
    values = match.model_dump(include=set(filters.FILTER_TYPES), exclude_none=True)
    if statuses := values.pop("status", ()):
        values |= {"status": statuses[0]} if len(statuses) == 1 else {"statuses": list(statuses)}
    if values.get("completion_at") == "none":
        values["without_day"] = values.pop("completion_at") == "none"
    if words := values.pop("q", ()):
        values["q"] = [f"%{word.translate(_LITERALLY)}%" for word in words]
    return values


_LITERALLY = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


# What every listing has: a place that its cursor holds, and a state.


def read_cursor(service: Service, scope: str, page: Page) -> list[Any] | None:
    """Return the place that the page's cursor holds; None for the first page. Raises InvalidInput where it isn't one of this listing."""
    if page.cursor is None:
        return None
    keys = service.settings.jwt_secrets
    place = next((place for key in keys if (place := cursors.unseal(key, scope, page.cursor)) is not None), None)
    if place is None:
        raise InvalidInput(FieldError("cursor", "is not one of this listing: take it from a page's Link, with all its parameters"))
    return place


def check_state(states: Sequence[State], query: Page) -> State:
    """Return the state that a listing's row holds, if there is one. Raises InvalidToken, NotFound, InvalidInput, HistoryGone."""
    if not states:
        raise InvalidToken()
    [state] = states
    if state.revision is None:
        raise NotFound(headers=at_revision(state.user_revision))
    if isinstance(query, TaskQuery):
        _check_that_it_is_kept(state, query)
    return state


def _check_that_it_is_kept(state: State, query: TaskQuery) -> None:
    asked = query.revision if query.since is None else query.since
    if asked is None or query.since == 0:
        return
    if query.since is None and asked > state.user_revision:
        raise refuse_future("revision", state.user_revision)
    if not state.kept_from <= asked <= state.user_revision:
        raise HistoryGone(state.kept_from, state.user_revision)


def make_page(service: Service, scope: str, rows: Sequence[PageRow], query: Page) -> Listed:
    """Make the page that a listing's row holds. Raises what check_state raises."""
    state = check_state([row.state for row in rows], query)
    [row] = rows
    cursor = cursors.seal(service.settings.jwt_secrets[0], scope, row.last) if row.last else None
    json = row.json or b""
    return Listed(state, json[: -row.spare] if row.spare else json, cursor)


# The statements. Whose they are comes first; then as of when; then which part of the listing; then what the filters need.


def _conditions(source: Source, names: tuple[str, ...]) -> list[Expression]:
    every = filters.filters(source.task)
    return [*source.conditions, *(every[name].condition for name in names)]


def _all_of(name: SourceName) -> Source:
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
    return Source(Task, Task, fn.task_shown(Task), (Task.user == q.user_id, Task.deleted_at.is_null(name == "live")), {})


class _Past:
    """A task's columns as they were; what never changes comes from the table, so that a page in the order of ids looks at few tasks."""

    def __getattr__(self, column: str) -> Any:
        return getattr(Task, column) if column in ("id", "created_at", "created_revision") else SQL(f"past.{column}")


def one_of(name: SourceName) -> Source:
    if name == "past":
        return _made_by(fn.task_past(q.user_id, q.id, q.revision), {"revision": "bigint"})
    return Source(
        Task, Task, fn.task_shown(Task), (Task.user == UserState.user, Task.id == q.id, Task.deleted_at.is_null(name == "live")), {}
    )


def _made_by(function: Any, types: dict[str, str]) -> Source:
    made = Select([function], [SQL("*")]).alias("made")
    return Source(made, made.c, made.c.body, (), types)


STATE = (UserState.revision, UserState.kept_from, UserState.purged)


@lru_cache(500)
def _task_page(name: SourceName, asked: tuple[str, ...], sort: str, descending: bool, after: After, short: bool) -> Query[PageRow]:
    source = _all_of(name)
    order = Order(filters.keys(source.task)[sort], source.task.id, descending)
    types = source.types | pages.parameters(order, after) | {name: filters.FILTER_TYPES[name] for name in asked}
    return _page(source, _conditions(source, asked), order, after, short, types)


@cache
def _changed_page(short: bool) -> Query[PageRow]:
    source = _made_by(fn.tasks_since(q.user_id, q.since, SQL("q.most + 1")), {"most": "int", "since": "bigint"})
    return _page(source, [], Order(None, source.task.revision), "the start", short, source.types)


def _page(source: Source, conditions: list[Expression], order: Order, after: After, short: bool, types: dict[str, str]) -> Query[PageRow]:
    tasks = Select(source.table if isinstance(source.table, list) else [source.table], [source.shown.alias("body")])
    page = pages.page_of(tasks.where(*conditions) if conditions else tasks, order, after, short)
    return query_of_caller(PageRow, "task_page", with_page(UserState.revision, page).join(page, JOIN.CROSS), types, heavy=True)


def with_page(revision: Any, page: Select) -> ModelSelect:
    """Select what a listing's row holds, in the order of a PageRow: the state of what has this revision, then the page."""
    selected: ModelSelect = UserState.select(revision, *STATE, page.c.last, page.c.spare, page.c.json)
    return selected


@cache
def _matching_task(name: SourceName, asked: tuple[str, ...]) -> Query[TaskAsStored]:
    source = one_of(name)
    state = UserState.select(source.task.id, source.task.revision, source.shown.alias("body"), UserState.revision)
    types = {"id": "bigint"} | source.types | {name: filters.FILTER_TYPES[name] for name in asked}
    return query_of_caller(TaskAsStored, "task_find", with_task(state, source, _conditions(source, asked)), types)


def with_task(state: ModelSelect, source: Source, conditions: Iterable[Expression]) -> ModelSelect:
    """Join a state to a task, or to nothing."""
    return state.join(source.table, JOIN.LEFT_OUTER, on=reduce(and_, conditions, SQL("true"))).switch(UserState)


def query_of_caller(row: type[Row], name: str, state: ModelSelect, types: dict[str, str], *, heavy: bool = False) -> Query[Row]:
    """Declare the query that reads something beside the caller's state."""
    known = (UserState.user == q.user_id) & (UserState.token_generation == q.generation)
    return Query(row, state.where(known), CALLER_TYPES | types, read=True, name=name, heavy=heavy)


_ACCOUNT_STATE = query_of_caller(State, "account_state", UserState.select(UserState.revision, *STATE), {})
_REVISION_AT = query_of_caller(RevisionRow, "revision_at", UserState.select(fn.revision_at(UserState, q.at)), {"at": "timestamptz"})

"""Filters, orders and pages: a listing's parameters become one peewee query per combination, made once and kept."""

from functools import cache, lru_cache, reduce
from operator import and_
from typing import Any, Literal, NamedTuple

from peewee import JOIN, SQL, ColumnBase, EnclosedNodeList, Expression, ModelSelect, NodeList, Select, Tuple, Window, fn

import settings
from models import CALLER_TYPES, Caller, Task, TaskAsStored, TaskLog, UserState, found
from postgres.batching import Batched, q
from rest import cursors
from rest.errors import FieldError, InvalidInput, InvalidToken, NotFound
from scalars import STATUSES
from schemas import LOGGED_FIELDS, Page, TaskMatch, TaskQuery

After = Literal["the start", "a key", "a null key"]  # where a page begins; with no key but the tie it counts as null

BYTES_PER_PAGE = 4 * 1024 * 1024  # a page closes where its text would grow longer
SURELY_FIT = 32  # even of the longest log entries, with two descriptions of 10,000 characters, each written as six


class State(NamedTuple):
    """The revisions on which a listing depends."""

    revision: int  # of the thing listed: the user's for tasks, the task's for its log
    user_revision: int
    kept_from: int


class Listed(NamedTuple):
    """A page: the state of which it is, the JSON between its brackets, and where the next one begins if one follows."""

    state: State
    json: str
    cursor: str | None


class Filter(NamedTuple):
    """The SQL type of a filter's parameter, and what it asks of a task."""

    sql_type: str
    condition: Expression


class Key(NamedTuple):
    """What a listing is ordered by, before the tie is broken."""

    sql_type: str
    value: ColumnBase
    nullable: bool = False


class Order(NamedTuple):
    """A key (none: the tie alone), what breaks its ties, and which way round."""

    key: Key | None
    tie: ColumnBase
    descending: bool = False

    def terms(self) -> list[ColumnBase]:
        """Give the terms of ORDER BY."""
        nulls = "LAST" if self.key and self.key.nullable else None
        key = [self.key.value.desc(nulls=nulls) if self.descending else self.key.value.asc(nulls=nulls)] if self.key else []
        return [*key, self.tie.desc() if self.descending else self.tie.asc()]

    def after(self, key_is_null: bool) -> Expression:
        """Give the condition for what comes after the place (q.after_key, q.after_tie). Where the key is null comes last."""
        if self.key is None:
            return self._beyond(self.tie, q.after_tie)
        if key_is_null:
            return self.key.value.is_null() & self._beyond(self.tie, q.after_tie)
        beyond = self._beyond(Tuple(self.key.value, self.tie), Tuple(q.after_key, q.after_tie))
        return beyond | self.key.value.is_null() if self.key.nullable else beyond

    def _beyond(self, here: Any, place: Any) -> Expression:
        beyond: Expression = here < place if self.descending else here > place
        return beyond


def _position(values: tuple[str, ...], column: ColumnBase) -> ColumnBase:
    return fn.array_position(SQL("ARRAY[" + ", ".join(f"'{value}'" for value in values) + "]"), column)


KEYS = {
    "id": None,
    "name": Key("text", fn.replace(fn.lower(Task.name.collate("pg_c_utf8")), "ё", "е").collate('"C"')),
    "status": Key("int", _position(STATUSES, Task.status)),
    "completion_at": Key("date", Task.completion_at, nullable=True),
    "created_at": Key("timestamptz", Task.created_at),
    "updated_at": Key("timestamptz", Task.updated_at),
}

LOWER_WORDS = SQL("(ARRAY(SELECT lower(w COLLATE pg_c_utf8) FROM unnest(q.q) w))")
TEXT = fn.lower(Task.name.concat("\n").concat(Task.description).collate("pg_c_utf8"))
FILTERS = {  # one status and several differ, since the index then gives the order by id
    "status": Filter("text", Task.status == q.status),
    "statuses": Filter("text[]", Task.status == fn.ANY(q.statuses)),
    "completion_at": Filter("date", Task.completion_at == q.completion_at),
    "without_day": Filter("boolean", Task.completion_at.is_null()),
    "completion_from": Filter("date", Task.completion_at >= q.completion_from),
    "completion_to": Filter("date", Task.completion_at <= q.completion_to),
    "completed_from": Filter("timestamptz", Task.completed_at >= q.completed_from),
    "completed_to": Filter("timestamptz", Task.completed_at < q.completed_to),
    "q": Filter("text[]", Expression(TEXT, "LIKE ALL", LOWER_WORDS)),
}


async def list_tasks(caller: Caller, query: TaskQuery) -> Listed:
    """Give a page of the tasks that match. Raises InvalidInput where the cursor isn't one of this listing."""
    values = _filter_values(query)
    order = query.sort.removeprefix("-"), query.sort.startswith("-")
    scope = f"{caller.user_id} tasks {query.listing}"
    place = _place(scope, query)
    statement = _task_page(tuple(values), *order, _after(place), query.limit <= SURELY_FIT)
    return _listed(scope, await statement(*caller, *_page_values(query, place), *values.values()))


async def tasks_state(caller: Caller) -> State:
    """Give the state of which a page of tasks would be."""
    return _state(await _TASKS_STATE(*caller))


async def list_log(caller: Caller, task_id: int, page: Page) -> Listed:
    """Give a page of a task's history, oldest entry first. Raises NotFound, InvalidInput."""
    scope = f"{caller.user_id} log {task_id} {page.listing}"
    place = _place(scope, page)
    statement = _log_page(_after(place), page.limit <= SURELY_FIT)
    return _listed(scope, await statement(*caller, *_page_values(page, place), task_id))


async def log_state(caller: Caller, task_id: int) -> State:
    """Give the state of which a page of a task's history would be. Raises NotFound."""
    return _state(await _LOG_STATE(*caller, task_id))


async def find_task(caller: Caller, task_id: int, match: TaskMatch) -> TaskAsStored:
    """Give a task if it is as it must be. Raises NotFound."""
    values = _filter_values(match)
    return found(await _matching_task(tuple(values))(*caller, task_id, *values.values()))


@lru_cache(256)
def _filter_values(match: TaskMatch) -> dict[str, Any]:
    values = match.model_dump(include=set(FILTERS), exclude_none=True)
    if statuses := values.pop("status", ()):
        values |= {"status": statuses[0]} if len(statuses) == 1 else {"statuses": list(statuses)}
    if values.get("completion_at") == "none":
        values["without_day"] = values.pop("completion_at") == "none"
    if words := values.pop("q", ()):
        values["q"] = [f"%{word.translate(_LITERALLY)}%" for word in words]
    return values


_LITERALLY = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


def _place(scope: str, page: Page) -> list[Any] | None:
    if page.cursor is None:
        return None
    place = cursors.unseal(_cursor_key(), scope, page.cursor)
    if place is None:
        raise InvalidInput(FieldError("cursor", "is not one of this listing: take it from a page's Link, with all its parameters"))
    return place


def _after(place: list[Any] | None) -> After:
    if place is None:
        return "the start"
    return "a null key" if place[0] is None else "a key"


def _cursor_key() -> bytes:
    return settings.load().jwt_secret.get_secret_value().encode()


def _page_values(page: Page, place: list[Any] | None) -> list[Any]:
    return [page.limit, *(value for value in place or () if value is not None)]


def _state(rows: list[tuple[Any, ...]]) -> State:
    if not rows:
        raise InvalidToken()
    state = State(*rows[0][:3])
    if state.revision is None:
        raise NotFound(revision=state.user_revision)
    return state


def _listed(scope: str, rows: list[tuple[Any, ...]]) -> Listed:
    state = _state(rows)
    [(*_, json, last, more)] = rows
    return Listed(state, json or "", cursors.seal(_cursor_key(), scope, last) if more else None)


# The statements. Whose they are comes first; then which part of the listing; then what the filters need.


_TASKS_STATE_COLUMNS = (UserState.revision, UserState.revision, UserState.kept_from)
_LOG_STATE_COLUMNS = (Task.revision, UserState.revision, UserState.kept_from)


@lru_cache(500)
def _task_page(filters: tuple[str, ...], sort: str, descending: bool, after: After, short: bool) -> Batched:
    order = Order(KEYS[sort], Task.id, descending)
    tasks = Task.select(Task.body).where(Task.user == q.user_id, Task.deleted_at.is_null(), *(FILTERS[name].condition for name in filters))
    page = _page_of(tasks, order, after, short)
    state = UserState.select(*_TASKS_STATE_COLUMNS, page.c.json, page.c.last, page.c.more)
    return _batched(state.join(page, JOIN.CROSS), _page_types(order, after) | _filter_types(filters))


@cache
def _log_page(after: After, short: bool) -> Batched:
    order = Order(Key("bigint", TaskLog.revision), _position(LOGGED_FIELDS, TaskLog.field))
    entries = TaskLog.select(fn.log_json(TaskLog).alias("body")).where(TaskLog.user == q.user_id, TaskLog.task_id == q.id)
    page = _page_of(entries, order, after, short)
    state = UserState.select(*_LOG_STATE_COLUMNS, page.c.json, page.c.last, page.c.more)
    return _batched(_with_task(state).join(page, JOIN.CROSS), _page_types(order, after) | {"id": "bigint"})


@cache
def _matching_task(filters: tuple[str, ...]) -> Batched:
    state = UserState.select(Task.id, Task.revision, Task.body, UserState.revision)
    matching = _with_task(state, *(FILTERS[name].condition for name in filters))
    return _batched(matching, {"id": "bigint"} | _filter_types(filters))


def _with_task(state: ModelSelect, *conditions: Expression) -> ModelSelect:
    here = (Task.user == UserState.user) & (Task.id == q.id) & Task.deleted_at.is_null()
    return state.join(Task, JOIN.LEFT_OUTER, on=reduce(and_, conditions, here)).switch(UserState)


def _page_of(entries: ModelSelect, order: Order, after: After, short: bool) -> Select:
    """Give the page of `entries` (a `body` each) that begins after the place: its JSON, its last place, and whether more follow.

    A `short` page can't grow too long, and so needn't be measured.
    """
    if after != "the start":
        entries = entries.where(order.after(after == "a null key"))
    key = order.key.value if order.key else SQL("NULL")
    entries = entries.select_extend(key.alias("key"), order.tie.alias("tie")).order_by(*order.terms()).limit(SQL("q.most + 1"))
    entry, number = entries.alias("entry"), fn.row_number().over()
    fits = number <= q.most
    if not short:
        length = fn.sum(fn.octet_length(entry.c.body)).over(start=Window.preceding())
        fits = (number == 1) | (fits & (length <= BYTES_PER_PAGE))
    columns = [entry.c.body, entry.c.key, entry.c.tie, number.alias("number"), fits.alias("fits")]
    row = Select([entry], columns).alias("row")
    place = fn.json_build_array(row.c.key.cast("text"), row.c.tie.cast("text"))
    last: ColumnBase
    if short:
        last = fn.max(place.cast("text")).filter(row.c.number == q.most).cast("json")
    else:
        last = NodeList((EnclosedNodeList([fn.array_agg(place).filter(row.c.fits)]), SQL("[count(*) FILTER (WHERE fits)]")))
    json = fn.string_agg(row.c.body, ",").filter(row.c.fits)
    more = fn.coalesce(fn.bool_or(~row.c.fits), False)
    return Select([row], [json.alias("json"), last.alias("last"), more.alias("more")]).alias("page")


def _page_types(order: Order, after: After) -> dict[str, str]:
    key = {"after_key": order.key.sql_type} if order.key and after == "a key" else {}
    return {"most": "int"} | key | ({} if after == "the start" else {"after_tie": "bigint"})


def _filter_types(filters: tuple[str, ...]) -> dict[str, str]:
    return {name: FILTERS[name].sql_type for name in filters}


def _batched(state: ModelSelect, types: dict[str, str]) -> Batched:
    return Batched(state.where(UserState.user == q.user_id, UserState.token_generation == q.generation), CALLER_TYPES | types, read=True)


_TASKS_STATE = _batched(UserState.select(*_TASKS_STATE_COLUMNS), {})
_LOG_STATE = _batched(_with_task(UserState.select(*_LOG_STATE_COLUMNS)), {"id": "bigint"})

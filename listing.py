"""Filters, orders and pages: a listing's parameters become one peewee query per combination, made once and kept."""

from functools import cache
from typing import Any, NamedTuple

from peewee import JOIN, SQL, Expression, ModelSelect, Node, Select, Tuple, Window, fn

import settings
from models import CALLER, Caller, Task, TaskAsStored, TaskLog, UserState, found, get_task
from postgres.batching import Batched, q
from rest import cursors
from rest.errors import FieldError, InvalidInput, InvalidToken, NotFound
from schemas import LOGGED_FIELDS, STATUSES, Page, TaskMatch, TaskQuery

BYTES_PER_PAGE = 4 * 1024 * 1024  # a page closes where its text would grow longer


class Listed(NamedTuple):
    """A page: the JSON between its brackets, the revisions that it depends on, and where the next one begins if one follows."""

    json: str
    revision: int  # of the thing listed: the user's for tasks, the task's for its log
    user_revision: int
    kept_from: int
    cursor: str | None


class Key(NamedTuple):
    """What a listing is ordered by, before the tie is broken."""

    sql_type: str
    value: Node
    nullable: bool = False


class Order(NamedTuple):
    """A key, what breaks its ties, and which way round."""

    key: Key
    tie: Node
    descending: bool = False

    def terms(self) -> list[Node]:
        """Give the terms of ORDER BY."""
        if self.descending:
            return [self.key.value.desc(nulls="LAST" if self.key.nullable else None), self.tie.desc()]
        return [self.key.value.asc(nulls="LAST" if self.key.nullable else None), self.tie.asc()]

    def after(self, at_null: bool) -> Expression:
        """Give the condition for what comes after the place (q.after_key, q.after_tie). Where the key is null comes last."""
        if at_null:
            return self.key.value.is_null() & (self.tie < q.after_tie if self.descending else self.tie > q.after_tie)
        here, place = Tuple(self.key.value, self.tie), Tuple(q.after_key, q.after_tie)
        beyond = here < place if self.descending else here > place
        return beyond | self.key.value.is_null() if self.key.nullable else beyond


def _position(values: tuple[str, ...], column: Node) -> Node:
    return fn.array_position(SQL("ARRAY[" + ", ".join(f"'{value}'" for value in values) + "]"), column)


KEYS = {
    "id": Key("bigint", Task.id),
    "name": Key("text", fn.replace(fn.lower(Task.name.collate("pg_c_utf8")), "ё", "е").collate('"C"')),
    "status": Key("int", _position(STATUSES, Task.status)),
    "completion_at": Key("date", Task.completion_at, nullable=True),
    "created_at": Key("timestamptz", Task.created_at),
    "updated_at": Key("timestamptz", Task.updated_at),
}

WORDS = fn.lower(Task.name.concat("\n").concat(Task.description).collate("pg_c_utf8"))
FILTERS = {  # parameter -> its SQL type, and what it asks of a task
    "status": ("text[]", Task.status == fn.ANY(q.status)),
    "completion_at": ("date", Task.completion_at == q.completion_at),
    "without_day": ("boolean", Task.completion_at.is_null()),
    "completion_from": ("date", Task.completion_at >= q.completion_from),
    "completion_to": ("date", Task.completion_at <= q.completion_to),
    "completed_from": ("timestamptz", Task.completed_at >= q.completed_from),
    "completed_to": ("timestamptz", Task.completed_at < q.completed_to),
    "q": ("text[]", Expression(WORDS, "LIKE ALL", SQL("(ARRAY(SELECT lower(w COLLATE pg_c_utf8) FROM unnest(q.q) w))"))),
}


async def list_tasks(caller: Caller, query: TaskQuery) -> Listed:
    """Give a page of the tasks that match. Raises InvalidInput where the cursor isn't one of this listing."""
    values = _filter_values(query)
    order = query.sort.removeprefix("-"), query.sort.startswith("-")
    scope = f"{caller.user_id} tasks {query.model_dump_json(exclude={'cursor'})}"
    place = _place(scope, query)
    statement = _task_page(tuple(values), *order, place and place[0] is None)
    return _listed(scope, await statement(*caller, *_page_values(query, place), *values.values()))


async def list_log(caller: Caller, task_id: int, page: Page) -> Listed:
    """Give a page of a task's history, oldest entry first. Raises NotFound, InvalidInput."""
    scope = f"{caller.user_id} log {task_id} {page.limit}"
    place = _place(scope, page)
    statement = _log_page(place and place[0] is None)
    return _listed(scope, await statement(*caller, *_page_values(page, place), task_id))


async def find_task(caller: Caller, task_id: int, match: TaskMatch) -> TaskAsStored:
    """Give a task if it is as it must be. Raises NotFound."""
    values = _filter_values(match)
    if not values:
        return await get_task(caller, task_id)
    return found(await _matching_task(tuple(values))(*caller, task_id, *values.values()))


def _filter_values(match: TaskMatch) -> dict[str, Any]:
    values = match.model_dump(include=set(FILTERS), exclude_none=True)
    if values.get("completion_at") == "none":
        values["without_day"] = values.pop("completion_at") == "none"
    if words := values.pop("q", ()):
        values["q"] = [f"%{word.translate(_LITERALLY)}%" for word in words]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


_LITERALLY = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


def _place(scope: str, page: Page) -> list[Any] | None:
    if page.cursor is None:
        return None
    place = cursors.unseal(_cursor_key(), scope, page.cursor)
    if place is None:
        raise InvalidInput(FieldError("cursor", "is not one of this listing: take it from a page's Link, with all its parameters"))
    return place


def _cursor_key() -> bytes:
    return settings.load().jwt_secret.get_secret_value().encode()


def _page_values(page: Page, place: list[Any] | None) -> list[Any]:
    return [page.limit, *(value for value in place or () if value is not None)]


def _listed(scope: str, rows: list[tuple[Any, ...]]) -> Listed:
    if not rows:
        raise InvalidToken()
    [(revision, user_revision, kept_from, json, last, more)] = rows
    if revision is None:
        raise NotFound(revision=user_revision)
    return Listed(json or "", revision, user_revision, kept_from, cursors.seal(_cursor_key(), scope, last) if more else None)


# The statements. Whose they are comes first; then which part of the listing; then what the filters need.


@cache
def _task_page(filters: tuple[str, ...], sort: str, descending: bool, at_null: bool | None) -> Batched:
    order = Order(KEYS[sort], Task.id, descending)
    tasks = Task.select(fn.task_json(Task).alias("body"), order.key.value.cast("text").alias("key"), Task.id.cast("text").alias("tie")).where(
        Task.user == q.user_id, Task.deleted_at.is_null(), *(FILTERS[name][1] for name in filters)
    )
    page = _page_of(tasks, order, at_null)
    state = UserState.select(UserState.revision, UserState.revision, UserState.kept_from, page.c.json, page.c.last, page.c.more)
    return _batched(state.join(page, JOIN.CROSS), _page_types(order, at_null) | {name: FILTERS[name][0] for name in filters})


@cache
def _log_page(at_null: bool | None) -> Batched:
    order = Order(Key("bigint", TaskLog.revision), _position(LOGGED_FIELDS, TaskLog.field))
    entries = TaskLog.select(fn.log_json(TaskLog).alias("body"), TaskLog.revision.cast("text").alias("key"), order.tie.cast("text").alias("tie")).where(
        TaskLog.user == q.user_id, TaskLog.task_id == q.id
    )
    page = _page_of(entries, order, at_null)
    state = UserState.select(Task.revision, UserState.revision, UserState.kept_from, page.c.json, page.c.last, page.c.more)
    return _batched(_with_task(state).join(page, JOIN.CROSS), _page_types(order, at_null) | {"id": "bigint"})


@cache
def _matching_task(filters: tuple[str, ...]) -> Batched:
    state = UserState.select(Task.id, Task.revision, fn.task_json(Task), UserState.revision)
    return _batched(_with_task(state, *(FILTERS[name][1] for name in filters)), {"id": "bigint"} | {name: FILTERS[name][0] for name in filters})


def _with_task(state: ModelSelect, *conditions: Expression) -> ModelSelect:
    here = (Task.user == UserState.user) & (Task.id == q.id) & Task.deleted_at.is_null()
    for condition in conditions:
        here &= condition
    return state.join(Task, JOIN.LEFT_OUTER, on=here).switch(UserState)


def _page_of(entries: ModelSelect, order: Order, at_null: bool | None) -> Select:
    """Give the page of `entries` (body, key, tie) that begins after the place: its JSON, its last place, and whether more follow."""
    if at_null is not None:
        entries = entries.where(order.after(at_null))
    entry = entries.order_by(*order.terms()).limit(SQL("q.most + 1")).alias("entry")
    number = fn.row_number().over()
    length = fn.sum(fn.octet_length(entry.c.body)).over(start=Window.preceding())
    fits = (number == 1) | ((number <= q.most) & (length <= BYTES_PER_PAGE))
    row = Select([entry], [entry.c.body, fn.json_build_array(entry.c.key, entry.c.tie).alias("place"), fits.alias("fits")]).alias("row")
    json = fn.string_agg(row.c.body, ",").filter(row.c.fits)
    last = SQL("(array_agg(place) FILTER (WHERE fits))[count(*) FILTER (WHERE fits)]")
    return Select([row], [json.alias("json"), last.alias("last"), fn.coalesce(fn.bool_or(~row.c.fits), False).alias("more")]).alias("page")


def _page_types(order: Order, at_null: bool | None) -> dict[str, str]:
    key = {"after_key": order.key.sql_type} if at_null is False else {}
    return {"most": "int"} | key | ({"after_tie": "bigint"} if at_null is not None else {})


def _batched(state: ModelSelect, types: dict[str, str]) -> Batched:
    return Batched(state.where(UserState.user == q.user_id, UserState.token_generation == q.generation), CALLER | types, read=True)

"""Tasks on their way out: listings in other forms, and the whole account."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple

import orjson
from peewee import JOIN, SQL, Select, fn

from models import Caller, User, UserState
from postgres.queries import Query, Row, q
from rest.bodies import JSON
from rest.errors import Conflict, FieldError, InvalidInput, InvalidToken
from rest.long_work import LongWork
from service import Service
from tasks import queries
from tasks.errors import HistoryGone
from tasks.listing import Listed, TaskListing
from tasks.queries import State
from tasks.schemas import EXAMPLE_TASK, TaskQuery
from transfer import csv_format, ics_format, json_format, json_items


class Form(NamedTuple):
    """Another form of a listing than JSON: how it begins, what it says of a task, with its `uid`, and how it ends.

    A version in which it says the same otherwise gives it the next number for its `look`.
    """

    media_type: str
    look: int
    file_name: str
    head: bytes
    task: Callable[[dict[str, Any]], bytes]
    end: bytes


def _sheet(separator: str) -> Form:
    return Form("text/csv", 2, "tasks.csv", csv_format.head(separator), partial(csv_format.row, separator=separator), b"")


FORMS = {"csv": _sheet(","), "ics": Form("text/calendar", 1, "tasks.ics", ics_format.HEAD, ics_format.todo, ics_format.END)}
_BY_MEDIA_TYPE = {form.media_type: form for form in FORMS.values()}
_OFFERED = (JSON, *_BY_MEDIA_TYPE)


def form_of(query: TaskQuery, preferred: Callable[[tuple[str, ...]], str]) -> Form | None:
    """Return the form in which a listing is asked for, None for JSON: the query says it, or the preferred media type.

    Raises InvalidInput where there is a separator, and nothing to separate.
    """
    is_said = query.format or query.since is not None
    form = FORMS.get(query.format or "json") if is_said else _BY_MEDIA_TYPE.get(preferred(_OFFERED))
    if query.separator is None:
        return form
    if form is not FORMS["csv"]:
        raise InvalidInput(FieldError("separator", "not_together", "goes with CSV alone: add format=csv"))
    return _sheet(query.separator)


async def list_in_form(asked: TaskListing, form: Form, *, whole: bool) -> tuple[Listed, AsyncGenerator[bytes]]:
    """Return what is known of a listing's first page, and the body that has it in another form.

    The `whole` listing is as of that page's revision. While a client reads a part, nothing else is kept.
    """
    uid = await get_uid(asked.service, asked.caller)
    first = await _page_of(asked, asked.query, form, uid)
    return first._replace(json=b""), _write_form(asked, form, uid, [first], whole)


async def _write_form(asked: TaskListing, form: Form, uid: str, made: list[Listed], whole: bool) -> AsyncGenerator[bytes]:
    query, begun = asked.query, made[0].state
    yield form.head
    while made:
        cursor = made[0].cursor
        yield made.pop().json
        if not whole or cursor is None:
            break
        query = query.model_copy(update={"cursor": cursor})
        made.append(await _page_of(asked, query, form, uid))
        if query.revision is None and _has_moved_on(made[0].state, begun):
            if query.deleted:
                raise Conflict("What is in the trash has changed meanwhile.")
            query = query.model_copy(update={"revision": begun.user_revision})
            made.clear()
            made.append(await _page_of(asked, query, form, uid))
    yield form.end


async def _page_of(whole: TaskListing, query: TaskQuery, form: Form, uid: str) -> Listed:
    """Return a page in another form. One turn does for both, so that no pages wait to be converted."""
    asked = TaskListing(whole.service, whole.caller, query, part_of=whole.query, with_uid=True)
    database, owner = whole.service.database, whole.caller.user_id
    async with AsyncExitStack() as turns:
        if asked.is_slow:
            await turns.enter_async_context(database.slow_turns.of(owner))
        await turns.enter_async_context(database.heavy_turns.of(owner))
        page = await asked.page()
        return page._replace(json=await _convert(form, whole.service.long_work, page.json, uid))


def _has_moved_on(state: State, begun: State) -> bool:
    return (state.user_revision, state.purged) != (begun.user_revision, begun.purged)


async def _convert(form: Form, long_work: LongWork, json: bytes, uid: str) -> bytes:
    """Say in a form what JSON says of some tasks."""
    written: list[bytes] = []
    await long_work.each(json_items.listed(json), lambda task: written.append(_write(form, task, uid)))
    return b"".join(written)


def _write(form: Form, json: bytes, uid: str) -> bytes:
    task = orjson.loads(json)
    return form.task({"uid": f"{task['id']}-{uid}"} | task)


class Account(NamedTuple):
    """What an account counts, as JSON too."""

    revision: int
    purged: int
    json: str


class _TasksPart(NamedTuple):
    purged: int
    kept_from: int
    revision: int
    json: bytes | None
    last_id: int | None

    @property
    def last(self) -> Sequence[object]:
        """After what the next part begins."""
        return (self.last_id,)


class _LogPart(NamedTuple):
    purged: int
    kept_from: int
    revision: int
    json: bytes | None
    last_revision: int | None
    last_field: bytes | None

    @property
    def last(self) -> Sequence[object]:
        """After what the next part begins."""
        return self.last_revision, self.last_field and self.last_field.decode()


class _Uid(NamedTuple):
    uid: str


async def get_account(service: Service, caller: Caller) -> Account:
    """Return what the caller's account counts. Raises InvalidToken."""
    for account in await service.database.ask(_ACCOUNT, *caller):
        return account
    raise InvalidToken()


async def export(service: Service, caller: Caller, account: Account) -> AsyncGenerator[bytes]:
    """Yield the whole account as of then, every task and every log entry.

    No transaction is held open meanwhile. Raises InvalidToken, HistoryGone in the middle of it, if the account is closed or a task purged.
    """
    yield json_format.HEAD.format(account=account.json).encode()
    async for part in _parts(service, _EXPORTED_TASKS, caller, account, 0):
        yield part
    yield json_format.BETWEEN.encode()
    async for part in _parts(service, _EXPORTED_LOG, caller, account, 0, ""):
        yield part
    yield json_format.END.encode()


async def _parts(service: Service, query: Query[Any], caller: Caller, account: Account, *start: object) -> AsyncGenerator[bytes]:
    after: Sequence[object] = start
    separator = b""
    while rows := await service.database.ask(query, *caller, account.revision, *after):
        if rows[0].purged != account.purged:
            raise HistoryGone(rows[0].kept_from, rows[0].revision)
        if rows[0].json is None:
            return
        after = rows[0].last
        yield separator + rows.pop().json  # and nothing of it is kept
        separator = b",\n"
    raise InvalidToken()


async def get_uid(service: Service, caller: Caller) -> str:
    """Return what stands in the UIDs of an account's tasks and of no other's. Raises InvalidToken."""
    for row in await service.database.ask(_ACCOUNT_UID, *caller):
        return row.uid
    raise InvalidToken()


EXAMPLES = {
    form.media_type: (form.head + _write(form, EXAMPLE_TASK.encode(), "6fa459ea-ee8a-4ca4-894e-db77e160355e") + form.end).decode(
        "utf-8-sig"
    )
    for form in FORMS.values()
}


_ACCOUNT = queries.query_of_caller(
    Account, "account_export", UserState.select(UserState.revision, UserState.purged, fn.account_json(UserState)), {}
)


def _part(row: type[Row], function: Any, types: dict[str, str]) -> Query[Row]:
    part = Select([function], [SQL("*")]).alias("part")
    state = UserState.select(UserState.purged, UserState.kept_from, UserState.revision, SQL("part.*")).join(part, JOIN.CROSS)
    return queries.query_of_caller(row, function.name, state, {"as_of": "bigint"} | types, heavy=True, alone=True)


_EXPORTED_TASKS = _part(_TasksPart, fn.export_tasks(q.user_id, q.as_of, q.after), {"after": "bigint"})
_EXPORTED_LOG = _part(
    _LogPart, fn.export_log(q.user_id, q.as_of, q.after_revision, q.after_field), {"after_revision": "bigint", "after_field": "text"}
)
_ACCOUNT_UID = queries.query_of_caller(_Uid, "account_uid", UserState.select(User.uid).join(User), {})

"""Tasks on their way out: listings in other forms, and the whole account."""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import orjson
from peewee import JOIN, SQL, Select, fn

from models import Caller, User, UserState
from postgres.queries import Query, Row, q
from rest.bodies import JSON
from rest.errors import Conflict, FieldError, InvalidInput, InvalidToken
from rest.turns import Turns
from service import Service
from tasks import queries
from tasks.errors import HistoryGone
from tasks.listing import Listed, TaskListing
from tasks.queries import State
from tasks.schemas import EXAMPLE_TASK, TaskQuery
from transfer import csv_format, ics_format, json_format, json_items


class Form(NamedTuple):
    """Another form of a listing than JSON: how it begins, what it says of some tasks, each with its `uid`, and how it ends.

    A version in which it says the same otherwise gives it the next number for its `look`.
    """

    media_type: str
    look: int
    file_name: str
    head: bytes
    tasks: Callable[[Iterable[dict[str, Any]]], bytes]
    end: bytes


def _sheet(separator: str) -> Form:
    return Form("text/csv", 2, "tasks.csv", csv_format.head(separator), partial(csv_format.rows, separator=separator), b"")


FORMS = {"csv": _sheet(","), "ics": Form("text/calendar", 1, "tasks.ics", ics_format.HEAD, ics_format.todos, ics_format.END)}
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

    The `whole` listing is as of that page's revision. Of the JSON, which may be some MiB, nothing is kept while a client reads.
    """
    uid = await get_uid(asked.service, asked.caller)
    first = await _page_of(asked, asked.query)
    return _empty(first), _write_form(asked, form, uid, first, whole)


def _empty(page: Listed) -> Listed:
    return page._replace(json=b"")


async def _write_form(asked: TaskListing, form: Form, uid: str, page: Listed, whole: bool) -> AsyncGenerator[bytes]:
    query, begun = asked.query, page.state
    yield form.head
    while True:
        writing = _write(asked.service.turns, form, page.json, uid)
        page = _empty(page)
        yield await writing
        if not whole or page.cursor is None:
            break
        query = query.model_copy(update={"cursor": page.cursor})
        page = await _page_of(asked, query)
        if query.revision is None and _has_moved_on(page.state, begun):
            if query.deleted:
                raise Conflict("What is in the trash has changed meanwhile.")
            query = query.model_copy(update={"revision": begun.user_revision})
            page = await _page_of(asked, query)
    yield form.end


async def _page_of(whole: TaskListing, query: TaskQuery) -> Listed:
    return await TaskListing(whole.service, whole.caller, query, part_of=whole.query, with_uid=True).page()


def _has_moved_on(state: State, begun: State) -> bool:
    return (state.user_revision, state.purged) != (begun.user_revision, begun.purged)


async def _write(turns: Turns, form: Form, json: bytes, uid: str) -> bytes:
    written: list[bytes] = []
    await turns.each(json_items.listed(json), lambda task: written.append(_written(form, task, uid)))
    return b"".join(written)


def _written(form: Form, json: bytes, uid: str) -> bytes:
    task = orjson.loads(json)
    return form.tasks([{"uid": f"{task['id']}-{uid}"} | task])


class Account(NamedTuple):
    """What an account counts, as JSON too."""

    revision: int
    purged: int
    json: str


class _TasksPart(NamedTuple):
    purged: int
    kept_from: int
    revision: int
    lines: str | None
    last_id: int | None

    @property
    def last(self) -> Sequence[object]:
        """After what the next part begins."""
        return (self.last_id,)


class _LogPart(NamedTuple):
    purged: int
    kept_from: int
    revision: int
    lines: str | None
    last_revision: int | None
    last_field: str | None

    @property
    def last(self) -> Sequence[object]:
        """After what the next part begins."""
        return self.last_revision, self.last_field


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
    separator = ""
    while rows := await service.database.ask(query, *caller, account.revision, *after):
        [part] = rows
        if part.purged != account.purged:
            raise HistoryGone(part.kept_from, part.revision)
        if part.lines is None:
            return
        yield (separator + part.lines).encode()
        after = part.last
        separator = ",\n"
    raise InvalidToken()


async def get_uid(service: Service, caller: Caller) -> str:
    """Return what stands in the UIDs of an account's tasks and of no other's. Raises InvalidToken."""
    for row in await service.database.ask(_ACCOUNT_UID, *caller):
        return row.uid
    raise InvalidToken()


EXAMPLES = {
    form.media_type: (form.head + _written(form, EXAMPLE_TASK.encode(), "6fa459ea-ee8a-4ca4-894e-db77e160355e") + form.end).decode(
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
    return queries.query_of_caller(row, function.name, state, {"as_of": "bigint"} | types)


_EXPORTED_TASKS = _part(_TasksPart, fn.export_tasks(q.user_id, q.as_of, q.after), {"after": "bigint"})
_EXPORTED_LOG = _part(
    _LogPart, fn.export_log(q.user_id, q.as_of, q.after_revision, q.after_field), {"after_revision": "bigint", "after_field": "text"}
)
_ACCOUNT_UID = queries.query_of_caller(_Uid, "account_uid", UserState.select(User.uid).join(User), {})

"""Tasks on their way out: listings in other forms, and the whole account."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import orjson
from peewee import JOIN, SQL, Select, fn

from models import Caller, User, UserState
from postgres.batching import Batched, q
from rest.bodies import JSON
from rest.errors import Conflict, InvalidToken
from tasks import listing
from tasks.errors import HistoryGone
from tasks.listing import Listed, State
from tasks.schemas import EXAMPLE_TASK, TaskQuery
from transfer import csv_format, ics_format, json_format


class Form(NamedTuple):
    """Another form of a listing than JSON: how it begins, what it says of some tasks, each with its `uid`, and how it ends."""

    media_type: str
    head: bytes
    tasks: Callable[[Iterable[dict[str, Any]]], bytes]
    end: bytes


FORMS = {
    "csv": Form("text/csv", csv_format.head(), csv_format.rows, b""),
    "ics": Form("text/calendar", ics_format.HEAD, ics_format.todos, ics_format.END),
}
_BY_MEDIA_TYPE = {form.media_type: form for form in FORMS.values()}
_OFFERED = (JSON, *_BY_MEDIA_TYPE)


def form_of(query: TaskQuery, preferred: Callable[[tuple[str, ...]], str]) -> Form | None:
    """Give the form in which a listing is asked for, and None for JSON: the query says it, or else of the media types that is preferred."""
    if query.format or query.since is not None:
        return FORMS.get(query.format or "json")
    return _BY_MEDIA_TYPE.get(preferred(_OFFERED))


async def list_in_form(caller: Caller, query: TaskQuery, form: Form, *, whole: bool) -> tuple[Listed, AsyncGenerator[bytes]]:
    """Give what is known of a listing's first page, and the body that has it in another form.

    The `whole` listing is as of that page's revision. Of the JSON, which may be some MiB, nothing is kept while a client reads.
    """
    uid = await account_uid(caller)
    first = await listing.list_tasks(caller, query)
    return _emptied(first), _in_form(caller, query, form, uid, first, whole)


def _emptied(page: Listed) -> Listed:
    return page._replace(json=b"")


async def _in_form(caller: Caller, query: TaskQuery, form: Form, uid: str, page: Listed, whole: bool) -> AsyncGenerator[bytes]:
    asked, begun = query, page.state
    yield form.head
    while True:
        writing = asyncio.to_thread(_written, form, page.json, uid)  # a page takes up to 0.2 s
        page = _emptied(page)
        yield await writing
        if not whole or page.cursor is None:
            break
        asked = asked.model_copy(update={"cursor": page.cursor})
        page = await listing.list_tasks(caller, asked, query)
        if asked.revision is None and _moved_on(page.state, begun):
            if asked.deleted:
                raise Conflict("What is in the trash has changed meanwhile.")
            asked = asked.model_copy(update={"revision": begun.user_revision})
            page = await listing.list_tasks(caller, asked, query)
    yield form.end


def _moved_on(state: State, begun: State) -> bool:
    return (state.user_revision, state.purged) != (begun.user_revision, begun.purged)


def _written(form: Form, json: bytes, uid: str) -> bytes:
    return form.tasks(task | {"uid": f"{task['id']}-{uid}"} for task in orjson.loads(b"[%b]" % json))


class Account(NamedTuple):
    """What an account counts, as JSON too."""

    revision: int
    purged: int
    json: str


async def account_of(caller: Caller) -> Account:
    """Give what the caller's account counts. Raises InvalidToken."""
    for row in await _ACCOUNT(*caller):
        return Account(*row)
    raise InvalidToken()


async def export(caller: Caller, account: Account) -> AsyncGenerator[bytes]:
    """Give the whole account as of then, every task and every log entry.

    No transaction is held open meanwhile. Raises InvalidToken, HistoryGone in the middle of it, if the account is closed or a task purged.
    """
    yield json_format.HEAD.format(account=account.json).encode()
    async for part in _parts(_EXPORTED_TASKS, caller, account, 0):
        yield part
    yield json_format.BETWEEN.encode()
    async for part in _parts(_EXPORTED_LOG, caller, account, 0, ""):
        yield part
    yield json_format.END.encode()


async def _parts(statement: Batched, caller: Caller, account: Account, *start: object) -> AsyncGenerator[bytes]:
    after: Sequence[object] = start
    separator = ""
    while rows := await statement(*caller, account.revision, *after):
        [(purged, kept_from, revision, lines, *after)] = rows
        if purged != account.purged:
            raise HistoryGone(kept_from, revision)
        if lines is None:
            return
        yield (separator + lines).encode()
        separator = ",\n"
    raise InvalidToken()


async def account_uid(caller: Caller) -> str:
    """Give what stands in the UIDs of an account's tasks and of no other's. Raises InvalidToken."""
    for (uid,) in await _ACCOUNT_UID(*caller):
        return str(uid)
    raise InvalidToken()


EXAMPLES = {
    form.media_type: (form.head + _written(form, EXAMPLE_TASK.encode(), "6fa459ea-ee8a-4ca4-894e-db77e160355e") + form.end).decode(
        "utf-8-sig"
    )
    for form in FORMS.values()
}
_ACCOUNT = listing.of_caller("account_export", UserState.select(UserState.revision, UserState.purged, fn.account_json(UserState)), {})


def _part(function: Any, types: dict[str, str]) -> Batched:
    part = Select([function], [SQL("*")]).alias("part")
    state = UserState.select(UserState.purged, UserState.kept_from, UserState.revision, SQL("part.*")).join(part, JOIN.CROSS)
    return listing.of_caller(function.name, state, {"as_of": "bigint"} | types)


_EXPORTED_TASKS = _part(fn.export_tasks(q.user_id, q.as_of, q.after), {"after": "bigint"})
_EXPORTED_LOG = _part(
    fn.export_log(q.user_id, q.as_of, q.after_revision, q.after_field), {"after_revision": "bigint", "after_field": "text"}
)
_ACCOUNT_UID = listing.of_caller("account_uid", UserState.select(User.uid).join(User), {})

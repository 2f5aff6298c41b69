"""Files on their way in: read line by line, put aside, checked as a whole and then done, all of it or nothing."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import orjson
from aiohttp import web
from pydantic import MISSING, Field

from models import Caller
from rest.bodies import JSON, Fields
from rest.errors import Conflict, FieldError, InvalidInput, InvalidToken, RequestTimeout, TooManyRequests, Unavailable
from rest.idempotency import KeyReused
from rest.operation import validate
from rest.values import MAX_ID, Moment, Strict
from service import Service
from tasks.errors import AccountFull, at_revision
from tasks.schemas import TaskChange, TaskNew
from tasks.values import Name, Uid
from transfer import csv_format, exports, ics_file
from transfer.aside import NOTHING_DONE, Aside
from transfer.entries import Entry, Line, Skipped, about, at_line, read_lines
from transfer.json_format import AccountItems, Row
from transfer.json_items import read_items

SECONDS_TO_DO_IT = 600  # once all lines have come: a million of them take half a minute
MAX_IMPORTS_PER_USER = 2  # at a time, in a worker: each may take its time, and put IMPORT_MAX_BYTES aside
MAX_IMPORTS_AT_ONCE = 2  # of a worker: each takes one of its connections while it is done


class AccountInUse(Conflict):
    """An export goes into an account that never had a task; this one has, or had."""

    kind = "account-in-use"
    is_explained = True
    detail = "An export can only be imported into an account that never had a task: make a new one."


class TooManyImports(TooManyRequests):
    """As many files of a user's are on their way in as may be."""

    kind = "too-many-imports"
    detail = f"You have {MAX_IMPORTS_PER_USER} imports under way, which is the most: send this one when one of them has ended."

    def __init__(self) -> None:
        super().__init__(retry_after_seconds=15)


class ImportOutcome(NamedTuple):
    """What an import did, as JSON, and the user's revision after it."""

    json: str
    user_revision: int


class Imports:
    """The imports of an application that are under way."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(MAX_IMPORTS_AT_ONCE)  # to do what has come, which takes a connection for long
        self._by_caller: Counter[Caller] = Counter()

    @contextmanager
    def count(self, caller: Caller) -> Iterator[None]:
        """Count one of a user's, by generation: a token of the past takes no place. Raises TooManyImports."""
        if self._by_caller[caller] >= MAX_IMPORTS_PER_USER:
            raise TooManyImports()
        self._by_caller[caller] += 1
        try:
            yield
        finally:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]


IMPORTS = web.AppKey("imports", Imports)


async def importing(app: web.Application) -> AsyncIterator[None]:
    """Hold what counts imports while the application runs."""
    app[IMPORTS] = Imports()
    yield


async def import_file(
    service: Service, imports: Imports, caller: Caller, media_type: str, pieces: AsyncIterator[bytes], key: str | None, *, skip: bool
) -> ImportOutcome:
    """Do what the file says that comes in pieces; under a key, once. Where it is to `skip`, without what can't be taken.

    Raises InvalidInput that names lines, AccountFull, AccountInUse, KeyReused, TooManyImports, and what `pieces` raises.
    """
    with imports.count(caller):
        aside = Aside(service, caller, skip=skip)
        try:
            if media_type == JSON:
                await _check_that_it_is_new(service, caller, key)
                await aside.put(AccountItems(), read_items(pieces))
            else:
                await aside.put(await _make_changes(service, caller, media_type), read_lines(pieces))
            async with imports.turns, service.database.locked(caller.user_id):
                if media_type == JSON:
                    return await _do(service, aside, _IMPORT_ACCOUNT, key)
                return await _do(service, aside, _IMPORT_TASKS, key, skip, orjson.dumps(aside.skipped).decode(), aside.skipped_count)
        finally:
            with suppress(Unavailable):  # housekeeping takes away what is left
                await aside.drop()


async def _check_that_it_is_new(service: Service, caller: Caller, key: str | None) -> None:
    account = await exports.get_account(service, caller)
    if account.revision and key is None:  # with a key, this may have been answered already
        raise AccountInUse(headers=at_revision(account.revision))


async def _make_changes(service: Service, caller: Caller, media_type: str) -> "_Changes":
    entries = csv_format.Rows() if media_type == exports.FORMS["csv"].media_type else ics_file.Todos()
    return _Changes(entries, await exports.get_uid(service, caller))


class _OfFile(Strict):
    """What files say of a task, and requests don't: its UID, what it is called if it is new and has no name, and when it was completed."""

    uid: Uid | MISSING = Field(MISSING, exclude=True)
    title: Name | MISSING = Field(MISSING, exclude=True)
    completed_at: Moment | MISSING = MISSING


class _New(_OfFile, TaskNew):
    """A task that a file has and no UID names."""


class _Change(_OfFile, TaskChange):
    """What a file says of the task of a UID, be it there already or not."""


class _Changes:
    """Makes rows of what a sheet or a calendar says of tasks."""

    def __init__(self, entries: csv_format.Rows | ics_file.Todos, uid: str) -> None:
        self._entries = entries
        self._ours = re.compile(rf"([1-9][0-9]{{0,18}})-{uid}")

    def feed(self, line: Line) -> Iterator[Row | Skipped]:
        """Return the row that this line completes, if it does, and what is passed over."""
        return map(self._row, self._entries.feed(line))

    def end(self) -> Iterator[Row | Skipped]:
        """Return the row that the end of the file completes, if it does, and what is passed over."""
        return map(self._row, self._entries.end())

    def _row(self, entry: Entry | Skipped) -> Row | Skipped:
        if isinstance(entry, Skipped):
            return entry
        fields = entry.fields
        uid = fields.get("uid") or None
        if uid is None and "title" in fields:
            fields = {"name": fields["title"]} | fields
        if entry.faults:
            return Row(entry.line, "change", "", list(entry.faults), json.dumps(fields))
        sent = [(name, value) for name, value in fields.items() if name in TaskNew.model_fields or (name in _OfFile.model_fields and value)]
        try:
            change = validate(_Change if uid else _New, Fields(sent))
        except InvalidInput as refusal:
            return Row(entry.line, "change", "", [_placed(entry, fault) for fault in refusal.errors], json.dumps(fields))
        ours = self._ours.fullmatch(uid or "")
        task_id = int(ours[1]) if ours and int(ours[1]) <= MAX_ID else None
        title = None if change.title is MISSING else change.title
        named = {"uid": uid, "title": title}
        known = {"task_id": task_id, "alike": fields.get("alike")}
        whole = named | known | {"change": orjson.Fragment(change.model_dump_json())}
        said = (named if uid and task_id is None else {}) | known | {"change": orjson.Fragment(change.said)}
        return Row(entry.line, "change", orjson.dumps(whole).decode(), said=orjson.dumps(said).decode())


def _placed(entry: Entry, fault: FieldError) -> FieldError:
    line, name = entry.places.get(fault["field"], (entry.line, fault["field"]))
    return about(line, name, fault)


async def _do(service: Service, aside: Aside, statement: str, key: str | None, *skipped: object) -> ImportOutcome:
    most = service.settings.max_tasks, service.settings.max_log_entries
    values = *aside.caller, aside.import_id, aside.parts, key, aside.digest, *most, *skipped
    [(refused, answer, user_revision, faults)] = await service.database.run_long(statement, values, SECONDS_TO_DO_IT)
    match refused:
        case "unauthorized":
            raise InvalidToken()
        case "key_reused":
            raise KeyReused(headers=at_revision(user_revision))
        case "in_use":
            raise AccountInUse(headers=at_revision(user_revision))
        case "too_many_tasks" | "too_many_entries":
            raise AccountFull(refused, user_revision)
        case "swept":
            raise RequestTimeout("The file took longer than an hour to come: send it again.")
    if faults:
        raise InvalidInput(*(at_line(**fault) for fault in faults), detail=NOTHING_DONE, headers=at_revision(user_revision))
    return ImportOutcome(answer, user_revision)


_IMPORT_ACCOUNT = "SELECT * FROM import_account(%s, %s, %s::uuid, %s, %s, %s, %s, %s)"
_IMPORT_TASKS = "SELECT * FROM import_tasks(%s, %s, %s::uuid, %s, %s, %s, %s, %s, %s, %s::jsonb, %s)"

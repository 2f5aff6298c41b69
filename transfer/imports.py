"""Files on their way in: read line by line, put aside, checked as a whole and then done, all of it or nothing."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import NamedTuple, Protocol, TypeVar
from uuid import uuid4

import orjson
from aiohttp import web
from peewee import fn
from pydantic import MISSING, Field

from models import CALLER_TYPES, Caller
from postgres.queries import Query, q
from rest.bodies import JSON, Fields
from rest.errors import Conflict, FieldError, InvalidInput, InvalidToken, RequestTimeout, TooManyRequests, Unavailable
from rest.idempotency import KeyReused, digest
from rest.operation import validate
from rest.values import MAX_ID, Moment, Strict
from service import Service
from tasks.errors import at_revision
from tasks.schemas import TaskChange, TaskNew
from tasks.values import Uid
from transfer import csv_format, exports, ics_format
from transfer.entries import Entry, Line, at_line, read_lines
from transfer.json_format import AccountItems, Row
from transfer.json_items import read_items

Part_contra = TypeVar("Part_contra", contravariant=True)
Part = TypeVar("Part")  # of a file: a Line or an Item
BYTES_PER_PART = 64 * 1024  # of what is put aside at once
NOTHING_DONE = "Some lines can't be taken, so nothing was imported."
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


class Reader(Protocol[Part_contra]):
    """Makes rows of a file's lines, or items. Both methods raise InvalidInput where what follows can't be understood."""

    def feed(self, part: Part_contra, /) -> Iterator[Row]:
        """Return the row that this part completes, if it does."""

    def end(self) -> Iterator[Row]:
        """Return the row that the end of the file completes, if it does."""


class Imports:
    """The imports of an application that are under way."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(MAX_IMPORTS_AT_ONCE)  # to do what has come, which takes a connection for long
        self._by_user: Counter[int] = Counter()

    @contextmanager
    def count(self, user_id: int) -> Iterator[None]:
        """Count one of a user's. Raises TooManyImports."""
        if self._by_user[user_id] >= MAX_IMPORTS_PER_USER:
            raise TooManyImports()
        self._by_user[user_id] += 1
        try:
            yield
        finally:
            self._by_user[user_id] -= 1
            if not self._by_user[user_id]:
                del self._by_user[user_id]


IMPORTS = web.AppKey("imports", Imports)


async def importing(app: web.Application) -> AsyncIterator[None]:
    """Hold what counts imports while the application runs."""
    app[IMPORTS] = Imports()
    yield


async def import_file(
    service: Service, imports: Imports, caller: Caller, media_type: str, pieces: AsyncIterator[bytes], key: str | None
) -> ImportOutcome:
    """Do what the file says that comes in pieces; under a key, once.

    Raises InvalidInput that names lines, AccountInUse, KeyReused, TooManyImports, and what `pieces` raises.
    """
    with imports.count(caller.user_id):
        aside = _Aside(service, caller)
        try:
            if media_type == JSON:
                await _check_that_it_is_new(service, caller, key)
                await aside.put(AccountItems(), read_items(pieces))
            else:
                await aside.put(await _make_changes(service, caller, media_type), read_lines(pieces))
            async with imports.turns:
                return await _do(service, aside, _IMPORT_ACCOUNT if media_type == JSON else _IMPORT_TASKS, key)
        finally:
            with suppress(Unavailable):  # housekeeping takes away what is left
                await service.database.ask(_DROP, caller.user_id, aside.import_id)


async def _check_that_it_is_new(service: Service, caller: Caller, key: str | None) -> None:
    account = await exports.get_account(service, caller)
    if account.revision and key is None:  # with a key, this may have been answered already
        raise AccountInUse(headers=at_revision(account.revision))


async def _make_changes(service: Service, caller: Caller, media_type: str) -> "_Changes":
    entries = csv_format.Rows() if media_type == exports.FORMS["csv"].media_type else ics_format.Todos()
    return _Changes(entries, await exports.get_uid(service, caller))


class _New(TaskNew):
    """A task that a file has and no UID names."""

    completed_at: Moment | MISSING = MISSING


class _Change(TaskChange):
    """What a file says of the task of a UID, be it there already or not."""

    uid: Uid = Field(exclude=True)
    completed_at: Moment | MISSING = MISSING


class _Changes:
    """Makes rows of what a sheet or a calendar says of tasks."""

    def __init__(self, entries: csv_format.Rows | ics_format.Todos, uid: str) -> None:
        self._entries = entries
        self._ours = re.compile(rf"([1-9][0-9]{{0,18}})-{uid}")

    def feed(self, line: Line) -> Iterator[Row]:
        """Return the row that this line completes, if it does."""
        return map(self._row, self._entries.feed(line))

    def end(self) -> Iterator[Row]:
        """Return the row that the end of the file completes, if it does."""
        return map(self._row, self._entries.end())

    def _row(self, entry: Entry) -> Row:
        if entry.faults:
            return Row(entry.line, "change", "", list(entry.faults))
        sent = [
            (name, value)
            for name, value in entry.fields.items()
            if name in TaskNew.model_fields or (name in ("uid", "completed_at") and value)
        ]
        uid = entry.fields.get("uid") or None
        ours = uid and self._ours.fullmatch(uid)
        task_id = int(ours[1]) if ours and int(ours[1]) <= MAX_ID else None
        model: type[Strict] = _Change if uid else _New
        try:
            change = validate(model, Fields(sent))
        except InvalidInput as refusal:
            return Row(entry.line, "change", "", [_placed(entry, fault) for fault in refusal.errors])
        values = {"uid": uid, "task_id": task_id, "alike": entry.fields.get("alike")}
        whole, said = (values | {"change": orjson.Fragment(json)} for json in (change.model_dump_json(), change.said))
        return Row(entry.line, "change", orjson.dumps(whole).decode(), said=orjson.dumps(said).decode())


def _placed(entry: Entry, fault: FieldError) -> FieldError:
    line, name = entry.places.get(fault["field"], (entry.line, fault["field"]))
    return at_line(line, f"{name} {fault['message']}")


class _Aside:
    """What has come of a file, put aside part by part."""

    def __init__(self, service: Service, caller: Caller) -> None:
        self._database = service.database
        self.caller, self.import_id = caller, str(uuid4())
        self.parts = 0
        self._digests: dict[str, hashlib._Hash] = {}  # by kind, of the values, however they were written and whichever came first
        self._rows: list[Row] = []
        self._bytes = 0
        self._faults: list[FieldError] = []

    @property
    def digest(self) -> str:
        """What two files have in common that say the same."""
        return digest("POST /import", "\n".join(f"{kind} {known.hexdigest()}" for kind, known in sorted(self._digests.items())))

    async def put(self, reader: Reader[Part], parts: AsyncIterator[list[Part]]) -> None:
        """Put all of a file aside. Raises InvalidInput for the lines that are at fault, InvalidToken."""
        try:
            async for some in parts:
                for part in some:
                    self._take(reader.feed(part))
                if self._bytes > BYTES_PER_PART:
                    await self._flush()
            self._take(reader.end())
        except InvalidInput as refusal:
            faults = [*self._faults, *refusal.errors]
            raise InvalidInput(*faults, detail=NOTHING_DONE if faults else refusal.detail) from None
        if self._faults:
            raise InvalidInput(*self._faults, detail=NOTHING_DONE)
        await self._flush()

    def _take(self, rows: Iterator[Row]) -> None:
        for row in rows:
            self._faults += row.faults
            if len(self._faults) >= InvalidInput.most:
                raise InvalidInput()  # nobody reads more
            if not self._faults:
                self._rows.append(row)
                self._bytes += len(row.json)
                self._digests.setdefault(row.kind, hashlib.sha256()).update(f"{row.said or row.json}\n".encode())

    async def _flush(self) -> None:
        rows, self._rows, self._bytes = self._rows, [], 0
        for kind, some in groupby(rows, key=lambda row: row.kind):
            part = list(some)
            content = ",".join(f'{{"line":{row.line},{row.json[1:]}' for row in part)
            [row] = await self._database.ask(_KEEP, *self.caller, self.import_id, self.parts + 1, kind, f"[{content}]")
            if not row.is_kept:
                raise InvalidToken()
            self.parts += 1


async def _do(service: Service, aside: _Aside, statement: str, key: str | None) -> ImportOutcome:
    values = *aside.caller, aside.import_id, aside.parts, key, aside.digest
    [(refused, answer, user_revision, faults)] = await service.database.run_long(statement, values, SECONDS_TO_DO_IT)
    match refused:
        case "unauthorized":
            raise InvalidToken()
        case "key_reused":
            raise KeyReused(headers=at_revision(user_revision))
        case "in_use":
            raise AccountInUse(headers=at_revision(user_revision))
        case "swept":
            raise RequestTimeout("The file took longer than an hour to come: send it again.")
    if faults:
        raise InvalidInput(
            *(at_line(fault["line"], fault["message"]) for fault in faults), detail=NOTHING_DONE, headers=at_revision(user_revision)
        )
    return ImportOutcome(answer, user_revision)


_IMPORT_ACCOUNT = "SELECT * FROM import_account(%s, %s, %s::uuid, %s, %s, %s)"
_IMPORT_TASKS = "SELECT * FROM import_tasks(%s, %s, %s::uuid, %s, %s, %s)"


class _Kept(NamedTuple):
    is_kept: bool  # or else the account is gone, or the token's generation past


class _Dropped(NamedTuple):
    nothing: None


_KEEP = Query(
    _Kept,
    fn.import_keep(q.user_id, q.generation, q.import_id, q.part, q.kind, q.content),
    CALLER_TYPES | {"import_id": "uuid", "part": "bigint", "kind": "text", "content": "jsonb"},
    alone=True,
)
_DROP = Query(_Dropped, fn.import_drop(q.user_id, q.import_id), {"user_id": "bigint", "import_id": "uuid"}, alone=True)

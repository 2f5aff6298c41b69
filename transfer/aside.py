"""Put a file aside part by part as it comes, where it counts for nothing until all of it is there."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from peewee import fn

from models import CALLER_TYPES, Caller
from postgres.queries import Query, q
from rest.errors import FieldError, InvalidInput, InvalidToken
from rest.idempotency import digest
from service import Service
from transfer.entries import Skipped
from transfer.json_format import Row

Part_contra = TypeVar("Part_contra", contravariant=True)
Part = TypeVar("Part")  # of a file: a Line or an Item
BYTES_PER_PART = 64 * 1024  # of what is put aside at once
NOTHING_DONE = "Some lines can't be taken, so nothing was imported."
MAX_SKIPPED = 100  # of what is passed over: so many are told of, all are counted
MAX_REASONS = 3  # of one


class Reader(Protocol[Part_contra]):
    """Makes rows of a file's lines, or items. Both methods raise InvalidInput where what follows can't be understood."""

    def feed(self, part: Part_contra, /) -> Iterator[Row | Skipped]:
        """Return the row that this part completes, if it does, and what is passed over."""

    def end(self) -> Iterator[Row | Skipped]:
        """Return the row that the end of the file completes, if it does, and what is passed over."""


def _skipped(row: Row) -> Skipped:
    reason = "; ".join(fault["message"] for fault in row.faults[:MAX_REASONS])
    return Skipped(row.line, "not_taken", reason, row.said or reason)


class Aside:
    """What has come of a file, put aside part by part."""

    def __init__(self, service: Service, caller: Caller, *, skip: bool) -> None:
        self._database, self._long_work = service.database, service.long_work
        self.caller, self.import_id = caller, str(uuid4())
        self.parts = 0
        self.skipped: list[dict[str, Any]] = []  # the first of them
        self.skipped_count = 0
        self._skip = skip
        self._digests: dict[str, hashlib._Hash] = {}  # by kind, of the values, however they were written and whichever came first
        self._rows: list[Row] = []
        self._bytes = 0
        self._faults: list[FieldError] = []

    @property
    def digest(self) -> str:
        """What two files have in common that say the same."""
        return digest(
            "POST /import?skip=true" if self._skip else "POST /import",
            "\n".join(f"{kind} {known.hexdigest()}" for kind, known in sorted(self._digests.items())),
        )

    async def put(self, reader: Reader[Part], parts: AsyncIterator[Iterable[Part]]) -> None:
        """Put all of a file aside. Raises InvalidInput for the lines that are at fault, InvalidToken."""
        try:
            async for some in parts:
                await self._long_work.each(some, lambda part: self._take(reader.feed(part)))
                if self._bytes > BYTES_PER_PART:
                    await self._flush()
            self._take(reader.end())
        except InvalidInput as refusal:
            faults = [*self._faults, *refusal.errors]
            raise InvalidInput(*faults, detail=NOTHING_DONE if faults else refusal.detail) from None
        if self._faults:
            raise InvalidInput(*self._faults, detail=NOTHING_DONE)
        await self._flush()

    def _take(self, rows: Iterator[Row | Skipped]) -> None:
        for row in rows:
            if isinstance(row, Skipped):
                self._pass_over(row)
                continue
            if self._skip and row.faults:
                self._pass_over(_skipped(row))
                continue
            self._faults += row.faults
            if len(self._faults) >= InvalidInput.most:
                raise InvalidInput()  # nobody reads more
            if not self._faults:
                self._rows.append(row)
                self._bytes += len(row.json)
                self._note(row.kind, row.said or row.json)

    def _pass_over(self, skipped: Skipped) -> None:
        self.skipped_count += 1
        if self.skipped_count <= MAX_SKIPPED:
            self.skipped.append({"line": skipped.line, "code": skipped.code, "reason": skipped.reason})
        if skipped.said:
            self._note("skipped", skipped.said)

    def _note(self, kind: str, said: str) -> None:
        self._digests.setdefault(kind, hashlib.sha256()).update(f"{said}\n".encode())

    async def drop(self) -> None:
        """Take away what was put aside. Raises Unavailable."""
        await self._database.ask(_DROP, self.caller.user_id, self.import_id)

    async def _flush(self) -> None:
        rows, self._rows, self._bytes = self._rows, [], 0
        for kind, some in groupby(rows, key=lambda row: row.kind):
            part = list(some)
            content = ",".join(f'{{"line":{row.line},{row.json[1:]}' for row in part)
            [row] = await self._database.ask(_KEEP, *self.caller, self.import_id, self.parts + 1, kind, f"[{content}]")
            if not row.is_kept:
                raise InvalidToken()
            self.parts += 1


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

"""The pieces and lines of a body that is read as it comes, so that it may be longer than what fits into memory."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from aiohttp import web
from pydantic import TypeAdapter
from typing_extensions import TypeAliasType

from rest import overload
from rest.error_codes import ErrorCode
from rest.errors import ContentTooLarge, FieldError, InvalidInput, RequestTimeout
from rest.values import Moment
from transfer.charsets import Recoder

IDLE_SECONDS = 15.0  # from one piece of the body to the next
MAX_LINE_BYTES = 128 * 1024
BYTES_PER_PIECE = 16 * 1024
BOM = b"\xef\xbb\xbf"  # with which some programs begin what is UTF-8
NOT_UTF8 = "is not UTF-8: save the file as UTF-8, or name its charset in the Content-Type"
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


class Line(NamedTuple):
    """A line with its end, and which one it is, from 1 on."""

    number: int
    text: bytes


class Entry(NamedTuple):
    """What some lines say of one thing: the line at which it begins, its fields, and what can't be taken of it."""

    line: int
    fields: dict[str, Any]
    places: Mapping[str, tuple[int, str]] = {}  # the fields that stand elsewhere, or under another name: the line and the name
    faults: Sequence[FieldError] = ()


SkipCode = TypeAliasType("SkipCode", Literal["in_trash", "not_a_task", "not_taken", "occurrence_not_kept", "recurrence_not_kept"])


class Skipped(NamedTuple):
    """What is passed over though somebody may miss it: the line at which it stands, and why."""

    line: int
    code: SkipCode
    reason: str
    said: str = ""  # what of it was sent: by this an import is known again


def at_line(line: int, code: ErrorCode, message: str, **params: Any) -> FieldError:
    """Say what is wrong with a line; of the parameters `name` is the property, the column or the member that it is about."""
    return FieldError(f"line {line}", code, message, line=line, **params)


def about(line: int, name: str, fault: FieldError) -> FieldError:
    """Say at which line, and under which name, a value stands that is at fault."""
    return at_line(line, fault["code"], f"{name} {fault['message']}", name=name, **fault.get("params", {}))


def read_moment(text: str) -> datetime:
    """Return a moment in UTC. Raises ValueError where it isn't as RFC 3339 writes one."""
    return _MOMENT.validate_python(text)


def moment_text(moment: datetime) -> str:
    """Return a moment in UTC as we write it."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


async def read_pieces(request: web.Request, most_bytes: int, encoding: str | None = None) -> AsyncIterator[bytes]:
    """Yield the body's pieces, in UTF-8 and without a BOM: they may take as long as they go on coming.

    Raises ContentTooLarge, InvalidInput, RequestTimeout.
    """
    if (request.content_length or 0) > most_bytes:
        raise ContentTooLarge()
    overload.let_take_its_time(request)
    received, recoder = 0, Recoder(encoding) if encoding else None
    while piece := await _piece(request):
        received += len(piece)
        if received > most_bytes:
            raise ContentTooLarge()
        if received == len(piece) and piece.startswith(BOM):  # it is UTF-8, whatever the Content-Type says
            piece, recoder = piece.removeprefix(BOM), None
        yield recoder.feed(piece) if recoder else piece
    if recoder:
        yield recoder.feed(b"", is_last=True)


async def read_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[Iterable[Line]]:
    """Yield the lines, as many at a time as have come, each as it is taken. Raises InvalidInput, and what `pieces` raises."""
    number, beginning = 1, b""
    async for piece in pieces:
        *texts, beginning = (beginning + piece).split(b"\n")
        yield (Line(n, text + b"\n") for n, text in enumerate(texts, start=number))
        number += len(texts)
        if len(beginning) > MAX_LINE_BYTES:
            raise InvalidInput(at_line(number, "too_long", "is too long", max=MAX_LINE_BYTES))
    if beginning:
        yield [Line(number, beginning)]


async def _piece(request: web.Request) -> bytes:
    """Return the next piece, which is shorter only at the end: however slowly it comes, a reader begins with each anew but rarely."""
    piece = bytearray()
    try:
        while len(piece) < BYTES_PER_PIECE:
            async with asyncio.timeout(IDLE_SECONDS):
                some = await request.content.read(BYTES_PER_PIECE - len(piece))
            if not some:
                break
            piece += some
    except TimeoutError:
        raise RequestTimeout() from None
    except (web.RequestPayloadError, ConnectionError):
        raise InvalidInput(detail="The body is broken, or ended before its end.") from None
    return bytes(piece)

"""The fields of a request: the query string's, and the body's in each of the three types that it may have."""

import codecs
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from rest import overload
from rest.errors import InvalidInput, UnsupportedMediaType

FORM, MULTIPART, JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"
MAX_FIELDS = 100
MAX_BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
MAX_TYPE_CHARACTERS = 2000  # of a Content-Type with its parameters; a browser's has some 70
UNKNOWN = "application/octet-stream"  # as good as no type (RFC 9110, section 8.3): some clients send it where there is no body
ACCEPT_PATCH = "Accept-Patch"
UNCODED = (b"7bit", b"8bit", b"binary")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, section 5.6.2
_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})[ \t]*(?=;|$)")
_PARAMETER = re.compile(rf';[ \t]*({_TOKEN})=(?:"((?:[^"\\]|\\.)*)"|([^";]*))')  # if not in quotes, whatever some programs write
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_LIKE_JSON = re.compile(r"(\ufeff|%EF%BB%BF|[ \t\r\n+]|%20|%09|%0D|%0A)*([{[]|%7B|%5B)", re.IGNORECASE)


class Fields(NamedTuple):
    """The names and values of a request in the order sent, and where. A form's values are all text; JSON's have types."""

    pairs: list[tuple[str, Any]]
    textual: bool = True
    place: str = "body"
    files: frozenset[str] = frozenset()  # the names of what was sent as a file, whose values are left out


def may_be_shown(name: str) -> bool:
    """Return whether a name that nobody here knows can be a field's: else it may be anything, and isn't sent back."""
    return bool(_NAME.fullmatch(name))


def read_query(query_string: str) -> Fields:
    """Return the query string's parameters. Raises InvalidInput where it isn't well-formed."""
    return Fields(_form(query_string, "The query string"), place="query")


async def read_body(request: web.Request) -> Fields:
    """Return the body's fields, whichever of the three types it has. Raises InvalidInput, UnsupportedMediaType, Unavailable."""
    refuse_coding(request)
    try:
        body = await overload.read(request)
    except (web.RequestPayloadError, ConnectionError):
        _malformed("The body is broken, or ended before its end.")
    if not body and request.headers.get(hdrs.CONTENT_TYPE, UNKNOWN) == UNKNOWN:
        return Fields([])
    content_type = media_type(request)
    if content_type == FORM:
        form = _text(body)
        if _LIKE_JSON.match(form):  # curl and others call it a form where nobody says what it is
            _malformed(f"The body looks like JSON, but its type says that it is a form: send Content-Type: {JSON}.")
        return Fields(_form(form, "The form"))
    if content_type == JSON:
        return Fields(_json(_text(body.removeprefix(codecs.BOM_UTF8))), textual=False)  # which may be ignored (RFC 8259, section 8.1)
    if content_type == MULTIPART:
        return _multipart(parameter(request, "boundary") or "", body)
    raise unsupported(request, f"A body must be of type {FORM}, {MULTIPART} or {JSON}.", (FORM, MULTIPART, JSON))


def unsupported(request: web.Request, detail: str, taken: Iterable[str]) -> UnsupportedMediaType:
    """Return the refusal of a body's type, with those that are taken in a header (RFC 9110, section 15.5.16; RFC 5789, section 2.2)."""
    return UnsupportedMediaType(detail, headers={ACCEPT_PATCH if request.method == hdrs.METH_PATCH else hdrs.ACCEPT: ", ".join(taken)})


def refuse_coding(request: web.Request) -> None:
    """Raise UnsupportedMediaType where the body is in a coding; `identity` says that it isn't (RFC 9110, section 8.4.1)."""
    if hdrs.CONTENT_ENCODING not in request.headers:
        return
    codings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING)).lower().split(",")
    if {coding.strip() for coding in codings} - {"identity", ""}:
        raise UnsupportedMediaType("A body must be sent as it is, without Content-Encoding.", headers={hdrs.ACCEPT_ENCODING: "identity"})


def media_type(request: web.Request) -> str | None:
    """Return the type of the body; None where it has none, or none that can be read.

    aiohttp has it read by Python's email package, which takes the square of the length of the parameters.
    """
    form = _TYPE.match(_content_type(request))
    return form[1].lower() if form else None


def parameter(request: web.Request, name: str) -> str | None:
    """Return a parameter of the type of the body, such as its charset; None where it has none of that name."""
    for sent, quoted, plain in _PARAMETER.findall(_content_type(request)):
        if sent.lower() == name:
            return re.sub(r"\\(.)", r"\1", quoted) or plain.strip(" \t")
    return None


def _content_type(request: web.Request) -> str:
    sent = request.headers.get(hdrs.CONTENT_TYPE, "")
    return sent if len(sent) <= MAX_TYPE_CHARACTERS else ""


def _malformed(detail: str) -> NoReturn:
    raise InvalidInput(detail=detail) from None


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        _malformed("The body is not UTF-8.")


def _form(text: str, what: str) -> list[tuple[str, str]]:
    if text.count("&") >= MAX_FIELDS:
        _malformed(f"{what} has more than {MAX_FIELDS} fields.")
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:  # UnicodeDecodeError is one
        _malformed(f"{what} is not UTF-8.")


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a repeated name is seen."""


def _json(text: str) -> list[tuple[str, Any]]:
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        _malformed("The body is not JSON.")
    if not isinstance(value, _Object):
        _malformed("The body must be a JSON object.")
    if len(value) > MAX_FIELDS:
        _malformed(f"The object has more than {MAX_FIELDS} fields.")
    return value


def _malformed_number(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_constant=_malformed_number)


class _Parts:
    """What the parser calls as it goes through the parts of a form."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.files: set[str] = set()
        self.ended = False
        self._header, self._value, self._data = b"", b"", bytearray()
        self._headers: dict[bytes, bytes] = {}

    def on_part_begin(self) -> None:
        self._headers, self._data = {}, bytearray()

    def on_header_field(self, text: bytes, start: int, end: int) -> None:
        self._header += text[start:end]

    def on_header_value(self, text: bytes, start: int, end: int) -> None:
        self._value += text[start:end]

    def on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def on_part_data(self, text: bytes, start: int, end: int) -> None:
        self._data += text[start:end]

    def on_part_end(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        coding = self._headers.get(b"content-transfer-encoding", b"binary").lower()
        text = self._headers.get(b"content-type", b"text/plain").lower().startswith(b"text/")
        name = options.get(b"name", b"").decode()
        is_file = b"filename" in options or b"filename*=" in self._headers.get(b"content-disposition", b"").lower()
        if not is_file and (disposition != b"form-data" or not name or not text or coding not in UNCODED):
            raise FormParserError
        if is_file:
            self.files.add(name)
        self.pairs.append((name, "" if is_file else self._data.decode()))
        if len(self.pairs) > MAX_FIELDS:
            _malformed(f"The form has more than {MAX_FIELDS} fields.")

    def on_end(self) -> None:
        self.ended = True


def _multipart(boundary: str, body: bytes) -> Fields:
    """Return the fields of a form as RFC 7578 has it: a part's other headers are ignored."""
    parts = _Parts()
    callbacks: Any = {name: getattr(parts, name) for name in dir(parts) if name.startswith("on_")}
    try:
        if 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
            MultipartParser(boundary.encode("ascii"), callbacks).write(body)
    except (FormParserError, UnicodeError):
        parts.ended = False
    if not parts.ended:
        _malformed("The body is not multipart/form-data of text parts in UTF-8.")
    return Fields(parts.pairs, files=frozenset(parts.files))

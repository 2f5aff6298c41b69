"""An operation declared once: what it takes, what it answers, how it refuses, and the words for it."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus
from inspect import getdoc, signature
from typing import Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict
from pydantic import BaseModel, ValidationError

from rest.errors import Failure, FieldError, InvalidInput, UnsupportedMediaType

FORM, MULTIPART, JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"
MOST_FIELDS = 100
MOST_CHARACTERS_OF_A_NAME = 64

View = TypeVar("View", bound=web.View)
Method = Callable[..., Awaitable[web.StreamResponse]]
Model = TypeVar("Model", bound=BaseModel)


class Operation(NamedTuple):
    """What is known of an operation; the document is made of it."""

    summary: str
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    status: HTTPStatus
    answer: Any
    failures: tuple[type[Failure], ...]


class Fields(NamedTuple):
    """The names and values of a request in the order sent. A form's values are all text; JSON's have types."""

    pairs: list[tuple[str, Any]]
    textual: bool = True


def contract(answer: Any, *failures: type[Failure], status: HTTPStatus = HTTPStatus.OK) -> Callable[[Method], Method]:
    """Declare a view's method as an operation.

    Its parameter `query`, if there is one, is a pydantic model of the query string; any other parameter is one of the
    body. Both are checked before the method runs: whoever sends what the models don't have, or a query string
    to a method without `query`, gets InvalidInput.
    """

    def declare(method: Method) -> Method:
        inputs = {name: parameter.annotation for name, parameter in list(signature(method).parameters.items())[1:]}
        query = inputs.pop("query", None)
        [(body_name, body)] = inputs.items() or [("", None)]
        operation = Operation(getdoc(method) or "", query, body, status, answer, failures)

        @wraps(method)
        async def operate(view: web.View) -> web.StreamResponse:
            arguments: dict[str, BaseModel] = {}
            asked = read_query(view.request)
            if query is not None:
                arguments["query"] = validate(query, asked)
            elif asked.pairs:
                validate(Nothing, asked)
            if body is not None:
                arguments[body_name] = validate(body, await read_body(view.request))
            return await method(view, **arguments)

        operate.operation = operation  # type: ignore[attr-defined]
        return operate

    return declare


class Nothing(BaseModel, extra="forbid"):
    """The query of an operation that takes none."""


def validate(model: type[Model], fields: Fields) -> Model:
    """Make the model of the fields. Raises InvalidInput that names each that is missing, unknown, repeated or wrong."""
    times = Counter(name for name, _ in fields.pairs)
    errors = [FieldError(_printable(name), "must not be sent more than once") for name, n in times.items() if n > 1]
    try:
        made = model.model_validate(dict(fields.pairs), context={"textual": fields.textual})
    except ValidationError as error:
        errors += [_explain(fault) for fault in error.errors(include_url=False, include_input=False)]
    if errors:
        raise InvalidInput(*errors)
    return made


def _explain(fault: Any) -> FieldError:
    name = _printable(str(fault["loc"][0])) if fault["loc"] else "body"
    limits = fault.get("ctx", {})
    words = {
        "missing": "must be sent",
        "extra_forbidden": "is not known here",
        "too_short": f"must have at least {limits.get('min_length')} character(s)",
        "too_long": f"must have at most {limits.get('max_length')} characters",
        "string_type": "must be text",
    }
    return FieldError(name, words.get(fault["type"]) or fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be"))


def _printable(name: str) -> str:
    return name[:MOST_CHARACTERS_OF_A_NAME].encode(errors="backslashreplace").decode()


def read_query(request: web.Request) -> Fields:
    """Give the query string's parameters. Raises InvalidInput where it isn't well-formed."""
    return Fields(_form(request.rel_url.raw_query_string, "The query string"))


async def read_body(request: web.Request) -> Fields:
    """Give the body's fields, whichever of the three types it has. Raises InvalidInput, UnsupportedMediaType."""
    if "Content-Encoding" in request.headers:
        raise UnsupportedMediaType("A body must be sent as it is, without Content-Encoding.")
    try:
        body = await request.read()
    except (web.RequestPayloadError, ConnectionError):
        _malformed("The body is broken, or ended before its end.")
    if "Content-Type" not in request.headers and not body:
        return Fields([])
    content_type = request.content_type if "Content-Type" in request.headers else None
    if content_type == FORM:
        return Fields(_form(_text(body), "The form"))
    if content_type == JSON:
        return Fields(_json(_text(body)), textual=False)
    if content_type == MULTIPART:
        return Fields(await _multipart(request.headers["Content-Type"], body))
    raise UnsupportedMediaType(f"A body must be of type {FORM}, {MULTIPART} or {JSON}.")


def _malformed(detail: str) -> NoReturn:
    raise InvalidInput(detail=detail) from None


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        _malformed("The body is not UTF-8.")


def _form(text: str, what: str) -> list[tuple[str, str]]:
    if text.count("&") >= MOST_FIELDS:
        _malformed(f"{what} has more than {MOST_FIELDS} fields.")
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:  # UnicodeDecodeError is one
        _malformed(f"{what} is not UTF-8.")


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a repeated name is seen."""


def _json(text: str) -> list[tuple[str, Any]]:
    try:
        value = json.loads(text, object_pairs_hook=_Object, parse_constant=_malformed_number)
    except (ValueError, RecursionError):
        _malformed("The body is not JSON.")
    if not isinstance(value, _Object):
        _malformed("The body must be a JSON object.")
    if len(value) > MOST_FIELDS:
        _malformed(f"The object has more than {MOST_FIELDS} fields.")
    return value


def _malformed_number(constant: str) -> NoReturn:
    raise ValueError(constant)


async def _multipart(content_type: str, body: bytes) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    try:
        async for part in _parts(content_type, body):
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise ValueError("a part that is no field")
            if part.filename is not None:
                raise InvalidInput(FieldError(_printable(part.name), "must be sent as text, not as a file"))
            pairs.append((part.name, bytes(await part.read(decode=True)).decode()))
            if len(pairs) > MOST_FIELDS:
                _malformed(f"The form has more than {MOST_FIELDS} fields.")
    except (ValueError, LookupError, AssertionError, RuntimeError, web.HTTPException):  # what the parser raises at what it can't read
        _malformed("The body is not multipart/form-data of text parts in UTF-8.")
    return pairs


def _parts(content_type: str, body: bytes) -> MultipartReader:
    loop = asyncio.get_running_loop()
    content = StreamReader(BaseProtocol(loop), limit=len(body) + 1, loop=loop)
    content.feed_data(body)
    content.feed_eof()
    return MultipartReader(CIMultiDict({"Content-Type": content_type}), content)

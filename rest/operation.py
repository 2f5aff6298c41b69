"""An operation declared once: what it takes, what it answers, how it refuses, and the words for it."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, wraps
from http import HTTPStatus
from inspect import getdoc, signature
from typing import Any, NamedTuple, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from rest.bodies import JSON, Fields, may_be_shown, read_body, read_query
from rest.error_codes import OURS, ErrorCode
from rest.errors import Failure, FieldError, InvalidInput
from rest.values import Confidential

View = TypeVar("View", bound=web.View)
Method = Callable[..., Awaitable[web.StreamResponse]]
Model = TypeVar("Model", bound=BaseModel)

CONTEXT: web.AppKey[Any] = web.AppKey("validation_context")  # what validators need, as `info.context["app"]`; hashable


class Answer(NamedTuple):
    """What a success looks like: the model of its body (None where it has none), and the headers that matter: always, or sometimes.

    `also` gives an example of each other media type that it may have; `item` is, of a stream, the model of one of its items.
    """

    model: Any
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[str, ...] = ()
    media_type: str = JSON
    sometimes: tuple[str, ...] = ()
    also: Mapping[str, str] = {}
    item: Any = None


class Operation(NamedTuple):
    """What is known of an operation; the document is made of it."""

    name: str
    tag: str
    words: str
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    answer: Answer
    failures: tuple[type[Failure], ...]
    takes: tuple[str, ...]
    files: Mapping[str, Any]


def operation(
    name: str, answer: Answer, *failures: type[Failure], tag: str, takes: tuple[str, ...] = (), files: Mapping[str, Any] | None = None
) -> Callable[[Method], Method]:
    """Declare a view's method as an operation; `takes` names the headers that it reads besides conditions.

    Its `name` is what the functions of generated clients are called, and stays; the docstring is what the document says of it.
    One that reads a body of any length by itself has `files`: the media types that it takes, each with a model of the body or an example.
    Its parameter `query`, if there is one, is a pydantic model of the query string; any other parameter is one of the
    body. Both are checked before the method runs: whoever sends what the models don't have, or a query string
    to a method without `query`, gets InvalidInput.
    """

    def declare(method: Method) -> Method:
        inputs = {name: parameter.annotation for name, parameter in list(signature(method).parameters.items())[1:]}
        query = inputs.pop("query", None)
        [(body_name, body)] = inputs.items() or [("", None)]
        is_discreet = body is not None and issubclass(body, Confidential)
        declared = Operation(name, tag, getdoc(method) or "", query, body, answer, failures, takes, files or {})

        @wraps(method)
        async def operate(view: web.View) -> web.StreamResponse:
            request = view.request
            context = request.app.get(CONTEXT)
            asked = _asked(query or (Discretion if is_discreet else Nothing), request.rel_url.raw_query_string, context)
            arguments: dict[str, BaseModel] = {"query": asked} if query else {}
            if body:
                arguments[body_name] = validate(body, await read_body(request), context)
            return await method(view, **arguments)

        operate.operation = declared  # type: ignore[attr-defined]
        return operate

    return declare


@lru_cache(256)  # nobody changes what is asked, and many ask the same
def _asked(model: type[Model], query_string: str, context: Any) -> Model:
    return validate(model, read_query(query_string), context)


class Nothing(BaseModel, extra="forbid"):
    """The query of an operation that takes none."""


class Discretion(Confidential):
    """The query of one whose body is confidential."""


def validate(model: type[Model], fields: Fields, context: Any = None) -> Model:
    """Make the model of the fields. Raises InvalidInput that names each that is missing, unknown, repeated or wrong.

    Its validators find the `context` as `info.context["app"]`.
    """
    named = [(_shown(model, name), value) for name, value in fields.pairs]
    values = dict(named)
    errors = []
    if len(values) < len(named):
        times = Counter(name for name, _ in named if name != UNNAMED)
        errors = [FieldError(name, "repeated", "must not be sent more than once") for name, n in times.items() if n > 1]
    files = {name for name in model.model_fields if name in fields.files} if fields.files else set()
    errors += [FieldError(name, "not_text", "must be sent as text, not as a file") for name in sorted(files)]
    try:
        made = model.model_validate(values, context={"textual": fields.textual, "app": context})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        errors += [explain(fault, fields.place) for fault in faults if not (fault["loc"] and fault["loc"][0] in files)]
    if errors:
        raise InvalidInput(*errors)
    return made


UNNAMED = ""  # stands for each name that isn't shown


def _shown(model: type[BaseModel], name: str) -> str:
    if name in model.model_fields or (may_be_shown(name) and not issubclass(model, Confidential)):
        return name
    return UNNAMED


class _Words(NamedTuple):
    """How we say what is one of pydantic's types of errors, and our names of what it speaks of."""

    code: ErrorCode
    message: str
    params: Mapping[str, str] = {}


_WORDS = {
    "missing": _Words("missing", "must be sent"),
    "extra_forbidden": _Words("unknown_field", "is not known here"),
    "string_type": _Words("not_text", "must be text"),
    "int_type": _Words("not_a_number", "must be a whole number"),
    "too_short": _Words("too_short", "must have at least {min} character(s)", {"min_length": "min"}),
    "too_long": _Words("too_long", "must have at most {max} characters", {"max_length": "max"}),
    "greater_than_equal": _Words("too_small", "must be greater than or equal to {min}", {"ge": "min"}),
    "less_than_equal": _Words("too_large", "must be less than or equal to {max}", {"le": "max"}),
    "literal_error": _Words("not_one_of", "must be {values}", {"expected": "values"}),
}
_OTHER = _Words("malformed", "isn't what may stand here")


def explain(fault: Any, place: str = "body") -> FieldError:
    """Say in our words what pydantic found; `place` is what is at fault where a name can't be shown."""
    name = str(fault["loc"][0]) if fault["loc"] else place
    if fault["type"] == "extra_forbidden" and not may_be_shown(name):
        return FieldError(place, "unknown_field", "has a field that is not known here, and whose name is not shown")
    context = fault.get("ctx", {})
    if fault["type"].startswith(OURS):
        return FieldError(name, fault["type"].removeprefix(OURS), fault["msg"], **context)
    code, message, names = _WORDS.get(fault["type"], _OTHER)
    params = {ours: context[theirs] for theirs, ours in names.items()}
    shown = message.format(**params)
    if "values" in params:
        params["values"] = re.findall("'([^']*)'", params["values"])
    return FieldError(name, code, shown, **params)

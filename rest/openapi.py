"""The OpenAPI 3.1 document, made of the routes and of what their operations declare."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from rest import quotas
from rest.bodies import ACCEPT_PATCH, FORM, JSON, MULTIPART
from rest.components import Components
from rest.errors import (
    ChangedMeanwhile,
    ContentTooLarge,
    Failure,
    InvalidInput,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    Unchanged,
    UnsupportedMediaType,
)
from rest.operation import Answer, Operation
from rest.overload import TooManyAtOnce
from rest.quotas import QuotaExceeded

METHODS = ("get", "post", "put", "patch", "delete")
SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "a user's token: register and get_token answer with one; "
        "it ends by itself, by change_password, by reset_password, by revoke_tokens",
    },
    "operator": {"type": "http", "scheme": "bearer"},
}
AFTER_READING = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.GONE,
    HTTPStatus.CONFLICT,
    HTTPStatus.PRECONDITION_FAILED,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)  # refusals that can come of what a snapshot has


class Particulars(NamedTuple):
    """What the document has of one service alone."""

    parameters: Mapping[str, Any]  # the type of each name in a path
    headers: Mapping[str, tuple[str, str]]  # what its answers carry besides: words and an example
    of_a_snapshot: Collection[str]  # of them: what a refusal carries, too, if a snapshot was read for it
    operator: str  # what an operator's token is
    public_url: str = ""  # where clients find the service; nothing: where they find the document


class Info(NamedTuple):
    """What the document says of the service as a whole."""

    title: str
    version: str
    description: str
    tags: Mapping[str, str]  # the groups of operations, in the order in which they are shown, with words


def make(
    info: Info,
    public: Iterable[web.RouteDef],
    private: Iterable[web.RouteDef],
    operators: Iterable[web.RouteDef],
    particulars: Particulars,
) -> dict[str, Any]:
    """Make the document of the routes that need no token, a user's, and the operator's."""
    components = Components(particulars.headers, urlsplit(particulars.public_url).path)
    paths: dict[str, dict[str, Any]] = {}
    guards = {"token": list(private), "operator": list(operators)}
    for route in [*public, *guards["token"], *guards["operator"]]:
        path = re.sub(r":[^/]+(?=\}(/|$))", "", route.path)
        names = re.findall(r"\{(\w+)\}", path)
        in_path = [{"name": name, "in": "path", "required": True, **_typed(particulars.parameters[name])} for name in names]
        guard = next((guard for guard, routes in guards.items() if route in routes), None)
        paths[path] = {
            method: _operation(method, operation, in_path, guard, particulars, components) for method, operation in operations(route)
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": info.title, "version": info.version, "description": info.description},
        "servers": [{"url": particulars.public_url or "/", "description": "the service that this document comes from"}],
        "tags": [{"name": name, "description": words} for name, words in info.tags.items()],
        "paths": paths,
        "components": {
            **components.made,
            "securitySchemes": SCHEMES | {"operator": SCHEMES["operator"] | {"description": particulars.operator}},
        },
    }


def _typed(kind: Any) -> dict[str, Any]:
    schema = TypeAdapter(kind).json_schema()
    return {"schema": schema, "example": schema.pop("examples")[0]}


def operations(route: web.RouteDef) -> Iterator[tuple[str, Operation]]:
    """Return the methods and operations of a route's view; HEAD goes with GET and is not said again."""
    for method in METHODS:
        if operation := getattr(getattr(route.handler, method, None), "operation", None):
            yield method, operation


def _operation(
    method: str, operation: Operation, in_path: list[dict[str, Any]], guard: str | None, particulars: Particulars, components: Components
) -> dict[str, Any]:
    answer = operation.answer
    summary, _, description = operation.words.partition("\n\n")
    failures = _failures(operation, guard)
    conditional = method == "get" and "ETag" in answer.headers
    sent = ["If-Match"] if any(issubclass(failure, ChangedMeanwhile) for failure in failures) else []
    sent += ["If-None-Match"] if conditional or any(issubclass(failure, Unchanged) for failure in failures) else []
    made: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": summary,
        **({"description": description.replace("\n", " ")} if description else {}),
        "parameters": [
            *in_path,
            *(components.query(operation.query) if operation.query else ()),
            *map(components.sent_header, [*sent, *operation.takes, "X-Request-ID"]),
        ],
        "responses": {str(int(answer.status)): _success(answer, components)},
    }
    if operation.body:
        made["requestBody"] = {"required": not _may_be_empty(operation.body), "content": _bodies(operation.body, components)}
    if operation.files:
        content = {media_type: _file(kind, components) for media_type, kind in operation.files.items()}
        made["requestBody"] = {"required": True, "content": content}
    if conditional:
        made["responses"]["304"] = {
            "description": "Not Modified: what the client has is the present one",
            "headers": components.headers(answer.headers),
        }
    for status in sorted({failure.status for failure in failures}):
        told = {*particulars.of_a_snapshot} & {*answer.headers} if status in AFTER_READING else set()
        if status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            told |= {ACCEPT_PATCH if method == "patch" else "Accept", "Accept-Encoding"}
        sometimes = {*quotas.HEADERS} & {*answer.sometimes} | told
        refusals = [failure for failure in failures if failure.status == status]
        made["responses"][str(int(status))] = components.refusal(refusals, sometimes)
    if guard:
        made["security"] = [{guard: []}]
    return made


def _failures(operation: Operation, guard: str | None) -> list[type[Failure]]:
    failures: list[type[Failure]] = [InvalidInput, *operation.failures]
    failures += [RequestTimeout, ContentTooLarge, UnsupportedMediaType] if operation.body or operation.files else []
    failures += [Unauthorized, Unavailable] if guard else []
    failures += [QuotaExceeded, TooManyAtOnce] if guard == "token" else []  # users have quotas, and shares
    return list(dict.fromkeys(failures))


def _may_be_empty(model: Any) -> bool:
    try:
        model.model_validate({})
    except ValidationError:
        return False
    return True


def _bodies(model: Any, components: Components) -> dict[str, Any]:
    made = {}
    for media_type, form in ((JSON, ""), (FORM, "Form"), (MULTIPART, "Multipart")):
        schema = components.schema(model, sent=True, form=form)
        made[media_type] = {"schema": schema, "example": components.example(schema)}
    return made


def _file(kind: Any, components: Components) -> dict[str, Any]:
    if isinstance(kind, str):
        return {"schema": {"type": "string"}, "example": kind}
    schema = components.schema(kind, sent=True)
    return {"schema": schema, "example": components.example(schema)}


def _success(answer: Answer, components: Components) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": answer.status.phrase,
        "headers": components.headers(answer.headers, answer.sometimes),
    }
    if answer.model is not None:
        schema = components.schema(answer.model)
        made["content"] = {answer.media_type: {"schema": schema, "example": components.example(schema)}}
    if answer.also:  # not among the content: of several types generators make a union, though a client asks for one of them
        made["description"] += f". If it is asked for, the same as {' or '.join(answer.also)}: in x-other-content, like content."
        made["x-other-content"] = {media_type: _file(example, components) for media_type, example in answer.also.items()}
    if answer.item:  # as OpenAPI 3.2 says it, without the x-
        made["content"][answer.media_type]["x-itemSchema"] = components.schema(answer.item)
    return made

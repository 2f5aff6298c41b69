"""The OpenAPI 3.1 document, made of the routes and their contracts."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from rest import conditions, idempotency, quotas
from rest.bodies import FORM, JSON, MULTIPART
from rest.errors import PROBLEM, ContentTooLarge, Failure, InvalidInput, RequestTimeout, Unauthorized, Unavailable, UnsupportedMediaType
from rest.operation import Answer, Operation
from rest.quotas import QuotaExceeded

REFERENCE = "#/components/schemas/{model}"

HEADERS = {  # what answers carry: words and an example
    "ETag": ("the tag of what is shown, for If-Match and If-None-Match", '"7"'),
    "RateLimit": ("what is left of the quotas, and for how many seconds (draft-ietf-httpapi-ratelimit-headers-11)", '"address";r=9;t=60'),
    "RateLimit-Policy": ("the quotas: so many requests in so many seconds", '"address";q=10;w=60'),
    "Retry-After": ("seconds after which to try again", "1"),
    "X-Request-ID": ("the request's name in our log; a well-formed one that is sent is kept", "0b2c8a5e4ddc4d0c"),
}
TAGS = {"format": "entity-tags", "pattern": rf"^(\*|{conditions.LIST})$"}
SENT = {  # what requests may carry: words, an example, the form
    "Idempotency-Key": (
        "any text of one's own: the same request, sent again with it within 24 hours, is done once and answered alike",
        "3f1d0c9a-1",
        {"pattern": f"^({idempotency.KEY})$"},
    ),
    "If-Match": ("the tags of which one must be the present one, or *: else 412, and nothing is changed", '"7"', TAGS),
    "If-None-Match": ("the tags that one has: 304 where one of them is the present one", '"7"', TAGS),
    "Last-Event-ID": ("the id of the last event that one has: the stream goes on after it", "7", {}),
    "X-Request-ID": (
        "the request's name in our log: 1 to 64 letters (A-Z, a-z), digits, '.', '_', '-'; else we choose one",
        "request-7",
        {},
    ),
}
SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
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


class Info(NamedTuple):
    """What the document says of the service as a whole."""

    title: str
    version: str
    description: str


def make(
    info: Info,
    public: Iterable[web.RouteDef],
    private: Iterable[web.RouteDef],
    operators: Iterable[web.RouteDef],
    particulars: Particulars,
) -> dict[str, Any]:
    """Make the document of the routes that need no token, a user's, and the operator's."""
    schemas = _Schemas(particulars)
    paths: dict[str, dict[str, Any]] = {}
    guards = {"token": list(private), "operator": list(operators)}
    for route in [*public, *guards["token"], *guards["operator"]]:
        path = re.sub(r":[^/]+(?=\}(/|$))", "", route.path)
        names = re.findall(r"\{(\w+)\}", path)
        in_path = [{"name": name, "in": "path", "required": True, **_typed(particulars.parameters[name])} for name in names]
        guard = next((guard for guard, routes in guards.items() if route in routes), None)
        paths[path] = {operation.method: _operation(operation, in_path, guard, schemas) for operation in operations(route)}
    return {
        "openapi": "3.1.0",
        "info": info._asdict(),
        "paths": paths,
        "components": {
            "schemas": schemas.named,
            "securitySchemes": SCHEMES | {"operator": SCHEMES["operator"] | {"description": particulars.operator}},
        },
    }


def _typed(kind: Any) -> dict[str, Any]:
    schema = TypeAdapter(kind).json_schema()
    return {"schema": schema, "example": schema.pop("examples")[0]}


def operations(route: web.RouteDef) -> Iterator[Operation]:
    """Give the operations of a route's view; HEAD goes with GET and is not said again."""
    for method in ("get", "post", "put", "patch", "delete"):
        if operation := getattr(getattr(route.handler, method, None), "operation", None):
            yield operation._replace(method=method, name=f"{method}_{_snake(route.handler.__name__)}")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class _Schemas:
    """The schemas that have names, as they are met."""

    def __init__(self, particulars: Particulars) -> None:
        self.named: dict[str, Any] = {}
        self.particulars = particulars
        self._headers = {**HEADERS, **particulars.headers}

    def of(self, model: Any, *, sent: bool = False, form: str = "") -> dict[str, Any]:
        """Give the schema of a model, by reference where it has a name. `form` names the kind of form: in one nothing is null."""
        schema = TypeAdapter(model).json_schema(ref_template=REFERENCE, mode="validation" if sent else "serialization")
        self.named |= schema.pop("$defs", {})
        if "properties" not in schema:
            return schema
        if form:  # a name of its own even where nothing differs: generated clients tell by it in which of the types to send
            schema = _of_text(_without_null(schema)) | {"title": schema["title"] + form}
        self.named[schema["title"]] = schema
        return {"$ref": REFERENCE.format(model=schema["title"])}

    def example(self, schema: dict[str, Any]) -> Any:
        """Give an example of what has this schema, made of the examples of its parts."""
        if "$ref" in schema:
            return self.example(self.named[schema["$ref"].rpartition("/")[2]])
        if known := schema.get("examples", schema.get("enum", [schema["const"]] if "const" in schema else [])):
            return known[0]
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return self.example(schema[choice][0])
        if schema.get("type") == "array":
            return [self.example(schema["items"])]
        if "properties" in schema:
            return {name: self.example(part) for name, part in schema["properties"].items() if not part.get("readOnly")}
        return schema.get("default", {"object": {}, "string": ""}.get(schema.get("type", "")))

    def headers(self, names: Iterable[str], sometimes: Iterable[str] = ()) -> dict[str, Any]:
        """Give the headers of these names, and those that are there sometimes."""
        always = {*names, "X-Request-ID"}
        return {
            name: {"description": self._headers[name][0], "required": name in always, "schema": _header(*self._headers[name])}
            for name in sorted({*always, *sometimes})
        }


def _without_null(schema: Any) -> Any:
    """Give the schema with no place for null in it."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _without_null(part) for name, part in schema.items() if not (name == "default" and part is None)}
    if isinstance(plain.get("type"), list):
        [plain["type"]] = [kind for kind in plain["type"] if kind != "null"]
    if len(plain.get("anyOf", ())) == 1:
        plain |= plain.pop("anyOf")[0]
    return plain


def _of_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Give the schema with text wherever anything may stand: a form has nothing else."""
    typed = {"type", "enum", "const", "anyOf", "$ref"}
    properties = {name: part if typed & {*part} else part | {"type": "string"} for name, part in schema["properties"].items()}
    return schema | {"properties": properties}


def _operation(operation: Operation, in_path: list[dict[str, Any]], guard: str | None, schemas: _Schemas) -> dict[str, Any]:
    answer = operation.answer
    failures: list[type[Failure]] = [InvalidInput, *operation.failures]
    failures += [RequestTimeout, ContentTooLarge, UnsupportedMediaType] if operation.body or operation.files else []
    failures += [Unauthorized, Unavailable] if guard else []
    failures += [QuotaExceeded] if guard == "token" else []  # users have quotas
    conditional = operation.method == "get" and "ETag" in answer.headers
    sent = ["If-None-Match"] if conditional else ["If-Match"] if HTTPStatus.PRECONDITION_FAILED in {f.status for f in failures} else []
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary.splitlines()[0],
        "parameters": [
            *in_path,
            *(_query(operation.query) if operation.query else ()),
            *(
                {"name": name, "in": "header", "description": words, "schema": {"type": "string", "examples": [example], **form}}
                for name, (words, example, form) in ((name, SENT[name]) for name in [*sent, *operation.takes, "X-Request-ID"])
            ),
        ],
        "responses": {str(int(answer.status)): _success(answer, schemas)},
    }
    if operation.body:
        made["requestBody"] = {
            "required": not _may_be_empty(operation.body),
            "content": _bodies(operation.body, schemas),
        }
    if operation.files:
        content = {media_type: _file(kind, schemas) for media_type, kind in operation.files.items()}
        made["requestBody"] = {"required": True, "content": content}
    if conditional:
        made["responses"]["304"] = {
            "description": "Not Modified: what the client has is the present one",
            "headers": schemas.headers(answer.headers),
        }
    for status in sorted({failure.status for failure in failures}):
        told = {*schemas.particulars.of_a_snapshot} & {*answer.headers} if status in AFTER_READING else set()
        sometimes = {*quotas.HEADERS} & {*answer.sometimes} | told
        made["responses"][str(int(status))] = _refusal([failure for failure in failures if failure.status == status], schemas, sometimes)
    if guard:
        made["security"] = [{guard: []}]
    return made


def _query(model: Any) -> Iterator[dict[str, Any]]:
    for name, schema in _without_null(model.model_json_schema())["properties"].items():
        words = schema.pop("description", "")
        yield {"name": name, "in": "query", "description": words, "schema": schema}


def _may_be_empty(model: Any) -> bool:
    try:
        model.model_validate({})
    except ValidationError:
        return False
    return True


def _bodies(model: Any, schemas: _Schemas) -> dict[str, Any]:
    made = {}
    for media_type, form in ((JSON, ""), (FORM, "Form"), (MULTIPART, "Multipart")):
        schema = schemas.of(model, sent=True, form=form)
        made[media_type] = {"schema": schema, "example": schemas.example(schema)}
    return made


def _file(kind: Any, schemas: _Schemas) -> dict[str, Any]:
    if isinstance(kind, str):
        return {"schema": {"type": "string"}, "example": kind}
    schema = schemas.of(kind, sent=True)
    return {"schema": schema, "example": schemas.example(schema)}


def _success(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.status.phrase, "headers": schemas.headers(answer.headers, answer.sometimes)}
    if answer.model is not None:
        schema = schemas.of(answer.model)
        made["content"] = {answer.media_type: {"schema": schema, "example": schemas.example(schema)}} | {
            media_type: _file(example, schemas) for media_type, example in answer.also.items()
        }
    return made


def _refusal(failures: list[type[Failure]], schemas: _Schemas, sometimes: Iterable[str]) -> dict[str, Any]:
    shapes = {failure.shape: schemas.of(failure.shape) for failure in failures}
    schema = {"anyOf": [*shapes.values()]} if len(shapes) > 1 else shapes.popitem()[1]
    examples = {failure.__name__: {"value": failure().document()} for failure in failures}
    carried = [{*failure.carries} for failure in failures]
    return {
        "description": " Or: ".join(failure.__doc__ or "" for failure in failures),
        "headers": schemas.headers(set.intersection(*carried), set.union(*carried, sometimes)),
        "content": {PROBLEM: {"schema": schema, "examples": examples}},
    }


def _header(_: str, example: str) -> dict[str, Any]:
    return {"type": "string", "examples": [example]}

"""What the operations of the document have in common, each said once: schemas, headers, parameters, refusals."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from rest import conditions, idempotency, quotas
from rest.errors import PROBLEM, Failure

REFERENCE = "#/components/{kind}/{name}"
HEADERS = {  # what answers carry: words and an example
    "Accept": ("the types that are taken", "application/json"),
    "Accept-Encoding": ("the codings that are taken, where it was sent in another", "identity"),
    "Accept-Patch": ("the types that are taken (RFC 5789)", "application/json"),
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
    "If-Match": ("the tags of which one must be the present one, or *: else 412, and nothing is changed", '"1"', TAGS),
    "If-None-Match": (
        "the tags that one has, or *: where one of them is the present one, a read is 304, and a change is 412 and doesn't happen",
        '"7"',
        TAGS,
    ),
    "Last-Event-ID": ("the id of the last event that one has: the stream goes on after it", "1", {}),
    "X-Request-ID": (
        "the request's name in our log: 1 to 64 letters (A-Z, a-z), digits, '.', '_', '-'; else we choose one",
        "request-7",
        {},
    ),
}


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # which would be the field's name once more


class Components:
    """The components that have been met; each method adds what is new to it and returns a reference, or an object that holds some."""

    def __init__(self, headers: Mapping[str, tuple[str, str]], public_path: str) -> None:
        """`headers` are those that the answers of one service carry besides, like HEADERS; the path stands before those of addresses."""
        self._known_headers, self._public_path = {**HEADERS, **headers}, public_path
        self.made: dict[str, dict[str, Any]] = {"schemas": {}, "headers": {}, "parameters": {}, "examples": {}, "responses": {}}

    def _shared(self, kind: str, name: str, component: dict[str, Any]) -> dict[str, Any]:
        if self.made[kind].setdefault(name, component) != component:
            raise ValueError(f"two {kind} are called {name}")
        return {"$ref": REFERENCE.format(kind=kind, name=name)}

    def schema(self, model: Any, *, sent: bool = False, form: str = "") -> dict[str, Any]:
        """Return the schema of a model, by reference where it has a name. `form` names the kind of form: in one nothing is null."""
        schema = self._generated(model, "validation" if sent else "serialization")
        if "properties" not in schema:
            return schema
        if form:  # a name of its own even where nothing differs: generated clients tell by it in which of the types to send
            schema = _of_text(without_null(schema)) | {"title": schema["title"] + form}
        return self._shared("schemas", schema["title"], _without_defaults(schema))

    def _generated(self, model: Any, mode: JsonSchemaMode) -> dict[str, Any]:
        template = REFERENCE.format(kind="schemas", name="{model}")
        schema = TypeAdapter(model).json_schema(ref_template=template, mode=mode, schema_generator=_Generator)
        for name, part in schema.pop("$defs", {}).items():
            self._shared("schemas", name, _without_defaults(part))
        return schema

    def example(self, schema: dict[str, Any]) -> Any:
        """Return an example of what has this schema, made of the examples of its parts."""
        if known := schema.get("examples", schema.get("enum", [schema["const"]] if "const" in schema else [])):
            return known[0]
        if "$ref" in schema:
            return self.example(self.made["schemas"][schema["$ref"].rpartition("/")[2]])
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return self.example(schema[choice][0])
        if schema.get("type") == "array":
            return [self.example(schema["items"])]
        if "properties" in schema:
            return {name: self.example(part) for name, part in schema["properties"].items()}
        return {"object": {}, "string": ""}.get(schema.get("type", ""))

    def query(self, model: Any) -> list[dict[str, Any]]:
        """Return the parameters of a query string."""
        parts = without_null(self._generated(model, "validation"))["properties"].items()
        return [{"name": name, "in": "query", "description": part.pop("description", ""), "schema": part} for name, part in parts]

    def sent_header(self, name: str) -> dict[str, Any]:
        """Return a header that requests may carry."""
        words, example, form = SENT[name]
        schema = {"type": "string", "examples": [example], **form}
        return self._shared("parameters", name, {"name": name, "in": "header", "description": words, "schema": schema})

    def headers(self, names: Iterable[str], sometimes: Iterable[str] = ()) -> dict[str, Any]:
        """Return the headers that an answer carries, always or sometimes."""
        always = {*names, "X-Request-ID"}
        return {name: self._header(name, always=name in always) for name in sorted({*always, *sometimes})}

    def _header(self, name: str, *, always: bool) -> dict[str, Any]:
        words, example = self._known_headers[name]
        header = {"description": words, "required": always, "schema": {"type": "string", "examples": [example]}}
        return self._shared("headers", name if always else f"{name}-sometimes", header)

    def refusal(self, failures: list[type[Failure]], sometimes: set[str]) -> dict[str, Any]:
        """Return the answer that is one of these failures, all of one status."""
        shapes = [self.schema(shape) for shape in dict.fromkeys(failure.shape for failure in failures)]
        always = set.intersection(*({*failure.carries} for failure in failures))
        sometimes = sometimes.union(*(failure.carries for failure in failures)) - always
        variants = sorted(sometimes - {*quotas.HEADERS[1:]})  # which goes with the first
        name = "Or".join(map(_name, failures)) + "".join(f"With{header.removeprefix('X-')}" for header in variants)
        refusal = {
            "description": " Or: ".join(failure.__doc__ or "" for failure in failures),
            "headers": self.headers(always, sometimes),
            "content": {
                PROBLEM: {
                    "schema": {"anyOf": shapes} if len(shapes) > 1 else shapes[0],
                    "examples": {failure.kind: self._failure(failure) for failure in failures},
                }
            },
        }
        return self._shared("responses", name, refusal)

    def _failure(self, failure: type[Failure]) -> dict[str, Any]:
        document = failure.example().document(self._public_path)
        return self._shared("examples", _name(failure), {"value": orjson.loads(orjson.dumps(document))})


def _name(failure: type[Failure]) -> str:
    return failure.kind.title().replace("-", "")


def without_null(schema: Any) -> Any:
    """Return the schema with no place for null in it."""
    if isinstance(schema, list):
        return [without_null(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    plain = {name: without_null(part) for name, part in schema.items() if not (name == "default" and part is None)}
    if len(plain.get("anyOf", ())) == 1:
        plain = plain.pop("anyOf")[0] | plain
    return plain


def _without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without defaults: generators take what has one for always there, and so for required."""
    if "properties" not in schema:
        return schema
    properties = {
        name: {word: value for word, value in part.items() if word != "default"} if name not in schema.get("required", ()) else part
        for name, part in schema["properties"].items()
    }
    return schema | {"properties": properties}


def _of_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with text wherever anything may stand: a form has nothing else."""
    typed = {"type", "enum", "const", "anyOf", "$ref"}
    properties = {name: part if typed & {*part} else part | {"type": "string"} for name, part in schema["properties"].items()}
    return schema | {"properties": properties}

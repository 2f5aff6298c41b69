"""The document as a judge: every answer that the tests get from an application is held against it."""

import json
import re
from functools import cache, reduce
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

import app
from rest import components, docs_pages

DOCUMENT: dict[str, Any] = json.loads(app.document())
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
REGISTRY: Registry[Any] = Registry().with_resource("urn:document", Resource.opaque(DOCUMENT))
PATHS = {path: re.compile(re.sub(r"\{\w+\}", "[1-9][0-9]{0,18}", path)) for path in DOCUMENT["paths"]}
PAGES = {route.path for route in docs_pages.PAGES}
PROBLEM = {"$ref": "#/components/schemas/Problem"}
NOWHERE = {401, 404, 405}  # what an address or a method that isn't there is answered with; 401 where a token is needed first
faults: list[str] = []  # what was found since the test began


def followed(part: Any) -> Any:
    """Return a part of the document, or what it refers to."""
    if not isinstance(part, dict) or "$ref" not in part:
        return part
    _, *names = part["$ref"].split("/")
    return reduce(lambda whole, name: whole[name], names, DOCUMENT)


def faults_of(method: str, path: str, status: int, headers: Any, body: bytes | None) -> list[str]:
    """Say in what an answer differs from what the document has; `body` is None where nobody knows it."""
    if path in PAGES or (method, status) == (hdrs.METH_OPTIONS, 204):  # a browser's question before a page's request
        return []
    template = next((template for template, pattern in PATHS.items() if pattern.fullmatch(path)), "")
    operation = DOCUMENT["paths"].get(template, {}).get("get" if method == hdrs.METH_HEAD else method.lower())
    if operation is None:
        known = {"headers": {}, "content": {"application/problem+json": {"schema": PROBLEM}}} if status in NOWHERE else None
    else:
        known = followed(operation["responses"].get(str(status)))
    if known is None:
        return [f"the status {status} is not documented"]
    found = []
    for name, header in known["headers"].items():
        if followed(header).get("required") and name not in headers:
            found.append(f"the header {name} is missing")
    found += [
        f"the header {name} is not documented"
        for name in components.HEADERS | app.HEADERS
        if operation and name in headers and name not in known["headers"]
    ]
    content = known.get("content", {}) | known.get("x-other-content", {})
    if not content:
        return [*found, "there is a body"] if body else found
    media_type = headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0]
    if media_type not in content:
        return [*found, f"the type {media_type!r} is not documented"]
    if body is not None and media_type.endswith("json"):
        found += [] if body.endswith(b"\n") else ["it doesn't end with a line feed"]
        found += [
            f"at {error.json_path}: {error.message}"
            for error in validator(json.dumps(content[media_type]["schema"])).iter_errors(json.loads(body))
        ]
    return found


@cache
def validator(schema: str) -> Draft202012Validator:
    """Return the validator of a schema of the document."""
    return Draft202012Validator(json.loads(schema.replace('"#/', '"urn:document#/')), registry=REGISTRY)


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note every fault of every answer; the test that is running fails for it."""
    response = await handler(request)
    body = (response.body or b"") if isinstance(response, web.Response) else None
    found = faults_of(request.method, request.path, response.status, response.headers, body if isinstance(body, bytes | None) else b"")
    faults.extend(f"{request.method} {request.path} {response.status}: {fault}" for fault in found)
    return response

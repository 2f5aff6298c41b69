"""The API documents itself: the document, and the page that shows it."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource

import app
from rest import docs_pages
from rest.errors import Failure
from tests import document
from tests.conftest import Person
from tests.document import followed

DOCUMENT: dict[str, Any] = json.loads(app.document())
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
GUARDED = ("/task", "/change-password", "/revoke-tokens", "/delete-account", "/export", "/import", "/metrics")
METHODS = ("get", "post", "put", "patch", "delete")


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_route_but_the_pages_is_in_the_document() -> None:
    routes = [route for route in app.PUBLIC + app.PRIVATE + app.OPERATORS if route not in docs_pages.PAGES]
    paths = ((re.sub(r":.*?\}(?=/|$)", "}", route.path), route.handler) for route in routes)
    assert {*OPERATIONS} == {(path, method) for path, view in paths for method in METHODS if hasattr(view, method)}
    assert len(OPERATIONS) == sum(hasattr(route.handler, method) for route in routes for method in METHODS)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_has_words_and_refusals(path: str, method: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    assert operation["summary"]
    assert operation["operationId"]
    statuses = set(operation["responses"])
    assert "400" in statuses
    assert ("security" in operation) == path.startswith(GUARDED)
    assert ("401" in statuses) == path.startswith((*GUARDED, "/get-token"))
    assert ("404" in statuses) == ("{id}" in path or path == "/metrics")
    assert ({"413", "415"} <= statuses) == ("requestBody" in operation)
    for response in map(followed, operation["responses"].values()):
        assert response["description"]
        assert "X-Request-ID" in response["headers"]


def test_names_of_operations_are_verbs_for_client_authors_and_stay() -> None:
    assert [DOCUMENT["paths"][path][method]["operationId"] for path, method in OPERATIONS] == [
        "register", "get_token", "reset_password", "check_liveness", "check_readiness", "get_document",
        "change_password", "revoke_tokens", "delete_account",
        "list_tasks", "create_task", "get_task", "update_task_by_post", "update_task_by_put", "update_task", "delete_task",
        "undo", "get_log", "get_task_log", "restore_task", "follow_events",
        "export_account", "import_file", "get_metrics",
    ]  # fmt: skip


def test_groups_of_operations_servers_and_ways_to_say_who_one_is_have_words() -> None:
    used = {tag for path, method in OPERATIONS for tag in DOCUMENT["paths"][path][method]["tags"]}
    assert used == {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(
        part["description"] for part in [*DOCUMENT["tags"], *DOCUMENT["servers"], *DOCUMENT["components"]["securitySchemes"].values()]
    )


def test_every_parameter_has_words() -> None:
    for path, method in OPERATIONS:
        for parameter in map(followed, DOCUMENT["paths"][path][method]["parameters"]):
            assert parameter["in"] == "path" or parameter["description"], (path, parameter["name"])


def test_what_is_one_of_a_few_words_has_a_name() -> None:
    def unnamed(node: Any) -> list[Any]:
        if isinstance(node, list):
            return [found for part in node for found in unnamed(part)]
        if not isinstance(node, dict):
            return []
        return ([node] if isinstance(node.get("enum"), list) else []) + [found for part in node.values() for found in unnamed(part)]

    schemas = DOCUMENT["components"]["schemas"]
    named = {name: schema for name, schema in schemas.items() if "enum" in schema}
    assert {*named} == {"Status", "SortOrder", "ListFormat", "Separator", "LoggedField", "EventKind", "ErrorCode", "SkipCode"}
    assert unnamed([DOCUMENT["paths"], [schema for name, schema in schemas.items() if name not in named]]) == []


def test_nothing_that_may_be_left_out_has_a_default_in_a_body() -> None:
    """Generators would take it for always there."""
    for schema in DOCUMENT["components"]["schemas"].values():
        for name, part in schema.get("properties", {}).items():
            assert "default" not in part or name in schema["required"], (schema["title"], name)


def test_a_refusal_is_said_once() -> None:
    for path, method in OPERATIONS:
        for status, response in DOCUMENT["paths"][path][method]["responses"].items():
            assert (status < "400") == ("$ref" not in response)
    for response in DOCUMENT["components"]["responses"].values():
        assert all("$ref" in example for example in response["content"]["application/problem+json"]["examples"].values())
    shown = [json.dumps(example) for example in DOCUMENT["components"]["examples"].values()]
    assert len({*shown}) == len(shown)


def test_every_example_has_its_schema() -> None:
    registry: Registry[Any] = Registry().with_resource("urn:document", Resource.opaque(DOCUMENT))

    def check(node: Any) -> int:
        if isinstance(node, list):
            return sum(map(check, node))
        if not isinstance(node, dict):
            return 0
        examples = (
            [node["example"]]
            if "example" in node
            else [followed(one)["value"] for one in node.get("examples", {}).values()]
            if "schema" in node
            else []
        )
        for example in examples:
            schema = json.loads(json.dumps(node["schema"]).replace('"#/', '"urn:document#/'))
            Draft202012Validator(schema, registry=registry).validate(example)
        return len(examples) + sum(map(check, node.values()))

    assert check(DOCUMENT["paths"]) > len(OPERATIONS) * 2
    assert check(DOCUMENT["components"]["responses"]) >= len(DOCUMENT["components"]["examples"])


async def test_the_document_is_served_with_a_tag(stranger: Person) -> None:
    answer = await stranger.get("/openapi.json")
    assert (answer.status, answer.json) == (200, DOCUMENT)
    known = await stranger.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (known.status, known.text, known.headers["ETag"]) == (304, "", answer.headers["ETag"])


async def test_the_page_needs_nothing_from_elsewhere(stranger: Person) -> None:
    page = await stranger.get("/docs")
    assert page.headers["Content-Security-Policy"] == docs_pages.POLICY
    assert "//" not in page.text.replace("</", "<")
    for name in docs_pages.FILES:
        assert f"docs/{name}" in page.text
        assert (await stranger.get(f"/docs/{name}")).status == 200


async def test_every_kind_of_problem_is_explained_at_its_address(stranger: Person) -> None:
    page = (await stranger.get("/docs/problems")).text
    kinds = [failure.kind for failure in docs_pages.problems(Failure)]
    assert {"changed-meanwhile", "history-gone", "login-taken"} <= {*kinds}
    for kind in kinds:
        assert f'id="{kind}"' in page


def test_each_failure_has_a_kind_of_its_own_and_an_example() -> None:
    def under(family: type[Failure]) -> list[type[Failure]]:
        return [kind for child in family.__subclasses__() for kind in (child, *under(child))]

    named = [failure for failure in under(Failure) if "kind" in vars(failure)]
    assert len({failure.kind for failure in named}) == len(named) > 25
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", failure.kind) for failure in named)
    for failure in under(Failure):
        example = failure.example()
        assert type(example) is failure
        assert example.document()["type"] == (f"/docs/problems#{failure.kind}" if failure.is_explained else "about:blank")


FINE = {"X-Request-ID": "1", "X-Revision": "7", "X-Purged": "0", "ETag": '"7"', "Content-Type": "application/json; charset=utf-8"}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (("GET", "/task", 200, FINE, b"[]\n"), ""),
        (("GET", "/task", 200, FINE, b"[]"), "it doesn't end with a line feed"),
        (("HEAD", "/task", 200, FINE, None), ""),
        (("GET", "/task", 200, FINE | {"Link": "<>"}, b"[]\n"), ""),
        (("GET", "/task", 200, FINE | {"Location": "/task/1"}, b"[]"), "the header Location is not documented"),
        (("GET", "/task", 200, {**FINE, "Content-Type": "text/plain"}, b"[]"), "the type 'text/plain' is not documented"),
        (("GET", "/task", 200, {name: value for name, value in FINE.items() if name != "ETag"}, b"[]"), "the header ETag is missing"),
        (("GET", "/task", 200, FINE, b'[{"id": 1}]\n'), "at $[0]: 'name' is a required property"),
        (("GET", "/task", 418, FINE, b"[]"), "the status 418 is not documented"),
        (("DELETE", "/task/1", 204, {"X-Request-ID": "1", "X-Revision": "7"}, b"1"), "there is a body"),
        (("GET", "/nowhere", 200, FINE, b"[]"), "the status 200 is not documented"),
    ],
)
def test_the_judge_of_all_answers_sees_every_kind_of_fault(answer: Any, fault: str) -> None:
    assert document.faults_of(*answer)[:1] == [fault] * bool(fault)


async def test_the_judge_stands_before_every_application(stranger: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(document.DOCUMENT["paths"]["/health/live"]["get"]["responses"], "200", None)
    await stranger.get("/health/live")
    assert document.faults == ["GET /health/live 200: the status 200 is not documented"]
    document.faults.clear()

"""Whatever the document gives as an example is answered with success, in a new account, as one would try it on /docs."""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from aiohttp import FormData
from aiohttp.payload import BytesPayload

from tests.conftest import PASSWORD, Answer, Person, hand_out
from tests.document import DOCUMENT, OPERATIONS, followed

ACCOUNT = DOCUMENT["paths"]["/register"]["post"]["requestBody"]["content"]["application/json"]["example"]
TASK = DOCUMENT["paths"]["/task"]["post"]["requestBody"]["content"]["application/json"]["example"]
OPERATOR = "/metrics"  # there only where a token of the operator's is set
SIGN_IN = ("/register", "/get-token")
RESET = DOCUMENT["paths"]["/reset-password"]["post"]["requestBody"]["content"]["application/json"]["example"]


class Call(NamedTuple):
    """An operation with one of its examples: a body, a parameter, or what it needs at least."""

    method: str
    path: str
    media_type: str = ""
    parameter: str = ""
    example: Any = None

    def __str__(self) -> str:
        example = f"{self.parameter}={self.example}" if self.parameter else self.media_type
        return f"{self.method} {self.path} {example}"


def examples(parameter: Any) -> list[Any]:
    schema = followed(parameter["schema"])
    return (
        [parameter["example"]]
        if "example" in parameter
        else parameter["schema"].get("examples", schema.get("examples", schema.get("enum", [])))
    )


def calls() -> Iterator[Call]:
    for path, method in OPERATIONS:
        operation = DOCUMENT["paths"][path][method]
        bodies = operation.get("requestBody", {}).get("content", {})
        for media_type in bodies:
            yield Call(method, path, media_type)
        if not bodies:
            yield Call(method, path)
        for parameter in map(followed, operation["parameters"]):
            for example in examples(parameter) if parameter["in"] != "path" else ():
                yield Call(method, path, next(iter(bodies), ""), parameter["name"], example)


CALLS = [*calls()]


def body(call: Call) -> dict[str, Any]:
    """Return the example of a body as aiohttp's client takes it."""
    if not call.media_type:
        return {}
    example = DOCUMENT["paths"][call.path][call.method]["requestBody"]["content"][call.media_type]["example"]
    if call.media_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        form = FormData(default_to_multipart=call.media_type == "multipart/form-data")
        for name, value in example.items():
            form.add_field(name, value if isinstance(value, str) else json.dumps(value))
        return {"data": form}
    text = example if isinstance(example, str) else json.dumps(example)
    return {"data": BytesPayload(text.encode(), content_type=call.media_type)}


async def send(person: Person, call: Call) -> Answer:
    operation = DOCUMENT["paths"][call.path][call.method]
    path = call.path
    sent: dict[str, dict[str, str]] = {"query": {}, "header": {}}
    for parameter in map(followed, operation["parameters"]):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
        elif parameter["name"] == call.parameter:
            sent[parameter["in"]][call.parameter] = str(call.example)
    if call.parameter == "separator":
        sent["header"]["Accept"] = "text/csv"  # nothing else has one
    return await person(call.method.upper(), path, params=sent["query"], headers=sent["header"], **body(call))


async def without_the_account(stranger: Person) -> None:
    """Delete the account of the examples, if there is one."""
    known = await stranger.post("/get-token", json={name: ACCOUNT[name] for name in ("login", "password")})
    if known.status == 200:
        owner = Person(stranger.client)
        owner.token = known.json["access_token"]
        assert (await owner.post("/delete-account", json={"password": ACCOUNT["password"]})).status == 204


@pytest.mark.parametrize("call", [call for call in CALLS if call.path not in (*SIGN_IN, OPERATOR)], ids=str)
async def test_every_example_is_answered_with_success(alice: Person, sql: Callable[..., Any], call: Call) -> None:
    assert ACCOUNT["password"] == PASSWORD  # alice's, too
    if call.path == "/reset-password":
        hand_out(sql, RESET["code"], alice)
    if call.path != "/import":
        assert (await alice.post("/task", json=TASK)).status == 201
    answer = await send(alice, call)
    assert 200 <= answer.status < 300, answer


@pytest.mark.parametrize("call", [call for call in CALLS if call.path in SIGN_IN], ids=str)
async def test_every_example_without_an_account_is_answered_with_success(stranger: Person, call: Call) -> None:
    await without_the_account(stranger)
    if call.path == "/get-token":
        assert (await stranger.post("/register", json=ACCOUNT)).status == 201
    answer = await send(stranger, call)
    assert 200 <= answer.status < 300, answer


def test_there_is_an_example_of_every_body_and_every_answer() -> None:
    for path, method in OPERATIONS:
        operation = DOCUMENT["paths"][path][method]
        success = next(response for status, response in operation["responses"].items() if status.startswith("2"))
        content = [*operation.get("requestBody", {}).get("content", {}).values(), *success.get("content", {}).values()]
        assert all("example" in part for part in content)


def test_the_operators_operation_has_no_example_of_its_own() -> None:
    assert [str(call) for call in CALLS if call.path == OPERATOR] == ["get /metrics ", "get /metrics X-Request-ID=request-7"]

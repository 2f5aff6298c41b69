"""Nothing that a client sent as a value is sent back, nor a name that may be one; and what is only in the wrong form is told so."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest

import app
from rest import openapi
from rest.values import Confidential
from tests.conftest import Answer, Person
from tests.rest.test_bodies import FORM, JSON, MULTIPART, fields_at_fault, is_problem, multipart, send

SECRET = "hunter2-hunter2"  # it has the form of a name
STRANGE = "hunter2 hunter2"  # it has not
TASK = {"name": "Buy milk", "description": "", "status": "new"}
OF_PASSWORDS = ("/register", "/get-token", "/change-password", "/delete-account")


def echoes(answer: Answer) -> bool:
    """Return whether an answer has anything of the secrets, in its headers or body."""
    return "hunter2" in (answer.text + str(dict(answer.headers))).lower()


def forms_of(name: str, value: str = "x") -> list[tuple[str, bytes]]:
    file = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n{value}\r\n--b--\r\n'.encode()
    return [
        (JSON, json.dumps({name: value}).encode()),
        (FORM, urlencode({name: value}).encode()),
        (MULTIPART, multipart((name, value))),
        (MULTIPART, file),
    ]


@pytest.mark.parametrize("path", ["/register", "/get-token"])
async def test_json_under_a_form_s_type_is_told_so(stranger: Person, path: str) -> None:
    """It is what curl sends where nobody says what it is."""
    body = json.dumps({"login": "alice", "password": SECRET}).encode()
    for sent in (body, b" \r\n" + body, b"\xef\xbb\xbf" + body, quote(body).encode(), b"[" + body + b"]", body.replace(b":", b"&" * 200)):
        answer = await send(stranger, FORM, sent, "POST", path)
        is_problem(answer, 400)
        assert "send Content-Type: application/json" in answer.json["detail"]
        assert not echoes(answer)
        assert "errors" not in answer.json


@pytest.mark.parametrize("path", OF_PASSWORDS)
async def test_a_call_that_takes_a_password_shows_no_name_that_it_does_not_know(alice: Person, path: str) -> None:
    for name in (SECRET, STRANGE):
        for kind, body in forms_of(name):
            answer = await send(alice, kind, body, "POST", path)
            assert "body" in fields_at_fault(answer)
            assert not echoes(answer), answer
        answer = await alice.post(f"{path}?{quote(name)}=x", json={})
        assert fields_at_fault(answer) == {"query"}
        assert not echoes(answer), answer


def test_every_call_that_takes_a_password_is_one_of_them() -> None:
    declared = [operation for route in app.PUBLIC + app.PRIVATE for _, operation in openapi.operations(route) if operation.body]
    takes = {one.name for one in declared if {"password", "old", "new", "code", "invitation"} & {*one.body.model_fields}}
    assert takes == {one.name for one in declared if issubclass(one.body, Confidential)}  # type: ignore[arg-type]
    assert len(takes) >= len(OF_PASSWORDS)


async def test_an_unknown_name_is_shown_only_where_it_can_be_a_name(alice: Person) -> None:
    await alice.new_task()
    for name in (STRANGE, "hunter2=", "2hunter2", "hunter2" * 10, "hünter2hunter2", '{"hunter2'):
        for kind, body in forms_of(name):
            if kind != FORM or not name.startswith("{"):
                answer = await send(alice, kind, body, "PATCH", "/task/1")
                assert fields_at_fault(answer) == {"body"}, (kind, name)
                assert not echoes(answer), answer
        answer = await alice.get(f"/task?{quote(name)}=x")
        assert fields_at_fault(answer) == {"query"}
        assert not echoes(answer), answer
    for name in ("nmae", "_x", "X-y_9", "x" * 64):
        for kind, body in forms_of(name):
            assert fields_at_fault(await send(alice, kind, body, "PATCH", "/task/1")) == {name}
        assert fields_at_fault(await alice.get(f"/task?{name}=x")) == {name}


async def test_names_that_are_not_shown_are_told_of_once(alice: Person) -> None:
    answer = await send(alice, FORM, b"a%20b=1&a%20c=2&a%20b=3", "PATCH", "/task/1")
    [error] = answer.json["errors"]
    assert (error["field"], error["code"]) == ("body", "unknown_field")


FIELDS = ("name", "description", "status", "completion_at", "id", "revision")
PARAMETERS = (
    *("status", "completion_at", "completion_from", "completed_from", "sort", "limit", "cursor", "format", "since", "at", "revision"),
    *("deleted", "completion_to", "completed_to"),
)


async def test_no_value_is_sent_back(alice: Person) -> None:
    await alice.new_task()
    refusals = [await send(alice, kind, body, "PATCH", "/task/1") for name in FIELDS[2:] for kind, body in forms_of(name, SECRET)]
    refusals += [await alice.get("/task", params={name: SECRET}) for name in PARAMETERS]
    refusals += [await alice.post("/get-token", json={"login": STRANGE, "password": SECRET, "expires_in": SECRET})]
    refusals += [await alice.post("/register", json={"login": SECRET, "password": SECRET})]
    for header in ("If-Match", "If-None-Match", "Idempotency-Key", "Content-Type", "Content-Encoding", "Authorization"):
        method, path = ("GET", "/task/1") if header == "If-None-Match" else ("POST", "/task")
        sent: dict[str, Any] = {"headers": {header: STRANGE}} | ({} if method == "GET" else {"data": json.dumps(TASK)})
        refusals.append(await alice(method, "/task/1" if header == "If-Match" else path, **sent))
    refusals += [await alice(method, f"/{SECRET}/{SECRET}?{SECRET}", headers={"Host": f"{SECRET}.example"}) for method in ("GET", "POST")]
    for answer in refusals:
        assert 400 <= answer.status < 500, answer
        assert not echoes(answer), answer


FILES = [
    ("text/csv", f"{SECRET}\r\n"),
    ("text/csv", f"name,description,status\r\n{SECRET},,{SECRET}\r\n"),
    ("text/csv", f"name,description,status,completion_at\r\n{SECRET},,new,{SECRET}\r\n"),
    ("text/csv", f"name,description,status\r\n{SECRET},{SECRET}\r\n"),
    (
        "text/calendar",
        f"BEGIN:VCALENDAR\nBEGIN:VTODO\nSUMMARY:{SECRET}\nSTATUS:{SECRET}\nDUE:{SECRET}\nRRULE:{SECRET}\nEND:VTODO\nEND:VCALENDAR",
    ),
    ("text/calendar", SECRET),
    ("text/calendar", f"BEGIN:{STRANGE}"),
    ("text/calendar", "BEGIN:VCALENDAR\nBEGIN:2hunter2"),
    ("application/json", json.dumps({STRANGE: {}})),
    ("application/json", json.dumps({"tasks": [{STRANGE: SECRET, "id": SECRET, "status": SECRET}]})),
    ("application/json", f'{{"log": [{{"field": "{SECRET}", "{STRANGE}": 1, "{STRANGE}": 2}}]}}'),
    ("application/json", json.dumps({"log": [{"task_id": 1, "revision": 1, "field": "status", "old": SECRET, "new": SECRET}]})),
    ("application/json", SECRET),
]


@pytest.mark.parametrize(("kind", "text"), FILES)
async def test_no_value_of_a_file_is_sent_back(newcomer: Callable[[str], Any], kind: str, text: str) -> None:
    answer = await (await newcomer("alice")).post("/import", data=text.encode(), headers={"Content-Type": kind})
    is_problem(answer, 400)
    assert not echoes(answer), answer

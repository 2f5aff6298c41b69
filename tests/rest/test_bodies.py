"""Bodies, dates and errors: how anything is sent, and what every answer has, whatever it is about."""

import asyncio
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient

from tasks import store
from tests.conftest import Answer, Person, configured
from tests.waiting import PATIENCE_SECONDS, connected

FORM, MULTIPART, JSON = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "application/json"
TASK = {"name": "Buy milk", "description": "", "status": "new"}
PHRASES = {413: "Content Too Large"}  # RFC 9110, section 15.5.14; Python 3.11 has an older one
SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

Sql = Callable[..., list[tuple[Any, ...]]]


async def exchange(client: TestClient[Any, Any], *sent: bytes) -> bytes:
    """Send bytes, each after something was answered to those before, and give all that comes back before the connection is closed."""
    received = b""
    async with connected(client) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        for n, part in enumerate(sent):
            if n:
                received += await reader.read(65536)
            writer.write(part)
            await writer.drain()
        received += await reader.read()
    return received


def request_of(person: Person, line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: x", "Connection: close", f"Authorization: Bearer {person.token}", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


def part(name: str, value: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f'Content-Disposition: form-data; name="{name}"', *headers])
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def multipart(*pairs: tuple[str, str]) -> bytes:
    return b"".join(part(name, value.encode()) for name, value in pairs) + b"--b--\r\n"


def encode(kind: str, *pairs: tuple[str, str]) -> bytes:
    """Write the fields in one of the three types, repetitions included."""
    if kind == FORM:
        return urlencode(pairs).encode()
    if kind == MULTIPART:
        return multipart(*pairs)
    return ("{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}").encode()


async def send(person: Person, kind: str, body: bytes, method: str = "POST", path: str = "/task") -> Answer:
    return await person(method, path, data=body, headers={"Content-Type": kind})


def fields_at_fault(answer: Answer) -> set[str]:
    is_problem(answer, 400)
    return {error["field"] for error in answer.json["errors"]}


def is_problem(answer: Answer, status: int, kind: str = "about:blank") -> None:
    """Assert that this is the error, with all that an error has and nothing else."""
    assert answer.status == status, answer.text[:300]
    assert answer.headers["Content-Type"].partition(";")[0] == "application/problem+json"
    members = set(answer.json) - ({"current", "changed"} if status == 412 else {"errors"})
    assert members == {"type", "title", "status", "detail"}
    assert (answer.json["type"], answer.json["title"], answer.json["status"]) == (
        kind,
        PHRASES.get(status) or HTTPStatus(status).phrase,
        status,
    )
    assert answer.json["detail"]
    for error in answer.json.get("errors", []):
        assert {*error} - {"params"} == {"field", "code", "message"}
        assert error["message"]
    leaks = re.compile(
        r"traceback|exception|psycopg|peewee|pydantic|aiohttp|\.py\b|, line \d|\bselect\b|\binsert\b|object at 0x", re.IGNORECASE
    )
    assert not leaks.search(answer.text), answer.text


every_type = pytest.mark.parametrize("kind", [FORM, MULTIPART, JSON], ids=["form", "multipart", "json"])


# The three types


TEXTS = [
    "Buy milk",
    "Zürich, Москва, 東京, 🥛👩‍👩‍👧",
    "a+b & c=d; 100 % %41 %2B ?#",
    'say "hi" \\ \\u0041 {}[]',
    "--x\r\n--x--\r\nContent-Type: text/plain\r\n\r\n",
    "  \t in between \t ",
    "one\ntwo\r\nthree\rfour\n",
    "\x01\x07\x1b\x7f\x80\x85",
    "\ufeff\u200b\u2028\uffff\ufdd0\U0010ffff\ue000",
    "'; DROP TABLE task; -- %s %(name)s $1",
    "null",
]


@every_type
async def test_text_comes_back_as_it_was_sent_in_any_type(alice: Person, kind: str) -> None:
    for text in TEXTS:
        fields = {"name": text, "description": text, "status": "planned", "completion_at": "02-10-2020"}
        created = await send(alice, kind, encode(kind, *fields.items()))
        assert (created.status, {name: created.json.get(name) for name in fields}) == (201, fields)
        assert (await alice.get(created.headers["Location"])).json == created.json


@every_type
async def test_a_change_means_the_same_in_any_type(alice: Person, kind: str) -> None:
    await alice.new_task(completion_at="02-10-2020", description="kept")
    changed = await send(alice, kind, encode(kind, ("name", "new name"), ("completion_at", "")), "PATCH", "/task/1")
    assert changed.status == 200, changed
    assert (changed.json["name"], changed.json["completion_at"], changed.json["description"]) == ("new name", None, "kept")


async def test_the_client_s_own_forms_are_read(alice: Person) -> None:
    data = FormData(default_to_multipart=True)
    for name, value in TASK.items():
        data.add_field(name, value)
    assert [(await alice.post("/task", **body)).status for body in ({"data": data}, {"data": TASK}, {"json": TASK})] == [201, 201, 201]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (JSON, ["", ";charset=utf-8", "; charset=bogus", "; charset=rot13", '; charset="latin-1"']),
        (FORM, ["", "; charset=UTF-8", "; charset=bogus", "; charset=koi8-r"]),
        (MULTIPART, ["", "; charset=utf-16"]),
    ],
)
async def test_a_body_is_utf_8_whatever_its_charset_says(alice: Person, kind: str, parameters: list[str]) -> None:
    body = encode(kind, *(TASK | {"name": "молоко"}).items())
    for parameter in parameters:
        for written in (kind, kind.title().replace("Boundary=B", "boundary=b")):
            answer = await send(alice, written + parameter, body)
            assert (answer.status, answer.json.get("name")) == (201, "молоко"), (written, parameter)


async def test_a_text_part_s_other_headers_are_ignored(alice: Person) -> None:
    """RFC 7578, section 4.8."""
    for header in ("Content-Type: text/plain; charset=koi8-r", "Content-Encoding: gzip", "Content-Length: 1000", "X-Other: y"):
        body = b"".join(part(name, value.encode(), header) for name, value in (TASK | {"name": "молоко"}).items()) + b"--b--"
        answer = await send(alice, MULTIPART, body)
        assert (answer.status, answer.json.get("name")) == (201, "молоко"), header


async def test_a_file_is_refused_by_its_field_s_name(alice: Person) -> None:
    others = part("name", b"Buy milk") + part("status", b"new") + b"--b--\r\n"
    for filename in ('filename="milk.txt"', 'filename=""', "filename=x"):
        file = (
            b'--b\r\nContent-Disposition: form-data; name="description"; '
            + filename.encode()
            + b"\r\nContent-Type: text/plain\r\n\r\ntext\r\n"
        )
        assert fields_at_fault(await send(alice, MULTIPART, file + others)) == {"description"}
    assert (await send(alice, MULTIPART, part("description", b"text") + others)).status == 201


OTHER_TYPES = [
    *("text/plain", "text/json", "application/xml", "application/jsonp", "application/vnd.api+json", "application/octet-stream"),
    *("multipart/mixed; boundary=b", "json", "/", "", "*/*"),
]


@every_type
async def test_a_body_of_another_type_is_415(alice: Person, kind: str) -> None:
    body = encode(kind, *TASK.items())
    for other in OTHER_TYPES:
        is_problem(await send(alice, other, body), 415)
    assert (await send(alice, kind, body)).status == 201


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x", "identity, gzip", "gzip, identity", "identity;q=1"])
async def test_a_body_in_any_content_encoding_is_415(alice: Person, coding: str) -> None:
    for kind in (FORM, MULTIPART, JSON):
        body = encode(kind, *TASK.items())
        answer = await exchange(
            alice.client, request_of(alice, "POST /task", f"Content-Type: {kind}", f"Content-Encoding: {coding}", body=body)
        )
        assert answer.startswith(b"HTTP/1.1 415 "), answer
        assert b"application/problem+json" in answer
        assert b"Accept-Encoding: identity\r\n" in answer
        assert (await send(alice, kind, body)).status == 201


@pytest.mark.parametrize("codings", [["identity"], ["Identity"], ["identity, IDENTITY"], ["identity", "identity"], [""], [" , identity,"]])
async def test_identity_is_no_coding(alice: Person, codings: list[str]) -> None:
    headers = [f"Content-Encoding: {coding}" for coding in codings]
    for kind, path, body in (
        *((kind, "/task", encode(kind, *TASK.items())) for kind in (FORM, MULTIPART, JSON)),
        ("text/csv", "/import", b"name,description,status\nBuy milk,,new\n"),
    ):
        answer = await exchange(alice.client, request_of(alice, f"POST {path}", f"Content-Type: {kind}", *headers, body=body))
        assert answer.startswith((b"HTTP/1.1 201 ", b"HTTP/1.1 200 ")), answer


async def test_a_415_says_which_types_are_taken(alice: Person) -> None:
    await alice.new_task()
    taken = "application/x-www-form-urlencoded, multipart/form-data, application/json"
    for method, path, name, types in (
        ("POST", "/task", "Accept", taken),
        ("POST", "/register", "Accept", taken),
        ("PUT", "/task/1", "Accept", taken),
        ("PATCH", "/task/1", "Accept-Patch", taken),
        ("POST", "/import", "Accept", "application/json, text/csv, text/calendar"),
    ):
        answer = await send(alice, "text/plain", b"x", method, path)
        is_problem(answer, 415)
        assert {header: answer.headers[header] for header in answer.headers if header.startswith("Accept")} == {name: types}


async def test_a_byte_order_mark_before_json_is_ignored(alice: Person) -> None:
    """RFC 8259, section 8.1. Before a form it is a part of the first name (WHATWG URL, section 5.1)."""
    for kind, status in ((JSON, 201), (FORM, 400)):
        assert (await send(alice, kind, b"\xef\xbb\xbf" + encode(kind, *TASK.items()))).status == status


async def test_a_body_without_a_type_is_415(alice: Person) -> None:
    answer = await exchange(alice.client, request_of(alice, "POST /task", body=json.dumps(TASK).encode()))
    assert answer.startswith(b"HTTP/1.1 415 ")


@pytest.mark.parametrize("headers", [[], [f"Content-Type: {FORM}"]], ids=str)
async def test_no_body_and_no_type_is_an_empty_form(alice: Person, headers: list[str]) -> None:
    await alice.new_task()
    assert (await exchange(alice.client, request_of(alice, "PATCH /task/1", *headers))).startswith(b"HTTP/1.1 200 ")
    refusal = await exchange(alice.client, request_of(alice, "POST /task", *headers))
    assert refusal.startswith(b"HTTP/1.1 400 ")
    problem = json.loads(refusal.partition(b"\r\n\r\n")[2])
    assert [error["field"] for error in problem["errors"]] == ["name", "description", "status"]


# Fields at fault, all of them in one answer


@every_type
async def test_every_field_at_fault_is_named_in_one_answer(alice: Person, kind: str) -> None:
    pairs = [("nmae", "x"), ("status", "new"), ("status", "new"), ("completion_at", "31-02-2020"), ("id", "1"), ("name", "")]
    assert fields_at_fault(await send(alice, kind, encode(kind, *pairs))) == {
        "nmae",
        "status",
        "completion_at",
        "id",
        "name",
        "description",
    }
    assert (await alice.get("/task")).json == []


async def test_every_query_parameter_at_fault_is_named_in_one_answer(alice: Person) -> None:
    query = "nmae=x&status=old&limit=1&limit=1&completion_from=&sort=up&cursor="
    assert fields_at_fault(await alice.get(f"/task?{query}")) == {"nmae", "status", "limit", "completion_from", "sort", "cursor"}


@every_type
async def test_a_repeated_field_is_refused_even_with_the_same_value(alice: Person, kind: str) -> None:
    pairs = [*(TASK | {"completion_at": "02-10-2020"}).items()]
    for again in pairs:
        for repeated in ([*pairs, again], [again, *pairs], [again, again, *pairs]):
            assert fields_at_fault(await send(alice, kind, encode(kind, *repeated))) == {again[0]}
    assert (await send(alice, kind, encode(kind, *pairs))).status == 201


@pytest.mark.parametrize("name", [*TASK, "completion_at"])
async def test_a_field_of_a_wrong_json_type_is_named(alice: Person, name: str) -> None:
    for value in (0, 1, 20201002, 1.5, 1e400, True, False, None, [], ["new"], {}, {"a": "b"}):
        body = json.dumps(TASK | {name: value}).replace("Infinity", "1e400").encode()
        if (name, value) == ("completion_at", None):
            continue  # which clears it
        assert fields_at_fault(await send(alice, JSON, body)) == {name}, value


@every_type
async def test_only_the_four_statuses_are_statuses(alice: Person, kind: str) -> None:
    for status in ("", "New", "NEW", " new", "new ", "done", "new,planned", "0", "Новая", "in work", "null"):
        assert fields_at_fault(await send(alice, kind, encode(kind, *(TASK | {"status": status}).items()))) == {"status"}


@every_type
async def test_an_unknown_field_is_named(alice: Person, kind: str) -> None:
    for name in ("user_id", "created_revision", "deleted_at", "revision", "_charset_", "__proto__", "Name"):
        for pairs in ([*TASK.items(), (name, "1")], [(name, "1"), *TASK.items()]):
            assert fields_at_fault(await send(alice, kind, encode(kind, *pairs))) == {name}


async def test_thousands_of_fields_at_fault_make_no_long_answer(alice: Person) -> None:
    for query in ("&".join(f"{'x' * 60}{n}=" for n in range(100)), "&" * 5000):
        assert len((await alice.get(f"/task?{query}")).text) < 50_000


@every_type
async def test_more_than_a_hundred_fields_are_refused(alice: Person, kind: str) -> None:
    few, many = ([(f"x{n}", "") for n in range(count)] for count in (100, 101))
    assert len(fields_at_fault(await send(alice, kind, encode(kind, *few)))) == 100
    is_problem(await send(alice, kind, encode(kind, *many)), 400)
    is_problem(await send(alice, kind, encode(kind, *many * 10)), 400)


# What is no text, and what is no body


@pytest.mark.parametrize("name", [*TASK, "completion_at"])
async def test_nul_and_lone_surrogates_are_refused(alice: Person, name: str) -> None:
    for escape in ("\\u0000", "a\\u0000b", "\\ud800", "a\\udfff", "\\ude00\\ud83d", "\\ud83d"):
        body = json.dumps(TASK | {name: "HERE"}).replace("HERE", escape).encode()
        assert fields_at_fault(await send(alice, JSON, body)) == {name}, escape
    for kind in (FORM, MULTIPART):
        assert fields_at_fault(await send(alice, kind, encode(kind, *(TASK | {name: "a\0b"}).items()))) == {name}


async def test_names_that_are_no_text_are_unknown_ones(alice: Person) -> None:
    for escape in ("\\u0000", "\\ud800", "\\udfff\\u0000"):
        answer = await send(alice, JSON, json.dumps(TASK | {"HERE": 1}).replace("HERE", escape).encode())
        assert len(fields_at_fault(answer)) == 1


NO_UTF_8 = {
    "a lone byte": b"\xff",
    "a cut character": b"\xd0",
    "an overlong one": b"\xc0\x80",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "latin-1": b"caf\xe9",
}


@pytest.mark.parametrize("bad", NO_UTF_8.values(), ids=NO_UTF_8)
async def test_what_is_not_utf_8_is_refused(alice: Person, bad: bytes) -> None:
    percent = b"".join(b"%%%02x" % byte for byte in bad)
    for kind, value in ((JSON, bad), (FORM, bad), (FORM, percent), (MULTIPART, bad)):
        for name in ("name", "HERE"):
            body = encode(kind, *(TASK | {name: "HERE"}).items()).replace(b"HERE", value)
            is_problem(await send(alice, kind, body), 400)
            assert (await send(alice, kind, body.replace(value, b"name" if name == "HERE" else b"text"))).status in (201, 400)
    assert (await alice.get("/task", params={"q": "milk"})).status == 200
    for query in (b"q=" + percent, percent + b"=x", b"q=" + bad):
        answer = await exchange(alice.client, request_of(alice, "GET /task?HERE").replace(b"HERE", query))
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer[:300]


async def test_nul_is_refused_in_the_query(alice: Person) -> None:
    for query in ("q=%00", "cursor=%00", "status=%00", "%00=x", "limit=%00", "sort=%00", "completion_at=%00", "completed_from=%00"):
        answer = await exchange(alice.client, request_of(alice, f"GET /task?{query}"))
        assert answer.startswith(b"HTTP/1.1 400 "), query


NO_JSON = {
    "nothing": b"",
    "a space": b" ",
    "an open object": b"{",
    "a cut object": b'{"name": "x"',
    "a comma too many": b'{"name": "x",}',
    "single quotes": b"{'name': 'x'}",
    "a comment": b'{} // "x"',
    "two objects": b"{}{}",
    "a list": b"[]",
    "a list of pairs": b'[["name", "x"]]',
    "a list of objects": b"[{}]",
    "text": b'"name"',
    "a number": b"1",
    "true": b"true",
    "null": b"null",
    "an empty text": b'""',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "a byte order mark alone": b"\xef\xbb\xbf",
    "utf-16": "{}".encode("utf-16"),
    "utf-32": "{}".encode("utf-32"),
    "a raw NUL": b'{"name": "\0"}',
    "a raw line break": b'{"name": "\n"}',
    "NaN": b'{"created_at": NaN}',
    "Infinity": b'{"created_at": Infinity}',
    "-Infinity": b'{"created_at": -Infinity}',
    "a number of 5000 digits": b'{"created_at": ' + b"9" * 5000 + b"}",
    "a revision of 5000 digits": b'{"revision": ' + b"9" * 5000 + b"}",
    "a deep list": b"[" * 100_000,
    "a deep object": b'{"created_at":' * 8_000,
    "a deep value": b'{"created_at": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a bad escape": b'{"name": "\\x"}',
    "a cut escape": b'{"name": "\\u12"}',
    "a form": b"name=x",
}


async def test_what_is_no_json_object_is_refused(alice: Person) -> None:
    await alice.new_task()
    answers = {name: await send(alice, JSON, body, "PATCH", "/task/1") for name, body in NO_JSON.items()}
    assert {name: answer.text for name, answer in answers.items() if answer.status != 400 or "errors" in answer.json} == {}
    assert (await send(alice, JSON, b"{}", "PATCH", "/task/1")).status == 200


async def test_absurd_numbers_in_json_name_their_field(alice: Person) -> None:
    await alice.new_task()
    for value in (b"9" * 4000, b"-1", b"1e400", b"1.0", b"0", b"9223372036854775808", b'"1"', b"true", b"null", b"[" * 300 + b"]" * 300):
        body = b'{"revision": %s, "id": %s}' % (value, value)
        assert fields_at_fault(await send(alice, JSON, body, "PATCH", "/task/1")) == {"revision", "id"}, value[:20]


DISPOSITION = b"Content-Disposition: form-data"
BROKEN_MULTIPART = {
    "nothing": b"",
    "no boundary": b"name=x",
    "another boundary": b'--c\r\n%s; name="name"\r\n\r\nx\r\n--c--\r\n' % DISPOSITION,
    "only an opening": b"--b\r\n",
    "an open part": b'--b\r\n%s; name="name"\r\n\r\nx' % DISPOSITION,
    "a part without an end": b'--b\r\n%s; name="name"\r\n\r\nx\r\n' % DISPOSITION,
    "cut in the headers": b"--b\r\n%s; na" % DISPOSITION,
    "no headers": b"--b\r\n\r\nx\r\n--b--\r\n",
    "no disposition": b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n",
    "no name": b"--b\r\n%s\r\n\r\nx\r\n--b--\r\n" % DISPOSITION,
    "an attachment": b"--b\r\nContent-Disposition: attachment\r\n\r\nx\r\n--b--\r\n",
    "a header of no form": b'--b\r\nno colon\r\n%s; name="name"\r\n\r\nx\r\n--b--\r\n' % DISPOSITION,
    "a header that is bytes": b'--b\r\n\xff\xfe: \xff\r\n%s; name="name"\r\n\r\nx\r\n--b--\r\n' % DISPOSITION,
    "a name that is bytes": b'--b\r\n%s; name="\xff"\r\n\r\nx\r\n--b--\r\n' % DISPOSITION,
    "an open quote": b'--b\r\n%s; name="name\r\n\r\nx\r\n--b--\r\n' % DISPOSITION,
    "a long header": b'--b\r\nX: %s\r\n%s; name="name"\r\n\r\nx\r\n--b--\r\n' % (b"x" * 20_000, DISPOSITION),
    "many headers": b'--b\r\n%s%s; name="name"\r\n\r\nx\r\n--b--\r\n' % (b"X: y\r\n" * 1000, DISPOSITION),
    "a nested form": b'--b\r\n%s; name="name"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n--b--\r\n'
    % DISPOSITION,
    "a picture": b'--b\r\n%s; name="name"\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n' % DISPOSITION,
    "deeply nested forms": b"".join(
        b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (n, n + 1) for n in range(500)
    ).replace(b"--b0\r", b"--b\r"),
    "another transfer encoding": b'--b\r\n%s; name="name"\r\nContent-Transfer-Encoding: x-y\r\n\r\nx\r\n--b--\r\n' % DISPOSITION,
    "base64": b'--b\r\n%s; name="name"\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n--b--\r\n' % DISPOSITION,
    "bare line feeds": b'--b\n%s; name="name"\n\nx\n--b--\n' % DISPOSITION,
    "bytes": bytes(range(256)),
    "boundaries": b"--b\r\n" * 20_000,
}


async def test_a_broken_multipart_is_refused(alice: Person) -> None:
    await alice.new_task(name="before")
    answers = {name: await send(alice, MULTIPART, body, "PATCH", "/task/1") for name, body in BROKEN_MULTIPART.items()}
    assert {name: answer.text for name, answer in answers.items() if answer.status != 400} == {}
    assert (await alice.get("/task/1")).json["name"] == "before"
    assert (await send(alice, MULTIPART, multipart(("name", "after")), "PATCH", "/task/1")).json["name"] == "after"


async def test_a_multipart_with_no_right_boundary_is_refused(alice: Person) -> None:
    await alice.new_task()
    for boundary, status in (("b", 200), ("b" * 70, 200), ("b" * 71, 400), ("", 400), ("\x80", 400)):  # RFC 2046, section 5.1.1
        body = multipart(("name", "after")).replace(b"--b", b"--" + boundary.encode("latin-1"))
        for written in (boundary, f'"{boundary}"'):
            header = f"Content-Type: multipart/form-data; boundary={written}"
            answer = await exchange(alice.client, request_of(alice, "PATCH /task/1", header, body=body))
            assert answer.startswith(b"HTTP/1.1 %d " % status), written
    is_problem(await send(alice, "multipart/form-data", multipart(("name", "after")), "PATCH", "/task/1"), 400)


# Unicode


IN_NFC = {
    "e\N{COMBINING ACUTE ACCENT}": "é",
    "\u1112\u1161\u11ab": "한",
    "\N{ANGSTROM SIGN}": "Å",
    "\N{DEVANAGARI LETTER QA}": "\N{DEVANAGARI LETTER KA}\N{DEVANAGARI SIGN NUKTA}",
    "q\u0307\u0323": "q\u0323\u0307",
    "ﬁ ① Ⅷ ｆｕｌｌ x² … \xa0": "ﬁ ① Ⅷ ｆｕｌｌ x² … \xa0",  # which NFKC would change
}


@every_type
async def test_text_is_stored_in_nfc_and_otherwise_unchanged(alice: Person, kind: str) -> None:
    for sent, stored in IN_NFC.items():
        task = (await send(alice, kind, encode(kind, *(TASK | {"name": sent, "description": sent}).items()))).json
        assert (task["name"], task["description"]) == (stored, stored)


@pytest.mark.parametrize(("name", "most"), [("name", 200), ("description", 10_000)])
async def test_lengths_count_code_points_after_nfc(alice: Person, name: str, most: int) -> None:
    for character, length_in_nfc in (
        ("x", 1),
        ("\N{GRINNING FACE}", 1),
        ("e\N{COMBINING ACUTE ACCENT}", 1),
        ("\N{DEVANAGARI LETTER QA}", 2),
        ("q\u0323", 2),
    ):
        longest = character * (most // length_in_nfc)
        assert (await send(alice, JSON, json.dumps(TASK | {name: longest}, ensure_ascii=False).encode())).status == 201, ascii(character)
        assert fields_at_fault(await send(alice, JSON, json.dumps(TASK | {name: longest + "x"}, ensure_ascii=False).encode())) == {name}


# Dates and moments


DATES = {
    "02-10-2020": "02-10-2020",
    "2020-10-02": "02-10-2020",
    "29-02-2024": "29-02-2024",
    "2000-02-29": "29-02-2000",
    "01-01-1900": "01-01-1900",
    "1900-01-01": "01-01-1900",
    "31-12-9999": "31-12-9999",
    "9999-12-31": "31-12-9999",
}


@every_type
async def test_a_date_is_taken_in_both_forms_and_shown_in_one(alice: Person, kind: str) -> None:
    for sent, shown in DATES.items():
        task = (await send(alice, kind, encode(kind, *TASK.items(), ("completion_at", sent)))).json
        assert task["completion_at"] == shown
        again = await send(alice, kind, encode(kind, ("completion_at", task["completion_at"])), "PATCH", f"/task/{task['id']}")
        assert (again.status, again.json) == (200, task)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, b"completion_at="),
        (MULTIPART, multipart(("completion_at", ""))),
        (JSON, b'{"completion_at": ""}'),
        (JSON, b'{"completion_at": null}'),
    ],
)
async def test_an_empty_or_null_date_clears_it(alice: Person, kind: str, body: bytes) -> None:
    await alice.new_task(completion_at="02-10-2020")
    assert (await send(alice, kind, body, "PATCH", "/task/1")).json["completion_at"] is None
    assert (await alice.new_task(completion_at=None))["completion_at"] is None
    assert (await alice.new_task(completion_at=""))["completion_at"] is None


NO_DATES = (
    *(
        "31-02-2020",
        "2020-02-31",
        "29-02-2021",
        "29-02-1900",
        "2100-02-29",
        "31-04-2020",
        "00-01-2020",
        "01-00-2020",
        "32-01-2020",
        "01-13-2020",
        "2020-00-10",
        "2020-10-00",
    ),
    *("31-12-1899", "1899-12-31", "01-01-0001", "0000-01-01", "01-01-0000", "10000-01-01", "01-01-10000", "-0001-01-01", "0044-03-15 BC"),
    *(
        "2-10-2020",
        "02-1-2020",
        "02-10-20",
        "2020-1-02",
        "2020-10-2",
        "20-10-02",
        "20201002",
        "2020-W40-5",
        "2020-276",
        "02102020",
        "002-10-2020",
    ),
    *(
        "02/10/2020",
        "02.10.2020",
        "2020/10/02",
        "02 10 2020",
        "02-10-2020 ",
        " 02-10-2020",
        "02-10-2020\n",
        "02–10–2020",
        "+2-10-2020",
        "2020-10-02T00:00:00Z",
        "2020-10-02T00:00",
    ),
    *("٠٢-١٠-٢٠٢٠", "０２-１０-２０２０", "today", "now", "infinity", "epoch", "none", "null", "0", "1601596800", " ", "02-окт-2020"),
)


@pytest.mark.parametrize("kind", [FORM, JSON], ids=["form", "json"])
async def test_what_no_calendar_has_is_no_date(alice: Person, kind: str) -> None:
    accepted = []
    for date in NO_DATES:
        answer = await send(alice, kind, encode(kind, *TASK.items(), ("completion_at", date)))
        if answer.status != 400 or fields_at_fault(answer) != {"completion_at"}:
            accepted.append((date, answer))
    assert accepted == []
    assert (await alice.new_task(completion_at="02-10-2020"))["id"] == 1


async def test_moments_are_rfc_3339_in_utc_with_microseconds(alice: Person, sql: Sql) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    task = await alice.new_task(status="completed")
    await alice.patch("/task/1", json={"name": "changed"})
    [entry] = (await alice.get("/task/1/log")).json
    for moment in (task["created_at"], task["updated_at"], task["completed_at"], entry["changed_at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", moment)
        assert abs((datetime.fromisoformat(moment) - before).total_seconds()) < 60
    assert alice.caller
    sql("UPDATE task SET look = 0, updated_at = '2026-11-24T12:30:00+03' WHERE user_id = %s", alice.caller.user_id)
    assert (await alice.get("/task/1")).json["updated_at"] == "2026-11-24T09:30:00.000000Z"


# Answers


async def test_answers_are_json_in_utf_8(alice: Person, stranger: Person) -> None:
    await alice.new_task(name="молоко")
    answers = [
        await alice.get("/task"),
        await alice.get("/task/1"),
        await alice.get("/task/1/log"),
        await alice.post("/task", json=TASK),
        await alice.patch("/task/1", json={"name": "м"}),
    ]
    answers += [await stranger.get("/health/live"), await stranger.post("/register", json={"login": "json-in-utf-8", "password": "x" * 8})]
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/json; charset=utf-8"}
    deleted = await alice.delete("/task/1")
    assert (deleted.status, deleted.text, "Content-Type" in deleted.headers) == (204, "", False)


async def broken(*_: object) -> None:
    raise RuntimeError("SELECT secret FROM database at /srv/secret.py line 7")


REFUSALS: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "400 for a field": (400, "POST", "/task", {"json": {}}),
    "400 for a query": (400, "GET", "/task", {"params": {"x": "y"}}),
    "400 for a body": (400, "POST", "/task", {"data": b"{", "headers": {"Content-Type": JSON}}),
    "400 for a header": (400, "PATCH", "/task/1", {"json": {}, "headers": {"If-Match": "x"}}),
    "401": (401, "GET", "/task", {"headers": {"Authorization": "x"}}),
    "401 for a bad token": (401, "GET", "/task", {"headers": {"Authorization": "Bearer x"}}),
    "401 for a wrong password": (401, "POST", "/get-token", {"json": {"login": "nobody", "password": "x" * 8}}),
    "404 for a task": (404, "GET", "/task/4711", {}),
    "404 for a number": (404, "GET", f"/task/{2**63}", {}),
    "404 for a path": (404, "GET", "/nowhere", {}),
    "405": (405, "PATCH", "/task", {"json": {}}),
    "405 in public": (405, "GET", "/register", {}),
    "409": (409, "POST", "/register", {"json": {"login": "taken", "password": "x" * 8}}),
    "412": (412, "PATCH", "/task/1", {"json": {"name": "new"}, "headers": {"If-Match": '"99"'}}),
    "413": (413, "POST", "/task", {"data": b"x" * 200_000, "headers": {"Content-Type": FORM}}),
    "415": (415, "POST", "/task", {"data": b"x", "headers": {"Content-Type": "text/plain"}}),
    "500": (500, "POST", "/task", {"json": TASK}),
    "503": (503, "GET", "/health/ready", {}),
}


@pytest.fixture
async def refused(alice: Person, stranger: Person, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that is refused in the way of that name."""
    await alice.new_task()
    await stranger.post("/register", json={"login": "Taken", "password": "x" * 8})

    async def ask(name: str, headers: dict[str, str] | None = None) -> Answer:
        status, method, path, options = REFUSALS[name]
        with monkeypatch.context() as context:
            if status == 500:
                context.setattr(store, "create_task", broken)
            if status == 503:
                context.setattr(alice.service.database, "is_usable", False)
            answer = await alice(method, path, **options | {"headers": options.get("headers", {}) | (headers or {})})
        assert answer.status == status
        return answer

    return ask


@pytest.mark.crashes
async def test_an_error_is_a_problem_document_and_nothing_else(refused: Callable[..., Any]) -> None:
    for refusal, (status, *_) in REFUSALS.items():
        answer = await refused(refusal)
        is_problem(answer, status, {409: "/docs/problems#login-taken", 412: "/docs/problems#changed-meanwhile"}.get(status, "about:blank"))
        assert ("errors" in answer.json) == (refusal in ("400 for a field", "400 for a query", "400 for a header", "409"))
        assert "secret" not in answer.text
        for header, its_status in (("WWW-Authenticate", 401), ("Allow", 405), ("Retry-After", 503)):
            assert (header in answer.headers) == (status == its_status), refusal


@pytest.mark.crashes
async def test_what_went_wrong_on_our_side_is_in_the_log_alone(refused: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    await refused("500")
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info
    assert "SELECT secret" in str(record.exc_info[1])


@pytest.mark.crashes
async def test_every_refusal_has_an_id_and_the_security_headers(refused: Callable[..., Any]) -> None:
    for refusal in REFUSALS:
        answer = await refused(refusal, {"X-Request-ID": "mine-1"})
        assert answer.headers["X-Request-ID"] == "mine-1", refusal
        has_the_security_headers(answer)


def has_the_security_headers(answer: Answer) -> None:
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS, answer
    policy = {directive.strip() for directive in answer.headers["Content-Security-Policy"].split(";")}
    assert policy == {"default-src 'none'", "frame-ancestors 'none'"}


SUCCESSES: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "the list": (200, "GET", "/task", {}),
    "a task": (200, "GET", "/task/1", {}),
    "a task's HEAD": (200, "HEAD", "/task/1", {}),
    "a log": (200, "GET", "/task/1/log", {}),
    "not modified": (304, "GET", "/task/1", {"headers": {"If-None-Match": "*"}}),
    "a creation": (201, "POST", "/task", {"json": TASK}),
    "a change": (200, "PATCH", "/task/1", {"json": {"name": "new"}}),
    "a PUT": (200, "PUT", "/task/1", {"json": {"name": "newer"}}),
    "a deletion": (204, "DELETE", "/task/1", {}),
    "health": (200, "GET", "/health/live", {}),
    "readiness": (200, "GET", "/health/ready", {}),
}


async def test_every_success_has_an_id_and_the_security_headers(alice: Person) -> None:
    await alice.new_task()
    for name, (status, method, path, options) in SUCCESSES.items():
        answer = await alice(method, path, **options)
        assert answer.status == status, name
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["X-Request-ID"])
        has_the_security_headers(answer)
        headers = (answer.headers.get("Cache-Control"), answer.headers.get("Vary"))
        assert headers == (("private, no-cache", "Authorization, Accept") if path.startswith("/task") else (None, None)), name


@pytest.mark.crashes
async def test_no_cache_keeps_a_refusal_of_what_needs_a_token(refused: Callable[..., Any]) -> None:
    for refusal, (_, _, path, _) in REFUSALS.items():
        answer = await refused(refusal)
        headers = (answer.headers.get("Cache-Control"), answer.headers.get("Vary"))
        assert headers == (("private, no-cache", "Authorization, Accept") if path.startswith("/task") else (None, None)), refusal


async def test_a_token_s_answer_has_the_security_headers(stranger: Person) -> None:
    for path in ("/register", "/get-token"):
        answer = await stranger.post(path, json={"login": "headers", "password": "x" * 8})
        assert "access_token" in answer.json
        has_the_security_headers(answer)


# The request's id


async def test_a_well_formed_request_id_is_kept(stranger: Person) -> None:
    for name in ("x", "A.b_c-9", "0" * 64, "2f1c6c5e-7b3a-4a8e-9b57-0d7f3b8e7f10"):
        for path in ("/health/live", "/nowhere", "/task"):
            assert (await stranger.get(path, headers={"X-Request-ID": name})).headers["X-Request-ID"] == name


async def test_a_malformed_request_id_is_replaced(stranger: Person) -> None:
    malformed = ["", " ", "0" * 65, "a b", "a/b", "a,b", "a;b", 'a"b', "<script>", "é", "٣", "a\tb", "{}"]
    made = [
        (await stranger.get(path, headers={"X-Request-ID": name})).headers["X-Request-ID"]
        for name in malformed
        for path in ("/health/live", "/nowhere", "/task")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) and name not in malformed for name in made), made
    assert len(set(made)) == len(malformed) * 3


# Sizes


LONGEST = "\N{GRINNING FACE}" * 10_000
PERCENT = "&".join(f"{name}={quote_plus(value)}" for name, value in (TASK | {"description": LONGEST}).items()).encode()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, PERCENT),
        (FORM, PERCENT.lower()),
        (JSON, json.dumps(TASK | {"description": LONGEST}).encode()),
        (JSON, json.dumps(TASK | {"description": LONGEST}, ensure_ascii=False).encode()),
        (MULTIPART, multipart(*(TASK | {"description": LONGEST}).items())),
    ],
    ids=["percent", "lower case percent", "json escapes", "json", "multipart"],
)
async def test_the_longest_description_fits_in_every_encoding(alice: Person, kind: str, body: bytes) -> None:
    answer = await send(alice, kind, body)
    assert answer.status == 201, answer.text[:300]
    assert answer.json["description"] == LONGEST


def at_once(body: bytes) -> Any:
    return body


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


@pytest.mark.parametrize("way", [at_once, in_chunks])
@every_type
async def test_a_body_over_the_limit_is_413(alice: Person, kind: str, way: Callable[[bytes], Any]) -> None:
    assert configured().max_body_bytes == 128 * 1024
    body = encode(kind, *TASK.items())
    for length in (128 * 1024 + 1, 300_000):
        for path in ("/task", "/task/1", "/register", "/get-token"):
            is_problem(await alice.post(path, data=way(body.ljust(length)), headers={"Content-Type": kind}), 413)
    fitting = await alice.post("/task", data=way(body.ljust(128 * 1024)), headers={"Content-Type": kind})
    assert fitting.status == (400 if kind == FORM else 201)  # what is spaces elsewhere belongs to a form's last value
    assert len((await alice.get("/task")).json) == (kind != FORM)


async def test_a_stranger_is_turned_away_before_the_body_is_read(stranger: Person) -> None:
    for body in (b"x" * 200_000, b"{"):
        is_problem(await send(stranger, JSON, body), 401)


async def test_a_body_that_ends_too_early_is_no_500(alice: Person, caplog: pytest.LogCaptureFixture) -> None:
    cut = request_of(alice, "POST /task", f"Content-Type: {JSON}").replace(b"Content-Length: 0", b"Content-Length: 100") + b'{"name"'
    async with connected(alice.client) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(cut)
        await writer.drain()
        writer.write_eof()
        answer = await reader.read()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert [record for record in caplog.records if record.exc_info] == []
    assert (await alice.get("/task")).json == []


# The wire


async def test_bytes_that_are_no_http_get_a_400_and_a_closed_connection(alice: Person) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET /task HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n"):
        answer = await exchange(alice.client, sent)
        assert re.match(rb"HTTP/1\.[01] 400 ", answer), answer
        assert b"Traceback" not in answer


@pytest.mark.parametrize("name", ["100-continue", "100-Continue"])
async def test_a_client_that_waits_is_asked_for_the_body(alice: Person, name: str) -> None:
    body = json.dumps(TASK).encode()
    whole = request_of(alice, "POST /task", f"Content-Type: {JSON}", f"Expect: {name}", body=body)
    answer = await exchange(alice.client, whole.removesuffix(body), body)
    asked, _, rest = answer.partition(b"\r\n\r\n")
    assert asked == b"HTTP/1.1 100 Continue"
    assert rest.startswith(b"HTTP/1.1 201 "), rest[:300]
    assert rest.count(b"X-Request-ID: ") == 1


@pytest.mark.parametrize("line", ["GET /task", "GET /health/live", "POST /register", "PATCH /health/live", "GET /nowhere", "GET /task/007"])
async def test_an_unknown_expectation_changes_nothing(alice: Person, line: str) -> None:
    for headers in (["Expect: 200-ok"], ["Expect: 100-continue, x"], ["Expect: x", "Expect: y"]):
        usual, unusual = [await exchange(alice.client, request_of(alice, line, "X-Request-ID: mine", *more)) for more in ([], headers)]
        assert re.sub(rb"Date: .*?\r\n", b"", unusual) == re.sub(rb"Date: .*?\r\n", b"", usual)
        assert b"X-Request-ID: mine" in usual


# The number of a task


NO_IDS = [
    "0",
    "00",
    "007",
    "01",
    "-1",
    "+1",
    "1.0",
    "1e3",
    "0x1",
    "1_0",
    "abc",
    "one",
    "%D9%A3",
    "1%D9%A0",
    "%EF%BC%91",
    "%201",
    "1%20",
    "1%00",
    "%ff",
    "null",
    "1,2",
    "*",
    "9" * 19,
    "9" * 20,
    "9" * 5000,
    str(2**63),
]


async def test_what_is_no_number_of_a_task_is_404(alice: Person) -> None:
    for _ in range(10):
        await alice.new_task()
    for task_id in NO_IDS:
        for line, body in ((f"{method} /task/{task_id}", b"name=x") for method in ("GET", "PATCH", "POST", "PUT", "DELETE")):
            answer = await exchange(alice.client, request_of(alice, line, f"Content-Type: {FORM}", body=body))
            assert answer.startswith(b"HTTP/1.1 404 "), (line, answer[:300])
            assert b"application/problem+json" in answer
        assert (await exchange(alice.client, request_of(alice, f"GET /task/{task_id}/log"))).startswith(b"HTTP/1.1 404 ")
    assert [task["name"] for task in (await alice.get("/task")).json] == ["Buy milk"] * 10


async def test_the_largest_number_of_a_task_is_one(alice: Person) -> None:
    is_problem(await alice.get(f"/task/{2**63 - 1}"), 404)
    assert (await alice.get(f"/task/{2**63 - 1}")).headers["X-Revision"] == "0"
    assert (await alice.patch(f"/task/{2**63 - 1}", json={"id": 2**63 - 1})).status == 404


async def test_a_name_that_is_no_unicode_hides_no_other_fault(alice: Person) -> None:
    answer = await send(alice, JSON, b'{"\\ud800": 1}')
    assert fields_at_fault(answer) == {"body", "name", "description", "status"}


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0344", "\u0f73", "\u0f75", "\u0f81"])
async def test_a_long_run_of_combining_marks_is_refused(alice: Person, marks: str) -> None:
    body = json.dumps({"login": "a" + marks * 20_000, "password": "correct horse"}, ensure_ascii=False).encode()
    answer = await send(alice, JSON, body, "POST", "/register")
    message = "must not contain more than 30 combining marks in a row"
    assert answer.json["errors"] == [{"field": "login", "code": "too_many_marks", "message": message, "params": {"max": 30}}]
    apart = len(unicodedata.normalize("NFD", marks))
    assert (await alice.new_task(name="q" + marks * (30 // apart)))["id"] == 1


async def test_a_content_type_that_no_parser_can_read_is_415(alice: Person) -> None:
    await alice.new_task()
    header = f"Content-Type: multipart/form-data; x*{'9' * 5000}*=1"
    answer = await exchange(alice.client, request_of(alice, "PATCH /task/1", header, body=b"x"))
    assert answer.startswith(b"HTTP/1.1 415 ")


async def test_an_address_with_a_host_that_cannot_be_decoded_is_answered(stranger: Person) -> None:
    answer = await exchange(stranger.client, b"GET http://xn--/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")

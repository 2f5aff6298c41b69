"""What is at fault has a code, for programs: one of a closed list, with what it speaks of as parameters."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from rest.error_codes import ErrorCode
from tests.conftest import PASSWORD, Answer, Person

PAGE = (Path(__file__).parents[2] / "docs/client.md").read_text()
TASK = {"name": "Buy milk", "description": "", "status": "new"}
HEADER = "name,description,status\r\n"
CALENDAR, CSV, JSON = "text/calendar", "text/csv", "application/json"
MOMENT = "2026-01-01T00:00:00Z"
ACCOUNT = f'{{"account": {{"revision": 1, "last_task_id": 1, "kept_from": 0, "kept_from_at": "{MOMENT}", "purged": 0, "changed_at": "{MOMENT}"}}}}'
Found = tuple[str, str, dict[str, Any] | None]

# A request (method, path, what is sent), and the one field that it is refused for: the field, the code, the parameters.
REQUESTS: list[tuple[str, str, Any, Found]] = [
    ("POST", "/task", {"name": "x", "status": "new"}, ("description", "missing", None)),
    ("POST", "/task", TASK | {"nmae": "x"}, ("nmae", "unknown_field", None)),
    ("GET", "/task?limit=1&limit=1", None, ("limit", "repeated", None)),
    ("POST", "/task", TASK | {"name": 1}, ("name", "not_text", None)),
    ("GET", "/task?limit=x", None, ("limit", "not_a_number", None)),
    ("GET", "/task?limit=1001", None, ("limit", "too_large", {"max": 1000})),
    ("GET", "/task?limit=0", None, ("limit", "too_small", {"min": 1})),
    ("GET", "/task?deleted=1", None, ("deleted", "not_a_boolean", None)),
    ("GET", "/task?completed_from=1", None, ("completed_from", "not_a_moment", None)),
    ("GET", "/task?completed_from=2026-02-30T00:00:00Z", None, ("completed_from", "not_a_moment", None)),
    ("GET", "/task?revision=0&deleted=true", None, ("deleted", "not_together", None)),
    ("GET", f"/task?q={'+'.join('abcdefghijk')}", None, ("q", "too_many", {"max": 10})),
    ("GET", f"/task?q=b+{'a' * 101}", None, ("q", "too_long", {"max": 100})),
    ("GET", "/task?cursor=x", None, ("cursor", "not_of_this_list", None)),
    ("GET", "/task?revision=8", None, ("revision", "too_large", {"max": 1})),
    ("GET", "/task?status=old", None, ("status", "not_one_of", {"values": ["new", "planned", "in_work", "completed"]})),
    ("GET", "/task?sort=up", None, ("sort", "not_one_of", {"values": [
        "id", "-id", "name", "-name", "status", "-status", "completion_at", "-completion_at",
        "created_at", "-created_at", "updated_at", "-updated_at"]})),
    ("POST", "/task", TASK | {"status": "old"}, ("status", "not_one_of", {"values": ["new", "planned", "in_work", "completed"]})),
    ("PATCH", "/task/1", {"status": "old"}, ("status", "not_one_of", {"values": ["new", "planned", "in_work", "completed"]})),
    ("PATCH", "/task/1", {"name": ""}, ("name", "too_short", {"min": 1})),
    ("PATCH", "/task/1", {"name": "x" * 201}, ("name", "too_long", {"max": 200})),
    ("PATCH", "/task/1", {"name": " "}, ("name", "blank", None)),
    ("PATCH", "/task/1", {"name": "\0"}, ("name", "characters_not_allowed", None)),
    ("PATCH", "/task/1", {"name": "x" + "\u0301" * 31}, ("name", "too_many_marks", {"max": 30})),
    ("PATCH", "/task/1", {"completion_at": "31-02-2026"}, ("completion_at", "not_a_day", None)),
    ("PATCH", "/task/1", {"completion_at": "tomorrow"}, ("completion_at", "not_a_day", None)),
    ("PATCH", "/task/1", {"completion_at": "31-12-1899"}, ("completion_at", "too_small", {"min": "01-01-1900"})),
    ("PATCH", "/task/1", {"id": 2}, ("id", "mismatch", None)),
    ("POST", "/task/undo", {}, ("at", "missing", None)),
    ("POST", "/task/undo", {"since": 9}, ("since", "too_large", {"max": 1})),
    ("POST", "/register", {"login": "taken", "password": PASSWORD}, ("login", "taken", None)),
    ("POST", "/register", {"login": "a b", "password": PASSWORD}, ("login", "characters_not_allowed", None)),
    ("POST", "/register", {"login": "somebody", "password": "1234567"}, ("password", "too_short", {"min": 8})),
    ("POST", "/register", {"login": "somebody", "password": "12345678"}, ("password", "too_common", None)),
    ("POST", "/register", {"login": "some.body", "password": "SOME.BODY"}, ("password", "same_as_login", None)),
    ("POST", "/get-token", {"login": "a", "password": "b", "expires_in": 10**9}, ("expires_in", "too_large", {"max": 31536000})),
    ("POST", "/delete-account", {"password": "wrong"}, ("password", "wrong_password", None)),
    ("POST", "/reset-password", {"code": "x" * 24, "new": PASSWORD}, ("code", "wrong_code", None)),
]  # fmt: skip
# A file, and what its line is refused for.
LINES: list[tuple[str, str, Found]] = [
    (CSV, "", ("line 1", "missing", {"line": 1})),
    (CSV, "colour\r\n", ("line 1", "unknown_field", {"line": 1})),
    (CSV, "name,name\r\n", ("line 1", "repeated", {"line": 1})),
    (CSV, HEADER + "a\r\n", ("line 2", "wrong_number_of_cells", {"line": 2})),
    (CSV, HEADER + 'a,b"c,new\r\n"', ("line 2", "malformed", {"line": 2})),
    (CSV, HEADER + "\udcff,,new\r\n", ("line 2", "not_utf_8", {"line": 2})),
    (CSV, HEADER + ",,new\r\n", ("line 2", "too_short", {"line": 2, "name": "name", "min": 1})),
    (CSV, HEADER + "x" * 140_000 + ",,new\r\n", ("line 2", "too_long", {"line": 2, "max": 131072})),
    (CSV, "uid,name\r\n{mine},x\r\n{mine},y\r\n", ("line 3", "repeated", {"line": 3})),
    (CSV, "uid,name\r\n9{mine},x\r\n", ("line 2", "reserved", {"line": 2})),
    (CSV, "uid,name\r\nx,x\r\n", ("line 2", "not_found", {"line": 2})),
    (CALENDAR, "x", ("line 1", "malformed", {"line": 1})),
    (CALENDAR, "BEGIN:VTODO\nDURATION:PT1H\nSUMMARY:a\nEND:VTODO", ("line 3", "not_taken", {"line": 3, "name": "DURATION"})),
    (CALENDAR, "BEGIN:VTODO\nCOMPLETED:x\nEND:VTODO", ("line 3", "not_a_moment", {"line": 3, "name": "COMPLETED"})),
    (CALENDAR, "BEGIN:VTODO\nSUMMARY:\udcff\nEND:VTODO", ("line 3", "not_utf_8", {"line": 3})),
    (CALENDAR, "BEGIN:VTODO\nSUMMARY:a\nSUMMARY:a\nEND:VTODO", ("line 4", "repeated", {"line": 4, "name": "SUMMARY"})),
    (CALENDAR, "BEGIN:VTODO\nSUMMARY:a\nDUE:x\nEND:VTODO", ("line 4", "not_a_day", {"line": 4, "name": "DUE"})),
    (JSON, '{"colour": {}}', ("line 1", "unknown_field", {"line": 1})),
    (JSON, '{"tasks": {}}', ("line 1", "malformed", {"line": 1})),
    (JSON, '{"tasks": [], "tasks": []}', ("line 1", "repeated", {"line": 1, "name": "tasks"})),
    (JSON, '{"tasks": [\n{"id": "1"}]}', ("line 2", "not_a_number", {"line": 2, "name": "id"})),
    (JSON, ACCOUNT.replace('"kept_from": 0', '"kept_from": 2'), ("line 1", "inconsistent", {"line": 1})),
]  # fmt: skip


def faults(answer: Answer) -> list[Found]:
    """Return what is at fault, whose codes are of the list: the document says so, and judges every answer of a test."""
    assert answer.status in (400, 409), answer
    return [(error["field"], error["code"], error.get("params")) for error in answer.json["errors"]]


@pytest.mark.parametrize(("method", "path", "sent", "found"), REQUESTS)
async def test_what_is_at_fault_has_a_code(alice: Person, stranger: Person, method: str, path: str, sent: Any, found: Found) -> None:
    await stranger.post("/register", json={"login": "taken", "password": PASSWORD})
    await alice.new_task()
    assert found in faults(await alice(method, path, json=sent))


@pytest.mark.parametrize(("kind", "text", "found"), LINES)
async def test_a_line_at_fault_has_a_code(alice: Person, newcomer: Callable[[str], Any], kind: str, text: str, found: Found) -> None:
    person = alice if "{mine}" in text else await newcomer("alice")
    if "{mine}" in text:
        await alice.new_task()
        sheet = (await alice.get("/task?format=csv")).text
        text = text.replace("{mine}", sheet.splitlines()[1].partition(",")[0])
    if kind == CALENDAR and text.startswith("BEGIN"):
        text = f"BEGIN:VCALENDAR\n{text}\nEND:VCALENDAR\n"
    answer = await person.post("/import", data=text.encode(errors="surrogateescape"), headers={"Content-Type": kind})
    assert found in faults(answer)


async def test_headers_and_files_have_codes_too(alice: Person) -> None:
    await alice.new_task()
    answer = await alice.patch("/task/1", json={}, headers={"If-Match": "7"})
    assert faults(answer) == [("If-Match", "malformed", None)]
    answer = await alice.post("/task", json=TASK, headers={"Idempotency-Key": " x y "})
    assert faults(answer) == [("Idempotency-Key", "malformed", None)]


def test_the_list_of_codes_has_no_other() -> None:
    reached = {code for *_, (_, code, _) in REQUESTS} | {code for *_, (_, code, _) in LINES}
    assert reached == {*get_args(ErrorCode.__value__)}


async def test_the_page_for_clients_lists_them_and_shows_an_answer(alice: Person) -> None:
    chapter, _ = PAGE.partition("## What went wrong\n")[2].split("\n## ", 1)
    codes = [row.split("|")[1] for row in chapter.splitlines() if row.startswith("| `")]
    assert {code for cell in codes for code in re.findall("`([a-z_0-9]+)`", cell)} - {"min", "max", "values"} == {
        *get_args(ErrorCode.__value__)
    }
    answer = await alice.post("/task", json=TASK | {"name": "x" * 201, "completion_at": "31-02-2026"})
    assert answer.json == json.loads(chapter.split("```")[1].removeprefix("json"))

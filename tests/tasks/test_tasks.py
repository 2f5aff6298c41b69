"""A task from its creation to its deletion: the chapter "Tasks"."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tasks.values import STATUSES
from tests.conftest import Answer, Person, write_task

Sql = Callable[..., list[tuple[Any, ...]]]

NEW = {"name": "Buy milk", "description": "", "status": "new"}
CHANGES = ("PATCH", "POST", "PUT")
READ_ONLY = ("id", "created_at", "updated_at", "completed_at", "deleted_at", "revision")
NO_BODY = {"skip_auto_headers": ["Content-Type"]}  # aiohttp's client would call nothing an octet-stream
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)

change_methods = pytest.mark.parametrize("method", CHANGES)
encodings = pytest.mark.parametrize("encoding", ["json", "data"])


def blamed(answer: Answer) -> list[str]:
    """Return the fields that the answer finds fault with."""
    assert answer.status == 400, answer
    return sorted(error["field"] for error in answer.json["errors"])


def rows(sql: Sql, person: Person) -> list[tuple[Any, ...]]:
    """Return everything that is stored of a person's tasks."""
    assert person.caller
    return sql(
        "SELECT to_jsonb(s), (SELECT jsonb_agg(t ORDER BY t.id) FROM task t WHERE t.user_id = s.user_id),"
        " (SELECT jsonb_agg(l ORDER BY l.revision, l.field) FROM task_log l WHERE l.user_id = s.user_id)"
        " FROM user_state s WHERE s.user_id = %s",
        person.caller.user_id,
    )


# How a task looks


async def test_a_task_looks_the_same_wherever_it_is_shown(alice: Person) -> None:
    created = await alice.new_task(description="two litres", completion_at="02-10-2020")
    assert list(created) == [
        "id", "name", "description", "status", "completion_at", "created_at", "updated_at", "completed_at", "deleted_at", "revision",
    ]  # fmt: skip
    assert created == {
        "id": 1, "name": "Buy milk", "description": "two litres", "status": "new", "completion_at": "02-10-2020", "revision": 1,
        "created_at": created["updated_at"], "updated_at": created["created_at"], "completed_at": None, "deleted_at": None,
    }  # fmt: skip
    assert (await alice.get("/task/1")).json == (await alice.patch("/task/1", json={})).json == created
    assert (await alice.get("/task")).json == [created]


async def test_a_task_has_all_its_keys_also_where_there_is_nothing_to_say(alice: Person) -> None:
    created, full = await alice.new_task(), await alice.new_task(completion_at="02-10-2020", status="completed", description="all said")
    assert created.keys() == full.keys()
    assert {key for key, value in created.items() if value is None} == {"completion_at", "completed_at", "deleted_at"}


async def test_moments_are_rfc_3339_in_utc_with_microseconds(alice: Person) -> None:
    task = await alice.new_task(status="completed")
    assert all(MOMENT.fullmatch(task[key]) for key in ("created_at", "updated_at", "completed_at")), task


@pytest.mark.parametrize("field", ["name", "description"])
@pytest.mark.parametrize(
    "text",
    [
        ' "quotes", back\\slashes / and <tags> ',
        "tab\tnew\nline\r\nbell\x07 delete\x7f",
        "Задача ё 任务 \U0001f95b \u2028\u2029 \ufeff \ufffe\uffff \U0010ffff",
        "%s %% {0} \\x00 \\u0000 ' ; DROP TABLE task --",
    ],
)
async def test_text_comes_back_as_it_was_sent(alice: Person, field: str, text: str) -> None:
    assert (await alice.new_task(**{field: text}))[field] == text
    assert (await alice.get("/task/1")).json[field] == text


# Creation


async def test_a_creation_is_201_with_the_address_and_the_tag_of_the_task(alice: Person) -> None:
    await alice.new_task()
    answer = await alice.post("/task", json=NEW)
    assert (answer.status, answer.headers["Location"], answer.headers["ETag"]) == (201, "/task/2", '"2"')
    assert (await alice.get(answer.headers["Location"])).json == answer.json


@encodings
async def test_a_creation_takes_forms_and_json_alike(alice: Person, encoding: str) -> None:
    answer = await alice.post("/task", **{encoding: NEW | {"completion_at": "2020-10-02"}})
    assert (answer.status, answer.json["completion_at"]) == (201, "02-10-2020")


async def test_a_creation_without_name_description_and_status_is_refused_for_all_three(alice: Person) -> None:
    assert blamed(await alice.post("/task", json={})) == blamed(await alice.post("/task", **NO_BODY)) == ["description", "name", "status"]


@encodings
@pytest.mark.parametrize("field", READ_ONLY)
async def test_what_only_the_service_writes_is_unknown_in_a_creation(alice: Person, field: str, encoding: str) -> None:
    assert blamed(await alice.post("/task", **{encoding: NEW | {field: "1"}})) == [field]
    assert (await alice.get("/task")).json == []


@pytest.mark.parametrize("field", ["user_id", "user", "created_revision", "last_task_id", "kept_from", "q", "wait", "generation", ""])
async def test_nothing_else_can_be_assigned(alice: Person, sql: Sql, field: str) -> None:
    await alice.new_task()
    before = rows(sql, alice)
    for method, path in (("POST", "/task"), *[(method, "/task/1") for method in CHANGES]):
        assert blamed(await alice(method, path, json=NEW | {"name": "other", field: 1})) == [field or "body"]
        assert blamed(await alice(method, path, data=NEW | {"name": "other", field: "1"})) == [field or "body"]
    assert rows(sql, alice) == before


# What the fields hold

GOOD = [
    ("name", "x"),
    ("name", "x" * 200),
    ("name", "\U0001f95b" * 200),
    ("name", "e\u0301" * 200),  # 200 after NFC
    ("name", "\u200b\u2800x"),
    *[(field, "q" + mark * count) for field in ("name", "description") for mark, count in (("\u0301", 30), ("\u0308\u0301", 15))],
    ("description", ""),
    *[("description", description) for description in (" ", "\u200b", "\u2800")],
    ("description", "\U0001f95b" * 10_000),
    *[("status", status) for status in STATUSES],
]
BAD = [
    *[("name", name) for name in ("", " ", " \t\n\u3000", "x" * 201, "x\0", "\ud800", None, 1, True, ["x"], {"x": 1})],
    *[("name", name) for name in ("\u200b", "\u2800 \u2800", "\u3164\u115f", "\ufe0f\u00ad", "\u180b\u034f", "\U000e0020\U0001bca0\t")],
    *[(field, "a" + mark * count) for field in ("name", "description") for mark, count in (("\u0301", 32), ("\u0344", 16))],
    *[("description", description) for description in ("x" * 10_001, "\0", "\udfff", None, 0, [])],
    *[("status", status) for status in ("", "New", "new ", "done", "new,planned", None, 0, ["new"])],
    *[
        ("completion_at", day)
        for day in ("02-10-20", "2-10-2020", "31-02-2020", "2020-10-02T00:00:00Z", "02/10/2020", "none", 20201002, False)
    ],
    *[("completion_at", day) for day in ("31-12-1899", "1899-12-31", "01-01-10000", "01-01-0000", "0٢-10-2020", " 02-10-2020", [], {})],
]


@pytest.mark.parametrize(("field", "value"), GOOD)
async def test_a_good_value_is_taken(alice: Person, field: str, value: str) -> None:
    await alice.new_task()
    for answer in (await alice.post("/task", json=NEW | {field: value}), await alice.patch("/task/1", json={field: value})):
        assert answer.status in (200, 201)
        assert answer.json[field] == value.replace("e\u0301", "é")


async def test_what_was_read_may_be_sent_back_however_its_marks_were_sent(alice: Person) -> None:
    task = await alice.new_task(name="q" + "\u0344" * 15, description="\u0958" + "\u0301" * 29)
    assert task["name"] == "q" + "\u0308\u0301" * 15
    assert (await alice.patch("/task/1", json=task)).json == task


async def test_a_task_named_before_names_had_to_be_visible_can_be_changed(alice: Person, sql: Callable[..., Any]) -> None:
    assert alice.caller
    fields = {"name": "\u200b", "description": "q" + "\u0308\u0301" * 30, "status": "new"}
    write_task(sql, alice.caller, None, fields)
    assert (await alice.patch("/task/1", json={"status": "planned"})).json["name"] == "\u200b"
    assert (await alice.patch("/task/1", json={"name": "seen", "description": ""})).status == 200
    assert blamed(await alice.patch("/task/1", json={"name": "\u200b"})) == ["name"]
    restored = await alice.post("/task/1/restore", json={"revision": 1})
    assert {name: restored.json[name] for name in fields} == fields


@pytest.mark.parametrize(("field", "value"), BAD)
async def test_a_bad_value_is_refused(alice: Person, field: str, value: object) -> None:
    task = await alice.new_task(completion_at="01-01-1900")
    for answer in (await alice.post("/task", json=NEW | {field: value}), await alice.patch("/task/1", json={field: value})):
        assert blamed(answer) == [field]
    assert (await alice.get("/task")).json == [task]


async def test_every_bad_field_is_named_in_one_answer(alice: Person) -> None:
    await alice.new_task()
    bad = {"name": "", "status": "done", "completion_at": "soon", "id": "x", "colour": "red"}
    assert blamed(await alice.patch("/task/1", json=bad)) == sorted(bad)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("02-10-2020", "02-10-2020"),
        ("2020-10-02", "02-10-2020"),
        ("29-02-2024", "29-02-2024"),
        ("1900-01-01", "01-01-1900"),
        ("9999-12-31", "31-12-9999"),
    ],
)
async def test_a_day_is_shown_as_dd_mm_yyyy(alice: Person, sent: str, shown: str) -> None:
    assert (await alice.new_task(completion_at=sent))["completion_at"] == shown


@change_methods
@pytest.mark.parametrize("body", [{"json": {"completion_at": None}}, {"json": {"completion_at": ""}}, {"data": {"completion_at": ""}}])
async def test_a_date_sent_empty_or_null_is_cleared(alice: Person, method: str, body: dict[str, Any]) -> None:
    await alice.new_task(completion_at="02-10-2020")
    assert (await alice(method, "/task/1", **body)).json["completion_at"] is None
    assert (await alice.new_task(**body.get("json", {"completion_at": ""})))["completion_at"] is None


# Changes


@change_methods
@encodings
@pytest.mark.parametrize(
    ("field", "value"), [("name", "Buy bread"), ("description", "black"), ("status", "in_work"), ("completion_at", "03-11-2021")]
)
async def test_what_is_not_sent_stays_as_it_is(alice: Person, method: str, encoding: str, field: str, value: str) -> None:
    task = await alice.new_task(description="white", completion_at="02-10-2020")
    answer = await alice(method, "/task/1", **{encoding: {field: value}})
    assert answer.status == 200
    assert answer.json == task | {field: value, "revision": 2, "updated_at": answer.json["updated_at"]}
    assert answer.json["updated_at"] > task["updated_at"]
    assert (await alice.get("/task/1")).json == answer.json


@pytest.mark.parametrize("new", STATUSES)
@pytest.mark.parametrize("old", STATUSES)
async def test_any_status_may_follow_any_other(alice: Person, old: str, new: str) -> None:
    await alice.new_task(status=old)
    answer = await alice.patch("/task/1", json={"status": new})
    assert (answer.status, answer.json["status"]) == (200, new)
    assert answer.json["revision"] == (1 if old == new else 2)


async def test_completed_at_tells_when_the_status_last_became_completed(alice: Person) -> None:
    task = await alice.new_task(status="completed")
    assert task["completed_at"] == task["created_at"]
    still = (await alice.patch("/task/1", json={"name": "other", "status": "completed"})).json
    assert still["completed_at"] == task["completed_at"] < still["updated_at"]
    assert (await alice.patch("/task/1", json={"status": "in_work"})).json["completed_at"] is None
    again = (await alice.patch("/task/1", json={"status": "completed"})).json
    assert task["completed_at"] < again["completed_at"] == again["updated_at"]


@change_methods
@pytest.mark.parametrize(
    "body",
    [
        NO_BODY,
        {"json": {}},
        {"json": {"name": "é"}},
        {"json": {"name": "e\u0301"}},
        {"json": {"status": "completed", "completion_at": "2020-10-02"}},
        {"data": {"name": "é", "description": "", "status": "completed", "completion_at": "02-10-2020"}},
    ],
)
async def test_values_that_hold_already_change_nothing(alice: Person, sql: Sql, method: str, body: dict[str, Any]) -> None:
    task = await alice.new_task(name="é", status="completed", completion_at="02-10-2020")
    before = rows(sql, alice)
    answer = await alice(method, "/task/1", **body)
    assert (answer.status, answer.json, answer.headers["X-Revision"]) == (200, task, "1")
    assert rows(sql, alice) == before


@change_methods
@encodings
async def test_what_was_read_may_be_sent_back_whole(alice: Person, method: str, encoding: str) -> None:
    task = await alice.new_task(status="completed", completion_at="02-10-2020")
    whole = {key: value if encoding == "json" else str(value or "") for key, value in task.items()}
    answer = await alice(method, "/task/1", **{encoding: whole})
    assert (answer.status, answer.json) == (200, task)
    answer = await alice(method, "/task/1", **{encoding: whole | {"name": "other"}})
    assert (answer.status, answer.json["name"], answer.json["revision"]) == (200, "other", 2)


@pytest.mark.parametrize("field", ["created_at", "updated_at", "completed_at", "deleted_at"])
@pytest.mark.parametrize("value", [None, "", "1999-12-31T23:59:59.000000Z", 0, {"a": [1]}])
async def test_read_only_moments_are_ignored_in_a_change(alice: Person, field: str, value: object) -> None:
    task = await alice.new_task(status="completed")
    answer = await alice.patch("/task/1", json={field: value})
    assert (answer.status, answer.json) == (200, task)


NO_NUMBERS_IN_JSON = ["1", "", None, 1.0, 1.5, True, 0, -1, [1]]
NO_NUMBERS_IN_A_FORM = ["", "01", "+1", "-1", "1.0", "1e0", " 1", "1 ", "١", "１", "1_0", "0x1", "0"]


@change_methods
@encodings
async def test_an_id_that_is_sent_must_be_the_paths(alice: Person, method: str, encoding: str) -> None:
    await alice.new_task()
    await alice.new_task()
    number: Callable[[int], object] = int if encoding == "json" else str
    bodies: list[dict[str, Any]] = [{encoding: {"id": number(task_id), "name": "second"}} for task_id in (1, 2)]
    assert blamed(await alice(method, "/task/2", **bodies[0])) == ["id"]
    assert (await alice(method, "/task/2", **bodies[1])).status == 200
    assert [task["name"] for task in (await alice.get("/task")).json] == ["Buy milk", "second"]


@pytest.mark.parametrize("field", ["id", "revision"])
@pytest.mark.parametrize(
    ("encoding", "value"), [*[("json", value) for value in NO_NUMBERS_IN_JSON], *[("data", value) for value in NO_NUMBERS_IN_A_FORM]]
)
async def test_id_and_revision_are_numbers_in_json_and_ascii_digits_in_a_form(
    alice: Person, field: str, encoding: str, value: object
) -> None:
    task = await alice.new_task()
    if encoding == "data":
        assert (await alice.patch("/task/1", data={field: "1"})).status == 200
    assert blamed(await alice.patch("/task/1", **{encoding: {field: value, "name": "other"}})) == [field]
    assert (await alice.get("/task/1")).json == task


# Deletion


async def test_a_deleted_task_is_gone_from_the_list(alice: Person) -> None:
    await alice.new_task()
    kept = await alice.new_task()
    answer = await alice.delete("/task/1")
    assert (answer.status, answer.text) == (204, "")
    assert (await alice.get("/task")).json == [kept]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/task/{}", {}),
        ("HEAD", "/task/{}", {}),
        ("GET", "/task/{}?status=new", {}),
        ("GET", "/task/{}/log", {}),
        ("DELETE", "/task/{}", {}),
        *[(method, "/task/{}", {"json": {"name": "other"}}) for method in CHANGES],
        *[(method, "/task/{}", {"json": {"name": "Buy milk"}}) for method in CHANGES],
    ],
)
async def test_a_task_of_anothers_a_deleted_one_and_one_that_never_was_are_the_same_404(
    alice: Person, mallory: Person, sql: Sql, method: str, path: str, body: dict[str, Any]
) -> None:
    for _ in range(3):
        await alice.new_task()
    await mallory.new_task()
    await mallory.new_task()
    await mallory.delete("/task/2")
    before = rows(sql, alice), rows(sql, mallory)
    deleted, alices, nobodys = [await mallory(method, path.format(task_id), **body) for task_id in (2, 3, 4)]
    for answer in (deleted, alices, nobodys):
        assert (answer.status, answer.headers["X-Revision"]) == (404, "3")
        assert answer.text == deleted.text
        assert [name for name in answer.headers if name != "X-Request-ID"] == [name for name in deleted.headers if name != "X-Request-ID"]
    assert (rows(sql, alice), rows(sql, mallory)) == before


# Ids and revisions


async def test_ids_count_up_from_1_within_their_user(alice: Person, mallory: Person) -> None:
    assert [(await person.new_task())["id"] for person in (alice, mallory, alice, mallory)] == [1, 1, 2, 2]


async def test_an_id_is_never_used_again(alice: Person) -> None:
    for expected in (1, 2, 3):
        assert (await alice.new_task())["id"] == expected
        await alice.delete(f"/task/{expected}")


async def test_a_revision_is_one_change_of_one_task(alice: Person, mallory: Person) -> None:
    async def revision_after(answer: Awaitable[Answer]) -> int:
        return int((await answer).headers["X-Revision"])

    assert await revision_after(alice.get("/task")) == 0
    assert await revision_after(alice.post("/task", json=NEW)) == 1
    assert await revision_after(alice.post("/task", json=NEW)) == 2
    await mallory.new_task()
    assert await revision_after(alice.patch("/task/1", json={"name": "a", "description": "b", "status": "planned"})) == 3
    assert await revision_after(alice.patch("/task/1", json={"name": "a"})) == 3
    assert await revision_after(alice.delete("/task/2")) == 4
    assert await revision_after(alice.delete("/task/2")) == 4
    assert [task["revision"] for task in (await alice.get("/task")).json] == [3]


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/task", {}, 200),
        ("HEAD", "/task", {}, 200),
        ("GET", "/task", {"headers": {"If-None-Match": "*"}}, 304),
        ("POST", "/task", {"json": NEW}, 201),
        ("GET", "/task/1", {}, 200),
        ("HEAD", "/task/1", {}, 200),
        ("GET", "/task/1", {"headers": {"If-None-Match": "*"}}, 304),
        ("GET", "/task/1?status=new", {}, 200),
        ("GET", "/task/1?status=planned", {}, 404),
        ("GET", "/task/9", {}, 404),
        ("GET", "/task/1/log", {}, 200),
        ("GET", "/task/1/log", {"headers": {"If-None-Match": "*"}}, 304),
        ("GET", "/task/9/log", {}, 404),
        ("DELETE", "/task/1", {}, 204),
        ("DELETE", "/task/9", {}, 404),
        ("DELETE", "/task/1", {"headers": {"If-Match": '"2"'}}, 412),
        *[(method, "/task/1", {"json": {"name": "other"}}, 200) for method in CHANGES],
        *[(method, "/task/1", {"json": {}}, 200) for method in CHANGES],
        *[(method, "/task/9", {"json": {"name": "other"}}, 404) for method in CHANGES],
        *[(method, "/task/1", {"json": {"name": "other"}, "headers": {"If-Match": '"2"'}}, 412) for method in CHANGES],
    ],
)
async def test_every_answer_that_asked_the_data_says_the_users_revision(
    alice: Person, sql: Sql, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    await alice.new_task()
    await alice.new_task()
    answer = await alice(method, path, **options)
    [(state, _, _)] = rows(sql, alice)
    assert (answer.status, answer.headers["X-Revision"]) == (status, str(state["revision"]))


@pytest.mark.parametrize(("method", "tagged"), [("GET", True), ("HEAD", True), ("PATCH", True), ("POST", True), ("PUT", False)])
async def test_every_answer_with_a_task_but_puts_has_its_tag(alice: Person, method: str, tagged: bool) -> None:
    await alice.new_task()
    await alice.new_task()
    answer = await alice(method, "/task/1", **({} if method in ("GET", "HEAD") else {"json": {"name": "other"}}))
    assert (answer.status, answer.headers.get("ETag")) == (200, {"PATCH": '"3"', "POST": '"3"'}.get(method, '"1"') if tagged else None)


# Reading one task


@pytest.mark.parametrize(
    ("query", "dated", "undated"),
    [
        ("status=planned", True, False),
        ("status=new", False, True),
        ("status=completed,planned", True, False),
        ("status=in_work,completed", False, False),
        ("completion_at=02-10-2020", True, False),
        ("completion_at=2020-10-02", True, False),
        ("completion_at=03-10-2020", False, False),
        ("completion_at=none", False, True),
        ("status=planned&completion_at=02-10-2020", True, False),
        ("status=new&completion_at=02-10-2020", False, False),
        ("status=new&completion_at=none", False, True),
    ],
)
async def test_a_task_is_shown_only_where_it_matches(alice: Person, query: str, dated: bool, undated: bool) -> None:
    await alice.new_task(status="planned", completion_at="02-10-2020")
    await alice.new_task()
    for task_id, matches in ((1, dated), (2, undated)):
        answer, plain = await alice.get(f"/task/{task_id}?{query}"), await alice.get(f"/task/{task_id}")
        assert answer.status == (200 if matches else 404)
        if matches:
            assert (answer.json, answer.headers["ETag"]) == (plain.json, plain.headers["ETag"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=", "status"),
        ("status=done", "status"),
        ("status=new,", "status"),
        ("completion_at=", "completion_at"),
        ("completion_at=soon", "completion_at"),
        ("status=new&status=new", "status"),
        *[(f"{name}=1", name) for name in ("q", "sort", "limit", "cursor", "completion_from", "completed_to", "statu")],
    ],
)
async def test_a_misspelt_filter_of_one_task_is_refused(alice: Person, query: str, field: str) -> None:
    await alice.new_task()
    assert set(blamed(await alice.get(f"/task/1?{query}"))) == {field}


@pytest.mark.parametrize(("method", "path"), [("POST", "/task"), ("DELETE", "/task/1"), *[(method, "/task/1") for method in CHANGES]])
async def test_a_change_takes_no_parameters(alice: Person, sql: Sql, method: str, path: str) -> None:
    await alice.new_task()
    before = rows(sql, alice)
    body = {} if method == "DELETE" else {"json": NEW | {"name": "other"}}
    assert blamed(await alice(method, f"{path}?status=new", **body)) == ["status"]
    assert rows(sql, alice) == before


@pytest.mark.parametrize(
    "task_id", ["0", "01", "+1", "-1", "1.0", "1 ", "x", "١", "1e0", "9223372036854775807", "9223372036854775808", "9" * 40]
)
async def test_what_is_no_tasks_id_is_404(alice: Person, task_id: str) -> None:
    await alice.new_task()
    for path in (f"/task/{task_id}", f"/task/{task_id}/log"):
        assert (await alice.get(path)).status == 404

"""What a client has seen: the chapter "Conditional requests"."""

from typing import Any

import pytest
from multidict import CIMultiDict

from postgres.database import Database
from postgres.queries import Query
from tasks import filters
from tests.conftest import Answer, Person

PATHS = ("/task/1", "/task", "/task/1/log")
CHANGES = ("PATCH", "POST", "PUT")
OTHER = {"name": "other"}

paths = pytest.mark.parametrize("path", PATHS)
changes = pytest.mark.parametrize("method", CHANGES)
change_and_delete = pytest.mark.parametrize("method", ["PATCH", "DELETE"])
changes_and_delete = pytest.mark.parametrize("method", [*CHANGES, "DELETE"])


@pytest.fixture
async def task(alice: Person) -> dict[str, Any]:
    """Alice's first task, at revision 3: it was created at 1, and 2 is another one's."""
    await alice.new_task(name="first")
    await alice.new_task(name="second")
    changed: dict[str, Any] = (await alice.patch("/task/1", json={"name": "seen"})).json
    assert changed["revision"] == 3
    return changed


async def tag(person: Person, path: str) -> str:
    answer = await person.get(path)
    assert answer.status == 200
    return str(answer.headers["ETag"])


async def change(person: Person, method: str, path: str = "/task/1", *, if_match: str | None = None, **fields: Any) -> Answer:
    """Change a task's name (or what is given), or delete it."""
    headers = {} if if_match is None else {"If-Match": if_match}
    return await person(method, path, headers=headers, **({} if method == "DELETE" else {"json": fields or OTHER}))


async def sent_lines(person: Person, method: str, path: str, *lines: tuple[str, str], **body: Any) -> int:
    """Send a header in several lines and give the answer's status."""
    headers = CIMultiDict([("Authorization", f"Bearer {person.token}"), *lines])
    async with person.client.request(method, path, headers=headers, **body) as response:
        return response.status


async def assert_refused(person: Person, answer: Answer, task: dict[str, Any], kind: str = "changed-meanwhile") -> None:
    """Assert that the answer is 412 and that nothing has changed."""
    assert (answer.status, answer.json["type"], answer.headers["X-Revision"]) == (412, f"/docs/problems#{kind}", "3")
    assert answer.json["current"] == task
    assert (await person.get("/task/1")).json == task
    assert [entry["revision"] for entry in (await person.get("/task/1/log")).json] == [3]


# If-None-Match


@paths
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_has_not_changed_is_304_without_a_body(alice: Person, task: dict[str, Any], method: str, path: str) -> None:
    whole = await alice.get(path)
    answer = await alice(method, path, headers={"If-None-Match": whole.headers["ETag"]})
    assert (answer.status, answer.text) == (304, "")
    kept = ("ETag", "Cache-Control", "Vary", "X-Revision")
    assert [answer.headers[name] for name in kept] == [whole.headers[name] for name in kept]
    assert (answer.headers["Cache-Control"], answer.headers["Vary"]) == ("private, no-cache", "Authorization, Accept")


async def test_a_tag_is_sent_as_the_standard_spells_it(alice: Person, task: dict[str, Any]) -> None:
    for path in ("/task", "/task/1"):
        answer = await alice.client.get(path, headers={"Authorization": f"Bearer {alice.token}"})
        assert b"ETag" in dict(answer.raw_headers)


@paths
async def test_a_tag_is_strong(alice: Person, task: dict[str, Any], path: str) -> None:
    sent = await tag(alice, path)
    assert (sent[0], sent[-1]) == ('"', '"')


@paths
async def test_what_has_changed_is_sent_whole_under_another_tag(alice: Person, task: dict[str, Any], path: str) -> None:
    old = await tag(alice, path)
    await change(alice, "PATCH")
    answer = await alice.get(path, headers={"If-None-Match": old})
    assert (answer.status, answer.headers["ETag"] != old) == (200, True)
    assert "other" in answer.text
    assert (await alice.get(path, headers={"If-None-Match": answer.headers["ETag"]})).status == 304


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ("*", 304),
        ('"1", {}', 304),
        ('W/"1",{},"2"', 304),
        (' ,, "a,b" , {} ,', 304),
        ('"1"', 200),
        ('W/"1", "2"', 200),
        ('"*"', 200),
        ('""', 200),
        ('"%s"' % ("9" * 40), 200),
    ],
)
async def test_if_none_match_is_any_of_its_tags_weakly_compared(alice: Person, task: dict[str, Any], header: str, status: int) -> None:
    for path in PATHS:
        assert (await alice.get(path, headers={"If-None-Match": header.format(await tag(alice, path))})).status == status


@paths
async def test_lines_of_if_none_match_are_one_list(alice: Person, task: dict[str, Any], path: str) -> None:
    lines = ("If-None-Match", '"1"'), ("If-None-Match", await tag(alice, path))
    assert await sent_lines(alice, "GET", path, *lines) == 304
    assert await sent_lines(alice, "GET", path, *lines[:1]) == 200


@pytest.mark.parametrize("path", ["/task/9", "/task/9/log", "/task/1?status=completed"])
@pytest.mark.parametrize("header", ["*", '"3"'])
async def test_what_is_not_there_is_404_whatever_the_client_has(alice: Person, task: dict[str, Any], path: str, header: str) -> None:
    assert (await alice.get(path, headers={"If-None-Match": header})).status == 404


@pytest.mark.parametrize(
    "query", ["status=new", "status=new,planned", "completion_at=none", "q=seen", "sort=-id", "limit=1", "completion_from=01-01-2020"]
)
async def test_the_lists_tag_depends_on_the_query(alice: Person, task: dict[str, Any], query: str) -> None:
    assert await tag(alice, "/task") != await tag(alice, f"/task?{query}")


@pytest.mark.parametrize(("query", "differs"), [("q=seen", True), ("sort=-name", True), ("sort=id", False), ("", False)])
async def test_what_a_version_finds_or_sorts_otherwise_has_another_tag(
    alice: Person, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch, query: str, differs: bool
) -> None:
    before = await tag(alice, f"/task?{query}")
    monkeypatch.setattr(filters, "FOLDING", filters.FOLDING + 1)
    assert (await tag(alice, f"/task?{query}") != before) == differs
    assert (await alice.get(f"/task?{query}", headers={"If-None-Match": before})).status == (200 if differs else 304)


async def test_no_two_pages_have_one_tag(alice: Person, task: dict[str, Any]) -> None:
    await change(alice, "PATCH")
    for path in ("/task", "/task/1/log"):
        first = await alice.get(f"{path}?limit=1")
        second = await alice.get(first.headers["Link"].split(">")[0][1:])
        assert len({first.headers["ETag"], second.headers["ETag"], await tag(alice, path)}) == 3


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("/task?status=new,planned", "/task?status=planned,new"),
        ("/task?completion_at=02-10-2020", "/task?completion_at=2020-10-02"),
        ("/task?sort=id&limit=7", "/task?limit=7&sort=id"),
        ("/task?q=seen", "/task?q=+seen"),
    ],
)
async def test_the_same_query_written_otherwise_has_the_same_tag(alice: Person, task: dict[str, Any], one: str, another: str) -> None:
    assert await tag(alice, one) == await tag(alice, another)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/task", OTHER | {"description": "", "status": "new"}), ("PATCH", "/task/2", OTHER), ("DELETE", "/task/2", None)],
)
async def test_the_lists_tag_changes_with_any_change(
    alice: Person, task: dict[str, Any], method: str, path: str, body: dict[str, Any] | None
) -> None:
    old = await tag(alice, "/task")
    assert (await alice(method, path, json=body)).status < 300
    assert await tag(alice, "/task") != old


@paths
async def test_a_tag_does_not_change_with_somebody_elses_data(alice: Person, mallory: Person, task: dict[str, Any], path: str) -> None:
    old = await tag(alice, path)
    await mallory.new_task()
    await change(mallory, "PATCH")
    assert (await alice.get(path, headers={"If-None-Match": old})).status == 304


@pytest.mark.parametrize(("path", "query"), [("/task/2", ""), ("/task/2/log", ""), ("/task/2", "?status=new")])
async def test_a_tasks_tags_do_not_change_with_another_task(alice: Person, task: dict[str, Any], path: str, query: str) -> None:
    old = await tag(alice, path + query)
    await change(alice, "PATCH")
    assert await tag(alice, path + query) == old


# If-Match


@change_and_delete
@pytest.mark.parametrize("header", ['"3"', '"1", "3"', '"3","99"', 'W/"1", "3"', '"not,ours" , "3"', ',"3" ,', "*", " * "])
async def test_a_change_happens_where_a_tag_is_the_tasks(alice: Person, task: dict[str, Any], method: str, header: str) -> None:
    answer = await change(alice, method, if_match=header)
    assert (answer.status, answer.headers["X-Revision"]) == (204 if method == "DELETE" else 200, "4")


NO_TAGS_OF_THE_TASK = [
    *['"1"', '"2"', '"4"', '"1", "2"', 'W/"2", "1"'],
    *[f'"{text}"' for text in ("", "abc", "*", "03", "+3", "3.0", "0", "-1", "W/3", "\xb3")],
    *[f'"{n}"' for n in (2**31 + 3, 2**32 + 3, 2**63 - 1, 2**63, 2**64 + 3, "9" * 400)],
]


@change_and_delete
@pytest.mark.parametrize("header", NO_TAGS_OF_THE_TASK)
async def test_nothing_changes_where_no_tag_is_the_tasks(alice: Person, task: dict[str, Any], method: str, header: str) -> None:
    await assert_refused(alice, await change(alice, method, if_match=header), task)


@change_and_delete
@pytest.mark.parametrize(
    "header", ["3", '"3', '3"', "'3'", '"3 "', '"3" "4"', '"3"; "4"', 'w/"3"', 'W/ "3"', '*, "3"', '"3", *', "**", '"3"x', "W/3", '"a"b"']
)
async def test_a_malformed_if_match_is_400(alice: Person, task: dict[str, Any], method: str, header: str) -> None:
    answer = await change(alice, method, if_match=header)
    assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["If-Match"])
    assert (await alice.get("/task/1")).json == task


@changes_and_delete
async def test_lines_of_if_match_are_one_list(alice: Person, task: dict[str, Any], method: str) -> None:
    done = 204 if method == "DELETE" else 200
    for second, status in (('"2"', 412), ("*", 400), ('"3"', done)):
        lines = ("If-Match", '"1"'), ("If-Match", second)
        assert await sent_lines(alice, method, "/task/1", *lines, **({} if method == "DELETE" else {"json": OTHER})) == status


@changes_and_delete
@pytest.mark.parametrize("header", ['"1"', '"99"', "*", 'W/"3"'])
async def test_404_goes_before_412(alice: Person, task: dict[str, Any], method: str, header: str) -> None:
    await alice.delete("/task/2")
    for task_id in (2, 9):
        assert (await change(alice, method, f"/task/{task_id}", if_match=header)).status == 404


@changes
@pytest.mark.parametrize(
    ("header", "revision"), [('"1"', None), ('W/"3"', None), (None, 1), ('"1"', 1), ('"1"', 3), ('"3"', 1), ('"abc"', 99)]
)
async def test_a_change_that_holds_already_is_200_whatever_was_seen(
    alice: Person, task: dict[str, Any], method: str, header: str | None, revision: int | None
) -> None:
    fields: dict[str, Any] = {"name": "seen", "status": "new"} | ({"revision": revision} if revision else {})
    answer = await change(alice, method, if_match=header, **fields)
    assert (answer.status, answer.json, answer.headers["X-Revision"]) == (200, task, "3")


@changes
async def test_a_repeat_after_a_lost_answer_is_answered_as_the_first_would_have_been(
    alice: Person, task: dict[str, Any], method: str
) -> None:
    first, repeat = [await change(alice, method, if_match='"3"') for _ in range(2)]
    assert (first.status, first.json, first.headers.get("ETag")) == (repeat.status, repeat.json, repeat.headers.get("ETag"))
    assert (first.status, first.json["revision"]) == (200, 4)


@changes
async def test_a_change_that_holds_only_in_part_is_refused_whole(alice: Person, task: dict[str, Any], method: str) -> None:
    await assert_refused(alice, await change(alice, method, if_match='"1"', name="seen", status="planned"), task)


# A weak tag, which never matches: something on the way made it weak


@changes_and_delete
@pytest.mark.parametrize(("header", "changed"), [('W/"3"', []), ('W/"3", "1"', []), ('W/"1"', ["name"]), ('W/"99"', None), ('W/"3.2"', [])])
async def test_a_weak_tag_is_told_to_be_one(
    alice: Person, task: dict[str, Any], method: str, header: str, changed: list[str] | None
) -> None:
    answer = await change(alice, method, if_match=header)
    await assert_refused(alice, answer, task, "weak-tag")
    assert "never matches" in answer.json["detail"]
    assert "`revision`" in answer.json["detail"]
    assert answer.json.get("changed") == changed


async def test_the_way_round_a_weak_tag_is_one(alice: Person, task: dict[str, Any]) -> None:
    assert (await alice.patch("/task/1", json=OTHER, headers={"If-Match": 'W/"3"'})).status == 412
    assert (await alice.patch("/task/1", json=OTHER | {"revision": 3})).json["revision"] == 4


# If-None-Match on a change


async def conditional(person: Person, call: str, header: str, **body: Any) -> Answer:
    """Make a call that changes a task, under the condition that none of these tags is the present one."""
    method, path = call.split()
    sent = {} if method == "DELETE" else {"json": body or ({} if "restore" in path else OTHER)}
    return await person(method, path, headers={"If-None-Match": header}, **sent)


DONE_IN_LIFE = [*(f"{method} /task/1" for method in [*CHANGES, "DELETE"]), "DELETE /task/1?forever=true", "POST /task/1/restore"]
every_change = pytest.mark.parametrize("call", DONE_IN_LIFE)


@every_change
@pytest.mark.parametrize("header", ["*", '"3"', 'W/"3"', '"1", W/"3"', ' , "3",'])
async def test_what_if_none_match_names_is_not_changed(alice: Person, task: dict[str, Any], call: str, header: str) -> None:
    await assert_refused(alice, await conditional(alice, call, header), task, "unchanged")


@every_change
@pytest.mark.parametrize("header", ['"1"', 'W/"2", "99"', '"abc"', '"3.2"', f'"{2**64}"'])
async def test_what_if_none_match_does_not_name_is_changed(alice: Person, task: dict[str, Any], call: str, header: str) -> None:
    assert (await conditional(alice, call, header)).status in (200, 204)
    assert (await alice.get("/task")).headers["X-Revision"] == ("3" if "restore" in call else "4")


@changes
async def test_not_even_what_would_change_nothing_is_done(alice: Person, task: dict[str, Any], method: str) -> None:
    for header in ("*", '"3"'):
        await assert_refused(alice, await conditional(alice, f"{method} /task/1", header, name="seen"), task, "unchanged")
    assert (await conditional(alice, f"{method} /task/1", '"1"', name="seen")).json == task


@pytest.mark.parametrize("call", ["POST /task/2/restore", "DELETE /task/2?forever=true"])
async def test_what_is_in_the_trash_is_known_too(alice: Person, task: dict[str, Any], call: str) -> None:
    await alice.delete("/task/2")
    for header in ("*", '"4"'):
        answer = await conditional(alice, call, header)
        assert (answer.status, answer.json["current"]["revision"], answer.headers["X-Revision"]) == (412, 4, "4")
    assert (await conditional(alice, call, '"2"')).status in (200, 204)


async def test_a_restoration_to_what_was_is_refused_too(alice: Person, task: dict[str, Any]) -> None:
    for header, status in (("*", 412), ('"3"', 412), ('"1"', 200)):
        answer = await conditional(alice, "POST /task/1/restore", header, revision=1)
        assert (answer.status, (await alice.get("/task/1")).json["name"]) == (status, "seen" if status == 412 else "first")


@every_change
async def test_404_goes_before_if_none_match_too(alice: Person, task: dict[str, Any], call: str) -> None:
    for header in ("*", '"3"', '"99"'):
        answer = await conditional(alice, call.replace("/1", "/9"), header)
        assert answer.status == 404
        if "forever" not in call and "restore" not in call:
            await alice.delete("/task/2")
            assert (await conditional(alice, call.replace("/1", "/2"), header)).status == 404


@every_change
async def test_a_malformed_if_none_match_is_400(alice: Person, task: dict[str, Any], call: str) -> None:
    answer = await conditional(alice, call, "3")
    assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["If-None-Match"])


@changes_and_delete
async def test_both_headers_must_hold(alice: Person, task: dict[str, Any], method: str) -> None:
    for match, none_match, status in (('"3"', '"3"', 412), ('"1"', '"1"', 412), ('"1"', '"3"', 412), ("*", "*", 412), ('"3"', '"1"', 0)):
        lines = ("If-Match", match), ("If-None-Match", none_match)
        answered = await sent_lines(alice, method, "/task/1", *lines, **({} if method == "DELETE" else {"json": OTHER}))
        assert answered == (status or (204 if method == "DELETE" else 200))


async def test_a_creation_is_one_in_the_list(alice: Person, task: dict[str, Any]) -> None:
    """Its target is the list, whose tag it may name (RFC 9110, section 13.1.2), and which is always there."""
    new = OTHER | {"description": "", "status": "new"}
    old, present = await tag(alice, "/task?limit=1"), await tag(alice, "/task")
    for header, status in (("*", 412), (present, 412), (f"W/{present}", 412), ("x", 400), (old, 201), (present, 201)):
        answer = await alice.post("/task", json=new, headers={"If-None-Match": header})
        assert answer.status == status, header
        assert status != 412 or answer.json["type"] == "/docs/problems#list-unchanged"
    assert len((await alice.get("/task")).json) == 4


# The revision in the body

BOTH = [
    ('W/"3", "3"', 1, 412),
    (None, 3, 200),
    (None, 1, 412),
    (None, 4, 412),
    (None, 2**63 - 1, 412),
    ('"3"', 3, 200),
    ("*", 3, 200),
    ('"1", "3"', 3, 200),
    ('"3"', 1, 412),
    ('"1"', 3, 412),
    ('"1"', 1, 412),
    ("*", 1, 412),
    ('"1", "3"', 1, 412),
    ('"1", "2"', 3, 412),
    ('W/"3"', 3, 412),
    ('"abc"', 3, 412),
]


@changes
@pytest.mark.parametrize(("header", "revision", "status"), BOTH)
async def test_the_bodys_revision_must_hold_and_the_header_too(
    alice: Person, task: dict[str, Any], method: str, header: str | None, revision: int, status: int
) -> None:
    answer = await change(alice, method, if_match=header, name="other", revision=revision)
    if status == 412:
        await assert_refused(alice, answer, task, "weak-tag" if header == 'W/"3"' else "changed-meanwhile")
    else:
        assert (answer.status, answer.json["revision"], answer.json["name"]) == (200, 4, "other")


@changes
async def test_a_forms_revision_must_hold_too(alice: Person, task: dict[str, Any], method: str) -> None:
    await assert_refused(alice, await alice(method, "/task/1", data=OTHER | {"revision": "1"}), task)
    assert (await alice(method, "/task/1", data=OTHER | {"revision": "3"})).json["revision"] == 4


@changes
@pytest.mark.parametrize("revision", [2**63, 10**30])
async def test_a_revision_that_no_task_can_have_changes_nothing(alice: Person, task: dict[str, Any], method: str, revision: int) -> None:
    assert (await change(alice, method, name="other", revision=revision)).status in (400, 412)
    assert (await alice.get("/task/1")).json == task


async def test_no_two_users_have_a_list_of_the_same_tag(alice: Person, mallory: Person) -> None:
    for person in (alice, mallory):
        await person.new_task(name=f"of {person.login}")
    theirs = [(await alice.get(path)).headers["ETag"] for path in ("/task", "/task/1/log")]
    for path, tag in zip(("/task", "/task/1/log"), theirs, strict=True):
        assert (await alice.get(path, headers={"If-None-Match": tag})).status == 304
        assert (await mallory.get(path, headers={"If-None-Match": tag})).status == 200


async def test_a_tag_may_hold_any_characters_but_quotes(alice: Person) -> None:
    await alice.new_task()
    for tag in ('"я"', '"a b"'):
        expected = 400 if " " in tag else 412
        assert (await alice.patch("/task/1", json={"name": "new"}, headers={"If-Match": tag})).status == expected


@pytest.mark.parametrize("path", ["/task", "/task?status=new&limit=1", "/task/1/log"])
async def test_a_page_that_the_client_has_is_not_even_made(alice: Person, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    await alice.new_task()
    await alice.patch("/task/1", json={"name": "other"})
    tag = (await alice.get(path)).headers["ETag"]
    sent: list[str] = []
    ask = Database.ask

    def record(database: Database, query: Query[Any], *arguments: Any) -> Any:
        sent.append(query.one.text)
        return ask(database, query, *arguments)

    monkeypatch.setattr(Database, "ask", record)
    assert (await alice.get(path, headers={"If-None-Match": f'"other", W/{tag}'})).status == 304
    assert ["string_agg" in text for text in sent] == [False]
    assert (await alice.get(path, headers={"If-None-Match": '"other"'})).status == 200
    assert ["string_agg" in text for text in sent] == [False, False, True]


async def test_a_wrong_cursor_is_refused_whatever_the_client_has(alice: Person) -> None:
    for tag in ("*", (await alice.get("/task")).headers["ETag"]):
        assert (await alice.get("/task?cursor=x", headers={"If-None-Match": tag})).status == 400

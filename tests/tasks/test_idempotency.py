"""A creation that is sent again with its key is done once, and answered as it was."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rest import idempotency
from tests.conftest import Answer, Person, Start
from tests.rest.test_bodies import exchange, request_of
from tests.tasks.test_races import at_once
from tests.tasks.test_tasks import NEW, blamed, rows

Sql = Callable[..., list[tuple[Any, ...]]]

KEY = {"Idempotency-Key": "a-key"}


def seen(answer: Answer) -> tuple[Any, ...]:
    """Return what a repeated request is promised to be answered with."""
    return answer.status, answer.text, answer.headers.get("Location"), answer.headers.get("ETag"), answer.headers["Content-Type"]


async def create(person: Person, key: str = "a-key", **fields: Any) -> Answer:
    return await person.post("/task", json=NEW | fields, headers={"Idempotency-Key": key})


# Once


async def test_a_repeated_creation_is_answered_as_the_first(alice: Person, sql: Sql) -> None:
    first = await create(alice, status="completed", completion_at="02-10-2020")
    assert (first.status, first.headers["Location"], first.headers["ETag"]) == (201, "/task/1", '"1"')
    before = rows(sql, alice)
    assert seen(await create(alice, status="completed", completion_at="02-10-2020")) == seen(first)
    assert rows(sql, alice) == before


async def test_the_answer_is_the_task_as_it_was_created_whatever_became_of_it(alice: Person) -> None:
    first = await create(alice, completion_at="02-10-2020", description="as it was")
    for change in ({"name": "other", "status": "completed"}, {"completion_at": None}, {"description": "later", "status": "new"}):
        await alice.patch("/task/1", json=change)
    answer = await create(alice, completion_at="02-10-2020", description="as it was")
    assert seen(answer) == seen(first)
    assert answer.headers["X-Revision"] == "4"  # the user's, which is no part of the answer as it was
    await alice.delete("/task/1")
    assert seen(await create(alice, completion_at="02-10-2020", description="as it was")) == seen(first)


@pytest.mark.parametrize("batch_size", [32, 1])
async def test_of_a_hundred_at_once_one_creates_and_all_are_answered_alike(alice: Person, sql: Sql, start: Start, batch_size: int) -> None:
    alice.client = await start(batch_size=batch_size, db_wait_seconds=8)  # for one of ten connections
    answers = await asyncio.gather(*(create(alice) for _ in range(100)))
    answers.append(await create(alice))
    assert {seen(answer) for answer in answers} == {seen(answers[0])}
    assert answers[0].status == 201
    assert {answer.headers["X-Revision"] for answer in answers} == {"1"}
    [(state, [task], _)] = rows(sql, alice)
    assert (state["revision"], state["last_task_id"], task["id"]) == (1, 1, 1)


async def test_while_the_user_is_held_none_slips_through(alice: Person, sql: Sql) -> None:
    answers = await at_once(sql, alice, *(create(alice) for _ in range(20)))
    assert {seen(answer) for answer in answers} == {seen(await create(alice))}
    assert len((await alice.get("/task")).json) == 1


async def test_who_finds_the_user_held_is_busy_though_the_user_was_let_go_right_after(alice: Person, sql: Sql) -> None:
    assert alice.caller
    sql("BEGIN")
    skipping = "p_user_id bigint, p_generation bigint, p_wait boolean) RETURNS user_state LANGUAGE sql RETURN NULL::user_state"
    sql(f"CREATE OR REPLACE FUNCTION state_lock({skipping}")
    asked = (
        'SELECT refused FROM task_create_once(%s, %s, false, \'{"name": "a", "description": "", "status": "new"}\', NULL, \'key\', \'\')'
    )
    assert sql(asked, *alice.caller) == [("busy",)]
    sql("ROLLBACK")
    assert (await alice.get("/task")).json == []


async def test_different_keys_at_once_create_a_task_each(alice: Person) -> None:
    answers = await asyncio.gather(*(create(alice, f"key-{n % 10}") for n in range(50)))
    assert sorted({answer.json["id"] for answer in answers}) == list(range(1, 11))
    assert len((await alice.get("/task")).json) == 10


async def test_without_a_key_every_creation_is_one_of_its_own(alice: Person) -> None:
    assert [(await alice.new_task())["id"] for _ in range(2)] == [1, 2]
    assert [(await create(alice, key)).json["id"] for key in ("a", "b", "a")] == [3, 4, 3]


async def test_a_key_is_ones_own(alice: Person, mallory: Person) -> None:
    await create(alice, name="secret")
    answer = await create(mallory, name="mine")
    assert (answer.status, answer.json["name"]) == (201, "mine")
    assert "secret" not in (await create(mallory, name="secret", key="other")).headers["Location"]


# The same


@pytest.mark.parametrize(
    "again",
    [
        {"data": {"completion_at": "2020-10-02", "description": "two", "name": "Caf\u00e9", "status": "new"}},
        {"json": {"name": "Cafe\u0301", "description": "two", "status": "new", "completion_at": "02-10-2020"}},
    ],
)
async def test_the_same_said_otherwise_is_the_same(alice: Person, again: dict[str, Any]) -> None:
    first = await create(alice, name="Caf\u00e9", description="two", completion_at="02-10-2020")
    assert seen(await alice.post("/task", headers=KEY, **again)) == seen(first)


async def test_what_is_left_out_is_the_same_as_none(alice: Person) -> None:
    first = await create(alice)
    assert seen(await create(alice, completion_at=None)) == seen(await create(alice, completion_at="")) == seen(first)


@pytest.mark.parametrize("fields", [{"name": "other"}, {"description": " "}, {"status": "planned"}, {"completion_at": "02-10-2020"}])
async def test_other_values_under_the_same_key_are_refused(alice: Person, sql: Sql, fields: dict[str, Any]) -> None:
    first = await create(alice)
    await alice.new_task()
    before = rows(sql, alice)
    answer = await create(alice, **fields)
    assert (answer.status, answer.json["type"], answer.headers["X-Revision"]) == (422, "/docs/problems#key-reused", "2")
    assert rows(sql, alice) == before
    assert seen(await create(alice)) == seen(first)


async def test_a_key_of_another_operation_is_refused(alice: Person, sql: Sql) -> None:
    sql(
        "INSERT INTO idempotency_key VALUES (%s, 'a-key', %s, NULL, 'imported', now())",
        alice.caller.user_id,
        idempotency.digest("POST /import", ""),
    )
    assert (await create(alice)).status == 422


async def test_a_refused_creation_keeps_no_key(alice: Person, sql: Sql) -> None:
    assert (await create(alice, status="done")).status == 400
    assert sql("SELECT 1 FROM idempotency_key WHERE user_id = %s", alice.caller.user_id) == []
    assert (await create(alice)).status == 201


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_creation_whose_task_was_purged_is_gone_and_not_done_again(alice: Person, sql: Sql, deleted: bool) -> None:
    await create(alice)
    if deleted:
        await alice.delete("/task/1")
    await alice.delete("/task/1?forever=true")
    before = rows(sql, alice)
    answer = await create(alice)
    assert (answer.status, answer.headers["X-Revision"]) == (410, "2")
    assert "purged" in answer.json["detail"]
    assert rows(sql, alice) == before


async def test_a_key_ends_with_the_token(alice: Person, sql: Sql) -> None:
    await create(alice)
    sql("UPDATE user_state SET token_generation = token_generation + 1 WHERE user_id = %s", alice.caller.user_id)
    assert (await create(alice)).status == 401


# The key


GOOD = ["x", "x" * 255, "".join(map(chr, range(0x21, 0x7F))), "a,b;c", "a=b", "{}\\", "NULL", "null", "''"]


@pytest.mark.parametrize("key", GOOD)
async def test_a_key_is_any_visible_ascii_in_quotes_or_not(alice: Person, key: str) -> None:
    first, other = await create(alice, key), await create(alice, "!" + key[1:] + "2" if len(key) < 255 else "y")
    assert (first.status, other.status) == (201, 201)
    assert seen(await create(alice, f'"{key}"')) == seen(await create(alice, key)) == seen(first)


@pytest.mark.parametrize("key", ["", " ", '"', '""', '"x', 'x"', "x" * 256, f'"{"x" * 256}"', "a b", "\u00e9", "a\tb"])
async def test_what_is_no_key_is_refused(alice: Person, sql: Sql, key: str) -> None:
    before = rows(sql, alice)
    assert blamed(await create(alice, key)) == ["Idempotency-Key"]
    assert rows(sql, alice) == before


@pytest.mark.parametrize("sent", [["a", "a"], ["a", "b"], ["\xe9"]])
async def test_two_keys_or_other_bytes_are_refused(alice: Person, sent: list[str]) -> None:
    headers = ["Content-Type: application/x-www-form-urlencoded", *(f"Idempotency-Key: {key}" for key in sent)]
    answer = await exchange(alice.client, request_of(alice, "POST /task", *headers, body=b"name=x&description=&status=new"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (await alice.get("/task")).json == []


async def test_only_a_creation_reads_the_key(alice: Person) -> None:
    await create(alice)
    for name in ("other", "again"):
        assert (await alice.patch("/task/1", json={"name": name}, headers=KEY)).json["name"] == name
    assert (await alice.get("/task", headers={"Idempotency-Key": "a b"})).status == 200

"""Letting go of tasks for good: by a client's wish, and by age."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Person
from tests.tasks.test_tasks import blamed, rows

Sql = Callable[..., list[tuple[Any, ...]]]

FOREVER = "/task/1?forever=true"


def kept(sql: Sql, person: Person) -> tuple[int, int, bool]:
    """Return the revision from which a person's history is whole, how much was purged, and whether the moment is that of the last change."""
    assert person.caller
    [row] = sql("SELECT kept_from, purged, kept_from_at = changed_at FROM user_state WHERE user_id = %s", person.caller.user_id)
    return row


def traces(sql: Sql, secret: str) -> list[str]:
    """Return the tables in which a text can still be found."""
    tables = [
        name for (name,) in sql("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    ]
    return [table for table in tables if sql(f"SELECT 1 FROM {table} x WHERE strpos(x::text, %s) > 0", secret)]


# Erasing


async def test_an_erased_task_leaves_nothing_that_could_be_found(alice: Person, sql: Sql) -> None:
    for secret in ("a-pasted-secret", "another-secret"):
        await alice.new_task(description=secret)
    await alice.patch("/task/1", json={"description": "harmless"})
    await alice.delete("/task/2")
    assert traces(sql, "a-pasted-secret") == ["task_log"]
    assert traces(sql, "another-secret") == ["task"]
    for task_id in (1, 2):
        answer = await alice.delete(f"/task/{task_id}?forever=true")
        assert (answer.status, answer.text) == (204, "")
    assert traces(sql, "a-pasted-secret") == traces(sql, "another-secret") == []


async def test_a_live_task_is_erased_by_a_change_that_nobody_can_go_back_behind(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    other = await alice.new_task()
    assert kept(sql, alice) == (0, 0, False)
    answer = await alice.delete(FOREVER)
    assert (answer.status, answer.headers["X-Revision"]) == (204, "3")
    assert kept(sql, alice) == (3, 1, True)
    assert (await alice.get("/task")).json == [other]
    assert (await alice.new_task())["revision"] == 4


async def test_a_task_in_the_trash_is_erased_without_a_revision(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    await alice.delete("/task/1")
    await alice.new_task()
    answer = await alice.delete(FOREVER)
    assert (answer.status, answer.headers["X-Revision"]) == (204, "3")
    assert kept(sql, alice) == (2, 1, False)


async def test_what_is_kept_only_ever_ascends(alice: Person, sql: Sql) -> None:
    for _ in range(2):
        await alice.new_task()
    for task_id in (1, 2):
        await alice.delete(f"/task/{task_id}")
    seen = []
    for task_id in (2, 1):
        await alice.delete(f"/task/{task_id}?forever=true")
        seen.append(kept(sql, alice))
    assert seen == [(4, 1, True), (4, 2, True)]


async def test_an_erased_task_is_not_there_whatever_is_asked_of_it(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    await alice.delete(FOREVER)
    before = rows(sql, alice)
    for method, path in (("GET", "/task/1"), ("GET", "/task/1/log"), ("PATCH", "/task/1"), ("DELETE", "/task/1"), ("DELETE", FOREVER)):
        answer = await alice(method, path, data={})
        assert (answer.status, answer.headers["X-Revision"]) == (404, "2"), (method, path)
    assert rows(sql, alice) == before
    assert (await alice.new_task())["id"] == 2


@pytest.mark.parametrize(("if_match", "status"), [('"2"', 204), ("*", 204), ('"1", "2"', 204), ('"1"', 412), ('W/"2"', 412), ("2", 400)])
@pytest.mark.parametrize("deleted", [False, True], ids=["live", "in the trash"])
async def test_an_erasure_takes_if_match(alice: Person, sql: Sql, deleted: bool, if_match: str, status: int) -> None:
    await alice.new_task()
    await (alice.delete("/task/1") if deleted else alice.patch("/task/1", json={"name": "other"}))
    before = rows(sql, alice)
    assert (await alice.delete(FOREVER, headers={"If-Match": if_match})).status == status
    assert (rows(sql, alice) == before) == (status != 204)


@pytest.mark.parametrize("value", ["", "1", "True", "yes", "true&forever=true"])
async def test_what_is_neither_true_nor_false_erases_nothing(alice: Person, sql: Sql, value: str) -> None:
    await alice.new_task()
    before = rows(sql, alice)
    assert set(blamed(await alice.delete(f"/task/1?forever={value}"))) == {"forever"}
    assert rows(sql, alice) == before


async def test_not_forever_is_the_trash(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    assert (await alice.delete("/task/1?forever=false")).status == 204
    assert (await alice.delete("/task/1?forever=false")).status == 404
    assert kept(sql, alice) == (0, 0, False)


async def test_of_many_erasures_at_once_one_is_done(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    answers = await asyncio.gather(*(alice.delete(FOREVER) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [204] + [404] * 9
    assert kept(sql, alice) == (2, 1, True)


async def test_a_token_of_the_past_erases_nothing(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    await alice.post("/revoke-tokens")
    before = rows(sql, alice)
    assert (await alice.delete(FOREVER)).status == 401
    assert rows(sql, alice) == before


async def test_mallory_erases_nothing_of_alices(alice: Person, mallory: Person, sql: Sql) -> None:
    await alice.new_task()
    before = rows(sql, alice)
    assert (await mallory.delete(FOREVER)).status == 404
    assert rows(sql, alice) == before

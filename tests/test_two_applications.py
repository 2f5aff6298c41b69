"""Two applications in one process, each with settings and a database of its own, know nothing of each other."""

import asyncio
import secrets
from collections import Counter
from typing import Any, NamedTuple

import pytest

from accounts import users
from postgres import pool
from postgres.database import Database
from rest import overload
from telemetry import metrics
from tests.conftest import PASSWORD, Person, Start, cheap_hash
from tests.history.test_events import followed
from tests.tasks.test_tasks import blamed

GENERATION = 7


class Pair(NamedTuple):
    """A user of each application, with the same id and the same token generation."""

    here: Person
    there: Person


@pytest.fixture
async def pair(start: Start, fresh_name: str) -> Pair:
    """Two applications that have little in common, with a user each."""
    here = Person(await start(batch_size=32), f"alice-{secrets.token_hex(6)}")
    other = {"jwt_secret": "another secret " * 4, "pass_salt": "another salt " * 4, "db": fresh_name, "batch_size": 1, "db_pool_size": 3}
    limits = {"password_min_length": 20, "token_lifetime_max_seconds": 100, "max_body_bytes": 2000, "undo_max_tasks": 1}
    there = Person(await start(**other, **limits, max_requests_at_once=7), here.login)
    caller = await users.create_user(here.service, here.login, cheap_hash(PASSWORD), GENERATION)
    await there.service.database.rows("SELECT setval(pg_get_serial_sequence('users', 'id'), %s, false)", (caller.user_id,))
    assert caller == await users.create_user(there.service, there.login, cheap_hash(PASSWORD), GENERATION)
    return Pair(Person(here.client, here.login, caller), Person(there.client, there.login, caller))


async def test_a_token_is_good_where_it_was_given(pair: Pair) -> None:
    for person, other in (pair, reversed(pair)):
        assert (await person.get("/task")).status == 200
        assert (await Person(other.client)("GET", "/task", headers={"Authorization": f"Bearer {person.token}"})).status == 401
    assert pair.here.token != pair.there.token


async def test_tasks_and_their_pages_do_not_mix(pair: Pair) -> None:
    for person, name in zip(pair, ("here", "there"), strict=True):
        await asyncio.gather(*(person.new_task(name=f"{name} {n}") for n in range(3)))
    for person, name in zip(pair, ("here", "there"), strict=True):
        assert {task["name"] for task in (await person.get("/task")).json} == {f"{name} {n}" for n in range(3)}
    link = (await pair.here.get("/task?limit=1")).headers["Link"]
    next_page = link[1 : link.index(">")]
    assert (await pair.here.get(next_page)).status == 200
    assert blamed(await pair.there.get(next_page)) == ["cursor"]


async def test_a_password_is_good_where_it_was_set(pair: Pair) -> None:
    answers = [await person.post("/get-token", json={"login": person.login, "password": PASSWORD}) for person in pair]
    assert [answer.status for answer in answers] == [200, 401]  # its hash was made with the pepper of here


async def test_each_has_limits_of_its_own(pair: Pair) -> None:
    async def statuses(path: str, body: dict[str, Any]) -> list[int]:
        return [(await person.post(path, json=body)).status for person in pair]

    assert await statuses("/register", {"login": secrets.token_hex(6), "password": PASSWORD[:19]}) == [201, 400]
    assert await statuses("/get-token", {"login": "nobody", "password": PASSWORD, "expires_in": 101}) == [401, 400]
    assert await statuses("/task", {"name": "a", "description": "x" * 3000, "status": "new"}) == [201, 413]
    for person in pair:
        await person.new_task()
        await person.new_task()
    assert await statuses("/task/undo", {"since": 0, "dry_run": True}) == [200, 409]


async def test_each_has_batches_and_a_pool_of_its_own(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: Counter[str] = Counter()
    run = Database._run

    async def count(database: Database, *arguments: Any) -> Any:
        statements[database.configuration.name] += 1
        return await run(database, *arguments)

    for person in pair:
        await person.new_task()
    monkeypatch.setattr(Database, "_run", count)
    await asyncio.gather(*(person.get("/task/1") for person in pair for _ in range(6)))
    assert statements[pair.there.service.settings.db] == 6
    assert statements[pair.here.service.settings.db] < 6
    assert [person.service.database.pool_backend.pool.maxsize for person in pair] == [10, 3]


@pytest.mark.long
async def test_events_come_where_something_happens(pair: Pair) -> None:
    async with followed(pair.here) as here, followed(pair.there) as there:
        task = await pair.here.new_task(name="here")
        assert await here.next() == ("task", 1, task)
        assert await there.is_silent()
        task = await pair.there.new_task(name="there")
        assert await there.next() == ("task", 1, task)
        assert await here.is_silent()


def amount(gauge: metrics.Gauge, *labels: str) -> float:
    return sum(function() for function in gauge._functions[labels])


async def test_what_is_measured_is_the_process_s_as_long_as_they_run(pair: Pair) -> None:
    before = amount(overload.MAX_AT_WORK), amount(pool.MAX_CONNECTIONS)
    await pair.there.client.close()
    after = amount(overload.MAX_AT_WORK), amount(pool.MAX_CONNECTIONS)
    assert tuple(one - other for one, other in zip(before, after, strict=True)) == (7, 3)
    await pair.here.client.close()


async def test_the_end_of_one_is_not_the_other_s(pair: Pair) -> None:
    await pair.here.client.close()
    await pair.there.new_task()
    assert [task["id"] for task in (await pair.there.get("/task")).json] == [1]

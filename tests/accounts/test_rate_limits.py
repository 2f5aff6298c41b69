"""How often: attempts to get in, and the requests of those who are in."""

import asyncio
import itertools
import logging
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

import app
from accounts import rate_limits
from rest.errors import Overloaded
from service import Service
from settings import Settings
from tests import conftest
from tests.conftest import Answer, Person, Server, Start, configured, connection_to
from tests.postgres.test_housekeeping import sweep
from tests.waiting import until
from transfer import imports

Sql = Callable[..., list[tuple[Any, ...]]]

PASSWORD = "correct horse"
FAILURES, REQUESTS = 8, 20
_numbers = itertools.count(1)


def somewhere() -> str:
    """Return an address from which nobody has come yet."""
    number = next(_numbers)
    return f"198.18.{number // 256}.{number % 256}"


GIVEN = {
    "rate_limit": "on",
    "trusted_proxies": "127.0.0.0/8",
    "lock_timeout_seconds": 2,
    "db_wait_seconds": 1,
    "login_failures_per_hour": FAILURES,
    "user_limit_per_minute": REQUESTS,
}


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    """A client of an application that counts, and that takes the client for the proxy of all the world."""
    async with TestClient(TestServer(await app.create_app(configured(**GIVEN)))) as client:
        yield client


@pytest.fixture
def other_sql(server: Server) -> Iterator[Sql]:
    """A second connection."""
    with connection_to(server) as sql:
        yield sql


class Visitor:
    """Somebody who tries to get in."""

    def __init__(self, client: TestClient[Any, Any]) -> None:
        self.person, self.login = Person(client), f"visitor-{secrets.token_hex(6)}"

    async def __call__(self, path: str, address: str, login: str = "", password: str = PASSWORD) -> Answer:
        fields = {"login": login or self.login, "password": password}
        return await self.person.post(path, json=fields, headers={"X-Forwarded-For": address})

    async def register(self, address: str, login: str = "") -> Answer:
        return await self("/register", address, login)

    async def log_in(self, address: str, login: str = "") -> Answer:
        return await self("/get-token", address, login)

    async def guess(self, address: str, login: str = "") -> Answer:
        return await self("/get-token", address, login, "a wrong guess")


@pytest.fixture
def visitor(client: TestClient[Any, Any]) -> Visitor:
    return Visitor(client)


def violated(answer: Answer) -> list[str]:
    """Return the quotas that refused; none where none did."""
    if answer.status != 429:
        return []
    wait = int(answer.headers["Retry-After"])
    [name] = answer.json["violated-policies"]
    assert answer.json["type"] == "/docs/problems#quota-exceeded"
    assert answer.json["detail"].endswith(f"Try again in {wait} s.")
    assert answer.headers["RateLimit"] == f'"{name}";r=0;t={wait}'
    most, seconds = re.fullmatch(rf'"{name}";q=(\d+);w=(\d+)', answer.headers["RateLimit-Policy"]).groups()
    assert 0 < wait <= int(seconds)
    assert f"more than {most} in {seconds} seconds" in answer.json["detail"]
    return [name]


def left(answer: Answer) -> dict[str, int]:
    """Return what is left of each quota, as the answer says."""
    items = [re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', item) for item in answer.headers["RateLimit"].split(", ")]
    assert all(item and 0 < int(item[3]) <= 60 for item in items)
    return {item[1]: int(item[2]) for item in items if item}


# By address


async def test_from_one_address_there_are_ten_attempts_a_minute(visitor: Visitor) -> None:
    address = somewhere()
    answers = await asyncio.gather(*(visitor.guess(address, f"{visitor.login}-{n}") for n in range(14)))
    assert Counter((answer.status, *violated(answer)) for answer in answers) == {(401,): 10, (429, "address"): 4}
    assert sorted(left(answer)["address"] for answer in answers if answer.status == 401) == list(range(10))
    assert (await visitor.guess(somewhere())).status == 401


async def test_to_register_is_an_attempt_too(visitor: Visitor) -> None:
    address = somewhere()
    first = await visitor.register(address)
    assert (first.status, left(first)) == (201, {"address": 9, "login": 4})
    assert first.headers["RateLimit-Policy"] == '"address";q=10;w=60, "login";q=5;w=60'
    for n in range(9):
        answer = await visitor.register(address, f"{visitor.login}-{n % 3}")
        assert answer.status == (201 if n < 3 else 409)
        assert left(answer)["address"] == 8 - n
    assert violated(await visitor.register(address)) == violated(await visitor.log_in(address)) == ["address"]


async def test_a_64_of_ipv6_is_one_address(visitor: Visitor) -> None:
    answers = [await visitor.guess(f"2001:db8:1:2:{n}::{n}", f"{visitor.login}-{n}") for n in range(11)]
    assert [answer.status for answer in answers] == [401] * 10 + [429]
    assert (await visitor.guess("2001:db8:1:3::1")).status == 401


# By login and address


async def test_a_login_can_be_tried_five_times_a_minute_from_one_address(visitor: Visitor) -> None:
    home, elsewhere = somewhere(), somewhere()
    assert (await visitor.register(home)).status == 201
    answers = await asyncio.gather(*(visitor.guess(elsewhere, login) for login in [visitor.login, visitor.login.upper()] * 4))
    assert Counter((answer.status, *violated(answer)) for answer in answers) == {(401,): 5, (429, "login"): 3}
    assert violated(await visitor.log_in(elsewhere)) == ["login"]  # the right password is not even looked at
    assert (await visitor.log_in(home)).status == 200
    other = await visitor.guess(elsewhere, visitor.login + "-other")
    assert (other.status, left(other)) == (401, {"address": 4, "login": 4})  # what was refused is counted nowhere


async def test_whoever_knows_the_password_is_counted_as_well(visitor: Visitor) -> None:
    home = somewhere()
    await visitor.register(home)
    answers = [await visitor.log_in(home) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["RateLimit-Policy"] == '"address";q=10;w=60, "login";q=5;w=60, "failures";q=8;w=3600'


async def test_what_is_malformed_is_no_attempt(visitor: Visitor) -> None:
    address = somewhere()
    for _ in range(12):
        answer = await visitor.person.post("/get-token", data={"login": "a"}, headers={"X-Forwarded-For": address})
        assert (answer.status, "RateLimit" in answer.headers) == (400, False)
    assert (await visitor.guess(address)).status == 401


# By login


async def test_a_login_that_fails_everywhere_can_be_used_only_from_where_it_has_succeeded(visitor: Visitor) -> None:
    home = somewhere()
    await visitor.register(home)
    answers = await asyncio.gather(*(visitor.guess(somewhere()) for _ in range(FAILURES + 4)))
    assert Counter((answer.status, *violated(answer)) for answer in answers) == {(401,): FAILURES, (429, "failures"): 4}
    assert violated(await visitor.log_in(somewhere())) == ["failures"]
    assert [(await visitor.guess(home)).status for _ in range(2)] == [401, 401]
    assert (await visitor.log_in(home)).status == 200  # nobody has locked her out


async def test_an_unknown_login_is_counted_alike(visitor: Visitor) -> None:
    answers = [await visitor.guess(somewhere()) for _ in range(FAILURES + 1)]
    assert [answer.status for answer in answers] == [401] * FAILURES + [429]
    assert violated(answers[-1]) == ["failures"]
    assert all("failures" not in left(answer) for answer in answers[:-1])  # how often others failed is their business


@pytest.mark.long
async def test_only_failures_from_unknown_addresses_are_counted(visitor: Visitor) -> None:
    places = [somewhere() for _ in range(FAILURES + 1)]
    await visitor.register(places[0])
    assert [(await visitor.log_in(place)).status for place in places] == [200] * len(places)
    assert [(await visitor.guess(place)).status for place in places] == [401] * len(places)  # they are all known by now
    assert [(await visitor.guess(somewhere())).status for _ in range(FAILURES + 1)] == [401] * FAILURES + [429]


async def test_to_register_a_login_that_is_taken_is_no_failure(visitor: Visitor) -> None:
    await visitor.register(somewhere())
    assert [(await visitor.register(somewhere())).status for _ in range(FAILURES)] == [409] * FAILURES
    assert (await visitor.log_in(somewhere())).status == 200


@pytest.mark.parametrize(
    ("path", "wrong"),
    [("/change-password", {"old": "a wrong guess", "new": "another horse"}), ("/delete-account", {"password": "a wrong guess"})],
)
async def test_a_wrong_present_password_is_a_failure_too(visitor: Visitor, path: str, wrong: dict[str, str]) -> None:
    home, elsewhere = somewhere(), somewhere()
    visitor.person.token = (await visitor.register(home)).json["access_token"]

    async def show(address: str, **fields: str) -> Answer:
        return await visitor.person.post(path, json=wrong | fields, headers={"X-Forwarded-For": address})

    answers = [await show(elsewhere) for _ in range(6)]
    assert Counter((answer.status, *violated(answer)) for answer in answers) == {(400,): 5, (429, "login"): 1}
    assert left(answers[0]) == {"address": 9, "login": 4}
    assert [(await show(somewhere())).status for _ in range(FAILURES - 5)] == [400] * (FAILURES - 5)
    assert violated(await visitor.log_in(somewhere())) == violated(await show(somewhere())) == ["failures"]
    right = await show(home, **{"old" if "old" in wrong else "password": PASSWORD})
    assert (right.status, left(right)) == (200 if "old" in wrong else 204, {"address": 8, "login": 4})


async def test_an_account_that_is_deleted_leaves_no_address_behind(visitor: Visitor, sql: Sql) -> None:
    visitor.person.token = (await visitor.register(somewhere())).json["access_token"]
    before = sql("SELECT * FROM known_address ORDER BY key")
    answer = await visitor.person.post("/delete-account", json={"password": PASSWORD}, headers={"X-Forwarded-For": somewhere()})
    assert (answer.status, sql("SELECT * FROM known_address ORDER BY key")) == (204, before)


async def test_an_address_is_known_for_the_account_that_has_the_login_now(visitor: Visitor) -> None:
    former, present = somewhere(), somewhere()
    visitor.person.token = (await visitor.register(former)).json["access_token"]
    closed = await visitor.person.post("/delete-account", json={"password": PASSWORD}, headers={"X-Forwarded-For": former})
    assert (closed.status, (await visitor.register(present)).status) == (204, 201)
    for _ in range(FAILURES):
        await visitor.guess(somewhere())
    assert violated(await visitor.guess(former)) == ["failures"]
    assert (await visitor.log_in(present)).status == 200


async def test_an_address_is_known_for_its_time_only(visitor: Visitor, sql: Sql) -> None:
    home, door = somewhere(), visitor.person.client.app[rate_limits.ATTEMPTS]
    await visitor.register(home)
    pair = door.key("login", bytes(map(int, home.split("."))).hex(), visitor.login)
    sql("UPDATE users SET created_at = now() - interval '1 year' WHERE login = %s", visitor.login)
    sql("UPDATE known_address SET succeeded_at = now() - interval '29 days 23 hours' WHERE key = %s", pair)
    for _ in range(FAILURES):
        await visitor.guess(somewhere())
    assert (await visitor.log_in(home)).status == 200
    sql("UPDATE known_address SET succeeded_at = now() - interval '30 days 1 second' WHERE key = %s", pair)
    assert violated(await visitor.log_in(home)) == ["failures"]


async def test_the_tables_dont_say_whom_they_are_about(visitor: Visitor, sql: Sql) -> None:
    await visitor.register("198.19.77.78")
    await visitor.guess("198.19.77.79")
    dump = str(
        sql("SELECT encode(key, 'escape'), key::text FROM rate_limit UNION ALL SELECT encode(key, 'escape'), key::text FROM known_address")
    )
    for text in (visitor.login, "198.19.77.7", visitor.login.encode().hex(), "c6134d4e"):
        assert text not in dump


# Trouble


@pytest.mark.long
async def test_where_nothing_can_be_counted_nobody_gets_in(visitor: Visitor, sql: Sql, alice: Person) -> None:
    home = somewhere()
    await visitor.register(home)
    sql("BEGIN")
    sql("LOCK TABLE rate_limit")
    attempts = [asyncio.create_task(visitor.log_in(somewhere())) for _ in range(20)]
    while not visitor.person.client.app[rate_limits.ATTEMPTS]._turns.waiting:
        await asyncio.sleep(0.01)
    assert (await alice.get("/task")).status == 200  # the other connections are for those who are in
    assert not any(attempt.done() for attempt in attempts)
    answers = await asyncio.gather(*attempts)
    sql("ROLLBACK")
    assert {(answer.status, answer.headers.get("Retry-After")) for answer in answers} == {(503, "1")}
    assert (await visitor.log_in(home)).status == 200


async def test_whoever_floods_from_one_address_keeps_nobody_else_waiting(visitor: Visitor, sql: Sql) -> None:
    """There are two turns for attempts, and a victim's comes next."""
    queue, flooder, victim = visitor.person.client.app[rate_limits.ATTEMPTS]._turns, somewhere(), somewhere()
    counted: list[str] = []

    async def come(address: str) -> None:
        await visitor.guess(address, f"{address}-{secrets.token_hex(6)}")
        counted.append(address)

    turns = [queue.of(name, Overloaded()) for name in "ab"]  # nobody else has one
    for turn in turns:
        await turn.__aenter__()
    flood = [asyncio.create_task(come(flooder)) for _ in range(10)]
    await until(lambda: queue.waiting == 10)
    attempts = [*flood, asyncio.create_task(come(victim))]
    await until(lambda: queue.waiting == 11)
    for turn in turns:
        await turn.__aexit__(None, None, None)
    await asyncio.gather(*attempts)
    assert counted.index(victim) < 6


async def test_what_succeeded_has_though_that_cannot_be_put_down(visitor: Visitor, sql: Sql) -> None:
    sql("CREATE FUNCTION lack() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$")
    sql("CREATE TRIGGER lack BEFORE INSERT OR UPDATE ON known_address FOR EACH ROW EXECUTE FUNCTION lack()")
    try:
        answers = [await visitor.register(somewhere()), await visitor.log_in(somewhere())]
    finally:
        sql("DROP FUNCTION lack CASCADE")
    assert [answer.status for answer in answers] == [201, 200]


async def test_what_was_refused_is_refused_without_the_database(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    address = somewhere()
    for _ in range(6):
        await visitor.guess(address)
    monkeypatch.setattr(visitor.person.service.database, "is_usable", False)
    assert violated(await visitor.guess(address)) == ["login"]
    assert (await visitor.guess(somewhere())).status == 503


async def test_what_was_refused_is_allowed_when_its_time_is_over(visitor: Visitor, sql: Sql, client: TestClient[Any, Any]) -> None:
    address = somewhere()
    for _ in range(6):
        answer = await visitor.guess(address)
    sql("UPDATE rate_limit SET hits = ARRAY(SELECT hit - interval '61 seconds' FROM unnest(hits) hit)")
    assert violated(await visitor.guess(address)) == ["login"]  # it is remembered for as long as it was said to last
    remembered = client.app[rate_limits.ATTEMPTS]._refused
    [*_, (quota, until)] = remembered.values()
    assert (quota.name, 0 < until - asyncio.get_running_loop().time() <= int(answer.headers["Retry-After"])) == ("login", True)
    remembered.clear()
    allowed = await visitor.guess(address)
    assert (allowed.status, left(allowed)) == (401, {"address": 9, "login": 4})


async def test_a_clock_that_steps_back_keeps_nobody_out(visitor: Visitor, sql: Sql, client: TestClient[Any, Any]) -> None:
    address = somewhere()
    assert [(await visitor.guess(address)).status for _ in range(6)] == [401] * 5 + [429]
    for elsewhere in [somewhere() for _ in range(FAILURES - 5)]:
        assert (await visitor.guess(elsewhere)).status == 401
    assert violated(await visitor.guess(somewhere())) == ["failures"]
    sql("UPDATE rate_limit SET hits = ARRAY(SELECT hit + interval '1 hour' FROM unnest(hits) hit), ends_at = ends_at + interval '1 hour'")
    client.app[rate_limits.ATTEMPTS]._refused.clear()
    answers = [await visitor.guess(address) for _ in range(6)]
    assert [(answer.status, *violated(answer)) for answer in answers] == [(401,)] * 5 + [(429, "login")]
    assert left(answers[0]) == {"address": 9, "login": 4}
    for elsewhere in [somewhere() for _ in range(FAILURES - 5)]:
        assert (await visitor.guess(elsewhere)).status == 401
    assert violated(await visitor.guess(somewhere())) == ["failures"]  # what came after it counts as ever


# The functions alone


def hit(sql: Sql, key: bytes, most: int, seconds: float) -> float | None:
    """Count under a key; give the moment, or None."""
    [(moments,)] = sql("SELECT rate_limit_hit(%s, %s, %s)", key, most, seconds)
    assert moments is None or len(moments) <= most
    return moments and moments[-1].timestamp()


def test_in_no_span_there_are_more_than_allowed_whenever_it_begins(sql: Sql) -> None:
    most, span, chance = 4, 0.1, random.Random(7)
    allowed, refused = [], 0
    while refused <= 10 or len(allowed) <= 20:
        moment = hit(sql, b"spans", most, span)
        if moment:
            allowed.append(moment)
        else:
            refused += 1
        time.sleep(chance.choice([0.0005, 0.002, 0.03]))
    assert all(later - earlier >= span for earlier, later in zip(allowed, allowed[most:], strict=False))


def test_a_limit_may_be_set_to_another_number_at_any_time(sql: Sql) -> None:
    assert [bool(hit(sql, b"changing", 6, 60)) for _ in range(5)] == [True] * 5
    assert not hit(sql, b"changing", 3, 60)
    assert [bool(hit(sql, b"changing", 7, 60)) for _ in range(3)] == [True, True, False]


def test_a_count_that_is_being_swept_is_made_anew(sql: Sql, other_sql: Sql) -> None:
    sql("INSERT INTO rate_limit VALUES ('swept', ARRAY[now() - interval '2 hours'], now() - interval '1 hour')")
    sql("BEGIN")
    [(removed,)] = sql("SELECT limits_sweep(1e9, 1000)")
    assert removed >= 1
    other_sql("SET lock_timeout = '100ms'")
    with pytest.raises(Exception, match="lock timeout"):
        hit(other_sql, b"swept", 1, 60)
    sql("COMMIT")
    assert [bool(hit(other_sql, b"swept", 1, 60)) for _ in range(2)] == [True, False]


def test_a_count_that_is_in_use_is_not_swept(sql: Sql, other_sql: Sql) -> None:
    sql("INSERT INTO rate_limit VALUES ('used', ARRAY[now() - interval '2 hours'], now() - interval '1 hour')")
    sql("BEGIN")
    assert hit(sql, b"used", 1, 60)
    other_sql("SET lock_timeout = '100ms'")
    other_sql("SELECT limits_sweep(1e9, 1000)")
    sql("COMMIT")
    other_sql("SELECT limits_sweep(1e9, 1000)")
    assert not hit(other_sql, b"used", 1, 60)


async def test_housekeeping_removes_what_decides_nothing_any_more(service: Service, sql: Sql) -> None:
    sql("DELETE FROM known_address")
    sql("INSERT INTO rate_limit VALUES ('over', '{}', now() - interval '1 second'), ('counts', '{}', now() + interval '1 minute')")
    sql("INSERT INTO known_address VALUES ('old', now() - interval '30 days 1 second'), ('known', now() - interval '29 days')")
    await sweep(service)
    assert sql("SELECT encode(key, 'escape') FROM rate_limit WHERE key IN ('over', 'counts')") == [("counts",)]
    assert sql("SELECT encode(key, 'escape') FROM known_address") == [("known",)]


# By user


async def test_a_user_has_so_many_requests_a_minute(alice: Person, mallory: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [await alice.get("/task") for _ in range(REQUESTS + 2)]
    assert [answer.status for answer in answers] == [200] * REQUESTS + [429, 429]
    assert violated(answers[-1]) == ["user"]
    assert answers[-1].headers["RateLimit-Policy"] == f'"user";q={REQUESTS};w=60'
    assert "RateLimit" not in answers[0].headers
    assert (await mallory.get("/task")).status == 200
    assert (await alice.get("/openapi.json")).status == 200
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert (await alice.get("/task")).status == 200


async def test_who_is_not_let_in_uses_up_nothing(alice: Person, mallory: Person) -> None:
    mallory.token = alice.token[:-2] + "xx" if alice.token else None
    assert {(await mallory.get("/task")).status for _ in range(REQUESTS + 2)} == {401}
    assert (await alice.get("/task")).status == 200


REFUSED_EARLY: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/task?bogus=1", {}),
    ("POST", "/task", {"data": "{", "headers": {"Content-Type": "application/json"}}),
]


async def test_a_token_of_the_past_uses_up_nothing(alice: Person) -> None:
    thief = Person(alice.client)
    thief.token, alice.token = alice.token, (await alice.post("/revoke-tokens")).json["access_token"]
    assert {(await thief.get("/task")).status for _ in range(REQUESTS + 2)} == {401}
    for method, path, sent in REFUSED_EARLY:  # before anybody knows that it is of the past
        answers = [await thief(method, path, **sent) for _ in range(REQUESTS)]
    assert [answer.status for answer in answers] == [429] * REQUESTS  # which is its own affair
    answers = [await alice.get("/task") for _ in range(REQUESTS + 1)]
    assert [answer.status for answer in answers] == [200] * REQUESTS + [429]


async def test_a_token_of_the_past_takes_no_place_of_an_import(alice: Person) -> None:
    assert alice.caller
    past, under_way = alice.caller, alice.client.app[imports.IMPORTS]
    alice.token = (await alice.post("/revoke-tokens")).json["access_token"]
    with ExitStack() as places:
        for _ in range(imports.MAX_IMPORTS_PER_USER):
            places.enter_context(under_way.count(past))
        sheet = "name,description,status\nhers,,new\n"
        assert (await alice.post("/import", data=sheet, headers={"Content-Type": "text/csv"})).status == 200


async def test_another_generation_gives_no_more_requests(alice: Person) -> None:
    assert [(await alice.get("/task")).status for _ in range(REQUESTS // 2)] == [200] * (REQUESTS // 2)
    alice.token = (await alice.post("/revoke-tokens")).json["access_token"]
    answers = [await alice.get("/task") for _ in range(REQUESTS // 2 + 1)]
    assert [answer.status for answer in answers] == [200] * (REQUESTS // 2) + [429]
    assert violated(answers[-1]) == ["user"]


async def test_whoever_floods_with_a_stolen_token_does_not_keep_its_owner_from_ending_it(alice: Person) -> None:
    thief = somewhere()
    right, wrong = ({"old": old, "new": "another horse"} for old in (conftest.PASSWORD, "a wrong guess"))
    for path, body in (("/revoke-tokens", {}), ("/change-password", right)):
        assert [(await alice.get("/task")).status for _ in range(REQUESTS + 1)][-1] == 429
        for _ in range(REQUESTS + 2):  # its own quotas refuse most of these
            await alice.post("/change-password", json=wrong, headers={"X-Forwarded-For": thief})
        for refused in ("/revoke-tokens?x=1", "/change-password?x=1"):
            assert {(await alice.post(refused)).status for _ in range(2 * REQUESTS)} == {400}
        answer = await alice.post(path, json=body, headers={"X-Forwarded-For": somewhere()})
        assert answer.status == 200
        alice.token = answer.json["access_token"]


async def test_whoever_revokes_all_the_time_leaves_the_remedy_that_needs_the_password(alice: Person) -> None:
    answers = []
    for _ in range(REQUESTS + 1):
        answers.append(await alice.post("/revoke-tokens"))
        alice.token = answers[-1].json.get("access_token", alice.token)
    assert [answer.status for answer in answers] == [200] * REQUESTS + [429]
    assert violated(answers[-1]) == ["user"]
    changed = await alice.post("/change-password", json={"old": conftest.PASSWORD, "new": "another horse"})
    assert changed.status == 200
    assert (await alice.get("/task")).status == 401


async def test_as_many_users_are_remembered_as_there_is_room_for(
    alice: Person, mallory: Person, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "MAX_REMEMBERED", 1)
    alice.client = mallory.client = await start(**GIVEN)
    answers = [await alice.get("/task") for _ in range(REQUESTS + 1)]
    assert [answer.status for answer in answers] == [200] * REQUESTS + [429]
    await mallory.get("/task")
    assert (await alice.get("/task")).status == 200  # who is forgotten begins anew


# On and off


def test_it_is_on_unless_it_is_said_to_be_off() -> None:
    given = Settings.model_fields
    assert given["rate_limit"].default == "on"
    numbers = ["address_limit_per_minute", "login_limit_per_minute", "login_failures_per_hour", "user_limit_per_minute"]
    assert [given[name].default for name in numbers] == [10, 5, 100, 600]


async def test_off_counts_nothing_and_says_so(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "accounts.rate_limits"):
        visitor = Visitor(await start(rate_limit="off", address_limit_per_minute=1, user_limit_per_minute=1))
    answers = [await visitor.register(somewhere())] + [await visitor.log_in("") for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 200, 200, 200]
    assert not any("RateLimit" in answer.headers for answer in answers)
    visitor.person.token = answers[0].json["access_token"]
    assert [(await visitor.person.get("/task")).status for _ in range(3)] == [200] * 3
    assert [record.message for record in caplog.records if record.name == "accounts.rate_limits"] == [
        "RATE_LIMIT is off: anybody may try as many passwords as they like. That is for tests and benchmarks only."
    ]

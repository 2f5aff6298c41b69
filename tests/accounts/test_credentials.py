"""An account's own ends: another password, no more tokens, no more account; and how long a token is to live."""

import asyncio
from collections.abc import Callable
from typing import Any

import argon2
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

import auth
from accounts import passwords, users
from rest import errors
from rest.turns import Turns
from service import Service
from tests import document
from tests.conftest import PASSWORD, Answer, Person, Start, configured
from tests.postgres.test_housekeeping import count, furnish, sweep
from tests.tasks.test_tasks import blamed, rows

Sql = Callable[..., list[tuple[Any, ...]]]

NEW_PASSWORD = "another horse"
CALLS: dict[str, dict[str, str]] = {
    "/change-password": {"old": PASSWORD, "new": NEW_PASSWORD},
    "/revoke-tokens": {},
    "/delete-account": {"password": PASSWORD},
}
PROOFS = {"/change-password": "old", "/delete-account": "password"}

every_call = pytest.mark.parametrize("path", CALLS)
every_proof = pytest.mark.parametrize("path", PROOFS)
encodings = pytest.mark.parametrize("encoding", ["json", "data"])


@pytest.fixture(autouse=True)
def cheap_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with next to no work."""
    monkeypatch.setattr(passwords, "hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


async def log_in(stranger: Person, login: str, password: str = PASSWORD, **more: Any) -> Answer:
    return await stranger.post("/get-token", json={"login": login, "password": password} | more)


async def is_let_in(person: Person, token: str | None) -> bool:
    answer = await person.get("/task", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 200 or answer.headers["WWW-Authenticate"] == 'Bearer realm="task", error="invalid_token"'
    return answer.status == 200


def account(sql: Sql, person: Person) -> list[tuple[Any, ...]]:
    assert person.caller
    return sql("SELECT u, s FROM users u JOIN user_state s ON s.user_id = u.id WHERE u.id = %s", person.caller.user_id)


# Another password


@encodings
async def test_a_changed_password_is_the_only_one(alice: Person, stranger: Person, encoding: str) -> None:
    answer = await alice.post("/change-password", **{encoding: CALLS["/change-password"]})
    assert (answer.status, set(answer.json)) == (200, {"access_token", "token_type", "expires_in"})
    assert (await log_in(stranger, alice.login)).status == 401
    assert (await log_in(stranger, alice.login, NEW_PASSWORD)).status == 200


async def test_a_changed_password_is_stored_as_a_hash(alice: Person, sql: Sql) -> None:
    await alice.post("/change-password", json=CALLS["/change-password"])
    [(stored,)] = sql("SELECT password_hash FROM users WHERE id = %s", alice.caller.user_id)
    assert "$argon2id$" in stored
    assert passwords.verify_password(NEW_PASSWORD, stored, passwords.peppers_of(configured()))


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"old": PASSWORD}, ["new"]),
        ({"new": NEW_PASSWORD}, ["old"]),
        ({"old": PASSWORD, "new": "short"}, ["new"]),
        ({"old": "wrong", "new": "short"}, ["new"]),
        ({"old": "wrong", "new": NEW_PASSWORD}, ["old"]),
        ({"old": "", "new": NEW_PASSWORD}, ["old"]),
        ({"old": PASSWORD, "new": NEW_PASSWORD, "login": "alice"}, ["body"]),
    ],
)
async def test_a_password_is_changed_only_to_a_good_one_by_who_knows_the_old(
    alice: Person, sql: Sql, fields: dict[str, str], fault: list[str]
) -> None:
    before = account(sql, alice)
    assert blamed(await alice.post("/change-password", json=fields)) == fault
    assert account(sql, alice) == before
    assert await is_let_in(alice, alice.token)


# No more tokens


@pytest.mark.parametrize("path", ["/change-password", "/revoke-tokens"])
async def test_earlier_tokens_are_dead_at_once_and_the_new_one_is_good(alice: Person, stranger: Person, path: str) -> None:
    await alice.new_task()
    tokens = [alice.token, *[(await log_in(stranger, alice.login)).json["access_token"] for _ in range(2)]]
    assert [await is_let_in(alice, token) for token in tokens] == [True] * 3  # and from now on are remembered
    answer = await alice.post(path, json=CALLS[path])
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    assert [await is_let_in(alice, token) for token in tokens] == [False] * 3
    assert await is_let_in(alice, answer.json["access_token"])
    alice.token = answer.json["access_token"]
    assert (await alice.get("/task/1")).status == 200


async def test_revoking_leaves_the_password_and_the_tasks_as_they_are(alice: Person, stranger: Person, sql: Sql) -> None:
    await alice.new_task()
    [(state, tasks, log)] = rows(sql, alice)
    await alice.post("/revoke-tokens")
    [(state_after, *rest)] = rows(sql, alice)
    assert rest == [tasks, log]
    assert {name for name in state if state[name] != state_after[name]} == {"token_generation"}
    assert (await log_in(stranger, alice.login)).status == 200


@every_call
async def test_mallory_ends_nothing_of_alices(alice: Person, mallory: Person, sql: Sql, path: str) -> None:
    before = account(sql, alice)
    assert (await mallory.post(path, json=CALLS[path])).status < 300
    assert account(sql, alice) == before
    assert await is_let_in(alice, alice.token)


@every_call
async def test_of_several_at_once_one_is_done_and_the_others_are_let_in_no_more(alice: Person, path: str) -> None:
    answers = await asyncio.gather(*(alice.post(path, json=CALLS[path]) for _ in range(5)))
    assert sorted(answer.status for answer in answers)[1:] == [401] * 4
    [done] = [answer for answer in answers if answer.status < 300]
    if done.json:
        assert await is_let_in(alice, done.json["access_token"])


async def test_a_login_that_a_new_password_overtakes_gives_a_token_that_is_dead(
    alice: Person, stranger: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password was right when it was asked for."""
    found, go_on = asyncio.Event(), asyncio.Event()
    find_account = users.find_account

    async def find_slowly(service: Service, login: str) -> users.Account | None:
        account = await find_account(service, login)
        found.set()
        await go_on.wait()
        return account

    monkeypatch.setattr(users, "find_account", find_slowly)
    logging_in = asyncio.create_task(log_in(stranger, alice.login))
    await found.wait()
    assert (await alice.post("/change-password", json=CALLS["/change-password"])).status == 200
    go_on.set()
    answer = await logging_in
    assert answer.status == 200
    assert not await is_let_in(alice, answer.json["access_token"])


# No more account


@every_proof
@pytest.mark.parametrize("password", ["wrong", PASSWORD + " ", PASSWORD.upper()])
async def test_a_wrong_password_is_named_and_changes_nothing(alice: Person, sql: Sql, path: str, password: str) -> None:
    before = account(sql, alice)
    assert blamed(await alice.post(path, json=CALLS[path] | {PROOFS[path]: password})) == [PROOFS[path]]
    assert account(sql, alice) == before
    assert await is_let_in(alice, alice.token)


async def test_a_deleted_account_lets_nobody_in_and_frees_its_login_at_once(alice: Person, stranger: Person, sql: Sql) -> None:
    await furnish(alice, sql)
    answer = await alice.post("/delete-account", json={"password": PASSWORD})
    assert (answer.status, answer.text) == (204, "")
    assert not await is_let_in(alice, alice.token)
    assert (await log_in(stranger, alice.login)).status == 401
    again = await stranger.post("/register", json={"login": alice.login.upper(), "password": PASSWORD})
    assert again.status == 201
    headers = {"Authorization": f"Bearer {again.json['access_token']}"}
    assert (await stranger.get("/task", headers=headers)).json == []
    assert not await is_let_in(alice, alice.token)


async def test_a_deleted_account_is_not_found_by_any_login(alice: Person, stranger: Person, sql: Sql) -> None:
    await alice.post("/delete-account", json={"password": PASSWORD})
    [(login, key, password_hash)] = sql("SELECT login, login_key, password_hash FROM users WHERE id = %s", alice.caller.user_id)
    assert (login, password_hash) == (key, "")
    assert alice.login not in login
    assert await users.find_account(alice.service, login) is None
    assert (await log_in(stranger, login)).status == 400  # no login has a space


async def test_no_token_has_a_deleted_accounts_generation(alice: Person, sql: Sql) -> None:
    await alice.post("/delete-account", json={"password": PASSWORD})
    [(generation,)] = sql("SELECT token_generation FROM user_state WHERE user_id = %s", alice.caller.user_id)
    assert generation < 0
    token = auth.issue_token(configured(), alice.caller._replace(generation=generation)).access_token
    assert not await is_let_in(alice, token)


async def test_of_a_deleted_account_no_row_is_left(alice: Person, sql: Sql) -> None:
    await furnish(alice, sql)
    await alice.post("/delete-account", json={"password": PASSWORD})
    await sweep(alice.service)
    assert not any(count(sql, alice).values())


async def test_many_accounts_can_be_deleted_before_any_row_goes(newcomer: Any, sql: Sql) -> None:
    people = [await newcomer("one-of-many") for _ in range(3)]
    assert [(await person.post("/delete-account", json={"password": PASSWORD})).status for person in people] == [204] * 3


# Where there is trouble


@every_proof
async def test_when_too_many_hash_an_account_stays_as_it_is(
    alice: Person, client: TestClient[Any, Any], sql: Sql, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    before = account(sql, alice)
    assert client.app
    monkeypatch.setattr(client.app[passwords.HASHING], "_turns", Turns(0, most_waiting=0))
    answer = await alice.post(path, json=CALLS[path])
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert account(sql, alice) == before


# How long a token lives


@encodings
@pytest.mark.parametrize("seconds", [1, 60, 365 * 86400])
async def test_a_client_says_how_long_its_token_is_to_live(alice: Person, stranger: Person, encoding: str, seconds: int) -> None:
    answer = await stranger.post("/get-token", **{encoding: {"login": alice.login, "password": PASSWORD, "expires_in": seconds}})
    assert (answer.status, answer.json["expires_in"]) == (200, seconds)
    claims = jwt.decode(answer.json["access_token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == seconds
    assert await is_let_in(alice, answer.json["access_token"])


@pytest.mark.parametrize("seconds", [0, -1, 365 * 86400 + 1, 2**63, "60", 60.0, True, ""])
async def test_a_lifetime_that_is_none_or_too_long_is_refused(alice: Person, stranger: Person, seconds: object) -> None:
    assert blamed(await log_in(stranger, alice.login, expires_in=seconds)) == ["expires_in"]


async def test_the_longest_lifetime_is_a_setting(alice: Person, stranger: Person, start: Start) -> None:
    stranger.client = await start(token_lifetime_max_seconds=100)
    assert [(await log_in(stranger, alice.login, expires_in=seconds)).status for seconds in (100, 101)] == [200, 400]
    assert (await log_in(stranger, alice.login)).json["expires_in"] == 30 * 86400


async def test_a_request_knows_when_its_token_expires(alice: Person, aiohttp_client: Any) -> None:
    class Told(web.View):
        async def get(self) -> web.Response:
            return web.json_response(self.request[auth.ACCESS].expires_at)

    route = web.view("/told", Told)
    told = web.Application(middlewares=[errors.middleware, auth.middleware([route], alice.service.settings.jwt_secrets)])
    told.add_routes([route])
    client = await aiohttp_client(told)
    assert alice.token
    expected = jwt.decode(alice.token, options={"verify_signature": False})["exp"]
    for _ in range(2):  # the second time it is remembered
        async with client.get("/told", headers={"Authorization": f"Bearer {alice.token}"}) as answer:
            assert await answer.json() == expected
    document.faults.clear()  # which knows no such address

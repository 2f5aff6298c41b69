"""An operator's codes: who may register, and the way back to an account whose password is forgotten."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import argon2
import psycopg2
import pytest
from aiohttp.test_utils import TestClient, TestServer

import app
from accounts import codes, passwords
from rest.turns import Turns
from service import database_configuration
from settings import Settings
from tests.accounts.test_credentials import account, is_let_in, log_in
from tests.conftest import PASSWORD, Answer, Person, Server, Start, configured, connection_to, hand_out
from tests.tasks.test_tasks import blamed
from tests.waiting import until

Sql = Callable[..., list[tuple[Any, ...]]]

NEW_PASSWORD = "another horse"
WRONG = "is not good, or not any more: ask the operator for another one"
encodings = pytest.mark.parametrize("encoding", ["json", "data"])


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    """A client of an application that takes whom its operator invites."""
    async with TestClient(TestServer(await app.create_app(configured(registration="invited")))) as client:
        yield client


@pytest.fixture
def other_sql(server: Server) -> Iterator[Sql]:
    """A second connection."""
    with connection_to(server) as sql:
        yield sql


@pytest.fixture(autouse=True)
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hash with next to no work, and note each password that is hashed."""
    hash_password, noted = passwords.hash_password, list[str]()
    monkeypatch.setattr(passwords, "hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    monkeypatch.setattr(passwords, "hash_password", lambda password, pepper: noted.append(password) or hash_password(password, pepper))  # type: ignore[func-returns-value]
    return noted


def unique() -> str:
    return secrets.token_hex(6)


async def register(stranger: Person, login: str, invitation: str | None = None, **options: Any) -> Answer:
    return await stranger.post("/register", json={"login": login, "password": PASSWORD, "invitation": invitation}, **options)


async def reset(stranger: Person, code: str, new: str = NEW_PASSWORD, **options: Any) -> Answer:
    return await stranger.post("/reset-password", json={"code": code, "new": new}, **options)


LIMITED = {"rate_limit": "on", "trusted_proxies": "127.0.0.0/8", "address_limit_per_minute": 4}


def at(address: str) -> dict[str, Any]:
    """Return how to be at an address."""
    return {"headers": {"X-Forwarded-For": address}}


def is_kept(sql: Sql, code: str) -> bool:
    return bool(sql("SELECT 1 FROM one_time_code WHERE digest = %s", codes.digest(code)))


def without_the_moment(answer: Answer) -> tuple[int, dict[str, str], Any]:
    return answer.status, {name: value for name, value in answer.headers.items() if name not in ("Date", "X-Request-ID")}, answer.json


# The codes themselves


def test_a_code_has_120_random_bits_and_is_read_however_it_is_typed() -> None:
    made = {codes.make_code() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(code.replace("-", "")) * 5 >= 120 and set(code) <= set("abcdefghijklmnopqrstuvwxyz234567-") for code in made)
    code = made.pop()
    for typed in (code.upper(), code.replace("-", ""), f" {code}\n", code.replace("-", " ")):
        assert codes.digest(typed) == codes.digest(code)


def test_codes_are_stored_as_their_digests_only(sql: Sql) -> None:
    code = hand_out(sql, codes.make_code())
    [(stored,)] = sql("SELECT c::text FROM one_time_code c WHERE digest = %s", hashlib.sha256(code.replace("-", "").encode()).digest())
    assert not any(part in stored for part in code.split("-"))


# Who may register


async def test_open_registration_asks_for_no_invitation_and_leaves_one_as_it_is(start: Start, sql: Sql) -> None:
    stranger = Person(await start())
    assert stranger.service.settings.registration == "open"
    code = hand_out(sql, codes.make_code())
    assert [(await register(stranger, unique(), each)).status for each in (None, code, code, "nobody's")] == [201] * 4
    assert is_kept(sql, code)


@pytest.mark.parametrize("invited", [False, True])
async def test_closed_registration_takes_nobody(start: Start, sql: Sql, alice: Person, hashed: list[str], invited: bool) -> None:
    stranger = Person(await start(registration="closed", **LIMITED | {"address_limit_per_minute": 1}))
    code, home = hand_out(sql, codes.make_code()) if invited else None, at(f"198.19.2.{invited:d}")
    answers = [await register(stranger, login, code, **home) for login in (alice.login, unique(), unique())]
    assert {(answer.status, answer.json["type"]) for answer in answers} == {(403, "/docs/problems#registration-closed")}
    assert hashed == []
    known = await stranger.post("/get-token", json={"login": alice.login, "password": PASSWORD}, **home)
    assert known.status == 200  # whoever has an account gets in as ever, and those were no attempts


async def test_who_is_invited_registers_once(stranger: Person, sql: Sql) -> None:
    code, login = hand_out(sql, codes.make_code()), unique()
    answer = await register(stranger, login, code.upper())
    assert answer.status == 201
    assert await is_let_in(stranger, answer.json["access_token"])
    assert not is_kept(sql, code)
    assert blamed(await register(stranger, unique(), code)) == ["invitation"]


async def test_a_missing_invitation_is_named_with_all_else_that_is_wrong(stranger: Person) -> None:
    for sent in ({"json": {"password": "short"}}, {"data": {"password": "short"}}, {"json": {"password": "short", "invitation": None}}):
        assert sorted(blamed(await stranger.post("/register", **sent))) == ["invitation", "login", "password"]
    for wrong in ("", "x" * 101, 1, ["x"]):
        answer = await stranger.post("/register", json={"login": unique(), "password": PASSWORD, "invitation": wrong})
        assert blamed(answer) == ["invitation"]


async def test_wrong_used_expired_and_others_invitations_look_alike_whatever_the_login(
    stranger: Person, alice: Person, sql: Sql, hashed: list[str]
) -> None:
    used = hand_out(sql, codes.make_code())
    assert (await register(stranger, unique(), used)).status == 201
    hashed.clear()
    bad = [codes.make_code(), "x", used, hand_out(sql, codes.make_code(), seconds=-1), hand_out(sql, codes.make_code(), alice)]
    answers = [await register(stranger, login, code) for code in bad for login in (unique(), alice.login)]
    assert [answer.json["errors"][0]["message"] for answer in answers] == [WRONG] * 10
    assert all(without_the_moment(answer) == without_the_moment(answers[0]) for answer in answers)
    assert hashed == []  # so it takes the same time, and no work
    assert await is_let_in(alice, alice.token)


async def test_an_invitation_is_not_used_up_where_the_login_is_taken(stranger: Person, alice: Person, sql: Sql) -> None:
    code = hand_out(sql, codes.make_code())
    assert [(await register(stranger, login, code)).status for login in (alice.login, alice.login.upper())] == [409, 409]
    assert (await register(stranger, unique(), code)).status == 201


async def test_of_many_at_once_with_one_invitation_one_registers(stranger: Person, sql: Sql, other_sql: Sql) -> None:
    code, logins = hand_out(sql, codes.make_code()), [unique() for _ in range(4)]
    sql("BEGIN")
    sql("SELECT FROM one_time_code WHERE digest = %s FOR UPDATE", codes.digest(code))  # so that all of them come to the step that counts
    registering = [asyncio.create_task(register(stranger, login, code)) for login in logins]
    await until(
        lambda: other_sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'one_time_code'") == [(4,)]
    )
    sql("COMMIT")
    answers = await asyncio.gather(*registering)
    assert sorted(answer.status for answer in answers) == [201, 400, 400, 400]
    assert [blamed(answer) for answer in answers if answer.status == 400] == [["invitation"]] * 3
    assert sql("SELECT count(*) FROM users WHERE login = ANY (%s)", logins) == [(1,)]


# A forgotten password


@encodings
async def test_with_a_code_a_forgotten_password_is_set_again(alice: Person, stranger: Person, sql: Sql, encoding: str) -> None:
    await alice.new_task()
    tokens = [alice.token, (await log_in(stranger, alice.login)).json["access_token"]]
    code = hand_out(sql, codes.make_code(), alice)
    answer = await stranger.post("/reset-password", **{encoding: {"code": code, "new": NEW_PASSWORD}})
    assert (answer.status, set(answer.json)) == (200, {"access_token", "token_type", "expires_in"})
    assert answer.headers["Cache-Control"] == "no-store"
    assert [await is_let_in(alice, token) for token in tokens] == [False, False]
    assert [(await log_in(stranger, alice.login, password)).status for password in (PASSWORD, NEW_PASSWORD)] == [401, 200]
    alice.token = answer.json["access_token"]
    assert (await alice.get("/task/1")).status == 200
    assert blamed(await reset(stranger, code)) == ["code"]


async def test_wrong_used_expired_and_dead_codes_look_alike(
    alice: Person, mallory: Person, stranger: Person, sql: Sql, hashed: list[str]
) -> None:
    used, of_mallory = hand_out(sql, codes.make_code(), alice), hand_out(sql, codes.make_code(), mallory)
    assert (await reset(stranger, used)).status == 200
    sql("UPDATE user_state SET token_generation = -1 WHERE user_id = %s", mallory.caller.user_id)  # as the version before closes accounts
    hashed.clear()
    expired, invitation = hand_out(sql, codes.make_code(), alice, seconds=-1), hand_out(sql, codes.make_code())
    answers = [await reset(stranger, code) for code in (codes.make_code(), "x", used, expired, of_mallory, invitation)]
    assert [blamed(answer) for answer in answers] == [["code"]] * 6
    assert all(without_the_moment(answer) == without_the_moment(answers[0]) for answer in answers)
    assert hashed == []
    assert is_kept(sql, invitation)


@pytest.mark.parametrize("new", ["short", "password1", "x" * 129, None, 12345678, "the login"])
async def test_a_password_that_is_none_does_not_use_the_code_up(alice: Person, stranger: Person, sql: Sql, new: Any) -> None:
    code, before = hand_out(sql, codes.make_code(), alice), account(sql, alice)
    answer = await reset(stranger, code, alice.login.upper() if new == "the login" else new)
    assert blamed(answer) == ["new"]
    assert account(sql, alice) == before
    assert (await reset(stranger, code)).status == 200


async def test_of_several_at_once_with_one_code_one_sets_the_password(alice: Person, stranger: Person, sql: Sql) -> None:
    code, news = hand_out(sql, codes.make_code(), alice), [f"{NEW_PASSWORD} {n}" for n in range(4)]
    answers = await asyncio.gather(*(reset(stranger, code, new) for new in news))
    assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
    done = [answer.status == 200 for answer in answers]
    assert [(await log_in(stranger, alice.login, new)).status == 200 for new in news] == done
    assert await is_let_in(alice, answers[done.index(True)].json["access_token"])


async def test_another_worker_that_was_faster_leaves_nothing_to_do(
    alice: Person, stranger: Person, sql: Sql, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Person(await start())
    code, hash_password = hand_out(sql, codes.make_code(), alice), passwords.hash_password
    loop = asyncio.get_running_loop()

    def overtaken(password: str, pepper: passwords.Pepper) -> str:
        monkeypatch.setattr(passwords, "hash_password", hash_password)
        assert asyncio.run_coroutine_threadsafe(reset(other, code, "of the faster one"), loop).result(30).status == 200
        return hash_password(password, pepper)

    monkeypatch.setattr(passwords, "hash_password", overtaken)
    assert blamed(await reset(stranger, code)) == ["code"]
    assert [(await log_in(stranger, alice.login, each)).status for each in (NEW_PASSWORD, "of the faster one")] == [401, 200]


async def test_whoever_revokes_tokens_meanwhile_does_not_keep_the_owner_out(
    alice: Person, stranger: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, hash_password = hand_out(sql, codes.make_code(), alice), passwords.hash_password

    def meanwhile(password: str, pepper: passwords.Pepper) -> str:
        with psycopg2.connect(dbname=configured().db, **database_configuration(configured()).parameters) as connection:
            connection.cursor().execute("UPDATE user_state SET token_generation = 7 WHERE user_id = %s", (alice.caller.user_id,))
        connection.close()
        return hash_password(password, pepper)

    monkeypatch.setattr(passwords, "hash_password", meanwhile)
    assert (await reset(stranger, code)).status == 200


async def test_another_password_ends_the_code_and_a_login_or_other_tokens_do_not(alice: Person, stranger: Person, sql: Sql) -> None:
    code = hand_out(sql, codes.make_code(), alice)
    assert (await log_in(stranger, alice.login)).status == 200
    alice.token = (await alice.post("/revoke-tokens")).json["access_token"]
    assert is_kept(sql, code)
    assert (await alice.post("/change-password", json={"old": PASSWORD, "new": NEW_PASSWORD})).status == 200
    assert not is_kept(sql, code)


async def test_a_closed_account_has_no_code(alice: Person, stranger: Person, sql: Sql) -> None:
    code = hand_out(sql, codes.make_code(), alice)
    assert (await alice.post("/delete-account", json={"password": PASSWORD})).status == 204
    assert not is_kept(sql, code)
    assert blamed(await reset(stranger, code)) == ["code"]


async def test_when_too_many_hash_the_code_stays_good(alice: Person, stranger: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    code = hand_out(sql, codes.make_code(), alice)
    with monkeypatch.context() as patch:
        patch.setattr(stranger.client.app[passwords.HASHING], "_turns", Turns(0, most_waiting=0))
        assert (await reset(stranger, code)).status == 503
    assert (await reset(stranger, code)).status == 200


# How often


async def test_wrong_codes_count_as_failed_logins_do(start: Start, sql: Sql, alice: Person) -> None:
    stranger = Person(await start(registration="invited", **LIMITED))
    home, elsewhere = at("198.19.1.1"), at("198.19.1.2")
    first = await reset(stranger, "x", **home)
    assert (first.status, first.headers["RateLimit"].partition(";t")[0]) == (400, '"address";r=3')
    assert first.headers["RateLimit-Policy"] == '"address";q=4;w=60'
    assert (await register(stranger, unique(), "x", **home)).headers["RateLimit"].startswith('"address";r=2')
    assert (await stranger.post("/get-token", json={"login": unique(), "password": "x"}, **home)).status == 401
    assert (await reset(stranger, "x", **home)).status == 400
    code = hand_out(sql, codes.make_code(), alice)
    for answer in [
        await reset(stranger, code, **home),
        await register(stranger, unique(), "x", **home),
        await stranger.post("/get-token", json={"login": unique(), "password": "x"}, **home),
    ]:
        assert (answer.status, answer.json["violated-policies"]) == (429, ["address"])
    assert (await reset(stranger, code, **elsewhere)).status == 200


def test_registration_is_open_unless_the_operator_says_otherwise() -> None:
    assert Settings.model_fields["registration"].default == "open"

"""Passwords: how they are kept while peppers and parameters change, which are too common, and that a no always takes the same work."""

import secrets
from collections.abc import Callable
from typing import Any

import argon2
import pytest

from accounts import passwords, users
from rest.errors import Unavailable
from tests.accounts.test_credentials import is_let_in, log_in
from tests.conftest import PASSWORD, Person, Start, cheap_hash, configured
from tests.tasks.test_tasks import blamed

Sql = Callable[..., list[tuple[Any, ...]]]
OTHER = "an older pepper, or a newer one"
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(autouse=True)
def hasher(monkeypatch: pytest.MonkeyPatch) -> argon2.PasswordHasher:
    """Hash with little work, and yet more than a cheap hash has."""
    monkeypatch.setattr(passwords, "hasher", argon2.PasswordHasher(time_cost=2, memory_cost=64, parallelism=1))
    return passwords.hasher


def stored(sql: Sql, person: Person) -> str:
    assert person.caller
    [(password_hash,)] = sql("SELECT password_hash FROM users WHERE id = %s", person.caller.user_id)
    return str(password_hash)


def store(sql: Sql, person: Person, password_hash: str) -> None:
    assert person.caller
    sql("UPDATE users SET password_hash = %s WHERE id = %s", password_hash, person.caller.user_id)


def turned() -> dict[str, str]:
    """Return the settings in which the run's pepper is the one before."""
    return {"pass_salt": OTHER, "pass_salt_previous": configured().pass_salt.get_secret_value()}


def pepper_of(person: Person) -> passwords.Pepper:
    """Return the pepper with which new passwords are hashed where this person is."""
    return passwords.peppers_of(person.service.settings)[0]


def nameless(password_hash: str) -> str:
    """Return the hash as it was stored at first."""
    return password_hash[password_hash.index("$") :]


# Another pepper, other parameters


async def test_a_password_outlives_its_pepper_and_moves_to_the_new_one_at_the_next_login(
    alice: Person, stranger: Person, sql: Sql, start: Start
) -> None:
    before = stored(sql, alice)
    stranger.client = await start(**turned())
    assert (await log_in(stranger, alice.login, "wrong password")).status == 401
    assert stored(sql, alice) == before
    assert (await log_in(stranger, alice.login)).status == 200
    after = stored(sql, alice)
    assert after.startswith(pepper_of(stranger).name)
    stranger.client = await start(pass_salt=OTHER, pass_salt_previous="neither of the two peppers")
    assert (await log_in(stranger, alice.login)).status == 200
    assert stored(sql, alice) == after
    assert await is_let_in(alice, alice.token)  # it is the same password, so all tokens live on


@pytest.mark.parametrize("is_turned", [True, False])
async def test_a_hash_without_its_pepper_s_name_is_good_with_either(
    alice: Person, stranger: Person, sql: Sql, start: Start, is_turned: bool
) -> None:
    store(sql, alice, nameless(stored(sql, alice)))
    if is_turned:
        stranger.client = await start(**turned())
    assert (await log_in(stranger, alice.login, "wrong password")).status == 401
    assert (await log_in(stranger, alice.login)).status == 200
    assert stored(sql, alice).startswith(pepper_of(stranger).name)


async def test_a_pepper_that_is_no_more_given_is_no_good(alice: Person, stranger: Person, sql: Sql, start: Start) -> None:
    before = stored(sql, alice)
    stranger.client = await start(pass_salt=OTHER, pass_salt_previous="neither of the two peppers")
    for password_hash in before, nameless(before):
        store(sql, alice, password_hash)
        assert (await log_in(stranger, alice.login)).status == 401


async def test_a_hash_names_its_pepper_and_does_not_hold_it(alice: Person, sql: Sql) -> None:
    pepper = configured().pass_salt.get_secret_value()
    assert not [n for n in range(len(pepper) - 7) if pepper[n : n + 8] in stored(sql, alice)]
    assert pepper.encode().hex() not in stored(sql, alice)


async def test_old_parameters_are_left_at_the_next_login(alice: Person, stranger: Person, sql: Sql, hasher: argon2.PasswordHasher) -> None:
    assert hasher.check_needs_rehash(nameless(stored(sql, alice)))
    assert (await log_in(stranger, alice.login)).status == 200
    after = stored(sql, alice)
    assert not hasher.check_needs_rehash(nameless(after))
    assert (await log_in(stranger, alice.login)).status == 200
    assert stored(sql, alice) == after


async def test_a_password_that_was_changed_meanwhile_is_not_put_back(alice: Person, sql: Sql) -> None:
    account = await users.find_account(alice.service, alice.login)
    assert account
    store(sql, alice, cheap_hash("another horse"))
    changed = stored(sql, alice)
    await users.renew_password_hash(alice.service, account, passwords.hash_password(PASSWORD, pepper_of(alice)))
    assert stored(sql, alice) == changed


async def test_a_login_does_not_fail_where_there_is_no_room_to_hash_anew(
    alice: Person, stranger: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise Unavailable()

    before = stored(sql, alice)
    monkeypatch.setattr(passwords, "hash_password", full)
    assert (await log_in(stranger, alice.login)).status == 200
    assert stored(sql, alice) == before


# The time of a no


@pytest.mark.parametrize("is_turned", [False, True])
def test_a_no_takes_the_same_work_whatever_is_stored(
    monkeypatch: pytest.MonkeyPatch, hasher: argon2.PasswordHasher, is_turned: bool
) -> None:
    peppers = passwords.peppers_of(configured())
    hashes = [passwords.hash_password(PASSWORD, peppers[0]), cheap_hash(PASSWORD)]
    if is_turned:
        peppers = passwords.peppers_of(configured(**turned()))
        hashes += [passwords.hash_password(PASSWORD, peppers[0])]
    hashes += [nameless(each) for each in hashes] + [f"pepper=00000000{nameless(each)}" for each in hashes]
    work: list[int] = []
    verify, raw = argon2.PasswordHasher.verify, argon2.low_level.hash_secret_raw

    def verify_counted(self: argon2.PasswordHasher, password_hash: str, password: bytes) -> bool:
        work.append(passwords._work(password_hash))
        return verify(self, password_hash, password)

    def raw_counted(secret: bytes, salt: bytes, times: int, memory: int, *rest: Any) -> bytes:
        assert memory <= hasher.memory_cost
        work.append(times * memory)
        return raw(secret, salt, times, memory, *rest)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify_counted)
    monkeypatch.setattr(passwords, "hash_secret_raw", raw_counted)
    done = []
    for password_hash in [None, *hashes]:
        work.clear()
        assert not passwords.verify_password("wrong password", password_hash, peppers)
        done.append(sum(work))
    expected = hasher.time_cost * hasher.memory_cost * (2 if is_turned else 1)
    assert all(0.95 * expected <= each <= expected for each in done), done


def test_the_parameters_are_owasp_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    [pepper] = passwords.peppers_of(configured())
    parameters = argon2.extract_parameters(nameless(passwords.hash_password(PASSWORD, pepper)))
    assert parameters.type == argon2.Type.ID
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) >= (19_456, 2, 1)


# Common ones

COMMON = ["password", "PassWord1", "iloveyou", "football", "Task Manager"]


@pytest.mark.parametrize("password", COMMON)
async def test_a_common_password_is_refused(stranger: Person, alice: Person, password: str) -> None:
    login = f"common-{secrets.token_hex(6)}"
    assert blamed(await stranger.post("/register", json={"login": login, "password": password})) == ["password"]
    assert blamed(await alice.post("/change-password", json={"old": PASSWORD, "new": password})) == ["new"]
    assert (await stranger.post("/register", json={"login": login, "password": password + " horse"})).status == 201


async def test_the_login_is_no_password(stranger: Person, alice: Person) -> None:
    login = f"Ｌogin-{secrets.token_hex(6)}"
    for password in login, login.upper(), login.replace("Ｌ", "l"):
        assert blamed(await stranger.post("/register", json={"login": login, "password": password})) == ["password"]
    assert blamed(await alice.post("/change-password", json={"old": PASSWORD, "new": alice.login.upper()})) == ["new"]
    assert (await log_in(stranger, alice.login)).status == 200


async def test_who_has_a_common_password_can_still_log_in(alice: Person, stranger: Person, sql: Sql) -> None:
    store(sql, alice, passwords.hash_password("password", pepper_of(alice)))
    assert (await log_in(stranger, alice.login, "password")).status == 200


def test_the_list_is_worth_its_name() -> None:
    common = passwords._common(8)
    assert len(common) > 10_000
    assert PASSWORD not in common
    assert all(word == word.casefold() for word in common)

"""Accounts: who may have one, who gets a token, and which tokens open the door."""

import asyncio
import base64
import json
import logging
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import argon2
import jwt
import pytest
from aiohttp.test_utils import TestClient
from multidict import CIMultiDict

import auth
from accounts import passwords
from accounts.values import login_key
from telemetry import logs
from telemetry.log_writer import WRITER
from tests.conftest import Answer, Person, Start, configured
from tests.rest.test_bodies import exchange
from tests.waiting import PATIENCE_SECONDS, until

PASSWORD = "correct horse battery"
YEAR_SECONDS = 366 * 86400
ENDS = ["/register", "/get-token"]
STRANGER, BAD_TOKEN = 'Bearer realm="task"', 'Bearer realm="task", error="invalid_token"'

Sql = Callable[..., list[tuple[Any, ...]]]


async def enter(stranger: Person, path: str, login: str, password: str = PASSWORD) -> Answer:
    return await stranger.post(path, json={"login": login, "password": password})


def unique() -> str:
    return secrets.token_hex(6)


def without_the_moment(answer: Answer) -> tuple[int, dict[str, str], Any]:
    return answer.status, {name: value for name, value in answer.headers.items() if name not in ("Date", "X-Request-ID")}, answer.json


HASHER = passwords.hasher


@pytest.fixture(autouse=True)
def cheap_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with next to no work."""
    monkeypatch.setattr(passwords, "hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def real_hashing(cheap_hashing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash as the service does."""
    monkeypatch.setattr(passwords, "hasher", HASHER)


class Gate:
    """Where hashing waits until the test lets it through."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self, *_: str) -> str:
        self.reached.set()
        self.opened.wait(5)  # so that a failing test ends
        return "no hash"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Make every hash wait at the gate."""
    gate = Gate()
    monkeypatch.setattr(passwords, "hash_password", gate.wait)
    monkeypatch.setattr(passwords, "verify_password", gate.wait)
    yield gate
    gate.opened.set()


# Registering and getting a token


async def test_registering_and_logging_in_give_a_token_that_opens_the_door(stranger: Person, real_hashing: None) -> None:
    login = unique()
    for path, status in (("/register", 201), ("/get-token", 200)):
        answer = await enter(stranger, path, login)
        assert (answer.status, set(answer.json)) == (status, {"access_token", "token_type", "expires_in"})
        assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 30 * 86400)
        assert (await stranger.get("/task", headers={"Authorization": f"Bearer {answer.json['access_token']}"})).status == 200


async def test_a_token_is_for_one_account_alone(stranger: Person) -> None:
    tokens = [(await enter(stranger, "/register", unique())).json["access_token"] for _ in range(2)]
    names = []
    for number, token in enumerate(tokens):
        headers = {"Authorization": f"Bearer {token}"}
        assert (
            await stranger.post("/task", json={"name": f"of {number}", "description": "", "status": "new"}, headers=headers)
        ).status == 201
        names.append([task["name"] for task in (await stranger.get("/task", headers=headers)).json])
    assert names == [["of 0"], ["of 1"]]


async def test_tokens_are_not_stored(stranger: Person) -> None:
    login = unique()
    answers = [await enter(stranger, path, login) for path in ENDS]
    assert [answer.headers["Cache-Control"] for answer in answers] == ["no-store", "no-store"]


async def test_a_token_is_a_jwt_with_exactly_these_claims(stranger: Person, sql: Sql) -> None:
    login, before = unique(), int(time.time())
    answer = await enter(stranger, "/register", login)
    [(user_id, generation)] = sql("SELECT id, token_generation FROM users JOIN user_state ON user_id = id WHERE login = %s", login)
    token = answer.json["access_token"]
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(token, configured().jwt_secret.get_secret_value(), ["HS256"])
    assert before <= claims["iat"] <= time.time()
    assert claims == {"sub": str(user_id), "iat": claims["iat"], "exp": claims["iat"] + answer.json["expires_in"], "gen": generation}


async def test_the_lifetime_of_a_token_is_a_setting(start: Start) -> None:
    answer = await enter(Person(await start(token_lifetime_seconds=60)), "/register", unique())
    claims = jwt.decode(answer.json["access_token"], options={"verify_signature": False})
    assert (answer.json["expires_in"], claims["exp"] - claims["iat"]) == (60, 60)


async def test_token_generations_are_random(stranger: Person, sql: Sql) -> None:
    logins = [unique(), unique()]
    for login in logins:
        await enter(stranger, "/register", login)
    rows = sql("SELECT token_generation FROM users JOIN user_state ON user_id = id WHERE login = ANY(%s)", logins)
    assert len(set(rows)) == 2


# Logins


@pytest.mark.parametrize(
    ("typed", "other"),
    [
        ("Alice", "aLICE"),
        ("Иван", "иВАН"),
        ("straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("jose\N{COMBINING ACUTE ACCENT}", "JOSÉ"),
        ("ＡＬＩＣＥ", "alice"),
        ("ﬁona", "Fiona"),
        ("℡", "tel"),
        ("K\N{KELVIN SIGN}", "kk"),
        ("ᾳ", "ΑΙ"),
        ("한", "\u1112\u1161\u11ab"),
    ],
)
async def test_logins_that_differ_in_case_or_form_are_one_account(stranger: Person, typed: str, other: str) -> None:
    prefix = unique()
    typed, other = prefix + typed, prefix.upper() + other
    assert (await enter(stranger, "/register", typed)).status == 201
    taken = await enter(stranger, "/register", other, "another password")
    assert (taken.status, taken.json["type"]) == (409, "/docs/problems#login-taken")
    assert [(error["field"], error["code"]) for error in taken.json["errors"]] == [("login", "taken")]
    assert [(await enter(stranger, "/get-token", login)).status for login in (typed, other)] == [200, 200]
    assert (await enter(stranger, "/get-token", typed, "another password")).status == 401


@pytest.mark.parametrize(("one", "another"), [("jose", "josé"), ("alice", "\N{CYRILLIC SMALL LETTER A}lice"), ("a", "a1"), ("';--", "';-")])
async def test_logins_that_differ_otherwise_are_two_accounts(stranger: Person, one: str, another: str) -> None:
    prefix = unique()
    assert [(await enter(stranger, "/register", prefix + login)).status for login in (one, another)] == [201, 201]


async def test_a_login_is_kept_as_typed(stranger: Person, sql: Sql) -> None:
    login = f"ＭixedＣase-ß-e\N{COMBINING ACUTE ACCENT}-{unique()}"
    await enter(stranger, "/register", login)
    assert sql("SELECT 1 FROM users WHERE login = %s", unicodedata.normalize("NFC", login))


@pytest.mark.parametrize("character", ["x", "é", "e\N{COMBINING ACUTE ACCENT}", "\N{GRINNING FACE}", "\N{SQUARE KIROMEETORU}", "ΐ"])
async def test_a_login_has_up_to_64_characters_after_nfc(stranger: Person, character: str) -> None:
    prefix = unique()
    longest = prefix + character * (64 - len(prefix))
    assert [(await enter(stranger, "/register", login)).status for login in (longest, longest + character)] == [201, 400]


async def test_a_login_may_be_one_character(stranger: Person) -> None:
    assert [(await enter(stranger, "/register", login)).status for login in ("ñ", "")] == [201, 400]


FORBIDDEN_IN_LOGINS = [
    *(" ", "\t", "\n", "\r", "\v", "\f", "\x1c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u3000"),
    *("\0", "\x01", "\x1b", "\x7f", "\x9f"),
    *("\xad", "\u061c", "\u180e", "\u200b", "\u200d", "\u200e", "\u202e", "\u2060", "\u2066", "\ufeff", "\U000e0041"),
    "\ud800",
]


async def test_a_login_has_no_white_space_control_or_format_character(stranger: Person) -> None:
    prefix = unique()
    for character in FORBIDDEN_IN_LOGINS:
        for login in (f"{prefix}a{character}b", character + prefix, prefix + character, character):
            for path in ENDS:
                answer = await enter(stranger, path, login)
                assert answer.status == 400, (path, ascii(login))
                assert [error["field"] for error in answer.json["errors"]] == ["login"]
    assert (await enter(stranger, "/register", f"{prefix}ab")).status == 201


@pytest.mark.parametrize("login", ["\u2800", "\u3164", "\u115f\u1160\uffa0", "\u034f\ufe0f", "\u17b4", "\U000e0100"])
async def test_a_new_login_has_something_visible(stranger: Person, login: str) -> None:
    answer = await enter(stranger, "/register", login)
    assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["login"])
    assert (await enter(stranger, "/register", f"{login}{unique()}")).status == 201


async def test_a_login_and_a_password_of_before_still_get_in(stranger: Person, sql: Sql) -> None:
    """Of an account made when a login could be invisible, and when two marks that are written as one counted as one."""
    given, login, password = unique(), "\u3164" * 20, "password" + "\u0344" * 30
    assert (await enter(stranger, "/register", given, PASSWORD)).status == 201
    stored = passwords.hash_password(unicodedata.normalize("NFC", password), passwords.peppers_of(stranger.service.settings)[0])
    sql("UPDATE users SET login = %s, login_key = %s, password_hash = %s WHERE login = %s", login, login_key(login), stored, given)
    answer = await enter(stranger, "/get-token", login, password)
    assert answer.status == 200
    headers = {"Authorization": f"Bearer {answer.json['access_token']}"}
    for new, status in ((password + "2", 400), (PASSWORD, 200)):
        assert (await stranger.post("/change-password", json={"old": password, "new": new}, headers=headers)).status == status
    sql("DELETE FROM user_state USING users WHERE user_id = id AND login = %s", login)
    sql("DELETE FROM users WHERE login = %s", login)


# Passwords


@pytest.mark.parametrize("character", ["x", "é", "e\N{COMBINING ACUTE ACCENT}", "\N{GRINNING FACE}", " "])
async def test_a_password_has_8_to_128_characters_after_nfc(stranger: Person, character: str) -> None:
    statuses = [(await enter(stranger, "/register", unique(), character * length)).status for length in (7, 8, 128, 129)]
    assert statuses == [400, 201, 201, 400]


async def test_the_shortest_password_is_a_setting_for_new_ones(start: Start) -> None:
    stranger, login = Person(await start(password_min_length=12)), unique()
    assert [(await enter(stranger, "/register", login, "x" * length)).status for length in (11, 12)] == [400, 201]
    stranger.client = await start(password_min_length=20)
    assert (await enter(stranger, "/get-token", login, "x" * 12)).status == 200


PASSWORDS = [
    "  both ends  ",
    "\t\n\r tabs and lines \n",
    "\x01\x02\x7f\x80 controls",
    "\u200b\u200d\u202e\ufeff format",
    "пароль 密码 🔑🗝",
    "+%2B&=;\"'\\ <>",
    "\uffff\ufdd0 no characters",
    "Case Matters",
]


@pytest.mark.parametrize("kind", ["json", "data"])
async def test_a_password_is_taken_as_it_is(stranger: Person, kind: str) -> None:
    for password in PASSWORDS:
        login = unique()
        for path, status in (("/register", 201), ("/get-token", 200)):
            body: dict[str, Any] = {kind: {"login": login, "password": password}}
            assert (await stranger.post(path, **body)).status == status
        others = {
            password.strip(),
            password + " ",
            password.swapcase(),
            password[:-1],
            password[1:],
            password.encode("ascii", "ignore").decode(),
        }
        statuses = {other: (await enter(stranger, "/get-token", login, other)).status for other in others - {password, ""}}
        assert set(statuses.values()) == {401}, statuses


async def test_a_password_is_the_same_in_both_unicode_forms(stranger: Person) -> None:
    login = unique()
    await enter(stranger, "/register", login, "e\N{COMBINING ACUTE ACCENT}" * 8)
    assert [(await enter(stranger, "/get-token", login, password)).status for password in ("é" * 8, "e" * 8)] == [200, 401]


async def test_a_long_password_counts_to_its_last_character(stranger: Person) -> None:
    login, password = unique(), "\N{GRINNING FACE}" * 127
    await enter(stranger, "/register", login, password + "a")
    assert [(await enter(stranger, "/get-token", login, password + last)).status for last in "ab"] == [200, 401]


async def test_a_password_has_neither_nul_nor_lone_surrogates(stranger: Person) -> None:
    for path in ENDS:
        for bad in ("\0", "\ud800"):
            answer = await enter(stranger, path, unique(), PASSWORD + bad)
            assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["password"])


async def test_a_password_is_stored_as_a_salted_hash(stranger: Person, sql: Sql) -> None:
    logins = [unique(), unique()]
    for login in logins:
        await enter(stranger, "/register", login)
    hashes = [password_hash for (password_hash,) in sql("SELECT password_hash FROM users WHERE login = ANY(%s)", logins)]
    assert len(set(hashes)) == 2
    for password_hash in hashes:
        pepper, argon2s = password_hash.split("$", 1)
        assert argon2s.startswith("argon2id$v=19$")
        assert re.fullmatch("pepper=[0-9a-f]{8}", pepper)
        with pytest.raises(argon2.exceptions.VerifyMismatchError):  # the pepper is in it
            argon2.PasswordHasher().verify(f"${argon2s}", PASSWORD)


async def test_a_password_is_worth_nothing_without_the_services_salt(stranger: Person, start: Start) -> None:
    login = unique()
    await enter(stranger, "/register", login)
    salt = configured().pass_salt.get_secret_value()
    statuses = []
    for other in (salt, "x" * 32, salt):
        stranger.client = await start(pass_salt=other)
        statuses.append((await enter(stranger, "/get-token", login)).status)
    assert statuses == [200, 401, 200]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return a function that gives all that has been logged, access lines too."""
    logs.ENDED.tell()
    WRITER.drain()
    capfd.readouterr()
    caplog.set_level(logging.DEBUG)

    def everything() -> str:
        logs.ENDED.tell()
        WRITER.drain()
        return capfd.readouterr().out + "\n".join(str(vars(record)) for record in caplog.records)

    return everything


async def test_a_password_is_never_logged_nor_sent_back(stranger: Person, logged: Callable[[], str]) -> None:
    login, secret = unique(), "hunter2-" + unique()
    tries: list[dict[str, Any]] = [
        {"json": {"login": login, "password": secret}},
        {"json": {"login": login, "password": secret * 10}},
        {"json": {"login": login, "password": [secret]}},
        {"json": {"login": " ", "password": secret}},
        {"data": f'{{"login": "{login}", "password": "{secret}"', "headers": {"Content-Type": "application/json"}},
        {"data": {"login": login, "password": secret}, "params": {"x": "y"}},
    ]
    answers = [await stranger.post(path, **request) for path in ENDS for request in tries]
    assert {answer.status for answer in answers} == {200, 201, 400}
    assert not any(secret in answer.text for answer in answers)
    log = logged()
    assert '"route":"/register"' in log
    assert secret not in log


# Refusals


@pytest.mark.parametrize("path", ENDS)
async def test_login_and_password_are_both_asked_for(stranger: Person, path: str) -> None:
    for sent in ({}, {"login": 1, "password": None}, {"login": [], "password": {}, "is_admin": True}):
        answer = await stranger.post(path, json=sent)
        named = {"login", "password"} | ({"body"} if "is_admin" in sent else set())  # a name that isn't known isn't shown here
        assert (answer.status, {error["field"] for error in answer.json["errors"]}) == (400, named)


async def test_an_unknown_login_and_a_wrong_password_get_one_answer(stranger: Person) -> None:
    login = unique()
    assert (await enter(stranger, "/register", login)).status == 201
    wrong, unknown = await enter(stranger, "/get-token", login, "wrong password"), await enter(stranger, "/get-token", unique())
    assert without_the_moment(wrong) == without_the_moment(unknown)
    assert (wrong.status, wrong.headers["WWW-Authenticate"], "errors" in wrong.json) == (401, STRANGER, False)
    assert (await enter(stranger, "/get-token", login)).status == 200


async def test_a_hash_that_nobody_can_have_made_is_a_wrong_password(stranger: Person, sql: Sql) -> None:
    login = unique()
    await enter(stranger, "/register", login)
    for broken in ("", "no hash", "$argon2id$v=19$m=19456,t=2,p=1$AAAA"):
        sql("UPDATE users SET password_hash = %s WHERE login = %s", broken, login)
        assert (await enter(stranger, "/get-token", login)).status == 401


async def test_of_many_who_register_one_login_at_once_exactly_one_gets_it(stranger: Person) -> None:
    login = "same-" + unique()
    spellings = [login, login.upper(), login.title()] * 4
    answers = await asyncio.gather(*(enter(stranger, "/register", name, f"password {n}") for n, name in enumerate(spellings)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 11
    [winner] = [n for n, answer in enumerate(answers) if answer.status == 201]
    logged_in = await asyncio.gather(*(enter(stranger, "/get-token", login, f"password {n}") for n in range(12)))
    assert [n for n, answer in enumerate(logged_in) if answer.status == 200] == [winner]


async def test_others_are_answered_while_twenty_log_in(alice: Person, stranger: Person, gate: Gate) -> None:
    logging_in = [asyncio.create_task(enter(stranger, path, unique())) for path in ENDS for _ in range(10)]
    while not gate.reached.is_set():
        await asyncio.sleep(0.01)
    assert (await alice.get("/health/live")).status == 200
    assert (await alice.new_task())["id"] == 1
    assert not any(task.done() for task in logging_in)
    gate.opened.set()
    assert sorted(answer.status for answer in await asyncio.gather(*logging_in)) == [201] * 10 + [401] * 10


@pytest.mark.parametrize(("path", "status"), [("/register", 201), ("/get-token", 401)])
async def test_the_queue_for_hashing_is_bounded(start: Start, gate: Gate, path: str, status: int) -> None:
    stranger = Person(await start(hashing_threads=1, hashing_queue=2))
    waiting = {asyncio.create_task(enter(stranger, path, unique())) for _ in range(5)}
    refused: set[asyncio.Task[Answer]] = set()
    while len(refused) < 2:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        refused |= done
    assert [(task.result().status, int(task.result().headers["Retry-After"]) > 0) for task in refused] == [(503, True)] * 2
    gate.opened.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [status] * 3
    assert (await enter(stranger, path, unique())).status == status


async def test_whoever_logs_in_again_and_again_leaves_room_to_others(start: Start, gate: Gate) -> None:
    stranger = Person(await start(hashing_threads=1, hashing_queue=2, trusted_proxies="127.0.0.0/8"))

    def come(address: str) -> asyncio.Task[Answer]:
        fields = {"login": unique(), "password": PASSWORD}
        return asyncio.create_task(stranger.post("/get-token", json=fields, headers={"X-Forwarded-For": address}))

    queue = stranger.client.app[passwords.HASHING]._turns
    mallorys = [come("192.0.2.1") for _ in range(3)]
    await until(lambda: queue.waiting == 2)
    alices = come("192.0.2.2")
    done, waiting = await asyncio.wait(mallorys, return_when=asyncio.FIRST_COMPLETED)
    gate.opened.set()
    assert [task.result().status for task in done] == [503]
    assert [answer.status for answer in await asyncio.gather(alices, *waiting)] == [401] * 3


# Tokens. Each refusal stands beside a token that differs in nothing else and is let in.


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def claims_of(person: Person, **changes: Any) -> dict[str, Any]:
    assert person.caller
    now = int(time.time())
    claims = {"sub": str(person.caller.user_id), "iat": now, "exp": now + 3600, "gen": person.caller.generation} | changes
    return {name: value for name, value in claims.items() if value is not ...}


def sign(claims: Any, *, secret: str | None = None, algorithm: str = "HS256", header: dict[str, Any] | None = None) -> str:
    signer = jwt.api_jws.PyJWS()
    payload = json.dumps(claims).encode()
    return signer.encode(payload, secret or configured().jwt_secret.get_secret_value(), algorithm, headers=header)


async def ask(client: TestClient[Any, Any], *authorization: str) -> Answer:
    """Ask for the tasks with any number of Authorization headers."""
    headers = CIMultiDict([("Authorization", value) for value in authorization])
    async with client.get("/task", headers=headers) as response:
        return Answer(response.status, response.headers, await response.json(content_type=None), await response.text())


def is_refused(answer: Answer, challenge: str = BAD_TOKEN) -> bool:
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, challenge), answer
    assert set(answer.json) == {"type", "title", "status", "detail"}
    return True


async def lets_in(alice: Person, token: str | None) -> bool:
    return (await ask(alice.client, f"Bearer {token}")).status == 200


async def test_the_scheme_may_be_in_any_case(alice: Person) -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "bEaReR", "Bearer  "):
        assert (await ask(alice.client, f"{scheme} {alice.token}")).status == 200


async def test_without_a_bearer_token_one_is_asked_for(alice: Person) -> None:
    assert is_refused(await ask(alice.client), STRANGER)
    for value in (
        "",
        "Basic YWxpY2U6cGFzc3dvcmQ=",
        "Basic {}",
        "Digest {}",
        "{}",
        "Token {}",
        "JWT {}",
        "BearerXYZ {}",
        "XBearer {}",
        "Bearer: {}",
        "Bearer,{}",
    ):
        assert is_refused(await ask(alice.client, value.format(alice.token)), STRANGER)
    assert await lets_in(alice, alice.token)


async def test_a_bearer_header_of_another_form_is_a_bad_token(alice: Person) -> None:
    for value in ("", "{} {}", "{}, Bearer {}", "{},{}", '"{}"', "token={}", "{}=", ".{}", "{}.", "x", "null", "{} x"):
        assert is_refused(await ask(alice.client, "Bearer " + value.format(alice.token, alice.token)))
    assert await lets_in(alice, alice.token)


async def test_two_authorization_headers_are_refused(alice: Person) -> None:
    for other in (f"Bearer {alice.token}", "Bearer x", "Basic YWxpY2U6cGFzc3dvcmQ=", ""):
        for values in ([f"Bearer {alice.token}", other], [other, f"Bearer {alice.token}"]):
            assert is_refused(await ask(alice.client, *values))
    assert await lets_in(alice, alice.token)


async def test_bytes_beyond_ascii_are_no_token(alice: Person) -> None:
    token = str(alice.token).encode()
    request = b"GET /task HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: %s\r\n\r\n"
    for before, after in ((b"", b""), (b"Bearer ", token), (b"Bearer " + token, b""), (b"Bearer " + token[:60], token[60:])):
        for byte in (b"\xff", b"\x80", b"\xc3\xa9", b"\xd9\xa3", b"\xed\xa0\x80"):
            refusal = await exchange(alice.client, request % (before + byte + after))
            assert refusal.startswith(b"HTTP/1.1 401 "), before + byte + after
            assert b'WWW-Authenticate: Bearer realm="task"%s\r\n' % (b', error="invalid_token"' if before else b"") in refusal
    assert (await exchange(alice.client, request % (b"Bearer " + token))).startswith(b"HTTP/1.1 200 ")


def with_other_signature(alice: Person) -> str:
    head, payload, signature = sign(claims_of(alice)).split(".")
    return ".".join([head, payload, ("B" if signature[0] == "A" else "A") + signature[1:]])


def with_other_claims(alice: Person) -> str:
    head, _, signature = sign(claims_of(alice)).split(".")
    return ".".join([head, base64url(json.dumps(claims_of(alice, exp=int(time.time()) + 7200)).encode()), signature])


def unsigned(alice: Person, algorithm: str, signature: str) -> str:
    head = base64url(json.dumps({"alg": algorithm, "typ": "JWT"}, separators=(",", ":")).encode())
    return f"{head}.{base64url(json.dumps(claims_of(alice)).encode())}.{signature}"


def of_segments(alice: Person, part: slice) -> str:
    return ".".join(sign(claims_of(alice)).split(".")[part])


FORGED: dict[str, Callable[[Person], str]] = {
    "another secret": lambda alice: sign(claims_of(alice), secret="x" * 64),
    "another signature": with_other_signature,
    "another token's signature": with_other_claims,
    "a shorter signature": lambda alice: sign(claims_of(alice))[:-4],
    "no signature": lambda alice: of_segments(alice, slice(0, 2)) + ".",
    "two segments": lambda alice: of_segments(alice, slice(0, 2)),
    "four segments": lambda alice: sign(claims_of(alice)) + ".x",
    "alg none": lambda alice: unsigned(alice, "none", ""),
    "alg None, signed": lambda alice: unsigned(alice, "None", "x" * 43),
    "alg HS256, unsigned": lambda alice: unsigned(alice, "HS256", "x" * 43),
    "alg RS256": lambda alice: unsigned(alice, "RS256", "x" * 43),
    "alg HS384": lambda alice: sign(claims_of(alice), algorithm="HS384"),
    "alg HS512": lambda alice: sign(claims_of(alice), algorithm="HS512"),
    "kid": lambda alice: sign(claims_of(alice), header={"kid": "../../dev/null"}),
    "crit": lambda alice: sign(claims_of(alice), header={"crit": ["a\r\nX: 1"]}),
    "jku": lambda alice: sign(claims_of(alice), header={"jku": "http://localhost/keys"}),
    "cty": lambda alice: sign(claims_of(alice), header={"cty": "JWT"}),
    "typ": lambda alice: sign(claims_of(alice), header={"typ": "at+jwt"}),
    "claims that are a list": lambda alice: sign([claims_of(alice)]),
    "claims that are text": lambda _: sign("alice"),
    "claims that are null": lambda _: sign(None),
    "claims that are deep": lambda _: sign(json.loads("[" * 300 + "]" * 300)),
    "claims that are long": lambda alice: sign(claims_of(alice) | {"x": "x" * 5000}),
}


async def test_a_forged_token_is_refused(alice: Person) -> None:
    for name, forge in FORGED.items():
        assert is_refused(await ask(alice.client, f"Bearer {forge(alice)}")), name
    assert await lets_in(alice, sign(claims_of(alice)))


async def test_every_claim_is_required(alice: Person, sql: Sql) -> None:
    assert alice.caller
    sql("UPDATE user_state SET token_generation = 0 WHERE user_id = %s", alice.caller.user_id)
    for claim in ("sub", "iat", "exp", "gen"):
        assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice, **{'gen': 0, claim: ...}))}"))
    assert await lets_in(alice, sign(claims_of(alice, gen=0)))


NO_NUMBERS = [None, True, [], {}, "", "1", 1.5, 10**400, -(10**400), float("inf"), float("nan")]
ABSURD: dict[str, list[Any]] = {
    "sub": [
        *NO_NUMBERS,
        "0",
        "-1",
        "+1",
        "01",
        "1e3",
        "1.0",
        "٣",
        " 1",
        "1 ",
        "1_0",
        "x",
        "9" * 19,
        "9" * 20,
        str(2**63),
        str(2**63 - 1),
        0,
        1,
    ],
    "iat": [*NO_NUMBERS, "0"],
    "exp": [*NO_NUMBERS, "9999999999", 9e18, 0, -1],
    "gen": [*NO_NUMBERS, -1, 2**53, 2**63],
    "aud": ["task", ["task"], "", None],
    "nbf": [9999999999],
}


@pytest.mark.parametrize("claim", ABSURD)
async def test_a_token_with_an_absurd_claim_is_refused(alice: Person, claim: str) -> None:
    for value in ABSURD[claim]:
        assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice, **{claim: value}))}")), value
    assert await lets_in(alice, sign(claims_of(alice)))


async def test_numbers_that_are_equal_but_no_integers_are_refused(alice: Person) -> None:
    claims = claims_of(alice)
    for changes in ({"gen": float(claims["gen"])}, {"gen": str(claims["gen"])}, {"exp": float(claims["exp"])}, {"sub": int(claims["sub"])}):
        assert is_refused(await ask(alice.client, f"Bearer {sign(claims | changes)}"))
    assert await lets_in(alice, sign(claims))


async def test_a_token_dies_at_its_second(alice: Person) -> None:
    now = int(time.time())
    assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice, iat=now - 60, exp=now - 1))}"))
    assert await lets_in(alice, sign(claims_of(alice, iat=now - 60, exp=now + 60)))


async def test_a_token_may_come_from_a_host_whose_clock_is_a_minute_ahead(alice: Person) -> None:
    now = int(time.time())
    for ahead in (1, 60):
        assert await lets_in(alice, sign(claims_of(alice, iat=now + ahead)))
    for ahead in (120, 3600):
        assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice, iat=now + ahead, exp=now + 7200))}"))


async def test_a_token_lives_a_year_at_the_longest(alice: Person) -> None:
    now = int(time.time())
    assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice, iat=now, exp=now + YEAR_SECONDS + 1))}"))
    assert await lets_in(alice, sign(claims_of(alice, iat=now, exp=now + YEAR_SECONDS)))


async def test_a_token_of_nobody_is_refused(alice: Person) -> None:
    assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice, sub='987654321'))}"))
    assert await lets_in(alice, alice.token)


@pytest.mark.long
async def test_a_token_that_was_taken_is_refused_once_it_has_expired(alice: Person) -> None:
    token = sign(claims_of(alice, exp=int(time.time()) + 5))
    assert await lets_in(alice, token)
    assert await lets_in(alice, token)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await lets_in(alice, token):
            await asyncio.sleep(0.1)
    assert is_refused(await ask(alice.client, f"Bearer {token}"))


async def test_a_taken_token_beside_another_is_refused(alice: Person, mallory: Person) -> None:
    assert await lets_in(alice, alice.token)
    assert is_refused(await ask(alice.client, f"Bearer {alice.token}", f"Bearer {mallory.token}"))


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for each time that a token is verified, from now on."""
    verified: list[str] = []
    bearer_token = auth.bearer_token
    monkeypatch.setattr(auth, "bearer_token", lambda request: verified.append("once") or bearer_token(request))  # type: ignore[func-returns-value]
    return verified


async def test_only_so_many_tokens_are_remembered(
    alice: Person, verified: list[str], monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 2)
    alice.client = await start()
    tokens = [sign(claims_of(alice, iat=int(time.time()) - n)) for n in range(3)]
    assert [await lets_in(alice, token) for token in [*tokens, *reversed(tokens)]] == [True] * 6
    assert len(verified) == 4  # the third and the second were known the second time


async def test_what_is_sent_with_many_spaces_is_let_in_and_not_remembered(alice: Person, verified: list[str], start: Start) -> None:
    alice.client = await start()
    for spaces, times in ((1, 1), (7000, 2)):
        verified.clear()
        answers = [await ask(alice.client, f"Bearer{' ' * spaces}{alice.token}") for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
        assert len(verified) == times


async def test_a_token_of_another_account_s_generation_is_refused(alice: Person, mallory: Person) -> None:
    assert mallory.caller
    assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice, gen=mallory.caller.generation))}"))
    assert await lets_in(mallory, sign(claims_of(mallory)))


@pytest.mark.parametrize("step", [1, -1])
async def test_a_token_of_another_generation_is_refused_at_once(alice: Person, sql: Sql, step: int) -> None:
    assert alice.caller
    assert await lets_in(alice, alice.token)
    sql("UPDATE user_state SET token_generation = token_generation + %s WHERE user_id = %s", step, alice.caller.user_id)
    assert is_refused(await ask(alice.client, f"Bearer {alice.token}"))
    assert await lets_in(alice, sign(claims_of(alice, gen=alice.caller.generation + step)))


async def test_a_token_of_an_account_that_is_gone_is_refused_at_once(alice: Person, sql: Sql) -> None:
    assert alice.caller
    assert await lets_in(alice, alice.token)
    for table, column in (("user_state", "user_id"), ("users", "id")):
        sql(f"DELETE FROM {table} WHERE {column} = %s", alice.caller.user_id)
    assert is_refused(await ask(alice.client, f"Bearer {alice.token}"))


async def test_a_token_elsewhere_than_in_its_header_is_none(alice: Person, stranger: Person) -> None:
    assert is_refused(await stranger.get("/task", params={"access_token": alice.token}), STRANGER)
    assert is_refused(await stranger.get("/task", headers={"Cookie": f"access_token={alice.token}"}), STRANGER)
    assert is_refused(await stranger.post("/task", data={"access_token": alice.token}), STRANGER)
    assert is_refused(await stranger.get("/task", headers={"Proxy-Authorization": f"Bearer {alice.token}"}), STRANGER)


async def test_bad_tokens_leave_no_token_and_no_traceback_in_the_log(
    alice: Person, caplog: pytest.LogCaptureFixture, logged: Callable[[], str]
) -> None:
    bad = [forge(alice) for forge in FORGED.values()] + [
        sign(claims_of(alice, exp=1)),
        sign(claims_of(alice, exp=10**400)),
        "MALLORY.WAS.HERE",
    ]
    for token in bad:
        assert is_refused(await ask(alice.client, f"Bearer {token}"))
    log = logged()
    assert log.count('"status":401') == len(bad)
    assert [record.getMessage() for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING] == []
    assert [segment for token in bad for segment in token.split(".") if len(segment) > 3 and segment in log] == []


# Another key


OLD, NEW = "the key before " * 5, "the key after " * 5


async def test_tokens_and_cursors_outlive_their_key(alice: Person, start: Start) -> None:
    alice.client, alice.token = await start(jwt_secret=OLD), sign(claims_of(alice), secret=OLD)
    for name in ("first", "second"):
        await alice.new_task(name=name)
    link = (await alice.get("/task?limit=1")).headers["Link"]
    next_page = link[1 : link.index(">")]
    await alice.client.close()
    alice.client = await start(jwt_secret=NEW, jwt_secret_previous=OLD)
    assert [task["name"] for task in (await alice.get(next_page)).json] == ["second"]
    assert await lets_in(alice, sign(claims_of(alice), secret=NEW))
    assert jwt.decode((await alice.post("/revoke-tokens")).json["access_token"], NEW, ["HS256"])  # what signs is the new one


async def test_a_key_before_opens_no_more_than_the_present_one(alice: Person, start: Start) -> None:
    alice.client = await start(jwt_secret_previous=OLD)
    for forge in FORGED.values():
        assert is_refused(await ask(alice.client, f"Bearer {forge(alice)}"))
    for changes in ({"exp": 1}, {"gen": 5}, {"aud": "x"}, {"sub": 1}):
        assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice, **changes), secret=OLD)}"))
    assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice), secret=OLD, algorithm='HS512')}"))
    assert await lets_in(alice, sign(claims_of(alice), secret=OLD))


async def test_a_key_that_is_no_more_given_opens_nothing(alice: Person, start: Start) -> None:
    alice.client = await start(jwt_secret=NEW)
    assert is_refused(await ask(alice.client, f"Bearer {sign(claims_of(alice), secret=OLD)}"))
    assert await lets_in(alice, sign(claims_of(alice), secret=NEW))

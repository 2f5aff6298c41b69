"""A storm of hostile requests with a good one after each nine: none of the bad does anything, every one is answered, and all the good succeed."""

import asyncio
import random
import re
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from tests.rest.test_bodies import FORM, JSON, MULTIPART, TEXTS
from tests.rest.test_bodies import encode as encoded
from torture import attacks, wire
from torture.mallory import TASKS, Attack, Mallory

AT_ONCE = 8
HOSTILE_TO_ONE_GOOD = 9
PASSWORD = "correct horse battery staple"  # noqa: S105 - of an account that lives for minutes
LEAKS = re.compile(rb"traceback|exception|psycopg|peewee|pydantic|\.py\b|(?<!:.)line \d|\bselect\b|\binsert\b|object at 0x", re.IGNORECASE)
TABLES = ("user_state", "task", "task_log", "idempotency_key", "import_row")
CHALLENGES = {401: "www-authenticate", 405: "allow"}

Sql = Callable[..., list[tuple[Any, ...]]]


@dataclass
class Storm:
    """What came of it."""

    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)


async def run(port: int, secret: str, sql: Sql, number: int, seed: int) -> Storm:
    """Send so many requests, a tenth of them good. `secret` signs the tokens; `sql` looks at the data past the service."""
    storm, choose = Storm(), random.Random(seed)  # noqa: S311 - not a secret
    mallory, alice = [await _register(port) for _ in range(2)]
    for n in range(TASKS):
        await _made(port, _creation(mallory, f"Mallory's {n}"))
    before = _stored(sql, mallory)
    attack = attacks.attacks(Mallory(mallory, secret, choose))
    accounts = _accounts(sql)
    for batch in range(0, number, 10 * HOSTILE_TO_ONE_GOOD):
        bad = list(islice(attack, min(9 * HOSTILE_TO_ONE_GOOD, number - batch)))
        controls = max(1, len(bad) // HOSTILE_TO_ONE_GOOD)
        limit = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(
            *(_attack(port, each, storm, limit) for each in bad), *(_control(port, alice, choose, storm, limit) for _ in range(controls))
        )
        if (now := _stored(sql, mallory)) != before:
            storm.faults.append(f"the data changed: from {before} to {now} after {[each.sent[:300] for each in bad]}")
            before = now
    if _accounts(sql) != accounts:
        storm.faults.append(f"there were {accounts} accounts, and now there are {_accounts(sql)}")
    return storm


def _stored(sql: Sql, token: str) -> list[Any]:
    user_id = Mallory(token, "", random.Random()).claims["sub"]  # noqa: S311
    return [sql(f"SELECT * FROM {table} t WHERE user_id = %s ORDER BY t", user_id) for table in TABLES]


def _accounts(sql: Sql) -> int:
    return int(sql("SELECT count(*) FROM users")[0][0])


async def _register(port: int) -> str:
    body = urlencode({"login": f"hostile-{secrets.token_hex(6)}", "password": PASSWORD}).encode()
    answer = await _made(port, wire.request("POST /register", f"Content-Type: {FORM}", body=body))
    return str(answer.json["access_token"])


async def _made(port: int, sent: bytes) -> wire.Response:
    [answer] = await wire.exchange(port, sent)
    if answer.status != 201:
        raise SystemExit(f"The storm can't begin: {sent!r} was answered {answer}")
    return answer


def _creation(token: str, name: str, kind: str = JSON, description: str = "") -> bytes:
    body = encoded(kind, ("name", name), ("description", description), ("status", "new"), ("completion_at", "02-10-2020"))
    return wire.request("POST /task", f"Content-Type: {kind}", body=body, token=token)


async def _attack(port: int, attack: Attack, storm: Storm, limit: asyncio.Semaphore) -> None:
    async with limit:
        try:
            answers = await wire.exchange(port, attack.sent)
        except (TimeoutError, ValueError) as error:
            storm.faults.append(f"{attack.kind}: {error!r} for {attack.sent[:1000]!r}")
            return
    storm.counts[attack.kind] += 1
    storm.statuses[answers[0].status if answers else 0] += 1
    if fault := _fault(attack, answers):
        storm.faults.append(f"{attack.kind}: {fault} for {attack.sent[:1000]!r}: {answers}"[:4000])


def _fault(attack: Attack, answers: list[wire.Response]) -> str | None:
    """Say what is wrong with the answer to an attack; nothing where all is as it must be."""
    if len(answers) != 1:
        return f"{len(answers)} answers"
    [answer] = answers
    is_of_the_parser = "x-request-id" not in answer.headers  # which refuses what is no HTTP before any code of ours
    if answer.status not in attack.statuses and not (is_of_the_parser and answer.status in (400, 505)):
        return f"{answer.status}"
    if LEAKS.search(answer.body):
        return "it says too much"
    if not is_of_the_parser:
        if answer.headers.get("content-type", "").partition(";")[0] != "application/problem+json":
            return "no problem document"
        if (challenge := CHALLENGES.get(answer.status)) and challenge not in answer.headers:
            return f"no {challenge}"
    return None


async def _control(port: int, token: str, choose: random.Random, storm: Storm, limit: asyncio.Semaphore) -> None:
    """Do what must succeed."""
    text, kind = choose.choice(TEXTS), choose.choice([FORM, MULTIPART, JSON])
    creation = _creation(token, text, kind, text * choose.randrange(20))
    creation = creation.replace(b"Bearer ", choose.choice([b"Bearer ", b"bearer ", b"BEARER  "]), 1)
    creation = creation.replace(kind.encode(), kind.encode() + choose.choice([b"", b"; charset=utf-8", b"; charset=bogus"]), 1)
    async with limit:
        [answer] = await wire.exchange(port, creation)
        if answer.status != 201 or answer.json["name"] != text:
            storm.faults.append(f"a good request: {creation!r} was answered {answer}")
            return
        task = answer.json["id"]
        pair = wire.request(f"GET /task/{task}", token=token, close=False) + wire.request(f"DELETE /task/{task}?forever=true", token=token)
        answers = await wire.exchange(port, pair)
        if [each.status for each in answers] != [200, 204] or answers[0].body != answer.body:
            storm.faults.append(f"two good requests: {pair!r} were answered {answers}")
    storm.counts["good ones"] += 1

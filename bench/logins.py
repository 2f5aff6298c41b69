"""`python -m bench.logins`: whether the time of a refusal tells if a login exists. A PostgreSQL and an application of its own; a minute."""

import asyncio
import os
import secrets
import statistics
import tempfile
import time
from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer

import app
import auth
import settings
from accounts import passwords, users
from postgres import embedded

ROUNDS = 200
MOST_APART = 0.10


async def measure() -> dict[str, list[float]]:
    """Ask with a wrong password for a login that exists and for one that doesn't, in turn, and give the seconds that each took."""
    async with TestClient(TestServer(await app.create_app())) as client:
        known = f"known-{secrets.token_hex(4)}"
        await users.create_user(known, passwords.hash_password("correct horse battery"), secrets.randbelow(auth.GENERATIONS))
        took: dict[str, list[float]] = {"known": [], "unknown": []}
        for n in range(2 * ROUNDS + 20):
            kind = ("known", "unknown")[(n + n // 2) % 2]  # none is always first
            login = known if kind == "known" else f"unknown-{secrets.token_hex(4)}"
            begun = time.perf_counter()
            async with client.post("/get-token", json={"login": login, "password": "wrong password"}) as answer:
                await answer.read()
            if answer.status != 401:
                raise SystemExit(f"The answer was {answer.status}.")
            if n >= 20:
                took[kind].append(time.perf_counter() - begun)
        return took


def main() -> None:
    """Measure with one pepper and with two, print the medians, and fail where they tell."""
    apart = []
    with tempfile.TemporaryDirectory(prefix="task-logins-") as directory, embedded.server(Path(directory) / "data", durable=False) as host:
        os.environ |= {"DB_HOST": host, "DB": "postgres", "DB_USER": "postgres", "RATE_LIMIT": "off", "LOG_LEVEL": "WARNING"}
        os.environ |= {name: secrets.token_hex(32) for name in ("JWT_SECRET", "PASS_SALT")}
        for peppers in ("one pepper", "two peppers"):
            settings.load.cache_clear()
            took = asyncio.run(measure())
            known, unknown = (statistics.median(took[kind]) * 1000 for kind in ("known", "unknown"))
            apart.append(abs(known / unknown - 1))
            print(f"{peppers}: n = {ROUNDS} each; known login {known:.1f} ms, unknown login {unknown:.1f} ms, {apart[-1]:.1%} apart")
            os.environ["PASS_SALT_PREVIOUS"] = secrets.token_hex(32)
    if max(apart) > MOST_APART:
        raise SystemExit("The time of a refusal tells whether there is such a login.")


if __name__ == "__main__":
    main()

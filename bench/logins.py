"""`python -m bench.logins`: whether the time of a refusal tells if a login exists. A PostgreSQL and an application of its own; a minute."""

import asyncio
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

import app
import auth
from accounts import passwords, users
from postgres import embedded
from service import SERVICE
from settings import Settings

ROUNDS = 200
MAX_APART = 0.10


async def measure(given: Settings) -> dict[str, list[float]]:
    """Ask with a wrong password for a login that exists and for one that doesn't, in turn, and give the seconds that each took."""
    application = await app.create_app(given)
    async with TestClient(TestServer(application)) as client:
        known, hashing = f"known-{secrets.token_hex(4)}", application[passwords.HASHING]
        generation = secrets.randbelow(auth.GENERATIONS)
        await users.create_user(application[SERVICE], known, await hashing.hash("correct horse battery"), generation)
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
        given: dict[str, Any] = {"db_host": host, "db": "postgres", "db_user": "postgres", "rate_limit": "off"}
        given |= {name: secrets.token_hex(32) for name in ("jwt_secret", "pass_salt")}
        before = given | {"pass_salt_previous": secrets.token_hex(32)}
        for peppers, settings in {"one pepper": given, "two peppers": before}.items():
            took = asyncio.run(measure(Settings(**settings)))
            known, unknown = (statistics.median(took[kind]) * 1000 for kind in ("known", "unknown"))
            apart.append(abs(known / unknown - 1))
            print(f"{peppers}: n = {ROUNDS} each; known login {known:.1f} ms, unknown login {unknown:.1f} ms, {apart[-1]:.1%} apart")
    if max(apart) > MAX_APART:
        raise SystemExit("The time of a refusal tells whether there is such a login.")


if __name__ == "__main__":
    main()

"""Whether the owner is let in and every valid request is answered, whatever somebody else sends."""

import asyncio
import random
from pathlib import Path

from torture import wire
from torture.siege import accounts
from torture.siege.connection import Connection
from torture.siege.field import Field, pitched
from torture.siege.victim import FORM

MANY = 16  # connections, so that each worker has some
PIPELINES = 600
SECONDS_TO_ANSWER = 10


async def _flood(field: Field, request: bytes, each: int) -> dict[str, int]:
    """Send a request so often on each of many connections, from one address, and return the answers by status."""
    address = accounts.new_address()
    answers: dict[str, int] = {}

    async def send() -> None:
        connection = Connection(address, field.port)
        for _ in range(each):
            try:
                if not connection.is_open:
                    await connection.open()
                status = f"{await connection.ask(request)}"
            except OSError as error:
                status = type(error).__name__
                connection.close()
            answers[status] = answers.get(status, 0) + 1
        connection.close()

    await asyncio.gather(*(send() for _ in range(MANY)))
    return answers


async def tokens(directory: Path) -> tuple[list[str], str]:
    """Refusals by a revoked token, then of remedies by a stolen one; after each the owner wants in, on many connections."""
    async with pitched(directory) as field:
        revoked = await accounts.register(field.port)
        stolen = await _revoke(field, revoked)
        first = await _flood(field, wire.request("GET /task?bogus=1", token=revoked, close=False), 100)
        malformed = wire.request("POST /task", "Content-Type: application/json", body=b"{", token=revoked, close=False)
        for status, count in (await _flood(field, malformed, 100)).items():
            first[status] = first.get(status, 0) + count
        reads = await _flood(field, wire.request("GET /task", token=stolen, close=False), 1)
        second = await _flood(field, wire.request("POST /revoke-tokens?x=1", token=stolen, close=False), 200)
        remedies, token = [], stolen
        for _ in range(MANY):
            async with accounts.client(field.port, token=token) as session, session.post("/revoke-tokens") as answer:
                remedies.append(answer.status)
                if answer.status == 200:
                    token = (await answer.json())["access_token"]
    faults = [f"the owner's reads were answered {reads}"] if {*reads} != {"200"} else []
    faults += [f"the owner's remedies were answered {sorted(remedies)}"] if {*remedies} != {200} else []
    return (
        faults,
        f"a revoked token: {first}, then its owner: {reads}; a stolen one's remedies: {second}, then its owner's: {sorted(remedies)}",
    )


async def _revoke(field: Field, token: str) -> str:
    async with accounts.client(field.port, token=token) as session, session.post("/revoke-tokens") as answer:
        return str((await accounts.done(answer))["access_token"])


async def pipelines(directory: Path) -> tuple[list[str], str]:
    """Valid requests on one connection, cut at any place, each of which must be answered without more bytes."""
    choose, turns = random.Random(9), asyncio.Semaphore(MANY)  # noqa: S311 - not a secret
    async with pitched(directory) as field:
        owners = await accounts.register_many(field.port, 8, accounts.FEW)

        async def send(requests: list[bytes], pieces: list[bytes]) -> int:
            connection, answered = Connection(accounts.new_address(), field.port), 0
            try:
                async with turns, asyncio.timeout(SECONDS_TO_ANSWER + 0.02 * len(pieces)):
                    await connection.open()
                    for piece in pieces:
                        await connection.send(piece)
                        await asyncio.sleep(choose.choice([0, 0.001, 0.005]))
                    for _ in requests:
                        await connection.answer()
                        answered += 1
            except (OSError, TimeoutError):
                pass
            finally:
                connection.close()
            return len(requests) - answered

        cases = [_pipeline(owners[number % len(owners)], choose) for number in range(PIPELINES)]
        lacking = [number for number in await asyncio.gather(*(send(*case) for case in cases)) if number]
    faults = [f"{len(lacking)} of {PIPELINES} connections lack {sum(lacking)} answers"] if lacking else []
    return (
        faults,
        f"{PIPELINES} connections with {sum(len(requests) for requests, _ in cases):,} requests, {len(lacking)} not answered to the end",
    )


def _pipeline(token: str, choose: random.Random) -> tuple[list[bytes], list[bytes]]:
    """Return some requests, and all their bytes in pieces: at random places, or each body apart and the rest together."""
    post = wire.request("POST /task", FORM, body=b"name=x&description=&status=new", token=token, close=False)
    change = wire.request("PATCH /task/1", FORM, body=b"status=planned", token=token, close=False)
    gets = [wire.request(f"GET {path}", token=token, close=False) for path in ("/task/1", "/task?limit=1", "/nowhere")]
    requests = [choose.choice([post, change, *gets, *gets]) for _ in range(choose.randrange(2, 7))]
    if choose.random() < 0.5:
        sent = b"".join(requests)
        cuts = sorted(choose.randrange(len(sent)) for _ in range(choose.randrange(1, 8)))
        return requests, [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True) if start < end]
    requests = [post, *gets[: choose.randrange(1, 3)]]
    head, _, body = post.partition(b"\r\n\r\n")
    return requests, [head + b"\r\n\r\n", body, b"".join(requests[1:])]

"""Those who attack: crowds of connections that all do the same, from one address, with bytes that are ready.

Those that take their time begin one after the other: to open thousands at once would take the generator one of the two cores that the
service has, which is not what an attacker elsewhere takes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from torture.siege.connection import Connection

SECONDS_BETWEEN_READS = 0.5  # of who reads slowly
SECONDS_BETWEEN_LOOKS = 1  # of who reads nothing, whether it is still held
RECEIVE_BYTES = 4096  # that the system keeps for who reads slowly, or nothing; it makes more of it
ALL = -1


class Crowd(NamedTuple):
    """Connections that all do the same."""

    size: int
    requests: Sequence[bytes]  # each sends them in turn, the next one after the answer
    pause_seconds: float = 0  # after each answer
    comes_again_seconds: float = 1  # after a connection was refused or has ended
    reads: int = ALL  # bytes a second
    drip_seconds: float = 0  # between one byte and the next that is sent after a request, whose body is to be as long in coming


class Where(NamedTuple):
    """From which address to which port, from when on, in the system's monotonic seconds, and for how long."""

    address: str
    port: int
    starts_at: float
    seconds: float


async def gather(crowds: Sequence[Crowd], where: Where) -> Counter[str]:
    """Attack for some time, and return how many answers there were, by status."""
    answers: Counter[str] = Counter()
    await asyncio.sleep(where.starts_at - time.monotonic())
    members = [asyncio.create_task(_attack(crowd, number, where, answers)) for crowd in crowds for number in range(crowd.size)]
    ended, _ = await asyncio.wait(members, timeout=where.starts_at + where.seconds - time.monotonic())
    for member in members:
        member.cancel()
    await asyncio.wait(members)
    for member in ended:
        member.result()  # none ends by itself: this raises why
    return answers


async def _attack(crowd: Crowd, number: int, where: Where, answers: Counter[str]) -> None:
    connection = Connection(where.address, where.port, 0 if crowd.reads == ALL else RECEIVE_BYTES)
    first = number % len(crowd.requests)
    try:
        await asyncio.sleep(max(crowd.pause_seconds, crowd.drip_seconds) * number / crowd.size)
        for request in cycle([*crowd.requests[first:], *crowd.requests[:first]]):
            try:
                if not connection.is_open:
                    await connection.open()
                await connection.send(request)
                answers[f"{await _answer(crowd, connection)}"] += 1
                await asyncio.sleep(crowd.pause_seconds)
            except OSError as error:
                answers[type(error).__name__] += 1
                connection.close()
                await asyncio.sleep(crowd.comes_again_seconds)
    finally:
        connection.close()


async def _answer(crowd: Crowd, connection: Connection) -> int:
    """Take an answer as the crowd does. Raises OSError where there is none, or who is slow is given up."""
    if crowd.drip_seconds:
        await _drip(crowd, connection)
    if crowd.reads == 0:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            connection.look()
    if crowd.reads > 0:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_READS)
            await connection.receive(int(crowd.reads * SECONDS_BETWEEN_READS))
    return await connection.answer()


async def _drip(crowd: Crowd, connection: Connection) -> None:
    """Send a byte now and then until the service has something to say."""
    while True:
        try:
            async with asyncio.timeout(crowd.drip_seconds):
                await connection.wait()
                return
        except TimeoutError:
            await connection.send(b"x")


def attack(crowds: Sequence[Crowd], where: Where) -> Counter[str]:
    """Attack, in a process of one's own."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(gather(crowds, where))

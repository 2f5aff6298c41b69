"""The attacks whose aim is no slowness: each has an end of its own, which is looked for."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from torture.siege import access, operations


class Trial(NamedTuple):
    """An attack, which in a new directory returns its faults, and what was seen in words."""

    name: str
    says: str
    run: Callable[[Path], Awaitable[tuple[list[str], str]]]


TRIALS = [
    Trial("tokens", "a revoked token, and a stolen one, against their owner's quota", access.tokens),
    Trial("pipelines", f"{access.PIPELINES} connections of pipelined requests, cut anywhere", access.pipelines),
    Trial("reload", f"SIGHUP during an import and an export of {operations.SECONDS_OF_A_FILE} s", operations.reload),
    Trial("clock", "moments of limits and streams that lie ahead", operations.clock),
    Trial("postmaster", "kill -9 of the PostgreSQL of make run", operations.postmaster),
]  # fmt: skip

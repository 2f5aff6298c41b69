"""One run: everything is started, worked with, broken, brought to rest, and judged."""

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture import answers, figures, hostile, journal, past, verdict
from torture import soak as soaking
from torture.client import crew
from torture.faults import Fault, Faults
from torture.fleet import Fleet
from torture.journal import Journal
from torture.server import Server
from torture.service import HOUSE, Service

SECONDS_TO_COME_TO_REST = 2


@dataclass
class Outcome:
    """What came of a run: the disagreements, none if all is well, and what there was to agree on."""

    faults: list[str]
    counts: dict[str, int]
    rows: list[figures.Figures] = field(default_factory=list)
    verified: str = ""  # what `python models.py verify` said


@contextlib.asynccontextmanager
async def stage(directory: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[tuple[Server, Service]]:
    """Start PostgreSQL and the service, with some settings of its own, in a directory; nothing of them is left afterwards."""
    server = Server(directory)
    try:
        server.start()
        server.make_database()
        service = Service(server, directory)
        service.settings |= settings or {}
        try:
            service.start()
            await service.until_ready()
            yield server, service
        finally:
            service.stop()
    finally:
        server.stop()


async def run(directory: Path, seconds: float, seed: int, tell: Callable[[str], None], *, soak: bool = False) -> Outcome:
    """Torture the service for some time; or soak it, which ends no worker and watches what they need."""
    notes = Journal(directory / "journal")
    async with stage(directory) as (server, service):
        fleet = Fleet(service.url, notes, seed)
        await fleet.enlist()
        faults = Faults(server, service, fleet, seed, soak=soak)
        watching: contextlib.AbstractAsyncContextManager[list[soaking.Sample]]
        watching = soaking.watched(server, service) if soak else contextlib.nullcontext([])
        async with fleet.at_work(*(client.work() for client in crew(fleet))):
            async with watching as samples:
                await faults.run(seconds, tell)
            await asyncio.sleep(SECONDS_TO_COME_TO_REST)
        end = time.monotonic()
        code = service.stop()
        notes.close()
        outcome = judge(directory, server, service, faults.log, end)
        if code != 0:
            outcome.faults.append(f"gunicorn ended with {code}")
        took = [1000 * seconds for asked_at, seconds in fleet.health if not _is_away(asked_at, faults.log)]
        outcome.counts |= {
            "ms for a health answer, median": round(figures.percentile(took, 0.5)),
            "ms for a health answer, of 99 %": round(figures.percentile(took, 0.99)),
            "ms that the clients' own process was held up, at most": round(1000 * max((lag for _, lag in fleet.lags), default=0)),
        }
        if soak:
            grown, needed = soaking.judge(samples)
            outcome.faults.extend(grown)
            outcome.counts |= needed
    return outcome


async def storm(directory: Path, number: int, seed: int) -> Outcome:
    """Send the service so many hostile requests."""
    async with stage(directory) as (server, service):
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:

            def sql(statement: str, *values: Any) -> list[tuple[Any, ...]]:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []

            before = round(service.memory())
            found = await hostile.run(service.port, service.secret, sql, number, seed)
            after = round(service.memory())
        code = service.stop()
        faults = [*found.faults, *_log(service), *([f"gunicorn ended with {code}"] if code else [])]
        counts = {**found.counts, **{f"answered {status}": count for status, count in sorted(found.statuses.items())}}
    return Outcome(faults, counts | {"MiB of a worker before": before, "MiB of a worker after": after})


def _is_away(moment: float, faults: list[Fault]) -> bool:
    """Return whether there was no gunicorn, or had just been none."""
    return any(fault.kind == "gunicorn killed" and fault.began_at - 1 < moment < fault.returned_at + 1 for fault in faults)


def judge(directory: Path, server: Server, service: Service, faults: list[Fault], end: float) -> Outcome:
    """Compare what was written down with what is there."""
    requests = journal.read(directory / "journal")
    accounts, contradictions = past.read(server.run)
    disagreements, counts = verdict.reach(accounts, requests)
    found = [*contradictions, *disagreements, *answers.judge(requests, faults), *_registrations(server, requests), *_log(service)]
    code, words = _verify(service)
    if code:
        found.append(f"`python models.py verify`: {words}")
    counts |= {"requests": len(requests), "accounts": len(accounts), "tasks": sum(len(account.chains) for account in accounts.values())}
    counts |= {"clients that gave up": sum(request.trouble == "gave up" for request in requests)}
    rows = figures.by_kind(requests, faults, end)
    return Outcome([*found, *figures.slow(rows)], counts, rows, words)


def _registrations(server: Server, requests: list[journal.Request]) -> list[str]:
    """Find the accounts that were promised and aren't there, and the halves of accounts."""
    there = {login for (login,) in server.run("SELECT login FROM users JOIN user_state ON user_id = id")}
    lost = [
        f"{request}, and there is no such account"
        for request in requests
        if request.kind == "register" and request.is_done and request.tag not in there
    ]
    halves = server.run("SELECT login FROM users LEFT JOIN user_state ON user_id = id WHERE user_id IS NULL")
    return lost + [f"the account {login} is there by half" for (login,) in halves]


def _log(service: Service) -> list[str]:
    """Find in the service's log what must not be there."""
    text = service.log.read_text(errors="replace")
    bad = [
        line
        for line in text.splitlines()
        if re.search(r'^Traceback|unexpected failure|"status": ?500|"level": ?"(ERROR|CRITICAL)"', line) and "gunicorn.error" not in line
    ]
    return [f"{len(bad)} bad lines in the log, such as: {bad[0][:2000]}"] if bad else []


def _verify(service: Service) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "models.py", "verify"], cwd=HOUSE, env=service.settings, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, (done.stdout + done.stderr).strip()[-2000:]

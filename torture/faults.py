"""What goes wrong, one thing after the other, in an order that a seed gives."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

import psycopg2

from torture.fleet import Fleet
from torture.processes import Handle
from torture.server import ROLE, Server
from torture.service import Service

PAUSE_SECONDS = 0.5, 2.5  # between two faults, from when the first is over
PAUSE_SECONDS_OF_A_SOAK = 60, 60
SECONDS_TO_RESTART = 20
COMPANY = 0.2  # how often a second one comes in the middle of the first
MAX_CONNECTIONS = 3  # that are left where they run out


@dataclass
class Fault:
    """Something that went wrong: what, when it began, and when all that we broke was there again."""

    kind: str
    began_at: float
    returned_at: float


class Faults:
    """Breaks things."""

    def __init__(self, server: Server, service: Service, fleet: Fleet, seed: int, *, soak: bool = False) -> None:
        self.server, self.service, self.fleet = server, service, fleet
        self.random = random.Random(seed)  # noqa: S311 - not a secret
        self.log: list[Fault] = []
        self._soak = soak

    async def run(self, seconds: float, tell: Callable[[str], None]) -> None:
        """Break one thing after the other for some time; all kinds have their turn before one comes again."""
        end = time.monotonic() + seconds
        pause = PAUSE_SECONDS_OF_A_SOAK if self._soak else PAUSE_SECONDS
        for kind in self._order():
            await asyncio.sleep(min(self.random.uniform(*pause), max(0, end - time.monotonic())))
            if time.monotonic() >= end:
                return
            under_way = [self._inflict(kind, tell)]
            if self.random.random() < COMPANY and kind not in SMALL and not self._soak:
                under_way.append(self._inflict(self.random.choice(SMALL), tell, after_seconds=self.random.uniform(0, 1)))
            await asyncio.gather(*under_way)

    async def _inflict(self, kind: str, tell: Callable[[str], None], after_seconds: float = 0) -> None:
        await asyncio.sleep(after_seconds)
        fault = Fault(kind, time.monotonic(), time.monotonic())
        self.log.append(fault)
        await KINDS[kind](self)
        fault.returned_at = time.monotonic()
        tell(f"{kind}: {fault.returned_at - fault.began_at:.2f} s")

    def _order(self) -> Iterator[str]:
        kinds = [kind for kind in KINDS if not (self._soak and kind in ENDING_WORKERS)]
        while True:
            yield from self.random.sample(kinds, len(kinds))

    # The service

    async def kill_a_worker(self) -> None:
        """Kill one of the two."""
        if workers := self.service.workers():
            self.random.choice(workers).send(signal.SIGKILL)

    async def kill_gunicorn(self) -> None:
        """Kill the master and start it anew, as a supervisor does."""
        self.service.kill()
        self.service.start()
        await self.service.until_ready()

    async def reload(self) -> None:
        """Let new workers take the place of the old ones."""
        old = self.service.workers()
        self.service.reload()
        for worker in old:
            await asyncio.to_thread(worker.has_ended, 30)

    async def drop_clients(self) -> None:
        """Let half of the clients go away in the middle."""
        self.fleet.drop(0.5)

    # PostgreSQL

    async def _restart(self, how: signal.Signals, *, away_seconds: float = 0) -> None:
        await asyncio.to_thread(self.server.stop, how)
        await asyncio.sleep(away_seconds)
        await asyncio.to_thread(self.server.start)

    async def restart_fast(self) -> None:
        """Restart it as an operator does."""
        await self._restart(signal.SIGINT)

    async def restart_at_once(self) -> None:
        """Restart it so that it must recover."""
        await self._restart(signal.SIGQUIT)

    async def kill_postmaster(self) -> None:
        """Kill it, and start it again."""
        await self._restart(signal.SIGKILL)

    async def away(self) -> None:
        """Have it away for some seconds."""
        await self._restart(signal.SIGINT, away_seconds=self.random.uniform(1, 4))

    async def kill_a_backend(self) -> None:
        """Kill one of its processes: it takes that for a crash, throws everybody out and recovers."""
        backends = set(await asyncio.to_thread(self.server.backends))
        _, *others = self.server.family()
        if serving := [process for process in others if process.pid in backends]:
            self.random.choice(serving).send(signal.SIGKILL)
            await asyncio.to_thread(self._wait_until_it_is_another, others)

    def _wait_until_it_is_another(self, processes: list[Handle]) -> None:
        """Wait until all these have ended, and PostgreSQL answers."""
        end = time.monotonic() + SECONDS_TO_RESTART
        for process in processes:
            process.has_ended(max(0, end - time.monotonic()))
        while time.monotonic() < end:
            try:
                self.server.run("SELECT 1")
            except psycopg2.Error:
                time.sleep(0.02)
            else:
                return

    async def terminate_backends(self) -> None:
        """Cut all connections, or about half."""
        part = self.random.choice([0.5, 1.0])
        await asyncio.to_thread(
            self.server.run,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND random() < %s",
            values=(ROLE, part),
        )

    async def freeze(self) -> None:
        """Stop all its processes where they are, for a while."""
        frozen = self.server.family()
        try:
            for process in frozen:
                process.send(signal.SIGSTOP)
            await asyncio.sleep(self.random.choice([0.5, 2, 4, 4, 8]))
        finally:
            for process in reversed(frozen):
                process.send(signal.SIGCONT)

    @asynccontextmanager
    async def _holding(self, *statements: str, values: Any = None) -> AsyncIterator[None]:
        """Run statements in a transaction that stays open for a while."""
        with closing(await asyncio.to_thread(self.server.connect)) as connection:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                for statement in statements:
                    await asyncio.to_thread(cursor.execute, statement, values)
            yield

    async def hold_a_row(self) -> None:
        """Hold the lock of one user, under which that user's changes wait for one another."""
        user_id = self.random.choice([person.user_id for person in self.fleet.people if person.pace == "hot"])
        async with self._holding("SELECT FROM user_state WHERE user_id = %s FOR UPDATE", values=(user_id,)):
            await asyncio.sleep(self.random.uniform(0.5, 3))

    async def hold_all_rows(self) -> None:
        """Hold the locks of all users: each that waits has a connection of its own, so that the pool runs out."""
        async with self._holding("SELECT FROM user_state ORDER BY user_id FOR UPDATE"):
            await asyncio.sleep(self.random.uniform(0.5, 3))

    async def hold_the_table(self) -> None:
        """Lock a table, so that every statement waits and the pool runs out."""
        async with self._holding("LOCK TABLE task IN ACCESS EXCLUSIVE MODE"):
            await asyncio.sleep(self.random.uniform(0.5, 3))

    async def no_connections(self) -> None:
        """Let PostgreSQL have hardly any connections left."""
        await asyncio.to_thread(self.server.run, f"ALTER ROLE {ROLE} CONNECTION LIMIT {MAX_CONNECTIONS}")
        try:
            await asyncio.to_thread(
                self.server.run, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", values=(ROLE,)
            )
            await asyncio.sleep(self.random.uniform(1, 3))
        finally:
            await asyncio.to_thread(self.server.run, f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


KINDS: dict[str, Callable[[Faults], Coroutine[Any, Any, None]]] = {
    "a worker killed": Faults.kill_a_worker,
    "gunicorn killed": Faults.kill_gunicorn,
    "gunicorn reloaded (SIGHUP)": Faults.reload,
    "clients dropped": Faults.drop_clients,
    "PostgreSQL restarted fast": Faults.restart_fast,
    "PostgreSQL restarted at once": Faults.restart_at_once,
    "PostgreSQL killed": Faults.kill_postmaster,
    "PostgreSQL away for 1 to 4 s": Faults.away,
    "a backend killed": Faults.kill_a_backend,
    "backends terminated": Faults.terminate_backends,
    "PostgreSQL frozen for 0.5 to 8 s": Faults.freeze,
    "a user's row held": Faults.hold_a_row,
    "all users' rows held": Faults.hold_all_rows,
    "the task table held": Faults.hold_the_table,
    "connections run out": Faults.no_connections,
}
SMALL = ["a worker killed", "clients dropped"]
KILLING = {"a worker killed", "gunicorn killed"}  # of these alone may a client lose its answer
ENDING_WORKERS = {*KILLING, "gunicorn reloaded (SIGHUP)"}  # which a soak leaves alone
NO_TROUBLE_FOR_POSTGRESQL = {*ENDING_WORKERS, "clients dropped"}  # of these nobody is told 503

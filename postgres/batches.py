"""Requests of one query that arrive together travel together: one round trip, one plan and one commit for all of them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Generic, NamedTuple, Protocol

from postgres.errors import was_refused
from postgres.heavy_lane import HeavyLane
from postgres.lock_queues import NOBODYS, LockQueues, Pending
from postgres.queries import Query, Row, Statement
from rest.errors import Failure
from rest.turns import Turns
from telemetry import metrics

SECONDS_OF_PATIENCE = 0.05  # with a slow statement, or with those that come, before those that wait for its end go without it
SHARES = 4  # of a batch: an owner has one, if others are there
MAX_SLOW_OF_ONE = 2  # batches of all queries in which an owner travels, before its others wait for one to end
MAX_TIMES_BUSY = 2  # that a request meets a lock and goes on in the next batch: most locks are another batch's, and gone by then

SIZES = metrics.Histogram(
    "database_batch_size", "How many requests travelled in one statement.", "statement", bounds=(1, 2, 4, 8, 16, 32, 64, 128)
)


class Run(Protocol):
    """Runs a statement, as a database does."""

    def __call__(self, statement: Statement, values: Sequence[Any], *, read: bool) -> Awaitable[list[tuple[Any, ...]]]:
        """Return the statement's rows."""


class RunningBatch(NamedTuple):
    """A batch under way: who travels, and since when (in the loop's seconds)."""

    batch: list[Pending]
    began_at: float


class Environment(NamedTuple):
    """What the batches of all queries of a database share."""

    run: Run
    max_size: int
    lock_queues: LockQueues
    heavy_turns: Turns
    slow_turns: Turns
    running: dict[asyncio.Task[None], RunningBatch]
    listeners: Collection[Callable[[Any], None]]  # called, after each statement that is no read, with whose data it was for


class Batches(Generic[Row]):
    """The requests of one query in one database."""

    def __init__(self, query: Query[Row], environment: Environment) -> None:
        self._query, self._run, self._max_size = query, environment.run, environment.max_size
        self._listeners = () if query.is_read else environment.listeners
        self._goes_alone = query.goes_alone or environment.max_size == 1
        self._is_always_heavy = query.is_heavy and query.goes_alone
        self._share = max(1, environment.max_size // SHARES)
        self._label = (query.name,)
        self._loop = asyncio.get_running_loop()
        self._queue: list[Pending] = []
        self._start: asyncio.Handle | None = None  # of the next batch
        self._under_way: set[asyncio.Task[None]] = set()
        self._running = environment.running  # of all queries
        self._lock_queues, self._slow_turns = environment.lock_queues, environment.slow_turns
        self._heavy_lane = HeavyLane(self.ask_alone, environment.heavy_turns)

    async def ask(self, arguments: Sequence[Any]) -> list[Row]:
        """Run the query for one request and return its rows. Raises Unavailable, TooManyAtOnce."""
        owner = arguments[0]
        rows: list[Row]
        if self._query.is_slow:
            rows = await self._ask_in_turn(arguments)
        elif self._is_always_heavy or owner in self._heavy_lane.owners:
            rows = await self._heavy_lane.ask(arguments)
        elif self._goes_alone:
            rows = await self._run_one(arguments, wait=not self._query.is_heavy)
        else:
            pending = Pending(arguments, self._loop)
            if self._query.may_be_busy and owner in self._lock_queues.behind:
                self._lock_queues.add(self, pending)
            else:
                self.join(pending)
            rows = await pending.answer
        if self._query.is_heavy and not self._is_always_heavy and self._query.is_too_heavy(rows):
            rows = await self._heavy_lane.ask(arguments)
        for listener in self._listeners:
            listener(owner)
        return rows

    async def _ask_in_turn(self, arguments: Sequence[Any]) -> list[Row]:
        """Run what may be slow when its owner's turn comes; a long answer takes a turn of those besides. Raises TooManyAtOnce."""
        owner = arguments[0]
        async with self._slow_turns.of(owner):
            if owner not in self._heavy_lane.owners:
                rows = await self._run_one(arguments, wait=not self._query.is_heavy)
                if not self._query.is_too_heavy(rows):
                    return rows
            return await self._heavy_lane.ask(arguments)

    async def ask_alone(self, arguments: Sequence[Any]) -> list[Row]:
        """Run the query for one request by itself, whatever it waits for and however long its answer is."""
        return await self._run_one(arguments, wait=True)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not (self._queue or self._under_way)

    def join(self, pending: Pending) -> None:
        """Take a place in the next batch. It starts when it is complete: with one under way, after that has ended, or taken too long."""
        self._queue.append(pending)
        if self._start is None:
            if self._under_way:
                self._start = self._loop.call_later(SECONDS_OF_PATIENCE, self._go)
            else:
                self._go_when_complete(len(self._queue))

    def _go_when_complete(self, before: int) -> None:
        """Go once a turn of the loop has brought nobody else: who is on the way through it costs less in this batch than in the next."""
        if self._start:
            self._start.cancel()
        self._start = self._loop.call_soon(self._look_for_more, before)

    def _look_for_more(self, before: int) -> None:
        has_time = self._loop.time() < self._queue[0].asked_at + SECONDS_OF_PATIENCE
        if before < len(self._queue) < self._max_size and has_time:
            self._go_when_complete(len(self._queue))
        else:
            self._go()

    def _go(self) -> None:
        if self._start:
            self._start.cancel()
            self._start = None
        if batch := self._take_batch():
            run = self._loop.create_task(self._run_batch(batch), context=NOBODYS)
            self._under_way.add(run)
            self._running[run] = RunningBatch(batch, self._loop.time())
            run.add_done_callback(self._end_run)
        if self._queue:
            self._start = self._loop.call_later(SECONDS_OF_PATIENCE, self._go)

    def _take_batch(self) -> list[Pending]:
        """Take the next ones from the queue: of several owners a share each, and nobody's who is in as many slow batches as one may be."""
        able = self._queue
        if len(self._running) >= MAX_SLOW_OF_ONE and (slow := self._count_slow()):
            able = [pending for pending in able if slow[pending.arguments[0]] < MAX_SLOW_OF_ONE]
        if len(able) > self._share:
            able = self._shares(able)
        batch = able[: self._max_size]
        if len(able) == len(self._queue):
            del self._queue[: self._max_size]
        else:
            taken = {*batch}
            self._queue = [pending for pending in self._queue if pending not in taken]
        return [pending for pending in batch if not pending.answer.done()]

    def _shares(self, able: list[Pending]) -> list[Pending]:
        """Return of each owner's as many as it has a share of a batch; all, where nobody else is there."""
        places: dict[Any, int] = {}
        shares = []
        for pending in able:
            owner = pending.arguments[0]
            places[owner] = place = places.get(owner, 0) + 1
            if place <= self._share:
                shares.append(pending)
        return shares if len(places) > 1 else able

    def _count_slow(self) -> Counter[Any]:
        """Count, by owner, the batches of all queries that have been under way for long."""
        latest = self._loop.time() - SECONDS_OF_PATIENCE
        slow = [run.batch for run in self._running.values() if run.began_at <= latest]
        return Counter(owner for batch in slow for owner in {pending.arguments[0] for pending in batch})

    def _end_run(self, run: asyncio.Task[None]) -> None:
        self._under_way.discard(run)
        del self._running[run]
        if self._queue:
            self._go_when_complete(0)

    async def _run_batch(self, batch: list[Pending]) -> None:
        """Run a batch and answer its members: one by one where PostgreSQL refused it for what one of them had asked."""
        try:
            if len(batch) == 1:
                answers = [await self._run_one(batch[0].arguments, wait=False)]
            else:
                answers = await self._run_many(batch)
        except Exception as error:  # noqa: BLE001 - it is raised where the request was made
            if len(batch) == 1 or not was_refused(error):
                for pending in batch:
                    pending.fail(error)
                return
            owners = {pending.arguments[0] for pending in batch}
            await asyncio.gather(*(self._run_apart([p for p in batch if p.arguments[0] == owner]) for owner in owners))
            return
        busy = []
        for pending, rows in zip(batch, answers, strict=True):
            if self._query.may_be_busy and self._query.is_busy(rows):
                busy.append(pending)
            else:
                pending.succeed(rows)
        if busy:
            self._take_along(busy)

    async def _run_apart(self, of_one: list[Pending]) -> None:
        """Run one owner's requests one by one, in its turn: what has taken too long together may do so again."""
        try:
            async with self._slow_turns.of(of_one[0].arguments[0]):
                for pending in of_one:
                    if not pending.answer.done():
                        await self._run_batch([pending])
        except Failure as refusal:  # there is no turn
            for pending in of_one:
                pending.fail(refusal)

    def _take_along(self, busy: list[Pending]) -> None:
        """Let those that met a lock go first in the next batch; those that did so too often, or whose owner's is waited for, wait."""
        again = []
        for pending in busy:
            pending.times_busy += 1
            if pending.times_busy > MAX_TIMES_BUSY or pending.arguments[0] in self._lock_queues.behind:
                self._lock_queues.add(self, pending)
            else:
                again.append(pending)
        self._queue[:0] = again

    async def _run_one(self, arguments: Sequence[Any], *, wait: bool) -> list[Row]:
        SIZES.observe(1, self._label)
        query = self._query
        statement, values = query.for_one(arguments, wait=wait)
        return query.rows_of_one(await self._run(statement, values, read=query.is_read))

    async def _run_many(self, batch: list[Pending]) -> list[list[Row]]:
        SIZES.observe(len(batch), self._label)
        query = self._query
        statement, values = query.for_many([pending.arguments for pending in batch])
        return query.rows_of_many(await self._run(statement, values, read=query.is_read), len(batch))

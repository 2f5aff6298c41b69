"""Requests of one statement that arrive together travel together: one round trip, one plan and one commit for all of them."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from peewee import SQL, Function, Query, Select

import settings
from postgres.database import WAITED_TOO_LONG, Statement, database
from rest.errors import Unavailable
from telemetry import metrics

BUSY = "busy"  # what a query says in its first column where it must not wait for a lock that somebody holds
HEAVY_BYTES = 64 * 1024  # of an answer: it travels alone, since up to so many as there are requests at once would be in memory together
MOST_REMEMBERED = 1000
SECONDS_OF_PATIENCE = 0.05  # with a slow statement, or with those that come, before those that wait for its end go without it

Row = tuple[Any, ...]
listeners: set[Callable[[Any], None]] = set()  # called, after each statement that is no read, with whose data it was for

SIZES = metrics.Histogram(
    "database_batch_size", "How many requests travelled in one statement.", "statement", bounds=(1, 2, 4, 8, 16, 32, 64, 128)
)


class _Request:
    """A request's parameters, as the query of a Batched names them: `q.user_id`."""

    def __getattr__(self, parameter: str) -> SQL:
        return SQL(f"q.{parameter}")


q = _Request()


class _Member:
    """One request on its way: its arguments, its answer to come, and when it was asked (in the loop's seconds)."""

    __slots__ = ("answer", "arguments", "asked_at")

    def __init__(self, arguments: Sequence[Any]) -> None:
        loop = asyncio.get_running_loop()
        self.arguments, self.answer, self.asked_at = arguments, loop.create_future(), loop.time()

    def succeed(self, rows: list[Row]) -> None:
        if not self.answer.done():  # whoever asked may have gone
            self.answer.set_result(rows)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Batched:
    """A query that answers, in one statement, every request that waits for it.

    `types` gives each parameter's SQL type, in the order of the arguments; the first is whose data it is. `q.wait` is there without being
    asked for: whether the query may wait for a row lock. In a batch it may not, and says BUSY in its first column; that request is sent
    again, alone, beside the others. A `read` is tried again where a connection broke. What takes long goes `alone`, always.

    One that is `set_based` is a function of arrays, one for each parameter, and of whether it may wait; each of its rows begins with the
    number of the request, from 1, that it answers.

    A `heavy` query's answer may be too long to travel with others. Where it may not `wait`, it then says None in its last column, and that
    request is sent again, alone, when its turn comes. Its texts come as bytes. `name` is for those who measure; a function has one.
    """

    def __init__(
        self,
        query: Function | Query,
        types: dict[str, str],
        *,
        set_based: bool = False,
        read: bool = False,
        alone: bool = False,
        heavy: bool = False,
        name: str | None = None,
    ) -> None:
        if isinstance(query, Function):
            name, query = query.name, Select([query], [SQL("*")])
        text, constants = database.get_sql_context().sql(query).query()
        owner, *_ = types
        values = ", ".join(f"%s::{sql_type} AS {name}" for name, sql_type in types.items())
        arrays = ", ".join(f"%s::{_element(sql_type)}[]" for sql_type in types.values())
        columns = ", ".join(f"{name}::{sql_type} AS {name}" for name, sql_type in types.items())
        self.alone = Statement(
            f"SELECT f.* FROM (SELECT {values}, %s::boolean AS wait) q CROSS JOIN LATERAL ({text}) f",
            len(types) + 1,
            constants,
            undecoded=heavy,
        )
        self.together = Statement(  # OFFSET 0: what is asked is looked up for each, never joined by reading the table
            f"SELECT q.n::int, f.* FROM (SELECT {columns}, false AS wait, n FROM unnest({arrays}) WITH ORDINALITY r ({', '.join(types)}, n)"
            f" ORDER BY {owner}, n) q CROSS JOIN LATERAL ({text} OFFSET 0) f",
            len(types),
            constants,
            undecoded=heavy,
        )
        self._is_set_based = set_based
        if set_based:
            self.together = Statement(f"SELECT * FROM {name}({arrays}, %s::boolean)", len(types) + 1, ())
        self._elements = [_ELEMENTS.get(sql_type, _array_element) for sql_type in types.values()]
        self._read, self._goes_alone, self._is_heavy, self._label = read, alone, heavy, (name or "select",)
        self._lately_heavy: dict[Any, None] = {}  # by whose data it is: then it isn't asked in vain
        self._queue: list[_Member] = []
        self._start: asyncio.Handle | None = None  # of the next batch
        self._under_way: set[asyncio.Task[None]] = set()
        self._held: dict[Any, list[_Member]] = {}  # behind a request that waits for its user's lock
        self._waiting: set[asyncio.Task[None]] = set()  # for such locks

    async def __call__(self, *arguments: Any) -> list[Row]:
        """Run it for one request and give its rows."""
        rows: list[Row]
        if arguments[0] in self._lately_heavy:
            rows = await self._run_in_turn(arguments)
        elif self._goes_alone or settings.load().batch_size == 1:
            rows = await self._run_alone(arguments, wait=not self._is_heavy)
            if self._is_too_heavy(rows):
                rows = await self._run_in_turn(arguments)
        else:
            member = _Member(arguments)
            if arguments[0] in self._held:
                self._held[arguments[0]].append(member)
            else:
                self._join(member)
            rows = await member.answer
            if self._is_too_heavy(rows):
                rows = await self._run_in_turn(arguments)
        if not self._read:
            for listener in listeners:
                listener(arguments[0])
        return rows

    def _join(self, member: _Member) -> None:
        """Take a place in the next batch. It starts when it is complete: with one under way, after that has ended, or taken too long."""
        self._queue.append(member)
        if self._start is None:
            if self._under_way:
                self._start = asyncio.get_running_loop().call_later(SECONDS_OF_PATIENCE, self._go)
            else:
                self._go_when_complete(len(self._queue))

    def _go_when_complete(self, before: int) -> None:
        """Go once a turn of the loop has brought nobody else: who is on the way through it costs less in this batch than in the next."""
        if self._start:
            self._start.cancel()
        self._start = asyncio.get_running_loop().call_soon(self._look_for_more, before)

    def _look_for_more(self, before: int) -> None:
        has_time = asyncio.get_running_loop().time() < self._queue[0].asked_at + SECONDS_OF_PATIENCE
        if before < len(self._queue) < settings.load().batch_size and has_time:
            self._go_when_complete(len(self._queue))
        else:
            self._go()

    def _go(self) -> None:
        if self._start:
            self._start.cancel()
            self._start = None
        most = settings.load().batch_size
        batch = [member for member in self._queue[:most] if not member.answer.done()]
        del self._queue[:most]
        if batch:
            journey = asyncio.get_running_loop().create_task(self._travel(batch), context=_NOBODYS)
            self._under_way.add(journey)
            journey.add_done_callback(self._ended)
        if self._queue:
            self._start = asyncio.get_running_loop().call_later(SECONDS_OF_PATIENCE, self._go)

    def _ended(self, journey: asyncio.Task[None]) -> None:
        self._under_way.discard(journey)
        if self._queue:
            self._go_when_complete(0)

    async def _travel(self, batch: list[_Member]) -> None:
        """Run a batch and answer its members: one by one where PostgreSQL refused it for what one of them had asked."""
        try:
            if len(batch) == 1:
                answers = [await self._run_alone(batch[0].arguments, wait=False)]
            else:
                answers = await self._run_together(batch)
        except Exception as error:  # noqa: BLE001 - it is raised where the request was made
            if len(batch) == 1 or not database.took_nothing(error):
                for member in batch:
                    member.fail(error)
                return
            await asyncio.gather(*(self._travel([member]) for member in batch))
            return
        for member, rows in zip(batch, answers, strict=True):
            if rows and rows[0][0] == BUSY:
                self._hold(member)
            else:
                member.succeed(rows)

    def _is_too_heavy(self, rows: list[Row]) -> bool:
        return self._is_heavy and bool(rows) and rows[0][-1] is None

    async def _run_in_turn(self, arguments: Sequence[Any]) -> list[Row]:
        async with database.turns:
            rows = await self._run_alone(arguments, wait=True)
        self._lately_heavy.pop(arguments[0], None)
        if sum(len(value) for row in rows for value in row if isinstance(value, bytes)) > HEAVY_BYTES:
            self._lately_heavy[arguments[0]] = None
            if len(self._lately_heavy) > MOST_REMEMBERED:
                del self._lately_heavy[next(iter(self._lately_heavy))]
        return rows

    async def _run_alone(self, arguments: Sequence[Any], *, wait: bool) -> list[Row]:
        SIZES.observe(1, self._label)
        if self._is_set_based:
            return [row[1:] for row in await database.run(self.together, [*self.arrays([arguments]), wait], read=self._read)]
        return await database.run(self.alone, (*arguments, wait), read=self._read)

    async def _run_together(self, batch: list[_Member]) -> list[list[Row]]:
        SIZES.observe(len(batch), self._label)
        answers: list[list[Row]] = [[] for _ in batch]
        values = self.arrays([member.arguments for member in batch])
        for row in await database.run(self.together, [*values, False] if self._is_set_based else values, read=self._read):
            answers[row[0] - 1].append(row[1:])
        return answers

    def arrays(self, requests: Sequence[Sequence[Any]]) -> list[str]:
        """Give the parameters of `together` for these requests' arguments."""
        columns = zip(*requests, strict=True)
        return ["{" + ",".join(map(element, column)) + "}" for element, column in zip(self._elements, columns, strict=True)]

    # A user's lock that somebody else holds: one request waits for it, on a connection of its own; that user's others wait behind it.

    def _hold(self, member: _Member) -> None:
        user = member.arguments[0]
        if user in self._held:
            self._held[user].append(member)
            return
        self._held[user] = []
        waiting = asyncio.get_running_loop().create_task(self._wait_for_lock(member), context=_NOBODYS)
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _wait_for_lock(self, member: _Member) -> None:
        try:
            member.succeed(await self._run_alone(member.arguments, wait=True))
        except Exception as error:  # noqa: BLE001 - it is raised where the request was made
            member.fail(error)
        finally:
            longest_ago = asyncio.get_running_loop().time() - settings.load().lock_timeout_seconds
            for other in self._held.pop(member.arguments[0]):
                if other.asked_at < longest_ago:
                    other.fail(Unavailable(WAITED_TOO_LONG))
                else:
                    self._join(other)


_NOBODYS = Context()  # in which batches run: what a request has in its own isn't its neighbours'


# The elements of an array as PostgreSQL reads them. psycopg2 would adapt each value of a list by itself, at a microsecond each.


def _element(sql_type: str) -> str:
    return "text" if sql_type.endswith("[]") else sql_type  # there are no arrays of arrays of different lengths


def _array_element(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case list() | tuple():
            return _quoted("{" + ",".join(map(_array_element, value)) + "}")
        case _:
            return _quoted(str(value))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(value: int | None) -> str:
    return "NULL" if value is None else str(value)


_ELEMENTS: dict[str, Callable[[Any], str]] = {"bigint": _number, "int": _number}

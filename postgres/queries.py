"""What is asked of PostgreSQL, declared once: a query's text, the types of its parameters, and what its rows are.

A declaration has no state: any database can be asked it, at any time.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any, Generic, TypeVar, cast

import peewee_async
from peewee import SQL, Function, Select
from peewee import Query as PeeweeQuery

from postgres.arrays import array, element_type, writer_of

BUSY = "busy"  # what a change was `refused` for where it must not wait for a lock that somebody holds
MAX_SHARED_BYTES = 64 * 1024  # of an answer that travels with others: so many as there are requests at once may be in memory together

Row = TypeVar("Row", bound=tuple[Any, ...])


class AsyncPostgresql(peewee_async.PostgresqlDatabase):
    """peewee-async's PostgreSQL, without synchronous queries."""

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a synchronous query would hold up every other request (peewee-async's own refusal is an `assert`)."""
        raise RuntimeError("a synchronous query")


DIALECT = AsyncPostgresql(None)  # writes SQL and runs none: a query runs on a database of an application's


class _Parameters:
    """A request's parameters, as a query names them: `q.user_id`."""

    def __getattr__(self, parameter: str) -> SQL:
        return SQL(f"q.{parameter}")


q = _Parameters()


class Statement:
    """A text that is run often, so that each connection may keep its plan. Its parameters come before its constants."""

    _numbers = count(1)

    def __init__(self, text: str, parameters: int, constants: Sequence[Any] = (), *, raw: bool = False) -> None:
        self.text, self.constants, self.raw = text, tuple(constants), raw
        name = f"s{next(self._numbers)}"
        before, *after = text.split("%s", parameters)
        numbered = before + "".join(f"${number}{part}" for number, part in enumerate(after, start=1))
        self.prepare = f"PREPARE {name} AS {numbered}"
        self.execute = f"EXECUTE {name} ({', '.join(['%s'] * parameters)})"
        self.deallocate = f"DEALLOCATE {name}"


class Query(Generic[Row]):
    """A query for one request, and the same for many of them in one statement.

    `types` names each parameter with its SQL type, in the order of the arguments; the first is whose data it is. `q.wait` is there
    without being asked for: whether the query may wait for a row's lock. Together with others it may not: a change whose row has `refused`
    says BUSY there. A `read` is tried again where a connection broke. What takes long goes `alone`, always. A read that a user can make
    `slow` takes turns besides, as what is heavy does.

    A `heavy` query's answer may be too long to travel with others. Where it may not `wait`, its `json` is then None. One that is `alone`,
    too, always takes a heavy turn. Its texts, and those of one that is `raw`, come as bytes. `name` is for those who measure; a
    function has one.
    """

    def __init__(  # noqa: PLR0913 - it is asked in as many ways
        self,
        row: type[Row],
        query: Function | PeeweeQuery,
        types: dict[str, str],
        *,
        read: bool = False,
        alone: bool = False,
        heavy: bool = False,
        slow: bool = False,
        raw: bool = False,
        name: str | None = None,
    ) -> None:
        if isinstance(query, Function):
            name, query = query.name, Select([query], [SQL("*")])
        self.name, self.types = name or "select", types
        self.is_read, self.goes_alone, self.is_heavy, self.is_slow = read, alone, heavy, slow
        self.is_raw = heavy or raw
        self.row, fields = row, cast("Any", row)._fields
        self.make_row = cast("Any", row)._make
        self._refused, self._json = fields.index("refused") if "refused" in fields else 0, fields.index("json") if heavy else 0
        self._writers = [writer_of(sql_type) for sql_type in types.values()]
        self.one, self.many = self._statements(query)
        self.may_be_busy = "refused" in fields and self._may_wait

    @property
    def _may_wait(self) -> bool:
        return "q.wait" in self.one.text

    def _statements(self, query: PeeweeQuery) -> tuple[Statement, Statement]:
        text, constants = DIALECT.get_sql_context().sql(query).query()
        owner, *_ = self.types
        values = ", ".join(f"%s::{sql_type} AS {name}" for name, sql_type in self.types.items())
        columns = ", ".join(f"{name}::{sql_type} AS {name}" for name, sql_type in self.types.items())
        one = Statement(
            f"SELECT f.* FROM (SELECT {values}, %s::boolean AS wait) q CROSS JOIN LATERAL ({text}) f",  # noqa: S608 - all of it is ours
            len(self.types) + 1,
            constants,
            raw=self.is_raw,
        )
        many = Statement(  # OFFSET 0: what is asked is looked up for each, never joined by reading the table
            f"SELECT q.n::int, f.* FROM (SELECT {columns}, false AS wait, n FROM unnest({self._arrays()}) WITH ORDINALITY r"  # noqa: S608
            f" ({', '.join(self.types)}, n) ORDER BY {owner}, n) q CROSS JOIN LATERAL ({text} OFFSET 0) f",
            len(self.types),
            constants,
            raw=self.is_raw,
        )
        return one, many

    def _arrays(self) -> str:
        return ", ".join(f"%s::{element_type(sql_type)}[]" for sql_type in self.types.values())

    def for_one(self, arguments: Sequence[Any], *, wait: bool) -> tuple[Statement, Sequence[Any]]:
        """Return the statement that answers one request, and its values."""
        return self.one, (*arguments, wait)

    def for_many(self, requests: Sequence[Sequence[Any]]) -> tuple[Statement, Sequence[Any]]:
        """Return the statement that answers these requests, and its values. Each of its rows begins with the request's number, from 1."""
        return self.many, self.columns(requests)

    def rows_of_one(self, rows: Sequence[tuple[Any, ...]]) -> list[Row]:
        """Return the rows that answer one request."""
        return [self.make_row(row) for row in rows]

    def rows_of_many(self, rows: Sequence[tuple[Any, ...]], requests: int) -> list[list[Row]]:
        """Return the rows that answer each of so many requests."""
        answers: list[list[Row]] = [[] for _ in range(requests)]
        for row in rows:
            answers[row[0] - 1].append(self.make_row(row[1:]))
        return answers

    def columns(self, requests: Sequence[Sequence[Any]]) -> list[str]:
        """Return the arguments of these requests as arrays, one for each parameter."""
        columns = zip(*requests, strict=True)
        return [array(map(write, column)) for write, column in zip(self._writers, columns, strict=True)]

    def is_busy(self, rows: Sequence[Row]) -> bool:
        """Return whether a change would have had to wait, and nothing happened."""
        return self.may_be_busy and bool(rows) and rows[0][self._refused] == BUSY

    def is_too_heavy(self, rows: Sequence[Row]) -> bool:
        """Return whether the answer would have been too long to travel with others, and so was left out."""
        return self.is_heavy and bool(rows) and rows[0][self._json] is None


class SetQuery(Query[Row]):
    """A function that answers many requests at once: its parameters are an array for each of `types`, and whether it may wait.

    Each of its rows begins with the number of the request, from 1, that it answers.
    """

    def __init__(self, row: type[Row], function: str, types: dict[str, str]) -> None:
        super().__init__(row, Function(function, ()), types)

    def _statements(self, query: PeeweeQuery) -> tuple[Statement, Statement]:
        text = f"SELECT * FROM {self.name}({self._arrays()}, %s::boolean)"  # noqa: S608 - all of it is ours
        statement = Statement(text, len(self.types) + 1)
        return statement, statement

    @property
    def _may_wait(self) -> bool:
        return True

    def for_one(self, arguments: Sequence[Any], *, wait: bool) -> tuple[Statement, Sequence[Any]]:
        """Return the statement that answers one request, and its values."""
        return self.one, (*self.columns([arguments]), wait)

    def for_many(self, requests: Sequence[Sequence[Any]]) -> tuple[Statement, Sequence[Any]]:
        """Return the statement that answers these requests, and its values."""
        return self.many, (*self.columns(requests), False)

    def rows_of_one(self, rows: Sequence[tuple[Any, ...]]) -> list[Row]:
        """Return the rows that answer one request."""
        return [self.make_row(row[1:]) for row in rows]

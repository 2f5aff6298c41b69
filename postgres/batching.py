"""A query of one request's parameters, written by peewee once and run many times."""

from typing import Any

from peewee import SQL, Function, Query, Select

from postgres.database import database


class _Request:
    """A request's parameters, as the query of a Batched names them: `q.user_id`."""

    def __getattr__(self, parameter: str) -> SQL:
        return SQL(f"q.{parameter}")


q = _Request()


class Batched:
    """A statement that answers a request: the query is written once, here, and a call only brings the arguments.

    `types` gives each parameter's SQL type, in the order of the arguments; `q.wait` is there without being asked for, and says whether the
    statement may wait for a row lock. A `read` is tried again where a connection broke.
    """

    def __init__(self, query: Function | Query, types: dict[str, str], *, read: bool = False) -> None:
        if isinstance(query, Function):
            query = Select([query], [SQL("*")])
        text, self._constants = database.get_sql_context().sql(query).query()
        parameters = ", ".join(f"%s::{sql_type} AS {name}" for name, sql_type in types.items())
        self.text = f"SELECT f.* FROM (SELECT {parameters}, true AS wait) q CROSS JOIN LATERAL ({text}) f"
        self._read = read

    async def __call__(self, *arguments: Any) -> list[tuple[Any, ...]]:
        """Run it for one request and give its rows."""
        return await database.rows(self.text, (*arguments, *self._constants), read=self._read)

"""What may be asked of a task, and in which order: the conditions and keys of a listing, over whatever has a task's columns."""

from typing import Any, NamedTuple

from peewee import SQL, ColumnBase, Expression, Select, fn

from models import Task
from postgres.pages import Key
from postgres.queries import q
from tasks.values import STATUSES

FOLDING = 2  # which text_folded of PostgreSQL: with another one a listing by name or by words looks different


class Filter(NamedTuple):
    """The SQL type of a filter's parameter, and what it asks of a task."""

    sql_type: str
    condition: Expression


def keys(task: Any) -> dict[str, Key | None]:
    """Return the keys of the orders by name; None: the id, which breaks every tie, is the key."""
    return {
        "id": None,
        "name": Key("text", _folded(task.name)),
        "status": Key("int", position(STATUSES, task.status)),
        "completion_at": Key("date", task.completion_at, nullable=True),
        "created_at": Key("timestamptz", task.created_at, ascends_with_tie=True),
        "updated_at": Key("timestamptz", task.updated_at),
    }


def position(values: tuple[str, ...], column: ColumnBase) -> ColumnBase:
    """Return the place of a column's value among these."""
    return fn.array_position(SQL("ARRAY[" + ", ".join(f"'{value}'" for value in values) + "]"), column)


def _folded(text: ColumnBase) -> ColumnBase:
    return fn.text_folded(text).collate('"C"')


_FOLDED_WORDS = SQL("unnest(ARRAY(SELECT text_folded(w) FROM unnest(q.q) w))")


def _has_all_words(text: ColumnBase) -> Expression:
    """Look for each word by strpos: LIKE takes ten times as long. OFFSET 0: the text is folded once, and not for each word."""
    folded = Select(columns=[_folded(text).alias("text")]).offset(0).alias("folded")
    absent = Select([folded, _FOLDED_WORDS.alias("word")], [SQL("1")]).where(fn.strpos(folded.c.text, SQL("word")) == 0)
    has_all: Expression = ~fn.EXISTS(absent)
    return has_all


def filters(task: Any) -> dict[str, Filter]:
    """Return the filters by name."""
    return {  # one status and several differ, since the index then gives the order by id
        "status": Filter("text", task.status == q.status),
        "statuses": Filter("text[]", task.status == fn.ANY(q.statuses)),
        "completion_at": Filter("date", task.completion_at == q.completion_at),
        "without_day": Filter("boolean", task.completion_at.is_null()),
        "completion_from": Filter("date", task.completion_at >= q.completion_from),
        "completion_to": Filter("date", task.completion_at <= q.completion_to),
        "completed_from": Filter("timestamptz", task.completed_at >= q.completed_from),
        "completed_to": Filter("timestamptz", task.completed_at < q.completed_to),
        "q": Filter("text[]", _has_all_words(task.name.concat("\n").concat(task.description))),
    }


FILTER_TYPES = {name: each.sql_type for name, each in filters(Task).items()}

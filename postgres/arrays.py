"""Arrays as PostgreSQL reads them. psycopg2 would adapt each value of a list by itself, at a microsecond each."""

from collections.abc import Callable, Iterable
from typing import Any


def array(elements: Iterable[str]) -> str:
    """Return an array of elements that are written as they are to be."""
    return "{" + ",".join(elements) + "}"


def writer_of(sql_type: str) -> Callable[[Any], str]:
    """Return the function that writes a value of that type as an element."""
    return _WRITERS.get(sql_type, _element)


def element_type(sql_type: str) -> str:
    """Return the type as which such values stand in an array: there are no arrays of arrays of different lengths."""
    return "text" if sql_type.endswith("[]") else sql_type


def _number(value: int | None) -> str:
    return "NULL" if value is None else str(value)


def _numbers(values: Iterable[int | None] | None) -> str:
    return "NULL" if values is None else f'"{array(map(_number, values))}"'


def _element(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case list() | tuple():
            return _quoted(array(map(_element, value)))
        case _:
            return _quoted(str(value))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_WRITERS: dict[str, Callable[[Any], str]] = {"bigint": _number, "int": _number, "bigint[]": _numbers}

"""Tasks as CSV (RFC 4180), as spreadsheets open and save it, and back."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from rest.error_codes import ErrorCode
from rest.errors import InvalidInput
from tasks.schemas import Task
from transfer.entries import BOM, MAX_LINE_BYTES, Entry, Line, at_line

COLUMNS = ("uid", *Task.model_fields)
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is taken for one
MARK = "'"  # goes before such a cell, and before one that begins with a mark itself
DELIMITERS = ",;\t"  # where numbers have commas in them, spreadsheets save with semicolons


def head() -> bytes:
    """Return the first line, which names the columns."""
    return BOM + _csv([COLUMNS])  # or spreadsheets would take it for another encoding


def rows(tasks: Iterable[dict[str, Any]]) -> bytes:
    """Return the lines of tasks: each as it is shown, and its `uid`."""
    return _csv([_cell(task[column]) for column in COLUMNS] for task in tasks)


def _csv(table: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(table)
    return text.getvalue().encode()


def _cell(value: str | int | None) -> str:
    text = "" if value is None else str(value)
    return MARK + text if text.startswith((*FORMULAS, MARK)) else text


class Rows:
    """Makes entries of the lines of a CSV file. The first line may name the columns in any order, and need not name all."""

    def __init__(self) -> None:
        self._columns: list[str] = []
        self._delimiter = ","
        # of a row that goes on: a cell in quotation marks may hold line ends
        self._first, self._text, self._is_open = 1, bytearray(), False

    def feed(self, line: Line) -> Iterator[Entry]:
        """Return the row that ends with this line, if one does. Raises InvalidInput where it isn't CSV."""
        if not self._is_open:
            self._first, self._text = line.number, bytearray()
        self._text += line.text
        self._is_open ^= line.text.count(b'"') % 2 == 1
        if not self._is_open:
            yield from self._row()
        elif len(self._text) > MAX_LINE_BYTES:
            raise self._fault("malformed", "has a quotation mark that is never closed")

    def end(self) -> Iterator[Entry]:
        """Return nothing more. Raises InvalidInput where there is no first line, or the last one isn't whole."""
        if self._is_open:
            raise self._fault("malformed", "has a quotation mark that is never closed")
        if not self._columns:
            raise self._fault("missing", "must name the columns")
        yield from ()

    def _row(self) -> Iterator[Entry]:
        cells = self._cells()
        if not self._columns:
            self._columns = self._named(cells)
        elif cells and len(cells) != len(self._columns):
            wrong = f"has {len(cells)} cells, where the first line names {len(self._columns)} columns"
            yield Entry(self._first, {}, faults=[at_line(self._first, "wrong_number_of_cells", wrong)])
        elif cells:
            yield Entry(self._first, {column: cell.removeprefix(MARK) for column, cell in zip(self._columns, cells, strict=True)})

    def _cells(self) -> list[str]:
        if len(self._text) > MAX_LINE_BYTES:
            raise self._fault("too_long", "is too long", max=MAX_LINE_BYTES)
        try:
            text = self._text.decode()
        except UnicodeDecodeError:
            raise self._fault("not_utf_8", "is not UTF-8") from None
        if not self._columns:
            self._delimiter = next((character for character in text if character in DELIMITERS), ",")
        try:
            [cells] = csv.reader([text], delimiter=self._delimiter, strict=True)
        except (csv.Error, ValueError):
            raise self._fault(
                "malformed", "is not CSV: a cell with a line end or a quotation mark in it must stand in quotation marks"
            ) from None
        return cells

    def _named(self, cells: list[str]) -> list[str]:
        for cell in cells:
            if cell not in COLUMNS or cells.count(cell) > 1:
                code: ErrorCode = "repeated" if cell in COLUMNS else "unknown_field"
                raise self._fault(code, f"must name columns, each once, of these: {', '.join(COLUMNS)}")
        return cells

    def _fault(self, code: ErrorCode, message: str, **params: Any) -> InvalidInput:
        return InvalidInput(at_line(self._first, code, message, **params))

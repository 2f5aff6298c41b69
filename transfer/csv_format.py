"""Tasks as CSV (RFC 4180), as spreadsheets open and save it, and back."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rest.error_codes import ErrorCode
from rest.errors import FieldError, InvalidInput
from tasks.schemas import Task
from transfer.entries import BOM, MAX_LINE_BYTES, NOT_UTF8, Entry, Line, at_line, moment_text, read_moment

COLUMNS = ("uid", *Task.model_fields)
MAX_COLUMNS = 16_384  # as many as spreadsheets have
SEPARATORS = ",;\t"  # where numbers have commas in them, spreadsheets save with semicolons

# What begins so is taken for a formula. A spreadsheet that separates by another character than we do sees cells begin within ours, and
# rows too; there a quotation mark that stands before doesn't help: it sees two, which are none.
_FORMULA = r"=+\-@\t\r"
_AT_THE_BEGINNING = rf"\A{{}}(?=['{_FORMULA}])"
_AFTER_A_SEPARATOR = rf"(?<=[,;\t\r\n]){{}}(?='|\"*[{_FORMULA}])"
MARK = "'"  # goes before it, and before what begins with a mark itself
_TO_BE_MARKED, _MARKS = (re.compile(f"{_AT_THE_BEGINNING}|{_AFTER_A_SEPARATOR}".format(mark, mark)) for mark in ("", MARK))

NEVER_CLOSED = "has a quotation mark that is never closed"


def head(separator: str = ",") -> bytes:
    """Return the first line, which names the columns."""
    return BOM + _csv(COLUMNS, separator)  # or spreadsheets would take it for another encoding


def row(task: dict[str, Any], separator: str = ",") -> bytes:
    """Return the line of a task: as it is shown, and its `uid`."""
    return _csv((_cell(task[column]) for column in COLUMNS), separator)


def _csv(cells: Iterable[str], separator: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerow(cells)
    return text.getvalue().encode()


def _cell(value: str | int | None) -> str:
    return "" if value is None else _TO_BE_MARKED.sub(MARK, str(value))


# And back

_COLUMNS = {name.replace("_", ""): name for name in COLUMNS}
_SPACING = re.compile(r"[\s_-]+")
_SEPARATOR = re.compile(rb'"?sep=(.)"?\1*+[\r\n]*+', re.IGNORECASE | re.DOTALL)  # a first line with which spreadsheets are told
_QUOTED = re.compile('"[^"]*+"')
_DOTTED_DAY = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})")


class Rows:
    """Makes entries of the lines of a CSV file. The first line may name the columns in any order, and need not name all."""

    def __init__(self) -> None:
        self._columns: list[str] = []  # without a name: an empty text
        self._separator = ""
        # of a row that goes on: a cell in quotation marks may hold line ends
        self._first, self._text, self._is_open = 1, bytearray(), False

    def feed(self, line: Line) -> Iterator[Entry]:
        """Return the row that ends with this line, if one does. Raises InvalidInput where it isn't CSV."""
        if not self._is_open:
            self._first = line.number
            if line.text.isspace():
                return
            self._text = bytearray()
        self._text += line.text
        self._is_open ^= line.text.count(b'"') % 2 == 1
        if not self._is_open:
            yield from self._row()
        elif len(self._text) > MAX_LINE_BYTES:
            raise self._fault("malformed", NEVER_CLOSED)

    def end(self) -> Iterator[Entry]:
        """Return nothing more. Raises InvalidInput where there is no first line, or the last one isn't whole."""
        if self._is_open or not self._columns:
            raise self._fault("malformed", NEVER_CLOSED) if self._is_open else self._fault("missing", "must name the columns")
        yield from ()

    def _row(self) -> Iterator[Entry]:
        if len(self._text) > MAX_LINE_BYTES:
            raise self._fault("too_long", "is too long", max=MAX_LINE_BYTES)
        if not self._separator and (said := _SEPARATOR.fullmatch(self._text)):
            self._separator = self._known_separator(said[1])
            return
        text = self._decoded()
        separator = self._separator or next((character for character in _QUOTED.sub("", text) if character in SEPARATORS), ",")
        try:
            [cells] = csv.reader([text], delimiter=separator, strict=True)
        except (csv.Error, ValueError):
            yield self._refused("malformed", "is not CSV: a cell with a line end or a quotation mark in it must stand in quotation marks")
            return
        if not "".join(cells).strip():
            return
        if len(cells) > MAX_COLUMNS:
            yield self._refused("wrong_number_of_cells", f"must have at most {MAX_COLUMNS} cells")
        elif self._columns:
            yield self._entry(cells)
        else:
            self._columns, self._separator = self._named(cells), separator

    def _refused(self, code: ErrorCode, message: str) -> Entry:
        fault = self._fault(code, message)
        if not self._columns:
            raise fault from None
        return Entry(self._first, {}, faults=fault.errors)

    def _decoded(self) -> str:
        try:
            return self._text.decode()
        except UnicodeDecodeError:
            raise self._fault("not_utf_8", NOT_UTF8) from None

    def _known_separator(self, separator: bytes) -> str:
        if separator in SEPARATORS.encode():
            return separator.decode()
        raise self._fault("malformed", "must name a separator that is known here: a comma, a semicolon or a tab")

    def _named(self, cells: list[str]) -> list[str]:
        plain = [_SPACING.sub("", cell).casefold() for cell in cells]
        for number, name in enumerate(plain, start=1):
            if name and (name not in _COLUMNS or plain.count(name) > 1):
                code: ErrorCode = "repeated" if name in _COLUMNS else "unknown_field"
                words = f"must name columns, each once, of these: {', '.join(COLUMNS)}"
                raise self._fault(code, f"{words}; column {number} has another name, or one that came before")
        named = [_COLUMNS.get(name, "") for name in plain]
        if not any(named):
            raise self._fault("missing", "must name the columns")
        while not named[-1]:  # rows need no cells there
            named.pop()
        return named

    def _entry(self, cells: list[str]) -> Entry:
        fields = {column: _MARKS.sub("", cell) for column, cell in zip(self._columns, cells, strict=False) if column}
        fields |= {column: fields[column].strip() for column in ("status", "completion_at", "completed_at") if column in fields}
        wrong: Sequence[FieldError] = ()
        if len(cells) < len(self._columns):
            words = f"has {len(cells)} cells, where the first line names {len(self._columns)} columns"
            wrong = [at_line(self._first, "wrong_number_of_cells", words)]
        elif any(cell.strip() for number, cell in enumerate(cells) if number >= len(self._columns) or not self._columns[number]):
            wrong = [at_line(self._first, "wrong_number_of_cells", "has a value for which the first line names no column")]
        if day := _DOTTED_DAY.fullmatch(fields.get("completion_at", "")):
            fields["completion_at"] = "-".join(part.zfill(2) for part in day.groups())
        completed_at = fields.pop("completed_at", "")
        if completed_at and fields.get("status", "completed") == "completed":
            try:
                fields["completed_at"] = moment_text(read_moment(completed_at))
            except ValueError:
                words = "completed_at must be a moment as RFC 3339 writes it: 2026-11-24T09:30:00Z"
                wrong = wrong or [at_line(self._first, "not_a_moment", words, name="completed_at")]
        return Entry(self._first, fields, faults=wrong)

    def _fault(self, code: ErrorCode, message: str, **params: Any) -> InvalidInput:
        return InvalidInput(at_line(self._first, code, message, **params))

"""CSV: what spreadsheets open without taking a text for a formula, and what comes back as it was."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rest.errors import InvalidInput
from tasks.schemas import Task
from transfer import csv_format
from transfer.entries import BOM, MAX_LINE_BYTES, Entry, Line, at_line

TASK = {
    "uid": "7-6fa459ea-ee8a-4ca4-894e-db77e160355e",
    "id": 7,
    "name": "Купить молоко",
    "description": "",
    "status": "new",
    "completion_at": None,
    "created_at": "2026-11-24T09:30:00.123456Z",
    "updated_at": "2026-11-24T09:30:00.123456Z",
    "completed_at": None,
    "deleted_at": None,
    "revision": 9,
}
NASTY = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "'quoted'",
    "''",
    "'",
    'say "cheese"',
    '"',
    '""',
    "a,b;c\td",
    "one\ntwo",
    "one\r\ntwo\r\n",
    "\n",
    "\r",
    " lead and trail ",
    "ё́й 👩‍👩‍👧 e\u0301",
    "\ufeffx",
    "\x0b\x0c\x1c\x85\u2028",
    "\x01\x7f",
]
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.sampled_from(NASTY)


def lines(text: bytes) -> list[Line]:
    found = re.findall(rb"[^\n]*\n|[^\n]+", text.removeprefix(BOM))
    return [Line(n, line) for n, line in enumerate(found, start=1)]


def entries(text: bytes) -> Iterator[Entry]:
    rows = csv_format.Rows()
    for line in lines(text):
        yield from rows.feed(line)
    yield from rows.end()


def refusal(text: bytes) -> list[dict[str, str]]:
    with pytest.raises(InvalidInput) as refused:
        list(entries(text))
    return list(refused.value.errors)


def sheet(*tasks: dict[str, Any]) -> bytes:
    return csv_format.head() + csv_format.rows(tasks)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_what_goes_out_comes_back_as_it_was(texts: list[tuple[str, str]]) -> None:
    tasks = [TASK | {"name": name, "description": description} for name, description in texts]
    shown = [{column: "" if value is None else str(value) for column, value in task.items()} for task in tasks]
    assert [entry.fields for entry in entries(sheet(*tasks))] == shown


@pytest.mark.parametrize("text", NASTY)
def test_a_spreadsheet_takes_no_text_for_a_formula(text: str) -> None:
    [_, row] = csv.reader(io.StringIO(sheet(TASK | {"name": text}).decode("utf-8-sig"), newline=""))
    cell = row[csv_format.COLUMNS.index("name")]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell in (text, "'" + text)


def test_a_sheet_is_utf8_with_bom_and_lines_that_end_in_crlf() -> None:
    text = sheet(TASK, TASK | {"name": "Второе"})
    assert text.startswith(b"\xef\xbb\xbfuid,id,name,")
    assert text.count(b"\r\n") == text.count(b"\n") == 3
    assert "Второе" in text.decode()
    assert text.decode("utf-8-sig").partition("\r\n")[0] == ",".join(["uid", *Task.model_fields])


@pytest.mark.parametrize(
    "text",
    [
        b"name,status\r\nMilk,new\r\n",
        b"name,status\nMilk,new",
        b"\xef\xbb\xbfname,status\n\nMilk,new\n\n\n",
        b"name;status\r\nMilk;new\r\n",
        b"name\tstatus\r\nMilk\tnew\r\n",
        b'"name","status"\r\n"Milk","new"\r\n',
        b"status,name\r\nnew,Milk\r\n",
        b"name,status\r\n'Milk,'new\r\n",
    ],
)
def test_other_programs_ways_of_saving_it_are_understood(text: bytes) -> None:
    assert [entry.fields for entry in entries(text)] == [{"name": "Milk", "status": "new"}]


def test_an_entry_knows_the_line_at_which_it_begins() -> None:
    text = b'name\r\n"one\r\ntwo"\r\nthree\r\n"four\n\n\n"\r\nfive'
    assert [(entry.line, entry.fields["name"]) for entry in entries(text)] == [
        (2, "one\r\ntwo"),
        (4, "three"),
        (5, "four\n\n\n"),
        (9, "five"),
    ]


def test_a_row_with_other_cells_than_columns_is_named_and_the_next_one_read() -> None:
    first, second = entries(b"name,status\r\nMilk\r\nMilk,new\r\n")
    assert first.faults == [at_line(2, "wrong_number_of_cells", "has 1 cells, where the first line names 2 columns")]
    assert (second.line, second.faults) == (3, ())


def test_a_cell_of_many_lines_is_not_copied_for_each_of_them() -> None:
    rows = csv_format.Rows()
    assert list(rows.feed(Line(1, b"name\r\n"))) == list(rows.feed(Line(2, b'"one\r\n'))) == []
    begun = rows._text
    assert list(rows.feed(Line(3, b"two\r\n"))) == []
    assert rows._text is begun
    [entry] = rows.feed(Line(4, b'three"\r\n'))
    assert entry.fields == {"name": "one\r\ntwo\r\nthree"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"", 1, "must name the columns"),
        (b"\xef\xbb\xbf", 1, "must name"),
        (b"name,priority\r\n", 1, "must name columns, each once"),
        (b"name,name\r\n", 1, "must name columns, each once"),
        (b"Milk\r\n", 1, "must name columns, each once"),
        (b"name\r\nMilk\r\n\xff\r\n", 3, "is not UTF-8"),
        ("name\r\nMilk\r\n".encode("utf-16"), 1, "is not UTF-8"),
        (b'name\r\nMilk\r\n"Milk" x\r\n', 3, "is not CSV"),
        (b"name\r\na\rb\r\n", 2, "is not CSV"),
        (b'name\r\nMilk\r\n"never\r\nclosed\r\n', 3, "has a quotation mark that is never closed"),
        (b'name\r\n5" disk\r\n' + b"x\r\n" * MAX_LINE_BYTES, 2, "has a quotation mark that is never closed"),
        (b"name\r\n" + b"x" * (MAX_LINE_BYTES + 1), 2, "is too long"),
    ],
)
def test_what_is_not_csv_is_refused_by_its_line(text: bytes, line: int, message: str) -> None:
    [fault] = refusal(text)
    assert fault["field"] == f"line {line}"
    assert fault["message"].startswith(message)

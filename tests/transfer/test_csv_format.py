"""CSV: what spreadsheets open without taking a text for a formula, and what comes back as it was."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
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
    "'80s party",
    "x;=1+1;y",
    'x;"=1+1";y',
    'x\n"""-1"',
    "x,'-1",
    "x,''-1",
    "one\n- two\n'- three",
    "a,\t=1",
    "\r\r'\r\n+",
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
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
PARTS = st.text(st.sampled_from("'=+-@\t\r\n,;\"ab "))
TEXTS = PARTS | st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.sampled_from(NASTY)


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


def sheet(*tasks: dict[str, Any], separator: str = ",") -> bytes:
    return csv_format.head(separator) + b"".join(csv_format.row(task, separator) for task in tasks)


def fields(text: str) -> list[dict[str, Any]]:
    found = list(entries(text.encode()))
    assert not [entry for entry in found if entry.faults]
    return [entry.fields for entry in found]


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5), st.sampled_from(csv_format.SEPARATORS))
def test_what_goes_out_comes_back_as_it_was(texts: list[tuple[str, str]], separator: str) -> None:
    tasks = [TASK | {"name": name, "description": description} for name, description in texts]
    shown = [{column: "" if value is None else str(value) for column, value in task.items() if column != "completed_at"} for task in tasks]
    assert [entry.fields for entry in entries(sheet(*tasks, separator=separator))] == shown


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=2), st.sampled_from(",;"))
@example([(text, text) for text in NASTY], ",")
def test_a_spreadsheet_takes_no_text_for_a_formula_whatever_it_takes_for_a_separator(texts: list[tuple[str, str]], separator: str) -> None:
    tasks = [TASK | {"uid": description or "1", "name": name, "description": description} for name, description in texts]
    text = sheet(*tasks, separator=separator).decode("utf-8-sig")
    for read_by in csv_format.SEPARATORS:
        cells = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=read_by) for cell in row]
        assert not [cell for cell in cells if cell.startswith(FORMULAS)]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("'=1+1", "''=1+1"),
        ("'80s party", "''80s party"),
        ("x;=1+1;y", "x;'=1+1;y"),
        ("a,b;c - d=e", "a,b;c - d=e"),
        ("one\n- two", "one\n'- two"),
        ("x;'y", "x;''y"),
        ('x;"=1+1"', 'x;\'"=1+1"'),
        ('"=1+1"', '"=1+1"'),
        ("'", "''"),
    ],
)
def test_what_could_become_a_formula_gets_a_mark_and_nothing_else_does(text: str, cell: str) -> None:
    [_, row] = csv.reader(io.StringIO(sheet(TASK | {"name": text}).decode("utf-8-sig"), newline=""))
    assert row[csv_format.COLUMNS.index("name")] == cell


@pytest.mark.parametrize("text", ["'80s party", "'tis", "rock 'n' roll", "x;'y'", "'\"quoted\"'", "5'", "x,'1"])
def test_an_apostrophe_that_is_not_our_mark_stays(text: str) -> None:
    cell = text.replace('"', '""')
    assert fields(f'name\r\n"{cell}"\r\n') == [{"name": text}]


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
        b" Name , STATUS\r\nMilk, new \r\n",
        b"\r\n,,\r\nname,status\r\n,\r\nMilk,new\r\n , \r\n,\r\n",
        b"name;status;;;\r\nMilk;new;;;\r\n;;;;\r\n",
        b"\r\nname;status\r\nMilk;new\r\n",
        b"name,,status\r\nMilk, ,new\r\n",
        b"name,status,\r\nMilk,new\r\n",
        b"name,status\r\nMilk,new,,\r\n",
        b"sep=;\r\nname;status\r\nMilk;new\r\n",
        b"sep=;;;\r\nname;status;\r\nMilk;new;\r\n",
        b'\xef\xbb\xbf"SEP=;"\nname;status\nMilk;new\n',
        b"sep=\t\r\nname\tstatus\r\nMilk\tnew\r\n",
        b'"name"\t"status"\nMilk\tnew\n',
    ],
)
def test_other_programs_ways_of_saving_it_are_understood(text: bytes) -> None:
    assert [entry.fields for entry in entries(text)] == [{"name": "Milk", "status": "new"}]


@pytest.mark.parametrize("heading", ["completion_at", "Completion at", " COMPLETION-AT ", "CompletionAt", "completion\u00a0at"])
def test_a_heading_is_known_in_any_case_and_spacing(heading: str) -> None:
    assert fields(f"{heading},name\r\n02-10-2020,x\r\n") == [{"completion_at": "02-10-2020", "name": "x"}]


def test_a_separator_within_a_quoted_heading_is_none() -> None:
    with pytest.raises(InvalidInput) as refused:
        list(entries(b'"name, in full";status\r\n'))
    assert refused.value.errors[0]["message"].startswith("must name columns")
    assert fields('"status\t";"name"\r\nnew;Milk, the fresh one\r\n') == [{"status": "new", "name": "Milk, the fresh one"}]


@pytest.mark.parametrize(
    ("sent", "taken"),
    [("02.10.2020", "02-10-2020"), (" 2020-10-02 ", "2020-10-02"), ("2.10.2020", "02-10-2020"), ("", ""), ("02.10.20", "02.10.20")],
)
def test_a_day_may_have_dots(sent: str, taken: str) -> None:
    assert fields(f"name,completion_at\r\nMilk,{sent}\r\n") == [{"name": "Milk", "completion_at": taken}]


@pytest.mark.parametrize(
    ("status", "sent", "taken"),
    [
        ("completed", "2026-11-24T09:30:00.123456Z", "2026-11-24T09:30:00.123456Z"),
        ("completed", " 2026-11-24T11:30:00+02:00 ", "2026-11-24T09:30:00.000000Z"),
        ("completed", "", None),
        ("new", "2026-11-24T09:30:00.123456Z", None),
        ("new", "yesterday", None),
    ],
)
def test_when_it_was_completed_is_taken_where_it_is(status: str, sent: str, taken: str | None) -> None:
    [found] = fields(f"name,status,completed_at\r\nMilk,{status},{sent}\r\n")
    assert found.get("completed_at") == taken
    assert fields(f"name,completed_at\r\nMilk,{taken or ''}\r\n")[0].get("completed_at") == taken


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,status,\r\nMilk,new,x\r\n", "has a value for which the first line names no column"),
        ("name,status\r\nMilk,new,,x\r\n", "has a value for which the first line names no column"),
        ("name,,status\r\nMilk,x,new\r\n", "has a value for which the first line names no column"),
        ("name,status\r\nMilk\r\n", "has 1 cells, where the first line names 2 columns"),
        ('name\r\n"Milk" x\r\n', "is not CSV"),
        ("name\r\na\rb\r\n", "is not CSV"),
        ("name,completed_at\r\nMilk,yesterday\r\n", "completed_at must be a moment as RFC 3339 writes it"),
        ("name,status,completed_at\r\nMilk,completed,02.10.2020\r\n", "completed_at must be a moment as RFC 3339 writes it"),
    ],
)
def test_a_row_that_cannot_be_taken_is_named_and_the_next_one_read(text: str, message: str) -> None:
    found = list(entries(text.encode() + text.encode().partition(b"\n")[2]))
    named = [(fault["field"], fault["message"]) for entry in found for fault in entry.faults]
    assert len(named) == 2
    assert all(words.startswith(message) for _, words in named), named


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
        *[(heading + b"\r\nMilk\r\n", 1, "must name the columns") for heading in (b"---", b"_,-", b'" - "')],
        (b"name,name\r\n", 1, "must name columns, each once"),
        (b"Milk\r\n", 1, "must name columns, each once"),
        (b"name\r\nMilk\r\n\xff\r\n", 3, "is not UTF-8"),
        ("name\r\nMilk\r\n".encode("utf-16"), 1, "is not UTF-8"),
        (b'"name" x\r\nMilk\r\n', 1, "is not CSV"),
        (b"sep=|\r\nname|status\r\n", 1, "must name a separator that is known here"),
        (b"sep=;\r\n", 1, "must name the columns"),
        (b'name\r\nMilk\r\n"never\r\nclosed\r\n', 3, "has a quotation mark that is never closed"),
        (b'name\r\n5" disk\r\n' + b"x\r\n" * MAX_LINE_BYTES, 2, "has a quotation mark that is never closed"),
        (b"name\r\n" + b"x" * (MAX_LINE_BYTES + 1), 2, "is too long"),
    ],
)
def test_what_is_not_csv_is_refused_by_its_line(text: bytes, line: int, message: str) -> None:
    [fault] = refusal(text)
    assert fault["field"] == f"line {line}"
    assert fault["message"].startswith(message)

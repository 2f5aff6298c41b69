"""iCalendar: what calendars read of ours, and what we take, or say that we can't take, of theirs."""

from collections.abc import Iterator
from typing import Any

import icalendar
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rest.errors import InvalidInput
from tests.transfer.test_csv_format import NASTY, TASK, TEXTS, lines
from transfer import ics_format
from transfer.entries import MAX_LINE_BYTES, Entry, Skipped
from transfer.ics_file import Todos


def found(text: bytes) -> Iterator[Entry | Skipped]:
    todos = Todos()
    for line in lines(text):
        yield from todos.feed(line)
    yield from todos.end()


def entries(text: bytes) -> Iterator[Entry]:
    return (one for one in found(text) if isinstance(one, Entry))


def skipped(text: bytes) -> list[tuple[int, str]]:
    return [(one.line, one.code) for one in found(text) if isinstance(one, Skipped)]


def calendar(*tasks: dict[str, Any]) -> bytes:
    return ics_format.HEAD + b"".join(map(ics_format.todo, tasks)) + ics_format.END


def of_todo(*properties: str, end: str = "\r\n") -> bytes:
    return end.join(["BEGIN:VCALENDAR", "VERSION:2.0", "BEGIN:VTODO", *properties, "END:VTODO", "END:VCALENDAR", ""]).encode()


def fields(*properties: str) -> dict[str, Any]:
    [entry] = entries(of_todo(*properties))
    assert entry.faults == []
    return entry.fields


def faults(*properties: str) -> list[tuple[str, str]]:
    [entry] = entries(of_todo(*properties))
    return [(fault["field"], fault["message"]) for fault in entry.faults]


# Out


@given(st.lists(st.tuples(TEXTS.filter(bool), TEXTS), min_size=1, max_size=3), st.sampled_from(["new", "planned", "in_work", "completed"]))
@example([("C:\\New \\n \\\\n", "\\")], "new")
def test_what_goes_out_comes_back_as_it_was(texts: list[tuple[str, str]], status: str) -> None:
    tasks = [
        TASK | {"name": name, "description": description, "status": status, "completion_at": "29-02-2024"} for name, description in texts
    ]
    text = calendar(*tasks)
    for entry, (name, description) in zip(entries(text), texts, strict=True):
        assert {field: value for field, value in entry.fields.items() if field != "title"} == {
            "uid": TASK["uid"],
            **({"name": name} if name.strip() else {}),
            "description": description,
            "status": status,
            "completion_at": "2024-02-29",
        }
    assert [todo["SUMMARY"] for todo in icalendar.Calendar.from_ical(text).todos] == [ics_format.shown(name) for name, _ in texts]


@given(TEXTS, TEXTS)
def test_its_lines_are_as_the_standard_has_them(name: str, description: str) -> None:
    text = calendar(TASK | {"name": name, "description": description})
    assert text.count(b"\r") == text.count(b"\n") == text.count(b"\r\n")
    for line in text.split(b"\r\n"):
        assert len(line) <= 75
        assert not [octet for octet in line if octet < 32 and octet != 9]
        assert 127 not in line
        line.decode()


def test_a_calendar_sees_all_that_it_has_a_place_for() -> None:
    task = TASK | {
        "description": "Два литра; свежее, и\nбыстро",
        "status": "completed",
        "completion_at": "02-10-2020",
        "completed_at": "2026-11-25T01:02:03.999999Z",
        "updated_at": "2026-11-26T00:00:00.000000Z",
    }
    parsed = icalendar.Calendar.from_ical(calendar(task))
    assert (parsed["VERSION"], bool(parsed["PRODID"])) == ("2.0", True)
    [todo] = parsed.todos
    assert not todo.errors
    assert {name: todo.decoded(name) for name in todo} == {
        "UID": "7-6fa459ea-ee8a-4ca4-894e-db77e160355e",
        "SUMMARY": "Купить молоко",
        "DESCRIPTION": "Два литра; свежее, и\nбыстро",
        "STATUS": "COMPLETED",
        "X-TASK-STATUS": todo["X-TASK-STATUS"],
        "DUE": icalendar.vDate.from_ical("20201002"),
        "COMPLETED": icalendar.vDatetime.from_ical("20261125T010203Z"),
        "CREATED": icalendar.vDatetime.from_ical("20261124T093000Z"),
        "LAST-MODIFIED": icalendar.vDatetime.from_ical("20261126T000000Z"),
        "DTSTAMP": icalendar.vDatetime.from_ical("20261126T000000Z"),
    }
    assert todo["DUE"].params["VALUE"] == "DATE"


def test_what_a_task_does_not_have_is_left_out() -> None:
    text = calendar(TASK).decode()
    assert not [name for name in ("DESCRIPTION", "DUE", "COMPLETED", "X-TASK-SUMMARY") if f"\r\n{name}" in text]


@pytest.mark.parametrize(
    ("ours", "theirs"), [("new", "NEEDS-ACTION"), ("planned", "NEEDS-ACTION"), ("in_work", "IN-PROCESS"), ("completed", "COMPLETED")]
)
def test_a_status_is_the_calendars_and_ours_beside(ours: str, theirs: str) -> None:
    text = calendar(TASK | {"status": ours})
    assert f"\r\nSTATUS:{theirs}\r\nX-TASK-STATUS:{ours}\r\n".encode() in text


@pytest.mark.parametrize("text", ["a\x01b", "a\rb", "a\x7fb", "a\r\nb", "\x1f" * 200, "tab\tstays", "a\nb"])
def test_what_text_cannot_hold_is_shown_by_pictures_and_kept_beside(text: str) -> None:
    [todo] = icalendar.Calendar.from_ical(calendar(TASK | {"name": text})).todos
    shown = todo["SUMMARY"]
    assert shown == text.replace("\r\n", "\n").replace("\r", "␍").replace("\x01", "␁").replace("\x7f", "␡").replace("\x1f", "␟")
    assert ("X-TASK-SUMMARY" in todo) == (shown != text)


@pytest.mark.parametrize("text", NASTY)
def test_another_program_may_write_it_anew(text: str) -> None:
    again = icalendar.Calendar.from_ical(calendar(TASK | {"name": text, "description": text, "completion_at": "02-10-2020"})).to_ical()
    [entry] = entries(again)
    assert entry.faults == []
    if not text.startswith("\ufeff"):  # which icalendar takes away
        assert (entry.fields["name"] if text.strip() else text, entry.fields["description"]) == (text, text)
    assert entry.fields["completion_at"] == "2020-10-02"


# In: what others write


THEIRS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Somebody else//NONSGML 1.0//EN
CALSCALE:GREGORIAN
X-WR-CALNAME:Дела
BEGIN:VTIMEZONE
TZID:Europe/Paris
BEGIN:STANDARD
DTSTART:19701025T030000
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10
END:STANDARD
END:VTIMEZONE
BEGIN:VTODO
DTSTAMP:20180102T122043Z
UID:20180102T122043Z-4711@example.org
CREATED:20180102T122042Z
SEQUENCE:3
LAST-MODIFIED:20180102T122042Z
SUMMARY;LANGUAGE=fr;X-NOTE="a:b;c, d":Acheter du lait\\, deux litr
 es\\; frais
DESCRIPTION:one\\ntwo\\Nthree \\\\ four:five
\t and six
STATUS:IN-PROCESS
PERCENT-COMPLETE:50
PRIORITY:1
CATEGORIES:home,"shop"
DTSTART;TZID=Europe/Paris:20130901T180000
DUE;TZID=Europe/Paris:20130903T003000
RELATED-TO;RELTYPE=PARENT:parent
ATTACH;ENCODING=BASE64;VALUE=BINARY:AAAA
X-APPLE-SORT-ORDER:12
BEGIN:VALARM
ACTION:DISPLAY
DESCRIPTION:not the task's
SUMMARY:not the task's
TRIGGER:-PT15M
END:VALARM
END:VTODO
END:VCALENDAR
"""


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("beginning", ["", "\ufeff"])
def test_a_file_of_another_program_is_understood(beginning: str, end: str) -> None:
    [entry] = entries((beginning + THEIRS.replace("\n", end)).encode())
    assert (entry.line, entry.faults) == (15, [])
    assert entry.fields == {
        "uid": "20180102T122043Z-4711@example.org",
        "name": "Acheter du lait, deux litres; frais",
        "description": "one\ntwo\nthree \\ four:five and six",
        "title": "one",
        "status": "in_work",
        "alike": ("in_work",),
        "completion_at": "2013-09-03",
    }
    assert entry.places["completion_at"] == (30, "DUE")


def test_a_line_may_be_folded_within_a_character() -> None:
    text = of_todo("SUMMARY:молоко").replace("м".encode(), b"\xd0\r\n \xbc", 1)
    assert [entry.fields["name"] for entry in entries(text)] == ["молоко"]


def test_names_are_read_in_any_case_and_several_calendars_may_follow() -> None:
    text = b"begin:vcalendar\nBegin:vTodo\nSummary:Milk\nEnd:VTODO\nend:VCALENDAR\n"
    assert [entry.fields["name"] for entry in entries(text * 2)] == ["Milk", "Milk"]


@pytest.mark.parametrize(
    ("properties", "status", "alike"),
    [
        ([], "new", ("new", "planned")),
        (["STATUS:NEEDS-ACTION"], "new", ("new", "planned")),
        (["STATUS:IN-PROCESS"], "in_work", ("in_work",)),
        (["STATUS:COMPLETED"], "completed", ("completed",)),
        (["PERCENT-COMPLETE:100"], "completed", ("completed",)),
        (["PERCENT-COMPLETE:99"], "in_work", ("in_work",)),
        (["PERCENT-COMPLETE: 1"], "in_work", ("in_work",)),
        (["PERCENT-COMPLETE:0"], "new", ("new", "planned")),
        (["PERCENT-COMPLETE:000"], "new", ("new", "planned")),
        (["PERCENT-COMPLETE:50", "X-TASK-STATUS:in_work"], "in_work", None),
        (["STATUS:NEEDS-ACTION", "PERCENT-COMPLETE:100"], "new", ("new", "planned")),
        (["STATUS:COMPLETED", "PERCENT-COMPLETE:10"], "completed", ("completed",)),
        (["COMPLETED:20180102T122043Z", "PERCENT-COMPLETE:10"], "completed", ("completed",)),
        (["COMPLETED:20180102T122043Z"], "completed", ("completed",)),
        (["STATUS:NEEDS-ACTION", "COMPLETED:20180102T122043Z"], "new", ("new", "planned")),
        (["STATUS:NEEDS-ACTION", "X-TASK-STATUS:planned"], "planned", None),
        (["STATUS:COMPLETED", "X-TASK-STATUS:planned"], "completed", ("completed",)),
        (["STATUS:NEEDS-ACTION", "X-TASK-STATUS:completed"], "new", ("new", "planned")),
        (["X-TASK-STATUS:whatever"], "new", ("new", "planned")),
    ],
)
def test_our_status_counts_only_where_it_agrees_with_theirs(properties: list[str], status: str, alike: tuple[str, ...] | None) -> None:
    taken = fields("SUMMARY:Milk", *properties)
    assert (taken["status"], taken.get("alike")) == (status, alike)


@pytest.mark.parametrize("ours", ['"other"', "broken", "7", "[" * 10_000, '"\\\\ud800"'])
def test_our_text_counts_only_where_it_agrees_with_what_is_shown(ours: str) -> None:
    assert fields("SUMMARY:a␁b", f"X-TASK-SUMMARY:{ours}")["name"] == "a␁b"
    assert fields("SUMMARY:a␁b", 'X-TASK-SUMMARY:"a\\\\u0001b"')["name"] == "a\x01b"


@pytest.mark.parametrize(
    ("due", "day"),
    [
        ("DUE;VALUE=DATE:20130901", "2013-09-01"),
        ("DUE:20130901", "2013-09-01"),
        ("DUE:20130901T235959Z", "2013-09-01"),
        ("DUE;TZID=America/New_York:20130901T235959", "2013-09-01"),
        ('DUE;TZID="/example.org/Nowhere":20130901T000000', "2013-09-01"),
        ("DUE;VALUE=DATE:00010101", "0001-01-01"),  # refused later, as in any body
    ],
)
def test_a_due_with_a_time_is_its_date_as_written(due: str, day: str) -> None:
    assert fields("SUMMARY:Milk", due)["completion_at"] == day


def test_what_is_absent_is_empty() -> None:
    assert fields("SUMMARY:Milk") == {
        "uid": "",
        "name": "Milk",
        "title": "(no title)",
        "description": "",
        "status": "new",
        "alike": ("new", "planned"),
        "completion_at": "",
    }


@pytest.mark.parametrize(
    ("properties", "title"),
    [
        (["UID:x"], "(no title)"),
        (["SUMMARY:"], "(no title)"),
        (["SUMMARY: \\n ", "DESCRIPTION: \\n "], "(no title)"),
        (["SUMMARY: ", "DESCRIPTION:\\n  Two   litres \\nof milk"], "Two litres"),
        (["DESCRIPTION:" + "litre " * 30], "litre " * 12 + "litre…"),
        (["DESCRIPTION:" + "ё" * 10_000], "ё" * 79 + "…"),
    ],
)
def test_what_has_no_summary_is_called_by_its_description(properties: list[str], title: str) -> None:
    taken = fields(*properties)
    assert ("name" in taken, taken["title"]) == (False, title)


@pytest.mark.parametrize(
    ("completed", "moment"),
    [
        ("COMPLETED:20180417T184302Z", "2018-04-17T18:43:02.000000Z"),
        ("COMPLETED:20180417T184302", "2018-04-17T18:43:02.000000Z"),
        ("COMPLETED;VALUE=DATE:20180417", "2018-04-17T00:00:00.000000Z"),
        ("COMPLETED;TZID=Europe/Paris:20180417T204302", "2018-04-17T18:43:02.000000Z"),
        ("COMPLETED;TZID=Europe/Paris:20180417T184302Z", "2018-04-17T18:43:02.000000Z"),
        ("COMPLETED;TZID=America:20180417T184302", "2018-04-17T18:43:02.000000Z"),
        ("COMPLETED;TZID=../../etc/passwd:20180417T184302", "2018-04-17T18:43:02.000000Z"),
        ("COMPLETED;VALUE=DATE-TIME:20161231T235960Z", "2017-01-01T00:00:00.000000Z"),
    ],
)
def test_when_it_was_completed_is_taken_in_utc(completed: str, moment: str) -> None:
    for properties in ([], ["STATUS:COMPLETED"]):
        assert fields("SUMMARY:Milk", completed, *properties)["completed_at"] == moment
    assert "completed_at" not in fields("SUMMARY:Milk", completed, "STATUS:IN-PROCESS")


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (["DURATION:PT1H"], "DURATION is not taken: say by DUE"),
        (["STATUS:CANCELLED"], "STATUS must be one of NEEDS-ACTION, IN-PROCESS, COMPLETED"),
        (["STATUS:DRAFT"], "STATUS must be one of"),
        (["STATUS:"], "STATUS must be one of"),
        (["PERCENT-COMPLETE:"], "PERCENT-COMPLETE must be a whole number from 0 to 100"),
        (["PERCENT-COMPLETE:101"], "PERCENT-COMPLETE must be"),
        (["PERCENT-COMPLETE:-1"], "PERCENT-COMPLETE must be"),
        (["PERCENT-COMPLETE:half"], "PERCENT-COMPLETE must be"),
        (["PERCENT-COMPLETE:half", "STATUS:COMPLETED"], "PERCENT-COMPLETE must be"),
        (["COMPLETED:"], "COMPLETED must be a date and a time in UTC"),
        (["COMPLETED:yesterday"], "COMPLETED must be"),
        (["COMPLETED:20180431T184302Z"], "COMPLETED must be"),
        (["COMPLETED:20180417T244302Z"], "COMPLETED must be"),
        (["COMPLETED;TZID=Asia/Tokyo:00010101T000000"], "COMPLETED must be"),
        (["COMPLETED:20180417", "STATUS:NEEDS-ACTION", "COMPLETED:x"], "COMPLETED must not stand twice"),
        (["DUE:20130901T250000Z"], "DUE must be a date"),
        (["DUE:tomorrow"], "DUE must be a date"),
        (["DUE:"], "DUE must be a date"),
        (["DUE;VALUE=PERIOD:20130901T000000Z/PT1H"], "DUE must be a date"),
        (["SUMMARY:again"], "SUMMARY must not stand twice"),
        (['DESCRIPTION;X="never closed:x'], "DESCRIPTION can't be read"),
        (["DESCRIPTION;ENCODING=QUOTED-PRINTABLE:=D0=BC"], "DESCRIPTION must be text as it is, without ENCODING"),
        (["DESCRIPTION:" + "x" * MAX_LINE_BYTES], "DESCRIPTION is too long"),
    ],
)
def test_what_we_cannot_take_is_named_by_its_line(properties: list[str], message: str) -> None:
    [(line, words)] = faults("SUMMARY:Milk", *properties)
    assert (line, words.startswith(message)) == ("line 7" if "twice" in message and len(properties) > 1 else "line 5", True), words


def test_all_that_is_wrong_with_one_is_named_in_order() -> None:
    assert [line for line, _ in faults("STATUS:CANCELLED", "SUMMARY:x", "DURATION:P1D", "DUE:x")] == ["line 4", "line 6", "line 7"]


def test_of_very_much_that_is_wrong_only_the_beginning_is_kept() -> None:
    assert [line for line, _ in faults(*["DURATION:x"] * 1000)] == [f"line {number}" for number in range(4, 104)]


@pytest.mark.parametrize("component", ["VEVENT", "VJOURNAL", "VFREEBUSY", "VALARM", "X-LIST", "X_LIST", "VCALENDAR", "VTASK"])
def test_what_is_no_task_is_told_of_and_the_rest_is_read(component: str) -> None:
    within = ["SUMMARY:x", "RRULE:x", "anything at all", "STATUS:x", "BEGIN:VTODO", "SUMMARY:x", "END:VTODO", "BEGIN:X-A", "END:X-A"]
    text = "\n".join(
        ["BEGIN:VCALENDAR", f"BEGIN:{component}", *within, f"END:{component}", "BEGIN:VTODO", "SUMMARY:Milk", "END:VTODO", "END:VCALENDAR"]
    )
    [taken] = entries(text.encode())
    assert (taken.fields["name"], taken.faults) == ("Milk", [])
    assert skipped(text.encode()) == [(2, "not_a_task")]


def test_what_a_file_of_tasks_has_besides_is_not_told_of() -> None:
    assert skipped(THEIRS.encode()) == []


@pytest.mark.parametrize(
    "line",
    ["X-FOO_BAR:1", "X-FOO.BAR;A_B=1:x", "item1.X-A:1", "X-ЁЛКА:1", "X-A;B=", f"X-{'A' * 1000}:1"],
)
def test_a_property_of_any_name_is_passed_over(line: str) -> None:
    text = of_todo("SUMMARY:Milk", line if ":" in line else f"{line}:").replace(b"VERSION:2.0", line.encode() if ":" in line else b"X:")
    [entry] = entries(text)
    assert (entry.fields["name"], entry.faults, skipped(text)) == ("Milk", [], [])


@pytest.mark.parametrize("rule", ["RRULE:FREQ=WEEKLY", "RDATE;VALUE=DATE:20130901,20130902", "EXRULE:x", "RRULE;X=\xff:\xff"])
def test_what_recurs_is_taken_once_and_told_of(rule: str) -> None:
    text = of_todo("SUMMARY:Milk", rule, "DUE;VALUE=DATE:20130901", "EXDATE:20130908T000000Z", "RRULE:FREQ=DAILY").replace(
        "\xff".encode(), b"\xff"
    )
    [entry] = entries(text)
    assert (entry.fields["name"], entry.fields["completion_at"], entry.faults) == ("Milk", "2013-09-01", [])
    assert skipped(text) == [(5, "recurrence_not_kept")]


def test_an_occurrence_of_what_recurs_is_passed_over_and_told_of() -> None:
    text = of_todo("UID:x", "SUMMARY:Milk", "RRULE:FREQ=DAILY") + of_todo("UID:x", "STATUS:x", "RECURRENCE-ID;VALUE=DATE:20130902")
    assert [entry.fields["name"] for entry in entries(text)] == ["Milk"]
    assert skipped(text) == [(6, "recurrence_not_kept"), (14, "occurrence_not_kept")]


def test_a_long_line_that_is_passed_over_is_no_fault() -> None:
    attachment = "\r\n ".join(["ATTACH;ENCODING=BASE64;VALUE=BINARY:", *["A" * 74] * 20_000])
    assert fields("SUMMARY:Milk", attachment, "DESCRIPTION:x")["description"] == "x"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"", 1, "must be BEGIN:VCALENDAR"),
        (b"\r\n\r\n", 1, "must be BEGIN:VCALENDAR"),
        (b"BEGIN:VTODO\r\n", 1, "must be BEGIN:VCALENDAR"),
        (b"SUMMARY:Milk\r\n", 1, "must stand between"),
        (b"name,status\r\n", 1, "is not iCalendar"),
        (b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\n", 2, "must be followed by END:VTODO"),
        (b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nEND:VCALENDAR\r\n", 3, "ends what has not begun"),
        (b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\nEND:VCALENDAR\r\n", 3, "ends what has not begun"),
        (b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nBEGIN:VTODO\r\n", 3, "must not stand in a VTODO"),
        (b"BEGIN:VCALENDAR\r\nBEGIN:<b>\r\n", 2, "must name a component"),
        (b"BEGIN:VCALENDAR\r\n" + b"BEGIN:X-A\r\n" * 1000, 11, "stands in too many components"),
        (b"BEGIN:VCALENDAR\r\nno colon\r\nEND:VCALENDAR\r\n", 2, "is not iCalendar"),
        (b"\xff\xfeB\0E\0", 1, "is not UTF-8: save the file as UTF-8, or name its charset"),
        ("BEGIN:VCALENDAR\r\n".encode("utf-16-be"), 1, "is not UTF-8"),
        (of_todo("UID:x", "SUMMARY:é").decode().encode("latin-1"), 5, "is not UTF-8"),
    ],
)
def test_what_is_not_icalendar_is_refused_by_its_line(text: bytes, line: int, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        list(entries(text))
    [fault] = refused.value.errors
    assert (fault["field"], fault["message"].startswith(message)) == (f"line {line}", True), fault

"""Tasks as iCalendar (RFC 5545): each a VTODO, and back."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from icalendar.parser import Contentline

from rest.errors import InvalidInput
from transfer.entries import MAX_LINE_BYTES, Entry, Line, at_line

HEAD = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Tasks//Task manager//EN\r\n"
END = b"END:VCALENDAR\r\n"
OCTETS_PER_LINE = 75  # section 3.1
STATUSES = {"NEEDS-ACTION": ("new", "planned"), "IN-PROCESS": ("in_work",), "COMPLETED": ("completed",)}  # ours for each of iCalendar's
THEIRS = {ours: theirs for theirs, all_ours in STATUSES.items() for ours in all_ours}
OUR_STATUS, OUR_SUMMARY, OUR_DESCRIPTION = "X-TASK-STATUS", "X-TASK-SUMMARY", "X-TASK-DESCRIPTION"

# TEXT holds no control characters (section 3.3.11): they are shown by their pictures, and an X- property beside has the text as it is.
PICTURES = {code: 0x2400 + code for code in (*range(1, 9), *range(11, 32))} | {127: 0x2421}
ESCAPES = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n"})


# There


def todos(tasks: Iterable[dict[str, Any]]) -> bytes:
    """Return the VTODOs of tasks: each as it is shown, and its `uid`."""
    return b"".join(_folded(line) for task in tasks for line in _todo(task))


def _todo(task: dict[str, Any]) -> Iterator[str]:
    yield "BEGIN:VTODO"
    yield f"UID:{task['uid'].translate(ESCAPES)}"
    yield f"DTSTAMP:{_moment(task['updated_at'])}"  # of what is shown (section 3.8.7.2), so that the same tasks are the same text
    yield f"CREATED:{_moment(task['created_at'])}"
    yield f"LAST-MODIFIED:{_moment(task['updated_at'])}"
    yield from _text("SUMMARY", OUR_SUMMARY, task["name"])
    if task["description"]:
        yield from _text("DESCRIPTION", OUR_DESCRIPTION, task["description"])
    yield f"STATUS:{THEIRS[task['status']]}"
    yield f"{OUR_STATUS}:{task['status']}"
    if task["completion_at"]:
        day, month, year = task["completion_at"].split("-")
        yield f"DUE;VALUE=DATE:{year}{month}{day}"
    if task["completed_at"]:
        yield f"COMPLETED:{_moment(task['completed_at'])}"
    yield "END:VTODO"


def _text(name: str, our_name: str, text: str) -> Iterator[str]:
    shown = _shown(text)
    yield f"{name}:{shown.translate(ESCAPES)}"
    if shown != text:
        exactly = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        yield f"{our_name}:{exactly.translate(ESCAPES)}"


def _shown(text: str) -> str:
    return text.replace("\r\n", "\n").translate(PICTURES)


def _moment(moment: str) -> str:
    return f"{moment[:19].replace('-', '').replace(':', '')}Z"


def _folded(line: str) -> bytes:
    """Return a line in pieces that are short enough, none of which ends within a character. icalendar's own takes 1 us a character."""
    octets, pieces, start = line.encode(), [], 0
    while len(octets) - start > OCTETS_PER_LINE - (start > 0):
        end = start + OCTETS_PER_LINE - (start > 0)
        while octets[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(octets[start:end])
        start = end
    return b"\r\n ".join([*pieces, octets[start:]]) + b"\r\n"


# And back

TAKEN = {"UID", "SUMMARY", "DESCRIPTION", "STATUS", "DUE", "COMPLETED", OUR_STATUS, OUR_SUMMARY, OUR_DESCRIPTION}
REFUSED = dict.fromkeys(("RRULE", "RDATE", "EXRULE", "RECURRENCE-ID"), "a task of ours doesn't recur") | {
    "DURATION": "say by DUE when the task is to be completed"
}  # all other properties are passed over
PASSED_OVER = ("VTIMEZONE", "VALARM", "X-")  # components, by how their names begin
MAX_DEPTH = 10  # components in one another: a time zone's are three
_NAME = re.compile(rb"([A-Za-z0-9-]{1,64})[;:]")
_COMPONENT = re.compile(rb"(?:BEGIN|END):[ \t]*([A-Za-z0-9-]{1,64})[ \t]*", re.IGNORECASE)
_DAY = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:T[0-9]{6}Z?)?")


class Todos:
    """Makes entries of the lines of an iCalendar file."""

    def __init__(self) -> None:
        self._number, self._text = 0, bytearray()  # a content line as far as it has come: the next line may go on with it
        self._open: list[str] = []  # the components that have begun
        self._todo: _Todo | None = None

    def feed(self, line: Line) -> Iterator[Entry]:
        """Return the entry that the line before completes, if it does. Raises InvalidInput where what follows can't be understood."""
        text = line.text.rstrip(b"\r\n")
        if text.startswith((b" ", b"\t")) and self._number:
            if len(self._text) <= MAX_LINE_BYTES:  # what is longer isn't taken, and may be passed over
                self._text += text[1:]
        elif text:
            yield from self._content_line()
            self._number, self._text = line.number, bytearray(text)

    def end(self) -> Iterator[Entry]:
        """Return the entry that the last line completes, if it does. Raises InvalidInput where the file isn't whole."""
        yield from self._content_line()
        if self._open or not self._number:
            raise self._fault(f"must be followed by END:{self._open[-1]}" if self._open else "must be BEGIN:VCALENDAR")

    def _content_line(self) -> Iterator[Entry]:
        if not self._number:
            return
        name = _NAME.match(self._text)
        if name is None:
            raise self._fault("is not iCalendar: it must be a name, a colon and a value")
        match name[1].decode().upper():
            case "BEGIN":
                yield from self._begin(self._component())
            case "END":
                yield from self._end(self._component())
            case _ if not self._open:
                raise self._fault("must stand between BEGIN:VCALENDAR and END:VCALENDAR")
            case other if self._todo and len(self._open) == 2:
                self._todo.take(self._number, other, bytes(self._text))

    def _component(self) -> str:
        if component := _COMPONENT.fullmatch(self._text):
            return component[1].decode().upper()
        raise self._fault("must name a component")

    def _begin(self, component: str) -> Iterator[Entry]:
        if not self._open and component != "VCALENDAR":
            raise self._fault("must be BEGIN:VCALENDAR")
        if self._todo and component in ("VTODO", "VEVENT", "VJOURNAL"):
            raise self._fault("must not stand in a VTODO")
        if len(self._open) == MAX_DEPTH:
            raise self._fault("stands in too many components")
        if len(self._open) == 1 and component == "VTODO":
            self._todo = _Todo(self._number)
        elif len(self._open) == 1 and not component.startswith(PASSED_OVER):
            yield Entry(self._number, {}, faults=[at_line(self._number, f"begins a {component}: only a VTODO is a task")])
        self._open.append(component)

    def _end(self, component: str) -> Iterator[Entry]:
        if not self._open or self._open.pop() != component:
            raise self._fault("ends what has not begun, or not what began last")
        if self._todo and len(self._open) == 1:
            yield self._todo.entry()
            self._todo = None

    def _fault(self, message: str) -> InvalidInput:
        return InvalidInput(at_line(self._number or 1, message))


class _Todo:
    """The properties of a VTODO as they come."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._values: dict[str, tuple[int, str]] = {}
        self._faults: list[tuple[int, str]] = []

    def take(self, number: int, name: str, text: bytes) -> None:
        """Take a property, or say what is wrong with it, or pass it over."""
        if name in REFUSED:
            self._refuse(number, f"{name} is not taken: {REFUSED[name]}")
        elif name in self._values:
            self._refuse(number, f"{name} must not stand twice")
        elif name in TAKEN:
            try:
                _, parameters, value = Contentline(text.decode()).parts()
            except ValueError:
                self._refuse(number, f"{name} can't be read")
                return
            if len(text) > MAX_LINE_BYTES or "ENCODING" in parameters:
                self._refuse(number, f"{name} must be text as it is, without ENCODING" if "ENCODING" in parameters else "is too long")
            self._values[name] = number, value

    def entry(self) -> Entry:
        """Return what it says."""
        fields = {"uid": self._value("UID"), "description": self._exact_text("DESCRIPTION", OUR_DESCRIPTION)}
        if "SUMMARY" in self._values:
            fields["name"] = self._exact_text("SUMMARY", OUR_SUMMARY)
        fields |= self._status() | self._day()
        named = {"name": "SUMMARY", "description": "DESCRIPTION", "status": "STATUS", "completion_at": "DUE"}
        places = {field: (self._number(name), name) for field, name in named.items()}
        return Entry(self._line, fields, places, [at_line(*fault) for fault in sorted(self._faults)])

    def _status(self) -> dict[str, Any]:
        theirs = self._value("STATUS").strip().upper() or ("COMPLETED" if "COMPLETED" in self._values else "NEEDS-ACTION")
        if theirs not in STATUSES:
            self._refuse(self._number("STATUS"), f"STATUS must be one of {', '.join(STATUSES)}")
            return {}
        alike, ours = STATUSES[theirs], self._value(OUR_STATUS).strip()
        return {"status": ours} if ours in alike else {"status": alike[0], "alike": alike}

    def _day(self) -> dict[str, Any]:
        if "DUE" not in self._values:
            return {"completion_at": ""}
        day = _DAY.fullmatch(self._value("DUE").strip())
        if not day:
            self._refuse(self._number("DUE"), "DUE must be a date, or a date and a time")
        return {"completion_at": "-".join(day.groups())} if day else {}

    def _exact_text(self, name: str, our_name: str) -> str:
        shown = self._value(name)
        try:
            ours = json.loads(self._value(our_name))
        except (ValueError, RecursionError):
            return shown
        return ours if isinstance(ours, str) and _shown(ours) == shown else shown

    def _value(self, name: str) -> str:
        return self._values[name][1] if name in self._values else ""

    def _number(self, name: str) -> int:
        return self._values[name][0] if name in self._values else self._line

    def _refuse(self, line: int, message: str) -> None:
        if len(self._faults) < InvalidInput.most:  # nobody reads more
            self._faults.append((line, message))

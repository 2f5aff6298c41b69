"""The tasks of an iCalendar file (RFC 5545): its VTODOs; what it has besides is passed over."""

import re
from collections.abc import Iterator

from rest.bodies import may_be_shown
from rest.error_codes import ErrorCode
from rest.errors import InvalidInput
from transfer.entries import MAX_LINE_BYTES, NOT_UTF8, Entry, Line, Skipped, at_line
from transfer.ics_todo import TAKEN, Todo

NO_PROPERTY = "is not iCalendar: it must be a name, a colon and a value"
MAX_DEPTH = 10  # components in one another: a time zone's are three
_NAME = re.compile(rb'([^\x00-\x20\x7f:;"]+)[;:]')
_COMPONENT = re.compile(rb"(?:BEGIN|END):[ \t]*([A-Za-z0-9_.-]{1,64})[ \t]*", re.IGNORECASE)


class Todos:
    """Makes entries of the lines of an iCalendar file."""

    def __init__(self) -> None:
        self._number, self._text = 0, bytearray()  # a content line as far as it has come: the next line may go on with it
        self._open: list[str] = []  # the components that have begun
        self._todo: Todo | None = None

    def feed(self, line: Line) -> Iterator[Entry | Skipped]:
        """Return what the line before completes, if it does. Raises InvalidInput where what follows can't be understood."""
        text = line.text.rstrip(b"\r\n")
        if text.startswith((b" ", b"\t")) and self._number:
            if len(self._text) <= MAX_LINE_BYTES:  # what is longer isn't taken, and may be passed over
                self._text += text[1:]
        elif text:
            yield from self._content_line()
            self._number, self._text = line.number, bytearray(text)

    def end(self) -> Iterator[Entry | Skipped]:
        """Return what the last line completes, if it does. Raises InvalidInput where the file isn't whole."""
        yield from self._content_line()
        if self._open or not self._number:
            raise self._fault("malformed", f"must be followed by END:{_named(self._open[-1])}" if self._open else "must be BEGIN:VCALENDAR")

    def _content_line(self) -> Iterator[Entry | Skipped]:
        if not self._number:
            return
        name = _NAME.match(self._text)
        match name[1].decode("ascii", "replace").upper() if name else None:
            case "BEGIN":
                yield from self._begin(self._component())
            case "END":
                yield from self._end(self._component())
            case _ if self._is_passed_over:
                return
            case None if self._todo and self._is_text:
                self._todo.refuse(self._number, "malformed", NO_PROPERTY)
            case None:
                raise self._fault("malformed", NO_PROPERTY) if self._is_text else self._fault("not_utf_8", NOT_UTF8)
            case _ if not self._open:
                raise self._fault("malformed", "must stand between BEGIN:VCALENDAR and END:VCALENDAR")
            case other if other in TAKEN and self._todo and not self._is_text:
                raise self._fault("not_utf_8", NOT_UTF8)
            case other if self._todo:
                self._todo.take(self._number, other, bytes(self._text))

    @property
    def _is_passed_over(self) -> bool:
        return len(self._open) > (2 if self._todo else 1)

    @property
    def _is_text(self) -> bool:
        try:
            return "\0" not in self._text.decode()  # what has them is UTF-16
        except UnicodeDecodeError:
            return False

    def _component(self) -> str:
        if component := _COMPONENT.fullmatch(self._text):
            return component[1].decode().upper()
        raise self._fault("malformed", "must name a component")

    def _begin(self, component: str) -> Iterator[Skipped]:
        if not self._open and component != "VCALENDAR":
            raise self._fault("malformed", "must be BEGIN:VCALENDAR")
        if self._todo and component in ("VTODO", "VEVENT", "VJOURNAL"):
            raise self._fault("malformed", "must not stand in a VTODO")
        if len(self._open) == MAX_DEPTH:
            raise self._fault("malformed", "stands in too many components")
        if len(self._open) == 1 and component == "VTODO":
            self._todo = Todo(self._number)
        elif len(self._open) == 1 and component != "VTIMEZONE":
            yield Skipped(self._number, "not_a_task", f"begins a {_named(component)}: only a VTODO is a task")
        self._open.append(component)

    def _end(self, component: str) -> Iterator[Entry | Skipped]:
        if not self._open or self._open.pop() != component:
            raise self._fault("malformed", "ends what has not begun, or not what began last")
        if self._todo and len(self._open) == 1:
            yield from self._todo.entries()
            self._todo = None

    def _fault(self, code: ErrorCode, message: str) -> InvalidInput:
        return InvalidInput(at_line(self._number or 1, code, message))


def _named(component: str) -> str:
    return component if may_be_shown(component) else "..."

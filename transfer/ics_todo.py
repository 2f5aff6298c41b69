"""What a VTODO (RFC 5545) says of a task, whichever program wrote it."""

import json
import re
from collections.abc import Iterator
from datetime import UTC
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from rest.error_codes import ErrorCode
from rest.errors import FieldError, InvalidInput
from rest.values import is_blank
from transfer.entries import MAX_LINE_BYTES, Entry, Skipped, at_line, moment_text, read_moment
from transfer.ics_format import OUR_DESCRIPTION, OUR_STATUS, OUR_SUMMARY, STATUSES, shown

NAMED = {
    "uid": "UID",
    "name": "SUMMARY",
    "description": "DESCRIPTION",
    "status": "STATUS",
    "completion_at": "DUE",
    "completed_at": "COMPLETED",
}
TAKEN = {*NAMED.values(), "PERCENT-COMPLETE", OUR_STATUS, OUR_SUMMARY, OUR_DESCRIPTION}
RECURRING = {"RRULE", "RDATE", "EXRULE"}
REFUSED = {"DURATION": "say by DUE when the task is to be completed"}  # all other properties are passed over
MAX_DESCRIPTION = 10_000  # in which a title is looked for: a longer one isn't taken
NO_TITLE, MAX_TITLE = "(no title)", 80  # what a task is called that has no SUMMARY: the first words of its DESCRIPTION, if it has one
_TIME = "(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9]|60)"
_DAY = re.compile(f"([0-9]{{4}})([0-9]{{2}})([0-9]{{2}})(?:T{_TIME}Z?)?")
_MOMENT = re.compile("([0-9]{4})([0-9]{2})([0-9]{2})(?:T([0-9]{2})([0-9]{2})([0-9]{2})(Z?))?")
_PERCENT = re.compile(r"\+?0*(100|[0-9]{1,2})")
MAX_PARAMETERS = 100  # of a line; the standard has some twenty
# A content line (section 3.1), leniently: with blanks around its parameters, and without a value. All is possessive, so that time grows as
# the line does.
_CONTROLS = r"\x00-\x08\x0a-\x1f\x7f"
_VALUE = rf'(?:[ \t]*+"[^"{_CONTROLS}]*+"[ \t]*+|(?:\\[^"{_CONTROLS}]|[^",:;\\{_CONTROLS}])*+)'
_VALUES = rf"{_VALUE}(?:,{_VALUE})*+"
_LINE = re.compile(rf"[^:;]++((?:;[ \t]*+[\w.-]++[ \t]*+={_VALUES}){{0,{MAX_PARAMETERS}}}+)(?::(.*+))?", re.DOTALL)
_PARAMETER = re.compile(rf";[ \t]*+([\w.-]++)[ \t]*+=({_VALUES})")


class _Property(NamedTuple):
    line: int
    value: str
    time_zone: str


class Todo:
    """The properties of a VTODO as they come."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._values: dict[str, _Property] = {}
        self._faults: list[FieldError] = []
        self._recurs = self._is_occurrence = 0  # the line that says so

    def take(self, number: int, name: str, text: bytes) -> None:
        """Take a property, or say what is wrong with it, or pass it over."""
        if name in RECURRING:
            self._recurs = self._recurs or number
        elif name == "RECURRENCE-ID":
            self._is_occurrence = number
        elif name in REFUSED:
            self._refuse(number, "not_taken", name, f"is not taken: {REFUSED[name]}")
        elif name in self._values:
            self._refuse(number, "repeated", name, "must not stand twice")
        elif name in TAKEN:
            if not (line := _LINE.fullmatch(text.decode())):
                self._refuse(number, "malformed", name, "can't be read")
                return
            parameters = {parameter[1].upper(): parameter[2] for parameter in _PARAMETER.finditer(line[1])}
            if "ENCODING" in parameters:
                self._refuse(number, "not_taken", name, "must be text as it is, without ENCODING")
            elif len(text) > MAX_LINE_BYTES:
                self._refuse(number, "too_long", name, "is too long", max=MAX_LINE_BYTES)
            self._values[name] = _Property(number, _unescaped(line[2] or ""), parameters.get("TZID", "").strip(' \t"'))

    def refuse(self, line: int, code: ErrorCode, message: str, **params: Any) -> None:
        """Say what is wrong with a line of it."""
        if len(self._faults) < InvalidInput.most:  # nobody reads more
            self._faults.append(at_line(line, code, message, **params))

    def entries(self) -> Iterator[Entry | Skipped]:
        """Return what it says, and what is passed over of it."""
        if self._is_occurrence:  # its series has the same UID
            words = "RECURRENCE-ID makes it one occurrence of a series, which a task of ours doesn't have"
            yield Skipped(self._is_occurrence, "occurrence_not_kept", words)
            return
        if self._recurs:
            yield Skipped(self._recurs, "recurrence_not_kept", "a task of ours doesn't recur: it is taken once, without its rule")
        yield self._entry()

    def _entry(self) -> Entry:
        fields: dict[str, Any] = {"uid": self._value("UID"), "description": self._exact_text("DESCRIPTION", OUR_DESCRIPTION)}
        if name := self._exact_text("SUMMARY", OUR_SUMMARY):
            fields |= {} if is_blank(name) else {"name": name}
        fields |= {"title": _title(fields["description"])} | self._status() | self._day()
        fields |= self._completed_at(fields.get("status"))
        if self._faults:  # two that differ in what is wrong are not the same
            fields["said"] = {name: taken.value for name, taken in self._values.items()}
        places = {field: (self._number(name), name) for field, name in NAMED.items()}
        return Entry(self._line, fields, places, sorted(self._faults, key=lambda fault: (fault["params"]["line"], fault["message"])))

    def _status(self) -> dict[str, Any]:
        percent = self._percent()
        guessed = "COMPLETED" if "COMPLETED" in self._values or percent == 100 else "IN-PROCESS" if percent else "NEEDS-ACTION"
        theirs = self._value("STATUS").strip().upper() if "STATUS" in self._values else guessed
        if theirs not in STATUSES:
            self._refuse(self._number("STATUS"), "not_one_of", "STATUS", f"must be one of {', '.join(STATUSES)}", values=[*STATUSES])
            return {}
        alike, ours = STATUSES[theirs], self._value(OUR_STATUS).strip()
        return {"status": ours} if ours in alike else {"status": alike[0], "alike": alike}

    def _percent(self) -> int:
        if "PERCENT-COMPLETE" not in self._values:
            return 0
        percent = _PERCENT.fullmatch(self._value("PERCENT-COMPLETE").strip())
        if not percent:
            self._refuse(self._number("PERCENT-COMPLETE"), "not_a_number", "PERCENT-COMPLETE", "must be a whole number from 0 to 100")
        return int(percent[1]) if percent else 0

    def _day(self) -> dict[str, Any]:
        if "DUE" not in self._values:
            return {"completion_at": ""}
        day = _DAY.fullmatch(self._value("DUE").strip())
        if not day:
            self._refuse(self._number("DUE"), "not_a_day", "DUE", "must be a date, or a date and a time")
        return {"completion_at": "-".join(day.groups())} if day else {}

    def _completed_at(self, status: str | None) -> dict[str, Any]:
        if "COMPLETED" not in self._values:
            return {}
        line, value, time_zone = self._values["COMPLETED"]
        try:
            moment = _moment(value.strip(), time_zone)
        except (ValueError, OverflowError):
            self._refuse(line, "not_a_moment", "COMPLETED", "must be a date and a time in UTC: 20180417T184302Z")
            return {}
        return {"completed_at": moment} if status == "completed" else {}

    def _exact_text(self, name: str, our_name: str) -> str:
        visible = self._value(name)
        try:
            ours = json.loads(self._value(our_name))
        except (ValueError, RecursionError):
            return visible
        return ours if isinstance(ours, str) and shown(ours) == visible else visible

    def _value(self, name: str) -> str:
        return self._values[name].value if name in self._values else ""

    def _number(self, name: str) -> int:
        return self._values[name].line if name in self._values else self._line

    def _refuse(self, line: int, code: ErrorCode, name: str, message: str, **params: Any) -> None:
        self.refuse(line, code, f"{name} {message}", name=name, **params)


def _unescaped(text: str) -> str:
    r"""Return what a text says (section 3.3.11). Lines hold no NUL, which stands for \\ meanwhile."""
    for escaped, character in (("\\\\", "\0"), ("\\n", "\n"), ("\\N", "\n"), ("\\,", ","), ("\\;", ";"), ("\\:", ":"), ("\0", "\\")):
        text = text.replace(escaped, character)
    return text


def _title(description: str) -> str:
    """Return what a task is called that has no name."""
    line = next((line for line in description[:MAX_DESCRIPTION].split("\n") if not is_blank(line)), NO_TITLE)
    words = " ".join(line.lstrip()[: 10 * MAX_TITLE].split())
    if is_blank(words):
        return NO_TITLE
    if len(words) <= MAX_TITLE:
        return words
    return (words[: MAX_TITLE + 1].rpartition(" ")[0] or words[: MAX_TITLE - 1]) + "…"


def _moment(text: str, time_zone: str) -> str:
    """Return a moment in UTC, in which it is to be (section 3.8.2.1), unless it names a time zone that is known here.

    Raises ValueError, OverflowError.
    """
    form = _MOMENT.fullmatch(text)
    if not form:
        raise ValueError(text)
    year, month, day, hour, minute, second, is_utc = form.groups(default="00")
    moment = read_moment(f"{year}-{month}-{day}T{hour}:{minute}:{second}Z")
    zone = None if form[4] is None or is_utc == "Z" else _zone(time_zone)
    return moment_text(moment.replace(tzinfo=zone).astimezone(UTC) if zone else moment)


@lru_cache(256)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None

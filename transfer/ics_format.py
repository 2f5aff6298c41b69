"""Tasks as iCalendar (RFC 5545): each a VTODO."""

import json
from collections.abc import Iterator
from typing import Any

HEAD = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Tasks//Task manager//EN\r\n"
END = b"END:VCALENDAR\r\n"
OCTETS_PER_LINE = 75  # section 3.1
STATUSES = {"NEEDS-ACTION": ("new", "planned"), "IN-PROCESS": ("in_work",), "COMPLETED": ("completed",)}  # ours for each of iCalendar's
THEIRS = {ours: theirs for theirs, all_ours in STATUSES.items() for ours in all_ours}
OUR_STATUS, OUR_SUMMARY, OUR_DESCRIPTION = "X-TASK-STATUS", "X-TASK-SUMMARY", "X-TASK-DESCRIPTION"

# TEXT holds no control characters (section 3.3.11): they are shown by their pictures, and an X- property beside has the text as it is.
PICTURES = {code: 0x2400 + code for code in (*range(1, 9), *range(11, 32))} | {127: 0x2421}
ESCAPES = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n"})


def todo(task: dict[str, Any]) -> bytes:
    """Return the VTODO of a task: as it is shown, and its `uid`."""
    return b"".join(map(_folded, _todo(task)))


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
    visible = shown(text)
    yield f"{name}:{visible.translate(ESCAPES)}"
    if visible != text:
        exactly = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        yield f"{our_name}:{exactly.translate(ESCAPES)}"


def shown(text: str) -> str:
    """Return a text as calendars can show it."""
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

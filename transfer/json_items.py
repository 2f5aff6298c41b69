"""The items of a JSON object that is read as it comes, so that it may be longer than what fits into memory.

ijson reads such streams, too; its events, one for each value, cost several times what a match for each item does.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple

import orjson

from rest.errors import InvalidInput
from transfer.entries import at_line

MAX_RUNS = 1000  # of an object's text: its strings, its objects, and what stands between two of them; each member has up to four
MAX_ITEM_BYTES = 320 * 1024  # two descriptions of 10,000 characters, each written as a pair of escapes, have 240,000


class Item(NamedTuple):
    """A member that is an object, or an item of one that is an array; `text` is None where the array begins."""

    line: int
    member: str
    text: bytes | None


def _object(within: bytes = b"") -> bytes:
    return rb'\{(?:[^{}"]++|' + _STRING + within + rb"){0,%d}+\}" % MAX_RUNS


_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\.)*+"'
_ITEM = _object(b"|" + _object(b"|" + _object()))  # in which objects stand no deeper: possessive, so that time grows as the text does
_STEPS = {  # what may come next, after what has come
    "nothing": re.compile(rb"%b(\{)" % _SPACE),
    "object": re.compile(rb"%b(?P<member>%b)%b:%b(?P<value>\[|%b)" % (_SPACE, _STRING, _SPACE, _SPACE, _ITEM)),
    "member": re.compile(rb"%b([,}])" % _SPACE),
    "array": re.compile(rb"%b(\]|%b)" % (_SPACE, _ITEM)),
    "item": re.compile(rb"%b([,\]])" % _SPACE),
    "comma": re.compile(rb"%b(%b)(?P<comma>%b,)?+" % (_SPACE, _ITEM, _SPACE)),  # and the next, so that most items take but one step
    "end": re.compile(rb"([ \t\r\n]++)"),
}


_LISTED = re.compile(rb"(%b)(?:,|\Z)" % _ITEM)


def listed(array: bytes) -> Iterator[bytes]:
    """Yield the items of an array of ours, whose brackets are left out. Raises ValueError where it is none."""
    position = 0
    while position < len(array):
        item = _LISTED.match(array, position)
        if not item:
            raise ValueError("no array of objects")
        yield item[1]
        position = item.end()


class Items:
    """Takes an object apart, piece by piece."""

    def __init__(self) -> None:
        self.line = 1  # of what comes next
        self._has_come, self._member, self._rest = "nothing", "", b""

    def feed(self, piece: bytes) -> Iterator[Item]:
        """Return the items that this piece completes. Raises InvalidInput where one is none."""
        text, position = self._rest + piece, 0
        while step := _STEPS[self._has_come].match(text, position):
            begins, ends = step.start("value" if self._has_come == "object" else 1), step.end()
            self.line += text.count(b"\n", position, begins)
            if item := self._take(step):
                yield item
            self.line += text.count(b"\n", begins, ends)
            position = ends
        self._rest = text[position:]
        if len(self._rest) > MAX_ITEM_BYTES or (self._has_come == "end" and self._rest):
            raise self._fault()

    def end(self) -> None:
        """Raise InvalidInput where the object isn't whole."""
        if self._rest.strip():
            raise self._fault()
        if self._has_come != "end":
            raise InvalidInput(detail="The file ends too early: it isn't whole.")

    def _take(self, step: re.Match[bytes]) -> Item | None:
        match self._has_come:
            case "comma":
                self._has_come = "comma" if step["comma"] else "item"
                return Item(self.line, self._member, step[1])
            case "array":
                self._has_come = "member" if step[1] == b"]" else "item"
                return None if step[1] == b"]" else Item(self.line, self._member, step[1])
            case "item":
                self._has_come = "comma" if step[1] == b"," else "member"
            case "object":
                self._member = self._read_name(step["member"])
                is_array = step["value"] == b"["
                self._has_come = "array" if is_array else "member"
                return Item(self.line, self._member, None if is_array else step["value"])
            case "member":
                self._has_come = "object" if step[1] == b"," else "end"
            case "nothing":
                self._has_come = "object"
        return None

    def _read_name(self, text: bytes) -> str:
        try:
            return str(orjson.loads(text))
        except ValueError:
            raise self._fault() from None

    def _fault(self) -> InvalidInput:
        line = self.line + self._rest[: len(self._rest) - len(self._rest.lstrip())].count(b"\n")
        words = {"nothing": "must begin an object", "end": "stands after the end"}
        return InvalidInput(at_line(line, "malformed", words.get(self._has_come, "is no JSON, or too long, or not what may stand here")))


async def read_items(pieces: AsyncIterator[bytes]) -> AsyncIterator[Iterable[Item]]:
    """Yield the items of an object, as many at a time as have come, each found as it is taken; all are to be.

    Raises InvalidInput, and what `pieces` raises.
    """
    items = Items()
    async for piece in pieces:
        yield items.feed(piece)
    items.end()

"""The values of which any fields are made: how each is written, read and limited, and how the document describes it."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache, partial
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from rest.error_codes import wrong

MAX_MOMENT = datetime.max.replace(tzinfo=UTC)
MAX_ID = 2**63 - 1
MAX_PER_PAGE = 1000
MAX_MARKS_IN_A_ROW = 30  # Unicode's stream-safe text (UAX #15): to normalise a run takes the square of its length
MAX_MARKS_STORED = 63  # 0.1.0 counted those sent: each may be two where it is taken apart, and what they stand on may have three
MARKS_BY_DECOMPOSITION = "\u0f73\u0f75\u0f81"
FEWEST_MARKS_SENT = 14  # that are more than the first of these numbers where they are taken apart: 3 + 2 * 14


def clean(value: str, *, max_marks: int = MAX_MARKS_IN_A_ROW) -> str:
    """Return the text in Unicode's form NFC. Raises a ValueError where it has what can't be stored or takes too long."""
    if "\0" in value:
        raise wrong("characters_not_allowed", "must not contain NUL")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong("characters_not_allowed", "must not contain lone surrogates") from None
    if _may_have_many_marks(value) and _longest_run_of_marks(value) > max_marks:
        raise wrong("too_many_marks", "must not contain more than {max} combining marks in a row", max=MAX_MARKS_IN_A_ROW)
    return unicodedata.normalize("NFC", value)


def _may_have_many_marks(text: str) -> bool:
    """Return whether one of some characters is a mark, of which each long run has one."""
    some = text[::FEWEST_MARKS_SENT]
    return any(map(unicodedata.combining, some)) or any(mark in some for mark in MARKS_BY_DECOMPOSITION)


def _longest_run_of_marks(text: str) -> int:
    """Return how many marks stand in a row where the text is taken apart (NFD), so that it is the same in whichever form it is sent."""
    longest = run = 0
    for character in text:
        marks, are_all = _marks(character)
        run = run + marks if are_all else marks
        longest = max(longest, run)
    return longest


@lru_cache(4096)
def _marks(character: str) -> tuple[int, bool]:
    """Return how many marks a character ends with where it is taken apart, and whether it is nothing else."""
    apart = unicodedata.normalize("NFD", character)
    marks = sum(map(bool, map(unicodedata.combining, apart)))
    return marks, marks == len(apart)


def is_blank(text: str) -> bool:
    """Return whether nothing of the text can be seen: it is empty, or of white space and invisible characters alone."""
    return BLANK.fullmatch(text) is not None


def not_blank(value: str) -> str:
    """Return a text that can be seen. Raises a ValueError for any other."""
    if is_blank(value):
        raise wrong("blank", "must not be blank: something in it must be visible")
    return value


def _number(value: object, info: ValidationInfo) -> object:
    textual = (info.context or {}).get("textual")
    if textual and isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,18}", value):
        return int(value)
    if textual or isinstance(value, bool) or not isinstance(value, int):
        raise wrong("not_a_number", "must be a whole number")
    return value


def _flag(value: object, info: ValidationInfo) -> object:
    if (info.context or {}).get("textual") and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise wrong("not_a_boolean", "must be true or false")
    return value


_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def _moment(value: object) -> datetime:
    """Read a moment, to the microsecond that isn't before it: what is stored has microseconds."""
    moment, is_beyond = _microsecond(value)
    return moment + timedelta(microseconds=is_beyond) if moment < MAX_MOMENT else moment


def _past_moment(value: object) -> datetime:
    """Read a moment, to the microsecond that isn't after it."""
    return _microsecond(value)[0]


def _microsecond(value: object) -> tuple[datetime, bool]:
    form = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if not form:
        raise wrong("not_a_moment", "must be a moment as RFC 3339 writes it: 2026-11-24T09:30:00Z (in an address, + is written %2B)")
    day, time, second, fraction, zone = form.groups(default="")
    leap = second == "60"  # a second that Python's clock doesn't have
    try:
        moment = datetime.fromisoformat(f"{day}T{time}:{'59' if leap else second}.{fraction[:6]:0<6}{zone.upper()}")
    except ValueError:
        raise wrong("not_a_moment", "must be a moment that the calendar and the clock have") from None
    try:
        return moment.astimezone(UTC) + timedelta(seconds=leap), bool(fraction[6:].strip("0"))
    except OverflowError:  # where the zone carries it beyond the years that there are, nothing is beyond it
        return (datetime(1, 1, 1, tzinfo=UTC) if moment.year == 1 else MAX_MOMENT), False


def text_schema(description: str, *examples: str, **more: Any) -> WithJsonSchema:
    """Describe a value that is written as text."""
    return WithJsonSchema({"type": "string", "description": description, **({"examples": list(examples)} if examples else {}), **more})


class DescribedAs:
    """Describe a value as the document does another type, with words of its own."""

    def __init__(self, kind: Any, **more: Any) -> None:
        self._kind, self._more = kind, more

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(TypeAdapter(self._kind).core_schema) | self._more


# For the document, in what Python, ECMA 262 and Rust read alike: their classes of white space differ.
NUL = r"\u0000"
WIDE = r"\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
SPACE = rf"\u0009-\u000d\u001c-\u0020\u0085\u00a0{WIDE}"
# Default_Ignorable_Code_Point of DerivedCoreProperties.txt (Unicode 16, with what is reserved for later ones), and Braille's empty pattern.
# Beyond U+FFFF no way to write a range is read by all of them: for those, and for nothing else, the format stands.
INVISIBLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff0-\ufff8"
)
BLANK = re.compile(rf"[{SPACE}{INVISIBLE}\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*")
CLEAN = {"pattern": rf"^[^{NUL}]*$"}
VISIBLE = {"pattern": rf"^[^{NUL}]*[^{NUL}{SPACE}{INVISIBLE}][^{NUL}]*$", "format": "visible"}

Text = Annotated[str, AfterValidator(clean), Field(json_schema_extra=CLEAN)]
StoredText = Annotated[str, AfterValidator(partial(clean, max_marks=MAX_MARKS_STORED)), Field(json_schema_extra=CLEAN)]
Id = Annotated[int, Field(ge=1, le=MAX_ID, examples=[1])]
Number = Annotated[Id, BeforeValidator(_number)]
Natural = Annotated[int, Field(ge=0, le=MAX_ID, examples=[1]), BeforeValidator(_number)]
Limit = Annotated[int, Field(ge=1, le=MAX_PER_PAGE, description="how many at the most"), BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
_A_MOMENT = "a moment as RFC 3339 writes it"
Moment = Annotated[datetime, BeforeValidator(_moment), text_schema(_A_MOMENT, "2026-11-24T09:30:00Z", format="date-time")]
PastMoment = Annotated[  # without an example: none would be of a time at which a new account had tasks
    datetime, BeforeValidator(_past_moment), text_schema(f"{_A_MOMENT}: 2026-11-24T09:30:00Z", format="date-time")
]

# What is only shown

MOMENT = {"format": "date-time", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"}
ShownMoment = Annotated[str, Field(examples=["2026-11-24T09:30:00.123456Z"], json_schema_extra=MOMENT)]
Revision = Annotated[int, Field(examples=[7])]


class Strict(BaseModel):
    """Input: text is text, numbers are numbers, and what isn't named here is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @property
    def said(self) -> str:
        """What was sent, normalised, as JSON. Defaults are left out: what a later version knows besides is no part of it."""
        return self.model_dump_json(exclude_defaults=True)


class Confidential(Strict):
    """Input with a secret in it: a name that it doesn't know isn't sent back, for it may be the secret, misplaced."""


class Page(Strict):
    """Which part of a listing."""

    limit: Limit = MAX_PER_PAGE
    cursor: Annotated[Text | None, Field(min_length=1, description="where the page before ended: take it from that page's Link")] = None

    @cached_property
    def listing(self) -> str:
        """What all pages of one listing have in common, and no two listings."""
        return self.model_dump_json(exclude={"cursor"}, exclude_defaults=True)

    @property
    def as_of(self) -> int | None:
        """Which revision all pages of the listing show; None where each shows the present one."""
        return None

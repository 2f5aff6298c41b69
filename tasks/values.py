"""The values of which a task's fields are made: how each is written, read and limited, and how the document describes it."""

import re
import unicodedata
from datetime import date
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from typing_extensions import TypeAliasType

from rest.error_codes import wrong
from rest.values import NUL, SPACE, VISIBLE, DescribedAs, StoredText, Text, clean, not_blank, text_schema

Status = TypeAliasType("Status", Literal["new", "planned", "in_work", "completed"])
STATUSES: tuple[str, ...] = get_args(Status.__value__)
MAX_WORDS, MAX_WORD_LENGTH = 10, 100  # that a search looks for: at worst each takes the product of its length and the text's
MAX_UID = 1000


def _not_only_space(value: str) -> str:
    if not value.strip():
        raise wrong("blank", "must not be blank")
    return value


def _without_controls(value: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value[:MAX_UID]):  # a longer one is refused for its length
        raise wrong("characters_not_allowed", "must not contain control characters")
    return value


_DAY = re.compile(r"([0-9]{2})-([0-9]{2})-([0-9]{4})|([0-9]{4})-([0-9]{2})-([0-9]{2})")


def _day(value: object) -> date:
    form = _DAY.fullmatch(value) if isinstance(value, str) else None
    if not form:
        raise wrong("not_a_day", "must be a date: DD-MM-YYYY or YYYY-MM-DD")
    year, month, day_of_month = form.group(3, 2, 1) if form[1] else form.group(4, 5, 6)
    try:
        day = date(int(year), int(month), int(day_of_month))
    except ValueError:
        raise wrong("not_a_day", "must be a day that the calendar has") from None
    if day.year < 1900:
        raise wrong("too_small", "must be in the years 1900 to 9999", min="01-01-1900")
    return day


def _day_or_none(value: object) -> date | None:
    return None if value in ("", None) else _day(value)


def _statuses(value: object) -> tuple[str, ...]:
    statuses = value.split(",") if isinstance(value, str) else []
    if not statuses or any(status not in STATUSES for status in statuses):
        raise wrong("not_one_of", f"must be one or more of {', '.join(STATUSES)}, separated by commas", values=STATUSES)
    return tuple(status for status in STATUSES if status in statuses)


def _words(value: object) -> tuple[str, ...]:
    words = clean(value).split() if isinstance(value, str) else []
    if len(words) > MAX_WORDS:
        raise wrong("too_many", "must not have more than {max} words", max=MAX_WORDS)
    if any(len(word) > MAX_WORD_LENGTH for word in words):
        raise wrong("too_long", "must not have words of more than {max} characters", max=MAX_WORD_LENGTH)
    return tuple(sorted(set(words)))


_D, _M, _Y = "(0[1-9]|[12][0-9]|3[01])", "(0[1-9]|1[0-2])", "(19|[2-9][0-9])[0-9]{2}"
_A_DAY = f"{_D}-{_M}-{_Y}|{_Y}-{_M}-{_D}"  # and the format: that the month has it
Name = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=200,
        description="what is to be done; something in it must be visible",
        examples=["Buy milk"],
        json_schema_extra=VISIBLE,
    ),
    AfterValidator(not_blank),
]
Description = Annotated[Text, Field(max_length=10_000, description="may be empty", examples=["Two litres, the fresh one"])]
Uid = Annotated[
    str,
    AfterValidator(_without_controls),
    Field(
        min_length=1,
        max_length=MAX_UID,
        description="what it is called in calendars, where it came with a name; compared character by character",
        examples=["20201002T093000Z-7@tasks.example"],
        json_schema_extra={"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"},
    ),
]
_NOT_ONLY_SPACE = {"pattern": rf"^[^{NUL}]*[^{NUL}{SPACE}][^{NUL}]*$"}
StoredName = Annotated[StoredText, Field(min_length=1, max_length=200, json_schema_extra=_NOT_ONLY_SPACE), AfterValidator(_not_only_space)]
StoredDescription = Annotated[StoredText, Field(max_length=10_000)]
_A_DAY_IN_WORDS = "a day of the calendar as DD-MM-YYYY or YYYY-MM-DD, in the years 1900 to 9999: text, for no type has both forms"
Day = TypeAliasType(
    "Day",
    Annotated[date, BeforeValidator(_day), text_schema(_A_DAY_IN_WORDS, "02-10-2020", format="day", pattern=f"^({_A_DAY})$")],
)
_Empty = Annotated[str, Field(max_length=0)]  # not a Literal: generated clients would ask that of every text that may stand there
DayOrNone = Annotated[
    date | None,
    BeforeValidator(_day_or_none),
    DescribedAs(Day | _Empty | None, description="empty, or null in JSON: none", examples=["02-10-2020"]),
]
DayFilter = Annotated[
    date | Literal["none"],
    BeforeValidator(lambda value: value if value == "none" else _day(value)),
    DescribedAs(
        Day | Literal["none"], description="the day on which it is to be completed; none: tasks without one", examples=["02-10-2020"]
    ),
]
_A_STATUS = f"({'|'.join(STATUSES)})"
StatusFilter = Annotated[
    tuple[str, ...],
    BeforeValidator(_statuses),
    text_schema("one or several, separated by commas", "new", "new,planned,in_work", pattern=f"^{_A_STATUS}(,{_A_STATUS})*$"),
]
_A_WORD = f"[^{NUL}{SPACE}]{{1,{MAX_WORD_LENGTH}}}"
Words = Annotated[
    tuple[str, ...],
    BeforeValidator(_words),
    text_schema(
        f"every one of these words occurs in name or description, in any case; up to {MAX_WORDS} of up to {MAX_WORD_LENGTH} characters",
        "milk",
        pattern=f"^[{SPACE}]*({_A_WORD}([{SPACE}]+{_A_WORD}){{0,{MAX_WORDS - 1}}}[{SPACE}]*)?$",
    ),
]

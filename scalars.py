"""The values of which fields are made: how each is written, read and limited, and how the document describes it."""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

import passwords
import settings

Status = Literal["new", "planned", "in_work", "completed"]
STATUSES: tuple[str, ...] = get_args(Status)
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
LARGEST_ID = 2**63 - 1
MOST_PER_PAGE = 1000
MOST_MARKS_IN_A_ROW = 30  # Unicode's stream-safe text (UAX #15): to normalise a run takes the square of its length
MARKS_BY_DECOMPOSITION = "\u0f73\u0f75\u0f81"


def login_key(login: str) -> str:
    """Give what two logins of one account have in common: neither case nor Unicode form (Unicode 16, D147; RFC 8265 in spirit)."""
    folded = unicodedata.normalize("NFD", login).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()
    return unicodedata.normalize("NFKC", folded)


def is_login(password: str, login: str) -> bool:
    """Tell whether the password is but the login, however written."""
    return login_key(password) == login_key(login)


def _clean(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain NUL")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    if _longest_run_of_marks(value) > MOST_MARKS_IN_A_ROW:
        raise ValueError(f"must not contain more than {MOST_MARKS_IN_A_ROW} combining marks in a row")
    return unicodedata.normalize("NFC", value)


def _longest_run_of_marks(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) or character in MARKS_BY_DECOMPOSITION else 0
        longest = max(longest, run)
    return longest


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _unspaced(value: str) -> str:
    for text in (value, login_key(value)):
        if any(character.isspace() or unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text):
            raise ValueError("must not contain white space, control or format characters")
    return value


def _long_enough(value: str) -> str:
    if len(value) < settings.load().password_min_length:
        raise ValueError(f"must have at least {settings.load().password_min_length} characters")
    return value


def _uncommon(value: str) -> str:
    if passwords.is_common(value):
        raise ValueError("is too common: guessers try it first")
    return value


def _not_too_long(seconds: int) -> int:
    if seconds > settings.load().token_lifetime_most_seconds:
        raise ValueError(f"must be at most {settings.load().token_lifetime_most_seconds} seconds")
    return seconds


def _number(value: object, info: ValidationInfo) -> object:
    textual = (info.context or {}).get("textual")
    if textual and isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,18}", value):
        return int(value)
    if textual or isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    return value


def _flag(value: object, info: ValidationInfo) -> object:
    if (info.context or {}).get("textual") and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


_DAY = re.compile(r"([0-9]{2})-([0-9]{2})-([0-9]{4})|([0-9]{4})-([0-9]{2})-([0-9]{2})")


def _day(value: object) -> date:
    form = _DAY.fullmatch(value) if isinstance(value, str) else None
    if not form:
        raise ValueError("must be a date: DD-MM-YYYY or YYYY-MM-DD")
    year, month, day_of_month = form.group(3, 2, 1) if form[1] else form.group(4, 5, 6)
    try:
        day = date(int(year), int(month), int(day_of_month))
    except ValueError:
        raise ValueError("must be a day that the calendar has") from None
    if day.year < 1900:
        raise ValueError("must be in the years 1900 to 9999")
    return day


def _day_or_none(value: object) -> date | None:
    return None if value in ("", None) else _day(value)


_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def _moment(value: object) -> datetime:
    """Read a moment, to the microsecond that isn't before it: what is stored has microseconds."""
    moment, is_beyond = _microsecond(value)
    return moment + timedelta(microseconds=is_beyond) if moment < LAST_MOMENT else moment


def _past_moment(value: object) -> datetime:
    """Read a moment, to the microsecond that isn't after it."""
    return _microsecond(value)[0]


def _microsecond(value: object) -> tuple[datetime, bool]:
    form = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if not form:
        raise ValueError("must be a moment as RFC 3339 writes it: 2026-11-24T09:30:00Z (in an address, + is written %2B)")
    day, time, second, fraction, zone = form.groups(default="")
    leap = second == "60"  # a second that Python's clock doesn't have
    try:
        moment = datetime.fromisoformat(f"{day}T{time}:{'59' if leap else second}.{fraction[:6]:0<6}{zone.upper()}")
    except ValueError:
        raise ValueError("must be a moment that the calendar and the clock have") from None
    try:
        return moment.astimezone(UTC) + timedelta(seconds=leap), bool(fraction[6:].strip("0"))
    except OverflowError:  # where the zone carries it beyond the years that there are, nothing is beyond it
        return (datetime(1, 1, 1, tzinfo=UTC) if moment.year == 1 else LAST_MOMENT), False


def _statuses(value: object) -> tuple[str, ...]:
    statuses = value.split(",") if isinstance(value, str) else []
    if not statuses or any(status not in STATUSES for status in statuses):
        raise ValueError(f"must be one or more of {', '.join(STATUSES)}, separated by commas")
    return tuple(status for status in STATUSES if status in statuses)


def _words(value: object) -> tuple[str, ...]:
    return tuple(sorted(set(_clean(value).split()))) if isinstance(value, str) else ()


def _text(description: str, *examples: str, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, "examples": list(examples), **more})


def _read(parse: Callable[[object], object]) -> BeforeValidator:
    return BeforeValidator(parse)


# For the document, in what Python, ECMA 262 and Rust read alike: their classes of white space differ.
_NUL = r"\u0000"
_WIDE = r"\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE = rf"\u0009-\u000d\u001c-\u0020\u0085\u00a0{_WIDE}"
_CLEAN = {"pattern": rf"^[^{_NUL}]*$"}
_CLEAN_NOT_BLANK = {"pattern": rf"^[^{_NUL}]*[^{_NUL}{_SPACE}][^{_NUL}]*$"}
_VISIBLE = {"pattern": rf"^[^\u0000-\u0020\u007f-\u00a0{_WIDE}]+$", "format": "login"}  # the format: what no pattern says
_D, _M, _Y = "(0[1-9]|[12][0-9]|3[01])", "(0[1-9]|1[0-2])", "(19|[2-9][0-9])[0-9]{2}"
_A_DAY = f"{_D}-{_M}-{_Y}|{_Y}-{_M}-{_D}"  # and the format: that the month has it

Text = Annotated[str, AfterValidator(_clean), Field(json_schema_extra=_CLEAN)]
Name = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=200,
        description="what is to be done; not only white space",
        examples=["Buy milk"],
        json_schema_extra=_CLEAN_NOT_BLANK,
    ),
    AfterValidator(_not_blank),
]
Description = Annotated[Text, Field(max_length=10_000, description="may be empty", examples=["Two litres, the fresh one"])]
Login = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=64,
        description="case doesn't matter; no white space, control or format characters",
        examples=["alice"],
        json_schema_extra=_VISIBLE,
    ),
    AfterValidator(_unspaced),
]
Password = Annotated[Text, Field(min_length=1, max_length=128, description="any characters", examples=["correct horse battery"])]
_LEAST = settings.Settings.model_fields["password_min_length"].default
NewPassword = Annotated[
    Password,
    AfterValidator(_long_enough),
    AfterValidator(_uncommon),
    Field(
        description=f"any characters; at least {_LEAST} unless the operator set another number; not a common password, nor the login",
        json_schema_extra={"minLength": _LEAST} | _CLEAN,
    ),
]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID, examples=[1])]
Number = Annotated[Id, BeforeValidator(_number)]
_MOST = settings.Settings.model_fields["token_lifetime_most_seconds"].default
TokenLifetime = Annotated[
    Number,
    AfterValidator(_not_too_long),
    Field(
        description=f"for how many seconds the token is good; at most {_MOST} unless the operator set another number",
        json_schema_extra={"maximum": _MOST, "examples": [86400]},
    ),
]
Natural = Annotated[int, Field(ge=0, le=LARGEST_ID, examples=[7]), BeforeValidator(_number)]
Limit = Annotated[int, Field(ge=1, le=MOST_PER_PAGE, description="how many at the most"), BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
_DAYS = "a day as DD-MM-YYYY or YYYY-MM-DD, in the years 1900 to 9999"
Day = Annotated[date, _read(_day), _text(_DAYS, "02-10-2020", format="day", pattern=f"^({_A_DAY})$")]
DayOrNone = Annotated[
    date | None,
    _read(_day_or_none),
    WithJsonSchema(
        {
            "type": ["string", "null"],
            "description": f"{_DAYS}; empty or null: none",
            "examples": ["02-10-2020"],
            "format": "day-or-empty",
            "pattern": f"^({_A_DAY})?$",
        }
    ),
]
DayFilter = Annotated[
    date | Literal["none"],
    _read(lambda value: value if value == "none" else _day(value)),
    _text(f"{_DAYS}; none: tasks without one", "02-10-2020", format="day-or-none", pattern=f"^({_A_DAY}|none)$"),
]
_A_MOMENT = _text("a moment as RFC 3339 writes it", "2026-11-24T09:30:00Z", format="date-time")
Moment = Annotated[datetime, _read(_moment), _A_MOMENT]
PastMoment = Annotated[datetime, _read(_past_moment), _A_MOMENT]
_A_STATUS = f"({'|'.join(STATUSES)})"
StatusFilter = Annotated[
    tuple[str, ...],
    _read(_statuses),
    _text("one or several, separated by commas", "new", "new,planned,in_work", pattern=f"^{_A_STATUS}(,{_A_STATUS})*$"),
]
Words = Annotated[
    tuple[str, ...], _read(_words), _text("every one of these words occurs in name or description, in any case", "milk", **_CLEAN)
]

# What is only shown

MOMENT = {"format": "date-time", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"}
ShownMoment = Annotated[str, Field(examples=["2026-11-24T09:30:00.123456Z"], json_schema_extra=MOMENT)]
Revision = Annotated[int, Field(examples=[7])]

"""What clients send and get, as data: fields, their limits, the statuses. Nothing here knows HTTP or SQL."""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from pydantic import MISSING, AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator

import settings

Status = Literal["new", "planned", "in_work", "completed"]
STATUSES: tuple[str, ...] = get_args(Status)
LOGGED_FIELDS = ("name", "description", "status", "completion_at", "deleted_at")  # the order of one revision's log entries
Order = Literal[
    "id", "-id", "name", "-name", "status", "-status", "completion_at", "-completion_at",
    "created_at", "-created_at", "updated_at", "-updated_at",
]  # fmt: skip
LARGEST_ID = 2**63 - 1
MOST_PER_PAGE = 1000
MOST_MARKS_IN_A_ROW = 30  # Unicode's stream-safe text (UAX #15): to normalise a run takes the square of its length
MARKS_BY_DECOMPOSITION = "\u0f73\u0f75\u0f81"


class Strict(BaseModel):
    """Input: text is text, numbers are numbers, and what isn't named here is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def login_key(login: str) -> str:
    """Give what two logins of one account have in common: neither case nor Unicode form (Unicode 16, D147; RFC 8265 in spirit)."""
    folded = unicodedata.normalize("NFD", login).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()
    return unicodedata.normalize("NFKC", folded)


def _clean(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    if not value.isascii() and _longest_run_of_marks(value) > MOST_MARKS_IN_A_ROW:
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


def _number(value: object, info: ValidationInfo) -> object:
    textual = (info.context or {}).get("textual")
    if textual and isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,18}", value):
        return int(value)
    if textual or isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    return value


def _day(value: object) -> date:
    form = re.fullmatch(r"([0-9]{2})-([0-9]{2})-([0-9]{4})|([0-9]{4})-([0-9]{2})-([0-9]{2})", value) if isinstance(value, str) else None
    if not form:
        raise ValueError("must be a date: DD-MM-YYYY or YYYY-MM-DD")
    d, m, y, iso_y, iso_m, iso_d = (int(part or 0) for part in form.groups())
    try:
        day = date(y or iso_y, m or iso_m, d or iso_d)
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
    form = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if not form:
        raise ValueError("must be a moment as RFC 3339 writes it: 2026-11-24T09:30:00Z (in an address, + is written %2B)")
    day, time, second, fraction, zone = form.groups(default="")
    leap = second == "60"  # a second that Python's clock doesn't have
    try:
        moment = datetime.fromisoformat(f"{day}T{time}:{'59' if leap else second}.{fraction[:6]:0<6}{zone.upper()}")
    except ValueError:
        raise ValueError("must be a moment that the calendar and the clock have") from None
    # What is stored has microseconds: not before a moment between two of them is not before the later one.
    later = timedelta(seconds=leap, microseconds=bool(fraction[6:].strip("0")))
    try:
        return moment.astimezone(UTC) + later
    except OverflowError:  # where the zone carries it beyond the years that there are, nothing is beyond it
        return datetime(1, 1, 1, tzinfo=UTC) if moment.year == 1 else datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


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
    Field(
        description=f"any characters; at least {_LEAST} unless the operator set another number",
        json_schema_extra={"minLength": _LEAST} | _CLEAN,
    ),
]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID, examples=[1])]
Number = Annotated[Id, BeforeValidator(_number)]
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
Moment = Annotated[datetime, _read(_moment), _text("a moment as RFC 3339 writes it", "2026-11-24T09:30:00Z", format="date-time")]
_A_STATUS = f"({'|'.join(STATUSES)})"
StatusFilter = Annotated[
    tuple[str, ...],
    _read(_statuses),
    _text("one or several, separated by commas", "new", "new,planned,in_work", pattern=f"^{_A_STATUS}(,{_A_STATUS})*$"),
]
Words = Annotated[
    tuple[str, ...], _read(_words), _text("every one of these words occurs in name or description, in any case", "milk", **_CLEAN)
]


class Registration(Strict):
    """A new account."""

    login: Login
    password: NewPassword


class Credentials(Strict):
    """An account and the proof that it is one's own."""

    login: Login
    password: Password


class TaskNew(Strict):
    """A new task."""

    name: Name
    description: Description
    status: Status
    completion_at: DayOrNone = None


class TaskChange(Strict):
    """What is to change: a field that isn't sent stays as it is. What was read may be sent back whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "planned"}]})

    name: Name | MISSING = MISSING
    description: Description | MISSING = MISSING
    status: Status | MISSING = MISSING
    completion_at: DayOrNone | MISSING = MISSING
    id: Number | MISSING = Field(MISSING, exclude=True, description="if sent, the one in the address")
    revision: Number | MISSING = Field(MISSING, exclude=True, description="if sent, acts as If-Match")
    created_at: Any = Field(MISSING, exclude=True, description="ignored")
    updated_at: Any = Field(MISSING, exclude=True, description="ignored")
    completed_at: Any = Field(MISSING, exclude=True, description="ignored")
    deleted_at: Any = Field(MISSING, exclude=True, description="ignored")


class Page(Strict):
    """Which part of a listing."""

    limit: Annotated[int, Field(ge=1, le=MOST_PER_PAGE, description="how many at the most"), BeforeValidator(_number)] = MOST_PER_PAGE
    cursor: Annotated[Text | None, Field(min_length=1, description="where the page before ended: take it from that page's Link")] = None

    @cached_property
    def listing(self) -> str:
        """What all pages of one listing have in common, and no two listings."""
        return self.model_dump_json(exclude={"cursor"})


class TaskMatch(Strict):
    """What a task must be to be shown."""

    status: StatusFilter | None = None
    completion_at: DayFilter | None = None


class TaskQuery(Page, TaskMatch):
    """Which tasks, in which order."""

    completion_from: Day | None = None
    completion_to: Day | None = None
    completed_from: Moment | None = None
    completed_to: Moment | None = None
    q: Words | None = None
    sort: Order = "id"

    @field_validator("completion_from", "completion_to")
    @classmethod
    def _one_way_to_say_when(cls, value: date | None, info: ValidationInfo) -> date | None:
        if info.data.get("completion_at") is not None:
            raise ValueError("doesn't go together with completion_at")
        return value


MOMENT = {"format": "date-time", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"}
_Moment = Annotated[str, Field(examples=["2026-11-24T09:30:00.123456Z"], json_schema_extra=MOMENT)]
Revision = Annotated[int, Field(examples=[7])]


class Task(BaseModel):
    """A task as it is shown; all keys are always there."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["Buy milk"])
    description: str = Field(examples=["Two litres, the fresh one"])
    status: Status
    completion_at: str | None = Field(description="DD-MM-YYYY", examples=["02-10-2020"])
    created_at: _Moment
    updated_at: _Moment
    completed_at: _Moment | None = Field(description="when the status last became completed; null while it isn't", examples=[None])
    deleted_at: _Moment | None = Field(examples=[None])
    revision: Revision


class LogEntry(BaseModel):
    """One field that one change altered; values are written as in the task."""

    revision: Revision
    changed_at: _Moment
    field: Literal["name", "description", "status", "completion_at", "deleted_at"] = Field(examples=["status"])
    old: str | None = Field(examples=["new"])
    new: str | None = Field(examples=["planned"])


class Token(BaseModel):
    """A token to send as `Authorization: Bearer <access_token>`."""

    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int = Field(description="seconds", examples=[2592000])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"

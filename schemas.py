"""What clients send and get, as data. Nothing here knows HTTP or SQL."""

from datetime import date, datetime
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import MISSING, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from scalars import (
    MOST_PER_PAGE,
    Day,
    DayFilter,
    DayOrNone,
    Description,
    Flag,
    Limit,
    Login,
    Moment,
    Name,
    Natural,
    NewPassword,
    Number,
    Password,
    PastMoment,
    Revision,
    ShownMoment,
    Status,
    StatusFilter,
    Text,
    TokenLifetime,
    Words,
    is_login,
)

LOGGED_FIELDS = ("name", "description", "status", "completion_at", "deleted_at")  # the order of one revision's log entries
Order = Literal[
    "id", "-id", "name", "-name", "status", "-status", "completion_at", "-completion_at",
    "created_at", "-created_at", "updated_at", "-updated_at",
]  # fmt: skip


class Strict(BaseModel):
    """Input: text is text, numbers are numbers, and what isn't named here is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Registration(Strict):
    """A new account."""

    login: Login
    password: NewPassword

    @field_validator("password")
    @classmethod
    def _is_not_the_login(cls, value: str, info: ValidationInfo) -> str:
        if is_login(value, info.data.get("login", "")):
            raise ValueError("must not be the login")
        return value


class Credentials(Strict):
    """An account and the proof that it is one's own."""

    login: Login
    password: Password
    expires_in: TokenLifetime | None = None


class PasswordChange(Strict):
    """The present password, and the one to come."""

    old: Password
    new: NewPassword


class Closure(Strict):
    """The proof that the account is one's own."""

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


class Erasure(Strict):
    """How a task is to go."""

    forever: Flag = Field(False, description="true: at once and for good, with its log, also out of the trash")


class Page(Strict):
    """Which part of a listing."""

    limit: Limit = MOST_PER_PAGE
    cursor: Annotated[Text | None, Field(min_length=1, description="where the page before ended: take it from that page's Link")] = None

    @cached_property
    def listing(self) -> str:
        """What all pages of one listing have in common, and no two listings."""
        return self.model_dump_json(exclude={"cursor"}, exclude_defaults=True)

    @property
    def as_of(self) -> int | None:
        """Which revision all pages of the listing show; None where each shows the present one."""
        return None


class AsOf(Strict):
    """As of when: a revision, or the last one that is not later than a moment."""

    revision: Natural | None = Field(None, description="as it was at this revision")
    at: PastMoment | None = Field(None, description="as it was at this moment; not together with revision")

    @field_validator("at")
    @classmethod
    def _one_way_to_say_when(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if info.data.get("revision") is not None:
            raise ValueError("doesn't go together with revision")
        return value


class TaskMatch(AsOf):
    """What a task must be to be shown, and as of when."""

    status: StatusFilter | None = None
    completion_at: DayFilter | None = None
    deleted: Flag = Field(False, description="true: what is in the trash, and only that")

    @field_validator("deleted")
    @classmethod
    def _the_trash_is_of_now(cls, value: bool, info: ValidationInfo) -> bool:
        if value and (info.data.get("revision") is not None or info.data.get("at")):
            raise ValueError("doesn't go together with revision or at")
        return value

    @property
    def source(self) -> Literal["live", "trash", "past"]:
        """Among which tasks to look."""
        return "past" if self.revision is not None else "trash" if self.deleted else "live"


class TaskQuery(Page, TaskMatch):
    """Which tasks, in which order."""

    completion_from: Day | None = None
    completion_to: Day | None = None
    completed_from: Moment | None = None
    completed_to: Moment | None = None
    q: Words | None = None
    sort: Order = "id"
    format: Literal["json", "csv", "ics"] | None = Field(
        None, description="as JSON, CSV or iCalendar, whatever Accept says; these two as a whole where no limit is sent", examples=["csv"]
    )
    since: Natural | None = Field(
        None, description="what was changed after this revision, in the trash or not, by revision; only with limit and cursor"
    )

    @property
    def as_of(self) -> int | None:
        """Which revision all pages of the listing show; None where each shows the present one."""
        return self.revision

    @field_validator("completion_from", "completion_to")
    @classmethod
    def _one_way_to_say_which_day(cls, value: date | None, info: ValidationInfo) -> date | None:
        if info.data.get("completion_at") is not None:
            raise ValueError("doesn't go together with completion_at")
        return value

    @field_validator("since")
    @classmethod
    def _all_or_nothing(cls, value: int | None, info: ValidationInfo) -> int | None:
        others = [name for name, other in info.data.items() if name not in ("limit", "cursor") and other != cls.model_fields[name].default]
        if value is not None and others:
            raise ValueError(f"doesn't go together with {', '.join(others)}")
        return value


class LogQuery(Page):
    """Which part of a task's log."""

    deleted: Flag = Field(False, description="true: of a task in the trash")


class Resumption(Strict):
    """From where to follow the changes."""

    since: Natural | None = Field(None, description="go on after this revision; Last-Event-ID, where it is sent, says it instead")


class Restoration(AsOf):
    """To what a task is to be brought back; nothing: out of the trash, as it is."""


class Undo(Strict):
    """After which revision, or which moment, all is to be taken back."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"since": 7, "dry_run": True}], "anyOf": [{"required": ["since"]}, {"required": ["at"]}]}
    )

    since: Natural | None = Field(None, description="what was changed after this revision is taken back")
    at: PastMoment | None = Field(None, description="what was changed after this moment; instead of since", validate_default=True)
    dry_run: Flag = Field(False, description="true: only say what would be done")
    expected: Natural | None = Field(None, description="do it only if this is still the user's revision; from a dry run's before")

    @field_validator("at")
    @classmethod
    def _one_way_to_say_when(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if "since" in info.data and (info.data["since"] is None) == (value is None):
            raise ValueError("must be sent, or since" if value is None else "can't be sent together with since")
        return value


class Task(BaseModel):
    """A task as it is shown; all keys are always there."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["Buy milk"])
    description: str = Field(examples=["Two litres, the fresh one"])
    status: Status
    completion_at: str | None = Field(description="DD-MM-YYYY", examples=["02-10-2020"])
    created_at: ShownMoment
    updated_at: ShownMoment
    completed_at: ShownMoment | None = Field(description="when the status last became completed; null while it isn't", examples=[None])
    deleted_at: ShownMoment | None = Field(examples=[None])
    revision: Revision


EXAMPLE_TASK = Task(
    id=1,
    name="Buy milk",
    description="Two litres",
    status="planned",
    completion_at="02-10-2020",
    created_at="2026-11-24T09:30:00.123456Z",
    updated_at="2026-11-24T09:31:00.123456Z",
    completed_at=None,
    deleted_at=None,
    revision=8,
).model_dump_json()


class LogEntry(BaseModel):
    """One field that one change altered; values are written as in the task."""

    revision: Revision
    changed_at: ShownMoment
    field: Literal["name", "description", "status", "completion_at", "deleted_at"] = Field(examples=["status"])
    old: str | None = Field(examples=["new"])
    new: str | None = Field(examples=["planned"])


class AccountLogEntry(LogEntry):
    """One field that one change of one of the tasks altered."""

    task_id: int = Field(examples=[1])


class Imported(BaseModel):
    """What an import did."""

    before: int = Field(description="the user's revision before it: undo since this to take the import back", examples=[9])
    revision: int = Field(description="the user's revision after it", examples=[10])
    count: int = Field(description="how many tasks it created or altered", examples=[1])


class Undone(BaseModel):
    """What an undo did, or would do."""

    before: int = Field(description="the user's revision before it: undo since this to take the undo back", examples=[9])
    revision: int = Field(description="the user's revision after it", examples=[10])
    count: int = Field(description="how many tasks it altered", examples=[1])
    tasks: list[Task] = Field(description="the first of them, up to 1000 and 4 MiB, as they are after it")


class Token(BaseModel):
    """A token to send as `Authorization: Bearer <access_token>`."""

    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int = Field(description="seconds", examples=[2592000])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


class Event(BaseModel):
    """One of a stream's Server-Sent Events, field by field."""

    event: Literal["revision", "task", "reset"] = Field(
        description="revision: where you are; task: one was changed; reset: changes are missing, read all again"
    )
    id: str = Field(description="the revision up to which you then have everything, for Last-Event-ID", examples=["7"])
    data: str = Field(
        description="JSON: of a task, the task as it was right after the change; else your present revision",
        examples=['{"revision":7}'],
        json_schema_extra={"contentMediaType": "application/json"},
    )

"""What clients send and get about tasks, as data. Nothing here knows HTTP or SQL."""

from datetime import date, datetime
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import MISSING, BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator
from typing_extensions import TypeAliasType

from rest.error_codes import wrong
from rest.values import Flag, Moment, Natural, Number, Page, PastMoment, Revision, ShownMoment, Strict
from tasks.values import Day, DayFilter, DayOrNone, Description, Name, Status, StatusFilter, Words

LOOK = 1  # how a Task looks, as task_look() says in PostgreSQL: a version in which it looks different has the next number
_Order = Literal[
    "id", "-id", "name", "-name", "status", "-status", "completion_at", "-completion_at",
    "created_at", "-created_at", "updated_at", "-updated_at",
]  # fmt: skip
_IN_CODE = [f"{order.removeprefix('-')}{'_desc' * order.startswith('-')}".upper() for order in get_args(_Order)]
SortOrder = TypeAliasType("SortOrder", Annotated[_Order, Field(json_schema_extra={"x-enum-varnames": [*_IN_CODE]})])
ListFormat = TypeAliasType("ListFormat", Literal["json", "csv", "ics"])
Separator = TypeAliasType("Separator", Annotated[Literal[",", ";"], Field(json_schema_extra={"x-enum-varnames": ["COMMA", "SEMICOLON"]})])


class TaskNew(Strict):
    """A new task: its fields, said here once. In PostgreSQL, where they are columns, migrations/functions/fields.sql says them."""

    name: Name
    description: Description
    status: Status
    completion_at: DayOrNone = None


FIELD_TYPES: dict[str, Any] = get_type_hints(TaskNew, include_extras=True)
FIELDS = tuple(FIELD_TYPES)  # those that are a user's to change
LOGGED_FIELDS = (*FIELDS, "completed_at", "deleted_at")  # in the order of one revision's log entries
LoggedField = TypeAliasType("LoggedField", Literal[LOGGED_FIELDS])  # type: ignore[valid-type]
_unsent: dict[str, Any] = {name: (kind | MISSING, MISSING) for name, kind in FIELD_TYPES.items()}
_Fields: Any = create_model("_Fields", __base__=Strict, **_unsent)


class TaskChange(_Fields):
    """What is to change: a field that isn't sent stays as it is. What was read may be sent back whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "planned"}]})

    id: Number | MISSING = Field(MISSING, exclude=True, description="if sent, the one in the address")
    revision: Number | MISSING = Field(MISSING, exclude=True, description="if sent, acts as If-Match")
    created_at: Any = Field(MISSING, exclude=True, description="ignored")
    updated_at: Any = Field(MISSING, exclude=True, description="ignored")
    completed_at: Any = Field(MISSING, exclude=True, description="ignored")
    deleted_at: Any = Field(MISSING, exclude=True, description="ignored")


class Erasure(Strict):
    """How a task is to go."""

    forever: Flag = Field(False, description="true: at once and for good, with its log, also out of the trash")


class AsOf(Strict):
    """As of when: a revision, or the last one that is not later than a moment."""

    revision: Natural | None = Field(None, description="as it was at this revision")
    at: PastMoment | None = Field(None, description="as it was at this moment; not together with revision")

    @field_validator("at")
    @classmethod
    def _one_way_to_say_when(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if info.data.get("revision") is not None:
            raise wrong("not_together", "doesn't go together with revision")
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
            raise wrong("not_together", "doesn't go together with revision or at")
        return value

    @property
    def source(self) -> Literal["live", "trash", "past"]:
        """Among which tasks to look."""
        return "past" if self.revision is not None else "trash" if self.deleted else "live"


class TaskQuery(Page, TaskMatch):
    """Which tasks, in which order."""

    completion_from: Day | None = Field(None, description="to be completed on this day or later")
    completion_to: Day | None = Field(None, description="to be completed on this day or earlier")
    completed_from: Moment | None = Field(None, description="completed at this moment or later")
    completed_to: Moment | None = Field(None, description="completed before this moment")
    q: Words | None = None
    sort: SortOrder = Field("id", description="by what; with - before it, the other way round")
    format: ListFormat | None = Field(
        None, description="as JSON, CSV or iCalendar, whatever Accept says; these two as a whole where no limit is sent", examples=["csv"]
    )
    separator: Separator | None = Field(None, description="between the cells of CSV, and only there: some spreadsheets expect ;")
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
            raise wrong("not_together", "doesn't go together with completion_at")
        return value

    @field_validator("since")
    @classmethod
    def _all_or_nothing(cls, value: int | None, info: ValidationInfo) -> int | None:
        others = [name for name, other in info.data.items() if name not in ("limit", "cursor") and other != cls.model_fields[name].default]
        if value is not None and others:
            raise wrong("not_together", f"doesn't go together with {', '.join(others)}")
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

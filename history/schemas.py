"""What clients send and get about the past, as data. Nothing here knows HTTP or SQL."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from typing_extensions import TypeAliasType

from rest.error_codes import wrong
from rest.values import Flag, Natural, Page, PastMoment, Revision, ShownMoment, Strict
from tasks.schemas import AsOf, LoggedField, Task


class LogQuery(Page):
    """Which part of a task's log."""

    deleted: Flag = Field(False, description="true: of a task in the trash")


class Resumption(Strict):
    """From where to follow the changes."""

    since: Natural | None = Field(None, description="go on after this revision; Last-Event-ID, where it is sent, says it instead")


class Restoration(AsOf):
    """To what a task is to be brought back; nothing: out of the trash, as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"revision": 1}]})


class Undo(Strict):
    """After which revision, or which moment, all is to be taken back: `since` or `at`, and not both."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"since": 0, "dry_run": True}]})

    since: Natural | None = Field(None, description="what was changed after this revision is taken back")
    at: PastMoment | None = Field(None, description="what was changed after this moment; instead of since", validate_default=True)
    dry_run: Flag = Field(False, description="true: only say what would be done")
    expected: Natural | None = Field(None, description="do it only if this is still the user's revision; from a dry run's before")

    @field_validator("at")
    @classmethod
    def _one_way_to_say_when(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if "since" in info.data and (info.data["since"] is None) == (value is None):
            raise (
                wrong("missing", "must be sent, or since") if value is None else wrong("not_together", "can't be sent together with since")
            )
        return value


class LogEntry(BaseModel):
    """One field that one change altered; values are written as in the task."""

    revision: Revision
    changed_at: ShownMoment
    field: LoggedField = Field(examples=["status"])
    old: str | None = Field(examples=["new"])
    new: str | None = Field(examples=["planned"])


class AccountLogEntry(LogEntry):
    """One field that one change of one of the tasks altered."""

    task_id: int = Field(examples=[1])


class Undone(BaseModel):
    """What an undo did, or would do."""

    before: int = Field(description="the user's revision before it: undo since this to take the undo back", examples=[9])
    revision: int = Field(description="the user's revision after it", examples=[10])
    count: int = Field(description="how many tasks it altered", examples=[1])
    tasks: list[Task] = Field(description="the first of them, up to 1000 and 4 MiB, as they are after it")


class Position(BaseModel):
    """Where a stream begins, or begins again: the data of the events `revision` and `reset`."""

    revision: int = Field(description="the user's present revision", examples=[7])


EventKind = TypeAliasType("EventKind", Literal["revision", "task", "reset"])


class ServerSentEvent(BaseModel):
    """An event of a stream, field by field."""

    event: EventKind = Field(description="revision: where you are; task: one was changed; reset: changes are missing, read all again")
    id: str = Field(description="the revision up to which you then have everything, for Last-Event-ID", examples=["7"])
    data: str = Field(
        description="of the event task, a Task as it was right after the change; else a Position",
        examples=['{"revision":7}'],
        json_schema_extra={"contentMediaType": "application/json"},
    )

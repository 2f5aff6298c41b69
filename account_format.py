"""An account as JSON in which every task and every log entry stands on a line of its own."""

from typing import Annotated, Literal

from pydantic import Field

from scalars import DayOrNone, Description, Id, Moment, Name, Natural, Status
from schemas import Strict, TaskNew

HEAD, BETWEEN, END = (
    '{{"account":{account},\n"tasks":[\n',
    '\n],\n"log":[\n',
    "\n]}\n",
)  # what is between them ends with a comma and a line end


class AccountState(Strict):
    """What an account counts."""

    revision: Natural
    last_task_id: Natural
    kept_from: Natural
    kept_from_at: Moment
    purged: Natural
    changed_at: Moment


class ExportedTask(TaskNew):
    """A task, in the trash or not."""

    id: Id
    created_at: Moment
    updated_at: Moment
    completed_at: Moment | None
    deleted_at: Moment | None
    revision: Id
    created_revision: Id


class _Entry(Strict):
    task_id: Id
    revision: Id
    changed_at: Moment


class NameEntry(_Entry):
    """A change of a name."""

    field: Literal["name"]
    old: Name
    new: Name


class DescriptionEntry(_Entry):
    """A change of a description."""

    field: Literal["description"]
    old: Description
    new: Description


class StatusEntry(_Entry):
    """A change of a status."""

    field: Literal["status"]
    old: Status
    new: Status


class DayEntry(_Entry):
    """A change of the day on which a task is to be completed."""

    field: Literal["completion_at"]
    old: DayOrNone
    new: DayOrNone


class TrashEntry(_Entry):
    """A deletion, or a restoration."""

    field: Literal["deleted_at"]
    old: Moment | None
    new: Moment | None


ExportedEntry = Annotated[NameEntry | DescriptionEntry | StatusEntry | DayEntry | TrashEntry, Field(discriminator="field")]


class Export(Strict):
    """A whole account: each task as it is, by id, and each log entry, by revision and field."""

    account: AccountState
    tasks: list[ExportedTask]
    log: list[ExportedEntry]

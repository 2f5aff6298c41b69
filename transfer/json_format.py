"""An account as JSON in which every task and every log entry stands on a line of its own, and back."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from rest.errors import FieldError, InvalidInput
from rest.operation import explain
from rest.values import Id, Moment, Natural, Strict
from tasks.schemas import TaskNew
from tasks.values import DayOrNone, Description, Name, Status
from transfer.entries import Line, at_line

HEAD, BETWEEN, END = (
    '{{"account":{account},\n"tasks":[\n',
    '\n],\n"log":[\n',
    "\n]}\n",
)  # of the lines between them each but the last ends with a comma


Count = Annotated[Natural, Field(le=2**53)]  # up to which every JSON parser reads it exactly, and from which there is still room


class AccountState(Strict):
    """What an account counts."""

    revision: Count
    last_task_id: Count
    kept_from: Count
    kept_from_at: Moment
    purged: Count
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


class Row(NamedTuple):
    """What there is to be kept of a line, as a JSON object with something in it; or what is wrong with it."""

    line: int
    kind: Literal["account", "task", "entry", "change"]
    json: str
    faults: Sequence[FieldError] = ()


_ACCOUNT = re.compile(rb'\{\s*"account"\s*:\s*(\{.*\})\s*,')
_STATE: TypeAdapter[AccountState] = TypeAdapter(AccountState)
_TASK: TypeAdapter[ExportedTask] = TypeAdapter(ExportedTask)
_ENTRY: TypeAdapter[Any] = TypeAdapter(ExportedEntry)


class AccountLines:
    """Makes rows of the lines of an export."""

    def __init__(self) -> None:
        self._part: Callable[[Line, bytes], Iterator[Row]] = self._begin
        self._task, self._entry = 0, (0, "")  # the last one's key

    def feed(self, line: Line) -> Iterator[Row]:
        """Give the row of the line, if it is one. Raises InvalidInput where what follows can't be understood."""
        if text := line.text.strip():
            yield from self._part(line, text)

    def end(self) -> Iterator[Row]:
        """Give nothing more. Raises InvalidInput where the file isn't whole."""
        if self._part != self._nothing:
            raise InvalidInput(detail="The file ends too early: it isn't the whole of an export.")
        yield from ()

    def _begin(self, line: Line, text: bytes) -> Iterator[Row]:
        state = _ACCOUNT.fullmatch(text)
        if state is None:
            raise InvalidInput(at_line(line.number, 'must begin an export, whose lines stay as they are: {"account":{...},'))
        account, faults = _read(_STATE, line, state[1])
        if not faults and account.kept_from > account.revision:
            faults = [at_line(line.number, "kept_from must not be later than revision")]
        if not faults and account.kept_from_at > account.changed_at:
            faults = [at_line(line.number, "kept_from_at must not be later than changed_at")]
        self._part = self._until(b'"tasks":[', self._tasks)
        yield Row(line.number, "account", "" if faults else account.model_dump_json(), faults)

    def _tasks(self, line: Line, text: bytes) -> Iterator[Row]:
        if text == b"],":
            self._part = self._until(b'"log":[', self._entries)
            return
        task, faults = _read(_TASK, line, text.removesuffix(b","))
        if not faults and task.id <= self._task:
            faults = [at_line(line.number, "id must be greater than that of the task before")]
        if not faults and (task.status == "completed") != (task.completed_at is not None):
            faults = [at_line(line.number, "completed_at must be there where the status is completed, and only there")]
        self._task = task.id if task else self._task
        yield Row(line.number, "task", "" if faults else task.model_dump_json(), faults)

    def _entries(self, line: Line, text: bytes) -> Iterator[Row]:
        if text == b"]}":
            self._part = self._nothing
            return
        entry, faults = _read(_ENTRY, line, text.removesuffix(b","))
        key = (entry.revision, entry.field) if entry else self._entry
        if not faults and key <= self._entry:
            faults = [at_line(line.number, "revision and field must be greater than those of the entry before")]
        self._entry = key
        yield Row(line.number, "entry", "" if faults else entry.model_dump_json(), faults)

    def _until(self, expected: bytes, part: Callable[[Line, bytes], Iterator[Row]]) -> Callable[[Line, bytes], Iterator[Row]]:
        def only(line: Line, text: bytes) -> Iterator[Row]:
            if text != expected:
                raise InvalidInput(at_line(line.number, f"must be {expected.decode()}"))
            self._part = part
            yield from ()

        return only

    def _nothing(self, line: Line, text: bytes) -> Iterator[Row]:
        raise InvalidInput(at_line(line.number, "stands after the end"))


def _read(kind: TypeAdapter[Any], line: Line, json: bytes) -> tuple[Any, list[FieldError]]:
    try:
        return kind.validate_json(json), []
    except ValidationError as error:
        explained = [explain(fault | {"loc": fault["loc"][-1:]}) for fault in error.errors(include_url=False, include_input=False)]
        words = [
            f"{fault['field']} {fault['message']}" if fault["field"] != "body" else "is not a line of an export" for fault in explained
        ]
        return None, [at_line(line.number, message) for message in words]


class Imported(BaseModel):
    """What an import did."""

    before: int = Field(description="the user's revision before it: undo since this to take the import back", examples=[9])
    revision: int = Field(description="the user's revision after it", examples=[10])
    count: int = Field(description="how many tasks it created or altered", examples=[1])

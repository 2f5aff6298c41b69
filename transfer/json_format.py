"""An account as JSON in which every task and every log entry stands on a line of its own, and back."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import MISSING, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator

from rest.bodies import may_be_shown
from rest.error_codes import wrong
from rest.errors import FieldError, InvalidInput
from rest.operation import explain
from rest.values import Id, Moment, Natural, Strict
from tasks.schemas import FIELD_TYPES, LOGGED_FIELDS, LoggedField, TaskNew
from tasks.values import StoredDescription, StoredName, Uid
from transfer.entries import about, at_line
from transfer.json_items import Item

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


_STORED: dict[str, Any] = {"name": StoredName, "description": StoredDescription}  # what a version before took stays good


class ExportedTask(TaskNew):
    """A task, in the trash or not, with the UID that came with it, if one did."""

    name: StoredName
    description: StoredDescription
    id: Id
    created_at: Moment
    updated_at: Moment
    completed_at: Moment | None
    deleted_at: Moment | None
    revision: Id
    created_revision: Id
    uid: Uid | MISSING = MISSING


_VALUES: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter((FIELD_TYPES | _STORED).get(name, Moment | None), config=ConfigDict(strict=True)) for name in LOGGED_FIELDS
}
_A_VALUE: Any = {"type": ["string", "null"]}


class ExportedEntry(Strict):
    """What a change made of one field: old and new are what a task may have there; of `completed_at` and `deleted_at`, a moment or null."""

    task_id: Id
    revision: Id
    changed_at: Moment
    field: LoggedField
    old: Any = Field(json_schema_extra=_A_VALUE)
    new: Any = Field(json_schema_extra=_A_VALUE)

    @field_validator("old", "new", mode="plain")
    @classmethod
    def _is_a_value_of_the_field(cls, value: Any, info: ValidationInfo) -> Any:
        kind = _VALUES.get(info.data.get("field", ""))
        try:
            return kind.validate_python(value) if kind else value  # without a field there is a fault already
        except ValidationError as error:
            fault = explain(error.errors()[0])
            raise wrong(fault["code"], fault["message"], **fault.get("params", {})) from None


_CREATED_AT, _PLANNED_AT = "2026-11-24T09:30:00.123456Z", "2026-11-24T09:31:00.123456Z"
_EXAMPLE: Any = {
    "account": {
        "revision": 2,
        "last_task_id": 1,
        "kept_from": 0,
        "kept_from_at": _CREATED_AT,
        "purged": 0,
        "changed_at": _PLANNED_AT,
    },
    "tasks": [
        {
            "id": 1,
            "name": "Buy milk",
            "description": "Two litres",
            "status": "planned",
            "completion_at": "02-10-2020",
            "created_at": _CREATED_AT,
            "updated_at": _PLANNED_AT,
            "completed_at": None,
            "deleted_at": None,
            "revision": 2,
            "created_revision": 1,
        }
    ],
    "log": [{"task_id": 1, "revision": 2, "changed_at": _PLANNED_AT, "field": "status", "old": "new", "new": "planned"}],
}


class Export(Strict):
    """A whole account: each task as it is, by id, and each log entry, by revision and field."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    account: AccountState
    tasks: list[ExportedTask]
    log: list[ExportedEntry]


class Row(NamedTuple):
    """What there is to be kept of a line, as a JSON object with something in it; or what is wrong with it."""

    line: int
    kind: Literal["account", "task", "entry", "change"]
    json: str
    faults: Sequence[FieldError] = ()
    said: str = ""  # what of it was sent, where that is less: by this an import is known again


class AccountItems:
    """Makes rows of the items of an export, in whatever order its members stand."""

    def __init__(self) -> None:
        self._array, self._missing = "", {*Export.model_fields}
        self._task, self._entry = 0, (0, "")  # the last one's key

    def feed(self, item: Item) -> Iterator[Row]:
        """Return the row of the item, if it is one. Raises InvalidInput where there is no place for it."""
        line, member, text = item
        if text is None or member != self._array:
            self._begin(line, member, is_array=text is None)
        if text is not None:
            yield {"account": self._account_row, "tasks": self._task_row, "log": self._entry_row}[member](line, text)

    def _begin(self, line: int, member: str, *, is_array: bool) -> None:
        if member not in Export.model_fields:
            raise InvalidInput(at_line(line, "unknown_field", f"{_named(member)} is not known here"))
        if member not in self._missing:
            raise InvalidInput(at_line(line, "repeated", f"{member} must not stand twice", name=member))
        if is_array == (member == "account"):
            raise InvalidInput(at_line(line, "malformed", f"{member} must be {'an object' if is_array else 'an array'}"))
        self._missing.remove(member)
        self._array = member if is_array else ""

    def end(self) -> Iterator[Row]:
        """Return nothing more. Raises InvalidInput where the file isn't whole."""
        if self._missing:
            raise InvalidInput(detail=f"It isn't the whole of an export: {', '.join(sorted(self._missing))} must be there.")
        yield from ()

    def _account_row(self, line: int, text: bytes) -> Row:
        account, faults = _read(AccountState, line, text)
        if not faults and account.kept_from > account.revision:
            faults = [at_line(line, "inconsistent", "kept_from must not be later than revision")]
        if not faults and account.kept_from_at > account.changed_at:
            faults = [at_line(line, "inconsistent", "kept_from_at must not be later than changed_at")]
        return Row(line, "account", "" if faults else account.model_dump_json(), faults)

    def _task_row(self, line: int, text: bytes) -> Row:
        task, faults = _read(ExportedTask, line, text)
        if not faults and task.id <= self._task:
            faults = [at_line(line, "inconsistent", "id must be greater than that of the task before")]
        if not faults and (task.status == "completed") != (task.completed_at is not None):
            faults = [at_line(line, "inconsistent", "completed_at must be there where the status is completed, and only there")]
        self._task = task.id if task else self._task
        return Row(line, "task", *(("", faults) if faults else (task.model_dump_json(), (), task.said)))

    def _entry_row(self, line: int, text: bytes) -> Row:
        entry, faults = _read(ExportedEntry, line, text)
        key = (entry.revision, entry.field) if entry else self._entry
        if not faults and key <= self._entry:
            faults = [at_line(line, "inconsistent", "revision and field must be greater than those of the entry before")]
        self._entry = key
        return Row(line, "entry", "" if faults else entry.model_dump_json(), faults)


class _TwiceError(Exception):
    """A name stands twice in an object; it is the exception's text."""


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _TwiceError(twice)


def _refuse_twice(model: type[Strict], text: bytes) -> None:
    """Raise _TwiceError where a name stands twice. pydantic would take the last; where no name can, nothing is read once more."""
    if b"\\u" in text or any(text.count(b'"%b"' % name.encode()) > 1 for name in model.model_fields):
        json.loads(text, object_pairs_hook=_pairs)


UNKNOWN = "something"


def _named(member: str) -> str:
    return member if may_be_shown(member) else UNKNOWN


def _read(model: type[Strict], line: int, text: bytes) -> tuple[Any, list[FieldError]]:
    try:
        made = model.model_validate_json(text)
        _refuse_twice(model, text)
    except _TwiceError as error:
        return None, [at_line(line, "repeated", f"{_named(str(error))} must not stand twice")]
    except ValidationError as error:
        explained = [explain(fault | {"loc": fault["loc"][-1:]}, UNKNOWN) for fault in error.errors(include_url=False, include_input=False)]
        return None, [
            about(line, fault["field"], fault)
            if fault["field"] != UNKNOWN
            else at_line(line, fault["code"], "is not what an export has there")
            for fault in explained
        ]
    return made, []

"""The contract in memory: what one user's account is after each request, and was before.

Plain Python, written from the contract alone: it knows neither HTTP nor SQL, and takes nothing of the service but the names of a task's
fields and of the statuses. Moments are the service's own to choose; the model holds the revision of each, and what the service said about it (`Account.moments`).
"""

import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

from tasks.schemas import FIELDS

LOGGED_AS = {name: name for name in FIELDS} | {"deleted": "deleted_at"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Json = dict[str, Any]
Tasks = dict[int, "Task"]


class Outcome(Enum):
    """What becomes of a request."""

    DONE = "done"
    NOTHING_TO_DO = "nothing to do"
    NOT_FOUND = "not found"
    CHANGED_MEANWHILE = "changed meanwhile"
    HISTORY_GONE = "history gone"


class Entry(NamedTuple):
    """A field that a revision altered, old and new as the log shows them; of the deletion, the revisions that its moments are of."""

    revision: int
    field: str
    old: str | int | None
    new: str | int | None


@dataclass(frozen=True)
class Task:
    """A task as it is, or was; its moments are the revisions that made them."""

    id: int
    name: str
    description: str
    status: str
    completion_at: date | None
    created: int
    updated: int
    completed: int | None
    deleted: int | None = None
    log: tuple[Entry, ...] = ()

    @property
    def fields(self) -> Json:
        """The fields that are a user's to change."""
        return {name: getattr(self, name) for name in FIELDS}

    @property
    def in_trash(self) -> bool:
        """Whether it is in the trash."""
        return self.deleted is not None

    def shown(self, name: str) -> Any:
        """Return a field's value as the service writes it, but for moments."""
        value = getattr(self, name)
        return f"{value:%d-%m-}{value.year:04}" if isinstance(value, date) else value

    def altered(self, revision: int, fields: Json, in_trash: bool) -> "Task":
        """Return the task as a revision makes it that wants these fields and this place; the same task where it is so already."""
        wanted = fields | {"deleted": (self.deleted or revision) if in_trash else None}
        new = {name: wanted[name] for name in LOGGED_AS if name in wanted and wanted[name] != getattr(self, name)}
        if not new:
            return self
        completed = self.completed if "status" not in new else revision if new["status"] == "completed" else None
        after = replace(self, updated=revision, completed=completed, **new)
        entries = tuple(Entry(revision, LOGGED_AS[name], self.shown(name), after.shown(name)) for name in new)
        return replace(after, log=self.log + entries)

    def altered_since(self, revisions: Collection[int]) -> list[str] | None:
        """Return the fields altered since the latest of these revisions that is one of the task's, by name; None where none is."""
        known = {self.created, *(entry.revision for entry in self.log)} & set(revisions)
        return sorted({entry.field for entry in self.log if entry.revision > max(known)}) if known else None


def normal(value: Any) -> Any:
    """Return text as it is stored."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


@cache
def seconds(moment: str) -> Fraction:
    """Return the exact seconds of a moment that the service wrote."""
    return Fraction((datetime.fromisoformat(moment) - EPOCH) // timedelta(microseconds=1), 1_000_000)


@dataclass
class Account:
    """A user: the tasks that there are, those in the trash included; how all of that was at each revision; and what was answered under a key."""

    tasks: Tasks = field(default_factory=dict)
    past: list[Tasks] = field(default_factory=lambda: [{}])
    created: int = 0
    purged: int = 0
    kept_from: int = 0
    moments: dict[int, str] = field(default_factory=dict)
    answered: dict[str, Task] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        """How often the tasks changed."""
        return len(self.past) - 1

    # Changes

    def create(self, **fields: Any) -> Task:
        """Make a task, the next by id."""
        revision = self.revision + 1
        self.created += 1
        values: Json = {"completion_at": None} | {name: normal(value) for name, value in fields.items()}
        completed = revision if values["status"] == "completed" else None
        return self._put(Task(id=self.created, created=revision, updated=revision, completed=completed, **values))

    def change(self, task_id: int, fields: Json, if_match: Collection[int] | None) -> Outcome:
        """Change the fields given, if the task has one of these revisions (None: any) or if all of them hold already."""
        wanted = {name: normal(fields[name]) for name in FIELDS if name in fields}
        return self._alter(self.find(task_id), wanted, False, if_match)

    def delete(self, task_id: int, if_match: Collection[int] | None) -> Outcome:
        """Put the task into the trash, if it has one of these revisions (None: any)."""
        return self._alter(self.find(task_id), {}, True, if_match)

    def restore(self, task_id: int, if_match: Collection[int] | None, revision: int | None = None) -> Outcome:
        """Bring the task out of the trash, and its fields back to what they were at a revision."""
        was = self.tasks.get(task_id) if revision is None else self.past[revision].get(task_id)
        return self._alter(self.tasks[task_id], was.fields, False, if_match) if was else Outcome.NOT_FOUND

    def undo(self, since: int) -> list[Task]:
        """Bring everything back to what and where it was at a revision; what wasn't there goes to the trash. Give what that altered."""
        altered = []
        for task in list(self.tasks.values()):
            was = self.past[since].get(task.id)
            after = task.altered(self.revision + 1, was.fields if was else {}, was.in_trash if was else True)
            if after != task:
                altered.append(self._put(after))
        return altered

    def erase(self, task_id: int, if_match: Collection[int] | None) -> Outcome:
        """Purge the task, be it live or in the trash."""
        task = self.tasks.get(task_id)
        if task is None:
            return Outcome.NOT_FOUND
        if if_match is not None and task.updated not in if_match:
            return Outcome.CHANGED_MEANWHILE
        self.delete(task_id, None)
        self._purge(task_id)
        return Outcome.DONE

    def purge(self, before: Fraction) -> None:
        """Purge what was put into the trash before a moment."""
        for task in list(self.tasks.values()):
            if task.deleted and seconds(self.moments[task.deleted]) < before:
                self._purge(task.id)

    def _alter(self, task: Task | None, fields: Json, in_trash: bool, if_match: Collection[int] | None) -> Outcome:
        if task is None:
            return Outcome.NOT_FOUND
        after = task.altered(self.revision + 1, fields, in_trash)
        if after == task:
            return Outcome.NOTHING_TO_DO
        if if_match is not None and task.updated not in if_match:
            return Outcome.CHANGED_MEANWHILE
        self._put(after)
        return Outcome.DONE

    def _put(self, task: Task) -> Task:
        self.tasks[task.id] = task
        self.past.append(dict(self.tasks))
        return task

    def _purge(self, task_id: int) -> None:
        self.purged += 1
        self.kept_from = max(self.kept_from, self.tasks[task_id].updated)
        for tasks in (self.tasks, *self.past):
            tasks.pop(task_id, None)

    # What there is, and was

    def find(self, task_id: int) -> Task | None:
        """Return the task, unless there is none or it is in the trash."""
        return next((task for task in self.live() if task.id == task_id), None)

    def live(self, revision: int | None = None) -> list[Task]:
        """Return the tasks that there are, or were at a revision."""
        tasks = self.tasks if revision is None else self.past[revision]
        return [task for task in tasks.values() if not task.in_trash]

    def trash(self) -> list[Task]:
        """Return the tasks in the trash."""
        return [task for task in self.tasks.values() if task.in_trash]

    def revision_at(self, moment: Fraction) -> int:
        """Return the last revision not later than a moment."""
        return max((revision for revision, at in self.moments.items() if seconds(at) <= moment), default=0)

    def twin(self) -> "Account":
        """Return an account like this one, to try on it what may not happen here."""
        past = [dict(tasks) for tasks in self.past]
        return replace(self, tasks=dict(self.tasks), past=past, moments=dict(self.moments), answered=dict(self.answered))


def replay(created: Json, fields: Iterable[str], log: Iterable[Json]) -> Json:
    """Return a task's fields after its log, from those of its creation. Raises AssertionError where an entry doesn't follow from the one before."""
    task = {name: created[name] for name in fields}
    for entry in log:
        assert task[entry["field"]] == entry["old"] != entry["new"], (task, entry)
        task[entry["field"]] = entry["new"]
    return task

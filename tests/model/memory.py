"""The contract in memory: what one user's account is after each request, and what it shows.

Plain Python, written from the contract alone: it knows neither HTTP nor SQL and imports nothing of the service. Moments are the
service's own to choose; the model holds the revision of each, and what the service said about it (`Account.moments`).
"""

import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from fractions import Fraction
from functools import cmp_to_key
from typing import Any, NamedTuple

STATUSES = ("new", "planned", "in_work", "completed")
FIELDS = ("name", "description", "status", "completion_at")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Json = dict[str, Any]


class Outcome(Enum):
    """What becomes of a request to change a task."""

    DONE = "done"
    NOTHING_TO_DO = "nothing to do"
    NOT_FOUND = "not found"
    CHANGED_MEANWHILE = "changed meanwhile"


class Entry(NamedTuple):
    """A field that a revision altered, old and new as the log shows them."""

    revision: int
    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Task:
    """A task as it is; its moments are the revisions that made them."""

    id: int
    name: str
    description: str
    status: str
    completion_at: date | None
    created: int
    updated: int
    completed: int | None
    deleted: bool = False
    log: tuple[Entry, ...] = ()

    def shown(self, name: str) -> str | None:
        """Give a field's value as the service writes it."""
        value = getattr(self, name)
        return f"{value:%d-%m-}{value.year:04}" if isinstance(value, date) else value


@dataclass(frozen=True)
class Query:
    """What is asked of a listing. The moments are exact seconds since 1970."""

    statuses: Collection[str] | None = None
    day: date | None = None
    without_day: bool = False
    day_from: date | None = None
    day_to: date | None = None
    completed_from: Fraction | None = None
    completed_to: Fraction | None = None
    q: str = ""
    sort: str = "id"


class Place(NamedTuple):
    """Where a task stands in an order: its key (None: last, whichever way round) and its id."""

    key: Any
    id: int


def lower(text: str) -> str:
    """Give the small letters, character by character: no character becomes two."""
    return "".join("i" if character == "İ" else character.lower() for character in text)


def normal(value: Any) -> Any:
    """Give text as it is stored."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def seconds(moment: str) -> Fraction:
    """Give the exact seconds of a moment that the service wrote."""
    return Fraction((datetime.fromisoformat(moment) - EPOCH) // timedelta(microseconds=1), 1_000_000)


@dataclass
class Account:
    """A user: the tasks that there ever were, and how often they changed."""

    revision: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    moments: dict[int, str] = field(default_factory=dict)

    # Changes

    def create(self, **fields: Any) -> Task:
        """Make a task, the next by id."""
        self.revision += 1
        values: dict[str, Any] = {"completion_at": None} | {name: normal(value) for name, value in fields.items()}
        completed = self.revision if values["status"] == "completed" else None
        task = Task(id=len(self.tasks) + 1, created=self.revision, updated=self.revision, completed=completed, **values)
        self.tasks[task.id] = task
        return task

    def change(self, task_id: int, fields: Json, if_match: Collection[int] | None) -> Outcome:
        """Change the fields given, if the task has one of these revisions (None: any) or if all of them hold already."""
        task = self.find(task_id)
        if task is None:
            return Outcome.NOT_FOUND
        altered = {name: normal(fields[name]) for name in FIELDS if name in fields and normal(fields[name]) != getattr(task, name)}
        if not altered:
            return Outcome.NOTHING_TO_DO
        if if_match is not None and task.updated not in if_match:
            return Outcome.CHANGED_MEANWHILE
        self.revision += 1
        completed = task.completed
        if "status" in altered:
            completed = self.revision if altered["status"] == "completed" else None
        after = replace(task, updated=self.revision, completed=completed, **altered)
        entries = tuple(Entry(self.revision, name, task.shown(name), after.shown(name)) for name in altered)
        self.tasks[task_id] = replace(after, log=task.log + entries)
        return Outcome.DONE

    def delete(self, task_id: int, if_match: Collection[int] | None) -> Outcome:
        """Delete the task, if it has one of these revisions (None: any)."""
        task = self.find(task_id)
        if task is None:
            return Outcome.NOT_FOUND
        if if_match is not None and task.updated not in if_match:
            return Outcome.CHANGED_MEANWHILE
        self.revision += 1
        self.tasks[task_id] = replace(task, updated=self.revision, deleted=True)
        return Outcome.DONE

    # What is shown

    def find(self, task_id: int) -> Task | None:
        """Give the task, unless there is none."""
        task = self.tasks.get(task_id)
        return None if task is None or task.deleted else task

    def live(self) -> list[Task]:
        """Give the tasks that there are."""
        return [task for task in self.tasks.values() if not task.deleted]

    def show(self, task: Task) -> Json:
        """Give a task as the service shows it."""
        return {"id": task.id} | {name: task.shown(name) for name in FIELDS} | {
            "created_at": self.moments[task.created],
            "updated_at": self.moments[task.updated],
            "completed_at": None if task.completed is None else self.moments[task.completed],
            "deleted_at": None,
            "revision": task.updated,
        }  # fmt: skip

    def show_log(self, task: Task) -> list[Json]:
        """Give a task's history as the service shows it."""
        return [
            {
                "revision": entry.revision,
                "changed_at": self.moments[entry.revision],
                "field": entry.field,
                "old": entry.old,
                "new": entry.new,
            }
            for entry in task.log
        ]

    # Listings

    def matches(self, task: Task, query: Query) -> bool:
        """Tell whether a task is one of those asked for."""
        day, moment = task.completion_at, None if task.completed is None else seconds(self.moments[task.completed])
        words = normal(query.q).split()
        return all((
            query.statuses is None or task.status in query.statuses,
            query.day is None or day == query.day,
            not query.without_day or day is None,
            query.day_from is None or (day is not None and day >= query.day_from),
            query.day_to is None or (day is not None and day <= query.day_to),
            query.completed_from is None or (moment is not None and moment >= query.completed_from),
            query.completed_to is None or (moment is not None and moment < query.completed_to),
            all(lower(word) in lower(task.name) or lower(word) in lower(task.description) for word in words),
        ))  # fmt: skip

    def place(self, task: Task, sort: str) -> Place:
        """Tell where a task stands in an order."""
        key: Any
        match sort.lstrip("-"):
            case "id":
                key = task.id
            case "name":
                key = [ord(character) for character in lower(task.name).replace("ё", "е")]
            case "status":
                key = STATUSES.index(task.status)
            case "completion_at":
                key = task.completion_at
            case "created_at":
                key = seconds(self.moments[task.created])
            case "updated_at":
                key = seconds(self.moments[task.updated])
            case _:
                raise AssertionError(sort)
        return Place(key, task.id)

    def list(self, query: Query, after: Place | None = None) -> "list[Task]":
        """Give the tasks asked for, in their order: those beyond a place, or all."""
        backwards = query.sort.startswith("-")

        def compare(one: Place, other: Place) -> int:
            if (one.key is None) != (other.key is None):
                return 1 if one.key is None else -1
            smaller = one.id < other.id if one.key == other.key else one.key < other.key
            return 0 if one == other else -1 if smaller != backwards else 1

        found = [(self.place(task, query.sort), task) for task in self.live() if self.matches(task, query)]
        order = cmp_to_key(compare)
        found.sort(key=lambda pair: order(pair[0]))
        return [task for place, task in found if after is None or compare(place, after) > 0]


def replay(created: Json, fields: Iterable[str], log: Iterable[Json]) -> Json:
    """Give a task's fields after its log, from those of its creation. Raises AssertionError where an entry doesn't follow from the one before."""
    task = {name: created[name] for name in fields}
    for entry in log:
        assert task[entry["field"]] == entry["old"] != entry["new"], (task, entry)
        task[entry["field"]] = entry["new"]
    return task

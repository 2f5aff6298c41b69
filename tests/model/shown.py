"""What an account of the model shows: tasks, logs, and every kind of listing, in order."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cmp_to_key
from typing import Any, NamedTuple, Protocol

from tasks.schemas import FIELDS
from tasks.values import STATUSES
from tests.model.memory import LOGGED_AS, Account, Entry, Json, Outcome, Task, normal, seconds

LOGGED = [*LOGGED_AS.values()]


class Row(NamedTuple):
    """What one line of a listing shows, and where it stands: the rows of a listing are in the order of their places."""

    place: Any
    json: Json


class Listing(Protocol):
    """Something that comes in pages."""

    def refusal(self, account: Account) -> Outcome:
        """Return whether it is refused."""

    def rows(self, account: Account) -> list[Row]:
        """Return all of it."""

    def depends_on(self, account: Account) -> Any:
        """Return that without a change of which the service must know that nothing in it has changed."""


def task_json(account: Account, task: Task) -> Json:
    """Return a task as the service shows it."""
    moments = {"created_at": task.created, "updated_at": task.updated, "completed_at": task.completed, "deleted_at": task.deleted}
    return (
        {"id": task.id, "revision": task.updated}
        | {name: task.shown(name) for name in FIELDS}
        | {name: None if revision is None else account.moments[revision] for name, revision in moments.items()}
    )


def entry_json(account: Account, entry: Entry) -> Json:
    """Return an entry of a log as the service shows it."""
    old, new = (account.moments[value] if isinstance(value, int) else value for value in (entry.old, entry.new))
    return {"revision": entry.revision, "changed_at": account.moments[entry.revision], "field": entry.field, "old": old, "new": new}


def folded(text: str) -> str:
    """Return what is compared of a text where case doesn't matter."""
    return text.casefold().replace("i\u0307", "i").replace("ё", "е")


@dataclass(frozen=True)
class Query:
    """A listing of tasks: those that there are, that there were at a revision, or that are in the trash. Moments are exact seconds since 1970."""

    statuses: Collection[str] | None = None
    day: date | None = None
    without_day: bool = False
    day_from: date | None = None
    day_to: date | None = None
    completed_from: Fraction | None = None
    completed_to: Fraction | None = None
    q: str = ""
    sort: str = "id"
    revision: int | None = None
    deleted: bool = False

    def refusal(self, account: Account) -> Outcome:
        """Return whether history reaches back that far."""
        return Outcome.HISTORY_GONE if self.revision is not None and self.revision < account.kept_from else Outcome.DONE

    def rows(self, account: Account) -> list[Row]:
        """Return the tasks asked for, in their order."""
        tasks = account.trash() if self.deleted else account.live(self.revision)
        key = order(self.sort)
        return sorted(
            (Row(key(self._place(account, task)), task_json(account, task)) for task in tasks if self.matches(account, task)),
            key=lambda row: row.place,
        )

    def depends_on(self, account: Account) -> Any:
        """Return the revision, and what was purged."""
        return account.revision, account.purged

    def matches(self, account: Account, task: Task) -> bool:
        """Return whether a task is one of those asked for."""
        day, moment = task.completion_at, None if task.completed is None else seconds(account.moments[task.completed])
        words = normal(self.q).split()
        return all((
            self.statuses is None or task.status in self.statuses,
            self.day is None or day == self.day,
            not self.without_day or day is None,
            self.day_from is None or (day is not None and day >= self.day_from),
            self.day_to is None or (day is not None and day <= self.day_to),
            self.completed_from is None or (moment is not None and moment >= self.completed_from),
            self.completed_to is None or (moment is not None and moment < self.completed_to),
            all(folded(word) in folded(task.name) or folded(word) in folded(task.description) for word in words),
        ))  # fmt: skip

    def _place(self, account: Account, task: Task) -> "Place":
        key: Any
        match self.sort.lstrip("-"):
            case "id":
                key = task.id
            case "name":
                key = [ord(character) for character in folded(task.name)]
            case "status":
                key = STATUSES.index(task.status)
            case "completion_at":
                key = task.completion_at
            case "created_at":
                key = seconds(account.moments[task.created])
            case "updated_at":
                key = seconds(account.moments[task.updated])
            case _:
                raise AssertionError(self.sort)
        return Place(key, task.id)


class Place(NamedTuple):
    """What a task is ordered by (None: it comes last, whichever way round), and its id."""

    key: Any
    id: int


def order(sort: str) -> Callable[[Place], Any]:
    """Return a function that makes places comparable."""
    backwards = sort.startswith("-")

    def compare(one: Place, other: Place) -> int:
        if (one.key is None) != (other.key is None):
            return 1 if one.key is None else -1
        smaller = one.id < other.id if one.key == other.key else one.key < other.key
        return 0 if one == other else -1 if smaller != backwards else 1

    return cmp_to_key(compare)


@dataclass(frozen=True)
class Log:
    """The history of one task, be it live or in the trash."""

    task_id: int
    deleted: bool = False

    def refusal(self, account: Account) -> Outcome:
        """Return whether there is no such task."""
        task = account.tasks.get(self.task_id)
        return Outcome.NOT_FOUND if task is None or task.in_trash != self.deleted else Outcome.DONE

    def rows(self, account: Account) -> list[Row]:
        """Return its entries, oldest first."""
        return [Row((entry.revision, LOGGED.index(entry.field)), entry_json(account, entry)) for entry in account.tasks[self.task_id].log]

    def depends_on(self, account: Account) -> Any:
        """Return the task's revision, and what was purged."""
        return account.tasks[self.task_id].updated, account.purged


@dataclass(frozen=True)
class WholeLog:
    """The history of all tasks."""

    def refusal(self, _account: Account) -> Outcome:
        """It always can be had."""
        return Outcome.DONE

    def rows(self, account: Account) -> list[Row]:
        """Return all entries by revision."""
        return sorted(
            (Row(row.place, row.json | {"task_id": task_id}) for task_id in account.tasks for row in Log(task_id).rows(account)),
            key=lambda row: row.place,
        )

    def depends_on(self, account: Account) -> Any:
        """Return the revision, and what was purged."""
        return account.revision, account.purged


@dataclass(frozen=True)
class Changes:
    """What was changed since a revision. A pull from the start is whole unless what it has shown may have been purged since it began."""

    since: int
    began: int

    def refusal(self, account: Account) -> Outcome:
        """Return whether something that was changed since has been purged."""
        return Outcome.HISTORY_GONE if (self.since or self.began) < account.kept_from else Outcome.DONE

    def rows(self, account: Account) -> list[Row]:
        """Return the tasks changed since by revision, those in the trash included."""
        return sorted(Row(task.updated, task_json(account, task)) for task in account.tasks.values() if task.updated > self.since)

    def depends_on(self, account: Account) -> Any:
        """Return the revision, and what was purged."""
        return account.revision, account.purged

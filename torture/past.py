"""What the database has, as it must have come about: every log replayed, and from it every task at every revision."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from tasks.schemas import FIELDS, LOGGED_FIELDS
from torture.journal import Json

SHOWN = ("id", *FIELDS, "created_at", "updated_at", "completed_at", "deleted_at", "revision")

Run = Callable[[str], list[tuple[Any, ...]]]  # gives the rows of a statement


class Entry(NamedTuple):
    """A line of the log, its values as clients see them."""

    revision: int
    field: str
    task_id: int
    old: str | None
    new: str | None
    changed_at: str


@dataclass
class Chain:
    """A task's life: what it was after each of its revisions."""

    revisions: list[int]
    states: list[Json]

    def at(self, revision: int) -> Json | None:
        """Return the task as it was; None before its creation."""
        n = bisect_right(self.revisions, revision)
        return self.states[n - 1] if n else None

    def live_at(self, revision: int) -> Json | None:
        """Return the task as it was; None where it wasn't there or in the trash."""
        state = self.at(revision)
        return state if state and state["deleted_at"] is None else None


@dataclass
class Account:
    """A user's data: the counters, the tasks, and the log by revision."""

    user_id: int
    revision: int
    last_task_id: int
    kept_from: int
    purged: int
    chains: dict[int, Chain] = field(default_factory=dict)
    created: dict[int, int] = field(default_factory=dict)  # the task by the revision of its creation
    log: defaultdict[int, list[Entry]] = field(default_factory=lambda: defaultdict(list))

    def moment(self, revision: int) -> str:
        """Return the moment of a revision that is there."""
        if revision in self.created:
            return str(self.chains[self.created[revision]].states[0]["created_at"])
        return self.log[revision][0].changed_at

    def task_of(self, revision: int) -> int:
        """Return the task that a revision is about."""
        return self.created.get(revision) or self.log[revision][0].task_id

    def revisions(self) -> list[int]:
        """Return the revisions that are there."""
        return sorted({*self.created, *self.log})

    def requests(self) -> Iterator[list[int]]:
        """Return the revisions, those together that one request made: they have one moment."""
        group: list[int] = []
        for revision in self.revisions():
            if group and self.moment(group[-1]) != self.moment(revision):
                yield group
                group = []
            group.append(revision)
        if group:
            yield group


def read(run: Run, only: int | None = None) -> tuple[dict[int, Account], list[str]]:
    """Read all accounts, or only one user's, and replay every log. Returns the contradictions found, too."""
    whose = "" if only is None else f" WHERE user_id = {only}"
    columns = f"user_id, {', '.join(SHOWN[:-1])}, created_revision, revision, body"
    accounts = {
        row[0]: Account(*row) for row in run(f"SELECT user_id, revision, last_task_id, kept_from, purged FROM user_state{whose} ORDER BY 1")
    }
    logs: defaultdict[tuple[int, int], list[Entry]] = defaultdict(list)
    order = f"user_id, revision, array_position(ARRAY{[*LOGGED_FIELDS]!r}, field)"
    for user_id, *entry in run(f"SELECT user_id, revision, field, task_id, old, new, changed_at FROM task_log{whose} ORDER BY {order}"):
        shown = as_shown(*entry)
        logs[user_id, shown.task_id].append(shown)
        accounts[user_id].log[shown.revision].append(shown)
    faults = []
    for user_id, *row, created_revision, revision, body in run(f"SELECT {columns} FROM task{whose} ORDER BY user_id, id"):
        values = dict(zip(SHOWN, (*map(written, row), revision), strict=True))
        account = accounts[user_id]
        account.created[created_revision] = values["id"]
        try:
            account.chains[values["id"]] = replay(values, created_revision, logs.pop((user_id, values["id"]), []))
        except ValueError as fault:
            faults.append(f"user {user_id}, task {values['id']}: {fault}")
            account.chains[values["id"]] = Chain([created_revision], [values])
        if not body.startswith(f'{{"id":{values["id"]},') or f'"revision":{revision}}}' not in body:
            faults.append(f"user {user_id}, task {values['id']}: what is shown of it is {body!r}")
    faults += [f"user {user_id}, task {task_id}: it is gone, and its log is there" for user_id, task_id in logs]
    return accounts, faults


def as_shown(revision: int, name: str, task_id: int, old: str | None, new: str | None, changed_at: datetime) -> Entry:
    """Return an entry of the log with its values as clients see them."""
    parse: Any = {"completion_at": date.fromisoformat, "deleted_at": datetime.fromisoformat}.get(name, str)
    before, after = (None if value is None else written(parse(value)) for value in (old, new))
    return Entry(revision, name, task_id, before, after, written(changed_at))


def written(value: Any) -> Any:
    """Return a value as clients see it."""
    match value:
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        case date():
            return f"{value:%d-%m-%Y}"
    return value


def replay(task: Json, created_revision: int, log: Iterable[Entry]) -> Chain:
    """Go back from the task as it is to its creation, and forth again. Raises ValueError where the log doesn't lead from one to the other."""
    log = list(log)
    first = dict(task)
    for entry in reversed(log):
        if first[entry.field] != entry.new or entry.new == entry.old:
            raise ValueError(f"{entry.field} is {first[entry.field]!r}, and the log has it go from {entry.old!r} to {entry.new!r}")
        first[entry.field] = entry.old
    made_at = task["created_at"]
    first |= {"revision": created_revision, "updated_at": made_at, "completed_at": made_at if first["status"] == "completed" else None}
    if first["deleted_at"] is not None:
        raise ValueError("it was created in the trash")
    chain = Chain([created_revision], [first])
    for entry in log:
        if entry.revision > chain.revisions[-1]:
            if entry.changed_at <= chain.states[-1]["updated_at"]:
                raise ValueError(f"revision {entry.revision} isn't later than the one before")
            chain.revisions.append(entry.revision)
            chain.states.append(chain.states[-1] | {"revision": entry.revision, "updated_at": entry.changed_at})
        state = chain.states[-1]
        state[entry.field] = entry.new
        if entry.field == "status":
            state["completed_at"] = entry.changed_at if entry.new == "completed" else None
    if chain.states[-1] != task:
        differing = [name for name in SHOWN if chain.states[-1][name] != task[name]]
        raise ValueError(f"its log leads to another {' and '.join(differing)}")
    return chain

"""The failures that a client meets with tasks."""

from typing import Any, ClassVar, Self

import orjson
from multidict import istr
from pydantic import MISSING, Field

from rest.errors import ChangedMeanwhile, Conflict, FieldError, Gone, InvalidInput, Problem, Unchanged
from tasks.schemas import EXAMPLE_TASK
from tasks.schemas import Task as TaskShown

X_REVISION = istr("X-Revision")


def at_revision(revision: int | None) -> dict[str, str]:
    """Return the header that says at which revision of the user's something was found, where that is known."""
    return {} if revision is None else {X_REVISION: str(revision)}


class HistoryProblem(Problem):
    """What is known of the history that there is."""

    kept_from: int = Field(description="the revision from which the account's history is whole", examples=[7])
    revision: int = Field(description="the user's present revision", examples=[9])


class HistoryGone(Gone):
    """The history that this needs isn't there: before `kept_from` it went with purged tasks, after `revision` there is none yet."""

    kind = "history-gone"
    is_explained = True
    detail = "There is no history of that revision, or none any more: what there is goes from kept_from to revision."
    shape = HistoryProblem

    def __init__(self, kept_from: int, revision: int) -> None:
        super().__init__(headers=at_revision(revision))
        self.kept_from, self.revision = kept_from, revision

    @classmethod
    def example(cls) -> Self:
        return cls(kept_from=7, revision=9)

    def members(self) -> dict[str, Any]:
        return {"kept_from": self.kept_from, "revision": self.revision}


class ConflictProblem(Problem):
    """What explains a conflict."""

    current: TaskShown = Field(description="the task as it is")
    changed: list[str] | MISSING = Field(
        MISSING, description="the fields altered since the client's revision, where that is one of the task's", examples=[["status"]]
    )


class TaskChangedMeanwhile(ChangedMeanwhile):
    """The task has moved on since the client's revision: here is how it is, and what has changed."""

    shape = ConflictProblem

    def __init__(self, current: str, changed: str | None, revision: int | None) -> None:
        super().__init__(headers=at_revision(revision))
        self.current, self.changed = current, changed

    @classmethod
    def example(cls) -> Self:
        return cls(EXAMPLE_TASK, changed='["status"]', revision=9)

    def members(self) -> dict[str, Any]:
        return {"current": orjson.Fragment(self.current)} | ({"changed": orjson.Fragment(self.changed)} if self.changed else {})


class WeakTag(TaskChangedMeanwhile):
    """If-Match names the task by a weak tag alone, which never matches (RFC 9110, section 13.1.1): whether it has changed is in `changed`.

    The service's own tags are strong; what compresses answers on their way makes them weak.
    """

    kind = "weak-tag"
    is_explained = True
    detail = (
        "If-Match has a weak tag (W/...), and a weak tag never matches. The service's own are strong: something on the way, such as a "
        "proxy that compresses, made it weak. Send it without W/, or, where you change fields (PATCH, POST or PUT of the task), "
        "the task's `revision` among them."
    )

    @classmethod
    def example(cls) -> Self:
        return cls(EXAMPLE_TASK, changed="[]", revision=8)


class TaskUnchanged(Unchanged):
    """If-None-Match names the task as it is, or anything (*), and so forbids a change (RFC 9110, section 13.1.2); nothing was done."""

    shape = ConflictProblem

    def __init__(self, current: str, revision: int | None) -> None:
        super().__init__(headers=at_revision(revision))
        self.current = current

    @classmethod
    def example(cls) -> Self:
        return cls(EXAMPLE_TASK, revision=9)

    def members(self) -> dict[str, Any]:
        return {"current": orjson.Fragment(self.current)}


class ListUnchanged(Unchanged):
    """If-None-Match names the list as it is, or anything (*), and so forbids a creation (RFC 9110, section 13.1.2); nothing was done."""

    kind = "list-unchanged"
    is_explained = True
    detail = "The list still is what If-None-Match says that it must not be, so nothing was created: send the creation without that header."


class AccountFull(Conflict):
    """The account has as many tasks, or as many log entries, as one may have (MAX_TASKS, MAX_LOG_ENTRIES); nothing was done.

    What is there stays, and can be deleted, restored, undone and erased.
    """

    kind = "account-full"
    is_explained = True
    details: ClassVar[dict[str, str]] = {
        "too_many_tasks": "Your account has as many tasks as it may have, those in the trash included: delete some with forever=true.",
        "too_many_entries": "Your account's log has as many entries as it may have: delete often changed tasks with forever=true.",
    }

    def __init__(self, refused: str = "too_many_tasks", revision: int | None = None) -> None:
        super().__init__(self.details[refused], headers=at_revision(revision))


class TaskPurged(Gone):
    """The task that was created under this Idempotency-Key has been purged."""

    kind = "task-purged"
    detail = "The task that was created under this Idempotency-Key has been purged, and is not created again: choose a new key."


def refuse_future(field: str, user_revision: int) -> InvalidInput:
    """Return the refusal of a revision that there hasn't been yet."""
    return InvalidInput(
        FieldError(field, "too_large", f"must be one that there has been: the latest is {user_revision}", max=user_revision),
        headers=at_revision(user_revision),
    )

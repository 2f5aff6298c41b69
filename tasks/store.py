"""How tasks are stored and found. Knows nothing of HTTP."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson
from peewee import fn
from pydantic import MISSING

from models import CALLER_TYPES, Caller
from postgres.queries import Query, SetQuery, q
from rest.conditions import NO_CONDITION, Preconditions
from rest.errors import Failure, FieldError, InvalidInput, InvalidToken, NotFound
from rest.idempotency import KeyReused, digest
from service import Service
from tasks.errors import AccountFull, TaskChangedMeanwhile, TaskPurged, TaskUnchanged, WeakTag, at_revision, refuse_future
from tasks.schemas import TaskChange, TaskNew


class TaskAsStored(NamedTuple):
    """A task as PostgreSQL gave it: the JSON goes out as it is."""

    id: int
    revision: int
    json: str
    user_revision: int


class Written(NamedTuple):
    """What a change was refused for, or None; and the task that it left."""

    refused: str | None
    id: int
    revision: int
    json: str
    user_revision: int


class _Conflict(NamedTuple):
    id: int
    revision: int
    json: str | None
    user_revision: int
    changed: str | None


_WRITE = SetQuery(Written, "task_write", CALLER_TYPES | {"id": "bigint", "if_match": "bigint[]", "change": "jsonb", "most": "bigint"})
_CREATE_ONCE = Query(
    Written,
    fn.task_create_once(q.user_id, q.generation, q.wait, q.new, q.most, q.key, q.digest),
    CALLER_TYPES | {"new": "jsonb", "most": "bigint", "key": "text", "digest": "text"},
)
_ERASE = Query(
    Written,
    fn.task_erase(q.user_id, q.generation, q.wait, q.id, q.if_match, q.unless),
    CALLER_TYPES | {"id": "bigint", "if_match": "bigint[]", "unless": "jsonb"},
)
_CONFLICT = Query(
    _Conflict,
    fn.task_conflict(q.user_id, q.generation, q.id, q.if_match),
    CALLER_TYPES | {"id": "bigint", "if_match": "bigint[]"},
    read=True,
    slow=True,
)


DELETION = '{"deleted": true}'


async def create_task(service: Service, caller: Caller, task: TaskNew, key: str | None = None) -> TaskAsStored:
    """Make a task; its creation is its first revision and has no log entry. Under a key it is made once.

    Raises AccountFull, KeyReused, TaskPurged.
    """
    new, most = task.model_dump_json(), service.settings.max_tasks
    if key is None:
        return await unwrap_change(service, caller, await service.database.ask(_WRITE, *caller, None, None, new, most))
    rows = await service.database.ask(_CREATE_ONCE, *caller, new, most, key, digest("POST /task", task.said))
    return await unwrap_change(service, caller, rows)


async def update_task(service: Service, caller: Caller, task_id: int, change: TaskChange, condition: Preconditions) -> TaskAsStored:
    """Change the fields that were sent and log each that differs.

    Raises AccountFull, InvalidInput, NotFound, TaskChangedMeanwhile, TaskUnchanged.
    """
    if change.id is not MISSING and change.id != task_id:
        raise InvalidInput(FieldError("id", "mismatch", "must be the one in the address, or not be sent"))
    if change.revision is not MISSING:
        condition = condition._replace(revision=change.revision)
    return await _write(service, caller, task_id, condition, change.model_dump_json(), service.settings.max_log_entries)


async def delete_task(service: Service, caller: Caller, task_id: int, condition: Preconditions, *, forever: bool = False) -> TaskAsStored:
    """Put a task into the trash; `forever`: erase it, be it there already or not. Raises NotFound, TaskChangedMeanwhile, TaskUnchanged."""
    if not forever:
        return await _write(service, caller, task_id, condition, DELETION)
    rows = await service.database.ask(_ERASE, *caller, task_id, condition.if_match, unless_json(condition.unless))
    return await unwrap_change(service, caller, rows, task_id, condition, in_trash=True)


async def _write(
    service: Service, caller: Caller, task_id: int, condition: Preconditions, change: str, most: int | None = None
) -> TaskAsStored:
    if condition.unless is not None:
        change = orjson.dumps(orjson.loads(change) | {"unless": condition.unless}).decode()
    rows = await service.database.ask(_WRITE, *caller, task_id, condition.allowed, change, most)
    return await unwrap_change(service, caller, rows, task_id, condition)


def unless_json(unless: list[int] | bool | None) -> str | None:
    """Return what PostgreSQL takes for the revisions at which a change is not wanted."""
    return None if unless is None else orjson.dumps(unless).decode()


def unwrap_task(rows: Sequence[TaskAsStored]) -> TaskAsStored:
    """Return the task that a read found. No row: the token is of the past; a row of nothing: there is no such task."""
    if not rows:
        raise InvalidToken()
    [task] = rows
    if task.json is None:
        raise NotFound(headers=at_revision(task.user_revision))
    return task


async def unwrap_change(
    service: Service,
    caller: Caller,
    rows: Sequence[Written],
    task_id: int = 0,
    condition: Preconditions = NO_CONDITION,
    *,
    in_trash: bool = False,
) -> TaskAsStored:
    """Return the task that a change left, which may be one of those `in_trash`. Raises what the change was refused for."""
    [written] = rows
    task = TaskAsStored(written.id, written.revision, written.json, written.user_revision)
    match written.refused:
        case None:
            return task
        case "not_found":
            raise NotFound(headers=at_revision(task.user_revision))
        case "changed_meanwhile":
            raise await _explain_conflict(service, caller, task_id, condition, in_trash=in_trash)
        case "unchanged":
            raise TaskUnchanged(task.json, task.user_revision)
        case "key_reused":
            raise KeyReused(headers=at_revision(task.user_revision))
        case "purged":
            raise TaskPurged(headers=at_revision(task.user_revision))
        case "unauthorized":
            raise InvalidToken()
        case "to_come":
            raise refuse_future("revision", task.user_revision)
        case "too_many_tasks" | "too_many_entries":
            raise AccountFull(written.refused, task.user_revision)
    raise AssertionError(written.refused)


async def _explain_conflict(service: Service, caller: Caller, task_id: int, condition: Preconditions, *, in_trash: bool) -> Failure:
    for conflict in await service.database.ask(_CONFLICT, *caller, task_id, [*(condition.allowed or ()), *condition.weak]):
        task = conflict.json
        if not task or (not in_trash and orjson.loads(task)["deleted_at"]):  # it went after the change was refused: 404 goes before 412
            return NotFound(headers=at_revision(conflict.user_revision))
        kind = WeakTag if condition.is_weak(conflict.revision) else TaskChangedMeanwhile
        return kind(task, conflict.changed, conflict.user_revision)
    return InvalidToken()

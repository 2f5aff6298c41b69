"""What is stored, and the door to it. `python models.py` brings the schema up to date, `python models.py verify` checks what is there."""

import sys
from typing import Any, NamedTuple

import orjson
import psycopg2
from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BlobField,
    CompositeKey,
    DateField,
    ForeignKeyField,
    SmallIntegerField,
    TextField,
    UUIDField,
    fn,
)
from peewee_async import AioModel
from playhouse.postgres_ext import ArrayField, BinaryJSONField, DateTimeTZField
from pydantic import MISSING, Field

import settings
import verify
from postgres import migrate
from postgres.batching import Batched, q
from postgres.database import MIGRATIONS, connection_parameters, database
from rest.errors import ChangedMeanwhile, Failure, FieldError, Gone, InvalidInput, InvalidToken, NotFound, Problem
from rest.idempotency import KeyReused, digest
from schemas import EXAMPLE_TASK, TaskChange, TaskNew
from schemas import Task as TaskShown


class Stored(AioModel):
    """A table of ours."""

    class Meta:
        database = database


class User(Stored):
    """Who has an account."""

    id = BigAutoField()
    login = TextField()  # as typed
    login_key = TextField(unique=True)  # as compared
    password_hash = TextField()
    created_at = DateTimeTZField(constraints=[SQL("DEFAULT now()")])
    uid = UUIDField(constraints=[SQL("DEFAULT gen_random_uuid()")], null=False)  # in its tasks' calendar entries

    class Meta:
        table_name = "users"


class UserState(Stored):
    """What counts a user's changes, and the lock that makes them wait for one another."""

    user = ForeignKeyField(User, primary_key=True, lazy_load=False)
    token_generation = BigIntegerField()
    revision = BigIntegerField(default=0)
    last_task_id = BigIntegerField(default=0)
    kept_from = BigIntegerField(default=0)
    changed_at = DateTimeTZField(constraints=[SQL("DEFAULT 'epoch'")])
    kept_from_at = DateTimeTZField(constraints=[SQL("DEFAULT 'epoch'")])
    purged = BigIntegerField(default=0)

    class Meta:
        table_name = "user_state"


class Task(Stored):
    """A task as it is now. Only the functions in PostgreSQL write it, so that no change escapes the log."""

    user = ForeignKeyField(UserState, lazy_load=False)
    id = BigIntegerField()  # counts up from 1 within its user
    name = TextField()
    description = TextField()
    status = TextField()
    completion_at = DateField(null=True)
    created_at = DateTimeTZField()
    updated_at = DateTimeTZField()
    completed_at = DateTimeTZField(null=True)
    deleted_at = DateTimeTZField(null=True)
    created_revision = BigIntegerField()
    revision = BigIntegerField()
    body = TextField()  # the task as clients see it; PostgreSQL makes it

    class Meta:
        primary_key = CompositeKey("user", "id")


class TaskLog(Stored):
    """One field that one change of a task altered."""

    user = ForeignKeyField(UserState, lazy_load=False)
    revision = BigIntegerField()
    field = TextField()
    task_id = BigIntegerField()
    old = TextField(null=True)
    new = TextField(null=True)
    changed_at = DateTimeTZField()

    class Meta:
        table_name = "task_log"
        primary_key = CompositeKey("user", "revision", "field")


class IdempotencyKey(Stored):
    """A request that was answered, so that a repeated one is answered alike: by the task that it created, or as it stands here."""

    user = ForeignKeyField(UserState, lazy_load=False)
    key = TextField()
    digest = TextField()
    task_id = BigIntegerField(null=True)
    answer = TextField(null=True)
    created_at = DateTimeTZField()

    class Meta:
        table_name = "idempotency_key"
        primary_key = CompositeKey("user", "key")


class EventStream(Stored):
    """An open stream of events: one of the places that a user has over all workers."""

    user = ForeignKeyField(UserState, lazy_load=False)
    slot = SmallIntegerField()
    held_until = DateTimeTZField()
    holder = UUIDField(constraints=[SQL("DEFAULT gen_random_uuid()")], null=False)

    class Meta:
        table_name = "event_stream"
        primary_key = CompositeKey("user", "slot")


class ImportRow(Stored):
    """Some lines on their way in, until all of them have been checked."""

    user = ForeignKeyField(UserState, lazy_load=False)
    import_id = UUIDField()
    line = BigIntegerField()  # the first of them
    kind = TextField()
    content = BinaryJSONField()  # an array of what they say
    created_at = DateTimeTZField(constraints=[SQL("DEFAULT now()")])

    class Meta:
        table_name = "import_row"
        primary_key = CompositeKey("user", "import_id", "line")


class RateLimit(Stored):
    """When something was done under a key, the last times."""

    key = BlobField(primary_key=True)
    hits = ArrayField(DateTimeTZField, index=False)
    ends_at = DateTimeTZField()

    class Meta:
        table_name = "rate_limit"


class KnownAddress(Stored):
    """A login and an address from which it has succeeded, as a key."""

    key = BlobField(primary_key=True)
    succeeded_at = DateTimeTZField()

    class Meta:
        table_name = "known_address"


class HistoryProblem(Problem):
    """What is known of the history that there is."""

    kept_from: int = Field(description="the revision from which the account's history is whole", examples=[7])
    revision: int = Field(description="the user's present revision", examples=[9])


class HistoryGone(Gone):
    """The history that this needs isn't there: before `kept_from` it went with purged tasks, after `revision` there is none yet."""

    problem = "history-gone"
    detail = "There is no history of that revision, or none any more: what there is goes from kept_from to revision."
    shape = HistoryProblem

    def __init__(self, kept_from: int = 7, revision: int = 9) -> None:
        super().__init__(revision=revision)
        self.kept_from, self.revision = kept_from, revision

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

    def __init__(self, current: str = EXAMPLE_TASK, changed: str | None = '["status"]', revision: int | None = None) -> None:
        super().__init__(revision=revision)
        self.current, self.changed = current, changed

    def members(self) -> dict[str, Any]:
        return {"current": orjson.Fragment(self.current)} | ({"changed": orjson.Fragment(self.changed)} if self.changed else {})


class TaskPurged(Gone):
    """The task that was created under this Idempotency-Key has been purged."""

    detail = "The task that was created under this Idempotency-Key has been purged, and is not created again: choose a new key."


class Caller(NamedTuple):
    """Whose data it is, and the generation of the token that says so."""

    user_id: int
    generation: int


class TaskAsStored(NamedTuple):
    """A task as PostgreSQL gave it: the JSON goes out as it is."""

    id: int
    revision: int
    json: str
    user_revision: int


CALLER_TYPES = {"user_id": "bigint", "generation": "bigint"}
_CREATE = Batched(fn.task_create(q.user_id, q.generation, q.wait, q.new), CALLER_TYPES | {"new": "jsonb"})
_CREATE_ONCE = Batched(
    fn.task_create_once(q.user_id, q.generation, q.wait, q.new, q.key, q.digest),
    CALLER_TYPES | {"new": "jsonb", "key": "text", "digest": "text"},
)
_UPDATE = Batched(
    fn.task_update(q.user_id, q.generation, q.wait, q.id, q.if_match, q.change),
    CALLER_TYPES | {"id": "bigint", "if_match": "bigint[]", "change": "jsonb"},
)
_REMOVAL_TYPES = CALLER_TYPES | {"id": "bigint", "if_match": "bigint[]"}
_DELETE = Batched(fn.task_delete(q.user_id, q.generation, q.wait, q.id, q.if_match), _REMOVAL_TYPES)
_ERASE = Batched(fn.task_erase(q.user_id, q.generation, q.wait, q.id, q.if_match), _REMOVAL_TYPES)

_CONFLICT = Batched(
    fn.task_conflict(q.user_id, q.generation, q.id, q.if_match), CALLER_TYPES | {"id": "bigint", "if_match": "bigint[]"}, read=True
)


async def create_task(caller: Caller, task: TaskNew, key: str | None = None) -> TaskAsStored:
    """Make a task; its creation is its first revision and has no log entry. Under a key it is made once. Raises KeyReused, TaskPurged."""
    new = task.model_dump_json()
    if key is None:
        return await done(caller, await _CREATE(*caller, new))
    return await done(caller, await _CREATE_ONCE(*caller, new, key, digest("POST /task", new)))


async def update_task(caller: Caller, task_id: int, change: TaskChange, if_match: list[int] | None) -> TaskAsStored:
    """Change the fields that were sent and log each that differs. Raises InvalidInput, NotFound, TaskChangedMeanwhile."""
    if change.id is not MISSING and change.id != task_id:
        raise InvalidInput(FieldError("id", "must be the one in the address, or not be sent"))
    if change.revision is not MISSING:
        if_match = [change.revision] if if_match is None or change.revision in if_match else []
    return await done(caller, await _UPDATE(*caller, task_id, if_match, change.model_dump_json()), task_id, if_match)


async def delete_task(caller: Caller, task_id: int, if_match: list[int] | None, *, forever: bool = False) -> TaskAsStored:
    """Put a task into the trash; `forever`: erase it, be it there already or not. Raises NotFound, TaskChangedMeanwhile."""
    return await done(caller, await (_ERASE if forever else _DELETE)(*caller, task_id, if_match), task_id, if_match, in_trash=forever)


def found(rows: list[tuple[Any, ...]]) -> TaskAsStored:
    """Give the task that a read found. No row: the token is of the past; a row of nothing: there is no such task."""
    if not rows:
        raise InvalidToken()
    task = TaskAsStored(*rows[0])
    if task.json is None:
        raise NotFound(revision=task.user_revision)
    return task


async def done(
    caller: Caller, rows: list[tuple[Any, ...]], task_id: int = 0, if_match: list[int] | None = None, *, in_trash: bool = False
) -> TaskAsStored:
    """Give the task that a change left, which may be one of those `in_trash`. Raises what the change was refused for."""
    refused, *row = rows[0]
    task = TaskAsStored(*row)
    match refused:
        case None:
            return task
        case "not_found":
            raise NotFound(revision=task.user_revision)
        case "changed_meanwhile":
            raise await _conflict(caller, task_id, if_match, in_trash=in_trash)
        case "key_reused":
            raise KeyReused(revision=task.user_revision)
        case "purged":
            raise TaskPurged(revision=task.user_revision)
        case "unauthorized":
            raise InvalidToken()
        case "to_come":
            raise to_come("revision", task.user_revision)
    raise AssertionError(refused)


async def _conflict(caller: Caller, task_id: int, if_match: list[int] | None, *, in_trash: bool) -> Failure:
    for _, _, task, user_revision, changed in await _CONFLICT(*caller, task_id, if_match):
        if not task or (not in_trash and orjson.loads(task)["deleted_at"]):  # it went after the change was refused: 404 goes before 412
            return NotFound(revision=user_revision)
        return TaskChangedMeanwhile(task, changed, user_revision)
    return InvalidToken()


def to_come(field: str, user_revision: int) -> InvalidInput:
    """Give the refusal of a revision that there hasn't been yet."""
    return InvalidInput(FieldError(field, f"must be one that there has been: the latest is {user_revision}"), revision=user_revision)


def upgrade() -> None:
    """Make the database and bring its schema up to date, and say so. Exits where that can't be done."""
    try:
        schema = migrate.upgrade(settings.load().db, connection_parameters(), MIGRATIONS)
    except psycopg2.Error as error:
        raise SystemExit(f"The schema can't be brought up to date: {str(error).strip()}") from None
    if schema.words:
        raise SystemExit(schema.words)
    print("The database is there, with this version's schema.")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            upgrade()
        case ["verify"]:
            verify.verify()
        case _:
            raise SystemExit("Either `python models.py`, or `python models.py verify`.")

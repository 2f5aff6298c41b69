"""The tables, as peewee's models. `python models.py` brings the schema up to date; it has commands for operators, too (USAGE)."""

import sys
from typing import NamedTuple

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
)
from peewee_async import AioModel
from playhouse.postgres_ext import ArrayField, BinaryJSONField, DateTimeTZField

import settings
from postgres import migrate
from postgres.database import MIGRATIONS, DatabaseConfiguration
from postgres.errors import explain
from postgres.queries import DIALECT
from service import database_configuration


class Stored(AioModel):
    """A table of ours. What is written with it runs on a database of an application's: `await database.aio_execute(query)`."""

    class Meta:
        database = DIALECT


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
    log_entries = BigIntegerField(default=0)  # of the revisions up to log_counted
    log_counted = BigIntegerField(default=0)

    class Meta:
        table_name = "user_state"


class OneTimeCode(Stored):
    """What an operator hands out, to be used once: an invitation, or what sets somebody's password again."""

    digest = BlobField(primary_key=True)  # of the code, which nobody keeps
    user = ForeignKeyField(User, unique=True, null=True, lazy_load=False)  # whose password it sets; None: an invitation
    expires_at = DateTimeTZField()

    class Meta:
        table_name = "one_time_code"


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
    look = SmallIntegerField(default=0)  # of the body: another version may show a task otherwise
    body = TextField(default="")  # the task as clients see it
    uid = TextField(null=True)  # where it came with one; otherwise its id and its user's uid make it

    class Meta:
        primary_key = CompositeKey("user", "id")


class LookRefreshed(Stored):
    """How far the bodies of older looks have been made anew."""

    look = SmallIntegerField(primary_key=True)
    next_page = BigIntegerField()
    found = BigIntegerField(default=0)  # in this pass: another one follows where any were

    class Meta:
        table_name = "look_refreshed"


class FunctionsUsed(Stored):
    """When a version's functions were last used."""

    name = TextField(primary_key=True)  # of their schema
    used_at = DateTimeTZField()

    class Meta:
        table_name = "functions_used"


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
    part = BigIntegerField()  # which of the file's it is, from 1
    kind = TextField()
    content = BinaryJSONField()  # an array of what they say
    created_at = DateTimeTZField(constraints=[SQL("DEFAULT now()")])

    class Meta:
        table_name = "import_row"
        primary_key = CompositeKey("user", "import_id", "part")


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


class Caller(NamedTuple):
    """Whose data it is, and the generation of the token that says so."""

    user_id: int
    generation: int


CALLER_TYPES = {"user_id": "bigint", "generation": "bigint"}


def upgrade(configuration: DatabaseConfiguration) -> None:
    """Make the database and bring its schema up to date, and say so. Exits where that can't be done."""
    try:
        schema = migrate.upgrade(configuration.name, configuration.parameters, MIGRATIONS)
    except migrate.UnusableError as error:
        raise SystemExit(f"{error}") from None
    except psycopg2.Error as error:
        raise SystemExit(f"The schema can't be brought up to date: {explain(error, configuration.parameters)}") from None
    if schema.fault:
        raise SystemExit(schema.fault)
    print(schema.remark or "The database is there, with this version's schema.")
    print(f"Its connections have search_path = {migrate.search_path(MIGRATIONS)}")


USAGE = """
python models.py                        bring the schema up to date
python models.py verify                 check what is stored: every log leads to its task
python models.py accounts               list the accounts
python models.py invite                 print an invitation, for REGISTRATION=invited
python models.py reset-password LOGIN   print a code with which a forgotten password is set again
python models.py close LOGIN            close an account, with all that is in it
""".strip()

if __name__ == "__main__":
    import run
    from accounts import commands
    from history import verify

    run.join()
    for doubt in settings.doubts():
        print(doubt, file=sys.stderr)
    match sys.argv[1:]:
        case []:
            upgrade(database_configuration(settings.load()))
        case ["verify"]:
            verify.verify(database_configuration(settings.load()))
        case ["accounts"]:
            commands.list_accounts(database_configuration(settings.load()))
        case ["invite"]:
            given = settings.load()
            commands.invite(database_configuration(given), given.registration)
        case ["reset-password", login]:
            commands.let_reset_password(database_configuration(settings.load()), login)
        case ["close", login]:
            commands.close(database_configuration(settings.load()), login)
        case _:
            raise SystemExit(USAGE)

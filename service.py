"""What all rooms of one application share: its settings, its database, its long work. Two applications in one process have one each."""

from dataclasses import dataclass, field

from aiohttp import web

from postgres.database import MAX_HEAVY_AT_ONCE, Database, DatabaseConfiguration
from rest.long_work import LongWork
from rest.turns import Turns
from server.unread import Unread
from settings import Settings


@dataclass(frozen=True)
class Service:
    """An application's settings and database, and what lets those who have much to do take turns."""

    settings: Settings
    database: Database
    long_work: LongWork = field(default_factory=LongWork)


SERVICE = web.AppKey("service", Service)


def database_configuration(settings: Settings) -> DatabaseConfiguration:
    """Return what the settings say of the database."""
    return DatabaseConfiguration(
        name=settings.db,
        host=settings.db_host,
        port=settings.db_port,
        user=settings.db_user,
        password=settings.db_password.get_secret_value(),
        pool_size=settings.db_pool_size,
        prepare=settings.db_prepare,
        batch_size=settings.batch_size,
        wait_seconds=settings.db_wait_seconds,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        lock_timeout_seconds=settings.lock_timeout_seconds,
    )


def make_service(settings: Settings, unread: Unread) -> Service:
    """Make the service of these settings. Its database is to be used while `database.running()`; what it makes waits for room."""
    return Service(settings, Database(database_configuration(settings), Turns(MAX_HEAVY_AT_ONCE, unread.make_room, most_of_one=1)))

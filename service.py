"""What all rooms of one application share: its settings, its database, its turns. Two applications in one process have one each."""

from dataclasses import dataclass, field

from aiohttp import web

from postgres.database import Database, DatabaseConfiguration
from rest.turns import Turns
from settings import Settings


@dataclass(frozen=True)
class Service:
    """An application's settings and database, and the turns of those who have much to do."""

    settings: Settings
    database: Database
    turns: Turns = field(default_factory=Turns)


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


def make_service(settings: Settings) -> Service:
    """Make the service of these settings. Its database is to be used while `database.running()`."""
    return Service(settings, Database(database_configuration(settings)))

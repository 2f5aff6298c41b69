"""A database made for this run, an application on it, and the cast: Alice owns, Mallory tries."""

import json
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

import psycopg2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from argon2 import PasswordHasher
from dotenv import load_dotenv
from hypothesis import settings as hypothesis_settings

import app
import auth
import models
from accounts import codes, passwords, users
from postgres import migrate
from postgres.database import MIGRATIONS, Database
from postgres.queries import Query
from server.routing import Routing
from service import SERVICE, Service, database_configuration
from settings import Settings
from tests import document

hypothesis_settings.register_profile("patient", deadline=None)  # no test depends on how fast the machine is
hypothesis_settings.load_profile("patient")

PASSWORD = "correct horse battery"  # everybody's
Start = Callable[..., Awaitable[TestClient[Any, Any]]]
Running = Callable[..., AbstractAsyncContextManager[Database]]


def configured(**overrides: Any) -> Settings:
    """Return the run's settings, but for these."""
    return Settings(**overrides)


def connection_parameters() -> dict[str, Any]:
    """Return what libpq needs to find the run's PostgreSQL."""
    return database_configuration(configured()).parameters


def service_of(client: TestClient[Any, Any]) -> Service:
    """Return the service whose client this is."""
    assert client.app
    return client.app[SERVICE]


def skip_unless(required: str, words: str) -> NoReturn:
    """Skip a test that lacks something, and say what helps; where this variable of the environment is set, fail it."""
    if os.environ.get(required):
        pytest.fail(f"{required} is set, and {words}")
    pytest.skip(words)


class Server(NamedTuple):
    """The PostgreSQL that the tests use: the operator's database, which no test may touch, and the one of this run."""

    theirs: str
    theirs_before: list[tuple[Any, ...]] | None
    ours: str


def contents(database: str) -> list[tuple[Any, ...]] | None:
    """Return a database's tables with how often each was written to; None where there is no such database."""
    try:
        connection = psycopg2.connect(dbname=database, **connection_parameters())
    except psycopg2.OperationalError:
        return None
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.oid::regclass::text, pg_relation_size(c.oid), xmin::text FROM pg_class c"
            " WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        return cursor.fetchall()


@pytest.fixture(scope="session", autouse=True)
def server() -> Iterator[Server]:
    """Make a database for this run, on the server that DB_HOST names or on one of our own, and drop it afterwards."""
    load_dotenv()
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("JWT_SECRET", secrets.token_hex(32))
        environment.setenv("PASS_SALT", secrets.token_hex(16))
        environment.setenv("RATE_LIMIT", "off")
        if not os.environ.get("DB_HOST"):
            from postgres import embedded  # the image has its database elsewhere, and no need of this one

            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="task-test-")))
            environment.setenv("DB_HOST", stack.enter_context(embedded.server(directory / "data", durable=False)))
            environment.setenv("DB_PORT", "5432")
            environment.setenv("DB_USER", "postgres")
        theirs = os.environ.get("DB") or "postgres"
        ours = f"{theirs}_test_{secrets.token_hex(4)}"
        environment.setenv("DB", ours)
        before = contents(theirs)
        migrate.upgrade(ours, connection_parameters(), MIGRATIONS)
        yield Server(theirs, before, ours)
        drop_database(ours)


def drop_database(name: str) -> None:
    """Drop a database if it is there, whoever uses it."""
    with closing(psycopg2.connect(dbname="postgres", **connection_parameters())) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def another_database(server: Server) -> Iterator[str]:
    """Return the name of a database that isn't there yet; what there is of that name afterwards is dropped."""
    name = f"{server.ours}_{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        drop_database(name)


@pytest.fixture
def fresh_name(server: Server) -> Iterator[str]:
    """Return what `another_database` gives."""
    with another_database(server) as name:
        yield name


class Routed(web.AppRunner):
    """What runs an application whose handlers are found as in production."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.request_handler = cast("Any", Routing(self.app).handle)
        return server


@pytest.fixture(scope="session", autouse=True)
def judged() -> Iterator[None]:
    """Put the document's judge before all else in every application that the tests run."""
    kind = web.AppRunner if os.environ.get("AIOHTTPS_ROUTING") else Routed

    async def make_judged_runner(server: TestServer, **options: Any) -> web.BaseRunner:
        server.app.middlewares.insert(0, document.middleware)
        return kind(server.app, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestServer, "_make_runner", make_judged_runner)
        yield


@pytest.fixture(autouse=True)
def as_documented(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that got an answer of which the document doesn't speak, or speaks otherwise."""
    document.faults.clear()
    yield
    expected = "the status 500 is not documented" if request.node.get_closest_marker("crashes") else None
    assert not [fault for fault in document.faults if not fault.endswith(expected or "\0")]


@contextmanager
def connection_to(server: Server) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Return a function that runs SQL in the run's database, past the service and on a connection of its own, and gives the rows."""
    path = f"-c search_path={migrate.search_path(MIGRATIONS)}"
    with closing(psycopg2.connect(dbname=server.ours, options=path, **connection_parameters())) as connection:
        connection.autocommit = True

        def run(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []

        yield run


def create_tasks(sql: Callable[..., list[tuple[Any, ...]]], caller: models.Caller, count: int, *, description: str = "") -> None:
    """Create tasks named `task 1` and so on past the service, in one statement."""
    sql(
        "SELECT count(*) FROM (SELECT array_agg(jsonb_build_object('name', 'task ' || n, 'description', %s::text, 'status', 'new')) AS changes"
        "                        FROM generate_series(1, %s) n) c,"
        " LATERAL task_write(array_fill(%s::bigint, ARRAY[%s]), array_fill(%s::bigint, ARRAY[%s]), '{}', '{}', c.changes, '{}', true)",
        *(description, count, caller.user_id, count, caller.generation, count),
    )


def hand_out(sql: Callable[..., list[tuple[Any, ...]]], code: str, whose: "Person | None" = None, *, seconds: float = 60) -> str:
    """Let a code be good for so long, to set somebody's password or (None) as an invitation, as an operator does; return it."""
    sql(
        "INSERT INTO one_time_code VALUES (%s, %s, now() + make_interval(secs => %s))"
        " ON CONFLICT (digest) DO UPDATE SET user_id = excluded.user_id, expires_at = excluded.expires_at",
        codes.digest(code),
        whose and whose.caller and whose.caller.user_id,
        seconds,
    )
    return code


def write_task(sql: Callable[..., list[tuple[Any, ...]]], caller: models.Caller, task_id: int | None, change: dict[str, Any]) -> int:
    """Change a task, or create one (None), past the service, as another process does; return the revision."""
    statement = "SELECT refused, revision FROM task_write(ARRAY[%s], ARRAY[%s], ARRAY[%s]::bigint[], '{}', ARRAY[%s]::jsonb[], '{}', true)"
    [(refused, revision)] = sql(statement, caller.user_id, caller.generation, task_id, json.dumps(change))
    assert refused is None
    return int(revision)


@pytest.fixture
def sql(server: Server) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Return what `connection_to` gives."""
    with connection_to(server) as run:
        yield run


class Answer(NamedTuple):
    """What came back; `json` is None where there was no body."""

    status: int
    headers: Any
    json: Any
    text: str


class Person:
    """Somebody with (or, as a stranger, without) a token, who speaks HTTP."""

    def __init__(self, client: TestClient[Any, Any], login: str = "", caller: models.Caller | None = None) -> None:
        self.client, self.login, self.caller = client, login, caller
        self.token = auth.issue_token(self.service.settings, caller).access_token if caller else None

    @property
    def service(self) -> Service:
        """What serves them."""
        return service_of(self.client)

    async def __call__(self, method: str, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> Answer:
        """Send a request; `data` (form), `json` or `params` as aiohttp's client takes them. Of a stream of events only the first is read."""
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self.client.request(method, path, headers=authorization | (headers or {}), **body) as response:
            is_stream = response.content_type == "text/event-stream" and method != "HEAD"
            text = (await response.content.readuntil(b"\n\n")).decode() if is_stream else await response.text()
            is_json = text and response.content_type.endswith("json")
            return Answer(response.status, response.headers, await response.json(content_type=None) if is_json else None, text)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self("POST", path, **options)

    async def put(self, path: str, **options: Any) -> Answer:
        return await self("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> Answer:
        return await self("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self("DELETE", path, **options)

    async def new_task(self, **fields: Any) -> dict[str, Any]:
        """Create a task, of which only what matters to the test need be said, and give it."""
        answer = await self.post("/task", json={"name": "Buy milk", "description": "", "status": "new"} | fields)
        assert answer.status == 201, answer
        task: dict[str, Any] = answer.json
        return task


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    """A client of an application that runs for a whole module: a start costs more than most tests."""
    async with TestClient(TestServer(await app.create_app(configured()))) as client:
        yield client


@pytest.fixture
def service(client: TestClient[Any, Any]) -> Service:
    """What serves the client."""
    return service_of(client)


@pytest.fixture
def start(aiohttp_client: Any) -> Start:
    """A function that starts an application of a test's own, with the run's settings but for those given, and returns its client."""

    async def run(**overrides: Any) -> TestClient[Any, Any]:
        client: TestClient[Any, Any] = await aiohttp_client(await app.create_app(configured(**overrides)))
        return client

    return run


@pytest.fixture
def running() -> Running:
    """A function that holds a database open, with the run's settings but for those given."""

    @asynccontextmanager
    async def run(**overrides: Any) -> AsyncIterator[Database]:
        database = Database(database_configuration(configured(**overrides)))
        async with database.running():
            yield database

    return run


def let_happen_before(monkeypatch: pytest.MonkeyPatch, query: Query[Any], happen: Callable[[], Awaitable[None]]) -> None:
    """Let something happen before each time that a query is asked."""
    ask = Database.ask

    async def ask_later(database: Database, asked: Query[Any], *arguments: Any) -> Any:
        if asked is query:
            await happen()
        return await ask(database, asked, *arguments)

    monkeypatch.setattr(Database, "ask", ask_later)


@pytest.fixture
async def stranger(client: TestClient[Any, Any]) -> Person:
    """Somebody without a token."""
    return Person(client)


def cheap_hash(password: str) -> str:
    """Return a hash of the password that takes next to no work to make or to verify."""
    pepper = passwords.peppers_of(configured())[0]
    return pepper.name + PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(pepper.season(password))


@pytest.fixture
async def newcomer(client: TestClient[Any, Any]) -> Callable[[str], Awaitable[Person]]:
    """Return a function that makes an account of that name (and some digits) with next to no work for its password."""

    async def make(name: str) -> Person:
        login = f"{name}-{secrets.token_hex(6)}"
        return Person(
            client, login, await users.create_user(service_of(client), login, cheap_hash(PASSWORD), secrets.randbelow(auth.GENERATIONS))
        )

    return make


@pytest.fixture
async def alice(newcomer: Callable[[str], Awaitable[Person]]) -> Person:
    """The one whose tasks they are."""
    return await newcomer("alice")


@pytest.fixture
async def mallory(newcomer: Callable[[str], Awaitable[Person]]) -> Person:
    """Another one, with a token of her own and bad intentions."""
    return await newcomer("mallory")

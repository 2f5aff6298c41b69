"""The house keeps its shape: who may import whom, what is said once, and who may write."""

import ast
import re
from collections.abc import Callable
from graphlib import TopologicalSorter
from typing import Any, cast

import peewee
import pytest
from playhouse.postgres_ext import ArrayField, BinaryJSONField, DateTimeTZField
from pydantic import SecretStr

import app
import auth
import models
from accounts import rate_limits
from docs import house, picture
from docs.house import HOUSE, imports, modules, room_of, syntax
from rest import errors, overload
from settings import EXAMPLE_SECRET, Settings
from tasks import schemas, values
from telemetry import logs
from tests.conftest import configured

ROOMS = [  # floor by floor: what stands on one imports only from floors below
    {"run"},
    {"app"},
    {"views"},
    {"history", "transfer"},
    {"accounts", "tasks"},
    {"auth"},
    {"models"},
    {"service"},
    {"postgres"},
    {"rest"},
    {"server"},
    {"settings", "telemetry"},
]
FLOORS = {room: -depth for depth, rooms in enumerate(ROOMS) for room in rooms}
GENERAL = {"telemetry", "server", "rest", "postgres"}  # what they need is handed to them
READERS_OF_SETTINGS = {"app.py", "gunicorn.conf.py", "models.py", "run.py"}  # whoever starts; all others are handed what they need


def test_every_module_has_its_place_in_the_house() -> None:
    assert house.rooms() == {*FLOORS}


def test_a_module_imports_only_from_floors_below_its_own() -> None:
    wrong = {
        (module, other)
        for module in modules()
        for other in imports(module)
        if room_of(module) != room_of(other)
        and (FLOORS[room_of(other)] >= FLOORS[room_of(module)] or (other == "settings" and room_of(module) in GENERAL))
    }
    assert wrong == set()


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {module: imports(module) for module in modules()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_only_whoever_starts_reads_the_settings() -> None:
    paths = [HOUSE / f"{module.replace('.', '/')}.py" for module in modules()] + [HOUSE / "gunicorn.conf.py"]
    calls = {
        path: {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)} for path in paths
    }
    readers = {f"{path.relative_to(HOUSE)}" for path, called in calls.items() if called & {"settings.load", "load", "Settings"}}
    assert readers - {"settings.py"} == READERS_OF_SETTINGS


def test_every_room_says_what_it_is_for() -> None:
    for room in FLOORS:
        if (HOUSE / room).is_dir():
            assert ast.get_docstring(ast.parse((HOUSE / room / "__init__.py").read_text())), room


def test_the_picture_shows_the_house() -> None:
    assert picture.PICTURE.read_text() == picture.draw(), "docs/house.svg shows the house as it was: `make house` draws it anew."


def test_what_contributing_names_is_there() -> None:
    named = {*re.findall(r"`([\w./]+\.(?:py|sql))`", (HOUSE / "CONTRIBUTING.md").read_text())}
    homes = [HOUSE, HOUSE / "migrations", HOUSE / "migrations/functions", HOUSE / "tests/model"]
    no_file = {"migrations/000N.name.sql", "schemas.py", "utils.py"}  # one to come, one in each room, and one that there never is
    assert len(named) > 30
    assert {name for name in named if not any((home / name).exists() for home in homes)} == no_file


OURS = re.compile(r"task|trash|purge|x-revision|metrics_token", re.IGNORECASE)
OF_ASYNCIO = {"Task", "asyncio.Task[Any]", "create_task", "current_task"}


def words(module: str) -> set[str]:
    """Return the names and texts of a module, but what it tells its readers."""
    tree = syntax(module)
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: set[Any] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in told:
            found.add(node.value)
        else:
            found |= {getattr(node, part, None) for part in ("id", "attr", "arg", "name", "asname", "module")}
    return {word.decode(errors="replace") if isinstance(word, bytes) else word for word in found if isinstance(word, str | bytes)}


@pytest.mark.parametrize("module", [module for module in modules() if room_of(module) in GENERAL])
def test_the_general_rooms_know_nothing_of_tasks(module: str) -> None:
    assert {word for word in words(module) - OF_ASYNCIO if OURS.search(word)} == set()


def test_production_never_imports_the_embedded_postgresql() -> None:
    assert [module for module in modules() if "postgres.embedded" in imports(module)] == ["run"]


async def test_the_middlewares_stand_in_this_order() -> None:
    first, second, *others = (await app.create_app(configured(rate_limit="on"))).middlewares
    assert (first, second) == (logs.middleware, errors.middleware)
    assert [(each.__module__, getattr(each, "__name__", "")) for each in others] == [
        (overload.__name__, "middleware"),
        (auth.__name__, "authenticate"),
        (rate_limits.__name__, "limit"),
    ]


def default(name: str) -> str:
    value = Settings.model_fields[name].default
    value = value.get_secret_value() if isinstance(value, SecretStr) else value
    value = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return "" if value is None else str(value)


def test_the_example_names_every_setting_with_its_default() -> None:
    lines = re.findall(r"^(#? ?)([A-Z_]+)=(.*)$", (HOUSE / ".env.example").read_text(), re.MULTILINE)
    assert [name.lower() for _, name, _ in lines] == list(Settings.model_fields)
    for commented, name, value in lines:
        if commented:
            assert value == default(name.lower()), name
    required = {name: value for commented, name, value in lines if not commented}
    assert required == {
        "JWT_SECRET": EXAMPLE_SECRET,
        "PASS_SALT": EXAMPLE_SECRET,
        "DB_HOST": "db",
        "DB": "postgres",
        "DB_USER": "postgres",
        "DB_PASSWORD": "postgres",
    }


@pytest.mark.parametrize("readme", ["README.md", "README.ru.md"])
def test_the_readmes_list_every_setting_with_its_default(readme: str) -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)?", (HOUSE / readme).read_text(), re.MULTILINE)
    assert [name.lower() for name, _ in rows] == list(Settings.model_fields)
    for name, value in rows:
        if not Settings.model_fields[name.lower()].is_required():
            assert value == default(name.lower()), name


SQL_TYPES = {
    peewee.BigAutoField: "bigint",
    peewee.BigIntegerField: "bigint",
    peewee.TextField: "text",
    peewee.DateField: "date",
    DateTimeTZField: "timestamp with time zone",
    peewee.ForeignKeyField: "bigint",
    peewee.SmallIntegerField: "smallint",
    peewee.UUIDField: "uuid",
    BinaryJSONField: "jsonb",
    peewee.BlobField: "bytea",
    ArrayField: "ARRAY",
}


@pytest.mark.parametrize("model", models.Stored.__subclasses__(), ids=lambda model: model.__name__)
def test_the_models_are_the_schema(model: type[peewee.Model], sql: Callable[..., list[tuple[Any, ...]]]) -> None:
    columns = sql(
        "SELECT column_name, data_type, is_nullable = 'YES' FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position",
        model._meta.table_name,
    )
    fields = [(field.column_name, SQL_TYPES[type(field)], field.null) for field in model._meta.sorted_fields]
    assert sorted(fields) == sorted(columns)
    [key] = sql(
        "SELECT array_agg(a.attname::text ORDER BY array_position(i.indkey, a.attnum)) FROM pg_index i"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) WHERE i.indrelid = %s::regclass AND i.indisprimary",
        model._meta.table_name,
    )
    assert [field.column_name for field in cast("Any", model)._meta.get_primary_keys()] == key[0]


def test_the_limits_in_the_table_are_those_of_the_schemas(sql: Callable[..., list[tuple[Any, ...]]]) -> None:
    [(checks,)] = sql(
        "SELECT string_agg(p.prosrc, ' ') FROM pg_constraint c"
        " JOIN pg_depend d ON (d.classid, d.objid, d.refclassid) = ('pg_constraint'::regclass, c.oid, 'pg_proc'::regclass)"
        " JOIN pg_proc p ON p.oid = d.refobjid WHERE c.conrelid IN ('task'::regclass, 'task_log'::regclass)"
    )
    properties = schemas.TaskNew.model_json_schema()["properties"]
    assert f"char_length(name) BETWEEN {properties['name']['minLength']} AND {properties['name']['maxLength']}" in checks
    assert f"char_length(description) <= {properties['description']['maxLength']}" in checks
    assert f"status IN ({', '.join(repr(status) for status in values.STATUSES)})" in checks
    for field in ("name", "description"):
        longest = properties[field]["maxLength"]
        assert sql("SELECT log_value_fits(%s, %s), log_value_fits(%s, %s)", field, "x" * longest, field, "x" * (longest + 1)) == [
            (True, False)
        ]
    assert sql("SELECT s, log_value_fits('status', s) FROM unnest(%s) s", [*values.STATUSES, "done", None]) == [
        *((status, True) for status in values.STATUSES),
        ("done", False),
        (None, False),
    ]


def test_postgresql_and_python_say_the_same_of_a_tasks_fields(sql: Callable[..., list[tuple[Any, ...]]]) -> None:
    assert sql("SELECT task_field_names(), task_look()") == [([*schemas.LOGGED_FIELDS], schemas.LOOK)]
    new = schemas.TaskNew(name="n", description="d", status="new").model_dump_json()
    of_the_service = '{"id": 1, "revision": 1, "created_at": "now", "updated_at": "now"}'
    task = "jsonb_populate_record(NULL::task, %s::jsonb || %s::jsonb)"
    [(shown, logged)] = sql(f"SELECT task_json({task})::json, task_field_values({task})", new, of_the_service, new, of_the_service)
    assert [*shown] == [*schemas.Task.model_fields]
    assert [*schemas.LOGGED_FIELDS[:3], *logged[:3]] == ["name", "description", "status", "n", "d", "new"]
    assert len(logged) == len(schemas.LOGGED_FIELDS)


def test_only_the_functions_write_tasks_and_only_a_few_places_in_them() -> None:
    writes = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\s+(task|task_log)\b", re.IGNORECASE)
    found = {path.name: writes.findall(path.read_text()) for path in (HOUSE / "migrations").rglob("*.sql")}
    assert {name: verbs for name, verbs in found.items() if verbs} == {
        "housekeeping.sql": [("DELETE FROM", "task_log"), ("DELETE FROM", "task"), ("UPDATE", "task")],  # no more than how it looks
        "transfer.sql": [("INSERT INTO", "task_log")],  # of a whole account, as it was
        "write.sql": [("INSERT INTO", "task"), ("UPDATE", "task"), ("INSERT INTO", "task_log")],
        "trash.sql": [("DELETE FROM", "task_log"), ("DELETE FROM", "task")],
    }
    for module in modules():
        tree = syntax(module)
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert not [text for text in texts if writes.search(text)], module
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not [
            call for call in calls if re.match(r"(models\.)?(Task|TaskLog)\.(aio_)?(create|insert|update|delete|save|bulk)(_\w+)?$", call)
        ], module


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("task.example", "task.example:80")])
def test_an_address_is_written_as_addresses_are(host: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("PORT", "80")
    assert Settings().address == address  # type: ignore[call-arg]

"""The house keeps its shape: who may import whom, what is said once, and who may write."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import peewee
import pytest
from playhouse.postgres_ext import ArrayField, BinaryJSONField, DateTimeTZField
from pydantic import SecretStr

import app
import auth
import limits
import models
import scalars
import schemas
from rest import errors, overload, telemetry
from settings import EXAMPLE_SECRET, Settings

HOUSE = Path(app.__file__).parent
ROOMS = [  # a module imports only what stands above it
    "settings",
    "rest.metrics",
    "rest.telemetry",
    "rest.aiohttp_mends",
    "rest.errors",
    "rest.cors",
    "rest.overload",
    "rest.serving",
    "rest.answers",
    "rest.worker",
    "rest.streaming",
    "rest.conditions",
    "rest.idempotency",
    "rest.negotiation",
    "rest.addresses",
    "rest.quotas",
    "rest.cursors",
    "rest.fields",
    "rest.lines",
    "rest.contract",
    "rest.openapi",
    "postgres.aiopg_mends",
    "postgres.migrate",
    "postgres.database",
    "postgres.batching",
    "postgres.pages",
    "passwords",
    "scalars",
    "schemas",
    "spreadsheet",
    "calendar_format",
    "account_format",
    "verify",
    "models",
    "accounts",
    "filters",
    "listing",
    "history",
    "streams",
    "events",
    "transfer",
    "imports",
    "limits",
    "auth",
    "housekeeping",
    "views",
    "history_views",
    "account_views",
    "transfer_views",
    "app",
    "embedded",
]


def modules() -> list[str]:
    paths = [path for pattern in ("*.py", "rest/*.py", "postgres/*.py") for path in HOUSE.glob(pattern)]
    names = (".".join(path.relative_to(HOUSE).with_suffix("").parts) for path in paths)
    return [name for name in names if not name.endswith("__init__") and name != "gunicorn.conf"]


def imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((HOUSE / f"{module.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_its_place_in_the_house() -> None:
    assert sorted(modules()) == sorted(ROOMS)


@pytest.mark.parametrize("module", ROOMS)
def test_a_module_imports_only_what_stands_above_it(module: str) -> None:
    above = ROOMS[: ROOMS.index(module)]
    assert {name for name in imports(module) if name in ROOMS} <= set(above)


@pytest.mark.parametrize("package", ["rest", "postgres"])
def test_the_packages_know_nothing_of_tasks(package: str) -> None:
    for path in (HOUSE / package).glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not [name for name in names if "task" in name.lower()], path


def test_production_never_imports_the_embedded_postgresql() -> None:
    assert [module for module in modules() if "embedded" in set(imports(module))] == []


async def test_the_middlewares_stand_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "is_on", lambda: True)
    first, second, *others = (await app.create_app()).middlewares
    assert (first, second) == (telemetry.middleware, errors.middleware)
    assert [(each.__module__, getattr(each, "__name__", "")) for each in others] == [
        (overload.__name__, "middleware"),
        (auth.__name__, "authenticate"),
        (limits.__name__, "limit"),
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
    for status in scalars.STATUSES:
        assert f"'{status}'" in checks
    for field in schemas.LOGGED_FIELDS:
        assert f"'{field}'" in checks


def test_only_the_functions_write_tasks_and_only_a_few_places_in_them() -> None:
    writes = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\s+(task|task_log)\b", re.IGNORECASE)
    found = {path.name: writes.findall(path.read_text()) for path in (HOUSE / "migrations").rglob("*.sql")}
    assert {name: verbs for name, verbs in found.items() if verbs} == {
        "change.sql": [("UPDATE", "task"), ("INSERT INTO", "task_log")],
        "housekeeping.sql": [("DELETE FROM", "task_log"), ("DELETE FROM", "task")],
        "task.sql": [("INSERT INTO", "task")],
        "transfer.sql": [("INSERT INTO", "task"), ("INSERT INTO", "task"), ("INSERT INTO", "task_log")],
        "trash.sql": [("DELETE FROM", "task_log"), ("DELETE FROM", "task")],
    }
    for module in modules():
        tree = ast.parse((HOUSE / f"{module.replace('.', '/')}.py").read_text())
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

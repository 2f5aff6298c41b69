"""An upgrade keeps what this version promised: a next one that knows a field more takes over its database, under the clients of this one."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
import requests

from postgres import migrate
from tests.conftest import connection_parameters
from tests.process import next_version
from tests.process.service import HOUSE, Service, register, running

pytestmark = pytest.mark.long

TASK = {"name": "Buy milk", "description": "Two litres", "status": "new"}
PAGES = {
    "/task?sort=name&limit=2": [1, 2, 3, 5],
    "/task/1/log?limit=1": ["name", "status"],
    "/task/log?limit=1": ["name", "status", "deleted_at"],
}


class World(NamedTuple):
    """A database, the house of the next version, its files that differ, and a function that finds a port."""

    database: str
    house: Path
    changed: list[str]
    port: Callable[[], int]

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run SQL with the next version's functions."""
        path = f"-c search_path={migrate.search_path(self.house / 'migrations')}"
        with (
            closing(psycopg2.connect(dbname=self.database, options=path, **connection_parameters())) as connection,
            connection.cursor() as cursor,
        ):
            connection.autocommit = True
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def world(fresh_name: str, tmp_path: Path, unused_tcp_port_factory: Any) -> World:
    return World(fresh_name, tmp_path, next_version.make(HOUSE, tmp_path), unused_tcp_port_factory)


class Client:
    """Somebody who speaks to one version, then to the other, and keeps what it was told."""

    def __init__(self, service: Service, login: str) -> None:
        self.service, self.headers = service, register(service, login)

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request."""
        headers = self.headers | options.pop("headers", {})
        return requests.request(method, self.service.url + path, headers=headers, timeout=20, **options)

    def all_pages(self, first: requests.Response) -> list[Any]:
        """Follow a listing from one of its pages to the end."""
        got = first.json()
        while "next" in first.links:
            first = self("GET", first.links["next"]["url"])
            assert first.status_code == 200, first.text
            got += first.json()
        return got


def rows(world: World) -> dict[str, Any]:
    """Return where the table of tasks lies: another file where it was rewritten."""
    return dict(world.sql("SELECT relname, relfilenode FROM pg_class WHERE relname IN ('task', 'task_log', 'user_state')"))


def test_a_field_more_breaks_no_promise(world: World) -> None:  # noqa: PLR0915 - one story
    with running(world.port(), DB=world.database) as service:
        alice = Client(service, "alice")
        key = {"Idempotency-Key": "once"}
        created = alice("POST", "/task", json=TASK, headers=key)
        for n in range(4):
            alice("POST", "/task", json=TASK | {"name": f"Task {n}"})
        alice("PATCH", "/task/1", json={"name": "Buy bread"})
        changed = alice("PATCH", "/task/1", json={"status": "completed"})
        alice("DELETE", "/task/4")
        tag, present = changed.headers["ETag"], changed.json()
        pages = {path: alice("GET", path) for path in PAGES}
        lists = {path: alice("GET", path).headers["ETag"] for path in ("/task", "/task/1/log", "/export")}
        export, before = alice("GET", "/export").content, rows(world)
        assert "note" not in present

        with running(world.port(), world.house, DB=world.database) as next_service:
            bob = Client(next_service, "bob")  # both serve now
            assert rows(world) == before, "a table was rewritten"
            assert requests.get(f"{service.url}/health/ready", timeout=5).status_code == 200

            # The next version shows what this one wrote, as it looks there; what was known of it is another representation.
            alice.service = next_service
            shown = alice("GET", "/task/1", headers={"If-None-Match": tag})
            assert (shown.status_code, shown.headers["ETag"]) == (200, f'{tag[:-1]}.2"')
            assert shown.json() == present | {"note": ""}
            assert alice("GET", "/task/1", headers={"If-None-Match": shown.headers["ETag"]}).status_code == 304
            for path, known in lists.items():
                assert alice("GET", path, headers={"If-None-Match": known}).status_code == 200, path

            # Cursors, keys and tokens of this version are good there.
            for path, expected in PAGES.items():
                got = alice.all_pages(pages[path])
                assert [each.get("field") or each["id"] for each in got] == expected
            again = alice("POST", "/task", json=TASK, headers=key)
            assert (again.status_code, again.json()) == (201, created.json() | {"note": ""})
            assert alice("POST", "/task", json=TASK | {"note": "x"}, headers=key).status_code == 422

            # A tag names its revision in a condition, whichever version gave it.
            noted = alice("PATCH", "/task/1", json={"note": "at the corner"}, headers={"If-Match": tag})
            assert (noted.status_code, noted.json()["note"]) == (200, "at the corner")
            assert alice("PATCH", "/task/1", json={"note": "x"}, headers={"If-Match": tag}).status_code == 412

            # What this version writes meanwhile leaves the field alone, and has its default.
            alice.service = service
            assert alice("PATCH", "/task/1", json={"name": "Buy cheese"}, headers={"If-Match": noted.headers["ETag"]}).status_code == 200
            old_look = alice("POST", "/task", json=TASK).json()
            assert "note" not in old_look
            assert alice("GET", "/task/1").json().keys() == present.keys()
            alice.service = next_service
            assert alice("GET", "/task/1").json()["note"] == "at the corner"
            assert alice("GET", f"/task/{old_look['id']}").json()["note"] == ""

            # The past, undo and the log have it.
            assert [entry["field"] for entry in alice("GET", "/task/1/log").json()] == ["name", "status", "note", "name"]
            revision = present["revision"]
            assert alice("GET", f"/task/1?revision={revision}").json() == present | {"note": ""}
            undone = alice("POST", "/task/undo", json={"since": revision + 1}).json()
            assert [task["note"] for task in undone["tasks"] if task["id"] == 1] == [""]
            imported = bob("POST", "/import", data=export, headers={"Content-Type": "application/json"})
            assert imported.status_code == 200, imported.text
            assert {task["note"] for task in bob("GET", "/task").json()} == {""}

            # To this version, a change of what it doesn't know is none: it takes nothing back of it, and no revision for it.
            revision = alice("PATCH", "/task/2", json={"note": "only this"}).json()["revision"]
            alice.service = service
            assert alice("POST", "/task/undo", json={"since": revision - 1}).json() == {
                "before": revision,
                "revision": revision,
                "count": 0,
                "tasks": [],
            }
            assert alice("POST", "/task/2/restore", json={"revision": revision - 1}).json()["revision"] == revision
            alice.service = next_service
            assert alice("GET", "/task/2").json()["note"] == "only this"

            # Bodies of the old look are made anew, which changes nothing.
            whole = "SELECT user_id, id, revision, updated_at FROM task ORDER BY 1, 2"
            tasks, [(old,)] = world.sql(whole), world.sql("SELECT count(*) FROM task WHERE look = 1")
            assert old > 0
            while world.sql("SELECT look_sweep(1)") != [(0,)]:
                pass
            assert world.sql("SELECT count(*) FROM task WHERE look <> 2 OR body <> task_json(task)") == [(0,)]
            assert world.sql(whole) == tasks
            assert world.sql("SELECT f.* FROM user_state u, account_faults(u.user_id) f") == []

        # And the way back: this version goes on with what the next one has left.
        alice.service = service
        assert alice("GET", "/task/1").json().keys() == present.keys()
        assert alice("PATCH", "/task/1", json={"name": "Buy milk again"}).status_code == 200
    assert world.sql("SELECT f.* FROM user_state u, account_faults(u.user_id) f") == []


def test_a_field_takes_at_most_eight_files(world: World) -> None:
    assert len(world.changed) <= 8, world.changed


def test_the_next_versions_own_house_is_in_order(world: World) -> None:
    """What compares Python with PostgreSQL finds nothing wrong with the recipe."""
    tests = (
        "tests/test_house.py::test_the_models_are_the_schema",
        "tests/test_house.py::test_postgresql_and_python_say_the_same_of_a_tasks_fields",
    )
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests], cwd=world.house, env=os.environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout

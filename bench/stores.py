"""The tables of each system, with the same users and tasks in them, and what counts them afterwards."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cluster import Cluster, Store
from bench.data import EVERY_TASK, FIRST_MOMENT, GENERATION, TASKS_PER_USER
from postgres import migrate
from postgres.database import MIGRATIONS

HOUSE = Path(__file__).parent.parent

OURS_SEED = f"""
INSERT INTO users (login, login_key, password_hash) SELECT 'user-' || u, 'user-' || u, '' FROM generate_series(1, %(users)s) u;
INSERT INTO user_state (user_id, token_generation, revision, last_task_id, changed_at)
SELECT u, {GENERATION}, {TASKS_PER_USER}, {TASKS_PER_USER}, timestamptz '{FIRST_MOMENT}' + {TASKS_PER_USER} * interval '1 hour'
  FROM generate_series(1, %(users)s) u;
INSERT INTO task SELECT made.*
  FROM ({EVERY_TASK}) each
       CROSS JOIN LATERAL jsonb_populate_record(NULL::task, task_defaults() || to_jsonb(each) || jsonb_build_object(
           'created_at', moment, 'updated_at', moment, 'completed_at', CASE WHEN status = 'completed' THEN moment END,
           'created_revision', id, 'revision', id)) t
       CROSS JOIN LATERAL task_of_user(t, t.user_id) made;
"""

TWIN_SEED = f"""
INSERT INTO users (username, hashed_password, disabled) SELECT 'user-' || u, '', false FROM generate_series(1, %(users)s) u;
INSERT INTO tasks (id, owner_id, name, description, status, completion_at, created_at, updated_at)
SELECT number, user_id, name, description, status, completion_at, moment, moment FROM ({EVERY_TASK}) t;
SELECT setval(pg_get_serial_sequence('tasks', 'id'), (SELECT max(id) FROM tasks));
"""

OURS_COUNT = """
SELECT (SELECT count(*) FROM task), (SELECT count(*) FROM task_log), (SELECT sum(revision) FROM user_state),
       (SELECT count(*) FROM task t LEFT JOIN task_log l ON (l.user_id, l.revision) = (t.user_id, t.revision) AND l.task_id = t.id
                  AND l.field = 'status' AND l.new = t.status AND l.old <> l.new
         WHERE t.revision > t.created_revision AND l.user_id IS NULL)"""

TWIN_COUNT = """
SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM task_log), NULL,
       (SELECT count(*) FROM tasks t, LATERAL (SELECT l.new FROM task_log l WHERE l.task_id = t.id ORDER BY l.id DESC LIMIT 1) l
         WHERE l.new <> t.status)"""


def make_our_schema(cluster: Cluster, database: str) -> None:
    """Bring a database to the service's schema, whose functions everybody who connects then finds."""
    migrate.upgrade(database, {"host": cluster.host, "user": "postgres"}, MIGRATIONS)
    path = f"ALTER ROLE postgres SET search_path = {migrate.search_path(MIGRATIONS)}"
    cluster.run(database, path, "ALTER ROLE postgres SET plan_cache_mode = force_generic_plan")  # as the service's connections have them


def make_twin_schema(cluster: Cluster, database: str) -> None:
    """Make the twin's tables."""
    run_program([sys.executable, "-m", "bench.peers.fastapi_twin"], twin_settings(cluster, database))


def run_program(command: Sequence[str], settings: Mapping[str, str]) -> None:
    """Run what makes tables; exit with what it wrote where it can't."""
    done = subprocess.run(command, check=False, cwd=HOUSE, env={**os.environ, **settings}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")


def twin_settings(cluster: Cluster, database: str) -> dict[str, str]:
    """Say where the twin's database is."""
    return {"DATABASE_URL": f"postgresql+asyncpg://postgres@/{database}?host={cluster.host}"}


OURS = Store("ours", make_our_schema, OURS_SEED, OURS_COUNT)
TWIN = Store("twin", make_twin_schema, TWIN_SEED, TWIN_COUNT)

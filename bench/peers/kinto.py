"""Kinto (https://docs.kinto-storage.org), with a bucket for each user, a collection `tasks` in it, and a record for each task."""

import json
import sys
from base64 import b64encode
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import data
from bench.checks import same
from bench.cluster import Cluster, Store
from bench.data import EVERY_TASK, FIRST_MOMENT, TASKS_PER_USER, Size
from bench.jobs import Answer
from bench.load import Request
from bench.stores import run_program
from bench.systems import WORKERS, System
from tasks.values import STATUSES

INI = Path(__file__).with_suffix(".ini")
THREADS = 16
RECORDS = "/v1/buckets/user-{user}/collections/tasks/records"
REQUESTS = {
    "W1": Request("GET", f"{RECORDS}/{{id}}"),
    "W2": Request("GET", f"{RECORDS}?status={data.LISTED_STATUS}&_limit={data.LISTED}&_sort=last_modified"),
    "W3": Request("POST", RECORDS, [json.dumps({"data": data.new_task(status)}) for status in STATUSES]),
    "W4": Request("PATCH", f"{RECORDS}/{{id}}", [json.dumps({"data": {"status": status}}) for status in data.TURNS]),
}


def _padded(with_byte: int) -> str:
    return "".join(f"{byte ^ with_byte:02x}" for byte in b"benchmark".ljust(64, b"\0"))


# Whom a login and a password stand for: the HMAC-SHA256 (RFC 2104) of both.
_INNER = f"sha256('\\x{_padded(0x36)}'::bytea || convert_to('user-' || u || ':secret', 'UTF8'))"
_PRINCIPAL = f"'basicauth:' || encode(sha256('\\x{_padded(0x5C)}'::bytea || {_INNER}), 'hex')"
_MOMENT = f"(timestamptz '{FIRST_MOMENT}' AT TIME ZONE 'UTC')"
_LAST = f"{_MOMENT} + {TASKS_PER_USER} * interval '1 hour'"
_USERS = "generate_series(1, %(users)s) u"
_TASKS = f"({EVERY_TASK}) t"
_IN = "'/buckets/user-' || user_id || '/collections/tasks'"

SEED = f"""
INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
SELECT 'user-' || u, '', 'bucket', {_MOMENT} + u * interval '1 second', '{{}}', false FROM {_USERS};
INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
SELECT 'tasks', '/buckets/user-' || u, 'collection', {_MOMENT}, '{{}}', false FROM {_USERS};
INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
SELECT id::text, {_IN}, 'record', moment AT TIME ZONE 'UTC',
       jsonb_build_object('name', name, 'description', description, 'status', status, 'completion_at', completion_at), false
  FROM {_TASKS};
INSERT INTO timestamps SELECT '', 'bucket', {_MOMENT} + %(users)s * interval '1 second';
INSERT INTO timestamps SELECT '/buckets/user-' || u, 'collection', {_MOMENT} FROM {_USERS};
INSERT INTO timestamps SELECT '/buckets/user-' || u || '/collections/tasks', 'record', {_LAST} FROM {_USERS};
INSERT INTO access_control_entries SELECT '/buckets/user-' || u, 'write', {_PRINCIPAL} FROM {_USERS};
INSERT INTO access_control_entries SELECT '/buckets/user-' || u || '/collections/tasks', 'write', {_PRINCIPAL} FROM {_USERS};
INSERT INTO access_control_entries
SELECT {_IN} || '/records/' || id, 'write', principal
  FROM {_TASKS} JOIN (SELECT u, {_PRINCIPAL} AS principal FROM {_USERS}) p ON p.u = t.user_id;
"""

COUNT = """
SELECT (SELECT count(*) FROM objects WHERE resource_name = 'record'),
       (SELECT count(*) FROM objects WHERE resource_name = 'history' AND data ->> 'action' = 'update'), NULL,
       (SELECT count(*) FROM (SELECT DISTINCT ON (data ->> 'uri') data FROM objects WHERE resource_name = 'history'
                               ORDER BY data ->> 'uri', last_modified DESC) h
          JOIN objects r ON r.resource_name = 'record' AND r.parent_id || '/records/' || r.id = h.data ->> 'uri'
         WHERE r.data ->> 'status' <> h.data #>> '{target,data,status}')"""


class KintoAnswers:
    """What Kinto must answer."""

    def check(self, job: str, user_id: int, task_id: int, answer: Answer) -> None:
        """Raise Refused where this isn't the answer."""
        same("the status code", answer.status, 201 if job == "W3" else 200)
        found = answer.content["data"]
        if job == "W2":
            same("the list", found, [self._record(user_id, each) for each in data.listed_ids()])
            return
        record = self._record(user_id, task_id)
        moved = {name: found[name] for name in ("id", "last_modified")}
        if job == "W3":
            record = data.new_task(data.seeded_status(task_id)) | moved
        if job == "W4":
            same("whether it is said to be changed later", moved["last_modified"] > record["last_modified"], True)
            record |= {"status": data.next_status(task_id), "last_modified": moved["last_modified"]}
        same("the record", found, record)

    @staticmethod
    def _record(user_id: int, task_id: int) -> dict[str, Any]:
        task = data.seeded_task(user_id, task_id)
        day = task["completion_at"] and "-".join(reversed(task["completion_at"].split("-")))
        moment = datetime.strptime(task["created_at"], "%Y-%m-%dT%H:%M:%S.%f%z")
        shown = {name: task[name] for name in ("name", "description", "status")}
        return {"id": str(task_id), "last_modified": round(moment.timestamp() * 1000), "completion_at": day} | shown


def _settings(cluster: Cluster, database: str) -> dict[str, str]:
    url = f"postgresql://postgres@/{database}?host={cluster.host}"
    return {f"KINTO_{part}_URL": url for part in ("STORAGE", "CACHE", "PERMISSION")}


def _tokens(size: Size) -> list[str]:
    return [f"Basic {b64encode(f'user-{user_id}:secret'.encode()).decode()}" for user_id in range(1, size.users + 1)]


def make_schema(cluster: Cluster, database: str) -> None:
    """Make Kinto's tables."""
    cluster.run(database, f"ALTER DATABASE {database} SET timezone TO UTC")
    program = Path(sys.executable).with_name("kinto")
    if not program.exists():
        raise SystemExit("Kinto is missing: `make bench ARGS=--kinto` installs it.")
    run_program([f"{program}", "migrate", "--ini", f"{INI}"], _settings(cluster, database))


KINTO = System(
    "kinto",
    "Kinto with its history plugin",
    Store("kinto", make_schema, SEED, COUNT),
    KintoAnswers,
    lambda port: [
        *(sys.executable, "-m", "gunicorn", "--paste", f"{INI}", "--bind", f"127.0.0.1:{port}", "--worker-tmp-dir", "/dev/shm"),
        *("--workers", f"{WORKERS}", "--threads", f"{THREADS}", "--keep-alive", "75", "--no-control-socket"),
    ],
    _settings,
    _tokens,
    requests=REQUESTS,
)

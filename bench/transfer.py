"""How an account with a long history goes out and comes in: how long that takes, and how much memory of a worker."""

import hashlib
import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import stores
from bench.cluster import Cluster
from bench.data import DESCRIPTION, FIRST_MOMENT, GENERATION, Size
from bench.load import Refused
from bench.measure import memory, tree
from bench.systems import OURS, Running, our_settings
from tasks.values import STATUSES

TASKS = 100_000
ENTRIES = 10  # of each task's log
MAX_MIB = 50  # by which a worker may grow
SECONDS_BETWEEN_LOOKS = 0.05
DATABASE = "transferred"
ONE_WORKER = replace(OURS, environment=lambda cluster, database: our_settings(cluster, database) | {"WEB_CONCURRENCY": "1"})
FORMS = (("application/json", "/export"), ("text/csv", "/task?format=csv"), ("text/calendar", "/task?format=ics"))

ACCOUNTS = (
    "INSERT INTO users (login, login_key, password_hash) SELECT 'user-' || u, 'user-' || u, '' FROM generate_series(1, 4) u",
    f"INSERT INTO user_state (user_id, token_generation) SELECT id, {GENERATION} FROM users",
)


def history(user_id: int, tasks: int, entries: int) -> tuple[str, ...]:
    """Return the statements by which a user has tasks that were created one by one, then taken through the statuses again and again."""
    statuses, before, last = f"(ARRAY{list(STATUSES)!r})", tasks * entries, tasks * (entries + 1)
    return (
        f"UPDATE user_state SET (revision, last_task_id, changed_at) = ({last}, {tasks}, {_moment(last)}) WHERE user_id = {user_id}",
        f"""
INSERT INTO task SELECT made.*
  FROM (SELECT n, {statuses}[mod({entries}, 4) + 1] AS status, {_moment(f"{before} + n")} AS changed_at
          FROM generate_series(1, {tasks}) n) each
       CROSS JOIN LATERAL jsonb_populate_record(NULL::task, task_defaults() || jsonb_build_object(
           'id', n, 'name', 'Подготовить отчёт, часть ' || n, 'description', n || '. {DESCRIPTION}', 'status', status,
           'completion_at', date '2026-01-01' + mod(n, 1000), 'created_at', {_moment("n")}, 'updated_at', changed_at,
           'completed_at', CASE WHEN status = 'completed' THEN changed_at END, 'created_revision', n, 'revision', {before} + n)) t
       CROSS JOIN LATERAL task_of_user(t, {user_id}) made""",
        f"""
INSERT INTO task_log (user_id, task_id, revision, field, old, new, changed_at)
SELECT {user_id}, n, {tasks} * e + n, 'status', {statuses}[mod(e - 1, 4) + 1], {statuses}[mod(e, 4) + 1], {_moment(f"{tasks} * e + n")}
  FROM generate_series(1, {entries}) e, generate_series(1, {tasks}) n""",
    )


def _moment(revision: object) -> str:
    return f"timestamptz '{FIRST_MOMENT}' + ({revision}) * interval '1 second'"


def run(cluster: Cluster, directory: Path, tasks: int = TASKS) -> None:
    """Let the account go out and come in, in each form. Raises Refused where a worker grows too much, or something else comes out."""
    cluster.drop(DATABASE)
    cluster.run("postgres", f"CREATE DATABASE {DATABASE}")
    stores.OURS.make_schema(cluster, DATABASE)
    cluster.run(DATABASE, *ACCOUNTS, *history(1, tasks, ENTRIES), "ANALYZE")
    out, again = directory / "out", directory / "again"
    with ONE_WORKER.run(cluster, DATABASE, Size(4), directory) as running:
        [_, worker, *_] = tree(running.pid)
        at_rest = memory(worker.pid).rss
        for user, (media_type, path) in enumerate(FORMS, start=2):
            for way, do in (("out", partial(_take, running, 1, path, out)), ("in", partial(_bring, running, user, media_type, out))):
                seconds, most = _watched(worker.pid, do)
                size = out.stat().st_size / 2**20
                print(f"{media_type:17} {way:3} {size:6.1f} MiB {seconds:6.1f} s, RSS {at_rest:.0f} -> {most:.0f} MiB")
                if most - at_rest >= MAX_MIB:
                    raise Refused(f"a worker grew by {most - at_rest:.0f} MiB")
            if user == 2:
                _take(running, user, path, again)
                if _digest(again) != _digest(out):
                    raise Refused("what came in doesn't go out as it was")
    cluster.drop(DATABASE)


def _take(running: Running, user: int, path: str, file: Path) -> None:
    connection = http.client.HTTPConnection(running.target.url.removeprefix("http://"), timeout=60)
    connection.request("GET", path, headers={"Authorization": running.target.tokens[user - 1]})
    response = connection.getresponse()
    with file.open("wb") as kept:
        while piece := response.read(2**16):
            kept.write(piece)
    connection.close()
    if response.status != 200:
        raise Refused(f"GET {path} was answered {response.status}")


def _bring(running: Running, user: int, media_type: str, file: Path) -> None:
    connection = http.client.HTTPConnection(running.target.url.removeprefix("http://"), timeout=600)
    headers = {"Content-Type": media_type, "Content-Length": f"{file.stat().st_size}", "Authorization": running.target.tokens[user - 1]}
    with file.open("rb") as body:
        connection.request("POST", "/import", body, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    if response.status != 200:
        raise Refused(f"an import of {media_type} was answered {response.status}: {answer[:500]!r}")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _watched(pid: int, do: Callable[[], None]) -> tuple[float, float]:
    """Return how many seconds something takes, and what a process has in memory meanwhile, at the most, in MiB."""
    found = [memory(pid).rss]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            found.append(memory(pid).rss)

    looking = threading.Thread(target=look)
    started = time.monotonic()
    looking.start()
    try:
        do()
        return time.monotonic() - started, max(found)
    finally:
        ended.set()
        looking.join()

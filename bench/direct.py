"""pgbench: what PostgreSQL does alone for the same requests, one statement each."""

import json
import re
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2.extensions import adapt

from bench import stores
from bench.cluster import Cluster
from bench.data import GENERATION, LISTED, LISTED_STATUS, TASKS_PER_USER, Part, Size
from bench.generators import pgbench
from bench.jobs import REQUESTS, Answer, Ask
from bench.load import Meter, Run
from postgres.queries import Query
from tasks.queries import matching_task, task_page

WALK = f"""
\\set walk :walk + 1
\\set place :walk * :clients + :client_id
\\set cycle :place / :length
\\set number ((:start + :place % :length) * :stride) % :walked
\\set user_id :first_user + :number / {TASKS_PER_USER}
\\set id :number % {TASKS_PER_USER} + 1
\\set turn (:id - 1 + :cycle) % 4
"""


def _statement(job: str, turn: str) -> str:
    """Return what the service sends for one request; `turn` says which of the bodies."""
    match job:
        case "W1":
            return _as_sent(matching_task("live", ()), ":user_id", GENERATION, ":id")
        case "W2":
            return _as_sent(
                task_page("live", ("status",), "id", False, "the start", short=True),
                ":user_id",
                GENERATION,
                LISTED,
                LISTED_STATUS,
            )
        case "W3":
            return _write("", turn)
    return _write(":id", turn)


def _write(task: str, turn: str) -> str:
    whose = f"ARRAY[:user_id]::bigint[], ARRAY[{GENERATION}]"
    return f"SELECT * FROM task_write({whose}, ARRAY[{task}]::bigint[], '{{}}', ARRAY[:body{turn}]::jsonb[], '{{}}', true)"


def _as_sent(query: Query[Any], *values: Any) -> str:
    """Return a read's text with its values in their places; those that begin with a colon are pgbench's variables."""
    texts = (value if f"{value}".startswith(":") else adapt(value).getquoted().decode() for value in (*values, True, *query.one.constants))
    return re.sub("%s", lambda _: next(texts), query.one.text)


def _script(job: str) -> str:
    if not REQUESTS[job].bodies:
        return f"{WALK}{_statement(job, '')};\n"
    first, *others = (_statement(job, str(turn)) for turn in range(4))
    branches = "".join(f"\\elif :turn = {turn}\n{each};\n" for turn, each in enumerate(others, 1))
    return f"{WALK}\\if :turn = 0\n{first};\n{branches}\\endif\n"


def run(cluster: Cluster, database: str, job: str, size: Size, part: Part, connections: int, seconds: int, meter: Meter) -> Run:
    """Run pgbench for one job."""
    variables: dict[str, Any] = {f"body{turn}": body for turn, body in enumerate(REQUESTS[job].bodies)}
    variables |= {"walk": -1, "clients": connections, "start": part.start, "length": part.length}
    variables |= {"stride": size.stride, "walked": size.walked, "first_user": size.sampled_users + 1}
    command = [f"{cluster.programs}/pgbench", f"--host={cluster.host}", "--username=postgres", f"--dbname={database}"]
    return pgbench(command, _script(job), connections, seconds, meter, **variables)


def by_sql(cluster: Cluster, database: str) -> Ask:
    """Ask the database what pgbench asks it."""

    def ask(job: str, user_id: int, task_id: int) -> Answer:
        turn = (task_id - 1) % 4
        values = {"user_id": user_id, "id": task_id} | {f"body{place}": body for place, body in enumerate(REQUESTS[job].bodies)}
        text = _statement(job, str(turn)).replace("%", "%%")
        for name in values:
            text = text.replace(f":{name}", f"%({name})s")
        with closing(psycopg2.connect(host=cluster.host, user="postgres", dbname=database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text, values)
                row = dict(zip([column.name for column in cursor.description or ()], cursor.fetchone() or (), strict=True))
        return Answer(_page(row["json"].encode(), row["spare"]) if job == "W2" else json.loads(row["body"]))

    return ask


def _page(text: bytes, spare: int) -> Any:
    return json.loads(b"[%b]" % text[: len(text) - spare])


TITLE = "pgbench: PostgreSQL alone, the same functions"
NAME = "pgbench"
STORE = stores.OURS

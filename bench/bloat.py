"""How large the table of tasks becomes where they are changed again and again: what a change leaves behind is vacuum's to take away."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg2

from bench import stores
from bench.cluster import MEBIBYTE, Cluster
from bench.data import GENERATION, TASKS_PER_USER, Size
from bench.results import Record
from tasks.values import STATUSES

SIZE = Size(500)  # 100,000 tasks
CHANGES, PER_STATEMENT, LOOKS = 1_000_000, 100, 20
STRIDE = 61_803  # coprime with the number of tasks
DATABASE = "bloat"
CHANGE = f"""
SELECT count(*)
  FROM (SELECT array_agg(c.number / {TASKS_PER_USER} + 1) AS users, array_agg(c.number %% {TASKS_PER_USER} + 1) AS ids,
               array_agg(jsonb_build_object('status', (ARRAY{list(STATUSES)!r})[1 + (c.number + 1 + c.pass) %% 4])) AS changes
          FROM (SELECT n * {STRIDE} %% %(tasks)s AS number, n / %(tasks)s AS pass
                  FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) c) a,
       LATERAL task_write(a.users, array_fill({GENERATION}::bigint, ARRAY[cardinality(a.ids)]), a.ids, '{{}}', a.changes, '{{}}', true) w
 WHERE w.refused IS NULL"""


def run(cluster: Cluster, size: Size = SIZE, changes: int = CHANGES) -> Iterator[Record]:
    """Change the status of all tasks, again and again, as fast as one connection does, and tell now and then how large it all is."""
    cluster.copy(cluster.seed(stores.OURS, size), DATABASE)
    step, started = changes // LOOKS, time.monotonic()
    with closing(psycopg2.connect(host=cluster.host, user="postgres", dbname=DATABASE)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for done in range(0, changes + 1, PER_STATEMENT):
            if done % step == 0:
                cursor.execute("SELECT pg_table_size('task'), pg_indexes_size('task'), pg_total_relation_size('task_log')")
                [(table, indexes, log)] = cursor.fetchall()
                sizes = {"table_mib": table / MEBIBYTE, "indexes_mib": indexes / MEBIBYTE, "log_mib": log / MEBIBYTE}
                print(f"{done:,} changes: {table / MEBIBYTE:.0f} and {indexes / MEBIBYTE:.0f} MiB ...", file=sys.stderr)
                yield {"changes": done, "seconds": time.monotonic() - started} | sizes
            cursor.execute(CHANGE, {"tasks": size.tasks, "first": done, "last": done + PER_STATEMENT - 1})
    cluster.drop(DATABASE)

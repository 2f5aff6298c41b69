"""The benchmark reads its instruments rightly, and doesn't count what was answered wrongly."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import bloat, cluster, data, direct, generators, load, measure, more, report, results, rounds, stores
from bench.checks import Books, OurAnswers, Sampler, Stored, counter
from bench.cluster import Cluster
from bench.data import Size
from bench.goals import Goal
from bench.jobs import JOBS, Answer
from bench.load import Cost, Refused, Run, Seen

pytestmark = pytest.mark.long  # it is of tools for developers

WRK = """Running 1s test @ http://127.0.0.1:8080
  2 threads and 32 connections
  12345 requests in 1.00s, 4.20MB read
result {"requests": 2000, "microseconds": 1000000, "p50": 1500, "p99": 9250, "status": 0, "connect": 0, "read": 0, "write": 0, "timeout": 0}
"""
SIZE = Size(20)


def test_what_wrk_prints_is_understood() -> None:
    assert generators.read_wrk(WRK) == Seen(requests=2000, seconds=1, p50_ms=1.5, p99_ms=9.25)


def test_what_was_not_measured_again_stays_on_the_page() -> None:
    page = report.PAGE.read_text()
    assert report.page({}, page) == page
    record = {"what": "x", "turn": 1, "ours_ms": 2.0, "plain_ms": 1.0}
    after = report.page({"more": {"when": "2026-12-01", "machine": {}, "plan": {}, "records": [record]}}, page)
    assert "| x | 2.00 | 1.00 | 2.00 |" in after
    assert after.partition("## Growth")[2] == page.partition("## Growth")[2] != ""


@pytest.mark.parametrize("error", ["status", "connect", "read", "write", "timeout"])
def test_a_run_with_an_error_is_refused(error: str) -> None:
    with pytest.raises(Refused, match=f"'{error}': 1"):
        generators.read_wrk(WRK.replace(f'"{error}": 0', f'"{error}": 1'))


@pytest.mark.parametrize("output", ["unable to connect to 127.0.0.1:8080 Connection refused\n", WRK.replace("2000", "0")])
def test_a_run_without_answers_is_refused(output: str) -> None:
    with pytest.raises(Refused):
        generators.read_wrk(output)


def test_of_pgbench_only_what_ended_in_the_time_that_counts_counts() -> None:
    log = [f"0 {number} {1000 * number} 0 {100 + number} 500000".split() for number in range(1, 10)]  # ends at 101.5, 102.5, ...
    assert generators.read_pgbench(log, 102.0, 105.0) == Seen(requests=3, seconds=3, p50_ms=3, p99_ms=4)
    with pytest.raises(Refused):
        generators.read_pgbench(log, 110.0, 111.0)


def test_capacity_is_the_cores_by_all_cpu_time_of_a_request() -> None:
    figures = load.figures(Run(generators.read_wrk(WRK), Cost(service=0.6, postgresql=0.3), generator_seconds=0.1, acknowledged=2000))
    assert (figures.rate, figures.service_us, figures.postgresql_us, figures.generator_us) == pytest.approx((2000, 300, 150, 50))
    assert (figures.cpu_us, figures.busy_cores) == pytest.approx((500, 1))
    assert load.capacity(2, figures.cpu_us) == pytest.approx(4000)


def test_cpu_time_is_that_of_a_process_and_its_children_the_dead_ones_included() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"\n"
        assert 0.3 <= measure.cpu_seconds(parent.pid) < 3
        assert [process.pid for process in measure.tree(parent.pid)] == [parent.pid]
        assert parent.pid in [process.pid for process in measure.tree(os.getpid())]
        parent.communicate()


def test_ratios_are_taken_within_the_round() -> None:
    rates = {"ours": [10, 40], "hello": [100, 200]}
    records = [
        {"round": turn, "job": "W1", "connections": 32, "system": system, "capacity": rate}
        for system, found in rates.items()
        for turn, rate in enumerate(found)
    ]
    assert results.ratios(records, "ours", "hello") == [0.1, 0.2]
    assert results.spread([3, 1, 250]) == "3.00 [1.00, 250]"


@pytest.mark.parametrize(("goal", "is_reached"), [(Goal("", [0.5, 0.7, 0.1], least=0.5), True), (Goal("", [3.1], most=3), False)])
def test_a_goal_is_a_bound_for_the_median(goal: Goal, is_reached: bool) -> None:
    assert goal.is_reached is is_reached


@pytest.mark.parametrize("users", [50, 1000])
def test_no_two_parts_of_the_walk_have_a_task_in_common(users: int) -> None:
    size = Size(users)
    assert math.gcd(size.stride, size.walked) == 1
    steps = [part.start + place for part in data.parts(size, 6) for place in range(part.length)]
    tasks = {step * size.stride % size.walked for step in steps}
    assert len(tasks) == len(steps) >= size.walked - 6


@pytest.mark.parametrize(("tasks", "log", "revisions"), [(9, 0, 9), (13, 0, 13), (11, 1, 12), (11, 0, 12)])
def test_rows_that_nobody_asked_for_or_that_are_missing_are_refused(tasks: int, log: int, revisions: int) -> None:
    size = Size(1)
    books = Books(lambda: Stored(size.tasks + tasks, log, size.tasks + revisions, 0), size)
    books.acknowledge("W3", 10, connections=2)
    with pytest.raises(Refused):
        books.check({})


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A PostgreSQL as the benchmark has it."""
    directory: Path = tmp_path_factory.mktemp("bench")
    with cluster.running(directory / "data") as server:
        yield server


def copy(server: Cluster, database: str) -> tuple[Sampler, Books]:
    """Make a fresh copy of the seed, and what checks it."""
    server.copy(server.seed(stores.OURS, SIZE), database)
    return Sampler(direct.by_sql(server, database), OurAnswers(), SIZE), Books(counter(server, stores.OURS.count, database), SIZE)


@pytest.mark.long
def test_what_may_take_long_is_measured_beside_plain_statements(seeded: Cluster) -> None:
    records = list(more.run(seeded, crowd=SIZE, tasks=40, few=20, turns=2))
    assert len(records) == 2 * len({record["what"] for record in records}) >= 30
    assert all(record["ours_ms"] > 0 < record["plain_ms"] for record in records)


@pytest.mark.long
def test_every_change_that_may_leave_something_behind_is_one(seeded: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "drop", lambda *_: None)
    records = list(bloat.run(seeded, size=SIZE, changes=8000))
    assert [record["changes"] for record in records] == [*range(0, 8001, 400)]
    assert seeded.run(bloat.DATABASE, "SELECT count(DISTINCT (user_id, revision)) FROM task_log") == [(8000 + bloat.PER_STATEMENT,)]


@pytest.mark.long
def test_the_functions_answer_as_the_seed_foretells(seeded: Cluster) -> None:
    sampler, books = copy(seeded, "measured")
    for job in JOBS:
        sampler.sample(job)
    books.check(sampler.asked)


@pytest.mark.long
def test_an_answer_that_the_seed_does_not_foretell_is_refused(seeded: Cluster) -> None:
    sampler, _ = copy(seeded, "tampered")
    seeded.run("tampered", "UPDATE task SET look = 0, name = 'Something else' WHERE id = 2")
    with pytest.raises(Refused, match="'Something else'"):
        sampler.sample("W2")


def other(answer: Any, **values: Any) -> Answer:
    return Answer(answer.content | values, answer.status, answer.headers)


def test_an_answer_that_differs_anywhere_is_refused() -> None:
    right = Answer(data.seeded_task(7, 3), 200, {"ETag": '"3"', "X-Revision": "200"})
    OurAnswers().check("W1", 7, 3, right)
    for wrong in (
        other(right, name="Something else"),
        other(right, revision=4),
        other(right, more=1),
        Answer(right.content, 404, right.headers),
        Answer(right.content, 200, {"ETag": '"4"', "X-Revision": "200"}),
    ):
        with pytest.raises(Refused):
            OurAnswers().check("W1", 7, 3, wrong)


@pytest.mark.parametrize("wrong", [0, 2, 3])
def test_a_round_with_a_wrong_answer_does_not_count_and_is_run_again(wrong: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = [wrong]

    def one(cluster: Any, plan: Any, directory: Path, turn: int) -> Iterator[dict[str, Any]]:
        yield {"round": turn}
        if turn == 1 and left[0]:
            left[0] -= 1
            raise Refused("one answer")
        yield {"round": turn}

    monkeypatch.setattr(rounds, "_round", one)
    plan = rounds.Plan(SIZE, [], [], [], 3, 1)
    if wrong > rounds.MAX_REFUSED:
        with pytest.raises(Refused):
            rounds.run(None, plan, tmp_path)  # type: ignore[arg-type]
    else:
        assert rounds.run(None, plan, tmp_path) == ([{"round": turn} for turn in (0, 0, 1, 1, 2, 2)], ["one answer"] * wrong)  # type: ignore[arg-type]

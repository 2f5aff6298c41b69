"""The generators of load, wrk and pgbench: one run of one job."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.data import TASKS_PER_USER, Part, Size
from bench.load import Meter, Refused, Request, Run, Seen, Target
from bench.measure import cpu_seconds

SCRIPT = Path(__file__).with_name("wrk.lua")
THREADS = 2
SECONDS_OF_PATIENCE = 30
CONNECTIONS_PER_SECOND = 64  # that get ready: a new connection of PostgreSQL has everything to learn


def require_wrk() -> None:
    """Exit with a sentence where there is no wrk."""
    if shutil.which("wrk") is None:
        raise SystemExit("The benchmark needs wrk, which makes the load: on Debian and Ubuntu `apt install wrk`.")


def wrk(target: Target, request: Request, size: Size, part: Part, connections: int, seconds: int, meter: Meter) -> Run:
    """Run wrk. Raises Refused where an answer was no success or a connection failed."""
    threads = min(THREADS, connections)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        tokens, bodies = Path(directory) / "tokens", Path(directory) / "bodies"
        tokens.write_text("".join(f"{token}\n" for token in target.tokens))
        bodies.write_text("".join(f"{body}\n" for body in request.bodies))
        arguments: dict[str, Any] = {
            "threads": threads,
            "tokens": tokens,
            "method": request.method,
            "path": request.path,
            "bodies": bodies,
            "walked": size.walked,
            "per_user": TASKS_PER_USER,
            "first_user": size.sampled_users + 1,
            "numbers": target.numbers,
            "start": part.start,
            "length": part.length,
            "stride": size.stride,
        }
        options = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", "-s", f"{SCRIPT}", target.url]
        before = meter()
        with _running(["wrk", *options, "--", *(f"{name}={value}" for name, value in arguments.items())], seconds) as process:
            assert process.stdout  # noqa: S101 - for mypy: it is a pipe
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        cost = meter().since(before)
    seen = read_wrk(output)
    return Run(seen, cost, usage.ru_utime + usage.ru_stime, seen.requests)


def read_wrk(output: str) -> Seen:
    """Understand what wrk.lua prints at the end. Raises Refused where not every request was answered with success."""
    results = [line.removeprefix("result ") for line in output.splitlines() if line.startswith("result ")]
    if len(results) != 1:
        raise Refused(f"wrk failed: {output.strip()}")
    result = json.loads(results[0])
    errors = {name: result[name] for name in ("status", "connect", "read", "write", "timeout") if result[name]}
    if errors or not result["requests"]:
        raise Refused(f"of {result['requests']} requests, these went wrong: {errors}")
    return Seen(result["requests"], result["microseconds"] / 1e6, result["p50"] / 1e3, result["p99"] / 1e3)


def pgbench(command: Sequence[str], script: str, connections: int, seconds: int, meter: Meter, **variables: Any) -> Run:
    """Run pgbench with a script in which `:name` stands for a variable. Raises Refused where a transaction failed."""
    warm_up = 1 + connections // CONNECTIONS_PER_SECOND
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = Path(directory) / "script"
        path.write_text(script)
        options = [f"--client={connections}", f"--jobs={min(THREADS, connections)}", f"--time={warm_up + seconds + 1}", "--no-vacuum"]
        log = ["--log", f"--log-prefix={directory}/log", f"--file={path}", "--protocol=prepared"]
        values = [f"--define={name}={value}" for name, value in variables.items()]
        with _running([*command, *options, *log, *values], warm_up + seconds + 1) as process:
            moments, costs, own = [], [], []
            for pause in (warm_up, seconds):
                time.sleep(pause)
                moments.append(time.time())
                costs.append(meter())
                own.append(cpu_seconds(process.pid))
            assert process.stdout  # noqa: S101 - for mypy: it is a pipe
            output = process.stdout.read()
        lines = [line.split() for file in Path(directory).glob("log*") for line in file.read_text().splitlines()]
    if process.returncode or "number of failed transactions: 0 " not in output:
        raise Refused(f"pgbench failed: {output.strip()}")
    return Run(read_pgbench(lines, *moments), costs[1].since(costs[0]), own[1] - own[0], len(lines))


def read_pgbench(lines: Sequence[Sequence[str]], since: float, until: float) -> Seen:
    """Understand pgbench's log (third the latency, fifth and sixth the moment) of what ended between two moments. Raises Refused."""
    latencies = sorted(int(line[2]) for line in lines if since <= int(line[4]) + int(line[5]) / 1e6 < until)
    if not latencies:
        raise Refused("pgbench did nothing in the time that counts")
    p50, p99 = (latencies[len(latencies) * percent // 100] / 1e3 for percent in (50, 99))
    return Seen(len(latencies), until - since, p50, p99)


@contextmanager
def _running(command: Sequence[str], seconds: int) -> Iterator[subprocess.Popen[str]]:
    """Run a generator, and end it where it doesn't end by itself."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        patience = threading.Timer(seconds + SECONDS_OF_PATIENCE, process.kill)
        patience.start()
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            patience.cancel()

"""The generators of load, wrk and pgbench: one run of one job, its rate, its latencies and what it cost."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.data import TASKS_PER_USER, Part, Size
from bench.measure import cores

SCRIPT = Path(__file__).with_name("wrk.lua")
THREADS = 2
SECONDS_OF_PATIENCE = 30


class Refused(Exception):
    """Something was answered wrongly, so that nothing that was measured counts."""


@dataclass(frozen=True)
class Run:
    """What a generator saw, and the CPU time that it took itself."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    generator_seconds: float


@dataclass(frozen=True)
class Request:
    """What a job asks of a system: `{id}` and `{user}` stand for a task and a user; a change takes the bodies in turn."""

    method: str
    path: str
    bodies: Sequence[str] = ()


@dataclass(frozen=True)
class Target:
    """Where a system is, how users prove who they are (a header's value each), and how it numbers tasks."""

    url: str
    tokens: Sequence[str]
    numbers: str = "own"


@dataclass(frozen=True)
class Figures:
    """One measurement: the rate, the latencies, and the CPU time per request of all that took part."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    service_us: float
    postgresql_us: float
    generator_us: float
    busy_cores: float

    @property
    def cpu_us(self) -> float:
        """All CPU time per request."""
        return self.service_us + self.postgresql_us + self.generator_us

    @property
    def capacity(self) -> float:
        """Requests per second that this machine's cores could serve, were they all busy with them."""
        return capacity(cores(), self.cpu_us)

    def to_json(self) -> dict[str, float]:
        """Give all figures, the derived ones too."""
        return asdict(self) | {"cpu_us": self.cpu_us, "capacity": self.capacity}


def capacity(cores: int, cpu_us: float) -> float:
    """Give the requests per second of so many cores."""
    return cores * 1e6 / cpu_us


def figures(run: Run, service_seconds: float, postgresql_seconds: float) -> Figures:
    """Put together what a run saw and what it cost."""
    us = 1e6 / run.requests
    return Figures(
        requests=run.requests,
        rate=run.requests / run.seconds,
        p50_ms=run.p50_ms,
        p99_ms=run.p99_ms,
        service_us=service_seconds * us,
        postgresql_us=postgresql_seconds * us,
        generator_us=run.generator_seconds * us,
        busy_cores=(service_seconds + postgresql_seconds + run.generator_seconds) / run.seconds,
    )


def require_wrk() -> None:
    """Exit with a sentence where there is no wrk."""
    if shutil.which("wrk") is None:
        raise SystemExit("The benchmark needs wrk, which makes the load: on Debian and Ubuntu `apt install wrk`.")


def wrk(target: Target, request: Request, size: Size, part: Part, connections: int, seconds: int) -> Run:
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
        output, cpu_seconds = _run(["wrk", *options, "--", *(f"{name}={value}" for name, value in arguments.items())], seconds)
    return read_wrk(output, cpu_seconds)


def read_wrk(output: str, cpu_seconds: float) -> Run:
    """Understand what wrk.lua prints at the end. Raises Refused where not every request was answered with success."""
    results = [line.removeprefix("result ") for line in output.splitlines() if line.startswith("result ")]
    if len(results) != 1:
        raise Refused(f"wrk failed: {output.strip()}")
    result = json.loads(results[0])
    errors = {name: result[name] for name in ("status", "connect", "read", "write", "timeout") if result[name]}
    if errors or not result["requests"]:
        raise Refused(f"of {result['requests']} requests, these went wrong: {errors}")
    return Run(result["requests"], result["microseconds"] / 1e6, result["p50"] / 1e3, result["p99"] / 1e3, cpu_seconds)


def pgbench(program: Path, host: str, database: str, script: str, connections: int, seconds: int, **variables: Any) -> Run:
    """Run pgbench with a script in which `:name` stands for a variable. Raises Refused where a transaction failed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = Path(directory) / "script"
        path.write_text(script)
        options = [f"--client={connections}", f"--jobs={min(THREADS, connections)}", f"--time={seconds}", "--no-vacuum"]
        log = ["--log", f"--log-prefix={directory}/log"]
        values = [f"--define={name}={value}" for name, value in variables.items()]
        where = [f"--host={host}", "--username=postgres", database]
        command = [f"{program}", "--protocol=prepared", *options, *log, f"--file={path}", *values, *where]
        output, cpu_seconds = _run(command, seconds)
        latencies = sorted(int(line.split()[2]) for file in Path(directory).glob("log*") for line in file.read_text().splitlines())
    rate = re.search(r"^tps = ([0-9.]+) ", output, re.MULTILINE)
    if not latencies or not rate or "number of failed transactions: 0 " not in output:
        raise Refused(f"pgbench failed: {output.strip()}")
    p50, p99 = (latencies[len(latencies) * percent // 100] / 1e3 for percent in (50, 99))
    return Run(len(latencies), len(latencies) / float(rate[1]), p50, p99, cpu_seconds)


def _run(command: Sequence[str], seconds: int) -> tuple[str, float]:
    """Run a generator and give its output and the CPU time that it took."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        patience = threading.Timer(seconds + SECONDS_OF_PATIENCE, process.kill)
        patience.start()
        try:
            assert process.stdout  # noqa: S101 - for mypy: it is a pipe
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            raise
        finally:
            patience.cancel()
    if process.returncode:
        raise Refused(f"{command[0]} ended with {process.returncode}: {output.strip()}")
    return output, usage.ru_utime + usage.ru_stime

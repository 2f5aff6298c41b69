"""What is measured: how each system is started, and asked."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt

from bench import checks, measure, stores
from bench.checks import Answers
from bench.cluster import Cluster, Store
from bench.data import GENERATION, Size
from bench.jobs import REQUESTS, Ask, by_http
from bench.load import Request, Target
from settings import Settings

HOUSE = Path(__file__).parent.parent
WORKERS = 2
SECONDS_TO_START = 30
SECONDS_TO_STOP = 15
SECONDS_AT_REST = 0.3
SECRETS = {"JWT_SECRET": secrets.token_hex(32), "PASS_SALT": secrets.token_hex(16)}


@dataclass(frozen=True)
class Running:
    """A system that answers."""

    pid: int
    target: Target
    ask: Ask
    seconds_to_start: float  # from the start of the first process to the first right answer


@dataclass(frozen=True)
class System:
    """A system that speaks HTTP."""

    name: str
    title: str
    store: Store | None
    make_answers: Callable[[], Answers]
    command: Callable[[int], list[str]]  # by port
    environment: Callable[[Cluster, str], dict[str, str]]  # by database
    tokens: Callable[[Size], list[str]]
    numbers: str = "own"
    requests: Mapping[str, Request] = field(default_factory=lambda: REQUESTS)

    def run(self, cluster: Cluster, database: str, size: Size, directory: Path) -> AbstractContextManager[Running]:
        """Run it on a database; what it writes goes into the directory."""
        return _running(self, cluster, database, size, directory)


def given() -> Settings:
    """Return the service's settings, where no database is asked."""
    secret: dict[str, Any] = {name.lower(): value for name, value in SECRETS.items()}
    return Settings(**secret, db_host="nowhere", rate_limit="off")


def our_tokens(size: Size) -> list[str]:
    """Sign a token for each user, as the service does."""
    import auth
    from models import Caller

    return [f"Bearer {auth.issue_token(given(), Caller(user_id, GENERATION)).access_token}" for user_id in range(1, size.users + 1)]


def twin_tokens(size: Size) -> list[str]:
    """Sign a token for each user, as FastAPI's tutorial does."""
    expires = datetime.now(UTC) + timedelta(days=1)
    claims = ({"sub": f"user-{user_id}", "exp": expires} for user_id in range(1, size.users + 1))
    return [f"Bearer {jwt.encode(each, SECRETS['JWT_SECRET'], 'HS256')}" for each in claims]


def _gunicorn(application: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, "-m", "gunicorn", "--worker-tmp-dir", "/dev/shm", "-c", f"{HOUSE}/gunicorn.conf.py", application]


def our_settings(cluster: Cluster, database: str) -> dict[str, str]:
    """Return the service's settings: those that it must have, and no limit to how often one user asks; the others are its defaults."""
    given = {"DB_HOST": cluster.host, "DB": database, "DB_USER": "postgres", "WEB_CONCURRENCY": f"{WORKERS}", "LOG_LEVEL": "INFO"}
    return SECRETS | given | {"RATE_LIMIT": "off"}


def _twin_settings(cluster: Cluster, database: str) -> dict[str, str]:
    return {"SECRET_KEY": SECRETS["JWT_SECRET"]} | stores.twin_settings(cluster, database)


OURS = System("ours", "this service", stores.OURS, checks.OurAnswers, _gunicorn("app:create_app"), our_settings, our_tokens)
HELLO = System(
    "hello",
    "a handler that answers 200 bytes",
    None,
    checks.HelloAnswers,
    _gunicorn("bench.peers.hello:create_app"),
    our_settings,
    our_tokens,
)
UNBATCHED = System(
    "unbatched",
    "this service, batching off",
    stores.OURS,
    checks.OurAnswers,
    _gunicorn("app:create_app"),
    lambda cluster, database: our_settings(cluster, database) | {"BATCH_SIZE": "1"},
    our_tokens,
)
TWIN = System(
    "twin",
    "FastAPI, SQLAlchemy and asyncpg",
    stores.TWIN,
    checks.TwinAnswers,
    lambda port: [
        *(sys.executable, "-m", "uvicorn", "bench.peers.fastapi_twin:app"),
        *("--host", "127.0.0.1", "--port", f"{port}", "--workers", f"{WORKERS}"),
    ],
    _twin_settings,
    twin_tokens,
    numbers="global",
)


@contextmanager
def _running(system: System, cluster: Cluster, database: str, size: Size, directory: Path) -> Iterator[Running]:
    port = _free_port()
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {"PYTHONPATH": f"{HOUSE}", "HOST": "127.0.0.1", "PORT": f"{port}"} | system.environment(cluster, database)
    target = Target(f"http://127.0.0.1:{port}", system.tokens(size), system.numbers)
    ask = by_http(target, system.requests)
    with (directory / f"{system.name}.log").open("ab") as log:
        started = time.monotonic()
        process = subprocess.Popen(system.command(port), cwd=directory, env=environment, stdout=log, stderr=log)  # no .env there
        try:
            seconds = _wait_for_an_answer(system, process, ask, started, Path(log.name))
            _wait_for_rest(process.pid)
            yield Running(process.pid, target, ask, seconds)
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_an_answer(system: System, process: subprocess.Popen[bytes], ask: Ask, started: float, log: Path) -> float:
    while time.monotonic() < started + SECONDS_TO_START and process.poll() is None:
        with suppress(OSError):
            answer = ask("W1", 1, 1)
            if answer.status == 200:
                return time.monotonic() - started
        time.sleep(0.005)
    raise SystemExit(f"{system.title} did not start; it wrote: {log.read_text(errors='replace')[-2000:]}")


def _wait_for_rest(pid: int) -> None:
    """Wait until all its processes have come to rest: a worker that starts later would get no connection of those who are first."""
    end = time.monotonic() + SECONDS_TO_START
    used = -1.0
    while (now := measure.cpu_seconds(pid)) > used + 0.02 and time.monotonic() < end:
        used = now
        time.sleep(SECONDS_AT_REST)


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = [member.pid for member in measure.tree(process.pid)]
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        with suppress(ProcessLookupError):  # mostly they have gone with it
            os.kill(pid, signal.SIGKILL)

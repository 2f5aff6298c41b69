"""Clients that three generators make of /openapi.json: with each, a session as a person would write it, type-checked, without a cast."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import skip_unless
from tests.process.service import Service, running

pytestmark = pytest.mark.long
HERE = Path(__file__).parent
MIN_NODE_VERSION = (20, 19)  # that the generators take
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # with the programs of the virtual environment


@pytest.fixture(scope="module")
def service(unused_tcp_port_factory: Any) -> Iterator[Service]:
    """A service on the run's database."""
    with running(unused_tcp_port_factory()) as service:
        yield service


@pytest.fixture(scope="module")
def document(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document, as the service has it."""
    file = tmp_path_factory.mktemp("document") / "openapi.json"
    file.write_bytes(requests.get(f"{service.url}/openapi.json", timeout=10).content)
    return file


def run(*command: str | Path, where: Path) -> str:
    """Run a program to its end, which must be a good one, and return what it printed."""
    done = subprocess.run(
        [*command],
        cwd=where,
        env=os.environ | {"PATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("session", "cast"),
    [
        ("session_openapi_python_client.py", r"\b(Any|cast)\b|type: ?ignore"),
        ("session_openapi_fetch.ts", r"\b(any|unknown)\b|\bas [^a]|@ts-|\w!"),
        ("session_hey_api.ts", r"\b(any|unknown)\b|\bas [^a]|@ts-|\w!"),  # `import * as api` is none
    ],
)
def test_no_session_has_a_cast(session: str, cast: str) -> None:
    code = re.sub(r"^//.*", "", (HERE / session).read_text(), flags=re.MULTILINE)
    assert not re.search(cast, code)


# Python


@pytest.fixture
def python_client(document: Path, tmp_path: Path) -> Path:
    """A directory with what openapi-python-client makes of the document."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"post_hooks": []}))  # which only tidy up, with a ruff of one's own
    said = run(
        sys.executable, "-m", "openapi_python_client", "generate", "--path", document, "--meta", "none", "--config", config,
        "--output-path", tmp_path / "task_client", where=tmp_path,
    )  # fmt: skip
    # It can't send files of other types than application/octet-stream, and says so
    assert re.findall(r"^(?:WARNING|ERROR).*\n\n(.*)", said, re.MULTILINE) == [
        "Unsupported content type text/csv",
        "Unsupported content type text/calendar",
    ]
    return tmp_path


def test_a_session_with_openapi_python_client(python_client: Path, service: Service) -> None:
    session = shutil.copy(HERE / "session_openapi_python_client.py", python_client)
    run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", python_client / "cache", session, "task_client", where=python_client)
    printed = run(sys.executable, "-W", "error", session, service.url, secrets.token_hex(6), where=python_client)
    assert printed == "done\n"


# TypeScript


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the generators and the compiler, as package-lock.json has them."""
    words = f"Node {'.'.join(map(str, MIN_NODE_VERSION))} or newer is needed, with npm: `make check` installs one, or nodejs.org has it"
    if not shutil.which("node", path=PATH) or not shutil.which("npm", path=PATH):
        skip_unless("REQUIRE_NODE", f"there is no node, or no npm. {words}")
    directory = tmp_path_factory.mktemp("node")
    version = run("node", "--version", where=directory).strip()
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < MIN_NODE_VERSION:
        skip_unless("REQUIRE_NODE", f"Node is {version}. {words}")
    for name in ("package.json", "package-lock.json", ".npmrc", "tsconfig.json"):
        shutil.copy(HERE / name, directory)
    try:
        run("npm", "ci", "--ignore-scripts", where=directory)
    except AssertionError as failure:
        skip_unless(
            "REQUIRE_NODE", f"npm can't get what package-lock.json names, for which it needs the internet the first time: {failure}"
        )
    return directory


def run_session(name: str, directory: Path, service: Service) -> None:
    (directory / "built").mkdir(exist_ok=True)
    shutil.copy(HERE / f"{name}.ts", directory)
    run("npx", "tsc", "--project", "tsconfig.json", where=directory)
    assert run("node", f"built/{name}.js", service.url, secrets.token_hex(6), where=directory) == "done\n"
    (directory / f"{name}.ts").unlink()


def test_a_session_with_openapi_typescript_and_openapi_fetch(node_modules: Path, document: Path, service: Service) -> None:
    run("npx", "openapi-typescript", document, "--output", "generated/schema.d.ts", where=node_modules)
    run_session("session_openapi_fetch", node_modules, service)


def test_a_session_with_hey_api(node_modules: Path, document: Path, service: Service) -> None:
    run(
        "npx", "openapi-ts", "--input", document, "--output", "generated/hey_api", "--client", "@hey-api/client-fetch", "--no-log-file",
        where=node_modules,
    )  # fmt: skip
    run_session("session_hey_api", node_modules, service)

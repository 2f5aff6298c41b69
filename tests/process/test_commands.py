"""What an operator does on the command line: `python models.py accounts`, `invite`, `reset-password LOGIN`, `close LOGIN`."""

import os
import pty
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import requests

from postgres import migrate
from postgres.database import MIGRATIONS
from tests.conftest import Server, another_database, connection_parameters
from tests.process.service import HOUSE, Service, running
from tests.process.test_embedded import house_in
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.long

CODE = re.compile(r"[a-z2-7]{4}(-[a-z2-7]{4}){5}\n")
MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d"


def run(*arguments: str | bytes, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal, and give what came of it."""
    command = [sys.executable, "models.py", *arguments]
    return subprocess.run(
        command, cwd=HOUSE, env=os.environ | settings, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def refusal(*arguments: str | bytes, **settings: str) -> str:
    """Run a command that can't be done, and give the sentence with which it ends."""
    done = run(*arguments, **settings)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    return done.stderr


@pytest.fixture(scope="module")
def database(server: Server) -> Iterator[str]:
    """A database of these tests' own."""
    with another_database(server) as name:
        migrate.upgrade(name, connection_parameters(), MIGRATIONS)
        yield name


@pytest.fixture(scope="module")
def service(database: str, unused_tcp_port_factory: Callable[[], int]) -> Iterator[Service]:
    """A service on it that takes whom its operator invites."""
    with running(unused_tcp_port_factory(), DB=database, REGISTRATION="invited") as service:
        yield service


class Alice:
    """Somebody who was invited."""

    def __init__(self, service: Service, database: str) -> None:
        self.login, self.url, self.database = f"Alice-{secrets.token_hex(4)}", service.url, database
        invitation = run("invite", DB=database, REGISTRATION="invited").stdout
        answer = self.post("/register", login=self.login, password="correct horse", invitation=invitation)
        assert answer.status_code == 201, answer.text
        self.token = answer.json()["access_token"]

    def post(self, path: str, **fields: str) -> requests.Response:
        return requests.post(self.url + path, data=fields, timeout=10)

    def is_let_in(self) -> bool:
        return requests.get(f"{self.url}/task", headers={"Authorization": f"Bearer {self.token}"}, timeout=10).status_code == 200

    def new_task(self) -> None:
        task = {"name": "a", "description": "", "status": "new"}
        assert (
            requests.post(f"{self.url}/task", data=task, headers={"Authorization": f"Bearer {self.token}"}, timeout=10).status_code == 201
        )


@pytest.fixture
def alice(service: Service, database: str) -> Alice:
    return Alice(service, database)


def test_an_invitation_is_printed_and_good_once(alice: Alice) -> None:
    done = run("invite", DB=alice.database, REGISTRATION="invited")
    assert CODE.fullmatch(done.stdout)
    assert re.fullmatch(rf"One account can be registered with it \(`invitation`\) until {MOMENT} UTC\.\n", done.stderr)
    account = {"login": f"bob-{secrets.token_hex(4)}", "password": "correct horse", "invitation": done.stdout}
    assert [alice.post("/register", **account | {"login": f"{account['login']}{n}"}).status_code for n in (1, 2)] == [201, 400]


def test_an_invitation_that_nobody_asks_for_says_so(database: str) -> None:
    for registration in ("open", "closed"):
        assert f"here, for this command, it is `{registration}`." in run("invite", DB=database, REGISTRATION=registration).stderr


def test_a_forgotten_password_is_set_again_by_the_last_code(alice: Alice) -> None:
    first, last = (run("reset-password", login, DB=alice.database) for login in (alice.login, alice.login.upper()))
    assert CODE.fullmatch(last.stdout)
    assert re.fullmatch(
        rf"With it \(`code`\) {alice.login} can set a new password, by POST /reset-password, until {MOMENT} UTC\. Earlier codes .* are dead\.\n",
        last.stderr,
    )
    answers = [alice.post("/reset-password", code=code, new="another horse") for code in (first.stdout, last.stdout, last.stdout)]
    assert [answer.status_code for answer in answers] == [400, 200, 400]
    assert not alice.is_let_in()
    alice.token = answers[1].json()["access_token"]
    assert alice.is_let_in()
    assert alice.post("/get-token", login=alice.login, password="another horse").status_code == 200


def test_all_accounts_are_listed_with_what_they_hold(alice: Alice) -> None:
    for _ in range(3):
        alice.new_task()
    made = "WITH made AS (INSERT INTO users (login, login_key, password_hash) SELECT l, l, '' FROM (SELECT 'Кто-' || %s || n FROM generate_series(1, 2500) n) x (l) RETURNING id)"
    with (
        closing(psycopg2.connect(dbname=alice.database, **connection_parameters())) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"{made} INSERT INTO user_state (user_id, token_generation) SELECT id, 1 FROM made", (alice.login,))
    done = run("accounts", DB=alice.database)
    head, *lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, head.split()) == (0, "", ["created", "(UTC)", "last", "change", "tasks", "login"])
    [mine] = [line for line in lines if line.endswith(alice.login)]
    assert re.fullmatch(rf"{MOMENT}  {MOMENT} {{8}}3  {alice.login}", mine)
    others = [line for line in lines if f"Кто-{alice.login}" in line]
    assert len({*others}) == 2500
    assert re.fullmatch(rf"{MOMENT}  - {{23}}0  Кто-{alice.login}1", others[0])
    assert len(run("accounts", DB=alice.database, PYTHONIOENCODING="ascii").stdout.splitlines()) == len(lines) + 1
    head_of_it = f"{sys.executable} models.py accounts | head -1"
    shown = subprocess.run(
        ["/bin/sh", "-c", head_of_it], cwd=HOUSE, env=os.environ | {"DB": alice.database}, capture_output=True, check=False
    )
    assert (len(shown.stdout.splitlines()), shown.stderr) == (1, b"")


def test_an_account_is_closed_by_its_login_and_leaves_the_list(alice: Alice) -> None:
    code = run("reset-password", alice.login, DB=alice.database).stdout
    alice.new_task()
    done = run("close", alice.login.lower(), DB=alice.database)
    assert re.fullmatch(rf"Closed: the account {alice.login} \(since {MOMENT} UTC, 1 task\(s\)\)\. .*\n", done.stdout), done
    assert not alice.is_let_in()
    assert alice.post("/reset-password", code=code, new="another horse").status_code == 400
    assert alice.login not in run("accounts", DB=alice.database).stdout
    assert refusal("close", alice.login, DB=alice.database) == f"There is no account with the login '{alice.login}'.\n"
    invitation = run("invite", DB=alice.database).stdout
    assert alice.post("/register", login=alice.login, password="correct horse", invitation=invitation).status_code == 201


@pytest.mark.parametrize(("typed", "is_done"), [("{login}\n", True), ("yes\n", False), ("\x04", False), ("\x03", False)])
def test_on_a_terminal_the_login_is_asked_for_once_more(alice: Alice, typed: str, is_done: bool) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "models.py", "close", alice.login]
    with subprocess.Popen(
        command, cwd=HOUSE, env=os.environ | {"DB": alice.database}, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        said = b""
        while b"type its login: " not in said:
            said += os.read(ours, 1000)
        try:
            os.write(ours, typed.format(login=alice.login).encode())
            while typed == "\x03" and process.poll() is None:  # Python misses the first where it comes just before it reads
                process.send_signal(signal.SIGINT)
                time.sleep(0.1)
            assert (process.wait(PATIENCE_SECONDS) == 0) == is_done
        finally:
            process.kill()
    os.close(ours)
    assert alice.is_let_in() != is_done


def test_what_cannot_be_done_is_said_in_a_sentence(server: Server, database: str, fresh_name: str, unused_tcp_port: int) -> None:
    for login in ("nobody", b"\xff", " closed 1"):
        assert "There is no account with the login" in refusal("reset-password", login, DB=database)
    assert refusal("close", "nobody", DB=database) == "There is no account with the login 'nobody'.\n"
    there = {"DB_HOST": "127.0.0.1", "DB_PORT": str(unused_tcp_port)}
    assert refusal("accounts", **there).startswith(
        f"The database can't be asked: no PostgreSQL listens at 127.0.0.1, port {unused_tcp_port}"
    )
    assert "does not exist" in refusal("invite", DB=fresh_name)
    assert "JWT_SECRET" in refusal("close", "nobody", DB=database, JWT_SECRET="short")
    with closing(psycopg2.connect(dbname=server.ours, **connection_parameters())) as connection:
        connection.autocommit = True
        connection.cursor().execute(f'CREATE DATABASE "{fresh_name}"')
    for arguments in (["accounts"], ["invite"], ["close", "nobody"]):
        said = refusal(*arguments, DB=fresh_name)
        assert said == "The database doesn't have this version's schema yet: run `python models.py`, or start the service.\n"


def test_another_command_is_told_which_there_are() -> None:
    for arguments in (["close"], ["accounts", "x"], ["--help"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert {"accounts", "invite", "reset-password LOGIN", "close LOGIN", "verify"} <= {
            line.removeprefix("python models.py").partition("   ")[0].strip() for line in done.stderr.splitlines()
        }


def test_beside_make_run_no_settings_are_needed(tmp_path: Path) -> None:
    with house_in(tmp_path) as house:
        given = house.start()
        house.visits()

        def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
            environment = {name: value for name, value in os.environ.items() if name not in ("DB_HOST", "JWT_SECRET", "PASS_SALT", "DB")}
            command = [sys.executable, str(HOUSE / "models.py"), *arguments]
            return subprocess.run(command, cwd=house.place, env=environment, capture_output=True, text=True, timeout=60, check=False)

        assert given["DB_HOST"]
        assert ask().returncode == 0
        assert CODE.fullmatch(ask("invite").stdout)
        assert ask("accounts").stdout.count("\n") == 1
        assert "Every log leads to its task." in ask("verify").stdout
        house.ctrl_c()
        assert ask("accounts").stderr.startswith("`make run` isn't running here: start it")

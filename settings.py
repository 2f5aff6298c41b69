"""The environment, read by whoever starts and checked: what is wrong or missing stops the start with the variable's name."""

import difflib
import logging
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyNetwork, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MAX_TOKEN_LIFETIME_SECONDS = 366 * 86400
EXAMPLE_SECRET = "replace-this-by-the-output-of-openssl-rand-hex-32"  # noqa: S105 - what .env.example says, and what is refused


def _secret(least_bytes: int) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        if value.get_secret_value() == EXAMPLE_SECRET:
            raise ValueError("is still the example's; make one with `openssl rand -hex 32`")
        if len(value.get_secret_value().encode()) < least_bytes:
            raise ValueError(f"needs at least {least_bytes} bytes; make one with `openssl rand -hex 32`")
        return value

    return AfterValidator(check)


_ORIGIN = r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?"
_PATH = r"(?:/(?!\.\.?(?:/|$))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*"


def _origin(value: str) -> str:
    if not re.fullmatch(_ORIGIN, value):
        raise ValueError("needs origins as browsers send them, such as https://tasks.example, without a path")
    return value


def _public_url(value: str) -> str:
    url = value.removesuffix("/")
    if value and not re.fullmatch(_ORIGIN + _PATH, url):
        raise ValueError(
            "needs the address of the service as clients write it, such as https://example.org/tasks: host in lower case, no ?, # or @"
        )
    return url


_WithCommas = BeforeValidator(lambda text: [part.strip() for part in text.split(",") if part.strip()])


class Settings(BaseSettings):
    """What an operator can set, by environment variables or a file `.env` (the environment wins)."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    jwt_secret: Annotated[SecretStr, _secret(32)] = Field(description="signs the tokens; at least 32 bytes")
    jwt_secret_previous: Annotated[SecretStr, _secret(32)] | None = Field(
        None, description="the JWT_SECRET before: its tokens are good too, until they expire"
    )
    pass_salt: Annotated[SecretStr, _secret(16)] = Field(
        description="goes into every password's hash; at least 16 bytes; without it no password works"
    )
    pass_salt_previous: Annotated[SecretStr, _secret(16)] | None = Field(
        None, description="the PASS_SALT before: its passwords are good too, and are stored with the new one at their next login"
    )
    db_host: str = Field(min_length=1, description="PostgreSQL's host name, address or socket directory")
    db_port: int = Field(5432, ge=1, le=65535, description="PostgreSQL's port")
    db: str = Field("postgres", min_length=1, description="the database's name; made where it is missing")
    db_user: str = Field("postgres", min_length=1, description="the role that owns the tables")
    db_password: SecretStr = Field(SecretStr(""), description="its password")
    db_pool_size: int = Field(10, ge=1, le=1000, description="connections per worker, at most")
    db_prepare: bool = Field(True, description="plan each statement once per connection; `false` behind PgBouncer")
    batch_size: int = Field(32, ge=1, le=1000, description="requests that travel in one statement, at most; 1: each alone")
    db_wait_seconds: float = Field(2, gt=0, le=60, description="how long a request waits for a connection")
    statement_timeout_seconds: float = Field(5, gt=0, le=600, description="how long a statement may take")
    lock_timeout_seconds: float = Field(2, gt=0, le=600, description="how long a change waits for another change of the same user")
    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8080, ge=1, le=65535, description="the port to listen on")
    web_concurrency: int | None = Field(None, ge=1, le=256, description="worker processes; one per core where it is not set")
    request_timeout_seconds: float = Field(
        10, gt=0, le=600, description="how long a request's head may take to arrive, and then its body and the answer together"
    )
    keepalive_seconds: float = Field(
        75, gt=0, le=3600, description="how long a connection may be idle; a proxy in front must close its own sooner"
    )
    max_connections: int = Field(800, ge=1, le=100_000, description="connections of clients per worker, at most")
    max_requests_at_once: int = Field(256, ge=1, le=100_000, description="requests at work per worker; beyond it the answer is 503")
    token_lifetime_seconds: int = Field(30 * 86400, ge=60, le=MAX_TOKEN_LIFETIME_SECONDS, description="how long a token lives")
    token_lifetime_max_seconds: int = Field(
        365 * 86400, ge=60, le=MAX_TOKEN_LIFETIME_SECONDS, description="the longest that a client may ask a token to live"
    )
    trash_lifetime_seconds: int = Field(
        30 * 86400, ge=1, le=100 * 366 * 86400, description="how long a deleted task stays in the trash before it is purged"
    )
    registration: Literal["open", "closed", "invited"] = Field(
        "open", description="who may register: `open` everybody, `invited` who has an operator's invitation, `closed` nobody"
    )
    password_min_length: int = Field(8, ge=1, le=128, description="the shortest password that can be registered, in characters")
    hashing_threads: int = Field(2, ge=1, le=64, description="passwords hashed at once, per worker (19 MiB and a core each)")
    hashing_queue: int = Field(64, ge=0, le=10000, description="passwords waiting for that, per worker; beyond it the answer is 503")
    rate_limit: Literal["on", "off"] = Field("on", description="`off` counts nothing: for tests and benchmarks only")
    address_limit_per_minute: int = Field(
        10, ge=1, le=1000, description="attempts to register, or to show a password, from one address; an IPv6 /64 is one"
    )
    login_limit_per_minute: int = Field(5, ge=1, le=1000, description="such attempts with one login from one address")
    login_failures_per_hour: int = Field(
        100, ge=1, le=1000, description="wrong passwords for one login, from all addresses that aren't known for it"
    )
    known_address_seconds: int = Field(
        30 * 86400, ge=1, le=100 * 366 * 86400, description="how long an address is known from which a login has succeeded"
    )
    user_limit_per_minute: int = Field(600, ge=1, le=1_000_000, description="requests of one user, per worker")
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, _WithCommas] = Field(
        (), validate_default=False, description="networks whose `X-Forwarded-For` is believed, such as `10.0.0.0/8,::1`"
    )
    public_url: Annotated[str, AfterValidator(_public_url)] = Field(
        "", description="where clients find the service if a proxy strips a path, such as `https://example.org/tasks`"
    )
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, _WithCommas] = Field(
        (), validate_default=False, description="origins whose pages may use the API, such as `https://tasks.example,http://localhost:3000`"
    )
    max_body_bytes: int = Field(128 * 1024, ge=1024, le=64 * 1024 * 1024, description="the largest request body")
    import_max_bytes: int = Field(512 * 1024 * 1024, ge=1024, le=64 * 1024**3, description="the largest file that can be imported")
    max_header_bytes: int = Field(8190, ge=1024, le=1024 * 1024, description="the longest line of a request's head")
    max_tasks: int = Field(100_000, ge=1, le=1_000_000_000, description="tasks of one account, those in the trash included, at most")
    max_log_entries: int = Field(
        10_000_000,
        ge=1,
        le=100_000_000_000,
        description="entries in one account's log, at most; deletions, restorations and undo may go beyond",
    )
    undo_max_tasks: int = Field(10_000, ge=1, le=20_000, description="the most tasks that one undo alters")
    metrics_token: Annotated[SecretStr, _secret(16)] | None = Field(
        None, description="what Prometheus sends to read `/metrics`; at least 16 bytes; without it there is no such address"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    data_dir: Path = Field(Path(".data"), description="where `make run` keeps its own PostgreSQL; unused where DB_HOST is set")

    @cached_property
    def jwt_secrets(self) -> list[str]:
        """The secret that signs, and the one before it if that is still good."""
        return [secret.get_secret_value() for secret in (self.jwt_secret, self.jwt_secret_previous) if secret]

    @cached_property
    def public_path(self) -> str:
        """The path that a proxy strips, and that is put before ours where clients are told of them."""
        return urlsplit(self.public_url).path

    @property
    def address(self) -> str:
        """Where the service listens, as addresses are written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def load() -> Settings:
    """Read the settings; exit with a sentence for each variable that is missing or wrong."""
    try:
        return Settings()  # type: ignore[call-arg]  # its values come from the environment
    except UnicodeDecodeError:
        raise SystemExit(f"{Settings.model_config['env_file']} can't be read: it isn't UTF-8.") from None
    except ValidationError as error:
        sentences = [_sentence(str(fault["loc"][0]).upper(), fault) for fault in error.errors()]
        raise SystemExit("\n".join([*sentences, *doubts()])) from None


def _sentence(variable: str, fault: object) -> str:
    kind, message = fault["type"], fault["msg"].removeprefix("Value error, ")  # type: ignore[index]
    if kind == "missing":
        advice = "put it into the environment or into .env (see .env.example), or leave DB_HOST out and try `make run`, which makes it up"
        return f"{variable} is not set: {advice}."
    return f"{variable}: {message}."


# Names that look like settings, and are none

logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # what it can't read of .env it says once for each reading; doubts() say it once

OF_SYSTEMS = {"ADB", "DBX", "GDB"}  # set for other programs, and one slip away from DB; HOME and HOSTNAME are farther from HOST than that
OF_OTHERS = re.compile(
    r"(COMPOSE|DOCKER|BUILDKIT|PYTHON|LC|MALLOC)_?\w*|PG[A-Z]+|GUNICORN_CMD_ARGS|LANG|TZ|(HTTPS?|NO)_PROXY"
)  # may be in .env
NAME = re.compile("[A-Z][A-Z0-9_]{0,39}")  # what stands before a = elsewhere may be a piece of a secret
LIKENESS = 0.8  # of a name in .env to the one that is meant


def doubts() -> list[str]:
    """Return a sentence for each name in .env that is no setting, and each in the environment that is one slip away from one; no value."""
    ours = {name.upper() for name in Settings.model_fields}
    return [*_doubts_of_the_file(Path(str(Settings.model_config["env_file"])), ours), *_doubts_of_the_environment(ours)]


def _doubts_of_the_file(path: Path, ours: set[str]) -> Iterator[str]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in parse_stream(file):
            blanks = line.original.string[: -len(line.original.string.lstrip())].count("\n")  # lines before it
            where = f"{path}, line {line.original.line + blanks}"
            if line.error:
                yield f"{where} can't be read, and is ignored."
            if line.key is None:
                continue
            name = line.key.upper()
            if line.value is None:
                yield f"{where} has no =, and is ignored."
            elif name not in ours and not OF_OTHERS.fullmatch(name):
                meant = _meant(name, ours) or next(iter(difflib.get_close_matches(name, ours, 1, LIKENESS)), None)
                told = line.key if NAME.fullmatch(name if meant else line.key) else "what is before the ="
                yield f"{where}: {told} is no setting, and is ignored. {f'Is {meant} meant?' if meant else 'README.md lists all.'}"


def _doubts_of_the_environment(ours: set[str]) -> Iterator[str]:
    for name in sorted({name.upper() for name in os.environ} - ours - OF_SYSTEMS):
        if meant := _meant(name, ours):
            yield f"{name} in the environment is no setting, and is ignored. Is {meant} meant?"


def _meant(name: str, ours: set[str]) -> str | None:
    return next((each for each in sorted(ours) if _is_one_slip(name, each)), None)


def _is_one_slip(name: str, ours: str) -> bool:
    """Return whether one character was inserted, left out or replaced, or two neighbours were swapped."""
    if len(name) != len(ours):
        longer, shorter = sorted((name, ours), key=len, reverse=True)
        return any(longer[:at] + longer[at + 1 :] == shorter for at in range(len(longer)))
    wrong = [at for at in range(len(ours)) if name[at] != ours[at]]
    return len(wrong) == 1 or (len(wrong) == 2 and wrong[1] - wrong[0] == 1 and sorted(name) == sorted(ours))

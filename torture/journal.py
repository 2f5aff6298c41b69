"""What was asked and what came back: a file that only grows, so that nothing is remembered better afterwards."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

Json = dict[str, Any]
CHANGES = {"create", "change", "delete", "erase", "restore", "undo"}


@dataclass
class Request:
    """A request, and its answer if one came. Without a status its outcome is open, as it is with 503."""

    number: int
    user_id: int
    kind: str
    asked_at: float  # the clock of this process, in seconds
    task_id: int | None = None
    sent: Json = field(default_factory=dict)  # what was asked for, and under which conditions
    tag: str = ""  # a word that no other request brings into the database, except a repetition of this one
    answered_at: float = 0
    status: int | None = None
    revision: int | None = None  # the user's, of the snapshot that the answer shows
    answer: Any = None
    trouble: str = ""  # in place of an answer

    @property
    def is_open(self) -> bool:
        """Return whether it may have been done or not."""
        return self.status in (None, 503)

    @property
    def is_done(self) -> bool:
        """Return whether it was acknowledged."""
        return self.status is not None and self.status < 300

    def __str__(self) -> str:
        what = f"request {self.number} ({self.kind} of user {self.user_id}'s task {self.task_id or ''} {self.tag})".replace("  ", " ")
        return f"{what}, answered {self.status or self.trouble or 'nothing'}"


class Journal:
    """Writes down each request as it is sent, and again as it is answered."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._count = 0

    def asked(self, kind: str, user_id: int, now: float, **more: Any) -> Request:
        """Note that a request is about to be sent."""
        self._count += 1
        request = Request(self._count, user_id, kind, now, **more)
        self._write({name: value for name, value in asdict(request).items() if value})
        return request

    def answered(self, request: Request, now: float, **how: Any) -> None:
        """Note its answer, or how it came to nothing."""
        for name, value in how.items():
            setattr(request, name, value)
        request.answered_at = now
        self._write({"number": request.number, "answered_at": now} | how)

    def _write(self, line: Json) -> None:
        self._file.write(orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS) + b"\n")

    def close(self) -> None:
        """End it."""
        self._file.close()


def read(path: Path) -> list[Request]:
    """Return the requests that a journal tells of, each with the last that was heard of it."""
    found: dict[int, Request] = {}
    for line in path.read_bytes().splitlines():
        said = orjson.loads(line)
        if said["number"] in found:
            for name, value in said.items():
                setattr(found[said["number"]], name, value)
        else:
            found[said["number"]] = Request(**{"user_id": 0} | said)
    return list(found.values())


def digest(thing: Any) -> str:
    """Return a short text that is the same for the same content."""
    return hashlib.blake2b(orjson.dumps(thing, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def condensed(tasks: Iterable[Json]) -> list[list[Any]]:
    """Return what is kept of a list: each task's id and revision, and the digest of the whole."""
    return [[task["id"], task["revision"], digest(task)] for task in tasks]

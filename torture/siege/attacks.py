"""The attacks beside which a victim is measured: by one account, or from one address, with the limits on."""

import random
from collections.abc import Awaitable, Callable, Sequence
from string import ascii_lowercase
from typing import NamedTuple

import jwt

from postgres import migrate
from postgres.database import MIGRATIONS
from torture import wire
from torture.siege.accounts import register, register_many, sheet
from torture.siege.crowds import Crowd
from torture.siege.field import Field
from torture.siege.victim import FORM

LONGEST = 10_000  # characters that a description may have
LATIN, CYRILLIC = "x" * LONGEST, "ж" * LONGEST  # the latter is twice as long in bytes
WORDS = 1290  # of five letters: as many as a line of a head takes
ENTRIES_PER_TASK = 200
CSV, ICS, JSON = (f"Content-Type: {kind}" for kind in ("text/csv", "text/calendar", "application/json"))


class Attack(NamedTuple):
    """An attack: its name, what it is in words, and what makes ready who attacks."""

    name: str
    says: str
    prepare: Callable[[Field], Awaitable[Sequence[Crowd]]]
    stalls_log: bool = False


def _get(path: str, token: str, *, close: bool = False) -> bytes:
    return wire.request(f"GET {path}", token=token, close=close)


def _import(token: str, kind: str, body: bytes) -> bytes:
    return wire.request("POST /import", kind, body=body, token=token, close=False)


async def content_types(field: Field) -> Sequence[Crowd]:
    """Types with thousands of parameters, as many as a head's line takes."""
    types = [
        "text/plain" + ";a=" * 2700,
        "text/plain" + ';"' * 4000,
        "application/json" + ";a=b" * 2000,
        'multipart/form-data; boundary="' + "\\" * 8000,
    ]
    requests = [wire.request("POST /get-token", f"Content-Type: {kind}", body=b"x", close=False) for kind in types]
    return [Crowd(40, requests, pause_seconds=0.5)]


async def blank_lines(field: Field) -> Sequence[Crowd]:
    """Sheets of nothing but line feeds."""
    return [Crowd(2, [_import(await register(field.port), CSV, b"\n" * 4 * 1024 * 1024)], pause_seconds=0.1)]


async def parameters(field: Field) -> Sequence[Crowd]:
    """Calendars with a line that has 32,000 parameters."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:x", "BEGIN:VTODO", f"SUMMARY{';A=1' * 32_000}:x", "END:VTODO", "END:VCALENDAR", ""]
    return [Crowd(2, [_import(await register(field.port), ICS, "\r\n".join(lines).encode())], pause_seconds=0.1)]


async def _searched(field: Field) -> tuple[str, list[str]]:
    """Return an account of long tasks, and the words that all of them have."""
    choose = random.Random(1)  # noqa: S311 - not a secret
    words = ["".join(choose.choices(ascii_lowercase, k=5)) for _ in range(WORDS)]
    return await register(field.port, sheet(1000, (LATIN + " ".join(words))[-LONGEST:])), words


async def searches(field: Field) -> Sequence[Crowd]:
    """Searches for as many words as an address takes, all but the last of which are in every task."""
    token, words = await _searched(field)
    return [Crowd(150, [_get(f"/task?q={'+'.join(words[:-1])}+QQQQQ", token)], pause_seconds=2.5)]


async def ten_words(field: Field) -> Sequence[Crowd]:
    """Searches for ten such words."""
    token, words = await _searched(field)
    return [Crowd(150, [_get(f"/task?q={'+'.join(words[-9:])}+QQQQQ", token)], pause_seconds=2.5)]


async def past(field: Field) -> Sequence[Crowd]:
    """Lists of 1,000 tasks as they were before 200 changes of each."""
    token = await register(field.port, sheet(1000, statuses=["new"]))
    user_id = jwt.decode(token, options={"verify_signature": False})["sub"]
    field.server.run(
        f"SET search_path = {migrate.search_path(MIGRATIONS)}", *(statement.format(user=int(user_id)) for statement in _LONG_LOG)
    )
    return [Crowd(40, [_get(f"/task?revision={revision}", token) for revision in range(1000, 1040)], pause_seconds=0.5)]


_LONG_LOG = [
    f"""INSERT INTO task_log (user_id, revision, field, task_id, old, new, changed_at)
        SELECT {{user}}, 1000 + n, 'status', (n - 1) % 1000 + 1, CASE WHEN (n - 1) / 1000 % 2 = 0 THEN 'new' ELSE 'planned' END,
               CASE WHEN (n - 1) / 1000 % 2 = 0 THEN 'planned' ELSE 'new' END, s.changed_at + n * interval '1 microsecond'
          FROM generate_series(1, {1000 * ENTRIES_PER_TASK}) n, user_state s WHERE s.user_id = {{user}}""",
    f"""UPDATE user_state SET revision = revision + {1000 * ENTRIES_PER_TASK}, changed_at = changed_at + interval '1 second'
         WHERE user_id = {{user}}""",
    f"""UPDATE task SET look = 0, revision = {1000 * (ENTRIES_PER_TASK - 1)} + 1000 + id,
               updated_at = created_at + ({1000 * (ENTRIES_PER_TASK - 1)} + id) * interval '1 microsecond' WHERE user_id = {{user}}""",
    "ANALYZE task_log",
]


async def slow_readers(field: Field) -> Sequence[Crowd]:
    """Lists and exports of eight accounts, taken so slowly that they are just not given up."""
    tokens = await register_many(field.port, 8, sheet(500, CYRILLIC))
    paths = "/task?format=csv", "/task?format=ics", "/task", "/export"
    return [Crowd(160, [_get(path, token, close=True) for path in paths for token in tokens], reads=16 * 1024, comes_again_seconds=5)]


async def calendars(field: Field) -> Sequence[Crowd]:
    """One account's list as a calendar, on 120 connections."""
    return [Crowd(120, [_get("/task?format=ics", await register(field.port, sheet(1000, CYRILLIC)))], pause_seconds=2)]


async def unread_streams(field: Field) -> Sequence[Crowd]:
    """Four hundred streams of events from the beginning, that nobody reads."""
    tokens = await register_many(field.port, 40, sheet(60, CYRILLIC))
    return [Crowd(400, [_get("/task/events?since=0", token) for token in tokens], reads=0, comes_again_seconds=10)]


async def stalled_log(field: Field) -> Sequence[Crowd]:
    """Nobody reads the log, into which each request writes a line."""
    return [Crowd(40, [wire.request("GET /nowhere", close=False)], pause_seconds=0.4)]


async def slow_bodies(field: Field) -> Sequence[Crowd]:
    """Logins from one address, the bodies of which come byte by byte."""
    head = wire.request("POST /get-token", FORM, "Content-Length: 1000", close=False).replace(b"Content-Length: 0\r\n", b"")
    return [Crowd(2400, [head], drip_seconds=5)]


async def writers(field: Field) -> Sequence[Crowd]:
    """Two accounts, each with long imports and six other kinds of change meanwhile."""
    crowds = []
    for _ in range(2):
        token = await register(field.port, sheet(40_000, uids=True))
        files = [_import(token, CSV, sheet(40_000, names=f"Name {n}", uids=True).encode()) for n in range(2)]
        crowds += [Crowd(2, files)]
        crowds += [
            Crowd(4, [wire.request(line, *headers, body=body, token=token, close=False)], pause_seconds=1)
            for line, headers, body in _CHANGES
        ]
    return crowds


_NEW = b'{"name": "x", "description": "", "status": "new"}'
_CHANGES = [
    ("POST /task", (JSON,), _NEW),
    ("POST /task", (JSON, "Idempotency-Key: siege"), _NEW),
    ("PATCH /task/1", (JSON, 'If-Match: "1"'), b'{"name": "y"}'),
    ("DELETE /task/99999?forever=true", (), b""),
    ("POST /task/2/restore", (JSON,), b'{"revision": 2}'),
    ("POST /task/undo", (JSON,), b'{"since": 1, "expected": 1}'),
]

ATTACKS = [
    Attack("content-types", "40 connections, Content-Type with thousands of parameters", content_types),
    Attack("blank-lines", "2 imports at a time of 4 MiB of line feeds", blank_lines),
    Attack("parameters", "2 imports at a time of a line with 32,000 parameters", parameters),
    Attack("searches", "150 connections, q of 1,290 words over 1,000 tasks of 10 KB", searches),
    Attack("ten-words", "the same, q of 10 words", ten_words),
    Attack("past", "40 connections, 1,000 tasks as they were 200,000 changes ago", past),
    Attack("slow-readers", "160 connections, lists and exports of 8 accounts of 10 MB, read slowly", slow_readers),
    Attack("calendars", "120 connections, format=ics of an account of 20 MB", calendars),
    Attack("unread-streams", "400 streams with since=0 that nobody reads", unread_streams),
    Attack("stalled-log", "stdout is a pipe that nobody reads, 100 requests a second", stalled_log, stalls_log=True),
    Attack("slow-bodies", "2,400 connections that open within 5 s, a byte of the body in 5 s", slow_bodies),
    Attack("writers", "2 accounts with long imports and 6 other kinds of change", writers),
]  # fmt: skip

"""Bodies that nobody may take: wrong texts, JSON, forms, codings, sizes and days."""

import gzip
import json
import random
import zlib
from functools import cache
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import brotli

from rest.values import MAX_MARKS_STORED
from tests.accounts.test_accounts import FORBIDDEN_IN_LOGINS
from tests.rest.test_bodies import BROKEN_MULTIPART, FORM, JSON, MULTIPART, NO_DATES, NO_JSON, NO_UTF_8, OTHER_TYPES, TASK
from tests.rest.test_bodies import encode as encoded
from torture.mallory import MAX_BODY, TASKS, TYPES, WRITES, Made, Mallory

NO_TEXTS = [["x"], [], {}, {"a": 1}, 0, 1.5, 1e400, True, False, [[[]]]]
BAD_TEXTS = ["\0", "a\0b", "\ud800", "a\udfff", "\ude00\ud83d", *NO_TEXTS, "a" + "\u0301" * (MAX_MARKS_STORED + 1)]
BAD_NAMES = ["", " ", "\t\n", "x" * 201, "😀" * 201, "\u3000", "\u2003 \u2028"]


def bad_text(mallory: Mallory, choose: random.Random) -> Made:
    """A field with what is no text, or none that it may have."""
    if choose.random() < 0.2:
        names = {
            "register": "login password invitation",
            "get-token": "login password",
            "reset-password": "code new",
            "change-password": "old new",
            "delete-account": "password",
        }
        call = choose.choice(list(names))
        fields: dict[str, Any] = dict.fromkeys(names[call].split(), f"hostile-{choose.getrandbits(60):x}")
        field = choose.choice(list(fields))
        fields[field] = choose.choice([*BAD_TEXTS, "", "x" * 129])
        if field == "login" and choose.random() < 0.5:
            fields["login"] = f"a{choose.choice(FORBIDDEN_IN_LOGINS)}b"
        line = f"POST /{call}"
    else:
        field, line = choose.choice(["name", "description", "status", "completion_at"]), choose.choice(WRITES)
        bad = [*BAD_TEXTS, *(BAD_NAMES if field == "name" else ["x" * 10_001] if field == "description" else ["x", "NEW"])]
        value = choose.choice([each for each in bad if each is not None])
        fields = TASK | {field: value}
    body = json.dumps(fields).replace("Infinity", "1e400").encode()
    return (mallory.write(line, JSON, body),)


def bad_json(mallory: Mallory, choose: random.Random) -> Made:
    """A body that is no JSON object, or one with what an object must not have."""
    good = json.dumps(TASK | {"completion_at": "02-10-2020"}).encode()
    cut = choose.randrange(1, len(good))
    body = choose.choice([
        choose.choice(list(NO_JSON.values())), good[:cut], good + good[:cut], good[:cut] + choose.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80"]) + good[cut:],
        good.replace(b'"new"', choose.choice([b"NaN", b"-Infinity", b"1e999", b"nul", b"'new'", b"{}", b"[" * 5000])), good[:-1] + b', "status": "new"}',
        good[:-1] + b', "%s": 1}' % choose.choice([b"user_id", b"created_revision", b"__proto__", b"\\u0000", b"\\ud800", b"name "]),
        b'{"name": "x"' + b', "x": 1' * 101 + b"}", choose.randbytes(choose.randrange(1, 2000)),
    ])  # fmt: skip
    return (mallory.write(choose.choice(WRITES), JSON, body),)


def bad_form(mallory: Mallory, choose: random.Random) -> Made:
    """A form that can't be read, or says too much."""
    good = urlencode(TASK)
    body = choose.choice([
        f"{good}&name=x", f"{good}&user_id=1", f"{good}&{'x=1&' * choose.choice([101, 5000, 25_000])}", f"{good}&completion_at=%00", f"{good}&=",
        *(f"{good}&completion_at={quote_from_bytes(bad)}" for bad in NO_UTF_8.values()), f"{good}&{quote_from_bytes(choose.choice(list(NO_UTF_8.values())))}=x",
        "name=" + "x" * 300, "status=", "&" * 4000, "\x00", "name=x&name=x", f"{good}&id=0", f"{good}&revision=-1", f"{good}&revision={'9' * 5000}",
    ]).encode()  # fmt: skip
    if choose.random() < 0.2:
        body = good.encode() + b"&completion_at=" + choose.choice(list(NO_UTF_8.values()))
    return (mallory.write(choose.choice(WRITES), FORM, body),)


def bad_multipart(mallory: Mallory, choose: random.Random) -> Made:
    """A form of parts that is broken, cut, or has a file."""
    good = encoded(MULTIPART, *TASK.items())
    body = choose.choice([
        choose.choice(list(BROKEN_MULTIPART.values())), good[: choose.randrange(len(good) - 6)], good.replace(b'name="name"', b'name="name"; filename="x"'),
        good.replace(b"\r\n", b"\n"), good.replace(b"--b", b"--c"), good.replace(b'"name"', b'"n\xffme"'), good[2:], good.replace(b"Buy", b"\xff\xfe"),
        b"".join(b'--b\r\nContent-Disposition: form-data; name="x%d"\r\n\r\n\r\n' % n for n in range(200)) + b"--b--\r\n",
    ])  # fmt: skip
    without = ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'b' * 71}"]
    kind = MULTIPART if choose.random() < 0.8 else choose.choice(without)
    return (mallory.write(choose.choice(WRITES), kind, body if kind == MULTIPART or choose.random() < 0.5 else good),)


@cache
def _bomb(coding: str) -> bytes:
    """Return some hundred million zeros, or a few where it would take long to make more, in a coding."""
    match coding:
        case "gzip":
            return gzip.compress(bytes(2**25))
        case "deflate":
            return zlib.compress(bytes(2**25))
        case "br":
            return bytes(brotli.compress(bytes(2**25), quality=1))
        case "zstd":  # a head, and 2000 blocks that each say: a zero, 2**17 times
            block = ((2**17 << 3) | (1 << 1)).to_bytes(3, "little") + bytes(1)
            return bytes.fromhex("28b52ffd0050") + block * 2000
    return b""


CODINGS = ["gzip", "deflate", "br", "zstd", "x", "identity, gzip", "gzip, gzip", "chunked", "*"]


def bad_encoding(mallory: Mallory, choose: random.Random) -> Made:
    """A body in a coding or of a type that nobody reads, bombs among them."""
    kind = choose.choice(list(TYPES.values()))
    if choose.random() < 0.5:
        coding = choose.choice(CODINGS)
        body = _bomb(coding) if choose.random() < 0.5 else encoded(kind, *TASK.items())
        return mallory.write(choose.choice(WRITES), kind, body, f"Content-Encoding: {coding}"), frozenset({415})
    others = [*(each for each in OTHER_TYPES if each), f"{FORM}+x", f"multipart/form-data; x*{'9' * 5000}*=1"]
    other = choose.choice(others)
    return mallory.write(choose.choice(WRITES), other, encoded(kind, *TASK.items())), frozenset({415})


def too_large(mallory: Mallory, choose: random.Random) -> Made:
    """A body that is longer than bodies are, announced or in chunks."""
    kind, size = choose.choice(list(TYPES.values())), choose.choice([MAX_BODY + 1, 200_000, 2_000_000])
    line = choose.choice([*WRITES, "POST /register", "POST /get-token"])
    if choose.random() < 0.5:
        return mallory.write(line, kind, b"x" * size), frozenset({413})
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [b"x" * 16_384] * (size // 16_384 + 1)) + b"0\r\n\r\n"
    head = mallory.write(line, kind, b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    return head + chunks, frozenset({413})


def bad_date(mallory: Mallory, choose: random.Random) -> Made:
    """A day that no calendar has, in a body of any type or in a query."""
    impossible = f"{choose.randrange(32, 100)}-{choose.randrange(13, 100)}-{choose.randrange(10_000):04}"
    date = choose.choice([impossible, *(each for each in NO_DATES if each != "none")])
    if choose.random() < 0.3:
        days, moments = ["completion_from", "completion_to", "completion_at"], ["completed_from", "completed_to", "at"]
        name = choose.choice(days if date.endswith("Z") else days + moments)
        return (mallory.ask(f"GET /task?{urlencode({name: date})}"),)
    kind = choose.choice(list(TYPES.values()))
    return (mallory.write(choose.choice(WRITES), kind, encoded(kind, *TASK.items(), ("completion_at", date))),)


def bad_wish(mallory: Mallory, choose: random.Random) -> Made:
    """A restoration or an undo of what there can't be."""
    value = choose.choice([-1, 1.5, "1", "x", True, [], {}, 2**63, 10**30, 9_999_999, 1e400])
    both = {"at": "2026-01-01T00:00:00Z"}
    fields = choose.choice([{"revision": value}, {"at": value}, {"revision": 1} | both, {"x": value}, {"revision": 1, "deleted": True}])
    line = f"POST /task/{choose.randrange(1, TASKS + 1)}/restore"
    if choose.random() < 0.5:
        line = "POST /task/undo"
        fields = choose.choice(
            [{}, {"since": value}, {"since": 1} | both, {"since": 0, "expected": "x"}, {"since": 0, "dry_run": "yes"}, {"x": 1}]
        )
    return (mallory.write(line, JSON, json.dumps(fields).replace("Infinity", "1e400").encode()),)


SHEET = b"name,description,status,completion_at\r\n"
CALENDAR = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VTODO\r\nUID:x\r\nSUMMARY:%s\r\nDUE;VALUE=DATE:%s\r\nEND:VTODO\r\nEND:VCALENDAR\r\n"


def bad_file(mallory: Mallory, choose: random.Random) -> Made:
    """A sheet, a calendar or an export with something in it that can't be taken: then nothing of it is."""
    good, refused = SHEET + b"x,,new,\r\n" * choose.randrange(50), frozenset({400, 429})  # of hers only two are read at once
    no_row = choose.choice(
        [b",,new,", b"x,,old,", b"x,,new,31-02-2020", b"x", b"x,,new,,,x", b'"x,,new,', b"\xff,,new,", b"\0,,new,", b"x" * 201 + b",,new,"]
    )
    kind, body = choose.choice([
        ("text/csv", good + no_row + b"\r\n"), ("text/csv", good.replace(b"name", choose.choice([b"nmae", b"status", b"x"]))), ("text/csv", choose.randbytes(500)),
        ("text/calendar", CALENDAR % (b"x", b"tomorrow")), ("text/calendar", CALENDAR % (b"x", b"20200231")), ("text/calendar", b"x"), ("text/calendar", choose.randbytes(500)),
        (JSON, b"{}"), (JSON, choose.choice(list(NO_JSON.values()))), (JSON, b'{"tasks": [%s' % (b"[" * 5000)),
    ])  # fmt: skip
    if choose.random() < 0.2:
        return mallory.write("POST /import", choose.choice(["text/plain", FORM, MULTIPART, "text/xml"]), good), frozenset({415})
    if choose.random() < 0.2:
        return mallory.write("POST /import", kind, body, f"Content-Encoding: {choose.choice(['gzip', 'br', 'x'])}"), frozenset({415})
    return mallory.write("POST /import", kind, body), refused | ({409} if kind == JSON else set())  # an export is for a new account

"""Hostile requests of every kind, without end: each must be refused. What the tests try one by one comes here at random places."""

import base64
import json
import random
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

from tests.accounts.test_accounts import ABSURD
from tests.rest.test_bodies import FORM, JSON, NO_IDS, TASK
from torture import bodies
from torture.mallory import CREATE, PRIVATE, TASKS, WRITES, Attack, Made, Mallory


def attacks(mallory: Mallory) -> Iterator[Attack]:
    """Return attacks, a round of all kinds after the other."""
    while True:
        for kind, make in KINDS.items():
            yield Attack(kind, *make(mallory, mallory.random))


def _b64(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def bad_authorization(mallory: Mallory, choose: random.Random) -> Made:
    """Anything but one good token in one good header."""
    token = mallory.token
    value = choose.choice([
        "", "Bearer", f"Basic {token}", f"BearerXYZ {token}", f"Token {token}", f"Bearer {token}x", f"Bearer {token} {token}",
        f"Bearer {token},Bearer {token}", f"Bearer\xa0{token}", f"Bearer {token[:40]}\xff{token[40:]}", f"Bearer \xe9{token}", token,
        f"Bearer {token[:choose.randrange(len(token))]}", "Bearer " + "A" * choose.randrange(1, 8000), f"Bearer {token}\r\nAuthorization: Bearer {token}",
        "Bearer " + ".".join(_b64(choose.randbytes(choose.randrange(60))) for _ in range(choose.randrange(1, 6))),
        "".join(chr(choose.randrange(32, 256)) for _ in range(choose.randrange(1, 100))).replace("\x7f", ""),
    ])  # fmt: skip
    headers = [f"Authorization: {value}"]
    if choose.random() < 0.2:
        return mallory.ask(choose.choice(PRIVATE), f"X-Token: {token}", f"Cookie: access_token={token}", token=""), frozenset({401})
    return mallory.ask(choose.choice(PRIVATE), *headers, token=""), frozenset({401})


def forged_token(mallory: Mallory, choose: random.Random) -> Made:
    """A token that we never gave, in one way or several."""
    claims, ways = dict(mallory.claims), choose.randrange(1, 8)
    secret, algorithm, header = "", "HS256", None
    if ways & 1:
        claim = choose.choice(list(ABSURD))
        claims[claim] = choose.choice(ABSURD[claim])
    if ways & 2:
        algorithm, header = choose.choice([
            ("HS384", None), ("HS512", None), ("HS256", {"kid": "../../dev/null"}), ("HS256", {"crit": ["a\r\nX: 1"]}), ("HS256", {"jku": "http://x"}),
            ("HS256", {"typ": "at+jwt"}), ("HS256", {"crit": ["\ud800"]}), ("HS256", {"x5c": ["A" * 500]}), ("HS256", {"cty": "JWT", "b64": False}),
        ])  # fmt: skip
    if ways & 4:
        secret = choose.choice(["x" * 64, mallory.secret[::-1], mallory.secret + "x"])
    if choose.random() < 0.1:
        body = _b64(json.dumps(mallory.claims).encode())
        forged = f"{_b64(json.dumps({'alg': choose.choice(['none', 'None', 'NONE', 'RS256', [], {}, None, 0])}).encode())}.{body}."
    elif choose.random() < 0.1:
        gone = choose.choice(["sub", "iat", "exp", "gen"])
        forged = mallory.sign({name: value for name, value in mallory.claims.items() if name != gone})
    elif choose.random() < 0.1:
        forged = mallory.sign(mallory.claims | {"iat": 1, "exp": choose.choice([2, int(time.time()) - 1, int(time.time()) + 400 * 86400])})
    else:
        forged = mallory.sign(claims, secret, algorithm, header)
    line, refused = choose.choice(PRIVATE), {401} if len(forged) < 8000 else {401, 400}
    if line == "POST /import":
        refused.add(415)  # whether a token is of the past its statement says, and a file of no type comes to none
    return mallory.ask(line, token=forged), frozenset(refused)


def bad_id(mallory: Mallory, choose: random.Random) -> Made:
    """A task's number that can't be, or isn't."""
    others = [str(choose.randrange(TASKS + 1, 2**70)), quote(choose.randbytes(4).decode("latin-1")) + "x", f"{TASKS}%00"]
    task_id = choose.choice([*NO_IDS, *others])
    line, suffix = choose.choice([
        *((method, "") for method in ("GET", "HEAD", "PATCH", "PUT", "POST", "DELETE")), ("GET", "/log"), ("POST", "/restore"), ("DELETE", "?forever=true"),
    ])  # fmt: skip
    body = b"name=x" if line in ("PATCH", "PUT") or (line == "POST" and not suffix) else b""
    return mallory.ask(f"{line} /task/{task_id}{suffix}", *([f"Content-Type: {FORM}"] if body else []), body=body), frozenset({404})


BAD_QUERIES = [
    "x=1", "status=old", "status=new,", "status=,", "status=new&status=new", "limit=0", "limit=1001", "limit=-1", "limit=1e3", "limit=01", "limit=%D9%A3",
    f"limit={'9' * 5000}", "sort=up", "sort=--id", "sort=id,name", "cursor=x", "cursor=", "cursor=%00", "q=%00", "q=%ff", "completion_at=", "deleted=1", "deleted=TRUE",
    "revision=-1", "revision=1.0", "revision=9223372036854775807", "revision=9999999", f"revision={'9' * 30}", "since=-1", "since=x", "since=1&status=new",
    "since=1&revision=1", "at=yesterday", "at=2026-02-30T00:00:00Z", "at=2026-01-01T24:00:00Z", "at=2026-01-01", "revision=1&at=2026-01-01T00:00:00Z",
    "deleted=true&revision=1", "completion_at=02-10-2020&completion_from=02-10-2020", "completed_from=0001-01-01T00:00:00", "completed_to=infinity",
    "%00=x", "%ff=x", ";", "&".join(f"x{n}=1" for n in range(150)), "&" * 3000, "q=" + "%cc%81" * 31, "token=1", "access_token=x", "__proto__=x", "status[]=new", "format=xml", "format=csv&format=csv", "format=", "separator=;", "skip=yes",
]  # fmt: skip


def bad_query(mallory: Mallory, choose: random.Random) -> Made:
    """Parameters that there aren't, or not so."""
    query = choose.choice(BAD_QUERIES)
    if choose.random() < 0.3:
        query = f"cursor={quote(_b64(choose.randbytes(choose.randrange(1, 200))))}"
    return (mallory.ask(f"GET {choose.choice(['/task'] * 9 + ['/task/events'])}?{query}"),)


def bad_header(mallory: Mallory, choose: random.Random) -> Made:
    """A header that is malformed, too long, or one of too many."""
    tag = choose.choice(["x", "1", '"', '"1', '"1" "2"', "W/", "W/1", '"1",*', "*,*", '"\x00"', ",", "", "'1'"])
    condition = mallory.write(choose.choice(WRITES[1:]), JSON, b'{"name": "x"}', f"If-Match: {tag}")
    key = choose.choice(["", " ", "x y", '"', '"x', "x" * 256, '"' + "x" * 256 + '"', "\xe9", "a\r\nIdempotency-Key: a", '""'])
    repeated = mallory.write(CREATE, JSON, json.dumps(TASK).encode(), f"Idempotency-Key: {key}")
    long = mallory.ask(choose.choice(PRIVATE), f"X-{'x' * choose.randrange(1, 50)}: {'y' * choose.randrange(9000, 60_000)}")
    many = mallory.ask(choose.choice(PRIVATE), *(f"X-{n}: y" for n in range(choose.randrange(130, 3000))))
    no_headers = ["A B: c", ": c", "A\x00: c", "A: \x00", "A : c", " A: c", "A\x7f: c", "(A): c", "A: b\x0bc\x00"]
    strange = mallory.ask(choose.choice(PRIVATE), choose.choice(no_headers))
    none_match = mallory.ask("GET /task/1", f"If-None-Match: {choose.choice(['x', '1', 'W/', chr(34)])}")
    return (choose.choice([condition, repeated, long, many, strange, none_match]),)


def bad_method(mallory: Mallory, choose: random.Random) -> Made:
    """A method or a path that isn't there."""
    method = choose.choice(["TRACE", "PROPFIND", "OPTIONS", "SEARCH", "MKCOL", "PURGE", "get", "Get", "CONNECT", "PRI", "X" * 50, "G\xcbT"])
    ways_to_nowhere = ["/nowhere", "/task/../task", "//task", "/task/1//log", "/%ff", "/" + "x" * 7000, "/task;x", "*", "/health/live/"]
    if choose.random() < 0.3:  # nor are there ways in past the guard
        past_the_guard = [
            "/registerx",
            "/%74ask",
            "/task%2F1",
            "/docs/../task",
            "/openapi.json/../task/1",
            "/health/live/../../task",
            "/task?x=/register",
        ]
        return mallory.ask(f"GET {choose.choice(past_the_guard)}", token=""), frozenset({401, 404})
    path = choose.choice(["/task", "/task/1", *ways_to_nowhere])
    return mallory.ask(f"{method} {path}"), frozenset({400, 404, 405})


BEHIND = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"  # what a smuggler wants to have answered


def smuggling(mallory: Mallory, choose: random.Random) -> Made:
    """A request whose end two readers could see at different places, with another one behind."""
    body = json.dumps(TASK).encode()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    head = f"POST /task HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mallory.token}\r\nContent-Type: {JSON}\r\n".encode()
    length = f"Content-Length: {len(body)}\r\n".encode()
    te = b"Transfer-Encoding: chunked\r\n"
    sent = choose.choice([
        head + length + te + b"\r\n" + chunked, head + te + length + b"\r\n" + chunked, head + length + b"Content-Length: 3\r\n\r\n" + body,
        head + length + length + b"\r\n" + body, head + b"Content-Length: %d, %d\r\n\r\n" % (len(body), len(body)) + body, head + b"Content-Length: +%d\r\n\r\n" % len(body) + body,
        head + b"Content-Length: 1_0\r\n\r\n" + body, head + b"Content-Length: -1\r\n\r\n" + body, head + b"Content-Length: 0x10\r\n\r\n" + body,
        head + b"Content-Length: \r\n\r\n" + body, head + b"Content-Length: %s\r\n\r\n" % (b"9" * 400) + body, head + b"Transfer-Encoding: identity\r\n\r\n" + body,
        head + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + chunked, head + b"Transfer-Encoding: xchunked\r\n\r\n" + chunked,
        head + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunked, head + b"Transfer-Encoding: chunked\x00\r\n\r\n" + chunked, head + b"Transfer-Encoding : chunked\r\n\r\n" + chunked,
        head + b" Transfer-Encoding: chunked\r\n\r\n" + chunked, head + b"X: y\r\n Transfer-Encoding: chunked\r\n" + length + b"\r\n" + body, head + b"Host: y\r\n" + length + b"\r\n" + body,
        head.replace(b"Host: x\r\n", b"") + length + b"\r\n" + body, head.replace(b"\r\n", b"\n") + length.replace(b"\r\n", b"\n") + b"\n" + body,
        head + te + b"\r\n" + b"x" + chunked, head + te + b"\r\n-1\r\n" + chunked, head + te + b"\r\n+5\r\n" + chunked, head + te + b"\r\n5_0\r\n" + chunked,
        head + te + b"\r\n%s\r\n" % (b"f" * 40) + chunked, head + te + b"\r\n" + chunked[:-5].rstrip(b"\r\n") + b"xx\r\n0\r\n\r\n", head.replace(b"POST", b"PO\x00ST") + length + b"\r\n" + body,
        head.replace(b" HTTP/1.1", b" HTTP/9.9") + length + b"\r\n" + body, head.replace(b" HTTP/1.1", b"") + length + b"\r\n" + body, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        choose.randbytes(choose.randrange(20, 300)) + b"\r\n\r\n", head + te + b"\r\n" + chunked[:-2] + b"X: y\r\n" * 300 + b"\r\n",
        head.replace(b"/task", b"/" + b"x" * 9000) + length + b"\r\n" + body,
    ])  # fmt: skip
    return (sent + BEHIND,)


KINDS: dict[str, Callable[[Mallory, random.Random], Made]] = {
    "Authorization": bad_authorization,
    "tokens": forged_token,
    "text": bodies.bad_text,
    "ids": bad_id,
    "JSON": bodies.bad_json,
    "forms": bodies.bad_form,
    "multipart": bodies.bad_multipart,
    "encodings and bombs": bodies.bad_encoding,
    "too large": bodies.too_large,
    "dates": bodies.bad_date,
    "queries": bad_query,
    "files": bodies.bad_file,
    "restoring and undoing": bodies.bad_wish,
    "headers": bad_header,
    "methods and paths": bad_method,
    "smuggling": smuggling,
}

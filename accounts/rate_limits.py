"""How often: attempts to get in are counted in PostgreSQL, exactly and for all workers; a user's requests by each worker in its memory."""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cachetools import FIFOCache, LRUCache

import settings
from accounts.values import login_key
from postgres.database import Statement, database
from rest import addresses, overload
from rest.errors import EXTRA_HEADERS, InvalidToken, Overloaded, Unavailable
from rest.quotas import USERS, Quota, QuotaExceeded, headers
from telemetry.logs import USER_ID

log = logging.getLogger(__name__)

MOST_REMEMBERED = 10_000  # users, and refused keys, per worker
AT_ONCE = 2  # of a worker's connections: a flood of attempts leaves the others to those who are in
DIGEST_BYTES = 16

_BEGIN = Statement("SELECT * FROM attempt_begin(%s::bytea[], %s::bigint[], %s::float8[], %s::bytea, %s::float8)", 5, ())
_SUCCEEDED = Statement("SELECT attempt_succeeded(%s::bytea, %s::bytea, %s::timestamptz)", 3, ())


class Door:
    """What counts attempts. It asks PostgreSQL, and remembers for how long what it refused can't be allowed."""

    def __init__(self) -> None:
        given = settings.load()
        self.quotas = [
            Quota("address", given.address_limit_per_minute, 60, "Too many have tried to get in from your address"),
            Quota("login", given.login_limit_per_minute, 60, "This login has been tried too often from your address"),
            Quota("failures", given.login_failures_per_hour, 3600, "This login has failed too often, from unknown addresses"),
        ]
        self._secret = given.pass_salt.get_secret_value().encode()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._refused: LRUCache[bytes, tuple[Quota, float]] = LRUCache(MOST_REMEMBERED)  # until when, in the loop's seconds

    def key(self, *parts: str) -> bytes:
        """Give the key of whatever these name: nobody who has only the tables finds out what. With another PASS_SALT all begins anew."""
        return hmac.digest(self._secret, "\0".join(("limit", *parts)).encode(), "sha256")[:DIGEST_BYTES]

    async def begin(self, quotas: list[Quota], keys: list[bytes], pair: bytes) -> list[tuple[int, int, float, datetime]]:
        """Count an attempt. Raises QuotaExceeded where it is one too many, and then it isn't counted."""
        now = asyncio.get_running_loop().time()
        for key in keys:
            if (refused := self._refused.get(key)) and refused[1] > now:
                raise QuotaExceeded(refused[0], refused[1] - now)
        most, seconds = [quota.most for quota in quotas], [quota.seconds for quota in quotas]
        rows = await self.ask(_BEGIN, keys, most, seconds, pair, settings.load().known_address_seconds)
        place, _, wait, moment = rows[-1]
        if moment is None:
            quota = quotas[place - 1]
            if place < 3:  # a login's failures may turn out to be none
                self._refused[keys[place - 1]] = quota, asyncio.get_running_loop().time() + wait
            raise QuotaExceeded(quota, wait)
        return rows

    async def ask(self, statement: Statement, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement on one of the few connections that there are for it."""
        refusal = Overloaded("Too many are trying to get in at this moment: try again.")
        async with overload.in_turn(self._places, settings.load().db_wait_seconds, refusal):
            return await database.run(statement, values)


DOOR = web.AppKey("door", Door)


async def door(app: web.Application) -> AsyncIterator[None]:
    """Hold what counts attempts while the application runs."""
    if is_on():
        app[DOOR] = Door()
    else:
        log.warning("RATE_LIMIT is off: anybody may try as many passwords as they like. That is for tests and benchmarks only.")
    yield


def is_on() -> bool:
    """Tell whether anything is counted."""
    return settings.load().rate_limit == "on"


@asynccontextmanager
async def attempt(request: web.Request, login: str, *, registers: bool = False, is_last: bool = False) -> AsyncIterator[None]:
    """Count what is done inside as an attempt with this login from the request's address; one that raises anything has failed.

    Of an account's last one it isn't remembered that it succeeded: whoever has the login next is somebody else.

    Where it can't be counted nobody gets in: that needs the database in any case, and who brings it into trouble isn't to have tries
    for free. Raises QuotaExceeded, Unavailable.
    """
    if DOOR not in request.app:
        yield
        return
    door, login = request.app[DOOR], login_key(login)
    site = addresses.site(addresses.client(request, settings.load().trusted_proxies))
    pair, by_login = door.key("login", site, login), door.key("failures", login)
    quotas = door.quotas[:2] if registers else door.quotas  # to register isn't to guess
    keys = [door.key("address", site), door.key("register", site, login) if registers else pair, by_login][: len(quotas)]
    rows = await door.begin(quotas, keys, pair)
    own = zip(quotas[:2], rows, strict=False)  # how often others have failed with this login is their business
    left = (quota.left(remaining, wait) for quota, (_, remaining, wait, _) in own)
    request[EXTRA_HEADERS].update(headers(quotas, left))
    yield
    if is_last:
        return
    with suppress(Unavailable):  # what was done stays done, whatever can be put down about it
        await door.ask(_SUCCEEDED, pair, by_login, rows[2][3] if len(rows) > 2 else None)


class _Minute:
    """A minute of a user's, and the requests in it."""

    __slots__ = ("ends_at", "requests")

    def __init__(self, ends_at: float) -> None:
        self.requests, self.ends_at = 0, ends_at


def middleware(remedies: Collection[Any]) -> Middleware:
    """Make the middleware that counts the requests of whoever auth has let in, in minutes that begin with a user's first request.

    Of the handlers `remedies`, which end a stolen token, there may be as many again: who has that token isn't to use up the owner's.
    """
    quota = USERS._replace(most=settings.load().user_limit_per_minute)
    minutes: FIFOCache[int, _Minute] = FIFOCache(MOST_REMEMBERED)

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if user_id := request.get(USER_ID):
            now = time.monotonic()
            try:
                minute = minutes[user_id]
            except KeyError:
                minute = _Minute(now)
            if minute.ends_at <= now:
                minute = minutes[user_id] = _Minute(now + quota.seconds)
            if minute.requests >= quota.most and (minute.requests >= 2 * quota.most or request.match_info.handler not in remedies):
                raise QuotaExceeded(quota, minute.ends_at - now)
            minute.requests += 1
            try:
                return await handler(request)
            except (InvalidToken, QuotaExceeded):  # a token of the past isn't the user's doing, and what a quota refuses doesn't count
                minute.requests -= 1
                raise
        return await handler(request)

    return limit

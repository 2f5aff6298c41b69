"""How often: attempts to get in are counted in PostgreSQL, exactly and for all workers; a user's requests by each worker in its memory."""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cachetools import FIFOCache, LRUCache

from accounts.values import login_key
from auth import ACCESS
from postgres.queries import Statement
from rest import addresses
from rest.errors import EXTRA_HEADERS, InvalidToken, Overloaded, Unavailable
from rest.quotas import USERS, Quota, QuotaExceeded, headers
from rest.turns import Turns
from service import SERVICE, Service

log = logging.getLogger(__name__)

MAX_REMEMBERED = 10_000  # callers, users, and refused keys, per worker
MAX_AT_ONCE = 2  # of a worker's connections: a flood of attempts leaves the others to those who are in
DIGEST_BYTES = 16

_BEGIN = Statement("SELECT * FROM attempt_begin(%s::bytea[], %s::bigint[], %s::float8[], %s::bytea, %s::text, %s::float8)", 6)
_SUCCEEDED = Statement("SELECT attempt_succeeded(%s::bytea, %s::bytea, %s::timestamptz)", 3)


class Count(NamedTuple):
    """What an attempt counts for: a quota, and the key of whose it is."""

    quota: Quota
    key: bytes


class Counted(NamedTuple):
    """How an attempt was counted for one of its quotas, from 1: what is left for how long, and when; or, with no moment, refused."""

    number: int
    remaining: int
    seconds: float
    moment: datetime | None


class Attempts:
    """Counts attempts to get in. It asks PostgreSQL, and remembers for how long what it refused can't be allowed."""

    def __init__(self, service: Service) -> None:
        self._settings, self._database = service.settings, service.database
        self.address = Quota("address", self._settings.address_limit_per_minute, 60, "Too many have tried to get in from your address")
        self.login = Quota("login", self._settings.login_limit_per_minute, 60, "This login has been tried too often from your address")
        self.failures = Quota(
            "failures", self._settings.login_failures_per_hour, 3600, "This login has failed too often, from unknown addresses"
        )
        self._secret = self._settings.pass_salt.get_secret_value().encode()
        self._turns = Turns(MAX_AT_ONCE)  # by address
        self._refused: LRUCache[bytes, tuple[Quota, float]] = LRUCache(MAX_REMEMBERED)  # by key: until when, in the loop's seconds

    def key(self, *parts: str) -> bytes:
        """Return the key of whatever these name: nobody who has only the tables finds out what. With another PASS_SALT all begins anew."""
        return hmac.digest(self._secret, "\0".join(("limit", *parts)).encode(), "sha256")[:DIGEST_BYTES]

    def site(self, request: web.Request) -> str:
        """Return where the request comes from."""
        return addresses.site(addresses.client(request, self._settings.trusted_proxies))

    def from_address(self, site: str) -> Count:
        """Return what any attempt from there counts for."""
        return Count(self.address, self.key("address", site))

    async def begin(self, counts: Sequence[Count], pair: bytes = b"", login: str = "") -> list[Counted]:
        """Count an attempt. Raises QuotaExceeded where it is one too many, and then it isn't counted."""
        self._refuse_at_once(counts)
        keys, quotas = [count.key for count in counts], [count.quota for count in counts]
        limits = [quota.most for quota in quotas], [quota.seconds for quota in quotas]
        async with self._turn(counts[0].key):
            self._refuse_at_once(counts)  # what was found out meanwhile
            values = keys, *limits, pair, login, self._settings.known_address_seconds
            rows = [Counted(*row) for row in await self._database.run(_BEGIN, values)]
        last = rows[-1]
        if last.moment is None:
            quota, key = counts[last.number - 1]
            if quota != self.failures:  # which may turn out to be none
                self._refused[key] = quota, asyncio.get_running_loop().time() + last.seconds
            raise QuotaExceeded(quota, last.seconds)
        return rows

    async def succeed(self, pair: bytes, login: bytes, failed_at: datetime | None) -> None:
        """Note that an attempt succeeded: it was no failure of the login's, and the address is known for it."""
        async with self._turn(pair):
            await self._database.run(_SUCCEEDED, (pair, login, failed_at))

    def _refuse_at_once(self, counts: Sequence[Count]) -> None:
        now = asyncio.get_running_loop().time()
        for count in counts:
            if (refused := self._refused.get(count.key)) and refused[1] > now:
                raise QuotaExceeded(refused[0], refused[1] - now)

    def _turn(self, whose: bytes) -> AbstractAsyncContextManager[None]:
        """Wait for one of the few connections that there are for this."""
        refusal = Overloaded("Too many are trying to get in at this moment: try again.")
        return self._turns.of(whose, refusal, self._settings.db_wait_seconds)


ATTEMPTS = web.AppKey("attempts", Attempts)


async def counting(app: web.Application) -> AsyncIterator[None]:
    """Hold what counts attempts while the application runs."""
    if app[SERVICE].settings.rate_limit == "on":
        app[ATTEMPTS] = Attempts(app[SERVICE])
    else:
        log.warning("RATE_LIMIT is off: anybody may try as many passwords as they like. That is for tests and benchmarks only.")
    yield


@asynccontextmanager
async def attempt(request: web.Request, login: str, *, registers: bool = False, is_last: bool = False) -> AsyncIterator[None]:
    """Count what is done inside as an attempt with this login from the request's address; one that raises anything has failed.

    Of an account's last one it isn't remembered that it succeeded: whoever has the login next is somebody else.

    Where it can't be counted nobody gets in: that needs the database in any case, and who brings it into trouble isn't to have tries
    for free. Raises QuotaExceeded, Unavailable.
    """
    if ATTEMPTS not in request.app:
        yield
        return
    attempts, login = request.app[ATTEMPTS], login_key(login)
    site = attempts.site(request)
    pair = attempts.key("login", site, login)
    own = [
        attempts.from_address(site),
        Count(attempts.login, attempts.key("register", site, login) if registers else pair),
    ]
    failures = Count(attempts.failures, attempts.key("failures", login))
    counts = own if registers else [*own, failures]  # to register isn't to guess
    rows = await attempts.begin(counts, pair, login)
    told = zip(own, rows, strict=False)  # how often others have failed with this login is their business
    left = (quota.left(row.remaining, row.seconds) for (quota, _), row in told)
    request[EXTRA_HEADERS].update(headers([count.quota for count in counts], left))
    yield
    if is_last:
        return
    failed_at = next((row.moment for row in rows if counts[row.number - 1] == failures), None)
    with suppress(Unavailable):  # what was done stays done, whatever can be put down about it
        await attempts.succeed(pair, failures.key, failed_at)


async def count_address(request: web.Request) -> None:
    """Count an attempt from the request's address, with a code that names no login. Raises QuotaExceeded, Unavailable."""
    if ATTEMPTS in request.app:
        attempts = request.app[ATTEMPTS]
        [row] = await attempts.begin([attempts.from_address(attempts.site(request))])
        quota = attempts.address
        request[EXTRA_HEADERS].update(headers([quota], [quota.left(row.remaining, row.seconds)]))


class _Minute:
    """A minute, and the requests in it."""

    __slots__ = ("ends_at", "requests")

    def __init__(self, ends_at: float) -> None:
        self.requests, self.ends_at = 0, ends_at


class _Minutes:
    """Whose minutes there are: they begin with the first request. Whoever is forgotten, for want of room, begins anew."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._minutes: FIFOCache[object, _Minute] = FIFOCache(MAX_REMEMBERED)

    def present(self, whose: object, now: float) -> _Minute:
        """Return the present one. Raises QuotaExceeded where it is used up."""
        try:
            minute = self._minutes[whose]
        except KeyError:
            minute = _Minute(now)
        if minute.ends_at <= now:
            minute = self._minutes[whose] = _Minute(now + self._quota.seconds)
        if minute.requests >= self._quota.most:
            raise QuotaExceeded(self._quota, minute.ends_at - now)
        return minute


def middleware(remedies: Collection[Any], max_per_minute: int) -> Middleware:
    """Make the middleware that counts the requests of whoever auth has let in, in minutes that begin with the first of them.

    What a token asks counts for it and the others of its generation, as the next statement may find that it is of the past: so it uses up
    nothing of who has revoked it. What succeeded is the user's, too, whom another generation gives no more. Each of the handlers
    `remedies`, which end a stolen token, has room of its own, that only success uses up: whoever has the token, and not the password,
    leaves the owner the remedy that needs it.
    """
    quota = USERS._replace(most=max_per_minute)
    of_callers, of_users = _Minutes(quota), _Minutes(quota)
    of_remedies = {remedy: _Minutes(quota) for remedy in remedies}

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        access = request.get(ACCESS)
        if not access:
            return await handler(request)
        caller, now = access.caller, time.monotonic()
        if of_remedy := of_remedies.get(request.match_info.handler):
            used = of_remedy.present(caller.user_id, now)
            response = await handler(request)
            used.requests += 1
            return response
        of_caller, of_user = of_callers.present(caller, now), of_users.present(caller.user_id, now)
        of_caller.requests += 1
        try:
            response = await handler(request)
        except (InvalidToken, QuotaExceeded):  # a token of the past is to hear just that, and what a quota refuses doesn't count
            of_caller.requests -= 1
            raise
        of_user.requests += 1
        return response

    return limit

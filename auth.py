"""Who is calling: tokens, and the middleware that lets nobody in without one."""

import hmac
import logging
import re
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, NamedTuple

import jwt
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from aiohttp_jwt import JWTMiddleware
from cachetools import FIFOCache
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from models import Caller
from rest.errors import EXTRA_HEADERS, InvalidToken, Unauthorized
from service import SERVICE, Service
from settings import MAX_TOKEN_LIFETIME_SECONDS, Settings
from telemetry.logs import USER_ID

ALGORITHM = "HS256"
MAX_REMEMBERED = 10_000  # verified tokens per worker, at some 600 bytes
MAX_REMEMBERED_LENGTH = 300  # as it was sent: a token of ours with its scheme has some 200 bytes, and may come with thousands of spaces
SECONDS_AHEAD = 60  # at most, of the clock of the host that issued a token
GENERATIONS = 2**53  # the largest that every JSON parser reads exactly
PRIVATE_HEADERS: dict[str, str] = {hdrs.CACHE_CONTROL: "private, no-cache", hdrs.VARY: "Authorization, Accept"}

# It would log a traceback for every bad token, with what the client wrote in it.
logging.getLogger("aiohttp_jwt.middleware").disabled = True
# PyJWT would refuse a token that another host issued a moment ago if that one's clock is ahead, and aiohttp-jwt has no way to say so.
jwt.api_jwt._jwt_global_obj.options["verify_iat"] = False  # noqa: SLF001 - Claims looks at it


class Access(NamedTuple):
    """What a token gives: whose data it opens, and until when (seconds since 1970)."""

    caller: Caller
    expires_at: int


ACCESS = web.RequestKey("access", Access)


class Token(BaseModel):
    """A token to send as `Authorization: Bearer <access_token>`."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int = Field(description="seconds", examples=[2592000])


def issue_token(settings: Settings, caller: Caller, lifetime_seconds: int | None = None) -> Token:
    """Sign a token for the caller; one that lives as long as the operator says, unless another lifetime is given."""
    now, lifetime = int(time.time()), lifetime_seconds or settings.token_lifetime_seconds
    claims = {"sub": str(caller.user_id), "iat": now, "exp": now + lifetime, "gen": caller.generation}
    return Token(access_token=jwt.encode(claims, settings.jwt_secret.get_secret_value(), ALGORITHM), expires_in=lifetime)


class Claims(BaseModel):
    """What a token says. PyJWT has checked the signature and that it hasn't expired; it requires none of these."""

    model_config = ConfigDict(strict=True, extra="forbid")

    sub: Annotated[str, StringConstraints(pattern="^[1-9][0-9]{0,18}$")]
    iat: int
    exp: int
    gen: int

    def caller(self) -> Caller:
        """Return who it is. Raises InvalidToken where it is of the future, would live longer than we ever said, or names nobody."""
        user_id = int(self.sub)
        if (
            self.iat > time.time() + SECONDS_AHEAD
            or self.exp - self.iat > MAX_TOKEN_LIFETIME_SECONDS
            or user_id >= 2**63
            or not 0 <= self.gen < GENERATIONS
        ):
            raise InvalidToken()
        return Caller(user_id, self.gen)


# {"alg":"HS256","typ":"JWT"}: every token of ours begins so, and one that says more (crit, kid, jku) isn't ours.
HEADER = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
BEARER = re.compile(rf"(?i:bearer) +({HEADER}\.[A-Za-z0-9_-]{{1,1000}}\.[A-Za-z0-9_-]{{1,100}})", re.ASCII)


def bearer_token(request: web.Request) -> str:
    """Return the token that was sent. aiohttp-jwt's own way takes `BearerXYZ` for a scheme and fails at bytes beyond ASCII."""
    sent = request.headers.getall(hdrs.AUTHORIZATION, [])
    if not sent or (len(sent) == 1 and sent[0].split(" ")[0].lower() != "bearer"):
        raise Unauthorized()
    form = BEARER.fullmatch(sent[0].strip())
    if len(sent) > 1 or form is None:
        raise InvalidToken()
    return form[1]


class _Verification:
    """The verifying of tokens, which aiohttp-jwt does, mostly once for each, under the present secret or the one before."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._verified, *self._verified_before = (
            JWTMiddleware(secret, request_property="claims", algorithms=[ALGORITHM], token_getter=bearer_token) for secret in secrets
        )
        self._remembered: FIFOCache[str, Access] = FIFOCache(MAX_REMEMBERED)  # by what was sent

    def known(self, sent: Sequence[str]) -> Access | None:
        """Return what was found out before, while it is true."""
        try:
            access = self._remembered[sent[0]] if len(sent) == 1 else None
        except KeyError:
            return None
        return access if access and time.time() < access.expires_at else None

    async def verify(self, request: web.Request, sent: Sequence[str]) -> Access:
        """Find it out. Raises Unauthorized, InvalidToken."""
        try:
            try:
                await self._verified(request, _nothing)
            except web.HTTPUnauthorized:
                if not self._verified_before:
                    raise
                await self._verified_before[0](request, _nothing)
            claims = Claims.model_validate(request["claims"])
        except (web.HTTPUnauthorized, ValidationError):
            raise InvalidToken() from None
        access = Access(claims.caller(), claims.exp)
        if len(sent[0]) <= MAX_REMEMBERED_LENGTH:
            self._remembered[sent[0]] = access
        return access


def middleware(private: Iterable[web.RouteDef], secrets: Sequence[str]) -> Middleware:
    """Make the middleware that guards these routes. What needs a token stands in that list; nothing else does."""
    guarded, verification = {route.handler for route in private}, _Verification(secrets)

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.handler in guarded:
            request[EXTRA_HEADERS].update(PRIVATE_HEADERS)
            if request.method != "OPTIONS":  # which aiohttp-jwt lets pass; no view answers it
                sent = request.headers.getall(hdrs.AUTHORIZATION, ())
                request[ACCESS] = access = verification.known(sent) or await verification.verify(request, sent)
                request[USER_ID] = access.caller.user_id
        return await handler(request)

    return authenticate


class Resource(web.View):
    """What all our resources have: a caller, and HEAD wherever there is GET (RFC 9110, section 9.3.2)."""

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "get"):
            cls.head = cls.get  # type: ignore[attr-defined]

    @property
    def service(self) -> Service:
        """What all rooms share."""
        return self.request.app[SERVICE]

    @property
    def caller(self) -> Caller:
        """Whose data it is."""
        return self.request[ACCESS].caller


def check_operator(request: web.Request) -> None:
    """Let only in who sends METRICS_TOKEN. Raises Unauthorized."""
    sent, given = request.headers.getall(hdrs.AUTHORIZATION, []), request.app[SERVICE].settings.metrics_token
    scheme, _, token = sent[0].partition(" ") if sent else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthorized()
    if len(sent) > 1 or given is None or not hmac.compare_digest(_bytes(token.strip(" ")), _bytes(given.get_secret_value())):
        raise InvalidToken("This is not the METRICS_TOKEN of this service.")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


async def _nothing(request: web.Request) -> web.StreamResponse:
    return web.Response()

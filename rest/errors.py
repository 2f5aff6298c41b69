"""The failures that a client may see, the one middleware that answers them (RFC 9457), and the headers that every answer has."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Self

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import istr
from pydantic import MISSING, BaseModel, Field

from rest.error_codes import ErrorCode
from telemetry import metrics

log = logging.getLogger(__name__)

REFUSALS = metrics.Counter("http_refusals_total", "Requests that were refused, or failed, by why.", "kind")

HEADERS: dict[str, str] = {  # named as multidict likes it, as aiohttp's hdrs are: it would fold the case of a plain text each time
    istr("X-Content-Type-Options"): "nosniff",
    istr("Content-Security-Policy"): "default-src 'none'; frame-ancestors 'none'",
    istr("Referrer-Policy"): "no-referrer",
    istr("X-Frame-Options"): "DENY",
}
PROBLEM = "application/problem+json"
PUBLIC_PATH = web.AppKey("public_path", str)  # what clients find before our paths, where a proxy strips it
EXTRA_HEADERS = web.RequestKey("extra_headers", dict[str, str])  # what an answer to this request carries besides, be it an error or not


class FieldProblem(BaseModel):
    """What is wrong with one field, as it is shown."""

    field: str = Field(examples=["name"])
    code: ErrorCode = Field(description="what is wrong, for programs", examples=["too_long"])
    message: str = Field(description="what is wrong, in words", examples=["must have at most 200 characters"])
    params: dict[str, Any] | MISSING = Field(MISSING, description="of which code and message speak", examples=[{"max": 200}])


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="about:blank, or where this kind of problem is explained", examples=["about:blank"])
    title: str = Field(description="the status in words", examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["Some fields are missing or wrong."])
    errors: list[FieldProblem] | MISSING = Field(MISSING, description="where fields are at fault: each of them")


class Failure(Exception):
    """A refusal that the client is told of.

    `kind` is what it is counted as. Where the status alone says too little it `is_explained` at /docs/problems, and its type says so.
    """

    status: ClassVar[HTTPStatus]
    kind: ClassVar[str]
    is_explained: ClassVar[bool] = False
    title: ClassVar[str | None] = None  # the status's phrase
    detail = ""
    carries: ClassVar[tuple[str, ...]] = ()  # headers
    shape: ClassVar[type[Problem]] = Problem  # with the members that this kind has besides

    def __init__(self, detail: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail or self.detail)
        self.detail = detail or self.detail
        self.headers = dict(headers or {})

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            REFUSALS.count((cls.kind,), 0)  # who watches for a change needs to see what it was before

    @classmethod
    def example(cls) -> Self:
        """Return one for the document."""
        return cls()

    @property
    def label(self) -> str:
        """What the operator counts it as."""
        return self.kind

    def members(self) -> dict[str, Any]:
        """Return what the problem document holds beyond the standard members."""
        return {}

    def document(self, public_path: str = "") -> dict[str, Any]:
        """Return the problem document (RFC 9457, section 3)."""
        explained = f"{public_path}/docs/problems#{self.kind}" if self.is_explained else "about:blank"
        return {
            "type": explained,
            "title": self.title or self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
        } | self.members()

    def response(self, public_path: str = "") -> web.Response:
        """Return the answer."""
        body = orjson.dumps(self.document(public_path), option=orjson.OPT_APPEND_NEWLINE)
        return web.Response(status=self.status, body=body, headers=self.headers, content_type=PROBLEM)


class FieldError(dict[str, Any]):
    """What is wrong with one field of the request: for programs, and as a sentence that the field's name begins."""

    def __init__(self, field: str, code: ErrorCode, message: str, **params: Any) -> None:
        super().__init__({"field": field, "code": code, "message": message} | ({"params": params} if params else {}))


class InvalidInput(Failure):
    """The request's fields are at fault: every one of them is named."""

    status = HTTPStatus.BAD_REQUEST
    kind = "invalid-input"
    detail = "Some fields are missing or wrong."
    most = 100  # a body can hold thousands of wrong fields; nobody reads the answer

    def __init__(self, *errors: FieldError, detail: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail, headers=headers)
        self.errors = errors

    def members(self) -> dict[str, Any]:
        return {"errors": self.errors[: self.most]} if self.errors else {}


class Unauthorized(Failure):
    """Nobody in particular is calling (RFC 6750, section 3)."""

    status = HTTPStatus.UNAUTHORIZED
    kind = "unauthorized"
    detail = "Send a token: Authorization: Bearer <token>."
    carries = ("WWW-Authenticate",)
    realm: ClassVar[str] = ""  # the application names it
    error: ClassVar[str | None] = None

    def __init__(self, detail: str = "") -> None:
        challenge = f'Bearer realm="{self.realm}"' + (f', error="{self.error}"' if self.error else "")
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class InvalidToken(Unauthorized):
    """There is a token, and it isn't one of ours, or not any more."""

    kind = "invalid-token"
    detail = "The token is not valid, or not any more: get a new one."
    error = "invalid_token"


class NotFound(Failure):
    """There is no such thing, or it is somebody else's: the answer is the same."""

    status = HTTPStatus.NOT_FOUND
    kind = "not-found"
    detail = "There is nothing at this address."


class Conflict(Failure):
    """What is asked for can't be, as things are."""

    status = HTTPStatus.CONFLICT
    kind = "conflict"


class Gone(Failure):
    """It was there, and is not any more."""

    status = HTTPStatus.GONE
    kind = "gone"


class ChangedMeanwhile(Failure):
    """The client's revision is not the present one (RFC 9110, section 15.5.13)."""

    status = HTTPStatus.PRECONDITION_FAILED
    kind = "changed-meanwhile"
    is_explained = True
    detail = "It has changed since the revision that you named: read it again."


class Unchanged(Failure):
    """If-None-Match names it as it is, or anything (*), and so forbids a change (RFC 9110, section 13.1.2); nothing was done."""

    status = HTTPStatus.PRECONDITION_FAILED
    kind = "unchanged"
    is_explained = True
    detail = "It still is what If-None-Match says that it must not be, so nothing was done: send the change without that header."


class RequestTimeout(Failure):
    """The request took too long to arrive."""

    status = HTTPStatus.REQUEST_TIMEOUT
    kind = "request-timeout"
    detail = "The request took too long to arrive: send it again."

    def response(self, public_path: str = "") -> web.Response:
        response = super().response(public_path)
        response.force_close()  # RFC 9110, section 15.5.9
        return response


class UnsupportedMediaType(Failure):
    """The body is of a type, or in a coding, that nobody here reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    kind = "unsupported-media-type"
    detail = "The body is of a type that this call doesn't read."


class TooManyRequests(Failure):
    """It has been asked for too often, or too much at once (RFC 6585, section 4)."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "too-many-requests"
    carries: ClassVar[tuple[str, ...]] = ("Retry-After",)

    def __init__(self, detail: str = "", *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)})


class Unavailable(Failure):
    """Not now. Whether a change happened is open; the client may ask again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "unavailable"
    detail = "The service can't answer right now: try again."
    carries = ("Retry-After",)

    def __init__(self, detail: str = "", *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)})


class Overloaded(Unavailable):
    """There is as much to do already as can be done at once."""

    kind = "overloaded"


class MethodNotAllowed(Failure):
    """The address has no such method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    kind = "method-not-allowed"
    detail = "This address has no such method: the Allow header lists those it has."
    carries = ("Allow",)


class ContentTooLarge(Failure):
    """The body is larger than the service reads."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "content-too-large"
    title = "Content Too Large"  # as RFC 9110 names it; Python 3.13 does too
    detail = "The body is too large."


class Unexpected(Failure):
    """Something went wrong on our side."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "unexpected"
    detail = "Something went wrong on our side: it is in the log, under this answer's X-Request-ID."


def _of_aiohttp(refusal: web.HTTPException) -> Failure:
    """Say in our words what aiohttp refuses by itself."""
    match refusal:
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(headers={"Allow": refusal.headers["Allow"]})
        case web.HTTPRequestEntityTooLarge():
            return ContentTooLarge()
        case web.HTTPNotFound():
            return NotFound()
    log.error("aiohttp refused in a way that is new to us: %r", refusal)
    return Unexpected()


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every failure into a problem document; what is not a client's business goes to the log alone."""
    request[EXTRA_HEADERS] = {}
    try:
        response = await handler(request)
    except Failure as failure:
        response = _answer(request, failure)
    except web.HTTPException as refusal:
        response = _answer(request, _of_aiohttp(refusal))
    except Exception:
        log.exception("unexpected failure")
        response = _answer(request, Unexpected())
    if not response.prepared:
        add_headers(request, response)
    return response


def _answer(request: web.Request, failure: Failure) -> web.Response:
    REFUSALS.count((failure.label,))
    return failure.response(request.app.get(PUBLIC_PATH, ""))


def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer has, and those that this request's has besides."""
    headers = response.headers
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers.update(request[EXTRA_HEADERS])

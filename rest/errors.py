"""The failures that a client may see, the one middleware that answers them (RFC 9457), and the headers that every answer has."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
EXTRA_HEADERS = web.RequestKey("extra_headers", dict[str, str])  # what an answer to this request carries besides, be it an error or not


class Failure(Exception):
    """A refusal that the client is told of. `problem` names its kind where the status alone says too little."""

    status: ClassVar[HTTPStatus]
    problem: ClassVar[str | None] = None
    detail = ""

    def __init__(self, detail: str = "", *, revision: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail or self.detail)
        self.detail = detail or self.detail
        self.headers = dict(headers or {})
        if revision is not None:
            self.headers["X-Revision"] = str(revision)

    def members(self) -> dict[str, Any]:
        """Give what the problem document holds beyond the standard members."""
        return {}


class FieldError(dict[str, str]):
    """What is wrong with one field of the request."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field=field, message=message)


class InvalidInput(Failure):
    """The request's fields are at fault: every one of them is named."""

    status = HTTPStatus.BAD_REQUEST
    detail = "Some fields are missing or wrong."
    most = 100  # a body can hold thousands of wrong fields; nobody reads the answer

    def __init__(self, *errors: FieldError, detail: str = "") -> None:
        super().__init__(detail)
        self.errors = errors

    def members(self) -> dict[str, Any]:
        return {"errors": self.errors[: self.most]} if self.errors else {}


class Unauthorized(Failure):
    """Nobody in particular is calling (RFC 6750, section 3)."""

    status = HTTPStatus.UNAUTHORIZED
    detail = "Send a token: Authorization: Bearer <token>."
    realm: ClassVar[str] = "task"
    error: ClassVar[str | None] = None

    def __init__(self, detail: str = "") -> None:
        challenge = f'Bearer realm="{self.realm}"' + (f', error="{self.error}"' if self.error else "")
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class InvalidToken(Unauthorized):
    """There is a token, and it isn't one of ours, or not any more."""

    detail = "The token is not valid, or not any more: get a new one."
    error = "invalid_token"


class NotFound(Failure):
    """There is no such thing, or it is somebody else's: the answer is the same."""

    status = HTTPStatus.NOT_FOUND
    detail = "There is nothing at this address."


class Conflict(Failure):
    """What is asked for can't be, as things are."""

    status = HTTPStatus.CONFLICT


class ChangedMeanwhile(Failure):
    """The client's revision is not the present one (RFC 9110, section 15.5.13)."""

    status = HTTPStatus.PRECONDITION_FAILED
    problem = "changed-meanwhile"
    detail = "It has changed since the revision that you named: read it again."


class UnsupportedMediaType(Failure):
    """The body is of a type, or in a coding, that nobody here reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Unavailable(Failure):
    """Not now. Whether a change happened is open; the client may ask again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    detail = "The service can't answer right now: try again."

    def __init__(self, detail: str = "", *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)})


def problem(status: int, detail: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None, **members: Any) -> web.Response:
    """Make an answer of type application/problem+json."""
    body = {
        "type": f"/docs/problems#{kind}" if kind else "about:blank",
        "title": "Content Too Large" if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else HTTPStatus(status).phrase,  # RFC 9110's name
        "status": status,
        "detail": detail,
        **members,
    }
    return web.Response(status=status, body=orjson.dumps(body), headers=headers, content_type="application/problem+json")


WORDS = {  # what aiohttp itself refuses
    404: NotFound.detail,
    405: "This address has no such method: the Allow header lists those it has.",
    413: "The body is too large.",
}


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every failure into a problem document; what is not a client's business goes to the log alone."""
    try:
        response = await handler(request)
    except Failure as failure:
        response = problem(failure.status, failure.detail, kind=failure.problem, headers=failure.headers, **failure.members())
    except web.HTTPException as failure:
        allow = {"Allow": failure.headers["Allow"]} if "Allow" in failure.headers else None
        response = problem(failure.status, WORDS.get(failure.status, failure.reason), headers=allow)
    except Exception:
        log.exception("unexpected failure")
        response = problem(500, "Something went wrong on our side: it is in the log, under this answer's X-Request-ID.")
    if "Transfer-Encoding" in request.headers:  # aiohttp would take such a body's trailers for headers of the next request here
        response.force_close()
    if not response.prepared:
        response.headers.update(HEADERS)
        response.headers.update(request.get(EXTRA_HEADERS, {}))
    return response

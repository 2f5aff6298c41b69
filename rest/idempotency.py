"""Idempotency-Key: a request that is sent again is answered as it was, and what it asks for is done once."""

import hashlib
import re
from http import HTTPStatus

from aiohttp import web

from rest.errors import Failure, FieldError, InvalidInput

HEADER = "Idempotency-Key"
KEY = r'"[!-~]{1,255}"|[!#-~]([!-~]{0,253}[!#-~])?'  # in quotes, as a structured field (RFC 9651) has text, or without
_KEY = re.compile(KEY)


class KeyReused(Failure):
    """This Idempotency-Key has come with another request within 24 hours."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "Unprocessable Content"  # as RFC 9110 names it; Python 3.13 does too
    kind = "key-reused"
    is_explained = True
    detail = "Another request came with this Idempotency-Key: choose a new key for each thing to be done."


def key(request: web.Request) -> str | None:
    """Return the key under which the request may be repeated, without its quotes; None where there is none. Raises InvalidInput."""
    if HEADER not in request.headers:
        return None
    sent = request.headers.getall(HEADER)
    if len(sent) > 1 or not _KEY.fullmatch(sent[0]):
        raise InvalidInput(FieldError(HEADER, "malformed", "must be sent once, with 1 to 255 visible ASCII characters, in quotes or not"))
    return sent[0][1:-1] if sent[0].startswith('"') else sent[0]


def digest(operation: str, values: str) -> str:
    """Return what two requests under one key must have in common: the operation, and the values as they were understood."""
    return hashlib.sha256(f"{operation}\n{values}".encode()).hexdigest()

"""Opaque places in a listing: signed, so that none but ours come back, and only to the query that made them."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64

import orjson

_SIGNATURE_BYTES = 16


def seal(key: bytes, scope: str, place: list[object]) -> str:
    """Give the cursor for a place (anything that JSON holds) in the listing that `scope` names."""
    content = orjson.dumps(place)
    return _text(_signature(key, scope, content) + content)


def unseal(key: bytes, scope: str, cursor: str) -> list[object] | None:
    """Give back the place, or None where the cursor isn't one of this listing."""
    try:
        sealed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (NotBase64, ValueError):
        return None
    signature, content = sealed[:_SIGNATURE_BYTES], sealed[_SIGNATURE_BYTES:]
    genuine = hmac.compare_digest(signature, _signature(key, scope, content))
    if not genuine or _text(sealed) != cursor:  # base64 can be spelt in more ways than ours
        return None
    place: list[object] = orjson.loads(content)
    return place


def _text(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).decode().rstrip("=")


def _signature(key: bytes, scope: str, content: bytes) -> bytes:
    return hmac.digest(key, b"cursor\0" + scope.encode() + b"\0" + content, "sha256")[:_SIGNATURE_BYTES]

"""Opaque places in a listing: signed, so that none but ours come back, and only to the query that made them.

itsdangerous would do it, in 17 us for a text and 52 for JSON; this takes 2.5.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from functools import lru_cache

import orjson

_SIGNATURE_BYTES = 16


def seal(key: str, scope: str, place: bytes) -> str:
    """Return the cursor for a place (an array as JSON) in the listing that `scope` names."""
    return _text(_signature(key, scope, place) + place)


def unseal(key: str, scope: str, cursor: str) -> list[object] | None:
    """Return the place, or None where the cursor isn't one of this listing."""
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


def _signature(key: str, scope: str, content: bytes) -> bytes:
    """Return a keyed BLAKE2 hash (RFC 7693), which is a signature like HMAC and takes a third of the time."""
    signature = _begun(key).copy()
    signature.update(scope.encode() + b"\0" + content)
    return signature.digest()


@lru_cache(4)
def _begun(key: str) -> hashlib.blake2b:
    short = hashlib.sha256(key.encode()).digest()  # BLAKE2's own may have 64 bytes
    return hashlib.blake2b(key=short, person=b"cursor", digest_size=_SIGNATURE_BYTES)

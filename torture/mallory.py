"""Who attacks: what she knows, and how she writes a request."""

import json
import random
from dataclasses import dataclass
from typing import Any

import jwt

from tests.rest.test_bodies import FORM, JSON, MULTIPART
from torture.wire import request

TASKS = 5  # that Mallory has, 1 to 5
CREATE, CHANGE = "POST /task", "PATCH /task/1"
WRITES = [CREATE, CHANGE, "PUT /task/2", "POST /task/3"]
READS = ["GET /task", "GET /task/1", "GET /task/1/log", "GET /task/log", "GET /task/events", "GET /export"]
ACCOUNT = ["POST /change-password", "POST /revoke-tokens", "POST /delete-account"]
PRIVATE = [*WRITES, *READS, *ACCOUNT, "DELETE /task/4", "POST /task/undo", "POST /task/5/restore", "POST /import"]
BAD_REQUEST = frozenset({400})
TYPES = {"form": FORM, "multipart": MULTIPART, "json": JSON}
MAX_BODY = 128 * 1024


Made = tuple[bytes] | tuple[bytes, frozenset[int]]  # an attack without the name of its kind


@dataclass(frozen=True)
class Attack:
    """What is sent, and the statuses of which one must come back: once, and then the connection is closed."""

    kind: str
    sent: bytes
    statuses: frozenset[int] = BAD_REQUEST


@dataclass(frozen=True)
class Mallory:
    """Who attacks: with a token of her own, and with the knowledge of what tokens are made of."""

    token: str
    secret: str
    random: random.Random

    @property
    def claims(self) -> dict[str, Any]:
        """What her token says."""
        return jwt.decode(self.token, options={"verify_signature": False})

    def sign(self, claims: Any, secret: str = "", algorithm: str = "HS256", header: dict[str, Any] | None = None) -> str:
        """Sign a token; without another secret, with the service's own."""
        return jwt.api_jws.PyJWS().encode(json.dumps(claims).encode(), secret or self.secret, algorithm, headers=header)

    def ask(self, line: str, *headers: str, body: bytes = b"", token: str | None = None) -> bytes:
        """Write a request of hers."""
        return request(line, *headers, body=body, token=self.token if token is None else token)

    def write(self, line: str, kind: str, body: bytes, *headers: str) -> bytes:
        """Write a request with a body."""
        return self.ask(line, f"Content-Type: {kind}", *headers, body=body)

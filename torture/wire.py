"""Requests byte by byte as they are sent, and all that comes back until the connection is closed."""

import asyncio
from typing import Any, NamedTuple

import orjson

SECONDS_TO_ANSWER = 15
AS_LARGE_AS_AN_ANSWER_GETS = 8 * 1024 * 1024


class Response(NamedTuple):
    """An answer."""

    status: int
    version: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """What the body says."""
        said: dict[str, Any] = orjson.loads(self.body)
        return said


async def exchange(port: int, sent: bytes) -> list[Response]:
    """Send bytes on a connection of their own and give the answers. Raises TimeoutError where the connection stays open."""
    async with asyncio.timeout(SECONDS_TO_ANSWER):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        received = b""
        try:
            writer.write(sent)
            while part := await reader.read(AS_LARGE_AS_AN_ANSWER_GETS):
                received += part
        except ConnectionError:  # it was refused before all of it had been sent
            pass
        finally:
            writer.close()
    return list(responses(received))


def responses(received: bytes) -> list[Response]:
    """Read the answers that came one after the other. Raises ValueError at what is none."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        length = int(headers.get("content-length", 0))
        if status != "100":
            found.append(Response(int(status), version, headers, received[:length]))
        received = received[length:]
    return found


def request(line: str, *headers: str, body: bytes = b"", token: str = "", close: bool = True) -> bytes:
    """Write a request; `Connection: close` has the server end what is answered."""
    lines = [f"{line} HTTP/1.1", "Host: x", *(["Connection: close"] if close else [])]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [*headers, *([f"Content-Length: {len(body)}"] if body or line[:3] not in ("GET", "HEA") else [])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

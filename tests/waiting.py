"""Wait for what is certain to come. A machine with other things to do takes its time: only a test that fails waits until patience ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp.test_utils import TestClient

PATIENCE_SECONDS = 30
# Settings with which nothing is refused since it took long, before patience ends
ENDLESS = dict.fromkeys(("request_timeout_seconds", "statement_timeout_seconds", "lock_timeout_seconds", "db_wait_seconds"), 60)


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


def until_then(holds: Callable[[], object]) -> None:
    """Wait until something holds, where no loop runs."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, "patience ended"
        time.sleep(0.02)


def slowness() -> float:
    """Return how many times longer work takes now than on a machine with nothing else to do: bounds in seconds grow by it."""
    began_at, worked_at = time.monotonic(), time.thread_time()
    while time.thread_time() < worked_at + 0.1:
        pass
    return max(1.0, (time.monotonic() - began_at) / (time.thread_time() - worked_at))


@asynccontextmanager
async def connected(client: TestClient[Any, Any], **options: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection on which a test says what it likes, and close it whatever happens."""
    reader, writer = await asyncio.open_connection(client.host, client.port, **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

"""Wait for what is certain to come. A machine with other things to do takes its time: only a test that fails waits until patience ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp.test_utils import TestClient

PATIENCE_SECONDS = 30


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

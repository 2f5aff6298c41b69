"""An answer that is written piece by piece: its head goes out before its end is known."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from aiohttp import HttpVersion11, web

from rest import errors, overload
from server import connection
from telemetry import logs

log = logging.getLogger(__name__)

IDLE_SECONDS = 15.0  # in which a client must have taken a piece
BROKEN_OFF = ("broken-off",)  # among the refusals
errors.REFUSALS.count(BROKEN_OFF, 0)


@asynccontextmanager
async def answering(request: web.Request, response: web.StreamResponse) -> AsyncIterator[None]:
    """Send the head of an answer, with the headers that every answer has, so that its body can be written inside.

    What fails inside can't be answered any more: the log has it, and the connection breaks, so that nobody takes a part for the whole.
    That goes for a TimeoutError too, by which whoever writes may give up a client that takes nothing. One that went away is no failure.
    In HTTP/1.0, which has no chunks, the body ends with the connection; one that is closed before has been reset, for the same reason.
    The deadline that other answers have is no longer one. Raises Unavailable, to nobody, where the client went before it began.
    """
    overload.let_take_its_time(request)
    response.headers[logs.X_REQUEST_ID] = logs.request_id.get() or ""
    errors.add_headers(request, response)
    transport = request.transport
    if transport is None or transport.is_closing():
        raise errors.Unavailable()
    if request.version < HttpVersion11:
        response.force_close()
    await response.prepare(request)
    connection.close_by(transport, connection.RESET)
    try:
        yield
        if not transport.is_closing():
            connection.close_by(transport, connection.FINISH)
    except ConnectionError:
        pass
    except (errors.Failure, TimeoutError) as error:
        errors.REFUSALS.count(BROKEN_OFF)
        log.warning("an answer was broken off: %s", str(error) or "the client took too long")
        transport.abort()
    except Exception:
        errors.REFUSALS.count((errors.Unexpected.kind,))
        log.exception("unexpected failure in the middle of an answer")
        transport.abort()


async def send(request: web.Request, response: web.StreamResponse, body: AsyncGenerator[bytes]) -> web.StreamResponse:
    """Send an answer whose body is made as it is taken; for HEAD none of it is. A client that takes nothing for a while is given up."""
    async with answering(request, response), aclosing(body):
        if request.method != "HEAD":
            async for part in body:
                for piece in connection.pieces(request.protocol, part):
                    async with asyncio.timeout(IDLE_SECONDS):
                        await response.write(piece)
                del part  # it may be some MiB, and the next one is still to be made
        async with asyncio.timeout(IDLE_SECONDS):
            await response.write_eof()
    return response

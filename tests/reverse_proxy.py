"""A reverse proxy that makes a service of a root appear below a path: it strips that, and adds nothing to what comes back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from yarl import URL

HOP_BY_HOP = {"Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Host"}


@asynccontextmanager
async def stripping(path: str, service: str, port: int = 0) -> AsyncIterator[str]:
    """Give the address at which it shows the service; nothing else is there."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            target = URL(service + request.raw_path.removeprefix(path), encoded=True)
            headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
            async with session.request(request.method, target, headers=headers, data=await request.read(), allow_redirects=False) as heard:
                kept = [(name, value) for name, value in heard.headers.items() if name not in HOP_BY_HOP]
                return web.Response(status=heard.status, body=await heard.read(), headers=kept)

        application = web.Application()
        application.router.add_route("*", path + "/{rest:.*}", forward)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
        finally:
            await runner.cleanup()

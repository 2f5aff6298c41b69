"""gunicorn's worker for aiohttp, with a runner of ours."""

from typing import Any

from aiohttp.worker import GunicornUVLoopWebWorker

from server.runner import Runner


class Worker(GunicornUVLoopWebWorker):
    """A process that serves."""

    wsgi: Any
    sockets: list[Any]

    def init_process(self) -> None:
        """Begin, with the sockets themselves: uvloop closes what gunicorn puts around them a second time, and gunicorn complains."""
        self.sockets = [listener.sock for listener in self.sockets]
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        create_app = self.wsgi

        async def create_runner() -> Runner:
            return Runner(await create_app(), logger=self.log)

        self.wsgi = create_runner

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop at once; aiohttp's waits up to a second for its next look."""
        super().handle_exit(sig, frame)
        self._notify_waiter_done()

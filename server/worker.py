"""gunicorn's worker for aiohttp, with a runner of ours."""

import gc
import os
import signal
from typing import Any

from aiohttp.worker import GunicornUVLoopWebWorker

from server.runner import Runner

RETIRE = signal.SIGUSR2  # what tells a worker that others take its place: it may finish also what takes long
STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, RETIRE}
SECONDS_BETWEEN_SIGNS = 1  # of life


class Worker(GunicornUVLoopWebWorker):
    """A process that serves."""

    wsgi: Any
    sockets: list[Any]
    is_retiring = False

    def init_process(self) -> None:
        """Begin, with the sockets themselves: uvloop closes what gunicorn puts around them a second time, and gunicorn complains.

        The signals that stop a worker wait until its event loop runs: uvloop would lose them, and gunicorn wait in vain.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        self.sockets = [listener.sock for listener in self.sockets]
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        create_app = self.wsgi

        async def create_runner() -> Runner:
            app = await create_app()
            gc.freeze()  # what there is by now stays, and to look through it for garbage would hold up all requests for 60 ms
            return Runner(app, self._takes_its_time, logger=self.log)

        self.wsgi = create_runner

    def init_signals(self) -> None:
        super().init_signals()
        self.loop.add_signal_handler(RETIRE, self.retire)

    async def _run(self) -> None:
        """Serve; once that has ended, what tells the worker to stop is heard no more: the event loop that heeds it is about to go.

        No thread may be left that hears it.
        """
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        try:
            await super()._run()
        finally:
            await self.loop.shutdown_default_executor()
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop at once; aiohttp's waits up to a second for its next look."""
        self.is_retiring = False
        super().handle_exit(sig, frame)
        self._notify_waiter_done()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop without delay, also where it is retiring."""
        self.is_retiring = False
        super().handle_quit(sig, frame)

    def retire(self) -> None:
        """Stop, but finish what is under way, however long it takes, unless gunicorn stops too."""
        self.is_retiring, self.alive = True, False
        self._notify_waiter_done()
        self._give_signs_of_life()

    def _takes_its_time(self) -> bool:
        return self.is_retiring and os.getppid() == self.ppid

    def _give_signs_of_life(self) -> None:
        """Let gunicorn know that it lives: aiohttp's does so only while it serves."""
        self.notify()
        self.loop.call_later(SECONDS_BETWEEN_SIGNS, self._give_signs_of_life)

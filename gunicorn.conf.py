"""How gunicorn runs the service: https://gunicorn.org/reference/settings/."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # until gunicorn sets its own
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the start, without a traceback of where it was

import logging
import math
import os
from typing import Any

from gunicorn.glogging import Logger

import settings
from server.worker import RETIRE, Worker
from telemetry import logs, metrics

_settings = settings.load()
logs.log_to_stdout(_settings.log_level)  # before the workers are made, so that they have it too
for doubt in settings.doubts():
    logging.getLogger("settings").warning(doubt)

bind = _settings.address
workers = _settings.web_concurrency or os.cpu_count() or 1
worker_class = Worker
preload_app = True  # read once and shared; pools are made in the workers
graceful_timeout = math.ceil(_settings.request_timeout_seconds) + 4  # seconds for what is under way, and to close what a worker holds
timeout = max(30, 2 * graceful_timeout)  # seconds without a sign of life from the event loop, then the worker is replaced
control_socket_disable = True  # it would want a home directory to write to
accesslog = None  # telemetry/logs.py writes the lines
# Who sits at a terminal wants to know where the service is and what goes wrong, not which processes begin and end.
_OF_GUNICORN = {"DEBUG": "info", "INFO": "warning" if logs.are_read_by_people() else "info"}
loglevel = _OF_GUNICORN.get(_settings.log_level, _settings.log_level.lower())

if _settings.metrics_token:
    metrics.share()


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker the first place among the metrics that none of the others has."""
    worker.place = metrics.free_place(other.place for other in server.WORKERS.values())


def post_fork(server: object, worker: Any) -> None:
    """Take that place."""
    metrics.take_place(worker.place)


def on_reload(server: Any) -> None:
    """Let the workers that there are retire, and others take their places at once; those that were retiring already end.

    gunicorn counts them as long as they live: there may be as many more, or a new one that dies would not be replaced before they end, and
    gunicorn would end what it has too many of. It waits for those that are older than the new ones, and heeds no signal meanwhile.
    """
    for pid, worker in [*server.WORKERS.items()]:
        server.kill_worker(pid, signal.SIGTERM if worker.is_retiring else RETIRE)
        worker.is_retiring, worker.age = True, math.inf
    server.num_workers += len(server.WORKERS)


def child_exit(server: Any, worker: Any) -> None:
    """Leave its place to another worker."""
    metrics.leave_place(worker.place)
    if worker.is_retiring:
        server.num_workers -= 1


def on_exit(server: object) -> None:
    """Leave nothing behind."""
    metrics.unshare()


def when_ready(server: object) -> None:
    """Say where we are."""
    logging.getLogger("server").info("Listening on http://%s; its documentation is http://%s/docs", bind, bind)


class _Logger(Logger):
    """Leave gunicorn's own lines to the handler of all others."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


logger_class = _Logger

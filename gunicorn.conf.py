"""How gunicorn runs the service: https://gunicorn.org/reference/settings/."""

import math
import os
import signal
from typing import Any

import settings
from rest import serving, telemetry

_settings = settings.load()
telemetry.log_to_stdout(_settings.log_level)  # before the workers are made, so that they have it too

bind = _settings.address
workers = _settings.web_concurrency or os.cpu_count() or 1
worker_class = serving.Worker
preload_app = True  # read once and shared; pools are made in the workers
graceful_timeout = math.ceil(_settings.request_timeout_seconds) + 3  # seconds for what is under way, and to close what a worker holds
timeout = max(30, 2 * graceful_timeout)  # seconds without a sign of life from the event loop, then the worker is replaced
control_socket_disable = True  # it would want a home directory to write to
accesslog = None  # rest/telemetry.py writes the lines

_STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


def post_fork(server: object, worker: object) -> None:
    """Put off the signals that stop a worker: until its event loop runs, uvloop would lose them, and gunicorn wait in vain."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def post_worker_init(worker: Any) -> None:
    """Let them through once the loop runs."""
    worker.loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOPPING)


def when_ready(server: object) -> None:
    """Say where we are."""
    print(f"Listening on http://{bind}; its documentation is http://{bind}/docs", flush=True)

"""How gunicorn runs the service: https://gunicorn.org/reference/settings/."""

import os

import settings
from rest import telemetry

_settings = settings.load()
telemetry.log_to_stdout(_settings.log_level)  # before the workers are made, so that they have it too

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.web_concurrency or os.cpu_count() or 1
worker_class = "aiohttp.GunicornUVLoopWebWorker"
keepalive = 75  # seconds; longer than most proxies keep theirs
timeout = 30  # seconds without a sign of life from the event loop, then the worker is replaced
graceful_timeout = 8  # seconds for what is under way; Docker kills after 10
control_socket_disable = True  # it would want a home directory to write to
accesslog = None  # rest/telemetry.py writes the lines


def when_ready(server: object) -> None:
    """Say where we are."""
    print(f"Listening on http://{bind}", flush=True)

"""On what it was measured."""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.cluster import MEMORY, PRODUCTION, Cluster
from bench.measure import cores

PACKAGES = ("aiohttp", "gunicorn", "uvloop", "aiopg", "peewee-async", "psycopg2-binary", "fastapi", "uvicorn", "sqlalchemy", "asyncpg")


def describe(cluster: Cluster) -> dict[str, str]:
    """Return what matters of the machine and the versions, in words."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    wrk = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True).stdout  # its exit code is 1
    settings = ", ".join(f"{name} {value}" for name, value in PRODUCTION.items())
    return {
        "Processor": f"{cores()} cores, {model[1] if model else platform.machine()}",
        "Memory": f"{MEMORY / 2**30:.0f} GiB",
        "Linux": platform.release().split("-")[0],
        "Python": platform.python_version(),
        "PostgreSQL": f"{cluster.run('postgres', 'SHOW server_version')[0][0].split()[0]}; {settings}; fsync and all else as it comes",
        "wrk": "".join(re.findall(r"[0-9]+\.[0-9]+\.[0-9]+", wrk)[:1]),
        "Packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }

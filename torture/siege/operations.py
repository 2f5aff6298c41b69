"""Whether what is long ends and everybody is let in again after a reload, a clock that goes back, or the end of PostgreSQL."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import jwt

from torture import wire
from torture.processes import Handle
from torture.service import HOUSE
from torture.siege import accounts
from torture.siege.accounts import CannotBegin
from torture.siege.connection import LAST_CHUNK, Connection
from torture.siege.field import pitched

LARGE = 10_000_000  # bytes of an export, which no buffer on the way takes
SECONDS_OF_A_FILE = 20  # longer than a worker that retires gives an ordinary request
SECONDS_TO_COME_BACK = 40
AHEAD = "2 hours"  # by which moments are moved, as if the clock had gone back


async def reload(directory: Path) -> tuple[list[str], str]:
    """SIGHUP while a file comes in, and an export goes out, that take longer than a worker otherwise waits."""
    lines = accounts.sheet(SECONDS_OF_A_FILE * 2).encode().splitlines(keepends=True)
    async with pitched(directory) as field:
        importer, exporter = (
            await accounts.register(field.port),
            await accounts.register(field.port, accounts.sheet(500, "ж" * (LARGE // 1000))),
        )

        async def file() -> object:
            for line in lines:
                await asyncio.sleep(0.5)
                yield line

        async def bring() -> str:
            async with (
                accounts.client(field.port, token=importer) as session,
                session.post("/import", data=file(), headers=accounts.SHEET) as answer,
            ):
                return f"{answer.status}"

        async def take() -> str:
            connection = Connection(accounts.new_address(), field.port, receive_bytes=64 * 1024)
            await connection.open()
            await connection.send(wire.request("GET /export", token=exporter, close=False))
            size, received, began_at = 0, b"", time.monotonic()
            while not received.endswith(LAST_CHUNK):
                await asyncio.sleep(size / LARGE * SECONDS_OF_A_FILE - (time.monotonic() - began_at))
                received = received[-len(LAST_CHUNK) :] + (part := await connection.receive(64 * 1024))
                size += len(part)
            connection.close()
            return "200" if size > LARGE else f"{size} bytes"

        under_way = [asyncio.create_task(each) for each in (bring(), take())]
        await asyncio.sleep(2)
        field.service.reload()
        ends = await asyncio.gather(*under_way, return_exceptions=True)
    words = dict(zip(("import", "export"), (end if isinstance(end, str) else type(end).__name__ for end in ends), strict=True))
    faults = [f"the {what} of {SECONDS_OF_A_FILE} s ended with {end}" for what, end in words.items() if end != "200"]
    return faults, f"SIGHUP after 2 of {SECONDS_OF_A_FILE} s: {words}"


async def clock(directory: Path) -> tuple[list[str], str]:
    """Moments that lie ahead, as if PostgreSQL's clock had gone back: of an address's attempts, and of a user's streams."""
    address, faults = accounts.new_address(), []
    async with pitched(directory) as field:
        token = await accounts.register(field.port, login="siege-clock")
        for number in range(10):  # all that the address has, five with each login
            async with accounts.client(field.port, address) as session:
                values = {"login": f"nobody-{number // 5}", "password": accounts.PASSWORD}
                async with session.post("/get-token", data=values) as answer:
                    if answer.status != 401:
                        raise CannotBegin(f"a wrong login was answered {answer.status}")
        user_id = jwt.decode(token, options={"verify_signature": False})["sub"]
        field.server.run(
            f"UPDATE rate_limit SET ends_at = ends_at + interval '{AHEAD}', hits = ARRAY(SELECT hit + interval '{AHEAD}' FROM unnest(hits) hit)"
        )
        field.server.run(
            f"INSERT INTO event_stream (user_id, slot, held_until) SELECT {int(user_id)}, n, now() + interval '{AHEAD}' FROM generate_series(1, 10) n"
        )
        async with accounts.client(field.port, address) as session:
            values = {"login": "siege-clock", "password": accounts.PASSWORD}
            async with session.post("/get-token", data=values) as answer:
                login = f"{answer.status}, Retry-After {answer.headers.get('Retry-After')}"
                faults += [f"the login was answered {login}"] if answer.status != 200 else []
        async with accounts.client(field.port, token=token) as session, session.get("/task/events") as answer:
            stream = f"{answer.status}, Retry-After {answer.headers.get('Retry-After')}"
            faults += [f"the stream was answered {stream}"] if answer.status != 200 else []
    return faults, f"after all moments were moved {AHEAD} ahead: a login {login}; a stream {stream}"


async def postmaster(directory: Path) -> tuple[list[str], str]:
    """`make run`, and its PostgreSQL killed: it is there again, or `make run` ends with a sentence."""
    running, port = _make_run(directory)
    try:
        if not await _until_ready(running, port):
            raise CannotBegin(f"run.py isn't ready, see {directory}/service.log")
        token = await accounts.register(port, accounts.FEW)
        Handle(int((directory / "data/postgresql/postmaster.pid").read_text().split()[0])).send(signal.SIGKILL)
        began_at = time.monotonic()
        await asyncio.sleep(1)
        if await _until_ready(running, port):
            async with accounts.client(port, token=token) as session, session.get("/task") as answer:
                there = len(await accounts.done(answer))
            faults = [] if there == 20 else [f"there were 20 tasks, and now there are {there}"]
            return faults, f"ready again after {time.monotonic() - began_at:.1f} s, with {there} tasks of 20"
        if running.poll() is None:
            return [f"it wasn't ready again within {SECONDS_TO_COME_BACK} s, nor did it end"], "neither ready nor ended"
        last = (directory / "service.log").read_text(errors="replace").splitlines()[-1]
        return [], f"ended with {running.returncode}: {last[:300]}"
    finally:
        running.terminate()
        await asyncio.to_thread(running.wait, SECONDS_TO_COME_BACK)


def _make_run(directory: Path) -> tuple["subprocess.Popen[bytes]", int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    settings = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    settings |= {"PYTHONPATH": f"{HOUSE}", "PORT": f"{port}", "DATA_DIR": f"{directory}/data", "WEB_CONCURRENCY": "2"}
    settings["GUNICORN_CMD_ARGS"] = f"--config {HOUSE}/gunicorn.conf.py"  # there is no .env in the directory
    with (directory / "service.log").open("ab") as log:
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, f"{HOUSE}/run.py"]
        return subprocess.Popen(command, cwd=directory, env=settings, stdout=log, stderr=log), port


async def _until_ready(running: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a service is ready, and return whether it is, rather than having ended, or being away for long."""
    end = time.monotonic() + SECONDS_TO_COME_BACK
    while running.poll() is None and time.monotonic() < end:
        try:
            async with accounts.client(port) as session, session.get("/health/ready", timeout=aiohttp.ClientTimeout(5)) as answer:
                if answer.status == 200:
                    return True
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(0.1)
    return False

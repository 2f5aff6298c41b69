"""A connection as cheap as can be: prepared bytes go out, and of what comes back the status and the end are looked for."""

import asyncio
import re
import socket

HOST = "127.0.0.1"  # of the service; clients have other addresses of 127/8, all of which is this machine
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: the port is chosen when it is known to where, so that there are enough
MAX_BYTES = 256 * 1024  # taken at once
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")
LAST_CHUNK = b"\r\n0\r\n\r\n"


class Connection:
    """A connection from an address of one's own, on which one request follows the other."""

    def __init__(self, address: str, port: int, receive_bytes: int = 0) -> None:
        """Let the system keep `receive_bytes` at most of what isn't read; where that is 0, as much as it likes."""
        self._address, self._port, self._receive_bytes = address, port, receive_bytes
        self._socket: socket.socket | None = None
        self._ahead = b""  # of the answer after this one
        self._loop = asyncio.get_running_loop()

    @property
    def is_open(self) -> bool:
        """Whether it has been opened, and not been closed here."""
        return self._socket is not None

    @property
    def local_port(self) -> int:
        """By which the service knows it."""
        return int(self._held().getsockname()[1])

    async def open(self) -> None:
        """Open it, again if it was open. Raises OSError."""
        self.close()
        made = socket.socket()
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._receive_bytes:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
            made.bind((self._address, 0))
            await self._loop.sock_connect(made, (HOST, self._port))
        except BaseException:
            made.close()
            raise
        self._socket = made

    def close(self) -> None:
        """Close it."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._ahead = None, b""

    def _held(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("not open")
        return self._socket

    async def send(self, data: bytes) -> None:
        """Send bytes. Raises OSError."""
        await self._loop.sock_sendall(self._held(), data)

    async def ask(self, request: bytes) -> int:
        """Send a request, read its answer to the end, and return the status. Raises OSError."""
        await self.send(request)
        return await self.answer()

    async def answer(self) -> int:
        """Read an answer to its end, and return its status. Raises OSError."""
        received = self._ahead
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += await self.receive()
        head = received[:end].lower()
        if length := LENGTH.search(head):
            missing = end + 4 + int(length[1]) - len(received)
            self._ahead = received[len(received) + missing :] if missing < 0 else b""
            while missing > 0:
                part = await self.receive(min(missing, MAX_BYTES))
                missing -= len(part)
        elif b"\r\ntransfer-encoding: chunked" in head:
            self._ahead, tail = b"", received[end + 2 :]
            while not tail.endswith(LAST_CHUNK):
                tail = tail[-len(LAST_CHUNK) :] + await self.receive()
        else:  # 204 and 304
            self._ahead = received[end + 4 :]
        return int(head[9:12])

    async def receive(self, most: int = MAX_BYTES) -> bytes:
        """Return what has come. Raises OSError, also at the end."""
        part = await self._loop.sock_recv(self._held(), most)
        if not part:
            raise ConnectionResetError("closed by the service")
        return part

    async def wait(self) -> None:
        """Wait until something has come, which is kept for `answer`. Raises OSError."""
        self._ahead += await self.receive()

    def look(self) -> None:
        """Raise OSError where it is broken, without reading anything."""
        if error := self._held().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "broken")

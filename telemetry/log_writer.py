"""Where the log is written: at once where that takes no waiting, else by a thread, so that nothing else waits for who doesn't read it."""

import atexit
import os
import signal
import stat
import threading
import time
from queue import SimpleQueue
from typing import Final

from telemetry import metrics

STDOUT: Final = 1  # itself: what Python puts before it would be locked by who waits there, and the process would not end
MAX_BYTES_WAITING = 2**20  # per process: some 5,000 lines
SECONDS_AT_THE_END = 2  # for what still waits

LOST = metrics.Counter("access_lines_lost_total", "Lines of the log that could not be written.")
LOST.count(amount=0)


class Writer:
    """Writes what it is given, in that order. What comes while too much waits is lost, and counted; so is what can't be written."""

    def __init__(self, descriptor: int = STDOUT) -> None:
        self._descriptor = descriptor
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.drain)

    def _begin(self) -> None:
        """Begin with nothing: after a fork the thread is the parent's alone, and so is what it has to write."""
        self._lock = threading.RLock()  # not a mere lock: who handles a signal may log while what it interrupted does
        self._pieces: SimpleQueue[tuple[bytes, int]] = SimpleQueue()
        self._bytes_waiting = self._lines_lost = 0
        self._thread: threading.Thread | None = None

    def put(self, text: str, lines: int = 1) -> None:
        """Let it be written, soon, and in one piece with respect to other processes where it has 4096 bytes at most."""
        piece = text.encode(errors="backslashreplace")
        with self._lock:
            if not self._bytes_waiting and not (piece := piece[self._write_at_once(piece) :]):
                return
            if self._bytes_waiting + len(piece) > MAX_BYTES_WAITING or not self._has_thread():
                self._lines_lost += lines
                return
            self._bytes_waiting += len(piece)
            self._pieces.put((piece, lines))

    def _write_at_once(self, piece: bytes) -> int:
        """Write as much as takes no waiting, and return how many bytes that is. To wake the thread costs far more than the writing does."""
        try:
            if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                return os.write(self._descriptor, piece)
            return os.pwritev(self._descriptor, [piece], -1, os.RWF_NOWAIT)  # to a pipe, since Linux 6.4
        except (OSError, AttributeError):  # it would wait, or can't be told not to; or it fails, as it will where that is counted
            return 0

    def _has_thread(self) -> bool:
        if not self._thread:
            thread = threading.Thread(target=self._write_on, name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has none left, or Python is about to end
                return False
            self._thread = thread
        return True

    def _write_on(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main thread's, which may want none
        while True:
            piece, lines = self._pieces.get()
            is_lost = not self._is_written(piece)
            with self._lock:
                self._bytes_waiting -= len(piece)
                self._lines_lost += lines if is_lost else 0

    def _is_written(self, piece: bytes) -> bool:
        try:
            while piece:
                piece = piece[os.write(self._descriptor, piece) :]
        except OSError:  # the disk is full, or the reader has gone
            return False
        return True

    def drain(self) -> None:
        """Wait until all is written, or for as long as one may wait for that."""
        end = time.monotonic() + SECONDS_AT_THE_END
        while self._bytes_waiting and time.monotonic() < end:
            time.sleep(0.002)

    def count_lost(self) -> None:
        """Count what was lost since the last time; not where it is lost: counters are for one thread."""
        with self._lock:
            lost, self._lines_lost = self._lines_lost, 0
        LOST.count(amount=lost)


WRITER = Writer()
metrics.before_writing.append(WRITER.count_lost)

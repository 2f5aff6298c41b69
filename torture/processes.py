"""Processes that we started, and theirs: each is held by a handle that never means a stranger, also when its number goes to another."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress

from bench import measure


class Handle:
    """A process, as long as it lives and after."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def send(self, what: signal.Signals) -> None:
        """Send it a signal; nothing where it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, what)

    def has_ended(self, seconds: float = 0) -> bool:
        """Return whether it has ended, or does within some time."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def descendants(pid: int, *, only_children: bool = False) -> Iterator[Handle]:
    """Return the processes that descend from one of ours."""
    for process in measure.tree(pid)[1:]:
        if only_children and process.parent != pid:
            continue
        with suppress(ProcessLookupError):
            yield Handle(process.pid)

"""The lane of answers that are too long to travel with others: each is made alone, and only a few at once."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from postgres.queries import MAX_SHARED_BYTES
from rest.turns import Turns

MAX_REMEMBERED = 1000


class HeavyLane:
    """Takes the requests of one query whose answers are long, and remembers whose they lately were: those aren't asked in vain."""

    def __init__(self, run: Callable[[Sequence[Any]], Awaitable[list[Any]]], turns: Turns) -> None:
        """Run one request after another with `run`, in the `turns` that all queries share."""
        self._run, self._turns = run, turns
        self.owners: dict[Any, None] = {}

    async def ask(self, arguments: Sequence[Any]) -> list[Any]:
        """Run a request when its owner's turn comes."""
        owner = arguments[0]
        async with self._turns.of(owner):
            rows = await self._run(arguments)
        self.owners.pop(owner, None)
        if sum(len(value) for row in rows for value in row if isinstance(value, bytes)) > MAX_SHARED_BYTES:
            self.owners[owner] = None
            if len(self.owners) > MAX_REMEMBERED:
                del self.owners[next(iter(self.owners))]
        return rows

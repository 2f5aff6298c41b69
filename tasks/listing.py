"""Which tasks, as of when, page by page: a listing that somebody asks for, and what all listings have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from models import Caller
from postgres import pages
from rest import cursors
from rest.errors import FieldError, InvalidInput, InvalidToken, NotFound
from rest.values import Page
from service import Service
from tasks import filters, queries
from tasks.errors import HistoryGone, at_revision, refuse_future
from tasks.queries import PageRow, State
from tasks.schemas import LOOK, TaskMatch, TaskQuery
from tasks.store import TaskAsStored, unwrap_task

SURELY_FIT = 32  # even of the longest log entries, with two descriptions of 10,000 characters, each written as six


class Listed(NamedTuple):
    """A page: the state of which it is, the JSON between its brackets, and where the next one begins if one follows."""

    state: State
    json: bytes
    cursor: str | None


class Listing(ABC):
    """A listing of a caller's, as a query asks for it: its state alone, or a page of it."""

    def __init__(self, service: Service, caller: Caller, query: Page) -> None:
        self.service, self.caller, self.query = service, caller, query

    @property
    def look(self) -> tuple[int, ...]:
        """How a page of it looks in this version."""
        return (LOOK,)

    @property
    @abstractmethod
    def scope(self) -> str:
        """What its cursors are good for: no two listings have the same."""

    async def state(self) -> State:
        """Return the state of which a page would be. Raises what `page` raises but for a cursor."""
        return self.check(await self.service.database.ask(queries.ACCOUNT_STATE, *self.caller))

    @abstractmethod
    async def page(self) -> Listed:
        """Return the page that the query asks for.

        Raises InvalidInput (not a cursor of this listing; a revision to come), HistoryGone, InvalidToken, NotFound.
        """

    @property
    def is_short(self) -> bool:
        """Whether no page of it can grow too long."""
        return self.query.limit <= SURELY_FIT

    def place(self) -> list[Any] | None:
        """Return the place that the cursor holds; None for the first page. Raises InvalidInput where it isn't one of this listing."""
        if self.query.cursor is None:
            return None
        keys, scope = self.service.settings.jwt_secrets, self.scope
        place = next((place for key in keys if (place := cursors.unseal(key, scope, self.query.cursor)) is not None), None)
        if place is None:
            raise InvalidInput(
                FieldError("cursor", "not_of_this_list", "is not one of this listing: take it from a page's Link, with all its parameters")
            )
        return place

    def check(self, states: Sequence[State]) -> State:
        """Return the state that a listing's row holds, if there is one. Raises InvalidToken, NotFound."""
        if not states:
            raise InvalidToken()
        [state] = states
        if state.revision is None:
            raise NotFound(headers=at_revision(state.user_revision))
        return state

    def make_page(self, rows: Sequence[PageRow]) -> Listed:
        """Make the page that a listing's row holds. Raises what `check` raises."""
        state = self.check([row.state for row in rows])
        [row] = rows
        cursor = cursors.seal(self.service.settings.jwt_secrets[0], self.scope, row.last) if row.last else None
        json = row.json or b""
        return Listed(state, json[: -row.spare] if row.spare else json, cursor)


class TaskListing(Listing):
    """The tasks that match a query, each with the UID that came with it if that is asked for, by whoever has the turns.

    Its cursors are those of the listing that it is `part_of`, if that is another one in the same order.
    """

    query: TaskQuery

    def __init__(
        self, service: Service, caller: Caller, query: TaskQuery, *, part_of: TaskQuery | None = None, with_uid: bool = False
    ) -> None:
        super().__init__(service, caller, query)
        self._with_uid, self._ask = with_uid, service.database.ask_alone if with_uid else service.database.ask
        self._whole = part_of or query

    @property
    def look(self) -> tuple[int, ...]:
        """How a page of it looks in this version: which tasks are in it, and in which order, too."""
        return (LOOK, filters.FOLDING) if self.query.q or self.query.sort.endswith("name") else (LOOK,)

    @property
    def is_slow(self) -> bool:
        """Whether a page of it may take long to make."""
        return queries.is_slow(self.query.source, _filter_values(self.query), self.query.sort)

    @property
    def scope(self) -> str:
        """What its cursors are good for."""
        return f"{self.caller.user_id} tasks {self._whole.listing}"

    async def page(self) -> Listed:
        """Return the page that the query asks for."""
        query, place = self.query, self.place()
        if query.since is not None:
            return await self._page_of_changes(*(place or (None, query.since)))
        values = _filter_values(query)
        order = query.sort.removeprefix("-"), query.sort.startswith("-")
        asked = queries.task_page(query.source, tuple(values), *order, pages.after(place), short=self.is_short, with_uid=self._with_uid)
        as_of = () if query.revision is None else (query.revision,)
        rows = await self._ask(asked, *self.caller, *as_of, *pages.values(query.limit, place), *values.values())
        return self.make_page(rows)

    async def _page_of_changes(self, began: int | None, after: int) -> Listed:
        """Return a page of what has changed. Its cursor holds the revision at which the pull began: what was purged since may be known."""
        rows = await self.service.database.ask(queries.changed_page(self.is_short), *self.caller, self.query.limit, after)
        state = self.check([row.state for row in rows])
        began = state.user_revision if began is None else began
        if began < state.kept_from:
            raise HistoryGone(state.kept_from, state.user_revision)
        [row] = rows
        last = row.last and orjson.dumps([began, orjson.loads(row.last)[1]])
        return self.make_page([row._replace(last=last)])

    def check(self, states: Sequence[State]) -> State:
        """Return the state, if what is asked for is kept. Raises InvalidInput (a revision to come), HistoryGone, and what others raise."""
        state, query = super().check(states), self.query
        asked = query.revision if query.since is None else query.since
        if asked is None or query.since == 0:
            return state
        if query.since is None and asked > state.user_revision:
            raise refuse_future("revision", state.user_revision)
        if not state.kept_from <= asked <= state.user_revision:
            raise HistoryGone(state.kept_from, state.user_revision)
        return state


async def find_task(service: Service, caller: Caller, task_id: int, match: TaskMatch) -> TaskAsStored:
    """Return a task if it is as it must be. Raises NotFound, and InvalidInput where the revision is still to come."""
    values = _filter_values(match)
    as_of = () if match.revision is None else (match.revision,)
    rows = await service.database.ask(queries.matching_task(match.source, tuple(values)), *caller, task_id, *as_of, *values.values())
    if rows and match.revision is not None and match.revision > rows[0].user_revision:
        raise refuse_future("revision", rows[0].user_revision)
    return unwrap_task(rows)


async def resolve_moment(service: Service, caller: Caller, query: Any) -> Any:
    """Return the query with the revision that its moment `at` names; as it is where it names none."""
    if query.at is None:
        return query
    return query.model_copy(update={"at": None, "revision": await get_revision_at(service, caller, query.at)})


async def get_revision_at(service: Service, caller: Caller, moment: Any) -> int:
    """Return the last revision not later than a moment. Raises InvalidToken."""
    for row in await service.database.ask(queries.REVISION_AT, *caller, moment):
        return row.revision
    raise InvalidToken()


@lru_cache(256)
def _filter_values(match: TaskMatch) -> dict[str, Any]:
    values = match.model_dump(include=set(filters.FILTER_TYPES), exclude_none=True)
    if statuses := values.pop("status", ()):
        values |= {"status": statuses[0]} if len(statuses) == 1 else {"statuses": list(statuses)}
    if values.get("completion_at") == "none":
        values["without_day"] = values.pop("completion_at") == "none"
    if words := values.pop("q", ()):
        values["q"] = list(words)
    return values

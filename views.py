"""HTTP on one side, one function on the other: take, call, return."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TypeVar

from aiohttp import hdrs, web
from multidict import istr
from yarl import URL

import auth
import history
import listing
import models
import transfer
from listing import Listed, State
from models import HistoryGone, TaskAsStored, TaskChangedMeanwhile, TaskPurged
from postgres.database import database
from rest import conditions, idempotency, metrics, negotiation, streaming
from rest.contract import Answer, contract
from rest.errors import EXTRA_HEADERS, X_REVISION, NotFound, Unavailable
from rest.idempotency import KeyReused
from scalars import LARGEST_ID
from schemas import (
    Erasure,
    Health,
    LogEntry,
    LogQuery,
    Page,
    Task,
    TaskChange,
    TaskMatch,
    TaskNew,
    TaskQuery,
)
from transfer import Form

AnyResponse = TypeVar("AnyResponse", bound=web.StreamResponse)

SHOWN = ("ETag", "X-Revision")
PAGED = (*SHOWN, "X-Purged")
TASK = Answer(Task, headers=SHOWN)
CREATED_TASK = Answer(Task, HTTPStatus.CREATED, (*SHOWN, "Location"))
CHANGED_TASK = Answer(Task, headers=("X-Revision",))
DELETED = Answer(None, HTTPStatus.NO_CONTENT, ("X-Revision",))
TASKS = Answer(list[Task], headers=PAGED, sometimes=("Link",), also=transfer.EXAMPLES)
HEALTH = Answer(Health)
LOG = Answer(list[LogEntry], headers=PAGED, sometimes=("Link",))
X_PURGED = istr("X-Purged")
REPRESENTATION = 1  # goes into the ETag of a listing: raise it when the same rows come to look different


class Resource(web.View):
    """What all our resources have: a caller, conditions, and HEAD wherever there is GET (RFC 9110, section 9.3.2)."""

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "get"):
            cls.head = cls.get  # type: ignore[attr-defined]

    @property
    def caller(self) -> models.Caller:
        """Whose data it is."""
        return self.request[auth.ACCESS].caller

    @property
    def task_id(self) -> int:
        """The task that the address names. Raises NotFound where no task can have that id."""
        task_id = int(self.request.match_info["id"])
        if task_id > LARGEST_ID:
            raise NotFound()
        return task_id

    @property
    def if_match(self) -> list[int] | None:
        """The revisions that the client takes for the present one; None for any."""
        return conditions.if_match(self.request)

    def task_answer(self, task: TaskAsStored, status: int = HTTPStatus.OK) -> web.Response:
        """Answer with a task and its tag, or with 304 to a client that has it."""
        self.request[EXTRA_HEADERS][X_REVISION] = str(task.user_revision)
        return conditions.answer(self.request, task.json.encode(), conditions.revision_tag(task.revision), status)

    async def page_answer(self, query: Page, state: Callable[[], Awaitable[State]], page: Callable[[], Awaitable[Listed]]) -> web.Response:
        """Answer with a page of a listing, its tag and a link to the next; or with 304 to a client that has it, for whom it isn't made."""
        if known := await self._known(query, state):
            return known
        listed = await page()
        response = conditions.answer(self.request, b"[%b]" % listed.json, self._page_tag(query, listed.state))
        if listed.cursor and response.status == HTTPStatus.OK:
            self._link(response, query, listed.cursor)
        return _with_purged(response, listed.state)

    async def _known(self, query: Page, state: Callable[[], Awaitable[State]], *form: object) -> web.Response | None:
        if hdrs.IF_NONE_MATCH in self.request.headers:
            present = await state()
            tag = self._page_tag(query, present, *form)
            if conditions.names(self.request, tag):
                return _with_purged(conditions.not_modified(tag), present)
        return None

    def _page_tag(self, query: Page, state: State, *form: object) -> str:
        self.request[EXTRA_HEADERS][X_REVISION] = str(state.user_revision)
        return conditions.digest_tag(
            REPRESENTATION, self.caller.user_id, self.request.path, query.listing, query.cursor, state.revision, state.purged, *form
        )

    def _link(self, response: web.StreamResponse, query: Page, cursor: str) -> None:
        response.headers[hdrs.LINK] = f'<{_up_to_the_cursor(self.request.rel_url, query.as_of)}{cursor}>; rel="next"'


@lru_cache(256)
def _up_to_the_cursor(address: URL, as_of: int | None) -> str:
    """Give the address of a listing's next page up to its cursor's value. What began at a moment goes on at that moment's revision."""
    first = address.without_query_params("at", "cursor")
    return (first if as_of is None else first.update_query(revision=str(as_of))).extend_query(cursor="").raw_path_qs


def _with_purged(response: AnyResponse, state: State) -> AnyResponse:
    response.headers[X_PURGED] = str(state.purged)
    return response


class TaskList(Resource):
    """The caller's tasks."""

    @contract(TASKS, HistoryGone)
    async def get(self, query: TaskQuery) -> web.StreamResponse:
        """List the tasks that match: as they are, as they were, or as they have changed since."""
        query = await listing.settled(self.caller, query)
        if form := transfer.form_of(query, partial(negotiation.preferred, self.request)):
            return await self._answer_in_form(query, form)
        thing = self.caller, query
        return await self.page_answer(query, partial(listing.account_state, *thing), partial(listing.list_tasks, *thing))

    @contract(CREATED_TASK, KeyReused, TaskPurged, takes=(idempotency.HEADER,))
    async def post(self, task: TaskNew) -> web.Response:
        """Create a task."""
        created = await models.create_task(self.caller, task, idempotency.key(self.request))
        response = self.task_answer(created, HTTPStatus.CREATED)
        response.headers[hdrs.LOCATION] = f"/task/{created.id}"
        return response

    async def _answer_in_form(self, query: TaskQuery, form: Form) -> web.StreamResponse:
        whole = "limit" not in query.model_fields_set
        if known := await self._known(query, partial(listing.account_state, self.caller, query), form.media_type, whole):
            return known
        first, body = await transfer.list_in_form(self.caller, query, form, whole=whole)
        tag = self._page_tag(query, first.state, form.media_type, whole)
        if conditions.is_known(self.request, tag):
            return _with_purged(conditions.not_modified(tag), first.state)
        response = web.StreamResponse(headers={conditions.ETAG: tag, hdrs.CONTENT_TYPE: f"{form.media_type}; charset=utf-8"})
        if first.cursor and not whole:
            self._link(response, query, first.cursor)
        return await streaming.send(self.request, _with_purged(response, first.state), body)


class TaskItem(Resource):
    """One task of the caller's."""

    @contract(TASK, NotFound)
    async def get(self, query: TaskMatch) -> web.Response:
        """Show a task as it is, or as it was, if it is as asked for."""
        query = await listing.settled(self.caller, query)
        return self.task_answer(await listing.find_task(self.caller, self.task_id, query))

    @contract(TASK, NotFound, TaskChangedMeanwhile)
    async def patch(self, change: TaskChange) -> web.Response:
        """Change the fields that are sent; the others stay as they are."""
        return self.task_answer(await models.update_task(self.caller, self.task_id, change, self.if_match))

    post = patch

    @contract(CHANGED_TASK, NotFound, TaskChangedMeanwhile)
    async def put(self, change: TaskChange) -> web.Response:
        """Change the fields that are sent, as PATCH does."""
        response = self.task_answer(await models.update_task(self.caller, self.task_id, change, self.if_match))
        del response.headers[conditions.ETAG]  # what was stored isn't what was sent (RFC 9110, section 9.3.4)
        return response

    @contract(DELETED, NotFound, TaskChangedMeanwhile)
    async def delete(self, query: Erasure) -> web.Response:
        """Delete a task: it goes to the trash, or for good."""
        deleted = await models.delete_task(self.caller, self.task_id, self.if_match, forever=query.forever)
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={X_REVISION: str(deleted.user_revision)})


class TaskHistory(Resource):
    """The log of one task of the caller's."""

    @contract(LOG, NotFound)
    async def get(self, query: LogQuery) -> web.Response:
        """List what was changed, oldest entry first."""
        thing = self.caller, self.task_id, query
        return await self.page_answer(query, partial(history.log_state, *thing), partial(history.list_log, *thing))


class Live(Resource):
    """Whether this process answers."""

    @contract(HEALTH)
    async def get(self) -> web.Response:
        """Say that this process answers."""
        return web.json_response(Health().model_dump())


class Metrics(Resource):
    """What is measured of all workers."""

    @contract(Answer(str, media_type="text/plain"), NotFound)
    async def get(self) -> web.Response:
        """Give what is measured, for Prometheus; where METRICS_TOKEN isn't set it is 404."""
        auth.check_operator(self.request)
        metrics.write()
        shown = await asyncio.to_thread(metrics.show)
        return web.Response(body=shown, headers={hdrs.CONTENT_TYPE: metrics.CONTENT_TYPE, hdrs.CACHE_CONTROL: "no-store"})


class Ready(Resource):
    """Whether this process can do its work."""

    @contract(HEALTH, Unavailable)
    async def get(self) -> web.Response:
        """Say that the database answers and has this version's schema."""
        if trouble := await database.check():
            raise Unavailable(trouble)
        return web.json_response(Health().model_dump())

"""HTTP on one side, one function on the other: take, call, return."""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Literal

from aiohttp import hdrs, web
from pydantic import BaseModel

import auth
from auth import Resource
from postgres.database import database
from rest import conditions, idempotency, negotiation, streamed_response
from rest.errors import NotFound, Unavailable
from rest.idempotency import KeyReused
from rest.operation import Answer, contract
from tasks import listing, store
from tasks.errors import X_REVISION, HistoryGone, TaskChangedMeanwhile, TaskPurged
from tasks.resource import PAGED, SHOWN, TASK, TaskResource, with_purged
from tasks.schemas import Erasure, Task, TaskChange, TaskMatch, TaskNew, TaskQuery
from telemetry import metrics
from transfer import exports
from transfer.exports import Form


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


CREATED_TASK = Answer(Task, HTTPStatus.CREATED, (*SHOWN, "Location"))
CHANGED_TASK = Answer(Task, headers=("X-Revision",))
DELETED = Answer(None, HTTPStatus.NO_CONTENT, ("X-Revision",))
TASKS = Answer(list[Task], headers=PAGED, sometimes=("Link",), also=exports.EXAMPLES)
HEALTH = Answer(Health)


class TaskList(TaskResource):
    """The caller's tasks."""

    @contract(TASKS, HistoryGone)
    async def get(self, query: TaskQuery) -> web.StreamResponse:
        """List the tasks that match: as they are, as they were, or as they have changed since."""
        query = await listing.settled(self.caller, query)
        if form := exports.form_of(query, partial(negotiation.preferred, self.request)):
            return await self._answer_in_form(query, form)
        thing = self.caller, query
        return await self.page_answer(query, partial(listing.account_state, *thing), partial(listing.list_tasks, *thing))

    @contract(CREATED_TASK, KeyReused, TaskPurged, takes=(idempotency.HEADER,))
    async def post(self, task: TaskNew) -> web.Response:
        """Create a task."""
        created = await store.create_task(self.caller, task, idempotency.key(self.request))
        response = self.task_answer(created, HTTPStatus.CREATED)
        response.headers[hdrs.LOCATION] = f"/task/{created.id}"
        return response

    async def _answer_in_form(self, query: TaskQuery, form: Form) -> web.StreamResponse:
        whole = "limit" not in query.model_fields_set
        if known := await self._known(query, partial(listing.account_state, self.caller, query), form.media_type, whole):
            return known
        first, body = await exports.list_in_form(self.caller, query, form, whole=whole)
        tag = self._page_tag(query, first.state, form.media_type, whole)
        if conditions.is_known(self.request, tag):
            return with_purged(conditions.not_modified(tag), first.state)
        response = web.StreamResponse(headers={conditions.ETAG: tag, hdrs.CONTENT_TYPE: f"{form.media_type}; charset=utf-8"})
        if first.cursor and not whole:
            self._link(response, query, first.cursor)
        return await streamed_response.send(self.request, with_purged(response, first.state), body)


class TaskItem(TaskResource):
    """One task of the caller's."""

    @contract(TASK, NotFound)
    async def get(self, query: TaskMatch) -> web.Response:
        """Show a task as it is, or as it was, if it is as asked for."""
        query = await listing.settled(self.caller, query)
        return self.task_answer(await listing.find_task(self.caller, self.task_id, query))

    @contract(TASK, NotFound, TaskChangedMeanwhile)
    async def patch(self, change: TaskChange) -> web.Response:
        """Change the fields that are sent; the others stay as they are."""
        return self.task_answer(await store.update_task(self.caller, self.task_id, change, self.if_match))

    post = patch

    @contract(CHANGED_TASK, NotFound, TaskChangedMeanwhile)
    async def put(self, change: TaskChange) -> web.Response:
        """Change the fields that are sent, as PATCH does."""
        response = self.task_answer(await store.update_task(self.caller, self.task_id, change, self.if_match))
        del response.headers[conditions.ETAG]  # what was stored isn't what was sent (RFC 9110, section 9.3.4)
        return response

    @contract(DELETED, NotFound, TaskChangedMeanwhile)
    async def delete(self, query: Erasure) -> web.Response:
        """Delete a task: it goes to the trash, or for good."""
        deleted = await store.delete_task(self.caller, self.task_id, self.if_match, forever=query.forever)
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={X_REVISION: str(deleted.user_revision)})


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

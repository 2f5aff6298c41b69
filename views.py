"""HTTP for tasks as they are, and for who watches the service: health and metrics."""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Literal

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict

import auth
from auth import Resource
from rest import conditions, idempotency, negotiation, streamed_response
from rest.errors import NotFound, Unavailable
from rest.idempotency import KeyReused
from rest.operation import Answer, operation
from server.responses import json_answer
from tasks import listing, store
from tasks.errors import X_REVISION, AccountFull, HistoryGone, ListUnchanged, TaskPurged
from tasks.listing import TaskListing
from tasks.resource import CHANGE_REFUSED, PAGED, SHOWN, TASK, TaskResource, with_purged
from tasks.schemas import Erasure, Task, TaskChange, TaskMatch, TaskNew, TaskQuery
from telemetry import metrics
from transfer import exports
from transfer.exports import Form


class Health(BaseModel):
    """All is well."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    status: Literal["ok"] = "ok"


WELL = f"{Health().model_dump_json()}\n".encode()
CREATED_TASK = Answer(Task, HTTPStatus.CREATED, (*SHOWN, "Location"))
CHANGED_TASK = Answer(Task, headers=("X-Revision",))
DELETED = Answer(None, HTTPStatus.NO_CONTENT, ("X-Revision",))
TASKS = Answer(list[Task], headers=PAGED, sometimes=("Link", "Content-Disposition"), also=exports.EXAMPLES)
HEALTH = Answer(Health)


class TaskList(TaskResource):
    """The caller's tasks."""

    @operation("list_tasks", TASKS, HistoryGone, tag="Tasks")
    async def get(self, query: TaskQuery) -> web.StreamResponse:
        """List the tasks that match: as they are, as they were, or as they have changed since.

        Where more follow, the header Link has the address of the next page, of which a client needs the parameter `cursor`.
        """
        query = await listing.resolve_moment(self.service, self.caller, query)
        asked = TaskListing(self.service, self.caller, query)
        if form := exports.form_of(query, partial(negotiation.preferred, self.request)):
            return await self._answer_in_form(asked, form)
        return await self.page_answer(asked)

    @operation("create_task", CREATED_TASK, AccountFull, KeyReused, TaskPurged, ListUnchanged, tag="Tasks", takes=(idempotency.HEADER,))
    async def post(self, task: TaskNew) -> web.Response:
        """Create a task.

        Sent again with the same Idempotency-Key within 24 hours, it creates nothing more and gets the same answer.
        """
        await self._refuse_known()
        created = await store.create_task(self.service, self.caller, task, idempotency.key(self.request))
        response = self.task_answer(created, HTTPStatus.CREATED)
        response.headers[hdrs.LOCATION] = f"{self.service.settings.public_path}/task/{created.id}"
        return response

    async def _refuse_known(self) -> None:
        """Raise ListUnchanged where If-None-Match names the list as it is. No lock: none that changed has its old tag again."""
        if hdrs.IF_NONE_MATCH in self.request.headers:
            asked = TaskListing(self.service, self.caller, TaskQuery.model_validate({}))
            if conditions.is_known(self.request, self.page_tag(asked, await asked.state())):
                raise ListUnchanged()

    async def _answer_in_form(self, asked: TaskListing, form: Form) -> web.StreamResponse:
        whole = "limit" not in asked.query.model_fields_set
        if known := await self.known_answer(asked, form.media_type, form.look, whole):
            return known
        first, body = await exports.list_in_form(asked, form, whole=whole)
        tag = self.page_tag(asked, first.state, form.media_type, form.look, whole)
        if conditions.is_known(self.request, tag):
            return with_purged(conditions.not_modified(tag), first.state)
        response = web.StreamResponse(
            headers={
                conditions.ETAG: tag,
                hdrs.CONTENT_TYPE: f"{form.media_type}; charset=utf-8",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="{form.file_name}"',
            }
        )
        if first.cursor and not whole:
            self.link(response, asked, first.cursor)
        return await streamed_response.send(self.request, with_purged(response, first.state), body)


class TaskItem(TaskResource):
    """One task of the caller's."""

    @operation("get_task", TASK, NotFound, tag="Tasks")
    async def get(self, query: TaskMatch) -> web.Response:
        """Show a task as it is, or as it was, if it is as asked for."""
        query = await listing.resolve_moment(self.service, self.caller, query)
        return self.task_answer(await listing.find_task(self.service, self.caller, self.task_id, query))

    @operation("update_task", TASK, AccountFull, *CHANGE_REFUSED, tag="Tasks")
    async def patch(self, change: TaskChange) -> web.Response:
        """Change the fields that are sent; the others stay as they are.

        What was read may be sent back whole. With If-Match it happens only if the task still is as it was read; else 412 says what was
        changed.
        """
        return await self._change(change)

    @operation("update_task_by_post", TASK, AccountFull, *CHANGE_REFUSED, tag="Tasks")
    async def post(self, change: TaskChange) -> web.Response:
        """Change the fields that are sent, by POST.

        An alias of PATCH, for clients that know only forms.
        """
        return await self._change(change)

    @operation("update_task_by_put", CHANGED_TASK, AccountFull, *CHANGE_REFUSED, tag="Tasks")
    async def put(self, change: TaskChange) -> web.Response:
        """Change the fields that are sent, by PUT.

        An alias of PATCH: a field that isn't sent stays as it is, and so the answer has no ETag.
        """
        response = await self._change(change)
        del response.headers[conditions.ETAG]  # what was stored isn't what was sent (RFC 9110, section 9.3.4)
        return response

    @operation("delete_task", DELETED, *CHANGE_REFUSED, tag="Tasks")
    async def delete(self, query: Erasure) -> web.Response:
        """Delete a task: it goes to the trash, or for good.

        From the trash it can be restored for as long as the operator set, by default 30 days.
        """
        deleted = await store.delete_task(self.service, self.caller, self.task_id, self.condition, forever=query.forever)
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={X_REVISION: str(deleted.user_revision)})

    async def _change(self, change: TaskChange) -> web.Response:
        return self.task_answer(await store.update_task(self.service, self.caller, self.task_id, change, self.condition))


class Live(Resource):
    """Whether this process answers."""

    @operation("check_liveness", HEALTH, tag="Service")
    async def get(self) -> web.Response:
        """Say that this process answers."""
        return json_answer(WELL, {})


class Metrics(Resource):
    """What is measured of all workers."""

    @operation("get_metrics", Answer(str, media_type="text/plain"), NotFound, tag="Service")
    async def get(self) -> web.Response:
        """Show what is measured, for Prometheus; where METRICS_TOKEN isn't set it is 404."""
        auth.check_operator(self.request)
        metrics.write()
        shown = await asyncio.to_thread(metrics.show)
        return web.Response(body=shown, headers={hdrs.CONTENT_TYPE: metrics.CONTENT_TYPE, hdrs.CACHE_CONTROL: "no-store"})


class Ready(Resource):
    """Whether this process can do its work."""

    @operation("check_readiness", HEALTH, Unavailable, tag="Service")
    async def get(self) -> web.Response:
        """Say that the database answers and has this version's schema."""
        if trouble := await self.service.database.check():
            raise Unavailable(trouble)
        return json_answer(WELL, {})

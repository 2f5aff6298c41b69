"""HTTP for the past: what was, bringing it back, and following what happens."""

import asyncio

from aiohttp import hdrs, web
from aiohttp_sse import EventSourceResponse

import auth
from auth import Resource
from history import event_stream, event_watcher, past
from history.past import AccountLogListing, NotAsExpected, TaskLogListing, TooManyTasks
from history.schemas import AccountLogEntry, LogEntry, LogQuery, Position, Restoration, Resumption, ServerSentEvent, Undo, Undone
from rest import overload
from rest.errors import EXTRA_HEADERS, NotFound
from rest.operation import Answer, operation
from rest.streamed_response import answering
from rest.values import Page
from server.arrival import end_with_client
from server.responses import json_answer
from tasks.errors import X_REVISION, HistoryGone
from tasks.resource import CHANGE_REFUSED, PAGED, TASK, TaskResource
from tasks.schemas import Task

UNDONE = Answer(Undone, headers=("X-Revision",))
LOG = Answer(list[LogEntry], headers=PAGED, sometimes=("Link",))
ACCOUNT_LOG = Answer(list[AccountLogEntry], headers=PAGED, sometimes=("Link",))
EVENTS = Answer(Task | Position, headers=("X-Revision",), media_type="text/event-stream", item=ServerSentEvent)


class TaskRestoration(TaskResource):
    """Bringing back one task of the caller's."""

    @operation("restore_task", TASK, *CHANGE_REFUSED, tag="History")
    async def post(self, restoration: Restoration) -> web.Response:
        """Bring a task out of the trash and, if you name a revision or a moment, back to what it was then.

        At most one of `revision` and `at` may be sent.
        """
        return self.task_answer(await past.restore_task(self.service, self.caller, self.task_id, restoration, self.condition))


class TaskUndo(TaskResource):
    """Taking back what was done to the caller's tasks."""

    @operation("undo", UNDONE, HistoryGone, NotAsExpected, TooManyTasks, tag="History")
    async def post(self, undo: Undo) -> web.Response:
        """Take back all that was done since a revision or a moment; or, with dry_run, say what that would do.

        Either `since` or `at` must be sent, and not both. An undo can be undone: its answer says `since` when, in `before`.
        """
        undone = await past.undo(self.service, self.caller, undo)
        return json_answer(undone.json, {X_REVISION: str(undone.user_revision)})


class AccountHistory(TaskResource):
    """The log of all tasks of the caller's."""

    @operation("get_log", ACCOUNT_LOG, tag="History")
    async def get(self, query: Page) -> web.Response:
        """List what was changed in all tasks, by revision."""
        return await self.page_answer(AccountLogListing(self.service, self.caller, query))


class Events(Resource):
    """The caller's changes, as they happen."""

    @operation("follow_events", EVENTS, event_watcher.TooManyStreams, tag="History", takes=("Last-Event-ID",))
    async def get(self, query: Resumption) -> web.StreamResponse:
        """Follow the changes as they happen.

        A stream of Server-Sent Events (text/event-stream) that stays open: `revision` at the beginning, `task` for each change, with the
        task as it was right after, and `reset` where changes are missing. The id of each is a revision; sent back as Last-Event-ID, it goes
        on from there. The schema is that of an event's `data`, which is JSON; the whole of an event is a ServerSentEvent (x-itemSchema).
        """
        end_with_client(self.request)
        overload.let_take_its_time(self.request)  # also while its turn is yet to come: it costs no more than when it is open
        last_id = self.request.headers.get("Last-Event-ID")
        since = query.since if last_id is None else event_stream.revision_of(last_id)
        watcher, expires_at = self.request.app[event_watcher.WATCHER], self.request[auth.ACCESS].expires_at
        async with watcher.stream(self.caller, since, expires_at, self.request.transport) as stream:
            self.request[EXTRA_HEADERS][X_REVISION] = str(stream.user_revision)
            response = EventSourceResponse(
                sep="\n",
                allow_all_methods=True,
                ping_interval=event_stream.SECONDS_BETWEEN_COMMENTS,
                send_timeout=event_stream.SECONDS_OF_PATIENCE,
            )
            del response.headers[hdrs.CONNECTION]  # it says keep-alive to everybody; aiohttp says what is so
            if self.request.method == hdrs.METH_HEAD:
                return web.Response(headers=response.headers)
            async with answering(self.request, response), response:
                async for event in stream:
                    async with asyncio.timeout(event_stream.SECONDS_OF_PATIENCE):
                        await response.write(event.text)
        return response


class TaskHistory(TaskResource):
    """The log of one task of the caller's."""

    @operation("get_task_log", LOG, NotFound, tag="History")
    async def get(self, query: LogQuery) -> web.Response:
        """List what was changed, oldest entry first."""
        return await self.page_answer(TaskLogListing(self.service, self.caller, query, self.task_id))

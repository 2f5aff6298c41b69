"""The resources of the past: what was, and bringing it back."""

from functools import partial

from aiohttp import web

import history
import listing
from history import NotAsExpected, TooManyTasks
from models import HistoryGone, TaskChangedMeanwhile
from rest.contract import Answer, contract
from rest.errors import NotFound
from schemas import AccountLogEntry, Page, Restoration, Undo, Undone
from views import PAGED, TASK, Resource

UNDONE = Answer(Undone, headers=("X-Revision",))
ACCOUNT_LOG = Answer(list[AccountLogEntry], headers=PAGED, sometimes=("Link",))


class TaskRestoration(Resource):
    """Bringing back one task of the caller's."""

    @contract(TASK, NotFound, TaskChangedMeanwhile)
    async def post(self, restoration: Restoration) -> web.Response:
        """Bring a task out of the trash and, if you name a revision or a moment, back to what it was then."""
        return self.task_answer(await history.restore_task(self.caller, self.task_id, restoration, self.if_match))


class TaskUndo(Resource):
    """Taking back what was done to the caller's tasks."""

    @contract(UNDONE, HistoryGone, NotAsExpected, TooManyTasks)
    async def post(self, undo: Undo) -> web.Response:
        """Take back all that was done since a revision or a moment; or, with dry_run, say what that would do."""
        undone = await history.undo(self.caller, undo)
        return web.Response(text=undone.json, content_type="application/json", headers={"X-Revision": str(undone.user_revision)})


class AccountHistory(Resource):
    """The log of all tasks of the caller's."""

    @contract(ACCOUNT_LOG)
    async def get(self, query: Page) -> web.Response:
        """List what was changed in all tasks, by revision."""
        thing = self.caller, query
        return await self.page_answer(query, partial(listing.account_state, *thing), partial(history.list_account_log, *thing))

"""What all resources of tasks have: the task of the address, conditions, and pages of listings."""

from functools import lru_cache
from http import HTTPStatus
from typing import TypeVar

from aiohttp import hdrs, web
from multidict import istr
from yarl import URL

from auth import Resource
from rest import conditions
from rest.errors import EXTRA_HEADERS, NotFound
from rest.operation import Answer
from rest.values import MAX_ID
from tasks.errors import X_REVISION, TaskChangedMeanwhile, TaskUnchanged, WeakTag
from tasks.listing import Listing
from tasks.queries import State
from tasks.schemas import LOOK, Task
from tasks.store import TaskAsStored

AnyResponse = TypeVar("AnyResponse", bound=web.StreamResponse)

SHOWN = ("ETag", "X-Revision")
PAGED = (*SHOWN, "X-Purged")
TASK = Answer(Task, headers=SHOWN)
CHANGE_REFUSED = (NotFound, TaskChangedMeanwhile, WeakTag, TaskUnchanged)
X_PURGED = istr("X-Purged")


class TaskResource(Resource):
    """What resources of tasks have besides: the task of the address, conditions, pages."""

    @property
    def task_id(self) -> int:
        """The task that the address names. Raises NotFound where no task can have that id."""
        task_id = int(self.request.match_info["id"])
        if task_id > MAX_ID:
            raise NotFound()
        return task_id

    @property
    def condition(self) -> conditions.Preconditions:
        """Under which condition a change of the task is to happen."""
        return conditions.preconditions(self.request, LOOK)

    def task_answer(self, task: TaskAsStored, status: int = HTTPStatus.OK) -> web.Response:
        """Answer with a task and its tag, or with 304 to a client that has it."""
        self.request[EXTRA_HEADERS][X_REVISION] = str(task.user_revision)
        return conditions.answer(self.request, f"{task.json}\n".encode(), conditions.revision_tag(task.revision, LOOK), status)

    async def page_answer(self, asked: Listing) -> web.Response:
        """Answer with a page of a listing, its tag and a link to the next; or with 304 to a client that has it, for whom it isn't made."""
        if known := await self.known_answer(asked):
            return known
        listed = await asked.page()
        response = conditions.answer(self.request, b"[%b]\n" % listed.json, self.page_tag(asked, listed.state))
        if listed.cursor and response.status == HTTPStatus.OK:
            self.link(response, asked, listed.cursor)
        return with_purged(response, listed.state)

    async def known_answer(self, asked: Listing, *form: object) -> web.Response | None:
        """Answer with 304 a client that has the page, in this form; None to any other."""
        if hdrs.IF_NONE_MATCH in self.request.headers:
            present = await asked.state()
            tag = self.page_tag(asked, present, *form)
            if conditions.names(self.request, tag):
                return with_purged(conditions.not_modified(tag), present)
        return None

    def page_tag(self, asked: Listing, state: State, *form: object) -> str:
        """Return the tag of a page in that state, and let the answer tell the user's revision."""
        self.request[EXTRA_HEADERS][X_REVISION] = str(state.user_revision)
        whose, path, query = self.caller.user_id, self.request.path, asked.query
        return conditions.digest_tag(*asked.look, whose, path, query.listing, query.cursor, state.revision, state.purged, *form)

    def link(self, response: web.StreamResponse, asked: Listing, cursor: str) -> None:
        """Let the answer say where the next page is."""
        address = self.service.settings.public_path + _up_to_the_cursor(self.request.rel_url, asked.query.as_of)
        response.headers[hdrs.LINK] = f'<{address}{cursor}>; rel="next"'


@lru_cache(256)
def _up_to_the_cursor(address: URL, as_of: int | None) -> str:
    """Return the address of a listing's next page up to its cursor's value. What began at a moment goes on at that moment's revision."""
    first = address.without_query_params("at", "cursor")
    return (first if as_of is None else first.update_query(revision=str(as_of))).extend_query(cursor="").raw_path_qs


def with_purged(response: AnyResponse, state: State) -> AnyResponse:
    """Let the answer say how many tasks are gone for good."""
    response.headers[X_PURGED] = str(state.purged)
    return response

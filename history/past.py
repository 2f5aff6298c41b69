"""The past of tasks: their logs, and bringing back what was."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from peewee import JOIN, Expression, ModelSelect, fn

from history.schemas import LogQuery, Restoration, Undo
from models import CALLER_TYPES, Caller, Task, TaskLog, UserState
from postgres import pages
from postgres.pages import After, Key, Order
from postgres.queries import Query, q
from rest.conditions import Preconditions
from rest.errors import Conflict, InvalidToken
from service import Service
from tasks import listing, queries
from tasks.errors import HistoryGone, at_revision, refuse_future
from tasks.filters import position
from tasks.listing import Listed, Listing
from tasks.queries import PageRow, SourceName, State
from tasks.schemas import LOGGED_FIELDS
from tasks.store import TaskAsStored, Written, unless_json, unwrap_change


class NotAsExpected(Conflict):
    """Something has happened since the revision that was expected; nothing was done."""

    kind = "not-as-expected"
    is_explained = True
    detail = "Something has happened since the revision that you expected: look again, then undo."


class TooManyTasks(Conflict):
    """The undo would alter more tasks than one may; nothing was done."""

    kind = "too-many-tasks"
    is_explained = True
    detail = "That would alter too many tasks at once: go back in steps, the latest changes first."


@dataclass(frozen=True)
class Undone:
    """What an undo did, or would do; `tasks` is the JSON between the brackets."""

    before: int
    revision: int
    count: int
    tasks: bytes
    user_revision: int

    @property
    def json(self) -> bytes:
        """The whole, as clients see it."""
        return b'{"before":%d,"revision":%d,"count":%d,"tasks":[%b]}\n' % (self.before, self.revision, self.count, self.tasks)


# The logs


class TaskLogListing(Listing):
    """A task's history, oldest entry first."""

    query: LogQuery

    def __init__(self, service: Service, caller: Caller, query: LogQuery, task_id: int) -> None:
        super().__init__(service, caller, query)
        self._task_id = task_id
        self._source: SourceName = "trash" if query.deleted else "live"

    @property
    def scope(self) -> str:
        """What its cursors are good for."""
        return f"{self.caller.user_id} log {self._task_id} {self.query.listing}"

    async def state(self) -> State:
        """Return the state of which a page would be."""
        return self.check(await self.service.database.ask(_log_state(self._source), *self.caller, self._task_id))

    async def page(self) -> Listed:
        """Return the page that the query asks for."""
        place = self.place()
        asked = _log_page(self._source, pages.after(place), self.is_short)
        return self.make_page(await self.service.database.ask(asked, *self.caller, *pages.values(self.query.limit, place), self._task_id))


class AccountLogListing(Listing):
    """The history of all tasks, by revision."""

    @property
    def scope(self) -> str:
        """What its cursors are good for."""
        return f"{self.caller.user_id} account log {self.query.listing}"

    async def page(self) -> Listed:
        """Return the page that the query asks for."""
        place = self.place()
        asked = _account_log_page(pages.after(place), self.is_short)
        return self.make_page(await self.service.database.ask(asked, *self.caller, *pages.values(self.query.limit, place)))


# Bringing back


async def restore_task(service: Service, caller: Caller, task_id: int, restoration: Restoration, condition: Preconditions) -> TaskAsStored:
    """Bring a task out of the trash, and its fields back to what they were.

    Raises InvalidInput, NotFound, TaskChangedMeanwhile, TaskUnchanged.
    """
    revision = await _resolve(service, caller, restoration.revision, restoration.at)
    database, asked = service.database, (*caller, task_id, condition.if_match, unless_json(condition.unless), revision)
    if revision is None:
        rows = await database.ask(_RESTORE, *asked)
    else:
        async with database.slow_turns.of(caller.user_id), database.locked(caller.user_id):
            rows = await database.ask(_RESTORE_AS_IT_WAS, *asked)
    return await unwrap_change(service, caller, rows, task_id, condition, in_trash=True)


async def undo(service: Service, caller: Caller, asked: Undo) -> Undone:
    """Take back all that was done since. Raises InvalidInput, HistoryGone, NotAsExpected, TooManyTasks."""
    since, database = await _resolve(service, caller, asked.since, asked.at), service.database
    async with database.slow_turns.of(caller.user_id), database.locked(caller.user_id):
        [row] = await database.ask(_UNDO, *caller, since, asked.expected, service.settings.undo_max_tasks, asked.dry_run)
        undone = Undone(row.before, row.revision, row.altered, (row.tasks or "").encode(), row.user_revision)
    match row.refused:
        case None:
            return undone
        case "unauthorized":
            raise InvalidToken()
        case "to_come":
            raise refuse_future("since", undone.user_revision)
        case "history_gone":
            raise HistoryGone(row.kept_from, undone.user_revision)
        case "not_as_expected":
            raise NotAsExpected(headers=at_revision(undone.user_revision))
        case "too_many":
            raise TooManyTasks(headers=at_revision(undone.user_revision))
    raise AssertionError(row.refused)


async def _resolve(service: Service, caller: Caller, revision: int | None, moment: Any) -> int | None:
    return revision if moment is None else await listing.get_revision_at(service, caller, moment)


# The statements


_LOG_ORDER = Order(Key("bigint", TaskLog.revision), position(LOGGED_FIELDS, TaskLog.field))


@cache
def _log_page(name: SourceName, after: After, short: bool) -> Query[PageRow]:
    page = _log_entries(fn.log_json(TaskLog), (TaskLog.task_id == q.id,), after, short)
    state = queries.with_page(Task.revision, page)
    types = pages.parameters(_LOG_ORDER, after) | {"id": "bigint"}
    return queries.query_of_caller(PageRow, "log_page", _with_task(state, name).join(page, JOIN.CROSS), types, heavy=True)


@cache
def _log_state(name: SourceName) -> Query[State]:
    return queries.query_of_caller(State, "log_state", _with_task(UserState.select(Task.revision, *queries.STATE), name), {"id": "bigint"})


def _with_task(state: ModelSelect, name: SourceName) -> ModelSelect:
    task = queries.one_of(name)
    return queries.with_task(state, task, task.conditions)


@cache
def _account_log_page(after: After, short: bool) -> Query[PageRow]:
    page = _log_entries(fn.account_log_json(TaskLog), (), after, short)
    state = queries.with_page(UserState.revision, page)
    return queries.query_of_caller(
        PageRow, "account_log_page", state.join(page, JOIN.CROSS), pages.parameters(_LOG_ORDER, after), heavy=True
    )


def _log_entries(json: Any, conditions: tuple[Expression, ...], after: After, short: bool) -> Any:
    entries = TaskLog.select(json.alias("body")).where(TaskLog.user == q.user_id, *conditions)
    return pages.page_of(entries, _LOG_ORDER, after, short)


class _UndoRow(NamedTuple):
    refused: str | None
    before: int
    revision: int
    altered: int
    tasks: str | None
    user_revision: int
    kept_from: int


def _restoration(*, alone: bool) -> Query[Written]:
    function = fn.task_restore(q.user_id, q.generation, q.wait, q.id, q.if_match, q.unless, q.revision)
    types = CALLER_TYPES | {"id": "bigint", "if_match": "bigint[]", "unless": "jsonb", "revision": "bigint"}
    return Query(Written, function, types, alone=alone)


_RESTORE = _restoration(alone=False)
_RESTORE_AS_IT_WAS = _restoration(alone=True)  # it reads the task's log
_UNDO = Query(
    _UndoRow,
    fn.task_undo(q.user_id, q.generation, q.wait, q.since, q.expected, q.most, q.dry_run),
    CALLER_TYPES | {"since": "bigint", "expected": "bigint", "most": "bigint", "dry_run": "boolean"},
    alone=True,
)

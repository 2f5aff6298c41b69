"""The past of tasks: their logs, and bringing back what was."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from peewee import JOIN, Expression, ModelSelect, fn

import settings
from history.schemas import LogQuery, Restoration, Undo
from models import CALLER_TYPES, Caller, Task, TaskLog, UserState
from postgres import pages
from postgres.batching import Batched, q
from postgres.database import database
from postgres.pages import After, Key, Order
from rest.errors import Conflict, InvalidToken
from rest.values import Page
from tasks import listing
from tasks.errors import HistoryGone, at_revision, to_come
from tasks.filters import position
from tasks.listing import SURELY_FIT, Listed, SourceName, State
from tasks.schemas import LOGGED_FIELDS
from tasks.store import TaskAsStored, done


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
        return b'{"before":%d,"revision":%d,"count":%d,"tasks":[%b]}' % (self.before, self.revision, self.count, self.tasks)


# The logs


async def list_log(caller: Caller, task_id: int, query: LogQuery) -> Listed:
    """Give a page of a task's history, oldest entry first. Raises NotFound, InvalidInput."""
    scope = f"{caller.user_id} log {task_id} {query.listing}"
    place = listing.place_of(scope, query)
    statement = _log_page(_source(query), pages.after(place), query.limit <= SURELY_FIT)
    return listing.listed(scope, await statement(*caller, *pages.values(query.limit, place), task_id), query)


async def log_state(caller: Caller, task_id: int, query: LogQuery) -> State:
    """Give the state of which a page of a task's history would be. Raises NotFound."""
    return listing.state_of(await _log_state(_source(query))(*caller, task_id), query)


async def list_account_log(caller: Caller, query: Page) -> Listed:
    """Give a page of the history of all tasks, by revision. Raises InvalidInput."""
    scope = f"{caller.user_id} account log {query.listing}"
    place = listing.place_of(scope, query)
    statement = _account_log_page(pages.after(place), query.limit <= SURELY_FIT)
    return listing.listed(scope, await statement(*caller, *pages.values(query.limit, place)), query)


# Bringing back


async def restore_task(caller: Caller, task_id: int, restoration: Restoration, if_match: list[int] | None) -> TaskAsStored:
    """Bring a task out of the trash, and its fields back to what they were. Raises InvalidInput, NotFound, TaskChangedMeanwhile."""
    revision = await _revision(caller, restoration.revision, restoration.at)
    return await done(caller, await _RESTORE(*caller, task_id, if_match, revision), task_id, if_match, in_trash=True)


async def undo(caller: Caller, asked: Undo) -> Undone:
    """Take back all that was done since. Raises InvalidInput, HistoryGone, NotAsExpected, TooManyTasks."""
    since = await _revision(caller, asked.since, asked.at)
    async with database.in_line(caller.user_id), database.turns:
        rows = await _UNDO(*caller, since, asked.expected, settings.load().undo_most_tasks, asked.dry_run)
        [(refused, before, revision, count, tasks, user_revision, kept_from)] = rows
        undone = Undone(before, revision, count, (tasks or "").encode(), user_revision)
    match refused:
        case None:
            return undone
        case "unauthorized":
            raise InvalidToken()
        case "to_come":
            raise to_come("since", undone.user_revision)
        case "history_gone":
            raise HistoryGone(kept_from, undone.user_revision)
        case "not_as_expected":
            raise NotAsExpected(headers=at_revision(undone.user_revision))
        case "too_many":
            raise TooManyTasks(headers=at_revision(undone.user_revision))
    raise AssertionError(refused)


async def _revision(caller: Caller, revision: int | None, moment: Any) -> int | None:
    return revision if moment is None else await listing.revision_at(caller, moment)


# The statements


_LOG_ORDER = Order(Key("bigint", TaskLog.revision), position(LOGGED_FIELDS, TaskLog.field))


def _source(query: LogQuery) -> SourceName:
    return "trash" if query.deleted else "live"


@cache
def _log_page(name: SourceName, after: After, short: bool) -> Batched:
    page = _log_entries(fn.log_json(TaskLog), (TaskLog.task_id == q.id,), after, short)
    state = listing.with_page(Task.revision, page)
    types = pages.parameters(_LOG_ORDER, after) | {"id": "bigint"}
    return listing.of_caller("log_page", _with_task(state, name).join(page, JOIN.CROSS), types, heavy=True)


@cache
def _log_state(name: SourceName) -> Batched:
    return listing.of_caller("log_state", _with_task(UserState.select(Task.revision, *listing.STATE), name), {"id": "bigint"})


def _with_task(state: ModelSelect, name: SourceName) -> ModelSelect:
    task = listing.one_of(name)
    return listing.with_task(state, task, task.conditions)


@cache
def _account_log_page(after: After, short: bool) -> Batched:
    page = _log_entries(fn.account_log_json(TaskLog), (), after, short)
    state = listing.with_page(UserState.revision, page)
    return listing.of_caller("account_log_page", state.join(page, JOIN.CROSS), pages.parameters(_LOG_ORDER, after), heavy=True)


def _log_entries(json: Any, conditions: tuple[Expression, ...], after: After, short: bool) -> Any:
    entries = TaskLog.select(json.alias("body")).where(TaskLog.user == q.user_id, *conditions)
    return pages.page_of(entries, _LOG_ORDER, after, short)


_RESTORE = Batched(
    fn.task_restore(q.user_id, q.generation, q.wait, q.id, q.if_match, q.revision),
    CALLER_TYPES | {"id": "bigint", "if_match": "bigint[]", "revision": "bigint"},
)
_UNDO = Batched(
    fn.task_undo(q.user_id, q.generation, q.wait, q.since, q.expected, q.most, q.dry_run),
    CALLER_TYPES | {"since": "bigint", "expected": "bigint", "most": "bigint", "dry_run": "boolean"},
    alone=True,
)

"""The torture's judge finds every way in which what was promised and what is there can differ, and nothing where they agree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Person
from torture import answers, figures, journal, past, soak, verdict
from torture.faults import Fault
from torture.journal import Journal, Request, condensed, digest

pytestmark = pytest.mark.long  # it is of tools for developers

Sql = Callable[..., list[tuple[Any, ...]]]


class Scribe:
    """Somebody who writes down what comes of requests, each of which takes a second."""

    def __init__(self, person: Person, sql: Sql) -> None:
        assert person.caller
        self.person, self.sql, self.user_id = person, sql, person.caller.user_id
        self.requests: list[Request] = []

    async def __call__(self, kind: str, method: str, path: str, task_id: int | None = None, tag: str = "", **sent: Any) -> Request:
        fields = {name: value for name, value in sent.items() if name not in ("if_match", "key")}
        headers = {"If-Match": f'"{sent["if_match"]}"'} if "if_match" in sent else {}
        headers |= {"Idempotency-Key": sent["key"]} if "key" in sent else {}
        options: dict[str, Any] = {"params" if method == "GET" else "json": fields} if fields else {}
        answer = await self.person(method, path, headers=headers, **options)
        content = answer.json
        if answer.status == 200 and kind in ("list", "list_at", "since"):
            content = condensed(content)
        if answer.status == 200 and kind == "log":
            content = [digest(entry) for entry in content]
        revision = answer.headers.get("X-Revision")
        return self.note(kind, task_id, tag, sent, status=answer.status, revision=revision and int(revision), answer=content)

    def note(self, kind: str, task_id: int | None, tag: str, sent: dict[str, Any], **how: Any) -> Request:
        n = len(self.requests)
        request = Request(n, self.user_id, kind, 2 * n, task_id, sent, tag, **({"answered_at": 2 * n + 1} | how))
        self.requests.append(request)
        return request

    async def create(self, tag: str, **more: Any) -> Request:
        return await self("create", "POST", "/task", None, tag, **{"name": tag, "description": "", "status": "new"} | more)

    async def change(self, task_id: int, tag: str, **more: Any) -> Request:
        return await self("change", "PATCH", f"/task/{task_id}", task_id, tag, name=tag, **more)

    async def delete(self, task_id: int, **more: Any) -> Request:
        return await self("delete", "DELETE", f"/task/{task_id}", task_id, **more)

    def find(self, **values: Any) -> Request:
        """Return the first request with these values."""
        return next(each for each in self.requests if all(getattr(each, name) == value for name, value in values.items()))

    def forget(self, kind: str, tag: str = "") -> None:
        """Know nothing of such requests any more."""
        self.requests = [each for each in self.requests if (each.kind, each.tag) != (kind, tag)]

    def lose(self) -> Request:
        """Have the last answer got lost on its way."""
        request = self.requests[-1]
        request.status = request.revision = request.answer = None
        request.trouble = "dropped"
        return request

    def faults(self) -> list[str]:
        """Return what the judge finds of this one."""
        accounts, contradictions = past.read(self.sql, only=self.user_id)
        return contradictions + verdict.reach(accounts, self.requests)[0]


@pytest.fixture
def scribe(alice: Person, sql: Sql) -> Scribe:
    return Scribe(alice, sql)


@pytest.fixture
async def story(scribe: Scribe) -> Scribe:
    """A life in which everything happens once."""
    await scribe.create("a", completion_at="02-10-2020")
    await scribe.create("b", key="b")
    await scribe.create("b", key="b")
    await scribe.create("c", status="completed")
    await scribe.change(1, "d", status="completed", description="d", if_match=1)
    await scribe.change(1, "e", if_match=1)  # 412
    await scribe.change(2, "f")
    await scribe.delete(2)
    await scribe.delete(2)  # 404
    await scribe("restore", "POST", "/task/2/restore", 2)
    await scribe("restore", "POST", "/task/2/restore", 2)
    await scribe("restore", "POST", "/task/1/restore", 1, revision=2)
    await scribe("list", "GET", "/task")
    await scribe("undo", "POST", "/task/undo", since=5, dry_run=True)
    await scribe("undo", "POST", "/task/undo", since=4)
    await scribe("undo", "POST", "/task/undo", since=4, expected=1)  # 409
    await scribe("list_at", "GET", "/task", revision=6)
    await scribe("since", "GET", "/task", since=5)
    await scribe("log", "GET", "/task/1/log", 1)
    await scribe("read", "GET", "/task/1", 1)
    await scribe("erase", "DELETE", "/task/3?forever=true", 3)
    await scribe("list_at", "GET", "/task", revision=1)  # 410
    return scribe


def test_where_all_is_well_nothing_is_found(story: Scribe) -> None:
    statuses = [request.status for request in story.requests]
    assert statuses == [201, 201, 201, 201, 200, 412, 200, 204, 404, 200, 200, 200, 200, 200, 200, 409, 200, 200, 200, 200, 204, 410]
    assert story.faults() == []


async def test_an_answer_that_got_lost_leaves_it_open_whether_anything_was_done(story: Scribe) -> None:
    for kind in ("create", "change", "delete", "restore", "undo", "erase"):
        story.note(kind, 1, f"never came: {kind}", {"since": 1}, status=503)
    await story.create("g")
    story.lose()
    await story.change(1, "h", status="planned")
    story.lose()
    await story.delete(1)
    story.lose()
    await story("restore", "POST", "/task/1/restore", 1)
    story.lose()
    await story("undo", "POST", "/task/undo", since=story.requests[-5].revision or 10)
    story.lose()
    await story("erase", "DELETE", "/task/2?forever=true", 2)
    story.lose()
    assert story.faults() == []


def lost(kind: str, task_id: int | None) -> Callable[[Scribe], object]:
    """Have something acknowledged that isn't there."""
    fields = {"name": "lost"}
    return lambda story: story.note(kind, task_id, "lost", fields, status=200, revision=99, answer=fields | {"id": 1, "revision": 99})


PLANTED: dict[str, Callable[[Scribe], object]] = {
    "a change is lost": lost("change", 1),
    "a creation is lost": lost("create", None),
    "nobody asked for a change": lambda story: story.forget("change", "f"),
    "nobody asked for a creation": lambda story: story.forget("create", "b"),
    "nobody asked for a deletion": lambda story: story.forget("delete"),
    "nobody asked for a restoration": lambda story: story.forget("restore"),
    "nobody asked for an undo": lambda story: story.forget("undo"),
    "nobody asked for an erasure": lambda story: story.forget("erase"),
    "a change was refused and is there": lambda story: vars(story.find(tag="f")).update(status=404),
    "an undo was only tried and is there": lambda story: story.find(kind="undo", sent={"since": 4}).sent.update(dry_run=True),
    "more tasks are said to be erased": lambda story: story.sql("UPDATE user_state SET purged = 2 WHERE user_id = %s", story.user_id),
    "a change is there by half": lambda story: story.find(tag="f").sent.update(description="and more"),
    "a change is more than was asked for": lambda story: story.find(tag="d").sent.pop("status"),
    "a creation under a key was done twice": lambda story: [vars(story.find(tag="b")).update(tag="c") for _ in range(2)],
    "a task was changed past the log": lambda story: story.sql("UPDATE task SET name = 'x' WHERE user_id = %s AND id = 1", story.user_id),
    "an entry of the log is lost": lambda story: story.sql("DELETE FROM task_log WHERE user_id = %s AND field = 'name' AND revision = 4", story.user_id),
    "a revision is lost": lambda story: story.sql("UPDATE user_state SET revision = revision + 1 WHERE user_id = %s", story.user_id),
    "a read shows something else": lambda story: story.find(kind="read").answer.update(name="x"),
    "a list lacks a task": lambda story: story.find(kind="list").answer.pop(0),
    "a list of then shows another state": lambda story: story.find(kind="list_at").answer[0].reverse(),
    "what has changed since lacks a task": lambda story: story.find(kind="since").answer.pop(0),
    "a log lacks an entry": lambda story: story.find(kind="log").answer.pop(),
    "404 for what is there": lambda story: vars(story.find(kind="read")).update(status=404),
    "412 for what hasn't changed": lambda story: story.find(status=412).sent.update(if_match=4),
    "409 though it was as expected": lambda story: story.find(status=409).sent.update(expected=story.find(status=409).revision),
    "410 for what is kept": lambda story: story.find(status=410).sent.update(revision=99),
    "an undo left something": lambda story: story.find(kind="undo", sent={"since": 4}).sent.update(since=6),
    "an answer knew less than one before": lambda story: vars(story.requests[-1]).update(revision=3),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_whatever_differs_is_found(story: Scribe, what: str) -> None:
    PLANTED[what](story)
    assert story.faults() != []


def test_a_task_that_is_there_was_not_erased(story: Scribe) -> None:
    story.note("erase", 1, "", {}, status=204, revision=story.requests[-1].revision)
    assert [words for words in story.faults() if "and the task is there" in words]


# How it was answered


def request(**more: Any) -> Request:
    usual: dict[str, Any] = {"kind": "change", "asked_at": 100, "answered_at": 100.1, "status": 200, "revision": 1}
    values: dict[str, Any] = usual | more
    return Request(1, 1, **values)


LOST: dict[str, Any] = {"status": None, "revision": None, "trouble": "dropped: ServerDisconnectedError"}
UNAVAILABLE: dict[str, Any] = {"status": 503, "revision": None}
RESTART = Fault("PostgreSQL restarted fast", 99, 100)
KILL = Fault("a worker killed", 99.9, 99.9)


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({}, None),
        ({"status": 404}, None),
        (UNAVAILABLE, RESTART),
        (UNAVAILABLE | {"asked_at": 101.5, "answered_at": 101.6}, RESTART),
        (LOST, KILL),
        (LOST | {"trouble": "gave up"}, None),
        (UNAVAILABLE | {"answered_at": 110.5}, RESTART),
        ({"kind": "create", "sent": {"key": "x"}, "status": 410}, None),
    ],
    ids=str,
)
def test_what_has_a_cause_is_no_fault(how: dict[str, Any], fault: Fault | None) -> None:
    assert list(answers.judge([request(**how)], [fault] if fault else [])) == []


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"status": 500}, RESTART),
        ({"status": 401}, None),
        ({"revision": None}, None),
        (UNAVAILABLE, None),
        (UNAVAILABLE, KILL),
        (UNAVAILABLE | {"trouble": "without Retry-After"}, RESTART),
        (UNAVAILABLE | {"asked_at": 102.1, "answered_at": 102.2}, RESTART),
        (LOST, None),
        (LOST, RESTART),
        (LOST | {"trouble": "no answer"}, KILL),
        ({"answered_at": 111.5}, RESTART),
        ({"answered_at": 0}, KILL),
        ({"kind": "create", "status": 410}, None),
    ],
    ids=str,
)
def test_what_has_no_cause_is_found(how: dict[str, Any], fault: Fault | None) -> None:
    assert len(list(answers.judge([request(**how)], [fault] if fault else []))) == 1


def test_recovery_lasts_until_a_change_is_done_and_nothing_fails_any_more() -> None:
    requests = [
        request(asked_at=99.5, answered_at=103, status=503),  # asked for before it was back
        request(asked_at=100.1, answered_at=100.2, kind="read"),
        request(asked_at=100.1, answered_at=100.4),
        request(asked_at=100.3, answered_at=100.9, status=503),
    ]

    def recovery(requests: list[Request], *others: Fault) -> list[float]:
        rows = figures.by_kind(requests, [RESTART, *others], 105)
        return next(row["recovery"] for row in rows if row["kind"] == RESTART.kind)

    assert recovery(requests) == pytest.approx([0.9])
    assert recovery(requests[:3]) == pytest.approx([0.4])
    assert recovery(requests[:2]) == []
    assert recovery(requests, Fault("a worker killed", 99.1, 99.1)) == pytest.approx([0.9])
    assert recovery(requests, Fault("a worker killed", 100.5, 100.5)) == pytest.approx([0.4])
    assert recovery(requests, Fault("PostgreSQL frozen for 0.5 to 8 s", 99.1, 104)) == []
    [row] = figures.by_kind(requests, [RESTART], 105)
    assert (row["times"], row["requests"], row["unavailable"], row["dropped"]) == (1, 4, 2, 0)
    assert figures.slow([row]) == []
    assert len(figures.slow([row | {"recovery": [0.9, 2.1]}])) == 1


def test_a_journal_tells_what_was_asked_and_what_came_of_it(tmp_path: Path) -> None:
    notes = Journal(tmp_path / "journal")
    first = notes.asked("create", 7, 1.5, tag="a", sent={"name": "a"})
    second = notes.asked("read", 7, 1.6, task_id=3)
    notes.answered(first, 1.7, status=201, revision=4, answer={"id": 1})
    notes.close()
    assert journal.read(tmp_path / "journal") == [first, second]
    assert (first.is_done, first.is_open, second.is_done, second.is_open) == (True, False, False, True)


# What a soak needs


def hour(**last: Any) -> list[soak.Sample]:
    """Return the samples of an hour in which nothing changed until its last sixth."""
    usual: dict[str, Any] = {"workers": frozenset({1, 2}), "memory": 100.0, "connections": 20}
    warming_up = soak.Sample(**usual | {"memory": 70.0})
    return [warming_up] * 10 + [soak.Sample(**usual)] * 40 + [soak.Sample(**usual | last)] * 10


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ({}, []),
        ({"memory": 104.9}, []),
        ({"memory": 105.1}, ["a worker grew from 100 to 105 MiB"]),
        ({"connections": 21}, ["there were 21 connections"]),
        ({"workers": frozenset({1, 3})}, ["a worker ended"]),
    ],
)
def test_whatever_grows_in_an_hour_is_found(last: dict[str, Any], found: list[str]) -> None:
    assert soak.judge(hour(**last))[0] == found

"""Random histories that are looked back into, taken back and thinned out, compared with the model; at the end, every revision of them.

HYPOTHESIS_PROFILE=long runs thousands of histories, other ones each time.
"""

from collections.abc import Callable, Iterator
from datetime import date
from fractions import Fraction
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from tasks.schemas import FIELDS
from tests.model.machine import MAX_OPEN_LISTINGS, Machine, Open, in_profile, profiles, running, somebody, with_headers
from tests.model.memory import Account, Json, Outcome, Task, normal, seconds
from tests.model.requests import (
    SORTS,
    Manner,
    Moment,
    as_day,
    condition,
    encoding,
    filters,
    if_match,
    moment,
    sent,
    status,
    which,
)
from tests.model.shown import Changes, Log, Query, WholeLog, task_json

# Few values, so that what is taken back is often so already.
name = st.sampled_from(["ж", "Ёж", "a", "e\u0301"])
description = st.sampled_from(["", "a_b"])
day = st.sampled_from([None, date(2020, 2, 29), date(9999, 12, 31)])
whole_task = st.fixed_dictionaries({"name": name, "description": description, "status": status}, optional={"completion_at": day})
some_fields = st.fixed_dictionaries({}, optional={"name": name, "description": description, "status": status, "completion_at": day})
who = st.sampled_from([0, 0, 0, 1])
then = which | moment  # a revision, by its number or by a moment
look = st.tuples(st.just({}) | filters(), st.sampled_from(SORTS))
conditions = st.sampled_from(["none", "none", "none", "earlier"]) | condition


class Deed(NamedTuple):
    """Something that is done to a task."""

    what: str
    which: int
    fields: Json
    then: int | Moment | None
    manner: Manner


deed = st.builds(
    Deed,
    st.sampled_from(["create", "change", "change", "change", "delete", "delete", "restore"]),
    which,
    whole_task | some_fields,
    st.none() | then,
    st.builds(Manner, st.sampled_from(["PATCH", "POST", "PUT"]), encoding, st.booleans(), conditions),
)

MISNAMED: list[tuple[str, str, Json, set[str]]] = [  # 0 in a path or a body stands for the next revision
    ("GET", "/task?revision=0", {}, {"revision"}),
    ("GET", "/task/1?revision=0", {}, {"revision"}),
    ("POST", "/task/1/restore", {"revision": 0}, {"revision"}),
    ("POST", "/task/undo", {"since": 0}, {"since"}),
    ("POST", "/task/undo", {"since": 0, "dry_run": True}, {"since"}),
    ("POST", "/task/undo", {"since": -1, "dry_run": "yes", "expected": "1"}, {"since", "dry_run", "expected"}),
    ("GET", "/task?revision=x", {}, {"revision"}),
    ("GET", "/task?since=-1", {}, {"since"}),
    ("GET", "/task?at=2026-11-24", {}, {"at"}),
    ("GET", "/task?revision=1&at=2026-11-24T09:30:00Z", {}, {"at"}),
    ("GET", "/task/1?revision=1&deleted=true", {}, {"deleted"}),
    ("GET", "/task?revision=1&deleted=true", {}, {"deleted"}),
    ("GET", "/task?since=1&revision=1", {}, {"since"}),
    ("GET", "/task?since=1&deleted=true", {}, {"since"}),
    ("GET", "/task?since=1&status=new", {}, {"since"}),
    ("GET", "/task?since=1&sort=name", {}, {"since"}),
    ("GET", "/task/1/log?revision=1", {}, {"revision"}),
    ("GET", "/task/log?deleted=true", {}, {"deleted"}),
]


class Pasts(Machine):
    """What is done, looked back into and taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[tuple[Json, str]] = [({}, "id")]
        self.purges = 0  # to come: each makes a part of the past unknowable
        self.has_moved = False

    def pick_any(self, account: Account, which: int) -> int:
        """Return the id of a task: mostly of one that is there, be it in the trash."""
        ids = [*account.tasks]
        return ids[which % len(ids)] if ids and which < 92 else which % (account.created + 2) + 1

    def pick_from_trash(self, account: Account, which: int) -> int:
        """Return the id of a task: mostly of one that is in the trash."""
        trash = account.trash()
        return trash[which % len(trash)].id if trash and which < 75 else self.pick(account, which)

    def named(self, account: Account, then: int | Moment, parameter: str = "revision") -> tuple[Json, int]:
        """Return the parameter that names a revision, mostly one from which on history is kept, and which one that is."""
        which = then.which if isinstance(then, Moment) else then
        revisions = range(account.kept_from if which < 85 else 0, account.revision + 1)
        if isinstance(then, Moment) and account.moments:
            written, exact = then.of([account.moments[revision] for revision in revisions if revision])
            return {"at": written}, account.revision_at(exact)
        return {parameter: revisions[which % len(revisions)]}, revisions[which % len(revisions)]

    @initialize(
        tasks=st.lists(whole_task, min_size=3, max_size=5),
        looks=st.lists(look, min_size=4, max_size=4),
        purges=st.sampled_from([0, 1, 2, 4]),
    )
    def two_people_come(self, tasks: list[Json], looks: list[tuple[Json, str]], purges: int) -> None:
        self.looks, self.purges = looks, purges
        self.come(tasks)
        self.come(tasks[:2])

    # What is done

    @rule(who=who, deeds=st.lists(deed, min_size=2, max_size=8))
    def do(self, who: int, deeds: list[Deed]) -> None:
        account = self.accounts[who]
        for what, number, fields, then, manner in deeds:
            task_id = self.pick_from_trash(account, number) if what == "restore" else self.pick(account, number)
            match what:
                case "create":
                    self.create_task(who, {"name": "a", "description": "", "status": "new"} | fields, manner.encoding, manner.iso)
                case "change":
                    self.change_task(who, task_id, fields, fields, manner)
                case "delete":
                    self.delete_task(who, task_id, manner.condition)
                case "restore":
                    self.restore_task(who, task_id, then, manner)

    @rule(who=who, fields=whole_task, encoding=encoding, key=st.sampled_from(["a", '"a"', "b"]), again=st.booleans())
    def create(self, who: int, fields: Json, encoding: str, key: str, again: bool) -> None:
        account = self.accounts[who]
        first = account.answered.get(key.strip('"'))
        if first:
            self.create_again(who, first, first.fields if again else {"completion_at": None} | fields, encoding, key)
        else:
            self.create_task(who, fields, encoding, True, **{"Idempotency-Key": key})
            account.answered[key.strip('"')] = account.tasks[account.created]

    def create_again(self, who: int, first: Task, fields: Json, encoding: str, key: str) -> None:
        body = fields | {"completion_at": as_day(fields["completion_at"])}
        answer = self.ask(who, "POST", "/task", **with_headers(sent(body, encoding), {"Idempotency-Key": key}))
        assert self.told(answer, self.accounts[who])
        if {field: normal(value) for field, value in fields.items()} != first.fields:
            self.refused(answer, 422, "key-reused", title="Unprocessable Content")
        elif first.id not in self.accounts[who].tasks:
            self.refused(answer, 410)
        else:
            self.has_task(answer, 201, who, first)
            assert answer.headers["Location"] == f"/task/{first.id}"

    # What is taken back

    def restore_task(self, who: int, task_id: int, then: int | Moment | None, manner: Manner) -> None:
        account = self.accounts[who]
        before = account.tasks.get(task_id)
        named, revision = ({}, None) if then is None else self.named(account, then)
        headers, allowed = if_match(manner.condition, before)
        answer = self.ask(who, "POST", f"/task/{task_id}/restore", **with_headers(sent(named, manner.encoding), headers))
        outcome = account.restore(task_id, allowed, revision)
        if outcome is Outcome.DONE:
            assert answer.status == 200, answer
            self.learn(account, answer.json["updated_at"])
        if self.told(answer, account, outcome, before, allowed, headers):
            self.has_task(answer, 200, who, account.tasks[task_id])

    @rule(
        who=who,
        then=then,
        dry_run=st.sampled_from([False, False, True]),
        expected=st.sampled_from([None, None, 0, 1]),
        encoding=encoding,
        again=st.booleans(),
    )
    def undo(self, who: int, then: int | Moment, dry_run: bool, expected: int | None, encoding: str, again: bool) -> None:
        account = self.accounts[who]
        named, since = self.named(account, then, "since")
        options = ({"dry_run": True} if dry_run else {}) | ({} if expected is None else {"expected": account.revision - expected})
        if since < account.kept_from:
            answer = self.ask(who, "POST", "/task/undo", **sent(named | options, encoding))
            assert not self.told(answer, account, Outcome.HISTORY_GONE)
        elif expected:
            answer = self.ask(who, "POST", "/task/undo", **sent(named | options, encoding))
            assert self.told(answer, account)
            self.refused(answer, 409, "not-as-expected")
        else:
            before, present = account.revision, self.lived(who)
            self.undo_since(who, named | options, since, encoding)
            if dry_run:
                assert self.lived(who) == present
                return
            assert self.lived(who) == self.lived(who, since)
            if again:
                self.undo_since(who, {"since": before, "expected": account.revision}, before, encoding)
                assert self.lived(who) == present

    def undo_since(self, who: int, body: Json, since: int, encoding: str) -> None:
        answer = self.ask(who, "POST", "/task/undo", **sent(body, encoding))
        assert answer.status == 200, answer
        account = self.accounts[who].twin() if "dry_run" in body else self.accounts[who]
        before = account.revision
        altered = account.undo(since)
        if altered:
            self.learn(account, answer.json["tasks"][0]["updated_at"], before)
        assert answer.json == {
            "before": before,
            "revision": account.revision,
            "count": len(altered),
            "tasks": [task_json(account, task) for task in altered],
        }
        assert self.told(answer, self.accounts[who])

    def lived(self, who: int, revision: int | None = None) -> list[Json]:
        """Return what the service has as the user's of all tasks, now or at a revision."""
        tasks = self.ask(who, "GET", "/task" if revision is None else f"/task?revision={revision}").json
        return [{field: task[field] for field in ("id", *FIELDS)} for task in tasks]

    # What goes for good

    @precondition(lambda self: self.purges)
    @rule(who=who, which=which, condition=conditions)
    def erase(self, who: int, which: int, condition: str) -> None:
        self.purges -= 1
        account = self.accounts[who]
        task_id = self.pick_any(account, which)
        before = account.tasks.get(task_id)
        headers, allowed = if_match(condition, before)
        answer = self.ask(who, "DELETE", f"/task/{task_id}?forever=true", headers=headers)
        revision = account.revision
        outcome = account.erase(task_id, allowed)
        if account.revision > revision:  # of a task that is gone nobody can ask when
            [(at,)] = self.sql(
                "SELECT moment_text(changed_at) FROM user_state JOIN users ON id = user_id WHERE login = %s", self.people[who].login
            )
            self.learn(account, at)
        if self.told(answer, account, outcome, before, allowed, headers):
            assert (answer.status, answer.text) == (204, "")
            for path in (f"/task/{task_id}", f"/task/{task_id}?deleted=true", f"/task/{task_id}/log", f"/task/{task_id}/log?deleted=true"):
                assert not self.told(self.ask(who, "GET", path), account, Outcome.NOT_FOUND)

    @precondition(lambda self: self.purges and sum(len(account.trash()) for account in self.accounts) > 1)
    @rule(which=which, microseconds=st.sampled_from([-1, 0, 1]))
    def sweep_the_trash(self, which: int, microseconds: int) -> None:
        self.purges -= 1
        self.look_at_all_trash()
        deletions = [account.moments[task.deleted] for account in self.accounts for task in account.trash() if task.deleted]
        deletion = deletions[which % len(deletions)]
        while self.sql("SELECT trash_sweep(%s::timestamptz + %s * interval '1 microsecond', 3, 1000)", deletion, microseconds) != [(0,)]:
            pass
        for account in self.accounts:
            account.purge(seconds(deletion) + Fraction(microseconds, 1_000_000))
        self.look_at_all_trash()

    def look_at_all_trash(self) -> None:
        for number in range(len(self.accounts)):
            self.list_tasks(number, {"deleted": "true"}, Query(deleted=True), None)

    # Where it goes

    @precondition(lambda self: not self.has_moved)
    @rule(who=who)
    def move(self, who: int) -> None:
        self.has_moved = True
        self.take_along(who)

    def take_along(self, who: int) -> None:
        """Take the account into a new one, where life goes on."""
        account = self.accounts[who]
        export = self.ask(who, "GET", "/export")
        assert self.told(export, account)
        self.people[who] = self.runner.run(somebody(self.client))
        imported = self.ask(who, "POST", "/import", data=export.text.encode(), headers={"Content-Type": "application/json"})
        assert self.told(imported, account)
        did = {"before": 0, "revision": account.revision, "count": len(account.tasks), "skipped": [], "skipped_count": 0}
        assert (imported.status, imported.json) == (200, did)
        assert self.ask(who, "GET", "/export").text == export.text
        account.answered.clear()
        self.open = [page for page in self.open if page.who != who]
        self.tags = {place: tag for place, tag in self.tags.items() if place[0] != who}

    # What is seen of it

    @rule(who=who, which=which, then=st.none() | then, statuses=st.none() | st.sets(status, min_size=1), known=condition)
    def look_at_a_task(self, who: int, which: int, then: int | Moment | None, statuses: set[str] | None, known: str) -> None:
        account = self.accounts[who]
        task_id = self.pick_any(account, which)
        named, revision = ({"deleted": "true"}, None) if then is None else self.named(account, then)
        parameters = named | ({} if statuses is None else {"status": ",".join(sorted(statuses))})
        shown = {task.id: task for task in (account.trash() if then is None else account.live(revision))}.get(task_id)
        self.look_at(who, task_id, parameters, shown if shown and Query(statuses).matches(account, shown) else None, known)
        if then is None:
            self.read_pages(Open(who, f"/task/{task_id}/log?deleted=true&limit=2", 2, Log(task_id, deleted=True)), True)

    def look_at(self, who: int, task_id: int, parameters: Json, task: Task | None, known: str) -> None:
        """Ask for a task, of whose revisions some are known; it must look like this one, or not be there."""
        tags, allowed = if_match(known, task)
        headers = {"If-None-Match": tags["If-Match"]} if tags else {}
        answer = self.ask(who, "GET", f"/task/{task_id}?{urlencode(parameters)}", headers=headers)
        if not task:
            assert not self.told(answer, self.accounts[who], Outcome.NOT_FOUND)
            return
        assert self.told(answer, self.accounts[who])
        if tags and (allowed is None or task.updated in allowed or known == "weak"):
            assert (answer.status, answer.text, answer.headers["ETag"]) == (304, "", f'"{task.updated}"')
        else:
            self.has_task(answer, 200, who, task)

    @rule(
        who=who,
        what=st.sampled_from(["what was", "what was", "the trash", "the log", "what has changed"]),
        then=then,
        look=look,
        limit=st.integers(1, 4),
        to_the_end=st.booleans(),
    )
    def list(self, who: int, what: str, then: int | Moment, look: tuple[Json, str], limit: int, to_the_end: bool) -> None:
        account = self.accounts[who]
        named, revision = self.named(account, then)
        match what:
            case "what was":
                self.list_what_was(who, named, revision, look, limit, to_the_end)
            case "the trash":
                parameters, meant = self.asked(account, look[0], account.trash(), True)
                self.list_tasks(who, parameters | {"deleted": "true"}, Query(deleted=True, sort=look[1], **meant), limit, to_the_end)
            case "the log":
                self.read_pages(Open(who, f"/task/log?limit={5 * limit}", 5 * limit, WholeLog()), to_the_end)
            case "what has changed":
                since = 0 if revision % 3 == 0 else revision
                self.read_pages(Open(who, f"/task?since={since}&limit={limit}", limit, Changes(since, account.revision)), to_the_end)

    def list_what_was(self, who: int, named: Json, revision: int, look: tuple[Json, str], limit: int | None, to_the_end: bool) -> None:
        account = self.accounts[who]
        chosen, sort = look
        parameters, meant = self.asked(account, chosen, account.live(revision), True)
        self.list_tasks(who, named | parameters, Query(revision=revision, sort=sort, **meant), limit, to_the_end)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, MAX_OPEN_LISTINGS - 1))
    def read_on(self, which: int) -> None:
        following = self.read_page(self.open.pop(which % len(self.open)))
        if following:
            self.open.append(following)

    @rule(who=who, case=st.sampled_from(MISNAMED), encoding=encoding)
    def name_what_cannot_be(self, who: int, case: tuple[str, str, Json, set[str]], encoding: str) -> None:
        account = self.accounts[who]
        method, path, body, fields = case
        to_come = account.revision + 1
        body = {name: to_come if value == 0 and value is not False else value for name, value in body.items()}
        answer = self.ask(who, method, path.replace("=0", f"={to_come}"), **(sent(body, "json") if body else {}))
        self.refused(answer, 400)
        assert {error["field"] for error in answer.json["errors"]} == fields
        assert not self.told(self.ask(who, "GET", f"/task?since={to_come}"), account, Outcome.HISTORY_GONE)

    # At the end

    def teardown(self) -> None:
        for number, account in enumerate(self.accounts):
            for revision in range(account.revision + 1):
                chosen, sort = self.looks[revision % len(self.looks)]
                if revision % 2:
                    named, revision_then = {"at": account.moments[revision]}, account.revision_at(seconds(account.moments[revision]))
                    self.list_what_was(number, named, revision_then, (chosen, "id"), 10, True)
                else:
                    self.list_what_was(number, {"revision": revision}, revision, ({}, sort), None, True)
            self.replay_over_http(number, account)
            self.compare_with_the_database(number, account)
            self.take_along(number)
            self.compare_with_the_database(number, account)


@pytest.fixture
def machine(sql: Callable[..., list[tuple[Any, ...]]]) -> Iterator[type[Pasts]]:
    """The machine, with one application for all its histories."""
    with running(Pasts, sql) as machine:
        yield machine


@in_profile
def test_whatever_is_done_can_be_seen_as_it_was_and_taken_back(machine: type[Pasts], profile: str) -> None:
    run_state_machine_as_test(machine, settings=profiles(16, 40, 40)[profile])

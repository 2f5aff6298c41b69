"""The means of a state machine: people who ask over HTTP, a model of each one's account, and the comparison of the two."""

import asyncio
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis.stateful import RuleBasedStateMachine

import app
import auth
from accounts import users
from tasks.schemas import FIELDS
from tests.conftest import Answer, Person, configured, service_of
from tests.model.memory import Account, Json, Outcome, Task, replay, seconds
from tests.model.requests import Manner, Moment, as_day, if_match, sent
from tests.model.shown import Listing, Query, entry_json, task_json

MAX_OPEN_LISTINGS = 4
SAMPLE = 3  # histories, of a machine of which `make test` wants to know whether it works at all
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
in_profile = pytest.mark.parametrize("profile", ["sample", pytest.param(PROFILE, marks=pytest.mark.long)])


def profiles(histories: int, steps: int, long_steps: int) -> dict[str, settings]:
    """Return the settings of the sample and of the default run, both the same each time, and of the long one."""
    common: Json = {
        "deadline": None,
        "database": None,
        "suppress_health_check": list(HealthCheck),
        "phases": [Phase.generate, Phase.shrink],  # to explain a failure takes Hypothesis minutes more
    }
    return {
        "sample": settings(max_examples=SAMPLE, stateful_step_count=steps, derandomize=True, **common),
        "default": settings(max_examples=histories, stateful_step_count=steps, derandomize=True, **common),
        "long": settings(max_examples=3000, stateful_step_count=long_steps, **common),
    }


class Open(NamedTuple):
    """A listing that somebody is in the middle of: beyond a place, or at its start."""

    who: int
    link: str
    limit: int
    listing: Listing
    place: Any = None


class Machine(RuleBasedStateMachine):
    """What rules are made of."""

    runner: ClassVar[asyncio.Runner]
    client: ClassVar[TestClient[Any, Any]]
    sql: ClassVar[Callable[..., list[tuple[Any, ...]]]]

    def __init__(self) -> None:
        super().__init__()
        self.people: list[Person] = []
        self.accounts: list[Account] = []
        self.created: dict[tuple[int, int], Json] = {}
        self.seen: dict[tuple[int, int], list[Json]] = {}
        self.tags: dict[tuple[int, str], tuple[str, Any, Any]] = {}
        self.open: list[Open] = []

    # Who asks, and for what

    def come(self, tasks: list[Json]) -> None:
        """Let somebody come who has these tasks."""
        self.people.append(self.runner.run(somebody(self.client)))
        self.accounts.append(Account())
        for fields in tasks:
            self.create_task(len(self.people) - 1, fields, "json", False)

    def ask(self, who: int, method: str, path: str, **options: Any) -> Answer:
        note(f"{who}: {method} {path} {str(options)[:500]}")
        answer = self.runner.run(self.people[who](method, path, **options))
        note(f"   {answer.status} X-Revision {answer.headers.get('X-Revision')} {answer.text[:300]}")
        return answer

    def among(self, who: int) -> tuple[int, Account]:
        who %= len(self.people)
        return who, self.accounts[who]

    def pick(self, account: Account, which: int) -> int:
        """Return the id of a task: mostly of one that is there."""
        live = account.live()
        return live[which % len(live)].id if live and which < 90 else which % 8 + 1

    # What comes back

    def learn(self, account: Account, at: str, since: int | None = None) -> None:
        """Take note of the moment of the latest revision, or of all those since one: later than all before it, and not of tomorrow."""
        revisions = range(account.revision if since is None else since + 1, account.revision + 1)
        assert len(account.moments) == revisions[0] - 1
        assert at > account.moments.get(revisions[0] - 1, "")
        assert abs(float(seconds(at)) - time.time()) < 60
        account.moments |= dict.fromkeys(revisions, at)

    def refused(self, answer: Answer, status: int, kind: str | None = None, **members: Any) -> None:
        assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer
        assert answer.json | {"detail": "", "errors": []} == {
            "type": f"/docs/problems#{kind}" if kind else "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": "",
            "errors": [],
            **members,
        }
        assert "ETag" not in answer.headers

    def told(
        self,
        answer: Answer,
        account: Account,
        outcome: Outcome = Outcome.DONE,
        task: Task | None = None,
        allowed: Collection[int] | None = None,
        headers: Json | None = None,
    ) -> bool:
        """Check that the answer has the user's revision; if it refuses (a change that some revisions allowed, by these headers), that it does so rightly."""
        assert answer.headers["X-Revision"] == str(account.revision)
        if outcome is Outcome.NOT_FOUND:
            self.refused(answer, 404)
        elif outcome is Outcome.CHANGED_MEANWHILE:
            assert task
            tags = (headers or {}).get("If-Match", "")
            changed = task.altered_since({*(allowed or ()), *map(int, re.findall('W/"([0-9]+)"', tags))})
            members = {"current": task_json(account, task)} | ({} if changed is None else {"changed": changed})
            self.refused(answer, 412, "weak-tag" if tags.startswith("W/") else "changed-meanwhile", **members)
        elif outcome is Outcome.HISTORY_GONE:
            self.refused(answer, 410, "history-gone", kept_from=account.kept_from, revision=account.revision)
        return outcome in (Outcome.DONE, Outcome.NOTHING_TO_DO)

    def has_task(self, answer: Answer, status: int, who: int, task: Task, tagged: bool = True) -> None:
        assert answer.status == status, answer
        assert answer.json == task_json(self.accounts[who], task)
        assert answer.headers.get("ETag") == (f'"{task.updated}"' if tagged else None)
        self.seen.setdefault((who, task.id), []).append(answer.json)

    # Changes

    def create_task(self, who: int, fields: Json, encoding: str, iso: bool, **headers: str) -> Answer:
        account = self.accounts[who]
        body = fields | ({"completion_at": as_day(fields["completion_at"], iso)} if "completion_at" in fields else {})
        answer = self.ask(who, "POST", "/task", **with_headers(sent(body, encoding), headers))
        assert answer.status == 201, answer
        task = account.create(**fields)
        self.learn(account, answer.json["created_at"])
        assert self.told(answer, account)
        assert answer.headers["Location"] == f"/task/{task.id}"
        self.has_task(answer, 201, who, task)
        self.created[who, task.id] = answer.json
        return answer

    def change_task(self, who: int, task_id: int, wanted: Json, body: Json, manner: Manner) -> None:
        """Send the body, of which the fields `wanted` mean a change, and `revision` a condition."""
        account = self.accounts[who]
        before = account.tasks.get(task_id)
        headers, allowed = if_match(manner.condition, before)
        if "revision" in body:
            allowed = {body["revision"]} if allowed is None else {body["revision"]} & set(allowed)
        if "completion_at" in body:
            body = body | {"completion_at": as_day(wanted["completion_at"], manner.iso)}
        answer = self.ask(who, manner.method, f"/task/{task_id}", **with_headers(sent(body, manner.encoding), headers))
        outcome = account.change(task_id, wanted, allowed)
        if outcome is Outcome.DONE:
            assert answer.status == 200, answer
            self.learn(account, answer.json["updated_at"])
        if self.told(answer, account, outcome, before, allowed, headers):
            self.has_task(answer, 200, who, account.tasks[task_id], tagged=manner.method != "PUT")

    def delete_task(self, who: int, task_id: int, condition: str) -> None:
        account = self.accounts[who]
        before = account.tasks.get(task_id)
        headers, allowed = if_match(condition, before)
        answer = self.ask(who, "DELETE", f"/task/{task_id}", headers=headers)
        outcome = account.delete(task_id, allowed)
        if outcome is not Outcome.DONE:
            assert not self.told(answer, account, outcome, before, allowed, headers)
            return
        assert (answer.status, answer.text) == (204, "")
        in_trash = self.ask(who, "GET", f"/task/{task_id}?deleted=true")
        self.learn(account, in_trash.json["deleted_at"])
        assert self.told(answer, account)
        self.has_task(in_trash, 200, who, account.tasks[task_id])
        for path in (f"/task/{task_id}", f"/task/{task_id}/log"):
            assert not self.told(self.ask(who, "GET", path), account, Outcome.NOT_FOUND)

    # Listings

    def asked(self, account: Account, chosen: Json, tasks: Collection[Task], iso: bool) -> tuple[dict[str, str], Json]:
        """Return the parameters for the filters chosen, and what they mean for these tasks."""
        parameters: dict[str, str] = {}
        meant: Json = {}
        completions = sorted({account.moments[task.completed] for task in tasks if task.completed})
        for parameter, value in chosen.items():
            match parameter, value:
                case "status", _:
                    parameters[parameter], meant["statuses"] = ",".join(value), set(value)
                case "completion_at", None:
                    parameters[parameter], meant["without_day"] = "none", True
                case "completion_at" | "completion_from" | "completion_to", date():
                    parameters[parameter] = as_day(value, iso) or ""
                    meant["day" + parameter.removeprefix("completion").replace("_at", "")] = value
                case _, Moment() if completions:
                    parameters[parameter], meant[parameter] = value.of(completions)
                case "q", _:
                    parameters[parameter] = meant["q"] = value
        return parameters, meant

    def list_tasks(self, who: int, parameters: dict[str, str], query: Query, limit: int | None, to_the_end: bool = True) -> None:
        """Ask for a listing of tasks with these parameters, which mean this query."""
        parameters = parameters | ({"sort": query.sort} if query.sort != "id" else {}) | ({} if limit is None else {"limit": str(limit)})
        self.read_pages(Open(who, f"/task?{urlencode(parameters)}", limit or 1000, query), to_the_end)

    def read_pages(self, start: Open, to_the_end: bool) -> None:
        """Read a listing, or its first page, to be read on later."""
        following = self.read_page(start)
        while following and to_the_end:
            following = self.read_page(following)
        if following:
            self.open = [*self.open, following][-MAX_OPEN_LISTINGS:]

    def read_page(self, page: Open) -> Open | None:
        """Read a page, and give what follows it."""
        account, listing = self.accounts[page.who], page.listing
        outcome = listing.refusal(account)
        if outcome is not Outcome.DONE:
            assert not self.told(self.ask(page.who, "GET", page.link), account, outcome)
            return None
        depends_on = listing.depends_on(account)
        tag, at, known = self.tags.get((page.who, page.link), ('"0"', None, None))
        answer = self.ask(page.who, "GET", page.link, headers={"If-None-Match": f'"1", {tag}'})
        assert self.told(answer, account)
        unchanged = answer.status == 304
        if unchanged:
            assert (answer.text, answer.headers["ETag"], answer.headers["X-Purged"]) == ("", tag, str(account.purged))
            answer = self.ask(page.who, "GET", page.link)
        assert answer.status == 200, answer
        assert answer.headers["X-Purged"] == str(account.purged)
        assert unchanged == (answer.headers["ETag"] == tag)
        assert unchanged or at != depends_on
        assert (answer.text, "Link" in answer.headers) == known or not unchanged
        self.tags[page.who, page.link] = answer.headers["ETag"], depends_on, (answer.text, "Link" in answer.headers)

        rows = [row for row in listing.rows(account) if page.place is None or row.place > page.place]
        shown = answer.json
        assert shown == [row.json for row in rows[: len(shown)]]
        assert min(1, len(rows)) <= len(shown) <= page.limit
        assert ("Link" in answer.headers) == (len(shown) < len(rows)), answer.headers
        if "Link" not in answer.headers:
            return None
        form = re.fullmatch(r'<(/task[^>]*)>; rel="next"', answer.headers["Link"])
        assert form
        return page._replace(link=form[1], place=rows[len(shown) - 1].place)

    # At the end

    def replay_over_http(self, who: int, account: Account) -> None:
        for task in account.live():
            now = self.ask(who, "GET", f"/task/{task.id}").json
            log = self.ask(who, "GET", f"/task/{task.id}/log").json
            created = self.created[who, task.id]
            fields = (*FIELDS, "deleted_at")
            assert replay(created, fields, log) == {field: now[field] for field in fields}
            latest = {"revision": created["revision"], "changed_at": created["created_at"]} if not log else log[-1]
            assert (now["revision"], now["updated_at"]) == (latest["revision"], latest["changed_at"])
            assert now["created_at"] == created["created_at"] <= now["updated_at"]
        tasks = self.ask(who, "GET", "/task").json
        assert [task["id"] for task in tasks] == [task.id for task in account.live()]

    def compare_with_the_database(self, who: int, account: Account) -> None:
        """Compare all that is stored of a user, and let the service check it, too."""
        [(user_id, *counted)] = self.sql(
            "SELECT user_id, revision, last_task_id, purged, kept_from, moment_text(nullif(kept_from_at, 'epoch'))"
            " FROM user_state JOIN users ON users.id = user_id WHERE login = %s",
            self.people[who].login,
        )
        kept_from = account.kept_from, account.moments.get(account.kept_from)
        assert counted == [account.revision, account.created, account.purged, *kept_from]
        rows = self.sql("SELECT created_revision, body::json FROM task WHERE user_id = %s ORDER BY id", user_id)
        assert rows == [(task.created, task_json(account, task)) for task in account.tasks.values()]
        log = self.sql(
            "SELECT task_id, log_json(l)::json FROM task_log l WHERE user_id = %s ORDER BY task_id, revision,"
            " array_position(ARRAY['name', 'description', 'status', 'completion_at', 'deleted_at'], field)",
            user_id,
        )
        assert log == [(task.id, entry_json(account, entry)) for task in account.tasks.values() for entry in task.log]
        told = {created: body["created_at"] for created, body in rows} | {entry["revision"]: entry["changed_at"] for _, entry in log}
        assert {*range(account.kept_from + 1, account.revision + 1)} <= set(told), "a user's revisions have no gap"
        moments = [datetime.fromisoformat(told[revision]) for revision in sorted(told)]
        assert moments == sorted(moments)
        assert self.sql("SELECT * FROM account_faults(%s)", user_id) == []


async def somebody(client: TestClient[Any, Any]) -> Person:
    """Return a user of a new account."""
    login = f"model-{secrets.token_hex(8)}"
    return Person(
        client, login, await users.create_user(service_of(client), login, "no hash, so no password", secrets.randbelow(auth.GENERATIONS))
    )


def with_headers(options: Json, headers: dict[str, str]) -> Json:
    """Return a request's options with some headers more."""
    return options | {"headers": options.get("headers", {}) | headers}


AMachine = TypeVar("AMachine", bound=type[Machine])


@contextmanager
def running(machine: AMachine, sql: Callable[..., list[tuple[Any, ...]]]) -> Iterator[AMachine]:
    """Give a machine one application for all its histories."""

    async def start() -> TestClient[Any, Any]:
        client: TestClient[Any, Any] = TestClient(TestServer(await app.create_app(configured())))
        await client.start_server()
        return client

    with asyncio.Runner() as runner:
        client = runner.run(start())
        machine.runner, machine.client, machine.sql = runner, client, staticmethod(sql)
        yield machine
        runner.run(client.close())

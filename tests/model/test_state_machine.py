"""Random users send random requests over HTTP, and every answer is compared with the model of the contract in `memory.py`.

HYPOTHESIS_PROFILE=long runs thousands of histories, other ones each time.
"""

import asyncio
import itertools
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import accounts
import app
import auth
from tests.conftest import Answer, Person
from tests.model.memory import FIELDS, STATUSES, Account, Json, Outcome, Place, Query, Task, replay, seconds

COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.generate, Phase.shrink],  # to explain a failure takes Hypothesis minutes more
}
PROFILES = {
    "default": settings(max_examples=60, stateful_step_count=40, derandomize=True, **COMMON),
    "long": settings(max_examples=3000, stateful_step_count=80, **COMMON),
}
FORM = "application/x-www-form-urlencoded"
PASSWORD = "correct horse"
MOST_HASHES = 2  # per history: each takes 60 ms
MOST_OPEN_LISTINGS = 4
MOST_MISTAKES = 5  # per history: a refused request changes nothing, and a history of them shows little
ENOUGH_TASKS = 4  # or a history is soon one of empty accounts

# What is sent

PIECES = [
    "a", "A", "b", "Z", "z", "e", "E", "7", "_", "%", "\\", "'", '"', "`", "$1", "{}", "<b>", " ", "\n", "\t", "\r\n", "\x01", "\x7f", "\u2028", "\ufeff", "\u200b",
    "е", "Е", "ё", "Ё", "ж", "Ж", "й", "ь", "\u0301", "\u0306", "\u0308", "é", "É", "Å", "\u212b", "ß", "ẞ", "İ", "ı", "Σ", "ς", "ﬁ", "Ǆ", "ა", "Ა", "中",
    "\ue000", "\uffee", "\uffff", "\U0001f600", "\U0001f468\u200d\U0001f467", "\U0010ffff",
]  # fmt: skip
NEIGHBOURS = ["еж", "Ёж", "ёж", "Ежи", "еЖ", "ж", "a", "A", "b", "B", "a%b", "a_b", "a\\b", "axb"]  # ties, and what is nearly one
DAYS = [date(1900, 1, 1), date(1999, 12, 31), date(2020, 2, 29), date(2020, 3, 1), date(9999, 12, 31)]
SORTS = [minus + key for key in ("id", "name", "status", "completion_at", "created_at", "updated_at") for minus in ("", "-")]

text = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
neighbour = st.sampled_from(NEIGHBOURS)
name = neighbour | neighbour | text.filter(str.strip) | st.sampled_from(["x", "e\u0301", "\U0001f600"]).map(lambda piece: piece * 200)
description = text | text | neighbour | st.sampled_from(["\x01", "e\u0308"]).map(lambda piece: piece * 10_000)
status = st.sampled_from(STATUSES)
day = st.none() | st.sampled_from(DAYS)
encoding = st.sampled_from(["json", "form", "multipart"])
iso = st.booleans()
whole_task = st.fixed_dictionaries({"name": name, "description": description, "status": status}, optional={"completion_at": day})
some_fields = st.fixed_dictionaries({}, optional={"name": name, "description": description, "status": status, "completion_at": day})
one_field = st.sampled_from(FIELDS).flatmap(
    lambda field: st.fixed_dictionaries({field: {"name": name, "description": description, "status": status, "completion_at": day}[field]})
)
who = st.integers(0, 2)
which = st.integers(0, 99)
condition = st.sampled_from(["none", "none", "none", "right", "stale", "any", "several", "others", "weak", "nothing"])
limit = st.none() | st.integers(1, 4)


class Manner(NamedTuple):
    """How a change is sent."""

    method: str
    encoding: str
    iso: bool
    condition: str


manner = st.builds(Manner, st.sampled_from(["PATCH", "POST", "PUT"]), encoding, iso, condition)


class Moment(NamedTuple):
    """A moment near a completion: so many microseconds later, and perhaps a bit more, written in some zone."""

    which: int
    microseconds: int
    beyond: str
    minutes_east: int


moment = st.builds(
    Moment, which, st.sampled_from([0, 0, -1, 1]), st.sampled_from(["", "00", "5"]), st.sampled_from([0, 180, -570, 345, 1439, -1439])
)
FILTERS: dict[str, st.SearchStrategy[Any]] = {
    "status": st.lists(status, min_size=1, max_size=4),
    "completion_at": day,
    "completion_from": st.sampled_from(DAYS),
    "completion_to": st.sampled_from(DAYS),
    "completed_from": moment,
    "completed_to": moment,
    "q": st.lists(st.sampled_from(["Ёж", "Е", "ж", "A", "b", "%", "_", "\\", "a_B"]) | st.sampled_from(PIECES), min_size=1, max_size=2).map(
        " ".join
    ),
}


@st.composite
def filters(draw: st.DrawFn) -> Json:
    """Choose some filters, seldom so many that nothing is left."""
    chosen = draw(st.sets(st.sampled_from(sorted(FILTERS)), min_size=1, max_size=2))
    if "completion_at" in chosen:
        chosen -= {"completion_from", "completion_to"}
    return {parameter: draw(FILTERS[parameter]) for parameter in sorted(chosen)}


MALFORMED: list[tuple[str, str, Json, set[str]]] = [
    ("POST", "/task", {}, {"name", "description", "status"}),
    ("POST", "/task", {"name": " ", "description": "", "status": "new"}, {"name"}),
    ("POST", "/task", {"name": "a", "description": "", "status": "new", "revision": 1}, {"revision"}),
    ("POST", "/task", {"name": "a", "description": "", "status": "new", "created_at": None, "id": 1}, {"created_at", "id"}),
    ("POST", "/task", {"name": "x" * 201, "description": "x" * 10_001, "status": "done"}, {"name", "description", "status"}),
    ("PATCH", "/task/1", {"name": ""}, {"name"}),
    ("PATCH", "/task/1", {"name": None, "status": None}, {"name", "status"}),
    ("POST", "/task/1", {"name": "good", "description": "\ud800"}, {"description"}),
    ("PUT", "/task/1", {"name": "good", "description": "a\0b"}, {"description"}),
    ("PATCH", "/task/1", {"status": "good", "completion_at": "30-02-2020"}, {"status", "completion_at"}),
    ("PATCH", "/task/1", {"name": "good", "id": 2}, {"id"}),
    ("PATCH", "/task/1", {"name": "good", "revision": 0}, {"revision"}),
    ("PATCH", "/task/1", {"name": "good", "colour": "red"}, {"colour"}),
    ("PATCH", "/task/1?name=good", {"name": "good"}, {"name"}),
    ("DELETE", "/task/1?forever=maybe", {}, {"forever"}),
]


def as_day(value: date | None, iso: bool = False) -> str | None:
    if value is None:
        return None
    return value.isoformat() if iso else f"{value:%d-%m-}{value.year:04}"


def from_day(value: str | None) -> date | None:
    return None if value is None else date(int(value[6:]), int(value[3:5]), int(value[:2]))


def sent(body: Json, encoding: str) -> Json:
    """Give a body as the client takes it, in one of the three types."""
    if encoding == "json":
        return {"json": body}
    fields = {field: "" if value is None else str(value) for field, value in body.items()}
    if encoding == "multipart" and fields:
        return {"data": FormData(fields, default_to_multipart=True)}
    return {"data": fields, "headers": {"Content-Type": FORM}}


def if_match(kind: str, revision: int) -> tuple[dict[str, str], Collection[int] | None]:
    """Give an If-Match for a task of this revision, and the revisions that it allows (None: any)."""
    return {
        "none": ({}, None),
        "any": ({"If-Match": "*"}, None),
        "right": ({"If-Match": f'"{revision}"'}, {revision}),
        "stale": ({"If-Match": f'"{revision - 1}"'}, {revision - 1}),
        "several": ({"If-Match": f'"a,b", "{revision + 1}" ,W/"3","{revision}"'}, {revision, revision + 1}),
        "others": ({"If-Match": f'"{revision + 1}", "0{revision}", "{revision}-gzip"'}, {revision + 1}),
        "weak": ({"If-Match": f'W/"{revision}"'}, set[int]()),
        "nothing": ({"If-Match": '""'}, set[int]()),
    }[kind]


class Open(NamedTuple):
    """A listing that somebody is in the middle of: tasks, beyond a place, or a task's log, beyond so many entries."""

    who: int
    link: str
    limit: int
    query: Query | None
    place: Place | None
    task_id: int
    entries_read: int


class Histories(RuleBasedStateMachine):
    """What is done, and what must come back."""

    runner: ClassVar[asyncio.Runner]
    client: ClassVar[TestClient[Any, Any]]
    sql: ClassVar[Callable[..., list[tuple[Any, ...]]]]
    numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.people: list[Person] = []
        self.accounts: list[Account] = []
        self.created: dict[tuple[int, int], Json] = {}
        self.seen: dict[tuple[int, int], list[Json]] = {}
        self.tags: dict[tuple[int, str], tuple[str, int]] = {}
        self.open: list[Open] = []
        self.hashes = 0
        self.mistakes = 0

    # Means

    def ask(self, who: int, method: str, path: str, **options: Any) -> Answer:
        note(f"{who}: {method} {path} {str(options)[:500]}")
        answer = self.runner.run(self.people[who](method, path, **options))
        note(f"   {answer.status} X-Revision {answer.headers.get('X-Revision')} {answer.text[:300]}")
        return answer

    def among(self, who: int) -> tuple[int, Account]:
        who %= len(self.people)
        return who, self.accounts[who]

    def pick(self, account: Account, which: int) -> int:
        """Give the id of a task: mostly of one that is there."""
        live = account.live()
        return live[which % len(live)].id if live and which < 90 else which % 8 + 1

    def learn(self, account: Account, at: str) -> None:
        """Take note of the moment of the latest revision: later than all before it, and not of tomorrow."""
        assert account.revision not in account.moments
        assert all(at > earlier for earlier in account.moments.values())
        assert abs(float(seconds(at)) - time.time()) < 60
        account.moments[account.revision] = at

    def refused(self, answer: Answer, status: int, kind: str | None = None) -> None:
        assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer
        assert answer.json | {"detail": "", "errors": []} == {
            "type": f"/docs/problems#{kind}" if kind else "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": "",
            "errors": [],
        }
        assert "ETag" not in answer.headers

    def told(self, answer: Answer, account: Account, outcome: Outcome = Outcome.DONE) -> bool:
        """Check that the answer has the user's revision; if it refuses, that it does so rightly."""
        assert answer.headers["X-Revision"] == str(account.revision)
        if outcome is Outcome.NOT_FOUND:
            self.refused(answer, 404)
        elif outcome is Outcome.CHANGED_MEANWHILE:
            self.refused(answer, 412, "changed-meanwhile")
        return outcome in (Outcome.DONE, Outcome.NOTHING_TO_DO)

    def has_task(self, answer: Answer, status: int, who: int, task: Task, tagged: bool = True) -> None:
        assert answer.status == status, answer
        assert answer.json == self.accounts[who].show(task)
        assert answer.headers.get("ETag") == (f'"{task.updated}"' if tagged else None)
        self.seen.setdefault((who, task.id), []).append(answer.json)

    # Who

    @initialize(first=st.lists(whole_task, min_size=3, max_size=8), second=st.lists(whole_task, min_size=1, max_size=3))
    def two_people_come(self, first: list[Json], second: list[Json]) -> None:
        for who, tasks in enumerate((first, second)):
            login = f"model-{secrets.token_hex(8)}"
            caller = self.runner.run(accounts.create_user(login, "no hash, so no password", secrets.randbelow(auth.GENERATIONS)))
            self.people.append(Person(self.client, login, caller))
            self.accounts.append(Account())
            for fields in tasks:
                self.create_task(who, fields, "json", False)

    @precondition(lambda self: self.hashes < MOST_HASHES and len(self.people) < 3)
    @rule(encoding=encoding)
    def somebody_registers(self, encoding: str) -> None:
        self.hashes += 1
        login = f"Ёжик-{secrets.token_hex(4)}-{next(self.numbers)}"
        answer = self.runner.run(Person(self.client)("POST", "/register", **sent({"login": login, "password": PASSWORD}, encoding)))
        assert (answer.status, set(answer.json), answer.json["token_type"]) == (201, {"access_token", "token_type", "expires_in"}, "Bearer")
        self.people.append(Person(self.client, login))
        self.people[-1].token = answer.json["access_token"]
        self.accounts.append(Account())

    @precondition(lambda self: self.hashes < MOST_HASHES and len(self.people) == 3)
    @rule(form=st.sampled_from(["same", "upper", "lower", "decomposed"]), right=st.booleans())
    def the_registered_one_logs_in(self, form: str, right: bool) -> None:
        self.hashes += 1
        login = self.people[2].login
        typed = {"same": login, "upper": login.upper(), "lower": login.lower(), "decomposed": login.replace("Ё", "Е\u0308")}[form]
        body = {"login": typed, "password": PASSWORD if right else PASSWORD + "!"}
        answer = self.runner.run(Person(self.client)("POST", "/get-token", json=body))
        assert answer.status == (200 if right else 401)
        if right:
            self.people[2].token = answer.json["access_token"]

    @precondition(lambda self: self.mistakes < MOST_MISTAKES)
    @rule(who=who, token=st.sampled_from([None, "x", "flipped"]), method=st.sampled_from(["GET", "PATCH", "DELETE"]), which=which)
    def nobody_asks(self, who: int, token: str | None, method: str, which: int) -> None:
        self.mistakes += 1
        who, account = self.among(who)
        stranger, real = Person(self.client), self.people[who].token or ""
        stranger.token = real[:-2] + ("AA" if real[-2:] != "AA" else "BA") if token == "flipped" else token
        self.refused(self.runner.run(stranger(method, f"/task/{self.pick(account, which)}", json={"name": "stolen"})), 401)

    # Changes

    @rule(who=who, fields=whole_task, encoding=encoding, iso=iso)
    def create(self, who: int, fields: Json, encoding: str, iso: bool) -> None:
        self.create_task(who % len(self.people), fields, encoding, iso)

    def create_task(self, who: int, fields: Json, encoding: str, iso: bool) -> None:
        account = self.accounts[who]
        body = fields | ({"completion_at": as_day(fields["completion_at"], iso)} if "completion_at" in fields else {})
        answer = self.ask(who, "POST", "/task", **sent(body, encoding))
        assert answer.status == 201, answer
        task = account.create(**fields)
        self.learn(account, answer.json["created_at"])
        assert self.told(answer, account)
        assert answer.headers["Location"] == f"/task/{task.id}"
        self.has_task(answer, 201, who, task)
        self.created[who, task.id] = answer.json

    @rule(
        who=who,
        which=which,
        fields=one_field | some_fields,
        manner=manner,
        revision=st.sampled_from(["none", "none", "none", "right", "stale"]),
    )
    def change(self, who: int, which: int, fields: Json, manner: Manner, revision: str) -> None:
        who, account = self.among(who)
        task_id = self.pick(account, which)
        present = account.tasks[task_id].updated if task_id in account.tasks else 2
        named = max(present - (revision == "stale"), 1)
        self.send_change(who, task_id, fields, fields | ({} if revision == "none" else {"revision": named}), manner)

    @precondition(lambda self: self.seen)
    @rule(which=which, version=st.integers(0, 3), fields=st.just({}) | one_field, manner=manner, with_revision=st.booleans())
    def send_back_what_was_read(self, which: int, version: int, fields: Json, manner: Manner, with_revision: bool) -> None:
        who, task_id = list(self.seen)[which % len(self.seen)]
        read = self.seen[who, task_id][-1 - version % len(self.seen[who, task_id])]
        wanted = {field: read[field] for field in FIELDS} | {"completion_at": from_day(read["completion_at"])} | fields
        body = read | wanted
        if not with_revision:
            del body["revision"]
        self.send_change(who, task_id, wanted, body, manner)

    @rule(who=who, which=which, field=st.sampled_from(FIELDS), manner=manner)
    def repeat_a_field(self, who: int, which: int, field: str, manner: Manner) -> None:
        who, account = self.among(who)
        task = account.find(self.pick(account, which))
        if task:
            wanted = {field: getattr(task, field)}
            self.send_change(who, task.id, wanted, wanted, manner)

    def send_change(self, who: int, task_id: int, wanted: Json, body: Json, manner: Manner) -> None:
        """Send the body, of which the fields `wanted` mean a change, and `revision` a condition."""
        account = self.accounts[who]
        headers, allowed = if_match(manner.condition, account.tasks[task_id].updated if task_id in account.tasks else 2)
        if "revision" in body:
            allowed = {body["revision"]} if allowed is None else {body["revision"]} & set(allowed)
        if "completion_at" in body:
            body = body | {"completion_at": as_day(wanted["completion_at"], manner.iso)}
        options = sent(body, manner.encoding)
        answer = self.ask(who, manner.method, f"/task/{task_id}", **options | {"headers": options.get("headers", {}) | headers})
        outcome = account.change(task_id, wanted, allowed)
        if outcome is Outcome.DONE:
            assert answer.status == 200, answer
            self.learn(account, answer.json["updated_at"])
        if self.told(answer, account, outcome):
            self.has_task(answer, 200, who, account.tasks[task_id], tagged=manner.method != "PUT")

    @precondition(lambda self: sum(len(account.live()) for account in self.accounts) > ENOUGH_TASKS)
    @rule(who=who, which=which, condition=condition)
    def delete(self, who: int, which: int, condition: str) -> None:
        who, account = self.among(who)
        task_id = self.pick(account, which)
        headers, allowed = if_match(condition, account.tasks[task_id].updated if task_id in account.tasks else 2)
        answer = self.ask(who, "DELETE", f"/task/{task_id}", headers=headers)
        if self.told(answer, account, account.delete(task_id, allowed)):
            assert (answer.status, answer.text) == (204, "")
            for path in (f"/task/{task_id}", f"/task/{task_id}/log"):
                self.told(self.ask(who, "GET", path), account, Outcome.NOT_FOUND)

    @precondition(lambda self: self.mistakes < MOST_MISTAKES and all(account.find(1) for account in self.accounts))
    @rule(who=who, case=st.sampled_from(MALFORMED))
    def make_a_mistake(self, who: int, case: tuple[str, str, Json, set[str]]) -> None:
        self.mistakes += 1
        who, _ = self.among(who)
        method, path, body, fields = case
        answer = self.ask(who, method, path, **sent(body, "json"))
        self.refused(answer, 400)
        assert {error["field"] for error in answer.json["errors"]} == fields

    @precondition(lambda self: self.mistakes < MOST_MISTAKES)
    @rule(who=who, which=which, header=st.sampled_from(["1", '"1', "'1'", '"1" "2"', '*, "1"', "", 'w/"1"']))
    def misquote_a_tag(self, who: int, which: int, header: str) -> None:
        self.mistakes += 1
        who, account = self.among(who)
        task = account.find(self.pick(account, which))
        if task:
            self.refused(self.ask(who, "PATCH", f"/task/{task.id}", json={"name": "good"}, headers={"If-Match": header}), 400)

    # Reads

    @rule(
        who=who,
        which=st.integers(0, 105),
        method=st.sampled_from(["GET", "GET", "HEAD"]),
        statuses=st.none() | st.none() | st.lists(status, min_size=1, max_size=4),
        on=st.none() | st.none() | st.sampled_from([*DAYS, "none"]),
        iso=iso,
        known=condition,
    )
    def read(self, who: int, which: int, method: str, statuses: list[str] | None, on: Any, iso: bool, known: str) -> None:
        who, account = self.among(who)
        task_id = self.pick(account, which) if which < 100 else 2**63 - 103 + which
        task = account.find(task_id)
        parameters = {} if statuses is None else {"status": ",".join(statuses)}
        if on is not None:
            parameters["completion_at"] = on if on == "none" else as_day(on, iso) or ""
        query = Query(statuses, day=None if on == "none" else on, without_day=on == "none")
        revision = task.updated if task else 1
        headers = {"If-None-Match": tags} if (tags := if_match(known, revision)[0].get("If-Match")) else {}
        answer = self.ask(who, method, f"/task/{task_id}?{urlencode(parameters)}", headers=headers)
        if task is None or not account.matches(task, query):
            if task_id < 2**63:  # beyond, nobody's data need be asked
                assert answer.headers["X-Revision"] == str(account.revision)
            assert answer.status == 404
            return
        assert self.told(answer, account)
        unchanged = known in ("any", "right", "several", "weak")
        if unchanged:
            assert (answer.status, answer.text, answer.headers["ETag"]) == (304, "", f'"{task.updated}"')
        elif method == "HEAD":
            assert (answer.status, answer.text, answer.headers["ETag"]) == (200, "", f'"{task.updated}"')
        else:
            self.has_task(answer, 200, who, task)

    @rule(who=who, sort=st.sampled_from(SORTS), limit=st.integers(1, 3), to_the_end=st.booleans())
    def list_all(self, who: int, sort: str, limit: int, to_the_end: bool) -> None:
        self.list(who, {}, sort, limit, False, to_the_end)

    @rule(who=who, chosen=filters(), sort=st.sampled_from(SORTS), limit=limit, iso=iso)
    def list_some(self, who: int, chosen: Json, sort: str, limit: int | None, iso: bool) -> None:
        self.list(who, chosen, sort, limit, iso, True)

    def list(self, who: int, chosen: Json, sort: str, limit: int | None, iso: bool, to_the_end: bool) -> None:
        who, account = self.among(who)
        parameters, query = self.asked(account, chosen, sort, iso)
        if limit is not None:
            parameters["limit"] = str(limit)
        listing: Open | None = Open(who, f"/task?{urlencode(parameters)}", limit or 1000, query, None, 0, 0)
        while listing:
            listing = self.read_page(listing)
            if listing and not to_the_end:
                self.open = [*self.open, listing][-MOST_OPEN_LISTINGS:]
                break

    @rule(who=who, which=which, limit=st.integers(1, 3), to_the_end=st.booleans())
    def read_log(self, who: int, which: int, limit: int, to_the_end: bool) -> None:
        who, account = self.among(who)
        task_id = self.pick(account, which)
        path = f"/task/{task_id}/log?limit={limit}"
        listing: Open | None = Open(who, path, limit, None, None, task_id, 0)
        while listing:
            listing = self.read_page(listing)
            if listing and not to_the_end:
                self.open = [*self.open, listing][-MOST_OPEN_LISTINGS:]
                break

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, MOST_OPEN_LISTINGS - 1))
    def read_on(self, which: int) -> None:
        following = self.read_page(self.open.pop(which % len(self.open)))
        if following:
            self.open.append(following)

    @precondition(lambda self: self.open and self.mistakes < MOST_MISTAKES)
    @rule(which=st.integers(0, MOST_OPEN_LISTINGS - 1), who=who)
    def use_a_cursor_elsewhere(self, which: int, who: int) -> None:
        self.mistakes += 1
        listing = self.open[which % len(self.open)]
        who, account = self.among(who)
        cursor = re.search(r"[?&]cursor=([^&]*)", listing.link)
        assert cursor
        if who != listing.who and (listing.query or account.find(listing.task_id)):
            self.refused(self.ask(who, "GET", listing.link), 400)
        for task in account.live() if who == listing.who and listing.query is None else ():
            if task.id != listing.task_id:
                self.refused(self.ask(who, "GET", listing.link.replace(f"/{listing.task_id}/log", f"/{task.id}/log")), 400)
        self.refused(self.ask(listing.who, "GET", f"/task?sort=-id&limit=999&cursor={cursor[1]}"), 400)

    def asked(self, account: Account, chosen: Json, sort: str, iso: bool) -> tuple[dict[str, str], Query]:
        """Give the parameters of a listing and what they mean."""
        parameters = {"sort": sort} if sort != "id" else {}
        meant: Json = {"sort": sort}
        for parameter, value in chosen.items():
            match parameter, value:
                case "status", _:
                    parameters[parameter], meant["statuses"] = ",".join(value), set(value)
                case "completion_at", None:
                    parameters[parameter], meant["without_day"] = "none", True
                case "completion_at" | "completion_from" | "completion_to", date():
                    parameters[parameter] = as_day(value, iso) or ""
                    meant["day" + parameter.removeprefix("completion").replace("_at", "")] = value
                case _, Moment():
                    completions = sorted(account.moments[task.completed] for task in account.live() if task.completed)
                    if not completions:
                        continue
                    known = completions[value.which % len(completions)]
                    parameters[parameter] = self.near(known, value)
                    meant[parameter] = seconds(known) + Fraction(2 * value.microseconds + (value.beyond == "5"), 2_000_000)
                case "q", _:
                    parameters[parameter] = meant["q"] = value
        return parameters, Query(**meant)

    def near(self, known: str, wanted: Moment) -> str:
        zone = timezone(timedelta(minutes=wanted.minutes_east))
        local = (datetime.fromisoformat(known) + timedelta(microseconds=wanted.microseconds)).astimezone(zone)
        sign, minutes = "-" if wanted.minutes_east < 0 else "+", abs(wanted.minutes_east)
        return f"{local:%Y-%m-%dT%H:%M:%S.%f}{wanted.beyond}{sign}{minutes // 60:02}:{minutes % 60:02}"

    def read_page(self, listing: Open) -> Open | None:
        """Read a page, and give what follows it."""
        account = self.accounts[listing.who]
        task = account.find(listing.task_id)
        if listing.query is None and task is None:
            assert not self.told(self.ask(listing.who, "GET", listing.link), account, Outcome.NOT_FOUND)
            return None
        depends_on = account.revision if listing.query else task.updated if task else 0
        tag, at = self.tags.get((listing.who, listing.link), ('"0"', -1))
        answer = self.ask(listing.who, "GET", listing.link, headers={"If-None-Match": f'"1", {tag}'})
        assert self.told(answer, account)
        if at == depends_on:
            assert (answer.status, answer.text, answer.headers["ETag"]) == (304, "", tag)
            answer = self.ask(listing.who, "GET", listing.link)
        assert answer.status == 200, answer
        assert answer.headers["ETag"] != tag or at == depends_on
        self.tags[listing.who, listing.link] = answer.headers["ETag"], depends_on

        rest: list[Task] | list[Json]
        if listing.query:
            rest = account.list(listing.query, listing.place)
            shown = [account.show(other) for other in rest]
        else:
            rest = shown = account.show_log(task)[listing.entries_read :] if task else []
        page = answer.json
        assert page == shown[: len(page)]
        assert min(1, len(shown)) <= len(page) <= listing.limit
        assert ("Link" in answer.headers) == (len(page) < len(shown)), answer.headers
        if "Link" not in answer.headers:
            return None
        form = re.fullmatch(r'<(/task[^>]*)>; rel="next"', answer.headers["Link"])
        assert form
        place = account.place(account.tasks[page[-1]["id"]], listing.query.sort) if listing.query else None
        return listing._replace(link=form[1], place=place, entries_read=listing.entries_read + len(page))

    # At the end

    def teardown(self) -> None:
        for who, account in enumerate(self.accounts):
            self.replay_over_http(who, account)
            self.replay_in_the_database(who, account)

    def replay_over_http(self, who: int, account: Account) -> None:
        for task in account.live():
            now = self.ask(who, "GET", f"/task/{task.id}").json
            log = self.ask(who, "GET", f"/task/{task.id}/log").json
            created = self.created[who, task.id]
            assert replay(created, FIELDS, log) == {field: now[field] for field in FIELDS}
            latest = {"revision": created["revision"], "changed_at": created["created_at"]} if not log else log[-1]
            assert (now["revision"], now["updated_at"]) == (latest["revision"], latest["changed_at"])
            assert now["created_at"] == created["created_at"] <= now["updated_at"]
        tasks = self.ask(who, "GET", "/task").json
        assert [task["id"] for task in tasks] == [task.id for task in account.live()]

    def replay_in_the_database(self, who: int, account: Account) -> None:
        [(user_id, revision, last_task_id)] = self.sql(
            "SELECT user_id, revision, last_task_id FROM user_state JOIN users ON users.id = user_id WHERE login = %s",
            self.people[who].login,
        )
        assert (revision, last_task_id) == (account.revision, len(account.tasks))
        self.sql("SET TimeZone = 'UTC'")
        fields = (*FIELDS, "deleted_at")
        rows = self.sql(
            "SELECT id, created_revision, created_at, revision, updated_at, name, description, status, completion_at::text, deleted_at::text"
            " FROM task WHERE user_id = %s ORDER BY id",
            user_id,
        )
        assert [row[0] for row in rows] == list(account.tasks)
        log = self.sql(
            "SELECT task_id, revision, changed_at, field, old, new FROM task_log WHERE user_id = %s ORDER BY task_id, revision,"
            " array_position(ARRAY['name', 'description', 'status', 'completion_at', 'deleted_at'], field)",
            user_id,
        )
        moments = {row[1]: row[2] for row in rows} | {entry[1]: entry[2] for entry in log}
        assert sorted(moments) == [*range(1, revision + 1)], "a user's revisions have no gap"
        assert len({(entry[0], entry[1]) for entry in log}) + len(rows) == revision, "a revision is of one task"
        ascending = [moments[n] for n in sorted(moments)]
        assert all(one < next_one for one, next_one in itertools.pairwise(ascending))
        for task_id, created_revision, created_at, task_revision, updated_at, *values in rows:
            entries = [{"field": entry[3], "old": entry[4], "new": entry[5]} for entry in log if entry[0] == task_id]
            created = self.created[who, task_id] | {"deleted_at": None}
            created["completion_at"] = as_day(from_day(created["completion_at"]), True)
            assert replay(created, fields, entries) == dict(zip(fields, values, strict=True))
            latest = max([created_revision, *(entry[1] for entry in log if entry[0] == task_id)])
            assert (task_revision, updated_at) == (latest, moments[latest])
            assert (created_revision, created_at) == (created["revision"], datetime.fromisoformat(created["created_at"]))


@pytest.fixture
def machine(sql: Callable[..., list[tuple[Any, ...]]]) -> Iterator[type[Histories]]:
    """The machine, with one application for all its histories."""

    async def start() -> TestClient[Any, Any]:
        client: TestClient[Any, Any] = TestClient(TestServer(await app.create_app()))
        await client.start_server()
        return client

    with asyncio.Runner() as runner:
        client = runner.run(start())
        Histories.runner, Histories.client, Histories.sql = runner, client, staticmethod(sql)
        yield Histories
        runner.run(client.close())


def test_whatever_users_do_the_service_does_what_the_contract_says(machine: type[Histories]) -> None:
    run_state_machine_as_test(machine, settings=PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "default")])

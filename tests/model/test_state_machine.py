"""Random users send random requests over HTTP, and every answer is compared with the model of the contract in `memory.py`.

HYPOTHESIS_PROFILE=long runs thousands of histories, other ones each time.
"""

import itertools
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from tasks.schemas import FIELDS
from tests.conftest import Person
from tests.model.machine import MAX_OPEN_LISTINGS, Machine, Open, in_profile, profiles, running
from tests.model.memory import Account, Json, Outcome
from tests.model.requests import (
    DAYS,
    SORTS,
    Manner,
    as_day,
    condition,
    encoding,
    filters,
    from_day,
    if_match,
    iso,
    limit,
    manner,
    one_field,
    sent,
    some_fields,
    status,
    which,
    who,
    whole_task,
)  # fmt: skip
from tests.model.shown import Log, Query

PASSWORD = "correct horse"
MAX_HASHES = 2  # per history: each takes 60 ms
MAX_MISTAKES = 5  # per history: a refused request changes nothing, and a history of them shows little
ENOUGH_TASKS = 4  # or a history is soon one of empty accounts
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


class Histories(Machine):
    """What is done, and what must come back."""

    numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.hashes = 0
        self.mistakes = 0

    # Who

    @initialize(first=st.lists(whole_task, min_size=3, max_size=8), second=st.lists(whole_task, min_size=1, max_size=3))
    def two_people_come(self, first: list[Json], second: list[Json]) -> None:
        self.come(first)
        self.come(second)

    @precondition(lambda self: self.hashes < MAX_HASHES and len(self.people) < 3)
    @rule(encoding=encoding)
    def somebody_registers(self, encoding: str) -> None:
        self.hashes += 1
        login = f"Ёжик-{secrets.token_hex(4)}-{next(self.numbers)}"
        answer = self.runner.run(Person(self.client)("POST", "/register", **sent({"login": login, "password": PASSWORD}, encoding)))
        assert (answer.status, set(answer.json), answer.json["token_type"]) == (201, {"access_token", "token_type", "expires_in"}, "Bearer")
        self.people.append(Person(self.client, login))
        self.people[-1].token = answer.json["access_token"]
        self.accounts.append(Account())

    @precondition(lambda self: self.hashes < MAX_HASHES and len(self.people) == 3)
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

    @precondition(lambda self: self.mistakes < MAX_MISTAKES)
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
        self.change_task(who, task_id, fields, fields | ({} if revision == "none" else {"revision": named}), manner)

    @precondition(lambda self: self.seen)
    @rule(which=which, version=st.integers(0, 3), fields=st.just({}) | one_field, manner=manner, with_revision=st.booleans())
    def send_back_what_was_read(self, which: int, version: int, fields: Json, manner: Manner, with_revision: bool) -> None:
        who, task_id = list(self.seen)[which % len(self.seen)]
        read = self.seen[who, task_id][-1 - version % len(self.seen[who, task_id])]
        wanted = {field: read[field] for field in FIELDS} | {"completion_at": from_day(read["completion_at"])} | fields
        body = read | wanted
        if not with_revision:
            del body["revision"]
        self.change_task(who, task_id, wanted, body, manner)

    @rule(who=who, which=which, field=st.sampled_from(FIELDS), manner=manner)
    def repeat_a_field(self, who: int, which: int, field: str, manner: Manner) -> None:
        who, account = self.among(who)
        task = account.find(self.pick(account, which))
        if task:
            wanted = {field: getattr(task, field)}
            self.change_task(who, task.id, wanted, wanted, manner)

    @precondition(lambda self: sum(len(account.live()) for account in self.accounts) > ENOUGH_TASKS)
    @rule(who=who, which=which, condition=condition)
    def delete(self, who: int, which: int, condition: str) -> None:
        who, account = self.among(who)
        self.delete_task(who, self.pick(account, which), condition)

    @precondition(lambda self: self.mistakes < MAX_MISTAKES and all(account.find(1) for account in self.accounts))
    @rule(who=who, case=st.sampled_from(MALFORMED))
    def make_a_mistake(self, who: int, case: tuple[str, str, Json, set[str]]) -> None:
        self.mistakes += 1
        who, _ = self.among(who)
        method, path, body, fields = case
        answer = self.ask(who, method, path, **sent(body, "json"))
        self.refused(answer, 400)
        assert {error["field"] for error in answer.json["errors"]} == fields

    @precondition(lambda self: self.mistakes < MAX_MISTAKES)
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
        headers = {"If-None-Match": tags} if (tags := if_match(known, task)[0].get("If-Match")) else {}
        answer = self.ask(who, method, f"/task/{task_id}?{urlencode(parameters)}", headers=headers)
        if task is None or not query.matches(account, task):
            if task_id < 2**63:  # beyond, nobody's data need be asked
                assert answer.headers["X-Revision"] == str(account.revision)
            assert answer.status == 404
            return
        assert self.told(answer, account)
        unchanged = known in ("any", "right", "several", "weak") or (known in ("first", "earlier") and task.created == task.updated)
        if unchanged:
            assert (answer.status, answer.text, answer.headers["ETag"]) == (304, "", f'"{task.updated}"')
        elif method == "HEAD":
            assert (answer.status, answer.text, answer.headers["ETag"]) == (200, "", f'"{task.updated}"')
        else:
            self.has_task(answer, 200, who, task)

    @rule(who=who, sort=st.sampled_from(SORTS), limit=st.integers(1, 3), to_the_end=st.booleans())
    def list_all(self, who: int, sort: str, limit: int, to_the_end: bool) -> None:
        who, _ = self.among(who)
        self.list_tasks(who, {}, Query(sort=sort), limit, to_the_end)

    @rule(who=who, chosen=filters(), sort=st.sampled_from(SORTS), limit=limit, iso=iso)
    def list_some(self, who: int, chosen: Json, sort: str, limit: int | None, iso: bool) -> None:
        who, account = self.among(who)
        parameters, meant = self.asked(account, chosen, account.live(), iso)
        self.list_tasks(who, parameters, Query(sort=sort, **meant), limit)

    @rule(who=who, which=which, limit=st.integers(1, 3), to_the_end=st.booleans())
    def read_log(self, who: int, which: int, limit: int, to_the_end: bool) -> None:
        who, account = self.among(who)
        task_id = self.pick(account, which)
        self.read_pages(Open(who, f"/task/{task_id}/log?limit={limit}", limit, Log(task_id)), to_the_end)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, MAX_OPEN_LISTINGS - 1))
    def read_on(self, which: int) -> None:
        following = self.read_page(self.open.pop(which % len(self.open)))
        if following:
            self.open.append(following)

    @precondition(lambda self: self.open and self.mistakes < MAX_MISTAKES)
    @rule(which=st.integers(0, MAX_OPEN_LISTINGS - 1), who=who)
    def use_a_cursor_elsewhere(self, which: int, who: int) -> None:
        self.mistakes += 1
        page = self.open[which % len(self.open)]
        who, account = self.among(who)
        cursor = re.search(r"[?&]cursor=([^&]*)", page.link)
        assert cursor
        if who != page.who and page.listing.refusal(account) is Outcome.DONE:
            self.refused(self.ask(who, "GET", page.link), 400)
        if who == page.who and isinstance(page.listing, Log):
            for other in {task.id for task in account.live()} - {page.listing.task_id}:
                self.refused(self.ask(who, "GET", page.link.replace(f"/{page.listing.task_id}/log", f"/{other}/log")), 400)
        self.refused(self.ask(page.who, "GET", f"/task?sort=-id&limit=999&cursor={cursor[1]}"), 400)

    # At the end

    def teardown(self) -> None:
        for number, account in enumerate(self.accounts):
            self.replay_over_http(number, account)
            self.compare_with_the_database(number, account)


@pytest.fixture
def machine(sql: Callable[..., list[tuple[Any, ...]]]) -> Iterator[type[Histories]]:
    """The machine, with one application for all its histories."""
    with running(Histories, sql) as machine:
        yield machine


@in_profile
def test_whatever_users_do_the_service_does_what_the_contract_says(machine: type[Histories], profile: str) -> None:
    run_state_machine_as_test(machine, settings=profiles(40, 40, 80)[profile])

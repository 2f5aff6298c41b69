"""Clients that keep a copy each and pull what has changed, as they live: now and then, half-way, after a long time, while others write.

HYPOTHESIS_PROFILE=long runs thousands of histories, other ones each time.
"""

import asyncio
import random
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import ClientPayloadError
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from tasks.values import STATUSES
from tests.conftest import Answer, Person
from tests.model.machine import PROFILE, Machine, in_profile, profiles, running, somebody
from tests.model.memory import Json
from tests.model.requests import which

Sql = Callable[..., list[tuple[Any, ...]]]


class Gone(Exception):
    """The copy can't be brought up to date: what was purged may be in it."""


class Copy:
    """A client's copy of all tasks, and what it knows of how far it goes."""

    def __init__(self, person: Person, limit: int) -> None:
        self.person, self.limit = person, limit
        self.start_over()

    def start_over(self) -> None:
        self.tasks: dict[int, Json] = {}
        self.revision, self.purged = 0, 0
        self.link: str | None = None  # to the next page of a pull under way

    async def pull(self, most_pages: int = 1000) -> None:
        """Bring the copy up to date, or as far as so many pages carry."""
        for _ in range(most_pages):
            try:
                if await self.turn_page():
                    break
            except Gone:
                self.start_over()

    async def turn_page(self) -> bool:
        """Ask for a page, and tell whether it was the last one. Raises Gone."""
        if self.revision == 0 and self.link is None:
            self.tasks.clear()  # some of it may have been purged since a pull that was given up
        answer = await self.person.get(self.link or f"/task?since={self.revision}&limit={self.limit}")
        if answer.status == 410:
            assert self.revision or self.link, "to start is never refused"
            raise Gone
        assert answer.status == 200, answer
        self.tasks |= {task["id"]: task for task in answer.json}
        self.link = following(answer)
        if self.link is None:
            purged = int(answer.headers["X-Purged"])
            if purged != self.purged:
                await self.empty_trash()
            self.revision, self.purged = int(answer.headers["X-Revision"]), purged
        return self.link is None

    async def empty_trash(self) -> None:
        """Forget what is in the trash here and not there any more."""
        there = {task["id"] for task in await everything(self.person, f"/task?deleted=true&limit={self.limit}")}
        self.tasks = {task_id: task for task_id, task in self.tasks.items() if not task["deleted_at"] or task_id in there}


def following(answer: Answer) -> str | None:
    """Return the address of the next page, if there is one."""
    form = re.fullmatch(r'<([^>]*)>; rel="next"', answer.headers.get("Link", ""))
    return form[1] if form else None


async def everything(person: Person, path: str) -> list[Json]:
    """Return all pages of a listing as one."""
    tasks: list[Json] = []
    link: str | None = path
    while link:
        answer = await person.get(link)
        assert answer.status == 200, answer
        tasks += answer.json
        link = following(answer)
    return tasks


async def truth(person: Person) -> dict[int, Json]:
    """Return all that there is, the trash included."""
    return {task["id"]: task for path in ("/task", "/task?deleted=true") for task in await everything(person, path)}


class Writer:
    """Somebody else who changes the tasks, in every way that there is."""

    def __init__(self, person: Person, sql: Sql) -> None:
        self.person, self.sql = person, sql
        self.tasks = self.revision = 0

    async def write(self, verb: str, which: int) -> None:
        """Do something with one of the tasks, if it is there, or with all of them."""
        task = f"/task/{which % max(self.tasks, 1) + 1}"
        status = STATUSES[which % len(STATUSES)]
        match verb:
            case "create":
                answer = await self.person.post("/task", json={"name": str(which), "description": "", "status": status})
                self.tasks = max(self.tasks, answer.json["id"])
            case "change":
                answer = await self.person.patch(task, json={"status": status, "description": str(which)})
            case "delete":
                answer = await self.person.delete(task)
            case "erase":
                answer = await self.person.delete(f"{task}?forever=true")
            case "restore":
                answer = await self.person.post(f"{task}/restore", json={})
            case "undo":
                answer = await self.person.post("/task/undo", json={"since": max(self.revision - which % 12, 0)})
            case "sweep":
                await self.sweep(which)
                return
        assert answer.status < 300 or answer.status in (404, 410), answer
        self.revision = int(answer.headers["X-Revision"])

    async def sweep(self, which: int) -> None:
        """Let a part of the trash be purged, the oldest first."""
        trash = sorted(task["deleted_at"] for task in await everything(self.person, "/task?deleted=true"))
        if trash:
            await asyncio.to_thread(self.sql, "SELECT trash_sweep(%s, 1000, 100000)", trash[which % len(trash)])


VERBS = ["create", "create", "change", "change", "change", "delete", "delete", "restore", "erase", "undo", "sweep"]


class Clients(Machine):
    """One thing after another, in any order: what is written, and what is pulled of it."""

    @initialize(limits=st.lists(st.integers(1, 5), min_size=2, max_size=4), tasks=st.integers(0, 8))
    def clients_come(self, limits: list[int], tasks: int) -> None:
        self.come([])
        self.writer = Writer(self.people[0], self.sql)
        self.copies = [Copy(self.people[0], limit) for limit in limits]
        for number in range(tasks):
            self.runner.run(self.writer.write("create", number))

    @rule(verbs=st.lists(st.tuples(st.sampled_from(VERBS), which), min_size=1, max_size=4))
    def write(self, verbs: list[tuple[str, int]]) -> None:
        for verb, number in verbs:
            self.runner.run(self.writer.write(verb, number))

    @rule(which=which, pages=st.integers(1, 4))
    def pull(self, which: int, pages: int) -> None:
        self.runner.run(self.copies[which % len(self.copies)].pull(pages))

    @rule(which=which)
    def give_up_a_pull(self, which: int) -> None:
        self.copies[which % len(self.copies)].link = None

    @rule(which=which)
    def pull_to_the_end(self, which: int) -> None:
        copy = self.copies[which % len(self.copies)]
        self.runner.run(copy.pull())
        assert copy.tasks == self.runner.run(truth(copy.person))

    def teardown(self) -> None:
        for number in range(len(self.copies)):
            self.pull_to_the_end(number)


class Storm:
    """All at once: writers, and beside them clients that pull, look back and take the account out."""

    def __init__(self, person: Person, sql: Sql, choose: random.Random) -> None:
        self.person, self.choose, self.blows = person, choose, True
        self.writers = [Writer(person, sql) for _ in range(3)]
        self.copies = [Copy(person, choose.randint(1, 9)) for _ in range(8)]
        self.exports: list[str] = []

    async def blow(self) -> None:
        beside = [self.keep_looking_back(), self.keep_exporting(), *map(self.keep_pulling, self.copies)]
        clients = [asyncio.ensure_future(client) for client in beside]
        await asyncio.gather(*map(self.keep_writing, self.writers))
        self.blows = False
        await asyncio.gather(*clients)

    async def keep_writing(self, writer: Writer) -> None:
        for _ in range(60):
            await writer.write(self.choose.choice(VERBS), self.choose.randrange(100))

    async def keep_pulling(self, copy: Copy) -> None:
        while self.blows:
            await copy.pull(self.choose.randint(1, 6))
            if self.choose.random() < 0.2:
                copy.link = None
            await asyncio.sleep(self.choose.choice([0, 0.01, 0.1, 0.5]))

    async def keep_looking_back(self) -> None:
        seen: dict[str, Json | None] = {}  # what there was at a revision, None once that is gone
        while self.blows:
            present = (await self.person.get("/task?limit=1")).headers["X-Revision"]
            revision = self.choose.choice([present, *seen])
            answer = await self.person.get(f"/task?revision={revision}")
            was = answer.json if answer.status == 200 else None
            assert was == seen.get(revision, was) or answer.status == 410
            seen[revision] = was

    async def keep_exporting(self) -> None:
        while self.blows:
            with suppress(ClientPayloadError):  # it is broken off where a task is purged meanwhile
                self.exports.append((await self.person.get("/export")).text)
            await asyncio.sleep(0.1)

    async def calm(self) -> None:
        """With nothing happening beside, compare the copies, and bring in some of what was taken out."""
        there = await truth(self.person)
        for copy in self.copies:
            await copy.pull()
            assert copy.tasks == there
        for export in self.choose.sample(self.exports, min(3, len(self.exports))):
            newcomer = await somebody(self.person.client)
            imported = await newcomer.post("/import", data=export.encode(), headers={"Content-Type": "application/json"})
            assert imported.status == 200, imported


@pytest.fixture
def machine(sql: Sql) -> Iterator[type[Clients]]:
    """The machine, with one application for all its histories."""
    with running(Clients, sql) as machine:
        yield machine


@in_profile
def test_whatever_happens_between_pulls_a_copy_becomes_what_there_is(machine: type[Clients], profile: str) -> None:
    run_state_machine_as_test(machine, settings=profiles(20, 30, 60)[profile])


@pytest.mark.long
def test_whatever_happens_during_pulls_a_copy_becomes_what_there_is(machine: type[Clients], sql: Sql) -> None:
    for seed in {"default": [1], "long": [secrets.randbits(32) for _ in range(100)]}[PROFILE]:
        print(f"seed {seed}")
        storm = Storm(machine.runner.run(somebody(machine.client)), sql, random.Random(seed))
        machine.runner.run(storm.blow())
        machine.runner.run(storm.calm())

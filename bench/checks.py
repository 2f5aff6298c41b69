"""Whether the answers are right: all of what a sample says, and what the database has afterwards."""

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from bench import data
from bench.cluster import Cluster
from bench.data import TASKS_PER_USER, Size
from bench.jobs import Answer, Ask
from bench.load import Refused

SAMPLES = 50
MOMENTS = ("created_at", "updated_at", "completed_at")


def same(what: str, is_so: Any, must_be: Any) -> None:
    """Raise Refused where something isn't what it must be, and name the first difference."""
    if isinstance(is_so, list) and isinstance(must_be, list):
        same(f"the length of {what}", len(is_so), len(must_be))
        for number, each in enumerate(zip(is_so, must_be, strict=True), 1):
            same(f"number {number} of {what}", *each)
    elif isinstance(is_so, dict) and isinstance(must_be, dict):
        for name in {**is_so, **must_be}:
            same(f"{name} of {what}", is_so.get(name, "left out"), must_be.get(name, "left out"))
    elif is_so != must_be:
        raise Refused(f"{what} is {is_so!r} and must be {must_be!r}")


class OurAnswers:
    """What the service must answer."""

    def __init__(self) -> None:
        self._changes: defaultdict[int, int] = defaultdict(int)  # of the sampled users
        self._created: defaultdict[int, int] = defaultdict(int)

    def check(self, job: str, user_id: int, task_id: int, answer: Answer) -> None:
        """Raise Refused where this isn't the answer."""
        same("the status code", answer.status, 201 if job == "W3" and answer.headers is not None else 200)
        getattr(self, f"_check_{job.lower()}")(user_id, task_id, answer)

    def _check_w1(self, user_id: int, task_id: int, answer: Answer) -> None:
        same("the task", answer.content, data.seeded_task(user_id, task_id))
        self._check_tags(answer, task_id, TASKS_PER_USER)

    def _check_w2(self, user_id: int, task_id: int, answer: Answer) -> None:
        same("the list", answer.content, [data.seeded_task(user_id, each) for each in data.listed_ids()])
        if answer.headers is not None:
            same("whether a next page is linked", answer.headers.get("Link", "").endswith('>; rel="next"'), True)
            same("X-Revision", answer.headers.get("X-Revision"), str(TASKS_PER_USER))

    def _check_w3(self, user_id: int, task_id: int, answer: Answer) -> None:
        revision = self._next_revision(user_id)
        self._created[user_id] += 1
        new = data.new_task(data.seeded_status(task_id))
        new |= {"id": TASKS_PER_USER + self._created[user_id], "revision": revision, "deleted_at": None, "completion_at": "24-12-2026"}
        moment = answer.content["created_at"]
        datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%f%z")
        new |= {"created_at": moment, "updated_at": moment, "completed_at": moment if new["status"] == "completed" else None}
        same("the task", answer.content, new)
        self._check_tags(answer, revision, revision)
        if answer.headers is not None:
            same("Location", answer.headers.get("Location"), f"/task/{new['id']}")

    def _check_w4(self, user_id: int, task_id: int, answer: Answer) -> None:
        revision = self._next_revision(user_id)
        changed = data.seeded_task(user_id, task_id) | {"status": data.next_status(task_id), "revision": revision}
        moment = answer.content["updated_at"]
        same("whether it is said to be changed later", moment > changed["updated_at"], True)
        changed |= {"updated_at": moment, "completed_at": moment if changed["status"] == "completed" else None}
        same("the task", answer.content, changed)
        self._check_tags(answer, revision, revision)

    def _next_revision(self, user_id: int) -> int:
        self._changes[user_id] += 1
        return TASKS_PER_USER + self._changes[user_id]

    @staticmethod
    def _check_tags(answer: Answer, revision: int, user_revision: int) -> None:
        if answer.headers is not None:
            same("ETag", answer.headers.get("ETag"), f'"{revision}"')
            same("X-Revision", answer.headers.get("X-Revision"), str(user_revision))


class TwinAnswers:
    """What the FastAPI twin must answer: its tasks are numbered through all users, and have no revisions."""

    def check(self, job: str, user_id: int, task_id: int, answer: Answer) -> None:
        """Raise Refused where this isn't the answer."""
        same("the status code", answer.status, 201 if job == "W3" else 200)
        if job == "W2":
            same("the list", answer.content, [self._task(user_id, each) for each in data.listed_ids()])
            return
        task = self._task(user_id, task_id)
        moved = {} if job == "W1" else {name: answer.content[name] for name in ("updated_at", "id", "created_at")}
        if job == "W3":
            task |= data.new_task(data.seeded_status(task_id)) | moved
        if job == "W4":
            task |= {"status": data.next_status(task_id), "updated_at": moved["updated_at"]}
        same("the task", answer.content, task)

    @staticmethod
    def _task(user_id: int, task_id: int) -> dict[str, Any]:
        task = data.seeded_task(user_id, task_id)
        shown = {name: task[name] for name in ("name", "description", "status")}
        moments = {name: task[name].replace(".000000", "") for name in ("created_at", "updated_at")}
        day = task["completion_at"] and "-".join(reversed(task["completion_at"].split("-")))
        return {"id": (user_id - 1) * TASKS_PER_USER + task_id} | shown | {"completion_at": day} | moments


class HelloAnswers:
    """What the least handler answers: always the same."""

    def check(self, job: str, user_id: int, task_id: int, answer: Answer) -> None:
        """Raise Refused where this isn't the answer."""
        same("the answer", (answer.status, list(answer.content), len(answer.content["text"])), (200, ["text"], 188))


class Answers(Protocol):
    """What a system must answer."""

    def check(self, job: str, user_id: int, task_id: int, answer: Answer) -> None:
        """Raise Refused where this isn't the answer."""


class Sampler:
    """Asks a system what is asked of it under load, and compares the whole answers."""

    def __init__(self, ask: Ask, answers: Answers, size: Size) -> None:
        self.ask, self._answers, self._size = ask, answers, size
        self._random = random.Random(1)  # noqa: S311 - not a secret
        self._next = dict.fromkeys(("W3", "W4"), 0)
        self.asked: defaultdict[str, int] = defaultdict(int)

    def sample(self, job: str) -> None:
        """Ask for one job, some times. Raises Refused at the first wrong answer."""
        for _ in range(SAMPLES):
            user_id, task_id = self._choose(job)
            answer = self.ask(job, user_id, task_id)
            self.asked[job] += 1
            self._answers.check(job, user_id, task_id, answer)

    def _choose(self, job: str) -> tuple[int, int]:
        """Choose a user and a task: of all while nothing changes, of the sampled users' else, each task once."""
        if job not in self._next:
            return self._random.randint(1, self._size.users), self._random.randint(1, TASKS_PER_USER)
        turn = self._next[job]
        self._next[job] += 1
        return 1 + turn % self._size.sampled_users, 1 + turn // self._size.sampled_users


class Books:
    """What has been acknowledged, against what the database has."""

    def __init__(self, count: Callable[[], "Stored"], size: Size) -> None:
        self._count, self._size = count, size
        self._acknowledged: defaultdict[str, int] = defaultdict(int)
        self._in_flight: defaultdict[str, int] = defaultdict(int)

    def acknowledge(self, job: str, requests: int, connections: int) -> None:
        """Note a run: so many were answered, and one more of each connection may have been on its way at the end."""
        self._acknowledged[job] += requests
        self._in_flight[job] += connections

    def check(self, sampled: dict[str, int]) -> None:
        """Raise Refused where the database has more or less than was acknowledged."""
        stored = self._count()
        created, changed = stored.tasks - self._size.tasks, stored.log
        for job, what, is_so in (("W3", "new tasks", created), ("W4", "entries of the log", changed)):
            least = self._acknowledged[job] + sampled.get(job, 0)
            if not least <= is_so <= least + self._in_flight[job]:
                raise Refused(f"{is_so} {what}, but {least} were acknowledged and at most {self._in_flight[job]} more were on their way")
        if stored.revisions is not None:
            same("the sum of the users' revisions", stored.revisions, self._size.tasks + created + changed)
        same("the number of tasks that differ from their log", stored.inconsistent, 0)


class Stored:
    """What a database has now, in one snapshot."""

    def __init__(self, tasks: int, log: int, revisions: int | None, inconsistent: int) -> None:
        self.tasks, self.log, self.revisions, self.inconsistent = tasks, int(log), revisions and int(revisions), inconsistent


def counter(cluster: Cluster, statement: str, database: str) -> Callable[[], Stored]:
    """Return what counts a database's tasks and entries."""
    return lambda: Stored(*cluster.run(database, statement)[0])

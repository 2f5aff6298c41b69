"""The four jobs, and what is asked of whom for each."""

import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench import data
from bench.data import TASKS_PER_USER
from bench.load import Request, Target
from tasks.values import STATUSES

TITLES = {
    "W1": "read one task by its id",
    "W2": f"list {data.LISTED} of a user's {TASKS_PER_USER} tasks by status",
    "W3": "create a task",
    "W4": "change a task's status, which writes a row of the log",
}
JOBS = tuple(TITLES)
WRITING = ("W3", "W4")

REQUESTS = {  # of whoever speaks as the service does
    "W1": Request("GET", "/task/{id}"),
    "W2": Request("GET", f"/task?status={data.LISTED_STATUS}&limit={data.LISTED}"),
    "W3": Request("POST", "/task", [json.dumps(data.new_task(status)) for status in STATUSES]),
    "W4": Request("PATCH", "/task/{id}", [json.dumps({"status": status}) for status in data.TURNS]),
}


@dataclass(frozen=True)
class Answer:
    """An answer: no status and no headers where the database was asked directly."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] | None = None


Ask = Callable[[str, int, int], Answer]  # a job, a user, and the user's task; a creation takes the task for its turn among the bodies


def body(request: Request, task_id: int) -> str | None:
    """Return what is sent the first time."""
    return request.bodies[(task_id - 1) % len(request.bodies)] if request.bodies else None


def by_http(target: Target, requests: Mapping[str, Request] = REQUESTS) -> Ask:
    """Ask by HTTP, with a connection for each question."""

    def ask(job: str, user_id: int, task_id: int) -> Answer:
        request = requests[job]
        number = (user_id - 1) * TASKS_PER_USER + task_id if target.numbers == "global" else task_id
        path = request.path.replace("{id}", str(number)).replace("{user}", str(user_id))
        headers = {"Authorization": target.tokens[user_id - 1]} | ({"Content-Type": "application/json"} if request.bodies else {})
        connection = http.client.HTTPConnection(target.url.removeprefix("http://"), timeout=10)
        try:
            connection.request(request.method, path, body(request, task_id), headers)
            response = connection.getresponse()
            content = json.loads(response.read())
        finally:
            connection.close()
        return Answer(content, response.status, dict(response.headers))

    return ask

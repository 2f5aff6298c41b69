"""What is measured on: the same users and tasks in every system, so that every answer can be foretold."""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tasks.values import STATUSES

TASKS_PER_USER = 200
GENERATION = 2**52 + 1  # of every user's tokens
LISTED_STATUS = "planned"
LISTED = 20
MAX_SAMPLED_USERS = 50
MAX_WALKED_USERS = 1000  # with many more, the verifying of first tokens would be what is measured
FIRST_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_DAY = date(2026, 1, 1)
DESCRIPTION = "Ask for the figures first, compare them with those of last year, and write down in a few words what has changed."
TURNS = [STATUSES[(place + 1) % len(STATUSES)] for place in range(len(STATUSES))]  # a change's new status, by the old one's place

# One statement for all systems. The tasks of a user lie apart from each other, as they do where users add them day by day.
EVERY_TASK = f"""
SELECT u AS user_id, n AS id, (u - 1) * {TASKS_PER_USER} + n AS number,
       'Prepare the quarterly report, part ' || n || ' (' || u || ')' AS name, n || '. {DESCRIPTION}' AS description,
       (ARRAY{list(STATUSES)!r})[(n - 1) %% 4 + 1] AS status,
       CASE WHEN n %% 3 = 0 THEN date '{FIRST_DAY}' + n END AS completion_at,
       timestamptz '{FIRST_MOMENT}' + n * interval '1 hour' AS moment
  FROM (SELECT n, u FROM generate_series(1, {TASKS_PER_USER}) n, generate_series(1, %(users)s) u ORDER BY n, u) every
"""


@dataclass(frozen=True)
class Size:
    """How many there are."""

    users: int

    @property
    def tasks(self) -> int:
        """All tasks."""
        return self.users * TASKS_PER_USER

    @property
    def sampled_users(self) -> int:
        """The first users, whom the load leaves alone, so that what is asked of them can be foretold after changes too."""
        return min(MAX_SAMPLED_USERS, self.users // 10)

    @property
    def walked(self) -> int:
        """The tasks that the load goes through: of no more users than whose tokens a warm-up shows to every worker."""
        return (min(self.users, MAX_WALKED_USERS) - self.sampled_users) * TASKS_PER_USER

    @property
    def stride(self) -> int:
        """The step that leads through all walked tasks, from one user to one far away: near the golden section, and coprime."""
        stride = int(self.walked * 0.618034)
        while math.gcd(stride, self.walked) != 1:
            stride += 1
        return stride


@dataclass(frozen=True)
class Part:
    """A part of the walk through the tasks; no two parts have a task in common."""

    start: int
    length: int


def parts(size: Size, count: int) -> list[Part]:
    """Return the walk in so many equal parts."""
    length = size.walked // count
    return [Part(place * length, length) for place in range(count)]


def seeded_status(task_id: int) -> str:
    """Return the status that a task has at first."""
    return STATUSES[(task_id - 1) % len(STATUSES)]


def next_status(task_id: int) -> str:
    """Return the status that the first change of a task gives it."""
    return TURNS[(task_id - 1) % len(TURNS)]


def moment_text(moment: datetime) -> str:
    """Return a moment as the service shows it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seeded_task(user_id: int, task_id: int) -> dict[str, Any]:
    """Return a task as the service must show it while nobody has changed it."""
    moment = moment_text(FIRST_MOMENT + timedelta(hours=task_id))
    status = seeded_status(task_id)
    return {
        "id": task_id,
        "name": f"Prepare the quarterly report, part {task_id} ({user_id})",
        "description": f"{task_id}. {DESCRIPTION}",
        "status": status,
        "completion_at": (FIRST_DAY + timedelta(days=task_id)).strftime("%d-%m-%Y") if task_id % 3 == 0 else None,
        "created_at": moment,
        "updated_at": moment,
        "completed_at": moment if status == "completed" else None,
        "deleted_at": None,
        "revision": task_id,
    }


def listed_ids() -> list[int]:
    """Return the ids that a listing of LISTED tasks in LISTED_STATUS must have, in order."""
    return [task_id for task_id in range(1, TASKS_PER_USER + 1) if seeded_status(task_id) == LISTED_STATUS][:LISTED]


def new_task(status: str) -> dict[str, Any]:
    """Return the body of a creation."""
    return {
        "name": f"Order the spare parts for the pump ({status})",
        "description": f"{DESCRIPTION} Then tell the others.",
        "status": status,
        "completion_at": "2026-12-24",
    }

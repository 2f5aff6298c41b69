"""Calendars as other programs write them: each is imported, and nobody's file is refused for what we don't take.

They are written after RFC 5545 and what is known of these programs' files; what they say is invented.
"""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Person
from tests.transfer.test_imports import send
from tests.transfer.test_transfer import CALENDAR

FILES = Path(__file__).parent / "calendars"


class Expected(NamedTuple):
    """A task as it is to be: its status, its day and how its description begins."""

    name: str
    status: str = "new"
    day: str | None = None
    description: str = ""


KETTLE = Expected("Descale the kettle", "new", "18-04-2018", "Citric acid, not vinegar")
OLD_DISK = "Label the old disk and put it into the box with the others, upper shelf, left of…"
EXPECTED: dict[str, tuple[list[Expected], list[tuple[int, str]]]] = {
    "apple_reminders_ios": ([Expected("Water the plants 🪴", "new", "07-09-2019")], [(12, "recurrence_not_kept")]),
    "apple_reminders_macos": ([KETTLE, Expected("Renew the library card", "completed")], []),
    "em_client": ([Expected("Prepare the tax return", "new", "31-10-2021", "Receipts are in the blue folder.\n")], []),
    "em_client_series": (
        [Expected("Empty the bins", "in_work", "02-01-2023")],
        [(11, "recurrence_not_kept"), (18, "occurrence_not_kept")],
    ),
    "evolution": ([Expected("Clean the bicycle chain", "in_work", "04-03-2022")], []),
    "evolution_memo": ([Expected("Call the landlord", "completed")], []),
    "jtx_board": ([Expected("Read up on heat pumps", "in_work", "31-08-2024", "Costs\nNoise\nSubsidies")], []),
    "korganizer": ([Expected("Wände streichen", "in_work", "28-02-2023", "Überall im Flur, auch hinter dem Schrank")], []),
    "korganizer_journal": ([Expected("Winterreifen wechseln", "completed")], [(16, "not_a_task")]),
    "nextcloud_tasks": ([Expected("Fix the dripping tap", "in_work", "07-04-2025", "# Parts\n\n- washer 12×18\n- tape")], []),
    "nextcloud_tasks_floating": ([Expected("Order seeds", "completed", "25-03-2021")], []),
    "outlook": ([Expected("Send the report", "completed", "03-06-2022", "Quarterly figures, with last year beside them\n\n")], []),
    "outlook_synchronizer": ([Expected("Pack for the fair", "in_work", "12-06-2022", "Bring: laptop, adapter")], [(21, "not_taken")]),
    "radicale_collection": ([Expected("Pay the gas bill", "new", "15-01-2024")], [(12, "not_a_task"), (18, "not_a_task")]),
    "synology_calendar": ([Expected("Back up the photos", "new", "15-11-2023", "Both disks;\nthen check one folder")], []),
    "synology_calendar_done": (
        [Expected("Replace the disk", "completed"), Expected(OLD_DISK, description=f"\n{OLD_DISK[:-1]} the cables")],
        [],
    ),
    "tasks_org": ([Expected("Paint the fence", "in_work", "15-04-2023", "Two coats\nGreen")], []),
    "tasks_org_completed": (
        [Expected("Sort the tools", "completed"), Expected("Sharpen the saw", "new", "01-03-2021")],
        [(21, "recurrence_not_kept")],
    ),
    "thunderbird": ([Expected("Compare insurance offers", "in_work", "31-03-2021", "Ask for: liability")], []),
    "thunderbird_with_events": ([Expected("Write the minutes", "completed")], [(22, "not_a_task")]),
    "todoman": ([Expected("Buy stamps", "completed")], []),
    "todoman_due": ([Expected("Return the drill", "new", "10-05-2024")], []),
}


@pytest.mark.parametrize("name", sorted(file.stem for file in FILES.glob("*.ics")))
async def test_another_programs_calendar_is_taken(alice: Person, name: str) -> None:
    expected, skipped = EXPECTED[name]
    query = "?skip=true" if "not_taken" in [code for _, code in skipped] else ""
    answer = await send(alice, CALENDAR, (FILES / f"{name}.ics").read_bytes(), query)
    assert answer.status == 200, answer
    assert [(one["line"], one["code"]) for one in answer.json["skipped"]] == skipped
    tasks = (await alice.get("/task")).json
    assert [Expected(task["name"], task["status"], task["completion_at"], task["description"]) for task in tasks] == expected
    assert [bool(task["completed_at"]) for task in tasks] == [task.status == "completed" for task in expected]

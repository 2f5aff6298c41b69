"""An account has at most so many tasks, and so long a log: what would add more is refused, and all that lessens or takes back still works."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Answer, Person, Start, create_tasks
from tests.tasks.test_functions import GENERATION, Account, rolled_back
from tests.tasks.test_races import at_once
from tests.transfer.test_imports import JSON, SHEET, send, stored
from tests.transfer.test_transfer import CALENDAR, CSV

Sql = Callable[..., list[tuple[Any, ...]]]
Newcomer = Callable[[str], Any]

NEW = {"name": "Buy milk", "description": "", "status": "new"}
MAX_TASKS, MAX_LOG_ENTRIES = 3, 5
TASKS = "Your account has as many tasks as it may have"
LOG = "Your account's log has as many entries as it may have"


@pytest.fixture
async def alice(alice: Person, start: Start) -> Person:
    """The one whose account is small."""
    alice.client = await start(max_tasks=MAX_TASKS, max_log_entries=MAX_LOG_ENTRIES)
    return alice


@pytest.fixture
async def full_of_tasks(alice: Person) -> Person:
    """The one with as many tasks as there may be, one of them in the trash."""
    for _ in range(MAX_TASKS):
        await alice.new_task()
    await alice.delete("/task/3")
    return alice


@pytest.fixture
async def full_log(alice: Person) -> Person:
    """The one with two tasks and as many entries as there may be."""
    await alice.new_task()
    await alice.new_task()
    for n in range(MAX_LOG_ENTRIES):
        assert (await alice.patch("/task/1", json={"name": f"{n}"})).status == 200
    return alice


def is_full(answer: Answer, words: str, revision: int) -> bool:
    """Return whether it is refused since the account is full, in words that say of what, and at which revision."""
    assert answer.status == 409, answer
    assert answer.json["type"] == "/docs/problems#account-full"
    return answer.json["detail"].startswith(words) and answer.headers["X-Revision"] == f"{revision}"


def logged(sql: Sql, person: Person) -> int:
    assert person.caller
    return int(sql("SELECT count(*) FROM task_log WHERE user_id = %s", person.caller.user_id)[0][0])


def broken(sql: Sql, person: Person) -> list[tuple[Any, ...]]:
    assert person.caller
    return sql("SELECT * FROM account_faults(%s)", person.caller.user_id)


# Tasks


async def test_what_would_be_one_task_too_many_is_not_created(full_of_tasks: Person, sql: Sql) -> None:
    before = stored(full_of_tasks, sql)
    for headers in ({}, {"Idempotency-Key": "once"}):
        assert is_full(await full_of_tasks.post("/task", json=NEW, headers=headers), TASKS, 4)
    assert stored(full_of_tasks, sql) == before


async def test_a_creation_that_was_done_is_answered_again_though_there_is_no_room_any_more(alice: Person) -> None:
    key = {"Idempotency-Key": "once"}
    first = await alice.post("/task", json=NEW, headers=key)
    for _ in range(MAX_TASKS - 1):
        await alice.new_task()
    again = await alice.post("/task", json=NEW, headers=key)
    assert (again.status, again.text) == (201, first.text)


async def test_a_full_account_changes_deletes_restores_and_takes_back(full_of_tasks: Person) -> None:
    assert (await full_of_tasks.patch("/task/1", json={"name": "other"})).status == 200
    assert (await full_of_tasks.delete("/task/1")).status == 204
    assert (await full_of_tasks.post("/task/1/restore", json={})).status == 200
    assert (await full_of_tasks.post("/task/undo", json={"since": 3})).json["count"] == 2
    assert len((await full_of_tasks.get("/task")).json) == MAX_TASKS


async def test_an_erased_task_makes_room_and_a_deleted_one_does_not(full_of_tasks: Person) -> None:
    await full_of_tasks.delete("/task/2")
    assert is_full(await full_of_tasks.post("/task", json=NEW), TASKS, 5)
    assert (await full_of_tasks.delete("/task/2?forever=true")).status == 204
    assert (await full_of_tasks.new_task())["id"] == 4
    assert is_full(await full_of_tasks.post("/task", json=NEW), TASKS, 6)


@pytest.mark.parametrize("batch_size", [32, 1])
async def test_of_creations_at_once_as_many_are_done_as_there_is_room_for(alice: Person, start: Start, sql: Sql, batch_size: int) -> None:
    alice.client = await start(max_tasks=MAX_TASKS, batch_size=batch_size, db_wait_seconds=8)
    keys = [{}, *({"Idempotency-Key": f"{n}"} for n in range(4))]
    answers = await at_once(sql, alice, *(alice.post("/task", json=NEW, headers=keys[n % 5]) for n in range(20)))
    answers += [await alice.post("/task", json=NEW, headers={"Idempotency-Key": "another"})]
    created = {answer.json["id"] for answer in answers if answer.status == 201}
    assert created == set(range(1, MAX_TASKS + 1))
    assert {answer.status for answer in answers} == {201, 409}
    assert broken(sql, alice) == []


async def test_a_lowered_bound_takes_nothing_away(full_of_tasks: Person, start: Start) -> None:
    full_of_tasks.client = await start(max_tasks=1, max_log_entries=1)
    assert len((await full_of_tasks.get("/task")).json) == 2
    assert (await full_of_tasks.post("/task/3/restore", json={})).status == 200
    assert is_full(await full_of_tasks.post("/task", json=NEW), TASKS, 5)
    assert is_full(await full_of_tasks.patch("/task/1", json={"name": "other"}), LOG, 5)
    assert (await full_of_tasks.patch("/task/1", json={"name": NEW["name"]})).status == 200  # which changes nothing


# The log


async def test_what_the_log_has_no_room_for_is_not_done(full_log: Person, sql: Sql) -> None:
    before = stored(full_log, sql)[1:]
    for method in ("PATCH", "PUT", "POST"):
        assert is_full(await full_log(method, "/task/1", json={"name": "other"}), LOG, 7)
    assert stored(full_log, sql)[1:] == before
    assert (await full_log.get("/task/1")).headers["ETag"] == '"7"'
    assert broken(sql, full_log) == []


async def test_what_needs_no_room_is_done_as_ever(full_log: Person) -> None:
    assert (await full_log.patch("/task/1", json={"name": "4"})).headers["ETag"] == '"7"'
    assert (await full_log.new_task())["revision"] == 8
    assert (await full_log.patch("/task/9", json={"name": "x"})).status == 404
    assert (await full_log.patch("/task/1", json={"name": "x"}, headers={"If-Match": '"1"'})).status == 412


async def test_a_full_log_takes_deletions_restorations_and_undo(full_log: Person, sql: Sql) -> None:
    assert (await full_log.delete("/task/2")).status == 204
    assert (await full_log.post("/task/2/restore", json={})).status == 200
    assert (await full_log.post("/task/1/restore", json={"revision": 1})).json["name"] == NEW["name"]
    assert (await full_log.post("/task/undo", json={"since": 7})).json["count"] == 1
    assert logged(sql, full_log) == MAX_LOG_ENTRIES + 4
    assert is_full(await full_log.patch("/task/1", json={"name": "other"}), LOG, 11)
    assert (await full_log.delete("/task/1?forever=true")).status == 204
    assert (await full_log.patch("/task/2", json={"name": "other"})).status == 200
    assert broken(sql, full_log) == []


async def test_a_change_is_done_whole_or_not_at_all(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    for n in range(MAX_LOG_ENTRIES - 1):
        await alice.patch("/task/1", json={"name": f"{n}"})
    change = {"status": "completed", "description": "x"}
    assert is_full(await alice.patch("/task/1", json=change), LOG, MAX_LOG_ENTRIES)
    assert (await alice.patch("/task/1", json={"status": "completed"})).status == 200  # an entry, since its moment is the rule's
    assert logged(sql, alice) == MAX_LOG_ENTRIES


async def test_of_changes_at_once_as_many_are_done_as_there_is_room_for(alice: Person, sql: Sql) -> None:
    await alice.new_task()
    answers = await at_once(sql, alice, *(alice.patch("/task/1", json={"name": f"{n}"}) for n in range(12)))
    assert sorted(answer.status for answer in answers) == [200] * MAX_LOG_ENTRIES + [409] * 7
    assert logged(sql, alice) == MAX_LOG_ENTRIES
    assert broken(sql, alice) == []


def write(sql: Sql, user_id: int, changes: list[tuple[int, dict[str, Any], int | None]]) -> list[str | None]:
    """Do these changes together, and return what each was refused for; of each the task, the fields, and the bound."""
    ids, fields, most = zip(*changes, strict=True)
    n = len(changes)
    rows = sql(
        "SELECT refused FROM task_write(array_fill(%s, ARRAY[%s]), array_fill(%s, ARRAY[%s]), %s::bigint[], '{}', %s::jsonb[], %s::bigint[], true)"
        " ORDER BY n",
        *(user_id, n, GENERATION, n, list(ids), [json.dumps(each) for each in fields], list(most)),
    )
    return [refused for (refused,) in rows]


def entries(sql: Sql, user_id: int) -> int:
    return int(sql("SELECT count(*) FROM task_log WHERE user_id = %s", user_id)[0][0])


def as_it_must_be(sql: Sql, user_id: int, changes: list[tuple[int, dict[str, Any], int | None]]) -> list[str | None]:
    """Return what each is to be refused for: those are taken back that were done, one after the other, and left too much."""
    refusals = []
    with rolled_back(sql):
        for task_id, fields, most in changes:
            before = entries(sql, user_id)
            sql("SAVEPOINT before")
            [refused] = write(sql, user_id, [(task_id, fields, None)])
            if most is not None and before < entries(sql, user_id) > most:
                sql("ROLLBACK TO before")
                refused = "too_many_entries"
            refusals.append(refused)
    return refusals


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_the_bound_is_exact_whatever_is_changed_and_whoever_counted(sql: Sql, seed: int) -> None:
    """Changes alone and together, bounded or not, those of a version that counts nothing, and erasures."""
    chance, account, seen = random.Random(seed), Account(sql), set()
    for _ in range(5):
        account.create()
    for _ in range(50):
        changes = []
        for _ in range(chance.choice([1, 1, 2, 6])):
            names = chance.sample(["name", "description", "status"], chance.randint(1, 3))
            fields: dict[str, Any] = {name: chance.choice(["new", "planned", "completed"]) for name in names}
            most = chance.choice([None, entries(sql, account.user_id) + chance.randint(-2, 10), 10_000])
            changes.append((chance.randint(1, 5), fields | chance.choice([{}, {}, {"deleted": chance.random() < 0.5}]), most))
        expected = as_it_must_be(sql, account.user_id, changes)
        assert write(sql, account.user_id, changes) == expected
        seen |= {*expected}
        match chance.randint(0, 20):
            case 0:
                sql("SELECT task_erase(%s, %s, true, %s, NULL, NULL)", account.user_id, GENERATION, chance.choice([4, 5]))
            case 1:
                sql("UPDATE user_state SET log_entries = 0, log_counted = 0 WHERE user_id = %s", account.user_id)
        assert sql("SELECT * FROM account_faults(%s)", account.user_id) == []
    assert {None, "too_many_entries"} <= seen


def test_the_log_is_counted_now_and_then(sql: Sql) -> None:
    account = Account(sql)
    account.create()
    changes: list[Any] = [(1, {"name": f"{n}", "description": f"{n}"}, None) for n in range(1100)]
    for part in (changes[:600], changes[600:]):
        write(sql, account.user_id, part)
    state = "SELECT revision, log_counted, log_entries FROM user_state WHERE user_id = %s"
    assert sql(state, account.user_id) == [(1101, 1000, 1998)]
    account.update(name="x", most=10_000)
    assert sql(state, account.user_id) == [(1102, 1000, 1998)]  # a hundred revisions more can't be too many
    assert account.update(name="y", most=2201).refused == "too_many_entries"
    assert sql(state, account.user_id) == [(1102, 1102, 2201)]
    assert sql("SELECT * FROM account_faults(%s)", account.user_id) == []


def test_a_log_that_nobody_counted_is_counted_part_by_part(sql: Sql) -> None:
    account = Account(sql)
    account.create()
    for n in range(5):
        account.update(name=f"{n}")
    sql("UPDATE user_state SET log_counted = -120000, log_entries = 0 WHERE user_id = %s", account.user_id)  # as if there were so many more
    answers = [account.update(name=f"again {n}", most=5).refused for n in range(4)]
    assert answers == [None, None, "too_many_entries", "too_many_entries"]
    assert sql("SELECT revision, log_counted, log_entries FROM user_state WHERE user_id = %s", account.user_id) == [(8, 8, 7)]
    assert sql("SELECT * FROM account_faults(%s)", account.user_id) == []


# Files


def todos(count: int) -> str:
    entries = (f"BEGIN:VTODO\r\nUID:{n}@elsewhere\r\nSUMMARY:Task {n}\r\nEND:VTODO\r\n" for n in range(count))
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{''.join(entries)}END:VCALENDAR\r\n"


FILES: dict[str, Callable[[int], tuple[str, str]]] = {
    "a sheet": lambda count: (CSV, SHEET + "Buy milk,,new,\r\n" * count),
    "a calendar": lambda count: (CALENDAR, todos(count)),
}


@pytest.mark.parametrize("query", ["", "?skip=true"])
@pytest.mark.parametrize("file", FILES)
async def test_a_file_with_too_many_tasks_is_refused_whole(alice: Person, sql: Sql, file: str, query: str) -> None:
    await alice.new_task()
    before = stored(alice, sql)
    key = {"Idempotency-Key": "once"}
    assert is_full(await send(alice, *FILES[file](MAX_TASKS), query, **key), TASKS, 1)
    assert stored(alice, sql) == before
    assert (await send(alice, *FILES[file](MAX_TASKS - 1), query, **key)).json["count"] == MAX_TASKS - 1
    assert (await send(alice, *FILES[file](MAX_TASKS - 1), query, **key)).json["count"] == MAX_TASKS - 1


@pytest.mark.parametrize("query", ["", "?skip=true"])
async def test_a_file_with_too_many_changes_is_refused_whole(alice: Person, sql: Sql, query: str) -> None:
    await send(alice, CALENDAR, todos(2))
    file = todos(2).replace("SUMMARY:", "DESCRIPTION:x\r\nSTATUS:IN-PROCESS\r\nSUMMARY:A ")
    before = stored(alice, sql)
    assert is_full(await send(alice, CALENDAR, file, query), LOG, 2)  # it would have six entries
    assert stored(alice, sql) == before
    assert (await send(alice, CALENDAR, todos(2), query)).json["count"] == 0
    assert (await send(alice, CALENDAR, file.replace("A Task 1", "Task 1"), query)).json["count"] == 2
    assert logged(sql, alice) == MAX_LOG_ENTRIES
    assert broken(sql, alice) == []


async def test_a_full_account_takes_a_file_that_adds_nothing(full_of_tasks: Person) -> None:
    export = (await full_of_tasks.get("/task?format=csv")).text
    assert (await send(full_of_tasks, CSV, export)).json["count"] == 0


@pytest.mark.parametrize(("tasks", "entries", "words"), [(4, 0, TASKS), (1, 6, LOG), (3, 5, None)])
async def test_an_export_comes_back_where_there_is_room_for_all_of_it(
    alice: Person, newcomer: Newcomer, sql: Sql, tasks: int, entries: int, words: str | None
) -> None:
    large = await newcomer("large")
    create_tasks(sql, large.caller, tasks)
    for n in range(entries):
        await large.patch("/task/1", json={"name": f"{n}"})
    before = stored(alice, sql)
    answer = await send(alice, JSON, (await large.get("/export")).text)
    if words:
        assert is_full(answer, words, 0)
        assert stored(alice, sql) == before
    else:
        assert answer.json["count"] == tasks
        assert is_full(await alice.post("/task", json=NEW), TASKS, 8)
        assert is_full(await alice.patch("/task/2", json={"name": "other"}), LOG, 8)
    assert broken(sql, alice) == []

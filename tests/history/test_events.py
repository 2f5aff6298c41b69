"""Live events: whoever follows gets every change once, in order and soon, whoever made it; and nobody holds the service up."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import jwt
import pytest
from aiohttp import ClientError, ClientResponse
from aiohttp.test_utils import TestClient, TestServer

import app
import auth
from history import event_stream, event_watcher
from postgres.database import Database
from rest import errors
from tests.conftest import Person, Start, configured, create_tasks, write_task
from tests.waiting import PATIENCE_SECONDS, until

LONG = "ж" * 10_000  # of this, some hundred fill what a connection holds

Sql = Callable[..., list[tuple[Any, ...]]]


class Event(NamedTuple):
    """An event as a client reads it."""

    kind: str
    id: int
    data: Any


class Stream:
    """An open stream, on the client's side."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response
        self.comments: list[str] = []

    async def next(self, seconds: float = PATIENCE_SECONDS) -> Event | None:
        """Return the next event; None where the stream has ended."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(seconds):
            while line := (await self.response.content.readline()).decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if line.startswith(":"):
                    self.comments.append(line)
                elif name:
                    fields[name] = value
                elif fields:
                    return Event(fields["event"], int(fields["id"]), json.loads(fields["data"]))
        return None

    async def take(self, count: int) -> list[Event]:
        """Return so many events."""
        return [event for _ in range(count) if (event := await self.next())]

    async def is_silent(self, seconds: float = 0.6) -> bool:
        """Return whether nothing comes for a while, in which every worker asks twice."""
        try:
            return await self.next(seconds) is None
        except TimeoutError:
            return True


@asynccontextmanager
async def follow(person: Person, *, path: str = "/task/events", **headers: str) -> AsyncIterator[Stream]:
    """Open a stream."""
    headers = {"Authorization": f"Bearer {person.token}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with person.client.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        yield Stream(response)


@asynccontextmanager
async def followed(person: Person, *, path: str = "/task/events", **headers: str) -> AsyncIterator[Stream]:
    """Open a stream and read its opening."""
    async with follow(person, path=path, **headers) as stream:
        opening = await stream.next()
        assert opening
        assert opening.kind == "revision"
        yield stream


def new_task_elsewhere(sql: Sql, person: Person, name: str = "Buy milk") -> None:
    """Create a task as another worker or host does: on a connection of its own."""
    assert person.caller
    write_task(sql, person.caller, None, {"name": name, "description": "", "status": "new"})


def many_tasks_elsewhere(sql: Sql, person: Person, count: int, description: str) -> None:
    assert person.caller
    create_tasks(sql, person.caller, count, description=description)


def places(sql: Sql, person: Person) -> list[int]:
    assert person.caller
    return [place for (place,) in sql("SELECT slot FROM event_stream WHERE user_id = %s ORDER BY slot", person.caller.user_id)]


# What comes


async def test_it_opens_with_the_users_revision(alice: Person) -> None:
    await alice.new_task()
    await alice.patch("/task/1", json={"status": "planned"})
    async with follow(alice) as stream:
        assert await stream.next() == ("revision", 2, {"revision": 2})
        headers = stream.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "private, no-cache"
        assert headers["X-Revision"] == "2"
        assert headers["X-Request-ID"]
        assert errors.HEADERS.items() <= dict(headers).items()


async def test_a_change_by_this_worker_comes_at_once(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_watcher, "SECONDS_BETWEEN_QUESTIONS", 60)
    async with followed(alice) as stream:
        await asyncio.sleep(0.1)  # the first question
        for change in ({"status": "planned"}, {"name": "Buy bread"}):
            if change == {"status": "planned"}:
                created = await alice.new_task()
                assert await stream.next() == ("task", 1, created)
            answer = await alice.patch("/task/1", json=change)
            assert await stream.next() == ("task", answer.json["revision"], answer.json)


async def test_a_change_by_another_comes_too(alice: Person, sql: Sql) -> None:
    async with followed(alice) as stream:
        for revision in (1, 2, 3):
            new_task_elsewhere(sql, alice)
            event = await stream.next()
            assert event
            assert (event.kind, event.id, event.data["id"]) == ("task", revision, revision)


async def test_every_change_comes_once_and_in_order(alice: Person, sql: Sql) -> None:
    async with followed(alice) as stream:
        answers = await asyncio.gather(*(alice.post("/task", json={"name": f"{n}", "description": "", "status": "new"}) for n in range(40)))
        for n in range(40):
            new_task_elsewhere(sql, alice, f"elsewhere {n}")
        answers += await asyncio.gather(*(alice.patch("/task/1", json={"name": f"new {n}"}) for n in range(40)))
        got = await stream.take(120)
        assert [event.id for event in got] == list(range(1, 121))
        assert {event.id: event.data for event in got}.items() >= {answer.json["revision"]: answer.json for answer in answers}.items()
        assert await stream.is_silent()


async def test_what_changes_nothing_sends_nothing(alice: Person) -> None:
    await alice.new_task()
    async with followed(alice) as stream:
        await alice.patch("/task/1", json={"name": "Buy milk"})
        await alice.patch("/task/1", json={"name": "x"}, headers={"If-Match": '"4711"'})
        assert await stream.is_silent()


async def test_an_undo_of_many_comes_whole_and_at_once(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_watcher, "SECONDS_BETWEEN_QUESTIONS", 60)
    count = event_stream.MAX_OF_ALL + event_stream.MAX_OF_ONE_USER + 7
    async with followed(alice) as stream:
        many_tasks_elsewhere(sql, alice, count, "x")
        undone = await alice.post("/task/undo", json={"since": 3})
        assert undone.json["count"] == count - 3
        got = await stream.take(2 * count - 3)
        assert [event.id for event in got] == list(range(1, 2 * count - 2))
        assert [event.data["id"] for event in got[count:]] == list(range(4, count + 1))
        assert all(event.data["deleted_at"] and event.data["revision"] == event.id for event in got[count:])
        assert (await alice.post("/task/undo", json={"since": 3, "dry_run": True})).json["count"] == 0
        assert await stream.is_silent(0.3)


async def test_the_trash_is_followed_too(alice: Person) -> None:
    await alice.new_task()
    async with followed(alice) as stream:
        await alice.delete("/task/1")
        restored = await alice.post("/task/1/restore")
        deletion, restoration = await stream.take(2)
        assert (deletion.id, deletion.data["revision"], deletion.data["deleted_at"] is None) == (2, 2, False)
        assert restoration == ("task", 3, restored.json)


async def test_mallory_hears_nothing_of_alice(alice: Person, mallory: Person) -> None:
    async with followed(mallory) as stream, followed(alice) as hers:
        await alice.new_task()
        assert await hers.next()
        assert await stream.is_silent()


# Going on


async def test_it_goes_on_where_it_was_with_each_task_as_it_was_then(alice: Person) -> None:
    states = [await alice.new_task(name=f"{n}") for n in range(3)]
    for n, change in enumerate(
        ({"name": "x"}, {"status": "completed"}, {"description": "y"}, {"status": "new"}, {"completion_at": "02-10-2020"}) * 12
    ):
        answer = await alice.patch(f"/task/{n % 3 + 1}", json={"name": f"{n}"} | change)
        states.append(answer.json)
    assert [state["revision"] for state in states] == list(range(1, len(states) + 1))
    for since in (0, 1, 3, 17, len(states) - 1, len(states)):
        for how in (
            {"path": f"/task/events?since={since}"},
            {"Last_Event_ID": f"{since}"},
            {"path": "/task/events?since=0", "Last_Event_ID": f"{since}"},
        ):
            async with follow(alice, **how) as stream:
                assert await stream.next() == ("revision", since, {"revision": len(states)})  # cut off here, it goes on from here
                assert await stream.take(len(states) - since) == [("task", state["revision"], state) for state in states[since:]]
    async with followed(alice, Last_Event_ID="0") as stream:
        await stream.take(len(states))
        new = await alice.new_task()
        assert await stream.next() == ("task", len(states) + 1, new)


@pytest.mark.long
async def test_streams_at_different_places_get_what_each_lacks(alice: Person, sql: Sql) -> None:
    for _ in range(5):
        await alice.new_task()
    async with AsyncExitStack() as stack:
        opened = {since: await stack.enter_async_context(followed(alice, Last_Event_ID=f"{since}")) for since in (0, 2, 5)}
        writing = asyncio.gather(*(alice.new_task() for _ in range(200)))
        for since in (1, 3, 4):
            opened[since] = await stack.enter_async_context(followed(alice, Last_Event_ID=f"{since}"))
        late = await stack.enter_async_context(follow(alice))
        opening = await late.next()
        assert opening
        opened[opening.id] = late
        await writing
        new_task_elsewhere(sql, alice)
        for since, stream in opened.items():
            assert [event.id for event in await stream.take(206 - since)] == list(range(since + 1, 207)), since
        assert all([await stream.is_silent(0.3) for stream in opened.values()])


async def test_an_answer_to_a_question_before_it_came_is_no_news_to_a_stream(alice: Person) -> None:
    """Between its place and what was asked about there may be changes that it lacks."""
    assert alice.caller
    stream = event_stream.Stream(alice.service.database, event_stream.Waiting(), alice.caller, 2**62, asyncio.Transport())
    stream.begin(3, 0, 9)
    for since, revision, then in ((5, 6, 3), (3, 4, 4), (2, 3, 4), (4, 6, 6), (5, 6, 6), (5, 7, 7), (6, None, 7), (7, None, 9)):
        stream.take(since, event_stream.News(1, 9, revision, b""))
        assert stream.revision == then, (since, revision)


@pytest.mark.parametrize("last_id", ["1", "5", "9223372036854775807", "99999999999999999999", "x", "-1", "1.5", "0x3", "٣", "3 4"])
async def test_what_cannot_be_served_is_reset_to_the_present(alice: Person, sql: Sql, last_id: str) -> None:
    assert alice.caller
    for _ in range(3):
        await alice.new_task()
    sql("UPDATE user_state SET kept_from = 2 WHERE user_id = %s", alice.caller.user_id)
    async with follow(alice, Last_Event_ID=last_id) as stream:
        assert await stream.next() == ("reset", 3, {"revision": 3})
        task = await alice.new_task()
        assert await stream.next() == ("task", 4, task)
    async with followed(alice, Last_Event_ID="2") as stream:
        assert [event.id for event in await stream.take(2)] == [3, 4]


async def test_since_is_refused_where_it_is_no_number(alice: Person) -> None:
    for since in ("", "x", "-1", "1.5"):
        answer = await alice.get(f"/task/events?since={since}")
        assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["since"])
    assert (await alice.get("/task/events?since=7")).text.startswith("id: 0\nevent: reset\n")


async def test_a_purge_that_passes_a_stream_resets_it_and_it_goes_on(alice: Person) -> None:
    for _ in range(3):
        await alice.new_task()
    await alice.delete("/task/1")
    async with followed(alice) as stream, followed(alice, Last_Event_ID="1") as behind:
        await behind.take(3)
        await alice.delete("/task/1?forever=true")  # they have got all of it
        task = await alice.new_task()
        assert [await one.next() for one in (stream, behind)] == [("task", 5, task)] * 2
        await alice.delete("/task/2?forever=true")  # whose deletion nobody was told of
        assert [await one.next() for one in (stream, behind)] == [("reset", 6, {"revision": 6})] * 2
        task = await alice.new_task()
        assert [await one.next() for one in (stream, behind)] == [("task", 7, task)] * 2


@pytest.mark.long
async def test_a_purge_that_passes_one_that_catches_up_resets_it(alice: Person, sql: Sql) -> None:
    many_tasks_elsewhere(sql, alice, 600, LONG)
    async with followed(alice) as stream, deaf(alice, "/task/events?since=0") as reader:
        await alice.delete("/task/599?forever=true")
        assert await stream.next() == ("reset", 601, {"revision": 601})
        read = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while b"event: reset" not in read:
                read += await reader.read(100_000)
        kinds = [line.decode() for line in read.splitlines() if line.startswith((b"id:", b"event:"))]
        revisions = [int(line.partition(" ")[2]) for line in kinds if line.startswith("id:")]
        assert revisions[:-1] == list(range(len(revisions) - 1))
        assert (revisions[-1], kinds[-1]) == (601, "event: reset")
        assert len(revisions) < 599


async def test_a_backup_that_was_restored_resets_it(alice: Person, sql: Sql) -> None:
    assert alice.caller
    for _ in range(3):
        await alice.new_task()
    async with followed(alice) as stream:
        sql("UPDATE user_state SET revision = 2 WHERE user_id = %s", alice.caller.user_id)
        assert await stream.next() == ("reset", 2, {"revision": 2})


# Its end


def token_for(person: Person, seconds: float) -> str:
    assert person.caller
    expires_at = int(time.time() + seconds)
    claims = {"sub": str(person.caller.user_id), "iat": expires_at - 60, "exp": expires_at, "gen": person.caller.generation}
    return jwt.encode(claims, configured().jwt_secret.get_secret_value(), auth.ALGORITHM)


@pytest.mark.long
async def test_it_ends_when_the_token_does(alice: Person, sql: Sql) -> None:
    async with followed(alice) as lasting:
        alice.token = token_for(alice, 5)
        async with followed(alice) as stream:
            assert await stream.next() is None
            assert (await alice.get("/task/events")).status == 401
        assert places(sql, alice) == [1]
        assert await lasting.is_silent(0.1)


@pytest.mark.long
async def test_it_ends_when_the_generation_changes(alice: Person, mallory: Person, sql: Sql) -> None:
    assert alice.caller
    for generation in (alice.caller.generation + 1, -1):  # revoked; closed
        async with followed(alice) as stream, followed(mallory) as others:
            sql("UPDATE user_state SET token_generation = %s WHERE user_id = %s", generation, alice.caller.user_id)
            assert await stream.next() is None
            assert await others.is_silent(0.3)
        assert (await alice.get("/task/events")).status == 401
        assert places(sql, alice) == []
        sql("UPDATE user_state SET token_generation = %s WHERE user_id = %s", alice.caller.generation, alice.caller.user_id)


async def test_it_ends_when_one_logs_out_everywhere_and_goes_on_with_the_new_token(alice: Person) -> None:
    await alice.new_task()
    async with followed(alice) as stream:
        alice.token = (await alice.post("/revoke-tokens")).json["access_token"]
        assert await stream.next() is None
    task = await alice.new_task()
    async with followed(alice, Last_Event_ID="1") as stream:
        assert await stream.next() == ("task", 2, task)


@pytest.mark.long
async def test_one_that_catches_up_with_a_client_that_does_not_read_ends_too(alice: Person, sql: Sql) -> None:
    assert alice.caller
    many_tasks_elsewhere(sql, alice, 600, LONG)
    async with deaf(alice, "/task/events?since=0"):
        await asyncio.sleep(0.5)  # until no more goes into the connection
        sql("UPDATE user_state SET token_generation = token_generation + 1 WHERE user_id = %s", alice.caller.user_id)
        await until(lambda: places(sql, alice) == [])


async def test_streams_of_an_old_and_of_a_new_token_are_not_mixed_up(alice: Person, sql: Sql) -> None:
    assert alice.caller
    old = alice.caller
    async with followed(alice) as stream:
        sql("UPDATE user_state SET token_generation = %s WHERE user_id = %s", old.generation + 1, old.user_id)
        alice.token = auth.issue_token(configured(), old._replace(generation=old.generation + 1)).access_token
        async with followed(alice) as new:
            assert await stream.next() is None
            task = await alice.new_task()
            assert await new.next() == ("task", 1, task)


@pytest.mark.long
async def test_a_stopping_worker_ends_its_streams_at_once(start: Start, alice: Person, sql: Sql) -> None:
    alice.client = await start()
    async with followed(alice) as stream, followed(alice), deaf(alice):
        many_tasks_elsewhere(sql, alice, 400, LONG)
        await stream.take(400)
        assert alice.client.server
        closing = asyncio.create_task(alice.client.server.close())
        assert await stream.next() is None
        await asyncio.wait_for(closing, PATIENCE_SECONDS)
    assert places(sql, alice) == []


async def test_a_stopping_worker_opens_no_stream(start: Start, alice: Person) -> None:
    alice.client = await start()
    await event_watcher.end_streams(alice.client.app)
    answer = await alice.get("/task/events")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


# How many


async def test_as_many_as_like_open_at_once_and_keep_nobody_out(start: Start, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    began = 0

    async def never(*_: Any) -> None:
        nonlocal began
        began += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(event_watcher.Watcher, "_take_place", never)
    alice.client = await start(max_requests_at_once=3)
    openings = [asyncio.ensure_future(alice.get("/task/events")) for _ in range(20)]
    await until(lambda: began == len(openings))
    assert (await alice.get("/task")).status == 200
    for opening in openings:
        opening.cancel()


@pytest.mark.long
async def test_a_user_has_ten_and_the_eleventh_waits(alice: Person, mallory: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_watcher, "SECONDS_UNTIL_ONE_IS_MISSED", (0.5,))
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(followed(alice)) for _ in range(10)]
        for method in ("GET", "HEAD"):
            refused = await alice(method, "/task/events")
            assert (refused.status, refused.headers["Retry-After"]) == (429, "15")
        async with followed(mallory):
            assert places(sql, mallory) == [1]
        opened[4].response.close()
        async with followed(alice):  # who comes back at once is not taken for one more
            assert places(sql, alice) == list(range(1, 11))
            assert (await alice.get("/task/events")).status == 429
            task = await alice.new_task()
            assert await opened[9].next() == ("task", 1, task)
    await until(lambda: places(sql, alice) == [])


@pytest.mark.long
async def test_who_comes_back_waits_until_a_busy_worker_has_missed_them(alice: Person, sql: Sql) -> None:
    assert alice.caller
    sql("INSERT INTO event_stream SELECT %s, n, now() + interval '45 seconds' FROM generate_series(1, 10) n", alice.caller.user_id)
    freed = asyncio.get_running_loop().call_later(
        1.2, sql, "DELETE FROM event_stream WHERE user_id = %s AND slot = 7", alice.caller.user_id
    )
    async with followed(alice):
        assert freed.when() < asyncio.get_running_loop().time()
        assert places(sql, alice) == list(range(1, 11))


async def test_ten_at_once_get_ten_places_and_no_more(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_watcher, "SECONDS_UNTIL_ONE_IS_MISSED", (0.1,))

    async def answer(stack: AsyncExitStack) -> int:
        response = await stack.enter_async_context(alice.client.get("/task/events", headers={"Authorization": f"Bearer {alice.token}"}))
        return response.status

    async with AsyncExitStack() as stack:
        statuses = await asyncio.gather(*(answer(stack) for _ in range(25)))
        assert sorted(statuses) == [200] * 10 + [429] * 15
        assert places(sql, alice) == list(range(1, 11))


@pytest.mark.long
async def test_places_are_held_for_longer_and_those_of_a_crash_get_free(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alice.caller
    monkeypatch.setattr(event_watcher, "SECONDS_BETWEEN_HOLDS", 0.1)
    monkeypatch.setattr(event_watcher, "SECONDS_UNTIL_ONE_IS_MISSED", ())
    insert = "INSERT INTO event_stream SELECT %s, n, now() + %s FROM generate_series(1, 10) n"
    sql(insert, alice.caller.user_id, "45 seconds")
    assert (await alice.get("/task/events")).status == 429
    sql("UPDATE event_stream SET held_until = now() - interval '1 second' WHERE user_id = %s AND slot = 3", alice.caller.user_id)
    held = "SELECT held_until - now() > interval '40 seconds' FROM event_stream WHERE user_id = %s AND slot = 3"
    async with followed(alice):
        sql("UPDATE event_stream SET held_until = now() WHERE user_id = %s AND slot = 3", alice.caller.user_id)
        await until(lambda: sql(held, alice.caller.user_id) == [(True,)])
        sql("DELETE FROM event_stream WHERE user_id = %s", alice.caller.user_id)  # a crash of the server empties the table
        await until(lambda: sql(held, alice.caller.user_id) == [(True,)])
    await until(lambda: places(sql, alice) == [])


async def test_a_clock_that_steps_back_keeps_nobody_out(alice: Person, sql: Sql) -> None:
    assert alice.caller
    sql("INSERT INTO event_stream SELECT %s, n, now() + interval '1 hour 45 seconds' FROM generate_series(1, 10) n", alice.caller.user_id)
    async with followed(alice):
        assert sql(
            "SELECT slot FROM event_stream WHERE user_id = %s AND held_until < now() + interval '1 minute'", alice.caller.user_id
        ) == [(1,)]


@pytest.mark.long
async def test_a_place_that_another_has_taken_is_neither_held_nor_freed(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a stall of a worker that took longer than places are held."""
    assert alice.caller
    monkeypatch.setattr(event_watcher, "SECONDS_BETWEEN_HOLDS", 0.1)
    user = alice.caller.user_id
    async with followed(alice):
        sql("BEGIN")
        sql("UPDATE event_stream SET held_until = now() - interval '1 second' WHERE user_id = %s", user)
        assert sql("SELECT refused, place FROM event_place_take(%s, %s, 10, '1 hour')", *alice.caller) == [(None, 1)]
        sql("COMMIT")
        await asyncio.sleep(0.6)  # in which places are held for longer
    await asyncio.sleep(0.2)
    assert sql("SELECT slot, held_until > now() + interval '50 minutes' FROM event_stream WHERE user_id = %s", user) == [(1, True)]


async def test_a_head_and_a_refusal_hold_no_place(alice: Person, sql: Sql) -> None:
    answer = await alice("HEAD", "/task/events")
    assert (answer.status, answer.headers["Content-Type"], answer.text) == (200, "text/event-stream", "")
    assert (await alice.get("/task/events?since=x")).status == 400
    assert places(sql, alice) == []


# What it costs


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the statements that are run from now on."""
    ran: list[str] = []
    run = Database._run

    async def noted(self: Database, statement: Any, *rest: Any, **options: Any) -> Any:
        ran.append(statement.text)
        return await run(self, statement, *rest, **options)

    monkeypatch.setattr(Database, "_run", noted)
    return ran


@pytest.mark.long
async def test_with_no_stream_nothing_is_asked(alice: Person, sql: Sql, statements: list[str]) -> None:
    async with followed(alice):
        await until(lambda: len([text for text in statements if "events_after" in text]) >= 2)
    await until(lambda: places(sql, alice) == [])
    await asyncio.sleep(0.3)
    statements.clear()
    await alice.new_task()
    await asyncio.sleep(0.6)
    assert len(statements) == 1


@pytest.mark.long
async def test_one_question_serves_all_streams(alice: Person, mallory: Person, statements: list[str]) -> None:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(followed(person)) for person in (alice, mallory) for _ in range(5)]
        statements.clear()
        began_at = time.monotonic()
        await until(lambda: len(statements) >= 4)
        assert len(statements) <= (time.monotonic() - began_at) / event_watcher.SECONDS_BETWEEN_QUESTIONS + 2
        assert len(opened) == 10


async def test_a_comment_comes_now_and_then(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    assert event_stream.SECONDS_BETWEEN_COMMENTS == 15
    monkeypatch.setattr(event_stream, "SECONDS_BETWEEN_COMMENTS", 0.1)
    began_at = time.monotonic()
    async with followed(alice) as stream:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(stream.comments) < 4:
                assert await stream.is_silent(0.3)
        assert len(stream.comments) <= (time.monotonic() - began_at) / event_stream.SECONDS_BETWEEN_COMMENTS


async def test_an_idle_stream_outlives_the_keep_alive(alice: Person) -> None:
    server = TestServer(await app.create_app())
    await server.start_server(keepalive_timeout=0.1)
    async with TestClient(server) as alice.client, followed(alice) as stream:
        assert await stream.is_silent(0.5)
        task = await alice.new_task()
        assert await stream.next() == ("task", 1, task)


@asynccontextmanager
async def deaf(person: Person, path: str = "/task/events") -> AsyncIterator[asyncio.StreamReader]:
    """Open a stream of which nothing is read by itself."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (person.client.host, person.client.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {person.token}\r\n\r\n".encode())
        await reader.readuntil(b"\n")
        yield reader
        writer.transport.abort()


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[event_stream.Stream]:
    """Return the list of the streams that begin from now on."""
    begun: list[event_stream.Stream] = []
    begin = event_stream.Stream.begin

    def noted(stream: event_stream.Stream, *arguments: Any) -> None:
        begun.append(stream)
        begin(stream, *arguments)

    monkeypatch.setattr(event_stream.Stream, "begin", noted)
    return begun


async def ids(reader: asyncio.StreamReader, last: int) -> list[int]:
    """Return the ids of the events that come, up to this one's."""
    read, found = b"", []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while last not in found:
            read += await reader.read(100_000)
            *lines, read = read.split(b"\n")
            found += [int(line[4:]) for line in lines if line.startswith(b"id: ")]
    return found


@pytest.mark.long
async def test_of_all_that_waits_for_slow_readers_little_is_kept_and_nothing_is_lost(
    alice: Person, sql: Sql, streams: list[event_stream.Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "MAX_WAITING_BYTES", 2_500_000)
    count = event_stream.MAX_OF_ONE_USER
    async with followed(alice) as stream, deaf(alice) as slow, deaf(alice) as other:
        for n in range(5):  # never so many that they would catch up by themselves, at their clients' pace
            many_tasks_elsewhere(sql, alice, count, LONG)
            assert [event.id for event in await stream.take(count)] == list(range(n * count + 1, (n + 1) * count + 1))
            await until(lambda: sum(each.waiting_bytes for each in streams) <= event_stream.MAX_WAITING_BYTES)
        assert len(streams) == 3
        assert not any(each.is_live for each in streams[1:])
        for reader in (slow, other):
            assert await ids(reader, 5 * count) == list(range(5 * count + 1))
        await until(lambda: all(each.is_live for each in streams))
        task = await alice.new_task()
        assert await stream.next() == ("task", 5 * count + 1, task)
        for reader in (slow, other):
            assert await ids(reader, 5 * count + 1) == [5 * count + 1]


@pytest.mark.long
async def test_many_that_catch_up_and_do_not_read_hold_little(
    alice: Person, mallory: Person, sql: Sql, streams: list[event_stream.Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "MAX_WAITING_BYTES", 2_500_000)
    for person in (alice, mallory):
        many_tasks_elsewhere(sql, person, 400, LONG)
    async with AsyncExitStack() as stack:
        for person in [alice, mallory] * 8:
            await stack.enter_async_context(deaf(person, "/task/events?since=0"))
        await until(lambda: len(streams) == 16 and all(each._sent > 0 for each in streams))
        await until(lambda: sum(each.waiting_bytes for each in streams) <= event_stream.MAX_WAITING_BYTES)
        async with followed(alice, path="/task/events?since=390") as stream:
            assert [event.id for event in await stream.take(10)] == list(range(391, 401))
    waiting = streams[0]._waiting_in_all
    await until(lambda: not waiting._bytes and not waiting._streams)


async def test_what_waits_in_a_stream_gives_way_but_not_what_else_it_says(alice: Person) -> None:
    assert alice.caller
    waiting = event_stream.Waiting()
    stream = event_stream.Stream(alice.service.database, waiting, alice.caller, 2**62, asyncio.Transport())
    stream.begin(3, 0, 9)
    for revision in (4, 5):
        stream.take(revision - 1, event_stream.News(1, 9, revision, b"{}"))
    stream.give_way()
    assert (stream.revision, stream.is_live, [event.id for event in stream._waiting]) == (3, False, [3])
    assert (waiting._bytes, list(waiting._streams)) == (stream.waiting_bytes, [stream])
    stream.forget()
    assert (waiting._bytes, list(waiting._streams)) == (0, [])


async def test_those_that_catch_up_take_turns(alice: Person, streams: list[event_stream.Stream]) -> None:
    task = await alice.new_task()
    async with AsyncExitStack() as others, followed(alice):
        for n in range(event_stream.MAX_CATCHING_UP):
            await others.enter_async_context(streams[0]._waiting_in_all.turns.of(f"other {n}"))
        async with followed(alice, path="/task/events?since=0") as stream:
            with pytest.raises(TimeoutError):
                await stream.next(0.3)
            await others.aclose()
            assert await stream.next() == ("task", 1, task)


@pytest.mark.long
async def test_a_client_that_takes_nothing_is_given_up(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it catches up: then nothing waits for it but what it is being sent."""
    monkeypatch.setattr(event_stream, "SECONDS_OF_PATIENCE", 0.3)
    assert alice.client.server
    assert alice.client.server.runner
    monkeypatch.setattr(alice.client.server.runner.server, "handler_cancellation", False)  # as it is in production
    many_tasks_elsewhere(sql, alice, 600, LONG)
    async with deaf(alice, "/task/events?since=0"):
        assert places(sql, alice) == [1]
        await until(lambda: places(sql, alice) == [])


async def test_the_system_gives_up_who_acknowledges_nothing(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    milliseconds: list[int] = []

    def look(stream: event_stream.Stream) -> None:
        connection = stream._transport.get_extra_info("socket")
        milliseconds.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    monkeypatch.setattr(event_stream.Stream, "end_if_due", look)
    async with followed(alice):
        await until(lambda: event_stream.SECONDS_OF_PATIENCE * 1000 in milliseconds)
    monkeypatch.undo()
    assert event_stream.SECONDS_BETWEEN_COMMENTS + event_stream.SECONDS_OF_PATIENCE < 30


async def test_nobody_waits_for_what_one_users_many_changes_cost(alice: Person, mallory: Person, sql: Sql) -> None:
    """What can't be told at all stands for what takes longer than a statement may."""
    assert mallory.caller
    async with followed(mallory) as stream, followed(alice) as hers:
        sql("BEGIN")
        many_tasks_elsewhere(sql, mallory, event_stream.MAX_OF_ONE_USER, "x")
        write_task(sql, mallory.caller, 1, {"status": "planned"})
        sql("UPDATE task_log SET field = 'completion_at', old = 'no day' WHERE user_id = %s", mallory.caller.user_id)
        sql("COMMIT")
        task = await alice.new_task()
        assert await hers.next() == ("task", 1, task)
        with pytest.raises(ClientError):
            await stream.next()
        task = await alice.new_task()
        assert await hers.next() == ("task", 2, task)
    sql("UPDATE task_log SET field = 'status', old = 'new' WHERE user_id = %s", mallory.caller.user_id)


@pytest.mark.long
async def test_streams_that_lack_much_catch_up_and_are_live_again(alice: Person, sql: Sql) -> None:
    count = event_stream.MAX_OF_ONE_USER + 7
    async with followed(alice) as stream, followed(alice) as other:
        for n in range(2):
            many_tasks_elsewhere(sql, alice, count, "x")
            for one in (stream, other):
                assert [event.id for event in await one.take(count)] == list(range(n * count + 1, (n + 1) * count + 1))
        task = await alice.new_task()
        assert [await one.next() for one in (stream, other)] == [("task", 2 * count + 1, task)] * 2
        assert await stream.is_silent(0.3)


def read_of_the_log(sql: Sql) -> int:
    """Return how many entries this transaction has read, and those before of which PostgreSQL hasn't been told yet."""
    [(entries,)] = sql("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'task_log'")
    return int(entries)


@pytest.mark.parametrize("status", ["new", "completed"])
@pytest.mark.long
async def test_a_log_is_read_once_for_all_the_changes_of_a_question(alice: Person, sql: Sql, status: str) -> None:
    assert alice.caller
    changes = *({"name": "a"}, {"status": "completed"}, {"name": "b"}, {"name": "c"}, {"status": "planned"}) * 5, {"status": status}
    states = [await alice.new_task()] + [(await alice.patch("/task/1", json=change)).json for change in changes]
    for n in range(1000):
        write_task(sql, alice.caller, 1, {"name": str(n)})
    for since in (0, 500):
        sql("BEGIN")
        sql("SET LOCAL enable_seqscan = off")
        before = read_of_the_log(sql)
        got = sql("SELECT revision, body::json FROM task_changes(%s, %s, %s) ORDER BY revision", alice.caller.user_id, since, since + 27)
        read = read_of_the_log(sql) - before
        sql("ROLLBACK")
        assert [revision for revision, _ in got] == list(range(since + 1, since + 28))
        assert since or [body for _, body in got] == states
        assert read < 2 * 1027, since


# When the database is away


async def test_none_opens_while_the_database_is_away(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alice.service.database, "is_usable", False)
    answer = await alice.get("/task/events")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.long
async def test_those_that_are_open_go_on_when_it_is_back(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_watcher, "SECONDS_AFTER_TROUBLE", 0.1)
    async with followed(alice) as stream:
        with monkeypatch.context() as away:
            away.setattr(alice.service.database, "is_usable", False)
            new_task_elsewhere(sql, alice)
            assert await stream.is_silent()
        event = await stream.next()
        assert event
        assert event.id == 1


async def test_places_are_held_also_while_nothing_can_be_asked(alice: Person, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alice.caller
    monkeypatch.setattr(event_watcher, "SECONDS_AFTER_TROUBLE", 0.1)
    monkeypatch.setattr(event_watcher, "SECONDS_BETWEEN_HOLDS", 0.1)

    async def too_slow(*_: Any, **__: Any) -> Any:
        raise errors.Unavailable()

    async with followed(alice):
        monkeypatch.setattr(event_stream, "ask", too_slow)
        await asyncio.sleep(0.3)
        sql("UPDATE event_stream SET held_until = now() WHERE user_id = %s", alice.caller.user_id)
        held = "SELECT held_until - now() > interval '40 seconds' FROM event_stream WHERE user_id = %s"
        await until(lambda: sql(held, alice.caller.user_id) == [(True,)])


async def test_the_watcher_survives_its_own_faults(
    alice: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_watcher, "SECONDS_AFTER_TROUBLE", 0.1)
    async with followed(alice) as stream:
        with monkeypatch.context() as broken:
            broken.setattr(event_stream, "ask", None)
            await alice.new_task()
            assert await stream.is_silent(0.3)
        event = await stream.next()
        assert event
        assert event.id == 1
    assert "the watcher of events stumbled" in [record.message for record in caplog.records]


async def test_one_that_fails_while_it_catches_up_is_broken_off(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    await alice.new_task()

    async def away(*_: Any) -> Any:
        raise errors.Unavailable()

    monkeypatch.setattr(event_stream, "ask", away)
    async with followed(alice, Last_Event_ID="0") as stream:
        with pytest.raises(ClientError):
            await stream.next()


# The function that is asked


async def test_a_question_brings_so_much_of_one_and_so_much_of_all(newcomer: Callable[[str], Awaitable[Person]], sql: Sql) -> None:
    people = [await newcomer("alice") for _ in range(4)]
    for person in people[:3]:
        for _ in range(6):
            new_task_elsewhere(sql, person)
    callers = [person.caller for person in people if person.caller]
    users, generations = [caller.user_id for caller in callers], [caller.generation for caller in callers]
    ask = "SELECT n, user_revision, revision, body::json->>'id' FROM events_after(%s, %s, %s, NULL, %s, %s)"
    assert sql(ask, users, generations, [0, 4, 6, 0], 10, 100) == [(1, 6, n, str(n)) for n in range(1, 7)] + [
        (2, 6, 5, "5"),
        (2, 6, 6, "6"),
    ]
    assert [row[:3] for row in sql(ask, users, generations, [0, 0, 0, 0], 2, 100)] == [
        (n, 6, revision) for n in (1, 2, 3) for revision in (1, 2)
    ]
    assert [row[:3] for row in sql(ask, users, generations, [0, 0, 0, 0], 4, 6)] == [
        (1, 6, 1),
        (1, 6, 2),
        (1, 6, 3),
        (1, 6, 4),
        (2, 6, 1),
        (2, 6, 2),
    ]
    assert sql(ask, users[:1], [generations[0] + 1], [6], 2, 100) == [(1, None, None, None)]
    assert sql(ask, [2**62], [1], [0], 2, 100) == [(1, None, None, None)]


async def test_of_who_lacks_more_than_is_reached_comes_only_word_of_that(newcomer: Callable[[str], Awaitable[Person]], sql: Sql) -> None:
    people = [await newcomer("alice") for _ in range(3)]
    for person in people:
        for _ in range(4):
            new_task_elsewhere(sql, person)
    callers = [person.caller for person in people if person.caller]
    users, generations = [caller.user_id for caller in callers], [caller.generation for caller in callers]
    ask = "SELECT n, user_revision, revision, body IS NULL FROM events_after(%s, %s, %s, %s, 2, 4)"
    assert sql(ask, users, generations, [0, 2, 1], 2) == [(1, 4, 0, True), (2, 4, 3, False), (2, 4, 4, False), (3, 4, 1, True)]
    assert sql(ask, users, generations, [5, 3, 4], 2) == [(1, 4, None, True), (2, 4, 4, False)]

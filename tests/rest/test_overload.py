"""More than can be served is refused at once, what takes too long is given up, and neither touches anybody else."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from rest import errors, overload, streamed_response
from telemetry import logs
from tests.conftest import Person, Start, configured
from tests.tasks.test_races import row_held, until_waiting
from tests.telemetry.test_metrics import OPERATOR, TOKEN
from tests.waiting import ENDLESS, PATIENCE_SECONDS

Sql = Callable[..., list[tuple[Any, ...]]]
Serve = Callable[..., Any]


@pytest.fixture
def serve(start: Start) -> Serve:
    """Return a function that starts the application under some settings, for a person to use."""

    @asynccontextmanager
    async def run(person: Person, **overrides: Any) -> AsyncIterator[None]:
        kept, person.client = person.client, await start(**overrides)
        yield
        await person.client.close()
        person.client = kept

    return run


def refused(answer: Any) -> bool:
    return (answer.status, answer.headers.get("Retry-After")) == (503, "1")


async def test_more_than_can_be_served_is_refused_at_once_and_what_tells_of_it_is_not(alice: Person, sql: Sql, serve: Serve) -> None:
    async with serve(alice, max_requests_at_once=3, metrics_token=TOKEN, **ENDLESS):
        await alice.new_task()
        with row_held(sql, alice):
            changes = [asyncio.ensure_future(alice.patch("/task/1", json={"name": f"{n}"})) for n in range(3)]
            await until_waiting(sql, 3 if configured().batch_size == 1 else 1)
            async with asyncio.timeout(PATIENCE_SECONDS):
                refusals = await asyncio.gather(*(alice.get("/task") for _ in range(20)))
            told = [await alice.get(path, headers=OPERATOR) for path in ("/health/live", "/health/ready", "/metrics")]
            assert [answer.status for answer in told] == [200, 200, 200]
            assert not any(change.done() for change in changes)  # nobody waited for one of them to end
        assert all(refused(answer) for answer in refusals)
        assert [answer.status for answer in await asyncio.gather(*changes)] == [200] * 3
        assert (await alice.get("/task")).status == 200


@pytest.mark.long
async def test_what_takes_too_long_is_given_up_and_leaves_nothing_behind(alice: Person, sql: Sql, serve: Serve) -> None:
    await alice.new_task()
    async with serve(alice, **ENDLESS | {"request_timeout_seconds": 1}):
        with row_held(sql, alice):
            began_at = time.monotonic()
            async with asyncio.timeout(PATIENCE_SECONDS):
                answers = await asyncio.gather(*(alice.patch("/task/1", json={"name": f"{n}"}) for n in range(5)))
            assert time.monotonic() - began_at > 0.9
        assert all(refused(answer) for answer in answers)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await alice.patch("/task/1", json={"name": "last"})).status != 200:  # a machine that is busy may need another second
                pass
        assert not alice.service.database.pool_backend.has_acquired_connections()
        assert [task for task in asyncio.all_tasks() if task.cancelling()] == []


# PostgreSQL, as clients see it


@contextmanager
def table_locked(sql: Sql) -> Iterator[None]:
    """Let every statement that looks at tasks wait."""
    sql("BEGIN")
    try:
        sql("LOCK TABLE task IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        sql("COMMIT")


@pytest.mark.long
@pytest.mark.parametrize(
    "limits",
    [{"statement_timeout_seconds": 0.3}, {"lock_timeout_seconds": 0.3}, {"db_wait_seconds": 0.3, "db_pool_size": 1}],
    ids=["statement", "lock", "pool"],
)
async def test_whichever_limit_is_reached_the_answer_is_503_in_time(
    alice: Person, mallory: Person, sql: Sql, serve: Serve, limits: dict[str, float]
) -> None:
    people, usual = (alice, mallory), alice.client
    for person in people:
        await person.new_task()
    async with serve(alice, **ENDLESS | limits):
        mallory.client = alice.client
        with table_locked(sql):
            first = asyncio.ensure_future(alice.get("/task/1"))
            await until_waiting(sql, 1)
            async with asyncio.timeout(PATIENCE_SECONDS):
                answers = [await mallory.get("/task?q=a"), await mallory.patch("/task/1", json={"name": "b"})]
                assert all(map(refused, answers)), answers
                assert (await alice.get("/health/live")).status == 200
        assert (await first).status in (200, 503)
    mallory.client = usual
    assert [(await person.get("/task/1")).json["name"] for person in people] == ["Buy milk"] * 2


@pytest.mark.parametrize("code", ["53100", "53200", "53300", "53400", "57014", "57P03", "58030", "25006", "XX001"])
async def test_what_postgresql_lacks_is_503_and_the_change_did_not_happen(alice: Person, mallory: Person, sql: Sql, code: str) -> None:
    sql(f"CREATE FUNCTION lack() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
    sql("CREATE TRIGGER lack BEFORE INSERT ON task FOR EACH ROW EXECUTE FUNCTION lack()")
    task = {"name": "a", "description": "", "status": "new"}
    try:
        answers = await asyncio.gather(*(person.post("/task", json=task) for person in (alice, mallory, alice)))
        assert all(map(refused, answers)), answers
    finally:
        sql("DROP FUNCTION lack CASCADE")
    assert (await alice.get("/task")).json == []
    assert (await alice.post("/task", json=task)).json["id"] == 1


# Bodies


async def send_slowly(person: Person, parts: list[bytes], wait: Callable[[], Awaitable[Any]]) -> tuple[int, dict[str, str], float]:
    """Create a task with a body that arrives in parts, with a wait before each, and give status, headers and seconds."""

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            await wait()
            yield part

    began_at = time.monotonic()
    headers = {"Authorization": f"Bearer {person.token}", "Content-Type": "application/json"}
    async with person.client.post("/task", data=body(), headers=headers) as answer:
        return answer.status, dict(answer.headers), time.monotonic() - began_at


TASK = [b'{"name": "a", ', b'"description": "", ', b'"status": "new"}']


@pytest.mark.long
async def test_a_body_that_does_not_arrive_in_time_is_refused_and_others_do_not_wait_for_it(alice: Person, serve: Serve) -> None:
    async with serve(alice, request_timeout_seconds=1, max_requests_at_once=2):
        slow = [asyncio.ensure_future(send_slowly(alice, TASK, lambda: asyncio.sleep(0.8))) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert (await alice.get("/task")).status == 200
        for status, headers, seconds in await asyncio.gather(*slow):
            assert (status, headers["Connection"]) == (408, "close")
            assert seconds > 0.9
        assert (await alice.get("/task")).json == []


async def test_a_body_that_arrives_when_there_is_too_much_to_do_is_refused(alice: Person, sql: Sql, serve: Serve) -> None:
    async with serve(alice, max_requests_at_once=1, **ENDLESS):
        assert (await send_slowly(alice, TASK, lambda: asyncio.sleep(0.05)))[0] == 201
        go_on = asyncio.Event()
        slow = asyncio.ensure_future(send_slowly(alice, TASK, go_on.wait))
        with row_held(sql, alice):
            change = asyncio.ensure_future(alice.patch("/task/1", json={"name": "b"}))
            await until_waiting(sql, 1)
            go_on.set()
            assert (await slow)[0] == 503
        assert (await change).status == 200


async def test_what_is_answered_piece_by_piece_takes_its_time_and_no_place() -> None:
    async def long(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/json"
        async with streamed_response.answering(request, response):
            await asyncio.sleep(0.3)
            await response.write(b"[1]")
        return response

    under_way = overload.UnderWay(1, 0.1, ())
    application = web.Application(middlewares=[logs.middleware, errors.middleware, under_way.middleware])
    application[overload.UNDER_WAY] = under_way
    application.router.add_get("/health/live", long)
    async with TestClient(TestServer(application)) as client:
        stranger = Person(client)
        answers = []
        for _ in range(3):
            answers.append(asyncio.ensure_future(stranger.get("/health/live")))
            await asyncio.sleep(0.02)
        assert [answer.json for answer in await asyncio.gather(*answers)] == [[1]] * 3


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    under_way = overload.UnderWay(1, 5, ())

    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        raise AssertionError

    handling = asyncio.ensure_future(under_way.middleware(make_mocked_request("GET", "/"), handler))
    await asyncio.sleep(0)
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling


async def refused_of(everybody: Sequence[tuple[str, int | None]], most: int = 8) -> list[int]:
    """Ask in this order, each from an address and as somebody, for what takes for ever, and return which of them are refused."""
    under_way = overload.UnderWay(most, 600, (), lambda address, request: request.headers["X-From"])

    async def ask(address: str, user_id: int | None) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            if user_id:
                request[logs.USER_ID] = user_id
            await asyncio.Event().wait()
            raise AssertionError

        headers = {"X-From": address} | ({"Authorization": f"{user_id}"} if user_id else {})
        await under_way.middleware(make_mocked_request("GET", "/", headers=headers), handler)

    asking = []
    for comer in everybody:
        asking.append(asyncio.ensure_future(ask(*comer)))
        await asyncio.sleep(0.001)
    refused = [number for number, each in enumerate(asking) if each.done() and isinstance(each.exception(), errors.Unavailable)]
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert under_way._since == {}
    return refused


@pytest.mark.parametrize(
    ("before", "newcomer", "refused"),
    [
        (8 * [("M", None)], ("A", None), 0),
        (8 * [("M", None)], ("M", None), 8),
        ([("M", None)] * 6 + [("B", None)] * 2, ("A", None), 0),
        ([(f"M{n}", 7) for n in range(8)], ("A", None), 0),
        ([("M", n) for n in (1, 1, 7, 7, 7, 2, 2, 3)], ("M", 2), 2),
        ([("M", n) for n in (1, 1, 7, 7, 7, 2, 2, 3)], ("M", 7), 8),
        ([("M", None)] * 2 + [("B", None)] * 2 + [("C", 1)] * 2 + [("D", 2)] * 2, ("A", None), 8),
    ],
    ids=["one address", "one's own address", "most from one address", "one user", "one of many behind a proxy", "oneself", "many"],
)
async def test_no_address_and_no_user_keeps_all_places(
    monkeypatch: pytest.MonkeyPatch, before: list[tuple[str, int | None]], newcomer: tuple[str, int | None], refused: int
) -> None:
    """Whoever has more than a quarter gives up its slowest; what isn't slow yet isn't given up."""
    monkeypatch.setattr(overload, "SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr(overload, "SECONDS_TO_BE_SLOW", 0)
    assert await refused_of([*before, newcomer]) == [refused]
    monkeypatch.setattr(overload, "SECONDS_TO_BE_SLOW", 600)
    assert await refused_of([*before, newcomer]) == [8]


async def test_whoever_keeps_all_places_keeps_no_more_than_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "SECONDS_BETWEEN_LOOKS", 600)
    monkeypatch.setattr(overload, "SECONDS_TO_BE_SLOW", 0)
    assert await refused_of([("M", None)] * 8 + [(f"A{n}", None) for n in range(10)]) == [0, 1, 2, 3, 4, 5, *range(14, 18)]


async def test_each_has_its_own_deadline() -> None:
    under_way = overload.UnderWay(10, 0.2, ())
    loop, request = asyncio.get_running_loop(), make_mocked_request("GET", "/")

    async def seconds(delay: float, length: float) -> float | None:
        async def handler(request: Any) -> web.StreamResponse:
            await asyncio.sleep(length)
            return web.Response()

        await asyncio.sleep(delay)
        began_at = loop.time()
        try:
            await under_way.middleware(request, handler)
        except errors.Unavailable:
            return loop.time() - began_at
        return None

    took = await asyncio.gather(seconds(0, 5), seconds(0.05, 0.01), seconds(0.1, 5), seconds(0.25, 0.01), seconds(0.3, 5))
    assert [length and length > 0.19 for length in took] == [True, None, True, None, True]


async def test_of_many_past_their_deadline_one_ends_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "SECONDS_BETWEEN_ENDS", 0)
    ended: list[int] = []
    under_way = overload.UnderWay(100, 0.05, ())
    request = make_mocked_request("GET", "/")

    async def handler(request: Any) -> web.StreamResponse:
        await asyncio.sleep(PATIENCE_SECONDS)
        return web.Response()

    async def ask() -> None:
        with pytest.raises(errors.Unavailable):
            await under_way.middleware(request, handler)
        ended[-1] += 1

    async def turn() -> None:
        while True:
            ended.append(0)
            await asyncio.sleep(0)

    turns = asyncio.ensure_future(turn())
    await asyncio.gather(*(ask() for _ in range(20)))
    turns.cancel()
    assert sum(ended) == 20
    assert max(ended) == 1

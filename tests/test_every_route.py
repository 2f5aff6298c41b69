"""Every route: who is let in, which methods there are, and that nobody reaches what is another's."""

import re
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import BytesPayload, hdrs, web
from aiohttp.test_utils import TestClient

import app
import auth
from accounts.schemas import Closure, Credentials, PasswordChange, PasswordReset, Registration
from history.schemas import Restoration, Undo
from rest.operation import Operation
from tasks.schemas import TaskChange, TaskNew
from tests.conftest import PASSWORD, Answer, Person, hand_out
from tests.rest.test_bodies import exchange, request_of

METHODS = sorted(hdrs.METH_ALL - {"CONNECT"})  # which is no request for a path
CODE = "of-a-walk"
BODIES: dict[Any, dict[str, Any] | None] = {  # what each kind of body may hold, so that nothing else is at fault
    None: None,
    Registration: {"login": "walks-every-route", "password": "correct horse"},
    Credentials: {"login": "walks-every-route", "password": "correct horse"},
    PasswordChange: {"old": PASSWORD, "new": "another horse"},
    PasswordReset: {"code": CODE, "new": "another horse"},
    Closure: {"password": PASSWORD},
    TaskNew: {"name": "of a walk", "description": "", "status": "new"},
    TaskChange: {"name": "changed", "status": "completed"},
    Restoration: {},
    Undo: {"since": 0},
}

Sql = Callable[..., list[tuple[Any, ...]]]


def path_of(route: web.RouteDef, task_id: int = 1) -> str:
    path = route.path.replace(app.TASK, f"/task/{task_id}")
    assert "{" not in path
    return path


def methods_of(route: web.RouteDef) -> list[str]:
    return [method for method in METHODS if hasattr(route.handler, method.lower())]


def operation_of(route: web.RouteDef, method: str) -> Operation:
    return getattr(route.handler, method.lower()).operation


ROUTES = app.PUBLIC + app.PRIVATE
OPERATIONS = [(method, route) for route in ROUTES for method in methods_of(route)]
PRIVATE_OPERATIONS = [(method, route) for method, route in OPERATIONS if route in app.PRIVATE]


def name_of(value: object) -> str:
    return re.sub(r"\{(\w+):.*?\](?:\{.*?\})?\}", r"\1", value.path) if isinstance(value, web.RouteDef) else str(value)


every_operation = pytest.mark.parametrize(("method", "route"), OPERATIONS, ids=name_of)
every_private_operation = pytest.mark.parametrize(("method", "route"), PRIVATE_OPERATIONS, ids=name_of)
every_route = pytest.mark.parametrize("route", ROUTES, ids=name_of)


def body_of(operation: Operation) -> dict[str, Any]:
    """Return the body with which an operation is called, as aiohttp's client takes it: the first that is an example, where it takes files."""
    for media_type, example in operation.files.items():
        if isinstance(example, str):
            return {"data": BytesPayload(example.encode(), content_type=media_type)}
    body = BODIES[operation.body]
    return {} if body is None else {"json": body}


async def call(person: Person, method: str, route: web.RouteDef, task_id: int = 1, **options: Any) -> Answer:
    """Make a call as it is meant."""
    return await person(method, path_of(route, task_id), **body_of(operation_of(route, method)), **options)


def without_the_moment(answer: Answer) -> tuple[int, list[tuple[str, str]], str]:
    passing = ("Date", "X-Request-ID", "Transfer-Encoding")  # which HEAD may leave out (RFC 9110, section 9.3.2)
    headers = sorted((name, value) for name, value in answer.headers.items() if name not in passing)
    return answer.status, headers, answer.text


async def stored(person: Person, sql: Sql) -> list[Any]:
    """Return all that is kept of somebody's tasks."""
    assert person.caller
    tables = ("user_state", "task", "task_log")
    return [sql(f"SELECT * FROM {table} t WHERE user_id = %s ORDER BY t", person.caller.user_id) for table in tables]


# What is declared


async def test_the_running_application_has_these_routes_and_no_others(client: TestClient[Any, Any]) -> None:
    assert client.app
    served = [(route.resource.get_info(), route.method, route.handler) for route in client.app.router.routes() if route.resource]
    declared = web.Application()
    declared.add_routes(ROUTES)
    assert served == [(route.resource.get_info(), route.method, route.handler) for route in declared.router.routes() if route.resource]
    assert len(served) == len({route.path for route in ROUTES})


@every_operation
def test_every_operation_is_declared_in_words(method: str, route: web.RouteDef) -> None:
    operation = operation_of(route, method)
    assert isinstance(operation, Operation)
    assert re.fullmatch(r"[A-Z][^.\n]+\.", operation.words.partition("\n")[0])
    assert operation.body in BODIES, "say above what a good body is"


def test_each_way_of_calling_is_declared_once() -> None:
    summaries = {(name_of(route), operation_of(route, method).words) for method, route in OPERATIONS if method != "HEAD"}
    assert len(summaries) == len([method for method, _ in OPERATIONS if method != "HEAD"])


@every_route
def test_no_view_answers_options(route: web.RouteDef) -> None:
    """aiohttp-jwt lets every OPTIONS pass."""
    assert not hasattr(route.handler, "options")


# Who is let in


@pytest.mark.parametrize("route", app.PRIVATE, ids=name_of)
async def test_a_stranger_is_let_in_nowhere(stranger: Person, alice: Person, route: web.RouteDef) -> None:
    await alice.new_task()
    for method in methods_of(route):
        answer = await call(stranger, method, route)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="task"'), method
        assert answer.headers["Cache-Control"] == "private, no-cache"
        answer = await call(stranger, method, route, headers={"Authorization": f"Bearer {alice.token}x"})
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="task", error="invalid_token"'), method
        assert (await call(alice, method, route, (await alice.new_task())["id"])).status < 300, method
    for method in set(METHODS) - set(methods_of(route)):
        assert (await stranger(method, path_of(route))).status in (401, 405)


@every_private_operation
async def test_a_token_of_the_past_is_let_in_nowhere(alice: Person, sql: Sql, method: str, route: web.RouteDef) -> None:
    assert alice.caller
    await alice.new_task()
    sql("UPDATE user_state SET token_generation = %s WHERE user_id = %s", secrets.randbelow(auth.GENERATIONS), alice.caller.user_id)
    before = await stored(alice, sql)
    for query in ("", "?status=new", "?limit=1", "?completion_at=none"):
        if query and operation_of(route, method).query is None:
            continue
        if query and query[1:].partition("=")[0] not in operation_of(route, method).query.model_fields:
            continue
        answer = await alice(method, path_of(route) + query, **body_of(operation_of(route, method)))
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="task", error="invalid_token"')
        assert "X-Revision" not in answer.headers
    assert await stored(alice, sql) == before


async def test_what_is_public_needs_no_token(stranger: Person, alice: Person, sql: Sql) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}):
        hand_out(sql, CODE, alice)
        statuses = {
            (method, path_of(route)): (await call(stranger, method, route, headers=headers)).status
            for route in app.PUBLIC
            for method in methods_of(route)
        }
        assert set(statuses.values()) <= {200, 201, 409}, statuses
    assert statuses["POST", "/register"] == 409  # the second time


# Methods


@pytest.mark.parametrize("route", [route for route in ROUTES if hasattr(route.handler, "get")], ids=name_of)
async def test_head_is_get_without_the_body(alice: Person, route: web.RouteDef) -> None:
    await alice.new_task()
    await alice.patch("/task/1", json={"name": "new name"})
    for headers in ({}, {"If-None-Match": "*"}, {"If-None-Match": '"x"'}):
        (get_status, get_headers, text), head = [
            without_the_moment(await alice(method, path_of(route), headers=headers)) for method in ("GET", "HEAD")
        ]
        assert head == (get_status, get_headers, "")
        assert (get_status, bool(text)) in ((200, True), (304, False))
    for path in (path_of(route) + "?x=y", path_of(route, 4711), "/nowhere"):
        (status, get_headers, _), head = [without_the_moment(await alice(method, path)) for method in ("GET", "HEAD")]
        assert head == (status, get_headers, "")


@every_route
async def test_another_method_is_405_with_those_that_there_are(alice: Person, route: web.RouteDef) -> None:
    task = await alice.new_task()
    others = [method for method in [*METHODS, "PROPFIND"] if method not in methods_of(route)]
    assert {"OPTIONS", "TRACE", "PROPFIND"} <= set(others)
    for method in others:
        answer = await alice(method, path_of(route))
        assert answer.status == 405, method
        assert sorted(answer.headers["Allow"].replace(" ", "").split(",")) == methods_of(route)
        assert method == "HEAD" or answer.json["status"] == 405
    assert (await alice.get("/task")).json == [task]


# Addresses


@every_operation
async def test_an_unknown_parameter_is_refused_on_every_call(alice: Person, sql: Sql, method: str, route: web.RouteDef) -> None:
    await alice.new_task()
    before = await stored(alice, sql)
    for query in ("x=y", "x=", "x", "x=1&x=2", "Status=new", "access_token=x", "x[]=y", "%78=y", ";", "%00"):
        answer = await alice(method, f"{path_of(route)}?{query}", **body_of(operation_of(route, method)))
        assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (400, "application/problem+json"), query
        assert method == "HEAD" or answer.json["errors"], query
    assert await stored(alice, sql) == before
    assert sql("SELECT 1 FROM users WHERE login = 'x'") == []


@every_operation
async def test_an_empty_or_repeated_parameter_is_refused_on_every_call(alice: Person, method: str, route: web.RouteDef) -> None:
    await alice.new_task()
    query = operation_of(route, method).query
    for parameter in query.model_fields if query else []:
        for sent in ([f"{parameter}=1", f"{parameter}=1"], [f"{parameter}="] if parameter != "q" else ["q=", "q="]):
            answer = await alice(method, f"{path_of(route)}?{'&'.join(sent)}")
            assert answer.status == 400, sent
            assert method == "HEAD" or parameter in {error["field"] for error in answer.json["errors"]}


async def test_a_path_that_no_route_has_is_404_for_everybody(alice: Person, stranger: Person) -> None:
    task = await alice.new_task()
    paths = [path_of(route) + more for route in ROUTES for more in ("/", "//", "/x", "%2F", ".", ";x", "%00", "x")]
    paths += [
        "/",
        "/nowhere",
        "/TASK",
        "/Task/1",
        "/task/1/LOG",
        "/task//1",
        "/task/1//log",
        "/task/LOG",
        "/health",
        "/tasks",
        "/%ff",
        "/x" * 2000,
    ]
    paths += ["/task/" + task_id for task_id in ("0", "01", "x", "1.0", "-1", "%D9%A1")]
    for path in paths:
        for person in (alice, stranger):
            for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
                answer = await person(method, path)
                assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (404, "application/problem+json"), (
                    method,
                    path,
                )
    assert (await alice.get("/task")).json == [task]


async def test_an_address_is_taken_as_it_is(alice: Person) -> None:
    for path in ("//task", "/task/../task", "/./task", "//task/1", "/task/1/../1"):
        answer = await exchange(alice.client, request_of(alice, f"GET {path}"))
        assert answer.startswith(b"HTTP/1.1 404 "), path


# Mallory


CONDITIONS: list[dict[str, str]] = [
    {},
    {"If-Match": "*"},
    {"If-Match": '"1"'},
    {"If-Match": '"2", "3"'},
    {"If-None-Match": "*"},
    {"If-None-Match": '"2"'},
]


@every_private_operation
async def test_mallory_cannot_tell_alices_task_from_one_that_never_was(
    alice: Person, mallory: Person, sql: Sql, method: str, route: web.RouteDef
) -> None:
    for n in range(3):
        await alice.new_task(name=f"secret {n}", description="secret", completion_at="02-10-2020")
        await alice.patch(f"/task/{n + 1}", json={"status": "planned"})
    await alice.delete("/task/3")
    mine = await mallory.new_task(name="mine")
    before = await stored(alice, sql)
    if app.TASK not in route.path:
        answer = await call(mallory, method, route)
        assert answer.status < 300
        assert "secret" not in answer.text
    else:
        for headers in CONDITIONS:
            never_was = await call(mallory, method, route, 4711, headers=headers)
            assert never_was.status == 404
            for task_id in (2, 3):
                answer = await call(mallory, method, route, task_id, headers=headers)
                assert without_the_moment(answer) == without_the_moment(never_was), (task_id, headers)
        assert (await mallory.get("/task")).json == [mine]
    assert await stored(alice, sql) == before
    control = await call(alice, method, route, 2)
    assert control.status < 300
    assert ("secret" in control.text) == (
        method in ("GET", "PUT", "PATCH", "POST")
        and route.path.startswith(("/task", "/export"))
        and not route.path.endswith(("/log", "/events"))  # of which only the first event is read here
        and (method, route.path) != ("POST", "/task")
    )


@every_private_operation
async def test_what_is_sent_names_nobody_else(alice: Person, mallory: Person, sql: Sql, method: str, route: web.RouteDef) -> None:
    assert alice.caller
    await alice.new_task(name="secret")
    before = await stored(alice, sql)
    for name in ("user", "user_id", "sub", "owner", "login"):
        value = str(alice.caller.user_id)
        answers = [
            await mallory(method, path_of(route), params={name: value}),
            await call(
                mallory,
                method,
                route,
                headers={"X-User": value, "X-User-ID": value, "X-Forwarded-User": alice.login, "Cookie": f"{name}={value}"},
            ),
        ]
        if body := BODIES[operation_of(route, method).body]:
            answers += [await mallory(method, path_of(route), **{kind: body | {name: value}}) for kind in ("json", "data")]
        assert not any("secret" in answer.text for answer in answers)
        assert answers[0].status == 400
    assert await stored(alice, sql) == before


async def test_alices_cursor_is_no_use_to_mallory(alice: Person, mallory: Person) -> None:
    for person in (alice, mallory):
        for _ in range(3):
            await person.new_task(name=f"of {person.login}")
        await person.patch("/task/1", json={"name": "new", "status": "planned"})
    for path in ("/task?limit=1", "/task/1/log?limit=1"):
        following = (await alice.get(path)).headers["Link"].partition(">")[0].removeprefix("<")
        assert (await alice.get(following)).status == 200
        answer = await mallory.get(following)
        assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, ["cursor"])

"""Pages of other origins: those that are named may use the API, no others."""

from typing import Any

import pytest

import settings
from rest import cors
from tests.conftest import Person, Start

PAGE = "https://tasks.example"
OTHERS = ["https://mallory.example", "https://tasks.example.mallory.example", "http://tasks.example", "null", "*", ""]
ASKED = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,if-match"}


@pytest.fixture
async def opened(alice: Person, start: Start) -> Person:
    """Give Alice, at a service that is open to the page."""
    alice.client = await start(cors_origins=f"http://localhost:3000, {PAGE}")
    return alice


def allowed(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("Access-Control-")}


async def test_a_named_page_may_read_answers_and_refusals(opened: Person) -> None:
    opened_up = {
        "Access-Control-Allow-Origin": PAGE,
        "Access-Control-Expose-Headers": ", ".join(sorted({*cors.EXPOSED, "X-Purged", "X-Revision"})),
    }
    for path, status in {"/task": 200, "/nowhere": 404, "/task/9": 404, "/task?x=y": 400, "/task/events": 200, "/export": 200}.items():
        answer = await opened.get(path, headers={"Origin": PAGE})
        assert (answer.status, allowed(answer)) == (status, opened_up)
    opened.token = None
    answer = await opened.get("/task", headers={"Origin": PAGE})
    assert (answer.status, allowed(answer)) == (401, opened_up)


async def test_a_refusal_for_want_of_room_can_be_read_too(opened: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rest.overload.UnderWay._at_work", lambda _: 10**6)
    answer = await opened.get("/task", headers={"Origin": PAGE})
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (503, PAGE)


async def test_nobody_else_may(opened: Person) -> None:
    for origin in OTHERS:
        answer = await opened.get("/task", headers={"Origin": origin})
        assert (answer.status, allowed(answer)) == (200, {})
        answer = await opened("OPTIONS", "/task", headers=ASKED | {"Origin": origin})
        assert (answer.status, allowed(answer)) == (405, {})
    assert allowed(await opened.get("/task", headers={"Origin": PAGE}))


async def test_a_browser_may_ask_before_with_no_token(opened: Person) -> None:
    opened.token = None
    answer = await opened("OPTIONS", "/task/7", headers=ASKED | {"Origin": PAGE})
    assert (answer.status, answer.text) == (204, "")
    assert allowed(answer).items() >= (cors.PREFLIGHT | {"Access-Control-Allow-Origin": PAGE}).items()
    assert "Access-Control-Allow-Credentials" not in answer.headers
    for path, headers, status in (
        ("/nowhere", ASKED | {"Origin": PAGE}, 404),
        ("/task", {"Origin": PAGE}, 405),  # no question of a browser's
        ("/task", ASKED, 405),
    ):
        assert (await opened("OPTIONS", path, headers=headers)).status == status


async def test_a_cache_keeps_the_answers_to_different_origins_apart(opened: Person) -> None:
    for headers in ({}, {"Origin": PAGE}, {"Origin": OTHERS[0]}):
        assert (await opened.get("/task", headers=headers)).headers["Vary"] == "Authorization, Accept, Origin"
        assert (await opened.get("/health/live", headers=headers)).headers["Vary"] == "Origin"


async def test_by_default_no_page_may(alice: Person) -> None:
    assert allowed(await alice.get("/task", headers={"Origin": PAGE})) == {}
    assert (await alice("OPTIONS", "/task", headers=ASKED | {"Origin": PAGE})).status == 405


@pytest.mark.parametrize("origins", ["*", "null", "tasks.example", "https://tasks.example/", "https://*.example", "HTTPS://tasks.example"])
def test_what_is_no_origin_stops_the_start(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", origins)
    with pytest.raises(SystemExit, match=r"^CORS_ORIGINS: needs origins"):
        settings.load()

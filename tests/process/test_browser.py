"""The documentation's pages in a real browser, which reaches the service's host and no other."""

from typing import Any

import pytest
import requests

import app
from rest import docs_pages
from rest.errors import Failure
from tests.process.conftest import Tab
from tests.process.service import Service, register, running
from tests.reverse_proxy import stripping

pytestmark = [pytest.mark.long, pytest.mark.browser]


@pytest.fixture
def document(public_service: Service) -> Any:
    """The document that the page shows."""
    return requests.get(f"{public_service.url}/openapi.json", timeout=10).json()


@pytest.fixture
def token(public_service: Service, request: pytest.FixtureRequest) -> str:
    """The token of a new account."""
    return register(public_service, f"browser-{request.node.name[:40]}")["Authorization"].split()[1]


async def open_docs(tab: Tab) -> None:
    answer = await tab.page.goto(f"{tab.url}/docs")
    assert answer
    assert answer.headers["content-security-policy"] == docs_pages.POLICY
    await tab.page.locator(".opblock").first.wait_for()


async def authorize(tab: Tab, token: str) -> None:
    await tab.page.locator(".scheme-container .btn.authorize").click()
    form = tab.page.locator(".modal-ux .auth-container").first  # the other one is the operator's
    await form.locator("input").fill(token)
    await form.locator(".btn.authorize").click()
    await form.locator(".btn-done").click()


async def execute(tab: Tab, operation: str) -> str:
    """Open an operation, try it as the page proposes, and give the status that the page shows."""
    block = tab.page.locator(f".opblock[id$='-{operation}']")
    await block.locator(".opblock-summary-control").click()
    await block.locator(".try-out__btn").click()
    await block.locator(".execute").click()
    status = await block.locator(".live-responses-table tbody .response-col_status").inner_text()
    return status.split()[0]


async def test_the_page_shows_every_operation(tab: Tab, document: Any) -> None:
    await open_docs(tab)
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    shown = await tab.page.locator(".opblock").evaluate_all("blocks => blocks.map(block => block.id)")
    assert len(shown) == len(names)
    assert {name for name in names if any(block.endswith(f"-{name}") for block in shown)} == {*names}
    assert app.INFO.title in await tab.page.locator(".info .title").inner_text()
    assert tab.complaints == []


async def test_what_an_operation_takes_and_answers_unfolds(tab: Tab) -> None:
    await open_docs(tab)
    some = 10  # to unfold all of them at once takes a slow machine minutes
    await tab.page.locator(".opblock-summary-control").evaluate_all(f"all => all.slice(0, {some}).forEach(summary => summary.click())")
    await tab.page.locator(".opblock-body .responses-table").nth(some - 1).wait_for(timeout=60_000)
    assert await tab.page.locator(".opblock.is-open").count() == some
    assert await tab.page.get_by_text("Could not resolve", exact=False).count() == 0
    assert tab.complaints == []


async def try_out(tab: Tab, token: str, location: str) -> None:
    """List the tasks, and create the first, which is to be there."""
    await open_docs(tab)
    await authorize(tab, token)
    assert await execute(tab, "list_tasks") == "200"
    assert await execute(tab, "create_task") == "201"
    created = tab.page.locator(".opblock[id$='-create_task'] .live-responses-table")
    assert f"location: {location}" in await created.inner_text()


async def test_operations_can_be_tried_with_a_token(tab: Tab, token: str) -> None:
    await try_out(tab, token, "/task/1")
    assert tab.complaints == []


async def test_below_a_path_that_a_proxy_strips_they_can_be_tried_too(tab: Tab, token: str, unused_tcp_port_factory: Any) -> None:
    port = unused_tcp_port_factory()
    with running(unused_tcp_port_factory(), PUBLIC_URL=f"http://127.0.0.1:{port}/tasks") as service:
        async with stripping("/tasks", service.url, port) as tab.url:  # whatever leads elsewhere on the host has strayed, too
            await try_out(tab, token, "/tasks/task/1")
            await tab.page.goto(f"{tab.url}/docs/problems#login-taken")
            assert await tab.page.locator(":target").inner_text() == "login-taken"
            assert tab.complaints == []


async def test_without_a_token_they_are_refused(tab: Tab) -> None:
    await open_docs(tab)
    assert await execute(tab, "list_tasks") == "401"


async def test_the_kinds_of_problem_have_anchors(tab: Tab) -> None:
    answer = await tab.page.goto(f"{tab.url}/docs/problems#login-taken")
    assert answer
    assert answer.headers["content-security-policy"] == docs_pages.POLICY
    kinds = {kind.kind for kind in docs_pages.problems(Failure)}
    assert {"login-taken", "changed-meanwhile"} <= kinds
    shown = await tab.page.locator("h2[id]").evaluate_all("headings => headings.map(heading => heading.id)")
    assert sorted(shown) == sorted(kinds)
    assert await tab.page.locator(":target").inner_text() == "login-taken"
    assert tab.complaints == []


async def test_whatever_strays_is_seen(tab: Tab) -> None:
    """A control: the console tells what the page's policy refuses, and the guard blocks and counts what no policy holds."""
    from playwright.async_api import Error

    await open_docs(tab)
    assert await tab.page.evaluate("fetch('https://example.org/').catch(error => error.message)") == "Failed to fetch"
    assert "violates the following Content Security Policy directive" in tab.complaints[0]
    assert tab.strayed == []
    with pytest.raises(Error, match="ERR_FAILED"):
        await tab.page.goto("https://example.org/")
    assert tab.strayed == ["https://example.org/"]
    tab.strayed.clear()

"""A service that runs for all tests that don't stop it, and a real browser that reaches nothing else."""

import importlib.util
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import skip_unless
from tests.process.service import Service, running

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip


signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell that runs tests in the background has them ignore it, and what they start


@pytest.fixture(scope="session")
def public_service(unused_tcp_port_factory: Any) -> Iterator[Service]:
    """A service on the run's database, for tests that leave it as it is."""
    with running(unused_tcp_port_factory()) as service:
        yield service


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    return shutil.which(name) or skip_unless("REQUIRE_BROWSER", f"there is no {name}: on Debian `apt install {name}`")


@pytest.fixture(scope="module")
async def chromium() -> "AsyncIterator[Browser]":
    """A real browser."""
    path = program("chromium")
    if not importlib.util.find_spec("playwright"):
        skip_unless("REQUIRE_BROWSER", "there is no playwright: `make check` installs it")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        await browser.close()


class Tab:
    """A page of the browser, and what it said and tried while it was used."""

    def __init__(self, page: "Page", service: Service) -> None:
        self.page, self.url = page, service.url
        self.printed: list[str] = []
        self.complaints: list[str] = []
        self.strayed: list[str] = []
        page.on("console", lambda message: (self.complaints if message.type in ("error", "warning") else self.printed).append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def guard(self, route: "Route") -> None:
        """Let through what is for the service; block and note the rest."""
        if route.request.url.startswith(f"{self.url}/"):
            await route.continue_()
        else:
            self.strayed.append(route.request.url)
            await route.abort()


@pytest.fixture
async def tab(chromium: "Browser", public_service: Service) -> AsyncIterator[Tab]:
    """A new, empty tab; afterwards nothing may have left the service's host."""
    async with await chromium.new_context(viewport={"width": 1280, "height": 1000}) as context:
        tab = Tab(await context.new_page(), public_service)
        await context.route("**/*", tab.guard)
        tab.page.set_default_timeout(10_000)
        yield tab
    assert not tab.strayed

"""Below a path that a proxy strips: with PUBLIC_URL all that clients are sent leads back to where they came from."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from yarl import URL

import app
import settings
from tests.conftest import Person, Start
from tests.reverse_proxy import stripping

PATH = "/my/tasks"


class Visitor:
    """Alice, who comes by way of the proxy, as a client does that knows its address alone."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def __call__(self, method: str, reference: str | URL, **options: Any) -> Any:
        """Ask for what a reference leads to, seen from the service's address; the answer's body is read."""
        async with self.session.request(method, URL(f"{self.url}/").join(URL(reference)), **options) as response:
            await response.read()
            return response


@pytest.fixture
async def visitor(alice: Person, start: Start, unused_tcp_port: int) -> AsyncIterator[Visitor]:
    client = await start(public_url=f"http://127.0.0.1:{unused_tcp_port}{PATH}")
    async with (
        stripping(PATH, str(client.make_url("/")).rstrip("/"), unused_tcp_port) as url,
        ClientSession(headers={"Authorization": f"Bearer {alice.token}"}) as session,
    ):
        yield Visitor(session, url)


NEW = {"name": "Buy milk", "description": "", "status": "new"}


async def test_a_location_leads_to_the_task(visitor: Visitor) -> None:
    for _ in range(2):  # the second is the answer that is kept
        created = await visitor("POST", "task", json=NEW, headers={"Idempotency-Key": "one"})
        assert (created.status, created.headers["Location"]) == (201, f"{PATH}/task/1")
        assert (await (await visitor("GET", created.url.join(URL(created.headers["Location"])))).json())["name"] == "Buy milk"


@pytest.mark.long
@pytest.mark.parametrize(
    "first", ["task?limit=1&q=milk", "task?limit=1&format=csv", "task?limit=1&since=0", "task/log?limit=1", "task/1/log?limit=1"]
)
async def test_a_link_leads_to_the_next_page(visitor: Visitor, first: str) -> None:
    for _ in range(3):
        await visitor("POST", "task", json=NEW)
    for name in ("Buy bread and milk", "Buy oat milk", "Buy a cow and milk"):
        await visitor("PATCH", "task/1", json={"name": name})
    page, pages = await visitor("GET", first), 1
    while "next" in page.links:
        assert page.headers["Link"].startswith(f"<{PATH}/task")
        page = await visitor("GET", page.links["next"]["url"])
        assert page.status == 200
        pages += 1
    assert pages == 3


async def test_a_problem_s_type_leads_to_where_it_is_explained(visitor: Visitor) -> None:
    await visitor("POST", "task", json=NEW)
    refused = await visitor("PATCH", "task/1", json={"name": "x"}, headers={"If-Match": '"99"'})
    kind = (await refused.json())["type"]
    assert (refused.status, kind) == (412, f"{PATH}/docs/problems#changed-meanwhile")
    page = await visitor("GET", refused.url.join(URL(kind)))
    assert 'id="changed-meanwhile"' in await page.text()
    assert (await (await visitor("GET", "task/9")).json())["type"] == "about:blank"


async def test_the_documentation_finds_its_files(visitor: Visitor) -> None:
    for path, count in (("docs", 3), ("docs/problems", 1)):
        page = await visitor("GET", path)
        files = [file for file in re.findall(r'(?:src|href)="([^"]+)"', await page.text()) if file != "data:,"]
        assert len(files) == count
        for file in files:
            assert (await visitor("GET", page.url.join(URL(file)))).status == 200
    script = await (await visitor("GET", "docs/start.js")).text()
    [document] = re.findall(r'url: "([^"]+)"', script)
    shown = await (await visitor("GET", URL(f"{visitor.url}/docs").join(URL(document)))).json()
    assert [server["url"] for server in shown["servers"]] == [visitor.url]
    assert f"{PATH}/docs/problems#changed-meanwhile" in json.dumps(shown)
    assert '"/docs/problems' not in json.dumps(shown)


def test_without_the_setting_all_is_as_if_there_were_no_proxy() -> None:
    document = json.loads(app.document())
    assert [server["url"] for server in document["servers"]] == ["/"]
    assert '"/docs/problems#changed-meanwhile"' in json.dumps(document)


@pytest.mark.parametrize(
    ("said", "url", "path"),
    [
        ("", "", ""),
        ("https://example.org", "https://example.org", ""),
        ("https://example.org/", "https://example.org", ""),
        ("https://example.org/tasks", "https://example.org/tasks", "/tasks"),
        ("http://[::1]:8080/a/b.c/%20~/", "http://[::1]:8080/a/b.c/%20~", "/a/b.c/%20~"),
    ],
)
def test_the_setting_is_an_address(monkeypatch: pytest.MonkeyPatch, said: str, url: str, path: str) -> None:
    monkeypatch.setenv("PUBLIC_URL", said)
    given = settings.load()
    assert (given.public_url, given.public_path) == (url, path)


@pytest.mark.parametrize(
    "said",
    [
        *("example.org/tasks", "/tasks", "//example.org/tasks", "ftp://example.org/tasks", "https://", "https:///tasks"),
        *("https://example.org/tasks?x=y", "https://example.org/tasks?", "https://example.org/tasks#x", "https://me:pw@example.org/tasks"),
        *("https://example.org//", "https://example.org//tasks", "https://example.org/../tasks", "https://example.org/tasks/."),
        *(
            "https://example.org/a b",
            "https://example.org/задачи",
            'https://example.org/">',
            "https://example.org/%2",
            "https://example.org:x",
        ),
        *("HTTPS://example.org", "https://Example.org", "https://example.org/tasks\n", " "),
    ],
)
def test_what_is_no_address_stops_the_start(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("PUBLIC_URL", said)
    with pytest.raises(
        SystemExit, match=r"^PUBLIC_URL: needs the address of the service as clients write it, such as https://example.org/tasks"
    ):
        settings.load()

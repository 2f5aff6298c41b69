"""What no answer tells; and what docs/security.md names is there."""

import re
from pathlib import Path

from tests.conftest import Person
from tests.rest.test_bodies import exchange


async def test_no_answer_tells_a_version_the_parser_s_own_neither(alice: Person) -> None:
    answers = [str((await alice.get(path)).headers).encode() for path in ("/task", "/nowhere", "/health/live", "/docs", "/task/events")]
    answers += [
        await exchange(alice.client, request)
        for request in (
            b"no HTTP at all\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 10_000),
            b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 999\r\nConnection: close\r\n\r\n",
        )
    ]
    for answer in answers:
        assert re.findall(rb"Server'?: '?([^\r',]*)", answer) in ([b"task"], [])
        assert not re.search(rb"(?i)aiohttp|python|gunicorn|uvloop", answer)
    assert [answer for answer in answers if b"400 Bad Request" in answer]


def test_every_test_that_the_page_names_exists() -> None:
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "security.md").read_text()
    there = {
        name for path in tests.rglob("test_*.py") for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 50
    assert named - there == set()

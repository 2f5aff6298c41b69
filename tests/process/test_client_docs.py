"""The READMEs, docs/client.md, docs/take-it-back.md: what is printed there runs as it is printed, again and again, and prints what is said."""

import re
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from settings import Settings
from tests.process.conftest import Tab, program
from tests.process.service import HOUSE, Service

pytestmark = pytest.mark.long
PAGE = HOUSE / "docs/client.md"
TAKE_IT_BACK = HOUSE / "docs/take-it-back.md"
ADDRESS = "http://127.0.0.1:8080"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"python": "Python", "sh": "curl", "js": "JavaScript"}


def chapter(language: str) -> str:
    """Return the chapter of the client's page that is in this language."""
    [found] = [part for part in PAGE.read_text().split("\n## ") if part.startswith(f"{LANGUAGES[language]}\n")]
    return found


def session(text: str, language: str, service: Service) -> tuple[str, str]:
    """Return the code of a session, at the address of this service, and what it is said to print."""
    blocks = BLOCK.findall(text)
    assert {kind for kind, _ in blocks} == {language, "text"}
    code = "".join(text for kind, text in blocks if kind == language)
    assert code.count(ADDRESS) == 1
    return code.replace(ADDRESS, service.url), "".join(text for kind, text in blocks if kind == "text")


def check(printed: str, said: str) -> None:
    """Compare; in what is said, `...` stands for anything within a line."""
    lines = [re.escape(line).replace(re.escape("..."), ".*") for line in said.splitlines()]
    assert re.fullmatch("\n".join(lines) + "\n?", printed), printed


def run(text: str, service: Service, where: Path, language: str, *command: str) -> None:
    code, said = session(text, language, service)
    check(output(code, where, *command), said)
    threading.Event().wait(1.1)  # logins there are of the second
    check(output(code, where, *command), said)


def output(code: str, where: Path, *command: str) -> str:
    done = subprocess.run([*command], input=code, cwd=where, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_the_page_has_no_other_code() -> None:
    assert {kind for kind, _ in BLOCK.findall(PAGE.read_text())} == {*LANGUAGES, "text", "json"}


def test_the_python_session_runs_as_printed(public_service: Service, tmp_path: Path) -> None:
    run(chapter("python"), public_service, tmp_path, "python", sys.executable, "-W", "error", "-")


def test_the_curl_session_runs_as_printed(public_service: Service, tmp_path: Path) -> None:
    program("curl")
    run(chapter("sh"), public_service, tmp_path, "sh", "sh", "-e")


def test_the_session_that_takes_everything_back_runs_as_printed(public_service: Service, tmp_path: Path) -> None:
    program("curl")
    run(TAKE_IT_BACK.read_text(), public_service, tmp_path, "sh", "sh", "-e")


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_the_first_session_of_the_readme_runs_as_printed(public_service: Service, tmp_path: Path, page: str) -> None:
    program("curl")
    text = (HOUSE / page).read_text()
    [shown] = re.findall(r"\n## [^\n]+\n([^#]*?\n    API=.*?)\n## ", text, re.DOTALL)
    shell = "".join(line[4:] + "\n" for line in re.sub("```.*?```", "", shown, flags=re.DOTALL).splitlines() if line.startswith("    "))
    login = f"readme-{secrets.token_hex(4)}"
    assert shell.count("login=alice") == 2
    shell = shell.replace(ADDRESS, public_service.url).replace("login=alice", f"login={login}").replace("curl ", "curl --silent --fail ")
    printed = output(f"{shell}\necho TOKEN $TOKEN", tmp_path, "sh", "-e")
    assert '"field":"status","old":"new","new":"planned"' in printed
    [(kind, code)] = BLOCK.findall(shown)
    assert kind == "python"
    code = code.replace(ADDRESS, public_service.url).replace("<token>", printed.rpartition("TOKEN ")[2].strip())
    printed = output(code, tmp_path, sys.executable, "-W", "error", "-")
    assert printed.startswith("201 {")
    assert "'new': 'in_work'" in printed


def test_the_sessions_together_stay_below_the_limit_of_attempts() -> None:
    pages = [HOUSE / "README.md", PAGE, TAKE_IT_BACK]
    attempts = sum(
        len(re.findall(r"^[^|]*(?:/register|/get-token)\W.*(?:login|account)", page.read_text(), re.MULTILINE)) for page in pages
    )
    assert 0 < attempts <= Settings.model_fields["address_limit_per_minute"].default
    assert all("429" in page.read_text() for page in pages)


@pytest.mark.browser
async def test_the_javascript_session_runs_as_printed(tab: Tab, public_service: Service) -> None:
    code, said = session(chapter("js"), "js", public_service)
    await tab.page.goto(f"{tab.url}/docs")
    await tab.page.locator(".opblock").first.wait_for()
    await tab.page.evaluate(f"async () => {{\n{code}\n}}")
    check("\n".join(tab.printed), said)
    [refused] = tab.complaints  # Chromium notes a 412
    assert "412" in refused

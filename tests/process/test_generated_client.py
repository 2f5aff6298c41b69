"""A client that openapi-python-client makes of /openapi.json does what a person would write one for."""

import importlib
import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.process.service import Service

pytestmark = pytest.mark.process
Generated = Callable[..., Any]


@pytest.fixture(scope="module")
def directory(public_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the client is; the generator has made it without a warning."""
    directory = tmp_path_factory.mktemp("generated")
    config = directory / "config.json"
    files = dict.fromkeys(("text/csv", "text/calendar"), "application/octet-stream")  # which the generator knows how to send
    config.write_text(json.dumps({"post_hooks": [], "content_type_overrides": files}))  # the hooks only tidy up, with a ruff of one's own
    command = ["generate", "--url", f"{public_service.url}/openapi.json", "--meta", "none", "--fail-on-warning", "--config", str(config)]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *command, "--output-path", str(directory / "task_client")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture
def generated(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Generated:
    """Give a function that gives a module of the client."""
    monkeypatch.syspath_prepend(directory)
    return lambda name="": importlib.import_module(f"task_client{name}")


@pytest.fixture
def call(generated: Generated) -> Generated:
    """Give a function that calls an operation and gives the answer with status, headers and what was made of the body."""
    return lambda operation, *path, **options: generated(f".api.default.{operation}").sync_detailed(*path, **options)


@pytest.fixture
def account(generated: Generated, call: Generated, public_service: Service) -> Any:
    """A client with the token of a new account."""
    models = generated(".models")
    login = f"generated-{secrets.token_hex(6)}"
    with generated().Client(base_url=public_service.url, raise_on_unexpected_status=True) as anybody:
        registered = call("post_accounts", client=anybody, body=models.Registration(login=login, password="correct horse"))
        assert registered.status_code == HTTPStatus.CREATED
        answer = call("post_tokens", client=anybody, body=models.Credentials(login=login, password="correct horse"))
    assert answer.parsed.token_type == "Bearer"
    client = generated().AuthenticatedClient(base_url=public_service.url, token=answer.parsed.access_token, raise_on_unexpected_status=True)
    with client as client:
        yield client


def test_a_whole_session(generated: Generated, call: Generated, account: Any) -> None:
    models, status, sort = generated(".models"), generated(".models").TaskNewStatus, generated(".models").GetTaskListSort

    created = call(
        "post_task_list",
        client=account,
        body=models.TaskNew(name="Купить молоко", description="Два литра", status=status.NEW, completion_at="02-10-2020"),
    )
    assert created.status_code == HTTPStatus.CREATED
    assert created.headers["Location"] == f"/task/{created.parsed.id}"
    assert created.parsed.created_at.tzinfo is not None
    assert created.parsed.completed_at is None
    for name in ("Купить хлеб", "Позвонить маме"):
        call("post_task_list", client=account, body=models.TaskNew(name=name, description="", status=status.PLANNED))

    listed = call("get_task_list", client=account, status="new,in_work", completion_at="02-10-2020", q="молоко")
    assert [task.name for task in listed.parsed] == ["Купить молоко"]
    listed = call("get_task_list", client=account, completion_from="01-10-2020", completion_to="31-10-2020")
    assert listed.parsed == [created.parsed]
    listed = call("get_task_list", client=account, q="купить", sort=sort.VALUE_3)
    assert [task.name for task in listed.parsed] == ["Купить хлеб", "Купить молоко"]

    change = models.TaskChange(status=models.TaskChangeStatus.COMPLETED)
    changed = call("patch_task_item", created.parsed.id, client=account, body=change, if_match=created.headers["ETag"])
    assert changed.status_code == HTTPStatus.OK
    assert changed.parsed.status == models.TaskStatus.COMPLETED
    assert changed.parsed.completion_at == "02-10-2020"
    change = models.TaskChange(completion_at=None)
    late = call("patch_task_item", created.parsed.id, client=account, body=change, if_match=created.headers["ETag"])
    assert late.status_code == HTTPStatus.PRECONDITION_FAILED
    assert isinstance(late.parsed, models.ConflictProblem)

    done = call("get_task_list", client=account, completed_from=datetime.now(UTC) - timedelta(hours=1))
    assert done.parsed == [changed.parsed]

    pages, cursor = [], {}
    while True:
        page = call("get_task_list", client=account, limit=2, **cursor)
        pages.append([task.id for task in page.parsed])
        if "Link" not in page.headers:
            break
        address = page.headers["Link"].partition("<")[2].partition(">")[0]
        cursor = {"cursor": parse_qs(urlsplit(address).query)["cursor"][0]}
    assert pages == [[1, 2], [3]]

    log = call("get_task_history", created.parsed.id, client=account)
    assert [(entry.revision, entry.field, entry.old, entry.new) for entry in log.parsed] == [(4, "status", "new", "completed")]
    assert log.parsed[0].changed_at == changed.parsed.updated_at

    assert call("delete_task_item", created.parsed.id, client=account).status_code == HTTPStatus.NO_CONTENT
    gone = call("get_task_item", created.parsed.id, client=account)
    assert (gone.status_code, gone.parsed.status) == (HTTPStatus.NOT_FOUND, 404)


@pytest.mark.parametrize("kind", ["", "Form", "Multipart"])
def test_each_type_of_body_is_sent_as_itself(generated: Generated, call: Generated, account: Any, kind: str) -> None:
    models = generated(".models")
    new, status = getattr(models, f"TaskNew{kind}"), getattr(models, f"TaskNew{kind}Status")
    created = call(
        "post_task_list", client=account, body=new(name="Купить молоко", description="", status=status.NEW, completion_at="02-10-2020")
    )
    assert created.status_code == HTTPStatus.CREATED, created.content
    assert (created.parsed.name, created.parsed.completion_at) == ("Купить молоко", "02-10-2020")


def test_what_was_read_may_be_sent_back_whole(generated: Generated, call: Generated, account: Any) -> None:
    models = generated(".models")
    body = models.TaskNew(name="Купить молоко", description="", status=models.TaskNewStatus.NEW)
    task = call("post_task_list", client=account, body=body).parsed
    task.name = "Купить кефир"
    changed = call("patch_task_item", task.id, client=account, body=models.TaskChange.from_dict(task.to_dict()))
    assert (changed.status_code, changed.parsed.name) == (HTTPStatus.OK, "Купить кефир")


def test_nobody_has_no_tasks(generated: Generated, call: Generated, public_service: Service) -> None:
    nobody = generated().AuthenticatedClient(base_url=public_service.url, token="none", raise_on_unexpected_status=True)
    with nobody as client:
        answer = call("get_task_list", client=client)
    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert answer.parsed.status == 401

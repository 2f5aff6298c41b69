"""What a person would write a client for, with the functions that openapi-python-client makes of the document: python ... ADDRESS SALT."""

import sys
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from task_client import AuthenticatedClient, Client
from task_client.api.accounts import register
from task_client.api.history import get_task_log, undo
from task_client.api.tasks import create_task, list_tasks, update_task
from task_client.api.transfer import export_account, import_file
from task_client.models import (
    ConflictProblem,
    Export,
    Imported,
    Problem,
    Registration,
    SortOrder,
    Status,
    Task,
    TaskChange,
    TaskNew,
    TaskNewForm,
    TaskNewMultipart,
    Token,
    Undo,
    Undone,
)
from task_client.types import UNSET, Unset

_, address, salt = sys.argv


def registered(login: str) -> AuthenticatedClient:
    with Client(base_url=address) as anybody:
        token = register.sync(client=anybody, body=Registration(login=login, password="correct horse battery"))
    assert isinstance(token, Token)
    return AuthenticatedClient(base_url=address, token=token.access_token, prefix=token.token_type, raise_on_unexpected_status=True)


def create_and_list(client: AuthenticatedClient) -> tuple[Task, str]:
    created = create_task.sync_detailed(
        client=client, body=TaskNew(name="Купить молоко", description="Два литра", status=Status.NEW, completion_at="02-10-2020")
    )
    assert created.status_code == HTTPStatus.CREATED
    milk = created.parsed
    assert isinstance(milk, Task)
    assert milk.completion_at == "02-10-2020"
    assert milk.created_at.tzinfo is not None
    assert milk.completed_at is None
    bread = create_task.sync(client=client, body=TaskNewForm(name="Купить хлеб", description="", status=Status.PLANNED))
    call = create_task.sync(client=client, body=TaskNewMultipart(name="Позвонить маме", description="", status=Status.PLANNED))
    assert isinstance(bread, Task)
    assert isinstance(call, Task)
    refused = create_task.sync(client=client, body=TaskNew(name="", description="", status=Status.NEW))
    assert isinstance(refused, Problem)
    assert not isinstance(refused.errors, Unset)
    assert [fault.field for fault in refused.errors] == ["name"]

    found = list_tasks.sync(client=client, status="new,in_work", completion_at="02-10-2020", q="молоко")
    assert found == [milk]
    found = list_tasks.sync(client=client, completion_at="none", sort=SortOrder.NAME_DESC)
    assert found == [call, bread]
    found = list_tasks.sync(client=client, completion_from="01-10-2020", completion_to="31-10-2020", completed_from=UNSET)
    assert found == [milk]

    return milk, created.headers["ETag"]


def change(client: AuthenticatedClient, milk: Task, tag: str) -> None:
    changed = update_task.sync(milk.id, client=client, body=TaskChange(status=Status.COMPLETED), if_match=tag)
    assert isinstance(changed, Task)
    assert changed.status == Status.COMPLETED
    late = update_task.sync_detailed(milk.id, client=client, body=TaskChange(completion_at=None), if_match=tag)
    assert late.status_code == HTTPStatus.PRECONDITION_FAILED
    assert isinstance(late.parsed, ConflictProblem)
    assert late.parsed.current == changed
    assert late.parsed.changed == ["status"]
    changed.name = "Купить кефир"
    sent_back = update_task.sync(milk.id, client=client, body=TaskChange.from_dict(changed.to_dict()))
    assert isinstance(sent_back, Task)
    assert sent_back.name == "Купить кефир"
    done = list_tasks.sync(client=client, completed_from=milk.created_at)
    assert done == [sent_back]


def follow_pages(client: AuthenticatedClient) -> None:
    pages = []
    cursor: str | Unset = UNSET
    while True:
        page = list_tasks.sync_detailed(client=client, limit=2, cursor=cursor)
        assert isinstance(page.parsed, list)
        pages.append([task.id for task in page.parsed])
        if "Link" not in page.headers:
            break
        following = page.headers["Link"].partition("<")[2].partition(">")[0]
        [cursor] = parse_qs(urlsplit(following).query)["cursor"]
    assert pages == [[1, 2], [3]]

    log = get_task_log.sync(1, client=client)
    assert isinstance(log, list)
    assert [(entry.field, entry.old, entry.new) for entry in log] == [
        ("status", "new", "completed"),
        ("name", "Купить молоко", "Купить кефир"),
    ]


def take_back(client: AuthenticatedClient) -> None:
    dry = undo.sync(client=client, body=Undo(since=3, dry_run=True))
    assert isinstance(dry, Undone)
    assert [(task.name, task.status) for task in dry.tasks] == [("Купить молоко", Status.NEW)]
    assert list_tasks.sync(client=client, q="кефир") != []
    undone = undo.sync(client=client, body=Undo(since=3, expected=dry.before))
    assert isinstance(undone, Undone)
    assert undone.count == 1
    assert list_tasks.sync(client=client, q="кефир") == []


def hand_over(client: AuthenticatedClient, heir: AuthenticatedClient) -> None:
    taken = export_account.sync(client=client)
    assert isinstance(taken, Export)
    imported = import_file.sync(client=heir, body=taken, idempotency_key="once")
    assert isinstance(imported, Imported), imported
    assert imported.count == 3
    assert list_tasks.sync(client=heir) == list_tasks.sync(client=client)


def be_refused(nobody: AuthenticatedClient) -> None:
    refusal = list_tasks.sync(client=nobody)
    assert isinstance(refusal, Problem)
    assert refusal.status == HTTPStatus.UNAUTHORIZED


with (
    registered(f"python-{salt}") as client,
    registered(f"python-heir-{salt}") as heir,
    AuthenticatedClient(base_url=address, token="none") as nobody,
):
    milk, tag = create_and_list(client)
    change(client, milk, tag)
    follow_pages(client)
    take_back(client)
    hand_over(client, heir)
    be_refused(nobody)
print("done")

"""The document is the truth: schemathesis asks everything that the document allows, and much that it doesn't."""

import asyncio
import copy
import os
import secrets
import threading
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import schemathesis
from aiohttp.test_utils import TestServer
from argon2 import PasswordHasher
from hypothesis import strategies as st
from schemathesis.engine import events, from_schema
from schemathesis.openapi.checks import UseAfterFree

import app
import auth
import models
from accounts import codes, passwords, users
from accounts.values import login_key
from history import event_stream
from postgres import housekeeping
from rest.values import is_blank
from service import SERVICE
from tasks import store
from tasks.schemas import TaskNew
from tests import document
from tests.conftest import configured
from transfer import exports

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))  # 0: those of `make test`, always the same; `make fuzz` says how many
TASKS = 1000
OPERATORS = "/metrics"  # there only where a token is set, and that isn't a user's: tests/telemetry/test_metrics.py asks for it
ENDS = ("/change-password", "/reset-password", "/revoke-tokens", "/delete-account")  # of the token, or of more
CODE = "good-for-one-new-password"
EXAMPLE = {"login": "alice", "password": "correct horse battery"}  # the document's own


def _acceptable(login: str) -> bool:
    return not is_blank(login) and all(
        text and not any(one.isspace() or unicodedata.category(one) in ("Zs", "Zl", "Zp", "Cc", "Cf") for one in text)
        for text in (login, login_key(login))
    )


DAYS = st.dates(min_value=date(1900, 1, 1)).flatmap(
    lambda day: st.sampled_from([day.isoformat(), f"{day.day:02}-{day.month:02}-{day.year:04}"])
)
FORMATS = {
    "day": DAYS,
    "entity-tags": st.sampled_from(["*", '"7"', '"7", "8"', 'W/"7"', '""']),
    "visible": st.text(st.characters(codec="utf-8"), min_size=1, max_size=200).filter(lambda text: not is_blank(text)),
    "login": st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(_acceptable),
}


Operations = set[tuple[str, str]]  # a path, and a method in small letters


class Service(NamedTuple):
    """Where the service is, a token, and what makes it good again."""

    address: str
    token: str
    mend: Callable[[], None]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Run an application in a thread of its own, with somebody who has many tasks."""
    monkeypatch.setattr(passwords, "hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    monkeypatch.setattr(housekeeping, "SECONDS_BETWEEN_ROUNDS", 3600)  # an account that was deleted is mended, below
    monkeypatch.setattr(event_stream.Stream, "end_if_due", event_stream.Stream.end)  # or else a stream would be waited for without end
    monkeypatch.setattr("history.event_watcher.SECONDS_BETWEEN_QUESTIONS", 0.01)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    @asynccontextmanager
    async def running() -> AsyncIterator[Service]:
        application = await app.create_app(configured())
        given = application[SERVICE]
        async with TestServer(application) as server:
            password_hash = passwords.hash_password(EXAMPLE["password"], passwords.peppers_of(given.settings)[0])
            try:
                await users.create_user(given, EXAMPLE["login"], password_hash, 1)
            except users.LoginTaken:  # another test, with another password
                whose = models.User.login_key == EXAMPLE["login"]
                await given.database.aio_execute(models.User.update(password_hash=password_hash).where(whose))
            caller = await users.create_user(given, f"owner-{secrets.token_hex(6)}", password_hash, 1)
            task = TaskNew(name="Buy milk", description="", status="new")
            await asyncio.gather(*(store.create_task(given, caller, task) for _ in range(TASKS)))

            async def mend() -> None:
                whose = models.UserState.user == caller.user_id
                await given.database.aio_execute(models.UserState.update(token_generation=caller.generation).where(whose))
                await given.database.aio_execute(models.User.update(password_hash=password_hash).where(models.User.id == caller.user_id))
                good_until = datetime.now(UTC) + timedelta(days=1)
                code = models.OneTimeCode.insert(digest=codes.digest(CODE), user=caller.user_id, expires_at=good_until)
                await given.database.aio_execute(code.on_conflict_ignore())

            await mend()
            yield Service(str(server.make_url("")).rstrip("/"), auth.issue_token(given.settings, caller).access_token, lambda: wait(mend()))

    server = running()
    yield wait(server.__aenter__())
    wait(server.__aexit__(None, None, None))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _make_valid(case: Any) -> None:  # noqa: C901 - a list of small things
    """Keep a valid request to what no schema of a single value can say."""
    if case.path == "/import":
        _make_a_file_valid(case)
    query, body = case.query or {}, case.body
    _say_once_since_when(query)
    if isinstance(body, dict) and case.path.endswith(("/undo", "/restore")):
        _say_once_since_when(body)
    if isinstance(body, dict) and case.path.endswith("/undo"):
        body |= {"dry_run": True} | ({} if body.keys() & {"since", "at"} else {"since": 1})
    query.pop("cursor", None)  # only ours are good, and only for the listing that gave them
    query.pop("" if query.get("format") == "csv" else "separator", None)  # of CSV alone
    if "completion_at" in query:  # not together
        query.pop("completion_from", None)
        query.pop("completion_to", None)
    if case.path_parameters:
        if int(case.path_parameters["id"]) > 1_000_000:
            case.path_parameters["id"] = int(case.path_parameters["id"]) % TASKS + 1
        if int(case.path_parameters["id"]) % 4:  # a fourth may keep conditions that hardly ever hold: 412 says little
            if case.headers and "If-Match" in case.headers:
                case.headers["If-Match"] = "*"
            if isinstance(body, dict):
                body.pop("revision", None)
        if isinstance(body, dict) and "id" in body:
            body["id"] = int(case.path_parameters["id"])
    if isinstance(body, dict) and case.path in ENDS:
        body |= {name: EXAMPLE["password"] for name in ("old", "password", "new") if name in body}
        body |= {"code": CODE} if "code" in body else {}
    if isinstance(body, dict):  # JSON Schema takes 7.0 for a whole number; the service, and what JavaScript writes, don't
        body |= {name: int(value) for name, value in body.items() if isinstance(value, float)}


def _make_a_file_valid(case: Any) -> None:
    if case.media_type in exports.EXAMPLES:  # of which no schema says what they are
        case.body = exports.EXAMPLES[case.media_type]
        return
    (case.query or {}).pop("skip", None)  # an export is restored as a whole
    if case.headers:  # it is for a new account, so the answer is 409; but a key may have been answered, and so it is read first
        case.headers.pop("Idempotency-Key", None)


def _say_once_since_when(asked: dict[str, Any]) -> None:
    """Leave one of what doesn't go together, with a revision that there has been."""
    for name in [name for name in asked if asked[name] is None]:
        del asked[name]
    if "since" in asked:
        for name in [name for name in asked if name not in ("since", "limit", "dry_run")]:
            del asked[name]
    if asked.keys() & {"revision", "at"}:
        asked.pop("deleted", None)
        asked.pop("at" if "revision" in asked else "revision", None)
    for name in asked.keys() & {"since", "revision"}:
        asked[name] = int(asked[name] or 0) % TASKS


@contextmanager
def _taught(service: Service) -> Iterator[None]:
    for name, strategy in FORMATS.items():
        schemathesis.openapi.format(name, strategy)

    @schemathesis.hook
    def map_case(context: Any, case: Any) -> Any:
        if case.meta is not None and case.meta.generation.mode.is_positive:
            _make_valid(case)
        return case

    @schemathesis.hook
    def before_call(context: Any, case: Any, kwargs: Any) -> None:
        if case.meta is not None and case.meta.generation.mode.is_positive:
            _make_valid(case)

    @schemathesis.hook
    def after_call(context: Any, case: Any, response: Any) -> None:
        if case.path in ENDS and response.status_code < 300:
            service.mend()

    yield
    schemathesis.hooks.unregister_all()


def _config(token: str, few: int) -> schemathesis.Config:
    """Return schemathesis's configuration: all checks, all phases, with few examples of each operation where nobody says how many."""
    each = EXAMPLES // len(document.OPERATIONS) + 1 if EXAMPLES else few  # hypothesis's; coverage brings its own
    return schemathesis.Config.from_dict(
        {
            "headers": {"Authorization": f"Bearer {token}"},
            **({} if EXAMPLES else {"seed": 1}),
            "continue-on-failure": True,
            "generation": {"mode": "all", "max-examples": each, "database": "none"},
            "checks": {
                # what is valid can still have an If-Match, or a revision, that isn't the present one, or another's Idempotency-Key
                "positive_data_acceptance": {"expected-statuses": ["2xx", "304", "401", "404", "409", "410", "412", "422"]},
                # what is gone is gone, whatever else is wrong
                "negative_data_rejection": {"expected-statuses": ["400", "401", "404", "405", "409", "410", "415", "422"]},
            },
        }
    )


def _without_extensions() -> dict[str, Any]:
    """Return the document as schemathesis reads it: all types among the content, and of a stream the schema of an event as a whole."""
    plain: dict[str, Any] = copy.deepcopy(document.DOCUMENT)
    for response in (response for path, method in document.OPERATIONS for response in plain["paths"][path][method]["responses"].values()):
        response.get("content", {}).update(response.pop("x-other-content", {}))
        for content in response.get("content", {}).values():
            content["schema"] = content.pop("x-itemSchema", content["schema"])
    return plain


class Report(NamedTuple):
    """What came of it: how often each operation gave each status to valid and to other requests, and what was wrong."""

    answers: Counter[tuple[str, bool, int]]
    phases: Counter[str]
    problems: dict[str, str]


def _is_still_there(failure: Any, case_id: str, cases: dict[str, Any]) -> bool:
    """Return whether what was used after its deletion was asked for where it still is: in the trash, or in the past."""
    if not isinstance(failure, UseAfterFree):
        return False
    asked, deleted = cases[case_id].value.query or {}, cases[str(failure.deleted_case_id)].value.query or {}
    is_erased = str(deleted.get("forever")).lower() == "true"
    return not is_erased and (str(asked.get("deleted")).lower() == "true" or bool(asked.keys() & {"revision", "at"}))


def _run(address: str, token: str, operations: Operations) -> Report:
    report = Report(Counter(), Counter(), {})
    schema = schemathesis.openapi.from_dict(
        _without_extensions(), config=_config(token, few=10 if operations == ALL else 4)
    )  # by its address, it would leave that operation out
    schema.config.update(base_url=address)
    for event in from_schema(
        schema.include(lambda context: (context.operation.path, context.operation.method.lower()) in operations)
    ).execute():
        if isinstance(event, events.FatalError):
            raise event.exception
        if isinstance(event, events.NonFatalError):
            report.problems[event.label] = repr(event.value)
        if not isinstance(event, events.ScenarioFinished):
            continue
        for name, interaction in event.recorder.interactions.items():
            case = event.recorder.cases[name].value
            report.phases[event.phase.value] += 1
            if interaction.response:
                valid = case.meta is not None and case.meta.generation.mode.is_positive
                report.answers[case.operation.label, valid, interaction.response.status_code] += 1
        for name, check in ((name, check) for name, checks in event.recorder.checks.items() for check in checks):
            if check.failure_info and not _is_still_there(check.failure_info.failure, name, event.recorder.cases):
                words = f"{event.phase.value}: {event.recorder.label}: {check.name}"
                report.problems.setdefault(words, f"{check.failure_info.failure.message}\n{check.failure_info.code_sample}")
    return report


ALL = {(path, method) for path, method in document.OPERATIONS if path != OPERATORS}
SAMPLE = {("/task/{id}", method) for method in ("get", "patch")}


@pytest.mark.parametrize("operations", [pytest.param(ALL, id="all", marks=pytest.mark.long), pytest.param(SAMPLE, id="a sample")])
def test_the_service_keeps_the_documents_word(service: Service, capsys: pytest.CaptureFixture[str], operations: Operations) -> None:
    with _taught(service):
        report = _run(service.address, service.token, operations)
    tried = report.phases.total()
    with capsys.disabled():
        print(f"\nschemathesis tried {tried} examples: {dict(report.phases)}")
    assert not report.problems, "\n\n".join(": ".join(one) for one in report.problems.items())
    assert tried >= EXAMPLES or operations != ALL
    assert {*report.phases} == {"examples", "coverage", "fuzzing", "stateful"}
    # Or else nearly all that was seen were refusals
    fine = {label for label, _, status in report.answers if 200 <= status < 300}
    assert fine == {f"{method.upper()} {path}" for path, method in operations}
    of_valid = Counter[bool]()
    for (_, valid, status), n in report.answers.items():
        if valid and status != 409:  # which was understood
            of_valid[200 <= status < 300] += n
    assert of_valid[True] > of_valid[False], report.answers

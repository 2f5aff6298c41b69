"""What comes for operators, alerts and a dashboard, speaks of what is really measured; and each alert goes off when it should."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import app
from rest import streamed_response
from rest.errors import Failure
from server import connections
from telemetry.metrics import Counter, Family, Histogram
from tests.conftest import skip_unless

DEPLOY = Path(app.__file__).parent / "deploy"
RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS: list[dict[str, Any]] = json.loads((DEPLOY / "dashboard.json").read_text())["panels"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
OF_PROMETHEUS = {"up"}
INSTANCE = 'job="tasks",instance="a"'


@pytest.fixture
def promtool(tmp_path: Path) -> Callable[..., None]:
    """Return a function that runs promtool."""
    path = shutil.which("promtool") or skip_unless("REQUIRE_PROMTOOL", "there is no promtool: on Debian `apt install prometheus`")

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def metrics_of(expression: str) -> set[str]:
    """Return the metrics that an expression names: the words in it that are no functions and stand outside labels and ranges."""
    bare = re.sub(r'"[^"]*"|\[[^]]*\]|\bby \([^)]*\)', "", expression)
    return set(re.findall(r"\b[a-z_]{2,}\b(?!\s*\()", re.sub(r"\{[^}]*\}", "", bare)))


def samples() -> set[str]:
    """Return the names of all samples that /metrics may have; tests/process looks whether it has them."""
    names = set()
    for family in Family.every:
        name = family.description[0]
        names |= {name + suffix for suffix in ("_bucket", "_count", "_sum")} if isinstance(family, Histogram) else {name}
    return names


def kinds() -> set[str]:
    """Return the kinds of refusals that there are."""

    def under(family: type[Failure]) -> set[str]:
        own = {family.kind} if family is not Failure else set()
        return own.union(*map(under, family.__subclasses__()))

    quotas = {f"quota-exceeded: {name}" for name in ("address", "login", "failures", "user")}
    return under(Failure) | quotas | set(streamed_response.BROKEN_OFF)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_of_prometheus_is_measured(expression: str) -> None:
    assert connections.CONNECTIONS in Family.every
    named = metrics_of(expression)
    assert named
    assert named <= samples() | OF_PROMETHEUS


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_labels_are_those_that_there_are(expression: str) -> None:
    labels = {label for family in Family.every for label in family.description[2]} | {"le", "job", "instance"}
    assert set(re.findall(r'(\w+)(?:=|!=|=~|!~)""', re.sub(r'"[^"]*"', '""', expression))) <= labels
    assert {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")} <= labels
    for label, known in (("kind", kinds()), ("route", PATHS)):
        for values in re.findall(rf'{label}(?:=|!=|=~|!~)"([^"]*)"', expression):
            for value in re.split(r"\|(?![^(]*\))", values):  # the | within parentheses belong to one value
                assert [name for name in known if name == value or re.fullmatch(value, name)], value


PATHS = {re.sub(r":.*?\}(?=/|$)", "}", route.path) for route in [*app.PUBLIC, *app.PRIVATE, *app.OPERATORS]}


def test_every_panel_has_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_what_is_measured_is_on_the_dashboard() -> None:
    shown = {name for panel in PANELS for target in panel.get("targets", []) for name in metrics_of(target["expr"])}
    hidden = [family.description[0] for family in Family.every if not any(name.startswith(family.description[0]) for name in shown)]
    assert hidden == []


def test_what_is_measured_is_explained_to_the_operator() -> None:
    page = (DEPLOY.parent / "docs" / "operations.md").read_text()
    table = page[page.index("| `http_requests_total`") :].partition("\n\n")[0]
    explained = [name for row in table.splitlines() for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])]
    assert sorted(explained) == sorted(family.description[0] for family in Family.every)


def test_every_alert_is_explained_to_the_operator() -> None:
    page = (DEPLOY.parent / "docs" / "operations.md").read_text()
    assert re.findall(r"^\*\*(\w+)\.\*\*", page, re.MULTILINE) == [rule["alert"] for rule in RULES]
    assert {rule["labels"]["severity"] for rule in RULES} == {"page", "ticket"}


# By promtool


def test_promtool_reads_the_files(promtool: Callable[..., None], tmp_path: Path) -> None:
    promtool("check", "rules", DEPLOY / "alerts.yml")
    promtool("check", "config", "--syntax-only", DEPLOY / "prometheus.yml")
    asked = [expression.replace("$__rate_interval", "5m").replace("$job", "tasks").replace("$instance", ".*") for expression in EXPRESSIONS]
    rules = [{"record": f"panel:{n}", "expr": expression} for n, expression in enumerate(asked)]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", "panels.yml")


def test_no_counter_is_asked_without_a_rate() -> None:
    counters = [family.description[0] for family in Family.every if isinstance(family, Counter)]
    for expression in EXPRESSIONS:
        for counter in counters:
            if counter in metrics_of(expression):
                assert re.search(rf"(rate|increase)\(\s*{counter}", expression)


def refused(kind: str, each_15_seconds: float) -> dict[str, str]:
    return {f'http_refusals_total{{{INSTANCE},kind="{kind}"}}': f"0+{each_15_seconds}x240"}


def lasting(name: str, seconds_below: str, labels: str = "") -> dict[str, str]:
    """Return a histogram of which most lies above some bound."""
    return {
        f'{name}_bucket{{{INSTANCE}{labels},le="{seconds_below}"}}': "0+1x240",
        f'{name}_bucket{{{INSTANCE}{labels},le="5.0"}}': "0+100x240",
        f'{name}_bucket{{{INSTANCE}{labels},le="+Inf"}}': "0+100x240",
    }


TASK_ROUTE = ',method="GET",route="/task/{id}"'
CASES: list[tuple[str, dict[str, str], dict[str, str]]] = [  # an alert, what sets it off, and what doesn't
    ("ServiceDown", {f"up{{{INSTANCE}}}": "0x240"}, {f"up{{{INSTANCE}}}": "1x240"}),
    (
        "NotReady",
        {f'http_requests_total{{{INSTANCE},method="GET",route="/health/ready",status="503"}}': "0+1x240"},
        {f'http_requests_total{{{INSTANCE},method="GET",route="/health/ready",status="200"}}': "0+1x240"},
    ),
    ("DatabaseUnavailable", refused("database-unavailable", 3), refused("database-unavailable", 1)),
    ("UnexpectedFailures", {f'http_refusals_total{{{INSTANCE},kind="unexpected"}}': "0x100 1x140"}, refused("unexpected", 0)),
    ("Overloaded", refused("too-many-connections", 3), refused("not-found", 3)),
    ("TooLate", refused("took-too-long", 3), refused("request-timeout", 3)),
    (
        "Slow",
        lasting("http_request_duration_seconds", "0.5", TASK_ROUTE),
        lasting("http_request_duration_seconds", "0.5", ',method="GET",route="/task/events"'),
    ),
    ("ConnectionsToTheDatabaseUsedUp", {f"database_waiting{{{INSTANCE}}}": "4x240"}, {f"database_waiting{{{INSTANCE}}}": "0x200 9x2 0x38"}),
    ("EventLoopLate", lasting("event_loop_lag_seconds", "0.1"), {f'event_loop_lag_seconds_bucket{{{INSTANCE},le="0.1"}}': "0+1x240"}),
    (
        "PasswordsQueue",
        {f"passwords_waiting{{{INSTANCE}}}": "100x240", f"passwords_waiting_max{{{INSTANCE}}}": "128x240"},
        {f"passwords_waiting{{{INSTANCE}}}": "10x240", f"passwords_waiting_max{{{INSTANCE}}}": "128x240"},
    ),
    ("PasswordsGuessed", refused("quota-exceeded: login", 10), refused("quota-exceeded: user", 10)),
    ("TokensRefused", refused("invalid-token", 30), refused("invalid-token", 10)),
    (
        "MemoryShort",
        {f"process_resident_memory_bytes{{{INSTANCE}}}": "5e8x240"},
        {f"process_resident_memory_bytes{{{INSTANCE}}}": "2e8x240"},
    ),
]


def test_each_alert_has_its_case() -> None:
    assert [case[0] for case in CASES] == [rule["alert"] for rule in RULES]


@pytest.mark.long
@pytest.mark.parametrize(("alert", "bad", "fine"), CASES, ids=[case[0] for case in CASES])
def test_an_alert_goes_off_when_it_should(
    alert: str, bad: dict[str, str], fine: dict[str, str], promtool: Callable[..., None], tmp_path: Path
) -> None:
    [rule] = [{**rule, "annotations": {}} for rule in RULES if rule["alert"] == alert]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "one", "rules": [rule]}]}))
    of_instance = {} if "sum by (job)" in rule["expr"] else {"instance": "a"}
    labels = {"job": "tasks", "severity": rule["labels"]["severity"]} | of_instance
    tests = [
        {
            "interval": "15s",
            "input_series": [{"series": series, "values": values} for series, values in given.items()],
            "alert_rule_test": [{"eval_time": time, "alertname": alert, "exp_alerts": expected} for time, expected in times],
        }
        for given, times in (
            (bad, [("0m", []), ("28m", [{"exp_labels": labels}])]),
            (fine, [("28m", []), ("52m", [])]),
        )
    ]
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests}))
    promtool("test", "rules", "tests.yml")

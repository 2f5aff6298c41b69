"""The service under fire, or besieged, for some seconds, as `make torture` has it for minutes; and a thousand hostile requests."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import configured
from tests.process.service import HOUSE, Service
from torture import attacks, hostile

pytestmark = pytest.mark.long


def test_nothing_is_lost_and_everybody_is_answered_whatever_is_killed() -> None:
    command = [sys.executable, "-m", "torture", "--seconds", "20", "--seed", "1"]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Journal, database and logs agree." in done.stdout


def test_a_siege_measures_the_victim_beside_an_attack_and_beside_its_control() -> None:
    command = [sys.executable, "-m", "torture", "--siege", "--seconds", "2", "--pairs", "1", "--only", "stalled-log"]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, timeout=550, check=False)
    attack, control = re.findall(r"^  (?:attack|control) +[\d.]+ +[\d.]+ +\d+/(\d+)", done.stdout, re.MULTILINE)
    assert (attack, control) == ("36", "36"), done.stdout + done.stderr
    assert "TOO MUCH" in done.stdout if done.returncode else "One hostile client hurts nobody else." in done.stdout  # as the machine is


def test_a_siege_names_the_attacks_that_there_are() -> None:
    command = [sys.executable, "-m", "torture", "--siege", "--only", "tokens,sleep"]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no such attack: sleep; there are content-types" in done.stderr


async def test_a_thousand_hostile_requests_do_nothing(public_service: Service, sql: Callable[..., list[tuple[Any, ...]]]) -> None:
    port = urlsplit(public_service.url).port
    assert port
    storm = await hostile.run(port, configured().jwt_secret.get_secret_value(), sql, 1000, seed=1)
    assert storm.faults == []
    assert set(storm.counts) == {*attacks.KINDS, "good ones"}
    assert storm.counts["good ones"] >= 100

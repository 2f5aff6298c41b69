"""The service under fire for some seconds, as `make torture` has it for minutes; and a thousand hostile requests."""

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


async def test_a_thousand_hostile_requests_do_nothing(public_service: Service, sql: Callable[..., list[tuple[Any, ...]]]) -> None:
    port = urlsplit(public_service.url).port
    assert port
    storm = await hostile.run(port, configured().jwt_secret.get_secret_value(), sql, 1000, seed=1)
    assert storm.faults == []
    assert set(storm.counts) == {*attacks.KINDS, "good ones"}
    assert storm.counts["good ones"] >= 100

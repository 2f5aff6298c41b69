"""`make prove` says what it will do, does it, and names what failed."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.prove import HOUSE, PARTS

Prove = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def prove(tmp_path: Path) -> Prove:
    """Return a function that runs it with a `make` that only says what it was asked for, and fails at hostile requests."""
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "made: $*; ${ARGS:-}${MAKEFLAGS:-}"\ncase "$*" in *hostile*) exit 2;; esac\n')
    make.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ARGS": "of another make", "MAKEFLAGS": "w"}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tests.prove", *arguments]
        return subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_the_plan_has_every_part_and_runs_nothing(prove: Prove) -> None:
    done = prove("--plan")
    assert (done.returncode, "made:" in done.stdout) == (0, False)
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")] == [*PARTS]


def test_parts_run_in_turn_by_themselves_alone_and_what_failed_is_named(prove: Prove) -> None:
    done = prove("soak", "hostile", "fuzz")
    assert re.findall("made: (.*)", done.stdout) == [
        "fuzz; ",
        "torture ARGS=--hostile --seed 5; ",
        "torture ARGS=--soak --seconds 3600 --seed 40; ",
    ]
    assert done.stdout.endswith("Failed: hostile.\n")
    assert done.returncode == 1


def test_what_is_good_is_said_to_be(prove: Prove) -> None:
    done = prove("fuzz")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Good: fuzz.")


def test_a_part_that_there_is_not_is_refused(prove: Prove) -> None:
    done = prove("sleep")
    assert done.returncode == 2
    assert "no such part: sleep" in done.stderr


def test_what_it_makes_there_is() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (HOUSE / "Makefile").read_text(), re.MULTILINE))
    commands = [command for part in PARTS.values() for command in part.commands]
    assert {target for command in commands for target in re.findall(r"\bmake (\S+)", command)} <= targets
    for path in re.findall(r"\btests/[\w/.]+", " ".join(commands)):
        assert (HOUSE / path).exists()

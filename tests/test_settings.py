"""A misspelt setting is told of, with the name that is meant and without its value; what is somebody else's is left in peace."""

import os
import re
from pathlib import Path

import pytest

import settings
from docs.house import HOUSE

SECRET = "do-not-tell-me"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an environment as systems make it, and nothing of ours in it."""
    monkeypatch.chdir(tmp_path)
    for name in {*os.environ}:
        monkeypatch.delenv(name)
    usual = "HOME SHELL PATH USER LOGNAME HOSTNAME HOSTTYPE PWD OLDPWD TERM LANG MAIL EDITOR PAGER TZ SHLVL SSH_TTY TMPDIR _ PS1 GDB"
    for name in usual.split():
        monkeypatch.setenv(name, SECRET)
    return tmp_path


def test_what_systems_set_is_no_slip(place: Path) -> None:
    assert settings.doubts() == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *[("PROT", "PORT"), ("PRT", "PORT"), ("POORT", "PORT"), ("PORTS", "PORT"), ("PIRT", "PORT"), ("prot", "PORT")],
        *[("HOTS", "HOST"), ("DB_HSOT", "DB_HOST"), ("DBHOST", "DB_HOST"), ("JWT_SECERT", "JWT_SECRET"), ("LOGLEVEL", "LOG_LEVEL")],
    ],
)
def test_one_slip_in_the_environment_is_told_with_the_name_that_is_meant(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, SECRET)
    assert settings.doubts() == [f"{name.upper()} in the environment is no setting, and is ignored. Is {meant} meant?"]


@pytest.mark.parametrize("name", ["PORT", "port", "HOME", "PROTS", "HOSTNAME", "POTR_", "TASKS_PORT", "DB_HOST_2"])
def test_a_setting_and_what_is_farther_away_is_left_in_peace(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "8080")
    assert settings.doubts() == []


def test_in_the_file_every_unknown_name_is_told_by_its_line(place: Path) -> None:
    (place / ".env").write_text(
        f"# PROT={SECRET}\nPROT={SECRET}\nexport TOKEN_LIFETIME_MOST_SECONDS={SECRET}\n\nSOMETHING={SECRET}\nPORT=8080\n"
        f"COMPOSE_PROJECT_NAME={SECRET}\nPGSSLMODE={SECRET}\nHOME={SECRET}\n"
    )
    assert settings.doubts() == [
        ".env, line 2: PROT is no setting, and is ignored. Is PORT meant?",
        ".env, line 3: TOKEN_LIFETIME_MOST_SECONDS is no setting, and is ignored. Is TOKEN_LIFETIME_MAX_SECONDS meant?",
        ".env, line 5: SOMETHING is no setting, and is ignored. README.md lists all.",
        ".env, line 9: HOME is no setting, and is ignored. README.md lists all.",
    ]


def test_a_secret_that_went_onto_a_line_of_its_own_is_not_told(place: Path) -> None:
    (place / ".env").write_text("JWT_SECRET=\nc2VjcmV0IHNlY3JldA==\n0123456789abcdef0123456789abcdef\n\ufeffPORT=1\n")
    assert settings.doubts() == [
        ".env, line 2: what is before the = is no setting, and is ignored. README.md lists all.",
        ".env, line 3 has no =, and is ignored.",
        ".env, line 4: what is before the = is no setting, and is ignored. Is PORT meant?",
    ]


def test_where_a_setting_is_missing_its_misspelling_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECERT", SECRET)
    with pytest.raises(SystemExit, match=r"(?s)JWT_SECRET is not set.*JWT_SECERT in the environment .* Is JWT_SECRET meant\?") as ended:
        settings.load()
    assert SECRET not in f"{ended.value}"


def test_what_comes_with_the_house_is_no_slip(place: Path) -> None:
    example = (HOUSE / ".env.example").read_text()
    (place / ".env").write_text(re.sub("^#([A-Z])", r"\1", example, flags=re.MULTILINE))
    assert settings.doubts() == []
    compose = (HOUSE / "docker-compose.yml").read_text()
    assert {*re.findall(r"\$\{(\w+)", compose)} <= {name.upper() for name in settings.Settings.model_fields}

"""Texts compared where case doesn't matter: the one folding of PostgreSQL is Unicode's, on each server and in each database."""

import random
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from postgres import migrate
from postgres.database import MIGRATIONS
from tests.conftest import Server, another_database, connection_parameters
from tests.model.shown import folded
from tests.tasks.test_functions import plan

Sql = Callable[..., list[tuple[Any, ...]]]

CHARACTERS = [  # assigned in Python's Unicode
    chr(number) for number in range(1, 0x110000) if unicodedata.category(chr(number)) not in ("Cn", "Co", "Cs")
]
CASED = [one for one in CHARACTERS if one.casefold() != one or one.upper() != one]
MARKS = "\u0300\u0301\u0306\u0307\u0308\u030a\u030c\u0313\u0331\u0342\u0345"
CHEROKEE = {chr(number) for number in (*range(0x13A0, 0x1400), *range(0xAB70, 0xABC0))}


def normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def sentences() -> list[str]:
    """Return random texts, always the same, of what has case and of marks, with something of ASCII in between."""
    chance = random.Random(1)
    pools = [CASED, CASED, MARKS, MARKS, "aZß iıİеЁ\n%_\\"]
    return [normal("".join(chance.choice(chance.choice(pools)) for _ in range(chance.randint(1, 12)))) for _ in range(20_000)]


every_text = pytest.mark.parametrize("texts", [[normal(one) for one in CHARACTERS], sentences()], ids=["characters", "sentences"])
BY_TABLE = "replace(replace(text_casefolded_by_table(t), E'i\\u0307', 'i'), 'ё', 'е')"  # what text_folded is on PostgreSQL 17


@every_text
def test_the_folding_is_unicodes(sql: Sql, texts: list[str]) -> None:
    found = sql("SELECT t, text_folded(t) FROM unnest(%s) t", texts)
    assert [(text, made, folded(text)) for text, made in found if made != folded(text)] == []


@pytest.mark.long
@every_text
def test_a_postgresql_without_case_folding_has_the_same_by_a_table(sql: Sql, texts: list[str]) -> None:
    texts = [text for text in texts if not CHEROKEE & {*text}]  # which folds to its capitals, and here to its small letters: all alike
    found = sql(f"SELECT t, {BY_TABLE} FROM unnest(%s) t", texts)
    assert [(text, made, canonical(text)) for text, made in found if normal(made) != canonical(text)] == []


def canonical(text: str) -> str:
    """Return the folding as Unicode has it where canonical equivalence counts, too (D145): of the text taken apart."""
    apart = unicodedata.normalize("NFD", text.replace("İ", "i")).casefold()
    return normal(normal(apart).replace("i\u0307", "i").replace("ё", "е"))


def test_what_is_folded_stays_as_it_is(sql: Sql) -> None:
    assert sql("SELECT t FROM unnest(%s) t WHERE text_folded(text_folded(t)) <> text_folded(t)", CHARACTERS) == []


@pytest.fixture(
    params=[
        "LOCALE_PROVIDER libc LOCALE 'C'",
        "LOCALE_PROVIDER libc LOCALE 'C.UTF-8'",
        "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C' LOCALE 'C'",
        "LOCALE_PROVIDER icu ICU_LOCALE 'tr' LOCALE 'C'",
    ]
)
def elsewhere(server: Server, request: pytest.FixtureRequest) -> Iterator[Sql]:
    """Give what runs SQL in a database with another collation."""
    with another_database(server) as name:
        with closing(psycopg2.connect(dbname="postgres", **connection_parameters())) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            try:
                cursor.execute(f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0 {request.param}")
            except psycopg2.errors.FeatureNotSupported:
                pytest.skip("this PostgreSQL was built without ICU")
        migrate.upgrade(name, connection_parameters(), MIGRATIONS)
        with closing(psycopg2.connect(dbname=name, **connection_parameters())) as connection, connection.cursor() as cursor:
            cursor.execute(f"SET search_path = {migrate.search_path(MIGRATIONS)}")

            def run(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
                cursor.execute(statement, parameters)
                return cursor.fetchall()

            yield run


@pytest.mark.long
def test_the_databases_own_collation_is_no_matter(elsewhere: Sql) -> None:
    texts = [text for text in map(normal, CASED) if text not in CHEROKEE]
    found = elsewhere(f"SELECT t, text_folded(t), {BY_TABLE} FROM unnest(%s) t", texts)
    assert [text for text, made, by_table in found if made != folded(text) or normal(by_table) != canonical(text)] == []


def test_the_planner_inlines_the_folding(sql: Sql) -> None:
    text = plan(sql, "SELECT text_folded(t.name) FROM task t")
    assert "replace(" in text
    assert "text_folded" not in text

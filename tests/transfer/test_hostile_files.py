"""A file of any kind, however it was made, holds up nobody but its sender."""

import gc
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any

import pytest

from rest import long_work
from rest.errors import InvalidInput
from tests.conftest import Person
from tests.rest.test_long_work import Loop, counted
from tests.transfer.test_imports import JSON, SHEET, Sql, send, todo
from tests.transfer.test_transfer import CALENDAR, CSV, make_tasks
from transfer import csv_format, exports, ics_file
from transfer.aside import Aside
from transfer.entries import MAX_LINE_BYTES, Line
from transfer.imports import _Changes
from transfer.json_format import AccountItems
from transfer.json_items import MAX_ITEM_BYTES, Items

MANY = 2000
MUCH = MAX_LINE_BYTES - 1000


# Between any two parts of a file everybody else may have a turn


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (CSV, "\n" * MANY, 400),
        (CSV, SHEET + "a,,new,\n" * MANY, 200),
        (CSV, SHEET + '"' + "\n" * MANY + '",,new,\n', 400),
        (CALENDAR, todo(*[""] * MANY, "SUMMARY:x"), 200),
        (CALENDAR, todo("SUMMARY:x", *[" x"] * MANY), 400),
        (CALENDAR, todo("SUMMARY:x", *["X-A:x"] * MANY), 200),
        (JSON, '{"tasks":[],"log":[' + ",".join(["{}"] * MANY) + "]}", 400),
    ],
)
async def test_a_file_is_read_in_many_turns(monkeypatch: pytest.MonkeyPatch, alice: Person, kind: str, body: str, status: int) -> None:
    monkeypatch.setattr(long_work, "SECONDS_AT_A_TIME", 0)
    monkeypatch.setattr(InvalidInput, "most", 10 * MANY)
    async with counted() as loop:
        at = noted_at(monkeypatch, loop, Aside, "_take")
        assert (await send(alice, kind, body)).status == status
    assert len(set(at)) >= len(at) - 1 >= MANY  # nothing comes after the last part, and so the end needs no turn of its own


@pytest.mark.parametrize("form", ["csv", "ics"])
async def test_a_listing_is_written_in_many_turns(monkeypatch: pytest.MonkeyPatch, alice: Person, sql: Sql, form: str) -> None:
    monkeypatch.setattr(long_work, "SECONDS_AT_A_TIME", 0)
    make_tasks(sql, alice, MANY)
    async with counted() as loop:
        at = noted_at(monkeypatch, loop, exports, "_write")
        assert (await alice.get(f"/task?format={form}")).text.count("task 1") > 1000
    assert len(set(at)) == len(at) == MANY


def noted_at(monkeypatch: pytest.MonkeyPatch, loop: Loop, where: Any, name: str) -> list[int]:
    """Note in which of the loop's turns each call of a function comes."""
    call, turns_of_calls = getattr(where, name), list[int]()

    def note_and_call(*arguments: Any) -> Any:
        turns_of_calls.append(loop.turns)
        return call(*arguments)

    monkeypatch.setattr(where, name, note_and_call)
    return turns_of_calls


# What one part of it takes grows no faster than it does


def lines(reader: Any, body: str) -> Iterator[Any]:
    changes = _Changes(reader, "6fa459ea-ee8a-4ca4-894e-db77e160355e")
    for number, line in enumerate(body.encode().splitlines(keepends=True), start=1):
        yield from changes.feed(Line(number, line))


def sheet(body: str) -> Iterator[Any]:
    return lines(csv_format.Rows(), body)


def calendar(*properties: str) -> Iterator[Any]:
    return lines(ics_file.Todos(), todo(*properties))


def export(item: str) -> Iterator[Any]:
    rows, items = AccountItems(), Items()
    for item_ in items.feed(f'{{"tasks":[{item}]'.encode()):
        yield from rows.feed(item_)


def seconds(read: Callable[[], Iterator[Any]]) -> float:
    """Return what a file takes of the processor: the least of some times, since others are at work."""
    taken = []
    for _ in range(5):
        began_at = thread_time()
        try:
            for _ in read():
                pass
        except InvalidInput:
            pass
        taken.append(thread_time() - began_at)
    return min(taken)


@pytest.mark.effort
@pytest.mark.parametrize(
    "read",
    {
        "separator of carriage returns": lambda: sheet("sep=" + "\r" * MUCH + "x\n"),
        "separator of line feeds": lambda: sheet('"sep=' + "\n" * 3000 + '"\n'),
        "columns": lambda: sheet("name" + "," * MUCH + "\n"),
        "cells": lambda: sheet(SHEET + "x" + "," * MUCH + "\n"),
        "uid": lambda: sheet(f"uid,{SHEET}{'a' * MUCH},x,,new,\n"),
        "parameters": lambda: calendar("SUMMARY" + ";A=1" * (MUCH // 4) + ":x"),
        "quotes": lambda: calendar("SUMMARY;A=" + '"' * MUCH + ":x"),
        "blanks": lambda: calendar("SUMMARY;A=" + " ;" * (MUCH // 2) + ":x"),
        "percents": lambda: calendar("SUMMARY;A=" + "%2C" * (MUCH // 3) + ":x"),
        "backslashes": lambda: calendar("DESCRIPTION:" + "\\" * MUCH),
        "line ends": lambda: calendar("DESCRIPTION:" + "\\n" * (MUCH // 2)),
        "members": lambda: export("{" + ",".join(f'"a{n}":1' for n in range(MAX_ITEM_BYTES // 12)) + "}"),
        "members again": lambda: export("{" + ",".join(['"id":1'] * (MAX_ITEM_BYTES // 8)) + "}"),
        "brackets": lambda: export('{"id":' + "[" * MAX_ITEM_BYTES),
        "digits": lambda: export('{"id":' + "1" * (MAX_ITEM_BYTES - 100) + "}"),
    }.items(),
    ids=lambda case: case[0],
)
def test_nothing_in_a_file_takes_longer_than_some_hundred_rows(read: tuple[str, Callable[[], Iterator[Any]]]) -> None:
    gc.disable()
    try:
        control = seconds(lambda: sheet(SHEET + 'Buy milk,"Two litres, the fresh one",new,02-10-2020\n' * 300))
        assert seconds(read[1]) < control
    finally:
        gc.enable()

"""A JSON object, taken apart as it comes: however it was written, and wherever its pieces were cut."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rest.errors import InvalidInput
from transfer.json_items import MAX_ITEM_BYTES, Item, Items

TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\{}[],:\n'), max_size=12)
VALUES = st.none() | st.booleans() | st.integers() | TEXTS | st.lists(TEXTS, max_size=3)
OBJECTS = st.dictionaries(
    TEXTS, VALUES | st.dictionaries(TEXTS, VALUES | st.dictionaries(TEXTS, VALUES, max_size=2), max_size=2), max_size=4
)
DOCUMENTS = st.dictionaries(st.sampled_from(["account", "tasks", "log"]), OBJECTS | st.lists(OBJECTS, max_size=4), min_size=1)


def read(text: bytes, size: int) -> list[Item]:
    """Return the items of a text that comes in pieces of so many bytes."""
    items = Items()
    found = [item for start in range(0, len(text), size) for item in items.feed(text[start : start + size])]
    items.end()
    return found


def put_together(items: list[Item]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for item in items:
        if item.text is None:
            document[item.member] = []
        elif item.member in document:
            document[item.member].append(json.loads(item.text))
        else:
            document[item.member] = json.loads(item.text)
    return document


@pytest.mark.long
@given(DOCUMENTS, st.sampled_from([None, 0, 3]), st.booleans(), st.integers(1, 40))
def test_whatever_is_taken_apart_is_the_same_again(document: dict[str, Any], indent: int | None, escaped: bool, size: int) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=escaped).encode()
    assert put_together(read(text, size)) == document


@given(DOCUMENTS, st.integers(1, 40), st.data())
def test_a_part_is_never_taken_for_the_whole(document: dict[str, Any], size: int, data: st.DataObject) -> None:
    text = json.dumps(document).encode()
    with pytest.raises(InvalidInput):
        read(text[: data.draw(st.integers(0, len(text) - 1))], size)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_each_item_has_the_line_at_which_it_begins(size: int) -> None:
    text = b'\n{\n"tasks":\r\n[ {"a":\n1},\n\n{"b":2}]\n,"log":[],\n\n"account": {\n}}\n\n'
    assert [(item.line, item.member) for item in read(text, size)] == [
        (4, "tasks"),
        (4, "tasks"),
        (7, "tasks"),
        (8, "log"),
        (10, "account"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", None),
        (b"[]", 1),
        (b"\n\n7", 3),
        (b"{}", 1),
        (b'{"tasks":7}', 1),
        (b'{"tasks":[7]}', 1),
        (b'{"tasks":[{}\n,\n]}', 3),
        (b'{"tasks":[{}\n{}]}', 2),
        (b'{"tasks":[{"a":"\n"}]}', 1),
        (b'{"tasks":[]\n,}', 2),
        (b'{"tasks":[]}\n\n{"tasks":[]}', 3),
        (b'{"tasks":[{"a":{"b":{"c":{}}}}]}', 1),
        (b'{"tasks":[]}\xef\xbb\xbf', 1),
    ],
)
def test_what_is_no_such_object_is_refused_by_its_line(text: bytes, line: int | None) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read(text, 5)
    assert [error["field"] for error in refusal.value.errors] == ([f"line {line}"] if line else [])


def test_what_never_ends_is_refused_before_it_fills_the_memory() -> None:
    items = Items()
    with pytest.raises(InvalidInput):
        for _ in range(MAX_ITEM_BYTES // 1000 + 2):
            assert [*items.feed(b'{"tasks":[{' + b" " * 1000 if items.line == 1 and not items._rest else b" " * 1000)][1:] == []

"""What text may be sent: which of it can be seen, and how many marks may stand in a row, whichever form it is in."""

import random
import re
import unicodedata
from itertools import groupby

import pytest

from rest.values import BLANK, INVISIBLE, MAX_MARKS_IN_A_ROW, MAX_MARKS_STORED, SPACE, VISIBLE, clean, is_blank

CHARACTERS = [chr(number) for number in range(0x110000) if not 0xD800 <= number < 0xE000]
INVISIBLE_LETTERS_AND_MARKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
VISIBLE_FORMATS = [
    *range(0x600, 0x606),
    0x6DD,
    0x70F,
    0x890,
    0x891,
    0x8E2,
    0x110BD,
    0x110CD,
    *range(0xFFF9, 0xFFFC),
    *range(0x13430, 0x13440),
]


def test_what_cannot_be_seen_is_what_unicode_lets_be_ignored() -> None:
    """UAX #44: format characters but a few, variation selectors, the fillers of Hangul and the like, and what is reserved for more of them."""
    formats = {one for one in CHARACTERS if unicodedata.category(one) == "Cf"} - {*map(chr, VISIBLE_FORMATS)}
    reserved = {chr(number) for number in (0x2065, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000))}
    selectors = {chr(number) for number in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))}
    ignorable = formats | reserved | selectors | {*INVISIBLE_LETTERS_AND_MARKS}
    assert len(ignorable) == 4174  # as DerivedCoreProperties.txt counts them
    spaces = {one for one in CHARACTERS if one.isspace()}
    assert {one for one in CHARACTERS if is_blank(one)} == ignorable | spaces | {"\u2800"}


def test_the_document_says_the_same_of_all_that_a_pattern_can_say() -> None:
    assert [
        one for one in CHARACTERS if one < "\U00010000" and one != "\0" and is_blank(one) == bool(re.search(VISIBLE["pattern"], one))
    ] == []
    assert BLANK.pattern.startswith(f"[{SPACE}{INVISIBLE}")


def longest_run(text: str) -> int:
    """Return how many marks stand in a row in a text that was taken apart."""
    apart = unicodedata.normalize("NFD", text)
    return max((len([*run]) for is_mark, run in groupby(apart, lambda one: unicodedata.combining(one) > 0) if is_mark), default=0)


def is_taken(text: str, most: int) -> bool:
    try:
        clean(text, max_marks=most)
    except ValueError:
        return False
    return True


@pytest.mark.long
def test_marks_are_counted_in_the_text_taken_apart() -> None:
    chance = random.Random(1)
    marks = ["\u0301", "\u0316", "\u0345", "\u0344", "\u0f73", "\u0f75", "\u0f81", "\u05b0", "\U0001d165"]
    letters = ["a", "\u1f82", "\ufb2c", "\u0958", "é", "\u0390", "中", "\U0001d160", " "]
    for _ in range(5000):
        runs = ["".join(chance.choices(marks, k=chance.choice([0, 1, 13, 14, 15, 29, 30, 31, 63]))) for _ in range(4)]
        text = "".join(chance.choice(letters) * chance.randint(1, 20) + run for run in runs)
        for most in (MAX_MARKS_IN_A_ROW, MAX_MARKS_STORED):
            taken = longest_run(text) <= most
            assert [is_taken(form, most) for form in (text, *(unicodedata.normalize(name, text) for name in ("NFC", "NFD")))] == [taken] * 3


@pytest.mark.parametrize("mark", ["\u0301", "\u0344", "\u0f73", "\u0f75", "\u0f81"])
@pytest.mark.parametrize("before", range(16))
def test_no_run_is_overlooked_wherever_it_begins(mark: str, before: int) -> None:
    width = len(unicodedata.normalize("NFD", mark))
    most, text = MAX_MARKS_IN_A_ROW // width, "a" * before + "b"
    assert [is_taken(f"{text}{mark * count}c", MAX_MARKS_IN_A_ROW) for count in (most, most + 1)] == [True, False]

"""Files in other charsets: what the Content-Type names is understood, and what isn't UTF-8 is told so."""

import codecs

import pytest

from rest.errors import InvalidInput
from tests.conftest import Person
from tests.rest.test_bodies import is_problem
from tests.transfer.test_imports import SHEET, done, faults, send, todo
from tests.transfer.test_transfer import CALENDAR, CSV
from transfer.charsets import ENCODINGS, UTF8, Recoder, find_encoding


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("iso-8859-1", "Käse"),
        ("ISO-8859-15", "5 € Käse"),
        ("windows-1252", "„Käse“"),
        ('"windows-1251"', "Купить ёлку"),
        ("koi8-r", "Купить молоко"),
        ("koi8-u", "Купити їжу"),
        ("utf-16", "Купить 🥛"),
        ("utf-16le", "\ufeffКупить 🥛"),
        ("UTF-16BE", "Купить 🥛"),
        ("shift_jis", "牛乳を買う"),
        ("gb18030", "买牛奶"),
        ("iso-2022-jp", "牛乳を買う"),
        ("us-ascii", "Milk"),
        ("utf8", "Ёлка"),
    ],
)
async def test_a_file_may_be_in_the_charset_that_it_names(alice: Person, charset: str, text: str) -> None:
    name, body = text.removeprefix("\ufeff"), text.partition("К")[0] * text.startswith("\ufeff")
    for kind, sent in ((CSV, SHEET + f"{name},,new,\r\n"), (CALENDAR, todo(f"SUMMARY:{name}"))):
        answer = await send(alice, f"{kind}; charset={charset}", (body + sent).encode(charset.strip('"')))
        assert (answer.status, answer.json["count"]) == (200, 1), answer
    assert [task["name"] for task in (await alice.get("/task")).json] == [name, name]


@pytest.mark.parametrize(
    "charset", ["rot13", "zip", "hex", "base64", "idna", "punycode", "unicode_escape", "utf-7", "x" * 1000, "ё", "os", "undefined"]
)
async def test_another_charset_is_refused(alice: Person, charset: str) -> None:
    with pytest.raises(LookupError):
        find_encoding(charset)
    answer = await send(alice, f"{CSV}; charset={charset}".encode().decode("latin-1"), SHEET)
    is_problem(answer, 415)
    assert answer.json["detail"] == "A file of this charset can't be read: send it as UTF-8."


@pytest.mark.parametrize("encoding", sorted(ENCODINGS - UTF8))
def test_each_charset_is_a_text_that_can_come_in_pieces(encoding: str) -> None:
    text = ("name,status\r\n" + "Milk,new\r\n" * 10).encode(encoding)
    recoder = Recoder(encoding)
    assert b"".join(recoder.feed(text[n : n + 1]) for n in range(len(text))) + recoder.feed(b"", is_last=True) == (
        b"name,status\r\n" + b"Milk,new\r\n" * 10
    )
    assert codecs.lookup(encoding)._is_text_encoding


@pytest.mark.parametrize("kind", [CSV, CALENDAR])
async def test_what_is_not_utf8_is_told_so_once(alice: Person, kind: str) -> None:
    body = SHEET + "Milk,,new,\r\nKäse,,new,\r\nBrötchen,,new,\r\n" if kind == CSV else todo("SUMMARY:Käse", "DESCRIPTION:Brötchen")
    [(line, words)] = faults(await send(alice, kind, body.encode("latin-1")))
    assert (line, words) == (
        "line 3" if kind == CSV else "line 4",
        "is not UTF-8: save the file as UTF-8, or name its charset in the Content-Type",
    )


async def test_what_is_not_of_the_charset_is_named_by_its_line(alice: Person) -> None:
    body = (SHEET + "Milk,,new,\r\n" * 3000).encode("utf-16-be")
    answer = await send(alice, f"{CSV}; charset=utf-16be", body + b"\xd8\x00\x00\x41" + body)
    assert faults(answer) == [("line 3002", "is not utf-16-be, which the Content-Type names as its charset")]
    assert [line for line, _ in faults(await send(alice, f"{CSV}; charset=utf-16le", SHEET.encode("utf-16-le") + b"x"))] == ["line 2"]
    assert [line for line, _ in faults(await send(alice, f"{CSV}; charset=windows-1252", (SHEET + "Milk").encode() + b"\x81"))] == [
        "line 2"
    ]


async def test_a_file_with_a_bom_is_utf8_whatever_it_is_called(alice: Person) -> None:
    answer = await send(alice, f"{CSV}; charset=iso-8859-1", "\ufeff" + SHEET + "Ёлка,,new,\r\n")
    assert (answer.json, (await alice.get("/task/1")).json["name"]) == (done(0, 1, 1), "Ёлка")


def test_a_letter_may_be_cut_in_two() -> None:
    recoder = Recoder("utf_16")
    assert [recoder.feed(piece) for piece in (b"\xfe", b"\xff\x04", b"\x20")] == [b"", b"", "Р".encode()]
    with pytest.raises(InvalidInput):
        recoder.feed(b"\x04", is_last=True)

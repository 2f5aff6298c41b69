"""The chapter "Listing" of the contract: filters, orders, pages."""

import itertools
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, quote

import orjson
import pytest
from yarl import URL

import models
import postgres.pages
from rest import cursors
from tasks import queries
from tasks.schemas import TaskQuery
from tasks.values import STATUSES
from tests.conftest import Answer, Person

KEYS = ["id", "name", "status", "completion_at", "created_at", "updated_at"]
ORDERS = [minus + key for key in KEYS for minus in ("", "-")]
MICROSECOND = timedelta(microseconds=1)
PAGE_BYTES = 4 * 1024 * 1024


def copy_task(sql: Callable[..., Any], person: Person, most: int) -> None:
    """Make copies of the person's task 1 until there are so many tasks."""
    assert person.caller
    columns = ", ".join(field.column_name for field in models.Task._meta.sorted_fields if field.name not in ("look", "body"))
    sql(
        f"INSERT INTO task ({columns}) SELECT {columns} FROM (SELECT (jsonb_populate_record(t, jsonb_build_object('id', n))).*"
        " FROM task t, generate_series(2, %s) n WHERE user_id = %s) x",
        most,
        person.caller.user_id,
    )


def names(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return [task["name"] for task in answer.json]


def ids(answer: Answer) -> list[int]:
    assert answer.status == 200, answer
    return [task["id"] for task in answer.json]


def blamed(answer: Answer) -> list[str]:
    """Return the parameters that a refusal names."""
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json"), answer
    return [error["field"] for error in answer.json["errors"]]


def link(answer: Answer) -> str | None:
    """Return the address of the next page, which must be a relative one."""
    if "Link" not in answer.headers:
        return None
    form = re.fullmatch(r'<(/task[^>]*)>; rel="next"', answer.headers["Link"])
    assert form, answer.headers["Link"]
    return form[1]


def cursor_of(answer: Answer) -> str:
    return parse_qs((link(answer) or "").partition("?")[2])["cursor"][0]


async def pages(person: Person, path: str) -> list[Answer]:
    """Read a listing to its end."""
    read: list[Answer] = []
    following: str | None = path
    while following:
        assert len(read) < 1000, "the pages have no end"
        read.append(await person.get(following))
        assert read[-1].status == 200, read[-1]
        following = link(read[-1])
    return read


def joined(read: Iterable[Answer]) -> list[dict[str, Any]]:
    return [task for page in read for task in page.json]


async def new_tasks(person: Person, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    return [await person.new_task(**task) for task in tasks]


async def mixed_tasks(person: Person) -> None:
    """Make tasks of which every key has ties and neighbours, and whose orders by different keys differ; some are changed later, two deleted."""
    days = [None, "01-02-2020", "2020-01-31", None, "1999-12-31", "2020-02-01", None]
    words = ["б", "Ёж", "еж", "A", "a", "Z_", "%", "ель", "Б"]
    for n in range(14):
        await person.new_task(name=words[n * 5 % 9], status=STATUSES[n * 3 % 4], completion_at=days[n % 7], description=str(n))
    for task_id in (9, 2, 13, 5):
        await person.patch(f"/task/{task_id}", json={"description": "changed"})
    for task_id in (3, 7):
        await person.delete(f"/task/{task_id}")


# What is listed


async def test_a_newcomers_list_is_empty(alice: Person) -> None:
    answer = await alice.get("/task")
    assert (answer.status, answer.text, answer.headers["X-Revision"], link(answer)) == (200, "[]\n", "0", None)


async def test_the_list_shows_each_task_as_its_own_address_does(alice: Person) -> None:
    await mixed_tasks(alice)
    listed = (await alice.get("/task")).json
    assert [task["id"] for task in listed] == [1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]
    assert listed == [(await alice.get(f"/task/{task['id']}")).json for task in listed]


async def test_another_users_tasks_are_not_listed(alice: Person, mallory: Person) -> None:
    await alice.new_task(name="a secret", status="planned", completion_at="01-01-2020")
    for query in ("", "?q=secret", "?status=planned", "?completion_at=01-01-2020", "?sort=-name", "?limit=1"):
        assert (await mallory.get("/task" + query)).json == []


@pytest.mark.parametrize("query", ["", "?status=new", "?q=gone", "?completion_at=none", "?sort=-updated_at", "?limit=1"])
async def test_a_deleted_task_is_not_listed(alice: Person, query: str) -> None:
    await new_tasks(alice, {"name": "gone 1"}, {"name": "gone 2"})
    await alice.delete("/task/1")
    assert ids(await alice.get("/task" + query)) == [2]
    await alice.delete("/task/2")
    assert ids(await alice.get("/task" + query)) == []


# Status


async def test_status_takes_one_or_several_in_any_order_and_any_number_of_times(alice: Person) -> None:
    await new_tasks(alice, *({"status": status} for status in STATUSES + STATUSES[::-1]))
    statuses = [(await alice.get(f"/task/{n}")).json["status"] for n in range(1, 9)]
    asked = [chosen for n in range(1, 5) for chosen in itertools.permutations(STATUSES, n)] + [
        ("new", "new"),
        ("planned", "new", "planned"),
    ]
    for chosen in asked:
        expected = [n for n, status in enumerate(statuses, 1) if status in chosen]
        assert ids(await alice.get("/task", params={"status": ",".join(chosen)})) == expected, chosen


@pytest.mark.parametrize(
    "status", ["New", "in work", "done", "new,", ",new", "new,,planned", "new, planned", "new;planned", "new,done", "*"]
)
async def test_a_status_that_there_is_not_is_refused(alice: Person, status: str) -> None:
    assert blamed(await alice.get("/task", params={"status": status})) == ["status"]


# The planned date


@pytest.fixture
async def dated(alice: Person) -> Person:
    """Alice, with tasks named by their dates; those without one are named none."""
    days = ["01-03-2020", None, "29-02-2020", "02-03-2020", "01-03-2020", None, "01-01-1900", "31-12-9999"]
    await new_tasks(alice, *({"name": day or "none", "completion_at": day} for day in days))
    return alice


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("completion_at=01-03-2020", ["01-03-2020", "01-03-2020"]),
        ("completion_at=2020-03-01", ["01-03-2020", "01-03-2020"]),
        ("completion_at=29-02-2020", ["29-02-2020"]),
        ("completion_at=03-01-2020", []),
        ("completion_at=none", ["none", "none"]),
        ("completion_from=01-03-2020", ["01-03-2020", "02-03-2020", "01-03-2020", "31-12-9999"]),
        ("completion_from=02-03-2020", ["02-03-2020", "31-12-9999"]),
        ("completion_from=31-12-9999", ["31-12-9999"]),
        ("completion_from=1900-01-01", ["01-03-2020", "29-02-2020", "02-03-2020", "01-03-2020", "01-01-1900", "31-12-9999"]),
        ("completion_to=01-03-2020", ["01-03-2020", "29-02-2020", "01-03-2020", "01-01-1900"]),
        ("completion_to=29-02-2020", ["29-02-2020", "01-01-1900"]),
        ("completion_to=01-01-1900", ["01-01-1900"]),
        ("completion_to=31-12-9999", ["01-03-2020", "29-02-2020", "02-03-2020", "01-03-2020", "01-01-1900", "31-12-9999"]),
        ("completion_from=29-02-2020&completion_to=2020-03-01", ["01-03-2020", "29-02-2020", "01-03-2020"]),
        ("completion_from=01-03-2020&completion_to=01-03-2020", ["01-03-2020", "01-03-2020"]),
        ("completion_from=02-03-2020&completion_to=01-03-2020", []),
    ],
)
async def test_the_planned_date_is_a_day_or_none_or_a_range_with_both_ends(dated: Person, query: str, expected: list[str]) -> None:
    assert names(await dated.get(f"/task?{query}")) == expected


@pytest.mark.parametrize("at", ["01-03-2020", "none"])
@pytest.mark.parametrize("bound", ["completion_from", "completion_to"])
async def test_a_range_does_not_go_with_a_day(alice: Person, at: str, bound: str) -> None:
    assert bound in blamed(await alice.get("/task", params={bound: "01-03-2020", "completion_at": at}))


@pytest.mark.parametrize("parameter", ["completion_at", "completion_from", "completion_to"])
async def test_a_day_that_no_calendar_has_is_refused(alice: Person, parameter: str) -> None:
    for day in (
        "30-02-2020",
        "29-02-2019",
        "2020-13-01",
        "01-01-1899",
        "1-3-2020",
        "01.03.2020",
        "20200301",
        "today",
        "None",
        "٠١-٠٣-٢٠٢٠",
        "null",
    ):
        assert blamed(await alice.get("/task", params={parameter: day})) == [parameter], day


@pytest.mark.parametrize("parameter", ["completion_from", "completion_to"])
async def test_none_is_no_end_of_a_range(alice: Person, parameter: str) -> None:
    assert blamed(await alice.get("/task", params={parameter: "none"})) == [parameter]


# The moment of completion


@pytest.fixture
async def completed(alice: Person) -> Person:
    """Alice, with three tasks completed one after the other, one that was reopened, and one never completed."""
    await new_tasks(alice, *({"status": status} for status in ("completed", "new", "new", "completed", "new")))
    await alice.patch("/task/3", json={"status": "completed"})
    await alice.patch("/task/2", json={"status": "completed"})
    await alice.patch("/task/4", json={"status": "in_work"})
    return alice


async def completed_at(person: Person, task_id: int) -> datetime:
    return datetime.fromisoformat((await person.get(f"/task/{task_id}")).json["completed_at"])


def written(moment: datetime, beyond: str = "") -> str:
    """Write a moment as RFC 3339 does, with more digits `beyond` the microseconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}{beyond}Z"


@pytest.mark.parametrize(
    ("parameter", "away", "beyond", "expected"),
    [
        ("completed_from", 0, "", {3, 2}),
        ("completed_from", 0, "000", {3, 2}),
        ("completed_from", 0, "000000001", {2}),
        ("completed_from", 0, "9", {2}),
        ("completed_from", 1, "", {2}),
        ("completed_from", -1, "", {3, 2}),
        ("completed_from", -1, "999", {3, 2}),
        ("completed_to", 0, "", {1}),
        ("completed_to", 0, "000", {1}),
        ("completed_to", 0, "000000001", {1, 3}),
        ("completed_to", 1, "", {1, 3}),
        ("completed_to", -1, "", {1}),
        ("completed_to", -1, "999", {1}),
    ],
)
async def test_completed_from_is_included_and_completed_to_is_not_to_any_fraction(
    completed: Person, parameter: str, away: int, beyond: str, expected: set[int]
) -> None:
    asked = written(await completed_at(completed, 3) + away * MICROSECOND, beyond)
    assert set(ids(await completed.get("/task", params={parameter: asked}))) == expected


async def test_two_ends_of_completion_make_a_half_open_range(completed: Person) -> None:
    first, second, third = [written(await completed_at(completed, task_id)) for task_id in (1, 3, 2)]
    for start, end, expected in (
        (first, second, [1]),
        (first, third, [1, 3]),
        (second, third, [3]),
        (second, second, []),
        (third, first, []),
    ):
        assert ids(await completed.get("/task", params={"completed_from": start, "completed_to": end})) == expected


@pytest.mark.parametrize("zone", ["+00:00", "-00:00", "+03:00", "-09:30", "+14:00", "+23:59", "-23:59"])
async def test_a_moment_may_have_any_offset(completed: Person, zone: str) -> None:
    sign, hours, minutes = zone[0], int(zone[1:3]), int(zone[4:])
    offset = timezone((-1 if sign == "-" else 1) * timedelta(hours=hours, minutes=minutes))
    moment = await completed_at(completed, 3)
    for at, expected in ((moment, [2, 3]), (moment + MICROSECOND, [2])):
        local = f"{at.astimezone(offset):%Y-%m-%dT%H:%M:%S.%f}{zone}"
        assert ids(await completed.get(f"/task?completed_from={quote(local, safe='')}")) == expected


async def test_a_moment_may_be_written_in_small_letters_and_with_any_number_of_digits(completed: Person) -> None:
    later = await completed_at(completed, 2) + timedelta(days=1)
    for form in (f"{later:%Y-%m-%dt%H:%M:%Sz}", f"{later:%Y-%m-%dT%H:%M:%S}.1Z", f"{later:%Y-%m-%dT%H:%M:%S}.{'1' * 40}Z"):
        assert ids(await completed.get("/task", params={"completed_from": form})) == []
        assert ids(await completed.get("/task", params={"completed_to": form})) == [1, 2, 3]


@pytest.mark.parametrize(
    "moment", ["9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "2016-12-31T23:59:60Z"]
)
async def test_any_moment_of_rfc_3339_is_understood(alice: Person, moment: str) -> None:
    for parameter in ("completed_from", "completed_to"):
        assert ids(await alice.get("/task", params={parameter: moment})) == []


@pytest.mark.parametrize(
    "moment",
    [
        "2026-11-24", "2026-11-24T09:30:00", "2026-11-24 09:30:00Z", "2026-11-24T09:30Z", "20261124T093000Z", "2026-11-24T09:30:00.Z",
        "2026-11-24T09:30:00,5Z", "2026-11-24T09:30:00+03", "2026-11-24T09:30:00+0300", "2026-11-24T09:30:00 03:00", "2026-11-24T24:00:00Z",
        "2026-11-24T09:60:00Z", "2026-11-24T09:30:61Z", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-24T09:30:00+24:00",
        "2026-11-24T09:30:00+03:60", "2026-11-24T09:30:00+99:99", "24-11-2026", "now", "1764000000", "none", "٢٠٢٦-11-24T09:30:00Z",
        "2026-W48-2T09:30:00Z", "2026-11-24T09:30:00ZZ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("parameter", ["completed_from", "completed_to"])
async def test_a_moment_that_rfc_3339_does_not_know_is_refused(alice: Person, parameter: str, moment: str) -> None:
    assert blamed(await alice.get("/task", params={parameter: moment})) == [parameter]


async def test_a_plus_that_is_not_escaped_is_a_space_and_refused(alice: Person) -> None:
    assert (await alice.get("/task?completed_from=2026-11-24T09:30:00%2B03:00")).status == 200
    assert blamed(await alice.get("/task?completed_from=2026-11-24T09:30:00+03:00")) == ["completed_from"]


# Words


@pytest.fixture
async def library(alice: Person) -> Person:
    """Alice, with texts to search."""
    texts = [
        ("Buy MILK", "two litres"),
        ("Купить молоко", "Ёлка и ёж: 100% в_срок"),
        ("milky way", "buy a telescope"),
        ("C:\\new\\milk", 'it\'s "quoted"'),
        ("СТРАẞE Éclair", "1_000 of 50%\nend"),
        ("100 procent", "в срок"),
        ("a\tb", "x" * 9_999 + "Y"),
    ]
    await new_tasks(alice, *({"name": name, "description": description} for name, description in texts))
    return alice


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7]),
        (" \t\n\u3000", [1, 2, 3, 4, 5, 6, 7]),
        ("milk", [1, 3, 4]),
        ("MiLk", [1, 3, 4]),
        ("buy milk", [1, 3]),
        ("milk  buy\tmilk", [1, 3]),
        ("litres milk", [1]),
        ("buymilk", []),
        ("milktwo", []),
        ("milk telescope absent", []),
        ("МОЛОКО", [2]),
        ("оЛок", [2]),
        ("ЁЖ", [2]),
        ("е\u0308ж", [2]),
        ("Е\u0308ЛКА", [2]),
        ("e\u0301CLAIR", [5]),
        ("\u00c9clair", [5]),
        ("страß", [5]),
        ("%", [2, 5]),
        ("0%", [2, 5]),
        ("100%", [2]),
        ("1%0", []),
        ("_", [2, 5]),
        ("1_0", [5]),
        ("в_срок", [2]),
        ("\\", [4]),
        ("c:\\NEW", [4]),
        ("\\%", []),
        ("\\_", []),
        ("\\\\", []),
        ("'", [4]),
        ('IT\'S "QUOTED"', [4]),
        ("';--", []),
        ("xy", [7]),
        ("a b", [3, 7]),
        ("+", []),
        ("\u200b", []),
        ("\U0001f600", []),
    ],
)
async def test_q_finds_every_word_in_name_or_description_in_any_case_and_literally(library: Person, q: str, expected: list[int]) -> None:
    assert ids(await library.get(f"/task?q={quote(q, safe='')}")) == expected


async def test_q_takes_ten_words_of_a_hundred_characters_each(alice: Person) -> None:
    words = [f"{n}{'ß' * 99}" for n in range(10)]
    await new_tasks(
        alice, {"name": "some of them", "description": " ".join(words[1:])}, {"name": "all", "description": "".join(words).upper()}
    )
    assert ids(await alice.get("/task", params={"q": " ".join(words)})) == [2]
    assert (await alice.get("/task", params={"q": " ".join([*words, "x"])})).status == 400
    assert (await alice.get("/task", params={"q": words[0] + "ß"})).status == 400


FOLDED = [  # a word, and a name in which it stands
    ("ΣΚΎΛΟΣ", "σκύλος"),
    ("σκύλος", "ΣΚΎΛΟΣ"),
    ("σκυλοσ", "ΣΚΥΛΟς"),
    ("STRASSE", "Straße"),
    ("straße", "STRASSE"),
    ("STRAẞE", "strasse"),
    ("елку", "Купить ёлку"),
    ("ЁЛКУ", "Купить елку"),
    ("Е\u0308лку", "купить елку"),
    ("istanbul", "İSTANBUL"),
    ("İstanbul", "istanbul"),
    ("i\u0307stanbul", "ISTANBUL"),
    ("office", "oﬃce"),
    ("OﬃCE", "office"),
    ("ᾼδησ", "ᾳδης"),
    ("ǰ", "J\u030c"),
    ("ſo_\\%", "So_\\%"),
    ("\u212bNGSTROM", "a\u030angstrom"),
    ("եվ", "եվ ԵՒ"),
    ("և", "ԵՒ"),
    ("ꭰ", "Ꭰ"),
    ("ჭ", "Ჭ"),
]


@pytest.mark.parametrize(("word", "name"), FOLDED)
async def test_q_compares_the_full_case_folding_of_both(alice: Person, word: str, name: str) -> None:
    await new_tasks(alice, {"name": name}, {"name": "-", "description": name}, {"name": "another"})
    await alice.delete("/task/1")
    assert ids(await alice.get("/task", params={"q": word})) == [2]
    assert ids(await alice.get("/task", params={"q": word, "deleted": "true"})) == [1]
    assert ids(await alice.get("/task", params={"q": word, "revision": "3"})) == [1, 2]


@pytest.mark.parametrize(("word", "name"), [("ılık", "ILIK"), ("ss", "ś"), ("е", "э"), ("a_", "ab"), ("s%e", "ße")])
async def test_q_folds_nothing_else(alice: Person, word: str, name: str) -> None:
    await new_tasks(alice, {"name": name})
    assert ids(await alice.get("/task", params={"q": word})) == []


async def test_in_an_address_a_plus_separates_words_and_an_escaped_one_is_a_plus(alice: Person) -> None:
    await new_tasks(alice, {"name": "b then a"}, {"name": "a+b"})
    assert ids(await alice.get("/task?q=a+b")) == [1, 2]
    assert ids(await alice.get("/task?q=a%2Bb")) == [2]


@pytest.mark.parametrize("q", ["a%00b", "%FF", "%ED%A0%80", "%C3"])
async def test_what_is_no_text_is_refused(alice: Person, q: str) -> None:
    assert (await alice.get(URL(f"/task?q={q}", encoded=True))).status == 400  # type: ignore[arg-type]


# Filters together


async def test_filters_together_show_what_each_of_them_shows(completed: Person) -> None:
    await new_tasks(
        completed,
        *({"name": name, "status": status, "completion_at": day}
          for name in ("milk", "bread") for status in ("new", "completed") for day in (None, "01-03-2020", "02-03-2020")),
    )  # fmt: skip
    everything = set(ids(await completed.get("/task")))
    start, end = [written(await completed_at(completed, task_id)) for task_id in (10, 16)]
    filters = {
        "status": "completed,planned",
        "completion_at": "none",
        "completion_from": "01-03-2020",
        "completion_to": "2020-03-01",
        "completed_from": start,
        "completed_to": end,
        "q": "milk",
    }
    alone = {name: set(ids(await completed.get("/task", params={name: value}))) for name, value in filters.items()}
    assert all(set() < found < everything for found in alone.values()), "each filter must tell something apart"
    for n in range(2, 6):
        for chosen in itertools.combinations(filters, n):
            if "completion_at" in chosen and {"completion_from", "completion_to"} & set(chosen):
                continue
            found = ids(await completed.get("/task", params={name: filters[name] for name in chosen}))
            assert found == sorted(everything.intersection(*(alone[name] for name in chosen))), chosen


async def test_one_task_is_shown_if_it_is_as_asked_for(alice: Person) -> None:
    await new_tasks(alice, {"status": "planned", "completion_at": "02-10-2020"}, {"status": "new"})
    for query, found in {
        "1?status=planned": 200, "1?status=new": 404, "1?status=new,planned": 200, "1?completion_at=02-10-2020": 200,
        "1?completion_at=2020-10-02": 200, "1?completion_at=03-10-2020": 404, "1?completion_at=none": 404, "2?completion_at=none": 200,
        "2?completion_at=02-10-2020": 404, "1?status=planned&completion_at=02-10-2020": 200, "1?status=new&completion_at=02-10-2020": 404,
        "1?status=planned&completion_at=03-10-2020": 404, "3?status=new": 404,
    }.items():  # fmt: skip
        answer = await alice.get(f"/task/{query}")
        assert (answer.status, answer.headers["X-Revision"]) == (found, "2"), query
        assert found == 404 or answer.json == (await alice.get(f"/task/{query[0]}")).json


@pytest.mark.parametrize(
    "query", ["status=", "completion_at=", "status=done", "completion_at=1", "q=", "sort=id", "limit=1", "status=new&status=new", "x=1"]
)
async def test_one_task_takes_no_other_parameters(alice: Person, query: str) -> None:
    await alice.new_task()
    assert blamed(await alice.get(f"/task/1?{query}")) == [query.partition("=")[0]]


# Orders


async def test_without_sort_the_order_is_by_id_as_a_number(alice: Person) -> None:
    await new_tasks(alice, *({"name": f"{20 - n}"} for n in range(12)))
    await alice.patch("/task/3", json={"name": "changed"})
    assert ids(await alice.get("/task")) == ids(await alice.get("/task?sort=id")) == list(range(1, 13))


NAMES = [
    "Ёлка",
    "яма",
    "елка",
    "Жук",
    "еда",
    "Zebra",
    "apple",
    "zebra",
    "Apple",
    "%",
    "_",
    "10",
    "9",
    "É",
    "\U0001f600",
    "\uffee",
    "ёлкб",
    "Ель",
    "apple pie",
]
SORTED_NAMES = [
    "%", "10", "9", "_", "apple", "Apple", "apple pie", "Zebra", "zebra", "É",
    "еда", "Ёлка", "елка", "ёлкб", "Ель", "Жук", "яма", "\uffee", "\U0001f600",
]  # fmt: skip


async def test_names_are_in_order_of_small_letters_with_yo_as_ye_then_of_code_points_then_of_ids(alice: Person) -> None:
    await new_tasks(alice, *({"name": name} for name in NAMES))
    assert names(await alice.get("/task?sort=name")) == SORTED_NAMES
    assert names(await alice.get("/task?sort=-name")) == SORTED_NAMES[::-1]


async def test_names_are_sorted_as_words_are_compared(alice: Person) -> None:
    in_order = ["ﬂoß", "ISS", "İst", "istanbul", "STRASSE", "straße", "Strasz", "Λόγοι", "ΛΌΓΟΣ", "λόγος", "λόγοσ", "ΛΌΓΟΣ α"]
    await new_tasks(alice, *({"name": name} for name in in_order))
    assert names(await alice.get("/task?sort=name")) == in_order
    assert [task["name"] for task in joined(await pages(alice, "/task?sort=name&limit=1"))] == in_order
    assert [task["name"] for task in joined(await pages(alice, "/task?sort=-name&limit=1"))] == in_order[::-1]


@pytest.mark.parametrize(("sort", "rest"), [("name", ["strb", "Żar"]), ("-name", ["strasz", "a"])])
async def test_a_page_goes_on_where_the_version_before_ended_one(alice: Person, sort: str, rest: list[str]) -> None:
    await new_tasks(alice, *({"name": name} for name in ("strasz", "strb", "Żar", "a")))
    assert alice.caller
    scope = f"{alice.caller.user_id} tasks {TaskQuery.model_validate({'sort': sort}).listing}"
    place = orjson.dumps(["straße", "9"])  # by its small letters it stands behind "strasz"
    cursor = cursors.seal(alice.service.settings.jwt_secrets[0], scope, place)
    assert names(await alice.get("/task", params={"sort": sort, "cursor": cursor})) == rest


async def test_a_decomposed_yo_is_sorted_as_yo(alice: Person) -> None:
    await new_tasks(alice, *({"name": name} for name in ("ж", "е\u0308", "е", "д")))
    assert ids(await alice.get("/task?sort=name")) == [4, 2, 3, 1]


async def test_statuses_are_in_the_order_of_work_then_of_ids(alice: Person) -> None:
    await new_tasks(
        alice, *({"status": status} for status in ("completed", "in_work", "new", "planned", "completed", "in_work", "new", "planned"))
    )
    assert ids(await alice.get("/task?sort=status")) == [3, 7, 4, 8, 2, 6, 1, 5]
    assert ids(await alice.get("/task?sort=-status")) == [5, 1, 6, 2, 8, 4, 7, 3]


async def test_tasks_without_a_date_come_last_in_both_directions(alice: Person) -> None:
    days = [None, "02-01-2020", "01-02-2020", None, "31-12-2019", "02-01-2020", None]
    await new_tasks(alice, *({"completion_at": day} for day in days))
    assert ids(await alice.get("/task?sort=completion_at")) == [5, 2, 6, 3, 1, 4, 7]
    assert ids(await alice.get("/task?sort=-completion_at")) == [3, 6, 2, 5, 7, 4, 1]


async def test_a_change_moves_a_task_in_the_order_of_changes_and_not_of_creation(alice: Person) -> None:
    await new_tasks(alice, *({"name": f"{n}"} for n in range(4)))
    for task_id in (2, 1, 3):
        await alice.patch(f"/task/{task_id}", json={"name": "changed"})
    await alice.patch("/task/2", json={"name": "changed"})  # it is so already
    for sort, expected in {
        "created_at": [1, 2, 3, 4], "-created_at": [4, 3, 2, 1], "updated_at": [4, 2, 1, 3], "-updated_at": [3, 1, 2, 4], "-id": [4, 3, 2, 1],
    }.items():  # fmt: skip
        assert ids(await alice.get("/task", params={"sort": sort})) == expected, sort
        assert [task["id"] for task in joined(await pages(alice, f"/task?sort={sort}&limit=1"))] == expected, sort


async def test_tasks_of_one_moment_are_in_the_order_of_their_ids(alice: Person, sql: Callable[..., Any]) -> None:
    await new_tasks(alice, {}, {}, {}, {})
    assert alice.caller
    sql("UPDATE task SET look = 0, updated_at = '2020-01-01T00:00:00Z' WHERE user_id = %s AND id IN (2, 4)", alice.caller.user_id)
    sql("UPDATE task SET look = 0, updated_at = '2020-01-02T00:00:00Z' WHERE user_id = %s AND id IN (1, 3)", alice.caller.user_id)
    for sort, expected in (("updated_at", [2, 4, 1, 3]), ("-updated_at", [3, 1, 4, 2])):
        assert ids(await alice.get("/task", params={"sort": sort})) == expected
        assert [task["id"] for task in joined(await pages(alice, f"/task?sort={sort}&limit=1"))] == expected


@pytest.mark.parametrize(
    "sort", ["", "-", "+id", "ID", "--id", "description", "completed_at", "revision", "id,name", "name desc", "user_id"]
)
async def test_an_order_that_there_is_not_is_refused(alice: Person, sort: str) -> None:
    assert blamed(await alice.get(f"/task?sort={quote(sort, safe='')}")) == ["sort"]


# Limits and pages


@pytest.mark.parametrize("limit", ["1", "2", "1000"])
async def test_a_limit_is_from_1_to_1000(alice: Person, limit: str) -> None:
    await new_tasks(alice, {}, {}, {})
    assert len((await alice.get("/task", params={"limit": limit})).json) == min(int(limit), 3)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "10000000000000000000", "01", "1.0", "1e2", " 1", "1_0", "٣", "all", "none"])
async def test_no_other_limit_is_taken(alice: Person, limit: str) -> None:
    assert blamed(await alice.get("/task", params={"limit": limit})) == ["limit"]


@pytest.mark.long
async def test_without_a_limit_a_page_has_a_thousand(alice: Person, sql: Callable[..., Any]) -> None:
    assert alice.caller
    await alice.new_task()
    copy_task(sql, alice, 1001)
    for path in ("/task", "/task?limit=1000"):
        first, second = await pages(alice, path)
        assert (ids(first), ids(second)) == (list(range(1, 1001)), [1001])
    await alice.delete("/task/1001")
    assert [len(page.json) for page in await pages(alice, "/task")] == [1000]


@pytest.mark.long
@pytest.mark.parametrize("sort", ORDERS)
async def test_pages_of_any_length_give_the_whole_listing_in_its_order(alice: Person, sort: str) -> None:
    await mixed_tasks(alice)
    for more in ("", "&q=е", "&status=new,completed", "&completion_at=none", "&completion_to=01-02-2020"):
        query = f"/task?sort={sort}{more}"
        whole = (await alice.get(query)).json
        assert len(whole) > 1
        for limit in (1, 2, 5, len(whole) - 1, len(whole), len(whole) + 1):
            read = await pages(alice, f"{query}&limit={limit}")
            assert joined(read) == whole, (query, limit)
            assert {len(page.json) for page in read[:-1]} <= {limit}
            assert 0 < len(read[-1].json) <= limit


async def test_a_link_stands_only_where_more_follow(alice: Person) -> None:
    await new_tasks(alice, {}, {}, {"status": "planned"})
    for query, follows in {
        "limit=2": True,
        "limit=3": False,
        "limit=4": False,
        "status=new&limit=1": True,
        "status=new&limit=2": False,
        "q=absent": False,
    }.items():
        assert (link(await alice.get(f"/task?{query}")) is not None) is follows, query
    assert [len(page.json) for page in await pages(alice, "/task?limit=1")] == [1, 1, 1]


async def test_a_link_is_relative_and_keeps_the_query_whatever_it_holds(alice: Person) -> None:
    words = "a+b c&d=e%41 ё\"'<>#;,\\ 😀"
    await new_tasks(alice, {"name": words}, {"name": "nothing"}, {"name": f"2 {words}"}, {"name": f"3 {words}"})
    read = await pages(alice, f"/task?limit=1&q={quote(words, safe='')}")
    assert [task["id"] for task in joined(read)] == [1, 3, 4]
    assert (link(read[0]) or "ё").isascii()


async def test_every_page_tells_the_users_revision(alice: Person) -> None:
    await new_tasks(alice, {}, {})
    first = await alice.get("/task?limit=1")
    await alice.new_task()
    second = await alice.get(link(first) or "")
    assert (first.headers["X-Revision"], second.headers["X-Revision"]) == ("2", "3")


@pytest.mark.long
@pytest.mark.parametrize("sort", ORDERS)
@pytest.mark.parametrize("limit", [1, 4, 9])
async def test_what_happens_to_other_tasks_between_pages_neither_skips_nor_repeats_one(alice: Person, sort: str, limit: int) -> None:
    await mixed_tasks(alice)
    path = f"/task?sort={sort}&limit={limit}"
    before = (await alice.get(f"/task?sort={sort}")).json
    first = await alice.get(path)
    shown, to_come = before[:limit], before[limit:]
    assert first.json == shown

    gone, changed = {shown[-1]["id"], to_come[0]["id"]}, {to_come[1]["id"]}  # the very place of the cursor is removed
    for task_id in gone:
        await alice.delete(f"/task/{task_id}")
    for task_id in changed:
        await alice.patch(f"/task/{task_id}", json={"name": "z", "status": "completed", "completion_at": "2021-01-01"})
    for task in (before[0], before[-1], before[limit]):  # beside the first, the last and the place
        await alice.new_task(**{field: task[field] for field in ("name", "status", "completion_at")})

    rest = joined(await pages(alice, link(first) or ""))
    untouched = [task for task in to_come if task["id"] not in gone | changed]
    assert [task for task in rest if task in untouched] == untouched
    assert len({task["id"] for task in rest}) == len(rest)
    assert not {task["id"] for task in rest} & ({task["id"] for task in shown} | gone)
    whole = (await alice.get(f"/task?sort={sort}")).json
    assert rest == [task for task in whole if task in rest]
    assert [task["id"] for task in whole if task["id"] > 14 and task not in rest] == [
        task["id"] for task in whole[: whole.index(rest[0])] if task["id"] > 14
    ], "what was added beyond the place is shown"


# Cursors


async def test_a_cursor_is_good_only_for_the_query_that_made_it(alice: Person) -> None:
    await mixed_tasks(alice)
    query = {"sort": "name", "limit": "2", "status": "new,completed", "q": "е", "completion_to": "01-02-2020"}
    assert (await alice.get("/task", params=query)).status == 200
    query["q"] = ""
    cursor = cursor_of(await alice.get("/task", params=query))
    assert (await alice.get("/task", params=query | {"cursor": cursor})).status == 200
    others = [{name: value for name, value in query.items() if name != left_out} for left_out in query if left_out != "q"] + [
        query | change
        for change in (
            {"sort": "-name"}, {"sort": "id"}, {"sort": "status"}, {"limit": "3"}, {"status": "new"}, {"q": "е"}, {"completion_to": "02-02-2020"},
            {"completion_from": "01-02-2020"}, {"completed_from": "2020-01-01T00:00:00Z"}, {"completed_to": "2020-01-01T00:00:00Z"},
        )
    ]  # fmt: skip
    for other in others:
        assert blamed(await alice.get("/task", params=other | {"cursor": cursor})) == ["cursor"], other


async def test_a_cursor_is_good_only_for_its_user(alice: Person, mallory: Person) -> None:
    for person in (alice, mallory):
        await new_tasks(person, {}, {})
    cursor = cursor_of(await alice.get("/task?limit=1"))
    assert blamed(await mallory.get("/task", params={"limit": "1", "cursor": cursor})) == ["cursor"]


async def test_a_cursor_is_good_only_at_its_address(alice: Person) -> None:
    await new_tasks(alice, {}, {})
    for task_id in (1, 2):
        for name in ("a", "b"):
            await alice.patch(f"/task/{task_id}", json={"name": name})
    cursors = {path: cursor_of(await alice.get(f"{path}?limit=1")) for path in ("/task", "/task/1/log", "/task/2/log")}
    for made_at, used_at in itertools.product(cursors, cursors):
        answer = await alice.get(used_at, params={"limit": "1", "cursor": cursors[made_at]})
        assert answer.status == 200 if made_at == used_at else blamed(answer) == ["cursor"], (made_at, used_at)


async def test_a_cursor_that_was_tampered_with_is_refused_whichever_character_it_was(alice: Person) -> None:
    await new_tasks(alice, *({"name": f"name {n}"} for n in range(3)))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for sort in ("id", "name", "-updated_at", "completion_at"):
        query = {"limit": "1", "sort": sort}
        cursor = cursor_of(await alice.get("/task", params=query))
        assert set(cursor) <= set(alphabet), "opaque, and fit for an address as it is"
        flipped = [cursor[:n] + alphabet[alphabet.index(cursor[n]) ^ 1] + cursor[n + 1 :] for n in range(len(cursor))]
        for tampered in [*flipped, cursor[:-1], cursor[1:], cursor + "A", cursor[::-1]]:
            assert blamed(await alice.get("/task", params=query | {"cursor": tampered})) == ["cursor"], (cursor, tampered)


async def test_a_cursor_with_something_put_into_it_is_refused(alice: Person) -> None:
    await new_tasks(alice, {}, {})
    cursor = cursor_of(await alice.get("/task?limit=1"))
    strays = ("=", "==", "!", ".", " ", "\n", "ё", "%")
    tampered = [form for stray in strays for form in (cursor + stray, stray + cursor, cursor[:5] + stray + cursor[5:])]
    answers = {form: (await alice.get("/task", params={"limit": "1", "cursor": form})).status for form in tampered}
    assert [form for form, status in answers.items() if status != 400] == []


@pytest.mark.parametrize("cursor", ["A", "AAAA", "null", "1", "[1,1]", "A" * 100, "%00", "\U0001f600"])
async def test_a_cursor_that_was_never_given_is_refused(alice: Person, cursor: str) -> None:
    assert blamed(await alice.get("/task", params={"cursor": cursor})) == ["cursor"]


# Bytes


@pytest.mark.long
async def test_a_page_closes_at_about_four_mebibytes(alice: Person, sql: Callable[..., Any]) -> None:
    assert alice.caller
    await alice.new_task(description="\x01" * 10_000)  # 60 kB as JSON
    copy_task(sql, alice, 150)
    read = await pages(alice, "/task?sort=-id")
    assert [task["id"] for task in joined(read)] == list(range(150, 0, -1))
    assert all(0.95 * PAGE_BYTES < len(page.text.encode()) < 1.05 * PAGE_BYTES for page in read[:-1]), [len(page.text) for page in read]
    assert len(read) == 3
    assert len((await alice.get("/task?limit=50")).json) == 50


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_short_page_that_is_too_heavy_to_travel_with_others_is_whole(alice: Person, limit: int) -> None:
    lengths = [10_000 - place for place in range(5)]
    await new_tasks(alice, *({"description": "\U0001f600" * length} for length in lengths))
    read = await pages(alice, f"/task?limit={limit}")
    assert len(read[0].text.encode()) > limit * 39_000
    assert [(task["id"], len(task["description"])) for task in joined(read)] == list(enumerate(lengths, 1))


async def test_four_mebibytes_are_counted_in_bytes(alice: Person, sql: Callable[..., Any]) -> None:
    assert alice.caller
    await alice.new_task(description="\U0001f600" * 10_000)  # four bytes each
    copy_task(sql, alice, 110)
    read = await pages(alice, "/task")
    assert [task["id"] for task in joined(read)] == list(range(1, 111))
    assert len(read) == 2
    assert 0.95 * PAGE_BYTES < len(read[0].text.encode()) < 1.05 * PAGE_BYTES


@pytest.mark.parametrize(("room", "lengths"), [(1, [1, 1, 1, 1]), (800, [2, 1, 1])])
async def test_a_task_longer_than_what_is_left_still_comes(
    alice: Person, monkeypatch: pytest.MonkeyPatch, room: int, lengths: list[int]
) -> None:
    monkeypatch.setattr(postgres.pages, "BYTES_PER_PAGE", room)
    queries.task_page.cache_clear()
    try:
        await new_tasks(alice, {}, {}, {"description": "x" * 1000}, {})
        read = await pages(alice, "/task")
    finally:
        queries.task_page.cache_clear()
    assert [len(page.json) for page in read] == lengths
    assert [task["id"] for task in joined(read)] == [1, 2, 3, 4]


# Parameters


@pytest.mark.parametrize(
    "name", ["statuss", "Status", "page", "offset", "order", "name", "user_id", "id", "task_id", "status[]", "status ", "", "_"]
)
async def test_an_unknown_parameter_is_refused(alice: Person, name: str) -> None:
    shown = name if name.isidentifier() else "query"
    assert blamed(await alice.get(f"/task?{quote(name, safe='')}=new")) == [shown]


PARAMETERS = {
    "status": "new", "completion_at": "none", "completion_from": "01-01-2020", "completion_to": "01-01-2020",
    "completed_from": "2020-01-01T00:00:00Z", "completed_to": "2020-01-01T00:00:00Z", "sort": "id", "limit": "1",
}  # fmt: skip


@pytest.mark.parametrize("name", [*PARAMETERS, "cursor"])
async def test_an_empty_parameter_is_refused(alice: Person, name: str) -> None:
    for form in (f"{name}=", name, f"q=&{name}="):
        assert blamed(await alice.get(f"/task?{form}")) == [name], form


@pytest.mark.parametrize(("name", "value"), [*PARAMETERS.items(), ("q", "milk"), ("q", "")])
async def test_a_parameter_given_twice_is_refused(alice: Person, name: str, value: str) -> None:
    assert (await alice.get(f"/task?{name}={value}")).status == 200
    assert blamed(await alice.get(f"/task?{name}={value}&{name}={value}")) == [name]


async def test_a_cursor_given_twice_is_refused(alice: Person) -> None:
    await new_tasks(alice, {}, {})
    cursor = cursor_of(await alice.get("/task?limit=1"))
    assert blamed(await alice.get(f"/task?limit=1&cursor={cursor}&cursor={cursor}")) == ["cursor"]


async def test_all_parameters_at_fault_are_named_at_once(alice: Person) -> None:
    answer = await alice.get("/task?status=done&completion_at=x&completed_from=x&sort=x&limit=0&unknown=1&q=a&q=b")
    assert set(blamed(answer)) == {"status", "completion_at", "completed_from", "sort", "limit", "unknown", "q"}


async def test_a_refused_listing_shows_nothing(alice: Person, newcomer: Callable[[str], Awaitable[Person]]) -> None:
    await alice.new_task(name="milk")
    for person in (alice, await newcomer("bob")):
        answer = await person.get("/task?statuss=new")
        assert answer.status == 400
        assert "milk" not in answer.text

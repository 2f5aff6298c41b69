"""What the machines send: texts, days, moments, filters, conditions, and how a body is written."""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any, NamedTuple

from aiohttp import FormData
from hypothesis import strategies as st

from tasks.schemas import FIELDS
from tasks.values import STATUSES
from tests.model.memory import Json, Task, seconds

FORM = "application/x-www-form-urlencoded"

PIECES = [
    "a", "A", "b", "Z", "z", "e", "E", "7", "_", "%", "\\", "'", '"', "`", "$1", "{}", "<b>", " ", "\n", "\t", "\r\n", "\x01", "\x7f", "\u2028", "\ufeff", "\u200b",
    "е", "Е", "ё", "Ё", "ж", "Ж", "й", "ь", "\u0301", "\u0306", "\u0308", "é", "É", "Å", "\u212b", "ß", "ẞ", "ss", "İ", "i\u0307", "ı", "Σ", "ς", "J\u030c", "ᾼ", "ﬁ", "Ǆ", "ა", "Ა", "中",
    "\ue000", "\uffee", "\uffff", "\U0001f600", "\U0001f468\u200d\U0001f467", "\U0010ffff",
]  # fmt: skip
NEIGHBOURS = ["еж", "Ёж", "ёж", "Ежи", "еЖ", "ж", "a", "A", "b", "B", "a%b", "a_b", "a\\b", "axb"]  # ties, and what is nearly one
DAYS = [date(1900, 1, 1), date(1999, 12, 31), date(2020, 2, 29), date(2020, 3, 1), date(9999, 12, 31)]
SORTS = [minus + key for key in ("id", "name", "status", "completion_at", "created_at", "updated_at") for minus in ("", "-")]

text = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
neighbour = st.sampled_from(NEIGHBOURS)
name = neighbour | neighbour | text.filter(str.strip) | st.sampled_from(["x", "e\u0301", "\U0001f600"]).map(lambda piece: piece * 200)
description = text | text | neighbour | st.sampled_from(["\x01", "e\u0308"]).map(lambda piece: piece * 10_000)
status = st.sampled_from(STATUSES)
day = st.none() | st.sampled_from(DAYS)
encoding = st.sampled_from(["json", "form", "multipart"])
iso = st.booleans()
whole_task = st.fixed_dictionaries({"name": name, "description": description, "status": status}, optional={"completion_at": day})
some_fields = st.fixed_dictionaries({}, optional={"name": name, "description": description, "status": status, "completion_at": day})
one_field = st.sampled_from(FIELDS).flatmap(
    lambda field: st.fixed_dictionaries({field: {"name": name, "description": description, "status": status, "completion_at": day}[field]})
)
who = st.integers(0, 2)
which = st.integers(0, 99)
condition = st.sampled_from(["none", "none", "none", "right", "stale", "first", "earlier", "any", "several", "others", "weak", "nothing"])
limit = st.none() | st.integers(1, 4)


class Manner(NamedTuple):
    """How a change is sent."""

    method: str
    encoding: str
    iso: bool
    condition: str


manner = st.builds(Manner, st.sampled_from(["PATCH", "POST", "PUT"]), encoding, iso, condition)


class Moment(NamedTuple):
    """A moment near one that is known: so many microseconds later, and perhaps a bit more, written in some zone."""

    which: int
    microseconds: int
    beyond: str
    minutes_east: int

    def of(self, known: Sequence[str]) -> tuple[str, Fraction]:
        """Return it as it is written, and in exact seconds."""
        near = known[self.which % len(known)]
        zone = timezone(timedelta(minutes=self.minutes_east))
        local = (datetime.fromisoformat(near) + timedelta(microseconds=self.microseconds)).astimezone(zone)
        sign, minutes = "-" if self.minutes_east < 0 else "+", abs(self.minutes_east)
        written = f"{local:%Y-%m-%dT%H:%M:%S.%f}{self.beyond}{sign}{minutes // 60:02}:{minutes % 60:02}"
        return written, seconds(near) + Fraction(2 * self.microseconds + (self.beyond == "5"), 2_000_000)


moment = st.builds(
    Moment, which, st.sampled_from([0, 0, -1, 1]), st.sampled_from(["", "00", "5"]), st.sampled_from([0, 180, -570, 345, 1439, -1439])
)
FILTERS: dict[str, st.SearchStrategy[Any]] = {
    "status": st.lists(status, min_size=1, max_size=4),
    "completion_at": day,
    "completion_from": st.sampled_from(DAYS),
    "completion_to": st.sampled_from(DAYS),
    "completed_from": moment,
    "completed_to": moment,
    "q": st.lists(st.sampled_from(["Ёж", "Е", "ж", "A", "b", "%", "_", "\\", "a_B"]) | st.sampled_from(PIECES), min_size=1, max_size=2).map(
        " ".join
    ),
}


@st.composite
def filters(draw: st.DrawFn) -> Json:
    """Choose some filters, seldom so many that nothing is left."""
    chosen = draw(st.sets(st.sampled_from(sorted(FILTERS)), min_size=1, max_size=2))
    if "completion_at" in chosen:
        chosen -= {"completion_from", "completion_to"}
    return {parameter: draw(FILTERS[parameter]) for parameter in sorted(chosen)}


def as_day(value: date | None, iso: bool = False) -> str | None:
    if value is None:
        return None
    return value.isoformat() if iso else f"{value:%d-%m-}{value.year:04}"


def from_day(value: str | None) -> date | None:
    return None if value is None else date(int(value[6:]), int(value[3:5]), int(value[:2]))


def sent(body: Json, encoding: str) -> Json:
    """Return a body as the client takes it, in one of the three types."""
    if encoding == "json":
        return {"json": body}
    fields = {
        field: "" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for field, value in body.items()
    }
    if encoding == "multipart" and fields:
        return {"data": FormData(fields, default_to_multipart=True)}
    return {"data": fields, "headers": {"Content-Type": FORM}}


def if_match(kind: str, task: Task | None) -> tuple[dict[str, str], Collection[int] | None]:
    """Return an If-Match for this task, and the revisions that it allows (None: any)."""
    first, last = (task.created, task.updated) if task else (1, 2)
    earlier = [first, *(entry.revision for entry in task.log if entry.revision < last)][-1] if task else 1
    return {
        "none": ({}, None),
        "any": ({"If-Match": "*"}, None),
        "right": ({"If-Match": f'"{last}"'}, {last}),
        "stale": ({"If-Match": f'"{last - 1}"'}, {last - 1}),
        "first": ({"If-Match": f'"{first}"'}, {first}),
        "earlier": ({"If-Match": f'"{earlier}", "{first}"'}, {earlier, first}),
        "several": ({"If-Match": f'"a,b", "{last + 1}" ,W/"3","{last}"'}, {last, last + 1}),
        "others": ({"If-Match": f'"{last + 1}", "0{last}", "{last}-gzip"'}, {last + 1}),
        "weak": ({"If-Match": f'W/"{last}"'}, set[int]()),
        "nothing": ({"If-Match": '""'}, set[int]()),
    }[kind]

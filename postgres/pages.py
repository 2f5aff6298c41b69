"""Keyset pages of a query's rows, as one peewee query: none is skipped or repeated because others come and go meanwhile."""

from typing import Any, Literal, NamedTuple

from peewee import SQL, Case, ColumnBase, EnclosedNodeList, Expression, NodeList, Select, Tuple, Window, fn

from postgres.queries import MAX_SHARED_BYTES, q

After = Literal["the start", "a key", "a null key"]  # where a page begins; with no key but the tie it counts as null

BYTES_PER_PAGE = 4 * 1024 * 1024  # a page closes where its text would grow longer
BYTES_TO_CONVERT = 1024 * 1024  # and one that is to be another text: while it is made, it takes up to ten times as much


class Key(NamedTuple):
    """What a listing is ordered by, before the tie is broken. Where it `ascends_with_tie` the tie alone gives the same order."""

    sql_type: str
    value: ColumnBase
    nullable: bool = False
    ascends_with_tie: bool = False


class Order(NamedTuple):
    """A key (none: the tie alone), what breaks its ties, and which way round."""

    key: Key | None
    tie: ColumnBase
    descending: bool = False

    def terms(self) -> list[ColumnBase]:
        """Return the terms of ORDER BY."""
        tie = self.tie.desc() if self.descending else self.tie.asc()
        if self.key is None or self.key.ascends_with_tie:
            return [tie]
        nulls = "LAST" if self.key.nullable else None
        return [self.key.value.desc(nulls=nulls) if self.descending else self.key.value.asc(nulls=nulls), tie]

    def after(self, key_is_null: bool) -> Expression:
        """Return the condition for what comes after the place (q.after_key, q.after_tie). Where the key is null comes last."""
        if self.key is None or self.key.ascends_with_tie:
            return self._beyond(self.tie, q.after_tie)
        if key_is_null:
            return self.key.value.is_null() & self._beyond(self.tie, q.after_tie)
        beyond = self._beyond(Tuple(self.key.value, self.tie), Tuple(q.after_key, q.after_tie))
        return beyond | self.key.value.is_null() if self.key.nullable else beyond

    def _beyond(self, here: Any, place: Any) -> Expression:
        beyond: Expression = here < place if self.descending else here > place
        return beyond


def after(place: list[Any] | None) -> After:
    """Say where a page begins whose cursor holds this place."""
    if place is None:
        return "the start"
    return "a null key" if place[0] is None else "a key"


def parameters(order: Order, after: After) -> dict[str, str]:
    """Return the SQL types of what a page's query needs besides: how many rows at the most, then the place."""
    key = {"after_key": order.key.sql_type} if order.key and after == "a key" else {}
    return {"most": "int"} | key | ({} if after == "the start" else {"after_tie": "bigint"})


def values(most: int, place: list[Any] | None) -> list[Any]:
    """Return the values of those parameters."""
    return [most, *(value for value in place or () if value is not None)]


def page_of(entries: Select, order: Order, after: After, short: bool, *, to_convert: bool = False) -> Select:
    """Return the page of `entries` (a `body` each) that begins after the place.

    Its columns: the `last` place (JSON; NULL where nothing follows); how many bytes at the end of json are `spare`, being of the entry that
    follows; and `json` itself, NULL where it is too heavy to travel with others (see Query). A `short` page can't grow too long, and so
    needn't be measured.
    """
    if after != "the start":
        entries = entries.where(order.after(after == "a null key"))
    key = order.key.value if order.key else SQL("NULL")
    entries = entries.select_extend(key.alias("key"), order.tie.alias("tie")).order_by(*order.terms()).limit(SQL("q.most + 1"))
    entry = entries.alias("entry")
    page = _short_page(entry) if short else _long_page(entry, BYTES_TO_CONVERT if to_convert else BYTES_PER_PAGE)
    json = fn.coalesce(page.json, "")
    may_travel = q.wait | (fn.octet_length(json) <= MAX_SHARED_BYTES)
    columns = [page.last.alias("last"), page.spare.alias("spare"), Case(None, [(may_travel, json)]).alias("json")]
    return Select([page.rows], columns).alias("page")


class _Page(NamedTuple):
    rows: Any
    last: ColumnBase
    spare: ColumnBase
    json: ColumnBase


def _short_page(entry: Any) -> _Page:
    """Take in the entry that follows: to leave it out would cost more than to send it."""
    last = Case(None, [(fn.count(SQL("*")) > q.most, _place(_item(entry.c.key, "q.most"), _item(entry.c.tie, "q.most")))])
    spare = _item(fn.octet_length(entry.c.body), "q.most + 1") + 1  # the comma
    return _Page(entry, last, fn.coalesce(spare, 0), fn.string_agg(entry.c.body, ","))


def _long_page(entry: Any, room: int) -> _Page:
    number = fn.row_number().over()
    length = fn.sum(fn.octet_length(entry.c.body)).over(start=Window.preceding())
    fits = (number == 1) | ((number <= q.most) & (length <= room))
    row = Select([entry], [entry.c.body, entry.c.key, entry.c.tie, fits.alias("fits")]).alias("row")
    place = _item(_place(row.c.key, row.c.tie), "count(*) FILTER (WHERE fits)")
    last = Case(None, [(fn.bool_or(~row.c.fits), place)])
    return _Page(row, last, SQL("0"), fn.string_agg(row.c.body, ",").filter(row.c.fits))


def _place(key: ColumnBase, tie: ColumnBase) -> ColumnBase:
    return fn.json_build_array(key.cast("text"), tie.cast("text")).cast("text")


def _item(values: ColumnBase, number: str) -> ColumnBase:
    """Return the one of that number (1: the first) of a column's values."""
    return NodeList((EnclosedNodeList([fn.array_agg(values)]), SQL(f"[{number}]")), glue="")

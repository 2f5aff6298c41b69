"""Keyset pages of a query's rows, as one peewee query: none is skipped or repeated because others come and go meanwhile."""

from typing import Any, Literal, NamedTuple

from peewee import SQL, Case, ColumnBase, EnclosedNodeList, Expression, NodeList, Select, Tuple, Window, fn

from postgres.batching import HEAVY_BYTES, q

After = Literal["the start", "a key", "a null key"]  # where a page begins; with no key but the tie it counts as null

BYTES_PER_PAGE = 4 * 1024 * 1024  # a page closes where its text would grow longer


class Key(NamedTuple):
    """What a listing is ordered by, before the tie is broken."""

    sql_type: str
    value: ColumnBase
    nullable: bool = False


class Order(NamedTuple):
    """A key (none: the tie alone), what breaks its ties, and which way round."""

    key: Key | None
    tie: ColumnBase
    descending: bool = False

    def terms(self) -> list[ColumnBase]:
        """Give the terms of ORDER BY."""
        nulls = "LAST" if self.key and self.key.nullable else None
        key = [self.key.value.desc(nulls=nulls) if self.descending else self.key.value.asc(nulls=nulls)] if self.key else []
        return [*key, self.tie.desc() if self.descending else self.tie.asc()]

    def after(self, key_is_null: bool) -> Expression:
        """Give the condition for what comes after the place (q.after_key, q.after_tie). Where the key is null comes last."""
        if self.key is None:
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
    """Give the SQL types of what a page's query needs besides: how many rows at the most, then the place."""
    key = {"after_key": order.key.sql_type} if order.key and after == "a key" else {}
    return {"most": "int"} | key | ({} if after == "the start" else {"after_tie": "bigint"})


def values(most: int, place: list[Any] | None) -> list[Any]:
    """Give the values of those parameters."""
    return [most, *(value for value in place or () if value is not None)]


def page_of(entries: Select, order: Order, after: After, short: bool) -> Select:
    """Give the page of `entries` (a `body` each) that begins after the place: `json`, the `last` place (JSON), and whether `more` follow.

    A `short` page can't grow too long, and so needn't be measured. Where it is too heavy to travel with others it says so (see Batched).
    """
    if after != "the start":
        entries = entries.where(order.after(after == "a null key"))
    key = order.key.value if order.key else SQL("NULL")
    entries = entries.select_extend(key.alias("key"), order.tie.alias("tie")).order_by(*order.terms()).limit(SQL("q.most + 1"))
    entry, number = entries.alias("entry"), fn.row_number().over()
    fits = number <= q.most
    if not short:
        length = fn.sum(fn.octet_length(entry.c.body)).over(start=Window.preceding())
        fits = (number == 1) | (fits & (length <= BYTES_PER_PAGE))
    columns = [entry.c.body, entry.c.key, entry.c.tie, number.alias("number"), fits.alias("fits")]
    row = Select([entry], columns).alias("row")
    place = fn.json_build_array(row.c.key.cast("text"), row.c.tie.cast("text"))
    last: ColumnBase
    if short:
        last = fn.max(place.cast("text")).filter(row.c.number == q.most)
    else:
        last = NodeList((EnclosedNodeList([fn.array_agg(place).filter(row.c.fits)]), SQL("[count(*) FILTER (WHERE fits)]::text")))
    json = fn.string_agg(row.c.body, ",").filter(row.c.fits)
    more = fn.coalesce(fn.bool_or(~row.c.fits), False)
    may_travel = q.wait | (fn.coalesce(fn.octet_length(json), 0) <= HEAVY_BYTES)
    columns = [Case(None, [(may_travel, json)]).alias("json"), last.alias("last"), Case(None, [(may_travel, more)]).alias("more")]
    return Select([row], columns).alias("page")

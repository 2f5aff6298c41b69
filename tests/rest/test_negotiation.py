"""Accept: which form of an answer a client gets."""

import pytest
from aiohttp.test_utils import make_mocked_request

from rest.negotiation import _best, preferred

OFFERED = ("application/json", "text/csv", "text/calendar")
JSON, CSV, CALENDAR = OFFERED


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        ("*/*", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("image/png", JSON),
        ("", JSON),
        ("nonsense", JSON),
        ("text/csv", CSV),
        ("Text/CSV; header=present; charset=utf-8", CSV),
        ("text/calendar", CALENDAR),
        ("text/*", CSV),
        ("text/*, text/csv;q=0.5", CALENDAR),
        ("text/csv;q=0.5, text/calendar;q=0.6", CALENDAR),
        ("text/csv, application/json", JSON),
        ("text/csv, application/json;q=0.9", CSV),
        ("text/csv, */*", CSV),
        ("text/csv;q=0.1, */*;q=0.2", JSON),
        ("text/csv;q=0", JSON),
        ("application/json;q=0, */*;q=0.1", CSV),
        ("text/csv;q=2, text/calendar", CALENDAR),
        ("text/csv;charset=utf-8;q=0.5 , text/calendar ; q=0.25", CSV),
        ("text/calendar,,", CALENDAR),
    ],
)
def test_a_client_gets_what_it_likes_best(accept: str, best: str) -> None:
    assert _best(accept, OFFERED) == best


@pytest.mark.parametrize(("length", "remembered"), [(100, 1), (100_000, 0)])
def test_what_is_long_is_read_and_not_remembered(length: int, remembered: int) -> None:
    _best.cache_clear()
    accept = f"{'x' * length}/x, text/csv"
    assert preferred(make_mocked_request("GET", "/", {"Accept": accept}), OFFERED) == CSV
    assert _best.cache_info().currsize == remembered

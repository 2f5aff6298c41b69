"""In which form to answer: what Accept says (RFC 9110, section 12.5.1)."""

import re
from functools import lru_cache

from aiohttp import hdrs, web

MAX_REMEMBERED_CHARACTERS = 1000  # browsers send some 150 characters; there may be a megabyte

_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def preferred(request: web.Request, offered: tuple[str, ...]) -> str:
    """Return the media type, of those offered, that the client likes best; the first where it says nothing, or likes none."""
    accept = request.headers.getall(hdrs.ACCEPT, None)
    if not accept:
        return offered[0]
    ranges = ",".join(accept)
    return (_best if len(ranges) <= MAX_REMEMBERED_CHARACTERS else _best.__wrapped__)(ranges, offered)


@lru_cache(256)
def _best(accept: str, offered: tuple[str, ...]) -> str:
    liked = dict(_weighed(part) for part in accept.lower().split(","))

    def liking(media_type: str) -> tuple[float, int]:
        by_precision = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        return next(((liked[name], -n) for n, name in enumerate(by_precision) if name in liked), (0, 0))

    best = max(offered, key=liking)  # of several, the first
    return best if liking(best)[0] else offered[0]


def _weighed(media_range: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in media_range.split(";"))
    weights = [_WEIGHT.fullmatch(parameter) for parameter in parameters if parameter.startswith("q=")]
    if not weights:
        return name, 1.0
    return name, float(weights[0][1]) if weights[0] else 0.0

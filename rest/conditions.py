"""ETag, If-Match and If-None-Match, as RFC 9110, sections 8.8.3 and 13.1, has them.

werkzeug reads them, and aiohttp (`request.if_match`); but let what is malformed pass, and a change with it.
"""

import hashlib
import re
from http import HTTPStatus
from typing import Literal, NamedTuple

from aiohttp import hdrs, web
from multidict import istr

from rest.errors import FieldError, InvalidInput
from server.responses import json_answer

ETAG = istr("ETag")  # aiohttp's own is Etag
_TAG = r'(?:W/)?"[^\x00-\x20\x22\x7f]*"'
LIST = rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*"
_LIST = re.compile(LIST)
_TAGS = re.compile(_TAG)
_REVISION_TAG = re.compile(r'"([1-9][0-9]{0,18})(?:\.[1-9][0-9]{0,4})?"')
_MAX_REVISION = 2**63 - 1


def revision_tag(revision: int, look: int = 1) -> str:
    """Return the strong entity tag of a revision as it looks: another look is another representation (RFC 9110, section 8.8.1)."""
    return f'"{revision}"' if look == 1 else f'"{revision}.{look}"'


def digest_tag(*parts: object) -> str:
    """Return a strong entity tag for whatever depends on all these parts, and on nothing else."""
    return f'"{hashlib.blake2b(repr(parts).encode(), digest_size=15).hexdigest()}"'


class Preconditions(NamedTuple):
    """Under which condition a change is to happen: what its client says of the present revision.

    It must be one of `if_match` (None: any will do; empty: none does) and, where it is said in the body, `revision`; and none of `unless`
    (True: there must be none at all). What a client named by `weak` tags never matches (RFC 9110, section 13.1.1).
    """

    if_match: list[int] | None = None
    unless: list[int] | Literal[True] | None = None
    weak: tuple[int, ...] = ()
    revision: int | None = None

    @property
    def allowed(self) -> list[int] | None:
        """The revisions that the present one may be; None for any."""
        if self.revision is None:
            return self.if_match
        return [self.revision] if self.if_match is None or self.revision in self.if_match else []

    def is_weak(self, present: int) -> bool:
        """Return whether a change isn't done at the present revision because a weak tag names it, or because all tags are weak."""
        strong = self.if_match or []
        return present not in strong if present in self.weak else bool(self.weak) and not strong


NO_CONDITION = Preconditions()


def preconditions(request: web.Request, look: int) -> Preconditions:
    """Return the condition of a change. Raises InvalidInput where a field is malformed.

    For If-Match a tag of another look stands for its revision, which is what a change depends on; If-None-Match speaks of what there is.
    """
    if hdrs.IF_MATCH not in request.headers and hdrs.IF_NONE_MATCH not in request.headers:
        return NO_CONDITION
    named, known = _tags(request, hdrs.IF_MATCH), _tags(request, hdrs.IF_NONE_MATCH)
    if_match, unless, weak = None, None, tuple[int, ...]()
    if named not in (None, ["*"]):
        if_match = [revision for tag in named or () if (revision := _revision(tag))]
        weak = tuple(revision for tag in named or () if tag.startswith("W/") and (revision := _revision(tag[2:])))
    if known is not None:
        present = [(tag.removeprefix("W/"), _revision(tag.removeprefix("W/"))) for tag in known]
        unless = known == ["*"] or [revision for tag, revision in present if revision and tag == revision_tag(revision, look)]
    return Preconditions(if_match, unless, weak)


def _revision(tag: str) -> int:
    """Return the revision of which this is a tag; 0 for a weak one, and for one that isn't ours."""
    form = _REVISION_TAG.fullmatch(tag)
    return int(form[1]) if form and int(form[1]) <= _MAX_REVISION else 0


def names(request: web.Request, etag: str) -> bool:
    """Return whether the client names this representation among those that it has. Raises InvalidInput where the field is malformed."""
    return hdrs.IF_NONE_MATCH in request.headers and etag in [tag.removeprefix("W/") for tag in _tags(request, hdrs.IF_NONE_MATCH) or []]


def is_known(request: web.Request, etag: str) -> bool:
    """Return whether the client has this representation, or is content with any. Raises InvalidInput where the field is malformed."""
    return names(request, etag) or request.headers.get(hdrs.IF_NONE_MATCH) == "*"


def not_modified(etag: str) -> web.Response:
    """Answer that the client has it."""
    return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={ETAG: etag})


def answer(request: web.Request, body: bytes, etag: str, status: int = HTTPStatus.OK) -> web.Response:
    """Answer with JSON and its tag, or with 304 to a client that has it."""
    if request.method in ("GET", "HEAD") and is_known(request, etag):
        return not_modified(etag)
    return json_answer(body, {ETAG: etag}, status)


def _tags(request: web.Request, header: str) -> list[str] | None:
    lines = request.headers.getall(header, None)
    if lines is None:
        return None
    text = ", ".join(lines).strip()
    if text != "*" and not _LIST.fullmatch(text):
        raise InvalidInput(FieldError(header, "malformed", 'must be * or a list of entity tags, as in "7", "8"'))
    return ["*"] if text == "*" else _TAGS.findall(text)

"""Whether every request was answered as is promised: in time, never with a fault of ours, and with nothing lost without a cause."""

from collections.abc import Iterator, Sequence

from settings import Settings
from torture.faults import KILLING, NO_TROUBLE_FOR_POSTGRESQL, Fault
from torture.journal import Request

DEADLINE_SECONDS: float = Settings.model_fields["request_timeout_seconds"].default
SECONDS_OF_GRACE = 1  # for what lies between the service's clock and ours: one machine runs all of this
SECONDS_TO_RECOVER = 2  # from the return of what was broken: then it explains no failure any more
SECONDS_A_KILL_LASTS = 3  # until the orphans of a killed master are gone
USUAL = {
    "create": {201}, "change": {200, 404, 412}, "delete": {204, 404, 412}, "erase": {204, 404}, "restore": {200, 404}, "undo": {200, 409, 410},
    "read": {200, 404}, "list": {200}, "list_at": {200, 410}, "since": {200, 410}, "log": {200, 404}, "register": {201},
}  # fmt: skip
CREATION_OF_AN_ERASED_TASK = 410  # repeated with its key


def judge(requests: Sequence[Request], faults: Sequence[Fault]) -> Iterator[str]:
    """Return every request that wasn't answered as is promised."""
    for request in requests:
        seconds = request.answered_at - request.asked_at
        if request.trouble == "gave up":
            continue
        if not request.answered_at or request.trouble == "no answer" or seconds > DEADLINE_SECONDS + SECONDS_OF_GRACE:
            yield f"{request} after {seconds:.1f} s; it began during {during(request, faults)}"
        elif request.trouble and request.status:
            yield f"{request} {request.trouble}"
        elif request.trouble and not _is_explained(request, [fault for fault in faults if fault.kind in KILLING], SECONDS_A_KILL_LASTS):
            yield f"{request}, and no process was killed; it began during {during(request, faults)}"
        elif request.status == 503:
            causes = [fault for fault in faults if fault.kind not in NO_TROUBLE_FOR_POSTGRESQL]
            if not _is_explained(request, causes, SECONDS_TO_RECOVER):
                yield f"{request}, and PostgreSQL was well; it began during {during(request, faults)}"
        elif request.status and request.revision is None and request.kind != "register":
            yield f"{request} without X-Revision: {request.answer}"
        elif request.status and not _is_usual(request):
            yield f"{request}: {request.answer}"


def _is_usual(request: Request) -> bool:
    return request.status in USUAL[request.kind] or ("key" in request.sent and request.status == CREATION_OF_AN_ERASED_TASK)


def _is_explained(request: Request, faults: Sequence[Fault], seconds: float) -> bool:
    return any(request.asked_at <= fault.returned_at + seconds and request.answered_at >= fault.began_at for fault in faults)


def during(request: Request, faults: Sequence[Fault]) -> str:
    """Say what was wrong, or had been last, as a request was sent."""
    before = [fault for fault in faults if fault.began_at <= request.answered_at]
    if not before:
        return "peace"
    last = before[-1]
    return f"{last.kind} ({request.asked_at - last.began_at:+.2f} s from its beginning, {request.asked_at - last.returned_at:+.2f} s from its end)"

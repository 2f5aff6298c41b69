"""Whether journal and database agree: everything acknowledged is there as it was said, and what was open was done whole or not at all."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.schemas import FIELDS
from torture.journal import CHANGES, Json, Request, condensed, digest
from torture.past import Account, Chain

USUAL = {200, 201, 204, 404, 412}  # what else is answered about one task, answers.py finds


class Verdict:
    """What is found about one account."""

    def __init__(self, account: Account, requests: Sequence[Request]) -> None:
        self.account, self.requests = account, requests
        self.faults: list[str] = []
        self.open_and_done = 0
        self._groups = list(account.requests())  # of revisions: what one request did has one moment
        self._explained: set[int] = set()  # revisions of which we know who asked for them
        self._tags: set[str] = set()  # of these
        self._by_tag: defaultdict[str, list[Request]] = defaultdict(list)
        for request in requests:
            if request.tag:
                self._by_tag[request.tag].append(request)

    def reach(self) -> None:
        """Look at everything."""
        self._look_at_the_counters()
        for group in self._groups:
            self._explain_by_content(group)
        for kind in ("undo", "delete", "restore"):  # a restoration may show what another request did, so it comes last
            for request in self.requests:
                if request.is_done and request.kind == kind:
                    self._explain_by_answer(request)
        self._explain_the_rest()
        for request in self.requests:
            if request.revision is not None:
                self._compare(request)
        self._look_at_the_order()

    def _say(self, words: str) -> None:
        self.faults.append(f"user {self.account.user_id}: {words}")

    # What the database says by itself

    def _look_at_the_counters(self) -> None:
        account = self.account
        if account.chains and max(account.chains) > account.last_task_id:
            self._say(f"there is a task {max(account.chains)}, and the last is said to be {account.last_task_id}")
        there = set(account.revisions())
        if gap := set(range(account.kept_from + 1, account.revision + 1)) ^ {r for r in there if r > account.kept_from}:
            self._say(f"the revisions from {account.kept_from} to {account.revision} have a gap at, or one too many: {sorted(gap)[:5]}")
        erased = {request.task_id or 0 for request in self.requests if request.kind == "erase" and (request.is_done or request.is_open)}
        gone = set(range(1, account.last_task_id + 1)) - set(account.chains)
        if not gone <= erased or len(gone) != account.purged:
            self._say(f"tasks {sorted(gone)[:5]} are gone, {account.purged} in all, and {sorted(erased & gone)[:5]} were to be erased")
        for request in self.requests:
            if request.kind == "erase" and request.status == 204 and request.task_id in account.chains:
                self._say(f"{request}, and the task is there")

    # Who did what

    def _explain_by_content(self, group: list[int]) -> None:
        """Find who brought this revision about by the tag that it brings into the database for the first time."""
        revision, entries = group[0], self.account.log.get(group[0], [])
        task_id = self.account.task_of(revision)
        if len(group) > 1:
            return
        chain = self.account.chains[task_id]
        after = chain.at(revision) or {}
        tag = after["name"] if revision in self.account.created else next((entry.new for entry in entries if entry.field == "name"), None)
        if tag is None or tag in self._tags:
            return
        for request in self._by_tag.get(tag, []):
            wanted = _fields(request)
            is_creation = revision in self.account.created
            if (request.kind == "create") != is_creation or (not is_creation and request.task_id != task_id):
                continue
            if any(after[name] != value for name, value in wanted.items()) or not {entry.field for entry in entries} <= set(wanted):
                self._say(f"{request} asked for {wanted}, and revision {revision} made it {after}")
            self._explain_by_tag(revision, tag)
            break

    def _explain_by_tag(self, revision: int, tag: str) -> None:
        self._explained.add(revision)
        self._tags.add(tag)
        if not any(request.is_done for request in self._by_tag[tag]):
            self.open_and_done += 1
            if not any(request.is_open for request in self._by_tag[tag]):
                self._say(f"{self._by_tag[tag][-1]} was refused, and it is there as revision {revision}")

    def _explain_by_answer(self, request: Request) -> None:
        """Find what an acknowledged deletion, restoration or undo says that it did."""
        if request.kind == "undo":
            said = [] if request.sent.get("dry_run") else list(range(request.answer["before"] + 1, request.answer["revision"] + 1))
        else:
            said = [request.revision or 0 if request.kind == "delete" else request.answer["revision"]]
        there = [revision for revision in said if revision in self.account.log or revision in self.account.created]
        if not there or there[0] in self._explained:
            return  # erased since, or it was so already
        if there in self._groups:
            self._explained.update(there)
        elif request.kind != "restore":
            self._say(f"{request} as revisions {said}, and that isn't what one request did")

    def _explain_the_rest(self) -> None:
        """Return each revision that nobody has explained to an open request that can have made it, each to one: the largest number of such pairs."""
        unexplained = [group for group in self._groups if group[0] not in self._explained]
        candidates = [request for request in self.requests if request.kind in ("delete", "restore", "undo") and request.is_open]
        owner: dict[int, list[int]] = {}

        def place(group: list[int], seen: set[int]) -> bool:
            for request in candidates:
                if request.number not in seen and self._can_be(group, request):
                    seen.add(request.number)
                    if request.number not in owner or place(owner[request.number], seen):
                        owner[request.number] = group
                        return True
            return False

        for group in unexplained:
            if place(group, set()):
                self.open_and_done += 1
            else:
                entries = [entry for revision in group for entry in self.account.log[revision]]
                self._say(f"nobody asked for revision {group} of task {self.account.task_of(group[0])}: {entries[:5]}")

    def _can_be(self, group: list[int], request: Request) -> bool:
        """Return whether a request, done whole, would have made these revisions."""
        chains, before = self.account.chains, group[0] - 1
        if request.kind == "undo":
            return before > request.sent["since"] and not request.sent.get("dry_run") and self._is_undone(group, request.sent["since"])
        if len(group) > 1 or request.task_id != self.account.task_of(group[0]) or group[0] in self.account.created:
            return False
        chain = chains[request.task_id]
        was, now = chain.at(before) or {}, chain.at(group[0]) or {}
        wanted = {name: was[name] for name in FIELDS}
        if request.kind == "delete":
            return {name: now[name] for name in FIELDS} == {name: was[name] for name in FIELDS} and bool(now["deleted_at"])
        if "revision" in request.sent:
            past = chain.at(request.sent["revision"])
            if past is None:
                return False
            wanted = {name: past[name] for name in FIELDS}
        return {name: now[name] for name in (*FIELDS, "deleted_at")} == wanted | {"deleted_at": None}

    def _is_undone(self, group: list[int], since: int) -> bool:
        """Return whether after these revisions all tasks are what they were at an earlier one, in their four fields and their place."""

        def seen_at(revision: int) -> dict[int, Json]:
            states = {task_id: chain.live_at(revision) for task_id, chain in self.account.chains.items()}
            return {task_id: {name: state[name] for name in FIELDS} for task_id, state in states.items() if state}

        return seen_at(group[-1]) == seen_at(since)

    # What was answered

    def _compare(self, request: Request) -> None:
        """Compare an answer with the tasks as they were at the revision that it shows."""
        if (revision := request.revision or 0) > self.account.revision:
            self._say(f"{request} at revision {revision}, and there are only {self.account.revision}")
            return
        chain = self.account.chains.get(request.answer.get("id", 0) if request.kind == "create" else request.task_id or 0)
        if request.kind == "undo":
            fault = self._fault_of_undo(request)
        elif request.kind in ("list", "list_at", "since"):
            fault = self._fault_of_list(request, revision)
        else:  # of an erased task nothing can be known
            fault = self._fault_of_one(request, chain, revision) if chain and request.status in USUAL else None
        if fault:
            self._say(f"{request} at revision {revision}: {fault}")

    def _fault_of_undo(self, request: Request) -> str | None:
        since, answer, kept_from = request.sent["since"], request.answer, self.account.kept_from
        if request.status == 410:
            return f"410, and history is kept from {kept_from} on" if since >= kept_from else None
        if request.status == 409:
            return "409 at the revision that it expected" if request.sent.get("expected") == request.revision else None
        if request.sent.get("dry_run") or not answer["count"]:
            return None
        group = list(range(answer["before"] + 1, answer["revision"] + 1))
        if len(group) != answer["count"]:
            return f"{answer['count']} tasks in revisions {group}"
        if not self._is_undone(group, since):
            return f"after {group} it isn't as it was at {since}"
        return None

    def _fault_of_list(self, request: Request, revision: int) -> str | None:
        chains, sent = self.account.chains, request.sent
        if request.status == 410:
            is_kept = (sent["since"] if "since" in sent else sent["revision"]) >= self.account.kept_from
            return f"410, and history is kept from {self.account.kept_from} on" if is_kept else None
        if request.kind == "since":
            states = [state for chain in chains.values() if (state := chain.at(revision)) and state["revision"] > sent["since"]]
            states.sort(key=lambda state: int(state["revision"]))
        else:
            states = [state for chain in chains.values() if (state := chain.live_at(sent.get("revision", revision)))]
        answer = [task for task in request.answer if task[0] in chains]  # what was erased since can't be known
        if answer == (expected := condensed(states)):
            return None
        differing = [pair for pair in zip(answer, expected, strict=False) if pair[0] != pair[1]]
        return f"{len(answer)} tasks, and there were {len(states)}; they differ in {differing[:2]}"

    def _fault_of_one(self, request: Request, chain: Chain, revision: int) -> str | None:
        live, known, kind = chain.live_at(revision), request.sent.get("if_match"), request.kind
        if request.status == 404:
            there = live if kind != "restore" else chain.at(min(revision, request.sent.get("revision", revision)))
            return f"404, and there was {there}" if there else None
        if request.status == 412:
            is_right = live and request.answer["current"] == live and live["revision"] != known
            return None if is_right else f"412 with {request.answer}, and there was {live}"
        if request.status == 204:
            before = chain.live_at(revision - 1)
            is_right = before and not live and known in (None, before["revision"])
            return None if is_right else f"it is said to be deleted, and there was {before}, then {live}"
        if kind == "log":
            return self._fault_of_log(request, chain, revision)
        shown = chain.states[0] if kind == "create" else live
        if request.answer != shown or any(request.answer[name] != value for name, value in _fields(request).items()):
            return f"{request.answer} was answered to {request.sent}, and there was {shown}"
        return None

    def _fault_of_log(self, request: Request, chain: Chain, revision: int) -> str | None:
        entries = [entry._asdict() for at in chain.revisions[1:] if at <= revision for entry in self.account.log[at]]
        for entry in entries:
            del entry["task_id"]
        is_right = request.answer == [digest(entry) for entry in entries]
        return None if is_right else f"a log of {len(request.answer)} entries, and there were {len(entries)}"

    def _look_at_the_order(self) -> None:
        """Look for an answer that knew less than one that was there before it was asked for."""
        answered = sorted((r for r in self.requests if r.revision is not None), key=lambda request: request.answered_at)
        known, n = 0, 0
        for request in sorted(answered, key=lambda request: request.asked_at):
            while answered[n].answered_at < request.asked_at:
                known = max(known, answered[n].revision or 0)
                n += 1
            if (request.revision or 0) < known:
                self._say(f"{request} at revision {request.revision}, though {known} had been answered before")


def _fields(request: Request) -> Json:
    """Return what a request asked the task's fields to be."""
    return {name: value for name, value in request.sent.items() if name in FIELDS}


def reach(accounts: dict[int, Account], requests: Iterable[Request]) -> tuple[list[str], dict[str, int]]:
    """Return everything in which journal and database disagree, and how much there was to agree on."""
    of_user: defaultdict[int, list[Request]] = defaultdict(list)
    for request in requests:
        of_user[request.user_id].append(request)
    faults: list[str] = []
    counts: defaultdict[str, Any] = defaultdict(int)
    for user_id, account in accounts.items():
        verdict = Verdict(account, of_user[user_id])
        verdict.reach()
        faults += verdict.faults
        counts["revisions"] += account.revision
        counts["open and done"] += verdict.open_and_done
        counts["compared"] += sum(request.revision is not None for request in of_user[user_id])
        counts["acknowledged"] += sum(request.is_done and request.kind in CHANGES for request in of_user[user_id])
        counts["open"] += sum(request.is_open and request.kind in CHANGES for request in of_user[user_id])
    return faults, dict(counts)

"""One client: what it does by habit, what it knows, and how it repeats what got no answer."""

import asyncio
import random
import secrets
from typing import Any

from tasks.values import STATUSES
from torture.fleet import Fleet, Person
from torture.journal import Json, Request

CLIENTS = {"hot": 5, "cold": 1}  # of an account of that pace
PAUSES_SECONDS = {"hot": 0.08, "cold": 0.4}  # the mean
FEW, MANY = 5, 30  # tasks that an account has
TRIES_OF_A_CREATION = 20
HABITS = {  # how often a client does what, of 100
    "create": 12, "change": 34, "delete": 8, "erase": 1, "restore": 5, "undo": 2,
    "read": 16, "list": 8, "list_at": 4, "since": 6, "log": 4,
}  # fmt: skip


class Client:
    """One program of a user's."""

    def __init__(self, fleet: Fleet, person: Person) -> None:
        self.fleet, self.person, self.random = fleet, person, random.Random(fleet.random.random())  # noqa: S311
        self._session: Any

    async def work(self) -> None:
        """Do this and that until the fleet stops."""
        person, habits = self.person, list(HABITS)
        async with self.fleet.session(person.token, keep=self.random.random() < 0.7) as self._session:
            while await self.fleet.pause(PAUSES_SECONDS[person.pace]):
                [habit] = self.random.choices(habits, list(HABITS.values()))
                if len(person.tasks) < FEW and habit in ("delete", "erase"):
                    habit = "create"
                if len(person.tasks) > MANY and habit == "create":
                    habit = "delete"
                if not person.tasks and habit in ("change", "read", "log", "delete", "erase"):
                    habit = "create"
                await getattr(self, f"_{habit}")()

    async def _send(self, kind: str, method: str, path: str, *, options: Json | None = None, **more: Any) -> Request:
        impatient = kind != "create" and self.random.random() < 0.02
        request = self.fleet.note(kind, self.person.user_id, **more)
        if impatient:
            asyncio.get_running_loop().call_later(self.random.uniform(0, 0.03), self.fleet.drop, 0.05)
        await self.fleet.send(self._session, method, path, request, **options or {})
        self._learn(request)
        return request

    def _learn(self, request: Request) -> None:
        """Remember what the answer says of the account; of two that cross, the later one counts."""
        person, answer = self.person, request.answer
        person.revision = max(person.revision, request.revision or 0)
        if request.kind == "list" and request.is_done and request.revision == person.revision:
            person.tasks = {task_id: revision for task_id, revision, _ in answer}
        elif request.task_id and (request.status == 404 or (request.kind in ("delete", "erase") and request.is_done)):
            person.tasks.pop(request.task_id, None)
            (person.trash.add if request.kind == "delete" else person.trash.discard)(request.task_id)
        elif request.is_done and request.kind in ("create", "change", "restore", "read"):
            person.tasks[answer["id"]] = max(answer["revision"], person.tasks.get(answer["id"], 0))
            person.trash.discard(answer["id"])

    # Habits

    def _fields(self, tag: str) -> Json:
        day = f"{self.random.randint(1, 28):02}-{self.random.randint(1, 12):02}-{self.random.randint(1900, 9999)}"
        return {
            "name": tag,
            "description": f"{tag} {'описание ' * self.random.randint(0, 20)}"[: self.random.randint(20, 200)],
            "status": self.random.choice(STATUSES),
            "completion_at": self.random.choice([None, day]),
        }

    def _body(self, fields: Json) -> Json:
        if self.random.random() < 0.7:
            return {"json": fields}
        return {"data": {name: value or "" for name, value in fields.items()}}

    def _known(self) -> tuple[int, int]:
        return self.random.choice(list(self.person.tasks.items()))

    async def _create(self) -> None:
        tag = secrets.token_hex(8)
        fields, key = self._fields(tag), self.random.random() < 0.5
        options = self._body(fields) | ({"headers": {"Idempotency-Key": tag}} if key else {})
        for _ in range(TRIES_OF_A_CREATION if key else 1):
            request = await self._send("create", "POST", "/task", sent=fields | ({"key": tag} if key else {}), tag=tag, options=options)
            if not request.is_open and (request.status != 201 or self.random.random() < 0.9):  # now and then once more for no reason
                return
            await asyncio.sleep(self.random.uniform(0.05, 0.5))

    async def _change(self) -> None:
        task_id, revision = self._known()
        tag = secrets.token_hex(8)
        fields = {name: value for name, value in self._fields(tag).items() if name == "name" or self.random.random() < 0.5}
        condition = {"if_match": revision} if self.random.random() < 0.4 else {}
        options = self._body(fields) | ({"headers": {"If-Match": f'"{revision}"'}} if condition else {})
        method = self.random.choice(["PATCH", "PUT", "POST"])
        for _ in range(3 if condition else 1):  # only under a condition is it safe to repeat
            request = await self._send(
                "change", method, f"/task/{task_id}", task_id=task_id, sent=fields | condition, tag=tag, options=options
            )
            if not request.is_open:
                return
            await asyncio.sleep(self.random.uniform(0.05, 0.5))

    async def _delete(self) -> None:
        task_id, revision = self._known()
        condition = {"if_match": revision} if self.random.random() < 0.3 else {}
        options = {"headers": {"If-Match": f'"{revision}"'}} if condition else {}
        await self._send("delete", "DELETE", f"/task/{task_id}", task_id=task_id, sent=condition, options=options)

    async def _erase(self) -> None:
        task_id, _ = self._known()
        await self._send("erase", "DELETE", f"/task/{task_id}?forever=true", task_id=task_id)

    async def _restore(self) -> None:
        known = [*self.person.trash, *self.person.tasks]
        if known:
            task_id = self.random.choice(known[:10])
            sent = {"revision": self._earlier(20)} if self.random.random() < 0.4 else {}
            await self._send("restore", "POST", f"/task/{task_id}/restore", task_id=task_id, sent=sent, options={"json": sent})

    async def _undo(self) -> None:
        sent: Json = {"since": self._earlier(8)}
        if self.random.random() < 0.3:
            sent["expected"] = self.person.revision
        if self.random.random() < 0.2:
            sent["dry_run"] = True
        await self._send("undo", "POST", "/task/undo", sent=sent, options={"json": sent})

    async def _read(self) -> None:
        task_id, _ = self._known()
        await self._send("read", "GET", f"/task/{task_id}", task_id=task_id)

    async def _log(self) -> None:
        task_id, _ = self._known()
        await self._send("log", "GET", f"/task/{task_id}/log", task_id=task_id)

    async def _list(self) -> None:
        await self._send("list", "GET", "/task")

    async def _list_at(self) -> None:
        sent = {"revision": self._earlier(50)}
        await self._send("list_at", "GET", "/task", sent=sent, options={"params": sent})

    async def _since(self) -> None:
        sent = {"since": self._earlier(30)}
        await self._send("since", "GET", "/task", sent=sent, options={"params": sent})

    def _earlier(self, most: int) -> int:
        return max(0, self.person.revision - self.random.randint(0, most))


def crew(fleet: Fleet) -> list[Client]:
    """Return everybody's clients."""
    return [Client(fleet, person) for person in fleet.people for _ in range(CLIENTS[person.pace])]

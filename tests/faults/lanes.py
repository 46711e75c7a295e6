"""What is cut off and finished: an erasure, the rest of one, a batch, a rectification; each on databases of its own.

A case makes its people, says its job (`kills.work`), finishes what was begun of it, and looks at what came of it.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from kills import Killers, Killing, datasets, manager, work

from datavern import DatabaseManager, Keyring, SubjectRequest
from datavern.testing import create_test_database

if TYPE_CHECKING:
    import pytest

SEVERAL = 3
LEFT = {"main.people": ["id"], "other.bills": ["id", "who", "plain"], "documents.letters": ["_id"]}
"""The columns that certificates tell of, as they stay what they were."""


class Lane(NamedTuple):
    """A manager, the processes that die beside it, and the settings of their databases."""

    db: DatabaseManager
    dying: Killing
    databases: dict[str, dict[str, Any]]


@asynccontextmanager
async def lane(request: pytest.FixtureRequest, place: str, keys: Path) -> AsyncIterator[Lane]:
    """New databases.

    Args:
        request: for the servers.
        place: "sqlite", "postgresql", or "all": four engines.
        keys: a folder for the key ring.
    """
    async with AsyncExitStack() as stack:
        databases: dict[str, Any] = {}
        for name in ("main", "other"):
            engine = "postgresql" if place == "postgresql" or (place == "all" and name == "main") else "sqlite"
            server = request.getfixturevalue("postgresql_server") if engine == "postgresql" else None
            made = await stack.enter_async_context(create_test_database(engine, server=server))
            databases[name] = dict(made.settings)
        if place == "all":
            databases["documents"] = {"uri": request.getfixturevalue("mongodb_server").uri(f"t{uuid4().hex[:12]}")}
            databases["cache"] = {"port": request.getfixturevalue("valkey_server").port}
        killers = request.getfixturevalue("killers")
        yield await stack.enter_async_context(opened(killers, databases, keys))


@asynccontextmanager
async def opened(killers: Killers, databases: dict[str, Any], keys: Path) -> AsyncIterator[Lane]:
    """A lane over databases that are there, and empty."""
    ring = await Keyring.create(f"file:{keys}")
    await ring.close()
    async with manager(databases, ring.url) as db:
        for dataset in datasets(databases):
            await db.prepare(dataset.name)
        with killers.one() as process:
            yield Lane(db, Killing(process, databases, ring.url), databases)


@asynccontextmanager
async def lanes(request: pytest.FixtureRequest, place: str, folder: Path, *, long: bool) -> AsyncIterator[list[Lane]]:
    """One lane, or some for the long form."""
    async with AsyncExitStack() as stack:
        if place == "all":
            request.getfixturevalue("valkey_server").command("FLUSHALL")
        keys = [folder / f"keys-{number}" for number in range(SEVERAL if long else 1)]
        yield [await stack.enter_async_context(lane(request, place, one)) for one in keys]


async def each(
    lanes: list[Lane], places: Iterable[int], number: int, one: Callable[[Lane, int], Awaitable[bool]]
) -> int:
    """Cut off at each place, each in the next lane that is free; how many were cut off.

    Args:
        lanes: where.
        places: the places, more than there are in the long form: it is not always the same number.
        number: about how many there are.
        one: cuts off at a place, and looks at what came of it; whether the job had not ended before.
    """
    waiting, ended, cut = iter(places), False, 0

    async def run(lane: Lane) -> None:
        nonlocal ended, cut
        for place in waiting:
            if ended:
                return
            if await one(lane, place):
                cut += 1
            else:
                ended = ended or place >= number

    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(run(lane))
    return cut


# ---- cases ----------------------------------------------------------------------------------------------------------


class Case(ABC):
    """Something that is begun, and cut off.

    Args:
        name: whose it is, and what it is called.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    async def ready(self, db: DatabaseManager) -> dict[str, Any]:
        """Make its people; the job."""

    @abstractmethod
    async def finish(self, db: DatabaseManager) -> None:
        """Do what is left of it."""

    @abstractmethod
    async def check(self, db: DatabaseManager) -> None:
        """It was done, once, and told once."""


class Erasure(Case):
    """One person's."""

    async def ready(self, db: DatabaseManager) -> dict[str, Any]:
        self._expected = await fill(db, self.name)
        self._job = {"subject": self.name, "request": f"request-{self.name}"}
        return self._job

    async def finish(self, db: DatabaseManager) -> None:
        if await known(db, self._job["request"]):
            await db.subject_requests.resume()
            return
        # Nothing was written down, and nothing changed.
        assert len([row async for row in db.personal("visits").of(self.name)]) == 2
        await work(db, self._job)

    async def check(self, db: DatabaseManager) -> None:
        await check_erased(db, self.name, self._job["request"], self._expected)
        assert await db.subject_requests.resume() == []


class Batch(Case):
    """Three people's at once."""

    async def ready(self, db: DatabaseManager) -> dict[str, Any]:
        self._people = [f"{self.name}-{n}" for n in range(3)]
        self._expected = [await fill(db, person) for person in self._people]
        return {"subjects": self._people, "batch": "b"}

    async def finish(self, db: DatabaseManager) -> None:
        await db.subject_requests.resume()

    async def check(self, db: DatabaseManager) -> None:
        expected = iter(self._expected)
        async for person, answer in db.subject_requests.erase_many(self._people, batch="b"):
            await check_erased(db, person, answer.request_id, next(expected))
        assert next(expected, None) is None


class Rectification(Case):
    """Two rows, in two databases."""

    async def ready(self, db: DatabaseManager) -> dict[str, Any]:
        await fill(db, self.name)
        row = f"{self.name}-0"
        changes = {"visits": {"id": row, "name": "Right"}, "bills": {"id": row, "plain": "Right"}}
        self._request = f"request-{self.name}"
        self._job = {"subject": self.name, "request": self._request, "changes": changes}
        return self._job

    async def finish(self, db: DatabaseManager) -> None:
        await db.subject_requests.resume()
        if not await known(db, self._request):
            await work(db, self._job)

    async def check(self, db: DatabaseManager) -> None:
        visit, bill = [await db.personal(name).get(f"{self.name}-0") for name in ("visits", "bills")]
        assert visit is not None
        assert bill is not None
        assert (visit["name"], bill["plain"]) == ("Right", "Right")
        assert (await told(db, self._request))["rectification_request", None] == 1


class Completion(Case):
    """The rest of an erasure, whose rows were held: it ends as the hold is released."""

    async def ready(self, db: DatabaseManager) -> dict[str, Any]:
        found = await fill(db, self.name)
        for n in range(2):  # which the law would keep for years
            await db.personal("bills").delete(f"{self.name}-{n}")
        if "cache" in db:  # which, sealed as a whole, would make the erasure wait
            await db["cache"].delete(f"session:{self.name}")
        hold = await db.holds.place(subject=self.name, reason="a court's order")
        self._first = f"request-{self.name}"
        await db.subject_requests.process(SubjectRequest("erasure", subject=self.name, id=self._first))
        gone = ("other.bills", "cache.sessions", "datavern.consents")
        self._expected = {label: number for label, number in found.items() if label not in gone}
        self._job = {"release": hold.id}
        return self._job

    async def finish(self, db: DatabaseManager) -> None:
        if await db.holds.list(subject=self.name):  # it stands, at least in one of the databases
            await work(db, self._job)
        else:
            await db.subject_requests.resume()

    async def check(self, db: DatabaseManager) -> None:
        request = f"{self._first}-completed"
        certificate = await db.subject_requests.certificate(request)
        assert certificate is not None
        assert {store["dataset"]: store["found"] for store in certificate.body["stores"]} == self._expected
        for store in certificate.body["stores"]:  # it says how they ended, and what is left of them
            assert store["left"] == LEFT.get(store["dataset"], [])
            assert set(store["done"]) <= {"deleted", "anonymized", "done before the erasure was cut off"}
            assert sum(store["done"].values()) == 2
        assert {key["dataset"] for key in certificate.body["keys"]} == {"visits#retention", "people#retention"}
        for dataset in db.data_map or ():
            assert [row async for row in db.personal(dataset.name).of(self.name)] == [], dataset.name
        once: dict[tuple[str, str | None], int] = {("erased", label): 1 for label in self._expected}
        assert await told(db, request) == once | {("erasure_completed", None): 1}
        assert await db.subject_requests.resume() == []


CASES: dict[str, type[Case]] = {
    "erasure": Erasure,
    "batch": Batch,
    "rectification": Rectification,
    "completion": Completion,
}


async def fill(db: DatabaseManager, person: str) -> dict[str, int]:
    """Two of everything; what an erasure is to find."""
    found = {}
    for dataset in db.data_map or ():
        if dataset.database in ("main", "other"):
            rows = [{"id": f"{person}-{n}", "who": person, "name": "Planted", "plain": "Planted"} for n in range(2)]
            await db.personal(dataset.name).insert_many(rows)
            found[dataset.label] = 2
    if "documents" in db:
        mongo = db["documents"]
        await mongo.raw("cases").insert_many([{"_id": f"{person}-{n}", "owner": {"id": person}} for n in range(2)])
        await mongo.raw("letters").insert_many(
            [{"_id": f"{person}-{n}", "who": person, "text": "Hi"} for n in range(2)]
        )
        await db["cache"].set(f"session:{person}", "Planted")
        found |= {"documents.cases": 2, "documents.letters": 2, "cache.sessions": 1}
    await db.consents.grant(subject=person, purpose="p")
    return {**found, "datavern.consents": 1}


async def check_erased(db: DatabaseManager, person: str, request: str, expected: dict[str, int]) -> None:
    """Everything is gone, or kept as the law says; each step was done once, and told once."""
    certificate = await db.subject_requests.certificate(request)
    assert certificate is not None
    assert certificate.body["subject"] == person
    found = {store["dataset"]: store["found"] for store in certificate.body["stores"]}
    # A server that could not be asked whether it has the built-in table was asked again later.
    expected = expected | {label: 0 for label in found if label.endswith(".personal_data")}
    assert found == expected
    assert {s["dataset"]: s["left"] for s in certificate.body["stores"] if s["left"]} == {
        label: names for label, names in LEFT.items() if label in expected
    }
    assert {key["dataset"] for key in certificate.body["keys"]} == {"visits", "people", "bills"}
    for dataset in db.data_map or ():
        left = [row async for row in db.personal(dataset.name).of(person)]
        assert len(left) == (2 if dataset.name == "bills" else 0), dataset.name
        assert all(row["name"] == "Planted" for row in left)
    once = {("erasure_received", None): 1, ("erasure_completed", None): 1}
    assert await told(db, request) == once | {("erased", label): 1 for label in expected}


_OF_ERASED = "JOIN datavern_tombstones t ON o.subject_tag = t.subject_tag"
_NONE = {
    "keys that wait to be destroyed": "datavern_keys WHERE state = 'erasing'",
    "destroyed keys that are there": "datavern_keys WHERE state = 'destroyed' AND length(wrapped) > 0",
    "living keys of erased people": f"datavern_keys o {_OF_ERASED} WHERE o.state <> 'destroyed'",
    "handles of erased people": f"datavern_handles o {_OF_ERASED}",
    "open requests": "datavern_requests WHERE completed_at IS NULL",
    "erasures that say whose": "datavern_requests WHERE kind = 'erasure' AND length(subject_tag) > 0",
}


async def check_all(db: DatabaseManager) -> None:
    """The log is whole; nothing is left in the key store and the journal of anybody who was erased, or half done."""
    assert (await db.audit.verify()).ok
    for what, where in _NONE.items():
        assert await db["main"].query_value(f"SELECT count(*) FROM {where}") == 0, what


async def told(db: DatabaseManager, request: str) -> Counter[tuple[str, str | None]]:
    """What the audit logs say of a request: how often."""
    found: Counter[tuple[str, str | None]] = Counter()
    query = f"SELECT action, dataset, details FROM datavern_audit WHERE details LIKE '%{request}%'"
    for name in ("main", "other"):
        for action, dataset, details in await db[name].query(query):
            if json.loads(details).get("request") == request:
                found[action, dataset] += 1
    return found


async def known(db: DatabaseManager, request: str) -> bool:
    """Whether the request stands in the journal."""
    return bool(await db["main"].query_value(f"SELECT count(*) FROM datavern_requests WHERE id = '{request}'"))

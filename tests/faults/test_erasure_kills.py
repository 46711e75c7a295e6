"""Erasures, batches of them and rectifications, killed at everything that they say to their databases, and finished."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from kills import Killing, datasets, manager

from datavern import DatabaseManager, Keyring, SubjectRequest
from datavern.testing import create_test_database

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.timeout(3600),  # every place, on a machine that has other work
]
PLACES = ("sqlite", "postgresql", "all")
LEAST = {"sqlite": 30, "postgresql": 30, "all": 50}
LANES = 3


class Lane(NamedTuple):
    """A manager, and the processes that die beside it, over databases of their own."""

    db: DatabaseManager
    dying: Killing


class Lanes(NamedTuple):
    """What is killed at the same time, each in a lane of its own, and how many things are said at the least."""

    lanes: list[Lane]
    least: int

    async def count(self, ready: Callable[[Lane], Awaitable[dict[str, Any]]]) -> int:
        """How many things a whole job says.

        Args:
            ready: makes a lane ready for it, and says the job.
        """
        numbers = [await lane.dying.count(**await ready(lane)) for lane in self.lanes]
        assert min(numbers) >= self.least
        return max(numbers)

    async def kill(self, places: Iterable[int], number: int, one: Callable[[Lane, int], Awaitable[bool]]) -> None:
        """Kill at each place, and some more, since it is not always the same number of things that is said.

        Args:
            places: where.
            number: how many things are said.
            one: kills at a place, and looks at what came of it; whether the job had not ended before.
        """
        waiting, ended, last = iter(places), False, 0

        async def run(lane: Lane) -> None:
            nonlocal ended, last
            for place in waiting:
                if ended:
                    return
                if await one(lane, place):
                    last = max(last, place)
                else:
                    ended = ended or place >= number

        async with asyncio.TaskGroup() as group:
            for lane in self.lanes:
                group.create_task(run(lane))
        assert last >= number // 2


@pytest.fixture(params=PLACES)
async def killing(request: pytest.FixtureRequest, tmp_path: Any, faults_long: bool) -> AsyncIterator[Lanes]:
    """One lane, or some for the long form."""
    place = request.param
    async with AsyncExitStack() as stack:
        if place == "all":
            request.getfixturevalue("valkey_server").command("FLUSHALL")
        lanes = [
            await stack.enter_async_context(lane(request, place, tmp_path / f"keys-{number}"))
            for number in range(LANES if faults_long else 1)
        ]
        yield Lanes(lanes, LEAST[place])


@asynccontextmanager
async def lane(request: pytest.FixtureRequest, place: str, keys: Path) -> AsyncIterator[Lane]:
    """New databases."""
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
        ring = await Keyring.create(f"file:{keys}")
        await ring.close()
        db = await stack.enter_async_context(manager(databases, ring.url))
        for dataset in datasets(databases):
            await db.prepare(dataset.name)
        yield Lane(db, await stack.enter_async_context(Killing(databases, ring.url)))


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
    assert {store["dataset"]: store["found"] for store in certificate.body["stores"]} == expected
    assert {key["dataset"] for key in certificate.body["keys"]} == {"visits", "people", "bills"}
    for dataset in db.data_map or ():
        left = [row async for row in db.personal(dataset.name).of(person)]
        assert len(left) == (2 if dataset.name == "bills" else 0), dataset.name
        assert all(row["name"] == "Planted" for row in left)
    told: Counter[tuple[str, str | None]] = Counter()
    for name in ("main", "other"):
        # Only of the request: the whole log grows with every person.
        query = f"SELECT action, dataset, details FROM datavern_audit WHERE details LIKE '%{request}%'"
        for action, dataset_, details in await db[name].query(query):
            if details and json.loads(details).get("request") == request:
                told[action, dataset_] += 1
    once = {("erasure_received", None): 1, ("erasure_completed", None): 1}
    assert told == once | {("erased", label): 1 for label in expected}


async def known(db: DatabaseManager, request: str) -> bool:
    """Whether the request stands in the journal."""
    return bool(await db["main"].query_value(f"SELECT count(*) FROM datavern_requests WHERE id = '{request}'"))


def places(number: int, some: tuple[int, ...], *, long: bool) -> Iterable[int]:
    """The places to be killed at: all of them, and some more, since it is not always the same number; or a few.

    Args:
        number: how many things are said.
        some: the few, in parts of a hundred.
        long: all of them.
    """
    return range(1, 2 * number) if long else [number * part // 100 for part in some]


def whens(lanes: Lanes) -> tuple[str, ...]:
    """Of SQLite's statements the one before the next is the one after the last."""
    db = lanes.lanes[0].db
    return ("before",) if all(db[name].engine == "sqlite" for name in db) else ("before", "after")


async def test_an_erasure(killing: Lanes, faults_long: bool) -> None:
    async def whole(lane: Lane) -> dict[str, Any]:
        await fill(lane.db, "whole")
        return {"subject": "whole", "request": "whole"}

    number = await killing.count(whole)
    for when in whens(killing):

        async def one(lane: Lane, place: int, when: str = when) -> bool:
            db, person, request = lane.db, f"{when}-{place}", f"request-{when}-{place}"
            expected = await fill(db, person)
            killed = await lane.dying.at(place, when, subject=person, request=request)
            if not await known(db, request):  # nothing was written down, and nothing changed
                assert len([row async for row in db.personal("visits").of(person)]) == 2
                await db.subject_requests.process(SubjectRequest("erasure", subject=person, id=request))
            else:
                await db.subject_requests.resume()
            await check_erased(db, person, request, expected)
            assert await db.subject_requests.resume() == []
            return killed

        some = (70,) if when == "before" else (50, 95)
        await killing.kill(places(number, some, long=faults_long), number, one)
    for db, _ in killing.lanes:
        assert (await db.audit.verify()).ok


async def test_a_batch(killing: Lanes, faults_long: bool) -> None:
    async def whole(lane: Lane) -> dict[str, Any]:
        people = [f"whole-{n}" for n in range(3)]
        for person in people:
            await fill(lane.db, person)
        return {"subjects": people, "batch": "b"}

    number = await killing.count(whole)
    for when in whens(killing):

        async def one(lane: Lane, place: int, when: str = when) -> bool:
            db, people = lane.db, [f"{when}-{place}-{n}" for n in range(3)]
            expected = [await fill(db, person) for person in people]
            killed = await lane.dying.at(place, when, subjects=people, batch="b")
            await db.subject_requests.resume()
            numbers = iter(expected)
            async for person, answer in db.subject_requests.erase_many(people, batch="b"):
                await check_erased(db, person, answer.request_id, next(numbers))
            assert next(numbers, None) is None
            return killed

        some = (60,) if when == "before" else (85,)
        await killing.kill(places(number, some, long=faults_long), number, one)


async def test_a_rectification(killing: Lanes, faults_long: bool) -> None:
    def changes(person: str) -> dict[str, Any]:
        row = f"{person}-0"
        return {"visits": {"id": row, "name": "Right"}, "bills": {"id": row, "plain": "Right"}}

    async def whole(lane: Lane) -> dict[str, Any]:
        await fill(lane.db, "whole")
        return {"subject": "whole", "request": "whole", "changes": changes("whole")}

    number = await killing.count(whole)
    for when in whens(killing):

        async def one(lane: Lane, place: int, when: str = when) -> bool:
            db, person, request = lane.db, f"{when}-{place}", f"request-{when}-{place}"
            await fill(db, person)
            killed = await lane.dying.at(place, when, subject=person, request=request, changes=changes(person))
            await db.subject_requests.resume()
            if not await known(db, request):
                again = SubjectRequest("rectification", subject=person, id=request, changes=changes(person))
                await db.subject_requests.process(again)
            row = f"{person}-0"
            visit, bill = await db.personal("visits").get(row), await db.personal("bills").get(row)
            assert visit is not None
            assert bill is not None
            assert (visit["name"], bill["plain"]) == ("Right", "Right")
            told = await db["main"].query(
                f"SELECT action, details FROM datavern_audit WHERE details LIKE '%{request}%'"
            )
            done = [a for a, details in told if details and json.loads(details).get("request") == request]
            assert done.count("rectification_request") == 1
            return killed

        some = (60,) if when == "before" else (85,)
        await killing.kill(places(number, some, long=faults_long), number, one)

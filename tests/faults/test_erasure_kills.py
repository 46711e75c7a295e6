"""Erasures, batches of them and rectifications, killed at everything that they say to their databases, and finished."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from kills import Killing, datasets, manager

from datavern import DatabaseManager, Keyring, SubjectRequest
from datavern.testing import create_test_database

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.timeout(7200),  # every place: two processes each
]
PLACES = ("sqlite", "postgresql", "all")
LEAST = {"sqlite": 30, "postgresql": 30, "all": 50}


@pytest.fixture(params=PLACES)
async def killing(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[tuple[DatabaseManager, Killing, int]]:
    """A manager over databases, those that die beside it, and how many things are said at the least."""
    place = request.param
    async with AsyncExitStack() as stack:
        databases: dict[str, Any] = {}
        for name in ("main", "other"):
            engine = "postgresql" if place == "postgresql" or (place == "all" and name == "main") else "sqlite"
            server = request.getfixturevalue("postgresql_server") if engine == "postgresql" else None
            made = await stack.enter_async_context(create_test_database(engine, server=server))
            databases[name] = dict(made.settings)
        if place == "all":
            mongodb, valkey = request.getfixturevalue("mongodb_server"), request.getfixturevalue("valkey_server")
            valkey.command("FLUSHALL")
            databases["documents"] = {"uri": mongodb.uri(f"t{uuid4().hex[:12]}")}
            databases["cache"] = {"port": valkey.port}
        ring = await Keyring.create(f"file:{tmp_path / 'keys'}")
        await ring.close()
        db = await stack.enter_async_context(manager(databases, ring.url))
        for dataset in datasets(databases):
            await db.prepare(dataset.name)
        dying = await stack.enter_async_context(Killing(databases, ring.url))
        yield db, dying, LEAST[place]


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
        for action, dataset_, details in await db[name].query("SELECT action, dataset, details FROM datavern_audit"):
            if details and json.loads(details).get("request") == request:
                told[action, dataset_] += 1
    once = {("erasure_received", None): 1, ("erasure_completed", None): 1}
    assert told == once | {("erased", label): 1 for label in expected}


async def known(db: DatabaseManager, request: str) -> bool:
    """Whether the request stands in the journal."""
    return bool(await db["main"].query_value(f"SELECT count(*) FROM datavern_requests WHERE id = '{request}'"))


def places(number: int, some: tuple[int, ...], *, long: bool) -> list[int]:
    """The places to be killed at: all of them, and some more, since it is not always the same number; or a few.

    Args:
        number: how many things are said.
        some: the few, in parts of a hundred.
        long: all of them.
    """
    return [*range(1, 2 * number)] if long else [number * part // 100 for part in some]


def whens(db: DatabaseManager) -> tuple[str, ...]:
    """Of SQLite's statements the one before the next is the one after the last."""
    return ("before",) if all(db[name].engine == "sqlite" for name in db) else ("before", "after")


async def test_an_erasure(killing: tuple[DatabaseManager, Killing, int], faults_long: bool, tmp_path: Any) -> None:
    db, dying, least = killing
    await fill(db, "whole")
    number = await dying.count(tmp_path, subject="whole", request="whole")
    assert number >= least
    for when in whens(db):
        last = 0
        for place in places(number, (70,) if when == "before" else (50, 95), long=faults_long):
            person, request = f"{when}-{place}", f"request-{when}-{place}"
            expected = await fill(db, person)
            killed = await dying.at(place, when, subject=person, request=request)
            if not await known(db, request):  # nothing was written down, and nothing changed
                assert len([row async for row in db.personal("visits").of(person)]) == 2
                await db.subject_requests.process(SubjectRequest("erasure", subject=person, id=request))
            else:
                await db.subject_requests.resume()
            await check_erased(db, person, request, expected)
            assert await db.subject_requests.resume() == []
            if not killed:
                break
            last = place
        assert last >= number // 2
    assert (await db.audit.verify()).ok


async def test_a_batch(killing: tuple[DatabaseManager, Killing, int], faults_long: bool, tmp_path: Any) -> None:
    db, dying, least = killing
    whole = [f"whole-{n}" for n in range(3)]
    for person in whole:
        await fill(db, person)
    number = await dying.count(tmp_path, subjects=whole, batch="b")
    assert number >= least
    for when in whens(db):
        last = 0
        for place in places(number, (60,) if when == "before" else (85,), long=faults_long)[:: 3 if faults_long else 1]:
            people = [f"{when}-{place}-{n}" for n in range(3)]
            expected = [await fill(db, person) for person in people]
            killed = await dying.at(place, when, subjects=people, batch="b")
            await db.subject_requests.resume()
            numbers = iter(expected)
            async for person, answer in db.subject_requests.erase_many(people, batch="b"):
                await check_erased(db, person, answer.request_id, next(numbers))
            assert next(numbers, None) is None
            if not killed:
                break
            last = place
        assert last >= number // 2


async def test_a_rectification(killing: tuple[DatabaseManager, Killing, int], faults_long: bool, tmp_path: Any) -> None:
    db, dying, _ = killing
    await fill(db, "whole")
    right = {"visits": {"id": "whole-0", "name": "Right"}, "bills": {"id": "whole-0", "plain": "Right"}}
    number = await dying.count(tmp_path, subject="whole", request="whole", changes=right)
    for when in whens(db):
        last = 0
        for place in places(number, (60,) if when == "before" else (85,), long=faults_long)[:: 3 if faults_long else 1]:
            person, request = f"{when}-{place}", f"request-{when}-{place}"
            await fill(db, person)
            row = f"{person}-0"
            changes = {"visits": {"id": row, "name": "Right"}, "bills": {"id": row, "plain": "Right"}}
            killed = await dying.at(place, when, subject=person, request=request, changes=changes)
            await db.subject_requests.resume()
            if not await known(db, request):
                again = SubjectRequest("rectification", subject=person, id=request, changes=changes)
                await db.subject_requests.process(again)
            visit, bill = await db.personal("visits").get(row), await db.personal("bills").get(row)
            assert visit is not None
            assert bill is not None
            assert (visit["name"], bill["plain"]) == ("Right", "Right")
            told = await db["main"].query("SELECT action, details FROM datavern_audit")
            done = [a for a, details in told if details and json.loads(details).get("request") == request]
            assert done.count("rectification_request") == 1
            if not killed:
                break
            last = place
        assert last >= number // 2

"""`keys rotate` on PostgreSQL with the keys in files: how many keys of people it wraps anew in a second.

The peer is the promise itself: 20,000 keys a second. The whole rotation is measured, from its first statement to the
destroyed key: the keys wrapped anew, the copy of the key store written, read back and unwrapped, all of it durable. Its
dataset has no lookup, so no time passes in which other processes are to hear of new lookup keys. Client and server are
not pinned: a rotation is one client that keeps one server process busy, and both have work.

Writers are not blocked: beside it one sealed insert after the other, while rotations run and while none does.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import Figure
from datavern import DatabaseManager, DataMap, Dataset, Field, Keyring
from datavern.contracts.values import timestamp
from datavern.crypto.key_rows import new_key
from datavern.testing.databases import create_test_database
from datavern.testing.postgresql import PostgreSQLServer

KEYS = 50_000
ROUNDS = 5
PROMISED = 20_000
DATA_MAP = DataMap(
    [Dataset("people", database="main", subject="who", erasure="delete", fields={"name": Field(sealed=True)})]
)


async def fill(db: DatabaseManager) -> None:
    """So many people with a key each, written past the application: how they came there is not measured."""
    keys: Any = db.keys
    rows = []
    for _ in range(KEYS):
        _, row = await new_key(keys._keyring, "people", os.urandom(32))
        rows.append({**row, "created_at": timestamp()})
    await db["main"].execute_many(*keys._sql.insert_key.bind_many(keys._dialect, rows))


async def measured(server: PostgreSQLServer) -> list[Figure]:
    """The figures on one server."""
    with tempfile.TemporaryDirectory() as folder:
        ring = await Keyring.create(f"file:{Path(folder) / 'keys'}")
        await ring.close()
        async with create_test_database("postgresql", server=server) as database:
            provider = database.provider("main", location="norway")
            async with DatabaseManager({"main": provider}, data_map=DATA_MAP, keyring=ring.url) as db:
                await db.prepare("people")
                await fill(db)
                people = db.personal("people")
                await people.insert({"id": "warm", "who": "warm", "name": "Åse"})
                await db.keys.rotate()
                return [await rotated(db), await written(db, people)]


async def rotated(db: DatabaseManager) -> Figure:
    """Keys a second."""
    times: dict[str, list[float]] = {"keys rotate": [], "20,000 keys a second": [], "wrapping anew alone": []}
    for _ in range(ROUNDS):
        last = [0.0]

        def progress(_what: str, _number: int, last: list[float] = last) -> None:
            last[0] = time.perf_counter()

        started = time.perf_counter()
        done = await db.keys.rotate(progress=progress)
        times["keys rotate"].append((time.perf_counter() - started) / done.keys)
        times["wrapping anew alone"].append((last[0] - started) / done.keys)
        times["20,000 keys a second"].append(1 / PROMISED)
    return Figure(
        f"Rotation of {KEYS:,} keys, for each key",
        "keys rotate",
        times,
        at_most={"20,000 keys a second": 1.0},
        note="Wrapping anew alone: from the first statement until the last batch was handed over.",
    )


async def written(db: DatabaseManager, people: Any) -> Figure:
    """A sealed insert while a rotation runs, and while none does."""
    number = iter(range(10**9))
    longest = 0.0

    async def insert() -> None:
        await people.insert({"id": f"row {next(number)}", "who": "warm", "name": "Åse"})

    times: dict[str, list[float]] = {"insert while a rotation runs": [], "insert": []}
    for _ in range(ROUNDS):
        rotating = asyncio.create_task(db.keys.rotate())
        count, began = 0, time.perf_counter()
        while not rotating.done():
            started = time.perf_counter()
            await insert()
            longest = max(longest, time.perf_counter() - started)
            count += 1
        times["insert while a rotation runs"].append((time.perf_counter() - began) / count)
        await rotating
        began = time.perf_counter()
        for _ in range(count):
            await insert()
        times["insert"].append((time.perf_counter() - began) / count)
    return Figure(
        "A sealed insert from the process that rotates",
        "insert while a rotation runs",
        times,
        note=f"Both share one event loop and one server. The longest insert meanwhile took {longest * 1e3:.0f} ms.",
    )


async def figures() -> list[Figure]:
    """All of them."""
    with PostgreSQLServer(durable=True) as server:
        return await measured(server)

"""SQLite: point selects, durable writes, and point selects while a scan goes on.

Both sides use WAL with ``synchronous=FULL`` and the same page cache, on files of the same content; aiosqlite runs with
``isolation_level=None``, so that each of its writes commits by itself, as ours do.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from benchmarks import Figure, fan, interleave
from datavern import SQLiteProvider

ROWS = 10_000
SCAN = 10.0  # seconds
SELECT = "SELECT id, name, email, city, country, age, score, active, created, note FROM people WHERE id = ?"
INSERT = "INSERT INTO written (name, age, score) VALUES (?, ?, ?)"
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


def key(i: int) -> int:
    """Keys in an order that no cache likes better than another."""
    return i * 7919 % ROWS + 1


@asynccontextmanager
async def ours_on(path: Path) -> AsyncIterator[SQLiteProvider]:
    """A provider over a filled file."""
    async with SQLiteProvider(path, location="norway") as db:
        await db.execute(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, email TEXT, city TEXT, country TEXT, age INTEGER, "
            "score REAL, active INTEGER, created TEXT, note TEXT)"
        )
        await db.execute("CREATE TABLE written (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, score REAL)")
        await db.execute_many(
            "INSERT INTO people VALUES (?, ?, ?, 'Oslo', 'Norway', ?, ?, ?, '2026-11-23T02:39:51.123456Z', ?)",
            [(g, f"name {g}", f"mail{g}@example.no", g % 90, g / 7.0, g % 2, "x" * 40) for g in range(1, ROWS + 1)],
        )
        await db.checkpoint()
        yield db


@asynccontextmanager
async def theirs_on(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    """An aiosqlite connection over a filled file."""
    async with ours_on(path):
        pass
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        connection.row_factory = aiosqlite.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -8192", "secure_delete = 1"):
            await connection.execute(f"PRAGMA {pragma}")
        yield connection


async def figures() -> list[Figure]:
    """Selects, writes, and selects during a scan."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with ours_on(folder / "ours.db") as db, theirs_on(folder / "theirs.db") as connection:
            selects = [await _selects(db, connection, tasks) for tasks in (50, 1)]
            writes = [await _writes(db, connection, tasks) for tasks in (50, 1)]
            scans = [await _during_a_scan(db, streamed=streamed) for streamed in (False, True)]
    return [*selects, *writes, *scans]


async def _selects(db: SQLiteProvider, connection: aiosqlite.Connection, tasks: int) -> Figure:
    async def ours(i: int) -> Any:
        return await db.query_one(SELECT, [key(i)])

    async def theirs(i: int) -> Any:
        async with connection.execute(SELECT, [key(i)]) as cursor:
            return await cursor.fetchone()

    async def theirs_at_once(i: int) -> Any:
        return await connection.execute_fetchall(SELECT, [key(i)])

    assert tuple(await ours(5)) == tuple(await theirs(5))
    times = await interleave(
        {
            "Datavern": fan(ours, tasks),
            "aiosqlite": fan(theirs, tasks),
            "aiosqlite, execute_fetchall": fan(theirs_at_once, tasks),
        },
        2000 if tasks > 1 else 500,
    )
    return Figure(
        title=f"SQLite: point select of ten columns by key, {tasks} task{'s' if tasks > 1 else ''}",
        ours="Datavern",
        times=times,
        at_least={"aiosqlite": 6.0} if tasks > 1 else {},
    )


async def _writes(db: SQLiteProvider, connection: aiosqlite.Connection, tasks: int) -> Figure:
    async def ours(i: int) -> Any:
        return await db.execute(INSERT, ["name", i, 0.5])

    async def theirs(i: int) -> Any:
        return await connection.execute(INSERT, ["name", i, 0.5])

    for write in (ours, theirs):  # until the log has its full length: a sync of a file that grows costs more
        await fan(write, 1)(1200)
    times = await interleave(
        {"Datavern": fan(ours, tasks), "aiosqlite": fan(theirs, tasks)}, 500 if tasks > 1 else 50, rounds=9
    )
    return Figure(
        title=f"SQLite: durable autocommit insert, {tasks} task{'s' if tasks > 1 else ''}",
        ours="Datavern",
        times=times,
        at_least={"aiosqlite": 8.0} if tasks > 1 else {},
        note="Ours are committed in groups: each is on the disk before it is acknowledged, as theirs are.",
    )


async def _during_a_scan(db: SQLiteProvider, *, streamed: bool) -> Figure:
    async def scan() -> None:
        if streamed:
            async with db.stream(f"{NUMBERS} SELECT i FROM n", batch_size=1000) as rows:
                async for _ in rows:
                    pass
        else:
            await db.query(f"{NUMBERS} SELECT count(*) FROM n")

    taken: list[float] = []

    async def select(until: float) -> None:
        i = 0
        while (started := time.perf_counter()) < until:
            await db.query_one(SELECT, [key(i)])
            taken.append(time.perf_counter() - started)
            i += 1
            await asyncio.sleep(0.01)

    scanning = asyncio.create_task(scan())
    await asyncio.sleep(0.1)
    await asyncio.gather(*(select(time.perf_counter() + SCAN) for _ in range(10)))
    assert not scanning.done()
    scanning.cancel()
    await asyncio.wait([scanning])
    p99 = statistics.quantiles(taken, n=100)[98]
    what = "whose rows are streamed to the same loop" if streamed else "in one long step"
    return Figure(
        title=f"SQLite: point select during a ten-second scan {what}, 99th percentile of {len(taken):,}",
        ours="Datavern",
        times={"Datavern": [p99] * 3, "20 ms": [0.02] * 3},
        at_most={"20 ms": 1.0},
        note="Ten tasks that each select a hundred times a second; one measurement.",
    )

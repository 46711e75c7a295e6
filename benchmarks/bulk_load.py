"""Many rows at once: COPY, and one statement for many sets of parameters.

"raw asyncpg" is a connection's own ``copy_records_to_table`` or ``executemany``, without a pool. Times are for one row;
the table is emptied before each run, outside of the time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from benchmarks import Figure, Run, apart, interleave
from datavern import Pool, PostgreSQLProvider
from datavern.testing.postgresql import PostgreSQLServer

TABLE = """
CREATE UNLOGGED TABLE people (id bigint, name text, email text, city text, age int, score float8, active bool,
                              created timestamptz)
"""
COLUMNS = ["id", "name", "email", "city", "age", "score", "active", "created"]
INSERT = f"INSERT INTO people ({', '.join(COLUMNS)}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
COPIED = 100_000
INSERTED = 5_000
Row = tuple[Any, ...]


async def figures() -> list[Figure]:
    """COPY from a list and from an async iterable, and execute_many."""
    now = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    rows = [(i, f"name {i}", f"mail{i}@example.no", "Oslo", i % 90, i / 7, i % 2 == 0, now) for i in range(COPIED)]
    settings = {"checkpoint_timeout": "1h", "max_wal_size": "8GB"}
    with PostgreSQLServer(settings=settings) as server, apart(server.pid):
        raw = await asyncpg.connect(server.url)
        await raw.execute(TABLE)
        async with PostgreSQLProvider.from_url(server.url, pool=Pool(min=1, max=2)) as pg:
            found = [
                Figure(
                    title=f"PostgreSQL: COPY of {COPIED:,} rows of eight columns from a list",
                    ours="Datavern",
                    times=await _copied(pg, raw, rows),
                    at_most={"raw asyncpg": 1 / 0.95},
                    note="the promise is 0.95 of asyncpg's rows per second",
                ),
                Figure(
                    title=f"PostgreSQL: COPY of {COPIED:,} rows of eight columns from a list, in a used process",
                    ours="Datavern",
                    times=await _copied(pg, raw, rows, used=True),
                    at_most={"raw asyncpg": 1 / 0.95},
                    note="the same, where the allocator keeps large blocks, as it does once some were given back",
                ),
                Figure(
                    title=f"PostgreSQL: COPY of {COPIED:,} rows of eight columns from an async iterable",
                    ours="Datavern",
                    times=await _copied(pg, raw, rows, slowly=True),
                    note="no promise: each row is looked at by itself, as it comes",
                ),
                Figure(
                    title=f"PostgreSQL: execute_many, {INSERTED:,} rows of eight columns",
                    ours="Datavern",
                    times=await _inserted(pg, raw, rows),
                    at_most={"raw asyncpg": 1.05},
                    note="the promise is to be as fast, within the noise of five in a hundred",
                ),
            ]
        await raw.close()
    return found


async def _copied(
    pg: Any, raw: Any, rows: Sequence[Row], *, slowly: bool = False, used: bool = False
) -> dict[str, list[float]]:
    if used:
        bytearray(8_000_000)  # given back at once: glibc's threshold for blocks of their own rises to its size

    async def source(n: int) -> AsyncIterator[Row]:
        for row in rows[:n]:
            yield row

    def given(n: int) -> Any:
        if slowly:
            return source(n)
        return rows if n == len(rows) else rows[:n]  # to cut a list is not what is measured

    async def ours(n: int) -> None:
        await pg.copy_in("people", COLUMNS, given(n))

    async def theirs(n: int) -> None:
        await raw.copy_records_to_table("people", columns=COLUMNS, records=given(n))

    return await _timed(raw, {"Datavern": ours, "raw asyncpg": theirs}, COPIED)


async def _inserted(pg: Any, raw: Any, rows: Sequence[Row]) -> dict[str, list[float]]:
    async def ours(n: int) -> None:
        await pg.execute_many(INSERT, rows[:n])

    async def theirs(n: int) -> None:
        await raw.executemany(INSERT, rows[:n])

    return await _timed(raw, {"Datavern": ours, "raw asyncpg": theirs}, INSERTED)


async def _timed(raw: Any, variants: dict[str, Run], n: int) -> dict[str, list[float]]:
    """Rounds of one run each, the table emptied before each: together as `interleave` would give them."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(25):
        await raw.execute("TRUNCATE people")
        found = await interleave(variants, n, rounds=1)
        for name, seconds in found.items():
            times[name] += seconds
        variants = dict(reversed(variants.items()))
    return times

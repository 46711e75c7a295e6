"""Point selects by key of a ten-column row, through a pool of ten: what the pool costs.

"raw asyncpg" is a connection's own ``fetchrow``, a connection for each task and no pool: at 50 tasks it is ten tasks
with a connection each, since fifty cannot share ten without a pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import Figure, apart, fan, interleave
from datavern import Pool, PostgreSQLProvider
from datavern.testing.postgresql import PostgreSQLServer

ROWS = 10_000
CONNECTIONS = 10
SQL = "SELECT id, name, email, city, country, age, score, active, created, note FROM people WHERE id = $1"
TABLE = f"""
CREATE TABLE people (id bigint PRIMARY KEY, name text, email text, city text, country text, age int, score float8,
                     active bool, created timestamptz, note text);
INSERT INTO people SELECT g, 'name ' || g, 'mail' || g || '@example.no', 'Oslo', 'Norway', g % 90, g / 7.0, g % 2 = 0,
                          now(), repeat('x', 40) FROM generate_series(1, {ROWS}) g;
ANALYZE people;
"""


def key(i: int) -> int:
    """Keys in an order that no cache likes better than another."""
    return i * 7919 % ROWS + 1


async def figures() -> list[Figure]:
    """At 1, 10 and 50 tasks."""
    with PostgreSQLServer() as server:
        with apart(server.pid):
            alone = await _figure(server, 1, 500)
        return [alone, *[await _figure(server, tasks, 1500) for tasks in (10, 50)]]


async def _figure(server: PostgreSQLServer, tasks: int, n: int) -> Figure:
    url = server.url
    raw = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
    if not await raw[0].fetchval("SELECT to_regclass('people') IS NOT NULL"):
        await raw[0].execute(TABLE)
    pool = await asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS)
    alchemy_url = url.replace("postgresql:", "postgresql+asyncpg:")
    engine = create_async_engine(alchemy_url, pool_size=CONNECTIONS, max_overflow=0)
    text = sa.text(SQL.replace("$1", ":id"))
    pg = PostgreSQLProvider.from_url(url, pool=Pool(min=CONNECTIONS, max=CONNECTIONS))

    async def ours(i: int) -> Any:
        return await pg.query_one(SQL, [key(i)])

    async def asyncpg_pool(i: int) -> Any:
        return await pool.fetchrow(SQL, key(i))

    async def sqlalchemy_default(i: int) -> Any:
        async with engine.connect() as connection:
            return (await connection.execute(text, {"id": key(i)})).first()

    async with pg:
        await asyncio.gather(*(ours(i) for i in range(200)), *(sqlalchemy_default(i) for i in range(200)))
        times = await interleave(
            {
                "Datavern": fan(ours, tasks),
                "raw asyncpg": _raw(raw, tasks),
                "asyncpg.Pool": fan(asyncpg_pool, tasks),
                "SQLAlchemy (asyncpg)": fan(sqlalchemy_default, tasks),
            },
            n,
        )
    await engine.dispose()
    await pool.close()
    for connection in raw:
        await connection.close()
    return Figure(
        title=f"PostgreSQL: point select of ten columns by key, {tasks} task{'s' if tasks > 1 else ''}, pool of 10",
        ours="Datavern",
        times=times,
        at_most={
            "raw asyncpg": 1.15 if tasks == 1 else 1.35,
            "asyncpg.Pool": 0.5,
            "SQLAlchemy (asyncpg)": 0.2,
        },
        note=("client and server on a core each; " if tasks == 1 else "")
        + "raw asyncpg has no pool"
        + (", and 10 tasks" if tasks > 10 else ""),
    )


def _raw(connections: list[Any], tasks: int) -> Callable[[int], Awaitable[object]]:
    workers = min(tasks, len(connections))

    async def run(n: int) -> None:
        each = n // workers

        async def work(k: int) -> None:
            fetchrow = connections[k].fetchrow
            for i in range(k * each, (k + 1) * each):
                await fetchrow(SQL, key(i))

        if workers == 1:
            await work(0)
        else:
            await asyncio.gather(*(work(k) for k in range(workers)))

    return run

"""Coalesced point reads of a ten-column row by key: what is gained when many tasks read at once, and lost by one alone.

"raw asyncpg" is a connection's own ``fetchrow`` on ten connections, ten tasks with one each: fifty tasks cannot share
ten connections without a pool.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from benchmarks import Figure, apart, fan, interleave
from benchmarks.postgresql_select import CONNECTIONS, ROWS, SQL, TABLE, _raw, key
from datavern import Pool, PostgreSQLProvider
from datavern.testing.postgresql import PostgreSQLServer

COLUMNS = ["id", "name", "email", "city", "country", "age", "score", "active", "created", "note"]
AT_MOST = {50: 0.35}
"""Tasks → how much of raw asyncpg's time we promise to take; the others are shown without a promise."""


async def figures() -> list[Figure]:
    """At 1, 10 and 50 tasks."""
    with PostgreSQLServer() as server:
        together = [await _figure(server, tasks, n) for tasks, n in ((50, 2000), (10, 1000))]
        with apart(server.pid):
            return [*together, await _figure(server, 1, 300)]


async def _figure(server: PostgreSQLServer, tasks: int, n: int) -> Figure:
    raw = [await asyncpg.connect(server.url) for _ in range(CONNECTIONS)]
    if not await raw[0].fetchval("SELECT to_regclass('people') IS NOT NULL"):
        await raw[0].execute(TABLE)
    async with PostgreSQLProvider.from_url(server.url, pool=Pool(min=CONNECTIONS, max=CONNECTIONS)) as pg:
        read = pg.coalesced("people", key="id", columns=COLUMNS)

        async def coalesced(i: int) -> Any:
            return await read(key(i))

        async def uncoalesced(i: int) -> Any:
            return await pg.query_one(SQL, [key(i)])

        for i in range(ROWS // 100):
            assert await coalesced(i) == await uncoalesced(i) == await raw[0].fetchrow(SQL, key(i))
        await asyncio.gather(*(coalesced(i) for i in range(400)), *(uncoalesced(i) for i in range(400)))
        times = await interleave(
            {
                "Datavern, coalesced": fan(coalesced, tasks),
                "raw asyncpg": _raw(raw, tasks),
                "Datavern, a statement each": fan(uncoalesced, tasks),
            },
            n,
        )
        gathered = read.keys / read.statements
    for connection in raw:
        await connection.close()
    return Figure(
        title=f"PostgreSQL: coalesced point reads of ten columns, {tasks} task{'s' if tasks > 1 else ''}, pool of 10",
        ours="Datavern, coalesced",
        times=times,
        at_most={"raw asyncpg": AT_MOST[tasks]} if tasks in AT_MOST else {},
        note=("client and server on a core each; " if tasks == 1 else "")
        + f"keys in a statement, on average: {gathered:.0f}"
        + ("; raw asyncpg has 10 tasks" if tasks > CONNECTIONS else ""),
    )

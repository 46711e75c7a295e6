"""An operation that is refused for a row of its own group hears of it when the row can be read."""

from __future__ import annotations

import asyncio

from datavern.contracts.errors import ConstraintViolated


async def test_whoever_is_refused_for_a_row_finds_it(sqlite_database):
    async with sqlite_database.provider() as provider:
        await provider.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        going = True

        async def read() -> None:
            while going:  # a reader that delivers answers must not deliver the writer's too early
                await provider.query("SELECT count(*) FROM t")

        async def insert(n: int) -> bool:
            try:
                await provider.execute("INSERT INTO t (id) VALUES (?)", [n])
            except ConstraintViolated:
                assert await provider.query_value("SELECT id FROM t WHERE id = ?", [n]) == n
                return False
            return True

        readers = [asyncio.create_task(read()) for _ in range(4)]
        try:
            for n in range(200):
                assert sum(await asyncio.gather(*(insert(n) for _ in range(4)))) == 1
        finally:
            going = False
            await asyncio.gather(*readers)

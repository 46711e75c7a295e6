"""Rows in constant memory: what a stream gives, and what it leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datavern.contracts.errors import QueryRejected
from datavern.testing.contract.base import Contract
from datavern.testing.contract.speech import Speech

__all__ = ["StreamContract"]

ROWS = 1000


class StreamContract(Contract):
    """`stream` of a session."""

    capability: ClassVar[str | None] = "session"

    @pytest_asyncio.fixture(loop_scope="function")
    async def numbers(self, provider: Any, sql: Speech) -> Any:
        """The provider, with the numbers from 1 to 1000."""
        await provider.execute(sql("CREATE TABLE numbers (n {integer} PRIMARY KEY)"))
        await provider.execute_many(sql("INSERT INTO numbers VALUES ($1)"), [(n,) for n in range(1, ROWS + 1)])
        return provider

    @pytest.mark.parametrize("batch_size", [1, 7, 250, 999, 1000, 1001, 10_000])
    async def test_a_stream_gives_every_row_in_order(self, numbers: Any, sql: Speech, batch_size: int) -> None:
        async with numbers.stream(sql("SELECT n FROM numbers ORDER BY n"), batch_size=batch_size) as rows:
            assert [row["n"] async for row in rows] == list(range(1, ROWS + 1))

    async def test_a_stream_takes_parameters_and_may_be_empty(self, numbers: Any, sql: Speech) -> None:
        async with numbers.stream(sql("SELECT n FROM numbers WHERE n > $1 ORDER BY n"), [998]) as rows:
            assert [row[0] async for row in rows] == [999, 1000]
        async with numbers.stream(sql("SELECT n FROM numbers WHERE n > $1"), [5000]) as rows:
            assert [row async for row in rows] == []

    async def test_leaving_a_stream_early_gives_the_connection_back(self, numbers: Any, sql: Speech) -> None:
        for _ in range(40):
            async with numbers.stream(sql("SELECT n FROM numbers ORDER BY n"), batch_size=10) as rows:
                async for row in rows:
                    if row["n"] == 15:
                        break
        for _ in range(40):
            with pytest.raises(KeyError):
                async with numbers.stream(sql("SELECT n FROM numbers"), batch_size=10) as rows:
                    async for _row in rows:
                        raise KeyError
        assert await numbers.query_value(sql("SELECT count(*) FROM numbers")) == ROWS

    async def test_a_stream_sees_one_moment_while_others_write(self, numbers: Any, sql: Speech) -> None:
        seen = 0
        async with numbers.stream(sql("SELECT n FROM numbers ORDER BY n"), batch_size=100) as rows:
            async for row in rows:
                seen += 1
                if row["n"] % 100 == 0:
                    await numbers.execute(sql("INSERT INTO numbers VALUES ($1)"), [row["n"] + 100_000])
        assert seen == ROWS
        assert await numbers.query_value(sql("SELECT count(*) FROM numbers")) == ROWS + 10

    async def test_several_streams_at_once_do_not_block_anything(self, numbers: Any, sql: Speech) -> None:
        async def read() -> int:
            total = 0
            async with numbers.stream(sql("SELECT n FROM numbers"), batch_size=50) as rows:
                async for row in rows:
                    total += row["n"]
            return total

        sums, one = await asyncio.gather(
            asyncio.gather(*(read() for _ in range(12))), numbers.query_value(sql("SELECT count(*) FROM numbers"))
        )
        assert sums == [500_500] * 12
        assert one == ROWS

    async def test_a_wrong_stream_says_so(self, numbers: Any, sql: Speech) -> None:
        with pytest.raises(QueryRejected):
            async with numbers.stream(sql("SELECT nothing FROM numbers")) as rows:
                async for _ in rows:
                    pass
        assert await numbers.query_value(sql("SELECT count(*) FROM numbers")) == ROWS

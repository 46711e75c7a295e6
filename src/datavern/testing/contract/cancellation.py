"""A cancelled call never swallows its cancellation, never leaks, and leaves everything usable."""

from __future__ import annotations

import asyncio
import random
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datavern.contracts.errors import DatavernError
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.session import count, make_people
from datavern.testing.contract.speech import Speech
from datavern.testing.contract.transactions import amounts, make_accounts

__all__ = ["CancellationContract"]


class CancellationContract(Contract):
    """Calls that are cancelled, and those that a deadline ends."""

    capability: ClassVar[str | None] = "session"

    @pytest_asyncio.fixture(loop_scope="function")
    async def people(self, provider: Any, sql: Speech) -> Any:
        """The provider, with three people."""
        return await make_people(provider, sql)

    @pytest_asyncio.fixture(loop_scope="function")
    async def accounts(self, provider: Any, sql: Speech) -> Any:
        """The provider, with two accounts."""
        return await make_accounts(provider, sql)

    @asks("endless")
    async def test_a_deadline_ends_a_long_query_and_leaves_everything_usable(self, people: Any, sql: Speech) -> None:
        for _ in range(12):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await people.query(sql.words["endless"])
        assert await count(people, sql) == 3

    @asks("endless")
    async def test_a_cancelled_query_is_cancelled(self, people: Any, sql: Speech) -> None:
        task = asyncio.create_task(people.query(sql.words["endless"]))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert await count(people, sql) == 3

    async def test_cancelled_at_any_moment_a_write_is_made_or_not(self, people: Any, sql: Speech) -> None:
        """What was acknowledged is there; what was cancelled is there whole, or not at all; nobody else notices."""
        moments = random.Random(7)  # noqa: S311  (the same moments each time)
        insert = sql("INSERT INTO people VALUES ($1, $2, $3)")

        async def cancelled(n: int) -> bool:
            task = asyncio.create_task(people.execute(insert, [n, f"n{n}", "x"]))
            for _ in range(moments.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            try:
                assert await task == 1
            except asyncio.CancelledError:
                return True
            return False

        async def undisturbed(n: int) -> None:
            assert await people.execute(insert, [n, f"n{n}", "x"]) == 1

        outcomes = await asyncio.gather(
            *(cancelled(100 + n) for n in range(60)), *(undisturbed(1000 + n) for n in range(20))
        )
        there = {row[0] for row in await people.query(sql("SELECT id FROM people"))}
        acknowledged = {100 + n for n, gone in enumerate(outcomes[:60]) if not gone}
        assert acknowledged | {1000 + n for n in range(20)} <= there
        assert (await people.health()).status == "healthy"
        pool = (await people.health()).pool
        assert pool is None or (pool.in_use, pool.waiting) == (0, 0)

    @asks("transactions", "endless")
    async def test_a_cancelled_transaction_is_rolled_back(self, accounts: Any, sql: Speech) -> None:
        written = asyncio.Event()

        async def work() -> None:
            async with accounts.transaction() as tx:
                await tx.execute(sql("DELETE FROM accounts"))
                written.set()
                await tx.query(sql.words["endless"])

        task = asyncio.create_task(work())
        await written.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await amounts(accounts, sql) == {"a": 100, "b": 0}
        await accounts.execute(sql("DELETE FROM accounts WHERE name = 'a'"))
        assert await amounts(accounts, sql) == {"b": 0}

    @asks("transactions", "endless")
    async def test_a_savepoint_saves_the_transaction_from_a_deadline(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            await tx.execute(sql("UPDATE accounts SET amount = 1 WHERE name = 'a'"))
            with pytest.raises(TimeoutError):
                async with tx.savepoint():
                    await tx.execute(sql("UPDATE accounts SET amount = 2 WHERE name = 'a'"))
                    async with asyncio.timeout(0.02):
                        await tx.query(sql.words["endless"])
            assert (await amounts(tx, sql))["a"] == 1
            await tx.execute(sql("UPDATE accounts SET amount = 3 WHERE name = 'b'"))
        assert await amounts(accounts, sql) == {"a": 1, "b": 3}

    @asks("transactions", "endless")
    async def test_a_transaction_that_a_deadline_broke_does_not_commit(self, accounts: Any, sql: Speech) -> None:
        with pytest.raises(DatavernError):
            async with accounts.transaction() as tx:
                await tx.execute(sql("DELETE FROM accounts"))
                try:
                    async with asyncio.timeout(0.02):
                        await tx.query(sql.words["endless"])
                except TimeoutError:
                    pass
        assert await amounts(accounts, sql) == {"a": 100, "b": 0}

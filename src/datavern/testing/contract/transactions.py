"""Transactions: all or nothing, savepoints, isolation, read-only, run again on a conflict."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datavern.contracts.errors import ConfigurationError, ConstraintViolated, QueryRejected, SerializationConflict
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.speech import Speech

__all__ = ["TransactionsContract", "amounts", "make_accounts"]


async def make_accounts(provider: Any, sql: Speech) -> Any:
    """The provider, with two accounts in its database."""
    await provider.execute(sql("CREATE TABLE accounts (name {text} PRIMARY KEY, amount {integer} NOT NULL)"))
    await provider.execute(sql("INSERT INTO accounts VALUES ('a', 100), ('b', 0)"))
    return provider


async def amounts(session: Any, sql: Speech) -> dict[str, int]:
    """What is on each account, as the session sees it."""
    return {row[0]: row[1] for row in await session.query(sql("SELECT name, amount FROM accounts ORDER BY name"))}


class TransactionsContract(Contract):
    """What a block of a transaction promises."""

    capability: ClassVar[str | None] = "transactions"

    @pytest_asyncio.fixture(loop_scope="function")
    async def accounts(self, provider: Any, sql: Speech) -> Any:
        """The provider, with two accounts."""
        return await make_accounts(provider, sql)

    async def test_a_transaction_commits_when_its_block_ends(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            assert tx.provider is accounts
            assert await tx.execute(sql("UPDATE accounts SET amount = amount - 30 WHERE name = 'a'")) == 1
            await tx.execute(sql("UPDATE accounts SET amount = amount + 30 WHERE name = 'b'"))
            assert await amounts(tx, sql) == {"a": 70, "b": 30}
        assert await amounts(accounts, sql) == {"a": 70, "b": 30}

    async def test_a_transaction_rolls_back_when_an_exception_leaves_it(self, accounts: Any, sql: Speech) -> None:
        with pytest.raises(KeyError):
            async with accounts.transaction() as tx:
                await tx.execute(sql("DELETE FROM accounts"))
                raise KeyError
        assert await amounts(accounts, sql) == {"a": 100, "b": 0}

    async def test_an_empty_transaction_is_none(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction():
            pass
        with pytest.raises(KeyError):
            async with accounts.transaction():
                raise KeyError
        async with accounts.transaction() as tx, tx.savepoint():
            pass
        assert await amounts(accounts, sql) == {"a": 100, "b": 0}

    async def test_what_is_not_committed_is_not_seen_from_outside(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            await tx.execute(sql("UPDATE accounts SET amount = 1 WHERE name = 'a'"))
            assert await amounts(accounts, sql) == {"a": 100, "b": 0}
        assert (await amounts(accounts, sql))["a"] == 1

    async def test_all_six_calls_work_inside(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            assert await tx.execute_many(sql("INSERT INTO accounts VALUES ($1, $2)"), [("c", 1), ("d", 2)]) == 2
            assert len(await tx.query(sql("SELECT * FROM accounts"))) == 4
            assert (await tx.query_one(sql("SELECT * FROM accounts WHERE name = $1"), ["d"]))["amount"] == 2
            assert await tx.query_value(sql("SELECT count(*) FROM accounts")) == 4
            async with tx.stream(sql("SELECT name FROM accounts ORDER BY name"), batch_size=3) as rows:
                assert [row["name"] async for row in rows] == ["a", "b", "c", "d"]
            async with tx.stream(sql("SELECT name FROM accounts ORDER BY name"), batch_size=1) as rows:
                async for _ in rows:
                    break
        assert await amounts(accounts, sql) == {"a": 100, "b": 0, "c": 1, "d": 2}

    @asks("returning")
    async def test_a_change_inside_gives_its_rows(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            assert await tx.query_value(sql("DELETE FROM accounts WHERE name = 'b' RETURNING amount")) == 0
        assert await amounts(accounts, sql) == {"a": 100}

    async def test_after_its_block_a_transaction_takes_nothing(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            await tx.execute(sql("DELETE FROM accounts WHERE name = 'b'"))
        with pytest.raises(QueryRejected):
            await tx.execute(sql("DELETE FROM accounts"))
        assert await amounts(accounts, sql) == {"a": 100}

    @pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
    @pytest.mark.parametrize("read_only", [False, True])
    async def test_each_isolation_is_taken(self, accounts: Any, isolation: str, read_only: bool, sql: Speech) -> None:
        async with accounts.transaction(isolation=isolation, read_only=read_only) as tx:
            assert await amounts(tx, sql) == {"a": 100, "b": 0}
            if not read_only:
                await tx.execute(sql("DELETE FROM accounts"))
        assert await amounts(accounts, sql) == ({"a": 100, "b": 0} if read_only else {})

    async def test_an_isolation_that_is_none_is_refused(self, accounts: Any) -> None:
        with pytest.raises(ConfigurationError):
            async with accounts.transaction(isolation="chaos"):
                pass

    async def test_a_read_only_transaction_does_not_write(self, accounts: Any, sql: Speech) -> None:
        statements = ["DELETE FROM accounts", "CREATE TABLE x (i {integer})"]
        if sql.has("returning"):
            statements.append("INSERT INTO accounts VALUES ('x', 1) RETURNING name")
        for statement in statements:
            with pytest.raises(QueryRejected):
                async with accounts.transaction(read_only=True) as tx:
                    await tx.query(sql(statement))
            with pytest.raises(QueryRejected):
                async with accounts.transaction(read_only=True) as tx:
                    await tx.execute(sql(statement))
        assert await amounts(accounts, sql) == {"a": 100, "b": 0}
        await accounts.execute(sql("DELETE FROM accounts WHERE name = 'b'"))

    async def test_a_repeatable_read_sees_one_moment(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction(isolation="repeatable read", read_only=True) as tx:
            assert (await amounts(tx, sql))["b"] == 0
            await accounts.execute(sql("UPDATE accounts SET amount = 5 WHERE name = 'b'"))
            assert (await amounts(tx, sql))["b"] == 0
        assert (await amounts(accounts, sql))["b"] == 5

    @asks("foreign keys", "deferred constraints")
    async def test_a_failed_commit_keeps_nothing(self, accounts: Any, sql: Speech) -> None:
        account = "account {text} REFERENCES accounts (name) DEFERRABLE INITIALLY DEFERRED"
        await accounts.execute(sql(f"CREATE TABLE cards (id {{integer}}, {account})"))
        with pytest.raises(ConstraintViolated):
            async with accounts.transaction() as tx:
                await tx.execute(sql("INSERT INTO cards VALUES (1, 'nobody')"))
        assert await accounts.query_value(sql("SELECT count(*) FROM cards")) == 0
        async with accounts.transaction() as tx:
            await tx.execute(sql("INSERT INTO cards VALUES (1, 'late')"))
            await tx.execute(sql("INSERT INTO accounts VALUES ('late', 1)"))
        assert await accounts.query_value(sql("SELECT count(*) FROM cards")) == 1

    # ---- savepoints -------------------------------------------------------------------------------------------------

    async def test_a_savepoint_fails_on_its_own(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            await tx.execute(sql("UPDATE accounts SET amount = 1 WHERE name = 'a'"))
            with pytest.raises(KeyError):
                async with tx.savepoint():
                    await tx.execute(sql("UPDATE accounts SET amount = 2 WHERE name = 'a'"))
                    raise KeyError
            assert (await amounts(tx, sql))["a"] == 1
            async with tx.savepoint() as inner:
                await inner.execute(sql("UPDATE accounts SET amount = 3 WHERE name = 'b'"))
        assert await amounts(accounts, sql) == {"a": 1, "b": 3}

    async def test_savepoints_nest(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx, tx.savepoint():
            await tx.execute(sql("UPDATE accounts SET amount = 1 WHERE name = 'a'"))
            with pytest.raises(KeyError):
                async with tx.savepoint():
                    await tx.execute(sql("UPDATE accounts SET amount = 2 WHERE name = 'a'"))
                    async with tx.savepoint():
                        await tx.execute(sql("UPDATE accounts SET amount = 3 WHERE name = 'a'"))
                    raise KeyError
            async with tx.savepoint():
                await tx.execute(sql("UPDATE accounts SET amount = 4 WHERE name = 'b'"))
        assert await amounts(accounts, sql) == {"a": 1, "b": 4}

    async def test_a_savepoint_saves_the_transaction_from_an_error(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            with pytest.raises(ConstraintViolated):
                async with tx.savepoint():
                    await tx.execute(sql("INSERT INTO accounts VALUES ('b', 1)"))
            with pytest.raises(QueryRejected):
                async with tx.savepoint():
                    await tx.execute(sql("UPDATE no_such_table SET amount = -1"))
            await tx.execute(sql("UPDATE accounts SET amount = 9 WHERE name = 'b'"))
        assert await amounts(accounts, sql) == {"a": 100, "b": 9}

    async def test_a_savepoint_is_rolled_back_with_its_transaction(self, accounts: Any, sql: Speech) -> None:
        with pytest.raises(KeyError):
            async with accounts.transaction() as tx:
                async with tx.savepoint():
                    await tx.execute(sql("DELETE FROM accounts"))
                raise KeyError
        assert await amounts(accounts, sql) == {"a": 100, "b": 0}

    async def test_execute_many_inside_a_savepoint_is_all_or_none(self, accounts: Any, sql: Speech) -> None:
        async with accounts.transaction() as tx:
            with pytest.raises(ConstraintViolated):
                async with tx.savepoint():
                    await tx.execute_many(sql("INSERT INTO accounts VALUES ($1, $2)"), [("x", 1), ("y", 1), ("a", 1)])
            await tx.execute(sql("INSERT INTO accounts VALUES ('z', 1)"))
        assert await amounts(accounts, sql) == {"a": 100, "b": 0, "z": 1}

    # ---- run again --------------------------------------------------------------------------------------------------

    async def test_run_in_transaction_gives_what_the_work_gives(self, accounts: Any, sql: Speech) -> None:
        async def work(tx: Any) -> Any:
            await tx.execute(sql("UPDATE accounts SET amount = 7 WHERE name = 'a'"))
            return await tx.query_value(sql("SELECT amount FROM accounts WHERE name = 'a'"))

        assert await accounts.run_in_transaction(work) == 7
        assert (await amounts(accounts, sql))["a"] == 7

    async def test_work_runs_again_only_when_its_error_says_so(self, accounts: Any, sql: Speech) -> None:
        runs: list[int] = []

        async def conflict_twice(tx: Any) -> Any:
            runs.append(1)
            await tx.execute(sql("UPDATE accounts SET amount = amount + 1 WHERE name = 'b'"))
            if len(runs) < 3:
                raise SerializationConflict("made up")
            return len(runs)

        assert await accounts.run_in_transaction(conflict_twice) == 3
        assert (await amounts(accounts, sql))["b"] == 1  # the runs that failed left nothing
        runs.clear()

        async def violate(tx: Any) -> Any:
            runs.append(1)
            await tx.execute(sql("INSERT INTO accounts VALUES ('a', 1)"))

        with pytest.raises(ConstraintViolated):
            await accounts.run_in_transaction(violate)
        assert len(runs) == 1

    async def test_work_that_always_conflicts_gives_up(self, accounts: Any, sql: Speech) -> None:
        runs: list[int] = []

        async def work(tx: Any) -> Any:
            runs.append(1)
            await tx.execute(sql("DELETE FROM accounts"))
            raise SerializationConflict("made up")

        with pytest.raises(SerializationConflict):
            await accounts.run_in_transaction(work, attempts=3)
        assert len(runs) == 3
        assert await amounts(accounts, sql) == {"a": 100, "b": 0}

    async def test_tasks_that_collide_lose_nothing(self, accounts: Any, sql: Speech) -> None:
        async def work(tx: Any) -> Any:
            amount = await tx.query_value(sql("SELECT amount FROM accounts WHERE name = 'b'"))
            await tx.execute(sql("UPDATE accounts SET amount = $1 WHERE name = 'b'"), [amount + 1])

        await asyncio.gather(
            *(accounts.run_in_transaction(work, isolation="serializable", attempts=50) for _ in range(20))
        )
        assert (await amounts(accounts, sql))["b"] == 20

    async def test_transactions_and_single_writes_take_turns(self, accounts: Any, sql: Speech) -> None:
        async def long(n: int) -> None:
            async with accounts.transaction() as tx:
                await tx.execute(sql("INSERT INTO accounts VALUES ($1, $2)"), [f"t{n}", n])
                await asyncio.sleep(0)
                await tx.execute(sql("UPDATE accounts SET amount = amount + 1 WHERE name = 'b'"))

        async def short(n: int) -> None:
            await accounts.execute(sql("INSERT INTO accounts VALUES ($1, $2)"), [f"s{n}", n])

        await asyncio.gather(*(long(n) for n in range(10)), *(short(n) for n in range(40)))
        found = await amounts(accounts, sql)
        assert len(found) == 52
        assert found["b"] == 10

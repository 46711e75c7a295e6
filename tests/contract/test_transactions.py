"""Transactions: all or nothing, savepoints, isolation, read-only, run again on a conflict."""

from __future__ import annotations

import asyncio

import pytest

from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    DatavernError,
    QueryRejected,
    SerializationConflict,
)


@pytest.fixture
async def accounts(provider, sql):
    await provider.execute(
        sql("CREATE TABLE accounts (name {text} PRIMARY KEY, amount {integer} NOT NULL CHECK (amount >= 0))")
    )
    await provider.execute("INSERT INTO accounts VALUES ('a', 100), ('b', 0)")
    return provider


async def amounts(session):
    return dict(tuple(row) for row in await session.query("SELECT name, amount FROM accounts ORDER BY name"))


async def test_a_transaction_commits_when_its_block_ends(accounts):
    async with accounts.transaction() as tx:
        assert tx.provider is accounts
        assert await tx.execute("UPDATE accounts SET amount = amount - 30 WHERE name = 'a'") == 1
        await tx.execute("UPDATE accounts SET amount = amount + 30 WHERE name = 'b'")
        assert await amounts(tx) == {"a": 70, "b": 30}
    assert await amounts(accounts) == {"a": 70, "b": 30}


async def test_a_transaction_rolls_back_when_an_exception_leaves_it(accounts):
    with pytest.raises(KeyError):
        async with accounts.transaction() as tx:
            await tx.execute("DELETE FROM accounts")
            raise KeyError
    assert await amounts(accounts) == {"a": 100, "b": 0}


async def test_an_empty_transaction_is_none(accounts):
    async with accounts.transaction():
        pass
    with pytest.raises(KeyError):
        async with accounts.transaction():
            raise KeyError
    async with accounts.transaction() as tx, tx.savepoint():
        pass
    assert await amounts(accounts) == {"a": 100, "b": 0}


async def test_what_is_not_committed_is_not_seen_from_outside(accounts):
    async with accounts.transaction() as tx:
        await tx.execute("UPDATE accounts SET amount = 1 WHERE name = 'a'")
        assert await amounts(accounts) == {"a": 100, "b": 0}
    assert (await amounts(accounts))["a"] == 1


async def test_all_six_calls_work_inside(accounts, sql):
    async with accounts.transaction() as tx:
        assert await tx.execute_many(sql("INSERT INTO accounts VALUES ($1, $2)"), [("c", 1), ("d", 2)]) == 2
        assert len(await tx.query("SELECT * FROM accounts")) == 4
        assert (await tx.query_one(sql("SELECT * FROM accounts WHERE name = $1"), ["d"]))["amount"] == 2
        assert await tx.query_value("SELECT count(*) FROM accounts") == 4
        async with tx.stream("SELECT name FROM accounts ORDER BY name", batch_size=3) as rows:
            assert [row["name"] async for row in rows] == ["a", "b", "c", "d"]
        async with tx.stream("SELECT name FROM accounts ORDER BY name", batch_size=1) as rows:
            async for _ in rows:
                break
        assert await tx.query_value("DELETE FROM accounts WHERE name = 'd' RETURNING amount") == 2
    assert await amounts(accounts) == {"a": 100, "b": 0, "c": 1}


async def test_after_its_block_a_transaction_takes_nothing(accounts):
    async with accounts.transaction() as tx:
        await tx.execute("DELETE FROM accounts WHERE name = 'b'")
    with pytest.raises(QueryRejected):
        await tx.execute("DELETE FROM accounts")
    assert await amounts(accounts) == {"a": 100}


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("read_only", [False, True])
async def test_each_isolation_is_taken(accounts, isolation, read_only):
    async with accounts.transaction(isolation=isolation, read_only=read_only) as tx:
        assert await amounts(tx) == {"a": 100, "b": 0}
        if not read_only:
            await tx.execute("DELETE FROM accounts")
    assert await amounts(accounts) == ({"a": 100, "b": 0} if read_only else {})


async def test_an_isolation_that_is_none_is_refused(accounts):
    with pytest.raises(ConfigurationError):
        async with accounts.transaction(isolation="chaos"):
            pass


async def test_a_read_only_transaction_does_not_write(accounts):
    for statement in (
        "DELETE FROM accounts",
        "INSERT INTO accounts VALUES ('x', 1) RETURNING name",
        "CREATE TABLE x (i int)",
    ):
        with pytest.raises(QueryRejected):
            async with accounts.transaction(read_only=True) as tx:
                await tx.query(statement)
    assert await amounts(accounts) == {"a": 100, "b": 0}
    await accounts.execute("DELETE FROM accounts WHERE name = 'b'")


async def test_a_repeatable_read_sees_one_moment(accounts):
    async with accounts.transaction(isolation="repeatable read", read_only=True) as tx:
        assert (await amounts(tx))["b"] == 0
        await accounts.execute("UPDATE accounts SET amount = 5 WHERE name = 'b'")
        assert (await amounts(tx))["b"] == 0
    assert (await amounts(accounts))["b"] == 5


async def test_a_failed_commit_keeps_nothing(accounts, sql):
    await accounts.execute(
        sql(
            "CREATE TABLE cards (id {integer}, account {text} REFERENCES accounts (name) DEFERRABLE INITIALLY DEFERRED)"
        )
    )
    with pytest.raises(ConstraintViolated):
        async with accounts.transaction() as tx:
            await tx.execute("INSERT INTO cards VALUES (1, 'nobody')")
    assert await accounts.query_value("SELECT count(*) FROM cards") == 0
    async with accounts.transaction() as tx:
        await tx.execute("INSERT INTO cards VALUES (1, 'late')")
        await tx.execute("INSERT INTO accounts VALUES ('late', 1)")
    assert await accounts.query_value("SELECT count(*) FROM cards") == 1


# ---- savepoints -----------------------------------------------------------------------------------------------------


async def test_a_savepoint_fails_on_its_own(accounts):
    async with accounts.transaction() as tx:
        await tx.execute("UPDATE accounts SET amount = 1 WHERE name = 'a'")
        with pytest.raises(KeyError):
            async with tx.savepoint():
                await tx.execute("UPDATE accounts SET amount = 2 WHERE name = 'a'")
                raise KeyError
        assert (await amounts(tx))["a"] == 1
        async with tx.savepoint() as inner:
            await inner.execute("UPDATE accounts SET amount = 3 WHERE name = 'b'")
    assert await amounts(accounts) == {"a": 1, "b": 3}


async def test_savepoints_nest(accounts):
    async with accounts.transaction() as tx, tx.savepoint():
        await tx.execute("UPDATE accounts SET amount = 1 WHERE name = 'a'")
        with pytest.raises(KeyError):
            async with tx.savepoint():
                await tx.execute("UPDATE accounts SET amount = 2 WHERE name = 'a'")
                async with tx.savepoint():
                    await tx.execute("UPDATE accounts SET amount = 3 WHERE name = 'a'")
                raise KeyError
        async with tx.savepoint():
            await tx.execute("UPDATE accounts SET amount = 4 WHERE name = 'b'")
    assert await amounts(accounts) == {"a": 1, "b": 4}


async def test_a_savepoint_saves_the_transaction_from_an_error(accounts):
    async with accounts.transaction() as tx:
        with pytest.raises(ConstraintViolated):
            async with tx.savepoint():
                await tx.execute("UPDATE accounts SET amount = -1 WHERE name = 'a'")
        with pytest.raises(QueryRejected):
            async with tx.savepoint():
                await tx.execute("UPDATE no_such_table SET amount = -1")
        await tx.execute("UPDATE accounts SET amount = 9 WHERE name = 'b'")
    assert await amounts(accounts) == {"a": 100, "b": 9}


async def test_a_savepoint_is_rolled_back_with_its_transaction(accounts):
    with pytest.raises(KeyError):
        async with accounts.transaction() as tx:
            async with tx.savepoint():
                await tx.execute("DELETE FROM accounts")
            raise KeyError
    assert await amounts(accounts) == {"a": 100, "b": 0}


async def test_execute_many_inside_a_savepoint_is_all_or_none(accounts, sql):
    async with accounts.transaction() as tx:
        with pytest.raises(ConstraintViolated):
            async with tx.savepoint():
                await tx.execute_many(sql("INSERT INTO accounts VALUES ($1, $2)"), [("x", 1), ("y", 1), ("a", 1)])
        await tx.execute("INSERT INTO accounts VALUES ('z', 1)")
    assert await amounts(accounts) == {"a": 100, "b": 0, "z": 1}


# ---- cancelled ------------------------------------------------------------------------------------------------------


async def test_a_cancelled_transaction_is_rolled_back(accounts, sql):
    written = asyncio.Event()

    async def work() -> None:
        async with accounts.transaction() as tx:
            await tx.execute("DELETE FROM accounts")
            written.set()
            await tx.query(sql.words["endless"])

    task = asyncio.create_task(work())
    await written.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await amounts(accounts) == {"a": 100, "b": 0}
    await accounts.execute("DELETE FROM accounts WHERE name = 'a'")
    assert await amounts(accounts) == {"b": 0}


async def test_a_savepoint_saves_the_transaction_from_a_deadline(accounts, sql):
    async with accounts.transaction() as tx:
        await tx.execute("UPDATE accounts SET amount = 1 WHERE name = 'a'")
        with pytest.raises(TimeoutError):
            async with tx.savepoint():
                await tx.execute("UPDATE accounts SET amount = 2 WHERE name = 'a'")
                async with asyncio.timeout(0.02):
                    await tx.query(sql.words["endless"])
        assert (await amounts(tx))["a"] == 1
        await tx.execute("UPDATE accounts SET amount = 3 WHERE name = 'b'")
    assert await amounts(accounts) == {"a": 1, "b": 3}


async def test_a_transaction_that_a_deadline_broke_does_not_commit(accounts, sql):
    with pytest.raises(DatavernError):
        async with accounts.transaction() as tx:
            await tx.execute("DELETE FROM accounts")
            try:
                async with asyncio.timeout(0.02):
                    await tx.query(sql.words["endless"])
            except TimeoutError:
                pass
    assert await amounts(accounts) == {"a": 100, "b": 0}


async def test_closing_rolls_back_what_is_open(database):
    provider = database.provider(location="norway")
    await provider.connect()
    await provider.execute("CREATE TABLE t (n int)")
    with pytest.raises(DatavernError):
        async with provider.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            await provider.close()
    async with provider:
        assert await provider.query_value("SELECT count(*) FROM t") == 0


# ---- run again ------------------------------------------------------------------------------------------------------


async def test_run_in_transaction_gives_what_the_work_gives(accounts):
    async def work(tx):
        await tx.execute("UPDATE accounts SET amount = 7 WHERE name = 'a'")
        return await tx.query_value("SELECT amount FROM accounts WHERE name = 'a'")

    assert await accounts.run_in_transaction(work) == 7
    assert (await amounts(accounts))["a"] == 7


async def test_work_runs_again_only_when_its_error_says_so(accounts):
    runs = []

    async def conflict_twice(tx):
        runs.append(1)
        await tx.execute("UPDATE accounts SET amount = amount + 1 WHERE name = 'b'")
        if len(runs) < 3:
            raise SerializationConflict("made up")
        return len(runs)

    assert await accounts.run_in_transaction(conflict_twice) == 3
    assert (await amounts(accounts))["b"] == 1  # the runs that failed left nothing
    runs.clear()

    async def violate(tx):
        runs.append(1)
        await tx.execute("UPDATE accounts SET amount = -1")

    with pytest.raises(ConstraintViolated):
        await accounts.run_in_transaction(violate)
    assert len(runs) == 1


async def test_work_that_always_conflicts_gives_up(accounts):
    runs = []

    async def work(tx):
        runs.append(1)
        await tx.execute("DELETE FROM accounts")
        raise SerializationConflict("made up")

    with pytest.raises(SerializationConflict):
        await accounts.run_in_transaction(work, attempts=3)
    assert len(runs) == 3
    assert await amounts(accounts) == {"a": 100, "b": 0}


async def test_tasks_that_collide_lose_nothing(accounts):
    async def work(tx):
        amount = await tx.query_value("SELECT amount FROM accounts WHERE name = 'b'")
        await tx.execute(f"UPDATE accounts SET amount = {amount + 1} WHERE name = 'b'")

    await asyncio.gather(*(accounts.run_in_transaction(work, isolation="serializable", attempts=50) for _ in range(20)))
    assert (await amounts(accounts))["b"] == 20


async def test_transactions_and_single_writes_take_turns(accounts, sql):
    async def long(n: int) -> None:
        async with accounts.transaction() as tx:
            await tx.execute(sql("INSERT INTO accounts VALUES ($1, $2)"), [f"t{n}", n])
            await asyncio.sleep(0)
            await tx.execute("UPDATE accounts SET amount = amount + 1 WHERE name = 'b'")

    async def short(n: int) -> None:
        await accounts.execute(sql("INSERT INTO accounts VALUES ($1, $2)"), [f"s{n}", n])

    await asyncio.gather(*(long(n) for n in range(10)), *(short(n) for n in range(40)))
    found = await amounts(accounts)
    assert len(found) == 52
    assert found["b"] == 10

"""What is temporary goes with its transaction: the connection that writes serves everybody."""

from __future__ import annotations

from typing import Any

import pytest

from datavern.contracts.errors import QueryRejected

MADE = [
    "CREATE TEMP TABLE picked (id INTEGER PRIMARY KEY)",
    "create temporary table picked as select 1",
    "-- first\nCREATE /* no */ TEMP VIEW picked AS SELECT 1",
    'CREATE TABLE IF NOT EXISTS "temp".picked (id)',
    "CREATE VIEW temp.picked AS SELECT 1",
    "CREATE VIRTUAL TABLE temp.picked USING fts5(id)",
    "CREATE TEMP TRIGGER picked AFTER INSERT ON users BEGIN DELETE FROM users; END",
]
KEPT = [
    "CREATE TABLE temp (id)",
    "CREATE TABLE t (temp)",
    "CREATE TABLE main.temp (id)",
    "CREATE INDEX temp ON users (a)",
]


@pytest.fixture(params=["file", "memory"])
async def db(request: Any, sqlite_database: Any) -> Any:
    settings = {"path": ":memory:"} if request.param == "memory" else {}
    async with sqlite_database.provider(trusted_schema=True, **settings) as db:
        await db.execute("CREATE TABLE users (a)")
        yield db


@pytest.mark.parametrize("made", MADE)
async def test_the_next_transaction_finds_nothing_of_it(db: Any, made: str) -> None:
    for _ in range(2):
        async with db.transaction() as tx:
            await tx.execute(made)
    async with db.transaction() as tx:
        assert await tx.query("SELECT name FROM temp.sqlite_master") == []
        await tx.execute("INSERT INTO users VALUES (1)")
    assert await db.query_value("SELECT count(*) FROM users") == 1


async def test_it_is_there_as_long_as_its_transaction(db: Any) -> None:
    async with db.transaction() as tx:
        await tx.execute("CREATE TEMP TABLE picked (id)")
        async with tx.savepoint():
            await tx.execute("INSERT INTO picked VALUES (1)")
        assert await tx.query_value("SELECT count(*) FROM picked") == 1


async def test_a_table_of_the_same_name_takes_nobodys_rows(db: Any) -> None:
    async with db.transaction() as tx:
        await tx.execute("CREATE TEMP TABLE users (a)")
        await tx.execute("INSERT INTO users VALUES (1)")
    await db.execute("INSERT INTO users VALUES (2)")
    assert [row[0] for row in await db.query("SELECT a FROM users")] == [2]


@pytest.mark.parametrize("made", MADE)
async def test_alone_it_is_refused(db: Any, made: str) -> None:
    for _ in range(2):
        with pytest.raises(QueryRejected, match=r"goes with its transaction: make it in one, with transaction\(\)"):
            await db.execute(made)
        with pytest.raises(QueryRejected, match="goes with its transaction"):
            await db.execute(made, idempotency_key="made once")
    assert await db.execute("INSERT INTO users VALUES (1)", idempotency_key="made once") == 1


@pytest.mark.parametrize("made", KEPT)
async def test_what_is_not_temporary_stays(db: Any, made: str) -> None:
    await db.execute(made)
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO users VALUES (1)")
    with pytest.raises(QueryRejected, match="already exists"):
        await db.execute(made)

"""PostgreSQL: the shorter way to asyncpg's protocol is taken, and says what asyncpg's own way says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from datavern import ConnectionFailed, DatavernError, Pool
from datavern.engines.postgresql import connection, shortcut
from datavern.engines.postgresql.shortcut import ShortConnection, connection_class

TEXT = "SELECT g, 'a' || g AS a FROM generate_series(1, $1) g"


@pytest.fixture
async def one(postgresql_database: Any) -> AsyncIterator[Any]:
    """A provider with one connection."""
    async with postgresql_database.provider("main", location="norway", pool=Pool(min=1, max=1)) as provider:
        yield provider


@pytest.fixture
async def pair(one) -> AsyncIterator[tuple[Any, Any]]:
    """The provider's connection, and asyncpg's own to the same database."""
    slot = one._pool.take()
    url = one.settings
    own = await asyncpg.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password.reveal(),
        database=url.database,
        ssl=False,
    )
    yield slot.connection, own
    await own.close()
    one._pool.give(slot)


def test_this_version_of_asyncpg_has_what_is_used_of_its_inside():
    """Where it has not, everything works, a tenth slower: asyncpg's own class is used."""
    assert connection_class() is ShortConnection


def test_another_version_gets_its_own_class(monkeypatch):
    monkeypatch.setattr(shortcut, "_TAKES", ["self", "something", "else"])
    assert connection_class() is asyncpg.Connection


async def test_the_second_time_it_goes_straight_to_the_protocol(pair, monkeypatch):
    short, _ = pair
    for call in (short.fetch, short.fetchrow, short.fetchval, short.execute):
        await call(TEXT, 3)

    async def long(*_: Any, **__: Any) -> None:
        raise AssertionError("asyncpg's own way")

    monkeypatch.setattr(ShortConnection, "_execute", long)
    assert [row["a"] for row in await short.fetch(TEXT, 3)] == ["a1", "a2", "a3"]
    assert (await short.fetchrow(TEXT, 3))["g"] == await short.fetchval(TEXT, 3) == 1
    assert await short.execute(TEXT, 3) == "SELECT 3"


@pytest.mark.parametrize("times", [1, 2])
async def test_it_gives_what_asyncpg_gives(pair, times):
    for _ in range(times):
        for values in ([3], [1], [0], [None]):
            for method in ("fetch", "fetchrow", "fetchval", "execute"):
                short, own = [await getattr(connection, method)(TEXT, *values) for connection in pair]
                assert short == own, method
        for wrong in (["x"], [], [1, 2], [2**40]):
            said = []
            for one_of in pair:
                with pytest.raises(Exception) as raised:  # noqa: PT011  (both raise the same, whatever it is)
                    await one_of.fetch(TEXT, *wrong)
                said.append((type(raised.value), str(raised.value)))
            assert said[0] == said[1]
    assert await pair[0].fetchval("SELECT g, -g FROM generate_series(5, $1) g", 5, column=1) == -5


async def test_a_result_that_has_become_another_is_asked_for_again(one):
    await one.execute("CREATE TABLE t (id int)")
    await one.execute("INSERT INTO t VALUES (1)")
    for column in ("a", "b", "c", "d"):
        for ask in (one.query, one.query_one):
            assert await ask("SELECT * FROM t WHERE id = $1", [1])
        await one.execute(f"ALTER TABLE t ADD COLUMN {column} text DEFAULT 'x'")
        assert (await one.query("SELECT * FROM t WHERE id = $1", [1]))[0][column] == "x"
        assert (await one.query_one("SELECT * FROM t WHERE id = $1", [1]))[column] == "x"
        assert await one.execute("UPDATE t SET id = id WHERE id = $1 RETURNING *", [1]) == 1


async def test_in_a_transaction_that_fails_it(one):
    await one.execute("CREATE TABLE t (id int)")
    await one.query("SELECT * FROM t WHERE id >= $1", [1])
    with pytest.raises(DatavernError):
        async with one.transaction() as tx:
            await tx.execute("ALTER TABLE t ADD COLUMN a int")
            await tx.query("SELECT * FROM t WHERE id >= $1", [1])
    assert await one.query("SELECT * FROM t WHERE id >= $1", [1]) == []


async def test_a_type_that_has_become_another(one):
    await one.execute("CREATE TYPE pair AS (a int, b int)")
    await one.execute("CREATE TABLE t (p pair)")
    await one.execute("INSERT INTO t VALUES (ROW(1, 2)::pair)")
    assert tuple(await one.query_value("SELECT p FROM t")) == (1, 2)
    await one.execute("ALTER TYPE pair ADD ATTRIBUTE c text")
    assert tuple(await one.query_value("SELECT p FROM t")) == (1, 2, None)


async def test_a_cancelled_statement_is_stopped_on_the_server(one):
    text = "SELECT pg_sleep($1)"
    await one.query(text, [0])
    call = asyncio.create_task(one.query(text, [60]))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await one.query_value("SELECT 1") == 1


async def test_a_connection_that_is_gone(pair):
    short, _ = pair
    await short.fetch(TEXT, 1)
    short.terminate()
    for call in (short.fetch, short.fetchrow, short.fetchval, short.execute):
        with pytest.raises(asyncpg.InterfaceError, match="connection is closed"):
            await call(TEXT, 1)


async def test_a_provider_that_is_closed(one):
    await one.query(TEXT, [1])
    await one.close()
    with pytest.raises(ConnectionFailed):
        await one.query(TEXT, [1])


async def test_asyncpgs_own_class_serves_as_well(postgresql_database, monkeypatch):
    monkeypatch.setattr(connection, "_CONNECTION", asyncpg.Connection)
    async with postgresql_database.provider("main", location="norway", pool=Pool(min=1, max=1)) as main:
        for _ in range(2):
            assert [row["g"] for row in await main.query(TEXT, [2])] == [1, 2]
        slot = main._pool.take()
        assert type(slot.connection) is asyncpg.Connection
        main._pool.give(slot)
        assert await main.query_value("SELECT count(*) FROM pg_prepared_statements") > 0

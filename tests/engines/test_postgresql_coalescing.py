"""Coalesced reads on a real PostgreSQL: one statement for many keys, by the server's own idea of what is equal."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import itertools
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from tests.waiting import until

from datavern import Pool, PostgreSQLProvider
from datavern.contracts.errors import ConnectionFailed, QueryRejected
from datavern.testing import EmptyDatabase


class Sent:
    """What the provider's connections were sent, as the driver tells it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def watch(self, provider: PostgreSQLProvider) -> None:
        for slot in provider._pool.open:
            slot.connection.add_query_logger(lambda record: self.texts.append(record.query))


@pytest.fixture
async def pg(postgresql_database: EmptyDatabase) -> AsyncIterator[PostgreSQLProvider]:
    async with postgresql_database.provider(location="norway", pool=Pool(max=4)) as provider:
        yield provider


@pytest.fixture
async def people(pg: PostgreSQLProvider) -> PostgreSQLProvider:
    await pg.execute(
        "CREATE TABLE people (id int PRIMARY KEY, name text); "
        "INSERT INTO people SELECT n, 'name ' || n FROM generate_series(1, 1000) n"
    )
    return pg


async def outcome(awaitable: Any) -> Any:
    try:
        return await awaitable
    except QueryRejected as error:
        return type(error), str(error), error.code


async def test_many_keys_are_one_statement_and_it_needs_no_reset(
    people: PostgreSQLProvider, postgresql_database: EmptyDatabase
) -> None:
    async with postgresql_database.provider(location="norway", pool=Pool(max=1)) as one:
        read = one.coalesced("people", key="id")
        await asyncio.gather(read(1), read(2))  # the driver learns what an array of these keys is, for the connection
        sent, resets = Sent(), one.stats().reset
        sent.watch(one)
        assert [row["id"] for row in await asyncio.gather(*(read(key) for key in range(1, 51)))] == list(range(1, 51))
        assert len(sent.texts) == 1
        assert "= ANY ($1)" in sent.texts[0]
        assert one.stats().reset == resets
        assert (read.keys, read.statements) == (52, 2)


async def test_fifty_tasks_that_read_and_read_share_their_statements(people: PostgreSQLProvider) -> None:
    read = people.coalesced("people", key="id", columns=["name", "id"])

    async def work(n: int) -> None:
        for i in range(20):
            row = await read(n * 20 + i)
            assert row is None if n * 20 + i == 0 else row["id"] == n * 20 + i

    await asyncio.gather(*(work(n) for n in range(50)))
    assert read.keys == 1000
    assert read.statements <= 200  # five keys in each at the least; it is nearer to fifty


async def test_one_bad_key_among_fifty_costs_a_few_statements_and_nobody_else_their_row(
    people: PostgreSQLProvider,
) -> None:
    read = people.coalesced("people", key="id")
    found = await asyncio.gather(*(read(2**40 if n == 25 else n) for n in range(1, 51)), return_exceptions=True)
    assert isinstance(found[24], QueryRejected)
    assert "int4" in str(found[24])
    assert [row["id"] for n, row in enumerate(found) if n != 24] == [n for n in range(1, 51) if n != 25]
    assert read.statements <= 13


Q = 'SELECT "k", "n" FROM "kept" WHERE "k" = $1'
FOLDED = """
CREATE TYPE folded AS (v text);
CREATE FUNCTION same(folded, folded) RETURNS bool IMMUTABLE STRICT LANGUAGE sql RETURN lower(($1).v) = lower(($2).v);
CREATE OPERATOR = (LEFTARG = folded, RIGHTARG = folded, FUNCTION = same);
"""
NORWAY = dt.timezone(dt.timedelta(hours=1))
NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("column", "kept", "asked"),
    [
        ("smallint", [1, -32768], [1, 2, 32768, -32768]),
        ("bigint", [2**63 - 1], [2**63 - 1, 2**63, 0]),
        ("numeric", [Decimal("1.0"), Decimal("NaN")], [Decimal("1.00"), Decimal("nan"), 1, 1.0, "1", "x"]),
        ("real", [0.1], [0.1, 0.5]),
        ("float8", [0.0, float("nan"), float("inf")], [-0.0, 0, float("nan"), float("inf"), "1"]),
        ("bool", [True], [True, False, 1, None]),
        ("folded", [("Åse",)], [("åse",), ("ÅSE",), ("Åse",), ("ase",), (None,), "x", 1]),
        ("varchar(5)", ["abc"], ["abc", "abc ", "abcdefgh"]),
        ("char(5)", ["abc"], ["abc", "abc  ", "ABC"]),
        ('"char"', [b"a"], [b"a", b"b"]),
        ("name", ["abc"], ["abc", "x" * 100]),
        ("uuid", [uuid.UUID(int=7)], [uuid.UUID(int=7), str(uuid.UUID(int=7)), str(uuid.UUID(int=7)).upper(), "x", 7]),
        ("bytea", [b"\x00a"], [b"\x00a", bytearray(b"\x00a"), memoryview(b"\x00a"), b"", "a"]),
        ("date", [dt.date(2026, 1, 2)], [dt.date(2026, 1, 2), NOON, dt.date.max, "2026-01-02"]),
        ("timestamptz", [NOON], [NOON, NOON.astimezone(NORWAY), NOON.replace(tzinfo=None)]),
        ("timestamp", [NOON.replace(tzinfo=None)], [NOON.replace(tzinfo=None), NOON]),
        ("interval", [dt.timedelta(days=1)], [dt.timedelta(hours=24), dt.timedelta(days=2)]),
        ("inet", [ipaddress.ip_address("::1")], [ipaddress.ip_address("::1"), "::1", ipaddress.ip_network("::1")]),
        ("cidr", [ipaddress.ip_network("10.0.0.0/30")], [ipaddress.ip_network("10.0.0.0/30"), "10.0.0.1"]),
        ("jsonb", [{"a": [1]}, [1, 2]], [{"a": [1.0]}, {"a": [1]}, [1, 2], "x", None, 1]),
        ("json", [], [{"a": 1}, 1]),
        ("int[]", [[1, 2], [3]], [[1, 2], [3], [1], [], 1]),
        ("int4range", [asyncpg.Range(1, 5)], [asyncpg.Range(1, 5), asyncpg.Range(1, 4, upper_inc=True), (1, 5)]),
        ("mood", ["glad"], ["glad", "sad", "angry", 1]),
        ("positive", [5], [5, -5, 0, "x"]),
        ("pair", [(1, "a")], [(1, "a"), (1, "b"), (1,), "x"]),
        ('"We""ird".mood', ["x"], ["x", "y"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_the_server_says_what_is_equal(
    pg: PostgreSQLProvider, column: str, kept: list[Any], asked: list[Any]
) -> None:
    await pg.execute(
        FOLDED + "CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); "
        "CREATE TYPE pair AS (a int, b text); "
        'CREATE SCHEMA "We""ird"; CREATE TYPE "We""ird".mood AS ENUM (\'x\', \'y\'); '
        f"CREATE TABLE kept (k {column}, n int)"
    )
    await pg.execute_many("INSERT INTO kept VALUES ($1, $2)", [(key, n) for n, key in enumerate(kept)])
    single = [await outcome(pg.query_one(Q, [key])) for key in asked]
    read = pg.coalesced("kept", key="k", columns=["k", "n"])
    for _ in range(5):
        assert repr(await asyncio.gather(*(outcome(read(key)) for key in asked))) == repr(single)
    assert repr([await outcome(read(key)) for key in asked]) == repr(single)
    for key, expected in zip(asked, single, strict=True):
        assert repr(await asyncio.gather(outcome(read(key)), outcome(read(key)))) == repr([expected, expected])


async def test_keys_of_several_parts_are_sent_one_by_one(pg: PostgreSQLProvider) -> None:
    await pg.execute(
        FOLDED + "CREATE TABLE arrays (k int[], n int); INSERT INTO arrays VALUES ('{1,2}', 1), ('{3}', 2); "
        "CREATE TABLE composites (k folded, n int); INSERT INTO composites VALUES (ROW('A'), 1), (ROW('b'), 2)"
    )
    arrays, composites = pg.coalesced("arrays", key="k"), pg.coalesced("composites", key="k")
    sent = Sent()
    for _ in range(6):
        assert [row["n"] for row in await asyncio.gather(arrays([1, 2]), arrays([3]))] == [1, 2]
        assert [row["n"] for row in await asyncio.gather(composites(("B",)), composites(("a",)))] == [2, 1]
        assert await asyncio.gather(composites(None), composites(None)) == [None, None]
        sent.texts.clear()
        sent.watch(pg)
    assert not any("datavern_asked" in text for text in sent.texts)


async def test_a_column_of_the_systems_is_read_key_by_key_and_soon_without_trying(people: PostgreSQLProvider) -> None:
    """SELECT * does not show it, so no row says whose it is."""
    table = await people.query_value("SELECT 'people'::regclass::oid")
    read = people.coalesced("people", key="tableoid")
    for _ in range(5):
        found = await asyncio.gather(read(table), read(1))
        assert (list(found[0].keys()), found[1]) == (["id", "name"], None)
    assert (read.keys, read.statements) == (10, 13)
    named = people.coalesced("people", key="tableoid", columns=["tableoid", "id"])
    assert [row and row["tableoid"] for row in await asyncio.gather(named(table), named(1))] == [table, None]
    assert named.statements == 1


async def test_rows_whose_other_columns_are_null_are_rows(pg: PostgreSQLProvider) -> None:
    await pg.execute(
        "CREATE TABLE kept (a int, k int, b int); INSERT INTO kept VALUES (NULL, 1, NULL), (NULL, NULL, 2)"
    )
    read = pg.coalesced("kept", key="k", columns=["a", "k"])
    rows = await asyncio.gather(read(1), read(2), read(None))
    assert [None if row is None else tuple(row) for row in rows] == [(None, 1), None, None]


async def test_a_row_that_cannot_be_computed_fails_its_caller_alone(people: PostgreSQLProvider) -> None:
    await people.execute("CREATE VIEW shares AS SELECT id, 100 / (id - 7) AS share FROM people")
    read = people.coalesced("shares", key="id")
    found = await asyncio.gather(*(outcome(read(key)) for key in range(1, 21)))
    assert found[6][2] == "22012"
    assert [row["id"] for n, row in enumerate(found) if n != 6] == [n for n in range(1, 21) if n != 7]


async def test_tables_of_schemas_views_and_partitions(pg: PostgreSQLProvider) -> None:
    await pg.execute(
        "CREATE SCHEMA store; CREATE TABLE store.items (id int, n int) PARTITION BY RANGE (id); "
        "CREATE TABLE store.low PARTITION OF store.items FOR VALUES FROM (0) TO (10); "
        "CREATE TABLE store.high PARTITION OF store.items FOR VALUES FROM (10) TO (20); "
        "INSERT INTO store.items SELECT n, n * n FROM generate_series(0, 19) n; "
        "CREATE VIEW sums AS SELECT id % 5 AS id, sum(n) AS total FROM store.items GROUP BY 1"
    )
    read, total = pg.coalesced("store.items", key="id"), pg.coalesced("sums", key="id")
    assert [row["n"] for row in await asyncio.gather(*(read(key) for key in (3, 15, 9)))] == [9, 225, 81]
    sums = dict(await pg.query("SELECT id, total FROM sums"))
    assert [row["total"] for row in await asyncio.gather(*(total(key) for key in range(5)))] == [
        sums[n] for n in range(5)
    ]


async def test_a_column_that_changes_its_type_or_its_equality_under_a_read_in_use(pg: PostgreSQLProvider) -> None:
    """The prepared statements of the connections are from before; what they answer must not be."""
    await pg.execute("CREATE TABLE kept (k text, n int); INSERT INTO kept VALUES ('A', 1), ('B', 2), ('7', 7)")
    read = pg.coalesced("kept", key="k")
    number = itertools.count()

    async def compare(*keys: Any) -> list[Any]:
        for _ in range(12):
            found = await asyncio.gather(*(outcome(read(key)) for key in keys))
        new = f"SELECT * FROM kept WHERE k = $1 -- {next(number)}"  # not one that the driver has prepared before
        assert found == [await outcome(pg.query_one(new, [key])) for key in keys]
        return [row if row is None or isinstance(row, tuple) else row["n"] for row in found]

    assert await compare("A", "A ", "B") == [1, None, 2]
    await pg.execute("ALTER TABLE kept ALTER k TYPE char(5)")
    assert await compare("A", "A ", "B") == [1, 1, 2]
    await pg.execute('ALTER TABLE kept ALTER k TYPE varchar(9) COLLATE "C"')
    assert await compare("A", "A ", "B") == [1, None, 2]
    await pg.execute("DELETE FROM kept WHERE k <> '7'; ALTER TABLE kept ALTER k TYPE int USING k::int")
    assert (await compare(7, 8, "7"))[:2] == [7, None]
    await pg.execute(
        "ALTER TABLE kept RENAME TO other; CREATE TABLE kept (k text, n int); INSERT INTO kept VALUES ('x', 3)"
    )
    assert await compare("x", "y") == [3, None]


async def test_when_all_have_left_the_server_stops(people: PostgreSQLProvider) -> None:
    await people.execute("CREATE VIEW slow AS SELECT id, pg_sleep(600)::text AS s FROM people")
    others = (
        "SELECT pid FROM pg_stat_activity "
        "WHERE state = 'active' AND query LIKE '%datavern_asked%' AND pid <> pg_backend_pid()"
    )
    read = people.coalesced("slow", key="id")
    asked = [asyncio.ensure_future(read(key)) for key in range(1, 6)]

    async def runs() -> bool:
        return bool(await people.query(others))

    async def stopped() -> bool:
        return not await people.query(others)

    await until(runs)
    for task in asked[:4]:
        task.cancel()
    await asyncio.sleep(0.05)
    assert await runs()
    asked[4].cancel()
    await until(stopped)
    assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*asked, return_exceptions=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await read(1)
    await until(stopped)


async def test_a_statement_that_took_too_long_is_not_tried_again_in_halves(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=2)) as pg:
        await pg.execute("CREATE TABLE people (id int PRIMARY KEY)")
        await pg.execute(
            "DO $$ BEGIN EXECUTE format('ALTER ROLE %I IN DATABASE %I SET statement_timeout = ''500ms''', "
            "current_user, current_database()); END $$"
        )
    async with postgresql_database.provider(pool=Pool(max=2)) as pg, postgresql_database.provider() as other:
        read = pg.coalesced("people", key="id")
        await asyncio.gather(read(1), read(2))
        async with other.transaction() as tx:
            await tx.execute("LOCK TABLE people")
            found = await asyncio.gather(*(read(key) for key in range(20)), return_exceptions=True)
        assert [error.code for error in found] == ["57014"] * 20
        assert read.statements == 2


async def test_reads_that_hang_leave_half_of_the_connections_to_others(people: PostgreSQLProvider) -> None:
    read = people.coalesced("people", key="id", batch_size=10)
    async with people.transaction() as tx:  # a connection of the four
        await tx.execute("LOCK TABLE people")
        asked = [asyncio.ensure_future(read(key)) for key in range(1, 101)]
        await until(lambda: people.stats().in_use == 3)
        assert await people.query_value("SELECT 1") == 1
        assert people.stats().in_use == 3
    assert [row["id"] for row in await asyncio.gather(*asked)] == list(range(1, 101))


async def test_a_connection_that_breaks_is_told_to_each_with_an_error_of_its_own(people: PostgreSQLProvider) -> None:
    await people.execute("CREATE VIEW slow AS SELECT id, pg_sleep(600)::text AS s FROM people")
    read = people.coalesced("slow", key="id")
    asked = [asyncio.ensure_future(read(key)) for key in range(1, 6)]
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE state = 'active' AND query LIKE '%\"slow\"%' AND pid <> pg_backend_pid()"
    )

    async def killed() -> bool:
        return bool(await people.query(kill))

    await until(killed)
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in found] == [ConnectionFailed] * 5
    assert {error.retry for error in found} == {"safe"}
    assert len({id(error) for error in found}) == 5
    good = people.coalesced("people", key="id")
    assert [row["id"] for row in await asyncio.gather(good(1), good(2))] == [1, 2]

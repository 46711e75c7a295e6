"""Reads by key through `coalesced`: each caller gets what the single statement gives, whoever reads beside it."""

from __future__ import annotations

import asyncio
import datetime as dt
import traceback
import uuid
from decimal import Decimal

import pytest
from tests.waiting import settled

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError, PoolTimeout, QueryRejected

SECRET = "Kari-Nordmann-13097248022"


@pytest.fixture
async def people(provider, sql):
    await provider.execute(sql("CREATE TABLE people (id {integer} PRIMARY KEY, name {text}, country {text})"))
    rows = [(n, f"name {n}", None if n % 3 else "Norway") for n in range(1, 201)]
    await provider.execute_many(sql("INSERT INTO people (id, name, country) VALUES ($1, $2, $3)"), rows)
    return provider


async def outcome(awaitable):
    """What came of it, in a form that two ways of asking can be compared in."""
    try:
        row = await awaitable
    except DatavernError as error:
        return type(error), str(error), error.code, error.retry
    return None if row is None else dict(row)


async def test_each_caller_gets_its_own_row(people):
    read = people.coalesced("people", key="id", columns=["id", "name"])
    rows = await asyncio.gather(*(read(key) for key in (7, 3, 9999, 200, 3)))
    assert [None if row is None else dict(row) for row in rows] == [
        {"id": 7, "name": "name 7"},
        {"id": 3, "name": "name 3"},
        None,
        {"id": 200, "name": "name 200"},
        {"id": 3, "name": "name 3"},
    ]
    assert (rows[0]["name"], rows[0][0], list(rows[0].keys())) == ("name 7", 7, ["id", "name"])


async def test_the_row_is_the_one_that_the_statement_gives(people, sql):
    statement = sql("SELECT name, country, id FROM people WHERE id = $1")
    read = people.coalesced("people", key="id", columns=["name", "country", "id"])
    all_columns = people.coalesced("people", key="id")
    keys = range(-5, 210)
    single = [await people.query_one(statement, [key]) for key in keys]
    assert await asyncio.gather(*(read(key) for key in keys)) == single
    star = [await people.query_one(sql("SELECT * FROM people WHERE id = $1"), [key]) for key in keys]
    assert await asyncio.gather(*(all_columns(key) for key in keys)) == star
    assert [await read(key) for key in (1, 2, 999)] == [single[6], single[7], None]


async def test_no_key_finds_nothing(people):
    read = people.coalesced("people", key="country")
    assert await read(None) is None
    assert await asyncio.gather(read(None), read(None)) == [None, None]


@pytest.mark.parametrize(
    "key",
    ["x", "1", 2**31, 2**70, -(2**63), 1.0, 1.5, float("nan"), True, b"1", "a\0b", "\ud800", Decimal(1), [1], [], (1,),
     {"id": 1}, {1}, object(), uuid.UUID(int=1), dt.date(2026, 11, 23), SECRET],
    ids=lambda key: type(key).__name__,
)  # fmt: skip
async def test_a_key_of_another_type_is_its_callers_own_trouble(people, sql, key):
    read = people.coalesced("people", key="id", columns=["id", "name"])
    single = await outcome(people.query_one(sql("SELECT id, name FROM people WHERE id = $1"), [key]))
    found = await asyncio.gather(*(outcome(read(k)) for k in (1, key, 2, 9999, key, 3)))
    assert found == [
        {"id": 1, "name": "name 1"},
        single,
        {"id": 2, "name": "name 2"},
        None,
        single,
        {"id": 3, "name": "name 3"},
    ]
    assert await outcome(read(key)) == single
    assert await asyncio.gather(outcome(read(key)), outcome(read(key))) == [single, single]


async def test_a_refused_key_is_in_no_message_and_no_traceback(people):
    read = people.coalesced("people", key="name")
    keys = [f"{SECRET}\0", "name 1", f"{SECRET}\ud800"]
    found = await asyncio.gather(*(read(key) for key in keys), return_exceptions=True)
    assert [type(row) for row in (found[0], found[2])] == [QueryRejected] * 2
    assert found[1]["id"] == 1
    for error in (found[0], found[2]):
        chain = [error, error.__cause__, error.__context__]
        assert SECRET not in "".join(traceback.format_exception(error)) + repr(
            [(e, getattr(e, "args", ())) for e in chain]
        )


async def test_several_rows_with_one_key_are_one_of_them(people):
    read = people.coalesced("people", key="country", columns=["id", "country"])
    rows = await asyncio.gather(*(read("Norway") for _ in range(5)), read("Danmark"))
    assert [row["country"] for row in rows[:5]] == ["Norway"] * 5
    assert all(row["id"] % 3 == 0 for row in rows[:5])
    assert rows[5] is None


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("text", ["", "a", "A", "a ", "å", "a\u030a", "Å", "😀", "'; DROP TABLE kept; --", "x" * 3000]),
        ("bytes", [b"", b"\x00", b"\x00\x00", b"\xff", bytes(range(256))]),
        ("bigint", [0, 1, -1, 2**63 - 1, -(2**63)]),
        ("real", [0.0, 0.1, -1e308, 5e-324, 1e22]),
    ],
)
async def test_keys_of_every_kind_find_their_own_row(provider, sql, kind, keys):
    await provider.execute(sql("CREATE TABLE kept (k {" + kind + "} PRIMARY KEY, n {integer})"))
    await provider.execute_many(sql("INSERT INTO kept VALUES ($1, $2)"), [(k, n) for n, k in enumerate(keys)])
    read = provider.coalesced("kept", key="k")
    rows = await asyncio.gather(*(read(key) for key in reversed(keys)))
    assert [(row["k"], row["n"]) for row in rows] == [(k, n) for n, k in reversed(list(enumerate(keys)))]


async def test_names_with_quotes_and_letters_are_only_names(provider, sql):
    await provider.execute('CREATE TABLE "bl""å; --" ("k e""y" int PRIMARY KEY, "select" int)')
    await provider.execute(sql('INSERT INTO "bl""å; --" VALUES ($1, $2)'), [1, 2])
    read = provider.coalesced('bl"å; --', key='k e"y', columns=["select", 'k e"y'])
    assert [None if r is None else dict(r) for r in await asyncio.gather(read(1), read(2))] == [
        {"select": 2, 'k e"y': 1},
        None,
    ]


@pytest.mark.parametrize("columns", [None, ["id", "ordinality", "n"]])
async def test_names_that_a_statement_of_ours_might_use_are_the_tables_own(provider, sql, columns):
    for table in ("found", "keys", "unnest", "t"):
        await provider.execute(f'CREATE TABLE "{table}" (id int PRIMARY KEY, ordinality int, n int)')
        await provider.execute_many(sql(f'INSERT INTO "{table}" VALUES ($1, $2, $3)'), [(5, 50, 500), (6, 60, 600)])
        read = provider.coalesced(table, key="id", columns=columns)
        assert [tuple(row) for row in await asyncio.gather(read(6), read(5))] == [(6, 60, 600), (5, 50, 500)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"table": "nothing", "key": "id"},
        {"table": "people", "key": "nothing"},
        {"table": "people", "key": "id", "columns": ["id", "nothing"]},
        {"table": "people", "key": "id", "columns": ["id", "count"]},
        {"table": "people", "key": "id", "columns": ["id", "datavern_place"]},
        {"table": "elsewhere.people", "key": "id"},
    ],
    ids=str,
)
async def test_a_table_or_column_that_is_not_there_is_told_to_everybody(people, sql, wrong):
    read = people.coalesced(**wrong)
    for _ in range(2):
        found = await asyncio.gather(*(read(key) for key in (1, 2, 3)), return_exceptions=True)
        assert [type(error) for error in found] == [QueryRejected] * 3
    with pytest.raises(QueryRejected):
        await read(1)
    assert await people.query_value("SELECT count(*) FROM people") == 200


async def test_a_wrong_call_is_refused_before_anything_is_sent(database):
    provider = database.provider(location="norway")  # not open
    for wrong in (
        {"table": "people", "key": "id", "columns": ["name"]},
        {"table": "people", "key": ""},
        {"table": "a.b.c", "key": "id"},
        {"table": "", "key": "id"},
        {"table": "people", "key": "id", "batch_size": 0},
    ):
        with pytest.raises(ConfigurationError):
            provider.coalesced(**wrong)


async def test_what_was_committed_before_is_seen(people, sql):
    read = people.coalesced("people", key="id", columns=["id", "name"])
    update = sql("UPDATE people SET name = $1 WHERE id = $2")

    async def work(n: int) -> None:
        for i in range(15):
            await people.execute(update, [f"{n}: {i}", n])
            row, other = await asyncio.gather(read(n), read(n % 20 + 1))
            assert row["name"] == f"{n}: {i}"
            assert other["id"] == n % 20 + 1

    await asyncio.gather(*(work(n) for n in range(1, 21)))


async def test_it_reads_outside_of_transactions_and_is_not_offered_in_one(people, sql):
    read = people.coalesced("people", key="id", columns=["id", "name"])
    async with people.transaction() as tx:
        assert not hasattr(tx, "coalesced")
        await tx.execute(sql("UPDATE people SET name = $1 WHERE id = $2"), ["not yet", 1])
        found = await asyncio.gather(asyncio.create_task(_call(read, 1)), asyncio.create_task(_call(read, 2)))
        assert [row["name"] for row in found] == ["name 1", "name 2"]
    assert (await read(1))["name"] == "not yet"


async def _call(read, key):
    return await read(key)


async def test_a_new_column_is_seen(people, sql):
    read = people.coalesced("people", key="id")
    assert "email" not in dict((await asyncio.gather(read(1), read(2)))[0])
    await people.execute(sql("ALTER TABLE people ADD COLUMN email {text}"))
    rows = await asyncio.gather(read(1), read(2), read(9999))
    assert dict(rows[0])["email"] is None
    assert rows[2] is None


async def test_fifty_tasks_get_their_own_rows_whoever_is_cancelled(people):
    read = people.coalesced("people", key="id", columns=["id", "name"], batch_size=20)

    async def work(n: int) -> int:
        for i in range(40):
            key = (n * 37 + i * 11) % 220 + 1
            row = await read(key)
            assert (None if row is None else row["id"]) == (key if key <= 200 else None)
        return n

    tasks = [asyncio.create_task(work(n)) for n in range(50)]
    for n in range(0, 50, 5):
        await asyncio.sleep(0.001)
        tasks[n].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(f == n if n % 5 else isinstance(f, asyncio.CancelledError) or f == n for n, f in enumerate(found))
    assert read.statements <= read.keys
    await settled(people)


async def test_closing_while_many_read_ends_them_all(database, sql):
    provider = database.provider(location="norway")
    read = provider.coalesced("people", key="id", batch_size=5)
    with pytest.raises(ConnectionFailed):
        await read(1)
    await provider.connect()
    await provider.execute("CREATE TABLE people (id int PRIMARY KEY)")
    await provider.execute("INSERT INTO people VALUES (1)")
    asked = [asyncio.create_task(_call(read, 1)) for _ in range(300)]
    await asyncio.sleep(0.001)
    await provider.close()
    async with asyncio.timeout(20):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(row, ConnectionFailed | PoolTimeout) or row["id"] == 1 for row in found)
    async with provider:
        assert (await read(1))["id"] == 1


async def test_the_capability_is_the_call(people):
    read = needs(people, "point_reads").coalesced("people", key="id")
    assert (await read(4))["name"] == "name 4"
    assert read.keys == read.statements == 1

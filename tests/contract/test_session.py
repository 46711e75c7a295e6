"""Statements one by one: query, query_one, query_value, execute, execute_many, stream."""

from __future__ import annotations

import asyncio

import pytest

from datavern.contracts.errors import ConnectionFailed, ConstraintViolated, DatavernError, QueryRejected

PEOPLE = [(1, "Åse", "Norway"), (2, "Øystein", "Norway"), (3, "Ægir", "Ísland")]


@pytest.fixture
async def people(provider, sql):
    await provider.execute(sql("CREATE TABLE people (id {integer} PRIMARY KEY, name {text} UNIQUE, country {text})"))
    await provider.execute_many(sql("INSERT INTO people (id, name, country) VALUES ($1, $2, $3)"), PEOPLE)
    return provider


async def count(provider):
    return await provider.query_value("SELECT count(*) FROM people")


async def test_a_row_answers_by_name_and_by_position_and_makes_a_dict(people, sql):
    rows = await people.query(sql("SELECT id, name FROM people WHERE country = $1 ORDER BY id"), ["Norway"])
    assert [row["name"] for row in rows] == ["Åse", "Øystein"]
    assert rows[0][0] == 1
    assert dict(rows[0]) == {"id": 1, "name": "Åse"}
    assert list(rows[0].keys()) == ["id", "name"]
    assert len(rows[0]) == 2
    assert list(rows[0]) == [1, "Åse"]


async def test_no_rows_are_an_empty_sequence_and_none(people, sql):
    assert list(await people.query(sql("SELECT * FROM people WHERE id = $1"), [9])) == []
    assert await people.query_one(sql("SELECT * FROM people WHERE id = $1"), [9]) is None
    assert await people.query_value(sql("SELECT name FROM people WHERE id = $1"), [9]) is None


async def test_query_one_and_query_value_take_the_first(people):
    row = await people.query_one("SELECT id, name FROM people ORDER BY id DESC")
    assert dict(row) == {"id": 3, "name": "Ægir"}
    assert await people.query_value("SELECT name, id FROM people ORDER BY id") == "Åse"
    assert await people.query_value("SELECT NULL") is None


async def test_execute_tells_how_many_rows_were_changed(people, sql):
    assert await people.execute(sql("INSERT INTO people VALUES ($1, $2, $3)"), [4, "Kari", "Norway"]) == 1
    assert await people.execute(sql("UPDATE people SET country = $1 WHERE country = $2"), ["Noreg", "Norway"]) == 3
    assert await people.execute("UPDATE people SET country = 'x' WHERE id = 77") == 0
    assert await people.execute("INSERT INTO people SELECT id + 10, name || '+', country FROM people") == 4
    assert await people.execute("DELETE FROM people WHERE id > 10") == 4
    assert await people.execute("DELETE FROM people") == 4
    assert await people.execute("CREATE TABLE other (id int)") == 0
    assert await people.execute("DROP TABLE other") == 0


async def test_execute_counts_what_a_with_clause_changes(people):
    changed = await people.execute(
        "WITH m AS (SELECT id + 10 AS id, name FROM people) INSERT INTO people (id, country) SELECT id, name FROM m"
    )
    assert changed == 3
    assert await count(people) == 6


async def test_execute_counts_rows_that_are_returned_and_not_read(people):
    assert await people.execute("UPDATE people SET country = 'x' RETURNING id") == 3


async def test_a_change_that_returns_rows_is_kept(people, sql):
    rows = await people.query(
        sql("INSERT INTO people VALUES ($1, $2, $3), ($4, $5, $6) RETURNING id"), [7, "a", "b", 8, "c", "d"]
    )
    assert [row["id"] for row in rows] == [7, 8]
    one = await people.query_one(sql("UPDATE people SET name = $1 WHERE id = $2 RETURNING name"), ["New", 7])
    assert one["name"] == "New"
    assert await people.query_value("DELETE FROM people WHERE id = 8 RETURNING name") == "c"
    again = "WITH x AS (SELECT 20 AS id) INSERT INTO people (id, name) SELECT id, 'w' FROM x RETURNING id"
    assert await people.query_value(again) == 20
    assert await count(people) == 5


async def test_execute_many_runs_every_set_or_none(people, sql):
    insert = sql("INSERT INTO people VALUES ($1, $2, $3)")
    assert await people.execute_many(insert, [(n, f"n{n}", "x") for n in range(10, 60)]) == 50
    assert await people.execute_many(insert, []) == 0
    with pytest.raises(ConstraintViolated):
        await people.execute_many(insert, [(100, "new", "x"), (101, "newer", "x"), (1, "again", "x")])
    with pytest.raises(QueryRejected):
        await people.execute_many(insert, [(100, "new", "x"), (101, "newer")])
    assert await count(people) == 53


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "blåbærsyltetøy"),
        ("text", "😀 \u200d \U0010ffff"),
        ("text", ""),
        ("text", "'; DROP TABLE people; --"),
        ("text", "line\nline\r\n\ttab\\ %s $1 ? :x"),
        ("text", "x" * 1_000_000),
        ("bytes", b"\x00\xff\x00 bytes"),
        ("bytes", b""),
        ("bigint", 2**63 - 1),
        ("bigint", -(2**63)),
        ("bigint", 0),
        ("real", 0.1),
        ("real", -1e308),
        ("text", None),
    ],
    ids=str,
)
async def test_a_value_comes_back_as_it_went_in(provider, sql, kind, value):
    await provider.execute(sql("CREATE TABLE kept (v {" + kind + "})"))
    await provider.execute(sql("INSERT INTO kept VALUES ($1)"), [value])
    found = await provider.query_value("SELECT v FROM kept")
    assert found == value
    assert type(found) is type(value)


async def test_names_with_quotes_and_letters_are_only_names(provider, sql):
    table = '"\'; DROP TABLE people; --"'
    await provider.execute(f'CREATE TABLE {table} ("blå ""bær""" int)')
    await provider.execute(sql(f"INSERT INTO {table} VALUES ($1)"), [3])
    row = await provider.query_one(f"SELECT * FROM {table}")
    assert dict(row) == {'blå "bær"': 3}


async def test_a_new_column_is_seen_by_a_statement_that_ran_before(people):
    star = "SELECT * FROM people WHERE id = 1"
    assert "email" not in dict(await people.query_one(star))
    await people.execute("ALTER TABLE people ADD COLUMN email varchar(99)")
    assert dict(await people.query_one(star))["email"] is None


# ---- stream ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def numbers(provider, sql):
    await provider.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
    await provider.execute(sql("INSERT INTO numbers {thousand} SELECT i FROM n"))
    return provider


@pytest.mark.parametrize("batch_size", [1, 7, 250, 999, 1000, 1001, 10_000])
async def test_a_stream_gives_every_row_in_order(numbers, batch_size):
    async with numbers.stream("SELECT n FROM numbers ORDER BY n", batch_size=batch_size) as rows:
        assert [row["n"] async for row in rows] == list(range(1, 1001))


async def test_a_stream_takes_parameters_and_may_be_empty(numbers, sql):
    async with numbers.stream(sql("SELECT n FROM numbers WHERE n > $1 ORDER BY n"), [998]) as rows:
        assert [row[0] async for row in rows] == [999, 1000]
    async with numbers.stream(sql("SELECT n FROM numbers WHERE n > $1"), [5000]) as rows:
        assert [row async for row in rows] == []


async def test_leaving_a_stream_early_gives_the_connection_back(numbers):
    for _ in range(40):
        async with numbers.stream("SELECT n FROM numbers ORDER BY n", batch_size=10) as rows:
            async for row in rows:
                if row["n"] == 15:
                    break
    for _ in range(40):
        with pytest.raises(KeyError):
            async with numbers.stream("SELECT n FROM numbers", batch_size=10) as rows:
                async for _row in rows:
                    raise KeyError
    assert await numbers.query_value("SELECT count(*) FROM numbers") == 1000


async def test_a_stream_sees_one_moment_while_others_write(numbers):
    seen = 0
    async with numbers.stream("SELECT n FROM numbers ORDER BY n", batch_size=100) as rows:
        async for row in rows:
            seen += 1
            if row["n"] % 100 == 0:
                await numbers.execute(f"INSERT INTO numbers VALUES ({row['n'] + 100_000})")
    assert seen == 1000
    assert await numbers.query_value("SELECT count(*) FROM numbers") == 1010


async def test_several_streams_at_once_do_not_block_anything(numbers):
    async def read() -> int:
        total = 0
        async with numbers.stream("SELECT n FROM numbers", batch_size=50) as rows:
            async for row in rows:
                total += row["n"]
        return total

    sums, one = await asyncio.gather(
        asyncio.gather(*(read() for _ in range(12))), numbers.query_value("SELECT count(*) FROM numbers")
    )
    assert sums == [500_500] * 12
    assert one == 1000


async def test_a_wrong_stream_says_so(numbers):
    with pytest.raises(QueryRejected):
        async with numbers.stream("SELECT nothing FROM numbers") as rows:
            async for _ in rows:
                pass
    assert await numbers.query_value("SELECT count(*) FROM numbers") == 1000


# ---- many at once, and cancelled ------------------------------------------------------------------------------------


async def test_fifty_tasks_at_once_each_get_their_own_answer(people, sql):
    select = sql("SELECT name FROM people WHERE id = $1")
    insert = sql("INSERT INTO people VALUES ($1, $2, $3)")

    async def work(n: int) -> None:
        for i in range(5):
            key = 1000 + n * 5 + i
            await people.execute(insert, [key, f"name {key}", "x"])
            assert await people.query_value(select, [key]) == f"name {key}"

    await asyncio.gather(*(work(n) for n in range(50)))
    assert await count(people) == 253


async def test_a_failure_among_many_is_its_callers_alone(people, sql):
    insert = sql("INSERT INTO people VALUES ($1, $2, $3)")
    results = await asyncio.gather(
        *(people.execute(insert, [100 + n // 2, f"n{n}", "x"]) for n in range(60)), return_exceptions=True
    )
    kept = [r for r in results if r == 1]
    refused = [r for r in results if isinstance(r, ConstraintViolated)]
    assert (len(kept), len(refused)) == (30, 30)
    assert await count(people) == 33


async def test_a_deadline_ends_a_long_query_and_leaves_everything_usable(people, sql):
    for _ in range(12):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await people.query(sql.words["endless"])
    assert await count(people) == 3


async def test_a_cancelled_query_is_cancelled(people, sql):
    task = asyncio.create_task(people.query(sql.words["endless"]))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert await count(people) == 3


# ---- opening and closing --------------------------------------------------------------------------------------------


async def test_opening_and_closing_twice_is_the_same_as_once(database):
    provider = database.provider(location="norway")
    with pytest.raises(ConnectionFailed):
        await provider.query("SELECT 1")
    await provider.connect()
    await provider.connect()
    assert await provider.query_value("SELECT 1") == 1
    await provider.close()
    await provider.close()
    with pytest.raises(ConnectionFailed):
        await provider.query("SELECT 1")
    async with provider:
        assert await provider.query_value("SELECT 2") == 2


async def test_closing_while_many_calls_run_ends_them_all(database, sql):
    provider = database.provider(location="norway")
    await provider.connect()
    await provider.execute("CREATE TABLE t (n int)")
    calls = [asyncio.create_task(provider.execute(sql("INSERT INTO t VALUES ($1)"), [n])) for n in range(30)]
    calls += [asyncio.create_task(provider.query(sql.words["endless"])) for _ in range(5)]
    await asyncio.sleep(0.01)
    await provider.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(r == 1 or isinstance(r, DatavernError) for r in results)
    async with provider:
        assert await provider.query_value("SELECT count(*) FROM t") >= sum(r == 1 for r in results)


async def test_health_tells_the_role_and_never_raises(provider, database):
    health = await provider.health()
    assert (health.status, health.role, health.detail) == ("healthy", "primary", "")
    assert health.version
    assert health.latency > 0
    assert health.pool is not None
    assert (await database.provider(location="norway").health()).status == "unhealthy"


async def test_a_provider_says_what_it_is(provider, engine):
    assert provider.engine == engine
    assert provider.provider is provider
    assert provider.location == "norway"
    assert provider.encrypted
    for name in ("session", "transactions", "subjects", "ledger"):
        assert getattr(provider.capabilities, name) is not None

"""What is PostgreSQL's own about its search: the index, and who makes it when."""

from __future__ import annotations

import asyncio

import pytest

from datavern.contracts.errors import ConfigurationError


@pytest.fixture
async def articles(postgresql):
    await postgresql.execute("CREATE TABLE articles (id int PRIMARY KEY, title varchar(200), body text)")
    await postgresql.execute(
        "INSERT INTO articles SELECT i, 'sak ' || i, 'ord' || i || ' om kommuner' FROM generate_series(1, 5000) i"
    )
    return postgresql


async def indexes(provider):
    rows = await provider.query(
        "SELECT indexname, indexdef FROM pg_indexes WHERE indexname LIKE '%search' ORDER BY indexname"
    )
    return [row["indexdef"] for row in rows]


async def test_a_search_works_without_the_index_and_uses_it_when_it_is_there(articles):
    assert [r["id"] for r in await articles.search("articles", "body", "ord77")] == [77]
    ran = await articles.enable_search("articles", "body")
    assert len(ran) == 1
    assert ran[0].startswith("CREATE INDEX CONCURRENTLY")
    await articles.execute("ANALYZE articles")
    sql = next(iter(articles._search_texts.values()))
    plan = await articles.query(f"EXPLAIN {sql}", ["ord77", 10, ""])
    assert any("Bitmap Index Scan" in row[0] and "search" in row[0] for row in plan)
    assert [r["id"] for r in await articles.search("articles", "body", "ord77")] == [77]


async def test_an_index_that_was_left_half_made_is_made_again(articles):
    await articles.enable_search("articles", ["title", "body"])
    name = await articles.query_value("SELECT indexname FROM pg_indexes WHERE indexname LIKE '%search'")
    await articles.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass", [name])
    ran = await articles.enable_search("articles", ["title", "body"])
    assert [statement.split()[0] for statement in ran] == ["DROP", "CREATE"]
    assert await articles.enable_search("articles", ["title", "body"]) == []


async def test_two_processes_at_once_make_one_index(postgresql_database, articles):
    async with postgresql_database.provider("other", location="norway") as other:
        ran = await asyncio.gather(
            articles.enable_search("articles", "body"),
            other.enable_search("articles", "body"),
            articles.enable_search("articles", "title"),
        )
    assert [len(r) for r in ran].count(1) == 2
    assert len(await indexes(articles)) == 2


async def test_a_pool_of_one_is_enough(postgresql_database, articles):
    from datavern import Pool

    async with postgresql_database.provider("one", location="norway", pool=Pool(min=0, max=1)) as one:
        assert len(await one.enable_search("articles", "body")) == 1
        assert await one.query_value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_cancelled_while_another_makes_it(articles):
    async with articles.transaction() as tx:
        await tx.execute("INSERT INTO articles VALUES (0, 'x', 'y')")  # CREATE INDEX CONCURRENTLY waits for its end
        task = asyncio.ensure_future(articles.enable_search("articles", "body"))
        while not await articles.query_value("SELECT count(*) FROM pg_index WHERE NOT indisvalid"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await articles.enable_search("articles", "body"))[-1].startswith("CREATE INDEX")
    assert len(await indexes(articles)) == 1


async def test_a_partitioned_table_and_a_materialised_view(articles):
    await articles.execute("CREATE TABLE p (id int, body text) PARTITION BY RANGE (id)")
    await articles.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    await articles.execute("INSERT INTO p VALUES (1, 'et hus')")
    assert len(await articles.enable_search("p", "body")) == 1
    assert await articles.enable_search("p", "body") == []
    assert [r["id"] for r in await articles.search("p", "body", "huset")] == [1]
    assert len(await articles.disable_search("p", "body")) == 1
    await articles.execute("CREATE MATERIALIZED VIEW m AS SELECT * FROM articles")
    assert len(await articles.enable_search("m", "body")) == 1


async def test_a_configuration_of_ones_own_and_long_names(articles):
    await articles.execute('CREATE SCHEMA "s"')
    await articles.execute("CREATE TEXT SEARCH CONFIGURATION s.norsk (COPY = pg_catalog.norwegian)")
    await articles.execute(f'CREATE TABLE s."{"æ" * 31}" (body text)')
    await articles.execute(f"INSERT INTO s.\"{'æ' * 31}\" VALUES ('et hus')")
    assert len(await articles.enable_search(f"s.{'æ' * 31}", "body", language="s.norsk")) == 1
    assert len(await articles.search(f"s.{'æ' * 31}", "body", "huset", language="s.norsk")) == 1
    with pytest.raises(ConfigurationError, match="expected .*norwegian"):
        await articles.search("articles", "body", "hus", language="norsk")


async def test_a_table_that_is_altered_is_looked_at_again(articles):
    assert await articles.search("articles", "body", "ord77")
    await articles.execute("ALTER TABLE articles RENAME COLUMN body TO text")
    with pytest.raises(Exception, match=r"no such column|no column"):
        await articles.search("articles", "body", "ord77")
    with pytest.raises(ConfigurationError, match="no column body"):
        await articles.search("articles", "body", "ord77")
    await articles.execute("ALTER TABLE articles RENAME COLUMN text TO body")
    assert len(await articles.search("articles", "body", "ord77")) == 1


async def test_a_search_costs_no_reset_of_its_session(articles):
    await articles.search("articles", "body", "ord77")
    before = articles.stats().reset
    for _ in range(3):
        await articles.search("articles", "body", "ord78")
    assert articles.stats().reset == before

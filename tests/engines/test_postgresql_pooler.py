"""PostgreSQL behind a pooler in transaction mode: each transaction has another session, and nothing is left in one.

What needs a pooler runs against a real PgBouncer, where there is one. What it must not depend on is run by all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.conftest import unreachable
from tests.engines.pgbouncer import PgBouncer, program

from datavern import (
    ConfigurationError,
    ConnectionFailed,
    ConstraintViolated,
    DatabaseManager,
    DatavernError,
    Keyring,
    OutcomeUnknown,
    Pool,
    PostgreSQLProvider,
    ProviderError,
    QueryRejected,
)
from datavern.engines.postgresql.pooled import session_bound
from datavern.engines.postgresql.shortcut import PooledConnection

BOUND = [
    "LISTEN x",
    "UNLISTEN *",
    "SET search_path TO x",
    "set session authorization x",
    "SET ROLE x",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "RESET ALL",
    "DISCARD ALL",
    "LOAD 'x'",
    "PREPARE x AS SELECT 1",
    "EXECUTE x",
    "DEALLOCATE ALL",
    "CREATE TEMP TABLE x (id int)",
    "CREATE GLOBAL TEMPORARY TABLE x (id int)",
    "CREATE OR REPLACE TEMP VIEW x AS SELECT 1",
    "CREATE TABLE pg_temp.x (id int)",
    'CREATE TABLE "pg_temp".x (id int)',
    "SELECT 1 AS id INTO TEMP x",
    "SELECT 1 AS id INTO LOCAL TEMPORARY TABLE x",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "SELECT pg_advisory_lock(1)",
    'SELECT pg_catalog."pg_try_advisory_lock"($1)',
    "SELECT set_config('a.b', 'x', false)",
    "SELECT set_config('a.b', 'x', $1)",
    "SELECT set_config('a.b', (SELECT max(x) FROM t), NOT true)",
    "INSERT INTO t VALUES (currval('s'))",
    "SELECT lastval()",
    "SELECT 1; -- x\n SET a.b = 'x'",
]
FREE = [
    "SELECT 1",
    "SET LOCAL a.b = 'x'",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL DEFERRED",
    "CREATE TEMP TABLE x (id int) ON COMMIT DROP",
    "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT set_config('a.b', 'x', true)",
    "SELECT set_config('a.b', concat('(', $1), true), lower('x')",
    "SELECT set_config('a.b', 'x', is_local => true)",
    "UPDATE t SET reset = 1, temp = 2",
    "INSERT INTO temp VALUES (1)",
    "CREATE TABLE x (temp int, listen int)",
    "SELECT 'SET x; LISTEN y', $$ pg_advisory_lock(1) $$",
    "NOTIFY x",
    "SELECT nextval('s')",
]


@pytest.mark.parametrize("sql", BOUND)
def test_what_a_session_would_keep_is_told_from_the_text(sql):
    assert "past the pooler" in session_bound(sql)


@pytest.mark.parametrize("sql", FREE)
def test_what_the_transaction_keeps_is_free(sql):
    assert session_bound(sql) == ""


def test_the_setting_says_what_it_takes():
    with pytest.raises(ConfigurationError, match="pooler"):
        PostgreSQLProvider(database="x", pooler="statement")  # type: ignore[arg-type]


# ---- with any server ------------------------------------------------------------------------------------------------


async def test_a_server_of_ones_own_is_no_pooler(postgresql_database):
    async with postgresql_database.provider("main", location="norway") as main:
        assert not main.pooled
        assert (await main.health()).facts["pooler"] is False
        await main.query("SELECT $1::int", [1])
        assert await main.query_value("SELECT count(*) FROM pg_prepared_statements") > 0
        await main.execute("SET a.b = 'x'")


async def test_told_so_it_keeps_to_what_a_pooler_carries(postgresql_database):
    async with postgresql_database.provider("main", location="norway", pooler="transaction") as main:
        assert main.pooled
        await whole(main)
        assert await main.query_value("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
        await refuses(main)


async def whole(main: Any) -> None:
    """A round through everything that a provider does."""
    await main.execute("CREATE TABLE t (id int PRIMARY KEY, name text, parts int[], doc jsonb)")
    await main.execute("CREATE TYPE mood AS ENUM ('glad', 'sur')")
    assert await main.execute("INSERT INTO t VALUES ($1, $2, $3, $4)", [1, "æøå", [1, 2], {"a": [1]}]) == 1
    assert await main.execute_many("INSERT INTO t (id, name) VALUES ($1, $2)", [(i, f"n{i}") for i in range(2, 500)])
    assert await main.copy_in("t", ["id", "name"], ((i, f"c{i}") for i in range(500, 1000))) == 500
    row = await main.query_one("SELECT * FROM t WHERE id = $1", [1])
    assert (row["name"], row["parts"], row["doc"]) == ("æøå", [1, 2], {"a": [1]})
    assert await main.query_value("SELECT $1::mood", ["glad"]) == "glad"
    async with main.stream("SELECT id FROM t WHERE id > $1 ORDER BY id", [10], batch_size=50) as rows:
        assert [row["id"] async for row in rows] == list(range(11, 1000))
    async with main.stream("SELECT id FROM t", batch_size=10) as rows:
        async for _ in rows:
            break
    async with main.transaction() as tx:
        for _ in range(2):
            async with tx.stream("SELECT id FROM t", batch_size=10) as rows:
                await anext(aiter(rows))
        with pytest.raises(ConstraintViolated):
            async with tx.savepoint():
                await tx.execute("INSERT INTO t (id) VALUES (1)")
        await tx.execute("DELETE FROM t WHERE id = $1", [2])
    assert await main.execute("UPDATE t SET name = 'x' WHERE id = 3", idempotency_key="once") == 1
    assert await main.execute("UPDATE t SET name = 'x' WHERE id = 3", idempotency_key="once") == 1
    read = main.coalesced("t", key="id", columns=["id", "name"])
    found = await asyncio.gather(*(read(i) for i in range(3, 50)))
    assert [row["id"] for row in found] == list(range(3, 50))
    for wrong in (["x"], [2**40], [1, 2], []):
        with pytest.raises(QueryRejected):
            await main.query("SELECT * FROM t WHERE id = $1", wrong)
    with pytest.raises(QueryRejected):
        await main.query("SELECT nothing FROM t WHERE id = $1", [1])
    assert await main.query_value("SELECT count(*) FROM t") == 998


async def refuses(main: Any) -> None:
    for sql in BOUND[:4]:
        with pytest.raises(QueryRejected, match="pooler"):
            await main.execute(sql)
        with pytest.raises(QueryRejected, match="pooler"):
            async with main.transaction() as tx:
                await tx.execute(sql)
    with pytest.raises(ConfigurationError, match="pooler"):
        async with main.listen("x"):
            pass
    with pytest.raises(ConfigurationError, match="pooler"):
        await main.enable_search("t", "name")


# ---- with a pooler --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bouncer(postgresql_server: Any) -> Iterator[PgBouncer]:
    if program() is None:
        unreachable("pgbouncer", "it is not on the PATH, and DATAVERN_TEST_PGBOUNCER names none")
    with PgBouncer(postgresql_server.url, users={"datavern_pooled": "plain"}) as bouncer:
        yield bouncer


@pytest.fixture
async def main(bouncer: PgBouncer, postgresql_database: Any) -> AsyncIterator[Any]:
    """Eight connections to the pooler, which has three sessions for them."""
    async with pooled(bouncer, postgresql_database) as main:
        yield main


def pooled(bouncer: PgBouncer, database: Any, **more: Any) -> PostgreSQLProvider:
    parts = urlsplit(database.settings["url"])
    given = {"username": parts.username, "password": parts.password, "pool": Pool(min=2, max=8), **more}
    return PostgreSQLProvider(
        name="main", host="127.0.0.1", port=bouncer.port, database=parts.path[1:], location="norway", **given
    )


async def test_it_is_recognised_and_everything_works(main):
    assert main.pooled
    assert (await main.health()).facts["pooler"] is True
    await whole(main)
    await refuses(main)


async def test_of_many_tasks_nobody_meets_what_another_left(main):
    await main.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    await main.execute_many("INSERT INTO t VALUES ($1, 0)", [(i,) for i in range(40)])

    async def work(k: int) -> None:
        rng = random.Random(k)
        for i in range(12):
            match rng.randrange(5):
                case 0:
                    assert await main.query_value(f"SELECT $1::int + {i}", [k]) == k + i
                case 1:
                    assert await main.query_value("SELECT $1::text", [f"{k}"]) == f"{k}"
                case 2:
                    async with main.transaction() as tx:
                        await tx.execute("UPDATE t SET n = n + 1 WHERE id = $1", [k])
                        pid = await tx.query_value("SELECT pg_backend_pid()")
                        await asyncio.sleep(0)
                        assert await tx.query_value("SELECT pg_backend_pid()") == pid
                case 3:
                    with pytest.raises(QueryRejected):
                        await main.query("SELECT $1::int", ["no number"])
                case _:
                    async with main.stream("SELECT id FROM t ORDER BY id", batch_size=7) as rows:
                        assert [row["id"] async for row in rows] == list(range(40))

    await asyncio.gather(*(work(k) for k in range(20)))
    assert await main.query_value("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0


async def test_a_parameter_that_does_not_fit_keeps_no_session(bouncer, postgresql_database):
    """The driver refuses it when the statement was parsed, with no end of the request sent: the session is held."""
    async with pooled(bouncer, postgresql_database, pool=Pool(min=6, max=6)) as main:
        for _ in range(2):
            wrong = (main.query("SELECT $1::int", ["x"]) for _ in range(6))
            assert {type(e) for e in await asyncio.gather(*wrong, return_exceptions=True)} == {QueryRejected}
        async with asyncio.timeout(30), pooled(bouncer, postgresql_database, pool=Pool(min=1, max=1)) as other:
            assert await other.query_value("SELECT 1") == 1


async def test_cancelled_statements_are_stopped_and_leave_nothing(main):
    await main.execute("CREATE TABLE t (id int)")
    for n in range(6):
        async with asyncio.timeout(30):
            call = asyncio.create_task(main.execute("INSERT INTO t SELECT 1 FROM pg_sleep($1)", [60]))
            await asyncio.sleep(0.02 * n)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            tx = asyncio.create_task(slow_transaction(main))
            await asyncio.sleep(0.02 * n)
            tx.cancel()
            with pytest.raises(asyncio.CancelledError):
                await tx
    async with asyncio.timeout(30):
        while await main.query_value(  # noqa: ASYNC110  (the server has no event for it)
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state <> 'idle' "
            "AND datname = current_database() AND pid <> pg_backend_pid()"
        ):
            await asyncio.sleep(0.02)
    assert await main.query_value("SELECT count(*) FROM t") == 0


async def slow_transaction(main: Any) -> None:
    async with main.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        await tx.query_value("SELECT 1 FROM pg_sleep($1)", [60])


async def test_a_tenant_is_the_transactions_alone(bouncer, postgresql_database, postgresql_server):
    async with postgresql_database.provider("owner", location="norway") as owner:
        await owner.execute(
            "DO $$ BEGIN CREATE ROLE datavern_pooled LOGIN PASSWORD 'plain'; "
            "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        await owner.execute("CREATE TABLE cases (id int, tenant_id text)")
        await owner.execute("GRANT ALL ON cases TO datavern_pooled")
        await owner.enable_row_level_security("cases")
    tenants = ["oslo", "bergen", "o'slo; --"]
    try:
        async with pooled(bouncer, postgresql_database, username="datavern_pooled", password="plain") as app:

            async def work(k: int) -> None:
                tenant = tenants[k % 3]
                async with app.transaction(tenant=tenant) as tx:
                    await tx.execute("INSERT INTO cases VALUES ($1, $2)", [k, tenant])
                    await asyncio.sleep(random.random() * 0.01)
                    assert {row[0] for row in await tx.query("SELECT DISTINCT tenant_id FROM cases")} == {tenant}
                assert await app.query("SELECT * FROM cases") == []

            tasks = [asyncio.create_task(work(k)) for k in range(45)]
            await asyncio.sleep(0.02)
            for task in random.sample(tasks, 10):
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(r) for r in done} <= {type(None), asyncio.CancelledError}
            assert await app.query("SELECT * FROM cases") == []
            with pytest.raises(QueryRejected):
                await app.execute("INSERT INTO cases VALUES (1, 'oslo')")
    finally:
        async with postgresql_database.provider("owner", location="norway") as owner:
            await owner.execute("DROP OWNED BY datavern_pooled")


async def test_a_manager_with_its_log_and_its_keys(bouncer, postgresql_database, tmp_path: Path):
    ring = await Keyring.create(f"file:{tmp_path / 'keys'}")
    await ring.close()
    main = pooled(bouncer, postgresql_database)
    async with DatabaseManager({"main": main}, keyring=ring.url, ledger="main") as db:
        await main.execute("CREATE TABLE t (id int)")

        async def change(k: int) -> None:
            entry = await db.audit.entry("changed", subject=f"u{k % 5}")
            assert await main.execute("INSERT INTO t VALUES ($1)", [k], audit=entry) == 1

        await asyncio.gather(*(change(k) for k in range(30)))
        checkpoint = await db.audit.seal()
        report = await db.audit.verify(since=checkpoint)
        assert (report.ok, report.entries) == (True, 30)


async def test_sessions_that_go_are_said_as_ever(main, postgresql_database):
    await main.execute("CREATE TABLE t (id int)")
    async with postgresql_database.provider("other", location="norway") as other:
        ending = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        call = asyncio.create_task(main.execute("INSERT INTO t SELECT 1 FROM pg_sleep(60)"))
        while not await other.query_value(  # noqa: ASYNC110  (the server has no event for it)
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO t%' AND state = 'active'"
        ):
            await asyncio.sleep(0.02)
        await other.query(ending)
        with pytest.raises(OutcomeUnknown):
            await call
        await answers(main)
        with pytest.raises(ProviderError) as broken:
            async with main.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (1)")
                await other.query(ending)
                await tx.execute("INSERT INTO t VALUES (2)")
        assert broken.value.retry == "transaction"
        await answers(main)
        assert await main.query_value("SELECT count(*) FROM t") == 0


async def answers(main: Any) -> None:
    """Until every session that PgBouncer believed in is one: it waits a second before it connects again."""
    async with asyncio.timeout(30):
        well = 0
        while well < 2:
            done = await asyncio.gather(
                *(main.query("SELECT pg_sleep(0.01)") for _ in range(6)), return_exceptions=True
            )
            well = 0 if any(isinstance(r, DatavernError) for r in done) else well + 1
            await asyncio.sleep(0.05)


async def test_a_wait_for_a_session_that_is_too_long_was_not_sent(postgresql_server, postgresql_database):
    if program() is None:
        unreachable("pgbouncer", "it is not on the PATH, and DATAVERN_TEST_PGBOUNCER names none")
    with PgBouncer(postgresql_server.url, sessions=1, query_wait_timeout=1) as bouncer:
        async with pooled(bouncer, postgresql_database) as main:
            await main.execute("CREATE TABLE t (id int)")
            async with main.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (1)")
                with pytest.raises(ConnectionFailed) as failed:
                    await main.execute("INSERT INTO t VALUES (2)")
                assert failed.value.retry == "safe"
            assert await main.query_value("SELECT count(*) FROM t") == 1


async def test_in_session_mode_nothing_is_kept_back(postgresql_server, postgresql_database):
    if program() is None:
        unreachable("pgbouncer", "it is not on the PATH, and DATAVERN_TEST_PGBOUNCER names none")
    with PgBouncer(postgresql_server.url, mode="session", sessions=10) as bouncer:
        async with pooled(bouncer, postgresql_database, pooler="session", pool=Pool(min=1, max=2)) as main:
            assert not main.pooled
            await main.execute("SET a.b = 'x'")
            await main.query("SELECT $1::int", [1])
            async with main.listen("x") as notes:
                await main.notify("x", "1")
                assert (await anext(aiter(notes))).payload == "1"
        async with pooled(bouncer, postgresql_database, pool=Pool(min=1, max=2)) as main:
            assert main.pooled  # which of the two it is does not show, so what is safe with both is done


async def test_other_programs_of_asyncpg_share_the_sessions(main, bouncer, postgresql_database):
    """Names of statements are made up by each process: two that count alike would meet in one session."""
    await main.execute("CREATE TABLE t (id int)")
    await main.execute("INSERT INTO t SELECT generate_series(1, 30)")
    taken = [f"__asyncpg_stmt_{n:x}__" for n in range(1, 400)]
    parts = urlsplit(postgresql_database.settings["url"])
    other = await asyncpg.connect(
        host="127.0.0.1", port=bouncer.port, user=parts.username, password=parts.password, database=parts.path[1:],
        ssl=False, statement_cache_size=0,
    )  # fmt: skip
    await other.execute("; ".join(f"PREPARE {name} AS SELECT 'somebody''s'" for name in taken))
    for _ in range(5):
        async with main.transaction() as tx, tx.stream("SELECT id FROM t ORDER BY id", batch_size=7) as rows:
            assert [row["id"] async for row in rows] == list(range(1, 31))
    await other.execute("DEALLOCATE ALL")
    await other.close()


async def test_names_are_those_of_this_process(postgresql_database):
    async with postgresql_database.provider("main", location="norway", pooler="transaction") as main:
        slot = main._pool.take()
        assert type(slot.connection) is PooledConnection
        first, second = (slot.connection._get_unique_id("stmt") for _ in range(2))
        main._pool.give(slot)
    assert first != second
    assert not first.endswith("__")  # as asyncpg's do
    assert len(first) < 63

"""What is PostgreSQL's own: isolation, portals, JSON, the statement cache, cancellation on the server, roles."""

from __future__ import annotations

import asyncio
import datetime as dt
import tracemalloc
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from tests.waiting import until

from datavern import (
    ConfigurationError,
    ConnectionFailed,
    OutcomeUnknown,
    Pool,
    PostgreSQLProvider,
    QueryRejected,
    SerializationConflict,
)
from datavern.testing import EmptyDatabase
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.proxy import TCPProxy


@pytest.fixture
async def admin(postgresql_database: EmptyDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection outside the pool."""
    connection = await asyncpg.connect(postgresql_database.settings["url"])
    yield connection
    await connection.close()


async def running(admin: asyncpg.Connection, part: str, *, yes: bool = True) -> None:
    """Wait until a statement that holds `part` runs on the server, or until none does."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()"
    async with asyncio.timeout(10):
        while bool(await admin.fetchval(query, f"%{part}%")) is not yes:  # noqa: ASYNC110  (the server has no event)
            await asyncio.sleep(0.005)


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "jsonb"])
@pytest.mark.parametrize(
    "value", [{"navn": "Åse", "liste": [1, 2.5, None, True]}, [], "text", 'a "quote"', 7, 1.5, False, {"": {}}, "å\n\t"]
)
async def test_json_is_a_python_value(postgresql: Any, kind: str, value: Any) -> None:
    assert await postgresql.query_value(f"SELECT $1::{kind}", [value]) == value
    if not isinstance(value, list):  # inside an array, a list would be another dimension of it
        assert await postgresql.query_value(f"SELECT $1::{kind}[]", [[value, None]]) == [value, None]
    assert await postgresql.query_value(f"SELECT $1::{kind}", [None]) is None


async def test_json_null_is_not_sql_null(postgresql: Any) -> None:
    row = await postgresql.query_one("SELECT 'null'::jsonb AS a, 'null'::jsonb IS NULL AS b, NULL::jsonb AS c")
    assert tuple(row) == (None, False, None)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("numeric", Decimal("12345678901234567890.123456789")),
        ("bigint", -(2**63)),
        ("bytea", bytes(range(256))),
        ("timestamptz", dt.datetime(2026, 11, 23, 2, 39, 51, 123456, tzinfo=dt.UTC)),
        ("date", dt.date(2026, 11, 23)),
        ("text[]", ["å", None, "NULL", '"', "\\"]),
        ("boolean", True),
        ("float8", float("inf")),
        ("interval", dt.timedelta(days=3, seconds=5)),
        ("xid8", 2**63),
    ],
)
async def test_a_value_comes_back_as_it_went(postgresql: Any, kind: str, value: Any) -> None:
    assert await postgresql.query_value(f"SELECT $1::{kind}", [value]) == value


# ---- transactions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isolation", "level"),
    [
        (None, "read committed"),
        ("read committed", "read committed"),
        ("repeatable read", "repeatable read"),
        ("snapshot", "repeatable read"),
        ("serializable", "serializable"),
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
async def test_isolation(postgresql: Any, isolation: Any, level: str, read_only: bool) -> None:
    async with postgresql.transaction(isolation=isolation, read_only=read_only) as tx:
        assert await tx.query_value("SHOW transaction_isolation") == level
        assert await tx.query_value("SHOW transaction_read_only") == ("on" if read_only else "off")


async def test_serializable_transactions_that_collide(postgresql: Any) -> None:
    await postgresql.execute("CREATE TABLE doctors (name text, on_call bool)")
    await postgresql.execute_many("INSERT INTO doctors VALUES ($1, true)", [["a"], ["b"]])
    met = asyncio.Barrier(2)
    attempts = 0

    async def off_call(tx: Any, name: str) -> None:
        nonlocal attempts
        attempts += 1
        if await tx.query_value("SELECT count(*) FROM doctors WHERE on_call") > 1:
            if attempts <= 2:
                await met.wait()
            await tx.execute("UPDATE doctors SET on_call = false WHERE name = $1", [name])

    await asyncio.gather(
        *(postgresql.run_in_transaction(lambda tx, n=n: off_call(tx, n), isolation="serializable") for n in ("a", "b"))
    )
    assert attempts == 3
    assert await postgresql.query_value("SELECT count(*) FROM doctors WHERE on_call") == 1


async def test_a_deadlock_is_a_conflict(postgresql: Any) -> None:
    await postgresql.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    await postgresql.execute_many("INSERT INTO t VALUES ($1, 0)", [[1], [2]])
    met = asyncio.Barrier(2)

    async def cross(first: int, second: int) -> None:
        async with postgresql.transaction() as tx:
            await tx.execute("SET LOCAL deadlock_timeout = '50ms'")
            await tx.execute("UPDATE t SET n = n + 1 WHERE id = $1", [first])
            await met.wait()
            await tx.execute("UPDATE t SET n = n + 1 WHERE id = $1", [second])

    results = await asyncio.gather(cross(1, 2), cross(2, 1), return_exceptions=True)
    (error,) = [r for r in results if r is not None]
    assert isinstance(error, SerializationConflict)
    assert (error.code, error.retry) == ("40P01", "transaction")
    assert await postgresql.query_value("SELECT sum(n) FROM t") == 2


async def test_what_only_the_commit_refuses(postgresql: Any) -> None:
    await postgresql.execute("CREATE TABLE t (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(QueryRejected) as caught:
        async with postgresql.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1), (1)")
    assert caught.value.constraint == "t_id_key"
    assert await postgresql.query_value("SELECT count(*) FROM t") == 0


async def test_a_connection_that_breaks_in_a_transaction(postgresql: Any, admin: asyncpg.Connection) -> None:
    """Before the commit everything is undone, and may be run again; run_in_transaction does."""
    await postgresql.execute("CREATE TABLE t (n int)")
    with pytest.raises(ConnectionFailed) as caught:
        async with postgresql.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            await admin.execute("SELECT pg_terminate_backend($1)", await tx.query_value("SELECT pg_backend_pid()"))
            await tx.execute("INSERT INTO t VALUES (2)")
    assert caught.value.retry == "transaction"
    with pytest.raises(ConnectionFailed) as caught:
        async with postgresql.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            await admin.execute("SELECT pg_terminate_backend($1)", await tx.query_value("SELECT pg_backend_pid()"))
            with pytest.raises(ConnectionFailed):
                await tx.execute("INSERT INTO t VALUES (2)")  # caught: the block ends as if all were well
    assert caught.value.retry == "transaction"
    times = 0

    async def work(tx: Any) -> int:
        nonlocal times
        times += 1
        await tx.execute("INSERT INTO t VALUES ($1)", [times])
        if times == 1:
            await admin.execute("SELECT pg_terminate_backend($1)", await tx.query_value("SELECT pg_backend_pid()"))
        return await tx.query_value("SELECT count(*) FROM t")

    assert await postgresql.run_in_transaction(work) == 1
    assert times == 2


async def test_a_statement_without_an_answer(postgresql: Any, admin: asyncpg.Connection) -> None:
    await postgresql.execute("CREATE TABLE t (n int)")
    for statement, kind in (
        ("INSERT INTO t SELECT 1 FROM pg_sleep(60)", OutcomeUnknown),
        ("SELECT count(*) FROM generate_series(1, 10000000000)", ConnectionFailed),
    ):
        call = asyncio.ensure_future(postgresql.execute(statement))
        await running(admin, statement)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query = $1", statement
        )
        with pytest.raises(kind) as caught:
            await call
        assert caught.value.code == "57P01"
        assert caught.value.retry == ("never" if kind is OutcomeUnknown else "safe")
        assert await postgresql.query_value("SELECT 1") == 1


async def test_a_commit_without_an_answer(
    postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer
) -> None:
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        url = postgresql_database.settings["url"].replace(f":{postgresql_server.port}/", f":{proxy.port}/")
        async with PostgreSQLProvider.from_url(url) as pg:
            await pg.execute("CREATE TABLE t (n int)")

            async def break_soon() -> None:
                await until(lambda: proxy.held)
                proxy.cut()
                proxy.thaw()

            async def break_at_commit(sql: str) -> None:
                async with pg.transaction() as tx:
                    await tx.query(sql)
                    proxy.freeze()
                    breaking = asyncio.ensure_future(break_soon())
                await breaking

            with pytest.raises(OutcomeUnknown, match="the commit was sent") as caught:
                await break_at_commit("INSERT INTO t VALUES (1)")
            assert caught.value.retry == "never"
            await asyncio.sleep(0.1)
            with pytest.raises(ConnectionFailed) as failed:
                await break_at_commit("SELECT * FROM t")  # nothing can have been lost
            assert failed.value.retry == "transaction"


# ---- streams --------------------------------------------------------------------------------------------------------


async def test_a_stream_takes_constant_memory(postgresql: Any) -> None:
    await postgresql.query("SELECT 1")
    tracemalloc.start()
    try:
        count = 0
        async with postgresql.stream("SELECT repeat('x', 1000) FROM generate_series(1, 50000)", batch_size=500) as rows:
            async for _ in rows:
                count += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 50_000
    assert peak < 5_000_000  # fifty million bytes went through


async def test_a_stream_leaves_nothing_open(postgresql: Any) -> None:
    """Left early inside a transaction, its portal is closed: an open one would block changes of its table.

    This watches asyncpg's `Cursor._close_portal`, which is not part of its public interface.
    """
    await postgresql.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 5000) g")
    async with postgresql.transaction() as tx:
        async with tx.stream("SELECT g FROM t", batch_size=10) as rows:
            async for _ in rows:
                break
        await tx.execute("ALTER TABLE t ADD COLUMN extra int")
        async with tx.stream("SELECT g FROM t", batch_size=10000) as rows:
            assert len([row async for row in rows]) == 5000
        await tx.execute("ALTER TABLE t ADD COLUMN more int")


async def test_streams_nest_in_a_transaction(postgresql: Any) -> None:
    async with postgresql.transaction() as tx:
        pairs = []
        async with tx.stream("SELECT g FROM generate_series(1, 5) g", batch_size=2) as outer:
            async for one in outer:
                async with tx.stream("SELECT g FROM generate_series(1, $1) g", [one[0]], batch_size=2) as inner:
                    pairs += [(one[0], other[0]) async for other in inner]
                if one[0] == 4:
                    break
        assert pairs == [(a, b) for a in range(1, 5) for b in range(1, a + 1)]
        assert await tx.query_value("SELECT 1") == 1


async def test_a_stream_that_changes_rows_commits(postgresql: Any) -> None:
    await postgresql.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 100) g")
    async with postgresql.stream("UPDATE t SET g = -g RETURNING g", batch_size=10) as rows:
        assert (await anext(rows))["g"] == -1
    assert await postgresql.query_value("SELECT sum(g) FROM t") == -5050
    with pytest.raises(ZeroDivisionError):
        async with postgresql.stream("UPDATE t SET g = -g RETURNING g", batch_size=10) as rows:
            raise ZeroDivisionError
    assert await postgresql.query_value("SELECT sum(g) FROM t") == -5050


async def test_a_stream_that_fails_on_its_way(postgresql: Any) -> None:
    with pytest.raises(QueryRejected, match="division by zero"):
        async with postgresql.stream("SELECT 1 / (50 - g) FROM generate_series(1, 100) g", batch_size=10) as rows:
            async for _ in rows:
                pass
    assert postgresql.stats().in_use == 0


# ---- the statement cache --------------------------------------------------------------------------------------------


async def test_a_changed_schema_is_noticed(postgresql_database: EmptyDatabase, admin: asyncpg.Connection) -> None:
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        await pg.execute("CREATE TABLE t (a int)")
        await pg.execute("INSERT INTO t VALUES (1)")
        for n, change in enumerate(
            [
                "ADD COLUMN b text DEFAULT 'x'",
                "ALTER COLUMN a TYPE text",
                "DROP COLUMN b",
                "ALTER COLUMN a TYPE int USING 1",
            ]
        ):
            assert len(await pg.query("SELECT * FROM t")) == 1
            await admin.execute(f"ALTER TABLE t {change}")
            rows = await pg.query("SELECT * FROM t")
            assert len(rows) == 1, n
        assert tuple((await pg.query("SELECT * FROM t"))[0]) == (1,)
        # Inside a transaction it cannot be run again in place: the transaction may be.
        await pg.query("SELECT * FROM t")
        await admin.execute("ALTER TABLE t ADD COLUMN c int DEFAULT 5")
        with pytest.raises(SerializationConflict) as caught:
            async with pg.transaction() as tx:
                await tx.query("SELECT * FROM t")
        assert caught.value.retry == "transaction"
        await admin.execute("ALTER TABLE t ADD COLUMN d int DEFAULT 6")

        async def work(tx: Any) -> Any:
            return (await tx.query_one("SELECT * FROM t"))["d"]

        assert await pg.run_in_transaction(work) == 6


async def test_without_a_statement_cache(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(statement_cache=0, pool=Pool(max=1)) as pg:
        for n in range(5):
            assert await pg.query_value("SELECT $1::int", [n]) == n
        assert await pg.query_value("SELECT count(*) FROM pg_prepared_statements") == 0


# ---- cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["query", "execute", "transaction", "stream"])
async def test_a_cancelled_statement_stops_on_the_server(
    postgresql_database: EmptyDatabase, admin: asyncpg.Connection, how: str
) -> None:
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        pid = await pg.query_value("SELECT pg_backend_pid()")

        async def work() -> None:
            match how:
                case "query":
                    await pg.query("SELECT pg_sleep($1)", [60])
                case "execute":
                    await pg.execute("SELECT pg_sleep(60)")
                case "transaction":
                    async with pg.transaction() as tx:
                        await tx.execute("CREATE TABLE t (a int)")
                        await tx.execute("SELECT pg_sleep(60)")
                case "stream":
                    async with pg.stream("SELECT pg_sleep(60)") as rows:
                        async for _ in rows:
                            pass

        task = asyncio.ensure_future(work())
        await running(admin, "pg_sleep")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await running(admin, "pg_sleep", yes=False)
        assert await pg.query_value("SELECT pg_backend_pid()") == pid, "the connection was cleaned, not thrown away"
        assert await pg.query_value("SELECT to_regclass('t')") is None


async def test_a_deadline_is_the_callers_own(postgresql: Any, admin: asyncpg.Connection) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await postgresql.query("SELECT pg_sleep(60)")
    await running(admin, "pg_sleep", yes=False)
    assert await postgresql.query_value("SELECT 1") == 1


SLOW = "INSERT INTO t SELECT $1 FROM pg_sleep(0.001)"


async def test_many_do_not_swallow_a_cancellation(postgresql: Any, admin: asyncpg.Connection) -> None:
    await postgresql.execute("CREATE TABLE t (a text)")
    rows = [["x" * 10_000] for _ in range(3000)]  # more than a socket takes at once
    for delay in (0.0, 0.001, 0.01, 0.05):
        task = asyncio.ensure_future(postgresql.execute_many(SLOW, rows))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(delay), postgresql.transaction() as tx:
                await tx.execute_many(SLOW, rows)
        assert await postgresql.query_value("SELECT 1") == 1
    await running(admin, "INSERT INTO t", yes=False)
    assert await postgresql.query_value("SELECT count(*) FROM t") == 0


async def test_few_of_many_stop_on_the_server(postgresql_database: EmptyDatabase, admin: asyncpg.Connection) -> None:
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        pid = await pg.query_value("SELECT pg_backend_pid()")
        await pg.execute("CREATE TABLE t (a text)")
        task = asyncio.ensure_future(pg.execute_many("INSERT INTO t SELECT $1 FROM pg_sleep(20)", [["a"], ["b"]]))
        await running(admin, "INSERT INTO t")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await running(admin, "INSERT INTO t", yes=False)
        assert await pg.query_value("SELECT pg_backend_pid()") == pid


async def test_asyncpg_still_swallows_it(postgresql_database: EmptyDatabase) -> None:
    """When this fails, asyncpg has learnt it, and `engines/postgresql/many.py` may go."""
    connection = await asyncpg.connect(postgresql_database.settings["url"])
    await connection.execute("CREATE TABLE t (a text)")
    rows = [["x" * 10_000] for _ in range(3000)]
    task: asyncio.Future[None] = asyncio.ensure_future(connection.executemany(SLOW, rows))
    await asyncio.sleep(0.1)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1)
    assert not done
    connection.terminate()
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await task


# ---- what it is -----------------------------------------------------------------------------------------------------


async def test_health_tells_the_servers_role(postgresql_database: EmptyDatabase, admin: asyncpg.Connection) -> None:
    name = await admin.fetchval("SELECT current_database()")
    pg = postgresql_database.provider()
    assert (await pg.health()).detail == "not open"
    async with pg:
        health = await pg.health()
        assert (health.status, health.role) == ("healthy", "primary")
        assert health.version.startswith("PostgreSQL ")
        assert health.latency is not None
        assert health.pool == pg.stats()
    await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with pg:
        assert (await pg.health()).role == "secondary"


async def test_health_of_a_server_that_is_gone(
    postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datavern.engines import pooling as module

    monkeypatch.setattr(module, "_HEALTH_DEADLINE", 0.2)
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        url = postgresql_database.settings["url"].replace(f":{postgresql_server.port}/", f":{proxy.port}/")
        async with PostgreSQLProvider.from_url(url) as pg:
            proxy.freeze()
            health = await pg.health()
            assert (health.status, health.detail) == ("unhealthy", "no answer within 0.2 s")
            proxy.refuse()
            proxy.thaw()
            proxy.cut()
            health = await pg.health()
            assert health.status == "unhealthy"
            assert health.detail


async def test_over_a_unix_socket(postgresql_server: PostgreSQLServer) -> None:
    if postgresql_server.socket_folder is None:
        pytest.skip("the server that the environment names has no socket here")
    async with PostgreSQLProvider(
        host=postgresql_server.socket_folder,
        port=postgresql_server.port,
        username="postgres",
        password=postgresql_server.password,
        database="postgres",
    ) as pg:
        assert pg.encrypted
        assert await pg.query_value("SELECT inet_server_addr()") is None


async def test_alone_without_a_keyring(postgresql: Any) -> None:
    with pytest.raises(ConfigurationError, match="keyring"):
        await postgresql.store_personal_data({"user_id": "x"}, None)


@pytest.mark.parametrize("text", ["", "  \n", "-- nothing\n", "/* nothing */", ";", " ; -- x"])
@pytest.mark.parametrize("call", ["execute", "query", "query_one"])
async def test_a_text_without_a_statement_is_refused(postgresql, call, text):
    with pytest.raises(QueryRejected, match="the text holds no statement"):
        await getattr(postgresql, call)(text)
    assert await postgresql.query_value("SELECT 1") == 1


@pytest.mark.parametrize("text", ["COPY t FROM STDIN", "copy t (a) to stdout", "COPY (SELECT 1) TO STDOUT"])
async def test_a_copy_that_would_wait_for_ever_is_refused(postgresql, text):
    await postgresql.execute("CREATE TABLE t (a int)")
    with pytest.raises(QueryRejected, match="use copy_in, or stream"):
        await postgresql.execute(text)
    async with postgresql.transaction() as tx:
        with pytest.raises(QueryRejected, match="use copy_in, or stream"):
            await tx.execute(text)
    assert await postgresql.query_value("SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("before", ["committed", "rolled back", "broken"])
async def test_a_transaction_is_entered_once(postgresql: Any, admin: asyncpg.Connection, before: str) -> None:
    """What it knows of the connection that it had says nothing of another one."""
    tx = postgresql.transaction()
    if before == "committed":
        async with tx:
            await tx.query("SELECT 1")
    elif before == "rolled back":
        with pytest.raises(ZeroDivisionError):
            async with tx:
                raise ZeroDivisionError
    else:
        with pytest.raises(ConnectionFailed):
            async with tx:
                pid = await tx.query_value("SELECT pg_backend_pid()")
                await admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
                await tx.query("SELECT 1")
    with pytest.raises(ConfigurationError, match="entered once: ask the provider for another"):
        async with tx:
            pytest.fail("it was entered again")
    assert await postgresql.query_value("SELECT 1") == 1


@pytest.mark.parametrize("size", [0, -1, 2**31, 2**40])
async def test_a_batch_size_that_is_none_is_refused(postgresql: Any, size: int) -> None:
    with pytest.raises(ConfigurationError, match="batch_size is"):
        postgresql.stream("SELECT 1", batch_size=size)

"""The pool, with real connections: bounds, deadlines, what breaks, and what the next borrower must not see."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.waiting import until

from datavern import ConfigurationError, ConnectionFailed, Pool, PoolTimeout, QueryRejected
from datavern.connectors import pool as pool_module
from datavern.connectors import tending
from datavern.engines.postgresql.connection import SILENCE, notice_silence
from datavern.testing import EmptyDatabase

PID = "SELECT pg_backend_pid()"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is slow for a moment is no reason to throw a connection away here."""
    for name in ("SHORTEST_DEADLINE", "PROBE_DEADLINE", "RESTORE_DEADLINE"):
        monkeypatch.setattr(tending, name, 20.0)


@pytest.fixture
async def admin(postgresql_database: EmptyDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection outside the pool."""
    connection = await asyncpg.connect(postgresql_database.settings["url"])
    yield connection
    await connection.close()


async def test_the_operating_system_breaks_a_connection_whose_other_end_is_gone(
    postgresql_database: EmptyDatabase,
) -> None:
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        line = pg._pool.idle[0].connection._transport.get_extra_info("socket")
        assert line.family in {socket.AF_INET, socket.AF_INET6}
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for name, value in SILENCE.items():
            if hasattr(socket, name):
                assert line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
    one, other = socket.socketpair()
    notice_silence(one)  # a Unix socket has no such options
    notice_silence(None)
    one.close()
    other.close()


async def test_min_is_kept_filled(postgresql_database: EmptyDatabase, admin: asyncpg.Connection) -> None:
    async with postgresql_database.provider(pool=Pool(min=3, max=5)) as pg:
        await until(lambda: pg.stats().idle == 3)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'datavern'"
        )
        await until(lambda: pg.stats().discarded == 3)
        await until(lambda: pg.stats().idle == 3)
        assert await pg.query_value("SELECT 1") == 1


async def test_never_more_than_max(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=3)) as pg:
        sizes: list[int] = []

        async def work() -> Any:
            pid = await pg.query_value("SELECT pg_backend_pid() FROM generate_series(1, 1000) LIMIT 1")
            sizes.append(pg.stats().size)
            return pid

        pids = await asyncio.gather(*(work() for _ in range(60)))
        assert len(set(pids)) <= 3
        assert max(sizes) <= 3
        assert pg.stats().waiting == 0
        assert pg.stats().in_use == 0


async def test_the_last_used_is_the_next(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(min=4, max=4)) as pg:
        await until(lambda: pg.stats().idle == 4)
        assert len({await pg.query_value(PID) for _ in range(20)}) == 1


async def test_a_full_pool_says_so(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=1, acquire=0.05)) as pg:
        async with pg.transaction():
            with pytest.raises(PoolTimeout) as caught:
                await pg.query("SELECT 1")
        assert "1 of 1 open" in str(caught.value)
        assert caught.value.retry == "safe"
        assert pg.stats().timeouts == 1
        assert await pg.query_value("SELECT 1") == 1


async def test_each_in_the_line_has_its_own_deadline(postgresql_database: EmptyDatabase) -> None:
    """One timer serves them all, whoever came first, and is set anew for those who come while it runs."""
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        pool: Any = pg._pool
        ended: list[str] = []

        async def wait(within: float) -> None:
            try:
                pool.give(await pool.acquire(within=within))
            except PoolTimeout as error:
                ended.append(str(error).partition("within ")[2].partition(" (")[0])
            else:
                ended.append("served")

        async with pg.transaction():
            waiting = [asyncio.ensure_future(wait(within)) for within in (30.0, 0.2, 0.05)]
            await until(lambda: ended == ["0.05 s", "0.2 s"])
            waiting.append(asyncio.ensure_future(wait(0.06)))
            cancelled = asyncio.ensure_future(wait(0.01))
            await asyncio.sleep(0)
            cancelled.cancel()
            await until(lambda: ended == ["0.05 s", "0.2 s", "0.06 s"])
            assert pg.stats().waiting == 1
        await asyncio.gather(*waiting)
        assert ended[3:] == ["served"]
        assert pg.stats().timeouts == 3
        assert await pg.query_value("SELECT 1") == 1


async def test_the_line_has_an_end(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=1, max_waiting=2)) as pg:
        async with pg.transaction():
            waiting = [asyncio.ensure_future(pg.query_value("SELECT 1")) for _ in range(2)]
            await until(lambda: pg.stats().waiting == 2)
            with pytest.raises(PoolTimeout, match="2 callers wait"):
                await pg.query("SELECT 1")
        assert await asyncio.gather(*waiting) == [1, 1]


async def test_first_come_first_served(postgresql_database: EmptyDatabase) -> None:
    served: list[int] = []
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:

        async def work(n: int) -> None:
            await pg.query("SELECT 1")
            served.append(n)

        async with pg.transaction():
            tasks = []
            for n in range(20):
                tasks.append(asyncio.ensure_future(work(n)))
                await until(lambda: pg.stats().waiting == len(tasks))
        await asyncio.gather(*tasks)
    assert served == list(range(20))


async def test_whoever_waits_takes_what_comes_first(postgresql_database: EmptyDatabase) -> None:
    """A connection is being made for the waiter, and another comes back before it: the waiter does not wait for it."""
    async with postgresql_database.provider(pool=Pool(max=2)) as pg:
        pool = pg._pool
        slot = pool.take()
        waiting = asyncio.ensure_future(pg.query_value(PID))
        while not pg.stats().connecting:  # noqa: ASYNC110  (turn by turn: it must not be over yet)
            await asyncio.sleep(0)
        pool.give(slot)
        assert await waiting == slot.connection.get_server_pid()
        await until(lambda: pg.stats().idle == 2)


async def test_a_waiter_that_gives_up_takes_nothing_with_it(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        for _ in range(50):
            slot = pg._pool.take()
            waiting = asyncio.ensure_future(pg.query_value("SELECT 1"))
            await until(lambda: pg.stats().waiting == 1)
            pg._pool.give(slot)  # handed over in the same turn in which the waiter gives up
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: pg.stats().idle == 1)
        assert pg.stats().created == 1


async def test_a_broken_idle_connection_is_nobodys_problem(
    postgresql_database: EmptyDatabase, admin: asyncpg.Connection
) -> None:
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        pid = await pg.query_value(PID)
        await admin.execute("SELECT pg_terminate_backend($1)", pid)
        await until(lambda: pg.stats().size == 0)
        assert await pg.query_value(PID) != pid


async def test_a_connection_that_is_closed_when_it_is_used_is_replaced(postgresql_database: EmptyDatabase) -> None:
    """It broke in this very turn of the loop: nothing was sent, so the call goes on with another one."""
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        await pg.execute("CREATE TABLE t (a int)")
        await until(lambda: pg.stats().idle == 1)
        for statement in ("INSERT INTO t VALUES (1)", "SELECT 1"):
            pg._pool.idle[0].connection._transport.abort()
            pg._pool.idle[0].connection.terminate()
            await pg.execute(statement)
        pg._pool.idle[0].connection.terminate()
        async with pg.transaction() as tx:
            assert await tx.query_value("SELECT count(*) FROM t") == 1


async def test_an_idle_connection_is_probed(postgresql_database: EmptyDatabase, admin: asyncpg.Connection) -> None:
    async with postgresql_database.provider(pool=Pool(max=1, validate_after=0)) as pg:
        await admin.execute("CREATE TABLE seen (n int)")
        before = pg.stats().acquired
        for _ in range(3):
            assert await pg.query_value("SELECT 1") == 1
        assert pg.stats().acquired == before + 3
        assert pg.stats().created == 1


async def test_what_is_idle_for_long_is_let_go(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(min=1, max=5, idle=0.05)) as pg:
        await asyncio.gather(*(pg.query("SELECT pg_sleep(0.05)") for _ in range(5)))
        await until(lambda: pg.stats().size == 1)


async def test_what_is_old_is_replaced(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(min=1, max=2, lifetime=0.05)) as pg:
        first = await pg.query_value(PID)
        await until(lambda: pg.stats().created > 2)
        assert await pg.query_value(PID) != first


async def test_one_fatal_answer_retires_the_generation(
    postgresql_database: EmptyDatabase, admin: asyncpg.Connection
) -> None:
    """The server says that it takes no writes any more: what is idle goes now, what is in use when it comes back."""
    async with postgresql_database.provider(pool=Pool(min=4, max=4)) as pg:
        await pg.execute("CREATE TABLE t (a int)")
        await until(lambda: pg.stats().idle == 4)
        async with pg.transaction() as tx:
            old = await tx.query_value(PID)
            name = await admin.fetchval("SELECT current_database()")
            await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            await pg.execute("SET default_transaction_read_only = on")
            await until(lambda: pg.stats().idle == 3)
            slot = pg._pool.idle[-1]
            await slot.connection.execute("SET default_transaction_read_only = on")
            with pytest.raises(ConnectionFailed, match="takes no writes") as caught:
                await pg.execute("INSERT INTO t VALUES (1)")
            assert caught.value.code == "25006"
            assert pg.stats().generation == 1
            assert slot.connection.is_closed()
        assert pg.stats().size <= 4
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        for _ in range(5):
            assert await pg.query_value(PID) != old


async def test_a_borrower_that_keeps_a_connection_is_named(
    postgresql_database: EmptyDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "datavern.pool")
    async with postgresql_database.provider(pool=Pool(max=2, leak_after=0.05)) as pg:

        async def forgetful_borrower() -> None:
            async with pg.transaction() as tx:
                await tx.query("SELECT 1", [])
                await until(lambda: bool(caplog.records))

        await forgetful_borrower()
        await pg.query("SELECT 1")
    assert len(caplog.records) == 1
    assert "forgetful_borrower" in caplog.text
    assert "test_postgresql_pool.py" in caplog.text


async def test_close_does_not_wait_for_ever_for_a_borrower(
    postgresql_database: EmptyDatabase, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "RETURN_DEADLINE", 0.1)
    pg = postgresql_database.provider()
    await pg.connect()
    tx = pg.transaction()
    await tx.__aenter__()
    waiting = asyncio.ensure_future(pg.query("SELECT pg_sleep(60)"))
    async with asyncio.timeout(10):
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        while not await admin.fetchval(sleeping):  # noqa: ASYNC110  (the server has no event for us)
            await asyncio.sleep(0.005)
        await pg.close()
    with pytest.raises(ConnectionFailed):
        await tx.query("SELECT 1")
    await tx.__aexit__(ConnectionFailed, None, None)
    with pytest.raises(Exception, match="broke"):
        await waiting
    with pytest.raises(ConnectionFailed, match="not open"):
        await pg.query("SELECT 1")


async def test_close_lets_borrowers_finish(postgresql_database: EmptyDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "RETURN_DEADLINE", 600.0)  # it does not wait that long for one who is back
    pg = postgresql_database.provider()
    await pg.connect()
    await pg.execute("CREATE TABLE t (a int)")
    async with pg.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        closing = asyncio.ensure_future(pg.close())
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionFailed, match="closed"):
            await pg.query("SELECT 1")
        await tx.execute("INSERT INTO t VALUES (2)")
    async with asyncio.timeout(60):
        await closing
    async with pg:
        assert await pg.query_value("SELECT count(*) FROM t") == 2


async def test_opening_is_not_hurried_by_the_acquire_deadline(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=1, acquire=0.0)) as pg:
        assert await pg.query_value("SELECT 1") == 1


async def test_health_of_a_pool_that_is_in_use(
    postgresql_database: EmptyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datavern.engines import pooling as module

    monkeypatch.setattr(module, "_HEALTH_DEADLINE", 0.1)
    for acquire in (0.05, 30.0):
        async with postgresql_database.provider(pool=Pool(max=1, acquire=acquire)) as pg:
            async with pg.transaction():
                health = await pg.health()
            assert (health.status, health.detail) == ("degraded", "all 1 connections are in use (pool.max)")


async def test_close_tells_those_who_wait(postgresql_database: EmptyDatabase) -> None:
    pg = postgresql_database.provider(pool=Pool(max=1))
    await pg.connect()
    slot = pg._pool.take()
    pool = pg._pool
    waiting = [asyncio.ensure_future(pg.query("SELECT 1")) for _ in range(3)]
    await until(lambda: pg.stats().waiting == 3)
    closing = asyncio.ensure_future(pg.close())
    for task in waiting:
        with pytest.raises(ConnectionFailed, match="closed"):
            await task
    pool.give(slot)
    await closing
    assert slot.connection.is_closed()
    await pg.close()


async def test_opened_twice_and_opened_again(postgresql_database: EmptyDatabase) -> None:
    pg = postgresql_database.provider()
    await asyncio.gather(pg.connect(), pg.connect())
    assert pg.stats().created == 1
    await pg.close()
    async with pg:
        assert await pg.query_value("SELECT 1") == 1


# ---- for those who run it -------------------------------------------------------------------------------------------


async def test_suspended_callers_wait_and_whoever_has_one_goes_on(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=3)) as pg:
        await pg.execute("CREATE TABLE t (a int)")
        async with pg.transaction() as tx:
            pg.suspend()
            pg.suspend()
            waiting = [asyncio.ensure_future(pg.query_value("SELECT 1")) for _ in range(5)]
            await until(lambda: pg.stats().waiting == 5)
            await tx.execute("INSERT INTO t VALUES (1)")
        await pg.warm_up(2)
        assert pg.stats().idle == 2
        assert pg.stats().waiting == 5
        with pytest.raises(PoolTimeout, match="suspended"):
            await pg._pool.acquire(within=0.02)
        pg.resume()
        pg.resume()
        assert await asyncio.gather(*waiting) == [1] * 5
        assert await pg.query_value("SELECT count(*) FROM t") == 1
        pg.suspend()
    with pytest.raises(ConnectionFailed, match="not open"):
        pg.resume()


async def test_a_server_changed_under_a_program_that_runs_on(
    postgresql_database: EmptyDatabase, admin: asyncpg.Connection
) -> None:
    """Suspend, drain, change, resume: every call is served, and after it by a new connection."""
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'datavern' AND datname = current_database()"
    async with postgresql_database.provider(pool=Pool(min=2, max=4)) as pg:
        await pg.warm_up()
        over = False
        served = 0

        async def call(n: int) -> None:
            nonlocal served
            while not over:
                assert await pg.query_value("SELECT $1::int", [n]) == n
                served += 1

        calls = [asyncio.ensure_future(call(n)) for n in range(8)]
        for _ in range(5):
            created = pg.stats().created
            pg.suspend()
            assert await pg.drain()
            async with asyncio.timeout(10):
                while await admin.fetchval(mine):  # noqa: ASYNC110  (the server has no event)
                    await asyncio.sleep(0.005)
            assert pg.stats().size == 0
            pg.resume()
            before = served
            await until(lambda: served > before)  # noqa: B023  (it is over before the next)
            assert pg.stats().created > created
        over = True
        await asyncio.gather(*calls)


async def test_draining_waits_for_borrowers_and_not_for_ever(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(min=2, max=3)) as pg:
        await until(lambda: pg.stats().idle == 2)
        async with pg.transaction() as tx:
            old = await tx.query_value(PID)
            assert not await pg.drain(within=0.02)
            assert await tx.query_value(PID) == old
            draining = asyncio.ensure_future(pg.drain())
            given_up = asyncio.ensure_future(pg.drain())
            await asyncio.sleep(0)
            given_up.cancel()
        assert await draining
        assert given_up.cancelled()
        assert await pg.query_value(PID) != old
        await until(lambda: pg.stats().idle == 2)


async def test_warm_up(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=6, connecting=3)) as pg:
        assert await asyncio.gather(pg.warm_up(3), pg.warm_up(5), pg.warm_up(0)) == [3, 5, 1] or pg.stats().size == 5
        assert await pg.warm_up() == 6
        assert await pg.warm_up(99) == 6
        assert pg.stats().created == 6
    with pytest.raises(ConnectionFailed, match="not open"):
        await pg.warm_up()


async def test_a_few_connections_are_made_at_a_time(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=10, connecting=2)) as pg:
        seen = set()

        async def look() -> None:
            while pg.stats().size < 10:
                seen.add(pg.stats().connecting)
                await asyncio.sleep(0)

        await asyncio.gather(look(), pg.warm_up())
        assert max(seen) == 2


async def test_signs_of_life(
    postgresql_database: EmptyDatabase, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is idle for long is asked, and stays; what has become a corpse goes, and what is as old with it."""
    async with postgresql_database.provider(pool=Pool(min=3, max=3, keepalive=0.2)) as pg:
        await until(lambda: pg.stats().idle == 3)
        asked = []
        probe = pg._pool._connector.probe

        async def counted(connection: Any) -> None:
            asked.append(connection)
            await probe(connection)

        monkeypatch.setattr(pg._pool._connector, "probe", counted)
        await until(lambda: len(set(asked)) == 3 and len(asked) >= 6)
        await until(lambda: pg.stats().idle == 3)
        assert (pg.stats().created, pg.stats().acquired) == (3, 1)

        async def corpse(connection: Any) -> None:
            raise OSError

        monkeypatch.setattr(pg._pool._connector, "probe", corpse)
        await until(lambda: pg.stats().discarded >= 3)
        monkeypatch.setattr(pg._pool._connector, "probe", counted)
        await until(lambda: pg.stats().idle == 3)
        assert await pg.query_value("SELECT 1") == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"connecting": 0}, "pool.connecting"),
        ({"keepalive": 0.0}, "pool.keepalive"),
        ({"outage": -1.0}, "pool.outage"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Pool(**settings)


# ---- session state --------------------------------------------------------------------------------------------------

SESSION = """
SELECT (SELECT array_agg(name || '=' || setting ORDER BY name) FROM pg_settings WHERE source = 'session'
        AND name <> 'jit') AS settings,
       (SELECT array_agg(c) FROM pg_listening_channels() c) AS channels,
       (SELECT array_agg(name) FROM pg_prepared_statements WHERE from_sql) AS prepared,
       (SELECT array_agg(name) FROM pg_cursors WHERE is_holdable) AS cursors,
       (SELECT array_agg(objid) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
       (SELECT array_agg(relname) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r') AS tables,
       current_user || '/' || session_user AS who,
       nullif(current_setting('datavern.secret', true), '') AS custom
"""

LEFT_BEHIND = [
    "SET work_mem = '7MB'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET datavern.secret = 'oslo'",
    "SELECT set_config('datavern.secret', 'oslo', false)",
    "WITH x AS (SELECT set_config('datavern.secret', 'oslo', false)) SELECT * FROM x",
    "DO $$ BEGIN PERFORM set_config('datavern.secret', 'oslo', false); END $$",
    "SELECT leaves_something('oslo')",
    "CALL leaves_more('oslo')",
    "SELECT pg_advisory_lock(42)",
    "SELECT pg_try_advisory_lock_shared(42)",
    "CREATE TEMP TABLE mine (a int)",
    "SELECT 1 AS a INTO TEMP mine",
    "CREATE TABLE pg_temp.mine (a int)",
    "LISTEN something",
    "PREPARE mine AS SELECT 1",
    'PREPARE "a name; with ""quotes" AS SELECT 1',
    "DO $$ BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; END $$",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION pg_monitor",
    "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "SELECT nextval('counter')",
]


FUNCTIONS = """
CREATE SEQUENCE counter;
CREATE FUNCTION leaves_something(v text) RETURNS void LANGUAGE sql
    AS $$ SELECT set_config('datavern.secret', v, false) $$;
CREATE PROCEDURE leaves_more(v text) LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_advisory_lock(1); PERFORM set_config('datavern.secret', v, false); END $$;
"""


@pytest.mark.parametrize(
    "where", ["alone", "in a transaction", "in one that fails", "in one that is cancelled", "stream"]
)
async def test_nothing_of_a_session_reaches_the_next_borrower(postgresql_database: EmptyDatabase, where: str) -> None:
    async with postgresql_database.provider(pool=Pool(max=1)) as pg:
        await pg.execute(FUNCTIONS)
        async with pg.transaction() as tx:
            pid = await tx.query_value(PID)
            clean = dict(await tx.query_one(SESSION))
        for statement in LEFT_BEHIND:
            if where == "stream" and (not statement.startswith(("SELECT", "WITH")) or "INTO" in statement):
                continue
            await leave_behind(pg, statement, where)
            async with pg.transaction() as tx:
                assert await tx.query_value(PID) == pid, f"{statement}: the connection was thrown away"
                assert dict(await tx.query_one(SESSION)) == clean, statement
                with pytest.raises(QueryRejected):
                    async with tx.savepoint():
                        await tx.query("SELECT lastval()")


UNSEEN = """
CREATE TABLE watched (a int);
CREATE FUNCTION remembers() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM set_config('datavern.secret', 'mine', false); RETURN NEW; END $$;
CREATE TRIGGER remembers BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION remembers();
"""


@pytest.mark.parametrize("waited", [False, True])
async def test_what_no_text_shows_is_gone_where_every_session_is_reset(
    postgresql_database: EmptyDatabase, waited: bool
) -> None:
    secret = "SELECT current_setting('datavern.secret', true)"
    async with postgresql_database.provider(pool=Pool(max=1, reset="always")) as pg:
        await pg.execute(UNSEEN)
        before = pg.stats().reset

        async def writes() -> None:
            async with pg.transaction() as tx:
                await tx.execute("INSERT INTO watched VALUES (1)")
                assert await tx.query_value(secret) == "mine", "the test does not test"
                await asyncio.sleep(0.05 if waited else 0)

        async def looks() -> Any:
            await asyncio.sleep(0)
            return await pg.query_value(secret)  # takes an idle connection, or waits in the queue for this one

        if waited:
            _, found = await asyncio.gather(writes(), looks())
        else:
            await writes()
            found = await looks()
        assert not found
        assert pg.stats().created == 1, "the connection was thrown away"
        await until(lambda: pg.stats().reset >= before + 2)


def test_no_other_way_to_reset() -> None:
    with pytest.raises(ConfigurationError, match="pool.reset: expected touched or always"):
        Pool(reset="never")  # type: ignore[arg-type]


async def leave_behind(pg: Any, statement: str, where: str) -> None:
    match where:
        case "alone":
            await pg.execute(statement)
        case "in a transaction":
            async with pg.transaction() as tx:
                await tx.execute(statement)
        case "in one that fails":
            with pytest.raises(ZeroDivisionError):
                async with pg.transaction() as tx:
                    await tx.execute(statement)
                    raise ZeroDivisionError
        case "in one that is cancelled":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02), pg.transaction() as tx:
                    await tx.execute(statement)
                    await tx.query("SELECT pg_sleep(60)")
        case "stream":
            async with pg.stream(statement) as rows:
                async for _ in rows:
                    pass


async def test_a_transaction_that_is_cancelled_between_statements_is_undone(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(max=1)) as pg, postgresql_database.provider("other") as other:
        await pg.execute("CREATE TABLE t (a int)")
        begun = asyncio.Event()

        async def work() -> None:
            async with pg.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (1)")
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await pg.execute("INSERT INTO t VALUES (2)")  # on the same connection, and not in its transaction
        assert [row[0] for row in await other.query("SELECT a FROM t")] == [2]


async def test_a_transaction_that_a_statement_left_open_is_undone(postgresql: Any) -> None:
    """A text that nobody here can read to the end, and the server can: U&"…" names."""
    await postgresql.execute("CREATE TABLE t (a int)")
    with pytest.raises(QueryRejected, match=r"use transaction\(\)"):
        await postgresql.execute('BEGIN; INSERT INTO t SELECT 1 AS U&"x"')
    assert await postgresql.query_value("SELECT count(*) FROM t") == 0
    with pytest.raises(QueryRejected, match="ended it"):
        async with postgresql.transaction() as tx:
            await tx.execute('INSERT INTO t SELECT 1 AS U&"x"; COMMIT')
    await until(lambda: postgresql.stats().idle == postgresql.stats().size)


async def test_a_clean_statement_costs_no_reset(postgresql: Any) -> None:
    await postgresql.execute("CREATE TABLE t (a int)")
    await until(lambda: postgresql.stats().idle == postgresql.stats().size)
    before = postgresql.stats().reset
    for statement in (
        "SELECT count(*), now() FROM t",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 2",
        "DELETE FROM t",
    ):
        await postgresql.execute(statement)
    async with postgresql.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
    async with postgresql.stream("SELECT * FROM t") as rows:
        assert [row["a"] async for row in rows] == [1]
    assert postgresql.stats().reset == before


async def test_nothing_is_left_for_the_garbage_collector(postgresql_database: EmptyDatabase) -> None:
    """An unclosed connection or task would warn, and a warning fails this test."""
    pg = postgresql_database.provider(pool=Pool(min=2, max=4))
    await pg.connect()
    await asyncio.gather(*(pg.query("SELECT pg_sleep(0.01)") for _ in range(8)))
    await pg.close()
    before = len(asyncio.all_tasks())
    del pg
    gc.collect()
    assert before == 1

"""PostgreSQL while people give up, servers restart and networks freeze: nothing lost, nothing left behind, no lie.

`make faults` runs the long form.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.waiting import until

from datavern import ConnectionFailed, OutcomeUnknown, Pool, PoolTimeout, PostgreSQLProvider, ProviderError
from datavern.connectors import tending
from datavern.testing import EmptyDatabase, create_test_database
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.proxy import TCPProxy

SESSION = """
SELECT (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name <> 'jit')
     + (SELECT count(*) FROM pg_listening_channels())
     + (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)
     + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
     + (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r' AND pg_table_is_visible(oid))
     + (SELECT count(*) FROM pg_cursors WHERE is_holdable)
"""

COMMIT = b"COMMIT\0"
"""As it goes over the wire; READ COMMITTED is none."""


@pytest.fixture
async def through_proxy(
    postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer
) -> AsyncIterator[tuple[TCPProxy, Any]]:
    """A proxy, and what makes providers that go through it."""
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        url = postgresql_database.settings["url"].replace(f":{postgresql_server.port}/", f":{proxy.port}/")
        yield proxy, lambda **settings: PostgreSQLProvider.from_url(url, **settings)


# ---- cancellations --------------------------------------------------------------------------------------------------


async def _work(pg: Any, dice: random.Random, key: int) -> int:
    """One of the things that people do; gives the key back as the server echoed it."""
    match dice.randrange(9):
        case 0 | 1:
            return int(await pg.query_value("SELECT $1::int FROM pg_sleep($2)", [key, dice.random() * 0.004]))
        case 2:
            row = await pg.query_one("SELECT $1::int AS key, repeat('x', 20000) AS ballast", [key])
            return int(row["key"])
        case 3:
            await pg.execute("INSERT INTO done VALUES ($1)", [key])
        case 4:
            async with pg.transaction() as tx:
                await tx.execute("INSERT INTO done VALUES ($1)", [key])
                async with tx.savepoint():
                    await tx.execute("INSERT INTO done VALUES (-1)")
                await tx.execute("DELETE FROM done WHERE key = -1")
                return int(await tx.query_value("SELECT $1::int", [key]))
        case 5:
            async with pg.stream("SELECT $1::int FROM generate_series(1, 300)", [key], batch_size=50) as rows:
                async for row in rows:
                    if dice.random() < 0.01:
                        return int(row[0])
        case 6:
            await pg.execute("SET work_mem = '7MB'; SELECT pg_advisory_lock(1)")
        case 7:
            async with pg.transaction() as tx:
                await tx.execute("CREATE TEMP TABLE mine (a int)")
                await tx.execute("SELECT set_config('datavern.secret', 'oslo', false), pg_sleep(0.001)")
        case _:
            await pg.execute_many("INSERT INTO done VALUES ($1)", [[key], [key]])
    return key


async def test_random_cancellations(postgresql_database: EmptyDatabase, faults_long: bool) -> None:
    """None is swallowed, no answer reaches another caller, and every connection is there and clean afterwards."""
    times = 40_000 if faults_long else 4_000
    dice = random.Random(20261123)
    cancelled = finished = 0
    async with postgresql_database.provider(pool=Pool(min=1, max=6)) as pg:
        await pg.execute("CREATE TABLE done (key int)")

        async def one(key: int) -> None:
            nonlocal cancelled, finished
            task = asyncio.ensure_future(_work(pg, dice, key))
            chance = dice.random()
            if chance < 0.3:
                for _ in range(dice.randrange(12)):  # in one of the first turns: while it acquires, or as it is served
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(dice.random() * 0.008)
            asked = task.cancel()
            try:
                assert await task == key, "an answer that was another's"
            except asyncio.CancelledError:
                assert asked
                cancelled += 1
            else:
                assert not asked, "a cancellation was swallowed"
                finished += 1

        async def many(first: int, step: int) -> None:
            for key in range(first, times, step):
                await one(key)

        await asyncio.gather(*(many(k, 20) for k in range(20)))
        assert cancelled + finished == times
        assert cancelled > times / 10, "the test does not test"
        assert finished > times / 100, "the test does not test"
        await until(lambda: pg.stats().idle == pg.stats().size)
        assert (pg.stats().in_use, pg.stats().waiting) == (0, 0)
        # All six at once: no capacity is lost, and each is as new.
        met = asyncio.Barrier(6)

        async def look(nonce: int) -> int:
            async with pg.transaction() as tx:
                await met.wait()
                assert await tx.query_value("SELECT $1::int", [nonce]) == nonce
                assert await tx.query_value("SELECT current_setting('datavern.secret', true)") in {None, ""}
                return int(await tx.query_value(SESSION))

        async with asyncio.timeout(20):
            assert await asyncio.gather(*(look(n) for n in range(6))) == [0] * 6
        assert await pg.query_value("SELECT count(*) FROM done WHERE key = -1") == 0
    idle = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'datavern' AND datname = current_database()"
    admin = await asyncpg.connect(postgresql_database.settings["url"])
    async with asyncio.timeout(20):
        while await admin.fetchval(idle):  # noqa: ASYNC110  (the server has no event)
            await asyncio.sleep(0.01)
    await admin.close()


# ---- a server that restarts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("immediate", [False, True])
async def test_a_server_that_restarts(immediate: bool) -> None:
    """Every call before, during and after ends: done, or with an error that says what may be retried. And no lie."""
    with PostgreSQLServer(durable=True) as server:
        async with create_test_database("postgresql", server=server) as database:
            await _restarts(server, database, immediate=immediate)


async def _restarts(server: PostgreSQLServer, database: EmptyDatabase, *, immediate: bool) -> None:
    async with database.provider(pool=Pool(min=2, max=6, outage=0.0)) as pg:
        await pg.execute("CREATE TABLE done (key int PRIMARY KEY)")
        told: dict[int, str] = {}
        over = False

        async def write(first: int) -> None:
            key = first
            while not over:
                try:
                    await pg.execute("INSERT INTO done VALUES ($1)", [key])
                    told[key] = "done"
                except OutcomeUnknown:
                    told[key] = "unknown"
                except ConnectionFailed as error:
                    told[key] = "not done" if error.retry == "safe" else f"cannot tell: {error.retry}"
                    await asyncio.sleep(0.01)
                key += 10

        async def transfer(first: int) -> None:
            key = first
            while not over:
                try:

                    async def work(tx: Any, key: int = key) -> None:
                        await tx.execute("INSERT INTO done VALUES ($1)", [key])

                    await pg.run_in_transaction(work, attempts=2)
                    told[key] = "done"
                except OutcomeUnknown:
                    told[key] = "unknown"
                except ProviderError as error:
                    told[key] = "not done" if error.retry != "never" else "cannot tell"
                    await asyncio.sleep(0.01)
                key += 10

        async def once(first: int) -> None:
            key = first
            while not over:

                async def work(tx: Any, key: int = key) -> int:
                    await tx.execute("INSERT INTO once VALUES ($1)", [key])
                    return key

                while True:  # until it is acknowledged
                    try:
                        assert await pg.run_in_transaction(work, idempotency_key=f"once {key}") in {key, None}
                    except ProviderError:
                        await asyncio.sleep(0.01)
                    else:
                        break
                kept.add(key)
                key += 10

        kept: set[int] = set()
        await pg.execute("CREATE TABLE once (key int NOT NULL)")
        tasks = [asyncio.ensure_future(write(k)) for k in range(5)]
        tasks += [asyncio.ensure_future(transfer(k)) for k in range(5, 10)]
        tasks += [asyncio.ensure_future(once(k)) for k in range(5)]
        for _ in range(2):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.halt, immediate=immediate)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
        await asyncio.sleep(0.3)
        over = True
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)
        there = {row[0] for row in await pg.query("SELECT key FROM done")}
        assert not {k for k, what in told.items() if what == "done"} - there, "acknowledged, and lost"
        assert not {k for k, what in told.items() if what == "not done"} & there, "denied, and done"
        assert Counter(row[0] for row in await pg.query("SELECT key FROM once")) == Counter(kept), "lost, or twice"
        assert {"done", "not done"} <= set(told.values()) <= {"done", "not done", "unknown"}
        await until(lambda: pg.stats().idle == pg.stats().size)


async def test_a_restart_that_no_caller_notices() -> None:
    """Twenty calls in a row, and twenty at once, while the server is away and when it is back: none fails."""
    with PostgreSQLServer(durable=True) as server:
        async with (
            create_test_database("postgresql", server=server) as database,
            database.provider(pool=Pool(min=10, max=10, outage=60.0)) as pg,
        ):
            await pg.warm_up()
            for immediate in (False, True):
                assert pg.stats().idle == 10
                await asyncio.to_thread(server.halt, immediate=immediate)
                at_once = [asyncio.ensure_future(pg.query_value("SELECT $1::int", [n])) for n in range(20)]
                once = asyncio.ensure_future(pg.run_in_transaction(lambda tx: tx.query_value("SELECT 7")))
                await asyncio.sleep(0.2)
                assert not any(task.done() for task in at_once)
                await asyncio.to_thread(server.start)
                async with asyncio.timeout(60):
                    assert [await pg.query_value("SELECT $1::int", [n]) for n in range(20)] == list(range(20))
                    assert await asyncio.gather(*at_once, once) == [*range(20), 7]
                    await pg.warm_up()


async def test_a_server_that_stays_away(postgresql_database: EmptyDatabase) -> None:
    """Whoever waits is told why; a wrong password is told at once."""
    with PostgreSQLServer() as server:
        async with create_test_database("postgresql", server=server) as database:
            pg = database.provider(pool=Pool(max=2, outage=0.2))
            await pg.connect()
            await asyncio.to_thread(server.halt)
            async with asyncio.timeout(60):
                with pytest.raises(ConnectionFailed, match="nothing listens") as caught:
                    await pg.query("SELECT 1")
                assert caught.value.retry == "safe"
                assert (await pg.health()).status == "unhealthy"
                with pytest.raises(ConnectionFailed, match="nothing listens"):
                    await pg.warm_up()
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(60):
                assert await pg.warm_up() == 2
            await pg.close()


# ---- a network that freezes -----------------------------------------------------------------------------------------


async def test_a_frozen_socket(through_proxy: tuple[TCPProxy, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call ends at its own deadline, the pool comes back by itself, and close returns."""
    monkeypatch.setattr(tending, "RESTORE_DEADLINE", 0.2)
    monkeypatch.setattr(tending, "PROBE_DEADLINE", 0.2)
    proxy, provider = through_proxy
    async with provider(pool=Pool(min=2, max=4, acquire=1.0, outage=0.0), connect_timeout=0.3) as pg:
        await until(lambda: pg.stats().idle == 2)
        proxy.freeze()

        async def call(n: int) -> None:
            async with asyncio.timeout(0.1):
                match n % 4:
                    case 0:
                        await pg.query("SELECT 1")
                    case 1:
                        await pg.execute("SELECT set_config('a.b', 'c', false)")
                    case 2:
                        async with pg.transaction() as tx:
                            await tx.query("SELECT 1")
                    case _:
                        async with pg.stream("SELECT 1") as rows:
                            async for _ in rows:
                                pass

        async with asyncio.timeout(20):
            results = await asyncio.gather(*(call(n) for n in range(20)), return_exceptions=True)
        assert all(isinstance(r, TimeoutError) for r in results), results
        await until(lambda: pg.stats().size == 0)  # given up, without waiting for a goodbye
        with pytest.raises(ConnectionFailed, match="did not answer in time"):
            await pg.query("SELECT 1")
        proxy.thaw()
        await until(lambda: pg.stats().idle >= 2)
        assert await pg.query_value("SELECT 1") == 1
        proxy.freeze()
        holding = pg.transaction()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await holding.__aenter__()
        async with asyncio.timeout(20):
            await pg.close()


@pytest.mark.parametrize("callers", [1, 10])
async def test_connections_that_a_firewall_forgot(through_proxy: tuple[TCPProxy, Any], callers: int) -> None:
    """All that are open are frozen, and new ones work: calls end by their deadlines, and the service is back by itself.

    Nobody has to meet his deadline once for each connection of the pool.
    """
    proxy, provider = through_proxy
    async with provider(pool=Pool(min=10, max=10)) as pg:
        await pg.warm_up()
        proxy.freeze(newcomers=False)
        failed: list[BaseException] = []

        async def call(key: int) -> None:
            while True:
                try:
                    async with asyncio.timeout(2.0):
                        assert await pg.query_value("SELECT $1::int", [key]) == key
                except TimeoutError as error:
                    failed.append(error)
                else:
                    return

        async with asyncio.timeout(60):
            await asyncio.gather(*(call(key) for key in range(callers)))
            assert 1 <= len(failed) < 10 * callers
            await until(lambda: pg.stats().idle == 10)
        async with pg.transaction() as tx:
            assert await tx.query_value(SESSION) == 0


async def test_a_socket_that_freezes_while_idle(
    through_proxy: tuple[TCPProxy, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-open connections look well: the probe finds out, and takes the others that are as old with it."""
    monkeypatch.setattr(tending, "PROBE_DEADLINE", 0.2)
    proxy, provider = through_proxy
    async with provider(pool=Pool(min=3, max=3, validate_after=0.0)) as pg:
        await until(lambda: pg.stats().idle == 3)
        proxy.freeze()
        call = asyncio.ensure_future(pg.query_value("SELECT 1"))
        await until(lambda: pg.stats().discarded == 3)
        proxy.thaw()
        async with asyncio.timeout(20):
            assert await call == 1


async def test_a_network_that_cuts_and_cuts(through_proxy: tuple[TCPProxy, Any], faults_long: bool) -> None:
    """Reads end with an answer or a `safe` error, whatever the moment; afterwards everything works."""
    proxy, provider = through_proxy
    dice = random.Random(4)
    ended: list[str] = []
    over = False
    async with provider(pool=Pool(max=5)) as pg:

        async def read(key: int) -> None:
            while not over:
                try:
                    assert await pg.query_value("SELECT $1::int FROM generate_series(1, 50) LIMIT 1", [key]) == key
                    ended.append("read")
                except (ConnectionFailed, PoolTimeout) as error:
                    ended.append(f"failed, {error.retry}")
                    await asyncio.sleep(0.001)

        tasks = [asyncio.ensure_future(read(k)) for k in range(10)]
        for _ in range(200 if faults_long else 20):
            await asyncio.sleep(dice.random() * 0.05)
            await asyncio.to_thread(proxy.cut)
        over = True
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
        assert set(ended) == {"read", "failed, safe"}
        assert await pg.query_value("SELECT 1") == 1
        await until(lambda: pg.stats().idle == pg.stats().size)


# ---- a network that breaks at the worst moment ----------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after", "midway"])
async def test_a_commit_without_an_answer(through_proxy: tuple[TCPProxy, Any], moment: Any) -> None:
    """Alone it is told as what it is, and never run again; under a key it is done once, and gives its result."""
    proxy, provider = through_proxy
    async with provider(pool=Pool(max=2)) as pg:
        await pg.execute("CREATE TABLE done (key int, run int)")
        runs = 0

        async def work(tx: Any) -> int:
            nonlocal runs
            runs += 1
            await tx.execute("INSERT INTO done VALUES ($1, $2)", [key, runs])
            return runs

        key = 1
        proxy.strike(COMMIT, moment)
        with pytest.raises(OutcomeUnknown):
            await pg.run_in_transaction(work)
        assert (runs, proxy.struck) == (1, 1)
        assert await pg.query_value("SELECT count(*) FROM done") == (moment != "before")

        key = 2
        proxy.strike(COMMIT, moment)
        assert await pg.run_in_transaction(work, idempotency_key="the table of the keys is made") is not None
        assert await pg.query_value("SELECT count(*) FROM done WHERE key = 2") == 1
        key = 3
        for n in range(1, 4):
            proxy.strike(COMMIT, moment)
            runs = 0
            gave = await pg.run_in_transaction(work, idempotency_key=f"key {n}")
            assert gave == runs == (2 if moment == "before" else 1), "what was committed is what it gave"
            assert await pg.run_in_transaction(work, idempotency_key=f"key {n}") is None
        assert [tuple(row) for row in await pg.query("SELECT run, count(*) FROM done WHERE key = 3 GROUP BY run")] == [
            (runs, 3)
        ]


@pytest.mark.parametrize("moment", ["before", "after", "midway"])
async def test_a_statement_without_an_answer(through_proxy: tuple[TCPProxy, Any], moment: Any) -> None:
    proxy, provider = through_proxy
    insert, read = "INSERT INTO done VALUES ($1)", "SELECT $1::text, repeat('x', 100000)"
    async with provider(pool=Pool(max=1)) as pg:
        await pg.execute("CREATE TABLE done (word text)")
        await pg.execute(insert, ["prepared"])
        await pg.query(read, ["prepared"])
        proxy.strike(b"fjellrev", moment)
        with pytest.raises(ConnectionFailed) as caught:
            await pg.query(read, ["fjellrev"])
        assert caught.value.retry == "safe"
        await pg.execute(insert, ["prepared"])
        proxy.strike(b"fjellrev", moment)
        with pytest.raises(OutcomeUnknown):
            await pg.execute(insert, ["fjellrev"])
        there = "SELECT count(*) FROM done WHERE word = 'fjellrev'"
        assert await pg.query_value(there) == (moment != "before")
        await pg.execute(insert, ["prepared"], idempotency_key="prepared")
        proxy.strike(b"fjellrev", moment)
        with pytest.raises(OutcomeUnknown):
            await pg.execute(insert, ["fjellrev"], idempotency_key="once")
        assert await pg.execute(insert, ["fjellrev"], idempotency_key="once") == 1
        assert await pg.query_value(there) == 1 + (moment != "before")
        # Inside a transaction nothing is unknown: it was undone.
        proxy.strike(b"fjellrev", moment)
        with pytest.raises(ConnectionFailed) as caught:
            async with pg.transaction() as tx:
                await tx.execute(insert, ["fjellrev"])
        assert caught.value.retry == "transaction"
        assert await pg.query_value(there) == 1 + (moment != "before")


async def test_a_ledger_through_a_bad_network(through_proxy: tuple[TCPProxy, Any], faults_long: bool) -> None:
    """What was acknowledged is there once, what was denied is not, and under a key everything is there once."""
    proxy, provider = through_proxy
    dice = random.Random(11)
    told: dict[int, str] = {}
    over = False
    proxy.delay(0.001)
    async with provider(pool=Pool(max=6)) as pg:
        await pg.execute("CREATE TABLE done (key int)")
        await pg.execute("INSERT INTO done VALUES (-1)", idempotency_key="the table is made")

        async def write(first: int) -> None:
            key = first
            while not over:
                key += 10

                async def work(tx: Any, key: int = key) -> int:
                    await tx.execute("INSERT INTO done VALUES ($1)", [key])
                    return key

                try:
                    match first % 3:
                        case 0:
                            await pg.execute("INSERT INTO done VALUES ($1)", [key])
                        case 1:
                            assert await pg.run_in_transaction(work) == key
                        case _:
                            while True:
                                with contextlib.suppress(ProviderError):
                                    assert await pg.run_in_transaction(work, idempotency_key=str(key)) in {key, None}
                                    break
                                await asyncio.sleep(0.001)
                    told[key] = "done"
                except OutcomeUnknown:
                    told[key] = "unknown"
                except ProviderError as error:
                    told[key] = "not done" if error.retry != "never" else str(error)
                    await asyncio.sleep(0.001)

        tasks = [asyncio.ensure_future(write(k)) for k in range(10)]
        for _ in range(500 if faults_long else 25):
            goal = len(told) + dice.randrange(
                1, 16
            )  # so much gets done between two faults, however slow the machine is
            await until(lambda: len(told) >= goal)  # noqa: B023  (it is over before the next)
            match dice.randrange(4):
                case 0:
                    await asyncio.to_thread(proxy.cut)
                case 1:
                    await asyncio.to_thread(proxy.reset)
                case _:
                    proxy.strike(COMMIT, dice.choice(["before", "after", "midway"]))
        over = True
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)
        there = Counter(row[0] for row in await pg.query("SELECT key FROM done WHERE key >= 0"))
        done = {key for key, what in told.items() if what == "done"}
        assert not done - there.keys(), "acknowledged, and lost"
        assert not {key for key, what in told.items() if what == "not done"} & there.keys(), "denied, and done"
        assert set(there.values()) == {1}, "twice"
        assert set(told.values()) <= {"done", "not done", "unknown"}
        assert len(told) > len(done), "the test does not test"
        await until(lambda: pg.stats().idle == pg.stats().size)

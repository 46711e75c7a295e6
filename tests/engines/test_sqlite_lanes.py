"""Lanes: nothing waits behind a long read, streams hold readers of their own, cancelling leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import threading

import pytest

from datavern import SQLiteProvider
from datavern.contracts.errors import ConnectionFailed, DatavernError, OutcomeUnknown, PoolTimeout, QueryRejected
from datavern.engines.sqlite.jobs import DONE

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
SELECT = "SELECT v FROM t WHERE n = ?"


@pytest.fixture
async def db(tmp_path):
    async with SQLiteProvider(tmp_path / "test.db", location="norway") as db:
        await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")
        await db.execute_many("INSERT INTO t VALUES (?, ?)", [[n, f"v{n}"] for n in range(1000)])
        yield db


async def ended(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def quiet(db):
    """Wait until no reader runs anything."""
    while not all(lane.sleeping for lane in [*db._lanes.readers, db._lanes.writer]):  # noqa: ASYNC110  (a thread)
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("scans", [1, 2, 7])
async def test_point_selects_finish_while_long_scans_go_on(db, scans):
    long = [asyncio.create_task(db.query(ENDLESS)) for _ in range(scans)]
    await asyncio.sleep(0)
    found = await asyncio.gather(*(db.query_value(SELECT, [n % 1000]) for n in range(2000)))
    assert found == [f"v{n % 1000}" for n in range(2000)]
    assert await db.execute("INSERT INTO t VALUES (5000, 'x')") == 1
    assert not any(task.done() for task in long)
    await ended(*long)
    await quiet(db)


async def test_reads_that_share_a_snapshot_still_see_what_was_acknowledged_before_them(db):
    """Every read sees each write that was acknowledged before it was queued, whatever else is queued with it."""
    going = True
    acknowledged = 0

    async def write():
        nonlocal acknowledged
        while going:
            await db.execute("UPDATE t SET v = ? WHERE n = 0", [acknowledged + 1])
            acknowledged += 1

    async def read():
        before = acknowledged
        if before:
            assert int(await db.query_value("SELECT v FROM t WHERE n = 0")) >= before

    async def reads():
        for _ in range(100):
            await read()

    writer = asyncio.create_task(write())
    await asyncio.gather(*(reads() for _ in range(40)))
    going = False
    await writer
    assert acknowledged > 0
    await quiet(db)
    assert await db.checkpoint()  # no snapshot is left open


async def test_an_answer_does_not_wait_for_a_scan_that_comes_after_it(db):
    quick = [asyncio.create_task(db.query_value(SELECT, [n])) for n in range(20)]
    long = asyncio.create_task(db.query(ENDLESS))
    assert await asyncio.gather(*quick) == [f"v{n}" for n in range(20)]
    assert not long.done()
    await ended(long)


async def test_streams_take_readers_of_their_own_up_to_the_bound(tmp_path):
    async with SQLiteProvider(tmp_path / "t.db", location="norway", max_readers=3, acquire=0.05) as db:
        await db.execute("CREATE TABLE t (n INTEGER)")
        first, second = db.stream("SELECT 1"), db.stream("SELECT 1")
        async with first, second:
            assert db.stats().in_use == 2
            with pytest.raises(PoolTimeout, match="max_readers"):
                async with db.stream("SELECT 1"):
                    pass
            with pytest.raises(PoolTimeout):
                async with db.transaction(read_only=True) as tx:
                    await tx.query("SELECT 1")
            assert await db.query_value("SELECT 1") == 1
        async with db.stream("SELECT 7") as rows:
            assert [row[0] async for row in rows] == [7]
        assert len(db._lanes.readers) == 3


async def test_who_waits_for_a_reader_gets_the_next_in_turn(tmp_path):
    async with SQLiteProvider(tmp_path / "t.db", location="norway", max_readers=2) as db:
        order = []

        async def use(n):
            async with db.transaction(read_only=True) as tx:
                order.append(n)
                assert await tx.query_value("SELECT ?", [n]) == n

        await asyncio.gather(*(use(n) for n in range(20)))
        assert order == list(range(20))


async def test_a_stream_holds_no_more_than_two_batches(db):
    largest = 0
    async with db.stream("SELECT n, v FROM t", batch_size=10) as rows:
        async for _ in rows:
            waiting = rows._following
            if waiting is not None and waiting.state == DONE:
                largest = max(largest, len(waiting.outcome))
    assert largest <= 10


async def test_a_stream_does_not_write(db):
    with pytest.raises(QueryRejected, match="read-only"):
        async with db.stream("DELETE FROM t RETURNING n") as rows:
            async for _ in rows:
                pass
    assert await db.query_value("SELECT count(*) FROM t") == 1000


async def test_a_stream_is_read_inside_its_block(db):
    async with db.stream("SELECT n FROM t", batch_size=3) as rows:
        assert (await anext(rows))["n"] == 0
    with pytest.raises(QueryRejected):
        await anext(rows)


async def test_cancelling_a_stream_stops_its_scan(db):
    async def read():
        async with db.stream(ENDLESS) as rows:
            async for _ in rows:
                pass

    for _ in range(15):
        task = asyncio.create_task(read())
        await asyncio.sleep(0.002)
        await ended(task)
    await quiet(db)
    assert db.stats().in_use == 0


async def test_a_thousand_random_cancellations_leave_everything_clean(db):
    """Reads, writes, transactions, streams and endless scans, cancelled at any moment."""
    rng = random.Random(20261123)
    acknowledged: set[int] = set()
    threads = threading.active_count()

    async def read(n):
        assert await db.query_value(SELECT, [n % 1000]) == f"v{n % 1000}"

    async def write(n):
        await db.execute("INSERT INTO t VALUES (?, 'w')", [10_000 + n])
        acknowledged.add(10_000 + n)

    async def transaction(n):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (?, 'tx')", [100_000 + n])
            async with tx.savepoint():
                await tx.execute("INSERT INTO t VALUES (?, 'tx')", [200_000 + n])
            await tx.execute("INSERT INTO t VALUES (?, 'tx')", [300_000 + n])
        acknowledged.update({100_000 + n, 200_000 + n, 300_000 + n})

    async def snapshot(n):
        async with db.transaction(read_only=True) as tx:
            one = await tx.query_value("SELECT count(*) FROM t")
            assert await tx.query_value("SELECT count(*) FROM t") == one

    async def stream(n):
        async with db.stream("SELECT n FROM t LIMIT 300", batch_size=50) as rows:
            async for _ in rows:
                await asyncio.sleep(0)

    async def scan(n):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await db.query(ENDLESS)

    kinds = [read, write, transaction, snapshot, stream, scan]
    running: set[asyncio.Task] = set()
    for n in range(1500):
        running.add(asyncio.create_task(kinds[rng.choices(range(6), [30, 30, 20, 8, 8, 1])[0]](n)))
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice([0, 0, 0.0005]))
        for task in rng.sample(sorted(running, key=id), k=min(len(running), rng.choice([0, 1, 1]))):
            task.cancel()
        running = {t for t in running if not t.done()}
    done = await asyncio.gather(*running, return_exceptions=True)
    assert all(one is None or isinstance(one, asyncio.CancelledError) for one in done)
    await quiet(db)
    lanes = db._lanes
    assert (len(lanes.writer.queue), len(lanes.reads), len(lanes.waiters), len(lanes.done)) == (0, 0, 0, 0)
    assert lanes.writer.owner is None
    assert db.stats().in_use == 0
    assert not db._holders
    there = {row[0] for row in await db.query("SELECT n FROM t WHERE n >= 10000")}
    assert acknowledged <= there
    for n in there:  # a transaction is there as a whole or not at all
        if n >= 100_000:
            assert {100_000 + n % 100_000, 200_000 + n % 100_000, 300_000 + n % 100_000} <= there
    assert await db.query_value("PRAGMA integrity_check") == "ok"
    assert await db.execute("INSERT INTO t VALUES (999999, 'last')") == 1
    assert threading.active_count() <= threads + lanes.settings.max_readers


async def test_closing_in_the_middle_of_everything_ends_everything(tmp_path):
    db = SQLiteProvider(tmp_path / "t.db", location="norway", max_readers=3)
    before = threading.active_count()
    await db.connect()
    await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")

    async def stream():
        async with db.stream("SELECT 1 UNION ALL SELECT 2", batch_size=1) as rows:
            async for _ in rows:
                await asyncio.sleep(0.005)

    async def transaction(n):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (?)", [n])
            await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(stream()) for _ in range(5)]
    tasks += [asyncio.create_task(transaction(n)) for n in range(5)]
    tasks += [asyncio.create_task(db.query(ENDLESS)) for _ in range(3)]
    await asyncio.sleep(0.012)
    await db.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(r is None or isinstance(r, DatavernError) for r in results)
    assert threading.active_count() == before


async def test_a_loop_that_ends_without_closing_stops_the_threads(tmp_path):
    started: list[SQLiteProvider] = []

    async def careless():
        db = SQLiteProvider(tmp_path / "t.db", location="norway")
        await db.connect()
        await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        started.append(db)

    await asyncio.to_thread(asyncio.run, careless())
    writer = started[0]._lanes.writer
    writer.stop()  # what the end of the process does to a daemon thread
    await asyncio.to_thread(writer.join, 10)
    assert not writer.is_alive()
    for reader in started[0]._lanes.readers:
        reader.stop()
        await asyncio.to_thread(reader.join, 10)


async def test_a_fault_of_a_lane_leaves_nobody_waiting(db, monkeypatch):
    def fault(*_):
        raise ZeroDivisionError

    for reader in db._lanes.readers:
        monkeypatch.setattr(reader, "failure", fault)
    with pytest.raises(OutcomeUnknown, match="ZeroDivisionError"):
        await db.query("SELECT * FROM nowhere")
    assert await db.query_value(SELECT, [5]) == "v5"  # another reader has taken over
    monkeypatch.setattr(db._lanes.writer, "failure", fault)
    results = await asyncio.gather(
        *(db.execute(f"INSERT INTO {table} (n) VALUES (?)", [n]) for n, table in ((7000, "t"), (7001, "nowhere"))),
        return_exceptions=True,
    )
    assert {type(r) for r in results} == {OutcomeUnknown}
    with pytest.raises(ConnectionFailed):
        await db.execute("INSERT INTO t (n) VALUES (7002)")
    assert (await db.health()).status != "healthy"
    await db.close()
    async with db:
        assert await db.execute("INSERT INTO t (n) VALUES (7002)") == 1
        assert await db.query_value("SELECT count(*) FROM t WHERE n >= 7000") == 1


async def test_a_cancelled_close_still_ends_everything(tmp_path):
    db = SQLiteProvider(tmp_path / "t.db", location="norway")
    await db.connect()
    lanes = db._lanes
    await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    write = asyncio.create_task(db.execute("INSERT INTO t VALUES (1)"))
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert await write == 1
    await lanes.writer.closed
    lanes.writer.join()


async def test_a_first_row_of_many_holds_no_snapshot(db):
    for read in (db.query_one, db.query_value):
        assert await read("SELECT n FROM t WHERE n > 0")
        await db.execute("UPDATE t SET v = 'new' WHERE n = 0")
        assert await db.checkpoint()
    assert await db.query_value("SELECT v FROM t WHERE n = 0") == "new"


async def test_each_task_goes_on_in_its_own_context(db):
    who: contextvars.ContextVar[int] = contextvars.ContextVar("who")

    async def read(n):
        who.set(n)
        for _ in range(5):
            await db.query_value(SELECT, [n])
            assert who.get() == n

    await asyncio.gather(*(read(n) for n in range(50)))
    with pytest.raises(LookupError):
        who.get()


async def test_what_is_cancelled_is_told_why_and_only_once(db):
    async def read():
        with pytest.raises(asyncio.CancelledError) as told:
            await db.query(ENDLESS)
        assert told.value.args == ("enough",)
        return await db.query_value(SELECT, [7])  # and goes on

    for turns in range(3):
        task = asyncio.create_task(read())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel("enough")
        if turns:
            assert await task == "v7"
        else:  # it had not begun
            with pytest.raises(asyncio.CancelledError):
                await task


def test_a_task_that_ends_the_program_leaves_no_other_without_its_answer(tmp_path):
    """What raises SystemExit or KeyboardInterrupt leaves the loop, which may be run again to tidy up."""
    loop = asyncio.new_event_loop()
    db = SQLiteProvider(tmp_path / "t.db", location="norway")

    async def ends():
        await db.execute("INSERT INTO t VALUES (100)")
        raise SystemExit(3)

    async def every():
        return await asyncio.wait_for(asyncio.gather(*others), 60)

    try:
        loop.run_until_complete(db.connect())
        loop.run_until_complete(db.execute("CREATE TABLE t (n INTEGER)"))
        ending = loop.create_task(ends())
        others = [loop.create_task(db.execute("INSERT INTO t VALUES (?)", [n])) for n in range(20)]
        with pytest.raises(SystemExit):
            loop.run_until_complete(every())
        assert loop.run_until_complete(every()) == [1] * 20
        assert isinstance(ending.exception(), SystemExit)
        loop.run_until_complete(db.close())
    finally:
        loop.close()

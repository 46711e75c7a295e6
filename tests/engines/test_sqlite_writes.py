"""Group commit: what is acknowledged is on the disk, what fails fails alone, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from datavern import SQLiteProvider
from datavern.contracts.errors import (
    ConstraintViolated,
    PoolTimeout,
    ProviderError,
    QueryRejected,
    SerializationConflict,
)


@pytest.fixture
async def db(tmp_path):
    async with SQLiteProvider(tmp_path / "test.db", location="norway") as db:
        await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")
        yield db


async def held_back(db, calls):
    """Start the calls while a transaction holds the writer, so that they are all in its queue when it is let go."""
    async with db.transaction() as tx:
        await tx.query_value("SELECT 1")
        tasks = [asyncio.ensure_future(call) for call in calls]
        while len(db._lanes.writer.queue) < len(tasks):  # noqa: ASYNC110  (there is nothing to wait for)
            await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


def commits(db):
    return db._lanes.writer.commits


async def kept(db):
    return {row[0] for row in await db.query("SELECT n FROM t")}


async def test_writes_that_wait_are_committed_together(db):
    before = commits(db)
    results = await held_back(db, [db.execute("INSERT INTO t (n) VALUES (?)", [n]) for n in range(50)])
    assert results == [1] * 50
    assert commits(db) == before + 1
    assert await kept(db) == set(range(50))


async def test_each_that_fails_among_fifty_fails_alone(db):
    await db.execute("INSERT INTO t (n) VALUES (7)")
    calls = []
    for n in range(50):
        match n % 5:
            case 0:
                calls.append(db.execute("INSERT INTO t (n) VALUES (?)", [7]))
            case 1:
                calls.append(db.execute("INSERT INTO nowhere VALUES (?)", [n]))
            case 2:
                calls.append(db.execute_many("INSERT INTO t (n) VALUES (?)", [[1000 + n], [2000 + n], [7]]))
            case 3:
                calls.append(db.query("INSERT INTO t (n, v) VALUES (?, ?) RETURNING n", [100 + n, "x\0"]))
            case _:
                calls.append(db.query_value("INSERT INTO t (n) VALUES (?) RETURNING n", [100 + n]))
    results = await held_back(db, calls)
    for n, result in enumerate(results):
        expected = {0: ConstraintViolated, 1: QueryRejected, 2: ConstraintViolated, 3: QueryRejected, 4: int}[n % 5]
        assert type(result) is expected
    assert await kept(db) == {7} | {100 + n for n in range(4, 50, 5)}


async def test_a_constraint_that_is_checked_at_the_commit_fails_only_its_own(db):
    await db.execute("CREATE TABLE c (t INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)")
    calls = [db.execute("INSERT INTO t (n) VALUES (?)", [n]) for n in range(10)]
    calls += [db.execute("INSERT INTO c VALUES (?)", [n]) for n in (3, 99, 4)]
    calls += [db.execute("INSERT INTO t (n) VALUES (?)", [n]) for n in range(5, 15)]
    results = await held_back(db, calls)
    assert [type(r) for r in results[:10]] == [int] * 10
    assert [type(r) for r in results[10:13]] == [int, ConstraintViolated, int]
    assert [type(r) for r in results[13:]] == [ConstraintViolated] * 5 + [int] * 5
    assert await kept(db) == set(range(15))
    assert [r[0] for r in await db.query("SELECT t FROM c ORDER BY t")] == [3, 4]


async def test_one_that_rolls_the_whole_transaction_back_takes_nobody_along(db):
    await db.execute("INSERT INTO t (n) VALUES (5)")
    calls = [db.execute("INSERT INTO t (n) VALUES (?)", [n]) for n in (1, 2, 3, 3)]
    calls += [db.execute("INSERT OR ROLLBACK INTO t (n) VALUES (5)")]
    calls += [db.execute("INSERT INTO t (n) VALUES (?)", [n]) for n in (11, 12, 13)]
    results = await held_back(db, calls)
    assert [type(r) for r in results] == [int] * 3 + [ConstraintViolated] * 2 + [int] * 3
    assert await kept(db) == {1, 2, 3, 5, 11, 12, 13}


async def test_a_statement_that_gives_up_halfway_leaves_nothing(db):
    await db.execute("INSERT INTO t (n) VALUES (5)")
    sets = ", ".join(f"({n})" for n in range(10))
    results = await held_back(db, [db.execute(f"INSERT OR FAIL INTO t (n) VALUES {sets}") for _ in range(3)])
    assert [type(r) for r in results] == [ConstraintViolated] * 3
    assert await kept(db) == {5}


async def test_a_full_disk_in_the_middle_of_a_group_commit(db):
    """No acknowledged write is lost, and none is acknowledged that is not there."""
    pages = await db.query_value("PRAGMA page_count")
    await db.query(f"PRAGMA max_page_count = {pages + 8}")
    text = "x" * 3000
    results = await held_back(db, [db.execute("INSERT INTO t VALUES (?, ?)", [n, text]) for n in range(40)])
    acknowledged = {n for n, result in enumerate(results) if result == 1}
    refused = [r for r in results if isinstance(r, ProviderError)]
    assert len(acknowledged) + len(refused) == 40
    assert acknowledged
    assert refused
    assert {r.code for r in refused} == {"SQLITE_FULL"}
    assert "disk is full" in str(refused[0])
    assert await kept(db) == acknowledged
    await db.query("PRAGMA max_page_count = 100000")
    assert await db.execute("INSERT INTO t VALUES (1000, 'after')") == 1
    assert await db.query_value("PRAGMA integrity_check") == "ok"


def child(code: str, *arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_disk_that_takes_no_more_bytes(tmp_path):
    """The system lets no file grow: nothing is acknowledged that is not there when they are opened again."""
    path = tmp_path / "test.db"
    process = child(
        """
        import asyncio, json, resource, sys
        from datavern import SQLiteProvider

        async def main(path):
            async with SQLiteProvider(path, location="norway") as db:
                await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")
                resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
                tasks = [db.execute("INSERT INTO t VALUES (?, ?)", [n, "x" * 2000]) for n in range(600)]
                results = await asyncio.gather(*tasks, return_exceptions=True)
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                await db.execute("INSERT INTO t VALUES (9999, 'after')")
            said = [r if isinstance(r, int) else f"{type(r).__name__} {r.code}" for r in results]
            print(json.dumps(said))

        asyncio.run(main(sys.argv[1]))
        """,
        path,
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    said = json.loads(out)
    acknowledged = {n for n, one in enumerate(said) if one == 1}
    assert any(one != 1 for one in said)
    assert {one.split()[0] for one in said if one != 1} == {"ProviderError"}
    with sqlite3.connect(path) as connection:
        there = {row[0] for row in connection.execute("SELECT n FROM t")}
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()
    assert there == acknowledged | {9999}


@pytest.mark.parametrize("attempt", range(3))
def test_a_process_that_is_killed_loses_no_acknowledged_write(tmp_path, attempt):
    path = tmp_path / "test.db"
    process = child(
        """
        import asyncio, os, sys
        from datavern import SQLiteProvider

        async def main(path):
            async with SQLiteProvider(path, location="norway") as db:
                await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")

                async def work(k):
                    n = k
                    while True:
                        if n % 3:
                            await db.execute("INSERT INTO t VALUES (?, ?)", [n, "x" * 100])
                        else:
                            async with db.transaction() as tx:
                                await tx.execute("INSERT INTO t VALUES (?, ?)", [n, "x" * 100])
                        os.write(1, f"{n}\\n".encode())
                        n += 50

                await asyncio.gather(*(work(k) for k in range(50)))

        asyncio.run(main(sys.argv[1]))
        """,
        path,
    )
    acknowledged = set()
    for _ in range(300 + 200 * attempt):
        acknowledged.add(int(process.stdout.readline()))
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    lines = rest.split("\n")[:-1]  # the last one may have been cut off
    acknowledged |= {int(line) for line in lines}
    with sqlite3.connect(path) as connection:
        there = {row[0] for row in connection.execute("SELECT n FROM t")}
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()
    assert acknowledged <= there


async def test_another_process_that_holds_the_file_is_a_conflict(tmp_path):
    path = tmp_path / "test.db"
    async with SQLiteProvider(path, location="norway", busy_timeout=0.05) as db:
        await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            *(db.execute("INSERT INTO t VALUES (?)", [n]) for n in range(5)), return_exceptions=True
        )
        assert {type(r) for r in results} == {SerializationConflict}
        assert {r.retry for r in results} == {"transaction"}
        with pytest.raises(SerializationConflict):
            async with db.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (99)")
        assert await db.query_value("SELECT count(*) FROM t") == 0
        runs = 0

        async def work(tx):
            nonlocal runs
            runs += 1
            if runs == 2:
                other.execute("ROLLBACK")
            await tx.execute("INSERT INTO t VALUES (77)")

        await db.run_in_transaction(work)
        assert runs == 2
        assert await db.query_value("SELECT n FROM t") == 77
        other.close()


async def test_a_task_is_told_that_it_waits_for_itself(db):
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO t (n) VALUES (1)")
        with pytest.raises(QueryRejected, match="wait for itself"):
            await db.execute("INSERT INTO t (n) VALUES (2)")
        with pytest.raises(QueryRejected, match="wait for itself"):
            async with db.transaction() as inner:
                await inner.execute("INSERT INTO t (n) VALUES (2)")
        assert await db.query_value("SELECT count(*) FROM t") == 0  # a read waits for nobody
    assert await kept(db) == {1}


async def test_who_waits_too_long_for_the_writer_is_told_so(tmp_path):
    async with SQLiteProvider(tmp_path / "test.db", location="norway", acquire=0.0) as db:
        await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")

        async def transaction(n):
            async with db.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (?)", [n])

        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (0)")
            results = await asyncio.gather(
                asyncio.create_task(db.execute("INSERT INTO t VALUES (1)")),
                asyncio.create_task(transaction(2)),
                return_exceptions=True,
            )
        assert [type(r) for r in results] == [PoolTimeout, PoolTimeout]
        assert [r.retry for r in results] == ["safe", "safe"]
        assert db.stats().timeouts == 2
        await db.execute("INSERT INTO t VALUES (5)")
        assert await kept(db) == {0, 5}


async def test_a_group_commit_that_has_begun_is_finished_for_a_cancelled_caller(db):
    """And one that has not begun never happens; nothing hangs either way."""
    tasks = [asyncio.create_task(db.execute("INSERT INTO t (n) VALUES (?)", [n])) for n in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [1] * 100
    there = await kept(db)
    assert set(range(1, 200, 2)) <= there <= set(range(200))


async def test_cancelled_in_the_queue_is_never_run(db):
    async with db.transaction() as tx:
        await tx.query_value("SELECT 1")
        tasks = [asyncio.create_task(db.execute("INSERT INTO t (n) VALUES (?)", [n])) for n in range(50)]
        while len(db._lanes.writer.queue) < 50:  # noqa: ASYNC110  (there is nothing to wait for)
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    await db.execute("INSERT INTO t (n) VALUES (1000)")
    assert await kept(db) == {1000}


async def test_closing_commits_what_was_accepted(tmp_path):
    path = tmp_path / "test.db"
    db = SQLiteProvider(path, location="norway")
    await db.connect()
    await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    tasks = [asyncio.create_task(db.execute("INSERT INTO t VALUES (?)", [n])) for n in range(500)]
    await asyncio.sleep(0)
    await db.close()
    assert await asyncio.gather(*tasks) == [1] * 500
    assert not Path(f"{path}-wal").exists()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 500
    connection.close()


async def test_pragmas_and_vacuum_run_outside_transactions(db):
    await db.execute("PRAGMA user_version = 7")
    assert await db.query_value("PRAGMA user_version") == 7
    assert await db.execute("VACUUM") == 0
    with pytest.raises(QueryRejected, match="VACUUM"):
        async with db.transaction() as tx:
            await tx.execute("VACUUM")

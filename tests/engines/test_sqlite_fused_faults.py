"""SQLite: a change and its audit entry, and its key, on a disk that fills up and in a process that is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.engines.test_sqlite_writes import held_back

from datavern import DatabaseManager, Keyring, ProviderError, SQLiteProvider

PAIRS = """
SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM datavern_audit WHERE action = 'made'),
       (SELECT count(*) FROM t WHERE 'n' || n NOT IN (SELECT dataset FROM datavern_audit WHERE dataset IS NOT NULL)),
       (SELECT count(*) FROM t WHERE n % 2 AND 'k' || n NOT IN (SELECT key FROM datavern_idempotency)),
       (SELECT count(*) FROM datavern_idempotency WHERE key LIKE 'k%' AND substr(key, 2) NOT IN (SELECT n FROM t))
"""
"""Rows, entries, and what of each has not its other half: all in one moment."""


@pytest.fixture
async def ring(tmp_path: Path) -> str:
    made = await Keyring.create(f"file:{tmp_path / 'keys'}")
    await made.close()
    return made.url


def halves(path: Path) -> tuple[set[int], tuple[int, ...]]:
    connection = sqlite3.connect(path)
    try:
        there = {row[0] for row in connection.execute("SELECT n FROM t")}
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return there, connection.execute(PAIRS).fetchone()
    finally:
        connection.close()


async def test_a_full_disk_takes_a_change_with_its_entry_or_neither(tmp_path: Path, ring: str) -> None:
    path = tmp_path / "test.db"
    db = SQLiteProvider(path, name="main", location="norway")
    async with DatabaseManager({"main": db}, keyring=ring, ledger="main") as manager:
        await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")
        await db.execute("INSERT INTO t VALUES (-2, '')", idempotency_key="made")  # the table of the keys
        await db.execute("DELETE FROM t")
        pages = await db.query_value("PRAGMA page_count")
        await db.query(f"PRAGMA max_page_count = {pages + 14}")
        entries = [await manager.audit.entry("made", dataset=f"n{n}") for n in range(60)]
        results = await held_back(
            db,
            [
                db.execute(
                    "INSERT INTO t VALUES (?, ?)", [n, "x" * 2500], audit=entries[n],
                    idempotency_key=f"k{n}" if n % 2 else None,
                )
                for n in range(60)
            ],
        )  # fmt: skip
        acknowledged = {n for n, result in enumerate(results) if result == 1}
        refused = [r for r in results if isinstance(r, ProviderError)]
        assert acknowledged
        assert refused
        assert len(acknowledged) + len(refused) == 60
        assert {r.code for r in refused} == {"SQLITE_FULL"}
        await db.query("PRAGMA max_page_count = 100000")
        again = next(n for n in range(60) if n not in acknowledged and n % 2)
        for _ in range(2):  # what was refused left no key behind
            done = await db.execute("INSERT INTO t VALUES (?, '')", [again], idempotency_key=f"k{again}")
            assert done == 1
        await db.execute("DELETE FROM t WHERE n = ?", [again])
        await db.execute("DELETE FROM datavern_idempotency WHERE key = ?", [f"k{again}"])
    there, (rows, told, *missing) = halves(path)
    assert there == acknowledged
    assert rows == told
    assert missing == [0, 0, 0]


@pytest.mark.parametrize("attempt", range(2))
def test_a_killed_process_leaves_no_half(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "test.db"
    code = """
    import asyncio, os, sys
    from datavern import DatabaseManager, Keyring, SQLiteProvider

    async def main(path):
        ring = await Keyring.create(f"file:{path}.keys")
        await ring.close()
        db = SQLiteProvider(path, name="main", location="norway")
        async with DatabaseManager({"main": db}, keyring=ring.url, ledger="main") as manager:
            await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")

            async def work(k):
                for n in range(k, 1_000_000, 30):
                    entry = await manager.audit.entry("made", dataset=f"n{n}")
                    key = f"k{n}" if n % 2 else None
                    await db.execute("INSERT INTO t VALUES (?, 'x')", [n], audit=entry, idempotency_key=key)
                    os.write(1, f"{n}\\n".encode())

            await asyncio.gather(*(work(k) for k in range(30)))

    asyncio.run(main(sys.argv[1]))
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = {int(process.stdout.readline()) for _ in range(150 + 130 * attempt)}
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    acknowledged |= {int(line) for line in rest.split("\n")[:-1]}
    there, (rows, told, *missing) = halves(path)
    assert acknowledged <= there
    assert rows == told
    assert missing == [0, 0, 0]

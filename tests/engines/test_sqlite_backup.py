"""Copies of a database that is used, and whether a file is whole."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading

import pytest

from datavern import SQLiteProvider
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, ProviderError
from datavern.engines.sqlite import online_backup

ACCOUNTS = 40


@pytest.fixture
async def db(tmp_path):
    async with SQLiteProvider(tmp_path / "test.db", location="norway") as db:
        await db.execute(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filling TEXT) STRICT"
        )
        await db.execute_many("INSERT INTO accounts VALUES (?, 100, ?)", [[n, "x" * 9000] for n in range(ACCOUNTS)])
        yield db


def names(folder):
    return sorted(f.name for f in folder.iterdir() if not f.name.startswith("test.db"))


def asides():
    return [t for t in threading.enumerate() if t.name.endswith("-aside")]


async def test_a_copy_is_one_moment_while_others_write(db, tmp_path, monkeypatch):
    """Money moves between accounts all the time: in every copy the sum is what it always was."""
    monkeypatch.setattr(online_backup, "_PAGES", 1)
    moved = 0
    going = True

    async def move():
        nonlocal moved
        while going:
            a, b = moved % ACCOUNTS, (moved * 7 + 1) % ACCOUNTS
            async with db.transaction() as tx:
                await tx.execute("UPDATE accounts SET balance = balance - 1 WHERE id = ?", [a])
                await tx.execute("UPDATE accounts SET balance = balance + 1, filling = ? WHERE id = ?", ["y" * 9000, b])
            moved += 1

    writer = asyncio.ensure_future(move())
    while moved < 3:  # noqa: ASYNC110  (another task counts)
        await asyncio.sleep(0)
    copies = [tmp_path / f"copy{i}.db" for i in range(3)]
    sizes = await asyncio.gather(*(db.backup(path) for path in copies))
    before = moved
    while moved == before:  # noqa: ASYNC110  (another task counts)
        await asyncio.sleep(0)
    going = False
    await writer
    for path, size in zip(copies, sizes, strict=True):
        assert path.stat().st_size == size > ACCOUNTS * 9000
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with SQLiteProvider(path, location="norway") as copy:
            assert await copy.query_value("SELECT sum(balance) FROM accounts") == ACCOUNTS * 100
            assert await copy.query_value("SELECT count(*) FROM accounts") == ACCOUNTS
            assert await copy.integrity_check() == []
    assert names(tmp_path) == [path.name for path in copies]


async def test_a_copy_is_whole_by_itself(db, tmp_path):
    await db.backup(tmp_path / "copy.db")
    connection = sqlite3.connect(f"file:{tmp_path / 'copy.db'}?mode=ro&immutable=1", uri=True)
    assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (ACCOUNTS,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()
    assert names(tmp_path) == ["copy.db"]


async def test_what_was_acknowledged_before_is_in_it(db, tmp_path):
    await db.execute("INSERT INTO accounts VALUES (1000, 7, NULL)")
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO accounts VALUES (1001, 7, NULL)")
        await db.backup(tmp_path / "copy.db")
    async with SQLiteProvider(tmp_path / "copy.db", location="norway") as copy:
        rows = await copy.query("SELECT id FROM accounts WHERE id >= 1000")
        assert [row["id"] for row in rows] == [1000]


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
async def test_nobody_else_can_read_it(db, tmp_path, umask):
    previous = os.umask(umask)
    try:
        await db.backup(tmp_path / "copy.db")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


async def test_nothing_is_overwritten(db, tmp_path):
    (tmp_path / "letter.txt").write_text("Kjære")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("letter.txt", "link", "test.db", "test.db-wal", "."):
        with pytest.raises(ConfigurationError, match="already"):
            await db.backup(tmp_path / name)
    assert (tmp_path / "letter.txt").read_text() == "Kjære"
    assert names(tmp_path) == ["letter.txt", "link"]


async def test_a_name_that_is_taken_meanwhile_is_not_overwritten(db, tmp_path, monkeypatch):
    monkeypatch.setattr(online_backup, "_PAGES", 1)
    taken = tmp_path / "copy.db"
    tasks = [asyncio.ensure_future(db.backup(taken)) for _ in range(3)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["ConfigurationError", "ConfigurationError", "int"]
    assert names(tmp_path) == ["copy.db"]


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", b"bytes.db"])
async def test_what_is_no_path_is_refused(db, path):
    with pytest.raises(ConfigurationError, match="path of a new file"):
        await db.backup(path)


async def test_the_folder_must_be_there(db, tmp_path):
    with pytest.raises(ConfigurationError, match="no folder"):
        await db.backup(tmp_path / "nowhere" / "copy.db")
    with pytest.raises(ProviderError, match="cannot be written: File name too long"):
        await db.backup(tmp_path / ("x" * 250))
    assert names(tmp_path) == []


@pytest.mark.parametrize("memory", [False, True])
async def test_a_cancelled_backup_leaves_nothing(db, tmp_path, monkeypatch, memory):
    """Stopped at its second step, at its end, and before it began."""
    monkeypatch.setattr(online_backup, "_PAGES", 1)
    loop, real = asyncio.get_running_loop(), online_backup._sync
    reached = asyncio.Event()
    going_on = threading.Event()

    def hold(path):
        loop.call_soon_threadsafe(reached.set)
        going_on.wait(10)
        real(path)

    monkeypatch.setattr(online_backup, "_sync", hold)
    other = SQLiteProvider(":memory:", location="norway") if memory else db
    async with other if memory else SQLiteProvider(tmp_path / "test.db", location="norway"):
        task = asyncio.ensure_future(other.backup(tmp_path / "copy.db"))
        await reached.wait()
        assert len(names(tmp_path)) == 1
        task.cancel()
        await asyncio.sleep(0)
        going_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names(tmp_path) == []
        for steps in range(4):
            task = asyncio.ensure_future(other.backup(tmp_path / "copy.db"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert names(tmp_path) == []
        assert await other.query_value("SELECT 1") == 1
    while asides():  # noqa: ASYNC110  (a thread tells nobody that it has ended)
        await asyncio.sleep(0.01)


async def test_a_disk_that_is_full(db, tmp_path, monkeypatch):
    """The copy may be ten pages long: what SQLite says of a full disk."""
    connect = sqlite3.connect

    def small(*args, **settings):
        connection = connect(*args, **settings)
        if ".part-" in str(args[0]):
            connection.execute("PRAGMA max_page_count = 10")
        return connection

    monkeypatch.setattr(online_backup.sqlite3, "connect", small)
    with pytest.raises(ProviderError, match="full") as caught:
        await db.backup(tmp_path / "copy.db")
    assert caught.value.provider == "sqlite"
    assert names(tmp_path) == []


async def test_a_database_in_memory(tmp_path):
    async with SQLiteProvider(":memory:", location="norway") as db:
        await db.execute("CREATE TABLE t (v TEXT)")
        await db.execute("INSERT INTO t VALUES ('æ')")
        await asyncio.gather(db.backup(tmp_path / "copy.db"), db.execute("INSERT INTO t VALUES ('ø')"))
        assert await db.integrity_check() == []
        assert await db.query_value("SELECT count(*) FROM t") == 2
        with pytest.raises(ConfigurationError, match="already"):
            await db.backup(tmp_path / "copy.db")
    async with SQLiteProvider(tmp_path / "copy.db", location="norway") as copy:
        assert await copy.query_value("SELECT v FROM t") == "æ"


async def test_a_provider_that_is_not_open(tmp_path):
    db = SQLiteProvider(tmp_path / "test.db", location="norway")
    for call in (db.backup(tmp_path / "copy.db"), db.integrity_check()):
        with pytest.raises(ConnectionFailed, match="not open"):
            await call
    assert names(tmp_path) == []


# ---- whether it is whole --------------------------------------------------------------------------------------------


async def test_a_foreign_key_to_nowhere(db):
    await db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, account INTEGER REFERENCES accounts (id))")
    assert await db.integrity_check() == []
    connection = sqlite3.connect(db.settings.path)
    connection.execute("INSERT INTO notes VALUES (5, 77)")
    connection.commit()
    connection.close()
    assert await db.integrity_check() == [
        "row 5 of notes refers to a row of accounts that is not there (foreign key 0)"
    ]


async def test_a_damaged_index_and_a_damaged_file(tmp_path):
    path = tmp_path / "test.db"
    async with SQLiteProvider(path, location="norway") as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        await db.execute_many("INSERT INTO t (v) VALUES (?)", [[f"hemmelig{n}" + "x" * 500] for n in range(200)])
        await db.execute("CREATE INDEX by_v ON t (v)")
        await db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = await db.query_value("SELECT rootpage FROM sqlite_master WHERE name = 't'")
    content = bytearray(path.read_bytes())
    content[-4096:] = bytes(4096)
    path.write_bytes(content)
    async with SQLiteProvider(path, location="norway") as db:
        faults = await db.integrity_check()
        assert faults
        assert "hemmelig" not in repr(faults)
    content[(root - 1) * 4096 : root * 4096] = os.urandom(4096)
    path.write_bytes(content)
    async with SQLiteProvider(path, location="norway") as db:
        assert await db.integrity_check()


async def test_a_cancelled_check_ends(tmp_path, monkeypatch):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    begun = threading.Event()

    def look(connection):
        begun.set()
        return connection.execute(endless).fetchone()

    async with SQLiteProvider(tmp_path / "test.db", location="norway") as db:
        with monkeypatch.context() as patched:
            patched.setattr(online_backup, "_faults", look)
            task = asyncio.ensure_future(db.integrity_check())
            await asyncio.to_thread(begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        while asides():  # noqa: ASYNC110  (a thread tells nobody that it has ended)
            await asyncio.sleep(0.01)
        assert await db.integrity_check() == []

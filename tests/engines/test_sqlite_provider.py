"""The file, the settings, the values, and databases in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import traceback
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

import pytest

from datavern import SQLiteProvider
from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    CapabilityMissing,
    ConfigurationError,
    ConnectionFailed,
    QueryRejected,
)
from datavern.engines.sqlite import files
from datavern.engines.sqlite.settings import SQLiteSettings


@pytest.fixture
async def db(tmp_path):
    async with SQLiteProvider(tmp_path / "test.db", location="norway") as db:
        yield db


@pytest.fixture
async def memory():
    async with SQLiteProvider(":memory:", location="norway") as db:
        await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")
        await db.execute_many("INSERT INTO t VALUES (?, ?)", [[n, f"v{n}"] for n in range(100)])
        yield db


# ---- the file -------------------------------------------------------------------------------------------------------


async def test_nobody_else_can_read_the_files(tmp_path):
    path = tmp_path / "blåbær ? # %20.db"
    previous = os.umask(0)
    try:
        async with SQLiteProvider(path, location="norway") as db:
            await db.execute("CREATE TABLE t (n int)")
            modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}


async def opened(path, **settings):
    async with SQLiteProvider(path, location="norway", **settings):
        pass


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o660, False), (0o644, True), (0o602, True)])
async def test_a_file_that_anybody_may_read_is_warned_of(tmp_path, caplog, mode, warned):
    path = tmp_path / "there.db"
    path.touch()
    path.chmod(mode)
    async with SQLiteProvider(path, location="norway", name="x") as db:
        await db.execute("CREATE TABLE t (n int)")
    assert stat.S_IMODE(path.stat().st_mode) == mode, "it is its owner's to change"
    said = [record.getMessage() for record in caplog.records if record.name == "datavern.sqlite"]
    assert len(said) == warned
    assert all("chmod 600" in message and f"mode {mode:04o}" in message for message in said)


async def test_a_folder_is_not_a_database(tmp_path):
    with pytest.raises(ConfigurationError, match="folder"):
        await opened(tmp_path)


async def test_the_folder_must_be_there(tmp_path):
    with pytest.raises(ConfigurationError, match="no folder"):
        await opened(tmp_path / "nowhere" / "test.db")


async def test_a_pipe_and_a_link_to_nothing_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("pipe", "link"):
        with pytest.raises(ConfigurationError, match="regular file"):
            await opened(tmp_path / name)


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as one" * 100, b"PK\x03\x04 short"])
async def test_a_file_that_is_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    with pytest.raises(ConnectionFailed, match="not a SQLite database") as caught:
        await opened(path)
    assert caught.value.code == "SQLITE_NOTADB"
    assert caught.value.retry == "never"
    assert path.read_bytes() == content
    assert [f.name for f in tmp_path.iterdir()] == ["letter.txt"]


async def test_a_damaged_file_is_called_damaged(tmp_path):
    path = tmp_path / "test.db"
    async with SQLiteProvider(path, location="norway") as db:
        await db.execute("CREATE TABLE t (v TEXT)")
        await db.execute_many("INSERT INTO t VALUES (?)", [["x" * 500]] * 200)
    content = bytearray(path.read_bytes())
    content[4096:40960] = os.urandom(36864)
    path.write_bytes(content)
    async with SQLiteProvider(path, location="norway") as db:
        with pytest.raises(Exception, match="damaged") as caught:
            await db.query("SELECT * FROM t ORDER BY v")
    assert caught.value.code.startswith("SQLITE_CORRUPT")


async def test_a_file_that_another_process_is_just_making_is_waited_for(tmp_path):
    path = tmp_path / "busy.db"
    maker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    maker.execute("CREATE TABLE made (n INTEGER)")
    maker.execute("BEGIN IMMEDIATE")  # of this lock SQLite says at once that it is there, whatever its timeout is
    waiting = SQLiteProvider(path)
    opening = asyncio.create_task(waiting.connect())
    await asyncio.sleep(0.1)
    assert not opening.done()
    maker.execute("COMMIT")
    await opening
    await waiting.close()
    patient = SQLiteProvider(tmp_path / "held.db", name="patient", busy_timeout=0.1)
    holder = sqlite3.connect(tmp_path / "held.db", isolation_level=None)
    holder.execute("CREATE TABLE made (n INTEGER)")
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConnectionFailed, match="busy"):
        await patient.connect()
    maker.close()
    holder.close()


async def test_a_network_file_system_is_refused_with_a_reason(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    share = tmp_path / "my share"
    share.mkdir()
    escaped = str(share).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n//srv/y {tmp_path}x cifs rw 0 0\n")
    monkeypatch.setattr(files, "MOUNTS", mounts)
    assert files.file_system(share / "a") == "nfs4"
    assert files.file_system(tmp_path / "a") == "ext4"
    with pytest.raises(ConfigurationError, match=r"network file system \(nfs4\).*not safe"):
        await opened(share / "test.db")
    assert not (share / "test.db").exists()
    await opened(tmp_path / "test.db")
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "no such file")
    await opened(share / "test.db")


def test_a_file_that_this_user_may_not_read_is_refused():
    code = """
    import asyncio, os, sys
    from datavern import SQLiteProvider
    from datavern.contracts.errors import ConnectionFailed

    async def main(paths):
        providers = [SQLiteProvider(path, location="norway") for path in paths]
        if os.geteuid() == 0:  # root may read everything
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        for provider in providers:
            try:
                async with provider:
                    print("opened")
            except ConnectionFailed as error:
                print(error.retry, "may not read and write" in str(error))

    asyncio.run(main(sys.argv[1:]))
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "theirs.db").write_bytes(b"")
        (folder / "theirs.db").chmod(0)
        folder.chmod(0o555)
        found = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), folder / "theirs.db", folder / "new.db"],
            capture_output=True,
            text=True,
            check=False,
        )
        folder.chmod(0o755)
    assert found.stdout.splitlines() == ["never True", "never True"], found.stderr


# ---- settings -------------------------------------------------------------------------------------------------------


async def test_the_pragmas_are_as_the_settings_say(tmp_path):
    pragmas = ["journal_mode", "synchronous", "foreign_keys", "trusted_schema", "secure_delete", "cache_size"]

    async def found(**settings):
        async with SQLiteProvider(tmp_path / "test.db", location="norway", **settings) as db:
            return [await db.query_value(f"PRAGMA {pragma}") for pragma in pragmas]

    assert await found() == ["wal", 2, 1, 0, 1, -8192]
    changed = {"synchronous": "normal", "foreign_keys": False, "secure_delete": False, "cache_size": 100}
    assert await found(**changed, trusted_schema=True) == ["wal", 1, 0, 1, 0, -100]


async def test_foreign_keys_hold(db):
    await db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY)")
    await db.execute("CREATE TABLE b (a INTEGER REFERENCES a (id) ON DELETE CASCADE)")
    await db.execute("INSERT INTO a VALUES (1)")
    await db.execute("INSERT INTO b VALUES (1)")
    await db.execute("DELETE FROM a")
    assert await db.query_value("SELECT count(*) FROM b") == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"path": ""}, "path is empty"),
        ({"path": "a\0b"}, "NUL"),
        ({"readers": 0}, "readers"),
        ({"max_readers": 1}, "max_readers"),
        ({"busy_timeout": -1}, "busy_timeout"),
        ({"synchronous": "sometimes"}, "synchronous"),
        ({"cache_size": -5}, "cache_size"),
        ({"cache_size": 2**31}, "cache_size"),
        ({"mmap_size": 2**63}, "mmap_size"),
        ({"path": "half\ud800.db"}, "surrogate"),
        ({"location": "atlantis"}, "location"),
        ({"compliance": ["iso"]}, "compliance"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_opened(tmp_path, settings, expected):
    with pytest.raises(ConfigurationError, match=expected):
        SQLiteProvider(**{"path": tmp_path / "test.db", **settings})
    assert list(tmp_path.iterdir()) == []


def test_a_url_names_the_file():
    assert SQLiteProvider.from_url("sqlite:///some/test.db").settings.path == "some/test.db"
    assert SQLiteProvider.from_url("sqlite:////var/lib/bl%C3%A5.db", name="x").settings.path == "/var/lib/blå.db"
    assert SQLiteProvider.from_url("sqlite:///:memory:").settings.in_memory
    for url in ("sqlite://", "sqlite:///", "sqlite://host/x.db", "postgresql:///x", "sqlite:///x.db?mode=ro"):
        with pytest.raises(ConfigurationError, match="url"):
            SQLiteProvider.from_url(url)


def test_a_section_of_a_file_makes_a_provider(tmp_path):
    db = SQLiteProvider.from_settings("main", {"path": str(tmp_path / "a.db"), "region": "azure:norwayeast"})
    assert (db.name, db.location, db.region) == ("main", "norway", "azure:norwayeast")
    assert SQLiteProvider.from_settings("main", {"url": "sqlite:///b.db", "readers": 3}).settings.readers == 3
    with pytest.raises(ConfigurationError, match=r"databases\.main\.pth: unknown key; did you mean path\?"):
        SQLiteProvider.from_settings("main", {"pth": "a.db"})
    with pytest.raises(ConfigurationError, match=r"databases\.main\.path: missing"):
        SQLiteProvider.from_settings("main", {})
    with pytest.raises(ConfigurationError, match=r"databases\.main\.path: contradicts the url"):
        SQLiteProvider.from_settings("main", {"path": "a", "url": "sqlite:///b"})
    with pytest.raises(ConfigurationError, match=r"databases\.main\.location: contradicts region"):
        SQLiteProvider.from_settings("main", {"path": "a", "location": "norway", "region": "azure:uksouth"})


def test_every_setting_can_be_given_by_code():
    import inspect

    given = set(inspect.signature(SQLiteProvider.__init__).parameters) - {"self"}
    assert given == {f.name for f in dataclasses.fields(SQLiteSettings)}
    defaults = {f.name: f.default for f in dataclasses.fields(SQLiteSettings)}
    for name, parameter in inspect.signature(SQLiteProvider.__init__).parameters.items():
        if name in {"readers", "max_readers", "busy_timeout", "acquire", "synchronous", "cache_size", "mmap_size"}:
            assert parameter.default == defaults[name]


async def test_there_is_no_row_level_security(db):
    with pytest.raises(CapabilityMissing, match="row-level security"):
        db.transaction(tenant="oslo")


async def test_keys_are_needed_for_personal_data(db):
    with pytest.raises(ConfigurationError, match="keyring"):
        await db.store_personal_data({"user_id": "u"}, None)


# ---- what is erased is gone -----------------------------------------------------------------------------------------


async def test_a_deleted_value_is_on_the_disk_no_more_after_a_checkpoint(tmp_path):
    path, secret = tmp_path / "test.db", "SECRET-13097248022"
    async with SQLiteProvider(path, location="norway") as db:
        await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")
        await db.execute_many("INSERT INTO t VALUES (?, ?)", [[n, f"{secret}-{n}"] for n in range(300)])

        def found():
            return [f.name for f in tmp_path.iterdir() if secret.encode() in f.read_bytes()]

        assert found()
        await db.execute("DELETE FROM t")
        assert await db.checkpoint()
        assert found() == []
        async with db.stream("SELECT 1"):
            await db.execute("INSERT INTO t VALUES (1, 'x')")
            assert (await db.health()).facts["log_size"] > 0
    assert sorted(f.name for f in tmp_path.iterdir()) == ["test.db"]


# ---- values ---------------------------------------------------------------------------------------------------------


class Colour(enum.StrEnum):
    BLUE = "blå"


class Size(enum.IntEnum):
    BIG = 9


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (dt.datetime(2026, 11, 23, 2, 39, 51, 123456, tzinfo=dt.UTC), "2026-11-23T02:39:51.123456Z"),
        (dt.datetime(2026, 11, 23, 2, tzinfo=dt.timezone(dt.timedelta(hours=1))), "2026-11-23T01:00:00.000000Z"),
        (dt.datetime(2026, 11, 23, 2, 39), "2026-11-23T02:39:00.000000"),  # noqa: DTZ001
        (dt.date(2026, 11, 23), "2026-11-23"),
        (dt.time(13, 37), "13:37:00"),
        (Decimal("0.10"), "0.10"),
        (UUID("{12345678-1234-5678-1234-567812345678}"), "12345678-1234-5678-1234-567812345678"),
        (True, 1),
        (Colour.BLUE, "blå"),
        (Size.BIG, 9),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
    ],
    ids=lambda v: type(v).__name__,
)
async def test_values_beyond_sqlites_own_have_a_form(db, value, kept):
    assert await db.query_value("SELECT ?", [value]) == kept
    assert await db.query_value("SELECT :v", {"v": value}) == kept
    await db.execute("CREATE TABLE t (v)")
    await db.execute_many("INSERT INTO t VALUES (?)", [[value], [None]])
    assert await db.query_value("SELECT v FROM t") == kept


async def test_names_for_parameters(db):
    for given in ({"a": 1, "b": "x", "unused": 3}, MappingProxyType({"a": 1, "b": "x"})):
        row = await db.query_one("SELECT :a AS a, @b AS b, :a + 1 AS c", given)
        assert dict(row) == {"a": 1, "b": "x", "c": 2}
    with pytest.raises(QueryRejected, match=":b"):
        await db.query("SELECT :a, :b", {"a": 1})
    with pytest.raises(QueryRejected, match="positional placeholders"):
        await db.query("SELECT ?", {"a": 1})
    with pytest.raises(QueryRejected, match="NUL"):
        await db.query("SELECT :a", {"a": "x\0"})


@pytest.mark.parametrize(
    ("sql", "parameters", "says"),
    [
        ("SELECT ?", [], "the statement takes 1 parameter, 0 were given"),
        ("SELECT ?, ?", [1], "the statement takes 2 parameters, 1 was given"),
        ("SELECT 1", [1, 2], "the statement takes 0 parameters, 2 were given"),
    ],
)
async def test_too_few_and_too_many_parameters(db, sql, parameters, says):
    with pytest.raises(QueryRejected, match=says):
        await db.query(sql, parameters)


@pytest.mark.parametrize("parameters", ["abc", b"abc", 7, {1, 2}, None])
async def test_what_is_no_list_of_parameters_is_refused(db, parameters):
    with pytest.raises(QueryRejected, match="expected a list"):
        await db.query("SELECT ?, ?, ?", parameters)


async def test_a_text_that_is_not_utf8_is_reported(db):
    await db.execute("CREATE TABLE t (v TEXT)")
    await db.execute("INSERT INTO t VALUES (CAST(x'ff41' AS TEXT))")
    with pytest.raises(QueryRejected, match="not UTF-8"):
        await db.query("SELECT v FROM t")


async def test_a_strict_table_names_the_column_that_refuses(db):
    await db.execute("CREATE TABLE t (n INTEGER) STRICT")
    with pytest.raises(QueryRejected) as caught:
        await db.execute("INSERT INTO t VALUES (?)", ["x"])
    assert caught.value.constraint == "t.n"
    assert caught.value.code == "SQLITE_CONSTRAINT_DATATYPE"


async def test_attach_is_another_provider(db):
    with pytest.raises(QueryRejected, match="provider for each file"):
        await db.execute("ATTACH 'other.db' AS other")


async def test_sqlite_has_one_schema(db):
    subjects = needs(db, "subjects")
    await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    assert await subjects.select("main.t", {}) == []
    assert (await subjects.describe("main.t")).primary_key == ("n",)
    with pytest.raises(ConfigurationError, match="one schema"):
        await subjects.describe("sales.t")
    for name in ("", ".", "a.b.c", ".t", "t\0"):
        with pytest.raises(ConfigurationError, match="expected a table"):
            await subjects.select(name, {})


# ---- the ledger -----------------------------------------------------------------------------------------------------


async def test_the_file_has_an_identity_that_stays(tmp_path):
    async with SQLiteProvider(tmp_path / "a.db", location="norway") as db:
        names = await asyncio.gather(*(needs(db, "ledger").identity() for _ in range(10)))
    async with SQLiteProvider(tmp_path / "a.db", location="norway") as db:
        names.append(await needs(db, "ledger").identity())
    async with SQLiteProvider(tmp_path / "b.db", location="norway") as db:
        assert await needs(db, "ledger").identity() not in names
    assert len(set(names)) == 1


# ---- in memory ------------------------------------------------------------------------------------------------------


async def test_memory_serves_everything_from_one_connection(memory):
    async def work(n):
        assert await memory.query_value("SELECT v FROM t WHERE n = ?", [n]) == f"v{n}"
        await memory.execute("INSERT INTO t VALUES (?, 'x')", [1000 + n])
        async with memory.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (?, 'x')", [2000 + n])

    await asyncio.gather(*(work(n) for n in range(50)))
    assert await memory.query_value("SELECT count(*) FROM t") == 200
    assert await memory.checkpoint()
    assert (await memory.health()).status == "healthy"


async def test_a_stream_from_memory_may_be_written_beside(memory):
    seen = 0
    async with memory.stream("SELECT n FROM t ORDER BY n", batch_size=7) as rows:
        async for row in rows:
            seen += 1
            await memory.execute("INSERT INTO t VALUES (?, 'y')", [row["n"] + 500])
    assert seen == 100
    assert await memory.query_value("SELECT count(*) FROM t") == 200


async def test_reading_only_holds_in_memory_too(memory):
    with pytest.raises(QueryRejected, match="read-only"):
        async with memory.transaction(read_only=True) as tx:
            await tx.execute("DELETE FROM t")
    async with memory.transaction(read_only=True) as tx:
        assert await tx.query_value("SELECT count(*) FROM t") == 100
    assert await memory.execute("DELETE FROM t") == 100


async def test_a_stream_from_memory_does_not_write(memory):
    with pytest.raises(QueryRejected, match="read-only"):
        async with memory.stream("DELETE FROM t RETURNING n") as rows:
            async for _ in rows:
                pass
    assert await memory.query_value("SELECT count(*) FROM t") == 100
    assert await memory.execute("DELETE FROM t") == 100


async def test_a_deadline_ends_a_long_query_in_memory(memory):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await memory.query(endless)
    assert await memory.query_value("SELECT count(*) FROM t") == 100


async def test_memory_ends_with_its_provider():
    db = SQLiteProvider(":memory:", location="norway")
    async with db:
        await db.execute("CREATE TABLE t (n int)")
    async with db:
        with pytest.raises(QueryRejected, match="no such table: t"):
            await db.query("SELECT * FROM t")


def test_importing_loads_nothing_heavy():
    code = (
        "import sys\nfrom datavern import SQLiteProvider\n"
        "print([m for m in ('pydantic', 'sqlalchemy', 'asyncpg', 'typer') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_file_is_an_ordinary_database(tmp_path):
    path = tmp_path / "test.db"

    async def main():
        async with SQLiteProvider(path, location="norway") as db:
            await db.execute("CREATE TABLE t (n int)")
            await db.execute("INSERT INTO t VALUES (1)")

    asyncio.run(main())
    asyncio.run(main_again(path))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 2
    connection.close()
    assert Path(path).stat().st_size > 0


async def main_again(path):
    async with SQLiteProvider(path, location="norway") as db:
        await db.execute("INSERT INTO t VALUES (2)")


# ---- what SQLite says of a statement -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("INSERT INTO t VALUES (1, 2, 3)", "table t has 2 columns but 3 values were supplied"),
        ("SELECT abs('13097248022', 2)", r"wrong number of arguments to function abs\(\)"),
        ("SELECT sum(sum(n)) FROM t", r"misuse of aggregate function sum\(\)"),
        ("INSERT INTO seen VALUES (1)", "cannot modify seen because it is a view"),
        ("INSERT INTO g (twice) VALUES (1)", 'cannot INSERT into generated column "twice"'),
        ("DROP TABLE seen", "use DROP VIEW to delete view seen"),
        ('DROP TABLE "13097248022"', "use DROP VIEW to delete view …"),
        ("CREATE TABLE sqlite_x (n)", "object name reserved for internal use: sqlite_x"),
        ("CREATE TABLE x (n FOO) STRICT", 'unknown datatype for x.n: "FOO"'),
        ("CREATE TABLE x (n 'FOO 13097248022') STRICT", 'unknown datatype for x.n: "…"'),
        ("SELECT * FROM t ORDER BY 5", "1st ORDER BY term out of range"),
        ("SELECT load_extension('13097248022')", "SQLite does not permit this here"),
    ],
)
async def test_what_is_wrong_with_a_statement_is_told_without_values(memory, sql, says):
    for made in (
        "VIEW seen AS SELECT n FROM t",
        'VIEW "13097248022" AS SELECT n FROM t',
        "TABLE g (n, twice AS (n * 2))",
    ):
        await memory.execute(f"CREATE {made}")
    with pytest.raises(QueryRejected, match=says) as caught:
        await memory.query(sql)
    assert "13097248022" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("text", ["", " \n", ";", "-- nothing", "/* nothing */ ; -- at all"])
async def test_a_text_without_a_statement_is_refused(memory, text):
    for call in (memory.query, memory.execute, memory.query_value):
        with pytest.raises(QueryRejected, match="the text holds no statement"):
            await call(text)
    async with memory.transaction() as tx:
        with pytest.raises(QueryRejected, match="the text holds no statement"):
            await tx.execute(text)

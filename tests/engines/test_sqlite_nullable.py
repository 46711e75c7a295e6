"""Taking NOT NULL from a column of a SQLite table."""

import sqlite3

import pytest

from datavern.engines.sqlite.nullable import let_null, without_not_null

DEFINITIONS = [
    ("CREATE TABLE t (a TEXT, b TEXT NOT NULL)", "CREATE TABLE t (a TEXT, b TEXT)"),
    ("CREATE TABLE t(b not/* , */null, a TEXT NOT NULL)", "CREATE TABLE t(b, a TEXT NOT NULL)"),
    (
        'CREATE TABLE t (\n  a TEXT,\n  b TEXT CONSTRAINT "no NULL" NOT NULL ON CONFLICT ABORT UNIQUE -- NOT NULL\n)',
        "CREATE TABLE t (\n  a TEXT,\n  b TEXT UNIQUE -- NOT NULL\n)",
    ),
    (
        "CREATE TABLE [t] ([a b] TEXT NOT NULL, `b` CHAR(9) NOT NULL DEFAULT 'b NOT NULL', CHECK (b IS NOT NULL OR 1))",
        "CREATE TABLE [t] ([a b] TEXT NOT NULL, `b` CHAR(9) DEFAULT 'b NOT NULL', CHECK (b IS NOT NULL OR 1))",
    ),
    (
        "CREATE TABLE t (a PRIMARY KEY NOT NULL, b CHECK (b NOT NULL) NOT NULL COLLATE NOCASE) STRICT, WITHOUT ROWID",
        "CREATE TABLE t (a PRIMARY KEY NOT NULL, b CHECK (b NOT NULL) COLLATE NOCASE) STRICT, WITHOUT ROWID",
    ),
    (
        'CREATE TABLE t ("B" TEXT NOT NULL REFERENCES o (x), å TEXT)',
        'CREATE TABLE t ("B" TEXT REFERENCES o (x), å TEXT)',
    ),
]


@pytest.mark.parametrize(("before", "after"), DEFINITIONS)
def test_nothing_else_changes_in_the_text(before, after):
    assert without_not_null(before, "b") == after
    assert without_not_null(after, "b") is None


@pytest.mark.parametrize("definition", [d for d, _ in DEFINITIONS if "STRICT" not in d])
def test_the_database_reads_it_so(tmp_path, definition):
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute(definition)
    other = sqlite3.connect(tmp_path / "a.db")
    assert other.execute("SELECT count(*) FROM t").fetchone() == (0,)
    connection.execute("BEGIN")
    assert let_null(connection, None, ("t", "b"))
    connection.execute("ROLLBACK")
    assert next(c for c in connection.execute("PRAGMA table_info(t)") if c[1].lower() == "b")[3] == 1
    connection.execute("BEGIN")
    assert let_null(connection, None, ("t", "b"))
    connection.execute("COMMIT")
    for each in (connection, other):
        assert next(c for c in each.execute("PRAGMA table_info(t)") if c[1].lower() == "b")[3] == 0
        assert each.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with pytest.raises(sqlite3.OperationalError, match="may not be modified"):
        connection.execute("UPDATE sqlite_schema SET sql = ''")


def test_what_cannot_be_done_leaves_the_table_as_it_was():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a, b INTEGER)")
    connection.execute("BEGIN")
    assert not let_null(connection, None, ("t", "b"))
    connection.execute("INSERT INTO t VALUES (1, 2)")
    connection.execute("COMMIT")
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, 2)]

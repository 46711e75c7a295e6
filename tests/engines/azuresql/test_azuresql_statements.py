"""What a text of T-SQL does, where its parameters stand, and which tables it writes to."""

from __future__ import annotations

import pytest

from datavern.engines.azuresql.statements import (
    Effect,
    effect,
    ends_transaction,
    mapped_words,
    places,
    several,
    tokens_of,
)
from datavern.engines.mapped import written

READS = [
    "SELECT 1",
    "select * from people where id = @P1",
    "WITH m AS (SELECT 1 AS a) SELECT a FROM m",
    "SELECT 'DELETE FROM people', N'it''s', [update], \"drop\" FROM people -- DELETE\n/* SET /* nested */ EXEC */",
    "SELECT TOP (@P1) name FROM people WITH (UPDLOCK)",
    "",
    "-- nothing",
]
WRITES = [
    "INSERT INTO people (id) VALUES (@P1)",
    "INSERT people VALUES (1)",
    "UPDATE people SET name = @P1 OUTPUT inserted.id WHERE id = 2",
    "DELETE FROM people WHERE id IN (SELECT id FROM old)",
    "MERGE people t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT VALUES (2)",
    "WITH m AS (SELECT 1 AS id) INSERT INTO people (id) SELECT id FROM m",
    "DELETE people OUTPUT deleted.id INTO gone WHERE id = 1",
    "SELECT NEXT VALUE FOR numbers",
]
TOUCHES = [
    "SET LANGUAGE norsk",
    "SELECT 1 SET LANGUAGE norsk",
    "UPDATE people SET name = 1 SET NOCOUNT ON",
    "SELECT * INTO #copy FROM people",
    "INSERT INTO people SELECT * FROM x SELECT * INTO y FROM x",
    "CREATE TABLE #t (id int)",
    "DECLARE @a int; SELECT @a",
    "EXEC usp_GetCases @P1",
    "usp_GetCases",
    "INSERT INTO people EXEC usp_GetCases",
    "SELECT 1; EXEC sp_getapplock 'x'",
    "SELECT 1 WAITFOR DELAY '00:00:01'",
    "USE other",
    "SELECT 'left open",
    "SELECT [left open",
    "SELECT 1 /* left open",
    "DELETE FROM people COMMIT",
    "TRUNCATE TABLE people",
]


@pytest.mark.parametrize("sql", READS)
def test_what_reads(sql: str):
    assert effect(sql) is Effect.READS


@pytest.mark.parametrize("sql", WRITES)
def test_what_writes(sql: str):
    assert effect(sql) is Effect.WRITES


@pytest.mark.parametrize("sql", TOUCHES)
def test_what_may_leave_something_behind(sql: str):
    assert effect(sql) is Effect.TOUCHES


def test_a_fetch_of_a_page_is_no_cursor():
    assert effect("SELECT 1 ORDER BY 1 OFFSET 0 ROWS FETCH NEXT 1 ROWS ONLY") is Effect.READS


@pytest.mark.parametrize(
    ("sql", "which"),
    [
        ("BEGIN TRANSACTION", "BEGIN TRANSACTION"),
        ("begin tran; delete from x", "BEGIN TRANSACTION"),
        ("DELETE FROM x COMMIT", "COMMIT"),
        ("IF 1 = 1 ROLLBACK", "ROLLBACK"),
        ("SAVE TRAN a", "SAVE TRANSACTION"),
        ("SET IMPLICIT_TRANSACTIONS ON", "SET IMPLICIT_TRANSACTIONS"),
        ("SELECT 'COMMIT', [rollback] FROM x -- COMMIT", ""),
        ("BEGIN SELECT 1 END", ""),
        ("CREATE PROCEDURE p AS BEGIN TRAN; COMMIT", ""),
        ("CREATE OR ALTER PROC p AS BEGIN TRAN; COMMIT", ""),
        ("ALTER TRIGGER t ON x FOR INSERT AS ROLLBACK", ""),
        ("", ""),
    ],
)
def test_what_begins_or_ends_a_transaction(sql: str, which: str):
    assert ends_transaction(sql) == which


def test_several_statements_are_told_by_semicolons():
    assert several("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)")
    assert not several("INSERT INTO a VALUES ('; ')  ;  ; -- ;")
    assert not several("SELECT 'open")


# ---- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_are_counted_where_they_stand():
    sql = "SELECT '@P9', [@P8], @p2, @P1 + @P2 -- @P7\n, @P10x, @@ROWCOUNT /* @P6 */"
    found = places(sql)
    assert found is not None
    assert found.numbers == (2, 1, 2)
    assert (found.highest, found.missing) == (2, 0)
    assert found.marked() == "SELECT '@P9', [@P8], ?, ? + ? -- @P7\n, @P10x, @@ROWCOUNT /* @P6 */"
    assert found.without((2,)) == "SELECT '@P9', [@P8], NULL, @P1 + NULL -- @P7\n, @P10x, @@ROWCOUNT /* @P6 */"
    gap = places("SELECT @P1, @P3")
    assert gap is not None
    assert (gap.highest, gap.missing) == (3, 2)
    assert places("SELECT 'open") is None
    nothing = places(" ; -- nothing\n ; ")
    assert nothing is not None
    assert nothing.empty


def test_tokens_know_where_they_are():
    sql = "SELECT [a]]b].\"c\"\"d\", N'x''y', 0xFF, 1.5e3, #t, @v FROM blå"
    tokens = tokens_of(sql)
    assert tokens is not None
    assert [(kind, text) for kind, text, _, _ in tokens if kind in {"quoted", "word", "variable"}] == [
        ("word", "select"),
        ("quoted", "a]b"),
        ("quoted", 'c"d'),
        ("word", "#t"),
        ("variable", "@v"),
        ("word", "from"),
        ("word", "blå"),
    ]
    assert all(sql[start:end] for _, _, start, end in tokens)


# ---- which tables are written to -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("INSERT INTO people VALUES (1)", {"people"}),
        ("INSERT dbo.people (id) VALUES (1)", {"people"}),
        ("INSERT TOP (5) INTO [People] SELECT 1", {"people"}),
        ("UPDATE people SET a = 1", {"people"}),
        ("UPDATE TOP (10) PERCENT people SET a = 1", {"people"}),
        ("DELETE people WHERE id = 1", {"people"}),
        ("DELETE FROM people", {"people"}),
        ("DELETE TOP (1) FROM people", {"people"}),
        ("UPDATE p SET a = 1 FROM dbo.people AS p JOIN other o ON o.id = p.id", {"p", "people"}),
        ("DELETE p FROM other o JOIN people p ON o.id = p.id", {"p", "people"}),
        ("DELETE p FROM other o, people p", {"p", "people"}),
        ("MERGE people AS t USING s ON t.id = s.id WHEN MATCHED THEN DELETE", {"people"}),
        ("MERGE INTO people t USING s ON t.id = s.id WHEN MATCHED THEN DELETE", {"people"}),
        ("TRUNCATE TABLE people", {"people"}),
        ("DELETE o OUTPUT deleted.id INTO people FROM other o", {"o", "other", "people"}),
        ("SELECT * INTO copied FROM people", {"copied"}),
        ("SELECT * FROM people", set()),
        ("INSERT INTO other SELECT * FROM people", {"other"}),
    ],
)
def test_the_tables_that_a_text_writes_to(sql: str, tables: set[str]):
    words = mapped_words(sql)
    assert words is not None
    assert {table for _, table in written(words, folds=True)} - {
        "top"
    } == tables  # no table is named by a reserved word

"""How our engines say what the contract's tests need to say."""

from __future__ import annotations

import re

from tsql import GIVES_UP, VERB, problem, read

from datavern.testing.contract import Speech

__all__ = ["SPEECHES", "Checked", "Speech"]

_TEXT = "nvarchar(450) COLLATE Latin1_General_100_BIN2"
_PEOPLE = "id {integer} PRIMARY KEY, email {text} UNIQUE, name {text} NOT NULL, age {integer}"
_NAMED = f"id int PRIMARY KEY, email {_TEXT} CONSTRAINT people_email_key UNIQUE, name {_TEXT} NOT NULL, age int"
_CHECK = ", CONSTRAINT grown_up CHECK (age >= 18)"

SPEECHES = {
    "sqlite": Speech(
        "?",
        {
            "integer": "INTEGER",
            "bigint": "INTEGER",
            "text": "TEXT",
            "bytes": "BLOB",
            "real": "REAL",
            "short": "varchar(4)",
            "endless": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        },
    ),
    "postgresql": Speech(
        "${}",
        {
            "integer": "integer",
            "bigint": "bigint",
            "text": "text",
            "bytes": "bytea",
            "real": "double precision",
            "short": "varchar(4)",
            "endless": "SELECT pg_sleep(600)",
        },
    ),
    "azuresql": Speech(
        "@P{}",
        {
            "integer": "int",
            "bigint": "bigint",
            "text": _TEXT,
            "bytes": "varbinary(max)",
            "real": "float",
            "short": "nvarchar(4) COLLATE Latin1_General_100_BIN2",
            "endless": "WAITFOR DELAY '00:10:00'",
        },
        lacks={
            "deferred constraints": "T-SQL checks constraints when a statement ends",
            "positions": "the server tells lines, and not characters",
            "returning": "T-SQL says OUTPUT, before WHERE",
        },
        sentences={
            "ALTER TABLE datavern_audit RENAME TO away": "EXEC sp_rename 'datavern_audit', 'away'",
            "ALTER TABLE away RENAME TO datavern_audit": "EXEC sp_rename 'away', 'datavern_audit'",
            "DELETE FROM who RETURNING name": "DELETE FROM who OUTPUT deleted.name",
            "CREATE TABLE kept (v {text})": "CREATE TABLE kept (v nvarchar(max))",
            "INSERT INTO people SELECT id + 10, name || '+', country FROM people": (
                "INSERT INTO people SELECT id + 10, name + '+', country FROM people"
            ),
            "ALTER TABLE people ADD COLUMN email {text}": f"ALTER TABLE people ADD email {_TEXT}",
            f"CREATE TABLE people ({_PEOPLE}{_CHECK})": f"CREATE TABLE people ({_NAMED}{_CHECK})",
        },
    ),
}


_OTHERS = re.compile(r"\bRETURNING\b|\bDEFERRABLE\b|\bxid8\b", re.IGNORECASE)
"""Said by tests that ask for what T-SQL lacks, or in a text that an engine has filled in with its own words."""
_SAID: set[str] = set()


class Checked(Speech):
    """One engine's way of saying things. Whatever is said to it is said to Azure SQL too: that is looked at each time.

    Texts that are wrong on purpose are no statements in any dialect, and pass.
    """

    def __init__(self, speech: Speech) -> None:
        super().__init__(speech.placeholder, speech.words, speech.lacks, speech.sentences)

    def __call__(self, text: str) -> str:
        """A text of the tests in the engine's words.

        Raises:
            AssertionError: to Azure SQL it would be no T-SQL.
        """
        if text not in _SAID:
            other = SPEECHES["azuresql"](text)
            why = problem(other) if VERB.match(other) and not _OTHERS.search(text) else None
            if why is not None and not (why == GIVES_UP and read(other, "postgres") is None):
                raise AssertionError(f"{why}: {other}")
            _SAID.add(text)
        return super().__call__(text)

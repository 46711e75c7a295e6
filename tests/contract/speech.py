"""How our engines say what the contract's tests need to say."""

from __future__ import annotations

from datavern.testing.contract import Speech

__all__ = ["SPEECHES", "Speech"]

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
            "endless": "WAITFOR DELAY '00:10:00'",
        },
        lacks={
            "deferred constraints": "T-SQL checks constraints when a statement ends",
            "positions": "the server tells lines, and not characters",
            "returning": "T-SQL says OUTPUT, before WHERE",
        },
        sentences={
            "CREATE TABLE kept (v {text})": "CREATE TABLE kept (v nvarchar(max))",
            "INSERT INTO people SELECT id + 10, name || '+', country FROM people": (
                "INSERT INTO people SELECT id + 10, name + '+', country FROM people"
            ),
            "ALTER TABLE people ADD COLUMN email {text}": f"ALTER TABLE people ADD email {_TEXT}",
            f"CREATE TABLE people ({_PEOPLE}{_CHECK})": f"CREATE TABLE people ({_NAMED}{_CHECK})",
        },
    ),
}

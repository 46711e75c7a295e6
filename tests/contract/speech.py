"""How our engines say what the contract's tests need to say."""

from __future__ import annotations

from datavern.testing.contract import Speech

__all__ = ["SPEECHES", "Speech"]

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
}

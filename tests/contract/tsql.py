"""What keeps a text from being T-SQL: a parser's word, and what that parser forgives and SQL Server does not."""

from __future__ import annotations

import logging
import re
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

__all__ = ["GIVES_UP", "VERB", "problem", "read"]

GIVES_UP = "the parser gives up"
VERB = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|WITH|MERGE)\s")
"""How a statement begins in these tests."""

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it says of some statements that it reads them as commands

_QUOTED = re.compile(r"N?'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\[(?:[^\]]|\]\])*\]")
_BEYOND = re.compile(r"WAITFOR DELAY '00:\d\d:\d\d'|SAVE TRANSACTION \w+|CREATE TRIGGER \w+ ON \w+ AFTER \w+ AS .*")
"""T-SQL that the parser does not read."""

_OTHERS = {
    r"\$\d": "a placeholder of PostgreSQL",
    r"\?": "a placeholder of SQLite",
    r"::": "a cast of PostgreSQL",
    r"\|\|": "texts are put together with +, or concat()",
    r"\bLIMIT\b": "LIMIT is TOP",
    r"\bRETURNING\b": "RETURNING is OUTPUT",
    r"\bON\s+CONFLICT\b": "an upsert is MERGE",
    r"\bIF\s+NOT\s+EXISTS\b": "IF NOT EXISTS is no part of CREATE",
    r"\bADD\s+COLUMN\b": "ADD takes no COLUMN",
    r"\bRENAME\b": "things are renamed by sp_rename",
    r"\b(TRUE|FALSE)\b": "there are no such literals",
    r"\bRECURSIVE\b": "WITH is recursive without a word",
    r"\bFOR\s+(UPDATE|SHARE)\b": "locks are hints",
    r"\bOR\s+(REPLACE|IGNORE)\b": "CREATE OR ALTER, MERGE",
    r"\bnow\(\)": "now() is sysdatetime()",
    r"\b(length|octet_length|substr|random|regexp_\w+)\(": "a function of another engine",
    r"\b(pg_\w+|current_database|current_setting|sqlite_\w+|PRAGMA)\b": "a word of another engine",
    r"\btimestamptz\b": "that is datetimeoffset",
    r"\bCASCADE\s*$": "DROP takes nothing with it",
    r"\b[xb]''": "bytes are written 0x…",
    r"\bCREATE\s+(EXTENSION|DOMAIN|ROLE|POLICY|VIRTUAL)\b": "there is no such thing",
}
_OTHER = [(re.compile(pattern, re.IGNORECASE), why) for pattern, why in _OTHERS.items()]

_TYPES = {"TEXT", "BLOB", "BYTEA", "BOOLEAN", "JSONB", "CITEXT", "SERIAL", "BIGSERIAL"}

_RESERVED = frozenset(
    """
    ADD ALL ALTER AND ANY AS ASC AUTHORIZATION BACKUP BEGIN BETWEEN BREAK BROWSE BULK BY CASCADE CASE CHECK
    CHECKPOINT CLOSE CLUSTERED COALESCE COLLATE COLUMN COMMIT COMPUTE CONSTRAINT CONTAINS CONTAINSTABLE CONTINUE
    CONVERT CREATE CROSS CURRENT CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURSOR DATABASE DBCC
    DEALLOCATE DECLARE DEFAULT DELETE DENY DESC DISK DISTINCT DISTRIBUTED DOUBLE DROP DUMP ELSE END ERRLVL
    ESCAPE EXCEPT EXEC EXECUTE EXISTS EXIT EXTERNAL FETCH FILE FILLFACTOR FOR FOREIGN FREETEXT FREETEXTTABLE
    FROM FULL FUNCTION GOTO GRANT GROUP HAVING HOLDLOCK IDENTITY IDENTITYCOL IDENTITY_INSERT IF IN INDEX INNER
    INSERT INTERSECT INTO IS JOIN KEY KILL LEFT LIKE LINENO LOAD MERGE NATIONAL NOCHECK NONCLUSTERED NOT NULL
    NULLIF OF OFF OFFSETS ON OPEN OPENDATASOURCE OPENQUERY OPENROWSET OPENXML OPTION OR ORDER OUTER OVER PERCENT
    PIVOT PLAN PRECISION PRIMARY PRINT PROC PROCEDURE PUBLIC RAISERROR READ READTEXT RECONFIGURE REFERENCES
    REPLICATION RESTORE RESTRICT RETURN REVERT REVOKE RIGHT ROLLBACK ROWCOUNT ROWGUIDCOL RULE SAVE SCHEMA
    SECURITYAUDIT SELECT SEMANTICKEYPHRASETABLE SESSION_USER SET SETUSER SHUTDOWN SOME STATISTICS SYSTEM_USER
    TABLE TABLESAMPLE TEXTSIZE THEN TO TOP TRAN TRANSACTION TRIGGER TRUNCATE TRY_CONVERT TSEQUAL UNION UNIQUE
    UNPIVOT UPDATE UPDATETEXT USE USER VALUES VARYING VIEW WAITFOR WHEN WHERE WHILE WITH WITHIN WRITETEXT
    """.split()  # noqa: SIM905  (a line for each of two hundred words says nothing more)
)
"""Transact-SQL reference, "Reserved keywords": as names they stand in quotes."""


@lru_cache(maxsize=8192)
def problem(text: str) -> str | None:
    """What is not T-SQL about a text; None where it is."""
    if _BEYOND.fullmatch(text.strip()):
        return None
    bare = _QUOTED.sub(lambda m: "''" if m[0][0] in "N'" else "quoted", text)
    for pattern, why in _OTHER:
        if found := pattern.search(bare):
            return f"{found[0].strip()}: {why}"
    statements = read(text)
    if statements is None:
        return GIVES_UP
    if any(one is None or isinstance(one, exp.Command) for one in statements):
        return "the parser does not know the statement"
    return next((why for one in statements if one for node in one.walk() if (why := _wrong(node))), None)


def read(text: str, dialect: str = "tsql") -> list[exp.Expression | None] | None:
    """The statements of a text, as the parser reads them; None where it gives up."""
    try:
        return sqlglot.parse(text, dialect=dialect, error_level=sqlglot.ErrorLevel.RAISE)
    except SqlglotError:
        return None


def _wrong(node: exp.Expression) -> str | None:
    if isinstance(node, exp.Identifier) and not node.quoted and node.name.upper() in _RESERVED:
        return f"{node.name}: a reserved word, and not in quotes"
    if isinstance(node, exp.DataType) and not isinstance(node.this, str) and node.this.value in _TYPES:
        return f"{node.this.value}: not a type, or one of the past"
    if isinstance(node, exp.In) and isinstance(node.this, exp.Tuple):
        return "rows are compared column by column"
    return None

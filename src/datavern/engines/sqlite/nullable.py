"""Letting a column take NULL, on SQLite, whose ALTER TABLE does not do it before version 3.53.

The text of the table's definition is changed where SQLite keeps it, which its documentation allows for a constraint
that goes: no row is written otherwise for it (https://sqlite.org/lang_altertable.html, section 8). What SQLite then
reads out of the new text is compared with what it read out of the old: nothing else may have changed.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from datavern.engines.sqlite.words import spans

__all__ = ["let_null", "without_not_null"]

_LOOKS = (
    'SELECT cid, name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)',
    'SELECT seq, name, "unique", origin, partial FROM pragma_index_list(?)',
    "SELECT * FROM pragma_foreign_key_list(?)",
    "SELECT type, ncol, wr, strict FROM pragma_table_list(?)",
)


def let_null(connection: sqlite3.Connection, _sql: Any, names: tuple[str, str]) -> bool:
    """Take NOT NULL from a column, in the transaction that is open.

    Args:
        connection: the writer's.
        names: the table's and the column's.

    Returns:
        Whether it was done; else the table is as it was.
    """
    table, column = names
    connection.execute("SAVEPOINT datavern_nullable")
    try:
        done = _rewritten(connection, table, column)
    except sqlite3.Error:  # a build that lets nobody change its schema, or that reads the new text otherwise than we do
        done = False
    if not done:
        connection.execute("ROLLBACK TO datavern_nullable")
        connection.execute("PRAGMA writable_schema = RESET")  # it forgets what it read meanwhile
    connection.execute("RELEASE datavern_nullable")
    return done


def _rewritten(connection: sqlite3.Connection, table: str, column: str) -> bool:
    version = connection.execute("PRAGMA schema_version").fetchone()[0]
    find = "SELECT rowid, sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)"
    rowid, definition = connection.execute(find, [table]).fetchone()
    changed = without_not_null(definition, column)
    if changed is None:
        return False
    before = _look(connection, table)
    connection.execute("PRAGMA writable_schema = 1")
    try:
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE rowid = ?", [changed, rowid])
        connection.execute(f"PRAGMA schema_version = {version + 1}")
    finally:
        connection.execute("PRAGMA writable_schema = 0")
    return _look(connection, table) == _loosened(before, column)


def without_not_null(definition: str, column: str) -> str | None:
    """A CREATE TABLE in which that column has no NOT NULL, and all else is as it was; None where none is found."""
    tokens = spans(definition)
    if tokens is None:
        return None
    depth, first, inside = 0, True, False
    cuts: list[tuple[int, int]] = []
    for at, (kind, text, start, _) in enumerate(tokens):
        if kind == "mark" and text in "()":
            depth += 1 if text == "(" else -1
        elif kind == "mark" and text == "," and depth == 1:
            first = True
        elif depth == 1:
            if first:
                inside, first = text.lower() == column.lower() and kind in ("word", "quoted"), False
            elif inside and (kind, text) == ("word", "not") and tokens[at + 1][:2] == ("word", "null"):
                cuts.append((_named(tokens, at) or start, _end(tokens, at + 1)))
    for start, end in reversed(cuts):
        definition = definition[:start].rstrip() + definition[end:]
    return definition if cuts else None


def _named(tokens: list[tuple[str, str, int, int]], at: int) -> int | None:
    """Where ``CONSTRAINT name`` before a constraint begins."""
    before = at - 2
    return tokens[before][2] if before > 0 and tokens[before][:2] == ("word", "constraint") else None


def _end(tokens: list[tuple[str, str, int, int]], at: int) -> int:
    """Where a NOT NULL ends, ``ON CONFLICT …`` included."""
    following = [token[:2] for token in tokens[at + 1 : at + 3]]
    return tokens[at + 3][3] if following == [("word", "on"), ("word", "conflict")] else tokens[at][3]


def _look(connection: sqlite3.Connection, table: str) -> list[list[tuple[Any, ...]]]:
    return [[tuple(row) for row in connection.execute(sql, [table])] for sql in _LOOKS]


def _loosened(look: list[list[tuple[Any, ...]]], column: str) -> list[list[tuple[Any, ...]]]:
    columns = [(*c[:3], 0, *c[4:]) if c[1].lower() == column.lower() else c for c in look[0]]
    return [columns, *look[1:]]

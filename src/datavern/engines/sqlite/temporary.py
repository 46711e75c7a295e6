"""Temporary tables, views and triggers live as long as the transaction that makes them, as on a pooled connection.

SQLite keeps them for as long as its connection. The one that writes serves everybody: a table that a transaction left
there would be in the way of the next that makes one of its name, and a temporary `users` would take what others write
to the file's own. Readers never see any.

Source: https://sqlite.org/lang_createtable.html, https://sqlite.org/lang_naming.html.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

from datavern.engines.sqlite.jobs import first_word

__all__ = ["drop_temporary", "makes_temporary"]

_MADE = "SELECT type, name FROM temp.sqlite_master WHERE type IN ('table', 'view', 'trigger')"
_NOT_YET = frozenset({"table", "view", "trigger", "virtual", "if", "not", "exists"})


def makes_temporary(sql: str) -> bool:
    """Whether a text makes something temporary: ``CREATE TEMP TABLE x``, ``CREATE VIEW temp.x``."""
    if first_word(sql) != "CREATE":
        return False
    from datavern.engines.sqlite.words import words  # noqa: PLC0415  (its pattern is compiled for who needs it)

    said = [text.lower() for _, text in words(sql) or []]
    while said[:1] == [";"]:
        del said[0]
    name = next((i for i, text in enumerate(said) if i and text not in _NOT_YET), 0)
    return said[1:2] in (["temp"], ["temporary"]) or (said[name] == "temp" and said[name + 1 : name + 2] == ["."])


def drop_temporary(connection: sqlite3.Connection, sql: Any, parameters: Any) -> None:  # noqa: ARG001  (every job is called alike)
    """Drop what the transaction that has just ended left behind."""
    for kind, name in connection.execute(_MADE).fetchall():
        quoted = name.replace('"', '""')
        with contextlib.suppress(sqlite3.Error):  # one went with another, or a cursor holds it: the next one drops it
            connection.execute(f'DROP {kind} IF EXISTS temp."{quoted}"')

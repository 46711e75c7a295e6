"""The rows of SQLite's tables, addressed by plain values of their columns."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.stores import Column, ShapeColumn, Store
from datavern.engines.preparing import split_name
from datavern.engines.relational import RelationalSubjects
from datavern.engines.sqlite.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Dialect

__all__ = ["SQLiteSubjects", "affinity", "dialect"]

_STRICT = (3, 37, 0)  # the first version with STRICT tables

# Which affinity holds what without changing it: https://sqlite.org/datatype3.html, section 3.
_HELD_BY = {
    "text": {"TEXT", "ANY"},
    "integer": {"INTEGER", "NUMERIC", "ANY"},
    "real": {"REAL", "NUMERIC", "ANY"},
    "boolean": {"INTEGER", "NUMERIC", "ANY"},
    "bytes": {"BLOB", "ANY"},
    "date": {"TEXT", "ANY"},
    "timestamp": {"TEXT", "ANY"},
    "json": {"TEXT", "ANY"},
}

_TABLE = "SELECT name FROM main.sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
_COLUMNS = 'SELECT name, type, "notnull", pk, dflt_value, hidden FROM pragma_table_xinfo(?)'
_INDEXES = """
SELECT l.name, l."unique", l.partial, i.seqno, i.name AS column_name
FROM pragma_index_list(?) AS l, pragma_index_info(l.name) AS i ORDER BY l.seq, i.seqno
"""
_REFERENCES = """
SELECT m.name, f."from" FROM main.sqlite_master AS m, pragma_foreign_key_list(m.name) AS f
WHERE m.type = 'table' AND f."table" = ? COLLATE NOCASE ORDER BY m.name, f.id, f.seq
"""


class SQLiteSubjects(RelationalSubjects):
    """`Subjects` on SQLite. There is one schema, ``main``; row locks are not needed, as there is one writer."""

    types: ClassVar[Mapping[str, str]] = {
        "text": "TEXT",
        "integer": "INTEGER",
        "real": "REAL",
        "boolean": "INTEGER",
        "bytes": "BLOB",
        "date": "TEXT",
        "timestamp": "TEXT",
        "json": "TEXT",
    }
    table_options: ClassVar[str] = " STRICT" if sqlite3.sqlite_version_info >= _STRICT else ""

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect with ``?`` for parameters."""
        return dialect()

    def as_dicts(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """By position: a row of sqlite3's looks each name up from the first column on."""
        if not rows:
            return []
        names = rows[0].keys()
        return [dict(zip(names, row)) for row in rows]  # noqa: B905  (a row has a value for each name)

    async def describe(self, store: str, *, transaction: Any = None) -> Store | None:
        """The table as it stands, or None when there is none.

        Raises:
            ConfigurationError: another schema than main.
        """
        schema, table = split_name(store)
        if schema not in {None, "main"}:
            raise ConfigurationError(f"{store}: SQLite has one schema, main")
        if transaction is not None:
            return await _describe(transaction, store, table)
        async with self._provider.transaction(read_only=True) as tx:
            return await _describe(tx, store, table)

    def holds(self, column: Column, wanted: ShapeColumn) -> bool:
        """Whether the column's affinity keeps such a value as it is."""
        return affinity(column.type) in _HELD_BY[wanted.type]

    def index(self, unique: str, name: str, store: str, column: str) -> str:
        """The statement that makes an index of one column."""
        schema, table = split_name(store)
        place = "" if schema is None else f"{self.quoted(schema)}."  # the schema stands with the index in SQLite
        return f"CREATE {unique}INDEX {place}{self.quoted(name)} ON {self.quoted(table)} ({self.quoted(column)})"


async def _describe(tx: Any, store: str, name: str) -> Store | None:
    table = await tx.query_value(_TABLE, [name])
    if table is None:
        return None
    columns = tuple(
        Column(
            name=c["name"],
            type=c["type"].lower(),
            nullable=not c["notnull"] and not c["pk"],
            primary_key=c["pk"],
            default=c["dflt_value"] is not None or c["hidden"] > 1,
            exact=affinity(c["type"]) not in {"NUMERIC", "REAL"},
        )
        for c in await tx.query(_COLUMNS, [table])
        if c["hidden"] != 1
    )
    keyed = sorted((c for c in columns if c.primary_key), key=lambda c: c.primary_key)
    if len(keyed) == 1 and keyed[0].type == "integer":  # the row id itself: SQLite fills it in
        columns = tuple(_with_default(c) if c is keyed[0] else c for c in columns)
    covers: dict[str, list[str | None]] = {}
    unique: set[str] = set()
    indexed: set[str] = set()
    for row in await tx.query(_INDEXES, [table]):
        covers.setdefault(row["name"], []).append(row["column_name"])
        if row["unique"] and not row["partial"]:
            unique.add(row["name"])
        if row["seqno"] == 0 and row["column_name"] and not row["partial"]:
            indexed.add(row["column_name"])
    sets = {frozenset(c for c in names if c) for index, names in covers.items() if index in unique and all(names)}
    if keyed:
        sets.add(frozenset(c.name for c in keyed))
        indexed.add(keyed[0].name)
    references = await tx.query(_REFERENCES, [table])
    return Store(
        name=store,
        columns=columns,
        unique=tuple(sorted(sets, key=sorted)),
        indexed=frozenset(indexed),
        referenced_by=tuple(f"{row[0]}.{row[1]}" for row in references),
    )


def _with_default(column: Column) -> Column:
    return replace(column, default=True)


def affinity(declared: str) -> str:
    """The affinity that SQLite derives from a declared type: https://sqlite.org/datatype3.html, section 3.1."""
    name = declared.upper()
    if name == "ANY":
        return "ANY"
    if "INT" in name:
        return "INTEGER"
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not name or "BLOB" in name:
        return "BLOB" if name else "ANY"
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"

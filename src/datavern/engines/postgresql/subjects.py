"""The rows of PostgreSQL's tables, addressed by plain values of their columns."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from datavern.contracts.stores import Column, ShapeColumn, Store
from datavern.engines.relational import RelationalSubjects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Dialect

__all__ = ["EXCLUDE", "PostgreSQLSubjects", "dialect"]

EXCLUDE = "SELECT pg_catalog.pg_advisory_xact_lock(7238241064812145)"
"""One at a time makes tables: a number of Datavern's own ("schema" in no particular code), for this database."""

# Which types hold such a value as it is, by the name that format_type gives them, without its length.
_HELD_BY: dict[str, frozenset[str]] = {
    "text": frozenset({"text", "character varying", "citext", "uuid"}),
    "integer": frozenset({"bigint", "integer"}),
    "real": frozenset({"double precision"}),
    "boolean": frozenset({"boolean"}),
    "bytes": frozenset({"bytea"}),
    "date": frozenset({"date"}),
    "timestamp": frozenset({"timestamp with time zone"}),
    "json": frozenset({"jsonb", "json"}),
}

_BITS = {"smallint": 16, "integer": 32}

_TABLE = """
SELECT c.oid FROM pg_catalog.pg_class c
WHERE c.oid = pg_catalog.to_regclass($1::text) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_COLUMNS = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS filled,
       a.atthasdef OR a.attidentity <> '' AS has_default, coalesce(k.place, 0) AS place,
       'pg_catalog.bpchar'::pg_catalog.regtype IN (t.oid, t.typbasetype) AS padded
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN (
    SELECT u.attnum, u.place FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS u (attnum, place)
    WHERE i.indrelid = $1 AND i.indisprimary AND u.place <= i.indnkeyatts
) k ON k.attnum = a.attnum
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_INDEXES = """
SELECT i.indisunique AS is_unique, pg_catalog.array_agg(a.attname::text ORDER BY u.place) AS columns
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS u (attnum, place)
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
WHERE i.indrelid = $1 AND i.indpred IS NULL AND i.indisvalid AND u.place <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisunique
"""
_REFERENCES = """
SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END
       || c.relname || '.' || a.attname
FROM pg_catalog.pg_constraint f
JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_catalog.unnest(f.conkey) WITH ORDINALITY AS u (attnum, place)
JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = u.attnum
WHERE f.contype = 'f' AND f.confrelid = $1 AND f.conparentid = 0
ORDER BY c.relname, f.conname, u.place
"""


@cache
def dialect() -> Dialect:
    """SQLAlchemy's dialect for PostgreSQL, with asyncpg's ``$1`` for parameters."""
    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg  # noqa: PLC0415  (with the first statement)

    return PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so


class PostgreSQLSubjects(RelationalSubjects):
    """`Subjects` on PostgreSQL. A name without a schema is looked up in the search path, as in SQL."""

    types: ClassVar[Mapping[str, str]] = {
        "text": "text",
        "integer": "bigint",
        "real": "double precision",
        "boolean": "boolean",
        "bytes": "bytea",
        "date": "date",
        "timestamp": "timestamptz",
        "json": "jsonb",
    }

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect with ``$1`` for parameters."""
        return dialect()

    async def exclude(self, tx: Any, store: str) -> None:  # noqa: ARG002  (one lock for all tables)
        """Wait until nobody else makes tables in this database."""
        await tx.execute(EXCLUDE)

    async def describe(self, store: str, *, transaction: Any = None) -> Store | None:
        """The table, view or foreign table as it stands, or None when there is none."""
        session = transaction or self._provider
        table = await session.query_value(_TABLE, [self.quoted_store(store)])
        if table is None:
            return None
        columns = tuple(
            Column(
                name=row["name"],
                type=row["type"],
                nullable=not row["filled"],
                primary_key=row["place"],
                default=row["has_default"],
                bits=_BITS.get(row["type"]),
                exact=not row["padded"],
            )
            for row in await session.query(_COLUMNS, [table])
        )
        indexes = [(row["is_unique"], row["columns"]) for row in await session.query(_INDEXES, [table])]
        unique = {frozenset(names) for is_unique, names in indexes if is_unique and None not in names}
        references = await session.query(_REFERENCES, [table])
        return Store(
            name=store,
            columns=columns,
            unique=tuple(sorted(unique, key=sorted)),
            indexed=frozenset(names[0] for _, names in indexes if names[0] is not None),
            referenced_by=tuple(row[0] for row in references),
        )

    def holds(self, column: Column, wanted: ShapeColumn) -> bool:
        """Whether the column's type keeps such a value as it is. A length that the schema sets is the schema's."""
        return column.type.split("(", 1)[0].strip() in _HELD_BY[wanted.type]

"""What lies in the tables, a sample of it: for `datavern scan`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["PostgreSQLSamples"]

_STORES = r"""
SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_table_is_visible(c.oid) AS visible
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'f') AND NOT c.relispartition AND n.nspname <> 'information_schema'
  AND n.nspname NOT LIKE 'pg\_%' AND c.relname NOT LIKE 'datavern\_%'
ORDER BY 1, 2
"""
_TABLE = """
SELECT c.oid, c.relkind, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name,
       (SELECT sum(greatest(p.reltuples, 0))::float8 FROM pg_catalog.pg_class p WHERE p.oid = c.oid
            OR p.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(c.oid))) AS rows
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass($1::text)
"""
_COLUMNS = """
SELECT a.attname AS name, pg_catalog.quote_ident(a.attname) AS quoted,
       coalesce(nullif(t.typbasetype, 0), t.oid)::pg_catalog.regtype::text AS type
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_LONGEST = 20_000
_AS_THEY_ARE = {"smallint", "integer", "bigint", "numeric", "date", "timestamp with time zone", "boolean"}
_SPREAD = 8
"""How many times as many pages as needed are drawn, with a part of the rows of each: neighbours are alike."""
_SPARE = 1.5
"""How much more than asked for is sampled: pages differ in how many rows they hold."""


class PostgreSQLSamples:
    """`Samples` on PostgreSQL: some rows of pages that it draws (TABLESAMPLE SYSTEM), in a read-only transaction."""

    def __init__(self, provider: PostgreSQLProvider) -> None:
        self._provider = provider

    async def stores(self) -> list[str]:
        """The tables and materialized views of every schema; ``schema.table`` where the search path does not lead."""
        rows = await self._provider.query(_STORES)
        return [row["name"] if row["visible"] else f"{row['schema']}.{row['name']}" for row in rows]

    async def sample(self, store: str, size: int) -> dict[str, list[Any]]:
        """Some rows of many pages; where the planner knows of no more rows than that, the first ones."""
        subjects: Any = self._provider.capabilities.subjects
        async with self._provider.transaction(read_only=True) as tx:
            table = await tx.query_one(_TABLE, [subjects.quoted_store(store)])
            if table is None:
                raise ConfigurationError(f"{self._provider.name}: there is no table {store}")
            columns = [c for c in await tx.query(_COLUMNS, [table["oid"]]) if c["type"] != "bytea"]
            if not columns:
                return {}
            picked = ", ".join(
                c["quoted"] if c["type"] in _AS_THEY_ARE else f"pg_catalog.left({c['quoted']}::text, {_LONGEST})"
                for c in columns
            )
            wanted = size * _SPARE / table["rows"] if table["rows"] else 1.0
            share = 1.0 if table["relkind"] == "f" else min(1.0, wanted * _SPREAD)
            pages = f"TABLESAMPLE SYSTEM ({100 * share:.6f})" if share < 1 else ""
            some = f"WHERE random() < {wanted / share:.9f}" if wanted < share else ""
            # Pages come in the order in which they lie: cut off, it would be the end that nobody looks at.
            rows = await tx.query(f"SELECT {picked} FROM {table['name']} {pages} {some} LIMIT $1", [4 * size])  # noqa: S608
        if len(rows) > size:
            rows = random.sample(rows, size)
        return {c["name"]: [row[i] for row in rows if row[i] is not None] for i, c in enumerate(columns)}

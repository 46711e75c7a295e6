"""Columns of PostgreSQL's tables, sealed in place."""

from __future__ import annotations

import hashlib
import re
from typing import Any, ClassVar, Literal

from datavern.engines.columns import RelationalColumns
from datavern.engines.preparing import split_name

__all__ = ["PostgreSQLColumns"]


_THERE = """
SELECT true FROM pg_catalog.pg_constraint
WHERE conrelid = pg_catalog.to_regclass($1::text) AND conname = $2
"""


_AGAINST = r"""
SELECT 'it is partitioned, and no index that tells its rows apart can span the parts' FROM pg_catalog.pg_class
WHERE oid = pg_catalog.to_regclass($1::text) AND relkind = 'p'
UNION ALL
SELECT 'a foreign key of ' || c.conrelid::regclass || ' refers to it' FROM pg_catalog.pg_constraint c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = ANY (c.confkey)
WHERE c.contype = 'f' AND c.confrelid = pg_catalog.to_regclass($1::text) AND a.attname = $2
UNION ALL
SELECT 'the trigger ' || t.tgname || ' names it, and would be given sealed values' FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = pg_catalog.to_regclass($1::text) AND NOT t.tgisinternal
AND pg_catalog.pg_get_triggerdef(t.oid) || ' ' || p.prosrc ~* $3
"""


class PostgreSQLColumns(RelationalColumns):
    """`Columns` on PostgreSQL. Renaming and dropping rewrite nothing, and need the table for a moment."""

    begin: ClassVar[tuple[str, ...]] = ("SET LOCAL lock_timeout = '2s'",)
    row_lock: ClassVar[str] = " FOR UPDATE"

    def placeholder(self, number: int) -> str:
        """``$1``."""
        return f"${number}"

    async def loosen(self, tx: Any, store: str, column: str) -> None:
        """Drop NOT NULL."""
        await tx.execute(f"ALTER TABLE {self._table(store)} ALTER COLUMN {self._name(column)} DROP NOT NULL")

    async def against(self, store: str, column: str) -> list[str]:
        """Partitions, foreign keys, and triggers that name it."""
        word = re.sub(r"(\W)", r"\\\1", column)
        rows = await self._provider.query(_AGAINST, [self._table(store), column, rf"(^|\W){word}(\W|$)"])
        return [row[0] for row in rows]

    async def guard(self, store: str, column: str) -> None:
        """A check of the first byte (FORMAT.md, 5; 0 marks what was erased): a literal of text would pass for bytes."""
        table = split_name(store)[1]
        name = f"datavern_sealed_{hashlib.sha256(f'{table}.{column}'.encode()).hexdigest()[:16]}"

        async def work(tx: Any) -> None:
            await self.lock(tx, store)  # another run may be adding it
            if not await tx.query_value(_THERE, [self._table(store), name]):
                field = self._name(column)
                await tx.execute(
                    f"ALTER TABLE {self._table(store)} ADD CONSTRAINT {name} "
                    f"CHECK ({field} IS NULL OR length({field}) = 0 OR get_byte({field}, 0) < 3) NOT VALID"
                )

        await self.change(work)

    async def drop(self, tx: Any, store: str, column: str) -> None:
        """Its indexes and constraints go with it; what else depends on it (a view) refuses it."""
        await tx.execute(f"ALTER TABLE {self._table(store)} DROP COLUMN {self._name(column)}")

    async def lock(self, tx: Any, store: str) -> None:
        """Against reading and writing."""
        await tx.execute(f"LOCK TABLE {self._table(store)} IN ACCESS EXCLUSIVE MODE")

    async def rewrite(self, store: str, how: Literal["full", "plain"]) -> None:
        """VACUUM FULL makes a new file, and keeps everybody out meanwhile; a plain one lets the space be used again."""
        full = "FULL, " if how == "full" else ""
        await self._provider.execute(f"VACUUM ({full}ANALYZE) {self._table(store)}")

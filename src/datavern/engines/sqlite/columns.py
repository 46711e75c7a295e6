"""Columns of SQLite's tables, sealed in place."""

from __future__ import annotations

import re
from typing import Any, Literal

from datavern.contracts.errors import ConfigurationError
from datavern.engines.columns import RelationalColumns
from datavern.engines.preparing import split_name
from datavern.engines.sqlite.nullable import let_null
from datavern.engines.sqlite.session import run_job

__all__ = ["SQLiteColumns"]

_INDEXES = """
SELECT DISTINCT l.name, l.origin FROM pragma_index_list(?) AS l, pragma_index_info(l.name) AS i
WHERE i.name = ? COLLATE NOCASE
"""


_REFERENCES = """
SELECT DISTINCT m.name FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f
WHERE m.type = 'table' AND f."table" = ? COLLATE NOCASE AND f."to" = ? COLLATE NOCASE
"""
_TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE"


class SQLiteColumns(RelationalColumns):
    """`Columns` on SQLite. A column takes bytes or text whatever its type, so that triggers guard a sealed one."""

    def placeholder(self, number: int) -> str:  # noqa: ARG002  (they are all alike)
        """``?``."""
        return "?"

    async def loosen(self, tx: Any, store: str, column: str) -> None:
        """In the table's definition, since SQLite's ALTER TABLE does not.

        Raises:
            ConfigurationError: its definition could not be changed for sure.
        """
        found = await self._subjects.describe(store, transaction=tx)
        there = None if found is None else found.column(column)
        if there is None or there.nullable:
            return
        job = tx._send(let_null, None, (split_name(store)[1], there.name))  # noqa: SLF001  (the engine's own)
        if not await run_job(tx, job):
            raise ConfigurationError(
                f"{store}.{column} is NOT NULL, and its table's definition could not be changed for sure: make the "
                "table anew without it (https://sqlite.org/lang_altertable.html, 7), and run this again"
            )

    async def against(self, store: str, column: str) -> list[str]:
        """Foreign keys, and triggers that name it: SQLite would put the other name in them, and they see it emptied."""
        table = split_name(store)[1]
        found = [
            f"a foreign key of {row[0]} refers to it"
            for row in await self._provider.query(_REFERENCES, [table, column])
        ]
        word = re.compile(rf"(?<!\w){re.escape(column)}(?!\w)", re.IGNORECASE)
        return found + [
            f"the trigger {name} names it, and would be given emptied values"
            for name, text in await self._provider.query(_TRIGGERS, [table])
            if not name.startswith("datavern_sealed_") and word.search(text)
        ]

    async def guard(self, store: str, column: str) -> None:
        """Two triggers: whoever writes plain text to the sealed column is refused."""
        table = split_name(store)[1]
        for event in ("INSERT", f"UPDATE OF {self._name(column)}"):
            name = self._trigger(table, column, event[:6].lower())
            await self._provider.execute(
                f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {event} ON {self._name(table)} "
                f"WHEN typeof(NEW.{self._name(column)}) NOT IN ('blob', 'null') "
                "BEGIN SELECT RAISE(ABORT, 'the column is sealed'); END"
            )

    async def unguard(self, tx: Any, store: str, column: str) -> None:
        """Both triggers."""
        table = split_name(store)[1]
        for event in ("insert", "update"):
            await tx.execute(f"DROP TRIGGER IF EXISTS {self._trigger(table, column, event)}")

    def _trigger(self, table: str, column: str, event: str) -> str:
        return self._name(f"datavern_sealed_{table}_{column}_{event}")

    async def drop(self, tx: Any, store: str, column: str) -> None:
        """With its indexes; a column of a UNIQUE constraint cannot be dropped, and stays, empty."""
        table = split_name(store)[1]
        for name, origin in await tx.query(_INDEXES, [table, column]):
            if origin == "c":
                await tx.execute(f"DROP INDEX {self._name(name)}")
        await tx.execute(f"ALTER TABLE {self._name(table)} DROP COLUMN {self._name(column)}")

    async def rewrite(self, store: str, how: Literal["full", "plain"]) -> None:  # noqa: ARG002  (the file is one)
        """VACUUM makes the file anew; either way the write-ahead log is cut."""
        if how == "full":
            await self._provider.execute("VACUUM")
        await self._provider.checkpoint()

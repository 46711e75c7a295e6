"""What lies in the tables, a sample of it: for `datavern scan`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.engines.azuresql.provider import AzureSQLProvider

__all__ = ["AzureSQLSamples"]

_STORES: Final = """
SELECT CASE WHEN t.schema_id = SCHEMA_ID() THEN t.name ELSE SCHEMA_NAME(t.schema_id) + N'.' + t.name END AS name
FROM sys.tables t
WHERE t.is_ms_shipped = 0 AND t.name NOT LIKE N'datavern[_]%'
ORDER BY SCHEMA_NAME(t.schema_id), t.name
"""
_TABLE: Final = """
SELECT t.object_id AS id,
       (SELECT SUM(p.rows) FROM sys.partitions p WHERE p.object_id = t.object_id AND p.index_id IN (0, 1)) AS rows
FROM sys.tables t WHERE t.object_id = OBJECT_ID(@P1)
"""
_COLUMNS: Final = """
SELECT c.name AS name, TYPE_NAME(c.system_type_id) AS type FROM sys.columns c
WHERE c.object_id = @P1 ORDER BY c.column_id
"""
_LONGEST: Final = 20_000
_AS_THEY_ARE: Final = frozenset(
    {"tinyint", "smallint", "int", "bigint", "decimal", "numeric", "money", "bit", "date", "datetimeoffset"}
)
_LEFT_OUT: Final = frozenset({"varbinary", "binary", "image", "timestamp", "hierarchyid", "geometry", "geography"})
_SPARE: Final = 1.5
"""How much more than asked for is sampled: pages differ in how many rows they hold."""


class AzureSQLSamples:
    """`Samples` on Azure SQL: pages drawn by the server (TABLESAMPLE SYSTEM)."""

    def __init__(self, provider: AzureSQLProvider) -> None:
        self._provider = provider

    async def stores(self) -> list[str]:
        """The tables of every schema; ``schema.table`` where it is not the user's own."""
        return [row["name"] for row in await self._provider.query(_STORES)]

    async def sample(self, store: str, size: int) -> dict[str, list[Any]]:
        """Rows of some pages; where there are no more rows than that, the first ones."""
        subjects: Any = self._provider.capabilities.subjects
        table = await self._provider.query_one(_TABLE, [subjects.quoted_store(store)])
        if table is None:
            raise ConfigurationError(f"{self._provider.name}: there is no table {store}")
        columns = [c for c in await self._provider.query(_COLUMNS, [table["id"]]) if c["type"] not in _LEFT_OUT]
        if not columns:
            return {}
        rows = await self._provider.query(sample_statement(subjects, store, columns, size, table["rows"]), [4 * size])
        if len(rows) > size:
            rows = random.sample(list(rows), size)
        return {c["name"]: [row[i] for row in rows if row[i] is not None] for i, c in enumerate(columns)}


def sample_statement(subjects: Any, store: str, columns: Any, size: int, there: int | None) -> str:
    """What draws the rows: a share of the pages, and of those so many rows at the most (its parameter)."""
    picked = ", ".join(
        subjects.quoted(c["name"])
        if c["type"] in _AS_THEY_ARE
        else f"LEFT(CONVERT(nvarchar(max), {subjects.quoted(c['name'])}), {_LONGEST})"
        for c in columns
    )
    share = 100.0 * size * _SPARE / there if there else 100.0
    pages = f" TABLESAMPLE SYSTEM ({share:.6f} PERCENT)" if share < 100 else ""  # noqa: PLR2004  (all of them)
    return f"SELECT TOP (@P1) {picked} FROM {subjects.quoted_store(store)}{pages}"  # noqa: S608  (quoted names)

"""What lies in the tables, a sample of it: for `datavern scan`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.engines.sqlite.provider import SQLiteProvider

__all__ = ["SQLiteSamples"]

_STORES = """
SELECT name FROM pragma_table_list
WHERE schema = 'main' AND type = 'table' AND substr(name, 1, 7) <> 'sqlite_' AND substr(name, 1, 9) <> 'datavern_'
ORDER BY name
"""
_ROWS_HAVE_NUMBERS = "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?"
_COLUMNS = "SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid"
_LONGEST = 20_000
_PLACES = 50
"""Where in a large table rows are taken from: so many places, drawn at random."""


class SQLiteSamples:
    """`Samples` on SQLite."""

    def __init__(self, provider: SQLiteProvider) -> None:
        self._provider = provider

    async def stores(self) -> list[str]:
        """The tables, without virtual ones and what lies behind them."""
        return [row[0] for row in await self._provider.query(_STORES)]

    async def sample(self, store: str, size: int) -> dict[str, list[Any]]:
        """Rows from all over the table, by their row numbers; of a table WITHOUT ROWID, the first ones."""
        provider = self._provider
        columns = [row[0] for row in await provider.query(_COLUMNS, [store])]
        if not columns:
            raise ConfigurationError(f"{provider.name}: there is no table {store}")
        table = _quoted(store)
        texts = ", ".join(
            f"CASE typeof({c}) WHEN 'text' THEN substr({c}, 1, {_LONGEST}) WHEN 'blob' THEN NULL ELSE {c} END"
            for c in map(_quoted, columns)
        )
        rows: list[Any] = []
        row_id = None if await provider.query_value(_ROWS_HAVE_NUMBERS, [store]) else _row_id(columns)
        if row_id is None:
            rows += await provider.query(f"SELECT {texts} FROM {table} LIMIT ?", [size])  # noqa: S608  (names are quoted)
        else:
            ends = await provider.query_one(f"SELECT min({row_id}), max({row_id}) FROM {table}")  # noqa: S608
            low, high = (None, None) if ends is None else (ends[0], ends[1])
            if low is not None and high is not None:
                every = high - low < size
                places = [low] if every else [random.randint(low, high) for _ in range(_PLACES)]  # noqa: S311  (a sample)
                each = size if every else -(-size // _PLACES)
                select = f"SELECT {texts} FROM {table} WHERE {row_id} >= ? ORDER BY {row_id} LIMIT ?"  # noqa: S608
                for place in sorted(places):
                    rows += await provider.query(select, [place, each])
        return {name: [row[i] for row in rows if row[i] is not None] for i, name in enumerate(columns)}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _row_id(columns: list[str]) -> str | None:
    """A name of the row number that no column has taken."""
    taken = {name.lower() for name in columns}
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), None)

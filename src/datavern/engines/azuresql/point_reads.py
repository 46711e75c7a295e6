"""Rows by key, many in one round trip: what `datavern.connectors.coalescing` needs of Azure SQL.

One statement for many keys would have to bring them to one type: `VALUES`, OPENJSON and table-valued parameters all do,
and then a text that is compared with a number, or a key of another collation, finds another row than the single
statement does. So a batch is that very statement, once for each key, in one request: the server answers with a result
set for each (`docs/decisions/0025-coalesced-reads-on-azure-sql.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import QueryRejected
from datavern.engines.azuresql.statements import Effect

if TYPE_CHECKING:
    from datavern.connectors.coalescing import Blame
    from datavern.contracts.values import Row
    from datavern.engines.azuresql.provider import AzureSQLProvider

__all__ = ["MOST", "AzureSQLSource"]

MOST: Final = 1000
"""Keys in one request."""

_KEYS: Final = frozenset({"206", "220", "241", "242", "244", "245", "248", "257", "402", "529", "8114", "8115", "8152",
                          "8169", "8170", "9803"})  # fmt: skip
"""Errors that a value brings about: it does not become the type that it is compared with."""


class AzureSQLSource:
    """The statements of one `AzureSQLProvider.coalesced`.

    Args:
        provider: runs them, each request with no transaction around it.
        table: ``schema.table`` or ``table``.
        key: the column that is compared with the keys.
        columns: which to read; all of them when None.
    """

    __slots__ = ("_body", "_provider", "_texts")

    def __init__(self, provider: AzureSQLProvider, table: str, key: str, columns: Sequence[str] | None) -> None:
        subjects = provider._subjects  # noqa: SLF001  (one engine)
        names = "*" if columns is None else ", ".join(map(subjects.quoted, columns))
        self._provider = provider
        self._body = f"SELECT TOP (1) {names} FROM {subjects.quoted_store(table)} WHERE {subjects.quoted(key)} = "  # noqa: S608  (quoted names)
        self._texts: dict[int, str] = {}

    async def one(self, key: Any) -> Row | None:
        """The row of a key."""
        return await self._provider.query_one(self._text(1), (key,))

    async def many(self, keys: list[Any]) -> Sequence[Row | None]:
        """The rows of the keys in their order, None for a key that has none."""
        size = 1 << (len(keys) - 1).bit_length()  # few texts, so that the server keeps few plans
        provider = self._provider
        sql = self._text(size)
        values = provider._values(sql, [*keys, *[keys[-1]] * (size - len(keys))])  # noqa: SLF001  (one engine, here and below)
        provider._effect_of(sql)  # noqa: SLF001
        _, answer = await provider._send(sql, values, Effect.READS)  # noqa: SLF001
        return [rows[0] if rows else None for rows in answer.sets[: len(keys)]]

    def _text(self, size: int) -> str:
        found = self._texts.get(size)
        if found is None:
            found = self._texts[size] = ";\n".join(f"{self._body}@P{n}" for n in range(1, size + 1))
        return found

    def blame(self, error: Exception) -> Blame:
        """Whom the error speaks of: a refusal of ours has no number, and is about a key."""
        if not isinstance(error, QueryRejected):
            return "nobody"
        return "key" if error.code is None or error.code in _KEYS else "merging"

"""Rows by key, many in one statement: what `datavern.connectors.coalescing` needs of PostgreSQL.

The obvious ``WHERE id = ANY ($1)`` answers in no order, and does not say which row is for which key: whoever matched
them in Python would have to know the server's own equality (``citext``, collations, ``char(n)``, ``numeric``). So each
key keeps its place: the statement has one row for each key, in their order, and is made of the single statement itself
(`docs/decisions/0007-coalesced-reads.md`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import QueryRejected

if TYPE_CHECKING:
    from datavern.connectors.coalescing import Blame
    from datavern.contracts.values import Row
    from datavern.engines.postgresql.provider import PostgreSQLProvider
    from datavern.engines.postgresql.subjects import PostgreSQLSubjects

__all__ = ["PostgreSQLSource"]

# The first part is never run: it says of which type the keys are, and so the server tells it from the column each time
# it prepares the statement. `(SELECT $1)` hides from the planner how many they are: it would plan anew each time.
_MANY = """
WITH {own}_typed AS (SELECT FROM {table} WHERE {key} = ANY ($1))
SELECT {own}_found.*
FROM pg_catalog.unnest((SELECT $1)) WITH ORDINALITY AS {own}_asked ({own}_key, {own}_place)
LEFT JOIN LATERAL (
    SELECT {columns} FROM {table} WHERE {key} = {own}_asked.{own}_key LIMIT 1
) AS {own}_found ON true
ORDER BY {own}_asked.{own}_place
"""
_ONE = "SELECT {columns} FROM {table} WHERE {key} = $1"

_NOBODY = frozenset({"08", "25", "40", "53", "54", "55", "57", "58"})
"""Classes of errors that no value brings about: connection, transaction, resources, locks, an operator, the system."""
_MERGING = frozenset({"0A", "42"})
"""Classes of errors that speak of the text: not supported, no such operator for these types, no such column."""
_FLAT = (str, bytes, bytearray, memoryview)
"""What can be iterated, and is one value all the same."""


class PostgreSQLSource:
    """The statements of one `PostgreSQLProvider.coalesced`.

    Args:
        provider: runs them, each in a transaction of its own.
        table: ``schema.table`` or ``table``.
        key: the column that is compared with the keys.
        columns: which to read, `key` among them; all of them when None.
        subjects: quotes the names.
    """

    __slots__ = ("_many", "_one", "_place", "_provider")

    def __init__(
        self,
        provider: PostgreSQLProvider,
        table: str,
        key: str,
        columns: Sequence[str] | None,
        *,
        subjects: PostgreSQLSubjects,
    ) -> None:
        self._provider = provider
        names = {
            "table": subjects.quoted_store(table),
            "key": subjects.quoted(key),
            "columns": "*" if columns is None else ", ".join(map(subjects.quoted, columns)),
        }
        self._one = _ONE.format_map(names)
        self._many = _MANY.format_map({**names, "own": _own((table, key, *(columns or ())))})
        self._place: int | str = key if columns is None else columns.index(key)

    async def one(self, key: Any) -> Row | None:
        """The row of a key, by the statement that is written in `PostgreSQLProvider.coalesced`."""
        return await self._provider.query_one(self._one, (key,))

    async def many(self, keys: list[Any]) -> Sequence[Row | None]:
        """The rows of the keys in their order, None for a key that has none."""
        for kind in set(map(type, keys)):
            if not issubclass(kind, _FLAT) and issubclass(kind, Iterable) and issubclass(kind, Sized):
                # The driver takes a list for several keys, and `unnest` makes several columns of a composite value.
                raise QueryRejected(f"{self._provider.name}: a key of several parts is not sent among others")
        rows = await self._provider.query(self._many, (keys,))
        place = self._place
        try:
            # No key is NULL in a row that was found by being equal to it.
            return [None if row[place] is None else row for row in rows]
        except KeyError:  # a column of the system's, which is not among "all columns"
            raise QueryRejected(f"{self._provider.name}: the rows do not say whose they are", code="42703") from None

    def blame(self, error: Exception) -> Blame:
        """Whom the error speaks of: the driver's refusals have no SQLSTATE, and are about a key."""
        if not isinstance(error, QueryRejected):
            return "nobody"
        group = (error.code or "")[:2]
        return "nobody" if group in _NOBODY else "merging" if group in _MERGING else "key"


def _own(names: Iterable[str]) -> str:
    """What names of ours begin with, so that none of them is one of those."""
    said = "".join(names)
    return next(own for n in itertools.count() if (own := f"datavern{n or ''}") not in said)

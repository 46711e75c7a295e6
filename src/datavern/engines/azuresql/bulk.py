"""Many rows into a table: as many in each statement as T-SQL takes, on one connection."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError, QueryRejected

if TYPE_CHECKING:
    from datavern.engines.azuresql.transaction import AzureSQLTransaction

__all__ = ["bulk_insert"]

_MOST_ROWS: Final = 1000
"""Rows that one VALUES takes (Transact-SQL reference, "Table value constructor")."""
_MOST_VALUES: Final = 2000
"""Values in one statement: it takes 2098 parameters."""


async def bulk_insert(
    tx: AzureSQLTransaction, table: str, columns: Sequence[str], rows: Iterable[Any] | AsyncIterable[Any]
) -> int:
    """Insert rows in the transaction; how many. See `AzureSQLProvider.bulk_insert`."""
    provider: Any = tx._provider  # noqa: SLF001  (one engine)
    name = provider.name
    if isinstance(columns, str | bytes) or not columns or not all(isinstance(c, str) and c for c in columns):
        raise ConfigurationError(f"{name}: bulk_insert: columns: expected a list of names")
    subjects = provider._subjects  # noqa: SLF001  (one engine)
    width = len(columns)
    if width > _MOST_VALUES:
        raise ConfigurationError(f"{name}: bulk_insert: {width} columns: expected {_MOST_VALUES} at the most")
    height = max(1, min(_MOST_ROWS, _MOST_VALUES // width))
    names = ", ".join(map(subjects.quoted, columns))
    head = f"INSERT INTO {subjects.quoted_store(table)} ({names}) VALUES "  # noqa: S608  (quoted names)
    done = 0
    batch: list[Any] = []
    async for row in _each(rows, name):
        number = done + len(batch) // width + 1
        if isinstance(row, str | bytes) or not isinstance(row, Sequence):
            raise QueryRejected(f"{name}: row {number} is a {type(row).__name__}: expected a tuple or a list")
        if len(row) != width:
            raise QueryRejected(f"{name}: row {number} has {len(row)} values for {width} columns")
        batch += row
        if len(batch) == height * width:
            await _insert(tx, head, batch, width, done)
            done += height
            batch = []
    if batch:
        await _insert(tx, head, batch, width, done)
    return done + len(batch) // width


async def _insert(tx: AzureSQLTransaction, head: str, values: list[Any], width: int, before: int) -> None:
    places = (f"({', '.join(f'@P{at + n}' for n in range(1, width + 1))})" for at in range(0, len(values), width))
    refused: QueryRejected
    try:
        await tx.execute(head + ", ".join(places), values)
    except QueryRejected as error:
        if error.code is not None or "parameter @P" not in str(error):
            raise
        refused = error
    else:
        return
    number = int(str(refused).partition("parameter @P")[2].partition(" ")[0]) - 1
    raise QueryRejected(
        str(refused).replace(
            f"parameter @P{number + 1}",
            f"the value of column {number % width + 1} of row {before + number // width + 1}",
        ),
        provider=refused.provider,
    )


async def _each(rows: Any, name: str) -> AsyncIterator[Any]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    elif isinstance(rows, Iterable) and not isinstance(rows, str | bytes):
        for row in rows:
            yield row
    else:
        raise ConfigurationError(f"{name}: bulk_insert: rows: expected an iterable or async iterable of tuples")

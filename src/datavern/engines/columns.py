"""Changing what a column is, while the table is used: for columns that are sealed in place, and back.

The values stand in two columns meanwhile: as they were in the one that was set aside, and sealed in the one that has
the name. A row has its value in one of the two, so that every step can be taken again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Literal

from datavern.contracts.errors import ConfigurationError, ProviderError, QueryRejected
from datavern.contracts.stores import ShapeColumn
from datavern.engines.relational import RelationalSubjects

__all__ = ["RelationalColumns"]

_ATTEMPTS = 20
_PAUSE = 0.25


class RelationalColumns:
    """`Columns` of an engine that speaks SQL.

    Args:
        provider: the provider.
        subjects: its rows.
    """

    begin: ClassVar[tuple[str, ...]] = ()
    """What a transaction that changes the schema begins with: it must not wait for long while others wait for it."""
    row_lock: ClassVar[str] = ""
    """What holds the rows that a SELECT reads."""

    def __init__(self, provider: Any, subjects: RelationalSubjects) -> None:
        self._provider = provider
        self._subjects = subjects

    # ---- what an engine fills in ------------------------------------------------------------------------------------

    def placeholder(self, number: int) -> str:
        """How the n-th parameter is written, from 1."""
        raise NotImplementedError

    async def loosen(self, tx: Any, store: str, column: str) -> None:
        """Let a column take NULL."""
        raise NotImplementedError

    async def against(self, store: str, column: str) -> list[str]:
        """What in the schema keeps a column from being emptied, or does something with its values: a line each."""
        raise NotImplementedError

    async def guard(self, store: str, column: str) -> None:
        """Refuse what is not bytes in a sealed column, where its type does not."""

    async def unguard(self, tx: Any, store: str, column: str) -> None:
        """Take `guard` away."""

    async def drop(self, tx: Any, store: str, column: str) -> None:
        """Drop a column, with its indexes."""
        raise NotImplementedError

    async def lock(self, tx: Any, store: str) -> None:
        """Keep everybody else out of the table until the transaction ends."""

    async def rewrite(self, store: str, how: Literal["full", "plain"]) -> None:
        """Let go of what the table's file holds of deleted and overwritten rows."""
        raise NotImplementedError

    # ---- what they share --------------------------------------------------------------------------------------------

    def _table(self, store: str) -> str:
        return self._subjects.quoted_store(store)

    def _name(self, column: str) -> str:
        return self._subjects.quoted(column)

    async def change(self, work: Any) -> None:
        """Run ``work(tx)``, which changes the schema, again while others are in the way.

        Raises:
            ProviderError: somebody was in the way for too long, or it cannot be done.
        """
        for attempt in range(_ATTEMPTS):
            try:
                async with self._provider.transaction() as tx:
                    for statement in self.begin:
                        await tx.execute(statement)
                    await work(tx)
            except ProviderError as error:
                if attempt == _ATTEMPTS - 1 or not _in_the_way(error):
                    raise
            else:
                return
            await asyncio.sleep(_PAUSE)

    async def set_aside(self, store: str, column: str, aside: str, keys: Sequence[str]) -> None:
        """Give a column another name, and let it take NULL: both or neither, and neither where it cannot be emptied.

        Nothing is done where another run did it meanwhile: the column of that name may be the sealed one by now.

        Args:
            store: the table.
            column: the column.
            aside: its other name.
            keys: the columns that name a row: of one row the value is emptied, and is there again.

        Raises:
            ConstraintViolated: something in the schema keeps the value.
        """
        names = ", ".join(map(self._name, keys))
        filled = f"SELECT {names} FROM {self._table(store)} WHERE {self._name(aside)} IS NOT NULL LIMIT 1"  # noqa: S608  (quoted)
        empty = f"UPDATE {self._table(store)} SET {self._name(aside)} = NULL WHERE ({names}) = ({filled})"  # noqa: S608  (quoted)

        async def work(tx: Any) -> None:
            if await self._sealed(tx, store, column, without=aside) is not False:
                return
            await self.loosen(tx, store, column)
            await self.rename(tx, store, column, aside)
            with suppress(_Tried):
                async with tx.savepoint():
                    await tx.execute(empty)
                    raise _Tried

        await self.change(work)

    async def _sealed(self, tx: Any, store: str, column: str, *, without: str) -> bool | None:
        """Whether a column is a sealed one, with the table locked; None where it is not there, or the other one is."""
        await self.lock(tx, store)
        found = await self._subjects.describe(store, transaction=tx)
        there = None if found is None or found.column(without) is not None else found.column(column)
        return None if there is None else bool(self._subjects.holds(there, ShapeColumn(column, "bytes")))

    async def rename(self, tx: Any, store: str, column: str, to: str) -> None:
        """Give a column another name."""
        sql = f"ALTER TABLE {self._table(store)} RENAME COLUMN {self._name(column)} TO {self._name(to)}"
        await tx.execute(sql)

    async def add(self, store: str, column: str, kind: str, *, beside: str) -> None:
        """Add a column that takes NULL, beside a sealed one.

        Nothing is done where another run did it meanwhile, or has been through: the other column is a plain one then.

        Args:
            store: the table.
            column: the new column.
            kind: one of the words for types of `ShapeColumn`.
            beside: the sealed one.

        Raises:
            ConfigurationError: no such type.
        """
        words = self._subjects.types.get(kind)
        if words is None:
            raise ConfigurationError(f"type: expected one of {', '.join(self._subjects.types)}")

        async def work(tx: Any) -> None:
            if await self._sealed(tx, store, beside, without=column) is not True:
                return
            await tx.execute(f"ALTER TABLE {self._table(store)} ADD COLUMN {self._name(column)} {words}")

        await self.change(work)

    async def filled(
        self,
        store: str,
        column: str,
        keys: Sequence[str],
        after: Sequence[Any] | None,
        limit: int,
        *,
        hold: bool = True,
        transaction: Any,
    ) -> list[dict[str, Any]]:
        """Rows with a value in the column, held, in the order of their key, from behind the one that is given."""
        names = ", ".join(map(self._name, keys))
        where = f"{self._name(column)} IS NOT NULL"
        if after is not None:
            marks = ", ".join(self.placeholder(i) for i in range(1, len(keys) + 1))
            where += f" AND ({names}) > ({marks})"
        end = f"ORDER BY {names} LIMIT {int(limit)}{self.row_lock if hold else ''}"
        sql = f"SELECT * FROM {self._table(store)} WHERE {where} {end}"  # noqa: S608  (quoted)
        return [dict(row) for row in await transaction.query(sql, list(after or ()))]

    async def count(self, store: str, column: str, *, nobody: str | None = None) -> int:
        """How many rows have a value in the column; with `nobody`, those of them whose column of that name is NULL."""
        also = "" if nobody is None else f" AND {self._name(nobody)} IS NULL"
        where = f"{self._name(column)} IS NOT NULL{also}"
        sql = f"SELECT count(*) FROM {self._table(store)} WHERE {where}"  # noqa: S608  (quoted)
        return int(await self._provider.query_value(sql))

    async def write(
        self,
        store: str,
        keys: Sequence[str],
        rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
        *,
        transaction: Any,
    ) -> None:
        """Change rows that are held: pairs of the row and what changes in it."""
        for row, changes in rows:
            where = {name: row[name] for name in keys}
            await self._subjects.update(store, where, changes, transaction=transaction)


class _Tried(Exception):
    """It could be done: undo it."""


def _in_the_way(error: ProviderError) -> bool:
    """Whether others held the table, or changed it: it can be tried again."""
    return error.retry in {"safe", "transaction"} or (isinstance(error, QueryRejected) and error.code == "55P03")

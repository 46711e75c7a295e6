"""Rows by their age: what ends what is past its time needs of an engine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Ages"]


class Ages(Protocol):
    """The rows of a store whose date lies before a day, in batches.

    A date is a date, a moment in time (whose day is that of UTC), or either of them as text by ISO 8601. `where` holds
    column = value pairs, as in `datavern.contracts.stores.Subjects`. Rows without a date are never past.
    """

    async def past(
        self,
        store: str,
        column: str,
        before: dt.date,
        *,
        where: Mapping[str, Any],
        keys: Sequence[str],
        after: Sequence[Any] | None,
        limit: int,
        columns: Sequence[str] | None = None,
        transaction: Any = None,
    ) -> list[dict[str, Any]]:
        """A batch of them, in an order of the engine's choice, locked where there is a transaction.

        Rows that somebody else has locked are passed over. Text that is no date may be among what comes.

        Args:
            store: the store.
            column: where the date stands.
            before: the first day that is not past.
            where: what must hold too.
            keys: the primary key, which tells rows of one date apart.
            after: what the last row of the batch before gave: from behind it. None: from the beginning.
            limit: how many at the most.
            columns: which to read; all of them when None.
            transaction: an open one of the same provider.

        Raises:
            ConfigurationError: the column's type is none that holds dates.
        """
        ...

    def behind(self, row: Mapping[str, Any], column: str, keys: Sequence[str]) -> Sequence[Any]:
        """What `past` takes to go on behind a row."""
        ...

    async def count(self, store: str, column: str, before: dt.date, *, where: Mapping[str, Any]) -> tuple[int, Any]:
        """How many there are, and the oldest date as it stands there (None where there are none)."""
        ...

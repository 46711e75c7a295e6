"""The keys of changes that were made: what relational engines share.

A key is written with the change that it names, in the same statement or transaction, and holds how many rows that
changed; one that names a whole transaction holds the mark of whoever ran it, as a negative number. It is kept for
`KEPT` at least, and goes with a purge after that: `purge_idempotency` of a provider, and a thousand at a time as keys
are used.
"""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.statements import Statement
from datavern.contracts.values import now, timestamp

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["CHANGE", "EVERY", "KEPT", "MOST", "TABLE", "Keys", "changed_of", "count_of", "expired", "keys", "mark_of"]

KEPT: Final = dt.timedelta(days=7)
"""How long a key counts, at the least."""
EVERY: Final = 1000
"""A provider purges with the first key that it is given, and with every so many after it."""
MOST: Final = 1000
"""Keys that one statement of a purge deletes, so that no call waits for long."""

TABLE: Final = "datavern_idempotency"
CHANGE: Final = "datavern_change"
"""The change as a relation of a statement: a row for each row that it changed."""


def expired(older_than: dt.timedelta) -> str:
    """The moment before which keys go.

    Raises:
        ConfigurationError: no length of time, or a negative one.
    """
    if not isinstance(older_than, dt.timedelta) or older_than < dt.timedelta(0):
        raise ConfigurationError("older_than: expected a timedelta, such as timedelta(days=7)")
    return timestamp(now() - older_than)


def changed_of(mark: int) -> int:
    """What stands in the table for a transaction with that mark."""
    return -mark


def mark_of(changed: int) -> int:
    """The mark of the transaction that wrote it; 0 where it was a statement."""
    return max(0, -changed)


def count_of(changed: int) -> int:
    """How many rows the statement changed that wrote it; 0 where it was a transaction."""
    return max(0, changed)


@cache
def keys() -> Keys:
    """The table and its statements; SQLAlchemy is loaded with the first key."""
    return Keys()


class Keys:
    """The table and its statements: `Statement` compiles each once per dialect."""

    def __init__(self) -> None:
        import sqlalchemy as sa  # noqa: PLC0415  (loaded when the first key is used)

        self.metadata = sa.MetaData()
        self.table = table = sa.Table(
            TABLE,
            self.metadata,
            sa.Column("key", sa.Text, primary_key=True),
            sa.Column("at", sa.Text, nullable=False, index=True),
            sa.Column("changed", sa.BigInteger, nullable=False),
        )
        self.find = Statement(lambda: sa.select(table.c.changed).where(table.c.key == sa.bindparam("of_key")))
        self.insert = Statement(lambda: sa.insert(table).inline())
        self.insert_counted = Statement(self._insert_counted)
        self.count = Statement(
            lambda: sa.update(table).where(table.c.key == sa.bindparam("of_key")).values(changed=sa.bindparam("number"))
        )
        self.purge = Statement(self._purge)

    def _insert_counted(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        values: Any = [sa.bindparam(name, type_=sa.Text()) for name in ("key", "at")]
        counted = sa.select(*values, sa.func.count()).select_from(sa.table(CHANGE))
        columns = self.table.c
        return sa.insert(self.table).from_select(["key", "at", "changed"], counted).returning(columns.changed)

    def _purge(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        columns = self.table.c
        # Two purges at once do not wait for each other; where there is one writer, its dialect writes no lock.
        old = (
            sa.select(columns.key)
            .where(columns.at < sa.bindparam("before"))
            .limit(sa.bindparam("most"))
            .with_for_update(skip_locked=True)
        )
        return sa.delete(self.table).where(columns.key.in_(old))

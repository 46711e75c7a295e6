"""The keys of changes that were made: what relational engines share.

A key is written with the change that it names, in the same statement or transaction, and holds how many rows that
changed; one that names a whole transaction holds the mark of whoever ran it, as a negative number. Beside it stands
what was asked under it, as check digits (`asked`), so that a key that is used for something else is told from a
repetition. It is kept for `KEPT` at least, and goes with a purge after that: `purge_idempotency` of a provider, and a
thousand at a time as keys are used.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError, IdempotencyKeyReused
from datavern.contracts.statements import Statement
from datavern.contracts.values import now, timestamp

if TYPE_CHECKING:
    import sqlalchemy as sa

    from datavern.contracts.values import Row

__all__ = [
    "ASKED",
    "CHANGE",
    "EVERY",
    "KEPT",
    "MOST",
    "OF_PARAMETERS",
    "OF_STATEMENT",
    "TABLE",
    "WORK",
    "Keys",
    "asked",
    "changed_of",
    "count_of",
    "expired",
    "keys",
    "mark_of",
]

KEPT: Final = dt.timedelta(days=7)
"""How long a key counts, at the least."""
EVERY: Final = 1000
"""A provider purges with the first key that it is given, and with every so many after it."""
MOST: Final = 1000
"""Keys that one statement of a purge deletes, so that no call waits for long."""

TABLE: Final = "datavern_idempotency"
CHANGE: Final = "datavern_change"
"""The change as a relation of a statement: a row for each row that it changed."""
ASKED: Final = "asked"
"""The column that tables of an earlier version lack."""
WORK: Final = 0
"""What stands there for a transaction, whose work is the program's and cannot be compared."""

OF_PARAMETERS: Final = 8
OF_STATEMENT: Final = 16
"""Bits of the check digits: enough to see a mistake, too few to find a value by (docs/decisions/0029)."""


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


def mark_of(found: Row | Sequence[Any], *, provider: str) -> int:
    """The mark of the transaction that wrote a key.

    Args:
        found: what `Keys.find` gives.
        provider: its name, for the error.

    Raises:
        IdempotencyKeyReused: a statement wrote it.
    """
    changed, known = int(found[0]), found[1]
    if known if known is not None else changed > 0:
        raise _reused(provider, "for a statement: execute(…, idempotency_key=…)")
    return max(0, -changed)


def count_of(found: Row | Sequence[Any], now_asked: int, *, provider: str) -> int:
    """How many rows the statement changed that wrote a key.

    Args:
        found: what `Keys.find` gives.
        now_asked: what is asked this time, as `asked` has it.
        provider: its name, for the error.

    Raises:
        IdempotencyKeyReused: it was another statement, or had other parameters, or a transaction wrote it.
    """
    changed, known = int(found[0]), found[1]
    if changed < 0 or known == WORK:
        raise _reused(provider, "for a transaction: run_in_transaction(…, idempotency_key=…) or claim")
    if known is not None and known != now_asked:
        if (known - 1) >> OF_PARAMETERS != (now_asked - 1) >> OF_PARAMETERS:
            raise _reused(provider, "with another statement")
        raise _reused(
            provider,
            "with other parameters. If this is the same change, parameters that are computed anew each time (the time, "
            "a random id) are computed once, and kept with the key",
        )
    return changed


def _reused(provider: str, before: str) -> IdempotencyKeyReused:
    return IdempotencyKeyReused(
        f"{provider}: nothing was done: the idempotency key was used before {before}. A key names one change: make a "
        "new one for each, such as uuid.uuid4().hex, where the change is decided",
        provider=provider,
    )


def asked(key: str, sql: Any, parameters: Any) -> int:
    """What a call under a key asks for, as check digits (`datavern.engines.asked`): never `WORK`."""
    from datavern.engines.asked import digits  # noqa: PLC0415  (loaded when the first key is used)

    return digits(key, sql, parameters)


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
            sa.Column(ASKED, sa.Integer, info={"later": True}),
        )
        self.find = Statement(
            lambda: sa.select(table.c.changed, table.c.asked).where(table.c.key == sa.bindparam("of_key"))
        )
        self.insert = Statement(lambda: sa.insert(table).inline())
        self.insert_counted = Statement(self._insert_counted)
        self.count = Statement(
            lambda: sa.update(table).where(table.c.key == sa.bindparam("of_key")).values(changed=sa.bindparam("number"))
        )
        self.purge = Statement(self._purge)

    def _insert_counted(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        columns = self.table.c
        values: Any = [sa.bindparam(name, type_=columns[name].type) for name in ("key", "at", ASKED)]
        counted = sa.select(*values, sa.func.count()).select_from(sa.table(CHANGE))
        return sa.insert(self.table).from_select(["key", "at", ASKED, "changed"], counted).returning(columns.changed)

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

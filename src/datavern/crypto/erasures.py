"""Erasure in the key store: two steps, each one transaction, each safe to run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from datavern.contracts.capabilities import Provider, Transaction, needs
from datavern.contracts.errors import ConstraintViolated, SerializationConflict
from datavern.contracts.values import timestamp
from datavern.crypto.key_rows import DESTROYED, ERASING, Destroyed, handle_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.engine import Dialect

    from datavern.crypto.tables import StoreStatements

__all__ = ["ATTEMPTS", "Erasures", "contended"]

ATTEMPTS = 10

T = TypeVar("T")


def contended(provider: Provider) -> SerializationConflict:
    """The error for a race that was lost `ATTEMPTS` times."""
    return SerializationConflict("others change the same keys at this moment", provider=provider.name)


class Erasures:
    """What an erasure does to a subject's keys.

    Each step counts a change in the store's own row first: that row is what other processes watch, and what puts
    erasures in an order, so that nobody who has seen change n misses what belongs to it.

    Args:
        provider: the ledger database.
        dialect: its dialect.
        sql: the statements.
    """

    __slots__ = ("_dialect", "_provider", "_sql")

    def __init__(self, provider: Provider, dialect: Dialect, sql: StoreStatements) -> None:
        self._provider = provider
        self._dialect = dialect
        self._sql = sql

    async def start(self, tag: bytes) -> list[bytes]:
        """Close the subject's keys, and the making of new ones; the ids of the closed keys."""

        async def work(tx: Transaction) -> list[bytes]:
            if not await tx.execute(*self._sql.erase_handle.bind(self._dialect, tag=tag)):
                row = handle_row(tag, ERASING)  # so that nobody makes the subject's first key meanwhile
                await tx.execute(*self._sql.insert_handle.bind(self._dialect, **row))
            await tx.execute(*self._sql.erase_keys.bind(self._dialect, tag=tag))
            rows = await tx.query(*self._sql.keys_of.bind(self._dialect, tag=tag))
            return [row[0] for row in rows if row[2] == ERASING]

        return await self._step(work)

    async def destroy(self, tag: bytes) -> list[Destroyed]:
        """Destroy the closed keys, unlink the handle, leave a tombstone; every destroyed key of the subject."""
        moment = timestamp()

        async def work(tx: Transaction) -> list[Destroyed]:
            rows = await tx.query(*self._sql.keys_of.bind(self._dialect, tag=tag))
            going = [
                {"id": row[0], "gone": b"", "own_slot": row[0] + row[0], "moment": moment}
                for row in rows
                if row[2] == ERASING
            ]
            if going:
                await tx.execute_many(*self._sql.destroy_key.bind_many(self._dialect, going))
            unlinked = await tx.execute(*self._sql.delete_handle.bind(self._dialect, tag=tag))
            if unlinked or going:
                stone = {"tag": tag, "moment": moment}
                if not await tx.execute(*self._sql.renew_tombstone.bind(self._dialect, **stone)):
                    await tx.execute(*self._sql.insert_tombstone.bind(self._dialect, **stone))
            rows = await tx.query(*self._sql.keys_of.bind(self._dialect, tag=tag))
            return [Destroyed(row[0], row[1], row[3]) for row in rows if row[2] == DESTROYED]

        return await self._step(work)

    async def _step(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        for _ in range(ATTEMPTS):
            try:
                # Each statement sees what has committed by then, whatever the server's default is: keys that were
                # being made while this waited for them are closed too.
                async with needs(self._provider, "transactions").transaction(isolation="read committed") as tx:
                    await tx.execute(*self._sql.count_change.bind(self._dialect))
                    done = await work(tx)
            except (ConstraintViolated, SerializationConflict):
                continue  # somebody made the subject's first key, or its handle, at the same moment
            return done
        raise contended(self._provider)

"""Erasure in the key store: two steps, each one transaction, each safe to run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from datavern.contracts.capabilities import Provider, Transaction, needs
from datavern.contracts.errors import ConstraintViolated, SerializationConflict
from datavern.contracts.values import timestamp
from datavern.crypto.key_rows import DESTROYED, ERASING, Destroyed, handle_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from sqlalchemy.engine import Dialect

    from datavern.contracts.statements import Among
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

    async def start(self, tags: Collection[bytes], *, tx: Transaction | None = None) -> dict[bytes, list[bytes]]:
        """Close people's keys, and the making of new ones: tag → the ids of the closed keys.

        Args:
            tags: of the people.
            tx: an open transaction of the ledger, which is then the one to run again on a conflict.
        """
        wanted = sorted(tags)

        async def work(tx: Transaction) -> dict[bytes, list[bytes]]:
            # In the order of the tags: somebody who makes keys of several people is not met in the middle.
            known = [bytes(row[0]) for row in await self._all(tx, self._sql.handles_closing, wanted)]
            await self._each(tx, self._sql.erase_handles, known)
            there = frozenset(known)
            missing = [handle_row(tag, ERASING) for tag in wanted if tag not in there]
            if missing:  # so that nobody makes a person's first key meanwhile
                await tx.execute_many(*self._sql.insert_handle.bind_many(self._dialect, missing))
            await self._each(tx, self._sql.erase_keys, wanted)
            closed: dict[bytes, list[bytes]] = {tag: [] for tag in wanted}
            for row in await self._all(tx, self._sql.keys_of, wanted):
                if row[2] == ERASING:
                    closed[bytes(row[4])].append(row[0])
            return closed

        return await self._step(work, tx)

    async def destroy(self, tags: Collection[bytes], *, tx: Transaction | None = None) -> dict[bytes, list[Destroyed]]:
        """Destroy the closed keys, unlink the handles, leave tombstones: tag → every destroyed key of that person.

        Args: as `start`.
        """
        moment, wanted = timestamp(), sorted(tags)

        async def work(tx: Transaction) -> dict[bytes, list[Destroyed]]:
            rows = await self._all(tx, self._sql.keys_of, wanted)
            going = [
                {"id": row[0], "gone": b"", "own_slot": row[0] + row[0], "moment": moment}
                for row in rows
                if row[2] == ERASING
            ]
            if going:
                await tx.execute_many(*self._sql.destroy_key.bind_many(self._dialect, going))
            closed = {
                bytes(row[0]) for row in await self._all(tx, self._sql.handles_closing, wanted) if row[1] == ERASING
            }
            await self._each(tx, self._sql.delete_handles, sorted(closed))
            ended = sorted(closed | {bytes(row[4]) for row in rows if row[2] == ERASING})
            standing = {bytes(row[0]) for row in await self._all(tx, self._sql.tombstones, ended)}
            await self._each(tx, self._sql.renew_tombstones, sorted(standing), moment=moment)
            stones = [{"tag": tag, "moment": moment} for tag in ended if tag not in standing]
            if stones:
                await tx.execute_many(*self._sql.insert_tombstone.bind_many(self._dialect, stones))
            destroyed: dict[bytes, list[Destroyed]] = {tag: [] for tag in wanted}
            for row in rows:  # those of earlier erasures first, as the store orders them
                if row[2] in (DESTROYED, ERASING):
                    destroyed[bytes(row[4])].append(Destroyed(row[0], row[1], row[3] or moment))
            for found in destroyed.values():
                found.sort(key=lambda one: one.destroyed_at)
            return destroyed

        return await self._step(work, tx)

    async def _all(self, tx: Transaction, statement: Among, values: Sequence[bytes]) -> list[Any]:
        return [row for query in statement.bind(self._dialect, values) for row in await tx.query(*query)]

    async def _each(self, tx: Transaction, statement: Among, values: Sequence[bytes], **others: Any) -> None:
        for change in statement.bind(self._dialect, values, **others):
            await tx.execute(*change)

    async def _step(self, work: Callable[[Transaction], Awaitable[T]], tx: Transaction | None) -> T:
        if tx is not None:
            await tx.execute(*self._sql.count_change.bind(self._dialect))
            return await work(tx)
        for _ in range(ATTEMPTS):
            try:
                # Each statement sees what has committed by then, whatever the server's default is: keys that were
                # being made while this waited for them are closed too.
                async with needs(self._provider, "transactions").transaction(isolation="read committed") as own:
                    await own.execute(*self._sql.count_change.bind(self._dialect))
                    done = await work(own)
            except (ConstraintViolated, SerializationConflict):
                continue  # somebody made the subject's first key, or its handle, at the same moment
            return done
        raise contended(self._provider)

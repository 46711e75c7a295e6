"""A change with its audit entry, its idempotency key, its conditions: a transaction of a few statements.

T-SQL has no statement that changes two tables and tells how many rows of the first, so these go one after the other on
one connection. A key is written before the change that it names: of several calls at once the others wait for its
first, and find its count.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConstraintViolated, SerializationConflict
from datavern.contracts.fused import Entry, Guard, checked_key, entry_statement
from datavern.contracts.values import Parameters, timestamp
from datavern.engines import idempotency

if TYPE_CHECKING:
    from datavern.engines.azuresql.provider import AzureSQLProvider
    from datavern.engines.azuresql.transaction import AzureSQLTransaction

__all__ = ["AzureSQLGuarded", "Fusing"]


_IS_THERE: Final = f"SELECT COL_LENGTH(N'{idempotency.TABLE}', N'{idempotency.ASKED}')"
"""Nothing where the table is not there, or is an earlier version's."""


class Fusing:
    """What ``execute(…, audit=…, idempotency_key=…)`` is made of, on a provider and in its transactions."""

    __slots__ = ("_provider", "_ready", "_used")

    def __init__(self, provider: AzureSQLProvider) -> None:
        self._provider = provider
        self._ready = False
        self._used = 0

    async def execute(self, sql: str, parameters: Parameters, audit: Entry | None, key: str | None) -> int:
        """A change with what goes with it, in a transaction of its own; how many rows it changed."""
        provider = self._provider
        entry = None if audit is None else entry_statement(audit, provider.face)
        known = None if key is None else checked_key(key)
        if known is not None:
            await self.prepare_keys()
        async with provider.transaction() as tx:
            return await self._run(tx, sql, parameters, entry, known)

    async def inside(
        self, tx: AzureSQLTransaction, sql: str, parameters: Parameters, audit: Entry | None, key: str | None
    ) -> int:
        """The same in an open transaction, which goes on after a failure as if nothing had been run."""
        entry = None if audit is None else entry_statement(audit, self._provider.face)
        known = None if key is None else checked_key(key)
        if known is not None:
            await self._prepare_keys_inside(tx)
        async with tx.savepoint():
            return await self._run(tx, sql, parameters, entry, known)

    async def _run(
        self,
        tx: AzureSQLTransaction,
        sql: str,
        parameters: Parameters,
        entry: tuple[str, Sequence[Any]] | None,
        key: str | None,
    ) -> int:
        if key is not None:
            asked = idempotency.asked(key, sql, parameters)
            if (made := await self._found(tx, key, 0, asked)) is not None:
                return idempotency.count_of(made, asked, provider=self._provider.name)
        tx._audited = entry is not None  # noqa: SLF001  (one engine, here and below)
        try:
            count = await tx.execute(sql, parameters)
        finally:
            tx._audited = False  # noqa: SLF001
        if key is not None:
            dialect = self._provider._ledger.dialect  # noqa: SLF001
            await tx.execute(*idempotency.keys().count.bind(dialect, of_key=key, number=count))
        if entry is not None:
            await tx.execute(*entry)
        return count

    async def claim(self, tx: AzureSQLTransaction, key: str, mark: int) -> int | None:
        """Write a key in an open transaction; what is there under it, or None where it is new."""
        known = checked_key(key)
        await self._prepare_keys_inside(tx)
        found = await self._found(tx, known, idempotency.changed_of(mark), idempotency.WORK)
        return None if found is None else idempotency.mark_of(found, provider=self._provider.name)

    async def _found(self, tx: AzureSQLTransaction, key: str, number: int, asked: int) -> Sequence[Any] | None:
        """Write a key; what is there under it, or None where it is new."""
        dialect = self._provider._ledger.dialect  # noqa: SLF001  (one engine)
        keys = idempotency.keys()
        try:
            async with tx.savepoint():
                await tx.execute(*keys.insert.bind(dialect, key=key, at=timestamp(), changed=number, asked=asked))
        except ConstraintViolated:  # it was made, or was being made: the insert has waited for that
            found = await tx.query_one(*keys.find.bind(dialect, of_key=key))
            if found is None:
                name = self._provider.name
                raise SerializationConflict(f"{name}: the idempotency key went just now", provider=name) from None
            return tuple(found)
        return None

    async def _prepare_keys_inside(self, tx: AzureSQLTransaction) -> None:
        """Make the table in the caller's transaction, where it is not there: it may be rolled back with it."""
        if self._ready:
            return
        if await tx.query_value(_IS_THERE) is None:
            await self._provider._ledger.make_tables(tx, idempotency.keys().metadata)  # noqa: SLF001  (one engine)
            tx._made_keys = True  # noqa: SLF001  (one engine)
        elif not tx._made_keys:  # noqa: SLF001  (one engine)
            self._ready = True

    async def prepare_keys(self) -> None:
        """The table is there; and now and then, keys that are old are not."""
        if not self._ready:
            await self._provider._ledger.create_tables(idempotency.keys().metadata)  # noqa: SLF001  (one engine)
            self._ready = True
        if self._used % idempotency.EVERY == 0:
            await self._purge(idempotency.expired(idempotency.KEPT))
        self._used += 1

    async def purge(self, older_than: dt.timedelta) -> int:
        """Delete the keys that are older, a part at a time, so that nobody waits for long; how many."""
        before = idempotency.expired(older_than)
        if not self._ready:
            await self._provider._ledger.create_tables(idempotency.keys().metadata)  # noqa: SLF001  (one engine)
            self._ready = True
        gone = deleted = await self._purge(before)
        while deleted == idempotency.MOST:
            deleted = await self._purge(before)
            gone += deleted
        return gone

    async def _purge(self, before: str) -> int:
        dialect = self._provider._ledger.dialect  # noqa: SLF001  (one engine)
        purge = idempotency.keys().purge.bind(dialect, before=before, most=idempotency.MOST)
        return await self._provider.execute(*purge)


class AzureSQLGuarded:
    """`Guarded` on Azure SQL: guards, row and entry in one transaction.

    A guard that locks what it finds (FOR SHARE, here ``WITH (REPEATABLEREAD)``) waits for whoever changes it, reads
    what stands there then, and holds it until the transaction has ended.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: AzureSQLProvider) -> None:
        self._provider = provider

    async def insert(self, store: str, row: Mapping[str, Any], *, guards: Sequence[Guard], audit: Entry) -> bool:
        """See `datavern.contracts.fused.Guarded`."""
        provider = self._provider
        entry = entry_statement(audit, provider.face)
        insert = provider._subjects.insert_statement(store, row)  # noqa: SLF001  (one engine)
        async with provider.transaction() as tx:
            for sql, values in guards:
                if await tx.query_one(sql, list(values)) is None:
                    return False
            await tx.execute(*insert)
            await tx.execute(*entry)
        return True

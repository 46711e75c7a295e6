"""The key store, opened: its tables and its own row, and what of it is remembered for as long as the store said so."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.capabilities import Provider, Session, Transaction, needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated
from datavern.contracts.values import timestamp
from datavern.crypto.erasures import Erasures
from datavern.crypto.key_rows import DESTROYED, TAG_KEY
from datavern.crypto.keyed import keyed_hash
from datavern.crypto.keyring import Keyring
from datavern.crypto.lookup_keys import LookupKeys
from datavern.crypto.remembered import Remembered
from datavern.crypto.sealed import KEY, DataKey

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.crypto.tables import StoreStatements

__all__ = ["OpenStore"]

_VERSION: Final = 2

_NONE: Mapping[bytes, DataKey] = {}


class OpenStore:
    """What the parts of a `KeyStore` share.

    Args:
        keyring: open; it wraps and unwraps.
        provider: the ledger database, connected.
    """

    def __init__(self, keyring: Keyring, provider: Provider) -> None:
        self._keyring = keyring
        self._provider = provider
        self._sql: StoreStatements
        self._erasures: Erasures
        self._lookups: LookupKeys
        self._dialect: Dialect
        self._tag: Callable[[bytes], bytes]
        self._known = Remembered()

    # ---- opening -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the tables where they are missing, and the store where there is none. Idempotent, in any process.

        Raises:
            ConfigurationError: the store belongs to another key ring, one of the two is older than the other, or the
                store is damaged.
        """
        from datavern.crypto import tables  # noqa: PLC0415  (loads SQLAlchemy)

        ledger = needs(self._provider, "ledger")
        await ledger.create_tables(tables.key_store)
        self._dialect = ledger.dialect
        self._sql = tables.StoreStatements()
        self._erasures = Erasures(self._provider, self._dialect, self._sql)
        self._lookups = LookupKeys(self._keyring, self._provider, self._dialect, self._sql)
        select = self._sql.store.bind(self._dialect)
        row = await self._session().query_one(*select)
        if row is None:
            # With keys but without its own row it has lost what names the subjects: a new row would hide the loss.
            if await self._session().query_value(*self._sql.any_key.bind(self._dialect)) is None:
                await self._make()
            row = await self._session().query_one(*select)
        if row is None:
            raise ConfigurationError(
                f"the key store in {self._provider.name} is damaged: datavern_store is empty. Restore a backup of it"
            )
        self._known.forget()  # what was remembered before belongs to the changes that were known then
        version, ring, epoch, tag_key, self._known.changes = row
        await self._check(version, ring, epoch)
        self._tag = keyed_hash(await self._keyring.unwrap(tag_key, TAG_KEY), b"subject\x00")

    def close(self) -> None:
        """Drop every key that is in memory. Idempotent; what is asked for later is read anew."""
        self._known.forget()

    async def _check(self, version: int, ring: str, epoch: int) -> None:
        where = f"the key store in {self._provider.name}"
        keyring = self._keyring
        if version != _VERSION:
            newer = "install a later Datavern" if version > _VERSION else "it was made before the first release"
            raise ConfigurationError(f"{where} is of version {version}, and this Datavern knows {_VERSION}: {newer}")
        if ring != keyring.ring_id:
            raise ConfigurationError(
                f"{where} belongs to another key ring than {keyring.url}: "
                f"the store names {ring}, and the ring is {keyring.ring_id}"
            )
        if epoch > keyring.epoch:
            raise ConfigurationError(f"{keyring.url} is older than {where}: restore the latest copy of the keys")
        if epoch not in keyring.epochs:
            raise ConfigurationError(
                f"{where} is older than the last rotation: its keys of epoch {epoch} were destroyed. "
                "Restore a later backup of it"
            )
        if await self._session().query_value(*self._sql.lost_tombstone.bind(self._dialect)) is not None:
            raise ConfigurationError(
                f"{where} has lost tombstones: keys were destroyed after the last erasure that datavern_tombstones "
                "knows, so it was emptied, or is an older copy, and a restore of data would not erase again. Restore "
                "all tables of the key store together, from their latest backup"
            )
        from datavern.crypto.rotation_statements import RotationStatements  # noqa: PLC0415  (loads SQLAlchemy)

        rotations = RotationStatements().rotations.bind(self._dialect)
        for row in await self._session().query(*rotations):
            if row["destroyed_at"] is not None and row["previous"] in keyring.epochs:
                raise ConfigurationError(
                    f"{keyring.url} is an older copy: it holds the key of epoch {row['previous']}, which was destroyed "
                    f"{row['destroyed_at'][:10]}. Restore the latest copy of the keys, and destroy this one"
                )

    async def _make(self) -> None:
        wrapped = await self._keyring.wrap(os.urandom(KEY), TAG_KEY)
        row = {
            "id": 1,
            "version": _VERSION,
            "ring": self._keyring.ring_id,
            "epoch": self._keyring.epoch,
            "tag_key": wrapped,
            "changes": 0,
            "created_at": timestamp(),
        }
        epoch = {"epoch": row["epoch"], "created_at": row["created_at"]}
        with suppress(ConstraintViolated):  # another process made it at the same moment, and its row counts
            async with self._transaction() as tx:
                await tx.execute(*self._sql.insert_epoch.bind(self._dialect, **epoch))
                await tx.execute(*self._sql.insert_store.bind(self._dialect, **row))

    # ---- how its parts speak to it -----------------------------------------------------------------------------------

    def _session(self, session: Session | None = None) -> Session:
        if session is not None and session.provider is self._provider:
            return session
        return needs(self._provider, "session")

    def _own(self, session: Session | None) -> bool:
        return session is not None and session.provider is self._provider

    def _seen(self, session: Session | None, seen: int) -> int | None:
        """What is read or made in a caller's transaction is not remembered: it may yet be undone."""
        return None if self._own(session) else seen

    def _transaction(self, session: Session | None = None) -> AbstractAsyncContextManager[Any]:
        if session is not None and session.provider is self._provider:
            transaction: Transaction = session  # type: ignore[assignment]  # a session that is not a provider's is one
            return transaction.savepoint()
        return needs(self._provider, "transactions").transaction()

    def subject_tag(self, subject: str) -> bytes:
        """How the tables name a subject: a keyed hash of the canonical id, 32 bytes."""
        return self._tag(subject.encode())

    # ---- what is remembered ------------------------------------------------------------------------------------------

    async def _refresh(self, session: Session | None = None) -> None:
        """Ask whether there was an erasure, and forget what it touched: one small query while there was none."""
        asked, seen, speak = monotonic(), self._known.changes, self._session(session)
        changes: int = await speak.query_value(*self._sql.changes.bind(self._dialect)) or 0
        if changes < seen:  # an older store was restored: nothing that is remembered counts
            self._known.forget()
        elif changes > seen:
            keys = await speak.query(*self._sql.changed_keys.bind(self._dialect, seen=seen))
            subjects = await speak.query(*self._sql.changed_subjects.bind(self._dialect, seen=seen))
            self._known.drop(
                closed={row[0] for row in keys},
                destroyed={row[0] for row in keys if row[1] == DESTROYED},
                erased={row[0] for row in subjects},
            )
            self._known.renew(await self._lookups.states(speak))
            epoch: int = await speak.query_value(*self._sql.epoch.bind(self._dialect))
            if epoch > self._keyring.epoch:  # another process rotates
                await self._keyring.reload()
        if speak is not session:  # what an open transaction sees may be old, or its own and yet be undone
            self._known.answered(changes, asked)

    def warm(self, dataset: str, subject: str) -> DataKey | None:
        """The subject's key, when it is at hand: no I/O, the fast path of a write. None: ask `subject_key`."""
        known = self._known
        return known.of_subject.get((dataset, subject)) if monotonic() < known.fresh_until else None

    def warm_key(self, key_id: bytes) -> DataKey | None:
        """The key of that id, when it is at hand: no I/O, the fast path of a read. None: ask `keys`."""
        known = self._known
        return known.by_id.get(key_id) if monotonic() < known.fresh_until else None

    def warm_keys(self) -> Mapping[bytes, DataKey]:
        """Every key at hand, by id: to be used at once and not kept. Empty when the store is to be asked first."""
        known = self._known
        return known.by_id if monotonic() < known.fresh_until else _NONE

    async def heard(self, *, at_once: bool = False) -> None:
        """Hear of what other processes did to the keys, where the last answer is older than five seconds.

        Args:
            at_once: in any case.
        """
        if at_once:
            await self._refresh()
            if self._keyring.epoch < await self._session().query_value(*self._sql.epoch.bind(self._dialect)):
                await self._keyring.reload()
        elif self._known.stale:
            await self._refresh()

    async def _renew(self) -> None:
        """A row was refused: it may be that the epoch it was wrapped under is closed."""
        epoch: int = await self._session().query_value(*self._sql.epoch.bind(self._dialect)) or 0
        if epoch > self._keyring.epoch:
            await self._keyring.reload()

    @property
    def lookups_seen(self) -> int:
        """Counts the changes to lookup keys that this process has heard of: what was made of them is then made anew."""
        return self._known.renewed

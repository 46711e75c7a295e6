"""The key store: the keys of subjects, datasets and lookups, wrapped, in tables of the ledger database.

A subject has one random key in each dataset, made when the first value about the subject is sealed there, and destroyed
with the subject's erasure. Unwrapped keys are kept in memory for a while: at most `REMEMBERED` of them, and each is
served only while the store was asked within the last `FRESH` seconds whether there was an erasure.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from datavern.contracts.capabilities import Provider, Session, Transaction, needs
from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    DatavernError,
    KeyErased,
    KeyUnavailable,
    SerializationConflict,
)
from datavern.contracts.values import timestamp
from datavern.crypto.keyring import Keyring
from datavern.crypto.sealed import KEY, KEY_ID, DataKey, block, text_block

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.crypto.tables import StoreStatements

__all__ = ["DataKey", "Destroyed", "KeyStore"]

REMEMBERED: Final = 10_000
FRESH: Final = 5.0

_VERSION = 1
_ATTEMPTS = 10
_LIVING, _ERASING, _DESTROYED = "living", "erasing", "destroyed"

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Destroyed:
    """A key that is gone.

    Attributes:
        key_id: its id, which is never used again.
        dataset: where it was used.
        destroyed_at: RFC 3339, UTC.
    """

    key_id: bytes
    dataset: str
    destroyed_at: str


class KeyStore:
    """The wrapped keys of an organisation.

    Methods that take `session` may be given an open transaction of the ledger's own provider: what they read and write
    is then a part of it, and keys made there are not remembered, because it may still roll back. A transaction of
    another database is passed over. Where one writer is let in at a time, a caller that holds a transaction and does
    not hand it on would wait for itself.

    Args:
        keyring: open; it wraps and unwraps.
        provider: the ledger database, connected.
    """

    def __init__(self, keyring: Keyring, provider: Provider) -> None:
        self._keyring = keyring
        self._provider = provider
        self._sql: StoreStatements
        self._dialect: Dialect
        self._tag_key = b""
        self._changes = 0
        self._fresh_until = 0.0
        self._of_subject: dict[tuple[str, str], DataKey] = {}
        self._by_id: dict[bytes, DataKey] = {}
        self._of_dataset: dict[str, DataKey] = {}
        self._lookup_keys: dict[tuple[str, str], bytes] = {}
        self._handles: dict[str, tuple[bytes, str]] = {}

    # ---- opening ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the tables where they are missing, and the store where there is none. Idempotent, in any process.

        Raises:
            ConfigurationError: the store belongs to another key ring, or one of the two is older than the other.
        """
        from datavern.crypto import tables  # noqa: PLC0415  (loads SQLAlchemy)

        ledger = needs(self._provider, "ledger")
        await ledger.create_tables(tables.key_store)
        self._dialect = ledger.dialect
        self._sql = tables.StoreStatements()
        row = await self._session().query_one(*self._sql.store.bind(self._dialect))
        if row is None:
            await self._make()
            row = await self._session().query_one(*self._sql.store.bind(self._dialect))
        if row is None:
            raise KeyUnavailable(f"{self._provider.name}: the key store's own row is missing")
        version, ring, epoch, tag_key, self._changes = row
        self._check(version, ring, epoch)
        self._tag_key = await self._keyring.unwrap(tag_key, b"tag-key\x00")

    def _check(self, version: int, ring: str, epoch: int) -> None:
        where = f"the key store in {self._provider.name}"
        if version > _VERSION:
            raise ConfigurationError(f"{where} is of version {version}, and this Datavern knows {_VERSION}")
        if ring != self._keyring.ring_id:
            raise ConfigurationError(
                f"{where} belongs to another key ring than {self._keyring.url}: "
                f"the store names {ring}, and the ring is {self._keyring.ring_id}"
            )
        if epoch > self._keyring.epoch:
            raise ConfigurationError(f"{self._keyring.url} is older than {where}: restore the latest copy of the keys")
        if epoch not in self._keyring.epochs:
            raise ConfigurationError(
                f"{where} is older than the last rotation: its keys of epoch {epoch} were destroyed. "
                "Restore a later backup of it"
            )

    async def _make(self) -> None:
        wrapped = await self._keyring.wrap(os.urandom(KEY), b"tag-key\x00")
        row = {
            "id": 1,
            "version": _VERSION,
            "ring": self._keyring.ring_id,
            "epoch": self._keyring.epoch,
            "tag_key": wrapped,
            "changes": 0,
            "created_at": timestamp(),
        }
        with suppress(ConstraintViolated):  # another process made it at the same moment, and its row counts
            await self._session().execute(*self._sql.insert_store.bind(self._dialect, **row))

    def _session(self, session: Session | None = None) -> Session:
        if session is not None and session.provider is self._provider:
            return session
        return needs(self._provider, "session")

    def _own(self, session: Session | None) -> bool:
        return session is not None and session.provider is self._provider

    def _transaction(self, session: Session | None = None) -> AbstractAsyncContextManager[Any]:
        if session is not None and session.provider is self._provider:
            transaction: Transaction = session  # type: ignore[assignment]  # a session that is not a provider's is one
            return transaction.savepoint()
        return needs(self._provider, "transactions").transaction()

    # ---- names ------------------------------------------------------------------------------------------------------

    def subject_tag(self, subject: str) -> bytes:
        """How the tables name a subject: a keyed hash of the canonical id, 32 bytes."""
        return hmac.digest(self._tag_key, b"subject\x00" + subject.encode(), "sha256")

    async def handle(self, subject: str, *, create: bool = True, session: Session | None = None) -> str | None:
        """The random name of a subject in the audit log; unlinked when the subject is erased.

        Args:
            subject: canonical id.
            create: make one for a subject that has none.
            session: see the class.

        Returns:
            32 hexadecimal digits; None when there is none and none was to be made.
        """
        if monotonic() >= self._fresh_until:
            await self._refresh(session)
        remembered = self._handles.get(subject)
        if remembered is not None:
            return remembered[1]
        tag, seen = self.subject_tag(subject), self._changes
        for _ in range(_ATTEMPTS):
            handle: str | None = await self._session(session).query_value(
                *self._sql.handle.bind(self._dialect, tag=tag)
            )
            if handle is None and create:
                row = self._handle_row(tag)
                try:
                    async with self._transaction(session) as tx:
                        await tx.execute(*self._sql.insert_handle.bind(self._dialect, **row))
                except (ConstraintViolated, SerializationConflict):
                    continue
                handle = row["handle"]
            if handle is not None and not self._own(session):
                self._remember(self._handles, subject, (tag, handle), seen)
            return handle
        raise self._contended()

    @staticmethod
    def _handle_row(tag: bytes, state: str = _LIVING) -> dict[str, Any]:
        return {"subject_tag": tag, "handle": os.urandom(16).hex(), "state": state, "created_at": timestamp()}

    def _contended(self) -> DatavernError:
        return SerializationConflict("the key store changes faster than it can be read", provider=self._provider.name)

    # ---- what is remembered -----------------------------------------------------------------------------------------

    async def _refresh(self, session: Session | None = None) -> None:
        """Ask whether there was an erasure, and forget what it touched: one small query while there was none."""
        asked = monotonic()
        speak = self._session(session)
        changes = await speak.query_value(*self._sql.changes.bind(self._dialect))
        seen = self._changes
        if changes is None or changes < seen:  # an older store was restored: nothing that is remembered counts
            self._forget()
        elif changes > seen:
            keys = await speak.query(*self._sql.changed_keys.bind(self._dialect, seen=seen))
            subjects = await speak.query(*self._sql.changed_subjects.bind(self._dialect, seen=seen))
            not_living = {row[0] for row in keys}
            for row in keys:
                if row[2] == _DESTROYED:
                    self._by_id.pop(row[0], None)
            for name in [name for name, key in self._of_subject.items() if key.id in not_living]:
                del self._of_subject[name]
            erased = {row[0] for row in subjects}
            for subject in [subject for subject, (tag, _) in self._handles.items() if tag in erased]:
                del self._handles[subject]
        if not self._own(session):  # what an open transaction sees of its own may yet be undone
            self._changes = changes or 0
            self._fresh_until = asked + FRESH

    def _forget(self) -> None:
        for remembered in (self._of_subject, self._by_id, self._of_dataset, self._lookup_keys, self._handles):
            remembered.clear()

    def _remember(self, remembered: dict[Any, V], name: Any, value: V, seen: int) -> None:
        """Keep a value that was read when the store stood at `seen`, unless an erasure was noticed since."""
        if self._changes == seen:
            if len(remembered) >= REMEMBERED:
                del remembered[next(iter(remembered))]
            remembered[name] = value

    def warm(self, dataset: str, subject: str) -> DataKey | None:
        """The subject's key, when it is at hand: no I/O, the fast path of a write. None: ask `subject_key`."""
        return self._of_subject.get((dataset, subject)) if monotonic() < self._fresh_until else None

    def warm_key(self, key_id: bytes) -> DataKey | None:
        """The key of that id, when it is at hand: no I/O, the fast path of a read. None: ask `keys`."""
        return self._by_id.get(key_id) if monotonic() < self._fresh_until else None

    # ---- keys of subjects -------------------------------------------------------------------------------------------

    async def subject_key(self, dataset: str, subject: str, *, session: Session | None = None) -> DataKey:
        """The subject's key in a dataset. A new subject gets one, which is committed before it is returned.

        Raises:
            KeyErased: an erasure of the subject runs.
        """
        return (await self.subject_keys(dataset, (subject,), session=session))[subject]

    async def subject_keys(
        self, dataset: str, subjects: Iterable[str], *, session: Session | None = None
    ) -> dict[str, DataKey]:
        """The same for many subjects, in a few statements.

        Raises:
            KeyErased: an erasure of one of them runs. No key was made for the others.
        """
        if monotonic() >= self._fresh_until:
            await self._refresh(session)
        found: dict[str, DataKey] = {}
        wanted: dict[bytes, str] = {}  # tag → subject
        for subject in dict.fromkeys(subjects):
            key = self._of_subject.get((dataset, subject))
            if key is None:
                wanted[self.subject_tag(subject)] = subject
            else:
                found[subject] = key
        attempts = _ATTEMPTS
        while wanted:
            if not attempts:
                raise self._contended()
            attempts -= 1
            seen = self._changes
            for tag, key, state in await self._stored(dataset, list(wanted), session):
                if state != _LIVING:
                    raise KeyErased(f"an erasure of the subject runs: {dataset} takes nothing about it meanwhile")
                self._found(found, wanted, tag, key, None if self._own(session) else seen)
            if wanted:
                made = await self._create(dataset, list(wanted), session)
                for tag, key in made.items():
                    self._found(found, wanted, tag, key, None if self._own(session) else seen)
        return found

    def _found(
        self, found: dict[str, DataKey], wanted: dict[bytes, str], tag: bytes, key: DataKey, seen: int | None
    ) -> None:
        subject = wanted.pop(tag)
        found[subject] = key
        if seen is not None:
            self._remember(self._of_subject, (key.dataset, subject), key, seen)
            self._remember(self._by_id, key.id, key, seen)

    async def find_subject_key(self, dataset: str, subject: str, *, session: Session | None = None) -> DataKey | None:
        """The subject's key in a dataset, or None: it makes none. While an erasure runs the key is still found."""
        if monotonic() >= self._fresh_until:
            await self._refresh(session)
        key = self._of_subject.get((dataset, subject))
        if key is None:
            seen = self._changes
            for _, key, state in await self._stored(dataset, [self.subject_tag(subject)], session):
                if state == _LIVING and not self._own(session):
                    self._remember(self._of_subject, (dataset, subject), key, seen)
                return key
        return key

    async def _stored(
        self, dataset: str, tags: Sequence[bytes | None], session: Session | None
    ) -> list[tuple[bytes, DataKey, str]]:
        """Tag, key and state of those subjects' keys that are in the store (a tag of None: the dataset's own)."""
        speak = self._session(session)
        stored = []
        for statement in self._sql.keys_in_slots.bind(self._dialect, [_slot(dataset, tag) for tag in tags]):
            for key_id, tag, state, wrapped in await speak.query(*statement):
                stored.append((tag, await self._unwrap(key_id, dataset, tag, wrapped), state))
        return stored

    async def _create(self, dataset: str, tags: list[bytes], session: Session | None) -> dict[bytes, DataKey]:
        """New keys for subjects that have none; nothing when somebody else was quicker with one of them."""
        rows = [await self._key_row(dataset, tag) for tag in tags]
        rows.sort(key=lambda made: made[1]["slot"])  # two processes that make the same keys do not wait in a circle
        try:
            async with self._transaction(session) as tx:
                known = {}
                for statement in self._sql.handles_held.bind(self._dialect, sorted(tags)):
                    known.update({tag: (handle, state) for tag, handle, state in await tx.query(*statement)})
                if any(state != _LIVING for _, state in known.values()):
                    raise KeyErased(f"an erasure of the subject runs: {dataset} takes nothing about it meanwhile")
                handles = [self._handle_row(tag) for tag in sorted(tags) if tag not in known]
                if handles:
                    await tx.execute_many(*self._sql.insert_handle.bind_many(self._dialect, handles))
                await tx.execute_many(*self._sql.insert_key.bind_many(self._dialect, [row for _, row in rows]))
        except ConstraintViolated:
            return {}
        except SerializationConflict:
            if self._own(session):
                raise  # the caller's transaction is the one to run again
            return {}
        return {row["subject_tag"]: key for key, row in rows}

    async def _key_row(self, dataset: str, tag: bytes | None) -> tuple[DataKey, dict[str, Any]]:
        key_id, raw = os.urandom(KEY_ID), os.urandom(KEY)
        row = {
            "key_id": key_id,
            "slot": _slot(dataset, tag),
            "dataset": dataset,
            "subject_tag": tag,
            "state": _LIVING,
            "wrapped": await self._keyring.wrap(raw, _context(dataset, tag, key_id)),
            "epoch": self._keyring.epoch,
            "changed": 0,
            "created_at": timestamp(),
            "destroyed_at": None,
        }
        return DataKey(key_id, dataset, tag, raw), row

    async def _unwrap(self, key_id: bytes, dataset: str, tag: bytes | None, wrapped: bytes) -> DataKey:
        return DataKey(key_id, dataset, tag, await self._keyring.unwrap(wrapped, _context(dataset, tag, key_id)))

    # ---- keys by id, of datasets and of lookups ---------------------------------------------------------------------

    async def keys(self, key_ids: Iterable[bytes], *, session: Session | None = None) -> dict[bytes, DataKey]:
        """The keys of those ids, for opening what was sealed under them; one query for all that are not at hand.

        Raises:
            KeyErased: one was destroyed with its subject's erasure.
            KeyUnavailable: the store does not know one, or the ring does not hold the epoch it is wrapped under.
            DecryptionFailed: the store was changed: a wrapped key is not the one of its row.
        """
        if monotonic() >= self._fresh_until:
            await self._refresh(session)
        found: dict[bytes, DataKey] = {}
        missing = []
        for key_id in key_ids:
            key = self._by_id.get(key_id)
            if key is None:
                missing.append(key_id)
            else:
                found[key_id] = key
        if not missing:
            return found
        seen, speak = self._changes, self._session(session)
        for statement in self._sql.keys_by_id.bind(self._dialect, missing):
            for key_id, dataset, tag, state, wrapped in await speak.query(*statement):
                if state == _DESTROYED:
                    raise KeyErased("the subject was erased, and the key with it: nobody can open this value again")
                found[key_id] = key = await self._unwrap(key_id, dataset, tag, wrapped)
                if not self._own(session):
                    self._remember(self._by_id, key_id, key, seen)
        if len(found) < len(set(missing)) or any(key_id not in found for key_id in missing):
            raise KeyUnavailable(f"the key store in {self._provider.name} does not know the key of a sealed value")
        return found

    async def dataset_key(self, dataset: str) -> DataKey:
        """The key for what belongs to no subject of the dataset (XAES-256-GCM). Made when it is first asked for."""
        if monotonic() >= self._fresh_until:
            await self._refresh()
        key = self._of_dataset.get(dataset)
        for _ in range(_ATTEMPTS):
            if key is not None:
                return key
            seen = self._changes
            stored = await self._stored(dataset, [None], None)
            if stored:
                key = stored[0][1]
            else:
                made, row = await self._key_row(dataset, None)
                try:
                    await self._session().execute(*self._sql.insert_key.bind(self._dialect, **row))
                except ConstraintViolated:
                    continue
                key = made
            self._remember(self._of_dataset, dataset, key, seen)
        raise self._contended()

    async def lookup_key(self, dataset: str, field: str) -> bytes:
        """The key of a field's lookup index, 32 bytes. Made when it is first asked for, so ask before a transaction."""
        name = (dataset, field)
        if monotonic() >= self._fresh_until:
            await self._refresh()
        key = self._lookup_keys.get(name)
        if key is not None:
            return key
        context = b"lookup-key\x00" + text_block(dataset) + text_block(field)
        seen = self._changes
        for _ in range(_ATTEMPTS):
            select = self._sql.lookup_key.bind(self._dialect, in_dataset=dataset, of_field=field)
            wrapped = await self._session().query_value(*select)
            if wrapped is not None:
                key = await self._keyring.unwrap(wrapped, context)
            else:
                key = os.urandom(KEY)
                row = {
                    "dataset": dataset,
                    "field": field,
                    "wrapped": await self._keyring.wrap(key, context),
                    "epoch": self._keyring.epoch,
                    "created_at": timestamp(),
                }
                try:
                    await self._session().execute(*self._sql.insert_lookup_key.bind(self._dialect, **row))
                except ConstraintViolated:
                    continue
            self._remember(self._lookup_keys, name, key, seen)
            return key
        raise self._contended()

    # ---- erasure ----------------------------------------------------------------------------------------------------

    async def start_erasure(self, subject: str) -> list[bytes]:
        """Refuse new values about the subject from here on, in every process. Idempotent.

        A process that has the key at hand may go on for up to five seconds; `KeyLife.end` is what stops its writes.

        Returns:
            The ids of the keys that the erasure is to destroy.
        """
        tag = self.subject_tag(subject)
        for _ in range(_ATTEMPTS):
            try:
                async with self._transaction() as tx:
                    await tx.execute(*self._sql.count_change.bind(self._dialect))
                    if not await tx.execute(*self._sql.erase_handle.bind(self._dialect, tag=tag)):
                        row = self._handle_row(tag, _ERASING)  # so that nobody makes the subject's first key meanwhile
                        await tx.execute(*self._sql.insert_handle.bind(self._dialect, **row))
                    await tx.execute(*self._sql.erase_keys.bind(self._dialect, tag=tag))
                    rows = await tx.query(*self._sql.keys_of.bind(self._dialect, tag=tag))
            except (ConstraintViolated, SerializationConflict):
                continue
            self._fresh_until = 0.0
            return [row[0] for row in rows if row[2] == _ERASING]
        raise self._contended()

    async def destroy(self, subject: str) -> list[Destroyed]:
        """Destroy the keys that `start_erasure` named, unlink the handle, and leave a tombstone. Idempotent.

        A person who returns gets new keys and a new handle; those are not touched until another erasure starts.

        Returns:
            Every key of the subject that is destroyed, those of earlier erasures included.
        """
        tag, moment = self.subject_tag(subject), timestamp()
        for _ in range(_ATTEMPTS):
            try:
                async with self._transaction() as tx:
                    await tx.execute(*self._sql.count_change.bind(self._dialect))
                    rows = await tx.query(*self._sql.keys_of.bind(self._dialect, tag=tag))
                    going = [
                        {"id": row[0], "gone": b"", "own_slot": row[0] + row[0], "moment": moment}
                        for row in rows
                        if row[2] == _ERASING
                    ]
                    if going:
                        await tx.execute_many(*self._sql.destroy_key.bind_many(self._dialect, going))
                    unlinked = await tx.execute(*self._sql.delete_handle.bind(self._dialect, tag=tag))
                    if unlinked or going:
                        stone = {"tag": tag, "moment": moment}
                        if not await tx.execute(*self._sql.renew_tombstone.bind(self._dialect, **stone)):
                            await tx.execute(*self._sql.insert_tombstone.bind(self._dialect, **stone))
                    rows = await tx.query(*self._sql.keys_of.bind(self._dialect, tag=tag))
            except (ConstraintViolated, SerializationConflict):
                continue
            self._fresh_until = 0.0
            self._handles.pop(subject, None)
            return [Destroyed(row[0], row[1], row[3]) for row in rows if row[2] == _DESTROYED]
        raise self._contended()

    async def erased(self, subject: str) -> bool:
        """Whether the subject was ever erased: a tombstone stands until the oldest backup from before has expired."""
        tag = self.subject_tag(subject)
        return await self._session().query_value(*self._sql.tombstone.bind(self._dialect, tag=tag)) is not None


def _slot(dataset: str, tag: bytes | None) -> bytes:
    return sha256(b"slot\x00" + text_block(dataset) + block(tag or b"")).digest()


def _context(dataset: str, tag: bytes | None, key_id: bytes) -> bytes:
    return b"data-key\x00" + text_block(dataset) + block(tag or b"") + key_id

"""The key store: the keys of subjects, datasets and lookups, wrapped, in tables of the ledger database.

A subject has one random key in each dataset, made when the first value about the subject is sealed there, and destroyed
with the subject's erasure. Unwrapped keys are kept in memory (`remembered`) and are used only while the store was
asked within the last five seconds whether there was an erasure.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import Provider, Session, Transaction, needs
from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    KeyErased,
    KeyUnavailable,
    SerializationConflict,
)
from datavern.contracts.values import timestamp
from datavern.crypto.erasures import ATTEMPTS, Erasures, contended
from datavern.crypto.key_rows import (
    DESTROYED,
    LIVING,
    TAG_KEY,
    Destroyed,
    derived,
    handle_row,
    new_key,
    slot,
    unwrap,
)
from datavern.crypto.keyring import Keyring
from datavern.crypto.lookup_keys import LookupKey, LookupKeys
from datavern.crypto.remembered import FRESH, Remembered
from datavern.crypto.sealed import KEY, DataKey
from datavern.crypto.unguarded import Unguarded

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.crypto.tables import StoreStatements

__all__ = ["DataKey", "Destroyed", "KeyStore"]

_VERSION = 2

_NONE: Mapping[bytes, DataKey] = {}


class KeyStore:
    """The wrapped keys of an organisation.

    Methods that take `session` may be given an open transaction of the ledger's own provider: what they read and write
    is then a part of it, and keys made there are not remembered, because it may still roll back. A transaction of
    another database is passed over. Where one writer is let in at a time, a caller that holds a transaction and does
    not hand it on would wait for itself.

    Args:
        keyring: open; it wraps and unwraps.
        provider: the ledger database, connected.

    Attributes:
        unguarded: keys for writes to engines without transactions of Datavern's own.
    """

    def __init__(self, keyring: Keyring, provider: Provider) -> None:
        self._keyring = keyring
        self._provider = provider
        self._sql: StoreStatements
        self._erasures: Erasures
        self._lookups: LookupKeys
        self._dialect: Dialect
        self._tag_key = b""
        self._known = Remembered()
        self._rotator: Any = None
        self.unguarded = Unguarded(self)

    # ---- opening ----------------------------------------------------------------------------------------------------

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
        self._tag_key = await self._keyring.unwrap(tag_key, TAG_KEY)

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
        from datavern.crypto.tables import RotationStatements  # noqa: PLC0415  (loaded by now)

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
        if self._known.stale:
            await self._refresh(session)
        remembered = self._known.handles.get(subject)
        if remembered is not None:
            return remembered[1]
        tag, seen = self.subject_tag(subject), self._known.changes
        for _ in range(ATTEMPTS):
            handle: str | None = await self._session(session).query_value(
                *self._sql.handle.bind(self._dialect, tag=tag)
            )
            if handle is None and create:
                row = handle_row(tag)
                try:
                    async with self._transaction(session) as tx:
                        await tx.execute(*self._sql.insert_handle.bind(self._dialect, **row))
                except (ConstraintViolated, SerializationConflict):
                    continue
                handle = row["handle"]
            if handle is not None:
                self._known.keep(self._known.handles, subject, (tag, handle), self._seen(session, seen))
            return handle
        raise contended(self._provider)

    async def tags(self, handles: Iterable[str]) -> set[bytes]:
        """The tags of the people whom the audit log names by these handles; of those who were erased there is none."""
        found: set[bytes] = set()
        wanted = list(dict.fromkeys(handles))
        for statement in self._sql.tags_of_handles.bind(self._dialect, wanted):
            found.update(bytes(row[0]) for row in await self._session().query(*statement))
        return found

    def known_handle(self, subject: object) -> str | None:
        """The handle, where it is at hand and nothing has to be asked for it; what is no canonical id has none."""
        known = self._known
        if type(subject) is not str or monotonic() >= known.fresh_until:
            return None
        remembered = known.handles.get(subject)
        return None if remembered is None else remembered[1]

    async def hold_handle(self, subject: str, *, session: Session) -> str:
        """The handle, made where there is none, and held: an erasure of the subject starts before this, or waits.

        For what is kept under the handle beside the subject's tag: an erasure finds it, or it is not written. What is
        at hand in memory may be the handle of somebody who was erased a moment ago, and is not asked.

        Args:
            subject: canonical id.
            session: an open transaction of the ledger's own provider; the handle is held until it ends.

        Raises:
            KeyErased: an erasure of the subject runs.
        """
        tag = self.subject_tag(subject)
        for _ in range(ATTEMPTS):
            for statement in self._sql.handles_held.bind(self._dialect, (tag,)):
                for _, handle, state in await session.query(*statement):
                    if state != LIVING:
                        raise KeyErased("an erasure of the subject runs: nothing is recorded about it meanwhile")
                    return str(handle)
            row = handle_row(tag)
            try:
                async with self._transaction(session) as tx:
                    await tx.execute(*self._sql.insert_handle.bind(self._dialect, **row))
            except ConstraintViolated:
                continue  # somebody else made it, or an erasure closed it, just now
            return str(row["handle"])
        raise contended(self._provider)

    # ---- what is remembered -----------------------------------------------------------------------------------------

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
            self._known.changes = changes
            self._known.fresh_until = asked + FRESH

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
        if self._known.stale:
            await self._refresh(session)
        found: dict[str, DataKey] = {}
        wanted: dict[bytes, str] = {}  # tag → subject
        for subject in dict.fromkeys(subjects):
            key = self._known.of_subject.get((dataset, subject))
            if key is None:
                wanted[self.subject_tag(subject)] = subject
            else:
                found[subject] = key
        attempts = ATTEMPTS
        while wanted:
            if not attempts:
                raise contended(self._provider)
            attempts -= 1
            seen = self._known.changes
            for tag, key, state in await self._stored(dataset, list(wanted), session):
                if state != LIVING:
                    raise KeyErased(f"an erasure of the subject runs: {dataset} takes nothing about it meanwhile")
                self._found(found, wanted, tag, key, self._seen(session, seen))
            if wanted:
                made = await self._create(dataset, list(wanted), session)
                for tag, key in made.items():
                    self._found(found, wanted, tag, key, self._seen(session, seen))
        return found

    def _found(
        self, found: dict[str, DataKey], wanted: dict[bytes, str], tag: bytes, key: DataKey, seen: int | None
    ) -> None:
        subject = wanted.pop(tag)
        found[subject] = key
        self._known.keep(self._known.of_subject, (key.dataset, subject), key, seen)
        self._known.keep(self._known.by_id, key.id, key, seen)

    async def find_subject_key(self, dataset: str, subject: str, *, session: Session | None = None) -> DataKey | None:
        """The subject's key in a dataset, or None: it makes none. While an erasure runs the key is still found."""
        if self._known.stale:
            await self._refresh(session)
        key = self._known.of_subject.get((dataset, subject))
        if key is None:
            seen = self._known.changes
            for _, key, state in await self._stored(dataset, [self.subject_tag(subject)], session):
                if state == LIVING:
                    self._known.keep(self._known.of_subject, (dataset, subject), key, self._seen(session, seen))
                return key
        return key

    async def _stored(
        self, dataset: str, tags: Sequence[bytes | None], session: Session | None
    ) -> list[tuple[bytes, DataKey, str]]:
        """Tag, key and state of those subjects' keys that are in the store (a tag of None: the dataset's own)."""
        speak = self._session(session)
        stored = []
        for statement in self._sql.keys_in_slots.bind(self._dialect, [slot(dataset, tag) for tag in tags]):
            for key_id, tag, state, wrapped in await speak.query(*statement):
                stored.append((tag, await unwrap(self._keyring, dataset, tag, key_id, wrapped), state))
        return stored

    async def _create(self, dataset: str, tags: list[bytes], session: Session | None) -> dict[bytes, DataKey]:
        """New keys for subjects that have none; nothing when somebody else was quicker with one of them."""
        rows = [await new_key(self._keyring, dataset, tag) for tag in tags]
        rows.sort(key=lambda made: made[1]["slot"])  # two processes that make the same keys do not wait in a circle
        try:
            async with self._transaction(session) as tx:
                known = {}
                for statement in self._sql.handles_held.bind(self._dialect, sorted(tags)):
                    known.update({tag: (handle, state) for tag, handle, state in await tx.query(*statement)})
                if any(state != LIVING for _, state in known.values()):
                    raise KeyErased(f"an erasure of the subject runs: {dataset} takes nothing about it meanwhile")
                handles = [handle_row(tag) for tag in sorted(tags) if tag not in known]
                if handles:
                    await tx.execute_many(*self._sql.insert_handle.bind_many(self._dialect, handles))
                await tx.execute_many(*self._sql.insert_key.bind_many(self._dialect, [row for _, row in rows]))
        except ConstraintViolated:  # or the epoch was closed by a rotation that this process has not heard of
            await self._renew()
            return {}
        except SerializationConflict:
            if self._own(session):
                raise  # the caller's transaction is the one to run again
            return {}
        return {row["subject_tag"]: key for key, row in rows}

    # ---- keys by id, of datasets and of lookups ---------------------------------------------------------------------

    async def keys(self, key_ids: Iterable[bytes], *, session: Session | None = None) -> dict[bytes, DataKey]:
        """The keys of those ids, for opening what was sealed under them; one query for all that are not at hand.

        Raises:
            KeyErased: one was destroyed with its subject's erasure.
            KeyUnavailable: the store does not know one, or the ring does not hold the epoch it is wrapped under.
            DecryptionFailed: the store was changed: a wrapped key is not the one of its row.
        """
        if self._known.stale:
            await self._refresh(session)
        found: dict[bytes, DataKey] = {}
        missing = []
        for key_id in key_ids:
            key = self._known.by_id.get(key_id)
            if key is None:
                missing.append(key_id)
            else:
                found[key_id] = key
        if not missing:
            return found
        seen, speak = self._known.changes, self._session(session)
        for statement in self._sql.keys_by_id.bind(self._dialect, missing):
            for key_id, dataset, tag, state, wrapped in await speak.query(*statement):
                if state == DESTROYED:
                    raise KeyErased("the subject was erased, and the key with it: nobody can open this value again")
                found[key_id] = key = await unwrap(self._keyring, dataset, tag, key_id, wrapped)
                self._known.keep(self._known.by_id, key_id, key, self._seen(session, seen))
        if len(found) < len(set(missing)) or any(key_id not in found for key_id in missing):
            raise KeyUnavailable(f"the key store in {self._provider.name} does not know the key of a sealed value")
        return found

    async def derived(self, key_ids: Iterable[bytes], purpose: str, length: int) -> dict[bytes, bytes]:
        """Bytes for a cipher that is not ours, drawn from the keys of those ids; nothing of them is remembered here.

        Args:
            key_ids: of living keys, or of keys whose subject is being erased.
            purpose: what they are for; other purposes get other bytes.
            length: how many, up to 16,320.

        Raises:
            KeyErased, KeyUnavailable, DecryptionFailed: as `keys`.
        """
        wanted, found = dict.fromkeys(key_ids), {}
        for statement in self._sql.keys_by_id.bind(self._dialect, list(wanted)):
            for key_id, dataset, tag, state, wrapped in await self._session().query(*statement):
                if state == DESTROYED:
                    raise KeyErased("the subject was erased, and the key with it: nobody can open this value again")
                found[key_id] = await derived(
                    self._keyring, dataset, tag, key_id, wrapped, purpose=purpose, length=length
                )
        if len(found) < len(wanted):
            raise KeyUnavailable(f"the key store in {self._provider.name} does not know the key of a sealed value")
        return found

    async def dataset_key(self, dataset: str) -> DataKey:
        """The key for what belongs to no subject of the dataset (XAES-256-GCM). Made when it is first asked for."""
        if self._known.stale:
            await self._refresh()
        key = self._known.of_dataset.get(dataset)
        for _ in range(ATTEMPTS):
            if key is not None:
                return key
            seen = self._known.changes
            stored = await self._stored(dataset, [None], None)
            if stored:
                key = stored[0][1]
            else:
                made, row = await new_key(self._keyring, dataset, None)
                try:
                    await self._session().execute(*self._sql.insert_key.bind(self._dialect, **row))
                except ConstraintViolated:
                    await self._renew()
                    continue
                key = made
            self._known.keep(self._known.of_dataset, dataset, key, seen)
        raise contended(self._provider)

    async def lookup_key(self, dataset: str, field: str) -> bytes:
        """The key of a field's lookup index, 32 bytes. Made when it is first asked for, so ask before a transaction.

        Where a rotation may run, `lookup_keys` says which others there are.
        """
        return (await self.lookup_keys(dataset, field)).key

    async def lookup_keys(self, dataset: str, field: str) -> LookupKey:
        """The keys of a field's lookup index: one, and while a rotation makes the indexes anew two."""
        name = (dataset, field)
        if self._known.stale:
            await self._refresh()
        key = self._known.lookup_keys.get(name)
        if key is None:
            seen = self._known.changes
            key = await self._lookups.of(self._session(), dataset, field)
            self._known.keep(self._known.lookup_keys, name, key, seen)
        return key

    async def lookup_states(self) -> dict[tuple[str, str], frozenset[tuple[bytes, str]]]:
        """Dataset and field → the ids of the field's lookup keys, and what each is, as the store has them now."""
        return await self._lookups.states(self._session())

    @property
    def lookups_seen(self) -> int:
        """Counts the changes to lookup keys that this process has heard of: what was made of them is then made anew."""
        return self._known.renewed

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

    # ---- rotation ---------------------------------------------------------------------------------------------------

    @property
    def rotator(self) -> Any:
        """What rotates these keys (`datavern.privacy.rotation.Rotator`): a manager's, since it reaches every dataset.

        Raises:
            ConfigurationError: the store belongs to no manager.
        """
        if self._rotator is None:
            raise ConfigurationError("keys are rotated by the manager that reaches every dataset: db.keys.rotate()")
        return self._rotator

    @rotator.setter
    def rotator(self, rotator: Any) -> None:
        self._rotator = rotator

    async def rotate(self, **settings: Any) -> Any:
        """Wrap every living key under a new epoch key, make every lookup index anew, and destroy the old epoch key.

        It runs beside the service, in batches; no writer waits for it. What was cut off, by a crash or because
        something could not be reached, goes on from where it was when it is called again. Of two at once one goes on.

        Args:
            copy: where the copy of the key store goes that is read back before the old key is destroyed: a folder, or
                a `datavern.privacy.rotation.Saved`; the manager's ``key_copies`` when left out.
            patience: seconds to wait for replicas.
            progress: called with "keys" or "rows" and how many more are done.

        Returns:
            The `datavern.crypto.rotations.Rotation`. Its ``state`` is "done", or "purge" while a vault still keeps the
            old key.

        Raises:
            RotationIncomplete: another process is at it; or something it has to wait for: `reasons` says what.
            ConfigurationError: the ring cannot destroy keys, or nobody said where the copy goes.
            KeyUnavailable: the vault did not answer.
        """
        return await self.rotator.rotate(**settings)

    async def status(self) -> Any:
        """How the keys stand, and until when a rotation is due (`datavern.privacy.rotation.KeyStatus`)."""
        return await self.rotator.status()

    async def verify(self, **settings: Any) -> list[str]:
        """Unwrap every key of the store: what does not unwrap, one line each; empty when all is well."""
        problems: list[str] = await self.rotator.verify(**settings)
        return problems

    async def export_recovery(self, *, threshold: int, shares: int) -> Any:
        """Seal a copy of the key ring for several people, of whom `threshold` together can open it.

        The store remembers that there is one: an erasure is not called shredded while its keys could be brought back.

        Args:
            threshold: how many are needed, 2 at the least.
            shares: how many people get one, 16 at the most.

        Returns:
            A `datavern.crypto.recovery.Export`: its file, to be kept, and a share for each person, to be handed out and
            kept nowhere else. `datavern.crypto.recovery.combine` and `Keyring.restore` make a ring of them.

        Raises:
            ConfigurationError: numbers that make no sense, or the library is not installed.
        """
        return await self.rotator.export_recovery(threshold=threshold, shares=shares)

    async def end_recovery(self, id_: str) -> None:
        """Write down that a recovery's file, or enough of its shares, were destroyed: whoever acts answers for it.

        Args:
            id_: its name.

        Raises:
            ConfigurationError: there is none of that name.
        """
        await self.rotator.end_recovery(id_)

    # ---- erasure ----------------------------------------------------------------------------------------------------

    async def start_erasure(self, subject: str) -> list[bytes]:
        """Refuse new values about the subject from here on, in every process. Idempotent.

        A process that has the key at hand may read on for up to five seconds. `KeyLife.end` is what stops its writes;
        where an engine has nothing of the kind, `Unguarded` bounds them.

        Returns:
            The ids of the keys that the erasure is to destroy.
        """
        closed = await self.start_erasures((subject,))
        self.heard_of_erasures()
        return closed[subject]

    async def start_erasures(
        self, subjects: Collection[str], *, session: Transaction | None = None
    ) -> dict[str, list[bytes]]:
        """The same for many people, in one transaction: subject → the ids of the closed keys.

        Args:
            subjects: canonical ids.
            session: an open transaction of the ledger's own provider, at read committed; once it has committed,
                `heard_of_erasures` is to be called.

        Raises:
            ConstraintViolated: in a transaction that was given: somebody makes a key of one of them at this moment. It
                is to be run again, as after a `SerializationConflict`.
        """
        tags = {self.subject_tag(subject): subject for subject in subjects}
        closed = await self._erasures.start(tags, tx=session)
        return {tags[tag]: key_ids for tag, key_ids in closed.items()}

    async def destroy(self, subject: str) -> list[Destroyed]:
        """Destroy the keys that `start_erasure` named, unlink the handle, and leave a tombstone. Idempotent.

        A person who returns gets new keys and a new handle; those are not touched until another erasure starts.

        Returns:
            Every key of the subject that is destroyed, those of earlier erasures included.
        """
        destroyed = (await self.destroy_keys((subject,)))[subject]
        self.heard_of_erasures({subject: [one.key_id for one in destroyed]})
        return destroyed

    async def destroy_keys(
        self, subjects: Collection[str], *, session: Transaction | None = None
    ) -> dict[str, list[Destroyed]]:
        """The same for many people, in one transaction; args and errors as `start_erasures`."""
        tags = {self.subject_tag(subject): subject for subject in subjects}
        destroyed = await self._erasures.destroy(tags, tx=session)
        return {tags[tag]: found for tag, found in destroyed.items()}

    def heard_of_erasures(self, destroyed: Mapping[str, Sequence[bytes]] = MappingProxyType({})) -> None:
        """Use nothing that is remembered before the store was asked again, and forget what was destroyed: no I/O.

        Args:
            destroyed: subject → the ids of its destroyed keys.
        """
        gone = frozenset(key_id for key_ids in destroyed.values() for key_id in key_ids)
        if destroyed:
            tags = frozenset(map(self.subject_tag, destroyed))
            self._known.drop(closed=gone, destroyed=gone, erased=tags)
        self._known.fresh_until = 0.0

    async def erased(self, subject: str) -> bool:
        """Whether the subject was ever erased: a tombstone stands until the oldest backup from before has expired."""
        tag = self.subject_tag(subject)
        return await self._session().query_value(*self._sql.tombstone.bind(self._dialect, tag=tag)) is not None

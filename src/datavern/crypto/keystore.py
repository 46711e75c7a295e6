"""The key store: the keys of subjects, datasets and lookups, wrapped, in tables of the ledger database.

A subject has one random key in each dataset, made when the first value about the subject is sealed there, and destroyed
with the subject's erasure. Unwrapped keys are kept in memory (`remembered`) and are used only while the store was
asked within the last five seconds whether there was an erasure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from datavern.contracts.capabilities import Provider, Session, Transaction
from datavern.contracts.errors import ConstraintViolated, KeyErased, KeyUnavailable, SerializationConflict
from datavern.crypto.erasures import ATTEMPTS, contended
from datavern.crypto.handles import Handles
from datavern.crypto.key_rows import DESTROYED, LIVING, Destroyed, derived, handle_row, new_key, slot, unwrap
from datavern.crypto.keyring import Keyring
from datavern.crypto.lookup_keys import LookupKey
from datavern.crypto.rotating import Rotating
from datavern.crypto.sealed import DataKey
from datavern.crypto.unguarded import Unguarded

__all__ = ["DataKey", "Destroyed", "KeyStore"]


class KeyStore(Handles, Rotating):
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
        super().__init__(keyring, provider)
        self.unguarded = Unguarded(self)

    # ---- keys of subjects --------------------------------------------------------------------------------------------

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

    # ---- keys by id, of datasets and of lookups ----------------------------------------------------------------------

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

    # ---- erasure -----------------------------------------------------------------------------------------------------

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

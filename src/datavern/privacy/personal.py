"""Personal data as the application sees it: rows that are sealed on the way in and opened on the way out.

Every write is one transaction of the dataset's database: the subject's key is held, the consent checked, the row
written, the audit entry appended. All of it happens, or nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from datavern.contracts.capabilities import Session, Transaction, needs
from datavern.contracts.errors import (
    ConfigurationError,
    ConsentRequired,
    ConstraintViolated,
    KeyErased,
    PrivacyError,
    QueryRejected,
)
from datavern.contracts.subjects import canonical_subject
from datavern.crypto.life import LookupKeyEnded
from datavern.crypto.sealed import DataKey, new_row_tag
from datavern.privacy.bulk import Batch
from datavern.privacy.dataset import ERASED_AT, LOOKUP, RETAINED_UNTIL, ROW_TAG, Dataset
from datavern.privacy.rows import RETENTION, Rows
from datavern.privacy.shape import DDL, shape_of
from datavern.privacy.units import within

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog
    from datavern.contracts.capabilities import Provider, Store
    from datavern.contracts.fused import Guard
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.life import KeyLife
    from datavern.privacy.consent import Consent, Consents

__all__ = ["PersonalStore"]

_OPENED_AT_ONCE = 200


class PersonalStore:
    """The rows of one dataset.

    Every method takes ``transaction=``: an open transaction of the dataset's database, in which it then takes part.
    Without one, a write has a transaction of its own. Besides what is named below, every method raises `ProviderError`
    for what its database says; no value is in any message.

    Args:
        dataset: the data map's entry.
        provider: its database.
        keys: the key store.
        life: the life of keys in that database.
        log: that database's audit log.
        consents: the consents in the ledger.
    """

    __slots__ = (
        "_consents",
        "_keys",
        "_life",
        "_loaded",
        "_log",
        "_of_nobody",
        "_provider",
        "_purposes",
        "_table",
        "dataset",
    )

    def __init__(
        self,
        dataset: Dataset,
        provider: Provider,
        *,
        keys: KeyStore,
        life: KeyLife,
        log: AuditLog,
        consents: Consents,
    ) -> None:
        self.dataset = dataset
        self._provider = provider
        self._keys = keys
        self._life = life
        self._log = log
        self._consents = consents
        self._table = dataset.table
        self._purposes = dataset.purposes if dataset.needs_consent else ()
        self._loaded: Rows | None = None
        self._of_nobody: DataKey

    _kind: ClassVar[type[Rows]] = Rows

    def __repr__(self) -> str:
        return f"PersonalStore({self.dataset.label})"

    @property
    def provider(self) -> Provider:
        """The database that the rows are in."""
        return self._provider

    # ---- the table --------------------------------------------------------------------------------------------------

    async def prepare(self) -> DDL:
        """Make the table fit the data map: what is missing is made, nothing is dropped or retyped. Idempotent.

        Raises:
            ConfigurationError: a column is there with a type that cannot hold what it must.
        """
        subjects = needs(self._provider, "subjects")
        ran = await subjects.prepare(shape_of(self.dataset, await subjects.describe(self._table)))
        self._loaded = None
        await self.rows()
        return DDL(ran)

    async def exists(self) -> bool:
        """Whether there is such a table."""
        subjects = needs(self._provider, "subjects")
        return self._loaded is not None or await subjects.describe(self._table) is not None

    async def rows(self, transaction: Transaction | None = None, *, fresh: bool = False) -> Rows:
        """How the rows stand in the table: read once from the live schema, or anew when it must be `fresh`.

        Raises:
            ConfigurationError: there is no such table, or it lacks a column; `prepare` makes it.
        """
        loaded = self._loaded
        if loaded is not None and not fresh:
            if loaded.seen == self._keys.lookups_seen:
                return loaded
            self._loaded = await self._rows(loaded.store)
            return self._loaded
        dataset = self.dataset
        store = await needs(self._provider, "subjects").describe(self._table, transaction=transaction)
        if store is None:
            raise ConfigurationError(
                f'{dataset.database} has no table {self._table}: await db.prepare("{dataset.name}") makes it'
            )
        rows = await self._rows(store)
        if dataset.subject is None:
            self._of_nobody = await self._keys.dataset_key(dataset.name)
        self._loaded = rows
        return rows

    async def _rows(self, store: Store) -> Rows:
        keys, dataset = self._keys, self.dataset
        while True:
            seen = keys.lookups_seen
            names = dict.fromkeys(dataset.indexes.values())
            lookup_keys = {name: await keys.lookup_keys(dataset.name, name) for name in names}
            if seen == keys.lookups_seen:
                return self._kind(dataset, store, keys, lookup_keys, seen=seen)

    def _ready(self) -> Rows | None:
        """How the rows stand, where it is known, and no rotation has changed it since."""
        loaded = self._loaded
        return loaded if loaded is not None and loaded.seen == self._keys.lookups_seen else None

    async def _renewed(self, transaction: Transaction | None = None) -> Rows:
        """The same, when a write found its lookup key ended by a rotation that this process had not heard of."""
        await self._keys.heard(at_once=True)
        return await self.rows(transaction)

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def insert(
        self,
        row: Mapping[str, Any],
        *,
        consent: Consent | str | Sequence[Consent | str] | None = None,
        transaction: Transaction | None = None,
    ) -> None:
        """Seal a row and insert it.

        Args:
            row: column → value; columns that the data map does not name are written as they are.
            consent: a consent of the row's subject (or its id; several for several purposes). Needed where the dataset
                has purposes and no other legal basis.

        Raises:
            ConsentRequired: no consent that holds now covers a purpose.
            KeyErased: an erasure of the subject runs.
            ConstraintViolated: a unique value is there already, sealed or not; the value is not in the message.
            ConfigurationError: no subject, a column of Datavern's own, a value that cannot be sealed.
        """
        rows = self._ready() or await self.rows(transaction)
        self._require(consent)
        rows.check_names(row)
        fitted = rows.fitted(row)
        dataset = self.dataset
        tag = new_row_tag()
        handle = None
        if dataset.subject is None:
            subject, key = None, self._of_nobody
        else:
            subject = rows.subject_named(fitted)
            key = self._keys.warm(dataset.name, subject) or await self._keys.subject_key(
                dataset.name, subject, session=transaction
            )
            handle = await self._keys.handle(subject, session=transaction)
        stored = rows.sealed(key, tag, fitted)
        if dataset.needs_keys:
            stored[ROW_TAG] = tag
        details: dict[str, Any] = {"fields": list(row)}
        if (
            transaction is None
            and not rows.renewing
            and await self._inserted_at_once(
                stored,
                lookups=rows.lookup_lives(key),
                subject=subject,
                key=key,
                handle=handle,
                consent=consent,
                details=details,
            )
        ):
            return
        async with within(self._provider, transaction) as tx:
            held = await self._held(tx, rows, [key] if subject is not None else [], key)
            if held is not rows:
                stored |= held.indexes(fitted)
            await self._check_unique(held, fitted, tx)
            if subject is not None and consent is not None:
                details["consents"] = await self._consents.check(subject, self._purposes, consent, transaction=tx)
            await needs(self._provider, "subjects").insert(self._table, (stored,), transaction=tx)
            await self._log.append(tx, action="inserted", handle=handle, dataset=dataset.label, details=details)

    async def _inserted_at_once(
        self,
        stored: Mapping[str, Any],
        *,
        lookups: Sequence[bytes],
        subject: str | None,
        key: DataKey,
        handle: str | None,
        consent: Any,
        details: Mapping[str, Any],
    ) -> bool:
        """The whole insert in one go, with the life of the key and the consent as its conditions.

        False where it cannot be said in one, or a condition does not hold: then nothing was written, and the
        transaction of several statements does it, or says why not.
        """
        guarded = self._provider.capabilities.guarded
        if guarded is None:
            return False
        guards: list[Guard] = []
        held = (*lookups,) if subject is None else (key.id, *lookups)
        if held:
            living = self._life.guard(*held)
            if living is None:
                return False
            guards.append(living)
        if subject is not None and consent is not None:
            holding = self._consents.guard(subject, self._purposes, consent, provider=self._provider)
            if holding is None:
                return False
            guards.append(holding[0])
            details = {**details, "consents": holding[1]}
        entry = self._log.entry("inserted", handle=handle, dataset=self.dataset.label, details=details)
        return await guarded.insert(self._table, stored, guards=guards, audit=entry)

    async def insert_many(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        consent: Any = None,
        transaction: Transaction | None = None,
    ) -> int:
        """Seal rows and insert them: all of them, or none. One audit entry for each subject.

        Args:
            rows: as for `insert`.
            consent: one consent, where all rows are one subject's; a mapping from subject to consent; or a sequence
                with one for each row, in their order.

        Returns:
            How many rows were inserted.

        Raises:
            ConsentRequired, KeyErased, ConstraintViolated, ConfigurationError: as `insert`.
        """
        given = list(rows)
        if not given:
            return 0
        plan = self._ready() or await self.rows(transaction)
        batch = await self._batch(plan, given, consent, transaction)
        async with within(self._provider, transaction) as tx:
            await self._note_inserts(plan, batch, tx)
            for stored in batch.stored():
                await needs(self._provider, "subjects").insert(self._table, stored, transaction=tx)
        return len(given)

    async def _batch(
        self, plan: Rows, given: Sequence[Mapping[str, Any]], consent: Any, transaction: Transaction | None
    ) -> Batch:
        batch = Batch(plan, given, consent)
        for one in batch.consents:
            self._require(one)
        await batch.seal(self._keys, None if self.dataset.subject else self._of_nobody, transaction)
        return batch

    async def _note_inserts(self, plan: Rows, batch: Batch, tx: Transaction) -> None:
        """All of an insert but the insert."""
        held = await self._held(tx, plan, batch.keys if self.dataset.subject else [], *batch.keys)
        if held is not plan:
            batch.index(held)
        for fitted in batch.fitted:
            await self._check_unique(held, fitted, tx)
        checked = await self._check_many(batch.subjects, batch.consents, tx)
        said = {"action": "inserted", "dataset": self.dataset.label}
        await self._log.append_many(tx, [{**said, "handle": h, "details": d} for h, d in batch.entries(checked)])

    async def update(
        self,
        key: Any,
        changes: Mapping[str, Any],
        *,
        consent: Consent | str | Sequence[Consent | str] | None = None,
        transaction: Transaction | None = None,
    ) -> bool:
        """Change a row: sealed fields are sealed anew under the row's own tag, and their lookups follow.

        Args:
            key: the row's primary key.
            changes: column → new value.
            consent: as for `insert`.

        Returns:
            Whether there is such a row.

        Raises:
            ConsentRequired, ConstraintViolated: as `insert`.
            KeyErased: the subject was erased, and the row is kept because the law says so; or an erasure runs.
            ConfigurationError: the subject would change (whose data it is cannot: delete and insert), or nothing would.
        """
        rows = self._ready() or await self.rows(transaction)
        self._require(consent)
        rows.check_names(changes)
        if not changes:
            raise ConfigurationError(f"{self.dataset.name}: update needs a change")
        where = rows.where_key(key)
        if where is None:
            return False
        where |= self.living()
        subjects = needs(self._provider, "subjects")
        if transaction is None and self.dataset.subject is not None:
            # Whose row it is decides which key is needed, and getting one ready is no part of the transaction.
            before = await subjects.select(self._table, where, columns=[self.dataset.subject])
            if not before:
                return False
            await self._key_ready(rows.subject_of(before[0]))
        async with within(self._provider, transaction) as tx:
            found = await subjects.select(self._table, where, lock=True, transaction=tx)
            if not found:
                return False
            await self.change_row(found[0], changes, action="updated", transaction=tx, consent=consent)
        return True

    async def change_row(
        self,
        row: Mapping[str, Any],
        changes: Mapping[str, Any],
        *,
        action: str,
        transaction: Transaction,
        consent: Any = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Change one row that was read, and locked, in this transaction; with its audit entry.

        Raises:
            ConsentRequired, KeyErased, ConstraintViolated, ConfigurationError: as `update`.
        """
        stored = await self._changed_row(row, changes, transaction, action=action, consent=consent, details=details)
        where = {name: row[name] for name in self.dataset.keys}
        await needs(self._provider, "subjects").update(self._table, where, stored, transaction=transaction)

    async def _changed_row(
        self,
        row: Mapping[str, Any],
        changes: Mapping[str, Any],
        transaction: Transaction,
        *,
        action: str,
        consent: Any,
        details: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """All of a change but the change: what is to be written."""
        rows = await self.rows(transaction)
        dataset = self.dataset
        subject = rows.subject_of(row)
        fitted = rows.fitted(changes)
        self._same_subject(rows, subject, fitted)
        handle = None
        ids: tuple[str, ...] = ()
        if subject is not None:
            key = self._keys.warm(dataset.name, subject) or await self._keys.subject_key(
                dataset.name, subject, session=transaction
            )
            handle = await self._keys.handle(subject, session=transaction)
            held = rows.key_ids(row)
            rows = await self._held(transaction, rows, [key], key, also=held)
            if row.get(RETAINED_UNTIL) is not None or await self._retained(held, transaction):
                raise KeyErased(
                    f"{dataset.label}: the subject was erased; the law keeps the row, and nobody changes it"
                )
            if consent is not None:
                ids = await self._consents.check(subject, self._purposes, consent, transaction=transaction)
        else:
            key = self._of_nobody
            rows = await self._held(transaction, rows, [], key)
        stored = self._changed(rows, row, fitted, key)
        await self._check_unique(rows, fitted, transaction, but=row)
        said: dict[str, Any] = {"fields": list(changes), **(details or {})}
        if ids:
            said["consents"] = ids
        await self._log.append(transaction, action=action, handle=handle, dataset=dataset.label, details=said)
        return stored

    async def delete(self, key: Any, *, transaction: Transaction | None = None) -> bool:
        """Delete a row by its primary key, with its audit entry; whether there was one.

        It is deleted whatever the dataset's erasure policy: erasing a person is `db.subject_requests`.

        Raises:
            PrivacyError: the person was erased, and the law keeps the row for some time yet.
        """
        rows = self._ready() or await self.rows(transaction)
        where = rows.where_key(key)
        if where is None:
            return False
        where |= self.living()
        subjects = needs(self._provider, "subjects")
        async with within(self._provider, transaction) as tx:
            found = await subjects.select(self._table, where, lock=True, transaction=tx)
            if not found:
                return False
            await self.note_delete(found, transaction=tx)
            await subjects.delete(self._table, where, transaction=tx)
        return True

    # ---- writes that somebody else makes ----------------------------------------------------------------------------
    # All of a write but the write, which then goes with it in one transaction: for SQLAlchemy's statements.

    async def to_insert(
        self, rows: Sequence[Mapping[str, Any]], *, consent: Any, transaction: Transaction
    ) -> list[dict[str, Any]]:
        """The rows as the table takes them, in their order; their keys held, consents checked, audit entries written.

        Raises:
            ConsentRequired, KeyErased, ConfigurationError: as `insert_many`.
        """
        plan = self._ready() or await self.rows(transaction)
        batch = await self._batch(plan, rows, consent, transaction)
        await self._note_inserts(plan, batch, transaction)
        return batch.rows

    async def to_update(
        self, row: Mapping[str, Any], changes: Mapping[str, Any], *, consent: Any, transaction: Transaction
    ) -> dict[str, Any]:
        """What an update writes to a row that is held; with what belongs to it, as `to_insert`.

        Raises:
            ConsentRequired, KeyErased, ConfigurationError: as `update`.
        """
        self._require(consent)
        (await self.rows(transaction)).check_names(changes)
        if isinstance(consent, Mapping):
            subject = (await self.rows(transaction)).subject_of(row)
            consent = {canonical_subject(s): one for s, one in consent.items()}.get(subject or "")
            self._require(consent)
        return await self._changed_row(row, changes, transaction, action="updated", consent=consent)

    async def note_delete(self, found: Sequence[Mapping[str, Any]], *, transaction: Transaction) -> None:
        """Rows that are held will be deleted: their audit entries.

        Raises:
            PrivacyError: the law keeps one of them for some time yet.
        """
        rows = await self.rows(transaction)
        dataset = self.dataset
        today = dt.datetime.now().astimezone().date().isoformat()
        for row in found:
            until = row.get(RETAINED_UNTIL)
            if until is not None and until >= today:
                raise PrivacyError(f"{dataset.label}: the subject was erased, and the law keeps the row until {until}")
            subject = rows.subject_of(row)
            handle = None if subject is None else await self._keys.handle(subject, create=False, session=transaction)
            await self._log.append(transaction, action="deleted", handle=handle, dataset=dataset.label)

    async def whole(self) -> None:
        """Refuse while a column is sealed in place: only what this store reads and writes knows both places.

        Raises:
            ConfigurationError: one is.
        """
        aside = (self._ready() or await self.rows()).aside
        if aside:
            raise ConfigurationError(
                f"{self.dataset.label}: {', '.join(aside)} is being sealed in place: until that has ended, read and "
                "write through db.personal"
            )

    @property
    def keys(self) -> KeyStore:
        """The key store."""
        return self._keys

    @property
    def of_nobody(self) -> DataKey:
        """The key of a dataset that is about nobody."""
        return self._of_nobody

    async def held(self, tx: Session, rows: Rows, keys: Sequence[DataKey]) -> Rows:
        """Hold the keys of a write until its transaction ends; how the rows stand by then."""
        return await self._held(tx, rows, keys if self.dataset.subject else [], *keys)

    async def note(self, action: str, details: Mapping[str, Any], tx: Session) -> None:
        """An audit entry about rows of several people."""
        await self._log.append(tx, action=action, dataset=self.dataset.label, details=details)

    async def index_of(self, field: str, value: Any) -> tuple[bytes, ...]:
        """The lookup index of a value of a field; while lookup keys are renewed, under each key that rows may have.

        Raises:
            ConfigurationError: the field has none, or the value is not of its kind.
        """
        where = (await self.rows()).where_fields({field: value})
        found: Any = where[field + LOOKUP]
        return found if isinstance(found, tuple) else (found,)

    def own_columns(self) -> frozenset[str]:
        """The columns that are Datavern's to write."""
        return frozenset({ROW_TAG, ERASED_AT, RETAINED_UNTIL, *self.dataset.indexes})

    def columns_of_a_write(self) -> tuple[str, ...]:
        """What is read of a row before it is changed."""
        dataset = self.dataset
        subject = () if dataset.subject is None else (dataset.subject,)
        return tuple(dict.fromkeys((*dataset.keys, *subject, *dataset.sealed, ROW_TAG, RETAINED_UNTIL)))

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def get(self, key: Any, *, transaction: Transaction | None = None) -> dict[str, Any] | None:
        """The row of that primary key, opened, or None.

        Raises:
            DecryptionFailed: a sealed value is not the one that was sealed there.
            KeyErased: the row's key was destroyed with its subject (erasure policy ``shred``).
        """
        rows = self._ready() or await self.rows(transaction)
        where = rows.where_key(key)
        if where is None:
            return None
        if self.dataset.erasure == "soft":
            where[ERASED_AT] = None
        found = await needs(self._provider, "subjects").select(self._table, where, transaction=transaction)
        if not found:
            return None
        opened = rows.open_warm(found[0])
        if opened is not None:
            return opened
        ids = rows.key_ids(found[0])
        return rows.open_row(found[0], await self._keys.keys(ids, session=transaction))

    async def of(self, subject: object, *, transaction: Transaction | None = None) -> AsyncIterator[dict[str, Any]]:
        """All rows of a subject, opened, in constant memory: ``async for row in users.of("test-user")``.

        The connection is given back when the loop ends; when it is left early, as soon as the iterator is let go.
        """
        rows = self._ready() or await self.rows(transaction)
        person = canonical_subject(subject)
        where = rows.where_subject(person)
        if where is None:
            return
        where |= self.living()
        # At hand before the stream takes a connection: a pool of one would otherwise wait for itself.
        await self._keys.find_subject_key(self.dataset.name, person, session=transaction)
        stream = needs(self._provider, "subjects").stream(self._table, where, transaction=transaction)
        async with stream as found:
            async for row in found:
                if rows.is_of(row, person):
                    yield (await self.opened([row], transaction))[0]

    async def find(
        self,
        where: Mapping[str, Any] | None = None,
        /,
        *,
        limit: int | None = None,
        transaction: Transaction | None = None,
        **fields: Any,
    ) -> list[dict[str, Any]]:
        """Rows by the values of their fields, opened; sealed ones through their lookup index, and nothing else opened.

        Args:
            where: field → value, for names that are no Python names; all of them must hold, `fields` too. A tuple
                means any of its values.
            limit: how many at the most.
            fields: field=value.

        Raises:
            ConfigurationError: a sealed field without lookup, a field that is not there, or none at all.
            DecryptionFailed: a sealed value is not the one that was sealed there, or a lookup index was moved: the row
                that it leads to holds something else than was asked for.
        """
        await self._keys.heard()  # under which keys others make their indexes by now
        rows = self._ready() or await self.rows(transaction)
        asked = {**(where or {}), **fields}
        condition = rows.where_fields(asked) | self.living()
        if limit is not None and limit < 1:
            raise ConfigurationError("find: limit is at least 1")
        if () in condition.values():
            return []
        subjects = needs(self._provider, "subjects")
        found = await subjects.select(self._table, condition, limit=limit, transaction=transaction)
        if rows.aside and (also := rows.where_aside(asked)) is not None:
            found += await self._not_sealed_yet(found, also | self.living(), transaction)
        return [row for row in await self.opened(found, transaction) if rows.answers(row, asked)][:limit]

    async def _not_sealed_yet(
        self, found: Sequence[Mapping[str, Any]], where: Mapping[str, Any], transaction: Transaction | None
    ) -> list[dict[str, Any]]:
        """What a search finds in a column that is being sealed in place, beside what it found by the index."""
        if () in where.values():
            return []
        try:
            more = await needs(self._provider, "subjects").select(self._table, where, transaction=transaction)
        except QueryRejected:  # the column was sealed meanwhile, and the plain one is gone
            if transaction is not None:
                raise
            self._loaded = None
            return []
        keys = self.dataset.keys
        known = {tuple(row[name] for name in keys) for row in found}
        return [row for row in more if tuple(row[name] for name in keys) not in known]

    async def starts_with(
        self, *, limit: int | None = None, transaction: Transaction | None = None, **field: str
    ) -> list[dict[str, Any]]:
        """Rows whose sealed text begins so, opened: ``await users.starts_with(name="Nord", limit=20)``.

        Args:
            limit: how many at the most.
            field: field=beginning, of one field with `prefixes` in the data map. Upper and lower case and the like
                count as the field's kind has it.

        Raises:
            ConfigurationError: a field without `prefixes`, a beginning shorter than the shortest, or not one field.
            DecryptionFailed: a sealed value is not the one that was sealed there.
        """
        return await self._find_part(field, limit, transaction, start=True)

    async def contains(
        self, *, limit: int | None = None, transaction: Transaction | None = None, **field: str
    ) -> list[dict[str, Any]]:
        """Rows whose sealed text has this part, opened: ``await users.contains(name="mann")``. It reads a whole table.

        Args:
            limit: how many at the most.
            field: field=part, of one field with `ngrams` in the data map.

        Raises:
            ConfigurationError: a field without `ngrams`, a part shorter than they are, or not one field.
            DecryptionFailed: a sealed value is not the one that was sealed there.
        """
        return await self._find_part(field, limit, transaction, start=False)

    async def _find_part(
        self, field: Mapping[str, str], limit: int | None, transaction: Transaction | None, *, start: bool
    ) -> list[dict[str, Any]]:
        await self._keys.heard()
        rows = self._ready() or await self.rows(transaction)
        if len(field) != 1:
            raise ConfigurationError(f"{self.dataset.name}: expected one field, such as name=…")
        if limit is not None and limit < 1:
            raise ConfigurationError("limit is at least 1")
        ((name, text),) = field.items()
        subjects = needs(self._provider, "subjects")
        found: list[dict[str, Any]] = []
        wheres = rows.where_starts(name, text) if start else rows.where_contains(name, text)
        for where in wheres:  # one, but while a rotation makes the indexes anew
            more = await subjects.select(self._table, where | self.living(), transaction=transaction)
            seen = {tuple(row[key] for key in self.dataset.keys) for row in found} if found else set()
            found += [row for row in more if tuple(row[key] for key in self.dataset.keys) not in seen]
        answers: list[dict[str, Any]] = []
        for at in range(0, len(found), _OPENED_AT_ONCE):  # most of a search with a limit is not opened at all
            opened = await self.opened(found[at : at + _OPENED_AT_ONCE], transaction)
            answers += [row for row in opened if rows.has_part(row, name, text, start=start)]
            if limit is not None and len(answers) >= limit:
                return answers[:limit]
        return answers

    async def open(self, rows: Iterable[Any], *, transaction: Transaction | None = None) -> list[dict[str, Any]]:
        """Open rows of any query, if it selected ``datavern_row`` and the subject beside the sealed fields.

        Raises:
            ConfigurationError: one of the two is missing; the message names it.
            DecryptionFailed: a sealed value is not the one that was sealed there.
        """
        plan = self._ready() or await self.rows(transaction)
        found = [dict(row) for row in rows]
        needed = [ROW_TAG] if plan.subject is None else [ROW_TAG, plan.subject]
        for row in found:
            if any(name in row for name in plan.sealer.fields):
                for name in needed:
                    if name not in row:
                        raise ConfigurationError(f"{self.dataset.name}: select {name} too: sealed fields open with it")
        return await self.opened(found, transaction)

    async def opened(
        self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None = None
    ) -> list[dict[str, Any]]:
        """Rows as they are stored, opened. Fields whose key was destroyed with the subject are None: they are gone."""
        rows = self._ready() or await self.rows(transaction)
        opened_warm = [rows.open_warm(dict(row)) for row in found]
        if None not in opened_warm:
            return cast("list[dict[str, Any]]", opened_warm)
        ids = [rows.key_ids(row) for row in found]
        every = set().union(*ids)
        keys = rows.warm_keys(every)
        if keys is None:
            try:
                keys = await self._keys.keys(every, session=transaction)
            except KeyErased:
                keys = None
        if keys is not None:
            return [rows.open_row(row, {i: keys[i] for i in of_row}) for row, of_row in zip(found, ids, strict=True)]
        opened = []
        for row, of_row in zip(found, ids, strict=True):
            try:
                opened.append(rows.open_row(row, await self._keys.keys(of_row, session=transaction)))
            except KeyErased:
                opened.append(rows.open_row({**row, **dict.fromkeys(rows.sealer.fields & row.keys())}, {}))
        return opened

    async def opened_fields(
        self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None = None
    ) -> list[dict[str, Any]]:
        """`opened`, of which the sealed fields are needed and the others may be missing."""
        rows = self._ready() or await self.rows(transaction)
        made = list(map(rows.warm, found))
        cold = [at for at, row in enumerate(made) if row is None]
        if cold:
            for at, row in zip(cold, await self.opened([found[at] for at in cold], transaction), strict=True):
                made[at] = row
        return cast("list[dict[str, Any]]", made)

    # ---- what they share --------------------------------------------------------------------------------------------

    def living(self) -> dict[str, Any]:
        """The condition for rows that are not marked as erased."""
        return {ERASED_AT: None} if self.dataset.erasure == "soft" else {}

    def _require(self, consent: Any) -> None:
        if consent is None and self._purposes:
            needed = ", ".join(self._purposes)
            raise ConsentRequired(f"{self.dataset.label}: no consent was given; needed: {needed}")

    async def _held(
        self, tx: Session, rows: Rows, keys: Sequence[DataKey], *writing: DataKey, also: Iterable[bytes] = ()
    ) -> Rows:
        """Hold the keys of a write until its transaction ends; how the rows stand by then.

        Args:
            tx: the open transaction.
            rows: how they stood when the write was made.
            keys: of the subjects.
            writing: the keys that it writes under.
            also: the ids of further keys.

        Raises:
            KeyErased: an erasure has ended one of them.
        """
        ids = sorted({*(key.id for key in keys), *also})
        while True:
            lookups = sorted({life for key in writing for life in rows.lookup_lives(key)})
            if not ids and not lookups:
                return rows
            try:
                await self._life.hold(tx, ids, lookups)
            except LookupKeyEnded:
                rows = await self._renewed()
                continue
            return rows

    async def _check_unique(
        self, rows: Rows, values: Mapping[str, Any], tx: Session | None, *, but: Mapping[str, Any] | None = None
    ) -> None:
        """While a rotation makes the indexes anew: refuse what the database would refuse if all were under one key."""
        if not rows.renewing:
            return
        keys = list(self.dataset.keys)
        for clash in rows.clashes(values):
            found = await needs(self._provider, "subjects").select(self._table, clash, columns=keys, transaction=tx)
            if any(but is None or any(row[name] != but[name] for name in keys) for row in found):
                raise ConstraintViolated(
                    f"{self.dataset.label}: a value that must be unique is there already", provider=self._provider.name
                )

    def _same_subject(self, rows: Rows, subject: str | None, changes: dict[str, Any]) -> None:
        if rows.subject is not None and rows.subject in changes:
            value = changes.pop(rows.subject)
            if value is None or canonical_subject(value) != subject:
                raise ConfigurationError(
                    f"{self.dataset.name}.{rows.subject}: whose data a row is cannot change: "
                    "delete it, and insert it anew"
                )

    def _changed(self, rows: Rows, row: Mapping[str, Any], changes: Mapping[str, Any], key: DataKey) -> dict[str, Any]:
        if not self.dataset.needs_keys:
            return dict(changes)
        tag, plain = row[ROW_TAG], rows.sealed_by_now(row, changes)
        if tag is not None:
            return rows.sealed(key, tag, changes) | plain
        tag = new_row_tag()  # a row that plain SQL inserted gets its tag with its first sealed value
        return rows.sealed(key, tag, changes) | plain | {ROW_TAG: tag}

    async def _retained(self, key_ids: Iterable[bytes], transaction: Transaction) -> bool:
        keys = await self._keys.keys(key_ids, session=transaction)
        return any(key.dataset.endswith(RETENTION) for key in keys.values())

    async def _key_ready(self, subject: str | None) -> None:
        if subject is not None:
            await self._keys.subject_key(self.dataset.name, subject)
            await self._keys.handle(subject)

    async def _check_many(
        self, subjects: Sequence[str], consents: Sequence[Any], tx: Transaction
    ) -> dict[int, tuple[str, ...]]:
        asked = [i for i, consent in enumerate(consents) if consent is not None]
        pairs = [(subjects[i], consents[i]) for i in asked]
        if not pairs:
            return {}
        checked = await self._consents.check_many(pairs, self._purposes, transaction=tx)
        return dict(zip(asked, checked, strict=True))

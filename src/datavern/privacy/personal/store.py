"""Personal data as the application sees it: rows that are sealed on the way in and opened on the way out.

Every write is one transaction of the dataset's database: the subject's key is held, the consent checked, the row
written, the audit entry appended. All of it happens, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import Transaction
from datavern.contracts.errors import ConfigurationError
from datavern.crypto.sealed import DataKey
from datavern.privacy.datamap.dataset import ROW_TAG
from datavern.privacy.personal.noting import NotedRows
from datavern.privacy.units import within

if TYPE_CHECKING:
    from datavern.contracts.fused import Guard
    from datavern.privacy.consent.consent import Consent

__all__ = ["PersonalStore"]


class PersonalStore(NotedRows):
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

    __slots__ = ()

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
            ProcessingRestricted: the person's data is restricted (Art. 18), or the person objected (Art. 21).
            KeyErased: an erasure of the subject runs.
            ConstraintViolated: a unique value is there already, sealed or not; the value is not in the message.
            ConfigurationError: no subject, a column of Datavern's own, a value that cannot be sealed.
        """
        rows = self._ready() or await self.rows(transaction)
        self._require(consent)
        if rows.lacks(row):
            rows = await self.rows(transaction, fresh=True)
        rows.check_names(row)
        fitted = rows.fitted(row)
        dataset = self.dataset
        tag, nonces = rows.sealer.draw()
        handle = None
        if dataset.subject is None:
            subject, key = None, self._of_nobody
        else:
            if self.link is None:
                subject = rows.subject_named(fitted)
            else:
                (subject,) = await self.link.named([fitted], transaction)
            standing = self._standing
            if standing.until <= monotonic():
                await standing.ask(transaction)
            if standing.marks:
                await self.admit((self._keys.subject_tag(subject),), transaction)
            key = self._keys.warm(dataset.name, subject) or await self._keys.subject_key(
                dataset.name, subject, session=transaction
            )
            handle = self._keys.known_handle(subject) or await self._keys.handle(subject, session=transaction)
        stored = rows.sealed(key, tag, fitted, nonces)
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
                details["consents"] = await self._consents.check(
                    subject, self._needed(), consent, rules=self._rules, transaction=tx
                )
            await self.subjects.insert(self._table, (stored,), transaction=tx)
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
            holding = self._consents.guard(subject, self._needed(), consent, provider=self._provider, rules=self._rules)
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
        plan = await self._plan(given, transaction)
        batch = await self._batch(plan, given, consent, transaction)
        async with within(self._provider, transaction) as tx:
            await self._note_inserts(plan, batch, tx)
            for stored in batch.stored():
                await self.subjects.insert(self._table, stored, transaction=tx)
        return len(given)

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
        if rows.lacks(changes):
            rows = await self.rows(transaction, fresh=True)
        rows.check_names(changes)
        if not changes:
            raise ConfigurationError(f"{self.dataset.name}: update needs a change")
        where = rows.where_key(key)
        if where is None:
            return False
        where |= self.living()
        subjects = self.subjects
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
            await self._admit_rows(rows, found, tx)
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
        await self.subjects.update(self._table, where, stored, transaction=transaction)

    async def delete(self, key: Any, *, transaction: Transaction | None = None) -> bool:
        """Delete a row by its primary key, with its audit entry; whether there was one.

        It is deleted whatever the dataset's erasure policy: erasing a person is `db.subject_requests`.

        Raises:
            PrivacyError: the person was erased, and the law keeps the row for some time yet; or a legal hold keeps it.
            ProcessingRestricted: the person's data is restricted.
        """
        rows = self._ready() or await self.rows(transaction)
        where = rows.where_key(key)
        if where is None:
            return False
        where |= self.living()
        subjects = self.subjects
        async with within(self._provider, transaction) as tx:
            found = await subjects.select(self._table, where, lock=True, transaction=tx)
            if not found:
                return False
            await self.note_delete(found, transaction=tx)
            await subjects.delete(self._table, where, transaction=tx)
        return True

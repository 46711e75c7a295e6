"""All of a write of personal data but the write itself: its keys held, its consents checked, its audit entries written.

Whoever writes then does it in the same transaction: `PersonalStore`, or SQLAlchemy's statements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datavern.contracts.capabilities import Transaction
from datavern.contracts.errors import KeyErased, PrivacyError
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import today
from datavern.privacy.datamap.dataset import RETAINED_UNTIL
from datavern.privacy.personal.bulk import Batch
from datavern.privacy.personal.guarding import GuardedRows
from datavern.privacy.personal.rows import ANONYMOUS, RETENTION, Rows

__all__ = ["NotedRows"]


class NotedRows(GuardedRows):
    """What goes with a write: see `datavern.privacy.personal.store.PersonalStore`, which is made of this."""

    __slots__ = ()

    async def to_insert(
        self, rows: Sequence[Mapping[str, Any]], *, consent: Any, transaction: Transaction
    ) -> list[dict[str, Any]]:
        """The rows as the table takes them, in their order; their keys held, consents checked, audit entries written.

        Raises:
            ConsentRequired, KeyErased, ConfigurationError: as `insert_many`.
        """
        plan = await self._plan(rows, transaction)
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
        rows = await self.rows(transaction)
        (await self.rows(transaction, fresh=True) if rows.lacks(changes) else rows).check_names(changes)
        (row,) = await self.marked([row], transaction)
        if isinstance(consent, Mapping):
            subject = (await self.rows(transaction)).subject_of(row)
            consent = {canonical_subject(s): one for s, one in consent.items()}.get(subject or "")
            self._require(consent)
        await self._admit_rows(await self.rows(transaction), (row,), transaction)
        return await self._changed_row(row, changes, transaction, action="updated", consent=consent)

    async def note_delete(self, found: Sequence[Mapping[str, Any]], *, transaction: Transaction) -> None:
        """Rows that are held will be deleted: their audit entries.

        Raises:
            PrivacyError: the law keeps one of them for some time yet, or a legal hold does.
            ProcessingRestricted: one is restricted.
        """
        rows = await self.rows(transaction)
        await self._admit_rows(rows, found, transaction)
        dataset = self.dataset
        day = today().isoformat()
        await self.keep_led(found, None, transaction)
        for row in await self.marked(found, transaction):
            until = row.get(RETAINED_UNTIL)
            if until is not None and until >= day:
                raise PrivacyError(f"{dataset.label}: the subject was erased, and the law keeps the row until {until}")
            if self.holds is not None:
                await self.holds.refuse(dataset, rows, row, transaction)
            subject = rows.subject_of(row)
            handle = None if subject is None else await self._keys.handle(subject, create=False, session=transaction)
            await self._log.append(transaction, action="deleted", handle=handle, dataset=dataset.label)

    # ---- inside -----------------------------------------------------------------------------------------------------

    async def _plan(self, given: Iterable[Mapping[str, Any]], transaction: Transaction | None) -> Rows:
        """How the rows stand: read anew, where one of those that are given names a column that was not there."""
        rows = self._ready() or await self.rows(transaction)
        return await self.rows(transaction, fresh=True) if any(map(rows.lacks, given)) else rows

    async def _batch(
        self, plan: Rows, given: Sequence[Mapping[str, Any]], consent: Any, transaction: Transaction | None
    ) -> Batch:
        people = None if self.link is None else await self.link.named(given, transaction)
        batch = Batch(plan, given, consent, people)
        for one in batch.consents:
            self._require(one)
        if self.dataset.subject is not None:
            await self._admit_rows(plan, batch.fitted, transaction)
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
        self._same_subject(rows, row, fitted)
        await self.keep_led([row], fitted, transaction)
        handle = None
        ids: tuple[str, ...] = ()
        if subject is not None:
            key = self._keys.warm(dataset.name, subject) or await self._keys.subject_key(
                dataset.name, subject, session=transaction
            )
            handle = await self._keys.handle(subject, session=transaction)
            held = rows.key_ids(row)
            rows = await self._held(transaction, rows, [key], key, also=held)
            if row.get(RETAINED_UNTIL) is not None or await self._under(RETENTION, held, transaction):
                raise KeyErased(
                    f"{dataset.label}: the subject was erased; the law keeps the row, and nobody changes it"
                )
            if await self._under(ANONYMOUS, held, transaction):
                raise KeyErased(f"{dataset.label}: the row was anonymised: it is about nobody, and nobody changes it")
            if consent is not None:
                ids = await self._consents.check(
                    subject, self._needed(), consent, rules=self._rules, transaction=transaction
                )
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

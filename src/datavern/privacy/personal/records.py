"""Personal data in engines that hold none of Datavern's own tables: documents, files, keys and values.

They are found, opened and ended like rows of a table. What a row's own transaction does there is done in steps here:
the audit entry is written in the ledger before the change that it tells of, and a write looks at its subject's key
again when it is acknowledged (`datavern.crypto.unguarded`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, KeyErased, PrivacyError
from datavern.contracts.records import Records, Whose
from datavern.contracts.stores import Store
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import today
from datavern.privacy.datamap.dataset import ERASED_AT, RETAINED_UNTIL, ROW_TAG, Dataset
from datavern.privacy.datamap.holding import holding_of
from datavern.privacy.personal.bulk import Batch
from datavern.privacy.personal.paths import leaves, value_at, values_at
from datavern.privacy.personal.record_rows import RecordRows, as_stored
from datavern.privacy.personal.rows import ANONYMOUS, RETENTION, SHARED, WHOSE, Rows
from datavern.privacy.personal.shape import DDL, shape_of
from datavern.privacy.personal.store import PersonalStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider, Transaction
    from datavern.crypto.sealed import DataKey

__all__ = ["RecordStore"]


class RecordStore(PersonalStore):
    """The records of one dataset.

    Methods take no ``transaction=``: there is none that the audit entry, or the key, could commit with.

    Args:
        dataset: the data map's entry.
        provider: its database.
        parts: as `PersonalStore` has them, of the ledger.
    """

    _kind = RecordRows

    __slots__ = ("holding",)

    def __init__(self, dataset: Dataset, provider: Provider, **parts: Any) -> None:
        self.holding = holding_of(dataset)
        super().__init__(as_stored(dataset, needs(provider, "records").own_key), provider, **parts)

    def __repr__(self) -> str:
        return f"RecordStore({self.dataset.label})"

    @property
    def records(self) -> Records:
        """The engine's hands."""
        found: Records = needs(self._provider, "records")
        return found

    async def whose(self, row: Mapping[str, Any], person: str) -> Whose:
        """Whether a record that was found for a person is about that very person, and about others."""
        if self.link is None:
            return await self.records.whose(row, self.dataset.subject or "", person)
        shared = row.get(SHARED)
        return Whose(person in shared if shared else row.get(WHOSE) == person, bool(shared))

    async def is_about(self, row: Mapping[str, Any], person: str) -> bool:
        """Whether a record that was found for a person is about that very person."""
        return (await self.whose(row, person)).theirs

    async def take_out(self, row: Mapping[str, Any], person: str) -> bool:
        """Take one person out of a record that is about several; False where that cannot be said of its form."""
        if self.link is None:
            return await self.records.take_out(self.holding, row, person)
        mine = await self.link.values(person)
        return all([await self.records.take_out(self.holding, row, number) for number in mine])

    # ---- the store --------------------------------------------------------------------------------------------------

    async def prepare(self) -> DDL:
        """Make what the store lacks: a collection, its fields' types, an index that finds a person. Idempotent."""
        if self.holding.keyed:
            return DDL()
        subjects = self.subjects
        shape = shape_of(self.dataset, await subjects.describe(self._table))
        columns = (replace(c, type="id") if c.name == self.dataset.subject else c for c in shape.columns)
        ran = await subjects.prepare(replace(shape, columns=tuple(columns)))
        self._loaded = None
        await self.rows()
        return DDL(ran)

    async def rows(self, transaction: Transaction | None = None, *, fresh: bool = False) -> Rows:
        """How the records stand in their store.

        Raises:
            ConfigurationError: its fields are sealed, and it is not prepared.
        """
        self._alone(transaction)
        if not fresh:
            self._check_open()
        loaded = self._loaded
        if loaded is not None and not fresh:
            if loaded.seen != self._keys.lookups_seen:
                loaded = self._loaded = await self._rows(loaded.store)
            return loaded
        dataset = self.dataset
        store = await self.subjects.describe(self._table)
        if dataset.needs_keys and (store is None or store.column(ROW_TAG) is None):
            raise ConfigurationError(
                f'{dataset.database} has no store {self._table} with the fields that sealing needs: await db.prepare("'
                f'{dataset.name}") makes it'
            )
        rows = await self._rows(store or Store(self._table, ()))
        if dataset.subject is None:
            self._of_nobody = await self._keys.dataset_key(dataset.name)
        self._loaded = rows
        return rows

    def tags_of(self, rows: Rows, row: Mapping[str, Any]) -> tuple[bytes, ...]:
        """The keyed tags of the people whom a record is about: of everybody whom its path reaches."""
        if rows.subject is None:
            return ()
        if self.link is not None:
            people = row.get(SHARED) or [row[WHOSE]]
            return tuple(self._keys.subject_tag(person) for person in people if person is not None)
        found = values_at(row, rows.subject)
        return tuple(v if isinstance(v, bytes) else self._keys.subject_tag(canonical_subject(v)) for v in found)

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def get(self, key: Any, *, transaction: Transaction | None = None) -> dict[str, Any] | None:
        """The record of that primary key, opened, or None."""
        rows = await self.rows(transaction)
        where = rows.where_key(key)
        if where is None:
            return None
        found = await self.subjects.select(self._table, where | self.living())
        if not found:
            return None
        await self.let_out(found)
        return (await self.opened(found))[0]

    async def all_of(self, subject: object, *, transaction: Transaction | None = None) -> AsyncIterator[dict[str, Any]]:
        """All records of a subject, opened, in constant memory; those that are about others too among them."""
        rows = await self.rows(transaction)
        person = canonical_subject(subject)
        where = rows.where_subject(person)
        if where is None or rows.subject is None:
            return
        async with self.subjects.stream(self._table, where | self.living()) as found:
            async for row in found:
                if (await self.whose(row, person)).theirs:
                    yield (await self.opened([row]))[0]

    async def count_of(self, subject: str) -> int:
        """How many records are about somebody, whatever stands against their use."""
        rows = await self.rows()
        where = rows.where_subject(subject)
        number = 0
        if where is None or rows.subject is None:
            return number
        async with self.subjects.stream(self._table, where | self.living()) as found:
            async for row in found:
                number += (await self.records.whose(row, rows.subject, subject)).theirs
        return number

    async def opened(
        self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None = None
    ) -> list[dict[str, Any]]:
        """Records as they are stored, opened. What nobody can open again is None."""
        self._alone(transaction)
        if self.dataset.needs_keys:
            return await super().opened(found)
        own = (ROW_TAG, ERASED_AT, RETAINED_UNTIL, WHOSE, SHARED)
        opened = await self.records.opened(self._table, found)
        return [{name: value for name, value in row.items() if name not in own} for row in opened]

    async def open(self, rows: Iterable[Any], *, transaction: Transaction | None = None) -> list[dict[str, Any]]:
        """Open records of any query, if it kept ``datavern_row`` and the subject beside the sealed fields."""
        plan, found = await self.rows(transaction), [dict(row) for row in rows]
        for row in found if self.dataset.needs_keys else ():
            if any(name in row for name in plan.sealer.fields) and ROW_TAG not in row:
                raise ConfigurationError(f"{self.dataset.name}: keep {ROW_TAG} too: sealed fields open with it")
        await self.let_out(found)
        return await self.opened(found)

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def insert(
        self, row: Mapping[str, Any], *, consent: Any = None, transaction: Transaction | None = None
    ) -> None:
        """Seal a record's fields and insert it; names may be dotted paths.

        Raises:
            ConsentRequired, KeyErased, ConstraintViolated, ConfigurationError: as for rows; or such records are written
                by a call of the engine's own, which is named.
        """
        several = isinstance(consent, Sequence) and not isinstance(consent, str)
        await self.insert_many([row], consent=[consent] if several else consent, transaction=transaction)

    async def insert_many(
        self, rows: Iterable[Mapping[str, Any]], *, consent: Any = None, transaction: Transaction | None = None
    ) -> int:
        """Seal records and insert them: all of them, or none. Args and errors: as for rows."""
        self._writable(transaction)
        given = list(rows)
        if not given:
            return 0
        dataset, plan = self.dataset, await self.rows()
        batch = Batch(plan, given, consent, None if self.link is None else await self.link.named(given))
        for one in batch.consents:
            self._require(one)
        if dataset.subject is not None:
            await self._admit_rows(plan, batch.fitted, None)
        keys = self._keys.unguarded
        if dataset.subject is not None:
            await keys.keys(dataset.name, batch.subjects)
        await batch.seal(self._keys, None if dataset.subject else self._of_nobody, None, tagged=True)
        async with needs(self._log.provider, "transactions").transaction() as tx:
            checked = await self._check_many(batch.subjects, batch.consents, tx)
            said = {"action": "inserted", "dataset": dataset.label}
            await self._log.append_many(tx, [{**said, "handle": h, "details": d} for h, d in batch.entries(checked)])
        subjects = self.subjects
        stored = [row for rows_ in batch.stored() for row in rows_]
        async with self._indexing(plan, *batch.keys) as held:
            if held is not plan:
                batch.index(held)
                stored = [row for rows_ in batch.stored() for row in rows_]
            for fitted in batch.fitted:
                await self._check_unique(held, fitted, None)
            await subjects.insert(self._table, stored)
        for subject, key in batch.of_subject.items():
            if not await keys.covers(key, subject):
                named = batch.subjects if self.link is None else [value_at(r, dataset.subject or "") for r in given]
                where: dict[str, Any] = {str(dataset.subject): tuple(dict.fromkeys(named))}
                await subjects.delete(self._table, where | {ROW_TAG: tuple(row[ROW_TAG] for row in stored)})
                raise _erased(dataset)
        return len(given)

    async def update(
        self, key: Any, changes: Mapping[str, Any], *, consent: Any = None, transaction: Transaction | None = None
    ) -> bool:
        """Change fields of a record; whether there is one. Args and errors: as for rows."""
        self._writable(transaction)
        rows = await self.rows()
        self._require(consent)
        rows.check_names(changes)
        if not changes:
            raise ConfigurationError(f"{self.dataset.name}: update needs a change")
        where = rows.where_key(key)
        found = [] if where is None else await self._select(where | self.living())
        if not found:
            return False
        await self._admit_rows(rows, found, None)
        return await self.change_record(found[0], changes, action="updated", consent=consent)

    async def change_record(
        self,
        row: Mapping[str, Any],
        changes: Mapping[str, Any],
        *,
        action: str,
        consent: Any = None,
        details: Mapping[str, Any] | None = None,
    ) -> bool:
        """Change one record that was read; whether it is still there, and still the same person's.

        Raises:
            ConsentRequired, KeyErased, ConstraintViolated, ConfigurationError: as `update`.
        """
        rows, dataset = await self.rows(), self.dataset
        subject = rows.subject_of(row)
        if dataset.subject is not None and subject is None:
            raise ConfigurationError(f"{dataset.name}: the record names nobody, or several: change it with the driver")
        fitted = self._same_record(rows, row, changes)
        await self.keep_led([row], fitted, None)
        if row.get(RETAINED_UNTIL) is not None:
            raise KeyErased(f"{dataset.label}: the subject was erased; the law keeps the row, and nobody changes it")
        ids = rows.key_ids(row)
        if ids and await self._under(RETENTION, ids, None):
            raise KeyErased(f"{dataset.label}: the subject was erased; a legal hold keeps the row as it is")
        if ids and await self._under(ANONYMOUS, ids, None):
            raise KeyErased(f"{dataset.label}: the row was anonymised: it is about nobody, and nobody changes it")
        keys = self._keys.unguarded
        key = self._of_nobody if subject is None else await keys.key(dataset.name, subject)
        stored = self._changed(rows, row, fitted, key)
        handle = None if subject is None else await self._keys.handle(subject)
        said: dict[str, Any] = {"fields": list(changes), **(details or {})}
        async with needs(self._log.provider, "transactions").transaction() as tx:
            if consent is not None and subject is not None:
                said["consents"] = await self._consents.check(
                    subject, self._needed(), consent, rules=self._rules, transaction=tx
                )
            await self._log.append(tx, action=action, handle=handle, dataset=dataset.label, details=said)
        # Only as long as it names the same person and no erasure has marked it: nothing is written into what one left.
        where = {name: row[name] for name in dataset.keys} | self.living()
        if dataset.subject is not None:
            where[dataset.subject] = subject if self.link is None else next(leaves(row, dataset.subject), None)
        if dataset.erasure == "retain":
            where[RETAINED_UNTIL] = None
        async with self._indexing(rows, key) as held:
            if held is not rows:
                stored |= held.indexes(fitted)
            await self._check_unique(held, fitted, None, but=row)
            changed = await self.subjects.update(self._table, where, stored)
        if subject is not None and not await keys.covers(key, subject):
            raise _erased(dataset)
        return changed > 0

    async def delete(self, key: Any, *, transaction: Transaction | None = None) -> bool:
        """Delete a record by its primary key, with its audit entry; whether there was one."""
        self._alone(transaction)
        rows, dataset = await self.rows(), self.dataset
        where = rows.where_key(key)
        found = [] if where is None else await self._select(where | self.living())
        if not found:
            return False
        until = found[0].get(RETAINED_UNTIL)
        if until is not None and until >= today().isoformat():
            raise PrivacyError(f"{dataset.label}: the subject was erased, and the law keeps the row until {until}")
        await self._admit_rows(rows, found, None)
        if self.holds is not None:
            await self.holds.refuse(dataset, rows, found[0], None)
        await self.keep_led(found, None, None)
        subject = rows.subject_of(found[0])
        handle = None if subject is None else await self._keys.handle(subject, create=False)
        async with needs(self._log.provider, "transactions").transaction() as tx:
            await self._log.append(tx, action="deleted", handle=handle, dataset=dataset.label)
        where = {name: found[0][name] for name in dataset.keys}
        return await self.subjects.delete(self._table, where) > 0

    # ---- what they share --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _indexing(self, rows: Rows, *keys: DataKey) -> AsyncIterator[Rows]:
        """The block of a write: where it makes indexes, no rotation ends their keys before it is done.

        The keys' life is held in the ledger, so the block is short, and holds one command of the engine.
        """
        if not self.dataset.indexes:
            yield rows
            return
        async with needs(self._log.provider, "transactions").transaction() as tx:
            yield await self._held(tx, rows, [], *keys)

    async def _select(self, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        return await self.subjects.select(self._table, where)

    def _same_record(self, rows: Rows, row: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The changes, without the subject; and refused where they would say that it is another's."""
        path = rows.subject
        fitted = dict(changes)
        if path is None:
            return fitted
        of = canonical_subject if self.link is None else self.link.text
        same = rows.subject_of(row) if self.link is None else of(value_at(row, path))
        top = path.split(".")[0]
        for name in changes:
            if name != top and not name.startswith(f"{top}."):
                continue
            if name in {path, top}:
                value = value_at({name: changes[name]}, path)
                if value is not None and of(value) == same:
                    if name == path:
                        del fitted[name]
                    continue
            elif not path.startswith(f"{name}."):
                continue
            raise ConfigurationError(
                f"{self.dataset.name}.{path}: whose data a record is cannot change: delete it, and insert it anew"
            )
        if not fitted:
            raise ConfigurationError(f"{self.dataset.name}: update needs a change")
        return fitted

    def _writable(self, transaction: object) -> None:
        self._alone(transaction)
        call = self.records.writes(self.holding)
        if call is not None:
            raise ConfigurationError(
                f"{self.dataset.label}: such records are written by the provider itself: "
                f'db["{self.dataset.database}"].{call}'
            )

    def _alone(self, transaction: object) -> None:
        if transaction is not None:
            raise ConfigurationError(
                f"{self.dataset.label}: takes no transaction=: {self._provider.engine} has none that the audit entry "
                "could commit with"
            )


def _erased(dataset: Dataset) -> KeyErased:
    return KeyErased(f"an erasure of the subject runs: {dataset.name} takes nothing about it meanwhile")

"""The rectification of what is wrong about a person (GDPR Art. 16).

It is safe to ask for again: the right value is written once more. Rows of one database change together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated, KeyErased, SubjectRequestRejected
from datavern.privacy.records import RecordStore, value_at

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.privacy.dataset import Dataset
    from datavern.privacy.personal import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["rectify"]

_NOTHING = "{}: nothing was found about this subject"

Changes = Mapping[str, Mapping[str, Any]]
_Work = list[tuple["PersonalStore", dict[str, Any], dict[str, Any]]]  # dataset, which row, the right values


async def rectify(privacy: Privacy, request: str, subject: str, changes: Changes | None) -> dict[str, int]:
    """Write the right values; label → how many rows changed.

    Args:
        privacy: the datasets.
        request: the request's id, for the audit log.
        subject: the canonical id.
        changes: dataset → field → right value. Where the subject has several rows in a dataset, the primary key among
            the values says which of them.

    Raises:
        SubjectRequestRejected: nothing is to be changed, nothing is there, it is not said which of several rows, the
            law keeps the row as it is, or a constraint of the database does not allow the value (which is not told).
        ConfigurationError: no such dataset or field.
    """
    if not changes or not all(changes.values()):
        raise SubjectRequestRejected('rectification: changes is missing: changes={"users": {"name": "Right Name"}}')
    work: dict[str, _Work] = {}
    records: list[tuple[RecordStore, dict[str, Any], dict[str, Any]]] = []
    for name, values in changes.items():
        store = privacy.personal(name)
        where, right = await _planned(store, subject, values)
        if isinstance(store, RecordStore):
            records.append((store, where, right))
        else:
            work.setdefault(store.dataset.database, []).append((store, where, right))
    for store in (privacy.personal(name) for name in changes):
        # Keys and handles at hand: getting them ready is no part of the transaction.
        await privacy.keys.subject_key(store.dataset.name, subject)
    await privacy.keys.handle(subject)
    changed: dict[str, int] = {}
    for database, planned in work.items():
        changed |= await _in_database(privacy, database, planned, request, subject=subject, done=changed)
    for record_store, where, right in records:
        await _record(record_store, where, right, request, done=changed)
        changed[record_store.dataset.label] = 1
    return changed


async def _record(
    store: RecordStore, where: Mapping[str, Any], right: Mapping[str, Any], request: str, *, done: Mapping[str, int]
) -> None:
    """One record, where nothing commits together."""
    label = store.dataset.label
    try:
        found = await store.subjects.select(store.dataset.table, where)
        said = {"request": request}
        if len(found) == 1 and await store.change_record(found[0], right, action="rectified", details=said):
            return
        problem = "the record was changed meanwhile: ask again"
    except KeyErased:
        problem = "the law keeps the record as it is"
    except ConstraintViolated as error:
        problem = f"a constraint does not allow it ({error.constraint or error.code})"
    raise SubjectRequestRejected(f"{label}: {problem}{_before(done)}")


async def _planned(
    store: PersonalStore, subject: str, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    dataset = store.dataset
    if dataset.subject is None:
        raise ConfigurationError(f"datasets.{dataset.name} is about nobody: nobody can ask for its rectification")
    call = store.records.writes(store.holding) if isinstance(store, RecordStore) else None
    if call is not None:
        raise SubjectRequestRejected(f"{dataset.label}: what is there is one whole: write it anew with {call}")
    rows = await store.rows()
    rows.check_names(values)
    unknown = [name for name in values if name not in rows.columns]
    if unknown and not isinstance(store, RecordStore):
        raise ConfigurationError(f"{dataset.name} has no field {unknown[0]}")
    named = {name: value for name, value in values.items() if name in dataset.keys and name != dataset.subject}
    right = {name: value for name, value in values.items() if name not in named}
    if not right:
        raise SubjectRequestRejected(f"{dataset.label}: no field is to be changed")
    where = rows.where_subject(subject)
    if where is not None:
        where |= rows.fitted(named) | store.living()
        # Looked at first, so that a request about nobody leaves no key behind; the row is read again under a lock.
        names = None if isinstance(store, RecordStore) else [*dict.fromkeys((*dataset.keys, *where))]
        every = await store.subjects.select(dataset.table, where, columns=names)
        if isinstance(store, RecordStore) and rows.subject is not None:
            found = [row for row in every if (await store.records.whose(row, rows.subject, subject)).theirs]
        else:
            found = [row for row in every if rows.is_of(row, subject)]
        if len(found) > 1:
            raise SubjectRequestRejected(_several(dataset))
        missing = [name for name in unknown if found and value_at(found[0], name) is None]
        if missing:
            raise ConfigurationError(f"{dataset.name} has no field {missing[0]}")
        if found:
            return where, right
    raise SubjectRequestRejected(_NOTHING.format(dataset.label))


def _several(dataset: Dataset) -> str:
    return f"{dataset.label}: there are several rows: say which, by {', '.join(dataset.keys)} among the changes"


async def _in_database(
    privacy: Privacy, database: str, planned: _Work, request: str, *, subject: str, done: Mapping[str, int]
) -> dict[str, int]:
    provider = privacy.site(database).provider

    async def work(tx: Transaction) -> dict[str, int]:
        changed: dict[str, int] = {}
        for store, where, right in planned:
            label = store.dataset.label
            subjects = store.subjects
            every = await subjects.select(store.dataset.table, where, lock=True, transaction=tx)
            rows = await store.rows(tx)
            found = [row for row in every if rows.is_of(row, subject)]
            if len(found) != 1:
                raise SubjectRequestRejected(_several(store.dataset) if found else _NOTHING.format(label))
            await store.change_row(found[0], right, action="rectified", transaction=tx, details={"request": request})
            changed[label] = 1
        return changed

    try:
        return await needs(provider, "transactions").run_in_transaction(work)
    except KeyErased:
        problem = "the law keeps the row as it is"
    except ConstraintViolated as error:
        problem = f"a constraint does not allow it ({error.constraint or error.code})"
    raise SubjectRequestRejected(f"{database}: {problem}{_before(done)}")


def _before(done: Mapping[str, int]) -> str:
    return f"; changed already: {', '.join(done)}" if done else "; nothing was changed"

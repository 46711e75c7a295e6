"""The rectification of what is wrong about a person (GDPR Art. 16).

Rows of one database change together or not at all, and the step that says so commits with them: it is done once, and
what a crash or a store that is down leaves is gone on with.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    KeyErased,
    ProviderError,
    QueryRejected,
    SubjectRequestRejected,
)
from datavern.crypto.encoding import decode, encode
from datavern.privacy.personal.paths import value_at
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["Plan", "packed", "plan", "rectify", "unpacked"]

_NOTHING = "{}: nothing was found about this subject"

Changes = Mapping[str, Mapping[str, Any]]
_Work = list[tuple["PersonalStore", dict[str, Any], dict[str, Any]]]  # dataset, which row, the right values


@dataclass(slots=True)
class Plan:
    """What a rectification is to change.

    Attributes:
        stores: the datasets, in the order in which they were asked for.
        work: database → dataset, which row, the right values: they change together.
        records: the same, of engines where nothing commits together: one after the other.
        done: label → how many rows were changed before, by a run that did not come to its end.
        waiting: label → why it cannot be looked at now.
    """

    stores: list[PersonalStore] = field(default_factory=list)
    work: dict[str, _Work] = field(default_factory=dict)
    records: list[tuple[RecordStore, dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)


async def plan(privacy: Privacy, request: str, subject: str, changes: Changes | None) -> Plan:
    """What is to be changed, once it is known that it can be as it stands. Changes nothing.

    Args:
        privacy: the datasets.
        request: the request's id.
        subject: the canonical id.
        changes: dataset → field → right value. Where the subject has several rows in a dataset, the primary key among
            the values says which of them.

    Raises:
        SubjectRequestRejected: nothing is to be changed, nothing is there, or it is not said which of several rows.
        ConfigurationError: no such dataset or field.
    """
    if not changes or not all(changes.values()):
        raise SubjectRequestRejected('rectification: changes is missing: changes={"users": {"name": "Right Name"}}')
    found = Plan([privacy.personal(name) for name in changes])
    for store, values in zip(found.stores, changes.values(), strict=True):
        label = store.dataset.label
        try:
            if store.dataset.name in await privacy.site(store.dataset.database).steps.done(request):
                found.done[label] = 1
                continue
            where, right = await _planned(store, subject, values)
        except ProviderError as error:
            found.waiting[label] = _why(error)
            continue
        if isinstance(store, RecordStore):
            found.records.append((store, where, right))
        else:
            found.work.setdefault(store.dataset.database, []).append((store, where, right))
    return found


async def rectify(privacy: Privacy, request: str, subject: str, planned: Plan) -> dict[str, int]:
    """Write the right values; label → how many rows changed. Each dataset is done once, whoever runs this how often.

    A store that cannot be reached is left in `planned.waiting`; the others are done.

    Raises:
        SubjectRequestRejected: the law keeps a row as it is, or a constraint of the database does not allow the value
            (which is not told). The message says what was changed already.
    """
    stores = [store for work in planned.work.values() for store, _, _ in work] + [s for s, _, _ in planned.records]
    for store in stores:
        # Keys and handles at hand: getting them ready is no part of the transaction.
        await privacy.keys.subject_key(store.dataset.name, subject)
    await privacy.keys.handle(subject)
    changed = dict(planned.done)
    for database, work in planned.work.items():
        try:
            changed |= await _in_database(privacy, database, work, request, subject=subject, done=changed)
        except ProviderError as error:
            planned.waiting |= dict.fromkeys((s.dataset.label for s, _, _ in work), _why(error))
    for record_store, where, right in planned.records:
        label = record_store.dataset.label
        try:
            await _record(record_store, where, right, request, done=changed)
            await _recorded(privacy, record_store, request)
        except ProviderError as error:
            planned.waiting[label] = _why(error)
            continue
        changed[label] = 1
    return {store.dataset.label: 1 for store in planned.stores if store.dataset.label in changed}


async def _recorded(privacy: Privacy, store: RecordStore, request: str) -> None:
    """Write down a step that is done, where that could not be in the same transaction."""
    site = privacy.site(store.dataset.database)
    try:
        async with needs(site.provider, "transactions").transaction() as tx:
            await site.steps.record([(request, store.dataset.name, {"changed": 1})], tx)
    except ConstraintViolated:
        return  # another run has written it down


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
    except QueryRejected as error:
        problem = _refused(error)
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
    if rows.lacks(values):
        rows = await store.rows(fresh=True)
    rows.check_names(values)
    unknown = [name for name in values if name not in rows.columns]  # of records: of tables there are none here
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
            found = [row for row in every if await store.is_about(row, subject)]
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
    site = privacy.site(database)
    provider = site.provider

    async def work(tx: Transaction) -> dict[str, int]:
        changed: dict[str, int] = {}
        for store, where, right in planned:
            label = store.dataset.label
            await site.steps.record([(request, store.dataset.name, {"changed": 1})], tx)
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
    except QueryRejected as error:
        problem = _refused(error)
    # Or another process has done it meanwhile, and it was its step that the claim ran into.
    others = await site.steps.done(request)
    if all(store.dataset.name in others for store, _, _ in planned):
        return {store.dataset.label: 1 for store, _, _ in planned}
    raise SubjectRequestRejected(f"{database}: {problem}{_before(done)}")


def _why(error: ProviderError) -> str:
    return f"{type(error).__name__}: {error}"


def _refused(error: QueryRejected) -> str:
    if isinstance(error, ConstraintViolated):
        return f"a constraint does not allow it ({error.constraint or error.code})"
    return f"the database does not take it{f' ({error.code})' if error.code else ''}"


def packed(value: Any, where: str = "changes") -> Any:
    """A value as JSON holds it, so that `unpacked` gives back the Python type that went in.

    Raises:
        ConfigurationError: its type is none that can be kept; it says where the value stands, and does not quote it.
    """
    if isinstance(value, Mapping):
        return {"of": {str(name): packed(inner, f"{where}.{name}") for name, inner in value.items()}}
    if isinstance(value, list | tuple):
        return {"list": [packed(inner, where) for inner in value]}
    problem = ""
    try:
        return None if value is None else base64.b64encode(encode(value)).decode()
    except ConfigurationError as error:
        problem = str(error)
    raise ConfigurationError(f"{where}: {problem}")


def unpacked(value: Any) -> Any:
    """The value that `packed` was given."""
    if isinstance(value, Mapping):
        if "list" in value:
            return [unpacked(inner) for inner in value["list"]]
        return {name: unpacked(inner) for name, inner in value["of"].items()}
    return None if value is None else decode(base64.b64decode(value))


def _before(done: Mapping[str, int]) -> str:
    return f"; changed already: {', '.join(done)}" if done else "; nothing was changed"

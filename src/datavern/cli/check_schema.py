"""What the data map says against the live schema: what is missing, misspelt, unmapped, of the wrong kind or slow."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.cli.findings import Finding
from datavern.contracts.capabilities import needs
from datavern.contracts.errors import CapabilityMissing, DatavernError
from datavern.contracts.stores import ShapeColumn

if TYPE_CHECKING:
    from datavern.contracts.stores import Column, Store
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["examine_dataset", "examine_unmapped"]

_MOST_TABLES = 500
"""Tables of a database that are looked at for people whom the map does not name."""
_NO_ID = ("bytea", "blob", "binary", "bool", "date", "time", "real", "float", "double", "json", "xml", "array")
"""Parts of the names of types that no id of a person is kept as."""


async def examine_dataset(dataset: Dataset, data_map: DataMap, databases: Mapping[str, Any]) -> list[Finding]:
    """One dataset; the first finding says whether it can be worked with, the others are notes."""
    provider = databases[dataset.database]
    part = f"datasets.{dataset.name}"
    try:
        if provider.capabilities.records is not None:
            return [await _records(dataset, provider), *_numbers(dataset, data_map)]
        subjects = needs(provider, "subjects")
        store = await subjects.describe(dataset.table)
        if store is None:
            near = _nearest(dataset.table, await _tables(provider))
            hint = f"did you mean {near} (store)? Else " if near else ""
            detail = (
                f"{dataset.database} has no table {dataset.table}: {hint}`datavern prepare {dataset.name}` makes it"
            )
            return [Finding(part, ok=False, detail=detail)]
        wrong = [*_missing(dataset, store), *_kinds(dataset, store, subjects)]
        wrong += await _halfway(dataset, store, provider)
    except DatavernError as error:
        return [Finding(part, ok=False, detail=str(error))]
    if wrong:
        return [Finding(part, ok=False, detail=detail) for detail in wrong]
    sealed = f", {len(dataset.sealed)} of {len(dataset.fields)} fields sealed" if dataset.fields else ""
    notes = [*_unmapped_columns(dataset, data_map, store), *_unindexed(dataset, data_map, store, subjects)]
    return [
        Finding(part, ok=True, detail=f"{dataset.label}{sealed}"),
        *(Finding(part, ok=True, detail=note, note=True) for note in notes),
        *_numbers(dataset, data_map),
    ]


async def examine_unmapped(database: str, data_map: DataMap, provider: Any) -> list[Finding]:
    """Tables of a database that the map does not name, with a column by which it finds people elsewhere: notes."""
    mapped = data_map.of_database(database)
    names = {dataset.subject: dataset for dataset in mapped if dataset.subject not in {None, *dataset.keys}}
    try:
        samples, subjects = needs(provider, "samples"), needs(provider, "subjects")
        known = {dataset.table for dataset in mapped}
        stores = [name for name in await samples.stores() if name not in known and name.rpartition(".")[2] not in known]
        found = []
        for name in stores[:_MOST_TABLES] if names else ():
            store = await subjects.describe(name)
            columns = [c.name for c in store.columns if c.name in names] if store is not None else []
            found += [(name, column) for column in columns]
    except CapabilityMissing:
        return []
    except DatavernError as error:
        return [Finding(f"databases.{database}", ok=False, detail=str(error))]
    return [
        Finding(
            f"databases.{database}",
            ok=True,
            detail=f"the map does not name {name}, which has a column {column}, as {names[column].table} has for whom "
            "a row is about: name it, or be sure that it is about nobody",
            note=True,
        )
        for name, column in found
    ]


# ---- tables ---------------------------------------------------------------------------------------------------------


def _wanted(dataset: Dataset) -> list[str]:
    """The columns that the data map names."""
    named = (*dataset.keys, dataset.subject, dataset.retention_from, *dataset.fields)
    return list(dict.fromkeys(name for name in named if name is not None))


def _own(dataset: Dataset) -> list[str]:
    """The columns that Datavern keeps beside them."""
    from datavern.privacy.personal.shape import shape_of

    return [column.name for column in shape_of(dataset, None).columns if column.name not in _wanted(dataset)]


def _missing(dataset: Dataset, store: Store) -> list[str]:
    absent = [name for name in (*_wanted(dataset), *_own(dataset)) if store.column(name) is None]
    if not absent:
        return []
    spare = [column.name for column in store.columns if column.name not in {*_wanted(dataset), *_own(dataset)}]
    meant = {name: near for name in absent if (near := _nearest(name, spare)) is not None}
    hints = "".join(f"; {name}: did you mean {near}?" for name, near in meant.items())
    only = "" if len(meant) < len(absent) else "If not, "
    return [f"{dataset.table} lacks {', '.join(absent)}{hints or ':'} {only}`datavern prepare {dataset.name}` makes it"]


def _kinds(dataset: Dataset, store: Store, subjects: Any) -> list[str]:
    wrong = []
    column = None if dataset.subject is None else store.column(dataset.subject)
    if column is not None and dataset.subject not in dataset.sealed and _no_id(column):
        wrong.append(
            f"{dataset.table}.{column.name} is {column.type}, and the ids of people are text, whole numbers or uuid: "
            "name the column that says whose row it is (subject), or migrate this one"
        )
    holds = getattr(subjects, "holds", None)
    for name in dataset.sealed:
        found = store.column(name)
        if holds is not None and found is not None and not holds(found, ShapeColumn(name, "bytes")):
            wrong.append(
                f"{dataset.table}.{name} is {found.type}, and a sealed field is bytes: `datavern seal "
                f"{dataset.name}.{name}` seals the column in place"
            )
    return wrong


async def _halfway(dataset: Dataset, store: Store, provider: Any) -> list[str]:
    """The columns that were set aside to be sealed, or opened, and still hold values in the clear."""
    from datavern.privacy.datamap.dataset import ASIDE

    wrong = []
    for name in dataset.sealed:
        column = store.column(name + ASIDE)
        number = 0 if column is None else await needs(provider, "columns").count(dataset.table, name + ASIDE)
        if number:
            wrong.append(
                f"{dataset.table}.{name}: {number:,} {'value is' if number == 1 else 'values are'} in the clear, in "
                f"{name + ASIDE}: `datavern seal {dataset.name}.{name}` goes on where it stopped"
            )
    return wrong


def _no_id(column: Column) -> bool:
    kind = column.type.lower()
    return not column.exact or kind.endswith("[]") or any(part in kind for part in _NO_ID)


def _unmapped_columns(dataset: Dataset, data_map: DataMap, store: Store) -> list[str]:
    from datavern.privacy.datamap.dataset import ASIDE, ERASED_AT, RETAINED_UNTIL, ROW_TAG

    ours = {ROW_TAG, ERASED_AT, RETAINED_UNTIL, *(name + ASIDE for name in dataset.sealed)}
    there = [one for one in data_map if (one.database, one.table) == (dataset.database, dataset.table)]
    known = ours.union(*(_wanted(one) for one in there), *(_own(one) for one in there))
    spare = [column.name for column in store.columns if column.name not in known]
    if not spare:
        return []
    left = "an erasure that keeps the row leaves them as they are (`datavern scan` says what is in them)"
    return [f"{dataset.table}: the map does not name {', '.join(spare)}: {left}"]


def _unindexed(dataset: Dataset, data_map: DataMap, store: Store, subjects: Any) -> list[str]:
    """The columns by which rows are found, where finding them reads the whole table."""
    led = [via[1] for one in data_map if (via := data_map.via(one)) is not None and via[0].name == dataset.name]
    names = [name for name in dict.fromkeys((dataset.subject, *led)) if name is not None]
    make = getattr(subjects, "index", None)
    table = dataset.table.rpartition(".")[2]
    notes = []
    for name in names:
        if name not in dataset.sealed and name not in store.indexed and store.column(name) is not None:
            run = "" if make is None else f": {make('', f'{table}_{name}_idx', dataset.table, name)}"
            notes.append(
                f"no index begins with {dataset.table}.{name}, so every request of a person reads the whole table{run}"
            )
    return notes


# ---- documents, files, keys -----------------------------------------------------------------------------------------


async def _records(dataset: Dataset, provider: Any) -> Finding:
    """A dataset of documents, files or keys against what is there."""
    from datavern.privacy.datamap.holding import holding_of

    part = f"datasets.{dataset.name}"
    records = provider.capabilities.records
    lack = await records.missing(holding_of(dataset))
    if lack is not None and lack.wrong:
        near = None if dataset.key else _nearest(dataset.table, await _tables(provider), but=dataset.table)
        hint = f" (there is {near})" if near else ""
        detail = f"{lack.detail}{hint}: correct the data map, or `datavern prepare {dataset.name}`"
        return Finding(part, ok=False, detail=detail)
    where = dataset.key or f"{dataset.table}, {dataset.subject}"
    return Finding(part, ok=True, detail=f"{dataset.label}: {where}" + (f"; {lack.detail}" if lack else ""))


# ---- numbers in the clear -------------------------------------------------------------------------------------------


def _numbers(dataset: Dataset, data_map: DataMap) -> list[Finding]:
    """Where a fødselsnummer stands in the clear, the map says so each time: a note."""
    clear = [name for name, field in dataset.fields.items() if field.kind == "fodselsnummer" and not field.sealed]
    via = data_map.via(dataset)
    name = dataset.subject or dataset.key
    if via is not None and name not in dataset.sealed:
        reached = via[0].fields.get(via[1])
        if reached is not None and reached.kind == "fodselsnummer":
            clear.append(str(name))
    return [
        Finding(
            f"datasets.{dataset.name}",
            ok=True,
            detail=f"{one}: a fødselsnummer stands there in the clear: seal it with lookup = true, and rows are found "
            "through its index (personopplysningsloven § 12, GDPR Art. 32)",
            note=True,
        )
        for one in dict.fromkeys(clear)
    ]


async def _tables(provider: Any) -> list[str]:
    try:
        found: list[str] = await needs(provider, "samples").stores()
    except DatavernError:
        return []
    return found


def _nearest(name: str, names: Sequence[str], *, but: str = "") -> str | None:
    near = difflib.get_close_matches(name, [one for one in names if one != but], n=1)
    return near[0] if near else None

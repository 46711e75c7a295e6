"""What a dataset needs of its table, and the statements that made it so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from datavern.contracts.stores import Shape, ShapeColumn
from datavern.privacy.datamap.dataset import ERASED_AT, LOOKUP, NGRAMS, RETAINED_UNTIL, ROW_TAG

if TYPE_CHECKING:
    from datavern.contracts.stores import Store
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["DDL", "shape_of"]


class DDL(list[str]):
    """What `prepare` ran, statement by statement; it prints as the DDL that it is. Empty: nothing was missing."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(f"{statement};" for statement in self)


def shape_of(dataset: Dataset, store: Store | None) -> Shape:
    """What a dataset needs of its table: its key, its subject, its fields, and the columns that sealing adds.

    Args:
        dataset: the data map's entry.
        store: the table as it stands, or None. Columns that are there and are not sealed are the application's own
            affair: they are left out.
    """
    columns = _columns(dataset)
    if store is not None:
        ours = {*dataset.sealed, *dataset.indexes, ROW_TAG, ERASED_AT, RETAINED_UNTIL}
        columns = {name: c for name, c in columns.items() if name in ours or store.column(name) is None}
    return Shape(dataset.table, tuple(columns.values()), dataset.keys)


def _columns(dataset: Dataset) -> dict[str, ShapeColumn]:
    columns: dict[str, ShapeColumn] = {}
    fields = dataset.fields
    for name in dataset.keys:
        columns[name] = ShapeColumn(name, fields[name].type if name in fields else "text", nullable=False)
    if dataset.subject is not None and dataset.subject not in columns:
        kind = fields[dataset.subject].type if dataset.subject in fields else "text"
        sealed = dataset.subject in dataset.sealed  # a number that people are known by; its lookup is the index
        columns[dataset.subject] = ShapeColumn(dataset.subject, "bytes" if sealed else kind, indexed=not sealed)
    for name, f in fields.items():
        if name not in columns:
            kind = "bytes" if f.sealed else f.type
            columns[name] = ShapeColumn(name, kind, nullable=f.nullable, unique=f.unique and not f.sealed)
    for column, name in dataset.indexes.items():
        if column.endswith(NGRAMS):
            columns[column] = ShapeColumn(column, "text")
        else:
            unique = fields[name].unique and column == name + LOOKUP
            columns[column] = ShapeColumn(column, "bytes", indexed=True, unique=unique)
    if dataset.retention_from is not None and dataset.retention_from not in dataset.keys:
        dated = columns.get(dataset.retention_from) or ShapeColumn(dataset.retention_from, "date")
        columns[dataset.retention_from] = replace(dated, indexed=True)
    return columns | _own(dataset)


def _own(dataset: Dataset) -> dict[str, ShapeColumn]:
    own = []
    if dataset.needs_keys:
        own.append(ShapeColumn(ROW_TAG, "bytes", unique=True))
    if dataset.marks_erased:
        own.append(ShapeColumn(ERASED_AT, "text"))
    if dataset.erasure == "retain":
        own.append(ShapeColumn(RETAINED_UNTIL, "text", indexed=True))
    return {column.name: column for column in own}

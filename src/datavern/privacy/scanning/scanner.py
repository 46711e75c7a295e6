"""Looking through every store for personal data that the data map does not name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datavern.contracts.capabilities import Provider, needs
from datavern.contracts.errors import DatavernError
from datavern.privacy.scanning.columns import Judgement, judge

if TYPE_CHECKING:
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["Finding", "Scan", "Skipped", "scan"]

SAMPLE = 10_000
"""Rows of each store that are looked at."""
LEAST = 0.5
"""Confidence from which a column is told of."""

_SEALED = {
    "fodselsnummer": '{ sealed = true, lookup = true, kind = "fodselsnummer" }',
    "email": '{ sealed = true, lookup = true, kind = "email" }',
    "phone": '{ sealed = true, lookup = true, kind = "phone" }',
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A column that seems to hold personal data, and that the data map does not name.

    Attributes:
        database: the database's name in the manager.
        store: table, collection or family of keys.
        column: the column (in documents: the path).
        seems: what it seems to hold.
        others: what else it may hold, less surely.
        entry: what could stand in ``datavern.toml`` for it.
    """

    database: str
    store: str
    column: str
    seems: Judgement
    others: tuple[Judgement, ...]
    entry: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """What could not be looked at.

    Attributes:
        place: the database, or ``database.store``.
        reason: why.
    """

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found.

    Attributes:
        findings: the surest first.
        stores: how many stores were looked at.
        columns: how many columns with values.
        values: how many values.
        skipped: what could not be looked at.
    """

    findings: tuple[Finding, ...]
    stores: int
    columns: int
    values: int
    skipped: tuple[Skipped, ...]


async def scan(
    databases: Mapping[str, Provider],
    data_map: DataMap | None,
    *,
    sample: int = SAMPLE,
    least: float = LEAST,
    looked: Callable[[str], None] = lambda _: None,
) -> Scan:
    """Sample every store of these databases, and tell what the data map does not name.

    No value is kept, logged or returned. A store that may not be read is told of and passed over.

    Args:
        databases: name → provider, open.
        data_map: what is known already.
        sample: rows of each store.
        least: the confidence, 0 to 1, from which a column is told of.
        looked: called with each store (``main.users``) when it has been looked at.
    """
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    stores = columns = values = 0
    for name, provider in databases.items():
        known = _known(data_map.of_database(name) if data_map is not None else ())
        try:
            there = await needs(provider, "samples").stores()
        except DatavernError as error:
            skipped.append(Skipped(name, str(error)))
            continue
        for store in there:
            named = known.get(_bare(store), frozenset())
            if named is None:  # the whole store
                continue
            try:
                found = await needs(provider, "samples").sample(store, sample)
            except DatavernError as error:
                skipped.append(Skipped(f"{name}.{store}", str(error)))
                continue
            stores += 1
            for column, sampled in found.items():
                columns += bool(sampled)
                values += len(sampled)
                if _covered(column, named):
                    continue
                judged = [j for j in judge(column, sampled) if j.confidence >= least]
                if judged:
                    entry = _entry(name, store, column, judged[0])
                    findings.append(Finding(name, store, column, judged[0], tuple(judged[1:]), entry))
            looked(f"{name}.{store}")
    findings.sort(key=lambda f: (-f.seems.confidence, f.database, f.store, f.column))
    return Scan(tuple(findings), stores, columns, values, tuple(skipped))


def _known(datasets: Iterable[Dataset]) -> dict[str, frozenset[str] | None]:
    """Store → the columns that the map names; None for a store that it names whole."""
    known: dict[str, frozenset[str] | None] = {}
    for dataset in datasets:
        if dataset.key is not None:
            known[dataset.key.replace("{subject}", "*")] = None
            continue
        names = {*dataset.keys, *dataset.fields, *dataset.lookups.values(), "datavern_row"}
        if dataset.subject:
            names.add(dataset.subject)
        known[_bare(dataset.table)] = frozenset(names) | (known.get(_bare(dataset.table)) or frozenset())
    return known


def _bare(store: str) -> str:
    """Without the schema that a search path leads to anyhow."""
    return store.removeprefix("public.").removeprefix("main.")


def _covered(column: str, named: frozenset[str]) -> bool:
    """Whether the column, or what it lies in, is named."""
    parts = column.split(".")
    return any(".".join(parts[: i + 1]) in named for i in range(len(parts)))


def _entry(database: str, store: str, column: str, judged: Judgement) -> str:
    field = _SEALED.get(judged.kind, "{ sealed = true }")
    dataset = "".join(c if c.isalnum() or c in "_-" else "_" for c in store).strip("_") or "data"
    return f"[datasets.{_key(dataset)}.fields]  # database = {json.dumps(database)}\n{_key(column)} = {field}"


def _key(name: str) -> str:
    """A key as TOML writes it."""
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else json.dumps(name, ensure_ascii=False)

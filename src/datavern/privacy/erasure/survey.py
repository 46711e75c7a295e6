"""The datasets as an erasure finds them, in the order in which their rows go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.privacy.datamap.information import NOBODY

if TYPE_CHECKING:
    from datavern.contracts.errors import DatavernError
    from datavern.privacy.erasure.progress import Place
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Survey", "in_order", "recipients"]


@dataclass(slots=True)
class Survey:
    """The datasets as an erasure finds them.

    Attributes:
        labels: of all of them.
        stores: all of them.
        tables: database → those with rows that commit with their steps, in the order in which they go.
        records: those without.
        refused: label → why a dataset cannot be reached, or not be ended as it stands.
    """

    labels: tuple[str, ...]
    stores: Sequence[PersonalStore]
    tables: dict[str, list[Place]] = field(default_factory=dict)
    records: list[Place] = field(default_factory=list)
    refused: dict[str, DatavernError] = field(default_factory=dict)

    @property
    def linked(self) -> dict[str, list[str]]:
        """Dataset's label → the labels of those whose rows are found through it."""
        found: dict[str, list[str]] = {}
        for store in self.stores:
            if store.link is not None:
                found.setdefault(store.link.target.dataset.label, []).append(store.dataset.label)
        return found


def recipients(stores: Sequence[PersonalStore], *, found: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dataset → who was given its data and must be told (GDPR Art. 19), of the datasets where anything was found.

    Where the data map says that nobody is given it ("none"), there is nobody to tell.
    """
    told = {store.dataset.label: [one for one in store.dataset.recipients if one != NOBODY] for store in stores}
    return {label: names for label, names in told.items() if names and found.get(label, {}).get("found")}


def in_order(places: Sequence[Place]) -> list[Place]:
    """The datasets of one database: a row goes after what refers to it."""
    by_table = {place.store.dataset.table: place for place in places}
    ordered: list[Place] = []
    seen: set[str] = set()

    def visit(place: Place) -> None:
        if place.label in seen:
            return
        seen.add(place.label)
        referring = place.rows.store.referenced_by if place.rows is not None else ()
        others = [by_table[name] for name in (one.rpartition(".")[0] for one in referring) if name in by_table]
        for other in sorted(others, key=lambda one: one.label):
            visit(other)
        ordered.append(place)

    for place in places:
        visit(place)
    return ordered

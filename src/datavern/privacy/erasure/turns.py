"""In which turns an erasure goes through the datasets: nothing goes before what is found through it.

Where every dataset names its people itself there is one turn, and all databases go at the same time. Where rows are
reached through those of another dataset (`datavern.privacy.links`), they are ended first: in the same transaction, when
both lie in one database that has such, and in an earlier turn otherwise. What waits keeps what it is reached through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from datavern.privacy.erasure.progress import Place, Progress
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Turn", "found_first", "hold_back", "linked_first", "turns"]


@dataclass(slots=True)
class Turn:
    """What goes at the same time.

    Attributes:
        tables: database → its datasets whose rows commit with their steps, in the order in which they go.
        records: those without.
    """

    tables: dict[str, list[Place]] = field(default_factory=dict)
    records: list[Place] = field(default_factory=list)


def turns(tables: Mapping[str, Sequence[Place]], records: Sequence[Place]) -> list[Turn]:
    """The turns, in order; at least one.

    Args:
        tables: database → its datasets, in the order in which they go there.
        records: the datasets without transactions.
    """
    places = [*(place for found in tables.values() for place in found), *records]
    through = _through(places)
    known: dict[str, int] = {}

    def turn_of(place: Place) -> int:
        if place.label not in known:
            after = 0
            for other in through.get(place.label, ()):
                together = other.store.dataset.database == place.store.dataset.database and not (
                    isinstance(other.store, RecordStore) or isinstance(place.store, RecordStore)
                )
                after = max(after, turn_of(other) + (not together))
            known[place.label] = after
        return known[place.label]

    found = [Turn() for _ in range(max(map(turn_of, places), default=0) + 1)]
    for database, those in tables.items():
        for place in those:
            found[turn_of(place)].tables.setdefault(database, []).append(place)
    for place in records:
        found[turn_of(place)].records.append(place)
    return found


def linked_first(places: Sequence[Place]) -> list[Place]:
    """The datasets of one database in the same order, but none before those whose rows are found through it."""
    through = _through(places)
    ordered: list[Place] = []

    def put(place: Place) -> None:
        if place not in ordered:
            for other in through.get(place.label, ()):
                put(other)
            ordered.append(place)

    for place in places:
        put(place)
    return ordered


def found_first(stores: Iterable[PersonalStore]) -> list[PersonalStore]:
    """The stores in the same order, but none before those whose rows are found through it."""
    return [place.store for place in linked_first([Place(store, None) for store in stores])]


def hold_back(places: Iterable[Place], group: Iterable[Progress], linked: Mapping[str, Sequence[str]]) -> None:
    """Let datasets wait through which others are found that wait themselves.

    Args:
        places: those whose turn it is, in the order in which they go.
        group: the erasures.
        linked: dataset's label → the labels of those that are found through it.
    """
    for place in places:
        for progress in group:
            waits = next((label for label in linked.get(place.label, ()) if label in progress.waiting), None)
            if waits is not None and place.label not in progress.waiting and place.label not in progress.done:
                progress.waiting[place.label] = f"{waits} waits, and is found through it"


def _through(places: Iterable[Place]) -> dict[str, list[Place]]:
    """Dataset's label → the datasets whose rows are found through it."""
    found: dict[str, list[Place]] = {}
    for place in places:
        if place.store.link is not None:
            found.setdefault(place.store.link.target.dataset.label, []).append(place)
    return found

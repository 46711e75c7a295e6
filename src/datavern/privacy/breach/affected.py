"""How many people something touched: counted over datasets and engines, each person once, in constant memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, DatavernError, ProviderError
from datavern.privacy.breach.distinct import TAG, Distinct
from datavern.privacy.breach.scope import Scope, id_of, people_in

if TYPE_CHECKING:
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Affected", "Counted", "counted", "ids_of"]


@dataclass(frozen=True, slots=True)
class Counted:
    """One dataset.

    Attributes:
        label: ``database.dataset``.
        rows: how many rows (documents, keys).
        people: how many people they are about.
        nobody: rows that name no person: emptied by an erasure, or never anybody's.
        problem: why it could not be counted, or not whole; empty when it was.
    """

    label: str
    rows: int = 0
    people: int = 0
    nobody: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Affected:
    """People over all datasets.

    Attributes:
        people: how many different ones.
        datasets: one by one.
        counted_at: when, RFC 3339, in UTC.
        scope: in words, what was counted.
    """

    people: int
    datasets: tuple[Counted, ...]
    counted_at: str
    scope: str = ""

    @property
    def rows(self) -> int:
        """Rows, documents and keys in all."""
        return sum(one.rows for one in self.datasets)

    @property
    def lower_bound(self) -> bool:
        """Whether there may be more: something could not be counted."""
        return any(one.problem for one in self.datasets)


async def counted(
    stores: Sequence[PersonalStore],
    keys: KeyStore,
    *,
    scope_for: Callable[[str], Scope],
    only: Callable[[bytes], bool] | None = None,
    at: str,
    scope: str = "",
) -> Affected:
    """Count the people of datasets, each of them once, and their rows. A store that cannot be read is told of.

    Args:
        stores: the datasets.
        keys: knows how a person is named where only a keyed tag stands, and makes one name of all forms of an id.
        scope_for: name of a dataset → what of it.
        only: of a person's tag, whether the person counts; None: everybody.
        at: the moment, RFC 3339.
        scope: in words, what is counted.
    """
    found = []
    with Distinct() as everybody:
        for store in stores:
            part = await _count(store, keys, scope_for(store.dataset.name), only, everybody)
            found.append(part)
        return Affected(await asyncio.to_thread(everybody.count), tuple(found), at, scope)


async def _count(
    store: PersonalStore, keys: KeyStore, scope: Scope, only: Callable[[bytes], bool] | None, everybody: Distinct
) -> Counted:
    rows = nobody = 0
    label, problem = store.dataset.label, ""
    with Distinct() as people:
        try:
            if not await store.exists():
                return Counted(label)
            async for held in people_in(store, scope):
                marks = [mark for mark, _ in _named(held.people, keys)]
                if only is not None:
                    marks = [mark for mark in marks if only(mark)]
                    if not marks:
                        continue
                if not marks:
                    nobody += held.rows
                    continue
                rows += held.rows
                for mark in marks:
                    people.add(mark[:TAG])
                    everybody.add(mark[:TAG])
        except (ProviderError, ConfigurationError) as error:
            problem = str(error)
        return Counted(label, rows, await asyncio.to_thread(people.count), nobody, problem)


def _named(people: Iterable[Any], keys: KeyStore) -> Iterator[tuple[bytes, str | None]]:
    """The tags of people (a keyed hash of the id, in whatever type it stands), and their ids where these stand."""
    for person in people:
        if isinstance(person, bytes):
            yield person, None
        elif (text := id_of(person)) is not None:
            yield keys.subject_tag(text), text


async def ids_of(
    stores: Sequence[PersonalStore],
    keys: KeyStore,
    *,
    scope_for: Callable[[str], Scope],
    only: Callable[[bytes], bool] | None = None,
    into: Distinct,
) -> tuple[int, list[str]]:
    """Collect the ids of the people of datasets, each once.

    Args:
        stores, keys, scope_for, only: as `counted` takes them.
        into: takes them, a line of text each: `Distinct(None)`.

    Returns:
        How many more are known by a keyed tag alone, and what could not be read.
    """
    problems = []
    with Distinct() as named, Distinct() as tagged:
        for store in stores:
            try:
                if not await store.exists():
                    continue
                async for held in people_in(store, scope_for(store.dataset.name)):
                    for mark, text in _named(held.people, keys):
                        if only is not None and not only(mark):
                            continue
                        if text is None:
                            tagged.add(mark[:TAG])
                        else:
                            named.add(mark[:TAG])
                            into.add(mark, _line(text))
            except DatavernError as error:
                problems.append(f"{store.dataset.label}: {error}")
        known = tagged.count()
        if known:
            for mark in named.values():
                tagged.add(mark)
            known = tagged.count() - named.count()
        return known, problems


def _line(text: str) -> bytes:
    """An id as a line; one with a line break in it as JSON has it."""
    if text.splitlines() != [text]:
        import json  # noqa: PLC0415  (hardly any id is such)

        text = json.dumps(text, ensure_ascii=True)
    return text.encode("utf-8", "surrogatepass") + b"\n"

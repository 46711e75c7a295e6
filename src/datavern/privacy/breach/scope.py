"""Whose data there is in a part of a dataset: as its engine tells it, or row by row where it does not."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.people import Held, Window
from datavern.contracts.subjects import canonical_subject
from datavern.privacy.personal.ids import fit
from datavern.privacy.personal.rows import SHARED, WHOSE

if TYPE_CHECKING:
    from datavern.contracts.stores import Column
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.links.links import Link
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Scope", "id_of", "people_in", "window_of"]

_ERASED: Final = "erased-"
_PSEUDONYM: Final = len(_ERASED) + 16
_AT_ONCE: Final = 200  # ids in one condition
_BATCH: Final = 500  # rows whose people are looked up together
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a dataset was touched. All of it where nothing is said.

    Attributes:
        where: column = value pairs that must all hold; a tuple means any of these.
        window: rows of this time alone.
        subjects: these people alone, by canonical id.
    """

    where: Mapping[str, Any] | None = None
    window: Window | None = None
    subjects: tuple[str, ...] | None = None


def window_of(column: str, since: dt.datetime | None, until: dt.datetime | None) -> Window:
    """A window.

    Raises:
        ConfigurationError: a moment without a time zone, or an end before the beginning.
    """
    for moment in (since, until):
        if moment is not None and moment.tzinfo is None:
            raise ConfigurationError("window: a moment without a time zone is none")
    if since is not None and until is not None and until <= since:
        raise ConfigurationError("window: it ends before it begins")
    return Window(column, since, until)


def id_of(person: Any) -> str | None:
    """The canonical id; None for what names nobody: the pseudonym of somebody who was erased, a value that is no id."""
    if type(person) is str and len(person) == _PSEUDONYM and person.startswith(_ERASED):
        return None
    if type(person) is int and person < 0:  # a pseudonym, where the column holds whole numbers
        return None
    try:
        return canonical_subject(person)
    except ConfigurationError:
        return None


async def people_in(store: PersonalStore, scope: Scope) -> AsyncIterator[Held]:
    """The people of a part of a dataset, with how many rows; then whom else its rows name (`Field.of`), without any.

    Args:
        store: the dataset.
        scope: what of it.

    Raises:
        ConfigurationError, ProviderError: it cannot be counted.
    """
    async for one in _of_column(store, scope, None):
        yield one
    if store.provider.capabilities.people is None:
        return
    for column in _others(store.dataset):
        async for one in _of_column(store, scope, column):
            if one.people:
                yield Held(one.people, 0)


@asynccontextmanager
async def _held(store: PersonalStore, scope: Scope, column: str | None = None) -> AsyncIterator[AsyncIterator[Held]]:
    """The people of a dataset, as its engine counts them; one row after another where it does not.

    Args:
        store: the dataset.
        scope: what of it.
        column: that says whose the rows are; the subject's when None.
    """
    dataset = store.dataset
    subject = column or dataset.subject
    assert subject is not None  # noqa: S101  (for the type checker: those about people were chosen)
    people, link = store.provider.capabilities.people, store.link
    where = {**(await _conditions(store, scope.where or {})), **store.living()}
    if people is None or (link is not None and link.sealed):
        if scope.window is not None:
            raise ConfigurationError(f"{dataset.label}: its rows are read one by one here, without a window: use where")
        plan = await store.rows()
        async with store.subjects.stream(dataset.table, where) as rows:
            yield _one_by_one(plan.subject_of, rows) if link is None else _marked(link, rows)
        return
    async with people.people(dataset.table, subject, where, window=scope.window) as found:
        yield found if link is None or column is not None else _led(link, found)


async def _led(link: Link, found: AsyncIterator[Held]) -> AsyncIterator[Held]:
    """Whose rows are that hold a number of a person, or the key of another row, in a person's place."""
    async for batch in _batches(found):
        values: dict[str, list[Any]] = {}
        texts = [[text for value in held.people if (text := link.text(value)) is not None] for held in batch]
        for held, named in zip(batch, texts, strict=True):
            for text in named:
                values.setdefault(text, []).extend(held.people)
        known = await link.people(values)
        for held, named in zip(batch, texts, strict=True):
            yield Held(tuple({person for text in named if (person := known.get(text)) is not None}), held.rows)


async def _marked(link: Link, rows: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[Held]:
    """The same of rows that hold it sealed."""
    async for batch in _batches(rows):
        for row in await link.marked(batch):
            whose = row[WHOSE]
            yield Held(row[SHARED] if whose is None else (whose,), 1)


async def _batches(found: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    batch: list[T] = []
    async for one in found:
        batch.append(one)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _conditions(store: PersonalStore, where: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, as the store has it: a number that was given as text, the lookup of a sealed field.

    Raises:
        ConfigurationError: no such column, or one that is sealed and has no lookup.
    """
    if not where:
        return {}
    plan = await store.rows()
    fitted: dict[str, Any] = {}
    for name, value in where.items():
        column = plan.store.column(name)
        if column is None or name in store.dataset.sealed or name == store.dataset.subject:
            fitted[name] = value
            continue
        several = value if isinstance(value, tuple) else (value,)
        values = tuple(one for text in several for one in _fitting(column, text))
        fitted[name] = values if len(values) != 1 else values[0]
    return plan.where_fields(fitted)


def _fitting(column: Column, value: Any) -> Iterator[Any]:
    """A value as the column's type wants it; none where the column can hold no such value."""
    if not isinstance(value, str):
        yield value
        return
    try:
        yield fit(column, value)
    except ValueError:
        return


async def _one_by_one(subject_of: Callable[[Mapping[str, Any]], str | None], rows: Any) -> AsyncIterator[Held]:
    async for row in rows:
        person = subject_of(row)
        yield Held(() if person is None else (person,), 1)


def _others(dataset: Dataset) -> Iterator[str]:
    """The columns, or paths, that say whose a field is, where it is not the row's subject's."""
    named = (field.of for field in dataset.fields.values())
    yield from dict.fromkeys(of.replace(".*.", ".") for of in named if of is not None and of != dataset.subject)


async def _of_column(store: PersonalStore, scope: Scope, column: str | None) -> AsyncIterator[Held]:
    if scope.subjects is None:
        async with _held(store, scope, column) as found:
            async for one in found:
                yield one
        return
    subject = column or store.dataset.subject
    if column is None and store.link is not None:
        everyone = set(scope.subjects)
        async with _held(store, replace(scope, subjects=None)) as found:
            async for one in found:
                if everyone.intersection(map(id_of, one.people)):
                    yield one
        return
    for at in range(0, len(scope.subjects), _AT_ONCE):
        wanted = scope.subjects[at : at + _AT_ONCE]
        narrowed = replace(scope, where={**(scope.where or {}), str(subject): wanted}, subjects=None)
        known = {*wanted}
        async with _held(store, narrowed, column) as found:
            async for one in found:
                # A document of several people counts for those who are asked about.
                people = tuple(p for p in one.people if isinstance(p, bytes) or id_of(p) in known)
                if people:
                    yield Held(people, one.rows)

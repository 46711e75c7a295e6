"""How many people something touched: counted over datasets and engines, each person once, in constant memory."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final, Self, TypeVar

from datavern.contracts.errors import ConfigurationError, DatavernError, ProviderError
from datavern.contracts.people import Held, Window
from datavern.contracts.subjects import canonical_subject
from datavern.privacy.personal.ids import fit
from datavern.privacy.personal.rows import SHARED, WHOSE

if TYPE_CHECKING:
    from datavern.contracts.stores import Column
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.links.links import Link
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Affected", "Counted", "Scope", "counted", "ids_of"]

_TAG: Final = 16  # bytes of the key store's tag of a person: two people share them once in 2^64 people
_BUCKETS: Final = 128
_IN_MEMORY: Final = 1 << 16  # bytes of a bucket before it goes to a file
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


class Distinct:
    """Different values among many, in memory for a part of them: what does not fit lies in unnamed files.

    Args:
        width: bytes of each value; None: lines of text.
    """

    def __init__(self, width: int | None = _TAG) -> None:
        self._width = width
        self._buckets = [bytearray() for _ in range(_BUCKETS)]
        self._files: dict[int, IO[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def add(self, mark: bytes, value: bytes | None = None) -> None:
        """One more value. `mark` says which are the same; with no `value` it is the value.

        Raises:
            ConfigurationError: there is no room for it.
        """
        number = mark[0] % _BUCKETS
        bucket = self._buckets[number]
        bucket += mark if value is None else value
        if len(bucket) >= _IN_MEMORY:
            self._put_away(number, bucket)

    def _put_away(self, number: int, bucket: bytearray) -> None:
        """Write a bucket to its file.

        Raises:
            ConfigurationError: there is no room for it.
        """
        problem = ""
        try:
            file = self._files.get(number)
            if file is None:
                opened = TemporaryFile()  # noqa: SIM115  (closed with the others)
                file = self._files[number] = self._stack.enter_context(opened)
            file.write(bucket)
            file.flush()
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem:
            raise ConfigurationError(f"temporary files cannot be written: {problem}: set TMPDIR to another folder")
        bucket.clear()

    def _bucket(self, number: int) -> set[bytes]:
        file = self._files.get(number)
        data = b""
        if file is not None:
            file.seek(0)
            data = file.read()
            file.seek(0, 2)
        data += self._buckets[number]
        width = self._width
        if width is None:
            return set(data.splitlines())
        return {data[at : at + width] for at in range(0, len(data), width)}

    def count(self) -> int:
        """How many different ones."""
        return sum(len(self._bucket(number)) for number in range(_BUCKETS))

    def values(self) -> Iterator[bytes]:
        """Each of them once, in no order."""
        for number in range(_BUCKETS):
            yield from self._bucket(number)


def scope_of(
    dataset: str,
    *,
    where: Mapping[str, Mapping[str, Any]] | None,
    windows: Mapping[str, Window] | None,
    subjects: Sequence[str] | None,
) -> Scope:
    """The scope of one dataset, out of those of all."""
    return Scope(
        (where or {}).get(dataset), (windows or {}).get(dataset), None if subjects is None else tuple(subjects)
    )


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


async def _of_scope(store: PersonalStore, scope: Scope) -> AsyncIterator[Held]:
    """The same, for everybody or for these people alone; after them whom else the rows name (`Field.of`), without rows.

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
                if everyone.intersection(map(_text, one.people)):
                    yield one
        return
    for at in range(0, len(scope.subjects), _AT_ONCE):
        wanted = scope.subjects[at : at + _AT_ONCE]
        narrowed = replace(scope, where={**(scope.where or {}), str(subject): wanted}, subjects=None)
        known = {*wanted}
        async with _held(store, narrowed, column) as found:
            async for one in found:
                # A document of several people counts for those who are asked about.
                people = tuple(p for p in one.people if isinstance(p, bytes) or _text(p) in known)
                if people:
                    yield Held(people, one.rows)


def _text(person: Any) -> str | None:
    """The canonical id; None for what names nobody: the pseudonym of somebody who was erased, a value that is no id."""
    if type(person) is str and len(person) == _PSEUDONYM and person.startswith(_ERASED):
        return None
    if type(person) is int and person < 0:  # a pseudonym, where the column holds whole numbers
        return None
    try:
        return canonical_subject(person)
    except ConfigurationError:
        return None


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
            async for held in _of_scope(store, scope):
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
                    people.add(mark[:_TAG])
                    everybody.add(mark[:_TAG])
        except (ProviderError, ConfigurationError) as error:
            problem = str(error)
        return Counted(label, rows, await asyncio.to_thread(people.count), nobody, problem)


def _named(people: Iterable[Any], keys: KeyStore) -> Iterator[tuple[bytes, str | None]]:
    """The tags of people (a keyed hash of the id, in whatever type it stands), and their ids where these stand."""
    for person in people:
        if isinstance(person, bytes):
            yield person, None
        elif (text := _text(person)) is not None:
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
                async for held in _of_scope(store, scope_for(store.dataset.name)):
                    for mark, text in _named(held.people, keys):
                        if only is not None and not only(mark):
                            continue
                        if text is None:
                            tagged.add(mark[:_TAG])
                        else:
                            named.add(mark[:_TAG])
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

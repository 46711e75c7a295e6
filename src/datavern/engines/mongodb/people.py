"""Who is in a collection, and how often. Nothing of a document is read but whose it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.people import Held, Window
from datavern.engines.mongodb.batches import next_batch
from datavern.engines.mongodb.keys import TAG_PATHS
from datavern.engines.mongodb.paths import field_path, id_of, values_at

if TYPE_CHECKING:
    from types import TracebackType

    from datavern.engines.mongodb.provider import MongoDBProvider
    from datavern.engines.mongodb.subjects import MongoDBSubjects

__all__ = ["MongoDBPeople"]

_BATCH: Final = 5000


class MongoDBPeople:
    """`datavern.contracts.people.People` on MongoDB: a document that names several people is each one's.

    Args:
        provider: the provider.
        subjects: its collections.
    """

    __slots__ = ("_provider", "_subjects")

    def __init__(self, provider: MongoDBProvider, subjects: MongoDBSubjects) -> None:
        self._provider = provider
        self._subjects = subjects

    def people(self, store: str, subject: str, where: Mapping[str, Any], *, window: Window | None = None) -> _People:
        """See `People.people`. A moment may be a date or text in the form of RFC 3339; a text is one of UTC."""
        return _People(self._provider, self._subjects, store, field_path(subject), where=where, window=window)


class _People:
    """The block of `MongoDBPeople.people`."""

    __slots__ = ("_found", "_path", "_provider", "_store", "_subjects", "_where", "_window")

    def __init__(
        self,
        provider: MongoDBProvider,
        subjects: MongoDBSubjects,
        store: str,
        path: str,
        *,
        where: Mapping[str, Any],
        window: Window | None,
    ) -> None:
        self._provider = provider
        self._subjects = subjects
        self._store = store
        self._path = path
        self._where = where
        self._window = window
        self._found: Any = None

    async def __aenter__(self) -> AsyncIterator[Held]:
        query = await self._subjects.filter(self._where)
        if self._window is not None:
            query = {"$and": [query, _within(self._window)]} if query else _within(self._window)
        self._found = self._read(query)
        return self._found  # type: ignore[no-any-return]  # the iterator

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        found, self._found = self._found, None
        if found is not None:
            await found.aclose()

    async def _read(self, query: Mapping[str, Any]) -> AsyncIterator[Held]:
        parts, tagged = self._path.split("."), self._path in TAG_PATHS
        wanted = {self._path: 1} if parts[0] == "_id" else {self._path: 1, "_id": 0}
        cursor = self._provider.raw(self._store).find(query, wanted, batch_size=_BATCH)
        try:
            while found := await next_batch(cursor, _BATCH, provider=self._provider.name):
                for document in found:
                    yield Held(tuple(dict.fromkeys(_ids(values_at(document, parts), tagged=tagged))), 1)
        finally:
            await cursor.close()


def _ids(values: Iterable[Any], *, tagged: bool) -> Iterator[Any]:
    for value in values:
        if tagged:
            if isinstance(value, bytes):
                yield bytes(value)
        elif (found := id_of(value)) is not None:
            yield found


def _within(window: Window) -> dict[str, Any]:
    """A comparison goes by type: dates with dates, and text with text."""
    path = field_path(window.column)
    dates: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for operator, moment in (("$gte", window.since), ("$lt", window.until)):
        if moment is not None:
            dates[operator] = moment
            texts[operator] = _text(moment)
    return {"$or": [{path: dates}, {path: texts}]}


def _text(moment: Any) -> str:
    import datetime as dt  # noqa: PLC0415  (for this alone)

    return str(moment.astimezone(dt.UTC).isoformat().replace("+00:00", ""))  # a prefix of it with Z, or with fractions

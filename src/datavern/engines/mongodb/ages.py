"""Documents by their age: see `datavern.contracts.ages.Ages`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate
from datavern.engines.mongodb.paths import Document, field_path
from datavern.engines.mongodb.subjects import MongoDBSubjects

if TYPE_CHECKING:
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["MongoDBAges"]


class MongoDBAges:
    """`Ages` on MongoDB: by a path, at which a date stands, or its text. Nothing is locked.

    Args:
        provider: the provider.
        subjects: its documents.
    """

    __slots__ = ("_provider", "_subjects")

    def __init__(self, provider: MongoDBProvider, subjects: MongoDBSubjects) -> None:
        self._provider = provider
        self._subjects = subjects

    async def past(
        self,
        store: str,
        column: str,
        before: dt.date,
        *,
        where: Mapping[str, Any],
        keys: Sequence[str],  # noqa: ARG002  (a document has one key)
        after: Sequence[Any] | None,
        limit: int,
        columns: Sequence[str] | None = None,  # noqa: ARG002  (a document is read whole)
        transaction: Any = None,
    ) -> list[dict[str, Any]]:
        """A batch of documents whose date lies before a day, in the order of their ids."""
        query = await self._query(column, before, where)
        if after is not None:
            query = {"$and": [query, {"_id": {"$gt": after[0]}}]}
        error: BaseException | None = None
        try:
            found = self._provider.raw(store).find(query, sort=[("_id", 1)], limit=limit, session=transaction)
            return [Document(one) for one in await found.to_list(None)]
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name)
        raise error

    def behind(self, row: Mapping[str, Any], column: str, keys: Sequence[str]) -> Sequence[Any]:  # noqa: ARG002  (the protocol's)
        """The id: the order of `past`."""
        return [row["_id"]]

    async def count(self, store: str, column: str, before: dt.date, *, where: Mapping[str, Any]) -> tuple[int, Any]:
        """How many such documents there are, and the oldest date."""
        query, path = await self._query(column, before, where), field_path(column)
        error: BaseException | None = None
        try:
            collection = self._provider.raw(store)
            number = await collection.count_documents(query)
            oldest = await collection.find_one(query, {path: 1}, sort=[(path, 1)]) if number else None
            return number, None if oldest is None else Document(oldest).get(path)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name)
        raise error

    async def _query(self, column: str, before: dt.date, where: Mapping[str, Any]) -> dict[str, Any]:
        path = field_path(column)
        moment = dt.datetime(before.year, before.month, before.day, tzinfo=dt.UTC)
        # MongoDB compares values of one type with one another alone.
        dated = {"$or": [{path: {"$lt": moment}}, {path: {"$lt": before.isoformat()}}]}
        return {"$and": [dated, await self._subjects.filter(where)]} if where else dated

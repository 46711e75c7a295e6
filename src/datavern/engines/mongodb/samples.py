"""What lies in the collections, a sample of it: for `datavern scan`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pymongo.errors import OperationFailure, PyMongoError

from datavern.engines.leaves import leaves
from datavern.engines.mongodb.errors import translate

if TYPE_CHECKING:
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["MongoDBSamples"]


class MongoDBSamples:
    """`Samples` on MongoDB: documents drawn by the server (``$sample``)."""

    def __init__(self, provider: MongoDBProvider) -> None:
        self._provider = provider

    async def stores(self) -> list[str]:
        """The collections, without the server's, Datavern's and the chunks of files."""
        names = await self._asked(self._provider.database.list_collection_names)
        return sorted(n for n in names if not n.startswith(("system.", "datavern_")) and not n.endswith(".chunks"))

    async def sample(self, store: str, size: int) -> dict[str, list[Any]]:
        """Values by path, as a document in a document is addressed: ``owner.email``; of a list, each element."""
        collection = self._provider.raw(store)
        found: dict[str, list[Any]] = {}
        for document in await self._asked(partial(_drawn, collection, size)):
            for path, value in leaves(document):
                found.setdefault(path, []).append(value)
        return found

    async def _asked(self, work: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        try:
            return await work()
        except PyMongoError as error:
            failure = translate(error, provider=self._provider.name)
        raise failure


async def _drawn(collection: Any, size: int) -> list[Any]:
    try:
        async with await collection.aggregate([{"$sample": {"size": size}}]) as cursor:
            return await cursor.to_list(size)  # type: ignore[no-any-return]  # a list of documents
    except OperationFailure:  # a server that does not draw
        return await collection.find().limit(size).to_list(size)  # type: ignore[no-any-return]  # as above

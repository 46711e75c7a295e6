"""The documents of MongoDB's collections, addressed by plain values of their fields: what personal data needs."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bson import Binary, ObjectId
from bson.regex import Regex

from datavern.contracts.stores import Column, Shape, Store, Words
from datavern.contracts.subjects import canonical_subject
from datavern.engines.mongodb.batches import next_batch
from datavern.engines.mongodb.collections import Index, described_fields, schema_of
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate
from datavern.engines.mongodb.keys import TAG_PATHS
from datavern.engines.mongodb.paths import Document, field_path, forms_of, nested

if TYPE_CHECKING:
    from types import TracebackType

    from pymongo.asynchronous.client_session import AsyncClientSession

    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["MongoDBSubjects"]


# What each type of a shape is in a $jsonSchema. A date may be text too: BSON has no date without a time.
_BSON_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("string",),
    "integer": ("int", "long"),
    "real": ("double", "int", "long", "decimal"),
    "boolean": ("bool",),
    "bytes": ("binData",),
    "date": ("date", "string"),
    "timestamp": ("date", "string"),
    "json": ("object", "array", "string", "bool", "int", "long", "double"),
    "id": ("string", "int", "long", "objectId", "binData", "array"),
}
_UNIQUE_TYPES: Final[Mapping[str, str]] = {"bytes": "binData", "integer": "number", "real": "number", "boolean": "bool"}


class MongoDBSubjects:
    """`Subjects` on MongoDB: a store is a collection, a column is a field or a dotted path.

    A path that leads through an array reaches every element of it, as it does everywhere in MongoDB: a document that
    names several people is each one's. Every value is compared, never run: a mapping or a pattern is a value too.
    Files are reached as the store ``<bucket>.files``, and are deleted with their chunks.

    Args:
        provider: the provider.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: MongoDBProvider) -> None:
        self._provider = provider

    # ---- the collection ---------------------------------------------------------------------------------------------

    async def describe(
        self,
        store: str,
        *,
        transaction: AsyncClientSession | None = None,  # noqa: ARG002  (MongoDB tells of collections outside of them)
    ) -> Store | None:
        """The collection as its validator and indexes describe it, or None when there is none.

        A field that neither names is unknown here, though documents may have it.
        """
        options = await self._provider.collection_options(store)
        if options is None:
            return None
        indexes = await self._provider.indexes(store)
        fields = described_fields(schema_of(options))
        for one in indexes:
            for path in one.keys:
                fields.setdefault(path, ("", True))
        fields.setdefault("_id", ("", False))
        columns = tuple(
            Column(path, kind, nullable and path != "_id", 1 if path == "_id" else 0, path == "_id")
            for path, (kind, nullable) in fields.items()
        )
        return Store(
            store,
            columns,
            unique=tuple(frozenset(one.keys) for one in indexes if one.unique or one.name == "_id_"),
            indexed=frozenset(next(iter(one.keys)) for one in indexes),
        )

    async def prepare(self, shape: Shape) -> list[str]:
        """Make the collection, its validator's fields and its indexes where they are missing. Idempotent.

        Fields get their types in the collection's ``$jsonSchema``; none becomes required, so that documents of other
        writers are not turned away. What is there stays as it is.

        Raises:
            ConfigurationError: a field is there with a type that cannot hold what it must.
        """
        properties: dict[str, Any] = {}
        indexes = []
        for column in shape.columns:
            path = field_path(column.name)
            if path != "_id":
                kinds = _BSON_TYPES[column.type] + (("null",) if column.nullable else ())
                properties[path] = kinds
            if column.unique and path != "_id":
                # Null counts as a value in a unique index: what is left out, or emptied by an erasure, must not clash.
                partial = {path: {"$type": _UNIQUE_TYPES.get(column.type, "string")}}
                indexes.append(Index({path: 1}, name=f"{path}_1_unique", unique=True, partial=partial))
            if column.indexed and path != "_id" and shape.primary_key != (column.name,):  # that one gets its own, below
                indexes.append(Index({path: 1}))
        if shape.primary_key and shape.primary_key != ("_id",):
            indexes.append(Index(dict.fromkeys(shape.primary_key, 1), unique=True))
        return await self._provider.prepare_collection(shape.store, indexes=indexes, fields=properties)

    # ---- documents --------------------------------------------------------------------------------------------------

    async def insert(
        self, store: str, rows: Sequence[Mapping[str, Any]], *, transaction: AsyncClientSession | None = None
    ) -> None:
        """Insert documents, all or none; columns may be dotted paths."""
        documents = [nested(row) for row in rows]
        if not documents:
            return
        self._check_clear(store, documents)
        if len(documents) > 1 and transaction is None:
            async with self._provider.transaction() as session:
                await self._insert(store, documents, session)
        else:
            await self._insert(store, documents, transaction)

    async def _insert(self, store: str, documents: list[dict[str, Any]], session: AsyncClientSession | None) -> None:
        collection = self._provider.raw(store)
        error: BaseException | None = None
        current: Any = None
        try:
            if len(documents) == 1:
                current = documents[0]
                await collection.insert_one(documents[0], session=session)
            else:
                await collection.insert_many(documents, session=session)
        except DRIVER_ERRORS as caught:
            if current is None:
                current = {str(i): document for i, document in enumerate(documents)}
            error = self._translate(caught, current)
        if error is not None:
            raise error

    async def select(
        self,
        store: str,
        where: Mapping[str, Any],
        *,
        columns: Sequence[str] | None = None,
        order_by: Sequence[str] = (),
        limit: int | None = None,
        lock: bool = False,
        transaction: AsyncClientSession | None = None,
    ) -> list[dict[str, Any]]:
        """Documents that match; with `columns` these paths of them, by their names.

        `lock` needs a transaction: each document found is written to in it, so that whoever changes it meanwhile
        conflicts with this transaction (``SerializationConflict``, to be run again).
        """
        if limit == 0:
            return []
        collection = self._provider.raw(store)
        query = await self.filter(where)
        sort = [(field_path(path), 1) for path in order_by]
        error: BaseException | None = None
        found: list[dict[str, Any]] = []
        try:
            if lock and transaction is not None:
                await collection.update_many(query, {"$set": {"datavern_lock": ObjectId()}}, session=transaction)
                await collection.update_many(query, {"$unset": {"datavern_lock": ""}}, session=transaction)
            cursor = collection.find(query, sort=sort or None, limit=limit or 0, session=transaction)
            found = await cursor.to_list(None)
        except DRIVER_ERRORS as caught:
            error = self._translate(caught, where)
        if error is not None:
            raise error
        documents = [Document(one) for one in found]
        if columns is None:
            return list(documents)
        return [{path: one.get(path) for path in columns} for one in documents]

    def stream(
        self,
        store: str,
        where: Mapping[str, Any],
        *,
        batch_size: int = 1000,
        transaction: AsyncClientSession | None = None,
    ) -> Stream:
        """Documents that match, in constant memory."""
        return Stream(self, self._provider, store=store, where=where, size=batch_size, transaction=transaction)

    async def update(
        self,
        store: str,
        where: Mapping[str, Any],
        changes: Mapping[str, Any],
        *,
        transaction: AsyncClientSession | None = None,
    ) -> int:
        """Set fields of the documents that match; how many matched. An empty `where` raises `ValueError`."""
        if not where:
            raise ValueError("an empty where means every document, and nobody means that")
        if not changes:
            return 0
        update = {"$set": {field_path(path): value for path, value in changes.items()}}
        self._check_clear(store, [changes])
        query = await self.filter(where)
        error: BaseException | None = None
        try:
            result = await self._provider.raw(store).update_many(query, update, session=transaction)
        except DRIVER_ERRORS as caught:
            error = self._translate(caught, changes)
        else:
            return result.matched_count
        raise error

    async def delete(
        self, store: str, where: Mapping[str, Any], *, transaction: AsyncClientSession | None = None
    ) -> int:
        """Delete the documents that match; how many. An empty `where` raises `ValueError`."""
        if not where:
            raise ValueError("an empty where means every document, and nobody means that")
        query = await self.filter(where)
        provider = self._provider
        error: BaseException | None = None
        try:
            if store == provider.files.store:
                chunks = provider.raw(f"{provider.settings.bucket}.chunks")
                async for file in provider.raw(store).find(query, {"_id": 1}, session=transaction):
                    await chunks.delete_many({"files_id": {"$eq": file["_id"]}}, session=transaction)
            result = await provider.raw(store).delete_many(query, session=transaction)
        except DRIVER_ERRORS as caught:
            error = self._translate(caught, where)
        else:
            return result.deleted_count
        raise error

    # ---- fields that MongoDB's own means encrypt --------------------------------------------------------------------

    def _check_clear(self, store: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse values in the clear where MongoDB's own encryption has a field."""
        encrypted = self._provider.field_encryption.of(store)
        if encrypted is not None:
            encrypted.rules.check_clear(rows)

    # ---- queries ----------------------------------------------------------------------------------------------------

    async def filter(self, where: Mapping[str, Any]) -> dict[str, Any]:
        """Column = value pairs as a query in which nothing but equality can stand."""
        parts: list[dict[str, Any]] = []
        for name, value in where.items():
            path = field_path(name)
            if isinstance(value, Words):  # letters and digits, so that none of them is an operator of a pattern
                parts += [{path: {"$regex": word}} for word in sorted(value)]
                continue
            values = list(value) if isinstance(value, tuple) else [value]
            if path in TAG_PATHS:
                values = [await self._tag(one) for one in values]
            forms = [form for one in values for form in forms_of(one)]
            if len(forms) == 1:
                parts.append({path: {"$eq": forms[0]}})
            elif any(isinstance(form, re.Pattern | Regex) for form in forms):
                parts.append({"$or": [{path: {"$eq": form}} for form in forms]})  # in $in a pattern would be matched
            else:
                parts.append({path: {"$in": forms}})
        query: dict[str, Any] = {}
        for part in parts:
            query |= part
        return query if len(query) == len(parts) else {"$and": parts}  # one path, or $or, twice

    async def _tag(self, value: Any) -> Any:
        """The keyed tag that stands for a subject in documents and files; bytes are one already."""
        if value is None or isinstance(value, bytes):
            return value
        store = await self._provider.keys.ready("a subject's documents")
        return Binary(store.subject_tag(canonical_subject(value)))

    def _translate(self, error: BaseException, document: Any) -> BaseException:
        options = self._provider.database.codec_options
        return translate(error, provider=self._provider.name, wrote=True, document=document, options=options)


class Stream:
    """The block of `MongoDBSubjects.stream`."""

    __slots__ = ("_documents", "_provider", "_size", "_store", "_subjects", "_transaction", "_where")

    def __init__(
        self,
        subjects: MongoDBSubjects,
        provider: MongoDBProvider,
        *,
        store: str,
        where: Mapping[str, Any],
        size: int,
        transaction: AsyncClientSession | None,
    ) -> None:
        self._subjects = subjects
        self._provider = provider
        self._store = store
        self._where = where
        self._size = size
        self._transaction = transaction
        self._documents: AsyncGenerator[dict[str, Any]] | None = None

    async def __aenter__(self) -> AsyncGenerator[dict[str, Any]]:
        self._documents = self._read(await self._subjects.filter(self._where))
        return self._documents

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        documents, self._documents = self._documents, None
        if documents is not None:
            await documents.aclose()

    async def _read(self, query: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        cursor = self._provider.raw(self._store).find(query, batch_size=self._size, session=self._transaction)
        try:
            while found := await next_batch(cursor, self._size, provider=self._provider.name):
                for one in found:
                    yield Document(one)
        finally:
            await cursor.close()

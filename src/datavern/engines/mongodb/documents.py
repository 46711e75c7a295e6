"""Documents with their classification beside them, and with their bodies sealed where it asks for that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bson import Binary, ObjectId
from bson.datetime_ms import DatetimeMS

from datavern.contracts.errors import ConfigurationError, KeyErased
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import Classification, current_actor
from datavern.crypto.documents import DocumentSealer, label_bytes, label_prefix
from datavern.engines.mongodb.batches import next_batch
from datavern.engines.mongodb.bodies import (
    METADATA,
    SEALED_BODY,
    Document,
    Place,
    check_subject,
    identity_of,
    in_the_clear,
    labels_of,
    mapped_rows,
    opened,
    sealed_body,
    tags_in,
)
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate
from datavern.engines.mongodb.keys import DOCUMENT_TAG, SEALED, check_residency, graded

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession

    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["Documents"]

_BATCH: Final = 100


class Mark(NamedTuple):
    """What a classification means here, looked up once for each of them.

    Attributes:
        grade: the classification.
        name: its name.
        sealed: whether its bodies are.
        location: where the data is.
        labels: what the labels begin with.
    """

    grade: Classification
    name: str
    sealed: bool
    location: str
    labels: bytes


class Documents:
    """What `MongoDBProvider` offers for documents. See its methods of the same names.

    Args:
        provider: the provider.
        default: classification of documents that do not say their own.
    """

    __slots__ = ("_default", "_marks", "_places", "provider")

    def __init__(self, provider: MongoDBProvider, default: Classification) -> None:
        self.provider = provider
        self._default = default
        self._marks: dict[Classification | str | None, Mark] = {}
        self._places: dict[str, Place] = {}

    def mark(self, classification: Classification | str | None) -> Mark:
        """What a classification means here.

        Raises:
            ConfigurationError: there is no such classification.
            ResidencyViolation: such data may not be here.
        """
        grade = self._default if classification is None else graded(classification)
        location = self.provider.location
        check_residency(grade, location)
        mark = Mark(grade, grade.value, grade in SEALED, location.value, label_prefix(grade.value, location.value))
        self._marks[classification] = mark
        return mark

    def forget(self) -> None:
        """Look at the data map and the client again: both may have changed."""
        self._places.clear()

    def place(self, name: str) -> Place:
        """The collection of that name."""
        found = self._places.get(name)
        if found is None:
            provider = self.provider
            dataset = provider.settings.datasets.get(name, name)
            if name in provider.settings.field_encryption:
                raise ConfigurationError(
                    f"{name}: its fields are encrypted by MongoDB's own means (field_encryption), and its documents "
                    f"are not sealed: use encrypted_collection({name!r})"
                )
            found = Place(provider.raw(name), dataset, provider.keys.subject_path(name))
            self._places[name] = found
        return found

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def insert(  # noqa: C901, PLR0912  (the hot path, in one piece: each call more is a tenth of what it may cost)
        self,
        name: str,
        document: Mapping[str, Any],
        classification: Classification | str | None,
        subject: object,
        session: AsyncClientSession | None,
    ) -> Any:
        """Insert a document; its ``_id``."""
        provider = self.provider
        place = self._places.get(name) or self.place(name)
        mark = self._marks.get(classification) or self.mark(classification)
        if METADATA in document or SEALED_BODY in document:
            raise ConfigurationError(f"{name}: {METADATA} and {SEALED_BODY} are Datavern's own fields: leave them out")
        if place.subject_path is not None:
            check_subject(place, name, mark.grade, subject, document)
        store: KeyStore | None = None
        key: DataKey | None = None
        who = ""
        if subject is not None:
            who = canonical_subject(subject)
            store = provider.keys.store or await provider.keys.ready("insert_document")
            key = store.unguarded.warm(place.dataset, who) or await store.unguarded.key(place.dataset, who)
        elif mark.sealed:
            key = place.key
            if key is None:
                key = place.key = await (await provider.keys.ready("insert_document")).dataset_key(place.dataset)
        tag = None if key is None else key.subject_tag
        gate = provider.keys.gate
        if gate is not None and gate.due():
            await gate.admit(name, rows=mapped_rows(place, document), tags=() if tag is None else (tag,), writing=True)
        id_ = document["_id"] if "_id" in document else ObjectId()
        moment, by = time_ns() // 1_000_000, current_actor()
        metadata = {
            "classification": mark.name,
            "created_at": DatetimeMS(moment),
            "created_by": by,
            "location": mark.location,
        }
        if tag is not None:
            metadata["subject"] = tag
        error: BaseException | None = None
        try:
            if mark.sealed:
                assert key is not None  # noqa: S101  (for the type checker: a sealed document has a key)
                labels = label_bytes(mark.labels, moment, by, tag, identity_of(id_, place.options))
                stored = {"_id": id_, METADATA: metadata, SEALED_BODY: sealed_body(place, key, labels, document)}
            else:
                stored = {"_id": id_, **document, METADATA: metadata}
            await place.collection.insert_one(stored, session=session)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=provider.name, wrote=True, document=document, options=place.options)
        if error is not None:
            raise error
        if who and store is not None and key is not None:
            # Nothing of this waits while the key store's last answer covers the write: the usual case.
            if session is not None and (open_ := provider.transactions_open.get(session)) is not None:
                open_.written.append(partial(self.look_again, place, store, who, key, id_))
            elif store.unguarded.warm(place.dataset, who) is not key:
                await self.look_again(place, store, who, key, id_)
        return id_

    async def replace(
        self,
        name: str,
        filter_: Mapping[str, Any],
        document: Mapping[str, Any],
        subject: object,
        session: AsyncClientSession | None,
    ) -> bool:
        """Put another body into a document; whether there was one."""
        provider, place = self.provider, self.place(name)
        if METADATA in document or SEALED_BODY in document:
            raise ConfigurationError(f"{name}: {METADATA} and {SEALED_BODY} are Datavern's own fields: leave them out")
        found = await self.first(place, filter_, session, {METADATA: 1})
        if found is None:
            return False
        id_, metadata = found["_id"], found.get(METADATA)
        if not isinstance(metadata, Mapping):
            raise ConfigurationError(f"{name}: the document was not written by insert_document: use collection()")
        if "_id" in document and document["_id"] != id_:
            raise ConfigurationError(f"{name}: _id cannot be changed")
        labels = labels_of(metadata, id_, place.options)
        await self.admit(place, name, [found], writing=True)
        grade = graded(metadata["classification"])
        store = await provider.keys.ready("replace_document") if labels.subject_tag or grade in SEALED else None
        who, key = await self.key_of(place, store, labels.subject_tag, subject, name)
        error: BaseException | None = None
        try:
            if key is not None and grade in SEALED:
                body = sealed_body(place, key, labels.bytes, document)
                stored = {"_id": id_, METADATA: dict(metadata), SEALED_BODY: body}
            else:
                stored = {"_id": id_, **document, METADATA: dict(metadata)}
            result = await place.collection.replace_one({"_id": {"$eq": id_}}, stored, session=session)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=provider.name, wrote=True, document=document, options=place.options)
        if error is not None:
            raise error
        if who and store is not None and key is not None and store.unguarded.warm(place.dataset, who) is not key:
            await self.look_again(place, store, who, key, id_)
        return result.matched_count > 0

    @staticmethod
    async def key_of(
        place: Place, store: KeyStore | None, tag: bytes | None, subject: object, name: str
    ) -> tuple[str, DataKey | None]:
        """Who a document is about, and the key for a new body of it."""
        if tag is None or store is None:
            if subject is not None:
                raise ConfigurationError(f"{name}: the document belongs to no subject")
            return "", None if store is None else await store.dataset_key(place.dataset)
        if subject is None:
            raise ConfigurationError(f"{name}: the document is about somebody: give subject=")
        who = canonical_subject(subject)
        if store.subject_tag(who) != tag:
            raise ConfigurationError(f"{name}: the document is about somebody else: whose it is cannot be changed")
        return who, await store.unguarded.key(place.dataset, who)

    async def look_again(self, place: Place, store: KeyStore, who: str, key: DataKey, id_: Any) -> None:
        """Take a document back that was written while its subject was being erased.

        Raises:
            KeyErased: it was.
        """
        if await store.unguarded.covers(key, who):
            return
        error: BaseException | None = None
        try:
            await place.collection.delete_one({"_id": {"$eq": id_}})
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self.provider.name, wrote=True)
        if error is not None:
            raise error
        raise KeyErased(f"an erasure of the subject runs: {place.dataset} takes nothing about it meanwhile")

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def find_one(
        self, name: str, filter_: Mapping[str, Any] | None, session: AsyncClientSession | None
    ) -> Document | None:
        """The first document that matches, opened, or None."""
        place = self._places.get(name) or self.place(name)
        found = await self.first(place, filter_, session, None)
        if found is None:
            return None
        gate = self.provider.keys.gate
        if gate is not None and gate.due():
            await self.admit(place, name, [found])
        sealed = found.get(SEALED_BODY)
        if not isinstance(sealed, bytes):
            return in_the_clear(found, name)
        store = self.provider.keys.store or await self.provider.keys.ready("find_document")
        key_id = DocumentSealer.key_id(sealed)
        key = store.warm_key(key_id) or (await store.keys((key_id,)))[key_id]
        return opened(place, key, found, sealed)

    async def find(
        self,
        name: str,
        filter_: Mapping[str, Any] | None,
        *,
        subject: object = None,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        session: AsyncClientSession | None = None,
    ) -> AsyncIterator[Document]:
        """The documents that match, opened, a batch at a time."""
        place, provider = self.place(name), self.provider
        where: dict[str, Any] = dict(filter_ or {})
        if subject is not None:
            store = await provider.keys.ready("find_documents")
            tag = Binary(store.subject_tag(canonical_subject(subject)))
            where = {"$and": [where, {DOCUMENT_TAG: tag}]} if where else {DOCUMENT_TAG: tag}
        cursor = place.collection.find(where, sort=sort, limit=limit, session=session, batch_size=_BATCH)
        try:
            while found := await next_batch(cursor, _BATCH, provider=provider.name):
                gate = provider.keys.gate
                if gate is not None and gate.due():
                    rows = [mapped_rows(place, document) for document in found]
                    hidden = await gate.hidden(name, rows, [tags_in(document) for document in found])
                    found = [document for at, document in enumerate(found) if at not in hidden]
                for document in await self.open(name, found):
                    yield document
        finally:
            await cursor.close()

    async def open(self, name: str, documents: Sequence[Document]) -> list[Document]:
        """Documents of that collection, read by any query that kept ``_id``, ``_metadata`` and ``_sealed``, opened."""
        place = self.place(name)
        ids = {DocumentSealer.key_id(sealed) for d in documents if isinstance(sealed := d.get(SEALED_BODY), bytes)}
        keys = await (await self.provider.keys.ready("find_documents")).keys(ids) if ids else {}
        found = []
        for document in documents:
            sealed = document.get(SEALED_BODY)
            if isinstance(sealed, bytes):
                found.append(opened(place, keys[DocumentSealer.key_id(sealed)], document, sealed))
            else:
                found.append(in_the_clear(document, name))
        return found

    async def admit(
        self, place: Place, name: str, documents: Sequence[Mapping[str, Any]], *, writing: bool = False
    ) -> None:
        """Let a use of documents through, as they are stored, or refuse it.

        Raises:
            ProcessingRestricted, ConsentRequired: see `datavern.contracts.services.Gate`.
        """
        gate = self.provider.keys.gate
        if gate is not None and gate.due():
            rows = [row for document in documents for row in mapped_rows(place, document)]
            tags = [tag for document in documents for tag in tags_in(document)]
            await gate.admit(name, rows=rows, tags=tags, writing=writing)

    async def first(
        self,
        place: Place,
        filter_: Mapping[str, Any] | None,
        session: AsyncClientSession | None,
        projection: Mapping[str, Any] | None = None,
    ) -> Document | None:
        """The first document that matches, as it is stored, or None."""
        error: BaseException | None = None
        try:
            return await place.collection.find_one(filter_, projection, session=session)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self.provider.name, document=filter_, options=place.options)
        raise error

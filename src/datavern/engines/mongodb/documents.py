"""Documents with their classification beside them, and with their bodies sealed where it asks for that."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bson import Binary, ObjectId, decode, encode
from bson.datetime_ms import DatetimeMS

from datavern.contracts.errors import ConfigurationError, DecryptionFailed, KeyErased
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import Classification, current_actor
from datavern.crypto.documents import DocumentSealer, Labels
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate
from datavern.engines.mongodb.keys import DOCUMENT_TAG, SEALED, check_residency, graded, still_alive

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.asynchronous.collection import AsyncCollection

    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["METADATA", "SEALED_BODY", "Documents", "identity_of", "labels_of", "milliseconds"]

METADATA: Final = "_metadata"
SEALED_BODY: Final = "_sealed"
_ENCRYPTED_SUBTYPE: Final = 6  # BSON: "Encrypted BSON value", MongoDB's client-side field level encryption
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NAIVE_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001  (PyMongo hands out naive datetimes, in UTC, unless told otherwise)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_BATCH: Final = 100

Document = dict[str, Any]


def milliseconds(value: Any) -> int:
    """A date as BSON holds it, however the codec hands it out.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, dt.datetime):
        return (value - (_NAIVE_EPOCH if value.tzinfo is None else _EPOCH)) // _MILLISECOND
    if isinstance(value, DatetimeMS):
        return int(value)
    raise TypeError


def identity_of(id_: Any, options: Any) -> bytes:
    """What identifies a document, as sealing binds it (crypto/FORMAT.md, 10)."""
    return encode({"": id_}, codec_options=options)


def labels_of(metadata: Mapping[str, Any], id_: Any, options: Any) -> Labels:
    """The labels, as they stand beside a sealed body now.

    Raises:
        DecryptionFailed: they are not such as Datavern writes.
    """
    try:
        tag = metadata.get("subject")
        return Labels(
            classification=metadata["classification"],
            location=metadata["location"],
            created_at=milliseconds(metadata["created_at"]),
            created_by=metadata["created_by"],
            subject_tag=None if tag is None else bytes(tag),
            identity=identity_of(id_, options),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, ConfigurationError):
        pass
    raise DecryptionFailed


class Place:
    """A collection, as `Documents` writes to it.

    Attributes:
        collection: PyMongo's.
        dataset: the dataset's id, which is bound into what is sealed.
        subject_path: where the data map says that the subject stands; None where it says nothing.
    """

    __slots__ = ("collection", "dataset", "options", "sealer", "subject_path")

    def __init__(self, collection: AsyncCollection[Document], dataset: str, subject_path: str | None) -> None:
        self.collection = collection
        self.dataset = dataset
        self.options = collection.codec_options
        self.sealer = DocumentSealer(dataset)
        self.subject_path = subject_path


class Documents:
    """What `MongoDBProvider` offers for documents. See its methods of the same names.

    Args:
        provider: the provider.
    """

    __slots__ = ("_default", "_places", "_provider")

    def __init__(self, provider: MongoDBProvider, default: Classification) -> None:
        self._provider = provider
        self._default = default
        self._places: dict[str, Place] = {}

    def forget(self) -> None:
        """Look at the data map and the client again: both may have changed."""
        self._places.clear()

    def place(self, name: str) -> Place:
        """The collection of that name."""
        found = self._places.get(name)
        if found is None:
            provider = self._provider
            dataset = provider.settings.datasets.get(name, name)
            found = Place(provider.collection(name), dataset, provider.keys.subject_path(name))
            self._places[name] = found
        return found

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def insert(
        self,
        name: str,
        document: Mapping[str, Any],
        classification: Classification | str | None,
        subject: object,
        session: AsyncClientSession | None,
    ) -> Any:
        """Insert a document; its ``_id``."""
        provider = self._provider
        place = self._places.get(name) or self.place(name)
        grade = self._default if classification is None else graded(classification)
        sealed = grade in SEALED
        check_residency(grade, provider.location)
        if METADATA in document or SEALED_BODY in document:
            raise ConfigurationError(f"{name}: {METADATA} and {SEALED_BODY} are Datavern's own fields: leave them out")
        self._check_subject(place, name, grade, subject)
        store: KeyStore | None = None
        key: DataKey | None = None
        who = ""
        if subject is not None:
            who = canonical_subject(subject)
            store = provider.keys.store or await provider.keys.ready("insert_document")
            key = store.warm(place.dataset, who) or await store.subject_key(place.dataset, who)
        elif sealed:
            store = provider.keys.store or await provider.keys.ready("insert_document")
            key = await store.dataset_key(place.dataset)
        id_ = document["_id"] if "_id" in document else ObjectId()
        metadata = _metadata(grade, provider.location.value, None if key is None else key.subject_tag)
        error: BaseException | None = None
        stored: Mapping[str, Any] = document
        try:
            if sealed:
                assert key is not None  # noqa: S101  (for the type checker: a sealed document has a key)
                stored = _sealed(place, key, id_, metadata, document)
            else:
                stored = {"_id": id_, **document, METADATA: metadata}
            await place.collection.insert_one(stored, session=session)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=provider.name, wrote=True, document=document, options=place.options)
        if error is not None:
            raise error
        if who and store is not None and key is not None:
            # Nothing of this waits while the key store's last answer holds: the usual case.
            if session is not None and (open_ := provider.transactions_open.get(session)) is not None:
                open_.written.append(partial(self._look_again, place, store, who, key, id_))
            elif store.warm(place.dataset, who) is not key:
                await self._look_again(place, store, who, key, id_)
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
        provider, place = self._provider, self.place(name)
        if METADATA in document or SEALED_BODY in document:
            raise ConfigurationError(f"{name}: {METADATA} and {SEALED_BODY} are Datavern's own fields: leave them out")
        found = await self._first(place, filter_, session, {METADATA: 1})
        if found is None:
            return False
        id_, metadata = found["_id"], found.get(METADATA)
        if not isinstance(metadata, Mapping):
            raise ConfigurationError(f"{name}: the document was not written by insert_document: use collection()")
        if "_id" in document and document["_id"] != id_:
            raise ConfigurationError(f"{name}: _id cannot be changed")
        labels = labels_of(metadata, id_, place.options)
        grade = graded(metadata["classification"])
        store = await provider.keys.ready("replace_document") if labels.subject_tag or grade in SEALED else None
        who, key = await self._key_of(place, store, labels.subject_tag, subject, name)
        error: BaseException | None = None
        try:
            if key is not None and grade in SEALED:
                stored = _sealed(place, key, id_, dict(metadata), document)
            else:
                stored = {"_id": id_, **document, METADATA: dict(metadata)}
            result = await place.collection.replace_one({"_id": {"$eq": id_}}, stored, session=session)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=provider.name, wrote=True, document=document, options=place.options)
        if error is not None:
            raise error
        if who and store is not None and key is not None and store.warm(place.dataset, who) is not key:
            await self._look_again(place, store, who, key, id_)
        return result.matched_count > 0

    @staticmethod
    async def _key_of(
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
        return who, store.warm(place.dataset, who) or await store.subject_key(place.dataset, who)

    @staticmethod
    def _check_subject(place: Place, name: str, grade: Classification, subject: object) -> None:
        path = place.subject_path
        if path is None:
            return
        if path == DOCUMENT_TAG:
            if subject is None:
                raise ConfigurationError(
                    f"{name}: the data map says that its documents are about people: give subject="
                )
        elif grade in SEALED:
            raise ConfigurationError(
                f"{name}: the data map finds people by {path}, and a document classified as {grade.value} is "
                f"sealed with everything but {METADATA}: an erasure would not find it. Set subject = "
                f'"{DOCUMENT_TAG}" in the data map, and give subject= here'
            )

    async def _look_again(self, place: Place, store: KeyStore, who: str, key: DataKey, id_: Any) -> None:
        """Take a document back that was written while its subject was being erased.

        Raises:
            KeyErased: it was.
        """
        if await still_alive(store, place.dataset, who, key):
            return
        error: BaseException | None = None
        try:
            await place.collection.delete_one({"_id": {"$eq": id_}})
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name, wrote=True)
        if error is not None:
            raise error
        raise KeyErased(f"an erasure of the subject runs: {place.dataset} takes nothing about it meanwhile")

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def find_one(
        self, name: str, filter_: Mapping[str, Any] | None, session: AsyncClientSession | None
    ) -> Document | None:
        """The first document that matches, opened, or None."""
        place = self._places.get(name) or self.place(name)
        found = await self._first(place, filter_, session, None)
        if found is None:
            return None
        sealed = found.get(SEALED_BODY)
        if not isinstance(sealed, bytes):
            return _in_the_clear(found, name)
        store = self._provider.keys.store or await self._provider.keys.ready("find_document")
        key_id = DocumentSealer.key_id(sealed)
        key = store.warm_key(key_id) or (await store.keys((key_id,)))[key_id]
        return _opened(place, key, found, sealed)

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
        place, provider = self.place(name), self._provider
        where: dict[str, Any] = dict(filter_ or {})
        if subject is not None:
            store = await provider.keys.ready("find_documents")
            tag = Binary(store.subject_tag(canonical_subject(subject)))
            where = {"$and": [where, {DOCUMENT_TAG: tag}]} if where else {DOCUMENT_TAG: tag}
        cursor = place.collection.find(where, sort=sort, limit=limit, session=session, batch_size=_BATCH)
        try:
            while True:
                error: BaseException | None = None
                found: list[Document] = []
                try:
                    found = await cursor.to_list(_BATCH)
                except DRIVER_ERRORS as caught:
                    error = translate(caught, provider=provider.name)
                if error is not None:
                    raise error
                if not found:
                    return
                for document in await self.open(name, found):
                    yield document
        finally:
            await cursor.close()

    async def open(self, name: str, documents: Sequence[Document]) -> list[Document]:
        """Documents of that collection, read by any query that kept ``_id``, ``_metadata`` and ``_sealed``, opened."""
        place = self.place(name)
        ids = {DocumentSealer.key_id(sealed) for d in documents if isinstance(sealed := d.get(SEALED_BODY), bytes)}
        keys = await (await self._provider.keys.ready("find_documents")).keys(ids) if ids else {}
        opened = []
        for document in documents:
            sealed = document.get(SEALED_BODY)
            if isinstance(sealed, bytes):
                opened.append(_opened(place, keys[DocumentSealer.key_id(sealed)], document, sealed))
            else:
                opened.append(_in_the_clear(document, name))
        return opened

    async def _first(
        self,
        place: Place,
        filter_: Mapping[str, Any] | None,
        session: AsyncClientSession | None,
        projection: Mapping[str, Any] | None,
    ) -> Document | None:
        error: BaseException | None = None
        try:
            return await place.collection.find_one(filter_, projection, session=session)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name, document=filter_, options=place.options)
        raise error


def _metadata(grade: Classification, location: str, tag: bytes | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "classification": grade.value,
        "created_at": DatetimeMS(time.time_ns() // 1_000_000),
        "created_by": current_actor(),
        "location": location,
    }
    if tag is not None:
        metadata["subject"] = tag
    return metadata


def _sealed(
    place: Place, key: DataKey, id_: Any, metadata: dict[str, Any], document: Mapping[str, Any]
) -> dict[str, Any]:
    labels = labels_of(metadata, id_, place.options)
    body = document
    if "_id" in document:
        body = {name: value for name, value in document.items() if name != "_id"}
    plain = encode(body, codec_options=place.options)
    return {"_id": id_, METADATA: metadata, SEALED_BODY: place.sealer.seal(key, labels, plain)}


def _opened(place: Place, key: DataKey, document: Document, sealed: bytes) -> Document:
    metadata = document.get(METADATA)
    if not isinstance(metadata, Mapping):
        raise DecryptionFailed
    id_ = document.get("_id")
    plain = place.sealer.open(key, labels_of(metadata, id_, place.options), sealed)
    opened: Document = {"_id": id_}
    opened.update(decode(plain, codec_options=place.options))
    opened[METADATA] = {name: value for name, value in metadata.items() if name != "subject"}
    return opened


def _in_the_clear(document: Document, name: str) -> Document:
    metadata = document.get(METADATA)
    if isinstance(metadata, dict):
        metadata.pop("subject", None)
    elif holds_encrypted(document):
        raise ConfigurationError(
            f"{name}: the document holds values of MongoDB's client-side field level encryption (BSON binary subtype "
            "6), which Datavern cannot open: read it with the client that wrote it"
        )
    return document


def holds_encrypted(value: Any) -> bool:
    """Whether there is a value in it that MongoDB's own client-side encryption wrote."""
    if isinstance(value, Binary):
        return value.subtype == _ENCRYPTED_SUBTYPE
    if isinstance(value, Mapping):
        return any(holds_encrypted(inner) for inner in value.values())
    if isinstance(value, list):
        return any(holds_encrypted(inner) for inner in value)
    return False

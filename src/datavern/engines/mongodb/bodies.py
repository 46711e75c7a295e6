"""What a document of Datavern's looks like in the database: its metadata, its labels, and its body, sealed or not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bson import ObjectId, decode, encode
from bson.datetime_ms import DatetimeMS

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import Classification
from datavern.crypto.documents import DocumentSealer, Labels
from datavern.engines.mongodb.encrypting import holds_encrypted
from datavern.engines.mongodb.keys import DOCUMENT_TAG, SEALED
from datavern.engines.mongodb.paths import id_of, values_at

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection

    from datavern.crypto.sealed import DataKey

__all__ = [
    "METADATA",
    "SEALED_BODY",
    "Document",
    "Place",
    "check_subject",
    "identity_of",
    "in_the_clear",
    "labels_of",
    "mapped_rows",
    "milliseconds",
    "opened",
    "sealed_body",
    "tags_in",
]

METADATA: Final = "_metadata"
SEALED_BODY: Final = "_sealed"
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NAIVE_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001  (PyMongo hands out naive datetimes, in UTC, unless told otherwise)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)

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
    if type(id_) is ObjectId:  # nearly every id: its BSON is written out, for the encoder's call costs more
        return b"\x14\x00\x00\x00\x07\x00" + id_.binary + b"\x00"
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
        key: the dataset's own, once it was used: no erasure ends it.
    """

    __slots__ = ("collection", "dataset", "key", "options", "sealer", "subject_path")

    def __init__(self, collection: AsyncCollection[Document], dataset: str, subject_path: str | None) -> None:
        self.collection = collection
        self.dataset = dataset
        self.options = collection.codec_options
        self.sealer = DocumentSealer(dataset)
        self.subject_path = subject_path
        self.key: DataKey | None = None


def tags_in(document: Mapping[str, Any]) -> list[bytes]:
    """The keyed tag of the person whom a document was inserted for."""
    metadata = document.get(METADATA)
    tag = metadata.get("subject") if isinstance(metadata, Mapping) else None
    return [bytes(tag)] if isinstance(tag, bytes) else []


def mapped_rows(place: Place, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The document, where the data map says by a path in the clear whose it is."""
    return [] if place.subject_path in (None, DOCUMENT_TAG) else [document]


def check_subject(
    place: Place, name: str, grade: Classification, subject: object, document: Mapping[str, Any] | None = None
) -> None:
    """Refuse what an erasure would not find by the data map's path.

    Raises:
        ConfigurationError: the path is not in the clear, or nobody was named there.
    """
    path = place.subject_path or ""
    if path == DOCUMENT_TAG:
        if subject is None:
            raise ConfigurationError(f"{name}: the data map says that its documents are about people: give subject=")
    elif grade in SEALED:
        raise ConfigurationError(
            f"{name}: the data map finds people by {path}, and a document classified as {grade.value} is "
            f"sealed with everything but {METADATA}: an erasure would not find it. Set subject = "
            f'"{DOCUMENT_TAG}" in the data map, and give subject= here'
        )
    elif (
        document is not None
        and subject is not None
        and canonical_subject(subject) not in map(id_of, values_at(document, path.split(".")))
    ):
        raise ConfigurationError(
            f"{name}: the data map finds people by {path}, and the document names another there than subject= does, or "
            "nobody"
        )


def sealed_body(place: Place, key: DataKey, labels: bytes, document: Mapping[str, Any]) -> bytes:
    """The body of a document, sealed with its labels."""
    body = document
    if "_id" in document:
        body = {name: value for name, value in document.items() if name != "_id"}
    return place.sealer.seal(key, labels, encode(body, codec_options=place.options))


def opened(place: Place, key: DataKey, document: Document, sealed: bytes) -> Document:
    """A document as it was inserted, its metadata beside it.

    Raises:
        DecryptionFailed: it, or its metadata, was changed, or belongs elsewhere.
    """
    metadata = document.get(METADATA)
    if not isinstance(metadata, Mapping):
        raise DecryptionFailed
    id_ = document.get("_id")
    plain = place.sealer.open(key, labels_of(metadata, id_, place.options), sealed)
    found: Document = {"_id": id_}
    found.update(decode(plain, codec_options=place.options))
    found[METADATA] = {name: value for name, value in metadata.items() if name != "subject"}
    return found


def in_the_clear(document: Document, name: str) -> Document:
    """A document whose body is not sealed.

    Raises:
        ConfigurationError: it was encrypted by MongoDB's client-side field level encryption.
    """
    metadata = document.get(METADATA)
    if isinstance(metadata, dict):
        metadata.pop("subject", None)
    elif holds_encrypted(document):
        raise ConfigurationError(
            f"{name}: the document holds values of MongoDB's client-side field level encryption (BSON binary subtype "
            "6): read it with encrypted_collection(), or with the client that wrote it"
        )
    return document

"""Documents: what a caller of the provider uses most."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.values import Classification
from datavern.engines.mongodb.reclassifying import reclassify

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession

    from datavern.engines.mongodb.audited import Audited
    from datavern.engines.mongodb.documents import Documents

__all__ = ["DocumentCalls"]


class DocumentCalls:
    """Documents with their classification beside them, sealed where it asks for that."""

    audited: Audited
    _documents: Documents

    def insert_document(
        self,
        collection: str,
        document: Mapping[str, Any],
        *,
        classification: Classification | str | None = None,
        subject: object = None,
        session: AsyncClientSession | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Insert a document with its metadata; sealed when it is CONFIDENTIAL or SECRET. Its ``_id`` comes back.

        ``_metadata`` is added: classification, created_at, created_by (`datavern.actor`), location; with `subject` a
        keyed tag, by which an erasure finds it. Sealed, the document is ``_id``, ``_metadata`` and ``_sealed``.

        Args:
            collection: its name.
            document: with an ``_id`` or without. It is not changed.
            classification: the provider's own when None.
            subject: whose it is: the body is sealed under the person's key; otherwise under the collection's.
            session: of `transaction` or `session`.

        Raises:
            ResidencyViolation: such data may not be here.
            KeyErased: an erasure of the subject runs; nothing is written.
            ConstraintViolated: a unique index has such a value, or the collection's validator says no.
            QueryRejected: the document is too large, or a value cannot be encoded (the message names its path).
            OutcomeUnknown: it was sent, and no answer came.
            ConfigurationError: no keys, or the data map could not find the document's subject.
        """
        insert = self._documents.insert(collection, document, classification, subject, session)
        if self.audited.asked:
            return self.audited.before(insert, collection, "inserted", subject)
        return insert

    async def find_document(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (PyMongo's own name for it)
        *,
        session: AsyncClientSession | None = None,
    ) -> dict[str, Any] | None:
        """The first document that matches, opened; or None.

        A filter reaches what is in the clear: ``_id``, ``_metadata``, and everything of a document that is not sealed.

        Raises:
            KeyErased: its subject was erased: nobody can open it again.
            DecryptionFailed: it, or its metadata, was changed, or belongs elsewhere.
            ConfigurationError: it was encrypted by MongoDB's client-side field level encryption.
            ProcessingRestricted, ConsentRequired: its person's data is restricted, or may not be read without consent.
        """
        return await self._documents.find_one(collection, filter, session)

    def find_documents(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (PyMongo's own name for it)
        *,
        subject: object = None,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        session: AsyncClientSession | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """``async for`` over the documents that match, opened; those of one subject with `subject`.

        Raises:
            KeyErased, DecryptionFailed, ConfigurationError: as `find_document`. What may not be used is left out.
        """
        return self._documents.find(collection, filter, subject=subject, sort=sort, limit=limit, session=session)

    async def replace_document(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002  (PyMongo's own name for it)
        document: Mapping[str, Any],
        *,
        subject: object = None,
        session: AsyncClientSession | None = None,
    ) -> bool:
        """Put another body into the first document that matches; its metadata stays. Whether there was one.

        Args:
            collection: its name.
            filter: as for `find_document`.
            document: the new body, sealed if the old one was.
            subject: whose it is, if it is somebody's: the same person as before.
            session: as for `insert_document`.

        Raises:
            ConfigurationError: `subject` is missing, or another; or the document was not written by `insert_document`.
        """
        await self.audited.note(collection, "replaced", subject)
        return await self._documents.replace(collection, filter, document, subject, session)

    async def reclassify_document(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002  (PyMongo's own name for it)
        classification: Classification | str,
        *,
        subject: object = None,
        session: AsyncClientSession | None = None,
    ) -> bool:
        """Give the first document that matches another classification; whether there was one.

        Its body is sealed, or put into the clear, as the new one asks for; the rest of its metadata stays. It runs in
        a transaction, so that nobody's change in between is lost: MongoDB has them in replica sets and clusters.

        Args:
            collection: its name.
            filter: as for `find_document`.
            classification: the new one.
            subject: whose it is, if it is somebody's.
            session: as for `insert_document`.

        Raises:
            ResidencyViolation: such data may not be here. Nothing is changed.
            ConfigurationError: `subject` is missing, or another; the data map would not find its subject any more; or
                it was not written by `insert_document`.
            DecryptionFailed, KeyErased, ProviderError: as reading and writing it.
        """
        await self.audited.note(collection, "reclassified", subject)
        return await reclassify(
            self._documents, collection, filter, classification=classification, subject=subject, session=session
        )

    async def open_documents(self, collection: str, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Documents of any query of PyMongo's that kept ``_id``, ``_metadata`` and ``_sealed``, opened."""
        await self._documents.admit(self._documents.place(collection), collection, documents)
        return await self._documents.open(collection, documents)

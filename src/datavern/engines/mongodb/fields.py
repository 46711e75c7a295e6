"""Collections in which single fields are encrypted by MongoDB's own client-side field level encryption."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bson import ObjectId

from datavern.contracts.errors import (
    ConfigurationError,
    DecryptionFailed,
    KeyErased,
    KeyUnavailable,
    SerializationConflict,
)
from datavern.contracts.subjects import canonical_subject
from datavern.engines.mongodb.batches import next_batch
from datavern.engines.mongodb.bodies import SEALED_BODY
from datavern.engines.mongodb.encrypting import FieldCipher, encrypted_values, holds_encrypted, key_id_of
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate
from datavern.engines.mongodb.field_rules import FieldRules, Sealing, value_at

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession

    from datavern.crypto.keystore import KeyStore
    from datavern.engines.mongodb.collections import Index
    from datavern.engines.mongodb.encrypting import Algorithm
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["EncryptedCollection", "FieldEncryption"]

_BATCH: Final = 100

Document = dict[str, Any]


class FieldEncryption:
    """Which fields of a provider's collections are encrypted, and what encrypts them.

    Args:
        provider: the provider.
        collections: collection → dotted path → "random" or "deterministic".
    """

    __slots__ = ("_cipher", "_collections", "_made", "_provider")

    def __init__(self, provider: MongoDBProvider, collections: Mapping[str, Mapping[str, Algorithm]]) -> None:
        self._provider = provider
        self._collections = collections
        self._made: dict[str, EncryptedCollection] = {}
        self._cipher: tuple[KeyStore, FieldCipher] | None = None

    def collection(self, name: str) -> EncryptedCollection:
        """The collection of that name.

        Raises:
            ConfigurationError: no field of it is encrypted.
        """
        found = self.of(name)
        if found is None:
            raise ConfigurationError(
                f"{name}: none of its fields is encrypted: the provider's field_encryption names collections and fields"
            )
        return found

    def of(self, name: str) -> EncryptedCollection | None:
        """The collection of that name, or None when none of its fields is encrypted."""
        if name not in self._made and name in self._collections:
            rules = FieldRules(self._provider, name, self._collections[name])
            self._made[name] = EncryptedCollection(self._provider, self, name, rules)
        return self._made.get(name)

    async def cipher(self, store: KeyStore) -> FieldCipher:
        """What encrypts and opens values under that store's keys."""
        held = self._cipher
        if held is None or held[0] is not store:
            self._cipher = (store, made := FieldCipher(store))
            if held is not None:
                await held[1].close()
            return made
        return held[1]

    async def close(self) -> None:
        """Drop the keys that are at hand. Idempotent."""
        held, self._cipher = self._cipher, None
        if held is not None:
            await held[1].close()


class EncryptedCollection:
    """A collection whose named fields are encrypted, each value under a key of its person and field.

    Whose a document is, is read from the path that the data map names for the collection (``subject="owner"``), which
    therefore stays in the clear. Without a data map it is `subject`; what belongs to nobody is encrypted under a key of
    the field alone.

    Args:
        provider: the provider.
        encryption: what it belongs to.
        name: its name.
        rules: which of its fields are encrypted.
    """

    __slots__ = ("_encryption", "_name", "_provider", "rules")

    def __init__(self, provider: MongoDBProvider, encryption: FieldEncryption, name: str, rules: FieldRules) -> None:
        self._provider = provider
        self._encryption = encryption
        self._name = name
        self.rules = rules

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def insert_one(
        self, document: Mapping[str, Any], *, subject: object = None, session: AsyncClientSession | None = None
    ) -> Any:
        """Insert a document, its fields encrypted; its ``_id``. The document is not changed.

        None stays None, and what is missing stays missing: MongoDB encrypts no null.

        Args:
            document: as it is to be read again.
            subject: whose it is, where no data map says it.
            session: of `MongoDBProvider.transaction` or `session`.

        Raises:
            ConfigurationError: it must say whose it is, and does not; a value cannot be encrypted; a field that is to
                be encrypted stands in a list.
            KeyErased: an erasure of the subject runs; nothing is written.
            ProviderError: what the server says.
        """
        sealing = await self._sealing(document, subject)
        id_ = document["_id"] if "_id" in document else ObjectId()
        stored = {"_id": id_, **await self.rules.document(document, sealing)}
        await self._provider.audited.note(self._name, "inserted", sealing.who)
        error: BaseException | None = None
        try:
            await self._provider.raw(self._name).insert_one(stored, session=session)
        except DRIVER_ERRORS as caught:
            error = self._translate(caught, document)
        if error is not None:
            raise error
        await self._look_again(sealing, {"_id": {"$eq": id_}}, None, session)
        return id_

    async def update_one(
        self,
        filter: Mapping[str, Any],  # noqa: A002  (PyMongo's own name for it)
        update: Mapping[str, Any],
        *,
        subject: object = None,
        session: AsyncClientSession | None = None,
    ) -> bool:
        """Update the first document that matches, with values of encrypted fields encrypted; whether there was one.

        Args:
            filter: as for `find`.
            update: MongoDB's operators. Encrypted fields take ``$set`` and ``$unset``.
            subject: whose it is, where no data map says it.
            session: as for `insert_one`.

        Raises:
            ConfigurationError: an operator that an encrypted field does not take, or that changes whose it is.
            SerializationConflict: it was removed, or became another person's, meanwhile.
            KeyErased, ProviderError: as `insert_one`.
        """
        rules, path = self.rules, self.rules.subject_path
        rules.check_update(update)
        found = await self._first(await self.filter(filter, subject=subject), session, {path or "_id": 1})
        if found is None:
            return False
        sealing = await self._sealing(found, subject)
        changed: Document = {name: dict(values) for name, values in update.items()}
        written: Document = {}
        for target, value in changed.get("$set", {}).items():
            changed["$set"][target] = made = await rules.at(target, value, sealing)
            if made is not value:
                written[target] = made
        where: Document = {"_id": {"$eq": found["_id"]}}
        if path is not None:
            where[path] = {"$eq": value_at(found, path)}
        await self._provider.audited.note(self._name, "updated", sealing.who)
        error: BaseException | None = None
        try:
            result = await self._provider.raw(self._name).update_one(where, changed, session=session)
        except DRIVER_ERRORS as caught:
            error = self._translate(caught, update)
        if error is not None:
            raise error
        if not result.matched_count:
            raise SerializationConflict("the document was changed meanwhile: try again", provider=self._provider.name)
        await self._look_again(sealing, where, written, session)
        return True

    async def prepare(self, *, indexes: Sequence[Index] = ()) -> list[str]:
        """Make the collection and its indexes where they are missing; what was run. Idempotent.

        Its validator gets the encrypted fields, so that the server itself refuses them in the clear.

        Raises:
            ConfigurationError: the validator that is there wants another type for one of them.
        """
        fields: dict[str, tuple[str, ...]] = dict.fromkeys(self.rules.fields, ("binData", "null"))
        return await self._provider.prepare_collection(self._name, indexes=indexes, fields=fields)

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def find_one(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (PyMongo's own name for it)
        *,
        subject: object = None,
        session: AsyncClientSession | None = None,
    ) -> Document | None:
        """The first document that matches, opened; or None. The arguments and errors are those of `find`."""
        found = await self._first(await self.filter(filter, subject=subject), session, None)
        return None if found is None else (await self.open([found]))[0]

    async def find(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (PyMongo's own name for it)
        *,
        subject: object = None,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        session: AsyncClientSession | None = None,
    ) -> AsyncIterator[Document]:
        """``async for`` over the documents that match, opened.

        Args:
            filter: a filter of MongoDB's. Deterministic fields are compared for equality (``$eq``, ``$ne``, ``$in``,
                ``$nin``); all may be asked whether they are there (``$exists``, None).
            subject: whose value an encrypted one is compared with, where the filter does not say it.
            sort: by paths in the clear.
            limit: how many at the most; 0 is all.
            session: as for `insert_one`.

        Raises:
            ConfigurationError: no encrypted field can answer the filter; a document was sealed by `insert_document`.
            KeyErased: the subject of one was erased.
            KeyUnavailable: a value was encrypted by another client, under keys of its own.
            DecryptionFailed: a value was changed, or is another field's or another person's.
        """
        where = await self.filter(filter, subject=subject)
        collection = self._provider.raw(self._name)
        cursor = collection.find(where, sort=sort, limit=limit, session=session, batch_size=_BATCH)
        try:
            name, options = self._provider.name, self.rules.options
            while found := await next_batch(cursor, _BATCH, provider=name, document=filter, options=options):
                for document in await self.open(found):
                    yield document
        finally:
            await cursor.close()

    async def filter(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (PyMongo's own name for it)
        *,
        subject: object = None,
    ) -> Document:
        """A filter with its values of encrypted fields encrypted, for PyMongo's own collection.

        Raises:
            ConfigurationError: as `find`.
        """
        return await self.rules.filter(filter or {}, subject, self._encryption.cipher)

    async def open(self, documents: Sequence[Document]) -> list[Document]:
        """Documents of any query, opened.

        A query that leaves out the field that says whose they are leaves out that check too.

        Raises:
            KeyErased, KeyUnavailable, DecryptionFailed, ConfigurationError: as `find`.
        """
        if any(isinstance(document.get(SEALED_BODY), bytes) for document in documents):
            raise ConfigurationError(
                f"{self._name}: a document was sealed by insert_document: read it with find_document"
            )
        values = [list(encrypted_values(document)) for document in documents]
        ids = {key_id_of(value) for held in values for _, value in held}
        if not ids:
            return list(documents)
        store = await self._provider.keys.ready("field_encryption")
        unknown = False
        try:
            keys = await store.keys(ids)
        except KeyUnavailable:
            unknown = True
        if unknown:
            raise KeyUnavailable(
                f"{self._name}: a document holds values that were encrypted under keys that Datavern does not know: "
                "read it with the client that wrote it"
            )
        cipher, rules, opened = await self._encryption.cipher(store), self.rules, []
        path, options = rules.subject_path, rules.options
        for document, held in zip(documents, values, strict=True):
            whose = None if path is None else value_at(document, path)
            tag = None if whose is None else store.subject_tag(canonical_subject(whose))
            for at, value in held:
                key = keys[key_id_of(value)]
                if key.dataset != rules.key_name(at) or (tag is not None and key.subject_tag != tag):
                    raise DecryptionFailed
            opened.append(await cipher.open(document, options) if held else document)
        return opened

    @staticmethod
    def emptied(document: Document) -> Document:
        """A document whose encrypted values nobody can open again, without them."""
        return _emptied(document)  # type: ignore[no-any-return]  # of a document it is one

    # ---- behind them ------------------------------------------------------------------------------------------------

    async def _sealing(self, document: Mapping[str, Any], subject: object) -> Sealing:
        store = await self._provider.keys.ready("field_encryption")
        return Sealing(store, await self._encryption.cipher(store), self.rules.whose(document, subject))

    async def _look_again(
        self,
        sealing: Sealing,
        where: Document,
        written: Mapping[str, Any] | None,
        session: AsyncClientSession | None,
    ) -> None:
        """Take back what was written while its subject was being erased (see `Unguarded`).

        Raises:
            KeyErased: it was.
        """
        if sealing.who is None or not sealing.keys:
            return
        check = partial(self._check, sealing, where, written)
        if session is not None and (open_ := self._provider.transactions_open.get(session)) is not None:
            open_.written.append(check)
        else:
            await check()

    async def _check(self, sealing: Sealing, where: Document, written: Mapping[str, Any] | None) -> None:
        assert sealing.who is not None  # noqa: S101  (for the type checker: `_look_again` saw to it)
        for key in sealing.keys.values():
            if not await sealing.store.unguarded.covers(key, sealing.who):
                break
        else:
            return
        collection = self._provider.raw(self._name)
        error: BaseException | None = None
        try:
            if written is None:
                await collection.delete_one(where)
            else:
                same = {path: {"$eq": value} for path, value in written.items()}
                await collection.update_one({**where, **same}, {"$unset": dict.fromkeys(written, "")})
        except DRIVER_ERRORS as caught:
            error = self._translate(caught, None)
        if error is not None:
            raise error
        raise KeyErased(f"an erasure of the subject runs: {self._name} takes nothing about it meanwhile")

    async def _first(
        self, where: Document, session: AsyncClientSession | None, projection: Mapping[str, Any] | None
    ) -> Document | None:
        error: BaseException | None = None
        try:
            return await self._provider.raw(self._name).find_one(where, projection, session=session)
        except DRIVER_ERRORS as caught:
            error = self._translate(caught, where, wrote=False)
        raise error

    def _translate(self, error: BaseException, document: Any, *, wrote: bool = True) -> BaseException:
        name, options = self._provider.name, self.rules.options
        return translate(error, provider=name, wrote=wrote, document=document, options=options)


def _emptied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _emptied(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_emptied(inner) for inner in value]
    return None if holds_encrypted(value) else value

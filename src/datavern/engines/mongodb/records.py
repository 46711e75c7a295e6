"""People's documents and files, as the data map reaches them: see `datavern.contracts.records.Records`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError, KeyErased
from datavern.contracts.records import Holding, Lack, Whose
from datavern.engines.mongodb.bodies import METADATA, SEALED_BODY
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate
from datavern.engines.mongodb.keys import DOCUMENT_TAG, FILE_TAG, TAG_PATHS
from datavern.engines.mongodb.paths import field_path, forms_of, id_of, values_at

if TYPE_CHECKING:
    from datavern.engines.mongodb.fields import EncryptedCollection
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["MongoDBRecords"]

_LATEST: Final = 1000
"""So many documents are looked at for a field that no index and no validator names."""
_INLINE: Final = 1 << 20
"""Bytes of a file that an answer holds; of a larger one it says how to fetch it."""
_WHOLE: Final = ("delete", "shred")


class MongoDBRecords:
    """`Records` on MongoDB.

    Args:
        provider: the provider.
    """

    own_key = "_id"

    __slots__ = ("_provider",)

    def __init__(self, provider: MongoDBProvider) -> None:
        self._provider = provider

    # ---- what the data map may say ----------------------------------------------------------------------------------

    def check(self, holding: Holding) -> None:
        """Refuse what could not be found, or not be ended as the policy says."""
        if holding.keyed:
            raise ConfigurationError('key: documents have no keys: name the path, subject="owner.id"')
        path = holding.subject
        for name in (*((path,) if path else ()), *holding.fields):
            field_path(name)
        files = holding.store == self._provider.files.store
        if path is not None and path.split(".")[0] == SEALED_BODY:
            raise ConfigurationError(f'subject: {path} is sealed away: set subject = "{DOCUMENT_TAG}"')
        if path in TAG_PATHS and path != (FILE_TAG if files else DOCUMENT_TAG):
            right = FILE_TAG if files else DOCUMENT_TAG
            raise ConfigurationError(f'subject: the tag of a subject stands at "{right}" in {holding.store}')
        encrypted = self._provider.field_encryption.of(holding.store)
        _check_linked(holding, encrypted)
        if encrypted is not None:
            _check_encrypted(holding, encrypted)
        nested = next((name for name in holding.sealed if "." in name), None)
        if nested is not None:
            raise ConfigurationError(
                f"fields.{nested}: a sealed field stands at the top of its document: seal all of "
                f"{nested.split('.')[0]}, or the whole document with insert_document(…, subject=)"
            )
        if files or path in TAG_PATHS:
            what = "a file is" if files else "what insert_document wrote is"
            if holding.erasure not in _WHOLE:
                raise ConfigurationError(f"erasure: {what} one whole: delete or shred, and not {holding.erasure}")
            if holding.sealed:
                raise ConfigurationError(f"fields.{holding.sealed[0]}: {what} sealed as a whole: leave sealed out")

    def writes(self, holding: Holding) -> str | None:
        """How a document or file is written that carries its subject's tag."""
        if holding.store == self._provider.files.store:
            return "files.upload(…, subject=)"
        if self._provider.field_encryption.of(holding.store) is not None:
            return f'encrypted_collection("{holding.store}").insert_one(…)'
        return f'insert_document("{holding.store}", …, subject=)' if holding.subject == DOCUMENT_TAG else None

    async def missing(self, holding: Holding) -> Lack | None:
        """What no index, no validator and none of the latest documents has."""
        provider = self._provider
        described = await provider.capabilities.subjects.describe(holding.store)  # type: ignore[union-attr]  # it has them
        if described is None:
            return Lack(f"{provider.name} has no collection {holding.store}")
        known = {column.name for column in described.columns}
        # An index over a misspelt path is no proof of it: the path that finds people has to be in the documents.
        wanted = [holding.subject] if holding.subject and holding.subject not in TAG_PATHS else []
        absent = [*wanted, *(path for path in holding.fields if path not in known)]
        if not absent or await self._latest(holding.store, {}) is None:
            return None
        missing = [path for path in absent if await self._latest(holding.store, {path: {"$exists": True}}) is None]
        if not missing:
            return None
        return Lack(f"none of the latest {_LATEST:,} documents of {holding.store} has {', '.join(missing)}")

    async def _latest(self, store: str, query: Mapping[str, Any]) -> dict[str, Any] | None:
        error: BaseException | None = None
        stages: list[Mapping[str, Any]] = [
            {"$sort": {"_id": -1}},
            {"$limit": _LATEST},
            {"$match": query},
            {"$limit": 1},
            {"$project": {"_id": 1}},
        ]
        try:
            cursor = await self._provider.raw(store).aggregate(stages)
            return next(iter(await cursor.to_list(1)), None)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name)
        raise error

    # ---- whose a document is ----------------------------------------------------------------------------------------

    async def whose(self, record: Mapping[str, Any], path: str, subject: str) -> Whose:
        """Everybody whom the path leads to: it may lead through arrays."""
        if path in TAG_PATHS:
            keys = await self._provider.keys.ready("a subject's documents")
            tags = list(values_at(record, path.split(".")))
            return Whose(tags == [keys.subject_tag(subject)])
        named = {id_of(value) for value in values_at(record, path.split("."))} - {None}
        return Whose(subject in named, bool(named - {subject}))

    async def cap(
        self,
        holding: Holding,  # noqa: ARG002  (the protocol's)
        seconds: float,  # noqa: ARG002  (the protocol's)
        *,
        fix: bool,  # noqa: ARG002  (the protocol's)
        spares: Callable[[str], bool],  # noqa: ARG002  (the protocol's)
    ) -> tuple[int, int]:
        """Documents have no keys that expire."""
        return 0, 0

    async def take_out(self, holding: Holding, record: Mapping[str, Any], subject: str) -> bool:
        """Pull the array's elements that name the person; where the array is the first on the path."""
        parts = (holding.subject or "").split(".")
        value: Any = record
        at = 0
        while isinstance(value, Mapping) and at < len(parts):
            value = value.get(parts[at])
            at += 1
        if not isinstance(value, list):
            return False
        named: Any = {"$in": forms_of(subject)}
        rest = ".".join(parts[at:])
        if rest and any(isinstance(_at(element, parts[at:]), list) for element in value):
            return False
        pulled = {".".join(parts[:at]): {rest: named} if rest else named}
        error: BaseException | None = None
        try:
            collection = self._provider.raw(holding.store)
            await collection.update_one({"_id": {"$eq": record["_id"]}}, {"$pull": pulled})
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name, wrote=True)
        if error is not None:
            raise error
        return True

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def opened(self, store: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Documents and files, opened."""
        if store == self._provider.files.store:
            return [await self._file(record) for record in records]
        return [await self._document(store, dict(record)) for record in records]

    async def _document(self, store: str, document: dict[str, Any]) -> dict[str, Any]:
        encrypted = self._provider.field_encryption.of(store)
        if encrypted is not None:
            try:
                return (await encrypted.open([document]))[0]
            except KeyErased:  # as below
                return encrypted.emptied(document)
        try:
            return (await self._provider._documents.open(store, [document]))[0]  # noqa: SLF001  (a part of it)
        except KeyErased:  # what a write left that was under way when its process died: nobody can open it again
            metadata = {name: value for name, value in document[METADATA].items() if name != "subject"}
            return {"_id": document["_id"], METADATA: metadata, SEALED_BODY: None}

    async def _file(self, record: Mapping[str, Any]) -> dict[str, Any]:
        files = self._provider.files
        try:
            async with files.held(record["_id"]) as opened:
                known = opened.file
                content = await opened.read() if known.length <= _INLINE else None
        except KeyErased:
            return {"_id": record["_id"], "filename": None, "content": None}
        found: dict[str, Any] = {
            "_id": known.id,
            "filename": known.name,
            "length": known.length,
            "classification": known.classification,
            "created_at": known.created_at,
            "created_by": known.created_by,
            "metadata": known.metadata,
            "content": content,
        }
        if content is None:
            found["note"] = "too large to be part of the answer: files.open(_id) reads it"
        return found


def _check_linked(holding: Holding, encrypted: EncryptedCollection | None) -> None:
    """Refuse a path that leads to a person over another dataset, where the person has to be named.

    Raises:
        ConfigurationError: why.
    """
    path = holding.subject
    if holding.linked and (path in TAG_PATHS or encrypted is not None):
        what = f"{path} holds a subject's tag" if path in TAG_PATHS else "field_encryption asks whose a document is"
        raise ConfigurationError(f"subject_via: {what}, which leads to the person by itself: leave it out")


def _check_encrypted(holding: Holding, encrypted: EncryptedCollection) -> None:
    """Refuse what a collection cannot be that MongoDB's own encryption has fields of.

    Raises:
        ConfigurationError: why.
    """
    if holding.subject is None or holding.subject in TAG_PATHS or encrypted.rules.concerned(holding.subject):
        raise ConfigurationError(
            "subject: field_encryption encrypts fields of it, so whose a document is stands in another field, in the "
            'clear: subject="owner"'
        )
    if holding.sealed:
        raise ConfigurationError(
            f"fields.{holding.sealed[0]}: field_encryption encrypts fields of it: leave sealed out, or field_encryption"
        )
    if holding.erasure == "retain":
        raise ConfigurationError(
            "erasure: what field_encryption encrypts ends with the person's keys, and retain keeps it: seal it instead"
        )


def _at(value: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if isinstance(value, list):
            return value
        value = value.get(part) if isinstance(value, Mapping) else None
    return value

"""Files in GridFS: sealed by their classification as they stream, in constant memory."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bson import Binary, ObjectId, decode, encode
from bson.datetime_ms import DatetimeMS
from gridfs import AsyncGridFSBucket

from datavern.contracts.errors import ConfigurationError, DecryptionFailed, KeyErased, QueryRejected
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import Classification, current_actor
from datavern.crypto.documents import DocumentSealer, Labels
from datavern.crypto.lookup import index
from datavern.crypto.segments import StreamSealer
from datavern.engines.mongodb.bodies import labels_of
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate
from datavern.engines.mongodb.keys import FILE_TAG, SEALED, check_residency, graded
from datavern.engines.mongodb.reading import File, Opened
from datavern.engines.mongodb.writing import Writing

if TYPE_CHECKING:
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["Files"]

_PIECE: Final = 262_144
_NAME: Final = "filename"
_SEALED_NAME: Final = "datavern:"
"""How the names of sealed files begin in the clear; a keyed index of the name follows."""
_EXTRA: Final = frozenset({"classification", "created_at", "created_by", "location", "subject", "sealed"})


class Files:
    """Files of any size. A sealed file's content, name and metadata are sealed; its length is not.

    What is sealed and how: crypto/FORMAT.md, 10 and 11. A file is there when it is whole: a failed or cancelled upload
    takes its chunks back.

    Args:
        provider: the provider.
        default: classification of files that do not say their own.
    """

    __slots__ = ("_default", "_provider")

    def __init__(self, provider: MongoDBProvider, default: Classification) -> None:
        self._provider = provider
        self._default = default

    @property
    def store(self) -> str:
        """The collection that holds what is known of each file: what a dataset of files names as its `store`."""
        return f"{self._provider.settings.bucket}.files"

    @property
    def _dataset(self) -> str:
        return self._provider.settings.datasets.get(self.store, self.store)

    @property
    def bucket(self) -> AsyncGridFSBucket:
        """PyMongo's own bucket. It sees sealed files as they are stored."""
        provider = self._provider
        return AsyncGridFSBucket(provider.database, bucket_name=provider.settings.bucket)

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def upload(
        self,
        name: str,
        source: Any,
        *,
        classification: Classification | str | None = None,
        subject: object = None,
        metadata: Mapping[str, Any] | None = None,
        file_id: Any = None,
    ) -> Any:
        """Store a file; its id.

        Args:
            name: need not be unique: a later file of the same name is a new revision.
            source: bytes, something with ``read(size)`` (a blocking one is read in a thread), or an (async) iterable
                of bytes.
            classification: CONFIDENTIAL and SECRET are sealed; the provider's own when None.
            subject: whose the file is: it is sealed under the person's key and ends with it.
            metadata: what else is to be known of it; sealed with the content.
            file_id: an id of your own, instead of a new ObjectId.

        Raises:
            ResidencyViolation: such data may not be here.
            KeyErased: an erasure of the subject runs.
            ConstraintViolated: there is a file with that id.
            ConfigurationError: no keys, no such source, a name that MongoDB does not take.
            ProviderError: what the server says. Nothing of the file is kept then.
        """
        provider = self._provider
        grade = self._default if classification is None else graded(classification)
        check_residency(grade, provider.location)
        if not isinstance(name, str) or "\0" in name:
            raise ConfigurationError("files: a name is text without NUL characters")
        if metadata is not None and not _EXTRA.isdisjoint(metadata):
            raise ConfigurationError(f"files: metadata: Datavern keeps fields of its own: {', '.join(sorted(_EXTRA))}")
        pieces = _pieces(source)
        sealed = grade in SEALED
        store, key, who = await self._key(subject, sealed=sealed)
        if key is not None and key.subject_tag is not None:
            await self._admit(key.subject_tag, writing=True)
        await provider.audited.note(self.store, "uploaded", subject)
        id_ = ObjectId() if file_id is None else file_id
        options = provider.database.codec_options
        kept: dict[str, Any] = {
            "classification": grade.value,
            "created_at": DatetimeMS(time.time_ns() // 1_000_000),
            "created_by": current_actor(),
            "location": provider.location.value,
        }
        if key is not None and key.subject_tag is not None:
            kept["subject"] = Binary(key.subject_tag)
        stream: StreamSealer | None = None
        stored_name = name
        error: BaseException | None = None
        try:
            if sealed:
                assert key is not None  # noqa: S101  (for the type checker: what is sealed has a key)
                assert store is not None  # noqa: S101  (the same)
                labels = labels_of(kept, id_, options)
                about = encode({"name": name, "metadata": dict(metadata or {})}, codec_options=options)
                kept["sealed"] = Binary(DocumentSealer(self._dataset).seal(key, labels.bytes, about))
                stream = StreamSealer(self._dataset, key, labels)
                stored_name = await self._sealed_name(store, name)
            else:
                kept.update(metadata or {})
            await self._write(id_, stored_name, kept, pieces, stream)
        except DRIVER_ERRORS as caught:
            error = translate(
                caught, provider=provider.name, wrote=True, document={"_id": id_, **(metadata or {})}, options=options
            )
        if error is not None:
            raise error
        if store is not None and key is not None and who and not await store.unguarded.covers(key, who):
            await self._remove(id_)
            raise KeyErased(f"an erasure of the subject runs: {self._dataset} takes nothing about it meanwhile")
        return id_

    async def _key(self, subject: object, *, sealed: bool) -> tuple[KeyStore | None, DataKey | None, str]:
        path = self._provider.keys.subject_path(self.store)
        if subject is None and path == FILE_TAG:
            raise ConfigurationError(f"{self.store}: the data map says that its files are about people: give subject=")
        if sealed and path not in (None, FILE_TAG):
            raise ConfigurationError(
                f"{self.store}: the data map finds people by {path}, which is sealed away here: an erasure would not "
                f'find it. Set subject = "{FILE_TAG}" in the data map, and give subject= here'
            )
        if subject is not None:
            who = canonical_subject(subject)
            store = await self._provider.keys.ready("files.upload")
            return store, await store.unguarded.key(self._dataset, who), who
        if sealed:
            store = await self._provider.keys.ready("files.upload")
            return store, await store.dataset_key(self._dataset), ""
        return None, None, ""

    async def _write(
        self,
        id_: Any,
        name: str,
        kept: dict[str, Any],
        pieces: AsyncGenerator[bytes],
        stream: StreamSealer | None,
    ) -> None:
        into = Writing(self._provider, id_)
        began = False
        try:
            await into.begin()
            began = True
            if stream is not None:
                await into.write(stream.header)
            async for piece in pieces:
                await into.write(piece if stream is None else stream.update(piece))
            if stream is not None:
                await into.write(stream.finish())
            await into.finish(name, kept)
        except BaseException:
            if began:
                await into.take_back()
            raise
        finally:
            await pieces.aclose()

    async def _sealed_name(self, store: KeyStore, name: str) -> str:
        key = await store.lookup_key(self._dataset, _NAME)
        return _SEALED_NAME + index(key, _NAME, name).hex()

    # ---- reading ----------------------------------------------------------------------------------------------------

    def open(self, file: Any, *, revision: int = -1) -> Opened:
        """``async with mongo.files.open("report.pdf") as f:`` a file to be read.

        Args:
            file: its name (text), or its id.
            revision: which of the files of that name: 0 the first, -1 the newest, -2 the one before it.

        Raises:
            QueryRejected: on entering: there is no such file.
            KeyErased: its subject was erased.
            DecryptionFailed: it, or what stands beside it, was changed.
            ProcessingRestricted, ConsentRequired: its person's data is restricted, or may not be read without consent.
        """
        return Opened(self._provider, partial(self._look, file, revision, True))

    def held(self, file_id: Any) -> Opened:
        """A file by its id, for the answer to its person's request: no restriction stands against that."""
        return Opened(self._provider, partial(self._look, file_id, -1, False))

    async def read(self, file: Any, *, revision: int = -1) -> bytes:
        """A whole file, in memory. The arguments and errors are those of `open`, and of reading it."""
        async with self.open(file, revision=revision) as opened:
            return await opened.read()

    async def find(self, *, name: str | None = None, subject: object = None) -> list[File]:
        """What is known of the files of that name, or of that subject; the oldest first.

        Raises:
            ConfigurationError: neither is given.
            KeyErased: the subject of one of them was erased, and the file is still there.
        """
        where: dict[str, Any] = {}
        if name is not None:
            where["filename"] = {"$in": await self._names(name)}
        if subject is not None:
            store = await self._provider.keys.ready("files.find")
            where[FILE_TAG] = Binary(store.subject_tag(canonical_subject(subject)))
        if not where:
            raise ConfigurationError("files.find needs a name or a subject")
        found = await self._documents(where, 0, [("uploadDate", 1), ("_id", 1)])
        gate = self._provider.keys.gate
        if gate is not None and gate.due():
            tags = [() if (tag := _tag(document)) is None else (tag,) for document in found]
            hidden = await gate.hidden(self.store, [()] * len(found), tags)
            found = [document for at, document in enumerate(found) if at not in hidden]
        return [await self._file(document) for document in found]

    async def delete(self, file_id: Any) -> bool:
        """Remove a file by its id; whether there was one. Its chunks go first: what is found is never half a file."""
        await self._provider.audited.note(self.store, "deleted", None)
        return await self._remove(file_id)

    async def _remove(self, file_id: Any) -> bool:
        provider = self._provider
        bucket = provider.settings.bucket
        error: BaseException | None = None
        try:
            await provider.raw(f"{bucket}.chunks").delete_many({"files_id": {"$eq": file_id}})
            result = await provider.raw(self.store).delete_one({"_id": {"$eq": file_id}})
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=provider.name, wrote=True, document={"_id": file_id})
        else:
            return result.deleted_count > 0
        raise error

    async def _names(self, name: str) -> list[str]:
        """How a name may stand in the clear: as it is, and as a sealed file's index of it."""
        names = [name]
        keys = self._provider.keys
        if keys.store is not None or keys.reachable:
            names.append(await self._sealed_name(await keys.ready("files"), name))
        return names

    async def _look(self, file: Any, revision: int, asked: bool) -> File:
        if isinstance(file, str):
            where: dict[str, Any] = {"filename": {"$in": await self._names(file)}}
        else:
            where = {"_id": {"$eq": file}}
        way = 1 if revision >= 0 else -1
        skip = revision if revision >= 0 else -revision - 1
        found = await self._documents(where, 1, [("uploadDate", way), ("_id", way)], skip=skip)
        if not found:
            raise QueryRejected("there is no such file", provider=self._provider.name)
        tag = _tag(found[0])
        if asked and tag is not None:
            await self._admit(tag, writing=False)
        return await self._file(found[0])

    async def _admit(self, tag: bytes, *, writing: bool) -> None:
        gate = self._provider.keys.gate
        if gate is not None and gate.due():
            await gate.admit(self.store, tags=(tag,), writing=writing)

    async def _documents(
        self, where: Mapping[str, Any], limit: int, sort: list[tuple[str, int]], *, skip: int = 0
    ) -> list[dict[str, Any]]:
        provider = self._provider
        error: BaseException | None = None
        try:
            cursor = provider.raw(self.store).find(where, sort=sort, limit=limit, skip=skip)
            return await cursor.to_list(None)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=provider.name)
        raise error

    async def _file(self, document: dict[str, Any]) -> File:
        """What is known of a file, opened."""
        kept = document.get("metadata")
        metadata: dict[str, Any] = dict(kept) if isinstance(kept, Mapping) else {}
        sealed = metadata.get("sealed")
        common = {
            "id": document["_id"],
            "stored": int(document.get("length", 0)),
            "chunk_size": int(document.get("chunkSize", 0)),
            "classification": metadata.get("classification"),
            "created_at": metadata.get("created_at", document.get("uploadDate")),
            "created_by": metadata.get("created_by"),
        }
        if not isinstance(sealed, bytes):
            extra = {name: value for name, value in metadata.items() if name not in _EXTRA}
            return File(
                **common, name=str(document.get("filename", "")), metadata=extra, key=None, labels=None, dataset=""
            )
        store = await self._provider.keys.ready("files")
        options = self._provider.database.codec_options
        labels: Labels = labels_of(metadata, document["_id"], options)
        key_id = DocumentSealer.key_id(sealed)
        key = store.warm_key(key_id) or (await store.keys((key_id,)))[key_id]
        about = decode(DocumentSealer(self._dataset).open(key, labels, sealed), codec_options=options)
        try:
            return File(
                **common, name=about["name"], metadata=about["metadata"], key=key, labels=labels, dataset=self._dataset
            )
        except KeyError:
            pass
        raise DecryptionFailed


def _tag(document: Mapping[str, Any]) -> bytes | None:
    """The keyed tag of the person whose file it is."""
    metadata = document.get("metadata")
    tag = metadata.get("subject") if isinstance(metadata, Mapping) else None
    return bytes(tag) if isinstance(tag, bytes) else None


async def _pieces(source: Any) -> AsyncGenerator[bytes]:
    """The source's bytes, piece by piece."""
    if isinstance(source, bytes | bytearray | memoryview):
        source = (source,)
    if hasattr(source, "read"):
        async for piece in _read(source.read):
            yield piece
    elif hasattr(source, "__aiter__"):
        async for piece in source:
            for part in _cut(piece):
                yield part
    elif hasattr(source, "__iter__") and not isinstance(source, str):
        for piece in source:
            for part in _cut(piece):
                yield part
    else:
        raise ConfigurationError(
            f"files: a source is bytes, something with read(size), or an iterable of bytes, not {type(source).__name__}"
        )


async def _read(read: Callable[[int], Any]) -> AsyncIterator[bytes]:
    waits = inspect.iscoroutinefunction(read)
    while True:
        piece = await read(_PIECE) if waits else await asyncio.to_thread(read, _PIECE)
        if inspect.isawaitable(piece):
            piece = await piece
        if not piece:
            return
        yield _checked(piece)


def _cut(piece: Any) -> Iterator[bytes]:
    """A piece of whatever size, in parts that hold nobody up while they are sealed."""
    whole = memoryview(_checked(piece))
    for at in range(0, len(whole), _PIECE):
        yield bytes(whole[at : at + _PIECE])


def _checked(piece: Any) -> bytes:
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise ConfigurationError(f"files: the source gives {type(piece).__name__}, not bytes: open it in binary mode")
    return bytes(piece)

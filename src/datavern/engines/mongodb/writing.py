"""Writing a file's chunks to GridFS, a few at a time.

PyMongo's own writer gathers 32 MiB of chunks and holds them several times over while it sends them. Source of the
layout: https://github.com/mongodb/specifications/blob/master/source/gridfs/gridfs-spec.md.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from bson import Int64, ObjectId
from gridfs.errors import FileExists
from pymongo.errors import BulkWriteError, DuplicateKeyError

from datavern.engines.mongodb.errors import DRIVER_ERRORS, DUPLICATE

if TYPE_CHECKING:
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["CHUNK", "Writing"]

CHUNK: Final = 261_120
"""Bytes in each chunk but the last: what every GridFS writer uses."""
_BATCH: Final = 8
_PATIENCE: Final = 5.0  # seconds that taking a failed upload back may take

_FILES_INDEX: Final = [("filename", 1), ("uploadDate", 1)]
_CHUNKS_INDEX: Final = [("files_id", 1), ("n", 1)]


class Writing:
    """One file on its way into the database. It is there when `finish` has returned.

    Whoever stored the first chunk of an id owns it: the index over id and number is unique, so another writer of the
    same id fails there, before it has written anything that would have to be taken back.

    Args:
        provider: the provider.
        file_id: the file's id.
    """

    __slots__ = ("_batch", "_chunks", "_files", "_first", "_id", "_known", "_length", "_next", "_owned", "_pending")

    def __init__(self, provider: MongoDBProvider, file_id: Any) -> None:
        bucket = provider.settings.bucket
        self._files = provider.raw(f"{bucket}.files")
        self._chunks = provider.raw(f"{bucket}.chunks")
        self._id = file_id
        self._pending = bytearray()
        self._batch: list[dict[str, Any]] = []
        self._length = 0
        self._next = 0
        self._first: list[ObjectId] = []
        self._owned = False
        self._known: dict[str, Any] | None = None

    async def begin(self) -> None:
        """Make the indexes that GridFS wants, where the bucket is empty; see that the id is free.

        Raises:
            gridfs.errors.FileExists: it is not.
        """
        if await self._files.find_one({}, {"_id": 1}) is None:
            await self._files.create_index(_FILES_INDEX)
            await self._chunks.create_index(_CHUNKS_INDEX, unique=True)
        if await self._files.find_one({"_id": {"$eq": self._id}}, {"_id": 1}) is not None:
            raise FileExists

    async def write(self, data: bytes) -> None:
        """Take more of the file."""
        pending = self._pending
        pending += data
        if len(pending) < CHUNK:
            return
        at = 0
        while len(pending) - at >= CHUNK:
            await self._chunk(bytes(pending[at : at + CHUNK]))
            at += CHUNK
        del pending[:at]

    async def _chunk(self, data: bytes) -> None:
        self._batch.append({"_id": ObjectId(), "files_id": self._id, "n": self._next, "data": data})
        self._length += len(data)
        self._next += 1
        if len(self._batch) >= _BATCH:
            await self._send()

    async def _send(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        if self._owned:
            await self._chunks.insert_many(batch)
            return
        self._first = [chunk["_id"] for chunk in batch]
        try:
            await self._chunks.insert_many(batch)
        except BulkWriteError as error:
            if any(one.get("code") in DUPLICATE for one in error.details.get("writeErrors", ())):
                raise FileExists from error
            raise
        self._owned = True

    async def finish(self, filename: str, metadata: dict[str, Any]) -> None:
        """Send the rest, and make the file known.

        Raises:
            gridfs.errors.FileExists: another file took the id meanwhile.
        """
        if self._pending:
            await self._chunk(bytes(self._pending))
            self._pending.clear()
        await self._send()
        now = dt.datetime.now(dt.UTC)
        self._known = {"_id": self._id, "length": Int64(self._length), "uploadDate": now, "metadata": metadata}
        try:
            await self._files.insert_one({**self._known, "filename": filename, "chunkSize": CHUNK})
        except DuplicateKeyError as error:
            self._known = None
            raise FileExists from error

    async def take_back(self) -> None:
        """Remove what was sent. When that fails too, it is not told: what failed first is."""
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._known is not None:  # whether it was stored is not known; what matches in full is ours
                    await self._files.delete_one({name: {"$eq": value} for name, value in self._known.items()})
                if self._owned:
                    await self._chunks.delete_many({"files_id": {"$eq": self._id}})
                elif self._first:
                    await self._chunks.delete_many({"_id": {"$in": self._first}})
        except (*DRIVER_ERRORS, TimeoutError):
            return

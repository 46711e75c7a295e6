"""Files in GridFS: sealed as they stream, whole or not there, and gone with their subject."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tracemalloc

import pytest
from bson import ObjectId, encode
from gridfs import AsyncGridFSBucket
from tests.engines.mongodb.conftest import FailPoint, erase

from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    DecryptionFailed,
    KeyErased,
    OutcomeUnknown,
    ProviderError,
    QueryRejected,
)
from datavern.crypto.segments import SEGMENT

SIZES = [0, 1, SEGMENT, SEGMENT + 1, 261_120, 1_000_003]


async def nothing_is_left(mongo):
    files, chunks = mongo.collection("fs.files"), mongo.collection("fs.chunks")
    assert (await files.count_documents({}), await chunks.count_documents({})) == (0, 0)


@pytest.mark.parametrize("subject", [None, "u1"])
@pytest.mark.parametrize("classification", ["OPEN", "SECRET"])
@pytest.mark.parametrize("size", SIZES)
async def test_a_file_comes_back_as_it_was(mongo, classification, subject, size):
    data = os.urandom(size)
    id_ = await mongo.files.upload(
        "årsrapport.pdf", data, classification=classification, subject=subject, metadata={"side": 1}
    )
    assert isinstance(id_, ObjectId)
    for file in (id_, "årsrapport.pdf"):
        async with mongo.files.open(file) as opened:
            assert (opened.name, opened.metadata, opened.length) == ("årsrapport.pdf", {"side": 1}, size)
            assert opened.file.classification == classification
            assert opened.file.sealed == (classification == "SECRET")
            assert b"".join([piece async for piece in opened]) == data
    assert await mongo.files.read(id_) == data


async def test_a_sealed_file_shows_nothing_but_its_length(mongo, keys):
    data = b"personnummer " * 50_000
    await mongo.files.upload(
        "Ola Nordmann.pdf", data, classification="CONFIDENTIAL", subject="ola-nordmann", metadata={"sak": "vedtak"}
    )
    [file] = await mongo.collection("fs.files").find().to_list()
    stored = encode(file) + b"".join([encode(c) async for c in mongo.collection("fs.chunks").find()])
    for word in (b"personnummer", b"Nordmann", b"vedtak", b"ola-nordmann"):
        assert word not in stored
    assert file["metadata"]["subject"] == keys.subject_tag("ola-nordmann")
    assert file["metadata"]["classification"] == "CONFIDENTIAL"


class Source:
    """Something with a read of its own."""

    def __init__(self, data, *, fail_at=None):
        self.data = io.BytesIO(data)
        self.left = fail_at

    def read(self, size):
        piece = self.data.read(min(size, 70_001))
        if self.left is not None:
            self.left -= len(piece)
            if self.left < 0:
                raise OSError("the disk is gone")
        return piece


class AsyncSource(Source):
    async def read(self, size):
        await asyncio.sleep(0)
        return super().read(size)


async def slowly(data):
    for at in range(0, len(data), 99_999):
        yield data[at : at + 99_999]


@pytest.mark.parametrize(
    "source",
    [
        bytes,
        bytearray,
        memoryview,
        io.BytesIO,
        Source,
        AsyncSource,
        slowly,
        lambda data: iter([data[:5], b"", memoryview(data[5:])]),
    ],
)
async def test_what_a_file_may_come_from(mongo, source):
    data = os.urandom(400_000)
    id_ = await mongo.files.upload("a", source(data), classification="SECRET")
    assert await mongo.files.read(id_) == data


@pytest.mark.parametrize("source", ["text", 5, io.StringIO("text"), [1, 2]])
async def test_what_it_may_not_come_from(mongo, source):
    with pytest.raises(ConfigurationError, match="files: "):
        await mongo.files.upload("a", source, classification="SECRET")
    await nothing_is_left(mongo)


async def test_it_is_read_in_pieces_of_any_size(mongo):
    data = os.urandom(200_000)
    id_ = await mongo.files.upload("a", data, classification="SECRET")
    async with mongo.files.open(id_) as file:
        assert await file.read(10) == data[:10]
        assert await file.read(100_000) == data[10:100_010]
        assert await file.read(0) == b""
        rest = b"".join([piece async for piece in file])
        assert rest == data[100_010:]
        assert await file.read() == b""
    with pytest.raises(ConfigurationError, match="open the file first"):
        _ = mongo.files.open(id_).name


async def test_revisions_names_and_ids(mongo):
    ids = [
        await mongo.files.upload("a", bytes([n]), classification=c) for n, c in enumerate(("OPEN", "SECRET", "OPEN"))
    ]
    assert [await mongo.files.read("a", revision=r) for r in (0, 1, 2, -1, -2, -3)] == [
        b"\0", b"\1", b"\2", b"\2", b"\1", b"\0",
    ]  # fmt: skip
    assert [f.id for f in await mongo.files.find(name="a")] == ids
    for missing in ("b", ObjectId()):
        with pytest.raises(QueryRejected, match="there is no such file"):
            await mongo.files.read(missing)
    own = await mongo.files.upload("c", b"x", classification="SECRET", file_id={"n": 1})
    assert own == {"n": 1}
    assert await mongo.files.read({"n": 1}) == b"x"
    with pytest.raises(ConstraintViolated, match="a file with that id"):
        await mongo.files.upload("d", b"y", classification="SECRET", file_id={"n": 1})
    assert await mongo.files.read({"n": 1}) == b"x"
    assert await mongo.files.delete({"n": 1})
    assert not await mongo.files.delete({"n": 1})
    assert await mongo.collection("fs.chunks").count_documents({"files_id": {"n": 1}}) == 0
    with pytest.raises(ConfigurationError, match="needs a name or a subject"):
        await mongo.files.find()


async def test_files_in_the_clear_are_gridfs_as_everybody_knows_it(mongo):
    data = os.urandom(600_000)
    id_ = await mongo.files.upload("a.bin", data, classification="OPEN", metadata={"k": 1})
    bucket = AsyncGridFSBucket(mongo.database)
    assert await (await bucket.open_download_stream(id_)).read() == data
    theirs = await bucket.upload_from_stream("b.bin", data)
    async with mongo.files.open("b.bin") as file:
        assert await file.read() == data
        assert file.file.classification is None
    assert await mongo.files.read(theirs) == data


# ---- nothing half written -------------------------------------------------------------------------------------------


async def test_a_source_that_fails_leaves_nothing(mongo):
    for source in (Source, AsyncSource):
        with pytest.raises(OSError, match="the disk is gone"):
            await mongo.files.upload("a", source(bytes(900_000), fail_at=700_000), classification="SECRET")
    await nothing_is_left(mongo)


async def test_a_server_that_fails_leaves_nothing(mongo):
    await mongo.files.upload("first", b"", classification="SECRET")
    async with FailPoint(mongo, "insert", closeConnection=True, times=2):
        with pytest.raises(OutcomeUnknown):
            await mongo.files.upload("a", bytes(900_000), classification="SECRET")
    assert await mongo.collection("fs.files").count_documents({}) == 1
    [first] = await mongo.collection("fs.files").find().to_list()
    assert await mongo.collection("fs.chunks").count_documents({"files_id": {"$ne": first["_id"]}}) == 0


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
async def test_two_that_upload_under_one_id_leave_one_whole_file(mongo, size):
    bodies = [bytes([n]) * size for n in range(4)]

    async def slowly(data):
        await asyncio.sleep(0.02)
        yield data

    results = await asyncio.gather(
        *(
            mongo.files.upload(str(n), slowly(data), classification="SECRET", file_id=7)
            for n, data in enumerate(bodies)
        ),
        return_exceptions=True,
    )
    assert sorted(type(r).__name__ for r in results) == ["ConstraintViolated"] * 3 + ["int"]
    winner = results.index(7)
    assert await mongo.files.read(7) == bodies[winner]
    assert [f.name for f in await mongo.files.find(name=str(winner))] == [str(winner)]


async def test_a_cancelled_upload_leaves_nothing(mongo):
    started = asyncio.Event()

    async def endless():
        for _ in range(60):
            yield bytes(65_536)
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(mongo.files.upload("a", endless(), classification="SECRET"))
    await started.wait()
    assert await mongo.collection("fs.chunks").count_documents({}) > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await nothing_is_left(mongo)


# ---- what was changed -----------------------------------------------------------------------------------------------


async def change(mongo, what):
    files, chunks = mongo.collection("fs.files"), mongo.collection("fs.chunks")
    [file] = await files.find().to_list()
    last = await chunks.count_documents({}) - 1
    if what == "a byte":
        chunk = await chunks.find_one({"n": 1})
        data = bytearray(chunk["data"])
        data[5000] ^= 1
        await chunks.update_one({"n": 1}, {"$set": {"data": bytes(data)}})
    elif what == "the last chunk is gone":
        await chunks.delete_one({"n": last})
    elif what == "the last chunk is gone, and the length says so":
        await chunks.delete_one({"n": last})
        kept = [len(c["data"]) async for c in chunks.find()]
        await files.update_one({}, {"$set": {"length": sum(kept)}})
    elif what == "cut at a segment":
        first, second = await chunks.find_one({"n": 0}), await chunks.find_one({"n": 1})
        data = (first["data"] + second["data"])[: 77 + SEGMENT + 16]
        await chunks.delete_many({"n": {"$gt": 0}})
        await chunks.update_one({"n": 0}, {"$set": {"data": data}})
        await files.update_one({}, {"$set": {"length": len(data)}})
    elif what == "two chunks changed places":
        a, b = await chunks.find_one({"n": 1}), await chunks.find_one({"n": 2})
        await chunks.update_one({"_id": a["_id"]}, {"$set": {"data": b["data"]}})
        await chunks.update_one({"_id": b["_id"]}, {"$set": {"data": a["data"]}})
    elif what == "a chunk is missing":
        await chunks.delete_one({"n": 1})
    elif what == "something was added":
        await chunks.insert_one({"files_id": file["_id"], "n": last + 1, "data": b"more"})
    elif what == "the length":
        await files.update_one({}, {"$set": {"length": file["length"] - 1}})
    elif what == "the classification":
        await files.update_one({}, {"$set": {"metadata.classification": "OPEN"}})
    elif what == "the seal":
        await files.update_one({}, {"$set": {"metadata.sealed": file["metadata"]["sealed"][:-1]}})
    elif what == "all chunks are gone":
        await chunks.delete_many({})


@pytest.mark.parametrize(
    "what",
    [
        "a byte",
        "the last chunk is gone",
        "the last chunk is gone, and the length says so",
        "cut at a segment",
        "two chunks changed places",
        "a chunk is missing",
        "something was added",
        "the length",
        "the classification",
        "the seal",
        "all chunks are gone",
    ],
)
async def test_a_sealed_file_that_was_changed_does_not_open(mongo, what):
    id_ = await mongo.files.upload("a", os.urandom(900_000), classification="SECRET", subject="u1")
    await change(mongo, what)
    with pytest.raises(DecryptionFailed):
        await mongo.files.read(id_)


@pytest.mark.parametrize("what", ["the last chunk is gone", "a chunk is missing", "something was added", "the length"])
async def test_an_open_file_that_is_damaged_is_told(mongo, what):
    id_ = await mongo.files.upload("a", os.urandom(900_000), classification="OPEN")
    await change(mongo, what)
    with pytest.raises(ProviderError, match="damaged"):
        await mongo.files.read(id_)


async def test_a_files_content_does_not_open_as_another_file(mongo):
    ids = [await mongo.files.upload("a", os.urandom(1000), classification="SECRET", subject="u1") for _ in range(2)]
    files, chunks = mongo.collection("fs.files"), mongo.collection("fs.chunks")
    await chunks.delete_one({"files_id": ids[0]})
    await chunks.update_one({"files_id": ids[1]}, {"$set": {"files_id": ids[0]}})
    with pytest.raises(DecryptionFailed):
        await mongo.files.read(ids[0])
    other = await files.find_one({"_id": ids[1]})
    await files.update_one({"_id": ids[0]}, {"$set": {"metadata": other["metadata"]}})
    with pytest.raises(DecryptionFailed):
        await mongo.files.read(ids[0])


# ---- people ---------------------------------------------------------------------------------------------------------


async def test_an_erased_persons_files_are_beyond_reach(mongo, keys):
    mine = await mongo.files.upload("a", b"mine", classification="SECRET", subject="u1")
    theirs = await mongo.files.upload("a", b"theirs", classification="SECRET", subject="u2")
    assert [f.id for f in await mongo.files.find(subject="u1")] == [mine]
    await keys.start_erasure("u1")
    with pytest.raises(KeyErased):
        await mongo.files.upload("b", b"", classification="OPEN", subject="u1")
    await keys.destroy("u1")
    with pytest.raises(KeyErased):
        await mongo.files.read(mine)
    assert await mongo.files.read(theirs) == b"theirs"
    assert await mongo.capabilities.subjects.delete("fs.files", {"metadata.subject": "u1"}) == 1
    assert await mongo.collection("fs.chunks").count_documents({"files_id": mine}) == 0
    assert [f.name for f in await mongo.files.find(subject="u2")] == ["a"]


async def test_a_file_that_was_on_its_way_when_the_erasure_came_is_taken_back(mongo, keys):
    await mongo.files.upload("a", b"", classification="SECRET", subject="u1")

    async def source():
        yield b"beginning"
        await erase(keys, "u1")
        yield b"end"

    with pytest.raises(KeyErased, match="takes nothing about it meanwhile"):
        await mongo.files.upload("b", source(), classification="OPEN", subject="u1")
    assert await mongo.collection("fs.files").count_documents({}) == 1


# ---- memory ---------------------------------------------------------------------------------------------------------


async def test_a_large_file_takes_constant_memory(mongo):
    piece, count = os.urandom(1 << 20), 96
    digest = hashlib.sha256()

    async def source():
        for _ in range(count):
            digest.update(piece)
            yield piece

    tracemalloc.start()
    try:
        id_ = await mongo.files.upload("large", source(), classification="SECRET")
        _, uploading = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        found = hashlib.sha256()
        async with mongo.files.open(id_) as file:
            assert file.length == count << 20
            async for part in file:
                found.update(part)
        _, reading = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.digest() == digest.digest()
    assert uploading < 24 << 20
    assert reading < 24 << 20

"""compliance=["nsm"] on documents, files and keys: a write to personal data leaves an entry, or is refused."""

import json

import pytest

from datavern import ConfigurationError, Dataset, PrivacyError, SubjectRequest

CASES = Dataset("cases", database="documents", subject="owner.id")
LETTERS = Dataset("letters", database="documents", subject="_metadata.subject")
FILES = Dataset("files", database="documents", store="fs.files", subject="metadata.subject")
SESSIONS = Dataset("sessions", database="cache", key="user:session:{subject}")


@pytest.fixture
async def db(managed, sqlite_database, documents, cache):
    databases = {
        "main": sqlite_database.provider(location="norway"),
        "documents": documents(compliance=["nsm"]),
        "cache": cache(compliance=["nsm"], encryption=True),
    }
    async with managed(CASES, LETTERS, FILES, SESSIONS, databases=databases) as db:
        yield db


@pytest.fixture
def engine():
    return "sqlite"


async def entries(db):
    rows = await db["main"].query("SELECT action, dataset, handle FROM datavern_audit ORDER BY era, stamp, seq")
    return [(row["action"], row["dataset"]) for row in rows]


async def test_pymongos_collection_reads_what_the_data_map_names_and_writes_the_rest(db):
    mongo = db["documents"]
    await mongo.insert_document("cases", {"_id": 1, "owner": {"id": "u1"}}, classification="OPEN")
    cases = mongo.collection("cases")
    for write in (
        lambda c: c.insert_one({}),
        lambda c: c.insert_many([{}]),
        lambda c: c.update_one({}, {"$set": {"a": 1}}),
        lambda c: c.delete_many({}),
        lambda c: c.bulk_write([]),
        lambda c: c.find_one_and_delete({}),
        lambda c: c.drop(),
        lambda c: c.with_options().insert_one({}),
    ):
        with pytest.raises(PrivacyError, match="cases holds personal data, and compliance nsm refuses"):
            await write(cases)
    with pytest.raises(PrivacyError):
        await cases.aggregate([{"$match": {}}, {"$out": "elsewhere"}])
    assert (await cases.find_one({"_id": 1}))["owner"] == {"id": "u1"}
    assert await cases.count_documents({}) == 1
    assert len(await (await cases.aggregate([{"$match": {"owner.id": "u1"}}])).to_list()) == 1
    assert len(await cases.find({"owner.id": "u1"}).to_list()) == 1
    await mongo.collection("weather").insert_one({"t": 1})


async def test_documents_and_files_leave_an_entry_before_they_are_written(db):
    mongo = db["documents"]
    id_ = await mongo.insert_document("letters", {"t": 1}, subject="u1")
    await mongo.replace_document("letters", {"_id": id_}, {"t": 2}, subject="u1")
    await mongo.insert_document("weather", {"t": 1}, classification="OPEN")
    await mongo.insert_document("notes", {"t": 1}, classification="OPEN", subject="u1")
    file = await mongo.files.upload("f", b"x", subject="u1")
    await mongo.files.delete(file)
    await db.personal("cases").insert({"_id": 1, "owner": {"id": "u1"}})
    assert await entries(db) == [
        ("inserted", "documents.letters"),
        ("replaced", "documents.letters"),
        ("inserted", "documents.notes"),
        ("uploaded", "documents.files"),
        ("deleted", "documents.files"),
        ("inserted", "documents.cases"),
    ]
    handle = await db.keys.handle("u1", create=False)
    rows = await db["main"].query("SELECT handle FROM datavern_audit WHERE action = 'uploaded'")
    assert [row["handle"] for row in rows] == [handle]


async def test_an_entry_that_cannot_be_written_is_no_write(db, monkeypatch):
    async def fails(*args, **more):
        raise ConfigurationError("no log")

    monkeypatch.setattr(type(db.services), "note", fails)
    mongo, cache = db["documents"], db["cache"]
    for write in (
        lambda: mongo.insert_document("letters", {"t": 1}, subject="u1"),
        lambda: mongo.files.upload("f", b"x", subject="u1"),
        lambda: cache.set("user:session:u1", 1),
        lambda: cache.execute("HSET", "user:session:u1", "a", 1),
    ):
        with pytest.raises(ConfigurationError, match="no log"):
            await write()
    assert await mongo.collection("letters").count_documents({}) == 0
    assert await mongo.collection("fs.files").count_documents({}) == 0
    assert [key async for key in cache.scan()] == []


async def test_keys_leave_an_entry_whatever_writes_them(db):
    cache = db["cache"]
    await cache.set("other", 1)
    await cache.set("user:session:u1", 1, ex=60, subject="u1")
    await cache.set_many({"user:session:u2": 1, "else": 2})
    await cache.expire("user:session:u1", 30)
    async with cache.pipeline(transaction=True) as pipe:
        pipe.set("user:session:u3", 1).set("other", 2).get("user:session:u1")
        await pipe.execute()
    async with cache.pipeline() as pipe:
        pipe.set("user:session:u3", 2)
        await pipe.execute()
    await cache.execute("HSET", "user:session:u4", "a", 1)
    await cache.execute("HGETALL", "user:session:u4")
    await cache.xadd("user:session:u5", {"a": 1})
    await cache.get("user:session:u1")
    await cache.publish("user:session:u1", 1)
    assert await cache.delete("user:session:u1", "user:session:u2", "other") == 3
    assert await entries(db) == [("written", "cache.sessions")] * 9
    with pytest.raises(PrivacyError, match="use the provider's own calls"):
        cache.client  # noqa: B018  (it is refused when it is asked for)


async def test_an_erasure_leaves_its_own_entries_and_no_others(db):
    await db["cache"].set("user:session:u1", 1, subject="u1")
    await db["documents"].insert_document("letters", {"t": 1}, subject="u1")
    before = len(await entries(db))
    erased = await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
    told = [action for action, _ in (await entries(db))[before:]]
    assert sorted(told) == sorted(["erasure_received", *["erased"] * 5, "erasure_completed"])
    assert json.loads(erased.certificate.to_json())["certificate"]["stores"]

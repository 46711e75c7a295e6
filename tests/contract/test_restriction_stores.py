"""Restrictions, objections and consents to reads in the stores without tables: documents, files, keys and values."""

from __future__ import annotations

import datetime as dt

import pytest

from datavern import (
    ConsentRequired,
    Dataset,
    Field,
    LegalBasis,
    ProcessingRestricted,
    SubjectRequest,
    restricted_use,
)

TODAY = dt.datetime.now().astimezone().date()
CASES = Dataset("cases", database="documents", subject="owner.id", legal_basis="lov")
FIELDS = Dataset("notes", database="documents", subject="who", legal_basis="lov", fields={"text": Field(sealed=True)})
LETTERS = Dataset("letters", database="documents", subject="_metadata.subject", legal_basis="lov")
FILES = Dataset("files", database="documents", store="fs.files", subject="metadata.subject", legal_basis="lov")
SESSIONS = Dataset("sessions", database="cache", key="user:session:{subject}", legal_basis="lov")

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # the ledger's makes no difference


@pytest.fixture
def everywhere(managed, database, documents, cache):
    """Makes a manager over a relational database, MongoDB and Redis."""

    def make(*datasets, redis=None):
        databases = {
            "main": database.provider(location="norway"),
            "documents": documents(classification="CONFIDENTIAL"),
            "cache": cache(**(redis or {})),
        }
        return managed(*datasets, databases=databases)

    return make


async def process(db, kind, **more):
    return await db.subject_requests.process(SubjectRequest(kind, subject="kari", **more))


async def lifted(db, response):
    await db.subject_requests.lift(response.request_id, informed=TODAY)


async def test_documents(everywhere):
    async with everywhere(CASES, FIELDS, LETTERS) as db:
        mongo = db["documents"]
        await db.prepare("notes")
        for who in ("kari", "ola"):
            await mongo.collection("cases").insert_one({"owner": {"id": who}, "title": "x"})
            await mongo.insert_document("letters", {"body": f"to {who}"}, subject=who)
            await db.personal("notes").insert({"_id": who, "who": who, "text": "x"})
        response = await process(db, "restriction")
        assert response.found == {"documents.cases": 1, "documents.notes": 1, "documents.letters": 1}
        mine = {"_metadata.subject": db.keys.subject_tag("kari")}
        for refused in (
            lambda: mongo.insert_document("letters", {"body": "more"}, subject="kari"),
            lambda: mongo.find_document("letters", mine),
            lambda: mongo.replace_document("letters", mine, {"body": "other"}, subject="kari"),
            lambda: mongo.reclassify_document("letters", mine, "RESTRICTED", subject="kari"),
            lambda: mongo.find_document("cases", {"owner.id": "kari"}),
            lambda: mongo.insert_document("cases", {"owner": {"id": "kari"}}, classification="RESTRICTED"),
            lambda: db.personal("notes").get("kari"),
            lambda: db.personal("notes").update("kari", {"text": "y"}),
            lambda: db.personal("notes").insert({"_id": "3", "who": "kari", "text": "y"}),
            lambda: db.personal("notes").delete("kari"),
        ):
            with pytest.raises(ProcessingRestricted) as error:
                await refused()
            assert error.value.request == response.request_id
        assert [d["body"] async for d in mongo.find_documents("letters")] == ["to ola"]
        raw = await mongo.collection("letters").find().to_list()
        with pytest.raises(ProcessingRestricted):
            await mongo.open_documents("letters", raw)
        found = await db.personal("notes").find(who="kari")
        assert (list(found), found.withheld) == ([], 1)
        access = await process(db, "access")
        assert {label: len(rows) for label, rows in access.data.items() if rows} == {
            "datavern.restrictions": 1,
            "documents.cases": 1,
            "documents.notes": 1,
            "documents.letters": 1,
        }
        with restricted_use("legal_claims", reason="sak 1"):
            assert (await mongo.find_document("letters", mine))["body"] == "to kari"
        await lifted(db, response)
        assert (await mongo.find_document("letters", mine))["body"] == "to kari"


async def test_a_document_of_several_people(everywhere):
    shared = Dataset("shared", database="documents", subject="people.id", legal_basis="lov")
    async with everywhere(shared) as db:
        collection = db["documents"].collection("shared")
        both = (await collection.insert_one({"people": [{"id": "kari"}, {"id": "ola"}]})).inserted_id
        response = await process(db, "restriction")
        with pytest.raises(ProcessingRestricted):
            await db.personal("shared").get(both)
        assert (await db.personal("shared").find({"people.id": "ola"})).withheld == 1
        await lifted(db, response)
        assert await db.personal("shared").get(both)


async def test_files(everywhere):
    async with everywhere(FILES) as db:
        files = db["documents"].files
        id_ = await files.upload("report.pdf", b"content", subject="kari")
        await files.upload("other.pdf", b"other", subject="ola")
        response = await process(db, "restriction")
        with pytest.raises(ProcessingRestricted):
            await files.read("report.pdf")
        with pytest.raises(ProcessingRestricted):
            await files.upload("again.pdf", b"x", subject="kari")
        assert await files.find(subject="kari") == []
        assert await files.read("other.pdf") == b"other"
        (copy,) = (await process(db, "access")).data["documents.files"]
        assert copy["filename"] == "report.pdf"
        await lifted(db, response)
        assert await files.read(id_) == b"content"


@pytest.mark.parametrize("encryption", [False, True])
async def test_keys_and_values(everywhere, encryption):
    async with everywhere(SESSIONS, redis={"encryption": encryption}) as db:
        redis = db["cache"]
        whose = (lambda who: {"subject": who}) if encryption else (lambda _who: {})
        for who in ("kari", "ola"):
            await redis.set(f"user:session:{who}", {"user": who}, **whose(who))
        response = await process(db, "restriction")
        assert response.found == {"cache.sessions": 1}
        key = "user:session:kari"
        for refused in (
            lambda: redis.get(key),
            lambda: redis.get_many([key]),
            lambda: redis.set(key, 1, **whose("kari")),
            lambda: redis.set(key, 1, nx=True, **whose("kari")),
            lambda: redis.delete(key),
            lambda: redis.expire(key, 10),
            lambda: redis.execute("STRLEN", key, read=True),
            lambda: redis.execute("SETRANGE", key, 0, "x"),
            lambda: redis.xrange(key),
            lambda: db.personal("sessions").get(key),
            lambda: anext(db.personal("sessions").of("kari")),
        ):
            with pytest.raises(ProcessingRestricted):
                await refused()
        assert await redis.get("user:session:ola") == {"user": "ola"}
        assert await redis.get("user:other:kari") is None
        (copy,) = (await process(db, "access")).data["cache.sessions"]
        assert copy["value"] == {"user": "kari"}
        await lifted(db, response)
        assert await redis.get(key) == {"user": "kari"}


async def test_reads_that_need_consent(everywhere):
    more = {"purposes": ["newsletter"], "require_consent": "read"}
    letters = Dataset("letters", database="documents", subject="_metadata.subject", **more)
    sessions = Dataset("sessions", database="cache", key="user:session:{subject}", **more)
    async with everywhere(letters, sessions) as db:
        mongo, redis = db["documents"], db["cache"]
        consent = await db.consents.grant(subject="kari", purpose="newsletter")
        for who in ("kari", "ola"):
            await mongo.insert_document("letters", {"body": f"to {who}"}, subject=who)
            await redis.set(f"user:session:{who}", who)
        mine = {"_metadata.subject": db.keys.subject_tag("kari")}
        assert (await mongo.find_document("letters", mine))["body"] == "to kari"
        assert await redis.get("user:session:kari") == "kari"
        with pytest.raises(ConsentRequired, match="newsletter"):
            await redis.get("user:session:ola")
        assert [d["body"] async for d in mongo.find_documents("letters")] == ["to kari"]
        await db.consents.withdraw(consent)
        with pytest.raises(ConsentRequired):
            await mongo.find_document("letters", mine)
        with pytest.raises(ConsentRequired):
            await redis.get("user:session:kari")
        assert len((await process(db, "access")).data["documents.letters"]) == 1


async def test_an_objection(everywhere):
    basis = LegalBasis("public_task", "kommuneloven § 1")
    async with everywhere(Dataset("sessions", database="cache", key="user:session:{subject}", legal_basis=basis)) as db:
        redis = db["cache"]
        await redis.set("user:session:kari", 1)
        response = await process(db, "objection")
        assert response.success
        with pytest.raises(ProcessingRestricted, match="objected"):
            await redis.set("user:session:kari", 2)
        assert await redis.get("user:session:kari") == 1
        await db.subject_requests.lift(response.request_id, reason="a court order")
        assert await redis.set("user:session:kari", 2)

"""One person in every store: rows, documents, files, keys and values; found together, and ended together."""

import asyncio
import csv
import dataclasses
import datetime as dt
import io
import json
import uuid

import pytest
from bson import ObjectId

from datavern import (
    CapabilityMissing,
    ConfigurationError,
    ConsentRequired,
    DatabaseManager,
    DataMap,
    Dataset,
    DecryptionFailed,
    ErasureIncomplete,
    Field,
    KeyErased,
    ResidencyViolation,
    SubjectRequest,
    SubjectRequestRejected,
)
from datavern.contracts.errors import PrivacyError
from datavern.testing.mongodb import MongoDBServer

PLANTED = "Planted Åse 7F3"
SEALED = {"name": Field(sealed=True, lookup=True), "city": Field()}
SESSIONS = Dataset("sessions", database="cache", key="user:session:{subject}", erasure="delete")
CASES = Dataset("cases", database="documents", subject="owner.id", erasure="delete")
LETTERS = Dataset("letters", database="documents", subject="_metadata.subject", erasure="delete")
FILES = Dataset("files", database="documents", store="fs.files", subject="metadata.subject", erasure="delete")
USERS = Dataset("users", database="main", subject="id", erasure="delete", fields=SEALED)


@pytest.fixture
def everywhere(managed, database, documents, cache):
    """Makes a manager over a relational database, MongoDB and Redis."""

    def make(*datasets, mongodb=None, redis=None, **settings):
        databases = {
            "main": database.provider(location="norway"),
            "documents": documents(**(mongodb or {})),
            "cache": cache(**(redis or {})),
        }
        return managed(*datasets, databases=databases, **settings)

    return make


async def process(db, kind, subject="u1", **more):
    return await db.subject_requests.process(SubjectRequest(kind, subject=subject, **more))


def found_in(response):
    return {store["dataset"]: store["found"] for store in response.certificate.body["stores"]}


def certified(response, label):
    (found,) = (store for store in response.certificate.body["stores"] if store["dataset"] == label)
    return found


async def left(db, collection):
    return [document async for document in db["documents"].collection(collection).find(sort=[("_id", 1)])]


async def audited(db, action):
    rows = await db["main"].query("SELECT action, dataset, details FROM datavern_audit ORDER BY era, stamp, seq")
    return [(row["dataset"], json.loads(row["details"] or "{}")) for row in rows if row["action"] == action]


async def fill(db, subject):
    await db.personal("users").insert({"id": subject, "name": PLANTED, "city": "Oslo"})
    await db["documents"].collection("cases").insert_one({"owner": {"id": subject}, "title": PLANTED})
    await db["documents"].insert_document("letters", {"title": PLANTED}, classification="SECRET", subject=subject)
    await db["documents"].files.upload("brev.pdf", b"%PDF", classification="SECRET", subject=subject)
    await db["cache"].set(f"user:session:{subject}", {"name": PLANTED}, ex=3600)


async def test_one_person_everywhere_is_found_once_and_erased_once(everywhere):
    async with everywhere(USERS, SESSIONS, CASES, LETTERS, FILES) as db:
        for name in ("users", "sessions", "cases", "letters"):
            await db.prepare(name)
        for subject in ("u1", "u12"):
            await fill(db, subject)
        answer = await process(db, "access")
        assert {label: len(rows) for label, rows in answer.data.items()} == {
            "main.users": 1,
            "cache.sessions": 1,
            "documents.cases": 1,
            "documents.letters": 1,
            "documents.files": 1,
        }
        json.dumps(answer.data)
        assert answer.data["documents.letters"][0]["title"] == PLANTED
        assert answer.data["documents.letters"][0]["_metadata"]["classification"] == "SECRET"
        assert answer.data["documents.cases"][0]["owner"] == {"id": "u1"}
        assert (
            answer.data["documents.files"][0] | {"filename": "brev.pdf", "content": "JVBERg=="}
            == (answer.data["documents.files"][0])
        )
        assert answer.data["cache.sessions"][0]["value"] == {"name": PLANTED}
        assert answer.message == "5 rows in 5 datasets."

        erased = await process(db, "erasure")
        verifier = db.services.signer.verifier
        assert erased.certificate.verify(verifier)
        assert found_in(erased) == dict.fromkeys(answer.data, 1) | {"datavern.consents": 0}
        assert all(certified(erased, label)["done"] == {"deleted": 1} for label in answer.data)
        assert len(erased.certificate.body["keys"]) == 3
        assert any("looked through again" in claim for claim in erased.certificate.body["claims"])
        assert PLANTED not in erased.certificate.to_json()
        assert sorted(dataset for dataset, _ in await audited(db, "erased")) == sorted(found_in(erased))

        assert not any((await process(db, "access")).data.values())
        assert {label: len(rows) for label, rows in (await process(db, "access", "u12")).data.items()} == dict.fromkeys(
            answer.data, 1
        )
        again = await process(db, "erasure")
        assert set(found_in(again).values()) == {0}
        assert again.message == "Nothing was found about this subject."
        report = await db.audit.verify()
        assert report.ok


@pytest.mark.parametrize(
    "subject", ["*", "[a-z]", "{x}", "a:b", "æøå", "u1*", "\\", "u?", "^u", "'; FLUSHALL --", "1-2"]
)
async def test_a_name_that_would_reach_others_reaches_nobody_else(everywhere, subject):
    others = ["u1", "a", "x", "b", "aøå", "u12", "u2"]
    datasets = (SESSIONS, Dataset("carts", database="cache", key="{subject}/cart/*"), CASES)
    async with everywhere(*datasets) as db:
        for name in (subject, *others):
            await db["cache"].set(f"user:session:{name}", name)
            await db["cache"].set(f"{name}/cart/1", name)
            await db["documents"].collection("cases").insert_one({"owner": {"id": name}})
        answer = await process(db, "access", subject)
        assert [row["value"] for row in answer.data["cache.sessions"]] == [subject]
        assert [row["value"] for row in answer.data["cache.carts"]] == [subject]
        assert [row["owner"] for row in answer.data["documents.cases"]] == [{"id": subject}]
        erased = await process(db, "erasure", subject)
        assert sum(found_in(erased).values()) == 3
        keys = sorted([key async for key in db["cache"].scan()])
        assert keys == sorted(key for name in others for key in (f"user:session:{name}", f"{name}/cart/1"))
        assert [one["owner"]["id"] for one in await left(db, "cases")] == others


@pytest.mark.parametrize("id_", [42, uuid.uuid4(), ObjectId(), "42"])
async def test_an_id_is_found_in_whatever_type_a_document_keeps_it(everywhere, id_):
    async with everywhere(CASES) as db:
        await db.prepare("cases")
        await db["documents"].collection("cases").insert_many([{"owner": {"id": id_}}, {"owner": {"id": "43"}}])
        assert len((await process(db, "access", str(id_))).data["documents.cases"]) == 1
        assert found_in(await process(db, "erasure", id_))["documents.cases"] == 1
        assert [one["owner"]["id"] for one in await left(db, "cases")] == ["43"]


async def test_a_document_about_several_loses_the_one_and_stays(everywhere):
    tags = Dataset("tags", database="documents", subject="people")
    rooms = Dataset("rooms", database="documents", subject="members.id", erasure="anonymize", fields={"topic": Field()})
    async with everywhere(tags, rooms) as db:
        await db["documents"].collection("tags").insert_many([{"people": ["u1", "u2"]}, {"people": ["u1"]}])
        await db["documents"].collection("rooms").insert_one({"topic": "t", "members": [{"id": "u1"}, {"id": "u2"}]})
        erased = await process(db, "erasure")
        assert [one["people"] for one in await left(db, "tags")] == [["u2"]]
        (room,) = await left(db, "rooms")
        assert (room["topic"], room["members"]) == ("t", [{"id": "u2"}])
        assert certified(erased, "documents.tags")["done"] == {
            "deleted": 1,
            "taken out of records that are about others too": 1,
        }


async def test_what_cannot_be_taken_apart_keeps_the_request_open(everywhere):
    deep = Dataset("deep", database="documents", subject="a.b.c")
    async with everywhere(deep, USERS) as db:
        await db.prepare("users")
        await db.personal("users").insert({"id": "u1", "name": PLANTED})
        collection = db["documents"].collection("deep")
        await collection.insert_one({"a": [{"b": [{"c": "u1"}]}, {"b": [{"c": "u2"}]}]})
        with pytest.raises(ErasureIncomplete) as caught:
            await process(db, "erasure")
        assert "about several people" in caught.value.receipt.waiting["documents.deep"]
        assert caught.value.receipt.done["main.users"]["found"] == 1
        await collection.update_one({}, {"$set": {"a": [{"b": [{"c": "u2"}]}]}})
        (response,) = await db.subject_requests.resume()
        assert found_in(response)["documents.deep"] == 1  # it was there, and somebody else has done it


async def test_what_a_person_takes_along_has_a_schema(everywhere):
    async with everywhere(USERS, SESSIONS, CASES) as db:
        await db.prepare("users")
        name = 'Åse "Æ", =1+1\nØ'
        await db.personal("users").insert({"id": "u1", "name": name, "city": None})
        await (
            db["documents"]
            .collection("cases")
            .insert_many(
                [{"_id": 1, "owner": {"id": "u1"}, "sum": 2.5}, {"_id": 2, "owner": {"id": "u1"}, "open": True}]
            )
        )
        as_json = await process(db, "portability")
        data = json.loads(as_json.files["data.json"])
        assert data == as_json.data
        schema = json.loads(as_json.files["schema.json"])["properties"]
        assert set(schema) == {"main.users", "cache.sessions", "documents.cases"}
        assert schema["main.users"]["items"]["properties"]["name"] == {"type": "string"}
        assert schema["documents.cases"]["items"]["properties"]["sum"] == {"type": ["null", "number"]}

        as_csv = await process(db, "portability", format="csv")
        assert set(as_csv.files) == {"main.users.csv", "documents.cases.csv", "csv-metadata.json"}
        (user,) = csv.DictReader(io.StringIO(as_csv.files["main.users.csv"].decode(), newline=""))
        assert user == {"id": "u1", "name": name, "city": ""}
        cases = list(csv.DictReader(io.StringIO(as_csv.files["documents.cases.csv"].decode(), newline="")))
        assert [json.loads(case["owner"]) for case in cases] == [{"id": "u1"}] * 2
        assert [(case["sum"], case["open"]) for case in cases] == [("2.5", ""), ("", "true")]
        tables = json.loads(as_csv.files["csv-metadata.json"])["tables"]
        columns = {c["titles"]: c for table in tables for c in table["tableSchema"]["columns"]}
        assert columns["owner"] == {"titles": "owner", "datatype": "json", "required": True}
        assert columns["sum"] == {"titles": "sum", "datatype": "number", "required": False}
        rows = await db["main"].query("SELECT action FROM datavern_audit")
        assert [row["action"] for row in rows].count("portability_request") == 2

        nobody = await process(db, "portability", "nobody", format="csv")
        assert set(nobody.files) == {"csv-metadata.json"}
        with pytest.raises(SubjectRequestRejected, match="format"):
            SubjectRequest("portability", subject="u1", format="xml")


# ---- policies -------------------------------------------------------------------------------------------------------


def policy(name, erasure, **more):
    return Dataset(name, database="documents", subject="who", erasure=erasure, **{"fields": SEALED, **more})


async def test_anonymize_and_soft_empty_what_the_map_names(everywhere):
    async with everywhere(policy("people", "anonymize"), policy("visits", "soft")) as db:
        for name in ("people", "visits"):
            await db.prepare(name)
            store = db.personal(name)
            await store.insert_many(
                {"_id": f"{who}-{n}", "who": who, "name": PLANTED, "city": "Oslo", "n": n}
                for who in ("u1", "u2")
                for n in range(2)
            )
        erased = await process(db, "erasure")
        for name in ("people", "visits"):
            store = db.personal(name)
            assert [row async for row in store.of("u1")] == []
            assert [(row["name"], row["city"]) async for row in store.of("u2")] == [(PLANTED, "Oslo")] * 2
            assert {row["_id"] for row in await store.find(name=PLANTED)} == {"u2-0", "u2-1"}
            ended = [one for one in await left(db, name) if one["_id"].startswith("u1")]
            assert [(one["name"], one["name_lookup"], one["city"]) for one in ended] == [(None, None, None)] * 2
            assert [one["n"] for one in ended] == [0, 1]
        assert len({one["who"] for one in await left(db, "people")}) == 3
        assert certified(erased, "documents.people")["done"] == {"anonymized": 2}
        assert certified(erased, "documents.visits")["done"] == {"emptied and marked as erased": 2}
        assert "does not name stay" in certified(erased, "documents.people")["notes"][0]
        assert certified(await process(db, "erasure"), "documents.visits")["found"] == 0


async def test_retain_keeps_what_the_law_keeps_and_nothing_else(everywhere):
    law = {"retention": "5y", "retention_from": "issued", "legal_basis": "bokføringsloven § 13"}
    async with everywhere(policy("invoices", "retain", **law)) as db:
        await db.prepare("invoices")
        store = db.personal("invoices")
        today = dt.datetime.now().astimezone().date()
        old = {"_id": "old", "who": "u1", "name": PLANTED, "issued": "2001-01-01"}
        await store.insert_many([old, {**old, "_id": "new", "issued": today.isoformat()}])
        erased = await process(db, "erasure")
        (kept,) = certified(erased, "documents.invoices")["kept"]
        assert (kept["rows"], kept["until"]) == (1, today.replace(year=today.year + 5).isoformat())
        assert certified(erased, "documents.invoices")["found"] == 2
        assert [row["name"] async for row in store.of("u1")] == [PLANTED]
        assert await store.find(name=PLANTED) == []
        with pytest.raises(KeyErased):
            await store.update("new", {"city": "Bergen"})
        with pytest.raises(PrivacyError):
            await store.delete("new")
        assert certified(await process(db, "erasure"), "documents.invoices")["found"] == 1


async def test_shred_leaves_what_nobody_can_open(everywhere):
    sealed = Dataset("sessions", database="cache", key="user:session:{subject}", erasure="shred")
    letters = Dataset("letters", database="documents", subject="_metadata.subject", erasure="shred")
    datasets = (sealed, letters, policy("people", "shred"))
    async with everywhere(*datasets, redis={"encryption": True, "retention": "30d"}) as db:
        await db.prepare("people")
        await db["cache"].set("user:session:u1", PLANTED, subject="u1")
        await db["documents"].insert_document("letters", {"t": PLANTED}, classification="SECRET", subject="u1")
        await db.personal("people").insert({"_id": "p", "who": "u1", "name": PLANTED})
        erased = await process(db, "erasure")
        assert found_in(erased) == {
            "cache.sessions": 1,
            "documents.letters": 1,
            "documents.people": 1,
            "datavern.consents": 0,
        }
        with pytest.raises(KeyErased):
            await db["cache"].get("user:session:u1")
        with pytest.raises(KeyErased):
            await db["documents"].find_document("letters")
        data = (await process(db, "access")).data
        assert data["cache.sessions"][0]["value"] is None
        assert data["documents.letters"][0]["_sealed"] is None
        assert data["documents.people"][0]["name"] is None
        assert PLANTED not in json.dumps(data)


REFUSED = [
    (
        {"name": "a", "database": "cache", "key": "s:{subject}", "erasure": "anonymize"},
        r"datasets\.a\.erasure: .*delete or shred",
    ),
    ({"name": "a", "database": "cache", "key": "s:{subject}", "erasure": "shred"}, r"encryption = true"),
    ({"name": "a", "database": "cache", "key": "s:{subject}", "fields": {"x": Field()}}, "leave fields out"),
    ({"name": "a", "database": "cache", "key": "s:{subject}*"}, "cannot tell u1 from u12"),
    ({"name": "a", "database": "cache", "key": "{subject}:{subject}"}, "once"),
    ({"name": "a", "database": "cache", "subject": "id"}, r"name the pattern, key="),
    ({"name": "a", "database": "documents", "key": "s:{subject}"}, "documents have no keys"),
    ({"name": "a", "database": "documents", "subject": "_sealed.owner"}, "sealed away"),
    ({"name": "a", "database": "documents", "subject": "$where"}, r"does not begin with \$"),
    ({"name": "a", "database": "documents", "subject": "metadata.subject"}, "_metadata.subject"),
    (
        {"name": "a", "database": "documents", "store": "fs.files", "subject": "_metadata.subject"},
        r'"metadata\.subject" in fs',
    ),
    ({"name": "a", "database": "documents", "subject": "_metadata.subject", "erasure": "soft"}, "delete or shred"),
    ({"name": "a", "database": "documents", "subject": "_metadata.subject", "fields": SEALED}, "sealed as a whole"),
    ({"name": "a", "database": "documents", "subject": "who", "fields": {"a.b": Field(sealed=True)}}, "at the top"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_a_dataset_that_could_not_be_ended_is_refused_before_anything_is_connected(everywhere, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        everywhere(Dataset(**settings))


def test_keys_are_no_tables(everywhere):
    with pytest.raises(CapabilityMissing, match=r"datasets\.a\.key"):
        everywhere(Dataset("a", database="main", key="s:{subject}"))
    with pytest.raises(ConfigurationError, match="one pattern has one policy"):
        DataMap([SESSIONS, Dataset("same", database="cache", key="user:session:{subject}")])


async def test_residency_holds_for_every_store(everywhere):
    with pytest.raises(ResidencyViolation, match=r"datasets\.sessions.*cannot be stored in eu"):
        async with everywhere(SESSIONS, redis={"location": "eu"}):
            pass
    with pytest.raises(ResidencyViolation, match=r"datasets\.cases.*cannot be stored in global"):
        async with everywhere(CASES, mongodb={"location": "global", "classification": "OPEN"}):
            pass


# ---- what the application writes ------------------------------------------------------------------------------------


async def test_sealed_fields_of_documents_are_written_found_and_changed(everywhere):
    people = policy("people", "delete", purposes=["customer-account"])
    async with everywhere(people) as db:
        assert "create people" in str(await db.prepare("people"))
        store = db.personal("people")
        with pytest.raises(ConsentRequired):
            await store.insert({"who": "u1", "name": PLANTED})
        consent = await db.consents.grant(subject="u1", purpose="customer-account")
        await store.insert({"_id": 7, "who": "u1", "name": PLANTED, "city": "Oslo"}, consent=consent)
        (raw,) = await left(db, "people")
        assert (raw["_id"], raw["who"], raw["city"]) == (7, "u1", "Oslo")
        assert PLANTED.encode() not in raw["name"]
        assert await store.get(7) == {"_id": 7, "who": "u1", "name": PLANTED, "city": "Oslo"}
        assert [row["_id"] for row in await store.find(name=PLANTED)] == [7]
        assert await store.update(7, {"name": "New Name"}, consent=consent)
        assert await store.find(name=PLANTED) == []
        assert (await store.find(name="New Name"))[0]["city"] == "Oslo"
        with pytest.raises(ConfigurationError, match="cannot change"):
            await store.update(7, {"who": "u2"}, consent=consent)
        with pytest.raises(ConfigurationError, match="takes no transaction"):
            await store.get(7, transaction=object())
        assert [dataset for dataset, _ in await audited(db, "inserted")] == ["documents.people"]
        assert (await audited(db, "updated"))[0][1]["fields"] == ["name"]
        assert await store.delete(7)
        assert not await store.delete(7)
        assert len(await audited(db, "deleted")) == 1


@pytest.mark.parametrize("id_", ["u1", 42, ObjectId()])
async def test_a_subject_deep_in_a_document_with_sealed_fields(everywhere, id_):
    async with everywhere(Dataset("members", database="documents", subject="person.id", fields=SEALED)) as db:
        await db.prepare("members")
        store = db.personal("members")
        await store.insert({"_id": 1, "person": {"id": id_, "role": "r"}, "name": PLANTED})
        await store.insert({"_id": 2, "person.id": "other", "name": PLANTED})
        expected = {"_id": 1, "person": {"id": id_, "role": "r"}, "name": PLANTED}
        assert await store.get(1) == expected
        assert [row async for row in store.of(id_)] == [expected]
        assert len(await store.find(name=PLANTED)) == 2
        raw = await left(db, "members")
        assert (await store.open(raw))[0] == expected
        assert await store.update(1, {"name": "New", "person": {"id": id_, "role": "s"}})
        with pytest.raises(ConfigurationError, match="cannot change"):
            await store.update(1, {"person": {"id": "other"}})
        with pytest.raises(ConfigurationError, match="cannot change"):
            await store.update(1, {"person.id": "other"})
        assert (await store.get(1))["person"]["role"] == "s"
        raw[0]["person"]["id"] = "other"  # moved to somebody else
        with pytest.raises(DecryptionFailed):
            await store.open(raw)
        assert found_in(await process(db, "erasure", id_))["documents.members"] == 1
        assert [one["_id"] for one in await left(db, "members")] == [2]


async def test_a_rotation_indexes_documents_anew_while_they_are_written(everywhere):
    fields = {"name": Field(sealed=True, lookup=True, ngrams=3, prefixes=[3])}
    async with everywhere(policy("people", "delete", fields=fields)) as db:
        await db.prepare("people")
        store = db.personal("people")
        await store.insert_many({"_id": n, "who": f"u{n}", "name": f"Name {n}"} for n in range(20))
        before = {one["_id"]: one["name_lookup"] for one in await left(db, "people")}

        async def write():
            for n in range(20, 40):
                await store.insert({"_id": n, "who": f"u{n}", "name": f"Name {n}"})
                await asyncio.sleep(0.02)

        await asyncio.gather(db.keys.rotate(), write())
        after = {one["_id"]: one["name_lookup"] for one in await left(db, "people")}
        assert not set(before.values()) & set(after.values())
        for n in (0, 19, 20, 39):
            assert [row["_id"] for row in await store.find(name=f"Name {n}")] == [n]
        assert [row["_id"] for row in await store.contains(name="me 39")] == [39]
        assert len(await store.starts_with(name="Nam")) == 40
        assert found_in(await process(db, "erasure", "u3"))["documents.people"] == 1


async def test_what_the_engine_seals_whole_is_written_by_its_own_call(everywhere):
    async with everywhere(LETTERS, FILES, SESSIONS) as db:
        for name, call in (("letters", "insert_document"), ("files", "files.upload"), ("sessions", "set")):
            with pytest.raises(ConfigurationError, match=rf"written by the provider itself.*{call}"):
                await db.personal(name).insert({"a": 1})
        with pytest.raises(SubjectRequestRejected, match="write it anew with set"):
            await process(db, "rectification", changes={"sessions": {"value": 1}})


async def test_the_data_map_says_what_insert_document_takes(everywhere):
    async with everywhere(CASES, LETTERS) as db:
        mongo = db["documents"]
        with pytest.raises(ConfigurationError, match=r"finds people by owner\.id"):
            await mongo.insert_document("cases", {"owner": {"id": "u1"}}, classification="SECRET", subject="u1")
        with pytest.raises(ConfigurationError, match="give subject="):
            await mongo.insert_document("letters", {"t": 1}, classification="OPEN")
        with pytest.raises(ConfigurationError, match="names another there"):
            await mongo.insert_document("cases", {"owner": {"id": "u2"}}, classification="OPEN", subject="u1")
        await mongo.insert_document("cases", {"owner": {"id": "u1"}}, classification="OPEN", subject="u1")
        assert len((await process(db, "access")).data["documents.cases"]) == 1


async def test_rectification_reaches_documents(everywhere):
    async with everywhere(policy("people", "delete"), CASES) as db:
        await db.prepare("people")
        await db.personal("people").insert({"_id": "p", "who": "u1", "name": "Wrong", "city": "Oslo"})
        await db["documents"].collection("cases").insert_one({"_id": 1, "owner": {"id": "u1", "name": "Wrong"}})
        changes = {"people": {"name": "Right"}, "cases": {"owner.name": "Right"}}
        response = await process(db, "rectification", changes=changes)
        assert response.message == "Changed: documents.people, documents.cases."
        assert (await db.personal("people").get("p"))["name"] == "Right"
        assert (await left(db, "cases"))[0]["owner"] == {"id": "u1", "name": "Right"}
        with pytest.raises(ConfigurationError, match="has no field nme"):
            await process(db, "rectification", changes={"people": {"nme": "x"}})
        with pytest.raises(SubjectRequestRejected, match="nothing was found"):
            await process(db, "rectification", "nobody", changes={"people": {"name": "x"}})


async def test_a_key_that_holds_something_else_than_a_value_is_part_of_the_answer(everywhere):
    kinds = Dataset("kinds", database="cache", key="k:{subject}:*")
    async with everywhere(kinds) as db:
        cache = db["cache"]
        await cache.execute("HSET", "k:u1:hash", "name", "Åse")
        await cache.execute("RPUSH", "k:u1:list", "a", "b")
        await cache.execute("SADD", "k:u1:set", "a")
        await cache.execute("ZADD", "k:u1:zset", 1, "a")
        await cache.xadd("k:u1:stream", {"n": 1})
        rows = {row["key"]: row["value"] for row in (await process(db, "access")).data["cache.kinds"]}
        assert rows["k:u1:hash"] == {"name": "Åse"}
        assert (rows["k:u1:list"], rows["k:u1:set"]) == (["a", "b"], ["a"])
        assert list(rows["k:u1:zset"]) == ["a"]
        assert rows["k:u1:stream"][0]["n"] == 1
        assert found_in(await process(db, "erasure"))["cache.kinds"] == 5
        assert [key async for key in cache.scan()] == []


# ---- races and faults -----------------------------------------------------------------------------------------------


async def test_writers_in_another_process_and_an_erasure_at_the_same_time(everywhere):
    """What is left afterwards was written by the person who came back, under a key that lives."""
    datasets = (SESSIONS, LETTERS, policy("people", "delete"))
    sealing = {"encryption": True, "retention": "30d"}
    async with everywhere(*datasets, redis=sealing) as db, everywhere(*datasets, redis=sealing) as other:
        await db.prepare("people")
        await db.prepare("letters")
        refused = written = 0

        async def write(writer):
            nonlocal refused, written
            for n in range(30):
                mark = f"{writer}-{n}"
                try:
                    if writer == "documents":
                        await other["documents"].insert_document("letters", {"m": mark}, subject="u1")
                    elif writer == "keys":
                        await other["cache"].set("user:session:u1", mark, subject="u1")
                    else:
                        await other.personal("people").insert({"who": "u1", "name": mark})
                    written += 1
                except KeyErased:
                    refused += 1
                await asyncio.sleep(0.003)

        await asyncio.gather(*(write(writer) for writer in ("documents", "keys", "fields")))
        assert refused == 0

        async def erase():
            await asyncio.sleep(0.03)
            return await process(db, "erasure")

        erased, *_ = await asyncio.gather(erase(), *(write(writer) for writer in ("documents", "keys", "fields")))
        gone = {key["id"] for key in erased.certificate.body["keys"]}
        sealed = [one["_sealed"] for one in await left(db, "letters")]
        sealed += [one["name"] for one in await left(db, "people")]
        value = await db["cache"].client.get("user:session:u1")
        sealed += [value] if value is not None else []
        assert not any(bytes(one)[1:17].hex() in gone for one in sealed)
        assert found_in(erased)["documents.letters"] >= 30


async def test_a_write_that_an_erasure_overtook_is_taken_back(everywhere, monkeypatch):
    async with everywhere(SESSIONS, LETTERS, FILES, redis={"encryption": True}) as db:
        mongo, cache, keys = db["documents"], db["cache"], db.keys
        for store, write in (
            ("letters", lambda: mongo.insert_document("letters", {"t": PLANTED}, subject="u1")),
            ("cache", lambda: cache.set("user:session:u1", PLANTED, subject="u1")),
            ("stream", lambda: cache.xadd("events", {"t": PLANTED}, subject="u1")),
            ("file", lambda: mongo.files.upload("f", b"x", subject="u1")),
        ):
            await write()
            await process(db, "erasure")
            await cache.delete("events")
            await keys.unguarded.key("letters", "u1")
            original = keys.unguarded.covers

            async def overtaken(key, subject, original=original):
                await keys.start_erasure("u1")
                return await original(key, subject)

            with monkeypatch.context() as patched:
                patched.setattr(type(keys.unguarded), "covers", lambda _, key, subject, f=overtaken: f(key, subject))
                patched.setattr(type(keys.unguarded), "warm", lambda *_: None)
                with pytest.raises(KeyErased):
                    await write()
            await keys.destroy("u1")
            assert await left(db, "letters") == [], store
            assert await left(db, "fs.files") == [], store
            assert await left(db, "fs.chunks") == [], store
            assert await cache.get("user:session:u1") is None
            assert await cache.xrange("events") == []


async def test_a_store_that_is_down_keeps_the_request_open_and_the_others_go_on(keyring, sqlite_database, cache):
    from datavern import MongoDBProvider

    with MongoDBServer(durable=True) as server:
        quick = {"serverMonitoringMode": "poll", "heartbeatFrequencyMS": 500, "serverSelectionTimeoutMS": 1000}
        mongo = MongoDBProvider(name="documents", uri=server.uri("app", **quick), location="norway", timeout=2.0)
        databases = {"main": sqlite_database.provider(location="norway"), "documents": mongo, "cache": cache()}
        data_map = DataMap([CASES, SESSIONS])
        async with DatabaseManager(databases, data_map=data_map, keyring=keyring, ledger="main") as db:
            await mongo.collection("cases").insert_one({"owner": {"id": "u1"}})
            await db["cache"].set("user:session:u1", 1)
            server.halt()
            with pytest.raises(ErasureIncomplete) as caught:
                await process(db, "erasure")
            assert list(caught.value.receipt.waiting) == ["documents.cases"]
            assert caught.value.receipt.done["cache.sessions"]["found"] == 1
            assert await db["cache"].get("user:session:u1") is None
            server.start()
            (response,) = await db.subject_requests.resume()
            assert found_in(response) == {"documents.cases": 1, "cache.sessions": 1, "datavern.consents": 0}
            assert await left(db, "cases") == []


async def test_reads_of_records_name_the_person(everywhere):
    """Of a sealed document, too, which does not say whose it is once it is open."""
    letters, sessions = (dataclasses.replace(dataset, audit_reads=True) for dataset in (LETTERS, SESSIONS))
    async with everywhere(letters, sessions) as db:
        documents = db["documents"]
        await documents.insert_document("letters", {"_id": "c1", "title": PLANTED}, subject="u1")
        await db["cache"].set("user:session:u2", {"a": 1})
        handles = [await db.keys.handle(person) for person in ("u1", "u2")]
        assert (await db.personal("letters").get("c1"))["title"] == PLANTED
        raw = await documents.collection("letters").find({}).to_list()
        assert len(await db.personal("letters").open(raw)) == 1
        assert (await db.personal("sessions").get("user:session:u2"))["value"] == {"a": 1}
        for reads in db.services._reads.values():
            await reads.end()
        found = await db["main"].query("SELECT dataset, handle, details FROM datavern_audit WHERE action = 'read'")
        counted = [(row[0], row[1], json.loads(row[2])["rows"]) for row in found]
        letter = ("documents.letters", handles[0], 1)
        assert sorted(counted) == sorted([letter, letter, ("cache.sessions", handles[1], 1)])

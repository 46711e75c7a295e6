"""Fields that MongoDB's own client-side field level encryption encrypts, under keys of Datavern's key store."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from pymongo.errors import WriteError
from tests.engines.mongodb.conftest import KeptKeys, erase

from datavern import DatabaseManager, DataMap, Dataset, Field, SubjectRequest
from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    DecryptionFailed,
    KeyErased,
    KeyUnavailable,
    QueryRejected,
)
from datavern.crypto.keyring import Keyring
from datavern.engines.mongodb.collections import Index

FIELDS = {"number": "deterministic", "journal.text": "random", "tags": "random"}
PERSON = {
    "_id": 1,
    "owner": "u1",
    "number": "13097248022",
    "journal": {"text": "planted words", "pages": 3},
    "tags": ["a"],
}


@pytest.fixture
async def people(make, keys):
    async with make(field_encryption={"people": FIELDS}) as mongo:
        mongo.attach(KeptKeys(keys, {"people": "owner"}))
        yield mongo.encrypted_collection("people")
        await mongo.client.drop_database(mongo.database.name)


def raw(people) -> Any:
    return people._provider.collection("people")


async def test_a_document_comes_back_as_it_was_and_the_server_sees_nothing_of_it(people):
    document = dict(PERSON)
    assert await people.insert_one(document) == 1
    assert document == PERSON
    stored = await raw(people).find_one({})
    for value in (stored["number"], stored["journal"]["text"], stored["tags"]):
        assert isinstance(value, Binary)
        assert value.subtype == 6
    assert stored["journal"]["pages"] == 3
    assert b"planted" not in repr(stored).encode()
    assert await people.find_one({"_id": 1}) == PERSON
    assert [d async for d in people.find()] == [PERSON]
    assert [d async for d in people.find(sort=[("owner", 1)], limit=5)] == [PERSON]
    assert await people.find_one({"_id": 2}) is None


VALUES = ["æøå", 7, Int64(7), 1 << 40, 1.5, True, b"\x00", Decimal128("1.10"), ObjectId(), [1, {"a": None}], {"x": {}}]


@pytest.mark.parametrize("value", [*VALUES, dt.datetime(2026, 1, 2)])  # noqa: DTZ001  (PyMongo's own way: it is UTC)
async def test_every_type_goes_in_at_random(people, value):
    id_ = await people.insert_one({"owner": "u1", "tags": value})
    assert (await people.find_one({"_id": id_}))["tags"] == value


async def test_what_is_missing_or_none_stays_so(people):
    await people.insert_one({"_id": 1, "owner": "u1", "number": None, "journal": None})
    assert await raw(people).find_one({}) == {"_id": 1, "owner": "u1", "number": None, "journal": None}
    assert await people.find_one({"number": None}) == {"_id": 1, "owner": "u1", "number": None, "journal": None}
    assert await people.find_one({"number": {"$exists": False}}) is None


@pytest.mark.parametrize("value", [1.5, True, {"a": 1}, [1]])
async def test_what_deterministic_encryption_does_not_take_is_refused_by_its_path(people, value):
    with pytest.raises(ConfigurationError, match=r"people\.number: a value of type .* use random"):
        await people.insert_one({"owner": "u1", "number": value})
    assert await raw(people).count_documents({}) == 0


async def test_equal_values_are_found_where_they_are_deterministic(people):
    await people.insert_one(PERSON)
    await people.insert_one({**PERSON, "_id": 2, "owner": "u2"})
    assert (await people.find_one({"owner": "u1", "number": "13097248022"}))["_id"] == 1
    assert (await people.find_one({"number": "13097248022"}, subject="u2"))["_id"] == 2
    assert [d["_id"] async for d in people.find({"number": {"$in": ["x", "13097248022"]}}, subject="u2")] == [2]
    assert [d["_id"] async for d in people.find({"$or": [{"number": {"$ne": "13097248022"}}]}, subject="u2")] == [1]
    assert await people.find_one({"number": "13097248022"}, subject="nobody") is None
    filter_ = await people.filter({"number": "13097248022"}, subject="u1")
    assert await raw(people).count_documents(filter_) == 1
    # Another person's equal value looks different: nobody sees that two people share one.
    first, second = [d["number"] async for d in raw(people).find({})]
    assert first != second


@pytest.mark.parametrize(
    ("filter_", "said"),
    [
        ({"number": "1"}, "under a key of each person: say whose, by owner"),
        ({"owner": "u1", "journal.text": "x"}, r"journal\.text is encrypted at random"),
        ({"owner": "u1", "number": {"$gt": "1"}}, "compared for equality alone, not with gt"),
        ({"journal": {"text": "x"}}, r"journal\.text is encrypted: ask for exactly that field"),
        ({"number.x": 1}, "number is encrypted: ask for exactly that field"),
        ({"$expr": {"$eq": ["$number", "1"]}}, "expr is not for encrypted collections"),
        ({"$and": [{"$where": "1"}]}, "where is not for encrypted collections"),
    ],
)
async def test_a_filter_that_no_encrypted_field_can_answer_is_refused(people, filter_, said):
    with pytest.raises(ConfigurationError, match=said):
        await people.find_one(filter_)


async def test_fields_are_updated(people):
    await people.insert_one(PERSON)
    assert await people.update_one({"_id": 1}, {"$set": {"journal.text": "new", "city": "Oslo"}, "$inc": {"n": 1}})
    found = await people.find_one({"_id": 1})
    assert (found["journal"], found["city"], found["n"]) == ({"text": "new", "pages": 3}, "Oslo", 1)
    assert await people.update_one({"owner": "u1"}, {"$set": {"journal": {"text": "whole"}}, "$unset": {"number": ""}})
    found = await people.find_one({"_id": 1})
    assert found["journal"] == {"text": "whole"}
    assert "number" not in found
    assert not await people.update_one({"_id": 2}, {"$set": {"city": "Bergen"}})
    assert (await raw(people).find_one({}))["journal"]["text"].subtype == 6


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"$set": {"owner": "u2"}}, "owner says whose the document is"),
        ({"$unset": {"owner": ""}}, "owner says whose the document is"),
        ({"$rename": {"city": "number"}}, "not changed by rename"),
        ({"$rename": {"number": "city"}}, "not changed by rename"),
        ({"$push": {"tags": "b"}}, "not changed by push"),
        ({"$set": {"tags.0": "b"}}, "tags is encrypted: it can be set and unset as a whole"),
        ({"$set": {"journal": [1]}}, "a list stands where fields were expected"),
        ({"city": "Oslo"}, "an update is made of operators"),
        ({}, "an update is made of operators"),
    ],
)
async def test_an_update_that_would_leave_a_field_in_the_clear_is_refused(people, update, said):
    await people.insert_one(PERSON)
    before = await raw(people).find_one({})
    with pytest.raises(ConfigurationError, match=said):
        await people.update_one({"_id": 1}, update)
    assert await raw(people).find_one({}) == before


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"number": "1"}, "does not say whose it is: expected one id at owner"),
        ({"owner": ["u1", "u2"]}, "expected one id at owner"),
        ({"owner": "u1", "journal": "in the clear"}, "a str stands where fields were expected"),
        ({"owner": "u1", "journal": [{"text": "x"}]}, "a list stands where fields were expected"),
        ({"owner": "u1", "journal.text": "x"}, "a name with a dot"),
        ({"owner": "u1", "number": Binary(b"\x01" + b"x" * 40, 6)}, "encrypted already"),
    ],
)
async def test_a_document_that_would_leave_a_field_in_the_clear_is_refused(people, document, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        await people.insert_one(document)
    assert "in the clear" not in str(caught.value) or "give it in the clear" in str(caught.value)
    assert await raw(people).count_documents({}) == 0


async def test_a_value_that_bson_does_not_hold_is_named_by_its_path(people):
    with pytest.raises(QueryRejected, match=r"tags has type set"):
        await people.insert_one({"owner": "u1", "tags": {1, 2}})


async def test_whose_it_is_must_agree(people):
    with pytest.raises(ConfigurationError, match="another than subject="):
        await people.insert_one(PERSON, subject="u2")


@pytest.mark.parametrize("where", ["field", "person", "flip", "cut", "other document of the person"])
async def test_a_value_opens_in_its_field_and_person_alone(people, where):
    await people.insert_one(PERSON)
    await people.insert_one({**PERSON, "_id": 2, "owner": "u2"})
    await people.insert_one({**PERSON, "_id": 3, "tags": "other"})
    one, two = await raw(people).find_one({"_id": 1}), await raw(people).find_one({"_id": 2})
    flipped = bytearray(one["tags"])
    flipped[-1] ^= 1
    change = {
        "field": {"number": one["tags"]},
        "person": {"tags": two["tags"]},
        "flip": {"tags": Binary(bytes(flipped), 6)},
        "cut": {"tags": Binary(bytes(one["tags"])[:17], 6)},
        "other document of the person": {"tags": (await raw(people).find_one({"_id": 3}))["tags"]},
    }[where]
    await raw(people).update_one({"_id": 1}, {"$set": change})
    if where == "other document of the person":  # MongoDB's format binds no document: docs/mongodb.md says so
        assert (await people.find_one({"_id": 1}))["tags"] == "other"
        return
    with pytest.raises(DecryptionFailed, match="a sealed value did not open"):
        await people.find_one({"_id": 1})


async def test_an_erased_persons_fields_are_beyond_reach_and_the_others_are_not(people, keys):
    await people.insert_one(PERSON)
    await people.insert_one({**PERSON, "_id": 2, "owner": "u2"})
    kept = await raw(people).find_one({"_id": 1})
    assert (await people.find_one({"_id": 1}))["number"] == "13097248022"  # libmongocrypt has the key at hand
    await keys.start_erasure("u1")
    with pytest.raises(KeyErased):
        await people.insert_one({**PERSON, "_id": 3})
    await keys.destroy("u1")
    with pytest.raises(KeyErased):
        await people.find_one({"_id": 1})
    await raw(people).delete_one({"_id": 1})
    await raw(people).insert_one(kept)  # a backup of the database brings back no key
    with pytest.raises(KeyErased):
        _ = [d async for d in people.find()]
    assert (await people.find_one({"_id": 2}))["number"] == "13097248022"
    await people.insert_one({**PERSON, "_id": 4})  # who comes back has new keys
    assert (await people.find_one({"_id": 4}))["tags"] == ["a"]
    assert await raw(people).count_documents({"_id": 3}) == 0


class Late:
    """A collection whose server gets a write only after an erasure that ran in another process."""

    def __init__(self, collection, erasure):
        self._collection, self._erasure = collection, erasure

    def __getattr__(self, name):
        return getattr(self._collection, name)

    async def insert_one(self, *args, **kwargs):
        await self._erasure()
        return await self._collection.insert_one(*args, **kwargs)

    async def update_one(self, *args, **kwargs):
        await self._erasure()
        return await self._collection.update_one(*args, **kwargs)


@pytest.mark.parametrize("kind", ["insert", "update"])
async def test_what_was_on_its_way_when_the_erasure_came_is_taken_back(people, keys, monkeypatch, kind):
    await people.insert_one(PERSON)
    provider = people._provider
    real = provider.collection("people")
    monkeypatch.setattr(provider, "raw", lambda _: Late(real, lambda: erase(keys, "u1")))
    with pytest.raises(KeyErased, match="takes nothing about it meanwhile"):
        if kind == "insert":
            await people.insert_one({**PERSON, "_id": 2})
        else:
            await people.update_one({"_id": 1}, {"$set": {"tags": "late", "city": "Oslo"}})
    assert await real.count_documents({"_id": 2}) == 0
    assert ("tags" in await real.find_one({"_id": 1})) == (kind == "insert")


async def test_what_a_transaction_wrote_is_taken_back_too(people, keys):
    with pytest.raises(KeyErased):
        async with people._provider.transaction() as session:
            await people.insert_one(PERSON, session=session)
            await erase(keys, "u1")
    assert await raw(people).count_documents({}) == 0


async def test_a_transaction_that_fails_leaves_nothing(people):
    with pytest.raises(ZeroDivisionError):
        async with people._provider.transaction() as session:
            await people.insert_one(PERSON, session=session)
            assert await people.find_one({"_id": 1}, session=session) == PERSON
            raise ZeroDivisionError
    assert await raw(people).count_documents({}) == 0


async def test_other_processes_open_them_and_a_rotation_of_the_wrapping_changes_nothing(people, keys, make):
    """No key is kept but in the key store: whoever opens that opens these, with a libmongocrypt of its own."""
    await people.insert_one(PERSON)
    await people._provider.field_encryption.close()
    keys._known.forget()
    assert await people.find_one({"_id": 1}) == PERSON


# ---- beside sealing, and beside other clients -----------------------------------------------------------------------


async def test_sealing_and_field_encryption_refuse_each_others_documents(people, keys, make):
    mongo = people._provider
    await people.insert_one(PERSON)
    for call in (
        lambda: mongo.find_document("people"),
        lambda: mongo.insert_document("people", {"a": 1}, classification="SECRET"),
        lambda: mongo.insert_document("people", {"a": 1}, classification="OPEN"),
        lambda: mongo.replace_document("people", {"_id": 1}, {"a": 1}),
        lambda: mongo.open_documents("people", [{}]),
    ):
        with pytest.raises(ConfigurationError, match=r"people: its fields are encrypted .* encrypted_collection"):
            await call()
    async with make() as other:  # the same database, without the setting
        other.attach(KeptKeys(keys))
        with pytest.raises(ConfigurationError, match="client-side field level encryption .*encrypted_collection"):
            await other.find_document("people")
        await other.insert_document("people", {"_id": 2, "a": 1}, classification="SECRET", subject="u1")
    with pytest.raises(ConfigurationError, match="sealed by insert_document: read it with find_document"):
        await people.find_one({"_id": 2})
    with pytest.raises(ConfigurationError, match="cases: none of its fields is encrypted"):
        mongo.encrypted_collection("cases")
    await mongo.insert_document("cases", {"_id": 1, "a": 1}, classification="SECRET", subject="u1")
    assert (await mongo.find_document("cases"))["a"] == 1  # other collections are as ever


async def test_what_another_client_encrypted_is_refused_by_name(people):
    await raw(people).insert_one({"_id": 1, "owner": "u1", "tags": Binary(b"\x02" + b"k" * 60, 6)})
    with pytest.raises(KeyUnavailable, match="under keys that Datavern does not know: read it with the client"):
        await people.find_one({"_id": 1})
    await raw(people).insert_one({"_id": 2, "owner": "u1", "tags": Binary(b"\x07" + b"k" * 60, 6)})
    with pytest.raises(ConfigurationError, match="queryable encryption"):
        await people.find_one({"_id": 2})


async def test_pymongo_itself_opens_them_given_the_key(people, keys):
    """The format is MongoDB's own: PyMongo's client opens it from a key vault that holds the same key."""
    from bson.binary import STANDARD
    from bson.codec_options import CodecOptions
    from pymongo.asynchronous.encryption import AsyncClientEncryption

    await people.insert_one(PERSON)
    value = (await raw(people).find_one({}))["number"]
    key_id = bytes(value)[1:17]
    material = (await keys.derived([key_id], "mongodb-field-encryption", 96))[key_id]
    client = people._provider.client
    local = {"local": {"key": b"m" * 96}}
    vault = f"{people._provider.database.name}.vault"
    async with AsyncClientEncryption(local, vault, client, CodecOptions(uuid_representation=STANDARD)) as theirs:
        made = await theirs.create_data_key("local", key_material=material)
        found = await client[people._provider.database.name]["vault"].find_one({"_id": made})
        await client[people._provider.database.name]["vault"].delete_one({"_id": made})
        await client[people._provider.database.name]["vault"].insert_one({**found, "_id": Binary(key_id, 4)})
        assert await theirs.decrypt(value) == "13097248022"


async def test_the_server_refuses_these_fields_in_the_clear_once_prepared(people):
    ran = await people.prepare(indexes=[Index({"owner": 1, "number": 1}, unique=True)])
    assert len(ran) == 2
    assert await people.prepare(indexes=[Index({"owner": 1, "number": 1}, unique=True)]) == []
    with pytest.raises(WriteError):
        await raw(people).insert_one({"owner": "u1", "number": "13097248022"})
    await people.insert_one(PERSON)
    with pytest.raises(ConstraintViolated, match="owner_1_number_1") as caught:
        await people.insert_one({**PERSON, "_id": 2})
    assert "13097248022" not in str(caught.value)


async def test_rows_of_personal_data_do_not_go_around_it(people):
    subjects = people._provider.capabilities.subjects
    await people.insert_one(PERSON)
    for row in ({"owner": "u1", "number": "1"}, {"owner": "u1", "journal.text": "x"}, {"journal": {"text": "x"}}):
        with pytest.raises(ConfigurationError, match="encrypted by MongoDB's own means"):
            await subjects.insert("people", [row])
    with pytest.raises(ConfigurationError, match="encrypted by MongoDB's own means"):
        await subjects.update("people", {"owner": "u1"}, {"number": "1"})
    (row,) = await subjects.select("people", {"owner": "u1"})
    (opened,) = await people._provider.capabilities.records.opened("people", [row])
    assert (opened["journal"]["text"], opened["number"]) == ("planted words", "13097248022")
    assert await subjects.update("people", {"owner": "u1"}, {"number": None, "journal.text": None}) == 1
    assert (await people.find_one({"_id": 1}))["number"] is None
    assert await subjects.delete("people", {"owner": "u1"}) == 1


# ---- in a data map --------------------------------------------------------------------------------------------------


@pytest.fixture
async def managed(make, tmp_path, sqlite_database):
    await (await Keyring.create(f"file:{tmp_path / 'ring'}")).close()
    archive = make(name="archive", field_encryption={"people": FIELDS})

    def manager(**settings):
        dataset = Dataset("people", database="archive", **{"subject": "owner", "erasure": "delete", **settings})
        databases = {"main": sqlite_database.provider(location="norway"), "archive": archive}
        return DatabaseManager(
            databases, data_map=DataMap([dataset]), keyring=f"file:{tmp_path / 'ring'}", ledger="main"
        )

    yield manager
    async with archive:
        await archive.client.drop_database(archive.database.name)


async def test_requests_reach_encrypted_fields(managed):
    async with managed() as db:
        people = db["archive"].encrypted_collection("people")
        await people.insert_one(PERSON)
        await people.insert_one({**PERSON, "_id": 2, "owner": "u2"})
        answer = await db.subject_requests.process(SubjectRequest("access", subject="u1"))
        (found,) = answer.data["archive.people"]
        assert (found["number"], found["journal"]["text"], found["tags"]) == ("13097248022", "planted words", ["a"])
        kept = await raw(people).find_one({"_id": 1})
        erased = await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
        assert erased.success, erased.message
        assert [d["_id"] async for d in people.find()] == [2]
        await raw(people).insert_one(kept)  # as a backup brings it back
        with pytest.raises(KeyErased):
            await people.find_one({"_id": 1})
        again = await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
        assert again.success
        assert await raw(people).count_documents({"owner": "u1"}) == 0
        with pytest.raises(ConfigurationError, match="encrypted_collection"):
            await db.personal("people").insert({"_id": 3, "owner": "u3", "number": "1"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"subject": "number"}, "in another field, in the clear"),
        ({"subject": "_metadata.subject"}, "in another field, in the clear"),
        ({"fields": {"city": Field(sealed=True)}}, "leave sealed out, or field_encryption"),
        ({"erasure": "retain", "retention": "5y", "legal_basis": "x"}, "ends with the person's keys, and retain keeps"),
    ],
)
async def test_what_could_not_be_ended_as_the_map_says_is_refused(managed, settings, said):
    with pytest.raises(ConfigurationError, match=said):
        async with managed(**settings):
            pass


# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (True, "field_encryption"),
        ({"people": {}}, r"field_encryption\.people: expected at least one path"),
        ({"people": {"a": "sometimes"}}, r"field_encryption\.people\.a"),
        ({"people": {"_id": "random"}}, "dotted paths of fields, and not _id"),
        ({"people": {"a..b": "random"}}, "dotted paths of fields"),
        ({"people": {"a": "random", "a.b": "random"}}, "a is encrypted as a whole, so a.b is too"),
    ],
)
def test_a_wrong_setting_is_refused(make, fields, said):
    with pytest.raises(ConfigurationError, match=said):
        make(field_encryption=fields)


def test_without_the_package_the_setting_says_what_to_install(make, monkeypatch):
    monkeypatch.setattr("datavern.engines.mongodb.encrypting.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'datavern\[mongodb-encryption\]'"):
        make(field_encryption={"people": FIELDS})


@pytest.mark.parametrize(
    ("path", "said"), [("number", "which is encrypted"), ("_metadata.subject", "only sealed documents")]
)
async def test_a_subject_that_nobody_would_find_is_refused(people, keys, path, said):
    people._provider.attach(KeptKeys(keys, {"people": path}))
    with pytest.raises(ConfigurationError, match=said):
        await people.insert_one(PERSON)


async def test_without_a_data_map_the_caller_says_whose_it_is_or_nobodys(make, keys):
    async with make(field_encryption={"people": FIELDS}) as mongo:
        mongo.attach(KeptKeys(keys))
        people = mongo.encrypted_collection("people")
        await people.insert_one({"_id": 1, "number": "1"}, subject="u1")
        await people.insert_one({"_id": 2, "number": "1"})
        assert (await people.find_one({"number": "1"}, subject="u1"))["_id"] == 1
        assert (await people.find_one({"number": "1"}))["_id"] == 2
        await erase(keys, "u1")
        assert (await people.find_one({"_id": 2}))["number"] == "1"
        with pytest.raises(KeyErased):
            await people.find_one({"_id": 1})

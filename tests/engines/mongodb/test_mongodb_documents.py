"""Documents: their metadata, sealed bodies, and what erasure leaves of them."""

from __future__ import annotations

import datetime as dt
from uuid import UUID

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, encode
from pymongo.errors import DuplicateKeyError
from tests.engines.mongodb.conftest import KeptKeys, erase

from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    DecryptionFailed,
    KeyErased,
    QueryRejected,
    ResidencyViolation,
    SerializationConflict,
)
from datavern.contracts.values import actor

EVERYTHING = {
    "title": "Søknad om vårløsning i Ålesund",
    "navn.med.punktum": 1,
    "$dollar": {"$inne": "i", "a.b": [{"$c": 2}]},
    "": "an empty name",
    "id": ObjectId("6b03b02383f68a77256bb960"),
    "sum": Decimal128("1234567890.123456789000"),
    "when": dt.datetime(2026, 11, 23, 3, 16, 51, 352000),  # noqa: DTZ001  (PyMongo's own way: without a zone it is UTC)
    "uuid": UUID("0b9e3a52-6a4f-4b5e-8f3e-3a1d8a1c2b3d"),
    "bytes": b"\x00\xff",
    "custom": Binary(b"x", 128),
    "nothing": None,
    "truth": True,
    "long": Int64(7),
    "big": Int64(2**62),
    "ratio": -0.0,
    "list": [1, "to", None, {"a": []}],
}


@pytest.mark.parametrize("classification", ["OPEN", "RESTRICTED", "CONFIDENTIAL", "SECRET"])
@pytest.mark.parametrize("subject", [None, "test-user"])
async def test_a_document_comes_back_as_it_was(mongo, classification, subject):
    with actor("case-worker-7"):
        id_ = await mongo.insert_document("cases", EVERYTHING, classification=classification, subject=subject)
    assert isinstance(id_, ObjectId)
    found = await mongo.find_document("cases", {"_id": id_})
    metadata = found.pop("_metadata")
    assert found == {"_id": id_, **EVERYTHING}
    assert {name: type(value) for name, value in found.items()} == {
        "_id": ObjectId,
        **{name: type(value) for name, value in EVERYTHING.items()},
    }
    assert metadata["classification"] == classification
    assert metadata["created_by"] == "case-worker-7"
    assert metadata["location"] == "norway"
    age = dt.datetime.now(dt.UTC).replace(tzinfo=None) - metadata["created_at"]
    assert dt.timedelta(seconds=-1) < age < dt.timedelta(minutes=1)
    assert set(metadata) == {"classification", "created_at", "created_by", "location"}


@pytest.mark.parametrize("classification", ["CONFIDENTIAL", "SECRET"])
@pytest.mark.parametrize("subject", [None, "test-user"])
async def test_a_sealed_body_is_not_in_the_database(mongo, keys, classification, subject):
    await mongo.insert_document("cases", EVERYTHING, classification=classification, subject=subject)
    raw = await mongo.collection("cases").find_one()
    assert set(raw) == {"_id", "_metadata", "_sealed"}
    stored = encode(raw)
    for word in ("Søknad", "Ålesund", "title", "test-user", "punktum", "empty name"):
        assert word.encode() not in stored
    assert raw["_metadata"].get("subject") == (keys.subject_tag("test-user") if subject else None)
    assert raw["_sealed"][0] == (5 if subject else 6)


async def test_an_open_document_is_in_the_clear_with_its_subjects_tag(mongo, keys):
    await mongo.insert_document("cases", {"title": "kunngjøring"}, classification="OPEN", subject=42)
    raw = await mongo.collection("cases").find_one()
    assert raw["title"] == "kunngjøring"
    assert raw["_metadata"]["subject"] == keys.subject_tag("42")
    assert "42" not in str(raw["_metadata"]["subject"])


async def test_the_document_is_not_changed_and_an_id_of_ones_own_is_kept(mongo):
    given = {"_id": {"year": 2026, "no": 7}, "title": "x"}
    before = dict(given)
    assert await mongo.insert_document("cases", given, classification="SECRET") == {"year": 2026, "no": 7}
    assert given == before
    found = await mongo.find_document("cases", {"_id": {"year": 2026, "no": 7}})
    assert (found["_id"], found["title"]) == ({"year": 2026, "no": 7}, "x")
    assert list(found) == ["_id", "title", "_metadata"]


async def test_nothing_is_found_as_none(mongo):
    assert await mongo.find_document("cases", {"_id": 1}) is None
    assert [d async for d in mongo.find_documents("cases")] == []


async def test_what_nobody_classified_is_confidential_and_a_provider_may_say_otherwise(mongo, make):
    await mongo.insert_document("cases", {"a": 1})
    assert (await mongo.collection("cases").find_one())["_metadata"]["classification"] == "CONFIDENTIAL"
    async with make(classification="RESTRICTED") as other:
        await other.insert_document("notes", {"a": 1})
        assert (await other.find_document("notes"))["_metadata"]["classification"] == "RESTRICTED"


async def test_what_may_not_be_there_is_refused_before_anything_is_written(make):
    async with make(location="eu", classification="RESTRICTED") as mongo:
        with pytest.raises(ResidencyViolation, match="Data classified as SECRET cannot be stored in eu"):
            await mongo.insert_document("cases", {"a": 1}, classification="SECRET")
        with pytest.raises(ResidencyViolation):
            await mongo.files.upload("a", b"", classification="CONFIDENTIAL")
        await mongo.insert_document("cases", {"a": 1})
        assert await mongo.collection("cases").count_documents({}) == 1
        await mongo.client.drop_database(mongo.database.name)
    with pytest.raises(ResidencyViolation, match="RESTRICTED cannot be stored in global"):
        make(location=None, classification="RESTRICTED")


async def test_without_keys_a_sealed_document_is_refused_and_an_open_one_is_not(make):
    async with make() as mongo:
        with pytest.raises(ConfigurationError, match="insert_document needs keys"):
            await mongo.insert_document("cases", {"a": 1}, classification="SECRET")
        with pytest.raises(ConfigurationError, match="insert_document needs keys"):
            await mongo.insert_document("cases", {"a": 1}, classification="OPEN", subject="u1")
        await mongo.insert_document("cases", {"a": 1}, classification="OPEN")
        assert (await mongo.find_document("cases"))["a"] == 1
        await mongo.client.drop_database(mongo.database.name)


@pytest.mark.parametrize("document", [{"_metadata": 1}, {"_sealed": b""}])
async def test_the_fields_of_its_own_are_refused(mongo, document):
    with pytest.raises(ConfigurationError, match="Datavern's own fields"):
        await mongo.insert_document("cases", document)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classification": "TOP"}, "expected one of OPEN, RESTRICTED, CONFIDENTIAL, SECRET"),
        ({"subject": "13097248022"}, "fødselsnummer cannot be a subject id"),
        ({"subject": 1.5}, "float compares unreliably"),
    ],
)
async def test_a_wrong_argument_is_told(mongo, given, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        await mongo.insert_document("cases", {"a": 1}, **given)
    assert "13097248022" not in str(caught.value)
    assert await mongo.collection("cases").count_documents({}) == 0


# ---- what was changed -----------------------------------------------------------------------------------------------


async def sealed_case(mongo, **more):
    id_ = await mongo.insert_document("cases", {"title": "x"}, classification="SECRET", subject="u1", **more)
    return id_, await mongo.collection("cases").find_one({"_id": id_})


@pytest.mark.parametrize(
    "change",
    [
        {"_metadata.classification": "OPEN"},
        {"_metadata.created_by": "somebody else"},
        {"_metadata.created_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)},
        {"_metadata.created_at": "yesterday"},
        {"_metadata.location": "eu"},
        {"_metadata.subject": None},
        {"_metadata.subject": b"x" * 32},
        {"_metadata": None},
        {"_metadata": {}},
        {"_sealed": b"\x05"},
        {"_sealed": b""},
    ],
)
async def test_a_document_that_was_changed_does_not_open(mongo, change):
    id_, _ = await sealed_case(mongo)
    await mongo.collection("cases").update_one({"_id": id_}, {"$set": change})
    with pytest.raises(DecryptionFailed):
        await mongo.find_document("cases", {"_id": id_})


async def test_a_body_does_not_open_in_another_document_collection_or_person(mongo):
    one, raw = await sealed_case(mongo)
    two, other = await sealed_case(mongo)
    cases = mongo.collection("cases")
    await cases.update_one({"_id": two}, {"$set": {"_sealed": raw["_sealed"], "_metadata": raw["_metadata"]}})
    with pytest.raises(DecryptionFailed):
        await mongo.find_document("cases", {"_id": two})
    await mongo.collection("elsewhere").insert_one(raw)
    with pytest.raises(DecryptionFailed):
        await mongo.find_document("elsewhere", {"_id": one})
    assert other["_sealed"] != raw["_sealed"]
    assert (await mongo.find_document("cases", {"_id": one}))["title"] == "x"


async def test_a_renamed_collection_keeps_its_dataset(mongo, make, keys):
    id_, _ = await sealed_case(mongo)
    await mongo.collection("cases").rename("cases_2026")
    with pytest.raises(DecryptionFailed):
        await mongo.find_document("cases_2026", {"_id": id_})
    async with make(datasets={"cases_2026": "cases"}) as again:
        again.attach(KeptKeys(keys))
        assert (await again.find_document("cases_2026", {"_id": id_}))["title"] == "x"


# ---- people ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [42, "42", Int64(42)])
async def test_the_documents_of_a_person_are_found_by_the_tag(mongo, same):
    await mongo.insert_document("cases", {"n": 1}, classification="SECRET", subject=42)
    await mongo.insert_document("cases", {"n": 2}, classification="OPEN", subject="42")
    await mongo.insert_document("cases", {"n": 3}, classification="SECRET", subject="somebody else")
    await mongo.insert_document("cases", {"n": 4}, classification="SECRET")
    found = [d["n"] async for d in mongo.find_documents("cases", subject=same, sort=[("_metadata.created_at", 1)])]
    assert found == [1, 2]
    assert [d["n"] async for d in mongo.find_documents("cases", {"n": 2}, subject=same)] == [2]
    assert len([d async for d in mongo.find_documents("cases", limit=3)]) == 3


async def test_an_erased_persons_document_is_beyond_reach_and_the_others_are_not(mongo, keys):
    id_, _ = await sealed_case(mongo)
    await mongo.insert_document("cases", {"n": 3}, classification="SECRET", subject="u2")
    await keys.start_erasure("u1")
    with pytest.raises(KeyErased):
        await mongo.insert_document("cases", {"n": 1}, classification="SECRET", subject="u1")
    with pytest.raises(KeyErased):
        await mongo.insert_document("cases", {"n": 1}, classification="OPEN", subject="u1")
    assert (await mongo.find_document("cases", {"_id": id_}))["title"] == "x"
    await keys.destroy("u1")
    with pytest.raises(KeyErased):
        await mongo.find_document("cases", {"_id": id_})
    with pytest.raises(KeyErased):
        assert [d async for d in mongo.find_documents("cases")]
    assert [d["n"] async for d in mongo.find_documents("cases", subject="u2")] == [3]
    assert await mongo.collection("cases").count_documents({}) == 2


async def test_who_comes_back_has_a_new_key(mongo, keys):
    old, _ = await sealed_case(mongo)
    await erase(keys, "u1")
    new, _ = await sealed_case(mongo)
    assert (await mongo.find_document("cases", {"_id": new}))["title"] == "x"
    with pytest.raises(KeyErased):
        await mongo.find_document("cases", {"_id": old})


async def test_a_document_that_was_on_its_way_when_the_erasure_came_is_taken_back(mongo, keys, monkeypatch):
    """The key was at hand, the erasure ran in another process, and only then did the server get the document."""
    await sealed_case(mongo)
    insert_one = mongo._documents.place("cases").collection.insert_one

    class Slow:
        codec_options = mongo.database.codec_options
        delete_one = mongo.collection("cases").delete_one

        async def insert_one(self, document, session=None):
            await erase(keys, "u1")
            return await insert_one(document, session=session)

    mongo._documents.place("cases").collection = Slow()
    with pytest.raises(KeyErased, match="takes nothing about it meanwhile"):
        await mongo.insert_document("cases", {"n": 1}, classification="OPEN", subject="u1")
    assert await mongo.collection("cases").count_documents({"n": 1}) == 0


async def test_a_document_of_a_transaction_is_taken_back_too(mongo, keys):
    await sealed_case(mongo)
    with pytest.raises(KeyErased):
        async with mongo.transaction() as session:
            await mongo.insert_document("cases", {"n": 1}, classification="OPEN", subject="u1", session=session)
            await erase(keys, "u1")
    assert await mongo.collection("cases").count_documents({"n": 1}) == 0


async def test_a_dataset_whose_subject_would_be_sealed_away_is_refused(mongo, keys):
    mongo.attach(KeptKeys(keys, {"cases": "owner.id", "tagged": "_metadata.subject"}))
    with pytest.raises(ConfigurationError, match=r"finds people by owner\.id.*_metadata\.subject"):
        await mongo.insert_document("cases", {"owner": {"id": "u1"}}, classification="SECRET", subject="u1")
    await mongo.insert_document("cases", {"owner": {"id": "u1"}}, classification="OPEN")
    with pytest.raises(ConfigurationError, match="about people: give subject="):
        await mongo.insert_document("tagged", {"a": 1}, classification="SECRET")
    await mongo.insert_document("tagged", {"a": 1}, classification="SECRET", subject="u1")


# ---- replacing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classification", ["OPEN", "SECRET"])
async def test_a_body_is_replaced_and_its_metadata_stays(mongo, classification):
    with actor("first"):
        id_ = await mongo.insert_document("cases", {"n": 1}, classification=classification, subject="u1")
    before = await mongo.collection("cases").find_one()
    with actor("second"):
        assert await mongo.replace_document("cases", {"_id": id_}, {"n": 2}, subject="u1")
    assert not await mongo.replace_document("cases", {"_id": 0}, {"n": 2}, subject="u1")
    found = await mongo.find_document("cases")
    assert (found["n"], found["_metadata"]["created_by"]) == (2, "first")
    assert (await mongo.collection("cases").find_one())["_metadata"] == before["_metadata"]


async def test_whose_a_document_is_cannot_be_changed(mongo, keys):
    id_, _ = await sealed_case(mongo)
    nobody = await mongo.insert_document("cases", {"n": 1})
    for where, subject, message in (
        (id_, None, "give subject="),
        (id_, "u2", "about somebody else"),
        (nobody, "u1", "belongs to no subject"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            await mongo.replace_document("cases", {"_id": where}, {"n": 2}, subject=subject)
    with pytest.raises(ConfigurationError, match="_id cannot be changed"):
        await mongo.replace_document("cases", {"_id": nobody}, {"_id": 5})
    assert await mongo.replace_document("cases", {"_id": nobody}, {"n": 2})
    await mongo.collection("cases").insert_one({"_id": "plain"})
    with pytest.raises(ConfigurationError, match="not written by insert_document"):
        await mongo.replace_document("cases", {"_id": "plain"}, {"n": 2})
    await keys.start_erasure("u1")
    with pytest.raises(KeyErased):
        await mongo.replace_document("cases", {"_id": id_}, {"n": 2}, subject="u1")


# ---- another classification -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["u1", None])
@pytest.mark.parametrize(
    ("before", "after"), [("OPEN", "SECRET"), ("SECRET", "RESTRICTED"), ("SECRET", "CONFIDENTIAL")]
)
async def test_a_documents_classification_is_changed_with_its_body(mongo, before, after, subject):
    with actor("first"):
        id_ = await mongo.insert_document("cases", {"title": "planted", "n": 1}, classification=before, subject=subject)
    assert await mongo.reclassify_document("cases", {"_id": id_}, after, subject=subject)
    stored = await mongo.collection("cases").find_one({"_id": id_})
    assert ("_sealed" in stored) == (after in {"SECRET", "CONFIDENTIAL"})
    assert (b"planted" in encode(stored)) == (after == "RESTRICTED")
    found = await mongo.find_document("cases", {"_id": id_})
    assert (found["title"], found["n"]) == ("planted", 1)
    assert (found["_metadata"]["classification"], found["_metadata"]["created_by"]) == (after, "first")
    assert [d["_id"] async for d in mongo.find_documents("cases", subject=subject)] == [id_]
    assert not await mongo.reclassify_document("cases", {"_id": 0}, after)


async def test_a_classification_that_may_not_be_there_changes_nothing(mongo, make, keys):
    id_ = await mongo.insert_document("cases", {"n": 1}, classification="OPEN", subject="u1")
    before = await mongo.collection("cases").find_one()
    async with make(location="eu") as abroad:
        abroad.attach(KeptKeys(keys))
        with pytest.raises(ResidencyViolation):
            await abroad.reclassify_document("cases", {"_id": id_}, "SECRET", subject="u1")
    with pytest.raises(ConfigurationError, match="give subject="):
        await mongo.reclassify_document("cases", {"_id": id_}, "SECRET")
    with pytest.raises(ConfigurationError, match="about somebody else"):
        await mongo.reclassify_document("cases", {"_id": id_}, "SECRET", subject="u2")
    with pytest.raises(ConfigurationError, match="no classification of that name"):
        await mongo.reclassify_document("cases", {"_id": id_}, "TOP", subject="u1")
    mongo.attach(KeptKeys(keys, {"cases": "owner.id"}))
    with pytest.raises(ConfigurationError, match=r"finds people by owner\.id"):
        await mongo.reclassify_document("cases", {"_id": id_}, "SECRET", subject="u1")
    assert await mongo.collection("cases").find_one() == before


async def test_a_change_meanwhile_is_not_lost(mongo):
    id_ = await mongo.insert_document("cases", {"n": 1}, classification="OPEN")
    with pytest.raises(SerializationConflict):
        async with mongo.transaction() as session:
            await mongo.collection("cases").find_one({"_id": id_}, session=session)  # its snapshot begins
            await mongo.collection("cases").update_one({"_id": id_}, {"$set": {"n": 2}})
            await mongo.reclassify_document("cases", {"_id": id_}, "SECRET", session=session)
    assert await mongo.reclassify_document("cases", {"_id": id_}, "SECRET")
    assert (await mongo.find_document("cases"))["n"] == 2


async def test_an_erasure_in_the_middle_of_a_change_leaves_nothing(mongo, keys):
    id_ = await mongo.insert_document("cases", {"n": 1}, classification="OPEN", subject="u1")
    with pytest.raises(KeyErased):
        async with mongo.transaction() as session:
            await mongo.reclassify_document("cases", {"_id": id_}, "SECRET", subject="u1", session=session)
            await erase(keys, "u1")
    assert await mongo.collection("cases").count_documents({}) == 0


# ---- beside other writers -------------------------------------------------------------------------------------------


async def test_documents_of_pymongo_alone_are_found_as_they_are(mongo):
    await mongo.collection("cases").insert_one({"_id": 1, "a": {"b": [1]}})
    assert await mongo.find_document("cases") == {"_id": 1, "a": {"b": [1]}}


async def test_documents_of_client_side_encryption_are_refused(mongo):
    await mongo.collection("cases").insert_one({"_id": 1, "a": [{"b": Binary(b"\x02cipher", 6)}]})
    with pytest.raises(ConfigurationError, match="client-side field level encryption"):
        await mongo.find_document("cases")


async def test_documents_of_any_query_can_be_opened(mongo):
    for n in range(3):
        await mongo.insert_document("cases", {"n": n}, classification="SECRET", subject=f"u{n}")
    await mongo.insert_document("cases", {"n": 3}, classification="OPEN")
    raw = await mongo.collection("cases").find().to_list()
    assert [d["n"] for d in await mongo.open_documents("cases", raw)] == [0, 1, 2, 3]


async def test_pymongos_collection_raises_pymongos_errors_unless_they_are_translated(mongo):
    await mongo.collection("cases").insert_one({"_id": 1})
    with pytest.raises(DuplicateKeyError):
        await mongo.collection("cases").insert_one({"_id": 1})
    with pytest.raises(ConstraintViolated) as caught:
        async with mongo.translated():
            await mongo.collection("cases").insert_one({"_id": 1})
    assert caught.value.constraint == "_id_"
    assert caught.value.__context__ is None


# ---- size -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classification", ["OPEN", "SECRET"])
async def test_a_document_just_under_16_mib_is_kept_and_one_over_it_is_not(mongo, classification):
    fits = {"_id": 1, "b": bytes(16 * 1024 * 1024 - 1000)}
    await mongo.insert_document("cases", fits, classification=classification, subject="u1")
    assert len((await mongo.find_document("cases", {"_id": 1}))["b"]) == len(fits["b"])
    for size in (16 * 1024 * 1024 - 100, 16 * 1024 * 1024 + 20_000, 17 << 20):
        with pytest.raises(QueryRejected, match="larger than MongoDB holds"):
            await mongo.insert_document(
                "cases", {"_id": 2, "b": bytes(size)}, classification=classification, subject="u1"
            )
    assert await mongo.collection("cases").count_documents({}) == 1

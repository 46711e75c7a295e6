"""Documents addressed by plain values of their paths: what personal data needs of the engine."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from bson import Binary, Int64, ObjectId
from bson.regex import Regex

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import CapabilityMissing, ConfigurationError, ConstraintViolated
from datavern.contracts.stores import Shape, ShapeColumn
from datavern.engines.mongodb.paths import Document, forms_of, nested

ID = "6b03b02383f68a77256bb960"
PERSON = "0b9e3a52-6a4f-4b5e-8f3e-3a1d8a1c2b3d"


@pytest.fixture
def subjects(mongo):
    return needs(mongo, "subjects")


async def test_a_dotted_path_reaches_into_documents_and_arrays(mongo, subjects):
    cases = mongo.collection("cases")
    await cases.insert_many(
        [
            {"_id": 1, "owner": {"id": "u1"}},
            {"_id": 2, "owner": {"id": "u2"}},
            {"_id": 3, "owner": [{"id": "u1"}, {"id": "u2"}]},
            {"_id": 4, "owner.id": "u1"},
            {"_id": 5},
        ]
    )
    found = await subjects.select("cases", {"owner.id": "u1"}, order_by=["_id"])
    assert [d["_id"] for d in found] == [1, 3]
    assert found[0]["owner.id"] == "u1"
    assert found[0].get("owner.name", "-") == "-"
    with pytest.raises(KeyError):
        _ = found[0]["owner.name"]
    assert [d async for d in _stream(subjects, "cases", {"owner.id": ("u1", "u2")})] == await cases.find(
        {"_id": {"$lt": 4}}
    ).to_list()
    assert await subjects.select("cases", {"owner.id": None}, columns=["_id"], order_by=["_id"]) == [
        {"_id": 4},
        {"_id": 5},
    ]
    assert await subjects.update("cases", {"owner.id": "u1", "_id": 1}, {"owner.name": "Ola"}) == 1
    assert (await cases.find_one({"_id": 1}))["owner"] == {"id": "u1", "name": "Ola"}
    assert await subjects.delete("cases", {"owner.id": "u1"}) == 2
    assert await cases.count_documents({}) == 3


async def _stream(subjects, *args, **more):
    async with subjects.stream(*args, batch_size=2, **more) as documents:
        async for one in documents:
            yield one


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("42", [42, Int64(42), "42", 42.0]),
        ("-7", [-7, "-7"]),
        (ID, [ObjectId(ID), ID]),
        (PERSON, [UUID(PERSON), PERSON, Binary(UUID(PERSON).bytes, 3)]),
        ("test-user", ["test-user"]),
    ],
)
async def test_an_id_is_found_in_whatever_type_it_is_kept(mongo, subjects, text, values):
    await mongo.collection("cases").insert_many([{"owner": value} for value in values])
    await mongo.collection("cases").insert_many(
        [{"owner": other} for other in ("42x", 43, "042", None, ["z"], ID[:-1])]
    )
    assert len(await subjects.select("cases", {"owner": text})) == len(values)
    assert await subjects.delete("cases", {"owner": text}) == len(values)
    assert await mongo.collection("cases").count_documents({}) == 6


@pytest.mark.parametrize(
    "text", ["*", ".*", "[a-z]", "", "$ne", "042", "1e3", "-0", "99999999999999999999", ID.upper()]
)
def test_what_is_only_text_stays_text(text):
    assert forms_of(text) == [text]


@pytest.mark.parametrize(
    "value",
    [
        {"$ne": None},
        {"$gt": ""},
        re.compile(".*"),
        Regex(".*"),
        (re.compile(".*"),),
        (Regex(".*"), "x"),
        {"$regex": "."},
    ],
)
async def test_a_value_is_compared_and_never_run(mongo, subjects, value):
    await mongo.collection("cases").insert_many([{"owner": {"id": n}} for n in ("u1", "u2")])
    assert await subjects.select("cases", {"owner.id": value}) == []
    assert await subjects.delete("cases", {"owner.id": value}) == 0
    assert await subjects.update("cases", {"owner.id": value}, {"x": 1}) == 0
    assert await mongo.collection("cases").count_documents({}) == 2


@pytest.mark.parametrize("name", ["$where", "a.$[]", "a..b", "", "a.", "a\0b", "$expr"])
async def test_a_name_is_a_path_and_never_an_operator(subjects, name):
    with pytest.raises(ConfigurationError):
        await subjects.select("cases", {name: "1"})
    with pytest.raises(ConfigurationError):
        await subjects.update("cases", {"a": 1}, {name: "1"})
    with pytest.raises(ConfigurationError):
        await subjects.insert("cases", [{name: "1"}])


async def test_nobody_means_every_document(subjects):
    for call in (subjects.delete("cases", {}), subjects.update("cases", {}, {"a": 1})):
        with pytest.raises(ValueError, match="nobody means that"):
            await call


async def test_changes_are_values_and_never_operators(mongo, subjects):
    await subjects.insert("cases", [{"_id": 1, "n": 1}])
    assert await subjects.update("cases", {"_id": 1}, {"n": {"$inc": 5}, "sealed": b"\x01", "gone": None}) == 1
    assert await mongo.collection("cases").find_one() == {"_id": 1, "n": {"$inc": 5}, "sealed": b"\x01", "gone": None}


async def test_several_are_inserted_all_or_none(mongo, subjects):
    await subjects.insert("cases", [{"_id": n, "owner.id": "u1", "owner.name": None} for n in range(3)])
    assert (await mongo.collection("cases").find_one())["owner"] == {"id": "u1", "name": None}
    with pytest.raises(ConstraintViolated):
        await subjects.insert("cases", [{"_id": 3}, {"_id": 2}, {"_id": 4}])
    await subjects.insert("cases", [])
    assert await mongo.collection("cases").count_documents({}) == 3


async def test_a_transaction_of_the_callers_is_taken_part_in(mongo, subjects):
    await subjects.insert("cases", [{"_id": 0, "a": 1}])
    with pytest.raises(ZeroDivisionError):
        async with mongo.transaction() as session:
            await subjects.insert("cases", [{"_id": 1, "a": 1}, {"_id": 2, "a": 1}], transaction=session)
            assert await subjects.update("cases", {"a": 1}, {"a": 2}, transaction=session) == 3
            assert await subjects.delete("cases", {"_id": 1}, transaction=session) == 1
            assert len(await subjects.select("cases", {"a": 2}, transaction=session)) == 2
            assert [d["_id"] async for d in _stream(subjects, "cases", {"a": 2}, transaction=session)] == [0, 2]
            raise ZeroDivisionError
    assert await subjects.select("cases", {"a": (1, 2)}) == [{"_id": 0, "a": 1}]


async def test_lock_makes_others_conflict(mongo, subjects):
    from datavern.contracts.errors import SerializationConflict

    await subjects.insert("cases", [{"_id": 0, "a": 1}])
    async with mongo.transaction() as session:
        assert await subjects.select("cases", {"_id": 0}, lock=True, transaction=session) == [{"_id": 0, "a": 1}]
        with pytest.raises(SerializationConflict):
            async with mongo.transaction() as other:
                await subjects.update("cases", {"_id": 0}, {"a": 2}, transaction=other)
    assert await subjects.select("cases", {"_id": 0}) == [{"_id": 0, "a": 1}]


async def test_limit_and_streams_of_many(mongo, subjects):
    await mongo.collection("cases").insert_many([{"_id": n, "a": 1} for n in range(25)])
    assert len(await subjects.select("cases", {"a": 1}, limit=7)) == 7
    assert await subjects.select("cases", {"a": 1}, limit=0) == []
    assert [d["_id"] async for d in _stream(subjects, "cases", {"a": 1})] == list(range(25))
    async with subjects.stream("cases", {"a": 1}, batch_size=5) as documents:
        async for _ in documents:
            break


async def test_sealed_documents_are_found_by_their_subject(mongo, subjects):
    await mongo.insert_document("cases", {"n": 1}, classification="SECRET", subject=42)
    await mongo.insert_document("cases", {"n": 2}, classification="SECRET", subject="u2")
    await mongo.insert_document("cases", {"n": 3}, classification="SECRET")
    found = await subjects.select("cases", {"_metadata.subject": "42"})
    assert [d["n"] for d in await mongo.open_documents("cases", found)] == [1]
    assert len(await subjects.select("cases", {"_metadata.subject": ("42", "u2")})) == 2
    assert await subjects.delete("cases", {"_metadata.subject": "42"}) == 1
    assert len(await subjects.select("cases", {"_metadata.subject": None})) == 1
    assert await mongo.collection("cases").count_documents({}) == 2


async def test_what_is_not_there_is_none_and_a_prepared_store_is_described(mongo, subjects):
    assert await subjects.describe("people") is None
    assert await subjects.select("people", {"a": 1}) == []
    shape = Shape(
        "people",
        (
            ShapeColumn("id", "integer", nullable=False),
            ShapeColumn("owner.id", indexed=True),
            ShapeColumn("email", "bytes"),
            ShapeColumn("email_lookup", "bytes", indexed=True, unique=True),
            ShapeColumn("datavern_row", "bytes", unique=True),
        ),
        ("id",),
    )
    ran = await subjects.prepare(shape)
    assert len(ran) == 6
    assert await subjects.prepare(shape) == []
    store = await subjects.describe("people")
    assert store is not None
    assert {c.name for c in store.columns} == {
        "_id",
        "id",
        "owner",
        "owner.id",
        "email",
        "email_lookup",
        "datavern_row",
    }
    assert store.primary_key == ("_id",)
    assert frozenset({"id"}) in store.unique
    assert {"id", "owner.id", "email_lookup"} <= store.indexed
    assert store.column("email").type == "bindata"
    await subjects.insert(
        "people", [{"id": 1, "owner.id": "u1", "email_lookup": None}, {"id": 2, "email_lookup": None}]
    )
    await subjects.insert("people", [{"id": 3, "email_lookup": b"x"}])
    for clash in ({"id": 4, "email_lookup": b"x"}, {"id": 1}, {"id": 5, "email": "in the clear"}):
        with pytest.raises(ConstraintViolated):
            await subjects.insert("people", [clash])
    with pytest.raises(ConfigurationError, match=r"people\.email: the validator wants binData"):
        await subjects.prepare(Shape("people", (ShapeColumn("email", "text"),), ()))


async def test_sql_is_refused_with_a_reason(mongo):
    for capability, said in (("session", "no SQL"), ("transactions", "not SQL"), ("ledger", "need SQL")):
        with pytest.raises(CapabilityMissing, match=said):
            needs(mongo, capability)


def test_rows_and_documents():
    assert nested({"a.b.c": 1, "a.d": 2, "e": {"f": 1}, "e.g": 2}) == {
        "a": {"b": {"c": 1}, "d": 2},
        "e": {"f": 1, "g": 2},
    }
    for row in ({"a": 1, "a.b": 2}, {"a.b": 1, "a": 2}):
        with pytest.raises(ConfigurationError):
            nested(row)
    document = Document({"a": {"b": [{"c": 1}]}, "x.y": 5})
    assert (document["a.b.0.c"], document["x.y"], document.get("a.z"), document.get("a")) == (
        1,
        5,
        None,
        {"b": [{"c": 1}]},
    )

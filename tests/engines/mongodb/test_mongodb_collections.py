"""Indexes and schemas: made where they are missing, refused where they differ, dropped never."""

from __future__ import annotations

import asyncio

import pytest

from datavern.contracts.errors import CapabilityMissing, ConfigurationError, ConstraintViolated
from datavern.engines.mongodb.collections import Index, described_fields, with_fields

SCHEMA = {"bsonType": "object", "required": ["email"], "properties": {"email": {"bsonType": "string"}}}


async def test_a_collection_is_made_as_it_should_be_and_then_there_is_nothing_to_do(mongo):
    indexes = [
        Index({"owner.id": 1, "when": -1}),
        Index({"email": 1}, unique=True, partial={"email": {"$type": "string"}}),
        Index({"ends": 1}, expire_after=3600),
    ]
    ran = await mongo.prepare_collection("people", indexes=indexes, schema=SCHEMA)
    assert ran == [
        "create people with a $jsonSchema",
        "create index owner.id_1_when_-1 on people",
        "create index email_1 on people (unique)",
        "create index ends_1 on people",
    ]
    assert await mongo.prepare_collection("people", indexes=indexes, schema=SCHEMA) == []
    there = {index.name: index for index in await mongo.indexes("people")}
    assert there["email_1"] == indexes[1]
    assert there["ends_1"].expire_after == 3600
    assert (await mongo.collection_options("people"))["validator"] == {"$jsonSchema": SCHEMA}
    with pytest.raises(ConstraintViolated):
        await mongo.insert_document("people", {"name": "x"}, classification="OPEN")


async def test_a_schema_is_replaced_and_the_rest_of_the_validator_stays(mongo):
    await mongo.database.create_collection("people", validator={"$expr": {"$lt": ["$a", 10]}})
    assert await mongo.prepare_collection("people", schema=SCHEMA) == ["collMod people: $jsonSchema"]
    other = {**SCHEMA, "required": []}
    assert await mongo.prepare_collection("people", schema=other) == ["collMod people: $jsonSchema"]
    options = await mongo.collection_options("people")
    assert options["validator"] == {"$expr": {"$lt": ["$a", 10]}, "$jsonSchema": other}
    await mongo.prepare_collection("people", schema=other, validation="moderate", action="warn")
    options = await mongo.collection_options("people")
    assert (options["validationLevel"], options["validationAction"]) == ("moderate", "warn")


async def test_an_index_with_other_options_is_refused_and_stays(mongo):
    await mongo.prepare_collection("people", indexes=[Index({"email": 1}, name="e")])
    for wanted, said in (
        (Index({"email": 1}, name="e", unique=True), "another unique"),
        (Index({"name": 1}, name="e"), "over other paths"),
        (Index({"email": 1}, name="e", partial={"a": 1}), "covers other documents"),
    ):
        with pytest.raises(ConfigurationError, match=f"the index e is there, and .*{said}"):
            await mongo.prepare_collection("people", indexes=[wanted])
    assert await mongo.prepare_collection("people", indexes=[Index({"email": 1})]) == []
    assert {index.name for index in await mongo.indexes("people")} == {"_id_", "e"}


async def test_documents_that_do_not_fit_a_unique_index_are_told(mongo):
    await mongo.collection("people").insert_many([{"email": "hemmelig"}, {"email": "hemmelig"}])
    with pytest.raises(ConstraintViolated, match="people: the index email_1 would be unique") as caught:
        await mongo.prepare_collection("people", indexes=[Index({"email": 1}, unique=True)])
    assert "hemmelig" not in str(caught.value) + str(caught.value.__cause__)
    assert caught.value.__context__ is None


async def test_several_at_once_are_safe(mongo):
    ran = await asyncio.gather(
        *(mongo.prepare_collection("people", indexes=[Index({"a": 1})], schema=SCHEMA) for _ in range(4))
    )
    assert any(step.startswith("create people") for steps in ran for step in steps)
    assert await mongo.prepare_collection("people", indexes=[Index({"a": 1})], schema=SCHEMA) == []
    assert {index.name for index in await mongo.indexes("people")} == {"_id_", "a_1"}


async def test_there_is_no_sharding_without_a_router(mongo):
    with pytest.raises(CapabilityMissing, match="not the router of a cluster"):
        await mongo.shard_collection("people", {"_id": "hashed"})


def test_fields_of_a_schema():
    schema = {
        "required": ["a"],
        "properties": {
            "a": {"bsonType": "string"},
            "b": {"bsonType": ["int", "null"]},
            "c": {"bsonType": "object", "properties": {"d": {"bsonType": "objectId"}}},
            "e": {"enum": [1]},
        },
    }
    assert described_fields(schema) == {
        "a": ("string", False),
        "b": ("int", True),
        "c.d": ("objectid", True),
        "c": ("object", True),
        "e": ("", True),
    }
    assert with_fields({}, {"a.b": ("string",)}, "x") == {
        "properties": {"a": {"bsonType": ["object", "array", "null"]}}
    }
    kept = with_fields(schema, {"b": ("int", "long"), "f": ("binData", "null")}, "x")
    assert kept["properties"]["b"] == {"bsonType": ["int", "null"]}
    assert kept["properties"]["f"] == {"bsonType": ["binData", "null"]}
    with pytest.raises(ConfigurationError, match=r"x\.a: the validator wants string"):
        with_fields(schema, {"a": ("binData",)}, "x")
    with pytest.raises(ConfigurationError, match="at least one path"):
        Index({})

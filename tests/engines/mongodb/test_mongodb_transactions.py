"""Transactions: all or nothing, what may be run again, and causal sessions."""

from __future__ import annotations

import asyncio

import pytest
from pymongo.errors import DuplicateKeyError
from tests.engines.mongodb.conftest import FailPoint

from datavern.contracts.errors import (
    CapabilityMissing,
    ConfigurationError,
    ConnectionFailed,
    ConstraintViolated,
    NoHealthyConnection,
    OutcomeUnknown,
    SerializationConflict,
)


async def test_a_transaction_commits_at_its_end(mongo):
    async with mongo.transaction() as session:
        await mongo.collection("a").insert_one({"_id": 1}, session=session)
        await mongo.insert_document("b", {"n": 1}, classification="SECRET", subject="u1", session=session)
        assert await mongo.find_document("b") is None
        assert (await mongo.find_document("b", session=session))["n"] == 1
    assert await mongo.collection("a").count_documents({}) == 1
    assert (await mongo.find_document("b"))["n"] == 1
    assert not mongo.transactions_open


async def test_an_exception_undoes_it_and_comes_out_as_it_was(mongo):
    with pytest.raises(ZeroDivisionError):
        async with mongo.transaction() as session:
            await mongo.insert_document("b", {"n": 1}, session=session)
            raise ZeroDivisionError
    assert await mongo.collection("b").count_documents({}) == 0
    assert not mongo.transactions_open


async def test_pymongos_error_is_itself_inside_and_translated_outside(mongo):
    await mongo.collection("a").insert_one({"_id": "hemmelig"})
    with pytest.raises(ConstraintViolated) as caught:
        async with mongo.transaction() as session:
            try:
                await mongo.collection("a").insert_one({"_id": "hemmelig"}, session=session)
            except DuplicateKeyError as error:
                inside = error
                raise
    assert inside.code == 11000
    assert caught.value.__context__ is None
    assert "hemmelig" not in str(caught.value) + str(caught.value.__cause__)


async def test_two_that_change_the_same_document_conflict_and_one_is_run_again(mongo):
    counters = mongo.collection("counters")
    await counters.insert_one({"_id": 1, "n": 0})
    async with mongo.transaction() as one:
        await counters.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=one)
        with pytest.raises(SerializationConflict) as caught:
            async with mongo.transaction() as two:
                await counters.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=two)
        assert caught.value.retry == "transaction"

    async def work(session):
        found = await counters.find_one({"_id": 1}, session=session)
        await asyncio.sleep(0.005)
        await counters.update_one({"_id": 1}, {"$set": {"n": found["n"] + 1}}, session=session)
        return found["n"]

    results = await asyncio.gather(*(mongo.run_in_transaction(work, attempts=50) for _ in range(5)))
    assert sorted(results) == [1, 2, 3, 4, 5]
    assert (await counters.find_one())["n"] == 6


async def test_a_commit_without_an_answer_is_unknown_and_never_run_again(mongo):
    await mongo.collection("a").insert_one({"_id": 0})
    runs = 0

    async def work(session):
        nonlocal runs
        runs += 1
        await mongo.collection("a").insert_one({"_id": runs}, session=session)

    async with FailPoint(mongo, "commitTransaction", closeConnection=True, times=2):
        with pytest.raises(OutcomeUnknown) as caught:
            await mongo.run_in_transaction(work)
    assert runs == 1
    assert caught.value.retry == "never"


@pytest.mark.parametrize(
    ("failure", "kind"),
    [({"errorCode": 10107}, NoHealthyConnection), ({"closeConnection": True}, ConnectionFailed)],
)
async def test_a_lost_primary_before_the_commit_is_run_again(mongo, failure, kind):
    await mongo.collection("a").insert_one({"_id": 0})
    runs = 0

    async def work(session):
        nonlocal runs
        runs += 1
        await mongo.collection("a").insert_one({"n": 1}, session=session)

    async with FailPoint(mongo, "insert", **failure):
        with pytest.raises(kind) as caught:
            async with mongo.transaction() as session:
                await mongo.collection("a").insert_one({"n": 1}, session=session)
    assert caught.value.retry == "transaction"
    async with FailPoint(mongo, "insert", **failure):
        await mongo.run_in_transaction(work)
    assert runs == 2
    assert await mongo.collection("a").count_documents({"n": 1}) == 1


async def test_a_cancelled_transaction_is_undone(mongo):
    inside = asyncio.Event()

    async def work():
        async with mongo.transaction() as session:
            await mongo.collection("a").insert_one({"n": 1}, session=session)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await mongo.collection("a").count_documents({}) == 0
    await mongo.collection("a").insert_one({"n": 1})


async def test_what_mongodb_does_not_have_is_refused(mongo):
    for settings in ({"isolation": "serializable"}, {"read_only": True}, {"tenant": "oslo"}):
        with pytest.raises(CapabilityMissing):
            mongo.transaction(**settings)
    with pytest.raises(ConfigurationError, match="expected one of"):
        mongo.transaction(isolation="chaos")
    for isolation in ("read committed", "repeatable read", "snapshot"):
        async with mongo.transaction(isolation=isolation) as session:
            await mongo.collection("a").insert_one({}, session=session)
    assert await mongo.collection("a").count_documents({}) == 3


async def test_a_session_is_causal_and_a_transaction_is_entered_once(mongo):
    async with mongo.session() as session:
        assert session.options.causal_consistency
        await mongo.insert_document("a", {"n": 1}, classification="OPEN", session=session)
        assert session.operation_time is not None
        assert (await mongo.find_document("a", session=session))["n"] == 1
    transaction = mongo.transaction()
    async with transaction:
        with pytest.raises(ConfigurationError, match="entered once"):
            await transaction.__aenter__()


async def test_a_commit_or_abort_of_ones_own_inside_the_block_stands(mongo):
    async with mongo.transaction() as session:
        await mongo.collection("a").insert_one({"_id": 1}, session=session)
        await session.abort_transaction()
    async with mongo.transaction() as session:
        await mongo.collection("a").insert_one({"_id": 2}, session=session)
        await session.commit_transaction()
    assert [d["_id"] async for d in mongo.collection("a").find()] == [2]

"""What the server and the driver say, in Datavern's words; and no value in any of them."""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from decimal import Decimal

import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    InvalidOperation,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)
from tests.engines.mongodb.conftest import FailPoint

from datavern.contracts.errors import (
    ConnectionFailed,
    ConstraintViolated,
    NoHealthyConnection,
    OutcomeUnknown,
    PoolTimeout,
    ProviderError,
    QueryRejected,
    SerializationConflict,
)
from datavern.engines.mongodb.collections import Index
from datavern.engines.mongodb.errors import translate

pytestmark = [
    pytest.mark.usefixtures("left_sockets"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

PLANTED = "hemmelig-verdi-4711"


def told(error: BaseException) -> str:
    """Everything that a log or a traceback could hold of an error."""
    lines = traceback.format_exception(error)
    seen: list[BaseException | None] = [error]
    for one in seen:
        if one is not None:
            lines += [repr(one), str(one), repr(one.args), repr(vars(one))]
            seen += [inner for inner in (one.__cause__, one.__context__) if inner is not None and inner not in seen]
    return "\n".join(lines)


@pytest.mark.parametrize("classification", ["OPEN", "SECRET"])
async def test_a_duplicate_names_the_index_and_never_the_value(mongo, caplog, classification):
    await mongo.prepare_collection("people", indexes=[Index({"email": 1}, name="email_unique", unique=True)])
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConstraintViolated) as caught:
        for _ in range(2):
            await mongo.insert_document("cases", {"_id": PLANTED}, classification=classification, subject="u1")
    assert caught.value.constraint == "_id_"
    with pytest.raises(ConstraintViolated, match=r"email_unique \(email\)") as caught:
        for _ in range(2):
            await mongo.insert_document("people", {"email": PLANTED}, classification="OPEN")
    error = caught.value
    assert (error.constraint, error.code, error.provider) == ("email_unique", "DuplicateKey", "documents")
    assert error.retry == "never"
    assert error.__context__ is None
    assert PLANTED not in told(error)
    assert PLANTED not in caplog.text
    assert await mongo.collection("people").count_documents({}) == 1


async def test_a_validator_that_says_no_is_told_by_rule_and_path(mongo):
    schema = {
        "bsonType": "object",
        "required": ["email"],
        "properties": {
            "email": {"bsonType": "string"},
            "owner": {"bsonType": "object", "properties": {"age": {"bsonType": "int", "maximum": 150}}},
        },
    }
    await mongo.prepare_collection("people", schema=schema)
    for document, said in (
        ({"name": PLANTED}, "email is required"),
        ({"email": 7, "name": PLANTED}, "email: bsonType"),
        ({"email": PLANTED, "owner": {"age": 900}}, r"owner\.age: maximum"),
    ):
        with pytest.raises(ConstraintViolated, match=said) as caught:
            await mongo.insert_document("people", document, classification="OPEN")
        assert caught.value.constraint == "$jsonSchema"
        assert PLANTED not in told(caught.value)
        assert "900" not in str(caught.value)


NOT_BSON = [
    (
        {"owner": {"tags": [1, {"x": {PLANTED}}]}},
        r"owner\.tags\[1\]\.x has type set, which BSON does not know: use a list",
    ),
    ({"born": dt.date(2000, 1, 1), "n": PLANTED}, "born has type date.*use a datetime"),
    ({"n": PLANTED, "sum": Decimal("1.5")}, r"sum has type Decimal.*bson\.Decimal128"),
    ({"n": PLANTED, "a": {"b": 2**70}}, r"a\.b is a whole number of more than 64 bits"),
    ({"n": PLANTED + "\ud800"}, "n is text with half a surrogate pair"),
    ({"n": {PLANTED: 1, 5: 2}}, "n has a name that is no text, but of type int"),
    ({"a": {"b\0" + PLANTED: 1}}, "a has a name with a NUL character"),
    ({"a": object(), "n": PLANTED}, "a has type object"),
]


@pytest.mark.parametrize("classification", ["OPEN", "SECRET"])
@pytest.mark.parametrize(("document", "said"), NOT_BSON)
async def test_a_value_that_cannot_be_encoded_is_named_by_its_path(mongo, classification, document, said):
    with pytest.raises(QueryRejected, match=said) as caught:
        await mongo.insert_document("cases", document, classification=classification, subject="u1")
    assert PLANTED not in told(caught.value)
    assert caught.value.__context__ is None
    assert await mongo.collection("cases").count_documents({}) == 0


async def test_a_document_nested_too_deeply_is_refused(mongo):
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    for classification in ("OPEN", "SECRET"):
        with pytest.raises(QueryRejected, match="nested too deeply"):
            await mongo.insert_document("cases", deep, classification=classification)


async def test_a_query_that_the_server_refuses(mongo):
    with pytest.raises(QueryRejected, match="BadValue") as caught:
        await mongo.find_document("cases", {"$nope": PLANTED})
    assert caught.value.code == "BadValue"
    assert PLANTED not in told(caught.value)


# ---- ordered failures, over the real wire ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "kind", "retry", "said"),
    [
        ({"errorCode": 10107, "times": 2}, NoHealthyConnection, "safe", "not the primary"),
        ({"errorCode": 13435, "times": 2}, NoHealthyConnection, "safe", "not the primary"),
        ({"errorCode": 91, "times": 2}, OutcomeUnknown, "never", "what became of the write"),
        ({"errorCode": 11602, "times": 2}, OutcomeUnknown, "never", "what became of the write"),
        ({"closeConnection": True, "times": 2}, OutcomeUnknown, "never", "what became of the write"),
        ({"errorCode": 13}, QueryRejected, "never", "Unauthorized"),
        ({"errorCode": 50}, OutcomeUnknown, "never", "time limit"),
        ({"errorCode": 112}, SerializationConflict, "transaction", "same documents"),
        ({"errorCode": 8000}, QueryRejected, "never", "the server refused it"),
        (
            {"writeConcernError": {"code": 64, "errmsg": PLANTED, "codeName": "WriteConcernFailed"}},
            OutcomeUnknown,
            "never",
            "not confirmed",
        ),
    ],
)
async def test_what_a_failed_write_may_be_done_about(mongo, failure, kind, retry, said):
    await mongo.insert_document("cases", {"n": 0}, classification="OPEN")
    async with FailPoint(mongo, "insert", **{"times": 1, **failure}):
        with pytest.raises(kind, match=said) as caught:
            await mongo.insert_document("cases", {"n": PLANTED}, classification="OPEN")
    assert type(caught.value) is kind
    assert caught.value.retry == retry
    assert caught.value.provider == "documents"
    assert PLANTED not in told(caught.value)


async def test_one_lost_answer_is_retried_by_pymongo_and_written_once(mongo):
    await mongo.insert_document("cases", {"n": 0}, classification="OPEN")
    async with FailPoint(mongo, "insert", closeConnection=True):
        await mongo.insert_document("cases", {"n": 1}, classification="OPEN")
    assert await mongo.collection("cases").count_documents({"n": 1}) == 1


async def test_a_read_that_lost_its_connection_may_be_made_again(mongo):
    await mongo.insert_document("cases", {"n": 0}, classification="OPEN")
    async with FailPoint(mongo, "find", closeConnection=True, times=2):
        with pytest.raises(ConnectionFailed) as caught:
            await mongo.find_document("cases")
    assert caught.value.retry == "safe"
    assert (await mongo.find_document("cases"))["n"] == 0


async def test_a_primary_that_steps_down_takes_no_writes_and_then_does_again(make):
    async with make({"serverSelectionTimeoutMS": 300}) as mongo:
        await mongo.insert_document("cases", {"n": 0}, classification="OPEN")
        await mongo.client.admin.command({"replSetStepDown": 3, "force": True})
        with pytest.raises((NoHealthyConnection, ConnectionFailed)) as caught:
            await mongo.insert_document("cases", {"n": 1}, classification="OPEN")
        assert caught.value.retry == "safe"
        health = await mongo.health()
        assert (health.status, health.role) == ("degraded", "secondary")
        for _ in range(40):
            try:
                await mongo.insert_document("cases", {"n": 1}, classification="OPEN")
                break
            except (NoHealthyConnection, ConnectionFailed):
                continue
        assert await mongo.collection("cases").count_documents({"n": 1}) == 1
        assert (await mongo.health()).role == "primary"
        await mongo.client.drop_database(mongo.database.name)


# ---- by the driver's classes alone ----------------------------------------------------------------------------------

LABELLED = {"code": 251, "codeName": "NoSuchTransaction", "errorLabels": ["TransientTransactionError"]}


@pytest.mark.parametrize(
    ("error", "wrote", "kind", "retry"),
    [
        (ServerSelectionTimeoutError(PLANTED), True, ConnectionFailed, "safe"),
        (WaitQueueTimeoutError(PLANTED), True, PoolTimeout, "safe"),
        (AutoReconnect(PLANTED), True, OutcomeUnknown, "never"),
        (AutoReconnect(PLANTED), False, ConnectionFailed, "safe"),
        (AutoReconnect(PLANTED, {"errorLabels": ["TransientTransactionError"]}), True, ConnectionFailed, "transaction"),
        (OperationFailure(PLANTED, 251, LABELLED), True, SerializationConflict, "transaction"),
        (OperationFailure(PLANTED, 18, {"code": 18}), False, ConnectionFailed, "never"),
        (OperationFailure(PLANTED, 6, {"code": 6, "codeName": "HostUnreachable"}), True, OutcomeUnknown, "never"),
        (OperationFailure(PLANTED, 50, {"code": 50}), False, ProviderError, "never"),
        (OperationFailure(PLANTED), False, QueryRejected, "never"),
        (InvalidOperation(PLANTED), False, QueryRejected, "never"),
        (
            BulkWriteError({"writeErrors": [{"code": 11000, "errmsg": f"index: a_1 dup key: {{ a: {PLANTED} }}"}]}),
            True,
            ConstraintViolated,
            "never",
        ),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}), True, OutcomeUnknown, "never"),
    ],
)
def test_the_drivers_classes(error, wrote, kind, retry):
    ours = translate(error, provider="documents", wrote=wrote)
    assert type(ours) is kind
    assert ours.retry == retry
    assert PLANTED not in told(ours)
    assert str(ours.__cause__).startswith("pymongo.errors.")


@pytest.mark.parametrize(
    ("message", "index"),
    [
        ('E11000 duplicate key error collection: app.x index: email_1 dup key: { email: "a" }', "email_1"),
        (
            'E11000 duplicate key error collection: app.x index: a b collation: { locale: "nb" } dup key: { a: 1 }',
            "a b",
        ),
        ('E11000 duplicate key error index: app.x.$email_1 dup key: { : "a dup key: x" }', "email_1"),
        ("something else", None),
    ],
)
def test_the_index_is_read_from_the_message_and_nothing_after_it(message, index):
    ours = translate(OperationFailure(message, 11000, {"code": 11000, "errmsg": message}), provider="documents")
    assert ours.constraint == index


def test_what_is_no_error_of_the_drivers_passes_through():
    error = ZeroDivisionError()
    assert translate(error, provider="documents") is error
    ours = QueryRejected("x")
    assert translate(ours, provider="documents") is ours
    assert ours.provider == "documents"

"""The shelf keeps the contract."""

import secrets

import pytest
from shelf import ShelfProvider

from datavern import DatabaseManager
from datavern.testing import EmptyDatabase
from datavern.testing.contract import (
    CancellationContract,
    ErrorsContract,
    HealthContract,
    LedgerContract,
    SessionContract,
    Speech,
    StreamContract,
    SubjectsContract,
    TransactionsContract,
)

DatabaseManager.register("shelf", ShelfProvider)


@pytest.fixture
def database():
    return EmptyDatabase("shelf", {"shelf": secrets.token_hex(8)})


@pytest.fixture
def sql():
    anything = dict.fromkeys(["integer", "bigint", "text", "bytes", "real"], "any")
    none = dict.fromkeys(
        ["alter", "check constraints", "foreign keys", "deferred constraints", "insert select", "quoted names",
         "returning", "with"],
        "the boards' SQL is a little one",
    )  # fmt: skip
    return Speech(
        "?",
        words={**anything, "endless": "WAIT 600"},
        lacks={**none, "positions": "the boards do not tell where", "pool": "there are no connections",
               "ddl": "there is no schema"},
    )  # fmt: skip


class TestSession(SessionContract): ...


class TestStream(StreamContract): ...


class TestTransactions(TransactionsContract): ...


class TestErrors(ErrorsContract): ...


class TestCancellation(CancellationContract): ...


class TestSubjects(SubjectsContract): ...


class TestLedger(LedgerContract): ...


class TestHealth(HealthContract): ...

"""The published contract on the engines without SQL: what meets it, and a reason for what does not."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import CapabilityMissing, ConstraintViolated
from datavern.testing import EmptyDatabase
from datavern.testing.contract import (
    CancellationContract,
    ErrorsContract,
    GuardedContract,
    HealthContract,
    LedgerContract,
    PointReadsContract,
    SessionContract,
    Speech,
    StreamContract,
    SubjectsContract,
    TransactionsContract,
)
from datavern.testing.contract.speech import FEATURES, WORDS
from datavern.testing.contract.subjects import SHAPE, row

NO_SQL = {name: "there is no SQL" for name in FEATURES if name != "pool"}
OF_SQL = (
    SessionContract, StreamContract, TransactionsContract, ErrorsContract, CancellationContract, LedgerContract,
    PointReadsContract, GuardedContract,
)  # fmt: skip


def mongodb(request: pytest.FixtureRequest) -> EmptyDatabase:
    server = request.getfixturevalue("mongodb_server")
    uri = server.uri(f"t{uuid4().hex[:12]}", serverMonitoringMode="poll", heartbeatFrequencyMS=500)
    return EmptyDatabase("mongodb", {"uri": uri})


def redis(request: pytest.FixtureRequest) -> EmptyDatabase:
    server = request.getfixturevalue("valkey_server")
    server.command("FLUSHALL")
    return EmptyDatabase("redis", {"port": server.port})


@pytest.fixture
def sql() -> Speech:
    return Speech("?", dict.fromkeys(WORDS, "?"), lacks=NO_SQL)


@pytest.mark.parametrize("database", [mongodb, redis], indirect=True, ids=["mongodb", "redis"])
class TestHealth(HealthContract):
    pass


@pytest.fixture
def database(request: pytest.FixtureRequest) -> EmptyDatabase:
    """An empty database of the engine."""
    return getattr(request, "param", mongodb)(request)


@pytest.mark.parametrize("database", [mongodb, redis], indirect=True, ids=["mongodb", "redis"])
async def test_each_family_that_is_not_met_has_a_reason(database: EmptyDatabase) -> None:
    provider = database.provider(location="norway")
    for family in OF_SQL:
        assert family.capability is not None
        with pytest.raises(CapabilityMissing) as missing:
            needs(provider, family.capability)
        assert provider.capabilities.reasons[family.capability] in str(missing.value)


class TestSubjectsOfMongoDB(SubjectsContract):
    """A document may have more than its store's columns, and always has its `_id`: that is not held against it."""

    async def test_a_store_that_is_missing_is_made(self, provider: Any) -> None:
        subjects = needs(provider, "subjects")
        assert await subjects.describe("users") is None
        assert await subjects.prepare(SHAPE)
        await subjects.insert("users", [row(1)])
        store = await subjects.describe("users")
        assert {c.name for c in store.columns} == {*row(1), "_id"}
        assert "email_lookup" in store.indexed
        assert {frozenset({"datavern_row"}), frozenset({"id"})} <= set(store.unique)
        assert await subjects.prepare(SHAPE) == []

    async def test_two_that_prepare_at_once_do_not_meet(self, database: EmptyDatabase) -> None:
        """Each may say that it made an index that both asked for."""
        async with database.provider(location="norway") as one, database.provider(location="norway") as other:
            for provider in (one, other, one):
                await needs(provider, "subjects").prepare(SHAPE)
            assert await needs(other, "subjects").prepare(SHAPE) == []

    async def test_rows_come_back_as_they_went_in(self, subjects: Any) -> None:
        await subjects.insert("users", [row(1, name=None)])
        (found,) = await subjects.select("users", {"id": "u1"})
        assert found.pop("_id")
        assert found == row(1, name=None)

    async def test_inserting_is_all_or_none(self, filled: Any) -> None:
        with pytest.raises(ConstraintViolated):
            await filled.insert("users", [row(20), row(21), row(3)])
        await filled.insert("users", [])
        assert len(await filled.select("users", {})) == 10

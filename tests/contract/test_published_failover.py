"""The published contract behind a failover group: on PostgreSQL with a streaming replica, and on two SQLite files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from datavern import FailoverGroup
from datavern.testing import EmptyDatabase, create_test_database
from datavern.testing.contract import (
    CancellationContract,
    ErrorsContract,
    HealthContract,
    LedgerContract,
    SessionContract,
    StreamContract,
    SubjectsContract,
    TransactionsContract,
)
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import PostgreSQLReplica

pytestmark = pytest.mark.not_on("azuresql", "its secondary is a replica on a second server")


@dataclass(frozen=True)
class Behind(EmptyDatabase):
    """A database and its copy, whose provider is a group of both."""

    copy: EmptyDatabase | None = None

    def provider(self, name: str = "main", **settings: Any) -> Any:
        """A group, its primary named as it is."""
        assert self.copy is not None
        primary = super().provider(name, **settings)
        return FailoverGroup(name, primary=primary, secondaries=[self.copy.provider("standby", **settings)])


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgreSQLServer, PostgreSQLReplica]]:
    """A primary and its streaming replica."""
    with PostgreSQLServer() as primary, PostgreSQLReplica(primary) as replica:
        yield primary, replica


@pytest.fixture
async def postgresql_database(servers: tuple[PostgreSQLServer, PostgreSQLReplica]) -> AsyncIterator[EmptyDatabase]:
    """An empty database of the pair."""
    primary, replica = servers
    async with create_test_database("postgresql", server=primary) as database:
        name = database.settings["url"].rpartition("/")[2]
        copy = EmptyDatabase("postgresql", {"url": replica.url_of(name)})
        yield Behind("postgresql", database.settings, copy)


@pytest.fixture
async def sqlite_database() -> AsyncIterator[EmptyDatabase]:
    """Two files."""
    async with create_test_database("sqlite") as database, create_test_database("sqlite") as copy:
        yield Behind("sqlite", database.settings, copy)


class TestSession(SessionContract):
    pass


class TestStream(StreamContract):
    pass


class TestTransactions(TransactionsContract):
    pass


class TestErrors(ErrorsContract):
    pass


class TestCancellation(CancellationContract):
    pass


class TestSubjects(SubjectsContract):
    pass


class TestLedger(LedgerContract):
    pass


class TestHealth(HealthContract):
    @pytest.fixture(autouse=True)
    def short_patience(self, monkeypatch):
        """Closing gives borrowers some seconds to come back; here none will."""
        monkeypatch.setattr("datavern.connectors.pool.RETURN_DEADLINE", 0.2)

    async def test_a_group_offers_all_of_it(self, provider):
        for name in ("session", "transactions", "subjects", "ledger", "point_reads", "guarded"):
            assert getattr(provider.capabilities, name) is not None
        assert provider.encrypted

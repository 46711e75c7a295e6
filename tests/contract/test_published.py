"""The contract as it is published for providers of others (`datavern.testing.contract`), on each engine of ours."""

from __future__ import annotations

import pytest

from datavern.testing.contract import (
    CancellationContract,
    ErrorsContract,
    GuardedContract,
    HealthContract,
    LedgerContract,
    PointReadsContract,
    SessionContract,
    StreamContract,
    SubjectsContract,
    TransactionsContract,
)


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


class TestPointReads(PointReadsContract):
    pass


class TestGuarded(GuardedContract):
    pass


class TestHealth(HealthContract):
    @pytest.fixture(autouse=True)
    def short_patience(self, monkeypatch):
        """Closing gives borrowers some seconds to come back; here none will."""
        monkeypatch.setattr("datavern.connectors.pool.RETURN_DEADLINE", 0.2)

    async def test_our_engines_offer_all_of_it(self, provider, sql):
        for name in ("session", "transactions", "subjects", "ledger", "point_reads", "guarded"):
            assert getattr(provider.capabilities, name) is not None or provider.capabilities.reasons[name]
        assert provider.encrypted
        assert not sql.lacks or provider.engine == "azuresql"

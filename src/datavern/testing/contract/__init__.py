"""What every engine must hold to, as tests: run them on an engine of your own.

A test module of a provider gives two fixtures, and takes the families that it wants to be held to (all of them, as a
rule: what the engine says that it lacks is reported as *not offered*, with the engine's own reason):

    @pytest.fixture
    def database(tmp_path):
        return EmptyDatabase("new-database", {"folder": str(tmp_path)})     # settings as in a datavern.toml

    @pytest.fixture
    def sql():
        return Speech("?", words={"text": "TEXT", …})

    class TestSession(SessionContract): ...
    class TestTransactions(TransactionsContract): ...

``docs/new-provider.md`` goes through it step by step. The tests are asyncio's; they need pytest and pytest-asyncio,
in any mode.
"""

from __future__ import annotations

from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.cancellation import CancellationContract
from datavern.testing.contract.errors import ErrorsContract
from datavern.testing.contract.guarded import GuardedContract
from datavern.testing.contract.health import HealthContract
from datavern.testing.contract.ledger import LedgerContract
from datavern.testing.contract.point_reads import PointReadsContract
from datavern.testing.contract.session import SessionContract
from datavern.testing.contract.speech import FEATURES, Speech
from datavern.testing.contract.streams import StreamContract
from datavern.testing.contract.subjects import SubjectsContract
from datavern.testing.contract.transactions import TransactionsContract

__all__ = [
    "FEATURES",
    "CancellationContract",
    "Contract",
    "ErrorsContract",
    "GuardedContract",
    "HealthContract",
    "LedgerContract",
    "PointReadsContract",
    "SessionContract",
    "Speech",
    "StreamContract",
    "SubjectsContract",
    "TransactionsContract",
    "asks",
]

"""Statements and transactions: what an engine that speaks SQL offers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

from datavern.contracts.values import Parameters, Row

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider
    from datavern.contracts.fused import Entry

__all__ = ["Isolation", "Session", "Transaction", "Transactions"]

T = TypeVar("T")
Isolation = Literal["read committed", "repeatable read", "snapshot", "serializable"]


class Session(Protocol):
    """Statements, one by one: on a provider each in a transaction of its own, on a transaction all in that one.

    SQL and placeholders are the engine's own and pass through untouched.
    Every method raises `ProviderError`: `QueryRejected` (with `position` where the engine tells it),
    `ConstraintViolated`, `SerializationConflict`, `ConnectionFailed`, `PoolTimeout`, `OutcomeUnknown`.
    """

    @property
    def provider(self) -> Provider:
        """The provider that this session speaks through."""
        ...

    async def query(self, sql: str, parameters: Parameters = ()) -> Sequence[Row]:
        """All rows of a statement; an empty sequence when there are none."""
        ...

    async def query_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None."""
        ...

    async def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        ...

    async def execute(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        audit: Entry | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Run a statement; how many rows it inserted, updated or deleted (0 for anything else).

        Args:
            sql: one statement, or several where the engine takes them without parameters.
            parameters: in the engine's own order or names.
            audit: an entry of ``db.audit.entry(…)``, written with the change: both happen, or neither. One statement
                where the engine can put both into one, else a transaction of two.
            idempotency_key: names this change: a later call with the same key changes nothing, writes no entry and
                gives the first call's count. Of several calls at once one makes the change.

        Raises:
            ConfigurationError: the audit entry is not one for this database, or the key may not be one.
        """
        ...

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        """Run a statement once for each set of parameters, all or none of them; how many sets were run."""
        ...

    def stream(
        self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000
    ) -> AbstractAsyncContextManager[AsyncIterator[Row]]:
        """Rows in constant memory, `batch_size` of them fetched at a time. Leaving early gives the connection back."""
        ...


class Transaction(Session, Protocol):
    """An open transaction: commits when its block ends, rolls back when an exception leaves it."""

    def savepoint(self) -> AbstractAsyncContextManager[Self]:
        """A nested block that can fail on its own: rolled back when an exception leaves it."""
        ...


class Transactions(Protocol):
    """Transactions with isolation."""

    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False
    ) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction; the engine's own default isolation when None.

        Raises:
            OutcomeUnknown: the commit was sent and no answer came.
        """
        ...

    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        attempts: int = 5,
    ) -> T:
        """Run ``work(tx)`` in a transaction, again from the start while an error says that it may be (`retry`)."""
        ...

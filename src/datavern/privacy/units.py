"""A unit of work: the caller's open transaction, or one of the call's own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider, Transaction

__all__ = ["within"]


class _Joined:
    """An open transaction of the caller's, as the block of a call that takes part in it: it neither begins nor ends."""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def __aenter__(self) -> Transaction:
        return self._transaction

    async def __aexit__(self, *exc: object) -> None:
        return None


def within(provider: Provider, transaction: Transaction | None) -> AbstractAsyncContextManager[Transaction]:
    """The caller's transaction when there is one, or a new one of `provider`.

    Raises:
        ConfigurationError: the transaction is another database's, so that the work could not be one unit.
    """
    if transaction is None:
        return needs(provider, "transactions").transaction()
    if transaction.provider is not provider:
        raise ConfigurationError(f"the transaction is not one of {provider.name}: the work could not be one unit")
    return _Joined(transaction)

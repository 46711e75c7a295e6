"""From a table that SQLAlchemy knows to the dataset that the data map knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider

__all__ = ["store_of"]


def store_of(provider: Provider, table: str, *, required: bool = True) -> Any:
    """The `PersonalStore` of the dataset whose table this is; None where there is none and none is required.

    Raises:
        ConfigurationError: none, and one is required.
    """
    services: Any = getattr(provider, "_services", None)
    store = None if services is None else services.store_of(provider, table)
    if store is None and required:
        raise ConfigurationError(
            f"{table}: a table with sealed columns is a dataset of the data map, and its provider is in a "
            "DatabaseManager with a keyring"
        )
    return store

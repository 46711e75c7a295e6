"""The services of a provider that belongs to no manager: a manager around it alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import Provider
from datavern.contracts.errors import ConfigurationError
from datavern.crypto.keyring import Keyring
from datavern.manager.loading import provider_class
from datavern.manager.manager import DatabaseManager

if TYPE_CHECKING:
    from datavern.privacy.service import Privacy

__all__ = ["serve"]


async def serve(provider: Provider, keyring: str) -> Privacy:
    """The services of a provider that is open already.

    One that cannot hold Datavern's own tables gets a key store beside its key ring, in a SQLite file.

    Raises:
        ConfigurationError: the key ring lies in no folder, so there is no place beside it.
    """
    if provider.capabilities.ledger is not None:
        manager = DatabaseManager({provider.name: provider}, keyring=keyring)
        await manager._open_services()  # noqa: SLF001  (a manager that opens nothing else)
        return manager.services
    beside = _key_store_beside(keyring, provider)
    name = beside.name
    manager = DatabaseManager({provider.name: provider, name: beside}, keyring=keyring, ledger=name)
    ring = Keyring.from_url(keyring)
    await ring.open()  # no file is made beside a ring that is not there
    await ring.close()
    try:
        await beside.connect()
        await manager._open_services()  # noqa: SLF001  (a manager that opens nothing else)
    except BaseException:
        await beside.close()
        raise
    manager.services.beside = beside
    return manager.services


def _key_store_beside(keyring: str, provider: Provider) -> Provider:
    """The database for the keys of a provider that is used alone and cannot hold them. Nothing is opened."""
    scheme, _, where = keyring.partition(":")
    if scheme != "file":
        raise ConfigurationError(
            f"{provider.name}: keyring={scheme}: has no folder, and the keys of people and data need a key store: put "
            "the provider in a DatabaseManager with a relational database, which is its ledger"
        )
    ring = Path(where).absolute()
    settings = {"path": str(ring.with_name(f"{ring.name}-store.db")), "location": provider.location}
    kind: Any = provider_class("sqlite")
    return kind.from_settings(f"{provider.name}-keys", settings)  # type: ignore[no-any-return]  # a provider

"""What the engine needs of the key store, which belongs to a manager, or to the provider's own key ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from datavern.contracts.errors import ConfigurationError, ResidencyViolation
from datavern.contracts.services import Admits, Alone
from datavern.contracts.values import Classification, Location

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider, Services
    from datavern.contracts.services import Gate
    from datavern.crypto.keystore import KeyStore

__all__ = ["SEALED", "TAG_PATHS", "Keys", "NamesSubjects", "check_residency", "graded"]

SEALED = frozenset({Classification.CONFIDENTIAL, Classification.SECRET})
"""The classifications whose bodies are sealed."""

DOCUMENT_TAG = "_metadata.subject"
FILE_TAG = "metadata.subject"
TAG_PATHS = frozenset({DOCUMENT_TAG, FILE_TAG})
"""Where the keyed tag of a subject stands in documents and in files: what a dataset of them names as its `subject`."""

_WHERE: Mapping[Classification, frozenset[Location]] = {
    Classification.OPEN: frozenset(Location),
    Classification.RESTRICTED: frozenset({Location.NORWAY, Location.EU}),
    Classification.CONFIDENTIAL: frozenset({Location.NORWAY}),
    Classification.SECRET: frozenset({Location.NORWAY}),
}
"""Where each classification may live (DESIGN: the same rule as the data map's, for documents that are in no map)."""

_GRADES: Mapping[Any, Classification] = {
    **{grade: grade for grade in Classification},
    **{grade.value: grade for grade in Classification},
}


def graded(value: Classification | str) -> Classification:
    """The classification of that name.

    Raises:
        ConfigurationError: there is none.
    """
    found = _GRADES.get(value)
    if found is None:
        known = ", ".join(Classification)
        raise ConfigurationError(f"no classification of that name: expected one of {known}")
    return found


def check_residency(grade: Classification, location: Location) -> None:
    """Return when data of that classification may be there.

    Raises:
        ResidencyViolation: it may not.
    """
    if location not in _WHERE[grade]:
        raise ResidencyViolation(f"Data classified as {grade.value} cannot be stored in {location.value}")


@runtime_checkable
class NamesSubjects(Protocol):
    """Services that know the data map: which path of a store says whose a document is."""

    def subject_path(self, provider: Provider, store: str) -> str | None:
        """The dataset's `subject` over that store of the provider; None where no dataset lies over it."""
        ...


class Keys:
    """The key store behind a provider: its manager's, or that of its own key ring.

    Args:
        provider: the provider.
        keyring: URL of its own key ring, or None.
    """

    __slots__ = ("_alone", "_provider", "gate", "store")

    def __init__(self, provider: Provider, keyring: str | None) -> None:
        self._provider = provider
        self._alone = Alone(provider, keyring)
        self.store: KeyStore | None = None
        self.gate: Gate | None = None

    def attach(self, services: Services) -> None:
        """The manager's services: they come before a key ring of one's own."""
        self._alone.attach(services)
        self.store = services.keys
        self.gate = services.gate(self._provider) if isinstance(services, Admits) else None

    @property
    def reachable(self) -> bool:
        """Whether there is a manager, or a key ring, that gives keys."""
        return self._alone.reachable

    async def services(self, call: str) -> Services:
        """The services behind the provider. Raises `ConfigurationError`: nobody gives any."""
        return await self._alone.ready(call)

    async def ready(self, call: str) -> KeyStore:
        """The key store.

        Raises:
            ConfigurationError: nobody gives one.
        """
        if self.store is None:
            store: KeyStore = (await self._alone.ready(call)).keys
            self.store = store
        return self.store

    async def close(self) -> None:
        """Close the key store that the provider opened for itself alone. Idempotent."""
        if self._alone.own:
            self.store = self.gate = None
        await self._alone.close()

    def subject_path(self, store: str) -> str | None:
        """Which path says whose a document of that store is, where a data map says so."""
        services = self._alone.services
        return services.subject_path(self._provider, store) if isinstance(services, NamesSubjects) else None

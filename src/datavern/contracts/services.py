"""The one place where what is below asks for what is above, turned round: the package says who answers.

A provider used alone (``PostgreSQLProvider(…, keyring="file:keys")``) offers calls that belong to the features. It does
not import them: `datavern` itself sets `standalone`, and the provider asks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider, Services

__all__ = ["Admits", "Alone", "Gate", "serve_alone", "standalone"]

standalone: Callable[[Provider, str], Awaitable[Services]] | None = None
"""Makes the services of a provider that belongs to no manager, from the provider and its keyring's URL."""


async def serve_alone(provider: Provider, keyring: str | None, call: str) -> Services:
    """The services for a provider that no manager attached to.

    Raises:
        ConfigurationError: the provider has no keyring of its own.
    """
    if keyring is None or standalone is None:
        raise ConfigurationError(
            f"{provider.name}: {call} needs keys: put the provider in a DatabaseManager, or give it keyring="
        )
    return await standalone(provider, keyring)


class Gate(Protocol):
    """What an engine asks before a call of its own uses somebody's data."""

    def due(self) -> bool:
        """Whether anything is to be asked now: no I/O, and nearly always no."""
        ...

    async def admit(
        self,
        store: str,
        *,
        rows: Sequence[Mapping[str, Any]] = (),
        tags: Iterable[bytes] = (),
        writing: bool,
    ) -> None:
        """Let a use through, or refuse it.

        Args:
            store: the collection or key pattern, as the data map names it, or another one.
            rows: what is used, as the data map's dataset would read it.
            tags: the keyed tags of people who are known beside.
            writing: whether it is a write.

        Raises:
            ProcessingRestricted: a restriction or an objection stands against it.
            ConsentRequired: reads of the dataset need a consent, and none stands.
        """
        ...

    async def hidden(
        self, store: str, rows: Sequence[Sequence[Mapping[str, Any]]], tags: Sequence[Sequence[bytes]]
    ) -> set[int]:
        """The numbers of those things that a read found which are not to be handed out; each with its rows and tags."""
        ...


@runtime_checkable
class Admits(Protocol):
    """Services that know what stands against the use of people's data."""

    def gate(self, provider: Provider) -> Gate:
        """The gate for that provider's own calls."""
        ...


class Alone:
    """The services of a provider, where it may have to get them for itself.

    Args:
        provider: the provider.
        keyring: URL of its own key ring, or None.
    """

    __slots__ = ("_given", "_keyring", "_lock", "_own", "_provider")

    def __init__(self, provider: Provider, keyring: str | None) -> None:
        self._provider = provider
        self._keyring = keyring
        self._given: Services | None = None
        self._own: Services | None = None
        self._lock = asyncio.Lock()

    @property
    def services(self) -> Services | None:
        """The manager's, or the provider's own, as far as there are any yet."""
        return self._own if self._given is None else self._given

    @property
    def reachable(self) -> bool:
        """Whether there is a manager, or a key ring, that gives keys."""
        return self.services is not None or self._keyring is not None

    @property
    def own(self) -> bool:
        """Whether the provider got them for itself."""
        return self._own is not None

    def attach(self, services: Services) -> None:
        """The manager's services: they come before a key ring of one's own."""
        self._given = services

    async def ready(self, call: str) -> Services:
        """The services, made where there are none yet.

        Raises:
            ConfigurationError: nobody gives them.
        """
        found = self.services
        if found is None:
            async with self._lock:
                found = self.services
                if found is None:
                    found = await serve_alone(self._provider, self._keyring, call)
                    self._given, self._own = None, found  # making them attached them as a manager's would be
        return found

    async def close(self) -> None:
        """Close those that the provider got for itself. Idempotent."""
        own, self._own = self._own, None
        if own is not None:
            await own.close()

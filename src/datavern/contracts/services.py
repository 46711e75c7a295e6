"""The one place where what is below asks for what is above, turned round: the package says who answers.

A provider used alone (``PostgreSQLProvider(…, keyring="file:keys")``) offers calls that belong to the features. It does
not import them: `datavern` itself sets `standalone`, and the provider asks it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider, Services

__all__ = ["serve_alone", "standalone"]

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

"""What the families of contract tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from typing import Any, ClassVar, Final, TypeVar

import pytest
import pytest_asyncio

from datavern.contracts.capabilities import Capabilities
from datavern.testing.contract.speech import FEATURES, Speech
from datavern.testing.databases import EmptyDatabase

__all__ = ["NOT_OFFERED", "Contract", "asks"]

NOT_OFFERED: Final = "not offered: "
"""How the reason of a test begins that was not run because the engine says that it lacks what the test is about."""

_ASKS: Final = "__datavern_asks__"
_CAPABILITIES: Final = frozenset(f.name for f in fields(Capabilities)) - {"reasons"}

F = TypeVar("F", bound=Callable[..., Any])


def asks(*names: str) -> Callable[[F], F]:
    """Keep a test for engines that have all of these: capabilities (``"transactions"``), or features of a language.

    Raises:
        ValueError: there is none of that name.
    """
    unknown = [name for name in names if name not in _CAPABILITIES and name not in FEATURES]
    if unknown:
        raise ValueError(f"no capability and no feature is named {unknown[0]}")

    def decorate(test: F) -> F:
        setattr(test, _ASKS, names)
        return test

    return decorate


class Contract:
    """The ground of every family: a connected provider of an empty database, and what a test asks of it.

    Whoever runs it gives the fixtures `database` (an `EmptyDatabase`: an engine that is registered, and the settings of
    a database in which nothing is yet) and `sql` (a `Speech`).
    """

    capability: ClassVar[str | None] = None
    """What the whole family is about."""

    pytestmark = pytest.mark.asyncio(loop_scope="function")

    @pytest_asyncio.fixture(loop_scope="function")
    async def provider(self, database: EmptyDatabase) -> AsyncIterator[Any]:
        """A connected provider of the empty database."""
        async with database.provider(location="norway") as provider:
            yield provider

    @pytest_asyncio.fixture(autouse=True, loop_scope="function")
    async def offered(self, request: pytest.FixtureRequest, provider: Any, sql: Speech) -> None:
        """Report a test as not offered where the engine, or its language, lacks what the test asks for."""
        asked = getattr(request.function, _ASKS, ())
        for name in (*((self.capability,) if self.capability else ()), *asked):
            if name in _CAPABILITIES:
                lacking(provider, name)
            elif not sql.has(name):
                pytest.skip(f"{NOT_OFFERED}{provider.engine} has no {name}: {sql.lacks[name]}")


def lacking(provider: Any, capability: str) -> None:
    """Nothing where the provider has it; not offered where it says why not; a failure where it does not say."""
    if getattr(provider.capabilities, capability) is not None:
        return
    reason = provider.capabilities.reasons.get(capability)
    if not reason:
        pytest.fail(f"{provider.engine} has no {capability}, and capabilities.reasons does not say why")
    pytest.skip(f"{NOT_OFFERED}{provider.engine} has no {capability}: {reason}")

"""Running a transaction again while its error says that it may be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from datavern.contracts.errors import ConfigurationError, PoolTimeout, ProviderError

__all__ = ["backoff", "run_in_transaction"]

T = TypeVar("T")


def backoff(attempt: int, *, base: float = 0.01, longest: float = 1.0) -> float:
    """Seconds to wait after a failed attempt: full jitter, so that those who collided do not meet again.

    Args:
        attempt: 1 after the first failure.
        base: the first wait is up to this long; each later one up to twice the one before.
        longest: no wait is longer.
    """
    return random.uniform(0.0, min(longest, base * 2.0 ** (attempt - 1)))  # noqa: S311  (spreads load, hides nothing)


async def run_in_transaction(
    begin: Callable[[], AbstractAsyncContextManager[Any]], work: Callable[[Any], Awaitable[T]], *, attempts: int
) -> T:
    """Run ``work(tx)`` in a transaction of ``begin()``, again from the start while an error's `retry` allows it.

    `PoolTimeout` is not retried: its caller has waited as long as the pool was told to. The last error is raised as it
    came. A commit without an answer (`OutcomeUnknown`) is never retried: it may have happened.

    Raises:
        ConfigurationError: `attempts` is less than 1.
    """
    if attempts < 1:
        raise ConfigurationError(f"run_in_transaction: attempts is {attempts}: expected at least 1")
    attempt = 1
    while True:
        try:
            async with begin() as tx:
                return await work(tx)
        except ProviderError as error:
            if attempt >= attempts or error.retry == "never" or isinstance(error, PoolTimeout):
                raise
        await asyncio.sleep(backoff(attempt))
        attempt += 1

"""Trying again: when, how often, and when no more.

What may be tried again is decided by an error's `retry` alone. How much of it there may be is decided here: waits with
full jitter, a `Budget` that keeps retries a small part of what a server is asked, a `Breaker` that leaves a member
alone while it fails. Nothing here outlives its caller: whoever is cancelled, by ``asyncio.timeout`` for one, is done.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import Any, Generic, TypeVar, overload

from datavern.contracts.errors import (
    CapabilityMissing,
    ConfigurationError,
    OutcomeUnknown,
    ProviderError,
    SerializationConflict,
)

__all__ = ["Breaker", "Budget", "backoff", "run_in_transaction"]

T = TypeVar("T")


def backoff(attempt: int, *, base: float = 0.01, longest: float = 1.0) -> float:
    """Seconds to wait after a failed attempt: full jitter, so that those who collided do not meet again.

    Args:
        attempt: 1 after the first failure.
        base: the first wait is up to this long; each later one up to twice the one before.
        longest: no wait is longer.
    """
    most = min(longest, base * 2.0 ** min(attempt - 1, 64))  # beyond that a float ends
    return random.uniform(0.0, most)  # noqa: S311  (spreads load, hides nothing)


class Budget:
    """How many retries there may be: a token bucket that what is asked for the first time fills.

    When a server fails everybody, everybody's retries would be a multiple of its usual load, just when it can bear the
    least. With a budget they are `share` of it, and a few a second beside where there is little load.

    Args:
        share: tokens that each first attempt brings.
        reserve: tokens that the bucket holds at the most, and at the beginning.
        rate: tokens that come by themselves, each second.

    Raises:
        ConfigurationError: a number below 0.
    """

    __slots__ = ("_rate", "_reserve", "_share", "_since", "_tokens")

    def __init__(self, *, share: float = 0.2, reserve: float = 100.0, rate: float = 10.0) -> None:
        if not (share >= 0 and reserve >= 0 and rate >= 0):
            raise ConfigurationError("a retry budget: expected share, reserve and rate to be 0 or more")
        self._share = share
        self._reserve = reserve
        self._rate = rate
        self._tokens = reserve
        self._since = monotonic()

    def earn(self) -> None:
        """Something is asked for the first time."""
        self._tokens = min(self._reserve, self._tokens + self._share)

    def spend(self) -> bool:
        """Whether there may be a retry: it is paid for then."""
        now = monotonic()
        self._tokens = min(self._reserve, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    @property
    def left(self) -> float:
        """Retries that there may be now, without what has come by itself since the last one."""
        return self._tokens


class Breaker:
    """Leaves somebody alone who failed too often in a row, and then lets one try at a time until it works again.

    Nobody has to give a try back: one that was cancelled is followed by the next when it is due.

    Args:
        failures: so many in a row open it.
        rest: seconds until the first try; doubled with each that fails, with jitter.
        longest: no rest is longer.

    Raises:
        ConfigurationError: `failures` is less than 1, or a rest is not longer than 0.
    """

    __slots__ = ("_longest", "_most", "_rest", "_until", "failures")

    def __init__(self, *, failures: int = 5, rest: float = 0.5, longest: float = 30.0) -> None:
        if failures < 1:
            raise ConfigurationError(f"a breaker: failures is {failures}: expected at least 1")
        if not 0 < rest <= longest:
            raise ConfigurationError("a breaker: expected a rest of more than 0 seconds, and none beyond the longest")
        self._most = failures
        self._rest = rest
        self._longest = longest
        self._until = 0.0
        self.failures = 0
        """In a row, until now."""

    @property
    def is_open(self) -> bool:
        """Whether somebody is left alone at present, tries apart."""
        return self.failures >= self._most

    def allows(self) -> bool:
        """Whether a call may be made. While it is open, a True is a try: the next comes a rest later."""
        if self.failures < self._most:
            return True
        now = monotonic()
        if now < self._until:
            return False
        self._until = now + self._length()
        return True

    def succeeded(self) -> None:
        """A call was answered, if only with an error of its own making: a constraint, a syntax error."""
        self.failures = 0

    def failed(self) -> None:
        """A call was not answered, or could not be made."""
        self.failures += 1
        if self.failures >= self._most:
            self._until = monotonic() + self._length()

    def _length(self) -> float:
        beyond = min(self.failures - self._most, 64)
        longest = min(self._longest, self._rest * 2.0**beyond)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  (spreads load, hides nothing)


@overload
async def run_in_transaction(
    begin: Callable[[], AbstractAsyncContextManager[Any]],
    work: Callable[[Any], Awaitable[T]],
    *,
    attempts: int,
    idempotency_key: None = None,
    budget: Budget | None = None,
    patience: float = float("inf"),
) -> T: ...
@overload
async def run_in_transaction(
    begin: Callable[[], AbstractAsyncContextManager[Any]],
    work: Callable[[Any], Awaitable[T]],
    *,
    attempts: int,
    idempotency_key: str | None,
    budget: Budget | None = None,
    patience: float = float("inf"),
) -> T | None: ...
async def run_in_transaction(
    begin: Callable[[], AbstractAsyncContextManager[Any]],
    work: Callable[[Any], Awaitable[T]],
    *,
    attempts: int,
    idempotency_key: str | None = None,
    budget: Budget | None = None,
    patience: float = float("inf"),
) -> T | None:
    """Run ``work(tx)`` in a transaction of ``begin()``, again from the start while an error's `retry` allows it.

    The last error is raised as it came. A commit without an answer (`OutcomeUnknown`) may have happened: it is not
    retried, unless there is a key. The key is written in the same transaction, so the next attempt finds it where the
    commit did happen, waits while that is being decided, and begins again where it did not.

    Args:
        begin: makes a transaction.
        work: what is to be done in it; may be called several times.
        attempts: transactions to begin, at the most.
        idempotency_key: names what is done: it is done once, however often it is asked for.
        budget: pays for the retries; conflicts are not charged to it, since who has them has a server that works.
        patience: seconds that all attempts together may wait for a transaction to begin: where a caller has waited for
            a connection as long as the pool was told to, it is not asked to wait as long again.

    Returns:
        What `work` gave; None where an earlier call with the key has done it.

    Raises:
        ConfigurationError: `attempts` is no whole number, or less than 1.
        CapabilityMissing: a key was given, and the engine's transactions cannot hold one.
    """
    if not isinstance(attempts, int) or attempts < 1:
        given = attempts if isinstance(attempts, int) else f"a {type(attempts).__name__}"
        raise ConfigurationError(f"run_in_transaction: attempts is {given}: expected a whole number, at least 1")
    if budget is not None:
        budget.earn()
    run = _Run(begin, work, idempotency_key)
    attempt = 1
    while not await run.attempt():
        assert run.failure is not None  # noqa: S101  (for the type checker: else it were done)
        if not run.again or attempt >= attempts or run.waited >= patience or not _paid(budget, run.failure):
            raise run.unknown or run.failure
        await asyncio.sleep(backoff(attempt))
        attempt += 1
    return run.result


class _Run(Generic[T]):
    """Some work that is attempted until it is done.

    Attributes:
        result: what the last attempt gave.
        failure: what the last attempt raised.
        again: whether another attempt may be made.
        unknown: a commit of an earlier attempt that gave no answer, as long as nobody could tell what became of it.
        waited: seconds that all attempts have waited for a transaction to begin.
    """

    def __init__(
        self,
        begin: Callable[[], AbstractAsyncContextManager[Any]],
        work: Callable[[Any], Awaitable[T]],
        key: str | None,
    ) -> None:
        self._begin = begin
        self._work = work
        self._key = key
        self._mark = random.getrandbits(62)  # tells calls with one key apart, and hides nothing
        self._known = False
        self.result: T | None = None
        self.failure: ProviderError | None = None
        self.again = False
        self.unknown: OutcomeUnknown | None = None
        self.waited = 0.0

    async def attempt(self) -> bool:
        """One transaction. Whether the work is done, by it or before."""
        asked, begun, finished = monotonic(), None, False
        self.failure = None
        try:
            async with self._begin() as tx:
                begun = monotonic()
                if self._key is None or await self._claimed(tx, self._key):
                    working = self._work(tx)
                    if not hasattr(working, "__await__"):  # what it did is rolled back
                        raise ConfigurationError("run_in_transaction: work is not async: expected async def work(tx)")
                    self.result = await working
                finished = True
        except ProviderError as error:
            self.failure = error
        self.waited += (begun or monotonic()) - asked
        if self.failure is None or self._known:  # known: this one changed nothing, whatever became of it
            return True
        self.again = self.failure.retry != "never"
        if isinstance(self.failure, OutcomeUnknown) and self._key is not None:
            if finished:
                self.unknown, self.again = self.failure, True
            elif begun is None:  # it was the table of the keys that was made, or not
                self.again = True
        return False

    async def _claimed(self, tx: Any, key: str) -> bool:
        """Write the key; False where it is there. A transaction's ``claim(key, mark)`` does it."""
        claim = getattr(tx, "claim", None)
        if claim is None:
            name = getattr(getattr(tx, "provider", None), "name", "this engine")  # a driver's own session has none
            raise CapabilityMissing("idempotency keys", name, "its transactions cannot hold one")
        found: int | None = await claim(key, self._mark)
        if found is None:
            self.unknown = None  # a commit that gave no answer did not happen
            return True
        self._known = True
        if found != self._mark:
            self.result = None
        return False


def _paid(budget: Budget | None, failure: ProviderError) -> bool:
    return budget is None or isinstance(failure, SerializationConflict) or budget.spend()

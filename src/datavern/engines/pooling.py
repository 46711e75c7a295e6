"""What engines share whose connections are Datavern's own pool: how a provider is opened, closed, well and retried.

A provider of such an engine is this and its statements. What differs is in a few methods: how it connects, how it asks
how the server is. Nothing here is on the way of a statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from datavern.connectors.retry import Budget, run_in_transaction
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError, PoolTimeout
from datavern.contracts.fused import checked_key
from datavern.contracts.values import Health, PoolStats
from datavern.engines.ground import RelationalGround

if TYPE_CHECKING:
    from datavern.connectors.pool import Slot

__all__ = ["NotOpen", "PooledProvider"]

T = TypeVar("T")

_HEALTH_DEADLINE = 5.0


class PooledProvider(RelationalGround):
    """A provider of such an engine."""

    needed = ("database", "its name, or a url that ends in it")

    _pool: Any

    # ---- what an engine fills in ------------------------------------------------------------------------------------

    async def _ask(self) -> Health:
        """How the server says that it is. It is asked twice: the first answer's time is the connection's."""
        raise NotImplementedError

    # ---- how it is made ---------------------------------------------------------------------------------------------

    def _begin_with(self, values: dict[str, Any], *, path: str) -> None:
        super()._begin_with(values, path=path)
        self._connecting = asyncio.Lock()
        self._budget = Budget(reserve=max(100.0, 10.0 * self.settings.pool.max))
        self._pool = NotOpen(self.name)

    # ---- what it is -------------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool, at this moment."""
        return self._pool.stats()  # type: ignore[no-any-return]  # PoolStats

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close every connection. Idempotent; never waits for a server that does not answer."""
        pool = self._pool  # it stays in place until it is closed: borrowers give back to it meanwhile
        try:
            await pool.close()
        finally:
            if self._pool is pool:
                self._pool = NotOpen(self.name)

    def suspend(self) -> None:
        """Give no statement a connection until `resume`: calls wait, for `pool.acquire` at the most. Idempotent.

        What has a connection goes on: an open transaction, a stream. With `drain` it is how a server is changed under a
        program that runs on.

        Raises:
            ConnectionFailed: the provider is not open.
        """
        self._open_pool().suspend()

    def resume(self) -> None:
        """Go on after `suspend`. Idempotent."""
        self._open_pool().resume()

    async def drain(self, within: float = 30.0) -> bool:
        """Replace every connection that is open now: the idle ones at once, those in use as they come back.

        Args:
            within: seconds to wait for those in use.

        Returns:
            Whether all of them are gone. False: some are in use still; they go when they come back.

        Raises:
            ConnectionFailed: the provider is not open.
        """
        return bool(await self._open_pool().drain(within))

    async def warm_up(self, connections: int | None = None) -> int:
        """Make connections before they are needed; how many are open then.

        Args:
            connections: how many; None: `pool.max`, which is the most.

        Raises:
            ConnectionFailed: one could not be made, or the provider is not open.
        """
        most = self.settings.pool.max
        return int(await self._open_pool().warm_up(most if connections is None else connections))

    def _open_pool(self) -> Any:
        pool = self._pool
        if isinstance(pool, NotOpen):
            pool.take()
        return pool

    # ---- how it is --------------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Ask the server for its role and version; the pool's state is in the answer."""
        if isinstance(self._pool, NotOpen):
            return Health("unhealthy", detail="not open")
        try:
            async with asyncio.timeout(_HEALTH_DEADLINE):
                self._pool.give(await self._pool.acquire(outage=0.0))  # a server that is away is told at once
                return await self._ask()
        except (DatavernError, TimeoutError) as error:
            return self._unwell(error)

    def _unwell(self, error: Exception) -> Health:
        stats, most = self.stats(), self.settings.pool.max
        if isinstance(error, TimeoutError | PoolTimeout) and stats.in_use >= most:
            return Health("degraded", detail=f"all {most} connections are in use (pool.max)", pool=stats)
        detail = str(error) if isinstance(error, DatavernError) else f"no answer within {_HEALTH_DEADLINE:g} s"
        return Health("unhealthy", detail=detail, pool=stats)

    # ---- transactions -----------------------------------------------------------------------------------------------

    async def _run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        begin: Callable[[], AbstractAsyncContextManager[Any]],
        *,
        read_only: bool,
        attempts: int,
        idempotency_key: str | None,
    ) -> T | None:
        """Run ``work(tx)`` in transactions that `begin` begins, until one of them commits; once for each key."""

        @asynccontextmanager
        async def keyed() -> AsyncIterator[Any]:
            await self._fusing.prepare_keys()
            async with begin() as tx:
                yield tx

        if idempotency_key is not None:
            checked_key(idempotency_key)
            if read_only:
                raise ConfigurationError("idempotency_key: what only reads needs none, and cannot hold one")
        return await run_in_transaction(
            begin if idempotency_key is None else keyed,
            work,
            attempts=attempts,
            idempotency_key=idempotency_key,
            budget=self._budget,
            patience=self.settings.pool.acquire,
        )

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _part(self, slot: Slot[Any], found: Any) -> None:
        """Part with a connection as a `Fault` says."""
        if found.connection == "keep":
            self._pool.give(slot)
        elif found.connection == "renew":
            self._pool.renew(slot)
        else:
            self._pool.discard(slot)


class NotOpen:
    """In the place of the pool while there is none."""

    closed = True

    def __init__(self, name: str) -> None:
        self._name = name

    def take(self) -> NoReturn:
        """There is nothing to take."""
        raise ConnectionFailed(f"{self._name} is not open: use it inside `async with`", provider=self._name)

    def stats(self) -> PoolStats:
        """No connections."""
        return PoolStats()

    async def close(self) -> None:
        """It is."""

    def recover(self, slot: Any) -> None:
        """A borrower that outlived the pool: its connection was aborted with it."""

    give = discard = renew = recover

    severed = False

    def sever(self) -> None:
        """There is nothing to sever, or to hold."""

    hold = sever

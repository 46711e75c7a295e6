"""Making connections, a few at a time, in the background: it is no caller's turn, and no caller takes it down.

Attempts that fail are followed by others: soon and with jitter while somebody waits, seldom while nobody does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from datavern.config import Pool as PoolSettings
from datavern.connectors.retry import backoff
from datavern.connectors.roster import Roster, Slot
from datavern.contracts.errors import ConnectionFailed, twin_of

__all__ = ["Connector", "Staffing"]

C = TypeVar("C")

SHORT_REST = 0.1
"""Seconds between two attempts to connect while somebody waits, at the most."""
LONG_REST = 5.0
"""The same while nobody does."""


class Connector(Protocol[C]):
    """What the pool needs of an engine. Every coroutine here may be cancelled."""

    async def connect(self, lost: Callable[[], None]) -> C:
        """A new connection. Raises a `DatavernError`; leaves nothing behind when it fails or is cancelled.

        Args:
            lost: to be called, from the loop, when the connection breaks.
        """
        ...

    async def close(self, connection: C) -> None:
        """Close it politely. The pool gives it a deadline, and aborts it afterwards."""
        ...

    def abort(self, connection: C) -> None:
        """Close it now, without waiting for anything. Never raises; harmless on a closed one."""
        ...

    async def probe(self, connection: C) -> None:
        """Raise when it does not answer."""
        ...

    async def reset(self, connection: C) -> None:
        """Make its session as new. Raises when that fails.

        An unread answer is read, a statement that still runs is stopped, an open transaction is rolled back; settings,
        locks, temporary tables, cursors and subscriptions are gone.
        """
        ...

    def healthy(self, connection: C) -> bool:
        """Whether it is open, as far as can be told without asking."""
        ...


class Staffing(Roster[C], Generic[C]):
    """A roster that makes the connections that it wants.

    Args:
        connector: makes and ends them.
        settings: bounds and deadlines.
        name: of the provider, for messages.
        alone: nobody above tries again: callers wait through an outage, as the settings say.
    """

    def __init__(self, connector: Connector[C], settings: PoolSettings, *, name: str, alone: bool = True) -> None:
        super().__init__(settings)
        self._connector = connector
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._outage = settings.outage if alone else 0.0
        self._rest: asyncio.TimerHandle | None = None
        self._pace = 0.0  # seconds that connecting takes
        self._attempts: list[asyncio.Future[Exception | None]] = []  # who waits for one to end
        self._warming: list[int] = []
        self._last_failure: ConnectionFailed | None = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _staff(self) -> None:
        """Begin making the connections that are wanted."""
        if self._rest is not None:
            return  # the last attempts failed
        for _ in range(self.wanted()):
            self._spawn(self._connect(self.begin()))

    def _hurry(self) -> None:
        """Somebody waits: a long rest becomes a short one, and none where the next attempt is to decide."""
        if self._rest is None:
            self._staff()
        elif not self.connecting:
            self._rest_for(backoff(1, base=SHORT_REST) if self._outage or self.open else 0.0, sooner=True)

    async def _connect(self, slot: Slot[C]) -> None:
        failure: Exception | None = None
        began = monotonic()
        try:
            slot.connection = await self._connector.connect(partial(self._lost, slot))
        except Exception as error:  # noqa: BLE001  (whatever it is, those who wait must hear of it)
            failure = error
        except BaseException as error:
            task = asyncio.current_task()
            if not isinstance(error, asyncio.CancelledError) or task is None or task.cancelling():
                self.failed(slot)
                raise
            # Something that connecting waits for was cancelled, a probe of the caller's for example, and not this.
            failure = ConnectionFailed(f"{self._name}: what connecting waits for was cancelled", provider=self._name)
        if failure is not None:
            self._not_connected(slot, failure)
        else:
            took = monotonic() - began
            self._pace = took if not self._pace else 0.75 * self._pace + 0.25 * took
            self._last_failure = None
            if self._rest is not None:
                self._rest.cancel()
                self._rest = None
            if not self.made(slot):
                self._connector.abort(slot.connection)
            self._staff()
        self._tell(failure)

    def _tell(self, failure: Exception | None) -> None:
        """An attempt to connect has ended."""
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            if not attempt.done():
                attempt.set_result(failure)

    def _not_connected(self, slot: Slot[C], failure: Exception) -> None:
        if isinstance(failure, ConnectionFailed):
            self._last_failure = failure
        final = not isinstance(failure, ConnectionFailed) or failure.retry == "never"
        for waiter in self.failed(slot, final=final):
            if not waiter.done():
                waiter.set_exception(twin_of(failure))
        if self.closed:
            return
        if not self.waiters:
            self._rest_for(backoff(self.failures, base=SHORT_REST, longest=LONG_REST))
        elif self._outage or self.open or self.connecting:
            self._rest_for(backoff(self.failures, base=SHORT_REST / 4, longest=SHORT_REST))
        else:  # whoever came since gets an attempt of their own
            self._rest_for(0.0)

    def _rest_for(self, seconds: float, *, sooner: bool = False) -> None:
        """Begin no attempt to connect for so long; with `sooner`, for no longer than that."""
        if self._rest is not None:
            if sooner and self._rest.when() <= self._loop.time() + seconds:
                return
            self._rest.cancel()
        self._rest = self._loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._rest = None
        self._staff()

    def _lost(self, slot: Slot[C]) -> None:
        if slot in self.open and self.lost(slot):
            self._connector.abort(slot.connection)
            self._staff()

    async def warm_up(self, connections: int) -> int:
        """Make connections until so many are open, `max` of them at the most; how many are.

        Raises:
            ConnectionFailed: one could not be made, or the pool is closed.
        """
        target = min(connections, self.settings.max)
        self._warming.append(target)
        self.warm = max(self._warming)
        try:
            while len(self.open) < target:
                if self.closed:
                    raise ConnectionFailed(f"{self._name}: the provider is closed", provider=self._name)
                if self.severed:
                    raise self._superseded()
                attempt = self._loop.create_future()
                self._attempts.append(attempt)
                if self._rest is None:
                    self._staff()
                else:
                    self._rest_for(0.0, sooner=True)
                failure = await attempt
                if failure is not None:
                    raise twin_of(failure)
        finally:
            self._warming.remove(target)
            self.warm = max(self._warming, default=0)
        return len(self.open)

    def _superseded(self) -> ConnectionFailed:
        return ConnectionFailed(f"{self._name}: another server is the primary by now", provider=self._name)

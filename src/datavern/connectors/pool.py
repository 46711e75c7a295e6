"""The pool of connections, for engines whose driver has none that is quick and safe enough.

It decides without I/O (`Roster`) and then acts. What it promises:

- Last in, first out: a few connections stay warm, the rest can go.
- A waiter gets whichever comes first, a connection that comes back or a new one. Connecting is nobody's turn: it goes
  on in a task of the pool's own, and a waiter that is cancelled does not take it down.
- A cancelled borrower neither swallows its cancellation nor hands on a connection with an unread answer: the connection
  goes through `recover` in the background, with a deadline, or thrown away.
- No round trip to reset a connection unless its session may have been touched.
- No deadline depends on the server: a connection that does not answer is aborted, never closed politely.
- While no connection can be made, one attempt follows another in short, spread pauses as long as anybody waits.

A borrower takes and gives back like this, without a task, a shield or a context manager::

    slot = pool.take() or await pool.acquire()
    try:
        … slot.connection …
    except BaseException:
        pool.recover(slot)      # or discard(slot)
        raise
    pool.give(slot)
"""

from __future__ import annotations

import asyncio
import traceback
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from datavern.config import Pool as PoolSettings
from datavern.connectors.roster import Roster, Slot, Waiter
from datavern.connectors.staffing import Connector
from datavern.connectors.tending import Tending
from datavern.contracts.errors import ConnectionFailed, PoolTimeout, twin_of

__all__ = ["Connector", "Pool", "Slot"]

C = TypeVar("C")

RETURN_DEADLINE = 5.0
"""Seconds that `close` waits for borrowers before it aborts their connections."""
CLOCK = 0.001
"""Seconds by which a loop's timer may come early, by the coarsest of clocks."""


class Pool(Tending[C], Generic[C]):
    """Connections to one server.

    Args:
        connector: makes and ends them.
        settings: bounds and deadlines.
        name: of the provider, for messages.
        alone: nobody above tries again: callers wait through an outage, as the settings say.
    """

    def __init__(self, connector: Connector[C], settings: PoolSettings, *, name: str, alone: bool = True) -> None:
        super().__init__(connector, settings, name=name, alone=alone)
        self._drains: list[tuple[set[Slot[C]], asyncio.Future[None]]] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._next_expiry = inf
        self._noted = settings.leak_after is not None or settings.reset == "always"
        if self._noted:
            self.take = self._take_noted  # type: ignore[method-assign]  # so that nobody else pays for it

    def start(self) -> None:
        """Begin filling up to `min`, and looking after what is idle."""
        self._staff()
        self._timer = self._loop.call_later(self._period, self._tend)

    # ---- borrowing --------------------------------------------------------------------------------------------------

    async def acquire(self, within: float | None = None, *, outage: float | None = None) -> Slot[C]:
        """A connection, where `take` had none: the next one that is free.

        Args:
            within: seconds to wait, instead of the setting.
            outage: of them, seconds while no connection can be made, instead of the setting.

        Raises:
            PoolTimeout: none came within the deadline, or too many wait already.
            ConnectionFailed: the pool is closed, or there is no connection and none can be made.
        """
        patience = self.settings.acquire if within is None else within
        outage = self._outage if outage is None else outage
        deadline = monotonic() + patience
        while True:
            slot = self._next()
            if slot is not None:
                if not await self._answers(slot, deadline):
                    continue
                self.acquired += 1
            else:
                slot = await self._wait(deadline, patience, outage)
                if slot.generation != self.generation:  # retired between being handed over and now
                    self.discard(slot)
                    continue
            if self._noted:
                self._note(slot)
            return slot

    def give(self, slot: Slot[C]) -> None:
        """A connection comes back, with no answer unread. Sets no task going unless it must be reset or closed."""
        if not slot.touched and slot.generation == self.generation:
            slot.used = now = monotonic()
            if now < slot.expires:
                slot.since = 0.0
                if not self.waiters or not self._handed_over(slot):
                    self.idle.append(slot)
                return
        self._give_slowly(slot)

    def _give_slowly(self, slot: Slot[C]) -> None:
        slot.since = 0.0
        if slot.generation != self.generation or not self._connector.healthy(slot.connection):
            self.discard(slot)
        elif slot.touched:
            self.recover(slot)
        elif not self.put(slot):
            self._dismiss(slot)
            self._staff()

    def renew(self, slot: Slot[C]) -> None:
        """The server of this connection's generation is gone, or is not what it was: let go of all of them at once."""
        gone = self.retire(slot.generation)
        self.discard(slot)
        for other in gone:
            self._connector.abort(other.connection)

    def sever(self) -> None:
        """The server was superseded: nothing goes to it any more, until `mend`.

        Every connection is let go of, those in use, too, whose borrowers' calls end; who waits, and who comes, is told.
        """
        self.hold()
        for slot in [*self.retire(self.generation), *self.open]:
            self._connector.abort(slot.connection)

    def hold(self) -> None:
        """The server may have been superseded: no connection is made, and nobody waits for one, until `mend`.

        Those that are open were made to the server as it was, and go on.
        """
        self.severed = True
        for waiter in self.dismissed():
            if not waiter.done():
                waiter.set_exception(self._superseded())
        self._tell(None)

    def mend(self) -> None:
        """The server takes part again."""
        self.severed = False
        self._staff()

    def _next(self) -> Slot[C] | None:
        return self.idle.pop() if self.idle else None

    async def _wait(self, deadline: float, patience: float, outage: float) -> Slot[C]:
        if self.closed:
            raise ConnectionFailed(f"{self._name}: the provider is closed", provider=self._name)
        if self.severed:
            raise self._superseded()
        waiter: Waiter[C] = self._loop.create_future()
        if not self.join(waiter, outage, deadline=deadline, patience=patience):
            raise PoolTimeout(
                f"{self._name}: {self.settings.max_waiting} callers wait for a connection already (pool.max_waiting)",
                provider=self._name,
            )
        if len(self.open) < self.settings.max:
            self._hurry()
        if deadline < self._next_expiry:
            self._expect(deadline)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give(waiter.result())  # it was handed over in the turn in which we were cancelled
            else:
                self.leave(waiter)
            raise

    def _expect(self, deadline: float) -> None:
        """One timer for all who wait, for the first deadline: a timer for each costs as much as the rest of waiting."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._next_expiry = deadline
        self._expiry = self._loop.call_at(deadline, self._expire_due)

    def _expire_due(self) -> None:
        self._expiry, self._next_expiry = None, inf
        now = monotonic() + CLOCK
        soonest = inf
        for waiter, (_, _, deadline, patience) in list(self.waiters.items()):
            if deadline <= now:
                self._expire(waiter, patience)
            else:
                soonest = min(soonest, deadline)
        if soonest < inf:
            self._expect(soonest)

    def _expire(self, waiter: Waiter[C], patience: float) -> None:
        if waiter.done():
            return
        self.leave(waiter)
        self.timeouts += 1
        if self._last_failure is not None and not self.open and not self.suspended:
            waiter.set_exception(twin_of(self._last_failure))  # it is not that others have them all
            return
        message = (
            f"{self._name}: no connection came free within {patience:g} s (pool.acquire): "
            f"{len(self.open)} of {self.settings.max} open, {self.connecting} connecting"
        )
        if self.suspended:
            message += "; the pool is suspended"
        if self._last_failure is not None:
            message += f"; the last attempt to connect failed: {self._last_failure}"
        waiter.set_exception(PoolTimeout(message, provider=self._name))

    # ---- leaks ------------------------------------------------------------------------------------------------------

    def _take_noted(self) -> Slot[C] | None:
        slot = Roster.take(self)
        if slot is not None:
            self._note(slot)
        return slot

    def _note(self, slot: Slot[C]) -> None:
        """What the settings ask for when a connection is given out."""
        if self.settings.reset == "always":
            slot.touched = True
        if self.settings.leak_after is None:
            return
        slot.since = monotonic()
        slot.stack = traceback.StackSummary.extract(traceback.walk_stack(None), limit=16, lookup_lines=False)

    # ---- for those who run it ---------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """Give nobody a connection until `resume`: callers wait, those who have one go on. Idempotent."""
        super().suspend()
        self.give = self._give_slowly  # type: ignore[method-assign]  # so that it costs nobody anything before

    def resume(self) -> list[Slot[C]]:
        """Go on. Idempotent."""
        old = super().resume()
        self.__dict__.pop("give", None)
        for slot in old:
            self._dismiss(slot)
        self._staff()
        return old

    async def drain(self, within: float) -> bool:
        """Replace every connection that is open now: the idle ones at once, those in use when they come back.

        Returns:
            Whether all of them are gone. False: some did not come back within so many seconds; they go when they do.
        """
        leaving = set(self.open)
        for slot in self.retire(self.generation):
            self._dismiss(slot)
        self._staff()
        leaving &= self.open
        if leaving:
            drained = self._loop.create_future()
            self._drains.append((leaving, drained))
            try:
                await asyncio.wait([drained], timeout=within)
            finally:
                self._drains.remove((leaving, drained))
        return not leaving

    def drop(self, slot: Slot[C]) -> None:
        """As `Roster.drop`; who drains is told."""
        super().drop(slot)
        for leaving, drained in self._drains:
            leaving.discard(slot)
            if not leaving and not drained.done():
                drained.set_result(None)

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Let go of everything. Idempotent.

        Waits `RETURN_DEADLINE` at the most for borrowers, and then aborts their connections; never waits for a server
        that does not answer. When it is cancelled, everything is aborted at once.
        """
        if self.closed:
            return
        self.closed = True
        self._returned = asyncio.Event()
        self._let_go()
        try:
            async with asyncio.timeout(RETURN_DEADLINE):
                await self._returned.wait()
                while busy := self._tasks | self._goodbyes:
                    await asyncio.wait(busy)
        except TimeoutError:
            pass
        finally:
            self._abort_all()
        # Transports report that they are closed in the loop's next turns.
        for _ in range(3):
            await asyncio.sleep(0)

    def _let_go(self) -> None:
        """Of everything that no borrower holds."""
        for timer in (self._timer, self._rest, self._expiry):
            if timer is not None:
                timer.cancel()
        self._tell(None)
        for waiter in self.dismissed():
            if not waiter.done():
                waiter.set_exception(ConnectionFailed(f"{self._name}: the provider was closed", provider=self._name))
        for task in self._tasks:  # connections being made or reset
            task.cancel()
        for slot in list(self.restoring):  # a task that is cancelled before it ran sees to nothing
            self.discard(slot)
        for slot in self.retire(self.generation):
            self._dismiss(slot)
        self._note_return()

    def _abort_all(self) -> None:
        for slot in list(self.open):
            self.discard(slot)
        for slot in self._leaving:
            self._connector.abort(slot.connection)
        for task in self._tasks | self._goodbyes:
            task.cancel()

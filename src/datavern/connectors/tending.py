"""What becomes of connections that nobody has: reset, asked for a sign of life, replaced when old, closed.

All of it has a deadline that does not depend on the server: a connection that does not answer is aborted.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Generic, TypeVar

from datavern.config import Pool as PoolSettings
from datavern.connectors.roster import Slot
from datavern.connectors.staffing import Connector, Staffing

__all__ = ["Tending"]

C = TypeVar("C")
log = logging.getLogger("datavern.pool")

CLOSE_DEADLINE = 2.0
"""Seconds that a connection gets to say goodbye."""
RESTORE_DEADLINE = 5.0
"""Seconds in which a connection must have been reset."""
PROBE_DEADLINE = 2.0
"""Seconds in which an idle connection must answer, at the most."""
SHORTEST_DEADLINE = 0.5
"""Seconds that any connection gets to answer or to be reset, where connecting is quick."""


class Tending(Staffing[C], Generic[C]):
    """A staffed roster that looks after its connections.

    Args:
        connector: makes and ends them.
        settings: bounds and deadlines.
        name: of the provider, for messages.
        alone: nobody above tries again: callers wait through an outage, as the settings say.
    """

    def __init__(self, connector: Connector[C], settings: PoolSettings, *, name: str, alone: bool = True) -> None:
        super().__init__(connector, settings, name=name, alone=alone)
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._leaving: set[Slot[C]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._returned: asyncio.Event | None = None  # set when no borrower is left, once the pool is closed
        periods = (settings.idle, settings.lifetime, settings.leak_after or 60.0, settings.keepalive or 60.0)
        self._period = min(30.0, max(0.05, min(periods) / 4.0))

    def give(self, slot: Slot[C]) -> None:
        """A connection comes back, with no answer unread."""
        raise NotImplementedError

    def recover(self, slot: Slot[C]) -> None:
        """A connection comes back in a state that nobody knows: it is reset in the background, or thrown away."""
        slot.since = 0.0
        if slot.generation != self.generation or self.closed or not self._connector.healthy(slot.connection):
            self.discard(slot)
            return
        self.restoring.add(slot)
        self._spawn(self._restore(slot))

    def discard(self, slot: Slot[C]) -> None:
        """Throw a connection away, now. Harmless when it was thrown away before."""
        slot.since = 0.0
        self.restoring.discard(slot)
        if slot in self.open:
            self.drop(slot)
        self._connector.abort(slot.connection)
        if self.closed:
            self._note_return()
        else:
            self._staff()

    # ---- resetting and asking ---------------------------------------------------------------------------------------

    async def _restore(self, slot: Slot[C]) -> None:
        well = False
        try:
            async with asyncio.timeout(self._patience(8, RESTORE_DEADLINE)):
                await self._connector.reset(slot.connection)
            well = True
        except Exception:  # noqa: BLE001, S110  (a connection that cannot be made as new is thrown away, below)
            pass
        finally:
            self.restoring.discard(slot)
            if well:
                self.reset += 1
                slot.touched = False
                self.give(slot)
            else:
                self.discard(slot)

    async def _answers(self, slot: Slot[C], deadline: float) -> bool:
        """Whether a connection that was idle for long still answers. When it does not, the older ones go with it."""
        if monotonic() - slot.used < self._validate_after:
            return True
        try:
            async with asyncio.timeout(min(self._patience(4, PROBE_DEADLINE), max(deadline - monotonic(), 0.05))):
                await self._connector.probe(slot.connection)
        except Exception:  # noqa: BLE001  (whatever it is, the connection does not answer)
            self._silent(slot)
            return False
        except BaseException:
            self.recover(slot)
            raise
        if slot.generation != self.generation:
            self.discard(slot)
            return False
        return True

    def _silent(self, slot: Slot[C]) -> None:
        """A connection that was idle does not answer: those that are as old are no better."""
        gone = self.cleared()
        self.discard(slot)
        for other in gone:
            self._connector.abort(other.connection)

    def _patience(self, times: int, most: float) -> float:
        """Seconds that an answer may take: a multiple of what connecting takes, which is several round trips."""
        return min(most, max(SHORTEST_DEADLINE, times * self._pace))

    async def _ask(self, slot: Slot[C]) -> None:
        """A sign of life from a connection that nobody has used for long."""
        well = None
        try:
            async with asyncio.timeout(self._patience(4, PROBE_DEADLINE)):
                await self._connector.probe(slot.connection)
            well = True
        except Exception:  # noqa: BLE001  (whatever it is, the connection does not answer)
            well = False
        finally:
            if well is None:  # cancelled: the pool is being closed
                self.discard(slot)
        if not well:
            self._silent(slot)
        elif not self.reinstate(slot):
            self._dismiss(slot)
            self._staff()

    # ---- now and then -----------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Now and then: let go of what is idle for too long or too old, keep `min`, ask, look for leaks."""
        for slot in self.pruned():
            self._dismiss(slot)
        for slot in self.due():
            self._spawn(self._ask(slot))
        self._staff()
        if self.settings.leak_after is not None:
            self._report_leaks(self.settings.leak_after)
        self._timer = self._loop.call_later(self._period, self._tend)

    def _report_leaks(self, leak_after: float) -> None:
        now = monotonic()
        for slot in self.open:
            if slot.since and now - slot.since >= leak_after and slot.stack is not None:
                where, slot.stack = slot.stack, None  # once for each borrowing
                where.reverse()
                log.warning(
                    "%s: a connection has been held for %.1f s (pool.leak_after) by:\n%s",
                    self._name, now - slot.since, "".join(where.format()).rstrip(),
                )  # fmt: skip

    # ---- closing ----------------------------------------------------------------------------------------------------

    def _dismiss(self, slot: Slot[C]) -> None:
        """Close a connection that is dropped already, politely."""
        self._leaving.add(slot)
        task = self._loop.create_task(self._say_goodbye(slot))
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    async def _say_goodbye(self, slot: Slot[C]) -> None:
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                await self._connector.close(slot.connection)
        except Exception:  # noqa: BLE001, S110  (it is gone either way)
            pass
        finally:
            self._leaving.discard(slot)
            self._connector.abort(slot.connection)

    def _note_return(self) -> None:
        if self._returned is not None and not self.open:
            self._returned.set()

"""What a pool decides, without any I/O: who gets which connection, which are let go, how many are to be made.

`Roster` only ever changes its own lists and counts, so that every order of events can be tried in a test. `Pool`
(`connectors/pool.py`) does what it decided.
"""

from __future__ import annotations

import asyncio
import random
from bisect import insort
from collections import OrderedDict
from math import inf
from time import monotonic
from typing import Any, Generic, TypeVar

from datavern.config import Pool as PoolSettings
from datavern.contracts.values import PoolStats

__all__ = ["Roster", "Slot"]

C = TypeVar("C")

_LIFETIME_JITTER = 0.1
_KEEPALIVE_JITTER = 0.2


class Slot(Generic[C]):
    """A connection and what the pool knows of it.

    Attributes:
        connection: the driver's.
        generation: the pool's when it was begun to be made.
        expires: when it is old enough to be replaced (`time.monotonic`).
        used: when it last came back.
        asked: when it last gave a sign of life that it was asked for.
        spread: seconds by which it is asked for the next one earlier than others.
        touched: its session may not be as new: it is reset before anybody else gets it.
        since: when its borrower got it, where the pool looks for leaks; else 0.0.
        stack: where that was.
        attempt: the number of the attempt that made it.
    """

    __slots__ = (
        "asked",
        "attempt",
        "connection",
        "expires",
        "generation",
        "since",
        "spread",
        "stack",
        "touched",
        "used",
    )

    connection: C

    def __init__(self, generation: int, attempt: int) -> None:
        self.generation = generation
        self.attempt = attempt
        self.expires = 0.0
        self.used = 0.0
        self.asked = 0.0
        self.spread = 0.0
        self.touched = False
        self.since = 0.0
        self.stack: Any = None


Waiter = asyncio.Future[Slot[C]]


class Roster(Generic[C]):
    """The lists and counts of a pool.

    It holds that: ``size + connecting <= max``; while anybody waits nothing is idle; every open connection is idle, set
    aside, in use or being seen to, and in one of them only; idle connections are of the present generation.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self._validate_after = settings.validate_after
        self.idle: list[Slot[C]] = []
        """Least recently used first: taken from the end, pruned from the front."""
        self.open: set[Slot[C]] = set()
        """Every connection that is there."""
        self.waiters: OrderedDict[Waiter[C], tuple[int, float, float, float]] = OrderedDict()
        """Who waits, longest first: how many attempts to connect had begun before, until when it bears failures, until
        when it waits, and how many seconds that are."""
        self.attempts = 0
        self.connecting = 0
        self.restoring: set[Slot[C]] = set()
        """Those that are being reset, or asked for a sign of life."""
        self.suspended = False
        self.aside: list[Slot[C]] = []
        """Those that are free while the pool is suspended, as `idle`."""
        self.warm = 0
        """Connections that are wanted for the moment, whatever `min` says."""
        self.failures = 0
        """Attempts to connect that failed in a row."""
        self.generation = 0
        self.closed = False
        self.severed = False
        """No connection is kept, made or given out for the time being."""
        self.acquired = 0
        self.created = 0
        self.discarded = 0
        self.reset = 0
        self.timeouts = 0

    # ---- connections that come and go -------------------------------------------------------------------------------

    def take(self) -> Slot[C] | None:
        """The idle connection that was used last; None when there is none, or it must be probed first."""
        idle = self.idle
        if idle:
            slot = idle.pop()
            if monotonic() - slot.used < self._validate_after:
                self.acquired += 1
                return slot
            idle.append(slot)
        return None

    def put(self, slot: Slot[C]) -> bool:
        """A connection is free and as new. Hand it to who waits longest, or keep it; False: it is to be closed."""
        now = monotonic()
        if self.closed or self.severed or slot.generation != self.generation or now >= slot.expires:
            self.drop(slot)
            return False
        slot.used = now
        if not self._handed_over(slot):
            self._free.append(slot)
        return True

    def reinstate(self, slot: Slot[C]) -> bool:
        """A connection gave a sign of life: it goes back to where it stood. False: it is to be closed."""
        now = monotonic()
        self.restoring.discard(slot)
        if self.closed or self.severed or slot.generation != self.generation or now >= slot.expires:
            self.drop(slot)
            return False
        slot.asked, slot.spread = now, self._spread()
        if not self._handed_over(slot):
            insort(self._free, slot, key=_by_use)
        return True

    def _handed_over(self, slot: Slot[C]) -> bool:
        while self.waiters and not self.suspended:
            waiter = self.waiters.popitem(last=False)[0]
            if not waiter.done():  # a cancelled one stands in line until its task runs
                self.acquired += 1
                waiter.set_result(slot)
                return True
        return False

    @property
    def _free(self) -> list[Slot[C]]:
        return self.aside if self.suspended else self.idle

    def drop(self, slot: Slot[C]) -> None:
        """A connection is gone, or is to be closed by the caller."""
        self.open.discard(slot)
        self.discarded += 1

    def lost(self, slot: Slot[C]) -> bool:
        """The connection broke. True: nobody held it, and it is dropped; False: its borrower will notice."""
        if slot in self._free:
            self._free.remove(slot)
            self.drop(slot)
            return True
        slot.touched = True
        return False

    def due(self) -> list[Slot[C]]:
        """Free connections that are to be asked for a sign of life, taken from the others meanwhile."""
        keepalive = self.settings.keepalive
        if keepalive is None:
            return []
        before = monotonic() - keepalive
        due = [slot for slot in self._free if max(slot.used, slot.asked) - slot.spread <= before]
        for slot in due:
            self._free.remove(slot)
            self.restoring.add(slot)
        return due

    def _spread(self) -> float:
        keepalive = self.settings.keepalive or 0.0
        return keepalive * _KEEPALIVE_JITTER * random.random()  # noqa: S311  (spreads load, hides nothing)

    # ---- suspending -------------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """Nobody gets a connection from here on: what is free is set aside. Idempotent."""
        if not self.suspended:
            self.suspended = True
            self.aside = self.idle.copy()
            self.idle.clear()  # the list stays the same one

    def resume(self) -> list[Slot[C]]:
        """Who waits gets what was set aside. Idempotent. Those that are to be closed, dropped."""
        if not self.suspended:
            return []
        self.suspended = False
        aside, self.aside = self.aside, []
        now = monotonic()
        old = [slot for slot in aside if now >= slot.expires]
        for slot in old:
            self.drop(slot)
        for slot in reversed([slot for slot in aside if slot not in old]):  # the warmest first
            if not self._handed_over(slot):
                insort(self.idle, slot, key=_by_use)
        return old

    # ---- making connections -----------------------------------------------------------------------------------------

    def wanted(self) -> int:
        """How many connections to begin making now: one for each who waits and has none coming, and up to `min`.

        A few at a time (MongoDB's CMAP specification, maxConnecting), and one while they fail.
        """
        if self.closed or self.severed:
            return 0
        there = len(self.open) + self.connecting
        least = max(self.warm, 0 if self.suspended else self.settings.min)
        for_waiters = 0 if self.suspended else len(self.waiters) - self.connecting
        at_once = (1 if self.failures else self.settings.connecting) - self.connecting
        return max(0, min(self.settings.max - there, at_once, max(for_waiters, least - there)))

    def begin(self) -> Slot[C]:
        """A connection is begun to be made."""
        self.connecting += 1
        self.attempts += 1
        return Slot(self.generation, self.attempts)

    def made(self, slot: Slot[C]) -> bool:
        """It is made: its `connection` is set. As `put`."""
        self.connecting -= 1
        self.failures = 0
        self.created += 1
        self.open.add(slot)
        jitter = 1.0 - _LIFETIME_JITTER * random.random()  # noqa: S311  (spreads load, hides nothing)
        slot.expires = monotonic() + self.settings.lifetime * jitter
        slot.spread = self._spread()
        return self.put(slot)

    def failed(self, slot: Slot[C], *, final: bool = True) -> list[Waiter[C]]:
        """It could not be made. Those who can hope for nothing else, taken off the line.

        No connection is there, none is coming, and this attempt began after they came: an older one tells of how things
        were before (the restart that broke it may be over), and whoever came since gets an attempt of their own. Nor do
        they bear any more failures, where it may be better in a moment.

        Args:
            final: trying again does not help.
        """
        self.connecting -= 1
        self.failures += 1
        if self.open or self.connecting or self.suspended:
            return []
        now = monotonic()
        hopeless = [
            waiter
            for waiter, (before, until, *_) in self.waiters.items()
            if before < slot.attempt and (final or now >= until)
        ]
        for waiter in hopeless:
            del self.waiters[waiter]
        return hopeless

    # ---- waiting ----------------------------------------------------------------------------------------------------

    def join(self, waiter: Waiter[C], outage: float = 0.0, *, deadline: float = inf, patience: float = inf) -> bool:
        """Wait in line; False when the line is full.

        Args:
            outage: seconds that attempts to connect may fail before the waiter is told.
            deadline: until when it waits (`time.monotonic`); whoever runs the pool tells it then.
            patience: the same in seconds from now.
        """
        if len(self.waiters) >= self.settings.max_waiting:
            self.timeouts += 1
            return False
        self.waiters[waiter] = (self.attempts, monotonic() + outage, deadline, patience)
        return True

    def leave(self, waiter: Waiter[C]) -> None:
        """Stop waiting. Harmless when the waiter was served already."""
        self.waiters.pop(waiter, None)

    def dismissed(self) -> list[Waiter[C]]:
        """All who wait, taken off the line."""
        waiters = list(self.waiters)
        self.waiters.clear()
        return waiters

    # ---- letting go -------------------------------------------------------------------------------------------------

    def retire(self, generation: int) -> list[Slot[C]]:
        """Every connection of that generation is bad: the idle ones, to be closed; those in use follow."""
        if generation != self.generation:
            return []
        self.generation += 1
        return self.cleared()

    def cleared(self) -> list[Slot[C]]:
        """Every connection that is free, dropped."""
        gone = self._free.copy()
        self._free.clear()  # the list stays the same one
        for slot in gone:
            self.drop(slot)
        return gone

    def pruned(self) -> list[Slot[C]]:
        """Idle connections that are too old, or were idle for too long while more than `min` are open: dropped."""
        now = monotonic()
        unused = now - self.settings.idle
        spare = len(self.open) - self.settings.min
        gone = []
        for slot in self._free:
            if now >= slot.expires or (slot.used <= unused and spare > 0):
                gone.append(slot)
                spare -= 1
        for slot in gone:
            self._free.remove(slot)
            self.drop(slot)
        return gone

    def stats(self) -> PoolStats:
        """Counts, now."""
        size, idle = len(self.open), len(self._free)
        return PoolStats(
            size=size,
            idle=idle,
            in_use=size - idle - len(self.restoring),
            waiting=len(self.waiters),
            connecting=self.connecting,
            generation=self.generation,
            acquired=self.acquired,
            created=self.created,
            discarded=self.discarded,
            reset=self.reset,
            timeouts=self.timeouts,
        )


def _by_use(slot: Slot[Any]) -> float:
    return slot.used

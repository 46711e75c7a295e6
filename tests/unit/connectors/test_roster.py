"""What the pool decides, in every order of events that can be thought up. No connection, no loop running, no clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from datavern.config import Pool
from datavern.connectors import roster as module
from datavern.connectors.roster import Roster, Slot

LOOP = asyncio.new_event_loop()
LOOP.close()  # futures are made on it, and nothing ever runs


class Clock:
    now = 1000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    Clock.now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: Clock.now)
    return Clock


class Life(RuleBasedStateMachine):
    """A pool's life as its users and its network make it: random events, and what must hold after each."""

    @initialize(most=st.integers(1, 4), least=st.integers(0, 2), waiting=st.integers(1, 6))
    def begin_life(self, most: int, least: int, waiting: int) -> None:
        self.roster: Roster[str] = Roster(
            Pool(min=min(least, most), max=most, idle=60, lifetime=600, max_waiting=waiting, validate_after=30)
        )
        self.held: list[Slot[str]] = []
        self.coming: list[Slot[str]] = []
        self.line: list[asyncio.Future[Any]] = []
        self.made = 0
        self.begun = 0
        self.begun_before: dict[Any, int] = {}

    def collect(self) -> None:
        """Those who were served have their connection: in the order in which they stood."""
        unserved_seen = False
        for waiter in self.line:
            if waiter.cancelled() or (waiter.done() and waiter.exception() is not None):
                continue
            if waiter.done():
                assert not unserved_seen, "served before somebody who waited longer"
                self.held.append(waiter.result())
            else:
                unserved_seen = True
        self.line = [w for w in self.line if not w.done()]

    @rule()
    def acquire(self) -> None:
        slot = self.roster.take()
        if slot is None and self.roster.idle:
            slot = self.roster.idle.pop()  # to be probed, and found well
        if slot is not None:
            self.held.append(slot)
            return
        waiter: asyncio.Future[Any] = asyncio.Future(loop=LOOP)
        full = len(self.roster.waiters) >= self.roster.settings.max_waiting
        assert self.roster.join(waiter) is not full
        if not full:
            self.line.append(waiter)
            self.begun_before[waiter] = self.begun

    @rule()
    def connect(self) -> None:
        for _ in range(self.roster.wanted()):
            self.coming.append(self.roster.begin())
            self.begun += 1

    @precondition(lambda self: self.coming)
    @rule(which=st.integers(0, 9), well=st.booleans())
    def connected(self, which: int, well: bool) -> None:
        slot = self.coming.pop(which % len(self.coming))
        if well:
            self.made += 1
            slot.connection = f"connection {self.made}"
            kept = self.roster.made(slot)
            assert kept is (slot.generation == self.roster.generation)
        else:
            hopeless = not self.roster.open and self.roster.connecting == 1
            there = [w for w in self.line if self.begun_before[w] < slot.attempt]
            dismissed = self.roster.failed(slot)
            expected = [w for w in there if not w.done()] if hopeless else []
            assert [w for w in dismissed if not w.done()] == expected
            for waiter in dismissed:
                if not waiter.done():
                    waiter.set_exception(ConnectionError())
                    waiter.exception()
        self.collect()

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9))
    def give(self, which: int) -> None:
        slot = self.held.pop(which % len(self.held))
        kept = self.roster.put(slot)
        assert kept is (slot.generation == self.roster.generation and Clock.now < slot.expires)
        self.collect()

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9))
    def throw_away(self, which: int) -> None:
        self.roster.drop(self.held.pop(which % len(self.held)))

    @precondition(lambda self: self.roster.open)
    @rule(which=st.integers(0, 9))
    def break_(self, which: int) -> None:
        slots = sorted(self.roster.open, key=lambda s: s.connection)
        slot = slots[which % len(slots)]
        idle = slot in self.roster.idle
        assert self.roster.lost(slot) is idle
        assert idle or slot.touched, "a broken connection would be handed on"

    @precondition(lambda self: self.line)
    @rule(which=st.integers(0, 9), at_once=st.booleans())
    def give_up(self, which: int, at_once: bool) -> None:
        waiter = self.line[which % len(self.line)]
        waiter.cancel()
        if at_once:  # else its task has not run yet, and it still stands in line
            self.roster.leave(waiter)
            self.line.remove(waiter)

    @rule(generation=st.integers(0, 3))
    def retire(self, generation: int) -> None:
        before = self.roster.generation
        gone = self.roster.retire(generation)
        assert self.roster.generation == before + (generation == before)
        assert all(slot not in self.roster.open for slot in gone)

    @rule(seconds=st.floats(0.1, 400))
    def wait(self, seconds: float) -> None:
        Clock.now += seconds
        least = min(self.roster.settings.min, len(self.roster.open))
        old = [s for s in self.roster.idle if Clock.now >= s.expires]
        gone = self.roster.pruned()
        assert set(old) <= set(gone)
        assert len(self.roster.open) >= least - len(old)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "roster"):
            return
        roster = self.roster
        waiting = [w for w in roster.waiters if not w.done()]
        assert len(roster.open) + roster.connecting <= roster.settings.max
        assert not (waiting and roster.idle), "somebody waits while a connection is free"
        assert len(set(roster.idle)) == len(roster.idle)
        assert set(roster.idle) <= roster.open
        assert all(s.generation == roster.generation for s in roster.idle)
        assert not set(self.held) & set(roster.idle), "a connection has two owners"
        assert len(set(self.held)) == len(self.held), "a connection has two owners"
        assert roster.open == set(roster.idle) | set(self.held), "a connection was lost, or kept after it went"
        assert roster.connecting == len(self.coming)
        assert waiting == [w for w in self.line if not w.done()], "the line is out of order"
        stats = roster.stats()
        assert (stats.size, stats.idle, stats.in_use) == (len(roster.open), len(roster.idle), len(self.held))
        # Nobody waits in vain: whoever waits has a connection coming, or may have one made, or all are in use.
        if waiting:
            assert roster.wanted() or roster.connecting or len(self.held) == len(roster.open) > 0

    def teardown(self) -> None:
        """Everything that was begun ends, and then everybody has been served or told, and nothing is left over."""
        if not hasattr(self, "roster"):
            return
        for _ in range(100):
            if not any(not w.done() for w in self.roster.waiters):
                break
            self.connect()
            while self.coming:
                self.connected(0, True)
            while self.held:
                self.give(0)
        assert not any(not w.done() for w in self.roster.waiters)


Life.TestCase.settings = settings(max_examples=80, stateful_step_count=60, deadline=None, database=None)
TestLife = Life.TestCase


def test_last_in_first_out() -> None:
    roster: Roster[str] = Roster(Pool(max=3))
    slots = [roster.begin() for _ in range(3)]
    for i, slot in enumerate(slots):
        slot.connection = str(i)
        roster.made(slot)
    first = roster.take()
    assert first is slots[2]
    roster.put(first)
    assert roster.take() is first


def test_a_connection_that_was_idle_for_long_is_not_given_out_unasked(clock: type[Clock]) -> None:
    roster: Roster[str] = Roster(Pool(max=1, validate_after=0.5))
    slot = roster.begin()
    slot.connection = "c"
    roster.made(slot)
    clock.now += 0.4
    assert roster.take() is slot
    roster.put(slot)
    clock.now += 0.6
    assert roster.take() is None
    assert roster.idle == [slot]


def test_lifetimes_differ() -> None:
    roster: Roster[str] = Roster(Pool(max=50, lifetime=100))
    for _ in range(50):
        slot = roster.begin()
        slot.connection = "c"
        roster.made(slot)
    ages = {s.expires - Clock.now for s in roster.open}
    assert len(ages) > 40
    assert all(90 <= age <= 100 for age in ages)

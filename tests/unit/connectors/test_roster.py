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

    @initialize(
        most=st.integers(1, 4), least=st.integers(0, 2), waiting=st.integers(1, 6), connecting=st.integers(1, 3)
    )
    def begin_life(self, most: int, least: int, waiting: int, connecting: int) -> None:
        self.roster: Roster[str] = Roster(
            Pool(
                min=min(least, most),
                max=most,
                idle=60,
                lifetime=600,
                max_waiting=waiting,
                validate_after=30,
                connecting=connecting,
                keepalive=20,
            )
        )
        self.asked: list[Slot[str]] = []
        self.held: list[Slot[str]] = []
        self.coming: list[Slot[str]] = []
        self.line: list[asyncio.Future[Any]] = []
        self.made = 0
        self.begun = 0
        self.begun_before: dict[Any, int] = {}
        self.bears_until: dict[Any, float] = {}

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

    @rule(outage=st.sampled_from([0.0, 50.0]))
    def acquire(self, outage: float) -> None:
        slot = self.roster.take()
        if slot is None and self.roster.idle:
            slot = self.roster.idle.pop()  # to be probed, and found well
        if slot is not None:
            self.held.append(slot)
            return
        waiter: asyncio.Future[Any] = asyncio.Future(loop=LOOP)
        full = len(self.roster.waiters) >= self.roster.settings.max_waiting
        assert self.roster.join(waiter, outage) is not full
        if not full:
            self.bears_until[waiter] = Clock.now + outage
            self.line.append(waiter)
            self.begun_before[waiter] = self.begun

    @rule()
    def connect(self) -> None:
        for _ in range(self.roster.wanted()):
            self.coming.append(self.roster.begin())
            self.begun += 1

    @precondition(lambda self: self.coming)
    @rule(which=st.integers(0, 9), well=st.booleans(), final=st.booleans())
    def connected(self, which: int, well: bool, final: bool) -> None:
        slot = self.coming.pop(which % len(self.coming))
        if well:
            self.made += 1
            slot.connection = f"connection {self.made}"
            kept = self.roster.made(slot)
            assert kept is (slot.generation == self.roster.generation)
        else:
            hopeless = not self.roster.open and self.roster.connecting == 1 and not self.roster.suspended
            there = [w for w in self.line if self.begun_before[w] < slot.attempt]
            there = [w for w in there if final or Clock.now >= self.bears_until[w]]
            dismissed = self.roster.failed(slot, final=final)
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
        idle = slot in self.roster.idle or slot in self.roster.aside
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

    @rule()
    def suspend(self) -> None:
        self.roster.suspend()
        assert not self.roster.idle
        assert self.roster.take() is None

    @rule()
    def resume(self) -> None:
        for slot in self.roster.resume():
            assert Clock.now >= slot.expires
        self.collect()

    @rule()
    def ask(self) -> None:
        due = self.roster.due()
        assert all(Clock.now - slot.used >= 16 for slot in due)
        self.asked += due

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 9), well=st.booleans())
    def answered(self, which: int, well: bool) -> None:
        slot = self.asked.pop(which % len(self.asked))
        used = slot.used
        if well:
            kept = self.roster.reinstate(slot)
            assert kept is (slot.generation == self.roster.generation and Clock.now < slot.expires)
            assert slot.used == used, "a sign of life is no use"
        else:
            self.roster.restoring.discard(slot)
            self.roster.drop(slot)
        self.collect()

    @rule(connections=st.integers(0, 4))
    def warm_up(self, connections: int) -> None:
        self.roster.warm = min(connections, self.roster.settings.max)

    @rule(seconds=st.floats(0.1, 400))
    def wait(self, seconds: float) -> None:
        Clock.now += seconds
        least = min(self.roster.settings.min, len(self.roster.open))
        old = [s for s in [*self.roster.idle, *self.roster.aside] if Clock.now >= s.expires]
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
        assert not (roster.suspended and roster.idle), "a connection is free while the pool is suspended"
        assert roster.suspended or not roster.aside
        free = [*roster.idle, *roster.aside]
        assert len(set(free)) == len(free)
        assert set(free) <= roster.open
        assert all(s.generation == roster.generation for s in free)
        assert sorted(free, key=lambda s: s.used) == free, "the least recently used is not first"
        assert roster.connecting <= roster.settings.connecting
        assert not set(self.held) & set(free), "a connection has two owners"
        assert len(set(self.held)) == len(self.held), "a connection has two owners"
        assert roster.open == {*free, *self.held, *self.asked}, "a connection was lost, or kept after it went"
        assert roster.restoring == set(self.asked)
        assert roster.connecting == len(self.coming)
        assert waiting == [w for w in self.line if not w.done()], "the line is out of order"
        stats = roster.stats()
        assert (stats.size, stats.idle, stats.in_use) == (len(roster.open), len(free), len(self.held))
        # Nobody waits in vain: whoever waits has a connection coming, or may have one made, or all are in use.
        if waiting and not roster.suspended:
            assert roster.wanted() or roster.connecting or len(self.held) + len(self.asked) == len(roster.open) > 0

    def teardown(self) -> None:
        """Everything that was begun ends, and then everybody has been served or told, and nothing is left over."""
        if not hasattr(self, "roster"):
            return
        self.resume()
        for _ in range(100):
            while self.asked:
                self.answered(0, True)
            if not any(not w.done() for w in self.roster.waiters):
                break
            self.connect()
            while self.coming:
                self.connected(0, True, False)
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


def _filled(roster: Roster[str], number: int) -> list[Slot[str]]:
    slots = []
    while len(slots) < number:
        slots.append(roster.begin())
        slots[-1].connection = str(len(slots))
        roster.made(slots[-1])
    return slots


def test_a_few_are_made_at_a_time_and_one_while_they_fail() -> None:
    roster: Roster[str] = Roster(Pool(min=5, max=9, connecting=2))
    assert roster.wanted() == 2
    slots = [roster.begin(), roster.begin()]
    assert roster.wanted() == 0
    for slot in slots:
        roster.failed(slot)
    assert roster.wanted() == 1
    _filled(roster, 1)
    assert roster.wanted() == 2


def test_signs_of_life_are_spread(clock: type[Clock]) -> None:
    roster: Roster[str] = Roster(Pool(max=50, keepalive=100, lifetime=9999))
    _filled(roster, 50)
    clock.now += 79
    assert roster.due() == []
    asked = []
    for _ in range(22):
        clock.now += 1
        asked.append(len(due := roster.due()))
        for slot in due:
            assert roster.reinstate(slot)
    assert sum(asked) == 50
    assert max(asked) < 20
    slot = roster.idle[-1]
    roster.idle.remove(slot)
    roster.put(slot)
    clock.now += 101
    assert len(roster.due()) == 50


def test_a_sign_of_life_keeps_nobody_from_being_let_go(clock: type[Clock]) -> None:
    roster: Roster[str] = Roster(Pool(max=2, keepalive=10, idle=25))
    _filled(roster, 2)
    for _ in range(2):
        clock.now += 12.5
        for slot in roster.due():
            roster.reinstate(slot)
    assert len(roster.pruned()) == 2


def test_what_comes_back_while_the_pool_is_suspended_is_handed_on_when_it_goes_on(clock: type[Clock]) -> None:
    roster: Roster[str] = Roster(Pool(max=3))
    first, second, third = _filled(roster, 3)
    held = roster.take()
    assert held is third
    roster.suspend()
    waiters: list[asyncio.Future[Any]] = [asyncio.Future(loop=LOOP) for _ in range(2)]
    for waiter in waiters:
        roster.join(waiter)
    roster.put(held)
    assert roster.wanted() == 0
    assert not any(waiter.done() for waiter in waiters)
    assert roster.stats().idle == 3
    roster.resume()
    assert [waiter.result() for waiter in waiters] == [third, second]
    assert roster.idle == [first]

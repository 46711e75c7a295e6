"""Running a transaction again: only where the error says that it may be, and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern import (
    CapabilityMissing,
    ConfigurationError,
    ConnectionFailed,
    OutcomeUnknown,
    PoolTimeout,
    QueryRejected,
    SerializationConflict,
)
from datavern.connectors import retry
from datavern.connectors.retry import Breaker, Budget, backoff, run_in_transaction


class Block:
    """A transaction that is entered and left; what is thrown at it passes through."""

    entered = 0

    async def __aenter__(self) -> int:
        Block.entered += 1
        return Block.entered

    async def __aexit__(self, *exc: object) -> None:
        return None


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    Block.entered = 0
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(retry.asyncio, "sleep", sleep)
    return waited


@pytest.mark.parametrize(
    "error",
    [SerializationConflict("x"), ConnectionFailed("x"), ConnectionFailed("x", retry="transaction"), PoolTimeout("x")],
)
async def test_again_until_it_works(error: Exception, waits: list[float]) -> None:
    async def work(n: int) -> str:
        if n < 4:
            raise error
        return "done"

    assert await run_in_transaction(Block, work, attempts=5) == "done"
    assert len(waits) == 3


@pytest.mark.parametrize(
    "error",
    [
        OutcomeUnknown("x"),
        QueryRejected("x"),
        ConnectionFailed("x", retry="never"),
        ZeroDivisionError(),
    ],
)
async def test_not_again(error: Exception, waits: list[float]) -> None:
    async def work(n: int) -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        await run_in_transaction(Block, work, attempts=5)
    assert caught.value is error
    assert Block.entered == 1
    assert not waits


async def test_work_that_is_not_async_is_told_of() -> None:
    with pytest.raises(ConfigurationError, match="expected async def work"):
        await run_in_transaction(Block, lambda tx: tx, attempts=3)  # type: ignore[arg-type,return-value]
    assert Block.entered == 1


@pytest.mark.parametrize("attempts", [0, -1, "3", 2.5, None])
async def test_attempts_that_nobody_can_count(attempts: Any) -> None:
    async def work(n: int) -> Any:
        raise AssertionError(n)

    with pytest.raises(ConfigurationError, match="expected a whole number, at least 1"):
        await run_in_transaction(Block, work, attempts=attempts)


async def test_not_for_ever(waits: list[float]) -> None:
    async def work(n: int) -> Any:
        raise SerializationConflict(f"attempt {n}")

    with pytest.raises(SerializationConflict, match="attempt 3"):
        await run_in_transaction(Block, work, attempts=3)
    assert len(waits) == 2
    with pytest.raises(ConfigurationError):
        await run_in_transaction(Block, work, attempts=0)


def test_waits_grow_and_are_spread() -> None:
    first = [backoff(1, base=1, longest=5) for _ in range(500)]
    assert 0 <= min(first) < 0.2
    assert 0.8 < max(first) <= 1
    later = [backoff(9, base=1, longest=5) for _ in range(500)]
    assert 4 < max(later) <= 5


def test_a_wait_after_very_many_failures_is_a_number() -> None:
    assert 0 <= backoff(5000, base=1, longest=5) <= 5


# ---- how much of it -------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(retry, "monotonic", lambda: now[0])
    return now


async def test_a_caller_that_waited_its_time_is_not_asked_to_wait_again(clock: list[float], waits: list[float]) -> None:
    class Full(Block):
        async def __aenter__(self) -> int:
            await super().__aenter__()
            clock[0] += 3.0
            raise PoolTimeout("no connection came free within 3 s")

    with pytest.raises(PoolTimeout):
        await run_in_transaction(Full, lambda _: asyncio.sleep(0), attempts=9, patience=5.0)
    assert Block.entered == 2


async def test_the_time_that_the_work_takes_is_no_waiting(clock: list[float], waits: list[float]) -> None:
    async def work(n: int) -> int:
        clock[0] += 100.0
        if n < 4:
            raise SerializationConflict("x")
        return n

    assert await run_in_transaction(Block, work, attempts=9, patience=5.0) == 4


async def test_a_budget_pays_for_failures_and_not_for_conflicts(clock: list[float], waits: list[float]) -> None:
    budget = Budget(share=0.0, reserve=3.0, rate=0.0)

    async def broken(n: int) -> Any:
        raise ConnectionFailed(f"attempt {n}")

    with pytest.raises(ConnectionFailed, match="attempt 4"):
        await run_in_transaction(Block, broken, attempts=9, budget=budget)

    async def conflict(n: int) -> int:
        if n < 10:
            raise SerializationConflict("x")
        return n

    assert await run_in_transaction(Block, conflict, attempts=9, budget=budget) == 10


def test_a_budget_fills_with_what_is_asked_and_with_time(clock: list[float]) -> None:
    budget = Budget(share=0.25, reserve=2.0, rate=1.0)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(4):
        budget.earn()
    assert [budget.spend() for _ in range(2)] == [True, False]
    clock[0] += 1.5
    assert [budget.spend() for _ in range(2)] == [True, False]
    clock[0] += 1000.0
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    with pytest.raises(ConfigurationError):
        Budget(share=-1)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 10)), max_size=40))
def test_retries_are_never_more_than_their_share(rounds: list[tuple[int, float]]) -> None:
    now = [0.0]
    before, retry.monotonic = retry.monotonic, lambda: now[0]
    try:
        budget = Budget(share=0.5, reserve=5.0, rate=2.0)
        asked = spent = 0
        for first, seconds in rounds:
            now[0] += seconds
            for _ in range(first):
                asked += 1
                budget.earn()
                while budget.spend():
                    spent += 1
        assert spent <= 5 + 0.5 * asked + 2 * now[0] + 1e-6
    finally:
        retry.monotonic = before


def test_a_breaker_opens_tries_and_closes(clock: list[float]) -> None:
    breaker = Breaker(failures=3, rest=1.0, longest=3.0)
    for _ in range(2):
        assert breaker.allows()
        breaker.failed()
    breaker.succeeded()
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    assert breaker.is_open
    assert not breaker.allows()
    clock[0] += 1.0
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False], "one tries, the others wait"
    clock[0] += 1.0  # nobody heard of that try: it was cancelled
    assert [breaker.allows() for _ in range(2)] == [True, False]
    breaker.failed()
    clock[0] += 0.9
    assert not breaker.allows(), "each try that fails is followed by a longer rest"
    clock[0] += 1.1
    assert breaker.allows()
    breaker.succeeded()
    assert not breaker.is_open
    assert all(breaker.allows() for _ in range(5))


def test_a_rest_has_an_end(clock: list[float]) -> None:
    breaker = Breaker(failures=1, rest=1.0, longest=3.0)
    for _ in range(2000):
        breaker.failed()
    clock[0] += 3.0
    assert breaker.allows()


@pytest.mark.parametrize("settings", [{"failures": 0}, {"rest": 0.0}, {"rest": 2.0, "longest": 1.0}])
def test_a_breaker_that_makes_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Breaker(**settings)


# ---- a key ----------------------------------------------------------------------------------------------------------


class Store:
    """What a database does with keys, and commits whose fate is told in advance."""

    def __init__(self, *fates: str) -> None:
        self.keys: dict[str, int] = {}
        self.done: list[int] = []
        self.fates = list(fates)
        self.begun = 0

    def begin(self) -> Store.Transaction:
        return Store.Transaction(self)

    class Transaction:
        def __init__(self, store: Store) -> None:
            self.store = store
            self.fate = store.fates.pop(0) if store.fates else "done"
            self.keys: dict[str, int] = {}
            self.did: list[int] = []

        async def __aenter__(self) -> Store.Transaction:
            if self.fate == "away":
                raise ConnectionFailed("away")
            if self.fate == "locked out":
                raise ConnectionFailed("locked out", retry="never")
            self.store.begun += 1
            return self

        async def claim(self, key: str, mark: int) -> int | None:
            if self.fate == "full disk":
                raise QueryRejected("the disk is full")
            if key in self.store.keys:
                return self.store.keys[key]
            self.keys[key] = mark
            return None

        async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
            if kind is None and self.fate in {"done", "done, unanswered"}:
                self.store.keys.update(self.keys)
                self.store.done += self.did
            if kind is None and self.fate.endswith("unanswered"):
                raise OutcomeUnknown("no answer")


async def _once(store: Store, **settings: Any) -> Any:
    runs = 0

    async def work(tx: Any) -> int:
        nonlocal runs
        runs += 1
        tx.did.append(runs)
        return runs

    return await run_in_transaction(store.begin, work, idempotency_key="k", **{"attempts": 5, **settings})


@pytest.mark.parametrize(
    ("fates", "gives"),
    [
        (["done"], 1),
        (["done, unanswered"], 1),
        (["not done, unanswered"], 2),
        (["done, unanswered", "away", "away"], 1),
        (["not done, unanswered", "away", "not done, unanswered", "done, unanswered"], 3),
        (["done, unanswered", "done, unanswered", "done"], 1),  # the second is the one that looked
    ],
)
async def test_with_a_key_it_is_done_once_and_its_result_is_given(
    fates: list[str], gives: int, waits: list[float]
) -> None:
    store = Store(*fates)
    assert await _once(store) == gives
    assert store.done == [gives]
    assert await _once(store) is None, "somebody else's result is nobody's"
    assert len(store.done) == 1


@pytest.mark.parametrize("then", [["away"] * 9, ["locked out"], ["full disk"]])
async def test_a_commit_that_nobody_can_tell_of_stays_unknown(then: list[str], waits: list[float]) -> None:
    store = Store("done, unanswered", *then)
    with pytest.raises(OutcomeUnknown):
        await _once(store)
    assert len(store.done) == 1


async def test_an_unknown_outcome_of_something_else_is_not_run_again(waits: list[float]) -> None:
    """The work itself asked another database, which gave no answer: no key of ours tells of that."""
    store = Store()

    async def work(tx: Any) -> Any:
        raise OutcomeUnknown("elsewhere")

    with pytest.raises(OutcomeUnknown, match="elsewhere"):
        await run_in_transaction(store.begin, work, attempts=5, idempotency_key="k")
    assert store.begun == 1


@pytest.mark.parametrize("named", [True, False])
async def test_a_key_where_transactions_hold_none(named: bool) -> None:
    class Plain:
        if named:

            class provider:  # noqa: N801  (stands for an attribute)
                name = "shelf"

    class Bare(Block):
        async def __aenter__(self) -> Any:
            return Plain()

    with pytest.raises(CapabilityMissing, match="shelf has no" if named else "this engine has no"):
        await run_in_transaction(Bare, lambda _: asyncio.sleep(0), attempts=1, idempotency_key="k")

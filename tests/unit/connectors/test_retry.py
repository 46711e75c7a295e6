"""Running a transaction again: only where the error says that it may be, and not for ever."""

from __future__ import annotations

from typing import Any

import pytest

from datavern import (
    ConfigurationError,
    ConnectionFailed,
    OutcomeUnknown,
    PoolTimeout,
    QueryRejected,
    SerializationConflict,
)
from datavern.connectors import retry
from datavern.connectors.retry import backoff, run_in_transaction


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
    "error", [SerializationConflict("x"), ConnectionFailed("x"), ConnectionFailed("x", retry="transaction")]
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
        PoolTimeout("x"),
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

"""Calls that are gathered: what reads by key and inserts do not show (see test_coalescing.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.waiting import until

from datavern.config import Pool
from datavern.connectors.gathering import ALONE, Asked, Gathering
from datavern.contracts.errors import PoolTimeout


class Echo(Gathering[int]):
    """Each call gives what it was asked; a negative number hangs."""

    async def _answer(self, batch: list[Asked[int]]) -> None:
        if any(asked < 0 for asked, _, _ in batch):
            await asyncio.get_running_loop().create_future()
        for asked, future, _ in batch:
            future.set_result(asked)

    async def ask(self, asked: int) -> Any:
        answer = await self._join(asked)
        if answer is not ALONE:
            return answer
        try:
            if asked < 0:
                await asyncio.get_running_loop().create_future()
            return asked
        finally:
            self._alone_ended()


@pytest.mark.parametrize("calls", [1, 2], ids=["alone", "together"])
@pytest.mark.parametrize("turns", range(4))
def test_a_loop_that_ended_in_the_middle_is_nobodys_trouble(calls: int, turns: int) -> None:
    """Whatever was under way there: on the next loop all places are free, and the clock runs."""
    echo = Echo(name="echo", pool=Pool(acquire=0.1), size=10, at_once=1)
    old = asyncio.new_event_loop()
    left: list[Any] = []

    async def begin() -> None:
        left.extend(asyncio.ensure_future(echo.ask(-1)) for _ in range(calls))
        for _ in range(turns):
            await asyncio.sleep(0)
        left.extend(asyncio.ensure_future(echo.ask(7)) for _ in range(2))
        await asyncio.sleep(0)

    old.run_until_complete(begin())  # and nothing of it is ended

    async def go_on() -> None:
        for number in range(3):
            async with asyncio.timeout(20):
                assert await echo.ask(number) == number
                assert await asyncio.gather(*(echo.ask(n) for n in range(25))) == [*range(25)]
        assert not echo._running
        assert echo._alone == 0

    asyncio.run(go_on())
    for task in (*left, *asyncio.all_tasks(old)):
        task.cancel()
    old.run_until_complete(asyncio.gather(*asyncio.all_tasks(old), return_exceptions=True))
    old.close()


@pytest.mark.parametrize(("acquire", "left"), [(60.0, 10), (0.05, 0)], ids=["too many", "too late"])
async def test_whoever_is_refused_is_in_the_line_no_more(acquire: float, left: int) -> None:
    echo = Echo(name="echo", pool=Pool(acquire=acquire, max_waiting=10), size=1, at_once=1)
    hanging = asyncio.ensure_future(echo.ask(-1))
    await asyncio.sleep(0)
    asking = [asyncio.ensure_future(echo.ask(n)) for n in range(40)]
    await until(lambda: sum(task.done() for task in asking) == 40 - left)
    assert len(echo._waiting) == left
    assert echo._timed is bool(left)
    hanging.cancel()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert found[:left] == [*range(left)]
    assert {type(one) for one in found[left:]} == {PoolTimeout}
    assert await echo.ask(3) == 3

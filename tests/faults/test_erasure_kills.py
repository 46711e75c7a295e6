"""Erasures, batches of them and rectifications, killed at everything that they say to their databases, and finished."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lanes import CASES, Lane, check_all, each, lanes

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.timeout(3600),  # every place, on a machine that has other work
]
LEAST = {"sqlite": 30, "postgresql": 30, "all": 50}
SOME = {
    "erasure": {"before": (70,), "after": (50, 95)},
    "batch": {"before": (60,), "after": (85,)},
    "rectification": {"before": (60,), "after": (85,)},
    "completion": {"before": (70,), "after": (50,)},
}
"""Where the short form kills, in parts of a hundred."""


@pytest.fixture(params=LEAST)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def killing(
    request: pytest.FixtureRequest, place: str, tmp_path: Path, faults_long: bool
) -> AsyncIterator[list[Lane]]:
    async with lanes(request, place, tmp_path, long=faults_long) as found:
        yield found


@pytest.mark.parametrize("case", CASES)
async def test_killed_and_finished(case: str, place: str, killing: list[Lane], faults_long: bool) -> None:
    numbers = [await lane.dying.count(**await CASES[case]("whole").ready(lane.db)) for lane in killing]
    number = max(numbers)
    assert min(numbers) >= (LEAST[place] if case in ("erasure", "batch") else 20)
    # Of SQLite's statements the one before the next is the one after the last.
    for when in ("before",) if place == "sqlite" else ("before", "after"):

        async def one(lane: Lane, place: int, when: str = when) -> bool:
            begun = CASES[case](f"{when}-{place}")
            killed = await lane.dying.at(place, when, **await begun.ready(lane.db))
            await begun.finish(lane.db)
            await begun.check(lane.db)
            return killed

        few = [number * part // 100 for part in SOME[case][when]]
        cut = await each(killing, range(1, 2 * number) if faults_long else few, number, one)
        assert cut >= number // 2 if faults_long else cut
    for lane in killing:
        await check_all(lane.db)

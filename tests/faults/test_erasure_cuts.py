"""Erasures, batches, rectifications: cancelled, on a full disk, on a server that dies: finished, and done once."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from cancelling import cancelled_at
from kills import Killers, Words, work
from lanes import CASES, Lane, check_all, each, lanes, opened

from datavern import ProviderError, RequestIncomplete
from datavern.testing import create_test_database
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import kill

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.timeout(3600),  # every place, on a machine that has other work
]


@pytest.fixture(params=["sqlite", "postgresql", "all"])
async def cutting(request: pytest.FixtureRequest, tmp_path: Path, faults_long: bool) -> AsyncIterator[list[Lane]]:
    async with lanes(request, str(request.param), tmp_path, long=faults_long) as found:
        yield found


# PyMongo's, of a task that is cancelled while it connects.
@pytest.mark.filterwarnings("ignore:unclosed (<socket|transport):ResourceWarning")
@pytest.mark.parametrize("case", CASES)
async def test_cancelled_at_an_await(case: str, cutting: list[Lane], faults_long: bool) -> None:
    """Finished by the process where it was cancelled, or by another one, which knows nothing of it."""
    number = 0
    for lane in cutting:
        whole = CASES[case]("whole")
        job = await whole.ready(lane.db)
        number = max(number, (await cancelled_at(None, work(lane.db, job)))[1])
        await whole.check(lane.db)
        warm = CASES[case]("warm")
        await lane.dying.count(**await warm.ready(lane.db))
    assert number > 20

    async def one(lane: Lane, place: int) -> bool:
        begun = CASES[case](f"cancelled-{place}")
        job = await begun.ready(lane.db)
        cancelled, _ = await cancelled_at(place, work(lane.db, job))
        if place % 2:
            await begun.finish(lane.db)
        else:
            await lane.dying.do(**job)
        await begun.check(lane.db)
        return cancelled

    few = [number * part // 100 for part in (15, 40, 65, 90)]
    cut = await each(cutting, range(1, 2 * number) if faults_long else few, number, one)
    assert cut >= number // 2 if faults_long else cut
    for lane in cutting:
        await check_all(lane.db)
    gc.collect()  # what is left open is told here, and of no other test


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("when", ["page", "full"])
async def test_a_page_that_is_not_written(
    case: str, when: str, request: pytest.FixtureRequest, tmp_path: Path, faults_long: bool
) -> None:
    """In the middle of what SQLite writes at a commit, the journal's and the keys' among it."""
    async with lanes(request, "sqlite", tmp_path, long=faults_long) as found:
        number = 0
        for lane in found:
            await lane.dying.count(**await CASES[case]("warm").ready(lane.db))
            job = await CASES[case]("whole").ready(lane.db)
            await emptied(lane)
            assert await work(lane.db, job)
            logs = [Path(f"{settings['path']}-wal") for settings in lane.databases.values()]
            number = max(number, *(log.stat().st_size // 4120 for log in logs))
        assert number > 10

        async def one(lane: Lane, place: int) -> bool:
            begun = CASES[case](f"{when}-{place}")
            job = await begun.ready(lane.db)
            await emptied(lane)
            again = {"again": True} if when == "full" and place % 2 else {}
            cut = await lane.dying.at(place, when, **job, **again)
            if not again:
                await begun.finish(lane.db)
            await begun.check(lane.db)
            return cut

        few = [max(1, number * part // 100) for part in (5, 50, 90)]
        cut = await each(found, range(1, 2 * number) if faults_long else few, number, one)
        assert cut >= number // 2 if faults_long else cut
        for lane in found:
            await check_all(lane.db)
            for settings in lane.databases.values():
                with sqlite3.connect(settings["path"]) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
                connection.close()


async def emptied(lane: Lane) -> None:
    """Empty the write-ahead logs, so that their pages can be counted."""
    for name in lane.databases:
        assert (await lane.db[name].query("PRAGMA wal_checkpoint(TRUNCATE)"))[0][0] == 0


# ---- a server that dies ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer() as server:
        yield server


@pytest.mark.parametrize("case", CASES)
async def test_the_server_dies(
    case: str, mortal: PostgreSQLServer, killers: Killers, tmp_path: Path, faults_long: bool
) -> None:
    """Every process of it at once, at something that is said to it; the client lives, and is told what is left."""
    async with AsyncExitStack() as stack:
        databases: dict[str, Any] = {}
        for name in ("main", "other"):
            made = await stack.enter_async_context(create_test_database("postgresql", server=mortal))
            databases[name] = dict(made.settings)
        lane = await stack.enter_async_context(opened(killers, databases, tmp_path / "keys"))
        assert await work(lane.db, await CASES[case]("warm").ready(lane.db))  # what is said once is said
        words = Words(0, "before")
        job = await CASES[case]("whole").ready(lane.db)
        with words.watch():
            words.armed = True
            assert await work(lane.db, job)
        number = words.said
        assert number > 20
        for when in ("before", "after"):

            async def one(lane: Lane, place: int, when: str = when) -> bool:
                begun = CASES[case](f"{when}-{place}")
                job = await begun.ready(lane.db)
                died = asyncio.Event()

                def die() -> None:
                    kill(mortal)
                    died.set()

                async def back() -> None:
                    await died.wait()
                    await asyncio.to_thread(mortal.start)

                starting = asyncio.ensure_future(back())
                words = Words(place, when, die)
                with words.watch():
                    words.armed = True
                    with suppress(ProviderError, RequestIncomplete):
                        await work(lane.db, job)
                    words.armed = False
                if died.is_set():
                    await starting
                else:
                    starting.cancel()
                await begun.finish(lane.db)
                await begun.check(lane.db)
                return died.is_set()

            step = 3 if when == "before" else 2
            few = [number * (60 if when == "before" else 90) // 100]
            cut = await each([lane], range(1, 2 * number, step) if faults_long else few, number, one)
            assert cut >= number // 2 // step if faults_long else cut
        await check_all(lane.db)

"""Opening a database's lanes, and ending them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from datavern.engines.sqlite.jobs import Job, Kind, forget, run_function
from datavern.engines.sqlite.lanes import Lanes
from datavern.engines.sqlite.settings import MEMORY, SQLiteSettings
from datavern.engines.sqlite.writer import Writer

if TYPE_CHECKING:
    from datavern.engines.sqlite.streams import Stream
    from datavern.engines.sqlite.transactions import SQLiteTransaction

__all__ = ["close_lanes", "open_lanes"]

_PATIENCE = 5.0  # seconds that closing waits for what runs, before it interrupts it


async def open_lanes(name: str, settings: SQLiteSettings, kinds: dict[str, Kind]) -> Lanes:
    """The lanes of a database, open.

    Args:
        name: the provider's.
        settings: its settings.
        kinds: of statements' texts, as far as they are known.

    Raises:
        ConfigurationError, ConnectionFailed: as `SQLiteProvider.connect`.
    """
    loop = asyncio.get_running_loop()
    path = MEMORY if settings.in_memory else os.path.abspath(settings.path)  # noqa: PTH100, ASYNC240  (no I/O)
    lanes = Lanes(name, path, settings, loop)
    lanes.kinds = kinds
    lanes.writer = writer = Writer(lanes)
    writer.start()
    try:
        await asyncio.wait([writer.opened])
        writer.opened.result()
        if not settings.in_memory:
            reader = lanes.start_reader(lanes.reads)
            lanes.shared.append(reader)
            await asyncio.wait([reader.opened])
            reader.opened.result()
    except BaseException:
        for lane in (writer, *lanes.readers):
            lane.stop()
            forget(lane.opened)
        raise
    return lanes


async def close_lanes(lanes: Lanes, holders: set[SQLiteTransaction | Stream]) -> None:
    """End them: see `SQLiteProvider.close`.

    Args:
        lanes: which take nothing more from here on.
        holders: those who hold one of them; they are let go.
    """
    lanes.closing = True
    for holder in holders:
        holder.shut()
    holders.clear()
    while lanes.waiters:
        waiter = lanes.waiters.popleft()
        if not waiter.done():
            waiter.set_exception(lanes.refuse())
    while lanes.reads:
        lanes.reads.popleft().fail(lanes.refuse())
    for reader in lanes.readers:
        reader.stop()
        reader.interrupt(None)
    try:
        await _ended([reader.closed for reader in lanes.readers], lanes.readers)
    finally:  # whoever cancels this leaves the writer to end by itself
        if not lanes.settings.in_memory:
            last = Job(lanes.loop, run_function, _last_checkpoint, (), Kind.ALONE)
            lanes.writer.queue.append(last)
        lanes.writer.stop()
    await _ended([lanes.writer.closed], [lanes.writer])


async def _ended(closed: list[asyncio.Future[None]], lanes: list[Any]) -> None:
    """Wait for the lanes' ends; interrupt what holds them up, and leave alone what not even that stops."""
    if not closed:
        return
    for _ in range(3):
        _, pending = await asyncio.wait(closed, timeout=_PATIENCE)
        if not pending:
            break
        for lane in lanes:
            lane.interrupt(None)
    for lane in lanes:
        if lane.closed.done():
            lane.join()


def _last_checkpoint(connection: sqlite3.Connection) -> None:
    """Cut the log, unless another process reads from it: closing does not wait for that."""
    connection.execute("PRAGMA busy_timeout = 0")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

"""What tests wait for: on the thing itself, with room for a machine that is slow for a moment."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any

from datavern import ConnectionFailed

DEADLINE = 60.0  # seconds: nothing is told from it but that a test hangs

_WAITING = {
    "postgresql": (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ),
    "azuresql": "SELECT COUNT(*) FROM sys.dm_exec_requests WHERE database_id = DB_ID() AND wait_type LIKE 'LCK%'",
}


async def until(condition: Callable[[], Any]) -> None:
    """Until something holds that has no event. `condition` may be a coroutine function: what a server says."""
    async with asyncio.timeout(DEADLINE):
        while True:
            holds = condition()
            if inspect.isawaitable(holds):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.01)


async def settled(provider: Any) -> None:
    """Until every connection of the pool is back and as new: resets and rollbacks are made in the background."""

    def back() -> bool:
        stats = provider.stats()
        return not stats.connecting and stats.idle == stats.size

    await until(back)


async def waits(provider: Any) -> None:
    """Until somebody in this database waits for a lock; SQLite does not tell."""
    await until(lambda: provider.query_value(_WAITING[provider.engine]))


async def again(ask: Callable[[], Any]) -> Any:
    """What a question to a provider gives, once a connection that was not ended or cut is there to carry it."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(ConnectionFailed):
                return await ask()

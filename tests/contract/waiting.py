"""What tests wait for on a server."""

from __future__ import annotations

import asyncio
from typing import Any

_WAITING = {
    "postgresql": (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ),
    "azuresql": "SELECT COUNT(*) FROM sys.dm_exec_requests WHERE database_id = DB_ID() AND wait_type LIKE 'LCK%'",
}


async def waits(provider: Any) -> None:
    """Until somebody in this database waits for a lock; SQLite does not tell."""
    while not await provider.query_value(_WAITING[provider.engine]):  # noqa: ASYNC110  (the server has no event for it)
        await asyncio.sleep(0.01)

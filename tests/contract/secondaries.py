"""Databases that stand in for another in tests which are not about replication."""

from __future__ import annotations

from datavern.testing import EmptyDatabase


async def stand_in(database: EmptyDatabase) -> None:
    """Let a database take no writes, by its server's own word. A SQLite file has no such word: the label decides."""
    if database.engine == "postgresql":
        async with database.provider() as admin:
            name = await admin.query_value("SELECT current_database()")
            await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

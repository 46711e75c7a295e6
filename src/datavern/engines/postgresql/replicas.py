"""Which replicas have replayed what: a rotation destroys no key that one of them would still need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["PostgreSQLReplicas"]

_POSITION = """
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_insert_lsn()::text END
"""
_REPLAYED = """
SELECT pg_catalog.pg_last_wal_replay_lsn() >= $1::text::pg_lsn WHERE pg_catalog.pg_is_in_recovery()
"""
# pg_stat_replication and pg_replication_slots (PostgreSQL 18 documentation, 27.2.4 and 53.20). What a user may not see
# there is NULL.
_SENDERS = """
SELECT coalesce(application_name, '(a name that this user may not see)'), state,
    coalesce(replay_lsn >= $1::text::pg_lsn, false), pid IS NOT NULL AND state IS NULL
FROM pg_catalog.pg_stat_replication
"""
_SLOTS = """
SELECT slot_name FROM pg_catalog.pg_replication_slots
WHERE NOT active AND NOT coalesce(restart_lsn >= $1::text::pg_lsn, false)
"""


class PostgreSQLReplicas:
    """`datavern.contracts.capabilities.Replicas` on PostgreSQL.

    Args:
        provider: one server.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: PostgreSQLProvider) -> None:
        self._provider = provider

    async def position(self) -> str | None:
        """How far this server has written; None on a replica."""
        found: str | None = await self._provider.query_value(_POSITION)
        return found

    async def behind(self, position: str) -> list[str]:
        """What has not replayed that position: this server, or, on a primary, those that follow it."""
        own = await self._provider.query_value(_REPLAYED, [position])
        if own is not None:
            return [] if own else [f"{self._provider.name} has not replayed it yet"]
        waiting = []
        for name, state, replayed, hidden in await self._provider.query(_SENDERS, [position]):
            if hidden:
                waiting.append(f"a replica of {self._provider.name} cannot be asked: GRANT pg_monitor to the user")
            elif not replayed:
                waiting.append(f"the replica {name} of {self._provider.name} has not replayed it yet ({state})")
        for (slot,) in await self._provider.query(_SLOTS, [position]):
            waiting.append(
                f"the replication slot {slot} of {self._provider.name} waits for a replica that is not connected: "
                "bring it back, or drop the slot"
            )
        return waiting

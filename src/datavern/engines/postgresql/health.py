"""What a server says of its role, its timeline and its position, on a connection that no borrower ever gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import DatavernError
from datavern.contracts.roles import Standing
from datavern.engines.postgresql.connection import PostgreSQLConnector
from datavern.engines.postgresql.errors import fault
from datavern.engines.postgresql.statements import Effect
from datavern.engines.standing import PooledRoles, PooledWatch

if TYPE_CHECKING:
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["PostgreSQLRoles"]

# The timeline of a primary is that of the file it writes to: the control file learns of a promotion with the next
# checkpoint only. A standby's own is what it receives, where its role may see that, and never less than its control
# file's. pg_last_wal_replay_lsn stays, on a server that was promoted, at the end of its recovery: where its timeline
# began. Positions are bytes from 0/0. Source: PostgreSQL 18 documentation, 9.28 System Administration Functions.
_ASK = """
SELECT recovering, read_only, version, system,
       CASE WHEN recovering
            THEN greatest((SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
                          (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
                          received)
            ELSE ('x' || pg_catalog.substr(
                     pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
       END AS timeline,
       CASE WHEN recovering THEN NULL ELSE (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint END AS written,
       (replayed - '0/0')::bigint AS replayed,
       (pg_catalog.pg_last_wal_receive_lsn() - '0/0')::bigint AS received_to,
       following
FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovering,
             pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
             pg_catalog.current_setting('server_version') AS version,
             (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system,
             pg_catalog.pg_last_wal_replay_lsn() AS replayed,
             (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver) AS received,
             EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) AS following
      OFFSET 0) AS said
"""


class PostgreSQLRoles(PooledRoles):
    """See `datavern.contracts.roles.Roles`."""

    read_only = "25006"  # read_only_sql_transaction

    def watch(self, lost: Callable[[], None]) -> PostgreSQLWatch:
        """Somebody who asks this server."""
        return PostgreSQLWatch(self._provider, lost)

    async def ask(self) -> Standing:
        """Ask on a connection of the pool."""
        self._provider._effects.setdefault(_ASK, Effect.READS)  # noqa: SLF001  (it leaves nothing behind)
        return _standing(await self._provider.query_one(_ASK))


class PostgreSQLWatch(PooledWatch):
    """See `datavern.contracts.roles.Watch`. The driver tells when the connection breaks, and so does this."""

    def __init__(self, provider: PostgreSQLProvider, lost: Callable[[], None]) -> None:
        super().__init__(provider, lost)
        self._connector = PostgreSQLConnector(provider.settings)

    async def _connect(self) -> Any:
        made: list[Any] = []

        def lost() -> None:
            if made and made[0] is self._connection:  # one that was closed here is no news
                self._lost()

        made.append(await self._connector.connect(lost))
        return made[0]

    def _gone(self, connection: Any) -> bool:
        return bool(connection.is_closed())

    async def _answer(self, connection: Any) -> Standing:
        return _standing(await connection.fetchrow(_ASK))

    def _failure(self, error: Exception) -> DatavernError:
        return fault(error, name=self._provider.name, stage="statement", effect=Effect.READS).error

    def _leave(self, connection: Any) -> None:
        self._connector.abort(connection)


def _standing(row: Any) -> Standing:
    recovering = row["recovering"]
    facts = {"in_recovery": recovering}
    if recovering and row["received_to"] is not None:
        facts["received"] = row["received_to"]
    return Standing(
        writable=not (recovering or row["read_only"]),
        system=row["system"],
        timeline=row["timeline"],
        position=row["replayed"] if recovering else row["written"],
        began=None if recovering else row["replayed"],
        replica=recovering,
        following=row["following"] if recovering else None,
        version=f"PostgreSQL {row['version']}",
        facts=facts,
    )

"""What a server says of its role, its timeline and its position, on a connection that no borrower ever gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConnectionFailed, DatavernError, ProviderError
from datavern.contracts.roles import Standing
from datavern.engines.postgresql.connection import PostgreSQLConnector
from datavern.engines.postgresql.errors import fault
from datavern.engines.postgresql.statements import Effect

if TYPE_CHECKING:
    import asyncpg

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


class PostgreSQLRoles:
    """See `datavern.contracts.roles.Roles`."""

    def __init__(self, provider: PostgreSQLProvider) -> None:
        self._provider = provider

    def watch(self, lost: Callable[[], None]) -> PostgreSQLWatch:
        """Somebody who asks this server."""
        return PostgreSQLWatch(self._provider, lost)

    async def ask(self) -> Standing:
        """Ask on a connection of the pool."""
        self._provider._effects.setdefault(_ASK, Effect.READS)  # noqa: SLF001  (it leaves nothing behind)
        return _standing(await self._provider.query_one(_ASK))

    def reads(self, sql: str) -> bool:
        """Whether the text is known to change nothing."""
        return self._provider._effects.get(sql) is Effect.READS  # noqa: SLF001  (a part of the engine)

    def refused_write(self, error: ProviderError) -> bool:
        """read_only_sql_transaction."""
        return error.code == "25006"

    def sever(self) -> None:
        """Abort every connection of the pool, those in use, too, and make none."""
        self._provider._pool.sever()  # noqa: SLF001  (a part of the engine)

    def hold(self) -> None:
        """Let the pool make no connections."""
        self._provider._pool.hold()  # noqa: SLF001  (a part of the engine)

    def mend(self) -> None:
        """Let the pool make connections again."""
        pool = self._provider._pool  # noqa: SLF001  (a part of the engine)
        if pool.severed:
            pool.mend()


class PostgreSQLWatch:
    """See `datavern.contracts.roles.Watch`."""

    def __init__(self, provider: PostgreSQLProvider, lost: Callable[[], None]) -> None:
        self._provider = provider
        self._lost = lost
        self._connector = PostgreSQLConnector(provider.settings)
        self._connection: asyncpg.Connection | None = None

    @property
    def shut(self) -> bool:
        """Whether the provider is closed."""
        return bool(self._provider._pool.closed)  # noqa: SLF001  (a part of the engine)

    async def ask(self) -> Standing:
        """One round trip; sign-in before it where there is no connection.

        Raises:
            DatavernError: no answer.
        """
        name = self._provider.name
        if self.shut:
            self.close()
            raise ConnectionFailed(f"{name} is not open", provider=name)
        connection = self._connection
        if connection is None or connection.is_closed():
            self._connection = connection = await self._connect()
        try:
            row = await connection.fetchrow(_ASK)
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            failure: DatavernError = fault(error, name=name, stage="statement", effect=Effect.READS).error
        except BaseException:
            self.close()  # its answer may still come
            raise
        else:
            return _standing(row)
        self.close()
        raise failure

    async def _connect(self) -> asyncpg.Connection:
        made: list[Any] = []

        def lost() -> None:
            if made and made[0] is self._connection:  # one that was closed here is no news
                self._lost()

        made.append(await self._connector.connect(lost))
        return made[0]

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
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

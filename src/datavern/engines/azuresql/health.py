"""What a database says of its role, on a connection that no borrower ever gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConnectionFailed, DatavernError, ProviderError
from datavern.contracts.roles import Standing
from datavern.engines.azuresql.connection import AzureSQLConnector
from datavern.engines.azuresql.errors import fault
from datavern.engines.azuresql.numbers import READ_ONLY
from datavern.engines.azuresql.statements import Effect

if TYPE_CHECKING:
    from datavern.engines.azuresql.connection import AzureSQLConnection
    from datavern.engines.azuresql.provider import AzureSQLProvider

__all__ = ["ASK", "AzureSQLRoles", "standing"]

ASK: Final = "SELECT DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS updateability, @@VERSION AS version"
"""READ_ONLY is what the readable secondary of an active geo-replication says, and that of a tier's read scale-out."""


class AzureSQLRoles:
    """See `datavern.contracts.roles.Roles`."""

    def __init__(self, provider: AzureSQLProvider) -> None:
        self._provider = provider

    def watch(self, lost: Callable[[], None]) -> AzureSQLWatch:
        """Somebody who asks this server."""
        return AzureSQLWatch(self._provider, lost)

    async def ask(self) -> Standing:
        """Ask on a connection of the pool."""
        return standing(await self._provider.query_one(ASK))

    def reads(self, sql: str) -> bool:
        """Whether the text is known to change nothing."""
        return self._provider._effects.get(sql) is Effect.READS  # noqa: SLF001  (a part of the engine)

    def refused_write(self, error: ProviderError) -> bool:
        """Failed to update database because the database is read-only."""
        return error.code == str(READ_ONLY)

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


class AzureSQLWatch:
    """See `datavern.contracts.roles.Watch`. The drivers do not tell when a connection breaks: asking does."""

    def __init__(self, provider: AzureSQLProvider, lost: Callable[[], None]) -> None:
        self._provider = provider
        self._lost = lost
        self._connector = AzureSQLConnector(provider.settings, patient=False)
        self._connection: AzureSQLConnection | None = None

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
        if connection is None:
            self._connection = connection = await self._connector.connect(self._lost)
        try:
            answer = await connection.call(connection.wire.run, ASK, ())
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            failure: DatavernError = fault(error, name=name, stage="statement", effect=Effect.READS).error
        except BaseException:
            self.close()  # its answer may still come
            raise
        else:
            return standing(answer.sets[0][0])
        self.close()
        raise failure

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave()


def standing(row: Any) -> Standing:
    """What the answer to `ASK` says."""
    said = row["updateability"]
    writable = said == "READ_WRITE"
    return Standing(
        writable=writable,
        replica=not writable,
        version=str(row["version"]).partition("\n")[0].strip(),
        facts={"updateability": said},
    )

"""What a database says of its role, on a connection that no borrower ever gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import DatavernError
from datavern.contracts.roles import Standing
from datavern.engines.azuresql.connection import AzureSQLConnector
from datavern.engines.azuresql.errors import fault
from datavern.engines.azuresql.numbers import READ_ONLY
from datavern.engines.azuresql.statements import Effect
from datavern.engines.standing import PooledRoles, PooledWatch

if TYPE_CHECKING:
    from datavern.engines.azuresql.provider import AzureSQLProvider

__all__ = ["ASK", "AzureSQLRoles", "standing"]

ASK: Final = "SELECT DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS updateability, @@VERSION AS version"
"""READ_ONLY is what the readable secondary of an active geo-replication says, and that of a tier's read scale-out."""


class AzureSQLRoles(PooledRoles):
    """See `datavern.contracts.roles.Roles`."""

    read_only = str(READ_ONLY)  # Failed to update database because the database is read-only.

    def watch(self, lost: Callable[[], None]) -> AzureSQLWatch:
        """Somebody who asks this server."""
        return AzureSQLWatch(self._provider, lost)

    async def ask(self) -> Standing:
        """Ask on a connection of the pool."""
        return standing(await self._provider.query_one(ASK))


class AzureSQLWatch(PooledWatch):
    """See `datavern.contracts.roles.Watch`. The drivers do not tell when a connection breaks: asking does."""

    def __init__(self, provider: AzureSQLProvider, lost: Callable[[], None]) -> None:
        super().__init__(provider, lost)
        self._connector = AzureSQLConnector(provider.settings, patient=False)

    async def _connect(self) -> Any:
        return await self._connector.connect(self._lost)

    async def _answer(self, connection: Any) -> Standing:
        answer = await connection.call(connection.wire.run, ASK, ())
        return standing(answer.sets[0][0])

    def _failure(self, error: Exception) -> DatavernError:
        return fault(error, name=self._provider.name, stage="statement", effect=Effect.READS).error

    def _leave(self, connection: Any) -> None:
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

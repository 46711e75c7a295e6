"""Azure SQL as the place of Datavern's own tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from datavern.engines.azuresql.dialect import dialect
from datavern.engines.azuresql.subjects import EXCLUDE
from datavern.engines.own_tables import RelationalLedger

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Session, Transaction

__all__ = ["LOCK", "AzureSQLLedger"]

LOCK: Final = """
DECLARE @taken int;
EXEC @taken = sp_getapplock @Resource = @P1, @LockMode = 'Exclusive', @LockOwner = 'Transaction', @LockTimeout = 0;
SELECT @taken;
"""
_NAMES: Final = """
SELECT o.name FROM sys.objects o WHERE o.type = 'U' AND o.schema_id = SCHEMA_ID()
UNION ALL
SELECT i.name FROM sys.indexes i JOIN sys.objects o ON o.object_id = i.object_id
WHERE o.type = 'U' AND o.schema_id = SCHEMA_ID() AND i.name IS NOT NULL
"""
_COLUMNS: Final = """
SELECT c.name FROM sys.columns c JOIN sys.objects o ON o.object_id = c.object_id
WHERE o.type = 'U' AND o.schema_id = SCHEMA_ID() AND o.name = @P1
"""
# On Azure the physical name changes when a database is restored or copied; elsewhere the day of its making does.
_IDENTITY: Final = """
SELECT CONCAT(d.physical_database_name, N'/', CONVERT(nvarchar(33), d.create_date, 126), N'/', d.service_broker_guid)
FROM sys.databases d WHERE d.name = DB_NAME()
"""


class AzureSQLLedger(RelationalLedger):
    """The order of commits is told by row versions: one below every open transaction's can get no neighbour.

    Source: Transact-SQL reference, ``rowversion`` and ``MIN_ACTIVE_ROWVERSION``.
    """

    stamp_type = "rowversion"
    stamp_default = ""  # the engine stamps by itself
    stamp_bytes = True
    settled = "stamp < MIN_ACTIVE_ROWVERSION()"

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect with ``@P1`` for parameters."""
        return dialect()

    async def names(self, tx: Session) -> set[str]:
        """The tables and indexes of the user's default schema."""
        return {row[0] for row in await tx.query(_NAMES)}

    async def columns(self, tx: Session, table: str) -> set[str]:
        """The columns of a table of the user's default schema."""
        return {row[0] for row in await tx.query(_COLUMNS, [table])}

    async def exclude(self, tx: Transaction) -> None:
        """Wait until nobody else makes tables in this database."""
        await tx.execute(EXCLUDE)

    async def lock(self, name: str, *, transaction: Transaction) -> bool:
        """Take the named lock until the transaction ends; False at once when another session holds it."""
        return int(await transaction.query_value(LOCK, [f"datavern lock {name}"])) >= 0

    async def identity(self) -> str:
        """What Azure calls the database that lies behind the name: another one after a restore or a copy."""
        return str(await self._provider.query_value(_IDENTITY))

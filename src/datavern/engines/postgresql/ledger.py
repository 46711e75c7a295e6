"""PostgreSQL as the place of Datavern's own tables."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from datavern.engines.own_tables import RelationalLedger
from datavern.engines.postgresql.subjects import EXCLUDE, dialect

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Session, Transaction

__all__ = ["PostgreSQLLedger"]


class PostgreSQLLedger(RelationalLedger):
    """The order of commits is told by transaction ids: one below every running transaction's can get no neighbour.

    Source: PostgreSQL 18 documentation, 9.27.10 (Transaction ID and Snapshot Information Functions).
    """

    stamp_type = "xid8"
    stamp_default = "pg_current_xact_id()"
    settled = "stamp < pg_snapshot_xmin(pg_current_snapshot())"

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect with ``$1`` for parameters."""
        return dialect()

    async def names(self, tx: Session) -> set[str]:
        """The tables and indexes that a name without a schema finds."""
        rows = await tx.query("SELECT c.relname::text FROM pg_catalog.pg_class c WHERE pg_table_is_visible(c.oid)")
        return {row[0] for row in rows}

    async def exclude(self, tx: Transaction) -> None:
        """Wait until nobody else makes tables in this database."""
        await tx.execute(EXCLUDE)

    async def lock(self, name: str, *, transaction: Transaction) -> bool:
        """Take the named lock until the transaction ends; False at once when another session holds it."""
        key = int.from_bytes(hashlib.sha256(f"datavern lock {name}".encode()).digest()[:8], "big", signed=True)
        return bool(await transaction.query_value("SELECT pg_try_advisory_xact_lock($1)", [key]))

    async def identity(self) -> str:
        """The cluster's system identifier: made by initdb, kept by replicas and physical copies."""
        return str(await self._provider.query_value("SELECT system_identifier FROM pg_control_system()"))

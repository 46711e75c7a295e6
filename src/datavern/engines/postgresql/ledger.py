"""PostgreSQL as the place of Datavern's own tables."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from datavern.engines.own_tables import RelationalLedger
from datavern.engines.postgresql.subjects import EXCLUDE, dialect

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Session, Transaction

__all__ = ["PostgreSQLLedger"]

_DEFAULT: Final = (
    "SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d "
    "JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum "
    "WHERE d.adrelid = pg_catalog.to_regclass($1) AND a.attname = $2"
)
_COLUMNS: Final = (
    "SELECT attname::text FROM pg_catalog.pg_attribute "
    "WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped"
)
_NUMBER: Final = re.compile(r"\'?([0-9]+)\'?(?:::bigint)?")


class PostgreSQLLedger(RelationalLedger):
    """The order of commits is told by transaction ids: one below every running transaction's can get no neighbour.

    Source: PostgreSQL 18 documentation, 9.27.10 (Transaction ID and Snapshot Information Functions).
    """

    stamp_type = "xid8"
    stamp_default = "pg_current_xact_id()"
    settled = "stamp < pg_snapshot_xmin(pg_current_snapshot())"
    sets_defaults = True
    rows_are_heaped = True

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect with ``$1`` for parameters."""
        return dialect()

    async def names(self, tx: Session) -> set[str]:
        """The tables and indexes that a name without a schema finds."""
        rows = await tx.query("SELECT c.relname::text FROM pg_catalog.pg_class c WHERE pg_table_is_visible(c.oid)")
        return {row[0] for row in rows}

    async def columns(self, tx: Session, table: str) -> set[str]:
        """The columns of the table that a name without a schema finds."""
        return {row[0] for row in await tx.query(_COLUMNS, [table])}

    async def default_of(self, session: Session, table: str, column: str) -> int | None:
        """The number that a column takes where an insert gives none; None where it has none."""
        text = await session.query_value(_DEFAULT, [table, column])
        digits = None if text is None else _NUMBER.fullmatch(text)
        return None if digits is None else int(digits[1])

    async def set_default(self, tx: Transaction, table: str, column: str, number: int, *, patience: float) -> None:
        """Have it take that number from the commit on. Waits for writers so many seconds, and others wait behind it."""
        await tx.execute(f"SET LOCAL lock_timeout = {round(patience * 1000)}")
        await tx.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {number:d}")

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

"""SQLite as the place of Datavern's own tables."""

from __future__ import annotations

import secrets
import sqlite3
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import QueryRejected
from datavern.engines.own_tables import RelationalLedger
from datavern.engines.sqlite.dialect import dialect

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Session, Transaction

__all__ = ["COLUMNS", "SQLiteLedger"]

COLUMNS = "SELECT name FROM pragma_table_info(?, 'main')"
"""Names of a table's columns."""


class SQLiteLedger(RelationalLedger):
    """One writer at a time, so whatever can be read is settled: nothing that is open can precede it."""

    stamp_type = "INTEGER"
    stamp_default = "0"
    settled = "1=1"
    seeks_in_parts = True  # `seq` is the row's number, which no comparison of several columns at once seeks by

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect with ``?`` for parameters."""
        return dialect()

    async def names(self, tx: Session) -> set[str]:
        """The tables and indexes that are there."""
        return {row[0] for row in await tx.query("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")}

    async def columns(self, tx: Session, table: str) -> set[str]:
        """The columns of a table."""
        return {row[0] for row in await tx.query(COLUMNS, [table])}

    async def exclude(self, tx: Transaction) -> None:
        """A transaction that writes keeps every other out."""

    async def lock(self, name: str, *, transaction: Transaction) -> bool:  # noqa: ARG002  (one lock is all of them)
        """Take the writer, which no other session can hold at the same time: every named lock at once."""
        await transaction.query_value("SELECT 1")  # begins it, if nothing has yet
        return True

    async def identity(self) -> str:
        """A random name that was given to the file when it was first asked for.

        It travels with the file: SQLite has no server whose identity would change when the file is restored elsewhere.
        """
        known: str | None
        try:
            known = await self._provider.query_value("SELECT id FROM datavern_identity")  # waits for no writer
        except QueryRejected:
            known = None  # there is no such table yet
        return known or await self._provider._run(_identity)  # noqa: SLF001  (one engine)


def _identity(connection: sqlite3.Connection) -> Any:
    connection.execute("CREATE TABLE IF NOT EXISTS datavern_identity (id TEXT NOT NULL)")
    connection.execute(
        "INSERT INTO datavern_identity (id) SELECT ? WHERE NOT EXISTS (SELECT * FROM datavern_identity)",
        [secrets.token_hex(16)],
    )
    return connection.execute("SELECT id FROM datavern_identity").fetchone()[0]

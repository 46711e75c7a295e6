"""How SQLAlchemy speaks to Azure SQL here."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["COLLATION", "KEY_BYTES", "KEY_TEXT", "dialect"]

COLLATION: Final = "Latin1_General_100_BIN2"
"""Text compares as it is written, letter case and all; it also sorts as RFC 3339's times do."""
KEY_TEXT: Final = f"nvarchar(450) COLLATE {COLLATION}"
"""Text in a key: 900 bytes, the most that a clustered index holds."""
KEY_BYTES: Final = "varbinary(255)"


@cache
def dialect() -> Dialect:
    """SQLAlchemy's dialect for SQL Server, with ``@P1`` for parameters."""
    from datavern.engines.azuresql.compiler import AzureSQLDialect  # noqa: PLC0415  (with the first own statement)

    return AzureSQLDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so

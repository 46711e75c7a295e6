"""How SQLAlchemy speaks to SQLite here."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["dialect"]


@cache
def dialect() -> Dialect:
    """SQLAlchemy's dialect for SQLite, with ``?`` for parameters."""
    from sqlalchemy.dialects.sqlite.base import SQLiteDialect  # noqa: PLC0415  (loaded with the first own statement)

    return SQLiteDialect(paramstyle="qmark")

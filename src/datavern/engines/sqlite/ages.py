"""Rows of SQLite's tables by their age: dates are text there, by ISO 8601, whatever the column is declared as."""

from __future__ import annotations

import datetime as dt

from datavern.engines.ages import RelationalAges
from datavern.engines.sqlite.subjects import affinity

__all__ = ["SQLiteAges"]


class SQLiteAges(RelationalAges):
    """`Ages` on SQLite. A number (seconds since 1970, a Julian day) is no date here."""

    __slots__ = ()

    def day(self, kind: str, day: dt.date) -> str | None:
        """The beginning of a day as text; a column that is declared as DATE or TIMESTAMP keeps text as it is."""
        dated = kind.startswith(("date", "timestamp"))
        return day.isoformat() if dated or affinity(kind) in {"TEXT", "ANY"} else None

"""Moments as SQLite keeps them: text, with a zone or without."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.contracts.people import Window
    from datavern.contracts.stores import Column

__all__ = ["moments"]

_FORM: Final = "%Y-%m-%d %H:%M:%f"


def moments(column: Column, expression: Any, window: Window) -> list[Any]:
    """The conditions of a window, to the millisecond, on what SQLite's own functions read as a moment.

    What has no zone is in UTC, as it is to SQLite. A value that is no moment is in no window.

    Raises:
        ConfigurationError: the column holds bytes.
    """
    if "blob" in column.type.lower():
        raise ConfigurationError(f"window: the column {column.name} holds {column.type}, and no moments")
    import sqlalchemy as sa  # noqa: PLC0415  (loaded when the first statement is built)

    moment = sa.func.strftime(_FORM, expression)
    return [
        *([moment >= _text(window.since)] if window.since is not None else []),
        *([moment < _text(window.until)] if window.until is not None else []),
    ]


def _text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"

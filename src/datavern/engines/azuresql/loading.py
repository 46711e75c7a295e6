"""What a bulk load sends: the columns of a table as it stands, and values that are theirs already.

A bulk load has no conversions to speak of: each value is sent as its column's own type. So only values that the server
would keep as they are go that way; with any other the rows go as parameters, and the server makes of it what it does.
"""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, Final

__all__ = ["COLUMNS", "LoadColumn", "Unlike", "load_columns", "loadable"]

COLUMNS: Final = """
SELECT c.name, TYPE_NAME(c.system_type_id) AS type, c.max_length AS length, c.precision AS precision, c.scale AS scale,
       c.is_nullable AS nullable, c.is_identity AS counted, c.is_computed AS computed
FROM sys.columns c JOIN sys.tables t ON t.object_id = c.object_id
WHERE c.object_id = OBJECT_ID(@P1)
"""
"""Of a table. A view, and a temporary table, which another database holds, have none here."""

_MAX: Final = -1
_MOST_TEXT: Final = 4000
_RANGES: Final = {"tinyint": (0, 255), "smallint": (-(2**15), 2**15 - 1), "int": (-(2**31), 2**31 - 1),
                  "bigint": (-(2**63), 2**63 - 1)}  # fmt: skip
_EXACT_FLOAT: Final = 2**53


class Unlike(Exception):
    """A value is not of its column's type, or does not fit into it."""


@dataclass(frozen=True)
class LoadColumn:
    """A column that can be loaded.

    Attributes:
        name: its name, not quoted.
        declaration: its type, as it is sent: ``nvarchar(50)``.
        kind: the type's name; "max" after it where it has no bound.
        size: characters of a text, bytes of bytes; 0 for others.
        precision: digits of a decimal.
        scale: digits after its point, or of a second's parts.
        nullable: whether it takes NULL.
    """

    name: str
    declaration: str
    kind: str
    size: int = 0
    precision: int = 0
    scale: int = 0
    nullable: bool = True

    def value(self, value: Any) -> Any:
        """A value as it is sent. It is one that a parameter could be (`values.bound`).

        Raises:
            Unlike: only the server knows what to make of it.
        """
        if value is None:
            if not self.nullable:
                raise Unlike
            return None
        return _VALUES[self.kind](self, value)


def load_columns(rows: Iterable[Any], names: Sequence[str]) -> list[LoadColumn] | None:
    """The columns of those names, in their order; None where one of them is not there, or can only be inserted into.

    Args:
        rows: what the server says to `COLUMNS`.
        names: of the columns that are given.
    """
    there = {row["name"]: row for row in rows}
    folded: dict[str, list[Any]] = {}
    for name, row in there.items():
        folded.setdefault(name.casefold(), []).append(row)
    found = []
    for name in names:
        alike = [there[name]] if name in there else folded.get(name.casefold(), [])
        column = (
            _column(alike[0]) if len(alike) == 1 else None
        )  # two that differ in case: the server's comparison tells
        if column is None:
            return None
        found.append(column)
    return found if len({column.name for column in found}) == len(found) else None


def loadable(columns: Sequence[LoadColumn], rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Rows as they are sent.

    Raises:
        Unlike: a value is not of its column's type: its place (row, column), counted from 0, is in the arguments.
    """
    found = []
    makes = [column.value for column in columns]
    for number, row in enumerate(rows):
        made = []
        for place, (make, value) in enumerate(zip(makes, row, strict=True)):
            try:
                made.append(make(value))
            except Unlike:
                raise Unlike(number, place) from None
        found.append(tuple(made))
    return found


def _column(row: Any) -> LoadColumn | None:
    kind, length, name = row["type"], row["length"], row["name"]
    found: LoadColumn | None = None
    if row["counted"] or row["computed"] or any(c > "\uffff" for c in name):
        return None
    nullable = bool(row["nullable"])
    if kind in {"nvarchar", "varchar", "varbinary"}:
        size = length // 2 if kind == "nvarchar" and length != _MAX else length
        sent = "varbinary" if kind == "varbinary" else "nvarchar"
        if size == _MAX:
            found = LoadColumn(name, f"{sent}(max)", f"{kind}max", nullable=nullable)
        elif sent == "varbinary" or size <= _MOST_TEXT:
            found = LoadColumn(name, f"{sent}({size})", kind, size, nullable=nullable)
    elif kind in {"decimal", "numeric"}:
        precision, scale = row["precision"], row["scale"]
        found = LoadColumn(name, f"decimal({precision},{scale})", "decimal", 0, precision, scale, nullable)
    elif kind in {"time", "datetime2", "datetimeoffset"}:
        found = LoadColumn(name, f"{kind}({row['scale']})", kind, scale=row["scale"], nullable=nullable)
    elif kind in _VALUES:
        found = LoadColumn(name, kind, kind, nullable=nullable)
    return found


# ---- values ---------------------------------------------------------------------------------------------------------


def _text(column: LoadColumn, value: Any) -> str:
    if not isinstance(value, str):
        raise Unlike
    if column.kind.startswith("varchar") and not value.isascii():
        raise Unlike  # its code page decides
    if column.size and len(value) > column.size // 2 and len(value.encode("utf-16-le")) > 2 * column.size:
        raise Unlike
    return value


def _bytes(column: LoadColumn, value: Any) -> bytes:
    if not isinstance(value, bytes) or (column.size and len(value) > column.size):
        raise Unlike
    return value


def _whole(column: LoadColumn, value: Any) -> int:
    low, high = _RANGES[column.kind]
    if not isinstance(value, int) or not low <= value <= high:
        raise Unlike
    return int(value)


def _bit(column: LoadColumn, value: Any) -> int:  # noqa: ARG001  (as the others)
    if not isinstance(value, int) or value not in {0, 1}:
        raise Unlike
    return int(value)


def _float(column: LoadColumn, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unlike
    if isinstance(value, int) and abs(value) > _EXACT_FLOAT:
        raise Unlike
    if column.kind == "real":
        try:
            struct.pack("<f", value)
        except (OverflowError, struct.error):
            raise Unlike from None
    return float(value)


def _decimal(column: LoadColumn, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Unlike
    with localcontext() as context:
        context.prec = 100
        found = Decimal(value)
        scaled = found.scaleb(column.scale)
        if scaled != scaled.to_integral_value() or len(str(abs(int(scaled)))) > column.precision:
            raise Unlike
    return found


def _date(column: LoadColumn, value: Any) -> dt.date:  # noqa: ARG001  (as the others)
    if isinstance(value, dt.datetime) or not isinstance(value, dt.date):
        raise Unlike
    return value


def _time(column: LoadColumn, value: Any) -> dt.time:
    if not isinstance(value, dt.time) or value.tzinfo is not None or not _fine(column, value.microsecond):
        raise Unlike
    return value


def _moment(column: LoadColumn, value: Any) -> dt.datetime:
    if not isinstance(value, dt.datetime) or not _fine(column, value.microsecond):
        raise Unlike
    if column.kind == "datetime2":
        return value.replace(tzinfo=None)  # the clock's time stays, as it does when the server makes one of the other
    offset = value.utcoffset()
    if offset is None:
        return value.replace(tzinfo=dt.UTC)
    if offset.total_seconds() % 60:
        raise Unlike
    try:
        value.astimezone(dt.UTC)
    except OverflowError:
        raise Unlike from None
    return value


def _fine(column: LoadColumn, microsecond: int) -> bool:
    """Whether the column has as many digits: what it has not, the server rounds."""
    return column.scale >= 6 or microsecond % 10 ** (6 - column.scale) == 0  # noqa: PLR2004  (microseconds)


def _uuid(column: LoadColumn, value: Any) -> uuid.UUID:  # noqa: ARG001  (as the others)
    if not isinstance(value, uuid.UUID):
        raise Unlike
    return value


_VALUES: Final[dict[str, Callable[[LoadColumn, Any], Any]]] = {
    **dict.fromkeys(("nvarchar", "varchar", "nvarcharmax", "varcharmax"), _text),
    **dict.fromkeys(("varbinary", "varbinarymax"), _bytes),
    **dict.fromkeys(_RANGES, _whole),
    **dict.fromkeys(("float", "real"), _float),
    **dict.fromkeys(("datetime2", "datetimeoffset"), _moment),
    "bit": _bit,
    "decimal": _decimal,
    "date": _date,
    "time": _time,
    "uniqueidentifier": _uuid,
}

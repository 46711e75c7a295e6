"""The columns of a bulk load as python-tds describes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from pytds import tds_types
from pytds.tds_base import Column

from datavern.engines.azuresql.loading import LoadColumn

__all__ = ["described"]


def described(columns: Sequence[LoadColumn]) -> list[Any]:
    """The columns for the driver, each of the type that the statement declares for it."""
    flags = (0, Column.fNullable)
    return [Column(name=c.name, type=_TYPES[c.kind](c), flags=flags[c.nullable]) for c in columns]


_TYPES: Final[dict[str, Callable[[LoadColumn], Any]]] = {
    **dict.fromkeys(("nvarchar", "varchar"), lambda c: tds_types.NVarCharType(size=c.size)),
    **dict.fromkeys(("nvarcharmax", "varcharmax"), lambda _: tds_types.NVarCharMaxType()),
    "varbinary": lambda c: tds_types.VarBinaryType(size=c.size),
    "varbinarymax": lambda _: tds_types.VarBinaryMaxType(),
    "bit": lambda _: tds_types.BitType(),
    "tinyint": lambda _: tds_types.TinyIntType(),
    "smallint": lambda _: tds_types.SmallIntType(),
    "int": lambda _: tds_types.IntType(),
    "bigint": lambda _: tds_types.BigIntType(),
    "real": lambda _: tds_types.RealType(),
    "float": lambda _: tds_types.FloatType(),
    "decimal": lambda c: tds_types.DecimalType(precision=c.precision, scale=c.scale),
    "date": lambda _: tds_types.DateType(),
    "time": lambda c: tds_types.TimeType(precision=c.scale),
    "datetime2": lambda c: tds_types.DateTime2Type(precision=c.scale),
    "datetimeoffset": lambda c: tds_types.DateTimeOffsetType(precision=c.scale),
    "uniqueidentifier": lambda _: tds_types.UniqueIdentifierType(),
}

"""The parameters of a statement as python-tds sends them."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

from pytds import tds_base, tds_types
from pytds.tds_types import Binary

from datavern.contracts.errors import QueryRejected

__all__ = ["parameter"]

_BIT, _INT, _BIGINT, _FLOAT = tds_types.BitType(), tds_types.IntType(), tds_types.BigIntType(), tds_types.FloatType()
_TEXT, _LONG_TEXT = tds_types.NVarCharType(size=4000), tds_types.NVarCharMaxType()
_BYTES, _LONG_BYTES = tds_types.VarBinaryType(size=8000), tds_types.VarBinaryMaxType()
_DATE, _TIME = tds_types.DateType(), tds_types.TimeType(precision=6)
_MOMENT, _ZONED = tds_types.DateTime2Type(precision=6), tds_types.DateTimeOffsetType(precision=6)
_UUID = tds_types.UniqueIdentifierType()


def parameter(name: str, value: Any) -> Any:  # noqa: C901  (one branch for each type)
    """A value with the type that it is declared as: few types, so that the server has few plans to keep.

    Args:
        name: as the statement names it: ``@P1``.
        value: what the driver is given; never None, which has no type.

    Raises:
        QueryRejected: a value of a type that there is no parameter for.
    """
    kind: Any
    if isinstance(value, str):
        short = len(value) <= 2000 or len(value.encode("utf-16-le")) <= 8000  # noqa: PLR2004  (nvarchar's bound)
        kind = _TEXT if short else _LONG_TEXT
    elif isinstance(value, bool):
        kind = _BIT
    elif isinstance(value, int):
        kind = _INT if -(2**31) <= value < 2**31 else _BIGINT
    elif isinstance(value, bytes):
        kind, value = (_BYTES if len(value) <= 8000 else _LONG_BYTES), Binary(value)  # noqa: PLR2004  (its bound)
    elif isinstance(value, float):
        kind = _FLOAT
    elif isinstance(value, dt.datetime):
        kind = _MOMENT if value.tzinfo is None else _ZONED
    elif isinstance(value, dt.date):
        kind = _DATE
    elif isinstance(value, dt.time):
        kind = _TIME
    elif isinstance(value, uuid.UUID):
        kind = _UUID
    elif isinstance(value, Decimal):
        kind = tds_types.DecimalType.from_value(value)
    else:
        raise QueryRejected(f"a parameter is a {type(value).__name__}")  # `values.bound` has let it through
    return tds_base.Param(name=name, type=kind, value=value)

"""What may be a parameter, checked before anything is sent: the drivers' own errors come late and quote the value."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from datavern.contracts.errors import QueryRejected

__all__ = ["bound", "positional"]

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1
_DIGITS: Final = 38
_PLAIN: Final = frozenset({bool, dt.date, dt.time, dt.datetime, uuid.UUID, type(None)})


def positional(parameters: Any, *, name: str) -> None:
    """Raises `QueryRejected` where parameters are not a list or a tuple."""
    if isinstance(parameters, Mapping | str | bytes) or not isinstance(parameters, Sequence):
        raise QueryRejected(
            f"{name}: Azure SQL takes parameters by position (@P1, @P2): expected a list or a tuple, not "
            f"{type(parameters).__name__}",
            provider=name,
        )


def bound(parameters: Sequence[Any], *, name: str, number: int = 0) -> list[Any]:
    """The parameters as a driver takes them.

    Args:
        parameters: of one run of a statement.
        name: the provider's, for messages.
        number: which run it is, counted from 1, where there are several.

    Raises:
        QueryRejected: one has no counterpart in T-SQL; the message says which and why, and never the value.
    """
    found = []
    for place, value in enumerate(parameters, 1):
        kind = type(value)
        if kind is str:
            if "\0" in value or not (value.isascii() or _whole(value)):
                raise _refused(name, place, number, _text_problem(value))
        elif kind is int:
            if not _SMALLEST <= value <= _LARGEST:
                raise _refused(name, place, number, "is a whole number of more than 64 bits: use a Decimal")
        elif kind is not bytes and kind not in _PLAIN:
            value, problem = _other(value)  # noqa: PLW2901  (the value as the driver takes it)
            if problem:
                raise _refused(name, place, number, problem)
        found.append(value)
    return found


def _other(value: Any) -> tuple[Any, str]:  # noqa: C901  (one branch for each type)
    """A value of another type than most, as the driver takes it; and what is wrong with it, or nothing."""
    plain: Any = value
    problem = ""
    if isinstance(value, float):
        plain = float(value)
        if not math.isfinite(plain):
            problem = "is not a finite number, and T-SQL's float holds no other"
    elif isinstance(value, Decimal):
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            problem = "is not a finite number, and T-SQL's decimal holds no other"
        elif max(len(digits) + max(exponent, 0), -exponent) > _DIGITS:
            problem = f"has more than {_DIGITS} digits, the most that T-SQL's decimal holds"
    elif isinstance(value, bytearray | memoryview | bytes):
        plain = bytes(value)
    elif isinstance(value, str):  # a StrEnum
        plain = str.__str__(value)
        problem = _text_problem(plain)
    elif isinstance(value, int):  # an IntEnum
        plain = int(value)
        if not _SMALLEST <= plain <= _LARGEST:
            problem = "is a whole number of more than 64 bits: use a Decimal"
    elif not isinstance(value, dt.date | dt.time | uuid.UUID):
        problem = f"is a {type(value).__name__}, which has no counterpart in T-SQL: pass text (json.dumps), or bytes"
    return plain, problem


def _whole(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _text_problem(text: str) -> str:
    if "\0" in text:
        return (
            "holds a NUL character, which is cut off on its way through T-SQL's functions: leave it out, or use bytes"
        )
    return "" if _whole(text) else "holds half a surrogate pair, which is not valid Unicode"


def _refused(name: str, place: int, number: int, problem: str) -> QueryRejected:
    where = f"parameter @P{place}" + (f" of set {number}" if number else "")
    return QueryRejected(f"{name}: {where} {problem}", provider=name)

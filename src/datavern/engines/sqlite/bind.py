"""Python values as SQLite holds them.

SQLite holds NULL, 64-bit integers, 64-bit floats, text and bytes. What Python has beyond that is bound as text:

=================  ====================================================================================
datetime           with a zone: RFC 3339 in UTC with microseconds and ``Z`` (it sorts as time does);
                   without one: the same without ``Z``
date, time         ISO 8601: ``2026-11-23``, ``13:37:00``
Decimal            its digits: ``str(value)``
UUID               lower case with hyphens
bool               1 or 0
=================  ====================================================================================

The standard library's own adapters do some of this, for the whole process and with a deprecation warning: they are
left alone, and nothing is registered globally.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from datavern.contracts.errors import QueryRejected
from datavern.contracts.values import Parameters, timestamp

__all__ = ["bound"]

_NATIVE = frozenset({type(None), int, float, bytes, bool})


def bound(parameters: Parameters) -> Any:
    """The parameters as the driver takes them: the very same object when nothing needs a change.

    Raises:
        QueryRejected: text with a NUL character, a type that SQLite has no form for, or no list of parameters.
    """
    kind = type(parameters)
    if kind is list or kind is tuple:
        for value in parameters:
            of = type(value)
            if of is str:
                if "\0" in value:
                    raise _nul()
            elif of not in _NATIVE:
                return [_adapted(v, i) for i, v in enumerate(parameters, 1)]
        return parameters
    if isinstance(parameters, Mapping):
        return {name: _adapted(value, f":{name}") for name, value in parameters.items()}
    if isinstance(parameters, str | bytes | bytearray) or not isinstance(parameters, Sequence):
        raise QueryRejected(f"parameters are a {kind.__name__}: expected a list, a tuple or a mapping of names")
    return [_adapted(v, i) for i, v in enumerate(parameters, 1)]


def _nul() -> QueryRejected:
    return QueryRejected("a text parameter holds a NUL character (U+0000), which no engine keeps: bind bytes instead")


def _adapted(value: Any, where: int | str) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise _nul()
        return value if type(value) is str else str.__str__(value)
    if value is None or isinstance(value, int | float | bytes | bytearray | memoryview):
        return value
    if isinstance(value, dt.datetime):
        return timestamp(value) if value.tzinfo else value.isoformat(timespec="microseconds")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    from decimal import Decimal  # noqa: PLC0415  (both wait for the first value that is neither of the above)
    from uuid import UUID  # noqa: PLC0415

    if isinstance(value, Decimal | UUID):
        return str(value)
    raise QueryRejected(
        f"parameter {where} is a {type(value).__qualname__}: SQLite takes None, bool, int, float, str, bytes, date, "
        "time, datetime, Decimal and UUID (write anything else as text, JSON for example)"
    )

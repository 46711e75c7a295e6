"""Values as bytes and back (FORMAT.md, 6): what comes out has the Python type that went in."""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

from datavern.contracts.errors import ConfigurationError, DecryptionFailed

__all__ = ["SURROGATE", "decode", "encode"]

_double = struct.Struct(">d")
_date = struct.Struct(">HBB")


def _int(value: int) -> bytes:
    return b"\x02" + value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True)


def _datetime(value: dt.datetime) -> bytes:
    return (b"\x07" if value.utcoffset() is None else b"\x08") + value.isoformat().encode()


def _time(value: dt.time) -> bytes:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise ConfigurationError("a time of day in a zone has no offset without its date: seal a datetime instead")
    return b"\x09" + value.isoformat().encode()


def _json(value: Any) -> bytes:
    problem = ""
    try:
        _check_json(value)
        return b"\x0c" + json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        problem = "a list or dict that is nested too deeply cannot be sealed"
    except UnicodeEncodeError:
        problem = SURROGATE
    except ValueError:  # the message of json quotes the value
        problem = "a list or dict that holds a float without a finite value cannot be sealed"
    raise ConfigurationError(problem)


def _check_json(value: Any) -> None:
    kind = type(value)
    if kind is dict:
        for key, inner in value.items():
            if type(key) is not str:
                raise ConfigurationError(
                    f"a dict with keys of type {type(key).__name__} cannot be sealed: use str keys"
                )
            _check_json(inner)
    elif kind is list:
        for inner in value:
            _check_json(inner)
    elif kind not in _JSON_LEAVES:
        raise ConfigurationError(
            f"a list or dict that holds {kind.__name__} cannot be sealed: "
            "it would not come back as it was; seal it as a field of its own, or convert it first"
        )


_JSON_LEAVES = frozenset({str, int, float, bool, type(None)})
SURROGATE = "text that holds a lone surrogate is not valid Unicode and cannot be sealed"

_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: lambda value: b"\x01" + value.encode(),
    int: _int,
    float: lambda value: b"\x03" + _double.pack(value),
    bool: lambda value: b"\x04\x01" if value else b"\x04\x00",
    bytes: lambda value: b"\x05" + value,
    dt.date: lambda value: b"\x06" + _date.pack(value.year, value.month, value.day),
    dt.datetime: _datetime,
    dt.time: _time,
    Decimal: lambda value: b"\x0a" + str(value).encode(),
    UUID: lambda value: b"\x0b" + value.bytes,
    list: _json,
    dict: _json,
}


def _encoder(value: Any) -> Callable[[Any], bytes]:
    """What encodes values of that type.

    Raises:
        ConfigurationError: nothing does; the message names the type, never the value.
    """
    found = _ENCODERS.get(type(value))
    if found is not None:
        return found
    if isinstance(value, UUID):  # drivers have UUID classes of their own; they compare equal
        return _ENCODERS[UUID]
    known = ", ".join(kind.__name__ for kind in _ENCODERS)
    raise ConfigurationError(f"a value of type {type(value).__name__} cannot be sealed: convert it to one of {known}")


def encode(value: Any) -> bytes:
    """The type byte and the canonical bytes of a value.

    Raises:
        ConfigurationError: a value of that type, or with that content, cannot be sealed. It is not in the message.
    """
    try:
        return _encoder(value)(value)
    except UnicodeEncodeError:  # it carries the whole value
        pass
    raise ConfigurationError(SURROGATE)


def _as_bool(raw: bytes) -> bool:
    return (b"\x00", b"\x01").index(raw) == 1


def _as_datetime(raw: bytes) -> dt.datetime:
    return dt.datetime.fromisoformat(raw.decode())


_DECODERS: dict[int, Callable[[bytes], Any]] = {
    0x01: bytes.decode,
    0x02: lambda raw: int.from_bytes(raw, "big", signed=True),
    0x03: lambda raw: _double.unpack(raw)[0],
    0x04: _as_bool,
    0x05: bytes,
    0x06: lambda raw: dt.date(*_date.unpack(raw)),
    0x07: _as_datetime,
    0x08: _as_datetime,
    0x09: lambda raw: dt.time.fromisoformat(raw.decode()),
    0x0A: lambda raw: Decimal(raw.decode()),
    0x0B: lambda raw: UUID(bytes=raw),
    0x0C: json.loads,
}


def decode(raw: bytes) -> Any:
    """The value again.

    Raises:
        DecryptionFailed: no value is written like this.
    """
    if raw[:1] == b"\x01":
        try:
            return raw[1:].decode()
        except UnicodeDecodeError:
            pass
    else:
        try:
            return _DECODERS[raw[0]](raw[1:])
        except (IndexError, KeyError, ValueError, ArithmeticError, struct.error, RecursionError):
            pass
    raise DecryptionFailed

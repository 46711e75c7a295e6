"""What a call under an idempotency key asks for, as check digits.

They stand beside the key, in tables that other versions read too: they do not change. Why they are so few is told in
docs/decisions/0029.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from datavern.contracts.json_text import encoder
from datavern.engines.idempotency import OF_PARAMETERS, OF_STATEMENT

__all__ = ["digits"]

_LONG: Final = 65_536
"""Of longer texts and bytes the beginning, the end and the length are compared."""


def digits(key: str, sql: Any, parameters: Any) -> int:
    """What a call under a key asks for, as check digits: they differ where the calls do, but for one in 256 or fewer.

    They are too short to find a value by: many values have the same, and under another key they are others. White
    space counts as one blank. Values are compared as JSON has them, and of a kind that nobody here knows, the kind.
    """
    named = f"{key}\0".encode("utf-8", "surrogatepass")
    text = b""
    if isinstance(sql, str):
        text = _spaced(sql) if len(sql) < _LONG else _spaced.__wrapped__(sql)
    statement = blake2b(named + text, digest_size=OF_STATEMENT // 8).digest()
    given = blake2b(named + _written(parameters), digest_size=OF_PARAMETERS // 8).digest()
    return 1 + int.from_bytes(statement + given, "big")


@lru_cache(512)  # an application has few statements, and calls them again and again
def _spaced(sql: str) -> bytes:
    return " ".join(sql.split()).encode("utf-8", "surrogatepass")


def _written(parameters: Any) -> bytes:
    """Parameters in words that are the same in every process."""
    given: Any = None
    if not isinstance(parameters, list | tuple) and isinstance(parameters, Mapping):
        given = {str(name): _ends(value) for name, value in parameters.items()}
    elif isinstance(parameters, Sequence):
        given = [_ends(value) if isinstance(value, _SIZED) else value for value in parameters]
    try:
        return _json(given).encode()
    except (TypeError, ValueError, OverflowError, RecursionError, BufferError):
        return b""  # nothing that an engine takes: it will say so


def _ends(value: Any) -> Any:
    if isinstance(value, _SIZED) and len(value) > _LONG:
        half = _LONG // 2
        return [len(value), value[:half], value[-half:]]
    return value


def _words(value: Any) -> Any:
    """What JSON has no words for."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": blake2b(value, digest_size=16).hexdigest()}
    if isinstance(value, dt.datetime) and value.utcoffset() is not None:
        value = value.astimezone(dt.UTC)  # one moment, whichever zone it is told in
    if isinstance(value, dt.date | dt.time):
        return {type(value).__name__: value.isoformat()}
    if isinstance(value, dt.timedelta):
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return {kind: str(value) if kind in _TOLD else None}


_TOLD: Final = frozenset(
    ["decimal.Decimal", "uuid.UUID", "asyncpg.pgproto.pgproto.UUID", "fractions.Fraction"]
    + [f"ipaddress.IPv{n}{what}" for n in (4, 6) for what in ("Address", "Network", "Interface")]
)
"""Kinds that say all of themselves as text."""
_SIZED: Final = (str, bytes, bytearray)
_json: Final = encoder(ascii_only=True, separators=(", ", ": "), allow_nan=True, default=_words)

"""Values as a Redis server holds them.

In the clear a value is JSON, for everybody to read. What JSON does not bring back as it went in (bytes, `Decimal`,
dates, a UUID) is kept as a zero byte and the typed form of `datavern.crypto.encoding`; JSON never begins with a zero
byte. What another program wrote comes back as JSON where it is JSON, and as bytes where it is not.
"""

from __future__ import annotations

import json
import math
from typing import Any

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.encoding import SURROGATE, decode, encode

__all__ = ["check", "from_clear", "name_of", "shown", "to_clear"]

_json = json.JSONEncoder(ensure_ascii=False).encode


def check(value: Any) -> None:
    """Refuse what `get` could not tell from a key that is not there.

    Raises:
        ConfigurationError: `value` is None.
    """
    if value is None:
        raise ConfigurationError("None is what get answers for a key that is not there: delete the key instead")


def to_clear(value: Any) -> bytes:
    """The value as it is stored in the clear.

    Raises:
        ConfigurationError: a value that would not come back as it went in; it is not in the message.
    """
    kind = type(value)
    problem = ""
    try:
        if kind is str:
            return _json(value).encode()
        if kind is int:
            return b"%d" % value
        if kind is bool or (kind is float and math.isfinite(value)):
            return _json(value).encode()
        if kind is dict or kind is list:
            return encode(value)[1:]
        check(value)
        return b"\0" + encode(value)
    except UnicodeEncodeError:  # it carries the whole value
        problem = SURROGATE
    except ConfigurationError as error:
        problem = str(error)
    raise ConfigurationError(problem.replace("cannot be sealed", "cannot be stored").replace("; seal it", "; store it"))


def from_clear(raw: bytes) -> Any:
    """The value again."""
    if raw[:1] == b"\0":
        try:
            return decode(raw[1:])
        except DecryptionFailed:
            return raw
    try:
        return json.loads(raw.decode())
    except (ValueError, RecursionError):
        return raw


def name_of(key: str | bytes) -> bytes:
    """A key, a channel, a field as bytes.

    Raises:
        ConfigurationError: it is neither text nor bytes, or is not valid Unicode.
    """
    if type(key) is bytes:
        return key
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError:  # it carries the whole key
            pass
        raise ConfigurationError("a key holds half a surrogate pair, which is not valid Unicode")
    raise ConfigurationError(f"a key is text or bytes, not {type(key).__name__}")


def shown(name: bytes) -> str | bytes:
    """A key as text where it is text, as bytes where it is not: both are taken back."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name

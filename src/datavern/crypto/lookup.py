"""Lookup indexes (FORMAT.md, 7): a sealed field is found by a keyed hash of its value; nothing is opened to search.

An unkeyed hash of a number with few digits is reversed in seconds (there are about 30 million valid fødselsnummer), so
there is none here. An index shows which rows hold equal values, and nothing else to whoever lacks its key.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from datavern.contracts.errors import ConfigurationError
from datavern.crypto.encoding import encode
from datavern.crypto.sealed import text_block

__all__ = ["KINDS", "index", "normalise"]

_VERSION = b"\x01"
_LOCAL_DIGITS = 10  # of a Norwegian number with its country code and no plus sign: 47 and eight digits


def _digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(c)) for c in text if c.isdecimal())


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _email(text: str) -> str:
    return _fold(text).strip()


def _name(text: str) -> str:
    return " ".join(_fold(text).split())


def _phone(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).strip()
    abroad = text.startswith(("+", "00"))
    digits = _digits(re.sub(r"\(\s*0\s*\)", "", text))
    if not digits:
        return ""
    if abroad:
        return "+" + (digits if text.startswith("+") else digits[2:])
    if len(digits) == _LOCAL_DIGITS and digits.startswith("47"):
        return "+" + digits
    return "+47" + digits


KINDS: dict[str, Callable[[str], str]] = {"fodselsnummer": _digits, "email": _email, "phone": _phone, "name": _name}
"""The kinds of values that are compared by what they mean, not by how they were typed."""


def normalise(kind: str | None, value: Any) -> bytes:
    """What of a value is compared.

    Args:
        kind: one of `KINDS`, or None: compared exactly, type included.
        value: any value that can be sealed, but not None; with a kind, a `str`.

    Raises:
        ConfigurationError: no such kind, or the value is not one of that kind. It is not in the message.
    """
    if kind is None:
        return encode(value)
    rule = KINDS.get(kind)
    if rule is None:
        raise ConfigurationError(f"no kind of value is called {kind}; there are: {', '.join(sorted(KINDS))}")
    if not isinstance(value, str):
        raise ConfigurationError(f"a value of kind {kind} is looked up as text (str), not as {type(value).__name__}")
    normal = rule(value)
    if not normal:
        raise ConfigurationError(f"a value that is looked up as {kind} is empty, or nothing of it is one")
    return encode(normal)


def index(key: bytes, field: str, value: Any, kind: str | None = None) -> bytes:
    """The lookup index of a value: 33 bytes, equal for values that are equal by their kind, in the same field alone.

    Args:
        key: the field's lookup key (`KeyStore.lookup_key`), 32 bytes.
        field: the field's id.
        value: what is looked up; not None.
        kind: as for `normalise`.

    Raises:
        ConfigurationError: as for `normalise`.
    """
    return _VERSION + hmac.digest(key, _VERSION + text_block(field) + normalise(kind, value), "sha256")

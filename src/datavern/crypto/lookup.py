"""Lookup indexes (FORMAT.md, 7): a sealed field is found by a keyed hash of its value; nothing is opened to search.

An unkeyed hash of a number with few digits is reversed in seconds (there are about 30 million valid fødselsnummer), so
there is none here. An index shows which rows hold equal values, and nothing else to whoever lacks its key; those of
beginnings and of parts show more, and are made only where the data map asks for them (docs/lookup.md).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from datavern.contracts.errors import ConfigurationError
from datavern.crypto.encoding import encode
from datavern.crypto.keyed import keyed_hash
from datavern.crypto.sealed import text_block

__all__ = ["KINDS", "grams", "index", "indexer", "normalise", "normalised_part", "prefix_indexer"]

_VERSION = b"\x01"
_PREFIX = b"\x02"
_GRAM = b"\x03"
_GRAM_BYTES = 6  # of each part's index: chance finds are sorted out once the row is open
_LOCAL_DIGITS = 10  # of a Norwegian number with its country code and no plus sign: 47 and eight digits


_UNSEEN = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
"""Soft hyphens, joiners, and marks of direction, which Windows puts around each number of its address book."""
_BEFORE = re.compile(r"^[^\d+]+")
"""Of a telephone number: ``(``, ``tel:``."""
_TRUNK = re.compile(r"\(\s*0\s*\)")


# Each begins with what most values are, which the rest of it would give back unchanged.


def _digits(text: str) -> str:
    if text.isascii() and text.isdecimal():
        return text
    return "".join(str(unicodedata.decimal(c)) for c in text if c.isdecimal())


def _fold(text: str) -> str:
    """Without what nobody sees; text that is copied from pages, messages and address books is full of it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", _UNSEEN.sub("", text)).casefold())


def _email(text: str) -> str:
    if text.isascii():
        return text.lower().strip()
    return _fold(text).strip()


def _name(text: str) -> str:
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(_fold(text).split())


def _phone(text: str) -> str:
    if text[:1] == "+" and text.isascii() and text[1:].isdecimal():
        return text
    text = _BEFORE.sub("", _TRUNK.sub("", unicodedata.normalize("NFKC", _UNSEEN.sub("", text))))
    digits = _digits(text)
    if text.startswith("+"):
        return digits and "+" + digits
    if digits.startswith("00"):
        return digits[2:] and "+" + digits[2:]
    if not digits:
        return ""
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


def indexer(key: bytes, field: str, kind: str | None = None) -> Callable[[Any], bytes]:
    """What makes the lookup indexes of a field; `index` says what they are. What does not change is made once.

    Args:
        key: the field's lookup key (`KeyStore.lookup_key`), 32 bytes.
        field: the field's id.
        kind: as for `normalise`; an unknown one is refused with the first value.
    """
    begin = _VERSION + text_block(field)
    rule = _as_it_is if kind is None else KINDS.get(kind)
    of_text, of_any = keyed_hash(key, begin + b"\x01"), keyed_hash(key, begin)

    def of(value: Any) -> bytes:
        if type(value) is str and rule is not None:
            normal = rule(value)
            try:
                if normal or kind is None:
                    return _VERSION + of_text(normal.encode())
            except UnicodeEncodeError:  # it carries the whole value
                pass
        return _VERSION + of_any(normalise(kind, value))

    return of


def _as_it_is(text: str) -> str:
    return text


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
    return indexer(key, field, kind)(value)


def normalised_part(kind: str | None, text: Any) -> str:
    """A value, or a part of one, as text: made alike by its kind where it has one.

    Of a number a part is its digits; what would become the country code is not there.

    Raises:
        ConfigurationError: it is no text, or nothing of it is of that kind. It is not in the message.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"beginnings and parts are looked up in text (str), not in {type(text).__name__}")
    return normalise(kind, text)[1:].decode()


def prefix_indexer(key: bytes, field: str, length: int, kind: str | None = None) -> Callable[[Any], bytes | None]:
    """What makes the indexes of the first `length` characters of a field's values; None of a shorter value.

    Args:
        key: the field's lookup key.
        field: the field's id.
        length: how many characters of the normalised value.
        kind: as for `normalise`.
    """
    hashed = keyed_hash(key, _PREFIX + length.to_bytes(2, "big") + text_block(field))

    def of(value: Any) -> bytes | None:
        start = normalised_part(kind, value)[:length]
        if len(start) < length:
            return None
        return _PREFIX + hashed(start.encode())

    return of


def grams(key: bytes, field: str, size: int, text: str) -> list[str]:
    """The indexes of all parts of `size` characters of a normalised text: words of hexadecimal digits.

    Sorted, and each once, so that neither their order in the text is told nor how often one occurs.
    """
    hashed = keyed_hash(key, _GRAM + size.to_bytes(2, "big") + text_block(field))
    parts = {text[at : at + size] for at in range(len(text) - size + 1)}
    return sorted(hashed(part.encode())[:_GRAM_BYTES].hex() for part in parts)

"""How a person is named: one canonical text, whatever type the engine keeps the id as."""

from __future__ import annotations

import re
from typing import Any

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.identity import is_fodselsnummer, lost_its_zero

__all__ = ["canonical_subject"]

_HEX24 = re.compile(r"[0-9a-f]{24}")
_LARGEST_INT_BITS = 128


def canonical_subject(value: object) -> str:
    """The text that a subject id compares as.

    A `str` is itself, unchanged; an `int` its decimal digits; a UUID its lower-case hyphenated form; an ObjectId
    (MongoDB's, known by its class name, so that no driver is needed) its 24 hexadecimal digits. So the id 42 in one
    store and "42" in another name the same person.

    Raises:
        ConfigurationError: `value` cannot name a person: a fødselsnummer of any series (personopplysningsloven § 12
            asks for an objective need, and an id travels everywhere), a bool, a float, nothing, a NUL character, text
            that is not valid Unicode, or another type. The message says what to use instead, and never quotes `value`.
    """
    if isinstance(value, str):
        text = str.__str__(value)
        if not text.isalnum() or text.isdecimal():
            _check_text(text)
        return text
    if isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > _LARGEST_INT_BITS:
            raise ConfigurationError("a subject id that is a whole number has at most 128 bits: use a str")
        text = int.__repr__(value)
        if is_fodselsnummer(text) or lost_its_zero(value):
            raise ConfigurationError(_NOT_A_NUMBER)
        return text
    return _other(value)


_NOT_A_NUMBER = (
    "a fødselsnummer cannot be a subject id, because ids travel into logs, keys and links: use an id of your own, "
    "keep the number in a sealed field with lookup=True, and reach stores that know people by it with "
    'Dataset(subject_via="…")'
)


def _check_text(text: str) -> None:
    if not text.strip():
        raise ConfigurationError("a subject id is empty: use the person's id in your own system")
    if "\0" in text:
        raise ConfigurationError("a subject id holds a NUL character, which not every engine can keep: leave it out")
    if is_fodselsnummer(text):
        raise ConfigurationError(_NOT_A_NUMBER)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            bad = True
        else:
            bad = False
        if bad:  # outside the except block: the encoder's error quotes the text
            raise ConfigurationError("a subject id holds half a surrogate pair, which is not valid Unicode")


def _other(value: Any) -> str:
    import uuid  # noqa: PLC0415  (most ids are str or int: the import waits for the first that is not)

    if isinstance(value, uuid.UUID):
        return str(value)
    kind = type(value).__name__
    if kind == "ObjectId":
        text = str(value).lower()
        if _HEX24.fullmatch(text):
            return text
    hint = {
        "NoneType": "nothing was given",
        "bool": "True and False name nobody",
        "float": "a float compares unreliably; use an int, or a str",
        "bytes": "decode it, or use its hex()",
    }.get(kind, "other types have no canonical text")
    raise ConfigurationError(f"a subject id is an int, a UUID, an ObjectId or a str, not {kind}: {hint}")

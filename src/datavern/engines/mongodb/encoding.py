"""Where in a document a value stands that BSON cannot hold, and why; never the value itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import encode
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.errors import BSONError

__all__ = ["encodes", "unencodable"]

_DEEPEST = 180  # the server itself stops at 200 levels

_INSTEAD = {
    "date": "use a datetime",
    "time": "use a datetime, or text",
    "Decimal": "use bson.Decimal128",
    "set": "use a list",
    "frozenset": "use a list",
    "complex": "use two numbers",
}


def encodes(value: Any, options: CodecOptions[Any]) -> bool:
    """Whether BSON can hold a value."""
    try:
        encode({"": value}, codec_options=options)
    except (BSONError, OverflowError, UnicodeError, RecursionError, ValueError, TypeError):
        return False
    return True


def unencodable(document: Any, options: CodecOptions[Any] | None) -> str | None:
    """What cannot be encoded, with its path: ``owner.tags[3] has type set, which BSON does not know: use a list``.

    Returns:
        None when everything can be.
    """
    if not isinstance(document, Mapping):
        return None
    return _mapping(document, "", options or DEFAULT_CODEC_OPTIONS, 0)


def _mapping(document: Mapping[Any, Any], path: str, options: CodecOptions[Any], depth: int) -> str | None:
    for name, value in document.items():
        if not isinstance(name, str):
            return f"{path or 'the document'} has a name that is no text, but of type {type(name).__name__}"
        if "\0" in name:
            return f"{path or 'the document'} has a name with a NUL character in it"
        try:
            name.encode()
        except UnicodeEncodeError:
            return f"{path or 'the document'} has a name that is not valid Unicode"
        problem = _value(value, f"{path}.{name}" if path else name, options, depth)
        if problem is not None:
            return problem
    return None


def _value(value: Any, path: str, options: CodecOptions[Any], depth: int) -> str | None:
    if depth > _DEEPEST:
        return f"{path[:200]}… is nested too deeply: MongoDB holds up to 100 levels or so"
    if encodes(value, options):
        return None
    if isinstance(value, Mapping):
        return _mapping(value, path, options, depth + 1) or f"{path} cannot be encoded"
    if isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            problem = _value(inner, f"{path}[{i}]", options, depth + 1)
            if problem is not None:
                return problem
    return f"{path} {_why(value)}"


def _why(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, int):
        return "is a whole number of more than 64 bits, which BSON does not hold: use bson.Decimal128, or text"
    if isinstance(value, str):
        return "is text with half a surrogate pair, which is not valid Unicode"
    if kind == "datetime":
        return "is a date that BSON does not hold, or in a time zone that does not say its offset"
    hint = f": {_INSTEAD[kind]}" if kind in _INSTEAD else ""
    return f"has type {kind}, which BSON does not know{hint}"

"""JSON texts of small values, many times a second."""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

__all__ = ["encoder"]

# `JSONEncoder.encode` builds this anew with each call, which is half of what a short text takes. No C encoder: None.
_make_in_c: Any = getattr(json.encoder, "c_make_encoder", None)


def encoder(
    *,
    ascii_only: bool,
    separators: tuple[str, str],
    allow_nan: bool,
    default: Callable[[Any], Any] | None = None,
) -> Callable[[Any], str]:
    """What makes the JSON of lists and mappings, with sorted keys.

    Args:
        ascii_only: escape what is beyond ASCII.
        separators: between items, and between a key and its value.
        allow_nan: take NaN and the infinities, which are no JSON.
        default: what to write in place of a value that JSON has no words for; refused when None.

    Raises (what it makes):
        TypeError: a value that has no words.
        ValueError: a number that has none; a value within itself.
        RecursionError: too deeply nested, or within itself.
    """
    plain = json.JSONEncoder(
        ensure_ascii=ascii_only, sort_keys=True, separators=separators, allow_nan=allow_nan, default=default
    )
    if _make_in_c is None:
        return plain.encode
    item, key = separators
    quote = encode_basestring_ascii if ascii_only else encode_basestring
    in_c = _make_in_c(None, plain.default, quote, None, key, item, True, False, allow_nan)
    return lambda value: "".join(in_c(value, 0))

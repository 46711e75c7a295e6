"""The values within a document, each with its path: what engines without columns give of a sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["leaves"]

_DEEPEST = 8
_LONGEST = 20_000


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """``owner.email`` and its value, of each; of a list, each element; long texts cut, bytes and None left out."""
    if isinstance(value, dict) and depth < _DEEPEST:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list) and depth < _DEEPEST:
        for inner in value:
            yield from leaves(inner, path, depth + 1)
    elif isinstance(value, str):
        yield path, value[:_LONGEST]
    elif value is not None and not isinstance(value, bytes):
        yield path, value

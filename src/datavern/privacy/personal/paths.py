"""What stands at a path of a record, as ``customer.id``: names may be paths themselves, and lists stand on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["leaves", "value_at", "values_at"]


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path, in a record whose names may be paths themselves; None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def values_at(row: Mapping[str, Any], path: str) -> list[Any]:
    """Every value at a path that may name somebody, in whatever arrays it leads through."""
    found: list[Any] = [row[path]] if path in row else [row]
    for part in () if path in row else path.split("."):
        found = [inner[part] for one in found for inner in _each(one) if isinstance(inner, Mapping) and part in inner]
    every = [inner for one in found for inner in _each(one)]
    return [bytes(v) if isinstance(v, bytes) else v for v in every if v is not None and not isinstance(v, Mapping)]


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else (value,)


def leaves(row: Any, path: str) -> Iterator[Any]:
    """Every value at a path of a record; a list stands for each of its elements."""
    if isinstance(row, list):
        for one in row:
            yield from leaves(one, path)
    elif not path:
        yield row
    elif isinstance(row, Mapping):
        if path in row:
            yield from leaves(row[path], "")
            return
        name, _, rest = path.partition(".")
        if name in row:
            yield from leaves(row[name], rest)

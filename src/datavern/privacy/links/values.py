"""What rows hold that name no person themselves: keys of other rows, and numbers, in whatever type they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from datavern.privacy.personal.ids import is_whole

if TYPE_CHECKING:
    from datavern.contracts.stores import Column

__all__ = ["fitting_in", "text_of"]


def text_of(value: Any) -> str | None:
    """The text of an id or a number, in whatever type it stands."""
    if type(value) is str:
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return str(value)
    return str(value).lower() if type(value).__name__ in {"UUID", "ObjectId"} else None


def fitting_in(column: Column | None, values: Iterable[Any]) -> Iterator[Any]:
    """Those of the values that a column's type can hold, in that type."""
    kind = "" if column is None else column.type
    for value in values:
        text = text_of(value)
        if text is None:
            continue
        if is_whole(kind):
            digits = text.removeprefix("-")
            bits = 64 if column is None or column.bits is None else column.bits
            if digits.isascii() and digits.isdecimal() and -(1 << bits - 1) <= int(text) < 1 << bits - 1:
                yield int(text)
        elif kind == "uuid":
            import uuid  # noqa: PLC0415  (few tables have such a column)

            try:
                yield str(uuid.UUID(text))
            except ValueError:
                continue
        else:
            yield text

"""The ids of rows and of people, as the types of their columns want them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from datavern.contracts.subjects import canonical_subject

if TYPE_CHECKING:
    from datavern.contracts.stores import Column

__all__ = ["fit", "is_id", "is_whole"]

_WHOLE = re.compile(r"-?[0-9]{1,19}")
_NO_NUMBER = 1 << 63  # past what any column holds
_ID_TYPES = frozenset({int, str})
_OTHER_ID_TYPES = frozenset({"UUID", "ObjectId"})


def is_whole(kind: str) -> bool:
    """Whether a column of that type holds whole numbers."""
    return "int" in kind and "point" not in kind and "interval" not in kind


def fit(column: Column | None, value: Any) -> Any:
    """An id as the column's type wants it: an id may be given as text where the column holds numbers, and so on.

    Args:
        column: as the live schema has it.
        value: an int, a UUID, an ObjectId or text.

    Raises:
        ValueError: no value of that type is this id, so that no row can have it. The id is not in the message.
    """
    kind = "" if column is None else column.type
    if is_whole(kind):
        if type(value) is not int:
            text = canonical_subject(value)
            value = int(text) if _WHOLE.fullmatch(text) and str(int(text)) == text else _NO_NUMBER
        bits = 64 if column is None or column.bits is None else column.bits
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise ValueError(f"not a whole number of {bits} bits")
        return value
    if kind == "uuid":
        import uuid  # noqa: PLC0415  (few tables have such a column)

        try:
            return str(uuid.UUID(str(value)))
        except ValueError:
            pass
        raise ValueError("not a UUID")
    return value if type(value) is str else canonical_subject(value)


def is_id(value: Any) -> bool:
    """Whether it is of a kind that ids are given in, so that `fit` takes it."""
    return type(value) in _ID_TYPES or type(value).__name__ in _OTHER_ID_TYPES

"""Rows that answer by name and by position: a tuple with its columns' names in its class.

The drivers give tuples, or rows of their own that hold on to a cursor. A class for each set of names is made once and
kept, so that a row costs no more than a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

__all__ = ["AzureSQLRow", "maker"]

_MOST = 1024
"""Shapes of answers that are remembered."""


class AzureSQLRow(tuple[Any, ...]):
    """A row. Where two columns have one name, the name means the first of them."""

    __slots__ = ()

    _names: ClassVar[tuple[str, ...]] = ()
    _places: ClassVar[Mapping[str, int]] = {}

    def __getitem__(self, key: Any) -> Any:
        if type(key) is str:
            return tuple.__getitem__(self, self._places[key])
        return tuple.__getitem__(self, key)

    def keys(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return self._names

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a column, or `default` where there is no such column."""
        place = self._places.get(key)
        return default if place is None else tuple.__getitem__(self, place)

    def __repr__(self) -> str:
        return f"<row of {', '.join(self._names)}>"  # values appear in no log by accident

    def __reduce__(self) -> Any:
        return _remade, (self._names, tuple(self))


_makers: dict[tuple[str, ...], type[AzureSQLRow]] = {}


def maker(names: Iterable[str]) -> Callable[[Iterable[Any]], AzureSQLRow]:
    """What makes rows of columns with those names."""
    known = tuple(names)
    found = _makers.get(known)
    if found is None:
        if len(_makers) >= _MOST:
            _makers.clear()
        places = {name: place for place, name in reversed(list(enumerate(known)))}
        found = _makers[known] = type(
            "AzureSQLRow", (AzureSQLRow,), {"__slots__": (), "_names": known, "_places": places}
        )
    return found


def _remade(names: tuple[str, ...], values: tuple[Any, ...]) -> AzureSQLRow:
    return maker(names)(values)

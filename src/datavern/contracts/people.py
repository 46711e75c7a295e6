"""Who is in a store, and how often: counted in one pass, for reports that name numbers and no values."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

__all__ = ["Held", "People", "Window"]


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of a stretch of time.

    Attributes:
        column: the column (or path) that says when.
        since: the first moment, or None for no beginning.
        until: the first moment that is not in it any more, or None for no end.
    """

    column: str
    since: dt.datetime | None = None
    until: dt.datetime | None = None


class Held(NamedTuple):
    """Some rows that are about the same people.

    Attributes:
        people: whose they are, as the store has their ids: none where they name nobody, several where they are shared;
            bytes are a keyed tag in an id's place.
        rows: how many.
    """

    people: tuple[Any, ...]
    rows: int


class People(Protocol):
    """The people of a store, in constant memory here. Reads only; may be called again."""

    def people(
        self, store: str, subject: str, where: Mapping[str, Any], *, window: Window | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Held]]:
        """Each person (or each constellation of them) once, with the number of their rows.

        Args:
            store: as `Subjects` has it.
            subject: the column, or path, that says whose a row is.
            where: as `Subjects.select` takes it.
            window: count rows of this time alone.

        Raises:
            ConfigurationError: the window's column is not there, or holds no moments.
            ProviderError: the store cannot be read. Raised on entering, or while it is read.
        """
        ...

"""Legal holds as values: what one is, and what it keeps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import today

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.holds.holds import Holds
    from datavern.privacy.personal.rows import Rows

__all__ = ["RELEASED", "Grip", "Grips", "Hold"]

RELEASED: Final = "the hold is released"
"""Until when a hold without a last day stands."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold.

    Attributes:
        id: random.
        reason: why, as it stands on certificates.
        subject: whose rows; None where it is of rows that are several people's, or nobody's.
        dataset: in which dataset; None: in all of them, now and later.
        rows: how many rows it found when it was placed.
        until: its last day; None: until it is released.
        placed_at: when, RFC 3339.
        placed_by: who placed it.
        released_at: when it was released, or None.
        released_by: who released it.
        notes: what it cannot do.
    """

    id: str
    reason: str
    subject: str | None = None
    dataset: str | None = None
    rows: int = 0
    until: dt.date | None = None
    placed_at: str = ""
    placed_by: str | None = None
    released_at: str | None = None
    released_by: str | None = None
    notes: tuple[str, ...] = ()

    def stands(self, day: dt.date | None = None) -> bool:
        """Whether it keeps its rows on that day; today when None."""
        return self.released_at is None and (self.until is None or self.until >= (day or today()))


class Grip(NamedTuple):
    """What keeps a row.

    Attributes:
        why: the reason.
        until: the last day, or `RELEASED`.
    """

    why: str
    until: str


class Grips:
    """The holds that stand on rows of one dataset.

    Args:
        holds: knows tags and reasons.
        dataset: the dataset.
        entries: as they are stored, with `sealed` opened.
    """

    __slots__ = ("_dataset", "_entries", "_holds")

    def __init__(self, holds: Holds, dataset: Dataset, entries: Iterable[Mapping[str, Any]]) -> None:
        self._holds = holds
        self._dataset = dataset
        self._entries: dict[tuple[bytes, bytes], Grip] = {}
        for one in entries:
            place = (bytes(one["subject_tag"]), bytes(one["key_tag"]))
            grip = Grip(one["reason"], one["until"] or RELEASED)
            known = self._entries.get(place)
            if known is None or grip.until > known.until:  # words are above digits: no last day is the longest
                self._entries[place] = grip

    def on(self, rows: Rows, row: Mapping[str, Any], person: str | None = None) -> Grip | None:
        """What keeps a row; None: nothing does.

        Args:
            rows: how they stand in their table.
            row: the row.
            person: whose it is, where it does not say it itself.
        """
        try:
            subject = person or rows.subject_of(row)
        except ConfigurationError:
            subject = None  # nobody can have that id
        named = row.get(rows.subject) if subject is None and rows.subject is not None else None
        tag = self._holds.tag(subject) if subject is not None else bytes(named) if isinstance(named, bytes) else b""
        whole = self._entries.get((tag, b"")) if tag else None
        own = self._entries.get((tag, self._holds.key_tag(self._dataset, row)))
        return max(filter(None, (whole, own)), key=lambda grip: grip.until, default=None)

    def of(self, subject: str) -> Grip | None:
        """What keeps everything of a person; None: nothing does."""
        return self._entries.get((self._holds.tag(subject), b""))

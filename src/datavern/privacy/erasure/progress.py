"""How far erasures have come, and where in their databases they have to go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import DatavernError

if TYPE_CHECKING:
    from datavern.privacy.journal.journal import Entry
    from datavern.privacy.personal.rows import Rows
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["PLAN", "Outcome", "Place", "Progress", "nothing", "step_details", "why"]

Outcome = dict[str, Any]

PLAN: Final = "#plan"
"""What follows a dataset's name where its plan is written down: no dataset's name holds a #."""


@dataclass(slots=True)
class Progress:
    """One erasure, and what became of it so far.

    Attributes:
        entry: the request.
        done: dataset's label → what was done there.
        waiting: dataset's label → why it waits.
    """

    entry: Entry
    done: dict[str, Outcome] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> frozenset[bytes]:
        """The ids of the keys that it ends."""
        return frozenset(self.entry.key_ids or ())


@dataclass(frozen=True, slots=True)
class Place:
    """A dataset as an erasure finds it.

    Attributes:
        store: the dataset.
        rows: how its rows stand in their table, by the live schema; None where there is no such table.
    """

    store: PersonalStore
    rows: Rows | None

    @property
    def name(self) -> str:
        """The dataset's name: what its step is called."""
        return self.store.dataset.name

    @property
    def label(self) -> str:
        """The dataset's label: what it is called on certificates."""
        return self.store.dataset.label


def nothing(policy: str, *notes: str) -> Outcome:
    """What a step did that found nothing."""
    return {"policy": policy, "found": 0, "done": {}, "kept": [], "left": [], "notes": list(notes)}


def step_details(request: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit entry of a step says of it: counts and names of columns, and nobody's handle."""
    return {"request": request, **{k: v for k, v in outcome.items() if k not in ("kept", "notes", "audit")}}


def why(error: DatavernError) -> str:
    """Why a step waits: the kind of error and its text, in which no value stands."""
    return f"{type(error).__name__}: {error}"

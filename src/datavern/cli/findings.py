"""What `datavern check` found."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: what, by its path in the configuration.
        ok: whether it is as it should be.
        detail: what was found, and what to do when it is not ok.
        note: whether it is well, and worth a look all the same.
    """

    part: str
    ok: bool
    detail: str
    note: bool = False

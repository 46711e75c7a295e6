"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass

from datavern.audit.checkpoint import Checkpoint
from datavern.contracts.errors import LogTampered

__all__ = ["Problem", "Report"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not fit.

    Attributes:
        position: 0-based, in the log as it was sealed; None for the log as a whole.
        entry_id: of the entry that stands there now, or None when none does.
        reason: what does not fit.
        count: how many entries in a row it is about.
        log: name of the database whose log it is, where there are several.
    """

    position: int | None
    entry_id: str | None
    reason: str
    count: int = 1
    log: str | None = None

    def __str__(self) -> str:
        where = "the log" if self.position is None else f"entry {self.position}"
        if self.count > 1:
            where = f"entries {self.position} to {(self.position or 0) + self.count - 1}"
        if self.log is not None:
            where = f"{self.log}: {where}"
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a log, or of several.

    Attributes:
        ok: nothing that was sealed has been changed, removed, inserted or moved since.
        entries: how many sealed entries were found as they were sealed.
        problems: what does not fit, in order; at most as many as were asked for.
        unsealed: entries after the last checkpoint. Nothing is claimed of them.
        rollback_checked: a checkpoint that was kept elsewhere was compared; without one, a log that was set back as a
            whole looks like one that never went further.
        checkpoint: the last one of the log, or None when it was never sealed.
        truncated: how many entries were removed when their retention ended, by a signed record.
        sampled: how many entries were looked at, where not all of them were; None when all were.
    """

    ok: bool
    entries: int
    problems: tuple[Problem, ...]
    unsealed: int
    rollback_checked: bool
    checkpoint: Checkpoint | None
    truncated: int = 0
    sampled: int | None = None

    def check(self) -> Report:
        """This report, if it is ok.

        Raises:
            LogTampered: it is not; with the first problem's position and reason.
        """
        if not self.ok:
            first = self.problems[0]
            raise LogTampered(first.position, first.reason)
        return self

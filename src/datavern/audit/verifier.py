"""Verification: the log against its signed checkpoints, in constant memory (FORMAT.md section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from datavern.audit.checkpoint import Checkpoint, kept_of
from datavern.audit.report import Problem, Report
from datavern.audit.streams import PAGE, Actual, Expected
from datavern.contracts.capabilities import Provider

__all__ = ["verify_log"]

_FAR_SEALED: Final = 16 * PAGE
_FAR_ENTRIES: Final = 2 * PAGE
"""How far ahead is looked to tell a changed entry from removed, inserted and moved ones."""

CHANGED: Final = "changed since it was sealed"
REMOVED: Final = "removed since it was sealed, or changed and moved elsewhere"
INSERTED: Final = "stands before this position among sealed entries, and was never sealed as it is"
PLACE: Final = (
    "the last checkpoint says that the sealed entries end elsewhere: what stands between is never sealed, or twice"
)
MOVED: Final = "not in its place: the order was changed"


async def verify_log(
    provider: Provider,
    *,
    origin: str,
    verifiers: Iterable[str],
    since: Checkpoint | str | None = None,
    most: int = 100,
) -> Report:
    """Compare every sealed entry with what was signed.

    Reads only, page by page, in constant memory; entries may be written and sealed meanwhile (what is sealed after the
    beginning counts as unsealed).

    Args:
        provider: whose log.
        origin: the log's name in its checkpoints.
        verifiers: the public keys that are trusted, a line each.
        since: a checkpoint that was kept elsewhere, or its note.
        most: after so many problems it stops looking for more.

    Raises:
        LogTampered: `since` is no checkpoint of this log that a trusted key signed.
        ProviderError: the log cannot be read.
    """
    verifiers = tuple(verifiers)
    kept = None if since is None else kept_of(since, verifiers, origin)
    return await _Comparison(provider, origin, verifiers, kept, most).run()


class _Comparison:
    """One run: what the checkpoints prove against what the table holds."""

    def __init__(
        self, provider: Provider, origin: str, verifiers: tuple[str, ...], kept: Checkpoint | None, most: int
    ) -> None:
        self._problems: list[Problem] = []
        self._most = most
        self._expected = Expected(provider, origin, verifiers, kept, self._problems)
        self._actual = Actual(provider)
        self._position = 0
        self._good = 0

    async def run(self) -> Report:
        expected, actual = self._expected, self._actual
        await expected.begin()
        self._position = expected.truncated
        while len(self._problems) < self._most:
            await expected.fill(PAGE)
            if not expected.leaves:
                break
            await actual.fill(PAGE)
            if actual.leaves:
                await self._step()
            else:
                self._problem(REMOVED, count=await expected.drain())
        self._check_place()
        self._problems.sort(key=lambda problem: -1 if problem.position is None else problem.position)
        return Report(
            ok=not self._problems,
            entries=self._good,
            problems=tuple(self._problems[: self._most]),
            unsealed=await actual.remaining(),
            rollback_checked=expected.kept_checked,
            checkpoint=expected.last,
            truncated=expected.truncated,
        )

    def _check_place(self) -> None:
        """Sealing goes on behind the place of the last checkpoint's row, which nobody signs: it is the last entry's."""
        passed = self._actual.passed
        if not self._problems and passed is not None and passed != self._expected.place:
            self._problems.append(Problem(None, None, PLACE))

    async def _step(self) -> None:
        """Go on as far as the two agree, or past one place where they do not."""
        e, a = self._expected.leaves, self._actual.leaves
        same = min(len(e), len(a))
        if e[:same] != a[:same]:
            same = next(i for i in range(same) if e[i] != a[i])
        if same:
            self._good += same
            self._pass(same)
        elif e[0] is None:  # of a lost checkpoint: that there was an entry is all that is known
            self._pass(min(next((i for i, leaf in enumerate(e) if leaf is not None), len(e)), len(a)))
        else:
            await self._expected.fill(_FAR_SEALED)
            await self._actual.fill(_FAR_ENTRIES)
            self._differ()

    def _differ(self) -> None:
        """Say what happened where the two part, and get past it."""
        e, a = self._expected.leaves, self._actual.leaves
        sealed, there = set(e), set(a)
        if e[0] in there and a[0] in sealed:
            row = a.index(e[0])
            self._problem(MOVED, self._actual.entry_id(row))
            self._actual.take(row)
            self._expected.drop(1)
            self._position += 1
        elif e[0] in there:
            count = next(i for i, leaf in enumerate(a) if leaf in sealed)
            self._problem(INSERTED, self._actual.entry_id(0), count)
            self._actual.drop(count)
        elif a[0] in sealed or self._actual.is_past(self._expected.place):
            count = next((i for i, leaf in enumerate(e) if leaf is None or leaf in there), len(e))
            self._problem(REMOVED, count=count)
            self._expected.drop(count)
            self._position += count
        else:
            self._problem(CHANGED, self._actual.entry_id(0))
            self._pass(1)

    def _pass(self, count: int) -> None:
        self._expected.drop(count)
        self._actual.drop(count)
        self._position += count

    def _problem(self, reason: str, entry_id: str | None = None, count: int = 1) -> None:
        self._problems.append(Problem(self._position, entry_id, reason, count))

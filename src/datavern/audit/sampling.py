"""Verification by sampling: some of the sealed ranges, drawn at random, and what can be told without the rest."""

from __future__ import annotations

from collections.abc import Sequence
from random import SystemRandom

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.covered import Covered, covered
from datavern.audit.ranges import checkpoint_after, checkpoint_of, compared, place_of, same_log
from datavern.audit.report import Problem, Report
from datavern.audit.tables import at_place, log_of
from datavern.audit.truncation import last_truncation
from datavern.contracts.capabilities import Provider, needs
from datavern.contracts.errors import LogTampered
from datavern.contracts.values import Row

__all__ = ["verify_sample"]


async def verify_sample(
    provider: Provider,
    *,
    origin: str,
    verifiers: Sequence[str],
    entries: int,
    since: Checkpoint | None = None,
) -> Report:
    """Compare so many sealed entries, or a few more, with what was signed: whole ranges, drawn at random.

    Beside them the last checkpoint, the number of entries, and a checkpoint that was kept elsewhere are looked at. Each
    run draws anew: a change that hides from one is found by the next, with the share of the log that each looks at as
    its chance. What is wrong is said by range; `verify_log` says the rest.

    Args:
        provider: whose log.
        origin: the log's name in its checkpoints.
        verifiers: the public keys that are trusted.
        entries: how many to look at, at the least.
        since: a checkpoint that was kept elsewhere, verified.
    """
    return await _Sample(provider, origin, verifiers).run(entries, since)


class _Sample:
    def __init__(self, provider: Provider, origin: str, verifiers: Sequence[str]) -> None:
        self._provider = provider
        self._origin = origin
        self._verifiers = verifiers
        self._problems: list[Problem] = []
        self._good = 0

    async def run(self, entries: int, since: Checkpoint | None) -> Report:
        ledger, session = needs(self._provider, "ledger"), needs(self._provider, "session")
        log, dialect = log_of(ledger), ledger.dialect
        head = await session.query_one(*log.last_checkpoint.bind(dialect))
        last = None if head is None else self._covered(head)
        size = 0 if last is None else last.whole.size
        cut = await self._cut()
        unsealed = 0
        if head is not None:
            end = at_place(place_of(head))
            there = await session.query_value(*log.count_until.bind(dialect, **{f"to_{n}": v for n, v in end.items()}))
            unsealed = await session.query_value(*log.count_after.bind(dialect, **end))
            if last is not None and there != size - cut:
                self._problem(None, f"{there} entries stand where {size - cut} were sealed: verify the whole log")
        looked = await self._look(cut, size, entries)
        if since is not None:
            await self._compare(since)
        self._problems.sort(key=lambda problem: -1 if problem.position is None else problem.position)
        return Report(
            ok=not self._problems,
            entries=self._good,
            problems=tuple(self._problems),
            unsealed=unsealed,
            rollback_checked=since is not None,
            checkpoint=None if last is None else last.checkpoint,
            truncated=cut,
            sampled=looked,
        )

    async def _look(self, cut: int, size: int, entries: int) -> int:
        """Look at ranges until there are enough; how many entries that were."""
        random, seen, looked = SystemRandom(), set[int](), 0
        wanted = min(entries, size - cut)
        while looked < wanted:
            row = await self._unseen(random.randrange(cut, size), cut, seen)
            if row is None:  # fewer ranges than the last checkpoint tells of: told of as what they lack
                break
            seen.add(row["size"])
            looked += await self._range(row)
        return looked

    async def _unseen(self, position: int, cut: int, seen: set[int]) -> Row | None:
        """The first range from a position on, and then from the beginning, that was not looked at."""
        for start in (position, cut):
            row = await checkpoint_after(self._provider, start)
            while row is not None and row["size"] in seen:
                row = await checkpoint_after(self._provider, row["size"])
            if row is not None:
                return row
        return None

    async def _range(self, row: Row) -> int:
        found = self._covered(row)
        if found is None:
            return 1
        before = None
        if found.base.size:
            before = await checkpoint_of(self._provider, found.base.size)
            earlier = None if before is None else self._covered(before)
            if earlier is None or bytes(earlier.whole) != bytes(found.base):
                self._problem(found.base.size, "the checkpoint before it is lost, or contradicts it")
                return len(found.leaves) or 1
        differs = await compared(self._provider, place_of(before), row, found)
        if differs is None:
            self._good += len(found.leaves)
        else:
            self._problem(differs, "not as it was sealed, it or what is beside it: verify the whole log")
        return len(found.leaves)

    def _covered(self, row: Row) -> Covered | None:
        try:
            return covered(row, self._verifiers, self._origin)
        except LogTampered as error:
            self._problem(None, error.reason)
        return None

    async def _cut(self) -> int:
        try:
            found = await last_truncation(self._provider, self._verifiers, self._origin)
        except LogTampered as error:
            self._problem(None, error.reason)
            return 0
        return 0 if found is None else found.size

    async def _compare(self, since: Checkpoint) -> None:
        try:
            reason = await same_log(self._provider, self._verifiers, self._origin, since)
        except LogTampered as error:
            reason = error.reason
        if reason:
            self._problem(None, reason)

    def _problem(self, position: int | None, reason: str) -> None:
        problem = Problem(position, None, reason)
        if problem not in self._problems:
            self._problems.append(problem)

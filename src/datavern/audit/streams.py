"""The two streams that a verification compares, each a page ahead: what was sealed, and what stands in the table."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.covered import Covered, covered
from datavern.audit.merkle import EMPTY, Frontier
from datavern.audit.report import Problem
from datavern.audit.sealer import hashed
from datavern.audit.tables import START, at_place, log_of
from datavern.audit.truncation import Truncation, last_truncation
from datavern.contracts.capabilities import Provider, needs
from datavern.contracts.errors import LogTampered, QueryRejected
from datavern.contracts.values import Row

__all__ = ["PAGE", "Actual", "Expected"]

PAGE: Final = 4096
_LARGEST: Final = (1 << 63) - 1


class Expected:
    """The leaf hashes that signed checkpoints prove, in order; None where a checkpoint is lost.

    Attributes:
        leaves: the next ones.
        last: the last checkpoint that proved itself.
        place: where the log's last checkpoint says that it ends (era, stamp, seq); a hint, it is not signed.
        kept_checked: the checkpoint that was kept elsewhere was compared.
        truncated: how many entries were removed when their retention ended; their hashes are not among `leaves`.
    """

    def __init__(
        self,
        provider: Provider,
        origin: str,
        verifiers: tuple[str, ...],
        kept: Checkpoint | None,
        problems: list[Problem],
    ) -> None:
        self.leaves: list[bytes | None] = []
        self.last: Checkpoint | None = None
        self.place: tuple[Any, ...] = START
        self.kept_checked = False
        self.truncated = 0
        self._truncation: Truncation | None = None  # until it was compared
        self._provider = provider
        self._origin = origin
        self._verifiers = verifiers
        self._kept = kept
        self._problems = problems
        self._whole = Frontier()  # of what the checkpoints so far cover
        self._unknown = 0  # entries of lost checkpoints, not yet in `leaves`
        self._pending: list[bytes] = []  # leaf hashes that come after those
        self._after = -1  # size of the last row read
        self._target = -1  # size of the last row when the run began
        self._spoilt = False  # a row since the last good one did not prove itself

    async def begin(self) -> None:
        """Note how far the log is sealed now: later checkpoints are not looked at."""
        ledger = needs(self._provider, "ledger")
        row = await needs(self._provider, "session").query_one(*log_of(ledger).last_checkpoint.bind(ledger.dialect))
        if row is not None:
            # An engine that keeps any type in any column lets a size be no number: that row is told of when it is read.
            self._target = row["size"] if isinstance(row["size"], int) else _LARGEST
            self.place = (row["era"], row["stamp"], row["seq"])
        try:
            self._truncation = await last_truncation(self._provider, self._verifiers, self._origin)
        except LogTampered as error:
            self._problem(None, error.reason)
        self.truncated = 0 if self._truncation is None else self._truncation.size

    async def fill(self, count: int) -> None:
        """Have at least `count` leaves, or all that are left."""
        while len(self.leaves) < count:
            if self._unknown:
                unknown = min(self._unknown, count - len(self.leaves))
                self.leaves += [None] * unknown
                self._unknown -= unknown
            elif self._pending:
                self.leaves += self._pending
                self._pending = []
            elif not await self._next():
                return

    def drop(self, count: int) -> None:
        """Be done with the first `count`."""
        del self.leaves[:count]

    async def drain(self) -> int:
        """Be done with all that is left; how many there were."""
        count = 0
        while self.leaves:
            count += len(self.leaves)
            self.leaves.clear()
            await self.fill(PAGE)
        return count

    async def _next(self) -> bool:
        row = None
        if self._after < self._target:
            ledger = needs(self._provider, "ledger")
            query = log_of(ledger).next_checkpoint.bind(ledger.dialect, after=self._after)
            row = await needs(self._provider, "session").query_one(*query)
        if row is not None and not isinstance(row["size"], int):
            self._problem(self._whole.size, "a checkpoint was changed: its size is no number")
            row = None
        if row is None or row["size"] > self._target:
            self._after = _LARGEST
            self._check_end()
            return False
        self._after = row["size"]
        try:
            found = covered(row, self._verifiers, self._origin)
        except LogTampered as error:
            self._problem(self._whole.size, error.reason)
            self._spoilt = True
        else:
            self._take(found)
        return True

    def _take(self, found: Covered) -> None:
        size, start = self._whole.size, found.base.size
        if start > size:
            if not self._spoilt:
                self._problem(size, "the checkpoint that covers it was removed: it cannot be verified", start - size)
            self._unknown = start - max(size, min(self.truncated, start))
        elif start < size:
            self._problem(start, "two signed checkpoints cover it", size - start)
        elif bytes(found.base) != bytes(self._whole):
            self._problem(None, f"two signed checkpoints contradict each other at size {size}")
        self._pending = found.leaves[max(0, size - start, self.truncated - start) :]
        self._whole = found.whole
        cut = self._truncation
        if cut is not None and found.whole.size >= cut.size:
            self._truncation = None
            if found.whole.size != cut.size or found.checkpoint.root != cut.root:
                self._problem(None, "the record of what was removed is of another log, or its checkpoint is lost")
        self._spoilt = False
        self.last = found.checkpoint
        kept = self._kept
        if kept is not None and not self.kept_checked and start <= kept.size <= found.whole.size:
            self._compare(kept, found.base.copy().extend(found.leaves[: kept.size - start]).root())

    def _compare(self, kept: Checkpoint, root: bytes) -> None:
        self.kept_checked = True
        if root != kept.root:
            self._problem(
                None, f"not the log that the checkpoint kept elsewhere covers: its first {kept.size} entries differ"
            )

    def _check_end(self) -> None:
        """All checkpoints were read: is the one that was kept elsewhere, or what was removed, beyond them?"""
        if self._truncation is not None:
            self._truncation = None
            self._problem(None, "the log was set back behind what was removed of it when its retention ended")
        kept = self._kept
        if kept is None or self.kept_checked:
            return
        size = self._whole.size
        if kept.size > size:
            self.kept_checked = True
            reason = (
                "is lost, though the checkpoint kept elsewhere covers it: the log was set back, or this copy of it had "
                "not received it"
            )
            self._problem(size, reason, kept.size - size)
        elif kept.size == 0:
            self._compare(kept, EMPTY)
        else:
            self.kept_checked = True
            self._problem(
                None, "the checkpoint kept elsewhere cannot be compared: the log's own one of that range is lost"
            )

    def _problem(self, position: int | None, reason: str, count: int = 1) -> None:
        self._problems.append(Problem(position, None, reason, count))


class Actual:
    """The entries as they stand, in order, with their leaf hashes.

    Attributes:
        leaves: the hashes of the next ones.
        passed: era, stamp and seq of the last one that was done with in its turn.
    """

    def __init__(self, provider: Provider) -> None:
        self.leaves: list[bytes] = []
        self.passed: tuple[Any, ...] | None = None
        self._rows: list[Row] = []
        self._provider = provider
        self._place: tuple[Any, ...] = START
        self._done = False

    async def fill(self, count: int) -> None:
        """Have at least `count` entries, or all that are left."""
        while len(self.leaves) < count and not self._done:
            ledger = needs(self._provider, "ledger")
            session = needs(self._provider, "session")
            query = log_of(ledger).page.bind(ledger.dialect, **at_place(self._place), most=PAGE)
            try:
                rows = list(await session.query(*query))
                self._done = len(rows) < PAGE
                if not self._done:
                    rows += await self._beside(rows)
            except QueryRejected:
                rows = None  # an entry holds what no driver reads back: look at them one by one
            if rows is None:
                await self._one_by_one()
            elif rows:
                self._place = _place(rows[-1])
                self._rows += rows
                self.leaves += await hashed(rows)

    async def _beside(self, page: Sequence[Row]) -> list[Row]:
        """What stands in the very place of a page's last row, and not on the page: the next one begins behind it.

        There is nothing where the table is as it was made; whoever owns it can have put something there.
        """
        ledger = needs(self._provider, "ledger")
        place = _place(page[-1])
        query = log_of(ledger).by_place.bind(ledger.dialect, **at_place(place))
        there = await needs(self._provider, "session").query(*query)
        if len(there) == 1:
            return []
        known = [tuple(row) for row in page if _place(row) == place]
        return [row for row in there if tuple(row) not in known] or list(there[len(known) :])

    async def _one_by_one(self) -> None:
        ledger = needs(self._provider, "ledger")
        session = needs(self._provider, "session")
        log, dialect = log_of(ledger), ledger.dialect
        keys = await session.query(*log.keys_page.bind(dialect, **at_place(self._place), most=PAGE))
        self._done = len(keys) < PAGE
        for key in keys:
            self._place = _place(key)
            try:
                row = await session.query_one(*log.by_place.bind(dialect, **at_place(self._place)))
            except QueryRejected:
                row = None
            self._rows.append(row or key)
            self.leaves += await hashed([row]) if row else [sha256(repr(self._place).encode()).digest()]

    def drop(self, count: int) -> None:
        """Be done with the first `count`."""
        if count:
            self.passed = _place(self._rows[count - 1])
        del self.leaves[:count]
        del self._rows[:count]

    def take(self, index: int) -> None:
        """Be done with one that is out of its place."""
        del self.leaves[index]
        del self._rows[index]

    def entry_id(self, index: int) -> str | None:
        """Of one of the next entries; None where it cannot be read."""
        row = self._rows[index]
        return row["entry_id"] if row is not None and "entry_id" in row.keys() else None  # noqa: SIM118  (a row is no dict)

    def is_past(self, place: tuple[Any, ...]) -> bool:
        """Whether the next entry stands behind `place`."""
        row = self._rows[0]
        try:
            return row is not None and _place(row) > place
        except TypeError:  # an engine that keeps any type in any column
            return False

    async def remaining(self) -> int:
        """How many entries are left, without reading them."""
        if self._done:
            return len(self.leaves)
        ledger = needs(self._provider, "ledger")
        query = log_of(ledger).count_after.bind(ledger.dialect, **at_place(self._place))
        return len(self.leaves) + int(await needs(self._provider, "session").query_value(*query))


def _place(row: Row) -> tuple[Any, ...]:
    return row["era"], row["stamp"], row["seq"]

"""Audited inserts of the same text that come at the same time: several in one transaction, and no caller notices.

A row and its audit entry cost little beside a commit, and sixteen writers who wait for sixteen commits keep the server
busy with them. So what comes while the same text is under way already is gathered, and goes as one pipeline with one
commit. It is done only where the callers cannot tell:

- The text is a single row's ``INSERT INTO … VALUES (…)``, of parameters and literals (`splice.single_row`), into an
  ordinary table without rules and without triggers of anybody's: those could see, or do once, what belongs to a
  transaction. The server is asked with each group, under the lock that keeps a trigger from being made meanwhile.
- Neither could a default or a check: none calls a function in SQL or a procedural language that is VOLATILE. That is
  asked from time to time: a table that gets such a one is seen to have it within `_LOOKED`.
- Nobody waits in a group: whoever does not get a lock within ten milliseconds undoes it. So a group is never what
  others wait for, and never part of a deadlock, whose search begins after a second (`deadlock_timeout`). Whoever takes
  a quarter of a second for anything else undoes it, too, and no group waits for one that has no answer (`_STUCK`).
- Where anything at all fails, the whole group is undone, and each of its rows is inserted by itself, as if there had
  been no group: each caller gets the error of that row and no other's.
- A row that comes alone goes alone, at once. Where groups fail, or take longer than their rows would have by
  themselves, rows go alone for a while.

What they share: the transaction's id, and the time that it began (``now()``).

Sources: PostgreSQL 18 documentation, 54.2.4 (Pipelining: what stands before one Sync is one transaction), 19.11.1
(`lock_timeout`), 19.12 (`deadlock_timeout`), 13.3.2 (CREATE TRIGGER waits for whoever writes).
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.connectors.gathering import ALONE, Asked, Gathering
from datavern.contracts.errors import OutcomeUnknown
from datavern.engines.postgresql.errors import fault
from datavern.engines.postgresql.many import many
from datavern.engines.postgresql.statements import WRITES, Effect

if TYPE_CHECKING:
    import asyncpg

    from datavern.connectors.pool import Slot
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["Together", "are_small"]

_SIZE: Final = 64
"""Rows in a group, at the most."""
_AT_ONCE: Final = 2
"""Groups of one text under way: while one is committed, the next is sent."""
_FEW: Final = 3
"""So many go by themselves: on connections of their own they are quicker than together on one."""
_SMALL: Final = 65_536
"""Characters, bytes or elements of a value: a larger one keeps nobody else waiting."""
_LONG: Final = 0.010
"""Seconds that a group may take longer than three rows by themselves."""
_STUCK: Final = 1.0
"""Seconds without an answer, after which a group is not among those `_AT_ONCE` any more: its connection may be dead."""
_LOOKED: Final = 5.0
"""Seconds for which it is known what a table's defaults and checks call."""
_FIRST_PAUSE: Final = 16
_LONGEST_PAUSE: Final = 4096
"""Rows that go alone after a group that failed; twice as many after each further one."""
_CALLS: Final = """SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_depend d ON d.refobjid = p.oid
WHERE p.provolatile = 'v' AND p.prolang > 13 AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
AND (d.classid, d.objid) IN (
SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid, a.oid FROM pg_catalog.pg_attrdef a
WHERE a.adrelid = $1::pg_catalog.text::pg_catalog.regclass
UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint k
WHERE k.conrelid = $1::pg_catalog.text::pg_catalog.regclass OR k.contypid <> 0))"""
"""Whether a default or a check of a table, or the check of a domain, calls a function that may keep something in the
transaction. Those in C are taken not to (12 and 13 are internal and C; PostgreSQL 18 documentation, 52.29)."""


class Together(Gathering[Sequence[Any]]):
    """The audited inserts of one text.

    Args:
        provider: whose pool they go through.
        table: its name, as PostgreSQL reads it.
        text: inserts a row and its entry, and takes their parameters and then the row's number in the group
            (`splice.shared`).
        returning: it gives that number where the row was inserted (`splice.shared_held`); otherwise each one is.
    """

    __slots__ = (
        "_alone_took", "_crowd", "_looked", "_pause", "_provider", "_returning", "_single", "_skips", "_table", "_text",
    )  # fmt: skip

    waiters = "inserts"

    def __init__(self, provider: PostgreSQLProvider, table: str, text: str, *, returning: bool = False) -> None:
        super().__init__(name=provider.name, pool=provider.settings.pool, size=_SIZE, at_once=_AT_ONCE)
        self._provider = provider
        self._table = table
        self._text = text
        self._returning = returning
        self._looked = -_LOOKED  # when nothing that the table calls could tell
        self._single = 0  # rows under way that nobody has to wait for
        self._crowd = False  # the last ones came together
        self._skips = 0
        self._pause = _FIRST_PAUSE
        self._alone_took = 0.0

    def begins(self) -> bool:
        """Whether a row goes by itself, now: nobody else is under way, or groups do not pay. Then `ended` follows."""
        if self._skips:
            self._skips -= 1
        elif self._crowd or self._single >= _FEW or self._running or self._alone:
            return False
        self._single += 1
        return True

    def ended(self, took: float) -> None:
        """That row has been inserted, or not.

        Args:
            took: seconds.
        """
        self._single = max(0, self._single - 1)
        self._learn(took)

    async def write(self, values: Sequence[Any]) -> bool | None:
        """Insert a row with those that come now: whether it was. None: it was not, and may be by itself.

        Raises:
            OutcomeUnknown: the connection broke before the answer came.
            PoolTimeout: those before it took too long.
            ConnectionFailed: there is no connection to be had.
        """
        self._crowd = True
        answer = await self._join(values)
        if answer is not ALONE:
            return answer  # type: ignore[no-any-return]  # as `_answer` gives it
        try:
            written = await self._insert([values])
            return None if written is None else 0 in written
        finally:
            self._alone_ended()

    async def _answer(self, batch: list[Asked[Sequence[Any]]]) -> None:
        written = await self._insert([values for values, _, _ in batch])
        for number, (_, future, _) in enumerate(batch):
            if not future.done():
                future.set_result(None if written is None else number in written)

    async def _insert(self, rows: list[Sequence[Any]]) -> Container[int] | None:
        """The numbers of those that were inserted; None: the group was undone."""
        pool = self._provider._pool  # noqa: SLF001  (two halves of one engine, here and below)
        slot = pool.take() or await pool.acquire()
        places: list[int] = []
        timer = self._loop.call_later(_STUCK, self._is_stuck, places, context=self._context)
        try:
            return await self._insert_on(slot, rows)
        finally:
            timer.cancel()
            self._at_once -= len(places)

    def _is_stuck(self, places: list[int]) -> None:
        """A group has no answer for so long: those who wait are not to wait for it."""
        places.append(1)
        self._at_once += 1
        self._send()

    async def _insert_on(self, slot: Slot[asyncpg.Connection], rows: list[Sequence[Any]]) -> Container[int] | None:
        provider = self._provider
        pool = provider._pool  # noqa: SLF001  (see above)
        sets = [(*values, number) for number, values in enumerate(rows)]
        told: Any = None
        effect = Effect.READS
        started = time.perf_counter()
        try:
            may = started < self._looked + _LOOKED or await self._may(slot.connection)
            if may:
                effect, started = WRITES, time.perf_counter()
                told = await many(slot.connection, self._text, sets, returning=self._returning)
        except Exception as error:  # noqa: BLE001  (translated, or told by whoever goes alone now)
            found = fault(error, name=provider.name, stage="statement", effect=effect, parameters=sets, many=True)
        except BaseException:
            pool.recover(slot)
            raise
        else:
            pool.give(slot)
            if not may:
                self._go_alone()
                return None
            self._crowd = bool(self._waiting) or len(rows) + self._single > _FEW
            took = time.perf_counter() - started
            if len(rows) == 1:
                self._learn(took)
            elif self._alone_took and took > 3 * self._alone_took + _LONG:
                self._go_alone()
            else:
                self._pause = _FIRST_PAUSE
            return {row[0] for row in told} if self._returning else range(len(rows))
        provider._part(slot, found)  # noqa: SLF001
        if isinstance(found.error, OutcomeUnknown):
            raise found.error
        self._go_alone()
        return None

    async def _may(self, connection: asyncpg.Connection) -> bool:
        """Ask whether anything that the table calls could tell."""
        if await connection.fetchval(_CALLS, self._table):
            return False
        self._looked = time.perf_counter()
        return True

    def _learn(self, took: float) -> None:
        known = self._alone_took
        self._alone_took = took if took < known or not known else known + (took - known) / 8

    def _go_alone(self) -> None:
        self._skips = self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def are_small(parameters: Sequence[Any]) -> bool:
    """Whether none of the values keeps those waiting who go with it."""
    return all(type(value) not in _SIZED or len(value) <= _SMALL for value in parameters)


_SIZED: Final = frozenset({str, bytes, bytearray, memoryview, list, tuple, dict})

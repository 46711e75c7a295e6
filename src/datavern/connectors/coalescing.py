"""Reads of single rows by key, gathered: those of one turn of the loop go as one statement.

`CoalescedRead` gathers; what the statement is, and what an error says about its keys, is the engine's (`Source`).
`KeyedRead` is the same call where nothing is gained by gathering: a statement for each key.

What `CoalescedRead` promises, beside what a single statement and `Gathering` do:

- A read joins only a batch that is not sent yet: whatever was committed before the read began is seen by it.
- Each caller has a place of its own in the batch, and gets the row that the server put there: values are never compared
  here, so no rule of equality (collations, ``citext``, ``numeric``, NaN) can be got wrong.
- What one key brings about is its caller's alone: a batch that was refused because of a key is run again in halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from datavern.config import Pool
from datavern.connectors.gathering import ALONE, Asked, Gathering
from datavern.contracts.capabilities import Session
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Row, checked_size

__all__ = ["Blame", "CoalescedRead", "KeyedRead", "Source", "check_read"]

Blame = Literal["key", "merging", "nobody"]
"""Whom an error speaks of: one of the keys; the text that takes many keys at once; neither (the server is gone)."""

_REFUSALS = 3
"""So often in a row only the text for many keys is refused, until it is not tried any more. Not once: the schema may
have changed in between."""


class Source(Protocol):
    """What an engine brings. Both coroutines may be cancelled."""

    async def one(self, key: Any) -> Row | None:
        """The row of a key by a statement of its own, or None. Raises what that statement raises."""
        ...

    async def many(self, keys: list[Any]) -> Sequence[Row | None]:
        """The rows of the keys by one statement: for each key in turn its row, or None."""
        ...

    def blame(self, error: Exception) -> Blame:
        """Whom an error of `many` speaks of."""
        ...


class CoalescedRead(Gathering[Any]):
    """Rows by key, those that are asked for at the same time in one statement.

    Args:
        source: runs the statements.
        name: of the provider, for messages.
        pool: its settings: how many batches may be under way (half of the connections, so that reads that hang leave
            the other half to everybody else), and how long one waits for one's turn.
        batch_size: keys in a statement, at the most.
    """

    __slots__ = ("_merging", "_refusals", "_source", "keys", "statements")

    waiters = "reads"

    def __init__(self, source: Source, *, name: str, pool: Pool, batch_size: int) -> None:
        super().__init__(name=name, pool=pool, size=batch_size, at_once=max(1, pool.max // 2))
        self._source = source
        self._merging = True
        self._refusals = 0
        self.keys = 0
        self.statements = 0

    async def __call__(self, key: Any, /) -> Row | None:
        """The row with that key, or None: see `datavern.contracts.capabilities.PointRead`."""
        if not self._merging:
            self.keys += 1
            self.statements += 1
            return await self._source.one(key)
        row = await self._join(key)
        return row if row is not ALONE else await self._run_alone(key)

    # ---- a batch ----------------------------------------------------------------------------------------------------

    async def _run_alone(self, key: Any) -> Row | None:
        """A batch of one: its caller runs it, since a task for it would cost a third of the statement."""
        self.keys += 1
        self.statements += 1
        try:
            return await self._source.one(key)
        finally:
            self._alone_ended()

    async def _answer(self, batch: list[Asked[Any]]) -> None:
        self.keys += len(batch)
        parts = [batch]
        while parts:
            part = [asked for asked in parts.pop() if not asked[1].done()]
            if len(part) == 1:
                await self._answer_one(part[0])
            elif part:
                self.statements += 1
                try:
                    rows = await self._source.many([key for key, _, _ in part])
                except Exception as error:
                    blame = self._source.blame(error)
                    if blame == "nobody":
                        raise
                else:
                    self._refusals = 0
                    for (_, future, _), row in zip(part, rows, strict=True):
                        if not future.done():
                            future.set_result(row)
                    continue
                if blame == "key":
                    half = len(part) // 2
                    parts += (part[half:], part[:half])
                else:
                    await self._answer_singly(part)

    async def _answer_singly(self, part: list[Asked[Any]]) -> None:
        """The text for many keys was refused. Where the text for one is not, it is the merging that cannot be done."""
        answered = [await self._answer_one(asked) for asked in part]
        if any(answered):
            self._refusals += 1
            self._merging = self._refusals < _REFUSALS

    async def _answer_one(self, asked: Asked[Any]) -> bool:
        """One key by a statement of its own. Whether it was answered, and not refused."""
        key, future, _ = asked
        if future.done():
            return False
        self.statements += 1
        try:
            row = await self._source.one(key)
        except Exception as error:
            if self._source.blame(error) == "nobody":
                raise
            if not future.done():
                future.set_exception(error)
            return False
        if not future.done():
            future.set_result(row)
        return True


class KeyedRead:
    """Rows by key, a statement for each: where an engine gains nothing by gathering them.

    Args:
        session: runs the statement.
        sql: its text, with one parameter.
    """

    __slots__ = ("_session", "_sql", "keys")

    def __init__(self, session: Session, sql: str) -> None:
        self._session = session
        self._sql = sql
        self.keys = 0

    async def __call__(self, key: Any, /) -> Row | None:
        """The row with that key, or None: see `datavern.contracts.capabilities.PointRead`."""
        self.keys += 1
        return await self._session.query_one(self._sql, (key,))

    @property
    def statements(self) -> int:
        """Statements that were sent for them."""
        return self.keys


def check_read(table: str, key: str, columns: Sequence[str] | None, batch_size: int) -> None:
    """Refuse what no engine can read.

    Raises:
        ConfigurationError: says what is wrong.
    """
    names = [key] if columns is None else [key, *columns]
    if not isinstance(table, str) or not table:
        raise ConfigurationError("coalesced: the table's name is empty, or is no text")
    if isinstance(columns, str):
        raise ConfigurationError(f"{table}: columns is a text: expected a list of names")
    if any(not isinstance(name, str) or not name or "\0" in name for name in names):
        raise ConfigurationError(f"{table}: a column's name is empty, holds a NUL character, or is no text")
    if columns is not None and key not in columns:
        raise ConfigurationError(f"{table}: the key {key} is not among the columns: a row must say whose it is")
    checked_size(batch_size)

"""Reads of single rows by key, gathered: those of one turn of the loop go as one statement.

`CoalescedRead` gathers; what the statement is, and what an error says about its keys, is the engine's (`Source`).
`KeyedRead` is the same call where nothing is gained by gathering: a statement for each key.

What `CoalescedRead` promises, beside what a single statement does:

- A read joins only a batch that is not sent yet: whatever was committed before the read began is seen by it.
- Each caller has a place of its own in the batch, and gets the row that the server put there: values are never compared
  here, so no rule of equality (collations, ``citext``, ``numeric``, NaN) can be got wrong.
- What one key brings about is its caller's alone: a batch that was refused because of a key is run again in halves.
- A caller that is cancelled leaves the others alone. When nobody waits for a batch any more, its statement is
  cancelled.
- A few batches are under way at once, never more; what comes meanwhile waits, first come first served, and goes in
  larger ones. The pool's own deadline and the length of its line hold for whoever waits.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Future, Task, get_running_loop
from collections.abc import Sequence
from contextvars import Context
from typing import Any, Final, Literal, Protocol

from datavern.config import Pool
from datavern.contracts.capabilities import Session
from datavern.contracts.errors import ConfigurationError, PoolTimeout, twin_of
from datavern.contracts.values import Row, checked_size

__all__ = ["Blame", "CoalescedRead", "KeyedRead", "Source", "check_read"]

Blame = Literal["key", "merging", "nobody"]
"""Whom an error speaks of: one of the keys; the text that takes many keys at once; neither (the server is gone)."""

_REFUSALS = 3
"""So often in a row only the text for many keys is refused, until it is not tried any more. Not once: the schema may
have changed in between."""

_ALONE: Final = object()
"""The answer to somebody who is alone in a batch: to run the statement oneself."""

_Asked = tuple[Any, "Future[Any]", float]
"""A key, who waits for its row, and since when."""


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


class CoalescedRead:
    """Rows by key, those that are asked for at the same time in one statement.

    Args:
        source: runs the statements.
        name: of the provider, for messages.
        pool: its settings: how many batches may be under way (half of the connections, so that reads that hang leave
            the other half to everybody else), and how long one waits for one's turn.
        batch_size: keys in a statement, at the most.
    """

    __slots__ = (
        "_alone",
        "_at_once",
        "_context",
        "_due",
        "_loop",
        "_merging",
        "_name",
        "_pool",
        "_refusals",
        "_running",
        "_since",
        "_size",
        "_source",
        "_timed",
        "_waiting",
        "keys",
        "statements",
    )

    def __init__(self, source: Source, *, name: str, pool: Pool, batch_size: int) -> None:
        self._source = source
        self._name = name
        self._pool = pool
        self._size = batch_size
        self._at_once = max(1, pool.max // 2)
        self._merging = True
        self._refusals = 0
        self._loop: Any = None  # the loop that it is used on, an `AbstractEventLoop`
        self._context = Context()
        self._waiting: list[_Asked] = []
        self._running: dict[Task[None], list[_Asked]] = {}
        self._alone = 0
        self._due = False
        self._timed = False
        self._since = 0.0
        self.keys = 0
        self.statements = 0

    async def __call__(self, key: Any, /) -> Row | None:
        """The row with that key, or None: see `datavern.contracts.capabilities.PointRead`."""
        if not self._merging:
            self.keys += 1
            self.statements += 1
            return await self._source.one(key)
        loop = get_running_loop()
        if loop is not self._loop:
            self._enter(loop)
        future: Future[Any] = loop.create_future()
        if not self._due:
            self._due = True
            self._since = loop.time()
            loop.call_soon(self._turn, context=self._context)
        self._waiting.append((key, future, self._since))
        try:
            row = await future
        except CancelledError:
            self._left(future)
            raise
        return row if row is not _ALONE else await self._run_alone(key)

    def _enter(self, loop: AbstractEventLoop) -> None:
        """Begin on this loop. What waited on another went with it."""
        self._loop = loop
        # No caller's context: what one of them says of itself (who acts, what is traced) is not said for the others.
        self._context = Context()
        self._waiting = []
        self._running = {}
        self._alone = 0
        self._due = False
        self._timed = False

    # ---- who goes when ----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """The loop has gone round once: whoever asked meanwhile asked at the same time."""
        self._due = False
        self._send()
        most = self._pool.max_waiting
        if len(self._waiting) > most:
            self._waiting[:] = [asked for asked in self._waiting if not asked[1].done()]
            self._refuse(self._waiting[most:], f"{most} reads wait for their turn already (pool.max_waiting)")
            del self._waiting[most:]
        if self._waiting and not self._timed:
            self._timed = True
            self._watch_from(self._waiting[0][2])

    def _send(self) -> None:
        """Send what waits, as far as there is room."""
        loop, running = self._loop, self._running
        while self._waiting and len(running) + self._alone < self._at_once:
            batch = [asked for asked in self._waiting[: self._size] if not asked[1].done()]
            del self._waiting[: self._size]
            self.keys += len(batch)
            if len(batch) == 1:
                self._alone += 1
                batch[0][1].set_result(_ALONE)
            elif batch:
                task = loop.create_task(self._run(batch), context=Context())
                running[task] = batch
                task.add_done_callback(self._ended, context=self._context)

    def _ended(self, task: Task[None]) -> None:
        batch = self._running.pop(task, None)
        for _, future, _ in batch or ():
            future.cancel()  # only where the task itself was cancelled from outside: else each has its answer
        self._send()

    def _left(self, future: Future[Any]) -> None:
        """A caller was cancelled: what nobody waits for any more is cancelled too."""
        if not future.cancelled() and future.exception() is None and future.result() is _ALONE:
            self._alone -= 1  # its turn had come
            self._send()
        for task, batch in self._running.items():
            if batch and all(future.done() for _, future, _ in batch):
                batch.clear()  # once is enough
                task.cancel()

    def _watch_from(self, since: float) -> None:
        self._loop.call_at(since + self._pool.acquire, self._expire, context=self._context)

    def _expire(self) -> None:
        """Refuse those who have waited for as long as anybody waits for a connection."""
        now = self._loop.time()
        late = 0
        while late < len(self._waiting) and self._waiting[late][2] + self._pool.acquire <= now:
            late += 1
        expired = self._waiting[:late]
        del self._waiting[:late]
        self._refuse(expired, f"the reads before this one took longer than {self._pool.acquire:g} s (pool.acquire)")
        self._timed = bool(self._waiting)
        if self._timed:
            self._watch_from(self._waiting[0][2])

    def _refuse(self, asked: Sequence[_Asked], why: str) -> None:
        for _, future, _ in asked:
            if not future.done():
                future.set_exception(PoolTimeout(f"{self._name}: {why}", provider=self._name))

    # ---- a batch ----------------------------------------------------------------------------------------------------

    async def _run_alone(self, key: Any) -> Row | None:
        """A batch of one: its caller runs it, since a task for it would cost a third of the statement."""
        loop = self._loop
        self.statements += 1
        try:
            return await self._source.one(key)
        finally:
            if loop is self._loop:
                self._alone -= 1
                self._send()

    async def _run(self, batch: list[_Asked]) -> None:
        try:
            await self._answer(batch)
        except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to those who still wait)
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(twin_of(error))

    async def _answer(self, batch: list[_Asked]) -> None:
        """Each its answer. Raises what is nobody's fault: it concerns all that have none yet."""
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

    async def _answer_singly(self, part: list[_Asked]) -> None:
        """The text for many keys was refused. Where the text for one is not, it is the merging that cannot be done."""
        answered = [await self._answer_one(asked) for asked in part]
        if any(answered):
            self._refusals += 1
            self._merging = self._refusals < _REFUSALS

    async def _answer_one(self, asked: _Asked) -> bool:
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
    if isinstance(columns, str):
        raise ConfigurationError(f"{table}: columns is a text: expected a list of names")
    if any(not isinstance(name, str) or not name or "\0" in name for name in names):
        raise ConfigurationError(f"{table}: a column's name is empty, holds a NUL character, or is no text")
    if columns is not None and key not in columns:
        raise ConfigurationError(f"{table}: the key {key} is not among the columns: a row must say whose it is")
    checked_size(batch_size)

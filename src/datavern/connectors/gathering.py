"""Calls that come together, gathered: those of one turn of the loop go as one.

`Gathering` says who goes when; what one batch is, and what becomes of it, is of whoever inherits from it: reads by key
(`datavern.connectors.coalescing`), audited inserts (`datavern.engines.postgresql.together`). What it promises:

- A call joins only a batch that is not sent yet.
- A caller that is cancelled leaves the others alone. When nobody waits for a batch any more, it is cancelled.
- A few batches are under way at once, never more; what comes meanwhile waits, first come first served, and goes in
  larger ones. The pool's own deadline and the length of its line hold for whoever waits.
- Who is alone in a batch is told so (`ALONE`), and runs it as oneself: a task for it would cost a third of a statement.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Future, Task, get_running_loop
from collections.abc import Sequence
from contextvars import Context
from typing import Any, Final, Generic, TypeAlias, TypeVar

from datavern.config import Pool
from datavern.contracts.errors import PoolTimeout, twin_of

__all__ = ["ALONE", "Asked", "Gathering"]

ALONE: Final = object()
"""The answer to somebody who is alone in a batch: to run it oneself, and to say so at its end (`_alone_ended`)."""

T = TypeVar("T")

Asked: TypeAlias = tuple[T, "Future[Any]", float]
"""What is asked for, who waits for it, and since when."""


class Gathering(Generic[T]):
    """Calls of the same kind, those that come at the same time in one batch.

    Args:
        name: of the provider, for messages.
        pool: its settings: how many may wait, and for how long.
        size: calls in a batch, at the most.
        at_once: batches under way at once, at the most.
    """

    __slots__ = (
        "_alone",
        "_at_once",
        "_context",
        "_due",
        "_loop",
        "_name",
        "_pool",
        "_running",
        "_since",
        "_size",
        "_timed",
        "_waiting",
    )

    waiters = "calls"
    """What those are who wait, in messages."""

    def __init__(self, *, name: str, pool: Pool, size: int, at_once: int) -> None:
        self._name = name
        self._pool = pool
        self._size = size
        self._at_once = at_once
        self._loop: Any = None  # the loop that it is used on, an `AbstractEventLoop`
        self._context = Context()
        self._waiting: list[Asked[T]] = []
        self._running: dict[Task[None], list[Asked[T]]] = {}
        self._alone = 0
        self._due = False
        self._timed = False
        self._since = 0.0

    async def _answer(self, batch: list[Asked[T]]) -> None:
        """Each its answer. Raises what is nobody's fault: it concerns all that have none yet. May be cancelled."""
        raise NotImplementedError

    async def _join(self, asked: T) -> Any:
        """What the batch answers, or `ALONE`."""
        loop = get_running_loop()
        if loop is not self._loop:
            self._enter(loop)
        future: Future[Any] = loop.create_future()
        if not self._due:
            self._due = True
            self._since = loop.time()
            loop.call_soon(self._turn, context=self._context)
        self._waiting.append((asked, future, self._since))
        try:
            return await future
        except CancelledError:
            self._left(future)
            raise

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
            self._refuse(self._waiting[most:], f"{most} {self.waiters} wait for their turn already (pool.max_waiting)")
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
            if len(batch) == 1:
                self._alone += 1
                batch[0][1].set_result(ALONE)
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
        if not future.cancelled() and future.exception() is None and future.result() is ALONE:
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
        limit = f"{self._pool.acquire:g} s (pool.acquire)"
        self._refuse(expired, f"the {self.waiters} before this one took longer than {limit}")
        self._timed = bool(self._waiting)
        if self._timed:
            self._watch_from(self._waiting[0][2])

    def _refuse(self, asked: Sequence[Asked[T]], why: str) -> None:
        for _, future, _ in asked:
            if not future.done():
                future.set_exception(PoolTimeout(f"{self._name}: {why}", provider=self._name))

    def _alone_ended(self) -> None:
        """Whoever was alone in a batch is done with it."""
        if get_running_loop() is self._loop:
            self._alone -= 1
            self._send()

    async def _run(self, batch: list[Asked[T]]) -> None:
        try:
            await self._answer(batch)
        except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to those who still wait)
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(twin_of(error))

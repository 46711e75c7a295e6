"""Threads that each own a connection, and how work gets to them and back.

A lane drains its queue and wakes the loop once for all that it has done. Reads are taken by the readers from one queue;
the first reader takes them all while it is quick, since two threads that take turns at the interpreter are slower than
one. When it is not (a long query, a cold cache), `Lanes.watch` wakes the next, so that no read waits behind a long one.
Streams and read-only transactions take a reader for themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConnectionFailed, OutcomeUnknown, PoolTimeout
from datavern.engines.sqlite.jobs import DONE, PENDING, Job, Kind, OwnedJob, done_future
from datavern.engines.sqlite.reader import Reader

if TYPE_CHECKING:
    from datavern.engines.sqlite.lane import Lane
    from datavern.engines.sqlite.settings import SQLiteSettings
    from datavern.engines.sqlite.writer import Writer

__all__ = ["Lanes"]

_WATCH = 0.002  # seconds between looks at a queue of reads that is not empty
_QUICK = 10  # a reader that does fewer jobs than this between two looks gets help
_NAG = 0.05  # seconds until a statement that was interrupted before it had begun is interrupted again


class Lanes:
    """The lanes of one provider, seen from its loop."""

    def __init__(self, name: str, path: str, settings: SQLiteSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.path = path
        self.settings = settings
        self.loop = loop
        self.kinds: dict[str, Kind] = {}
        self.reads: deque[Job] = deque()
        self.submitted = 0  # the number of the last read that was queued
        self.done: deque[tuple[Job, Any, BaseException | None]] = deque()
        self.readers: list[Reader] = []
        self.shared: list[Reader] = []
        self.waiters: deque[asyncio.Future[Reader]] = deque()
        self.closing = False
        self.leases = 0
        self.timeouts = 0
        self.created = 0
        self.writer: Writer = None  # type: ignore[assignment]  # set by open(), before anything is run
        self._watching = False
        self._last_count = 0
        self._go_on = done_future(loop)

    # ---- the common queue of reads ----------------------------------------------------------------------------------

    def read(self, job: Job) -> None:
        """Queue a read for any reader."""
        job.number = self.submitted = self.submitted + 1
        self.reads.append(job)
        first = self.shared[0]
        if first.sleeping:
            first.wake()
        if not self._watching:
            self._watching = True
            self._last_count = self._count()
            self.loop.call_later(_WATCH, self.watch)

    def watch(self) -> None:
        """Look whether the reads move on; when they do not, another reader helps."""
        self.deliver()  # what a reader has done before it came to a long query
        if not self.reads:
            self._watching = False
            return
        count = self._count()
        if count - self._last_count < _QUICK:
            self._help()
        self._last_count = count
        self.loop.call_later(_WATCH, self.watch)

    def _count(self) -> int:
        return sum(reader.count for reader in self.shared)

    def _help(self) -> None:
        for reader in self.shared:
            if reader.sleeping:
                reader.wake()
                return
        if len(self.readers) < self.settings.max_readers and all(r.opened.done() for r in self.readers):
            self.shared.append(self.start_reader(self.reads))

    def start_reader(self, jobs: deque[Job]) -> Reader:
        """A new reader; it runs `jobs` once its connection is open."""
        reader = Reader(self, f"datavern-{self.name}-reader-{len(self.readers) + 1}", jobs)
        self.created += 1
        self.readers.append(reader)
        reader.opened.add_done_callback(lambda opened: self._opened(reader, opened))
        reader.start()
        return reader

    def _opened(self, reader: Reader, opened: asyncio.Future[None]) -> None:
        if opened.cancelled() or opened.exception() is not None:
            self.readers.remove(reader)
            if reader in self.shared:
                self.shared.remove(reader)

    # ---- a reader for oneself ---------------------------------------------------------------------------------------

    async def lease(self, jobs: deque[Job]) -> Reader:
        """A reader that runs `jobs` and nobody else's, until it has run one that ends it.

        One reader always stays with the common queue.

        Raises:
            ConnectionFailed: the provider was closed meanwhile.
            PoolTimeout: none came free in time.
        """
        self.leases += 1
        reader = None if self.waiters else self._spare()
        if reader is None and not self.waiters and len(self.readers) < self.settings.max_readers:
            reader = self.start_reader(jobs)
            try:
                await asyncio.wait([reader.opened])
            except BaseException:
                self.give_back(reader)
                raise
            reader.opened.result()
        if reader is None:
            reader = await self._await_reader()
        if self.closing:
            raise self.refuse()
        reader.source = jobs
        return reader

    def _spare(self) -> Reader | None:
        """A reader of the common queue that is not the last: one that sleeps, or any when no more may be opened."""
        others = self.shared[1:]
        full = len(self.readers) >= self.settings.max_readers
        found = next((r for r in reversed(others) if r.sleeping), others[-1] if others and full else None)
        if found is not None:
            self.shared.remove(found)
        return found

    async def _await_reader(self) -> Reader:
        waiter: asyncio.Future[Reader] = self.loop.create_future()
        self.waiters.append(waiter)
        timer = self.loop.call_later(self.settings.acquire, self._give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back(waiter.result())  # it came at the same moment
            raise
        finally:
            timer.cancel()
            if waiter in self.waiters:
                self.waiters.remove(waiter)

    def _give_up(self, waiter: asyncio.Future[Reader]) -> None:
        if not waiter.done():
            self.timeouts += 1
            waiter.set_exception(
                PoolTimeout(
                    f"{self.name}: no reader came free within {self.settings.acquire} s: {len(self.readers)} are held "
                    "by streams, read-only transactions and long queries (max_readers)",
                    provider=self.name,
                )
            )

    def give_back(self, reader: Reader) -> None:
        """The reader serves the next who waits for one, or the common queue."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(reader)
                return
        reader.source = self.reads
        if reader not in self.shared and reader in self.readers:
            self.shared.append(reader)
        reader.nudge()

    # ---- what comes back --------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Hand out what the lanes have done."""
        done, go_on = self.done, self._go_on
        try:
            for _ in range(len(done)):
                job, outcome, error = done.popleft()
                if job.state == PENDING:  # else its caller was cancelled
                    job.state = DONE
                    job.outcome = outcome
                    job.error = error
                    if job.callback is not None:
                        job.context.run(job.callback, go_on)
        except BaseException:  # KeyboardInterrupt, SystemExit: a task hands them to whoever runs the loop
            self.loop.call_soon(self.deliver)
            raise

    def abandon(self, job: Job) -> None:
        """The job's caller was cancelled: what has not begun does not run, and a read that runs is interrupted."""
        if job.state == DONE:
            return
        if not isinstance(job, OwnedJob):
            for queue in (self.reads, self.writer.queue):
                try:
                    queue.remove(job)
                except ValueError:
                    continue
                return
        self._nag(job)

    def _nag(self, job: Job) -> None:
        """Interrupt the job until it has ended: an interruption that comes before its first step is not noticed."""
        if any(lane.interrupt(job) for lane in (*self.readers, self.writer)):
            self.loop.call_later(_NAG, self._nag, job)

    def bury(self, lane: Lane, fault: str) -> None:
        """A lane has ended by a fault of ours: whoever waits for it is told, and reads go on elsewhere."""
        self.deliver()
        for job in lane.unanswered():
            job.fail(
                OutcomeUnknown(
                    f"{self.name}: a lane ended by a fault ({fault}), and it is not known whether this was done: "
                    "close the provider and open it again",
                    provider=self.name,
                )
            )
        if isinstance(lane, Reader):
            self.readers.remove(lane)
            if lane in self.shared:
                self.shared.remove(lane)
            if not self.shared and not self.closing:
                self.shared.append(self.start_reader(self.reads))

    def refuse(self) -> ConnectionFailed:
        """What a call gets once the provider is closed."""
        return ConnectionFailed(f"{self.name} is closed", provider=self.name)

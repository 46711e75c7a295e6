"""Threads that each own a connection, and how work gets to them and back.

A lane drains its queue and wakes the loop once for all that it has done. Reads are taken by the readers from one queue;
the first reader takes them all while it is quick, since two threads that take turns at the interpreter are slower than
one. When it is not (a long query, a cold cache), `Lanes.watch` wakes the next, so that no read waits behind a long one.
Streams and read-only transactions take a reader for themselves.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConnectionFailed, DriverError, PoolTimeout, ProviderError, QueryRejected
from datavern.engines.sqlite.connection import open_connection
from datavern.engines.sqlite.errors import code_of, translate, unopened
from datavern.engines.sqlite.files import prepare_file
from datavern.engines.sqlite.jobs import Job, Kind, OwnedJob

if TYPE_CHECKING:
    from datavern.engines.sqlite.settings import SQLiteSettings
    from datavern.engines.sqlite.writer import Writer

__all__ = ["Lane", "Lanes", "Reader"]

_WATCH = 0.002  # seconds between looks at a queue of reads that is not empty
_QUICK = 10  # a reader that does fewer jobs than this between two looks gets help
_NAG = 0.05  # seconds until a statement that was interrupted before it had begun is interrupted again


class Lane(threading.Thread):
    """A thread with a connection of its own."""

    def __init__(self, lanes: Lanes, name: str, *, writes: bool) -> None:
        super().__init__(name=name, daemon=True)  # a program that forgets to close may still end
        self.lanes = lanes
        self.writes = writes
        self.sleeping = False
        self.stopping = False
        self.ended = False
        self.current: Job | None = None  # what runs and may be interrupted
        self.count = 0
        self.connection: sqlite3.Connection = None  # type: ignore[assignment]  # set before anything is run
        self.opened: asyncio.Future[None] = lanes.loop.create_future()
        self.closed: asyncio.Future[None] = lanes.loop.create_future()
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._guard = threading.Lock()  # between an interruption and the closing of the connection

    # ---- on the loop ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the thread look at its queue."""
        if self.sleeping:
            self.sleeping = False
            self._tokens.put(None)

    def nudge(self) -> None:
        """Let the thread look at its queue, whether it sleeps or not: it has another one now."""
        self._tokens.put(None)

    def stop(self) -> None:
        """Let the thread finish what is queued and end."""
        self.stopping = True
        self._tokens.put(None)

    def interrupt(self, job: Job | None) -> bool:
        """Interrupt `job`, or whatever runs when None. False when it does not run, or must not be interrupted."""
        with self._guard:
            if self.ended or self.connection is None or (job is not None and self.current is not job):
                return False
            self.connection.interrupt()
            return True

    # ---- on the thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Open, serve until stopped, close."""
        lanes = self.lanes
        try:
            if self.writes and not lanes.settings.in_memory:
                prepare_file(lanes.path, lanes.name)
            self.connection = open_connection(lanes.path, lanes.settings, writes=self.writes)
        except BaseException as error:  # noqa: BLE001  (whatever it is, the caller of connect gets it)
            failed = (
                unopened(error, provider=lanes.name, path=lanes.path)
                if isinstance(error, sqlite3.Error)
                else translate(error, provider=lanes.name)
            )
            self.ended = True
            self._post(_settle, self.opened, failed)
            return
        self._post(_settle, self.opened, None)
        try:
            self.serve()
        finally:
            self.flush()
            with self._guard:
                self.ended = True
            self.connection.close()
            self._post(_settle, self.closed, None)

    def serve(self) -> None:
        """Run jobs until stopped."""
        raise NotImplementedError

    def wait(self, queue: deque[Job]) -> None:
        """Sleep until there may be something in the queue."""
        self.sleeping = True
        if self.has_work(queue) or self.stopping:  # it came between the last look and the line above
            self.sleeping = False
            return
        self._tokens.get()
        self.sleeping = False

    def has_work(self, queue: deque[Job]) -> bool:
        """Whether there is something to do now."""
        return bool(queue)

    def flush(self) -> None:
        """Wake the loop once for all that is done."""
        if self.lanes.done:
            self._post(self.lanes.deliver)

    def step(self, job: OwnedJob) -> None:
        """Run a job of the lane's holder."""
        connection, owner = self.connection, job.owner
        self.count += 1
        result: Any = None
        error: BaseException | None = self._lost() if owner.lost else None
        if error is not None:
            self.lanes.done.append((job.future, None, error))
            return
        self.current = job
        try:
            for text in job.prefix:
                connection.execute(text)
            if not job.future.done():  # the statement was cancelled; those before it were not
                result = job.run(connection, job.sql, job.parameters)
        except BaseException as raised:  # noqa: BLE001  (whatever it is, it belongs to the job's caller)
            error = self.failure(raised, job)
            owner.lost = owner.lost or not connection.in_transaction
        self.current = None
        self.lanes.done.append((job.future, result, error))

    def end(self, job: OwnedJob) -> None:
        """Commit or roll back, and run what tidies up."""
        connection = self.connection
        result: Any = None
        error: BaseException | None = self._lost() if job.owner.lost and job.ends == "commit" else None
        try:
            if job.ends == "commit" and error is None and not job.future.done():
                for text in job.prefix:
                    connection.execute(text)
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except BaseException as raised:  # noqa: BLE001  (whatever it is, it belongs to the job's caller)
            error = self.failure(raised, job)
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            result = job.run(connection, job.sql, job.parameters)
        except BaseException as raised:  # noqa: BLE001  (the transaction has ended all the same)
            error = error or self.failure(raised, job)
        self.lanes.done.append((job.future, result, error))

    def _lost(self) -> ProviderError:
        return ProviderError(
            "the engine has rolled the transaction back: run all of it again",
            provider=self.lanes.name,
            retry="transaction",
        )

    def failure(self, error: BaseException, job: Job) -> BaseException:
        """What the job's caller gets."""
        number = getattr(error, "sqlite_errorcode", 0)
        if number == sqlite3.SQLITE_INTERRUPT and self.stopping:
            return self.lanes.refuse()
        if number == sqlite3.SQLITE_READONLY and (not self.writes or self.lanes.settings.in_memory):
            ours = QueryRejected(
                "the statement writes: a read-only transaction and a stream do not (query() does)",
                provider=self.lanes.name,
                code=code_of(error),
            )
            ours.__cause__ = DriverError.of(error, ours.code)
            return ours
        sql = job.sql if isinstance(job.sql, str) else getattr(job.sql, "sql", None)
        return translate(error, provider=self.lanes.name, sql=sql, connection=self.connection)

    def _post(self, call: Callable[..., object], *args: Any) -> None:
        try:
            self.lanes.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self.stopping = True


class Reader(Lane):
    """A lane that cannot write."""

    def __init__(self, lanes: Lanes, name: str, source: deque[Job]) -> None:
        super().__init__(lanes, name, writes=False)
        self.source = source

    def serve(self) -> None:
        """Take reads from the common queue, or from the queue of whoever holds this reader."""
        lanes, connection, done = self.lanes, self.connection, self.lanes.done
        while True:
            source = self.source
            try:
                job = source.popleft()
            except IndexError:
                self.flush()
                if not self.stopping:
                    self.wait(source)
                elif not self.has_work(source):  # asked after `stopping`: what was queued before that is still done
                    return
                continue
            if isinstance(job, OwnedJob):
                if job.ends is None:
                    self.step(job)
                else:
                    self.end(job)
                    self._post(lanes.give_back, self)
                continue
            if job.future.done():
                continue  # cancelled while it was queued
            self.count += 1
            self.current = job
            try:
                done.append((job.future, job.run(connection, job.sql, job.parameters), None))
            except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to the job's caller)
                self._failed(job, error)
            self.current = None

    def has_work(self, queue: deque[Job]) -> bool:
        """Whether there is something to do now: in another queue, when the reader was lent out or given back."""
        return bool(queue) or self.source is not queue

    def _failed(self, job: Job, error: BaseException) -> None:
        lanes = self.lanes
        number = getattr(error, "sqlite_errorcode", 0)
        if number == sqlite3.SQLITE_INTERRUPT and not job.future.done() and not self.stopping:
            lanes.reads.appendleft(job)  # it was meant for the job before, which had just ended
        elif number == sqlite3.SQLITE_READONLY:
            job.kind = lanes.kinds[job.sql] = Kind.WRITE  # SQLite's own word: this text writes
            lanes.writer.queue.append(job)
            lanes.writer.wake()
        else:
            lanes.done.append((job.future, None, self.failure(error, job)))


class Lanes:
    """The lanes of one provider, seen from its loop."""

    def __init__(self, name: str, path: str, settings: SQLiteSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.path = path
        self.settings = settings
        self.loop = loop
        self.kinds: dict[str, Kind] = {}
        self.reads: deque[Job] = deque()
        self.done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self.readers: list[Reader] = []
        self.shared: list[Reader] = []
        self.waiters: deque[asyncio.Future[Reader]] = deque()
        self.leases = 0
        self.timeouts = 0
        self.created = 0
        self.writer: Writer = None  # type: ignore[assignment]  # set by open(), before anything is run
        self._watching = False
        self._last_count = 0

    # ---- the common queue of reads ----------------------------------------------------------------------------------

    def read(self, job: Job) -> None:
        """Queue a read for any reader."""
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
        done = self.done
        for _ in range(len(done)):
            future, result, error = done.popleft()
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

    def abandon(self, job: Job) -> None:
        """The job's caller was cancelled: what has not begun does not run, and a read that runs is interrupted."""
        future = job.future
        if future.done() and not future.cancelled():
            future.exception()  # it was ready, and nobody will look
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

    def refuse(self) -> ConnectionFailed:
        """What a call gets once the provider is closed."""
        return ConnectionFailed(f"{self.name} is closed", provider=self.name)


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

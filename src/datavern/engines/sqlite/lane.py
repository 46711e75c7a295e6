"""A thread that owns a connection, and how work gets to it and back."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import DriverError, ProviderError, QueryRejected
from datavern.engines.sqlite.connection import Connection, open_connection
from datavern.engines.sqlite.errors import code_of, translate, unopened
from datavern.engines.sqlite.jobs import PENDING, Job, OwnedJob

if TYPE_CHECKING:
    from datavern.engines.sqlite.lanes import Lanes

__all__ = ["Lane"]


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
        self.connection: Connection = None  # type: ignore[assignment]  # set before anything is run
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
                from datavern.engines.sqlite.files import prepare_file  # noqa: PLC0415  (brings pathlib; to open is rare)

                prepare_file(lanes.path, lanes.name)
            self.connection = open_connection(lanes.path, lanes.settings, writes=self.writes)
        except BaseException as error:  # noqa: BLE001  (whatever it is, the caller of connect gets it)
            failed = (
                unopened(error, provider=lanes.name, path=lanes.path)
                if isinstance(error, sqlite3.Error)
                else translate(error, provider=lanes.name)
            )
            self.ended = True
            self.post(_settle, self.opened, failed)
            self.post(_settle, self.closed, None)
            return
        self.post(_settle, self.opened, None)
        fault: BaseException | None = None
        try:
            self.serve()
        except BaseException as error:  # noqa: BLE001  (a fault of ours: nobody may wait for ever because of it)
            fault = error
        self.flush()
        with self._guard:
            self.ended = True
        self.connection.close()
        if fault is not None:
            self.post(lanes.bury, self, type(fault).__name__)
        self.post(_settle, self.closed, None)

    def serve(self) -> None:
        """Run jobs until stopped."""
        raise NotImplementedError

    def unanswered(self) -> list[Job]:
        """What this lane was given and has not answered; asked when it has ended by a fault."""
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
            self.post(self.lanes.deliver)

    def step(self, job: OwnedJob) -> None:
        """Run a job of the lane's holder."""
        connection, owner = self.connection, job.owner
        self.count += 1
        result: Any = None
        error: BaseException | None = self._lost() if owner.lost else None
        if error is not None:
            self.lanes.done.append((job, None, error))
            return
        self.current = job
        try:
            for text in job.prefix:
                connection.execute(text)
            if job.state == PENDING:  # the statement was cancelled; those before it were not
                result = job.run(connection, job.sql, job.parameters)
        except BaseException as raised:  # noqa: BLE001  (whatever it is, it belongs to the job's caller)
            error = self.failure(raised, job)
            owner.lost = owner.lost or not connection.in_transaction
        self.current = None
        self.lanes.done.append((job, result, error))

    def end(self, job: OwnedJob) -> None:
        """Commit or roll back, and run what tidies up."""
        connection = self.connection
        result: Any = None
        error: BaseException | None = self._lost() if job.owner.lost and job.ends == "commit" else None
        try:
            if job.ends == "commit" and error is None and job.state == PENDING:
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
        self.lanes.done.append((job, result, error))

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

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Have the loop call something."""
        try:
            self.lanes.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self.stopping = True


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

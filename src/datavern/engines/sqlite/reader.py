"""The lanes that read."""

from __future__ import annotations

import sqlite3
from collections import deque
from typing import TYPE_CHECKING

from datavern.engines.sqlite.jobs import PENDING, READ, Job, Kind, OwnedJob
from datavern.engines.sqlite.lane import Lane

if TYPE_CHECKING:
    from datavern.engines.sqlite.lanes import Lanes

__all__ = ["Reader"]

_NONE = -1


class Reader(Lane):
    """A lane that cannot write."""

    def __init__(self, lanes: Lanes, name: str, source: deque[Job]) -> None:
        super().__init__(lanes, name, writes=False)
        self.source = source

    def serve(self) -> None:
        """Take reads from the common queue, or from the queue of whoever holds this reader.

        Reads that wait together share a transaction: taking and leaving a snapshot costs as much as a point select
        does. None of them sees an older moment than its caller may expect: those that are queued after the snapshot was
        begun do not belong to it.
        """
        connection, done = self.connection, self.lanes.done
        last = _NONE  # number of the last job that the open snapshot serves
        while True:
            source = self.source
            try:
                job = source.popleft()
            except IndexError:
                last = self._let_go(last)
                self.flush()
                if not self.stopping:
                    self.wait(source)
                elif not self.has_work(source):  # asked after `stopping`: what was queued before that is still done
                    return
                continue
            if job.kind is not READ:
                last = self._let_go(last)
                self._owned(job)  # type: ignore[arg-type]  # of the jobs on readers, those of holders alone are no reads
                continue
            if job.number > last:
                last = self._let_go(last)
                if source:
                    last = self._begin()
            self.current = job  # before the next line: whoever cancels now finds it here, or is seen there
            if job.state != PENDING:
                self.current = None
                continue
            self.count += 1
            try:
                done.append((job, job.run(connection, job.sql, job.parameters), None))
            except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to the job's caller)
                self._failed(job, error)
            self.current = None

    def _begin(self) -> int:
        """Begin a snapshot for what is queued by now; the last number of it."""
        last = self.lanes.submitted
        self.connection.execute("BEGIN")
        return last

    def _let_go(self, last: int) -> int:
        """End the snapshot, if there is one."""
        if last != _NONE and self.connection.in_transaction:
            self.connection.execute("COMMIT")
        return _NONE

    def _owned(self, job: OwnedJob) -> None:
        if job.ends is None:
            self.step(job)
        else:
            self.end(job)
            self.post(self.lanes.give_back, self)

    def unanswered(self) -> list[Job]:
        """What runs, and what its holder has queued."""
        held = [] if self.source is self.lanes.reads else list(self.source)
        return held if self.current is None else [self.current, *held]

    def has_work(self, queue: deque[Job]) -> bool:
        """Whether there is something to do now: in another queue, when the reader was lent out or given back."""
        return bool(queue) or self.source is not queue

    def _failed(self, job: Job, error: BaseException) -> None:
        lanes = self.lanes
        number = getattr(error, "sqlite_errorcode", 0)
        if number == sqlite3.SQLITE_INTERRUPT and job.state == PENDING and not self.stopping:
            lanes.reads.appendleft(job)  # it was meant for the job before, which had just ended
        elif number == sqlite3.SQLITE_READONLY:
            job.kind = lanes.kinds[job.sql] = Kind.WRITE  # SQLite's own word: this text writes
            lanes.writer.queue.append(job)
            lanes.writer.wake()
        else:
            lanes.done.append((job, None, self.failure(error, job)))

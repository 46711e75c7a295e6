"""The lane that writes.

Operations that are nobody's transaction are committed in groups: whatever waits when the writer comes to it goes into
one transaction, each operation in a savepoint of its own, and none is acknowledged before the commit that holds it. So
a disk that syncs a thousand times a second takes tens of thousands of durable writes. An operation that fails is
undone alone; a commit that fails fails all of them.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import PoolTimeout, QueryRejected
from datavern.engines.sqlite.jobs import PENDING, READ, WRITE, Job, OwnedJob, Owner
from datavern.engines.sqlite.lane import Lane

if TYPE_CHECKING:
    from datavern.engines.sqlite.lanes import Lanes

__all__ = ["Writer"]

_GROUP = 1000  # operations in one commit, at the most
_GATHER = 0.05  # seconds after which a group is committed although more is waiting
_CLOCK = 16  # operations between looks at the clock
_LOOK = 1.0  # seconds between looks at calls that wait for a writer that somebody holds


_Outcome = tuple[Job, Any, BaseException | None]  # what an operation of a group gave, or why it was refused


class Writer(Lane):
    """The one lane that changes the file."""

    def __init__(self, lanes: Lanes) -> None:
        super().__init__(lanes, f"datavern-{lanes.name}-writer", writes=True)
        self.queue: deque[Job] = deque()
        self.owner: Owner | None = None
        self.commits = 0
        self._held: Job | None = None
        self._taken: list[Job] = []  # what the group that runs is made of
        self._keeping = False  # whether the group that runs has something to keep
        self._looking = False

    # ---- on the loop ------------------------------------------------------------------------------------------------

    def add(self, job: Job) -> None:
        """Queue an operation, or the first one of a transaction.

        Raises:
            ConnectionFailed: the writer has ended.
            QueryRejected: this very task holds the writer: it would wait for itself.
        """
        if self.ended:
            raise self.lanes.refuse()
        owner = self.owner
        if owner is not None:
            if owner.task is asyncio.current_task():
                raise QueryRejected(
                    "this task holds the database in a transaction, and would wait for itself: run the statement on "
                    "the transaction (a nested transaction is tx.savepoint())",
                    provider=self.lanes.name,
                )
            self._look_later()
        elif isinstance(job, OwnedJob):
            self._look_later()
        self.queue.append(job)
        self.wake()

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self.lanes.loop.call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Whoever has waited too long for the writer is told so."""
        self._looking = False
        now = self.lanes.loop.time()
        longest = self.lanes.settings.acquire
        for job in list(self.queue):
            if job.since == 0.0:
                job.since = now - _LOOK
            if now - job.since < longest or job.state != PENDING:
                continue
            if not isinstance(job, OwnedJob):
                try:
                    self.queue.remove(job)
                except ValueError:
                    continue  # its turn has come
            self.lanes.timeouts += 1
            job.fail(
                PoolTimeout(
                    f"{self.lanes.name}: the writer did not come free within {longest} s: a transaction holds it",
                    provider=self.lanes.name,
                )
            )
        if self.queue or self.owner is not None:
            self._look_later()

    # ---- on the thread ----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run what is queued, in its order; while a transaction holds the writer, that one's alone."""
        while True:
            owner = self.owner
            queue = self.queue if owner is None else owner.jobs
            if owner is None and self._held is not None:
                job, self._held = self._held, None
            else:
                try:
                    job = queue.popleft()
                except IndexError:
                    self.flush()
                    if not self.stopping:
                        self.wait(queue)
                    elif self.has_work(queue):
                        continue  # asked after `stopping`: what was queued before that is still done
                    elif owner is None:
                        return
                    else:
                        self._roll_back()
                        self.owner = None
                    continue
            if isinstance(job, OwnedJob):
                self._owned(job)
            elif job.kind is WRITE:
                self._group(job)
            else:
                self._alone(job)

    def unanswered(self) -> list[Job]:
        """The group that runs, what runs otherwise, and everything that is queued."""
        owned = [] if self.owner is None else list(self.owner.jobs)
        single = [job for job in (self.current, self._held) if job is not None]
        return [*self._taken, *single, *owned, *self.queue]

    def _owned(self, job: OwnedJob) -> None:
        self.owner = job.owner
        if job.ends is None:
            self.step(job)
            return
        self.end(job)
        self.owner = None
        self.flush()

    def _alone(self, job: Job) -> None:
        """A job outside any transaction: a read of a database without readers, PRAGMA, VACUUM."""
        if job.kind is READ:
            self.current = job  # before the next line: whoever cancels now finds it here, or is seen there
        if job.state != PENDING:
            self.current = None
            return
        self.count += 1
        try:
            self.lanes.done.append((job, job.run(self.connection, job.sql, job.parameters), None))
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to the job's caller)
            again = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT and job.state == PENDING
            if again and job.kind is READ and not self.stopping:
                self.queue.appendleft(job)  # the interruption was meant for the job before
            else:
                self.lanes.done.append((job, None, self.failure(error, job)))
        self.current = None

    def _group(self, job: Job) -> None:
        """Commit the job, and those that wait behind it, together."""
        connection, done = self.connection, self.lanes.done
        waiting = len(self.queue)
        self._taken = taken = [job]
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            # Another process has the file. Those behind have waited as long as this one, or nearly so.
            done.append((job, None, self.failure(error, job)))
            self._fail_waiting(waiting, error)
            self._taken = []
            self.flush()
            return
        group: list[_Outcome] = []
        self._keeping = False
        until = time.monotonic() + _GATHER
        following: Job | None = job
        while following is not None:
            outcome = self._in_savepoint(following)
            if outcome is not None:
                group.append(outcome)
                if outcome[2] is not None and not connection.in_transaction:
                    # The engine gave up the whole transaction: that is the fault of this one, and not of the others.
                    done.append((outcome[0], None, outcome[2]))
                    self._one_by_one(group[:-1])
                    break
            following = self._next(len(group), until)
            if following is not None:
                taken.append(following)
        else:
            self._commit(group)
        self._taken = []
        self.flush()

    def _in_savepoint(self, job: Job) -> _Outcome | None:
        """Run one operation of a group. One that fails is undone, and hears of it when the group has ended.

        It may be refused for a row that the group has just written, and whoever looks for that row then must find it.
        """
        if job.state != PENDING:
            return None  # cancelled while it was queued
        connection = self.connection
        self.count += 1
        savepoint = self._keeping  # the first one needs none: there is nothing to keep
        try:
            if savepoint:
                connection.execute("SAVEPOINT operation")
            result = job.run(connection, job.sql, job.parameters)
            if savepoint:
                connection.execute("RELEASE operation")
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to the job's caller)
            failure = self.failure(error, job)
            self._undo("operation" if savepoint else None)
            return job, None, failure
        self._keeping = True
        return job, result, None

    def _undo(self, savepoint: str | None) -> None:
        """Undo the operation that failed. When not even that can be done, no transaction is open afterwards."""
        connection = self.connection
        if not connection.in_transaction:
            return
        try:
            if savepoint is not None:
                connection.execute(f"ROLLBACK TO {savepoint}")
                connection.execute(f"RELEASE {savepoint}")
            else:
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            self._roll_back()

    def _next(self, size: int, until: float) -> Job | None:
        """The next operation for this group, or None when it is to be committed now."""
        if size >= _GROUP or (size % _CLOCK == 1 and time.monotonic() > until):
            return None
        try:
            job = self.queue.popleft()
        except IndexError:
            return None
        if job.kind is WRITE and not isinstance(job, OwnedJob):
            return job
        self._held = job
        return None

    def _commit(self, group: list[_Outcome]) -> None:
        done = self.lanes.done
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CONSTRAINT:
                self._one_by_one(group)  # a deferred constraint: whose it is shows when each commits alone
                return
            done.extend((job, None, refused or self.failure(error, job)) for job, _, refused in group)
            return
        self.commits += 1
        done.extend((job, result, refused) for job, result, refused in group)

    def _one_by_one(self, group: list[_Outcome]) -> None:
        """Run each operation again in a transaction of its own; all of them were undone, and nobody heard of any."""
        connection, done = self.connection, self.lanes.done
        for job, _, _ in group:
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = job.run(connection, job.sql, job.parameters)
                connection.execute("COMMIT")
            except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to the job's caller)
                self._roll_back()
                done.append((job, None, self.failure(error, job)))
            else:
                self.commits += 1
                done.append((job, result, None))

    def _fail_waiting(self, waiting: int, error: sqlite3.Error) -> None:
        for _ in range(waiting):
            following = self._next(0, 0.0)
            if following is None:
                return
            self.lanes.done.append((following, None, self.failure(error, following)))

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except sqlite3.Error:
                return  # the engine rolls back by itself what it cannot roll back when told

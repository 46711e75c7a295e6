"""Streams: rows in constant memory."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Literal, Self

from datavern.contracts.errors import ConnectionFailed, QueryRejected
from datavern.contracts.values import Parameters, checked_size
from datavern.engines.sqlite.bind import bound
from datavern.engines.sqlite.connection import Connection
from datavern.engines.sqlite.jobs import Job, Kind, OwnedJob, Owner, Run, run_all

if TYPE_CHECKING:
    from datavern.engines.sqlite.lanes import Lanes
    from datavern.engines.sqlite.provider import SQLiteProvider
    from datavern.engines.sqlite.reader import Reader
    from datavern.engines.sqlite.transactions import SQLiteTransaction

__all__ = ["Stream", "TransactionStream"]


class _Rows:
    """Rows as they are fetched: an asynchronous iterator."""

    __slots__ = ("_batch", "_batch_size", "_cursor", "_following", "_job", "_open", "_parameters", "_shut", "sql")

    def __init__(self, sql: str, parameters: Parameters, batch_size: int) -> None:
        self.sql = sql
        self._parameters = parameters
        self._batch_size = checked_size(batch_size)
        self._cursor: list[sqlite3.Cursor] = []  # set and used on the lane alone
        self._batch: Iterator[sqlite3.Row] = iter(())
        self._job: Job | None = None
        self._following: Job | None = None
        self._open = False
        self._shut = False

    def __aiter__(self) -> AsyncIterator[sqlite3.Row]:
        return self

    async def __anext__(self) -> sqlite3.Row:
        for row in self._batch:
            return row
        if self._shut:
            raise ConnectionFailed("the provider was closed while the stream was open")
        if not self._open:
            raise QueryRejected("the stream is not open: its rows are read inside its block")
        job, self._following = self._following, None
        if job is None:
            raise StopAsyncIteration
        self._job = job
        try:
            rows = await job
        except asyncio.CancelledError:
            self._cancel(job)
            raise
        self._job = None
        if len(rows) == self._batch_size:
            self._following = self._send(_fetch)  # fetched while the caller works on this batch
        self._batch = iter(rows)
        for row in self._batch:
            return row
        raise StopAsyncIteration

    def _send(self, run: Run) -> Job:
        raise NotImplementedError

    def _cancel(self, job: Job) -> None:
        raise NotImplementedError


def _begin(connection: sqlite3.Connection, rows: _Rows, parameters: Parameters) -> list[sqlite3.Row]:
    cursor = connection.execute(rows.sql, bound(parameters))
    rows._cursor.append(cursor)  # noqa: SLF001
    return cursor.fetchmany(rows._batch_size)  # noqa: SLF001


def _fetch(connection: sqlite3.Connection, rows: _Rows, parameters: Parameters) -> list[sqlite3.Row]:  # noqa: ARG001  (every job is called alike)
    return rows._cursor[0].fetchmany(rows._batch_size)  # noqa: SLF001


def _finish(connection: sqlite3.Connection, rows: _Rows, parameters: Parameters) -> None:  # noqa: ARG001  (every job is called alike)
    for cursor in rows._cursor:  # noqa: SLF001
        cursor.close()
    rows._cursor.clear()  # noqa: SLF001


class Stream(_Rows):
    """Rows of a statement outside a transaction. Holds a reader, and one snapshot, until its block ends."""

    __slots__ = ("_lanes", "_owner", "_provider", "_reader")

    def __init__(self, provider: SQLiteProvider, sql: str, parameters: Parameters, batch_size: int) -> None:
        super().__init__(sql, parameters, batch_size)
        self._provider = provider
        self._owner: Owner | None = None
        self._reader: Reader | None = None

    async def __aenter__(self) -> Self:
        lanes = self._lanes = self._provider._ready()  # noqa: SLF001
        self._provider._kind(self.sql)  # noqa: SLF001
        self._owner = Owner(asyncio.current_task())
        if lanes.settings.in_memory:
            # One connection for everything: the rows are copied at once, so that whoever reads them may also write.
            self._batch = iter(await self._all(lanes))
            self._open = True
            return self
        self._reader = await lanes.lease(self._owner.jobs)
        self._open = True
        self._provider._holders.add(self)  # noqa: SLF001
        self._following = self._send(_begin)
        return self

    async def _all(self, lanes: Lanes) -> list[sqlite3.Row]:
        job = Job(lanes.loop, _read_all, self.sql, self._parameters, Kind.READ)
        lanes.writer.add(job)
        try:
            return await job  # type: ignore[no-any-return]  # what the job returns
        except asyncio.CancelledError:
            lanes.abandon(job)
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._open = False
        self._batch = iter(())
        self._provider._holders.discard(self)  # noqa: SLF001
        if self._following is not None:
            self._cancel(self._following)
        if self._reader is None or self._shut:
            return
        self._send(_finish, "rollback")

    def shut(self) -> None:
        """The provider closes."""
        self._open = False
        self._shut = True

    def _send(self, run: Run, ends: Literal["rollback"] | None = None) -> Job:
        assert self._reader is not None  # noqa: S101  (for the type checker: it was entered)
        assert self._owner is not None  # noqa: S101
        job = OwnedJob(self._lanes.loop, run, self, self._parameters, owner=self._owner, ends=ends)
        self._owner.jobs.append(job)
        self._reader.wake()
        return job

    def _cancel(self, job: Job) -> None:
        job.cancel()
        self._lanes.abandon(job)


class TransactionStream(_Rows):
    """Rows of a statement inside a transaction."""

    __slots__ = ("_tx",)

    def __init__(self, tx: SQLiteTransaction, sql: str, parameters: Parameters, batch_size: int) -> None:
        super().__init__(sql, parameters, batch_size)
        self._tx = tx

    async def __aenter__(self) -> Self:
        self._tx._provider._kind(self.sql)  # noqa: SLF001
        self._open = True
        self._following = self._send(_begin)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._open = False
        self._batch = iter(())
        tx = self._tx
        if tx._open and tx._unfit() is None:  # noqa: SLF001
            self._send(_finish)

    def _send(self, run: Run) -> Job:
        return self._tx._send(run, self, self._parameters)  # noqa: SLF001

    def _cancel(self, job: Job) -> None:
        self._tx._abandon(job)  # noqa: SLF001


def _read_all(connection: Connection, sql: str, parameters: Parameters) -> list[sqlite3.Row]:
    """All rows, of a statement that does not write: on the one connection that may."""
    connection.execute("PRAGMA query_only = 1")
    try:
        return run_all(connection, sql, parameters)
    finally:
        connection.execute("PRAGMA query_only = 0")

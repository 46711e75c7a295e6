"""Transactions: they hold a lane until they end."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, Literal, Self

from datavern.contracts.errors import ProviderError, QueryRejected
from datavern.contracts.values import Parameters
from datavern.engines.sqlite.fused import run_claim, run_fused_or_none
from datavern.engines.sqlite.jobs import DONE, Job, OwnedJob, Owner, Run, run_many, run_many_or_none, run_nothing
from datavern.engines.sqlite.session import Statements
from datavern.engines.sqlite.streams import TransactionStream
from datavern.engines.sqlite.temporary import drop_temporary

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider
    from datavern.contracts.fused import Entry
    from datavern.engines.sqlite.lanes import Lanes
    from datavern.engines.sqlite.provider import SQLiteProvider
    from datavern.engines.sqlite.reader import Reader

__all__ = ["SQLiteTransaction"]


class SQLiteTransaction(Statements):
    """An open transaction. Made by `SQLiteProvider.transaction`.

    It is SQLite's own: serializable, whatever isolation was asked for. One that may write takes the writer with its
    first statement (``BEGIN IMMEDIATE``) and holds it until it ends; a read-only one holds a reader, and sees the
    database as it was at its first statement.

    A call that is cancelled in the middle leaves the transaction, or the savepoint it is in, fit only for a rollback.
    """

    __slots__ = (
        "_broken",
        "_depth",
        "_lanes",
        "_open",
        "_owner",
        "_prefix",
        "_provider",
        "_read_only",
        "_reader",
        "_sent",
        "_shut",
    )

    def __init__(self, provider: SQLiteProvider, *, read_only: bool) -> None:
        self._provider = provider
        self._read_only = read_only
        self._owner: Owner | None = None
        self._reader: Reader | None = None
        self._lanes: Lanes = None  # type: ignore[assignment]  # set on entering
        self._prefix: list[str] = []
        self._open = False
        self._sent = False
        self._depth = 0
        self._broken: int | None = None  # the depth at which a call was cancelled
        self._shut = False

    @property
    def provider(self) -> Provider:
        """The provider that this transaction belongs to, as callers know it."""
        return self._provider.face

    # ---- beginning and ending ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._owner is not None:
            raise QueryRejected("a transaction is entered once: ask the provider for another", provider=self._name)
        self._lanes = lanes = self._provider._ready()  # noqa: SLF001  (one engine)
        self._owner = Owner(asyncio.current_task())
        if not self._read_only:
            self._prefix = ["BEGIN IMMEDIATE"]
        elif lanes.settings.in_memory:
            self._prefix = ["PRAGMA query_only = 1", "BEGIN"]
        else:
            self._reader = await lanes.lease(self._owner.jobs)
            self._prefix = ["BEGIN"]
        self._open = True
        self._provider._holders.add(self)  # noqa: SLF001
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._open = False
        self._provider._holders.discard(self)  # noqa: SLF001
        if self._shut and kind is None and self._sent:
            raise self._lanes.refuse()
        if self._shut or (not self._sent and self._reader is None):
            return  # nothing was ever run, or closing the provider has rolled it back
        if kind is None and self._unfit() is None and self._sent:
            job = self._end("commit")
            try:
                await job
            except asyncio.CancelledError:
                self._lanes.abandon(job)
                raise
            return
        unfit = self._unfit() if kind is None else None
        self._end("rollback")  # nobody waits for it: whoever comes next on the lane comes after it
        if unfit is not None:
            raise unfit

    def roll_back(self) -> None:
        """Let go of it from where nothing can be awaited: it is rolled back."""
        if self._open:
            self._open = False
            self._provider._holders.discard(self)  # noqa: SLF001
            if self._sent or self._reader is not None:
                self._end("rollback")

    def _end(self, how: Literal["commit", "rollback"]) -> OwnedJob:
        owner = self._held()
        tidy = drop_temporary
        if self._read_only:
            tidy = _write_again if self._reader is None else run_nothing
        job = OwnedJob(self._lanes.loop, tidy, None, None, owner=owner, prefix=self._take_prefix(), ends=how)
        owner.jobs.append(job)
        owner.task = (
            None  # it has let go: its next statement waits its turn like any other, even before the lane has ended
        )
        lane = self._reader or self._lanes.writer
        lane.wake()
        return job

    def _unfit(self) -> ProviderError | None:
        """Why this transaction can only be rolled back."""
        if self._held().lost:
            return ProviderError(
                "the engine has rolled the transaction back: run all of it again",
                provider=self._name,
                retry="transaction",
            )
        if self._broken is not None:
            return ProviderError(
                "a call of this transaction was cancelled in the middle: it can only be rolled back",
                provider=self._name,
            )
        return None

    def _ended(self) -> ProviderError:
        if self._shut:
            return self._lanes.refuse()
        return QueryRejected("the transaction is not open", provider=self._name)

    def shut(self) -> None:
        """The provider closes: its lanes roll back what is open."""
        self._open = False
        self._shut = True

    def _held(self) -> Owner:
        assert self._owner is not None  # noqa: S101  (for the type checker: it was entered)
        return self._owner

    def _take_prefix(self) -> list[str]:
        prefix, self._prefix = self._prefix, []
        return prefix

    @property
    def _name(self) -> str:
        return self._provider.name

    # ---- statements -------------------------------------------------------------------------------------------------

    def _submit(self, run: Run, sql: Any, parameters: Any) -> Job:
        self._provider._kind(sql)  # noqa: SLF001  (refuses what would end the transaction)
        return self._send(run_many_or_none if run is run_many else run, sql, parameters)

    def _send(self, run: Run, sql: Any, parameters: Any) -> Job:
        if not self._open:
            raise self._ended()
        if (unfit := self._unfit()) is not None:
            raise unfit
        lanes, owner = self._lanes, self._held()
        job = OwnedJob(lanes.loop, run, sql, parameters, owner=owner, prefix=self._prefix)
        if self._reader is not None:
            owner.jobs.append(job)
            self._reader.wake()
        elif self._sent:
            owner.jobs.append(job)
            lanes.writer.wake()
        else:
            lanes.writer.add(job)
        self._prefix = []
        self._sent = True
        return job

    def _submit_fused(self, sql: Any, parameters: Any, audit: Entry | None, key: str | None) -> Job:
        what = self._provider._fusing.fused(sql, parameters, audit, key)  # noqa: SLF001
        return self._send(run_fused_or_none, what, parameters)

    async def claim(self, idempotency_key: str, mark: int = 0) -> int | None:
        """Name this transaction, before anything else is done in it: of those with the same key, one commits.

        Args:
            idempotency_key: 1 to 255 characters, kept for seven days.
            mark: a number by which one knows one's own claim.

        Returns:
            None: the key is this transaction's now. Else the mark of the one that committed: do nothing in this one.

        Raises:
            ConfigurationError: the key may not be one.
        """
        job = self._send(run_claim, self._provider._fusing.claimed(idempotency_key), mark)  # noqa: SLF001
        try:
            return await job  # type: ignore[no-any-return]  # what the job returns
        except asyncio.CancelledError:
            self._abandon(job)
            raise

    def _abandon(self, job: Job) -> None:
        if self._broken is None and job.state != DONE:
            self._broken = self._depth
        self._lanes.abandon(job)

    def savepoint(self) -> Savepoint:
        """A nested block that can fail on its own: rolled back when an exception leaves it."""
        return Savepoint(self)

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> TransactionStream:
        """Rows in constant memory, inside this transaction."""
        return TransactionStream(self, sql, parameters, batch_size)


class Savepoint:
    """A nested block of a transaction."""

    __slots__ = ("_mark", "_name", "_tx")

    def __init__(self, tx: SQLiteTransaction) -> None:
        self._tx = tx
        self._name = ""
        self._mark = ""

    async def __aenter__(self) -> SQLiteTransaction:
        tx = self._tx
        if not tx._open:  # noqa: SLF001  (the other half of the same thing, here and below)
            raise tx._ended()  # noqa: SLF001
        tx._depth += 1  # noqa: SLF001
        self._name = f"datavern_{tx._depth}"  # noqa: SLF001
        self._mark = f"SAVEPOINT {self._name}"
        tx._prefix = [*tx._prefix, self._mark]  # noqa: SLF001
        return tx

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        tx = self._tx
        depth, tx._depth = tx._depth, tx._depth - 1  # noqa: SLF001
        prefix = tx._prefix  # noqa: SLF001
        if prefix and prefix[-1] == self._mark:
            tx._prefix = prefix[:-1]  # noqa: SLF001  (nothing was run in it)
        elif kind is None:
            if (unfit := tx._unfit()) is not None:  # noqa: SLF001
                tx._prefix = [*prefix, f"ROLLBACK TO {self._name}", f"RELEASE {self._name}"]  # noqa: SLF001
                self._heal(depth)
                raise unfit
            tx._prefix = [*prefix, f"RELEASE {self._name}"]  # noqa: SLF001
        else:
            tx._prefix = [*prefix, f"ROLLBACK TO {self._name}", f"RELEASE {self._name}"]  # noqa: SLF001
        if kind is not None:
            self._heal(depth)

    def _heal(self, depth: int) -> None:
        """What a cancelled call left behind in this block is undone with it."""
        tx = self._tx
        if tx._broken is not None and tx._broken >= depth:  # noqa: SLF001
            tx._broken = None  # noqa: SLF001


def _write_again(connection: sqlite3.Connection, sql: Any, parameters: Any) -> None:  # noqa: ARG001  (every job is called alike)
    connection.execute("PRAGMA query_only = 0")

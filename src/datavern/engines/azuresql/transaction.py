"""Transactions, savepoints and streams: statements that share one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

from datavern.connectors.pool import Slot
from datavern.contracts.capabilities import Isolation, Provider
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, QueryRejected
from datavern.contracts.values import Parameters, Row
from datavern.engines.azuresql.connection import AzureSQLConnection
from datavern.engines.azuresql.errors import Fault, fault
from datavern.engines.azuresql.many import many
from datavern.engines.azuresql.on_thread import Ended, load, run, watched
from datavern.engines.azuresql.statements import Effect
from datavern.engines.azuresql.streams import RowStream
from datavern.engines.azuresql.wire import Answer, Refused

if TYPE_CHECKING:
    from datavern.contracts.fused import Entry
    from datavern.engines.azuresql.bulk import BulkOptions, Rows
    from datavern.engines.azuresql.loading import LoadColumn
    from datavern.engines.azuresql.procedures import ProcedureResult
    from datavern.engines.azuresql.provider import AzureSQLProvider

__all__ = ["AzureSQLTransaction", "level"]

SETTLE_DEADLINE: Final = 5.0
"""Seconds in which the server must have stopped a statement that was cancelled inside a transaction."""

_LEVELS: Final[dict[str, str]] = {
    "read committed": "READ COMMITTED",
    "repeatable read": "REPEATABLE READ",
    "snapshot": "SNAPSHOT",
    "serializable": "SERIALIZABLE",
}
_DEFAULT: Final = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"


def level(isolation: Isolation | None, *, read_only: bool) -> str | None:
    """T-SQL's word for an isolation level; None for the default.

    Repeatable reads of somebody who only reads are SNAPSHOT: they see one moment either way, and hold nobody up.

    Raises:
        ConfigurationError: no such level.
    """
    if isolation is None:
        return None
    found = _LEVELS.get(isolation)
    if found is None:
        raise ConfigurationError(f"isolation: expected one of {', '.join(_LEVELS)}, or None")
    return "SNAPSHOT" if read_only and isolation == "repeatable read" else found


class AzureSQLTransaction:
    """An open transaction: see `datavern.contracts.capabilities.Transaction`. Made by ``provider.transaction()``.

    T-SQL has no read-only transactions: where one is asked for, statements that do more than read are refused here.
    """

    __slots__ = (
        "_audited",
        "_broken",
        "_interrupted",
        "_level",
        "_made_keys",
        "_over",
        "_provider",
        "_read_only",
        "_savepoints",
        "_slot",
        "_streaming",
        "_wrote",
    )

    def __init__(self, provider: AzureSQLProvider, level: str | None, *, read_only: bool) -> None:
        self._provider = provider
        self._level = level
        self._read_only = read_only
        self._slot: Slot[AzureSQLConnection] | None = None
        self._broken: str | None = None
        self._over = False  # the server has rolled it back
        self._interrupted = False  # a statement was cancelled, and only a rollback can follow
        self._streaming = False
        self._wrote = False
        self._made_keys = False
        self._audited = False  # the statement that is sent now goes with an audit entry
        self._savepoints = 0

    @property
    def provider(self) -> Provider:
        """The provider that it was begun on, as callers know it."""
        return self._provider.face

    # ---- begin and end ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._slot is not None:
            raise ConfigurationError("a transaction is entered once")
        begin = "BEGIN TRANSACTION"
        if self._level is not None:
            begin = f"SET TRANSACTION ISOLATION LEVEL {self._level}; {begin}"
        self._slot, _ = await self._provider._send(begin, (), Effect.READS, keep=True)  # noqa: SLF001  (two halves)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        slot, self._slot = self._slot, None
        if slot is None:
            return
        pool = self._provider._pool  # noqa: SLF001  (two halves of one engine)
        if self._broken is not None:
            if self._broken == "renew":
                pool.renew(slot)
            else:
                pool.discard(slot)
            if kind is None:
                raise ConnectionFailed(
                    f"{self._provider.name}: the connection broke inside the transaction, which the server has undone",
                    provider=self._provider.name,
                    retry="transaction",
                )
        elif slot.connection.busy or (kind is not None and not issubclass(kind, Exception)):
            pool.recover(slot)  # cancelled: rolled back in the background, nobody waits for the server
            if kind is None:
                raise self._cancelled()
        elif kind is None and self._interrupted:
            await self._rollback(slot)
            raise self._cancelled()
        elif kind is None and self._over:
            pool.recover(slot)
            raise QueryRejected(
                f"{self._provider.name}: the transaction was rolled back: the server ended it with the error of a "
                "statement in it, which was caught",
                provider=self._provider.name,
            )
        elif kind is None and not self._read_only:
            await self._commit(slot)
        else:
            await self._rollback(slot)

    def _cancelled(self) -> QueryRejected:
        return QueryRejected(
            f"{self._provider.name}: the transaction was rolled back: a statement in it was cancelled (use a savepoint "
            "around what a deadline may end)",
            provider=self._provider.name,
        )

    async def _commit(self, slot: Slot[AzureSQLConnection]) -> None:
        pool = self._provider._pool  # noqa: SLF001  (two halves of one engine)
        connection = slot.connection
        try:
            await connection.call(connection.wire.run, "COMMIT TRANSACTION", ())
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = fault(error, name=self._provider.name, stage="commit" if self._wrote else "transaction")
        except BaseException:
            pool.recover(slot)
            raise
        else:
            await self._give(slot)
            return
        if found.connection == "keep":
            pool.recover(slot)  # what is left of it is rolled back
        else:
            self._provider._part(slot, found)  # noqa: SLF001  (two halves of one engine)
        raise found.error

    async def _rollback(self, slot: Slot[AzureSQLConnection]) -> None:
        """Rolled back before the block is left, so that its locks are gone. What goes wrong here is not news."""
        pool = self._provider._pool  # noqa: SLF001  (two halves of one engine)
        connection = slot.connection
        try:
            await connection.call(connection.wire.run, "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION", ())
        except Exception:  # noqa: BLE001  (the caller's own exception says what happened)
            pool.discard(slot)
        except BaseException:
            pool.recover(slot)
            raise
        else:
            await self._give(slot)

    async def _give(self, slot: Slot[AzureSQLConnection]) -> None:
        """The connection goes back, at the level of isolation at which it came."""
        if self._level is not None:
            slot.touched = True  # reset before its next borrower gets it, and nobody waits for that
        self._provider._pool.give(slot)  # noqa: SLF001  (two halves of one engine)

    # ---- statements -------------------------------------------------------------------------------------------------

    async def query(self, sql: str, parameters: Parameters = ()) -> Sequence[Row]:
        """All rows of a statement: of its first result set, where it has several."""
        answer, _ = await self._run(sql, parameters)
        return answer.sets[0] if answer.sets else []

    async def query_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None."""
        rows = await self.query(sql, parameters)
        return rows[0] if rows else None

    async def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        rows = await self.query(sql, parameters)
        return rows[0][0] if rows else None

    async def execute(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        audit: Entry | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Run a statement; how many rows it changed. Its audit entry and its idempotency key are written after it."""
        if audit is not None or idempotency_key is not None:
            return await self._provider._fusing.inside(self, sql, parameters, audit, idempotency_key)  # noqa: SLF001
        answer, does = await self._run(sql, parameters)
        return answer.affected(does)

    async def claim(self, idempotency_key: str, mark: int = 0) -> int | None:
        """Name what the transaction does: another one with the same key waits for this one, and finds the key then.

        Args:
            idempotency_key: 1 to 255 characters, kept for seven days.
            mark: a number that is kept with the key.

        Returns:
            The number that is kept with a key that is there; None where it is new, and this transaction's.

        Raises:
            ConfigurationError: the key may not be one.
        """
        self._wrote = True
        return await self._provider._fusing.claim(self, idempotency_key, mark)  # noqa: SLF001  (one engine)

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        """Run a statement once for each set of parameters; how many sets."""
        connection, does = self._ready(sql)
        sets = self._provider._sets(sql, parameters)  # noqa: SLF001  (two halves of one engine)
        if sets:
            await self._call(connection, does, watched, many, sql, sets)
        return len(sets)

    async def execute_stored_procedure(self, name: str, parameters: Any = ()) -> ProcedureResult:
        """Run a stored procedure in the transaction. See `AzureSQLProvider.execute_stored_procedure`."""
        from datavern.engines.azuresql.procedures import Call  # noqa: PLC0415  (when the first is called)

        call = Call(self._provider.name, name, parameters)
        answer, _ = await self._run(call.sql, call.values)
        return call.result(answer)

    async def bulk_insert(self, table: str, columns: Sequence[str], rows: Rows, **options: Unpack[BulkOptions]) -> int:
        """Insert rows in bulk; how many. See `AzureSQLProvider.bulk_insert`."""
        from datavern.engines.azuresql.bulk import bulk_insert  # noqa: PLC0415  (when the first is made)

        async with self.savepoint():
            return await bulk_insert(self, table, columns, rows, **options)

    @property
    def loads(self) -> bool:
        """Whether the driver has a bulk load that belongs to the transaction."""
        return self._slot is not None and hasattr(self._slot.connection.wire, "load")

    async def load(self, insert: str, text: str, columns: Sequence[LoadColumn], rows: Sequence[Sequence[Any]]) -> None:
        """Load rows in bulk.

        Args:
            insert: the INSERT that does the same: who may not run it may not load either.
            text: the INSERT BULK.
            columns: what `text` lists.
            rows: their values, of their types.
        """
        connection, does = self._ready(insert)
        await self._call(connection, does, watched, load, text, columns, rows)

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> RowStream:
        """Rows in constant memory. The transaction runs nothing else until the stream is left."""
        return RowStream(self._provider, sql, parameters, batch_size=batch_size, transaction=self)

    def savepoint(self) -> Savepoint:
        """A block of its own inside this one."""
        self._savepoints += 1
        return Savepoint(self, f"datavern_{self._savepoints}")

    # ---- for SQLAlchemy ---------------------------------------------------------------------------------------------

    async def answer(self, sql: str, parameters: Parameters, *, audited: bool) -> Answer:
        """All that a statement gives. `audited`: its entry is written by the caller, in this transaction."""
        self._audited = audited
        try:
            answer, _ = await self._run(sql, parameters)
        finally:
            self._audited = False
        return answer

    async def save(self, name: str, *, back: bool) -> None:
        """Make a savepoint of that name, or go back to it. The name is a name: the caller has looked."""
        connection, _ = self._ready("SELECT 1")
        text = f"{'ROLLBACK' if back else 'SAVE'} TRANSACTION {name}"
        await self._call(connection, Effect.READS, watched, run, text, ())

    def leave(self) -> None:
        """Let go of it without waiting: the server rolls it back."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._provider._pool.recover(slot)  # noqa: SLF001  (two halves of one engine)

    # ---- inside -----------------------------------------------------------------------------------------------------

    async def _run(self, sql: str, parameters: Parameters) -> tuple[Answer, Effect]:
        connection, does = self._ready(sql)
        values = self._provider._values(sql, parameters)  # noqa: SLF001  (two halves of one engine)
        return await self._call(connection, does, watched, run, sql, values), does

    def _ready(self, sql: str) -> tuple[AzureSQLConnection, Effect]:
        """The connection, once it is sure that the statement may be sent."""
        slot = self._slot
        name = self._provider.name
        problem = ""
        if slot is None:
            problem = "the transaction is not open"
        elif self._streaming:
            problem = "a stream of this transaction is open, and a connection answers one statement at a time"
        elif self._interrupted:
            problem = "a statement of this transaction was cancelled, and only a rollback can follow"
        elif slot.connection.busy:
            problem = "a transaction takes one statement at a time, and another task's is still running"
        elif self._over:
            problem = "the server has rolled the transaction back, with the error of an earlier statement"
        if slot is None or problem:
            raise QueryRejected(f"{name}: {problem}", provider=name)
        does = self._provider._effect_of(sql, audited=self._audited)  # noqa: SLF001  (two halves of one engine)
        if does:
            if self._read_only:
                raise QueryRejected(f"{name}: this transaction only reads, and the statement may write", provider=name)
            self._wrote = True
            if does is Effect.TOUCHES:
                slot.touched = True
        return slot.connection, does

    async def _call(self, connection: AzureSQLConnection, does: Effect, work: Any, *args: Any) -> Any:
        try:
            return await connection.call(work, connection.wire, *args)
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = self._fault(error, does)
        except BaseException:
            self._interrupted = True
            raise
        raise found.error

    def _fault(self, error: Exception, does: Effect) -> Fault:
        if isinstance(error, Ended):
            self._over = True
            error = error.error
        found = fault(error, name=self._provider.name, stage="transaction", effect=does)
        if found.connection != "keep":
            self._broken = found.connection
        return found


class Savepoint:
    """A block inside a transaction that can fail on its own. T-SQL's savepoints need no release."""

    __slots__ = ("_name", "_transaction")

    def __init__(self, transaction: AzureSQLTransaction, name: str) -> None:
        self._transaction = transaction
        self._name = name

    async def __aenter__(self) -> AzureSQLTransaction:
        transaction = self._transaction
        connection, _ = transaction._ready("SELECT 1")  # noqa: SLF001  (the same file, here and below)
        await transaction._call(connection, Effect.READS, watched, run, f"SAVE TRANSACTION {self._name}", ())  # noqa: SLF001
        return transaction

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        transaction = self._transaction
        slot = transaction._slot  # noqa: SLF001
        if kind is None or not issubclass(kind, Exception) or slot is None:
            return  # cancelled: the transaction around it ends the same way
        if transaction._broken is not None or transaction._over:  # noqa: SLF001
            return
        connection = slot.connection
        try:
            async with asyncio.timeout(SETTLE_DEADLINE):
                if transaction._interrupted:  # noqa: SLF001
                    await connection.settle()
                await connection.call(connection.wire.run, f"ROLLBACK TRANSACTION {self._name}", ())
        except Refused:
            transaction._over = True  # noqa: SLF001  (only the whole of it can be rolled back)
        except Exception:  # noqa: BLE001  (the caller's own exception says what happened)
            transaction._broken = "discard"  # noqa: SLF001
        else:
            transaction._interrupted = False  # noqa: SLF001

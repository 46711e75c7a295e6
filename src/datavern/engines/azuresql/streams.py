"""Streams: rows in constant memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from datavern.connectors.pool import Slot
from datavern.contracts.values import Parameters, Row, checked_size
from datavern.engines.azuresql.connection import AzureSQLConnection
from datavern.engines.azuresql.errors import fault
from datavern.engines.azuresql.on_thread import begin, fetch, leave, watched
from datavern.engines.azuresql.statements import Effect

if TYPE_CHECKING:
    from datavern.engines.azuresql.provider import AzureSQLProvider
    from datavern.engines.azuresql.transaction import AzureSQLTransaction

__all__ = ["RowStream"]


class RowStream:
    """Rows of a statement, a batch at a time, in memory for one batch.

    ``async with provider.stream(…) as rows: async for row in rows: …``
    """

    __slots__ = ("_batch_size", "_done", "_parameters", "_provider", "_rows", "_slot", "_sql", "_transaction")

    def __init__(
        self,
        provider: AzureSQLProvider,
        sql: str,
        parameters: Parameters,
        *,
        batch_size: int,
        transaction: AzureSQLTransaction | None = None,
    ) -> None:
        self._provider = provider
        self._sql = sql
        self._parameters = parameters
        self._batch_size = checked_size(batch_size)
        self._transaction = transaction
        self._slot: Slot[AzureSQLConnection] | None = None
        self._rows: list[Row] = []
        self._done = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, once it was entered; none where the statement gives no rows."""
        return () if self._slot is None else self._slot.connection.wire.columns

    async def __aenter__(self) -> Self:
        provider, transaction = self._provider, self._transaction
        if transaction is None:
            values = provider._values(self._sql, self._parameters)  # noqa: SLF001  (one engine, here and below)
            does = provider._effect_of(self._sql)  # noqa: SLF001
            self._slot, _ = await provider._send(self._sql, values, does, keep=True, begin=True)  # noqa: SLF001
        else:
            connection, does = transaction._ready(self._sql)  # noqa: SLF001
            values = provider._values(self._sql, self._parameters)  # noqa: SLF001
            await transaction._call(connection, does, watched, begin, self._sql, values)  # noqa: SLF001
            transaction._streaming = True  # noqa: SLF001
            self._slot = transaction._slot  # noqa: SLF001
        self._done = False
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        slot, self._slot = self._slot, None
        transaction = self._transaction
        if slot is None:
            return
        connection = slot.connection
        if transaction is None:
            pool = self._provider._pool  # noqa: SLF001  (one engine)
            if connection.dead:
                return  # it broke, and was parted with
            if self._done and not connection.busy:
                pool.give(slot)
            else:
                pool.recover(slot)  # the rest is left unread, in the background
            return
        if transaction._broken is None and not transaction._interrupted:  # noqa: SLF001  (one engine, here and below)
            await transaction._call(connection, Effect.READS, leave)  # noqa: SLF001
        transaction._streaming = False  # noqa: SLF001

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        if not self._rows:
            slot = self._slot
            if self._done or slot is None:
                raise StopAsyncIteration
            rows = await self._next(slot)
            self._done = len(rows) < self._batch_size
            if not rows:
                raise StopAsyncIteration
            rows.reverse()
            self._rows = rows
        return self._rows.pop()

    async def _next(self, slot: Slot[AzureSQLConnection]) -> list[Row]:
        connection, transaction = slot.connection, self._transaction
        if transaction is not None:
            return await transaction._call(connection, Effect.READS, fetch, self._batch_size)  # type: ignore[no-any-return]  # noqa: SLF001
        try:
            return await connection.call(fetch, connection.wire, self._batch_size)  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = fault(error, name=self._provider.name, stage="statement", effect=Effect.READS)
        self._slot = None
        self._provider._part(slot, found)  # noqa: SLF001  (one engine)
        raise found.error

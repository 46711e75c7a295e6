"""Streams: rows in constant memory, through a portal on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from datavern.contracts.values import Parameters, Row, checked_size
from datavern.engines.postgresql.shortcut import PooledConnection
from datavern.engines.postgresql.statements import Effect

if TYPE_CHECKING:
    from datavern.engines.postgresql.transaction import PostgreSQLTransaction

__all__ = ["RowStream"]


class RowStream:
    """Rows of a statement, a batch at a time, in memory for one batch.

    ``async with provider.stream(…) as rows: async for row in rows: …``
    """

    __slots__ = ("_batch_size", "_cursor", "_done", "_own", "_parameters", "_rows", "_sql", "_transaction")

    def __init__(
        self, transaction: PostgreSQLTransaction, sql: str, parameters: Parameters, *, batch_size: int, own: bool
    ) -> None:
        self._transaction = transaction
        self._sql = sql
        self._parameters = parameters
        self._batch_size = checked_size(batch_size)
        self._own = own
        self._cursor: Any = None
        self._rows: list[Row] = []
        self._done = False

    async def __aenter__(self) -> Self:
        if self._own:
            await self._transaction.__aenter__()
        try:
            connection, effect = self._transaction._prepared(self._sql, self._parameters)  # noqa: SLF001  (one engine)
            try:
                self._cursor = await connection.cursor(self._sql, *self._parameters)
            except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
                found = self._transaction._fault(error, effect, self._parameters)  # noqa: SLF001  (one engine)
            else:
                return self
            raise await self._transaction._explained(self._sql, found)  # noqa: SLF001, TRY301  (one engine)
        except BaseException as error:
            if self._own:
                await self._transaction.__aexit__(type(error), error, None)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        cursor, self._cursor = self._cursor, None
        slot = self._transaction._slot  # noqa: SLF001  (one engine)
        # Not `isinstance`: asyncpg's metaclass takes each of its connections for one of any subclass.
        pooled = slot.connection if slot is not None and type(slot.connection) is PooledConnection else None
        try:
            if kind is None and cursor is not None and (pooled is not None or not self._own):
                # Left early or not, the portal goes: an open one would block changes of its table. asyncpg offers this
                # for its iterator only; a test watches it.
                await cursor._close_portal(None)  # noqa: SLF001  (see above)
                del cursor
                if pooled is not None:
                    await pooled.tidy()
        except BaseException as error:
            if self._own:
                await self._transaction.__aexit__(type(error), error, None)
            raise
        if self._own:
            await self._transaction.__aexit__(kind, *rest)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        if not self._rows:
            if self._done or self._cursor is None:
                raise StopAsyncIteration
            try:
                rows = await self._cursor.fetch(self._batch_size)
            except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
                found = self._transaction._fault(error, Effect.READS)  # noqa: SLF001  (one engine)
            else:
                self._done = len(rows) < self._batch_size
                if not rows:
                    raise StopAsyncIteration
                rows.reverse()
                self._rows = rows
                return self._rows.pop()
            raise found.error
        return self._rows.pop()

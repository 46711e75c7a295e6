"""Rows into a table at COPY's speed, all or none of them, in memory for one batch.

asyncpg encodes the rows; what is done here around it, and why:

- Its ``copy_records_to_table`` looks the types of the columns up in a statement that it keeps. Where the table was
  altered since, it encodes for the old types, and the server takes a ``bigint``'s eight bytes for a ``double
  precision``. So the types are asked for each time, in the transaction that copies.
- It ignores what a row has too many of, and says of a value that does not fit neither row nor column.
- Where the connection breaks while the socket is full, it waits for ever.
- It goes on reading rows after the server refused one, or the connection broke, and while the server keeps up, a list
  of a million rows never lets the loop go round. So now and then it is looked, and others get a turn.

A list is given to the driver as it is, and looked at whenever some of it was sent: what goes through batches costs a
step more for each row. Rows that come one by one are gathered into batches, and looked at before they are sent.

Source: PostgreSQL 18 documentation, COPY, 54.2.6 COPY Operations, and 54.7 Message Formats.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.engines.postgresql.copied_columns import CopiedColumns

if TYPE_CHECKING:
    import asyncpg

    from datavern.contracts.values import Parameters
    from datavern.engines.postgresql.transaction import PostgreSQLTransaction

__all__ = ["Rows", "copy_in"]

Rows = Iterable["Parameters"] | AsyncIterable["Parameters"]
"""What is copied: tuples, lists or rows of a query, a value for each column."""

_COPY_DATA = ord("d")
_BATCH = 2048
"""Rows that are looked at together."""
_EACH = 512
"""Rows of an async iterable after which others get a turn."""
_TURN = 0.03
"""Seconds after which others get a turn."""
_LOOK = 3
"""Turns after which it is looked if the server still takes rows: asking takes as long as a hundred rows."""
_AHEAD = 524_288
"""Bytes that may wait to be sent while the next rows are encoded: as much as the driver gathers before it sends."""
_NOTHING: Iterator[Any] = iter(())


async def copy_in(transaction: PostgreSQLTransaction, table: str, columns: Sequence[str], rows: Rows) -> int:
    """Copy rows into a table, in an open transaction; how many. See `PostgreSQLProvider.copy_in`."""
    return await _Copying(CopiedColumns(transaction, table, columns), rows).run()


class _Copying:
    """One COPY."""

    __slots__ = (
        "_batch",
        "_before",
        "_columns",
        "_connection",
        "_left",
        "_looked",
        "_paused",
        "_raised",
        "_rows",
        "_turn",
        "_turns",
    )

    def __init__(self, columns: CopiedColumns, rows: Rows) -> None:
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable | AsyncIterable):
            raise ConfigurationError(f"copy_in: rows: expected rows, one by one, not {type(rows).__name__}")
        self._columns = columns
        self._rows = rows
        self._connection: asyncpg.Connection
        self._before = 0  # rows ahead of the batch
        self._batch: Sequence[Any] = []
        self._left: Iterator[Parameters] = _NOTHING  # what the driver has not taken of it
        self._looked = 0  # how many of it were looked at
        self._turn, self._turns = 0.0, 0
        self._paused = False
        self._raised: Exception | None = None

    async def run(self) -> int:
        """Ask for the columns' types, and send the rows."""
        columns, rows, feed = self._columns, self._rows, None
        connection = self._connection = await columns.ask()
        self._turn = monotonic() + _TURN
        if isinstance(rows, AsyncIterable):
            records: Any = (feed := self._each(rows))
        elif type(rows) in {list, tuple} and self._watch():
            self._batch, self._left = rows, iter(rows)  # type: ignore[assignment]  # a Sequence: it was asked just now
            records = self._left
        else:
            records = chain.from_iterable(self._batches(rows))
        connection.add_termination_listener(self._lost)
        self._let_run_ahead(_AHEAD)
        try:
            # What copy_records_to_table calls, with types that are not out of date: a test watches it.
            status = await connection._protocol.copy_in(  # noqa: SLF001  (see above)
                columns.copy, None, None, records, columns.statement._state, None  # noqa: SLF001
            )  # fmt: skip
        except Exception as error:
            if error is self._raised:
                raise  # the caller's own, or ours
            failure = error
        else:
            return int(str(status).rpartition(" ")[2])
        finally:
            connection.remove_termination_listener(self._lost)
            self._let_run_ahead(None)
            self._unwatch()
            if feed is not None:
                await feed.aclose()
        raise await columns.translated(failure, *self._suspects())

    # ---- the rows ---------------------------------------------------------------------------------------------------

    def _batches(self, rows: Iterable[Parameters]) -> Iterator[Iterator[Parameters]]:
        """Rows in batches: the driver goes through one without a line of Python for each row."""
        source = iter(rows)
        try:
            while batch := list(islice(source, _BATCH)):
                self._batch, self._left, self._looked = batch, iter(batch), 0
                self._look(len(batch))
                yield self._left
                self._before += len(batch)
                self._batch, self._left = [], _NOTHING
                if not self._goes_on():
                    return
        except Exception as error:
            self._raised = error
            raise

    def _watch(self) -> bool:
        """Have a list looked at when some of it was sent; whether the transport allows that."""
        transport = self._connection._transport  # noqa: SLF001  (its protocol's)
        write = transport.write

        def watched(data: memoryview) -> None:
            write(data)
            if data[0] == _COPY_DATA:  # what else it says is about the end, and must be said
                self._look_back()

        try:
            transport.write = watched
        except AttributeError:  # not one of asyncio's own
            return False
        return True

    def _unwatch(self) -> None:
        transport = self._connection._transport  # noqa: SLF001  (as above)
        getattr(transport, "__dict__", {}).pop("write", None)

    def _look_back(self) -> None:
        """Look at what the driver has taken of a list since it was looked at last."""
        left: Any = self._left
        size = len(self._batch)
        try:
            self._look(size - operator.length_hint(left))
        except Exception as error:
            self._raised = error
            raise
        if not self._goes_on():
            left.__setstate__(size)  # that was the last of it

    def _look(self, until: int) -> None:
        """Refuse what is no row, in as much of the batch as was not looked at yet."""
        looked, self._looked = self._looked, until
        rows = self._batch[looked:until]
        if not self._columns.are_rows(rows):
            self._columns.check_all(rows, self._before + looked + 1)

    def _goes_on(self) -> bool:
        """Whether the server still takes rows. Others get a turn, where it is time."""
        if self._connection.is_closed():
            return False
        if monotonic() >= self._turn and not self._paused:  # the loop has gone round since it was paused last
            self._turns += 1
            if not self._turns % _LOOK and self._columns.refused():
                return False
            self._pause()
            self._turn = monotonic() + _TURN
        return True

    async def _each(self, rows: AsyncIterable[Parameters]) -> AsyncGenerator[Parameters, None]:
        """Rows one by one, as they come."""
        width = self._columns.width
        number = 0
        try:
            async for row in rows:
                self._batch, self._before = (row,), number
                number += 1
                if type(row) is not tuple or len(row) != width:
                    self._columns.check(number, row)
                yield row
                if not number % _EACH:
                    await asyncio.sleep(0)
                    if self._connection.is_closed() or (not number % _BATCH and self._columns.refused()):
                        return
        except Exception as error:
            self._raised = error
            raise

    def _suspects(self) -> tuple[int, Sequence[Any]]:
        """What may not fit: the rows not looked at yet, up to the one taken last; with the first one's number."""
        taken = len(self._batch) - operator.length_hint(self._left)
        first = max(0, min(self._looked, taken - 1))
        return self._before + first + 1, self._batch[first:taken]

    def _let_run_ahead(self, size: int | None) -> None:
        """How much may wait to be sent while more is encoded: by default little, and the server waits for us."""
        transport = self._connection._transport  # noqa: SLF001  (its protocol's)
        if transport is not None and not transport.is_closing():
            transport.set_write_buffer_limits(None if size is None else 2 * size, size)

    def _pause(self) -> None:
        """Let the loop go round: the driver, told that the socket is full, waits until it is told otherwise."""
        self._paused = True
        self._connection._protocol.pause_writing()  # noqa: SLF001  (an asyncio.Protocol's, for its transport)
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        self._paused = False
        transport = self._connection._transport  # noqa: SLF001  (its protocol's)
        if transport is None or transport.is_closing():
            return  # see _lost
        # Where the socket is full indeed, the transport says when it is not any more.
        if transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[1]:
            self._connection._protocol.resume_writing()  # noqa: SLF001  (as above)

    def _lost(self, connection: Any) -> None:
        """The driver would wait for a socket that is gone, and for ever."""
        connection._protocol.resume_writing()  # noqa: SLF001  (as above)

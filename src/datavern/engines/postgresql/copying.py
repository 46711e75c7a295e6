"""Rows into a table at COPY's speed, all or none of them, in memory for one batch.

asyncpg encodes the rows; what is done here around it, and why:

- Its ``copy_records_to_table`` looks the types of the columns up in a statement that it keeps. Where the table was
  altered since, it encodes for the old types, and the server takes a ``bigint``'s eight bytes for a ``double
  precision``. So the types are asked for each time, in the transaction that copies.
- It ignores what a row has too many of, and says of a value that does not fit neither row nor column.
- Where the connection breaks while the socket is full, it waits for ever.
- It goes on reading rows after the server refused one, or the connection broke, and while the server keeps up, a list
  of a million rows never lets the loop go round. So now and then it is looked, and others get a turn.

Source: PostgreSQL 18 documentation, COPY, and 54.2.6 COPY Operations.
"""

from __future__ import annotations

import asyncio
import operator
import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg

from datavern.contracts.errors import ConfigurationError, DriverError, ProviderError, QueryRejected
from datavern.engines.postgresql.statements import Effect

if TYPE_CHECKING:
    from datavern.contracts.values import Parameters
    from datavern.engines.postgresql.transaction import PostgreSQLTransaction

__all__ = ["Rows", "copy_in"]

Rows = Iterable["Parameters"] | AsyncIterable["Parameters"]
"""What is copied: tuples, lists or rows of a query, a value for each column."""

# Never run. The server checks the names and says of which types the columns are; a value is tried against its column
# by binding it, and what the guard is bound to fits nothing, so that the driver never sends it.
_TYPED = (
    "WITH {guard} AS (SELECT ${last}::pg_catalog.int4) "
    "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE VALUES ({places}) RETURNING {columns}"
)
_COPY = "COPY {table} ({columns}) FROM STDIN (FORMAT binary)"
_GENERATED = "428C9"
_GUARD = object()
_BATCH = 2048
"""Rows that are looked at together."""
_EACH = 512
"""Rows of an async iterable after which others get a turn."""
_PARTICULAR = frozenset({16, 1082, 1083, 1114, 1184, 1186, 1266})
"""Types (bool, date, time, timestamp, timestamptz, interval, timetz) of which the driver takes neither a character nor
a number: where a column is of one, text and bytes cannot pass for a row."""
_TURN = 0.03
"""Seconds after which others get a turn."""
_LOOK = 3
"""Turns after which it is looked if the server still takes rows: asking takes as long as a hundred rows."""
_AHEAD = 524_288
"""Bytes that may wait to be sent while the next rows are encoded: as much as the driver gathers before it sends."""
_NOTHING: Iterator[Any] = iter(())

_ARGUMENT = re.compile(r"query argument \$(\d+)")
_NO_BINARY = re.compile(r"no binary format encoder for type .* \(OID (\d+)\)", re.DOTALL)
_POSITION = re.compile(r", at character \d+ of the statement")


async def copy_in(transaction: PostgreSQLTransaction, table: str, columns: Sequence[str], rows: Rows) -> int:
    """Copy rows into a table, in an open transaction; how many. See `PostgreSQLProvider.copy_in`."""
    copying = _Copying(transaction, table, columns, rows)
    await copying.prepare()
    return await copying.run()


class _Copying:
    """One COPY."""

    __slots__ = (
        "_batch",
        "_columns",
        "_connection",
        "_copy",
        "_left",
        "_name",
        "_paused",
        "_quoted",
        "_raised",
        "_rows",
        "_seen",
        "_statement",
        "_strict",
        "_table",
        "_transaction",
        "_typed",
    )  # fmt: skip

    def __init__(self, transaction: PostgreSQLTransaction, table: str, columns: Sequence[str], rows: Rows) -> None:
        provider = transaction._provider  # noqa: SLF001  (two halves of one engine)
        self._transaction = transaction
        self._name = provider.name
        self._table = table
        self._columns = _checked(columns)
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable | AsyncIterable):
            raise ConfigurationError(f"copy_in: rows: expected rows, one by one, not {type(rows).__name__}")
        self._rows = rows
        subjects = provider._subjects  # noqa: SLF001  (two halves of one engine)
        self._quoted = [subjects.quoted(column) for column in self._columns]
        width = len(self._columns)
        names = {
            "table": subjects.quoted_store(table),
            "columns": ", ".join(self._quoted),
            "places": ", ".join(f"${n}" for n in range(1, width + 1)),
            "last": width + 1,
            "guard": "datavern_guard",
        }
        self._typed = _TYPED.format_map(names)
        self._copy = _COPY.format_map(names)
        self._connection: asyncpg.Connection
        self._statement: Any = None
        self._strict = False
        self._seen = 0
        self._batch: Any = []
        self._left: Iterator[Parameters] = _NOTHING
        self._paused = False
        self._raised: Exception | None = None

    async def prepare(self) -> None:
        """Ask for the columns' types."""
        self._connection, _ = self._transaction._prepared(self._typed, ())  # noqa: SLF001  (two halves of one engine)
        try:
            self._statement = await self._connection.prepare(self._typed)
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = self._transaction._fault(error, Effect.READS)  # noqa: SLF001  (two halves of one engine)
            said = str(error)
        else:
            self._strict = any(type_.oid in _PARTICULAR for type_ in self._statement.get_parameters())
            return
        raised = found.error
        if isinstance(raised, ProviderError) and raised.position is not None:
            # The statement that it speaks of is ours: what stands there says it better.
            rest = self._typed[raised.position - 1 :]
            which = [c for c, q in zip(self._columns, self._quoted, strict=True) if rest.startswith(q)]
            about = f": column {which[0]}" if which and raised.code != "42P01" else ""
            raised.args = (_POSITION.sub(f" (copy_in: table {self._table}{about})", str(raised)), *raised.args[1:])
            raised.position = None
        elif isinstance(raised, ProviderError) and raised.code == _GENERATED:
            which = [column for column in self._columns if f'"{column}"' in said] or self._columns
            message = (
                f"{self._name}: copy_in: table {self._table}: the server works the column {', '.join(which)} out by "
                f"itself (GENERATED ALWAYS AS): leave it out (SQLSTATE {_GENERATED})"
            )
            raised.args = (message, *raised.args[1:])
        raise raised

    async def run(self) -> int:
        """Send the rows."""
        rows, feed = self._rows, None
        if isinstance(rows, AsyncIterable):
            records: Any = (feed := self._each(rows))
        else:
            records = chain.from_iterable(self._batches(rows))
        connection = self._connection
        connection.add_termination_listener(self._lost)
        self._let_run_ahead(_AHEAD)
        try:
            # What copy_records_to_table calls, with types that are not out of date: a test watches it.
            status = await connection._protocol.copy_in(  # noqa: SLF001  (see above)
                self._copy, None, None, records, self._statement._state, None  # noqa: SLF001
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
            if feed is not None:
                await feed.aclose()
        raise await self._translated(failure)

    # ---- the rows ---------------------------------------------------------------------------------------------------

    def _batches(self, rows: Iterable[Parameters]) -> Iterator[Iterator[Parameters]]:
        """Rows in batches: the driver goes through one without a line of Python for each row."""
        turn, turns = monotonic() + _TURN, 0
        try:
            for batch in _in_batches(rows):
                size = len(batch)
                if not self._are_rows(batch):
                    for place, row in enumerate(batch, self._seen + 1):
                        self._check(place, row)
                self._batch, self._left = batch, iter(batch)
                yield self._left
                self._batch, self._left = [], _NOTHING
                self._seen += size
                if self._connection.is_closed():
                    return
                if monotonic() >= turn and not self._paused:  # the loop has gone round since it was paused last
                    turns += 1
                    if not turns % _LOOK and self._refused():
                        return
                    self._pause()
                    turn = monotonic() + _TURN
        except Exception as error:
            self._raised = error
            raise

    def _are_rows(self, batch: Sequence[Any]) -> bool:
        """Whether each has a value for each column, and is a tuple where anything else could be taken for a row.

        Passes in C: nothing is looked at one by one.
        """
        size = len(batch)
        try:
            if [*map(len, batch)].count(len(self._columns)) != size:
                return False
        except TypeError:  # it has no length
            return False
        return self._strict or [*map(type, batch)].count(tuple) == size

    async def _each(self, rows: AsyncIterable[Parameters]) -> AsyncGenerator[Parameters, None]:
        """Rows one by one, as they come."""
        width = len(self._columns)
        try:
            async for row in rows:
                self._batch = row
                self._seen += 1
                if type(row) is not tuple or len(row) != width:
                    self._check(self._seen, row)
                yield row
                if not self._seen % _EACH:
                    await asyncio.sleep(0)
                    if self._connection.is_closed() or (not self._seen % _BATCH and self._refused()):
                        return
        except Exception as error:
            self._raised = error
            raise

    def _last(self) -> tuple[int, Any]:
        """The row that the driver took last, and its number."""
        if isinstance(self._rows, AsyncIterable):
            return self._seen, self._batch
        taken = len(self._batch) - operator.length_hint(self._left)
        return self._seen + taken, self._batch[taken - 1] if taken else ()

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

    def _refused(self) -> bool:
        """Whether the server has refused the rows that it has."""
        # While the rows are taken, the driver says that an operation is in progress; afterwards, that the guard does
        # not fit. It says so at once, and nothing is sent either way.
        binding = self._bind(())
        try:
            binding.send(None)
        except StopIteration as said:
            return "another operation" not in str(said.value.args[:1])
        binding.close()
        return False

    async def _bind(self, row: Sequence[Any]) -> Exception:
        """Bind a row, and see it fail: nothing is ever sent."""
        values = [*row, *[None] * (len(self._columns) - len(row)), _GUARD]
        try:
            await self._statement.fetch(*values)
        except Exception as error:  # noqa: BLE001  (it is what was asked for)
            return error
        raise AssertionError("the guard was taken for a number")

    # ---- what went wrong --------------------------------------------------------------------------------------------

    def _check(self, place: int, row: Any) -> None:
        """Refuse what is no row of the right width."""
        width = len(self._columns)
        if isinstance(row, str | bytes | bytearray | memoryview) or not isinstance(row, Sequence | asyncpg.Record):
            problem = f"is of type {type(row).__name__}: expected a tuple or a list of {width} values"
        elif len(row) != width:
            problem = f"has {len(row)} values, and there are {width} columns"
        else:
            return
        raise QueryRejected(f"{self._name}: copy_in: row {place} {problem}; no row was kept", provider=self._name)

    async def _translated(self, error: Exception) -> BaseException:
        if isinstance(error, asyncpg.PostgresError) and error.severity is not None:
            return self._from_server(error)
        if isinstance(error, asyncpg.InternalClientError) and (found := _NO_BINARY.search(str(error))):
            return self._no_binary(error, int(found[1]))
        if self._connection.is_closed() or isinstance(error, OSError):
            return self._transaction._fault(error, Effect.WRITES).error  # noqa: SLF001  (two halves of one engine)
        if isinstance(error, asyncpg.InterfaceError) and "another operation" in str(error):
            return self._transaction._fault(error, Effect.WRITES).error  # noqa: SLF001
        return await self._unfit(error)

    async def _unfit(self, error: Exception) -> BaseException:
        """A value of the last row does not fit its column: the driver binds it once more, and says which."""
        number, row = self._last()
        try:
            self._check(number, row)
        except QueryRejected as refused:
            return refused
        failure = await self._bind(row)
        argument = _ARGUMENT.search(str(failure.args[0]) if failure.args else "")
        place = int(argument[1]) if argument else 0
        where = f"row {number}"
        if not 0 < place <= len(self._columns):
            raised = QueryRejected(
                f"{self._name}: copy_in: {where} does not fit its columns; no row was kept", provider=self._name
            )
        else:
            expected = self._statement.get_parameters()[place - 1].name
            given = type(row[place - 1]).__name__
            raised = QueryRejected(
                f"{self._name}: copy_in: {where}, column {self._columns[place - 1]}: expected a value that fits "
                f"{expected}, and this {given} does not; no row was kept",
                provider=self._name,
            )
        raised.__cause__ = DriverError.of(error)
        return raised

    def _no_binary(self, error: Exception, oid: int) -> QueryRejected:
        types = [attribute.type for attribute in self._statement.get_attributes()]
        which = next(((c, t.name) for c, t in zip(self._columns, types, strict=True) if t.oid == oid), None)
        about = "a column" if which is None else f"column {which[0]} of type {which[1]}"
        raised = QueryRejected(
            f"{self._name}: copy_in: {about} has no binary form that the driver knows: use execute_many",
            provider=self._name,
        )
        raised.__cause__ = DriverError.of(error)
        return raised

    def _from_server(self, error: Any) -> BaseException:
        """The server's words for it, and which row and column they are about."""
        found = self._transaction._fault(error, Effect.WRITES)  # noqa: SLF001  (two halves of one engine)
        raised = found.error
        where = self._place(error.context or "")
        if found.connection != "keep" and not where:
            return raised
        if error.sqlstate in {"0A000", "42809"}:
            message = (
                f"{self._name}: copy_in: the server does not copy into {self._table}, which is a view or has row-level "
                f"security: use execute_many (SQLSTATE {error.sqlstate})"
            )
        else:
            message = f"{raised}{where}; no row was kept"
        raised.args = (message, *raised.args[1:])
        return raised

    def _place(self, context: str) -> str:
        """Row and column, from ``COPY table, line 3, column b``: the word between may be in any language."""
        _, found, said = context.rpartition(f"COPY {self._table.rpartition('.')[2]}, ")
        line = re.search(r"\d+", said) if found else None
        if line is None:
            return ""
        rest = said[line.end() :].split("\n", 1)[0]
        column = max((c for c in self._columns if rest.endswith(f" {c}")), key=len, default=None)
        return f", in row {line[0]}" + ("" if column is None else f", column {column}")


def _in_batches(rows: Iterable[Parameters]) -> Iterator[Sequence[Parameters]]:
    if isinstance(rows, list | tuple):
        return (rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH))
    source = iter(rows)
    return iter(lambda: list(islice(source, _BATCH)), [])


def _checked(columns: Sequence[str]) -> list[str]:
    if isinstance(columns, str) or not isinstance(columns, Sequence) or not columns:
        raise ConfigurationError("copy_in: columns: expected a list of names, one at least")
    for column in columns:
        if not isinstance(column, str) or not column or "\0" in column:
            raise ConfigurationError("copy_in: columns: a name is empty, holds a NUL character, or is no text")
    return list(columns)

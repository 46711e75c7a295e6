"""The columns that a COPY fills: of which types they are, what is a row of them, and what to say of one that is not.

Source: PostgreSQL 18 documentation, COPY.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from datavern.contracts.errors import ConfigurationError, DriverError, ProviderError, QueryRejected
from datavern.engines.postgresql.statements import Effect

if TYPE_CHECKING:
    from datavern.engines.postgresql.transaction import PostgreSQLTransaction

__all__ = ["CopiedColumns"]

# Never run. The server checks the names and says of which types the columns are; a value is tried against its column
# by binding it, and what the guard is bound to fits nothing, so that the driver never sends it.
_TYPED: Final = (
    "WITH {guard} AS (SELECT ${last}::pg_catalog.int4) "
    "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE VALUES ({places}) RETURNING {columns}"
)
_COPY: Final = "COPY {table} ({columns}) FROM STDIN (FORMAT binary)"
_GENERATED: Final = "428C9"
_GUARD: Final = object()
_PARTICULAR: Final = frozenset({16, 1082, 1083, 1114, 1184, 1186, 1266})
"""Types (bool, date, time, timestamp, timestamptz, interval, timetz) of which the driver takes neither a character nor
a number: where a column is of one, text and bytes cannot pass for a row."""
_ARGUMENT: Final = re.compile(r"query argument \$(\d+)")
_NO_BINARY: Final = re.compile(r"no binary format encoder for type .* \(OID (\d+)\)", re.DOTALL)
_POSITION: Final = re.compile(r", at character \d+ of the statement")


class CopiedColumns:
    """Columns of a table, in an open transaction.

    Args:
        transaction: the transaction that copies.
        table: ``schema.table`` or ``table``.
        columns: their names, in the order of a row's values.

    Attributes:
        copy: the COPY statement.

    Raises:
        ConfigurationError: `columns` are no names.
    """

    __slots__ = (
        "_columns",
        "_connection",
        "_name",
        "_quoted",
        "_statement",
        "_strict",
        "_table",
        "_transaction",
        "_typed",
        "copy",
    )  # fmt: skip

    def __init__(self, transaction: PostgreSQLTransaction, table: str, columns: Sequence[str]) -> None:
        provider = transaction._provider  # noqa: SLF001  (two halves of one engine)
        self._transaction = transaction
        self._name = provider.name
        self._table = table
        if not isinstance(table, str) or not table:
            raise ConfigurationError("copy_in: the table's name is empty, or is no text")
        self._columns = _checked(columns)
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
        self.copy: str = _COPY.format_map(names)
        self._connection: asyncpg.Connection
        self._statement: Any = None
        self._strict = False

    @property
    def width(self) -> int:
        """How many they are."""
        return len(self._columns)

    @property
    def statement(self) -> Any:
        """The driver's statement that knows their types; never run."""
        return self._statement

    async def ask(self) -> asyncpg.Connection:
        """Ask for their types; the connection that they were asked of.

        Raises:
            ProviderError: the server refuses the table or a column; says which.
        """
        self._connection, _ = self._transaction._prepared(self._typed, ())  # noqa: SLF001  (two halves of one engine)
        try:
            self._statement = await self._connection.prepare(self._typed, name="")  # a name is one to close
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = self._transaction._fault(error, Effect.READS)  # noqa: SLF001  (two halves of one engine)
            said = str(error)
        else:
            self._strict = any(type_.oid in _PARTICULAR for type_ in self._statement.get_parameters())
            return self._connection
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

    def are_rows(self, batch: Sequence[Any]) -> bool:
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

    def check_all(self, rows: Sequence[Any], first: int) -> None:
        """Refuse what is no row, among those from that number on.

        Raises:
            QueryRejected: says which row.
        """
        for place, row in enumerate(rows, first):
            self.check(place, row)

    def check(self, place: int, row: Any) -> None:
        """Refuse what is no row of the right width.

        Raises:
            QueryRejected: says which row.
        """
        width = len(self._columns)
        if isinstance(row, str | bytes | bytearray | memoryview) or not isinstance(row, Sequence | asyncpg.Record):
            problem = f"is of type {type(row).__name__}: expected a tuple or a list of {width} values"
        elif len(row) != width:
            problem = f"has {len(row)} values, and there are {width} columns"
        else:
            return
        raise QueryRejected(f"{self._name}: copy_in: row {place} {problem}; no row was kept", provider=self._name)

    def refused(self) -> bool:
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

    async def translated(self, error: Exception, first: int, rows: Sequence[Any]) -> BaseException:
        """What to raise for what the driver raised.

        Args:
            error: the driver's.
            first: number of the first row that may be the reason.
            rows: from that one up to the row that the driver took last.
        """
        if isinstance(error, asyncpg.PostgresError) and error.severity is not None:
            return self._from_server(error)
        if isinstance(error, asyncpg.InternalClientError) and (found := _NO_BINARY.search(str(error))):
            return self._no_binary(error, int(found[1]))
        if self._connection.is_closed() or isinstance(error, OSError):
            return self._transaction._fault(error, Effect.WRITES).error  # noqa: SLF001  (two halves of one engine)
        if isinstance(error, asyncpg.InterfaceError) and "another operation" in str(error):
            return self._transaction._fault(error, Effect.WRITES).error  # noqa: SLF001
        return await self._unfit(error, first, rows)

    async def _unfit(self, error: Exception, first: int, rows: Sequence[Any]) -> BaseException:
        """A value of the last row does not fit its column: the driver binds it once more, and says which."""
        try:
            self.check_all(rows, first)
        except QueryRejected as refused:
            return refused
        row: Any = rows[-1] if rows else ()
        failure = await self._bind(row)
        argument = _ARGUMENT.search(str(failure.args[0]) if failure.args else "")
        place = int(argument[1]) if argument else 0
        where = f"row {first + len(rows) - 1}"
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


def _checked(columns: Sequence[str]) -> list[str]:
    if isinstance(columns, str) or not isinstance(columns, Sequence) or not columns:
        raise ConfigurationError("copy_in: columns: expected a list of names, one at least")
    for column in columns:
        if not isinstance(column, str) or not column or "\0" in column:
            raise ConfigurationError("copy_in: columns: a name is empty, holds a NUL character, or is no text")
    return list(columns)

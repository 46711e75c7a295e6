"""Many rows into a table: as a bulk load where the driver has one, else as many in each statement as T-SQL takes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypedDict

from datavern.contracts.errors import ConfigurationError, QueryRejected
from datavern.contracts.values import checked_size
from datavern.engines.azuresql.loading import COLUMNS, LoadColumn, Unlike, load_columns, loadable
from datavern.engines.azuresql.values import bound

if TYPE_CHECKING:
    from datavern.engines.azuresql.transaction import AzureSQLTransaction

__all__ = ["BulkOptions", "Rows", "bulk_insert"]

Rows = Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]]


class BulkOptions(TypedDict, total=False):
    """What `bulk_insert` takes beside its rows."""

    batch_size: int | None
    triggers: bool
    constraints: bool
    lock_table: bool


_MOST_ROWS: Final = 1000
"""Rows that one VALUES takes (Transact-SQL reference, "Table value constructor")."""
_MOST_VALUES: Final = 2000
"""Values in one statement: it takes 2098 parameters."""
_LOADED: Final = 5000
"""Rows of one bulk load: few enough to hold, and many enough that its two round trips do not count."""
_HEAVY: Final = 4 * 2**20
"""Characters and bytes of one bulk load."""


async def bulk_insert(
    tx: AzureSQLTransaction,
    table: str,
    columns: Sequence[str],
    rows: Rows,
    *,
    batch_size: int | None = None,
    triggers: bool = True,
    constraints: bool = True,
    lock_table: bool = False,
) -> int:
    """Insert rows in the transaction; how many. See `AzureSQLProvider.bulk_insert`."""
    name = tx._provider.name  # noqa: SLF001  (one engine)
    if isinstance(columns, str | bytes) or not columns or not all(isinstance(c, str) and c for c in columns):
        raise ConfigurationError(f"{name}: bulk_insert: columns: expected a list of names")
    if batch_size is not None:
        checked_size(batch_size)
    bulk = _Bulk(tx, table, columns)
    if triggers and constraints and not lock_table:
        await bulk.look()
    else:
        await bulk.look_or_refuse(
            ["CHECK_CONSTRAINTS"] * constraints + ["FIRE_TRIGGERS"] * triggers + ["TABLOCK"] * lock_table
        )
    return await bulk.insert(rows, batch_size)


class _Bulk:
    """One call: what is known of the table, and how far it is."""

    def __init__(self, tx: AzureSQLTransaction, table: str, columns: Sequence[str]) -> None:
        provider: Any = tx._provider  # noqa: SLF001  (one engine)
        subjects = provider._subjects  # noqa: SLF001  (the same)
        self._tx = tx
        self._name: str = provider.name
        self._width = len(columns)
        self._names = columns
        self._table = subjects.quoted_store(table)
        names = ", ".join(map(subjects.quoted, columns))
        self._quoted = subjects.quoted
        self._head = f"INSERT INTO {self._table} ({names}) VALUES "  # noqa: S608  (quoted names)
        self._loads: list[LoadColumn] | None = None
        self._options = ["CHECK_CONSTRAINTS", "FIRE_TRIGGERS"]  # as INSERT does, so that either way means the same
        self._only_loads = False
        self._done = 0

    async def look(self) -> None:
        """Find out whether the rows can be loaded."""
        temporary = "#" in self._table[:2]  # another database holds what it is made of
        if self._tx.loads and not temporary:
            self._loads = load_columns(await self._tx.query(COLUMNS, [self._table]), self._names)

    async def look_or_refuse(self, options: list[str]) -> None:
        """The same, where what was asked for is nothing that INSERT can do."""
        await self.look()
        self._options, self._only_loads = options, True
        if self._loads is None:
            why = (
                "the table or one of its columns takes none (docs/azuresql.md)"
                if self._tx.loads
                else "this driver has none that belongs to a transaction: driver='python-tds'"
            )
            raise ConfigurationError(
                f"{self._name}: bulk_insert: triggers, constraints and lock_table are options of a bulk load, and {why}"
            )

    async def insert(self, rows: Rows, batch_size: int | None) -> int:
        """Insert all of them."""
        if self._loads is None and self._width > _MOST_VALUES:
            raise ConfigurationError(
                f"{self._name}: bulk_insert: {self._width} columns: expected {_MOST_VALUES} at the most"
            )
        most = batch_size or (_LOADED if self._loads is not None else _MOST_ROWS)
        batch: list[Sequence[Any]] = []
        weight = 0
        async for row in _each(rows, self._name):
            number = self._done + len(batch) + 1
            if isinstance(row, str | bytes) or not isinstance(row, Sequence):
                raise QueryRejected(f"{self._name}: row {number} is a {type(row).__name__}: expected a tuple or a list")
            if len(row) != self._width:
                raise QueryRejected(f"{self._name}: row {number} has {len(row)} values for {self._width} columns")
            batch.append(row)
            weight += sum(len(value) for value in row if type(value) is str or type(value) is bytes)
            if len(batch) >= most or weight > _HEAVY:
                await self._send(batch)
                batch, weight = [], 0
        if batch:
            await self._send(batch)
        return self._done

    async def _send(self, batch: list[Sequence[Any]]) -> None:
        if not await self._load(batch):
            height = max(1, min(_MOST_ROWS, _MOST_VALUES // self._width))
            for at in range(0, len(batch), height):
                await self._insert(batch[at : at + height], self._done + at)
        self._done += len(batch)

    async def _load(self, batch: list[Sequence[Any]]) -> bool:
        """Load the rows; False where they have to go as parameters."""
        columns = self._loads
        if columns is None:
            return False
        plain = [self._bound(row, self._done + n) for n, row in enumerate(batch, 1)]
        place: tuple[int, int]
        try:
            values = loadable(columns, plain)
        except Unlike as unlike:
            place = unlike.args
        else:
            listed = ", ".join(f"{self._quoted(column.name)} {column.declaration}" for column in columns)
            options = ", ".join([*self._options, "KEEP_NULLS"])  # INSERT keeps a NULL, and gives no default for it
            text = f"INSERT BULK {self._table} ({listed}) WITH ({options})"
            await self._tx.load(self._insert_text(1), text, columns, values)
            return True
        if self._only_loads or self._width > _MOST_VALUES:
            number, column = place
            raise QueryRejected(
                f"{self._name}: the value of column {column + 1} of row {self._done + number + 1} is not of the type "
                f"that the column has ({columns[column].declaration}), and a bulk load converts none",
                provider=self._name,
            )
        return False

    def _bound(self, row: Sequence[Any], number: int) -> list[Any]:
        refused: QueryRejected
        try:
            return bound(row, name=self._name)
        except QueryRejected as error:
            refused = error
        raise self._told(refused, number)

    async def _insert(self, rows: list[Sequence[Any]], before: int) -> None:
        refused: QueryRejected
        try:
            await self._tx.execute(self._insert_text(len(rows)), [value for row in rows for value in row])
        except QueryRejected as error:
            if error.code is not None or "parameter @P" not in str(error):
                raise
            refused = error
        else:
            return
        raise self._told(refused, before + 1)

    def _insert_text(self, rows: int) -> str:
        width = self._width
        places = (f"({', '.join(f'@P{n * width + m}' for m in range(1, width + 1))})" for n in range(rows))
        return self._head + ", ".join(places)

    def _told(self, refused: QueryRejected, first: int) -> QueryRejected:
        """An error about a parameter says which row and column it was; `first`: the number of the first row sent."""
        number = int(str(refused).partition("parameter @P")[2].partition(" ")[0]) - 1
        where = f"the value of column {number % self._width + 1} of row {first + number // self._width}"
        return QueryRejected(
            str(refused).replace(f"parameter @P{number + 1}", where),
            provider=refused.provider,
        )


async def _each(rows: Any, name: str) -> AsyncIterator[Any]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    elif isinstance(rows, Iterable) and not isinstance(rows, str | bytes):
        for row in rows:
            yield row
    else:
        raise ConfigurationError(f"{name}: bulk_insert: rows: expected an iterable or async iterable of tuples")

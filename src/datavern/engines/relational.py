"""What relational engines share: rows addressed by the values of their columns.

Statements are SQLAlchemy Core constructs, compiled once for each shape of a call (operation, store, columns, which of
them are NULL or lists) and kept as text; SQLAlchemy is loaded with the first of them. How the tables themselves are
made is in `preparing`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.stores import Words
from datavern.engines.preparing import RelationalStores, split_name

__all__ = ["RelationalSubjects", "arranged", "conditions"]

_TEXTS = 2048  # compiled statements kept for each provider

# A column; None for IS NULL, 0 for =, n for IN with n placeholders, -n for n × LIKE; and whether the values are texts.
_Form = tuple[str, int | None, bool]


class RelationalSubjects(RelationalStores):
    """The `Subjects` of an engine that speaks SQL. Each call without `transaction` is one statement of its own."""

    most_values: ClassVar[int] = 16_384
    """Of one list in a condition: SQLite binds 32766 values, PostgreSQL 65535."""

    def __init__(self, provider: Any) -> None:
        super().__init__(provider)
        self._texts: dict[Hashable, tuple[str, tuple[int | Any, ...]]] = {}
        self._own: dict[str, str] = {}

    # ---- rows -------------------------------------------------------------------------------------------------------

    async def insert(self, store: str, rows: Sequence[Mapping[str, Any]], *, transaction: Any = None) -> None:
        """Insert rows, all or none; every row has the same columns.

        Raises:
            ValueError: a row has other columns than the first.
        """
        if not rows:
            return
        session = transaction or self._provider
        if len(rows) == 1:
            await session.execute(*self.insert_statement(store, rows[0]))
            return
        columns = tuple(rows[0])
        sql, order = self._insert_text(store, columns)
        wanted = set(columns)
        sets = []
        for row in rows:
            if row.keys() != wanted:
                raise ValueError(f"insert into {store}: every row needs the same columns")
            sets.append([row[columns[i]] for i in order])
        await session.execute_many(sql, sets)

    async def select(
        self,
        store: str,
        where: Mapping[str, Any],
        *,
        columns: Sequence[str] | None = None,
        order_by: Sequence[str] = (),
        limit: int | None = None,
        lock: bool = False,
        transaction: Any = None,
    ) -> list[dict[str, Any]]:
        """Rows that match; `lock` holds them against change until the transaction ends."""
        form, values = conditions(where, self.most_values)
        if form is None or limit == 0:
            return []
        wanted = None if columns is None else tuple(columns)
        key = ("select", store, wanted, form, tuple(order_by), limit is None, lock)
        sql, order = self._texts.get(key) or self._select_text(key)
        if limit is not None:
            values.append(limit)
        session = transaction or self._provider
        return self.as_dicts(await session.query(sql, arranged(order, values)))

    def as_dicts(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """The driver's rows as dictionaries."""
        return list(map(dict, rows))

    def stream(
        self, store: str, where: Mapping[str, Any], *, batch_size: int = 1000, transaction: Any = None
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Rows that match, in constant memory."""
        form, values = conditions(where, self.most_values)
        if form is None:
            return _Dicts(None)
        key = ("select", store, None, form, (), True, False)
        sql, order = self._texts.get(key) or self._select_text(key)
        session = transaction or self._provider
        return _Dicts(session.stream(sql, arranged(order, values), batch_size=batch_size))

    async def update(
        self, store: str, where: Mapping[str, Any], changes: Mapping[str, Any], *, transaction: Any = None
    ) -> int:
        """Change the rows that match; how many. An empty `where` raises `ValueError`: nobody means every row."""
        if not where:
            raise ValueError(f"update of {store} without a condition: nobody means every row")
        if not changes:
            return 0
        form, values = conditions(where, self.most_values)
        if form is None:
            return 0
        columns = tuple(changes)
        key = ("update", store, columns, form)
        sql, order = self._texts.get(key) or self._update_text(key, store, columns, form)
        session = transaction or self._provider
        return await session.execute(sql, arranged(order, [*changes.values(), *values]))  # type: ignore[no-any-return]  # a session's count

    async def delete(self, store: str, where: Mapping[str, Any], *, transaction: Any = None) -> int:
        """Delete the rows that match; how many. An empty `where` raises `ValueError`."""
        if not where:
            raise ValueError(f"deleting in {store} without a condition: nobody means every row")
        form, values = conditions(where, self.most_values)
        if form is None:
            return 0
        key = ("delete", store, form)
        sql, order = self._texts.get(key) or self._delete_text(key, store, form)
        session = transaction or self._provider
        return await session.execute(sql, arranged(order, values))  # type: ignore[no-any-return]  # a session's count

    async def change_many(
        self,
        store: str,
        changes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]],
        *,
        transaction: Any = None,
    ) -> None:
        """Change single rows, each by its own condition, or delete them, where the change is None: in few statements.

        Args:
            store: the table.
            changes: condition and change; an empty condition raises `ValueError`.
            transaction: as everywhere; without one each kind of change is a transaction of its own.
        """
        alike: dict[tuple[tuple[str, ...] | None, tuple[_Form, ...]], list[list[Any]]] = {}
        for where, change in changes:
            if not where:
                raise ValueError(f"a change in {store} without a condition: nobody means every row")
            form, values = conditions(where, self.most_values)
            if form is None or change == {}:
                continue
            columns = None if change is None else tuple(change)
            alike.setdefault((columns, form), []).append([*(change or {}).values(), *values])
        session = transaction or self._provider
        for (columns, form), sets in alike.items():
            key = ("delete", store, form) if columns is None else ("update", store, columns, form)
            found = self._texts.get(key)
            if found is None:
                made = self._delete_text(key, store, form) if columns is None else None
                found = made or self._update_text(key, store, columns or (), form)
            sql, order = found
            await session.execute_many(sql, [arranged(order, values) for values in sets])

    # ---- texts ------------------------------------------------------------------------------------------------------

    def _table(self, store: str, columns: Sequence[str]) -> Any:
        import sqlalchemy as sa  # noqa: PLC0415  (loaded with the first statement that is not compiled yet)

        schema, table = split_name(store)
        for column in columns:
            if not column or "\0" in column:
                raise ConfigurationError(f"{store}: a column's name is empty or holds a NUL character")
        # Always quoted: SQLAlchemy's lists of reserved words lack some (SQLite's NOTHING among them).
        names = [sa.quoted_name(c, quote=True) for c in dict.fromkeys(columns)]
        place = None if schema is None else sa.quoted_name(schema, quote=True)
        return sa.table(sa.quoted_name(table, quote=True), *map(sa.column, names), schema=place)

    def insert_statement(self, store: str, row: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The insert of a row, and its parameters."""
        columns = tuple(row)
        sql, order = self._insert_text(store, columns)
        return sql, [row[columns[i]] for i in order]

    def _insert_text(self, store: str, columns: tuple[str, ...]) -> tuple[str, tuple[Any, ...]]:
        key = ("insert", store, columns)
        found = self._texts.get(key)
        if found is not None:
            return found
        import sqlalchemy as sa  # noqa: PLC0415

        table = self._table(store, columns)
        return self._keep(
            key, sa.insert(table).values({table.c[c]: sa.bindparam(f"p{i}") for i, c in enumerate(columns)})
        )

    def insert_for_each(self, store: str, columns: Sequence[str], source: str) -> tuple[str, tuple[int, ...]]:
        """The insert of a row, once for each row of a relation, and which column each parameter is the value of."""
        import sqlalchemy as sa  # noqa: PLC0415

        table = self._table(store, columns)
        values: Any = [sa.bindparam(f"p{i}") for i in range(len(columns))]
        names: Any = [table.c[c] for c in columns]
        select = sa.select(*values).select_from(sa.table(source))
        key = ("insert for each", store, tuple(columns), source)
        return self._keep(key, sa.insert(table).from_select(names, select))

    def _select_text(self, key: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        import sqlalchemy as sa  # noqa: PLC0415

        _, store, columns, form, order_by, unlimited, lock = key
        table = self._table(store, [*(columns or ()), *(name for name, _, _ in form), *order_by])
        wanted: Any = [sa.text("*")] if columns is None else [table.c[c] for c in columns]
        statement = sa.select(*wanted).select_from(table)
        clauses, used = self._clauses(table, form, 0)
        statement = statement.where(*clauses).order_by(*(table.c[c] for c in order_by))
        if not unlimited:
            statement = statement.limit(sa.bindparam(f"p{used}"))
        if lock:
            statement = statement.with_for_update()
        return self._keep(key, statement)

    def _update_text(
        self, key: Hashable, store: str, columns: tuple[str, ...], form: tuple[_Form, ...]
    ) -> tuple[str, tuple[Any, ...]]:
        import sqlalchemy as sa  # noqa: PLC0415

        table = self._table(store, [*columns, *(name for name, _, _ in form)])
        changes: dict[Any, Any] = {table.c[c]: sa.bindparam(f"p{i}") for i, c in enumerate(columns)}
        return self._keep(key, sa.update(table).where(*self._clauses(table, form, len(columns))[0]).values(changes))

    def _delete_text(self, key: Hashable, store: str, form: tuple[_Form, ...]) -> tuple[str, tuple[Any, ...]]:
        import sqlalchemy as sa  # noqa: PLC0415

        table = self._table(store, [name for name, _, _ in form])
        return self._keep(key, sa.delete(table).where(*self._clauses(table, form, 0)[0]))

    def _clauses(self, table: Any, form: tuple[_Form, ...], first: int) -> tuple[list[Any], int]:
        """The conditions on a table, and the number of the next parameter."""
        import sqlalchemy as sa  # noqa: PLC0415

        clauses: list[Any] = []
        for name, size, texts in form:
            column = table.c[name]
            if size is None:
                clauses.append(column.is_(None))
            elif size < 0:
                clauses += [column.like(sa.bindparam(f"p{i}")) for i in range(first, first - size)]
                first -= size
            else:
                wanted: list[Any] = [sa.bindparam(f"p{i}") for i in range(first, first + max(size, 1))]
                clauses += (
                    self.among(column, wanted, texts=texts) if size else self.equal(column, wanted[0], texts=texts)
                )
                first += max(size, 1)
        return clauses, first

    def equal(self, column: Any, value: Any, *, texts: bool) -> list[Any]:  # noqa: ARG002  (for engines that pad texts)
        """The conditions under which a column has exactly that value."""
        return [column == value]

    def among(self, column: Any, values: list[Any], *, texts: bool) -> list[Any]:  # noqa: ARG002  (the same)
        """The conditions under which a column has exactly one of those values."""
        return [column.in_(values)]

    def _keep(self, key: Hashable, statement: Any) -> tuple[str, tuple[Any, ...]]:
        compiled = statement.compile(dialect=self.dialect)
        constants = {name: b.effective_value for b, name in compiled.bind_names.items() if not b.required}
        order = tuple(
            _Constant(constants[name]) if name in constants else int(name[1:]) for name in compiled.positiontup or ()
        )
        if len(self._texts) >= _TEXTS:
            self._texts.clear()
            self._own.clear()
        text = str(compiled)
        found = self._texts[key] = (self._own.setdefault(text, text), order)
        return found

    def owns(self, sql: str) -> bool:
        """Whether a text is one that was made here: that very object, and not one that merely reads the same."""
        return self._own.get(sql) is sql


class _Constant:
    """A value that the statement itself holds, among the positions of those that a call brings."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Dicts:
    """A stream whose rows are dicts."""

    __slots__ = ("_rows", "_stream")

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._rows: Any = None

    async def __aenter__(self) -> AsyncIterator[dict[str, Any]]:
        if self._stream is not None:
            self._rows = await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._stream is not None:
            await self._stream.__aexit__(*exc)

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._rows is None:
            raise StopAsyncIteration
        return dict(await anext(self._rows))


def conditions(where: Mapping[str, Any], most: int) -> tuple[tuple[_Form, ...] | None, list[Any]]:
    """The form of a condition, and its values in order; no form when nothing can match (an empty tuple)."""
    form: list[_Form] = []
    values: list[Any] = []
    for column, value in where.items():
        if value is None:
            form.append((column, None, False))
        elif isinstance(value, tuple):
            if not value:
                return None, []
            if len(value) > most:
                raise ValueError(f"{column}: any of {len(value)} values is asked for; the most is {most}")
            size = 1 << (len(value) - 1).bit_length()  # few texts for many lengths; the last value fills up
            form.append((column, size, all(isinstance(v, str) for v in value)))
            values.extend(value)
            values.extend([value[-1]] * (size - len(value)))
        elif isinstance(value, Words):
            form.append((column, -len(value), True))
            values.extend(f"%{word}%" for word in value)
        else:
            form.append((column, 0, isinstance(value, str)))
            values.append(value)
    return tuple(form), values


def arranged(order: tuple[Any, ...], values: list[Any]) -> list[Any]:
    """The values of a call, in the order of a statement's placeholders."""
    return [values[i] if type(i) is int else i.value for i in order]

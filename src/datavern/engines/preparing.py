"""What relational engines share: stores as they should be, made or completed where they are not.

What differs between engines is in their own `subjects.py`: the live schema, the words for types, how two processes keep
out of each other's way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.stores import Column, Shape, ShapeColumn, Store

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["RelationalStores", "split_name"]

_LONGEST_NAME = 63  # bytes of an identifier in PostgreSQL; SQLite has no bound


def split_name(store: str) -> tuple[str | None, str]:
    """Schema and table of a store's name, ``schema.table`` or ``table``.

    Raises:
        ConfigurationError: an empty part, more than one dot, or a NUL character.
    """
    schema, dot, table = store.rpartition(".")
    if not table or "\0" in store or "." in schema or (dot and not schema):
        raise ConfigurationError("store: expected a table, or schema.table")
    return schema or None, table


class RelationalStores:
    """The tables of an engine that speaks SQL: what they are like, and how they are made."""

    types: ClassVar[Mapping[str, str]]
    """The engine's words for a `ShapeColumn`'s types."""

    table_options: ClassVar[str] = ""
    """What follows the columns in CREATE TABLE."""

    adding: ClassVar[str] = "ADD COLUMN"
    """What stands before a new column in ALTER TABLE."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    # ---- what an engine fills in ------------------------------------------------------------------------------------

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect with the driver's placeholders."""
        raise NotImplementedError

    async def describe(self, store: str, *, transaction: Any = None) -> Store | None:
        """The store as it stands in the live schema, or None when there is none."""
        raise NotImplementedError

    def holds(self, column: Column, wanted: ShapeColumn) -> bool:
        """Whether a column as it stands can hold what is wanted of it."""
        raise NotImplementedError

    def type_of(self, column: ShapeColumn, *, keyed: bool) -> str:  # noqa: ARG002  (for engines whose keys are bounded)
        """The type of a new column; `keyed`: it is in the primary key or an index."""
        return self.types[column.type]

    async def exclude(self, tx: Any, store: str) -> None:
        """Keep other processes from preparing the same store until the transaction ends."""

    # ---- the schema -------------------------------------------------------------------------------------------------

    async def prepare(self, shape: Shape) -> list[str]:
        """Make the store, or add what it lacks, and say what was run. Idempotent; safe in several processes at once.

        Nothing is ever dropped or retyped. A column that is added to a store with rows in it takes NULL, whatever the
        shape says: the rows that are there have no value for it.

        Raises:
            ConfigurationError: a column is there with a type that cannot hold what it must.
        """
        async with self._provider.transaction(isolation="read committed") as tx:  # what it waited for is seen
            await self.exclude(tx, shape.store)
            found = await self.describe(shape.store, transaction=tx)
            ddl = self._create(shape) if found is None else self._complete(shape, found)
            for statement in ddl:
                await tx.execute(statement)
        return ddl

    def quoted(self, name: str) -> str:
        """An identifier that stands for itself, whatever is in it."""
        return self.dialect.identifier_preparer.quote_identifier(name)

    def quoted_store(self, store: str) -> str:
        """A store's name, quoted part by part."""
        schema, table = split_name(store)
        return self.quoted(table) if schema is None else f"{self.quoted(schema)}.{self.quoted(table)}"

    def _create(self, shape: Shape) -> list[str]:
        known = {c.name for c in shape.columns}
        missing = [c for c in shape.primary_key if c not in known]
        if missing:
            raise ConfigurationError(f"{shape.store}: the primary key names {missing[0]}, which is no column")
        lines = [
            f"{self.quoted(c.name)} {self.type_of(c, keyed=c.indexed or c.unique or c.name in shape.primary_key)}"
            + ("" if c.nullable and c.name not in shape.primary_key else " NOT NULL")
            for c in shape.columns
        ]
        if shape.primary_key:
            lines.append(f"PRIMARY KEY ({', '.join(map(self.quoted, shape.primary_key))})")
        create = f"CREATE TABLE {self.quoted_store(shape.store)} ({', '.join(lines)}){self.table_options}"
        return [create, *self._indexes(shape, None)]

    def _complete(self, shape: Shape, found: Store) -> list[str]:
        ddl = []
        for wanted in shape.columns:
            column = found.column(wanted.name)
            if column is None:
                if wanted.name in shape.primary_key:
                    raise ConfigurationError(
                        f"{shape.store} has no column {wanted.name}, which is its primary key: that cannot be added"
                    )
                ddl.append(
                    f"ALTER TABLE {self.quoted_store(shape.store)} "
                    f"{self.adding} {self.quoted(wanted.name)} "
                    f"{self.type_of(wanted, keyed=wanted.indexed or wanted.unique)}"
                )
            elif not self.holds(column, wanted):
                raise ConfigurationError(
                    f"{shape.store}.{wanted.name} is {column.type or 'untyped'}, and must hold {wanted.type}: expected "
                    f"{self.types[wanted.type]}. Nothing is retyped here: "
                    + (
                        "`datavern seal` seals a column in place"
                        if wanted.type == "bytes"
                        else "add a new column, or migrate this one"
                    )
                )
        return ddl + self._indexes(shape, found)

    def _indexes(self, shape: Shape, found: Store | None) -> list[str]:
        ddl = []
        for column in shape.columns:
            alone = frozenset({column.name})
            if shape.primary_key == (column.name,) or (found is not None and alone in found.unique):
                continue
            if column.unique:
                unique, ending = "UNIQUE ", "key"
            elif column.indexed and not (found is not None and column.name in found.indexed):
                unique, ending = "", "idx"
            else:
                continue
            name = _index_name(split_name(shape.store)[1], column.name, ending)
            ddl.append(self.index(unique, name, shape.store, column.name))
        return ddl

    def index(self, unique: str, name: str, store: str, column: str) -> str:
        """The statement that makes an index of one column; `unique` is ``"UNIQUE "`` or empty."""
        return f"CREATE {unique}INDEX {self.quoted(name)} ON {self.quoted_store(store)} ({self.quoted(column)})"


def _index_name(table: str, column: str, ending: str) -> str:
    name = f"{table}_{column}_{ending}"
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    head = name.encode()[: _LONGEST_NAME - 13 - len(ending)].decode(errors="ignore")
    return f"{head}_{digest}_{ending}"[:_LONGEST_NAME]

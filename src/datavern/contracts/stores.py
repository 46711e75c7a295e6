"""Stores (tables, collections, key patterns): how they stand, how they should, and their rows by plain values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["Column", "Shape", "ShapeColumn", "Store", "Subjects", "Words"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column (or a document's field) as the live schema has it.

    Attributes:
        name: as the engine spells it.
        type: the engine's own name of its type, lower case.
        nullable: whether it takes NULL.
        primary_key: 1-based position in the primary key, or 0.
        default: whether the engine fills it in when an insert leaves it out.
        bits: of a whole-number column: how many it holds, sign included; None where that is 64, or it is none.
        exact: False where the engine changes a text that it is given: pads it with spaces, makes a number of it.
    """

    name: str
    type: str
    nullable: bool = True
    primary_key: int = 0
    default: bool = False
    bits: int | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Store:
    """A table (a collection, a key pattern) as it stands.

    Attributes:
        name: as it was asked for.
        columns: in order.
        unique: each set of columns that a unique constraint or index covers, the primary key among them.
        indexed: the leading column of every index.
        referenced_by: ``table.column`` of each foreign key that points here.
    """

    name: str
    columns: tuple[Column, ...]
    unique: tuple[frozenset[str], ...] = ()
    indexed: frozenset[str] = frozenset()
    referenced_by: tuple[str, ...] = ()

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The primary key's columns, in order; empty when there is none."""
        keyed = sorted((c for c in self.columns if c.primary_key), key=lambda c: c.primary_key)
        return tuple(c.name for c in keyed)

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((c for c in self.columns if c.name == name), None)


@dataclass(frozen=True, slots=True)
class ShapeColumn:
    """A column that a dataset needs.

    Attributes:
        type: "text", "integer", "real", "boolean", "bytes", "date", "timestamp" or "json", in the engine's own words;
            "id" where records of any type of id may stand beside one another (`Records`).
    """

    name: str
    type: Literal["text", "integer", "real", "boolean", "bytes", "date", "timestamp", "json", "id"] = "text"
    nullable: bool = True
    indexed: bool = False
    unique: bool = False


class Words(frozenset[str]):
    """A condition on a text column: every one of these words of ASCII letters and digits stands in its text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What a dataset needs of its store: `Subjects.prepare` makes it so."""

    store: str
    columns: tuple[ShapeColumn, ...]
    primary_key: tuple[str, ...]


class Subjects(Protocol):
    """The rows of a store, addressed by plain values of their columns: what personal data needs of an engine.

    Names are identifiers, quoted by the engine, so any name is safe here. `where` holds column = value pairs that must
    all hold; a value that is a tuple means "any of these"; None means IS NULL; `Words` all stand in the column's text.
    Rows come as dicts.
    `transaction` is an open transaction of the same provider, or None for one of the call's own.
    """

    async def describe(self, store: str, *, transaction: Any = None) -> Store | None:
        """The store as it stands in the live schema, or None when there is none."""
        ...

    async def prepare(self, shape: Shape) -> list[str]:
        """Make the store, or add what it lacks, and say what was run. Idempotent; safe in several processes at once.

        Nothing is ever dropped or retyped.

        Raises:
            ConfigurationError: a column is there with a type that cannot hold what it must.
        """
        ...

    async def insert(self, store: str, rows: Sequence[Mapping[str, Any]], *, transaction: Any = None) -> None:
        """Insert rows, all or none; every row has the same columns."""
        ...

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
        ...

    def stream(
        self, store: str, where: Mapping[str, Any], *, batch_size: int = 1000, transaction: Any = None
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Rows that match, in constant memory."""
        ...

    async def update(
        self, store: str, where: Mapping[str, Any], changes: Mapping[str, Any], *, transaction: Any = None
    ) -> int:
        """Change the rows that match; how many. An empty `where` raises `ValueError`: nobody means every row."""
        ...

    async def delete(self, store: str, where: Mapping[str, Any], *, transaction: Any = None) -> int:
        """Delete the rows that match; how many. An empty `where` raises `ValueError`."""
        ...

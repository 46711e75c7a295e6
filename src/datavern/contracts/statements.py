"""Statements on Datavern's own tables: SQLAlchemy Core, compiled once per dialect.

SQLAlchemy is loaded when the first of them is needed, never on import. Which dialect an engine speaks is the engine's
to say (`Ledger.dialect`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine import Dialect

__all__ = ["Among", "Compiled", "Statement"]


class Compiled(NamedTuple):
    """A statement in one dialect.

    Attributes:
        sql: its text, with the driver's own placeholders.
        names: the parameter that each placeholder takes, in order.
        constants: the values that the construct itself holds.
    """

    sql: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]

    def parameters(self, values: Mapping[str, Any]) -> list[Any]:
        """`values` in the order of the placeholders. Raises `KeyError` where one is missing."""
        constants = self.constants
        return [values[name] if name in values else constants[name] for name in self.names]


class Statement:
    """One statement, built when first used.

        INSERT = Statement(lambda: sa.insert(table()))
        await session.execute(*INSERT.bind(ledger.dialect, id="…"))

    Args:
        build: makes the SQLAlchemy construct; called once.
    """

    __slots__ = ("_build", "_compiled")

    def __init__(self, build: Callable[[], sa.Executable]) -> None:
        self._build = build
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect) -> Compiled:
        """The statement in that dialect."""
        found = self._compiled.get(dialect.name)
        if found is None:
            built: Any = self._build()
            compiled = built.compile(dialect=dialect)
            constants = {name: b.effective_value for b, name in compiled.bind_names.items() if not b.required}
            found = self._compiled[dialect.name] = Compiled(str(compiled), tuple(compiled.positiontup or ()), constants)
        return found

    def bind(self, dialect: Dialect, /, **values: Any) -> tuple[str, list[Any]]:
        """Text and parameters for the methods of a session: ``session.execute(*statement.bind(…))``.

        Raises:
            KeyError: a parameter has no value.
        """
        compiled = self._compiled.get(dialect.name) or self.compiled(dialect)
        return compiled.sql, compiled.parameters(values)

    def bind_many(self, dialect: Dialect, rows: Iterable[Mapping[str, Any]], /) -> tuple[str, list[list[Any]]]:
        """The same for `execute_many`: a list of parameters for each row."""
        compiled = self._compiled.get(dialect.name) or self.compiled(dialect)
        return compiled.sql, [compiled.parameters(row) for row in rows]


class Among:
    """A statement over any number of values, in chunks of a few fixed sizes, so that few texts are prepared.

    Args:
        build: the construct for a list of bound parameters.
    """

    __slots__ = ("_by_size",)

    def __init__(self, build: Callable[[list[sa.BindParameter[Any]]], sa.Executable]) -> None:
        def sized(size: int) -> Statement:
            return Statement(lambda: build(_parameters(size)))

        self._by_size = {size: sized(size) for size in (1, 16, 256)}

    def bind(self, dialect: Dialect, values: Sequence[Any], /, **others: Any) -> Iterator[tuple[str, list[Any]]]:
        """Text and parameters for each chunk. The last is filled up by repeating a value, which IN does not mind."""
        at = 0
        while at < len(values):
            left = len(values) - at
            size = next((s for s in self._by_size if s >= left), 256)
            chunk = values[at : at + size]
            at += size
            named = {f"value_{i}": chunk[min(i, len(chunk) - 1)] for i in range(size)}
            yield self._by_size[size].bind(dialect, **named, **others)


def _parameters(size: int) -> list[sa.BindParameter[Any]]:
    import sqlalchemy as sa  # noqa: PLC0415  (loaded when the first statement is built)

    return [sa.bindparam(f"value_{i}") for i in range(size)]

"""`Sealed()`: a column whose values are sealed on the way in and opened on the way out.

A sealed value belongs to its row and its person, and a type sees neither. So the type itself only keeps watch: what it
lets into the database was sealed by the connection (`writing`), which knows the whole row; what is read is opened by
the statement's context (`context`). Anything else is refused rather than stored or shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.sql import operators
from sqlalchemy.util.concurrency import await_

from datavern.contracts.errors import ConfigurationError
from datavern.engines.alchemy.stores import store_of
from datavern.engines.alchemy.waiting import on_loop

__all__ = ["OWN", "ROW_TAG", "Found", "Ready", "Sealed"]

ROW_TAG = "datavern_row"
OWN = {"datavern": True}
"""What is kept with a column that stands beside a sealed one: any number of rows have none, also where it is unique."""
_KEYS = 3
"""How many lookup keys rows may be indexed under at a time: the one in use, the next, the one before."""
_AMONG = (operators.in_op, operators.not_in_op)
_ELSEWHERE = "Sealed() works on provider.sqlalchemy_engine(), of a provider in a DatabaseManager with a data map"


class Ready(bytes):
    """A value that was sealed for its row."""

    __slots__ = ()


class Variant:
    """A value that is looked for, under the n-th of the keys that rows may be indexed under while they are renewed."""

    __slots__ = ("number", "value")

    def __init__(self, value: Any, number: int) -> None:
        self.value = value
        self.number = number

    def __repr__(self) -> str:
        return "Variant(***)"


class Sealed(sa.TypeDecorator[Any]):
    """The type of a sealed column; it takes and gives any value that can be sealed.

        class User(Base):
            __tablename__ = "users"
            id: Mapped[str] = mapped_column(primary_key=True)
            name: Mapped[str | None] = mapped_column(Sealed())
            email: Mapped[str | None] = mapped_column(Sealed(lookup=True))

    Which dataset the table is, and whose a row is, the data map says: the dataset whose table has this name. What
    stands beside a sealed column is added to the table: ``datavern_row``, and the index columns asked for here, which
    are to be those of the data map's `Field`. ``User.email == "…"`` and ``in_`` compare through the lookup index.

    Args:
        lookup: ``<column>_lookup`` stands beside it.
        unique: no two rows hold the same value, through the lookup index.
        prefixes: ``<column>_prefix<n>`` for each of these lengths.
        ngrams: ``<column>_ngrams`` stands beside it.
    """

    impl = sa.LargeBinary
    cache_ok = True

    def __init__(
        self, *, lookup: bool = False, unique: bool = False, prefixes: Sequence[int] = (), ngrams: bool = False
    ) -> None:
        super().__init__()
        self.lookup = lookup or unique
        self.unique = unique
        self.prefixes = tuple(prefixes)
        self.ngrams = ngrams
        self._copied = False

    def __repr__(self) -> str:
        """As it is written in a migration, where all that it is to the database is bytes."""
        return "LargeBinary()"

    # ---- in the schema ----------------------------------------------------------------------------------------------

    def _set_parent(self, parent: Any, outer: bool = False, **more: Any) -> None:
        super()._set_parent(parent, outer=outer, **more)
        parent._on_table_attach(self._beside)

    def copy(self, **more: Any) -> Sealed:
        """A copy, for the copy of a column: those beside it may be copied too, and come after it."""
        made: Sealed = super().copy(**more)
        made._copied = True
        return made

    def _beside(self, column: Any, table: Any) -> None:
        if self._copied:
            event.listen(table, "after_parent_attach", lambda *_: self._add(column, table))
        else:
            self._add(column, table)

    def _add(self, column: Any, table: Any) -> None:
        """The columns that stand beside a sealed one."""
        wanted: list[sa.Column[Any]] = [sa.Column(ROW_TAG, sa.LargeBinary, unique=True, info=OWN)]
        name = column.name
        if self.lookup:
            wanted.append(
                sa.Column(f"{name}_lookup", sa.LargeBinary, index=not self.unique, unique=self.unique, info=OWN)
            )
        wanted += [sa.Column(f"{name}_prefix{n}", sa.LargeBinary, index=True) for n in self.prefixes]
        if self.ngrams:
            wanted.append(sa.Column(f"{name}_ngrams", sa.Text))
        for one in wanted:
            if one.name not in table.c:
                table.append_column(one)

    # ---- on the way -------------------------------------------------------------------------------------------------

    def bind_processor(self, dialect: Any) -> Any:
        def process(value: Any) -> Any:
            if value is None or type(value) is Ready:
                return value
            raise ConfigurationError(
                "a sealed column takes a value with its row: add the object to a session, or insert().values(…) and "
                f"update().values(…) of single rows. {_ELSEWHERE}"
            )

        return process

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        if getattr(dialect, "provider", None) is not None:
            return None  # the statement's context has opened it, or refused the statement

        def process(value: Any) -> Any:
            if value is not None:
                raise ConfigurationError(f"a sealed value was read past what opens it. {_ELSEWHERE}")

        return process

    class Comparator(sa.TypeDecorator.Comparator[Any]):
        """Equality through the lookup index; no other comparison means anything."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            expression = self.expr
            if op in {operators.is_, operators.is_not} or (op in {operators.eq, operators.ne} and other[0] is None):
                return super().operate(op, *other, **kwargs)
            name, table = getattr(expression, "name", None), getattr(expression, "table", None)
            if op in {operators.eq, operators.ne, operators.in_op, operators.not_in_op}:
                column = None if table is None else table.c.get(f"{name}_lookup")
                if column is None:
                    raise ConfigurationError(
                        f"{name} is sealed without lookup, so it cannot be searched: Sealed(lookup=True), and "
                        "lookup=True in the data map"
                    )
                left = sa.type_coerce(column, Found(str(name), _store_name(table)))
                sought = other[0] if op in _AMONG else [other[0]]
                if isinstance(sought, list | tuple | set | frozenset):
                    sought = [_sought(expression, one) for one in sought]
                    if not any(isinstance(one, sa.ColumnElement) for one in sought):
                        among = operators.in_op if op in {operators.eq, operators.in_op} else operators.not_in_op
                        return left.operate(among, [Variant(one, n) for one in sought for n in range(_KEYS)])
                    if op not in _AMONG:
                        return left.operate(op, sought[0])
                raise ConfigurationError(f"{name} is sealed: in_ takes a list of values")
            raise ConfigurationError(f"{name} is sealed: it is compared with == and in_ only, through its lookup index")

        reverse_operate = operate

    comparator_factory = Comparator


class Found(sa.TypeDecorator[Any]):
    """What a lookup column is compared with: the value that is looked for, which becomes its index on the way in.

    Args:
        field: the sealed column.
        store: the table's name.
    """

    impl = sa.LargeBinary
    cache_ok = True

    def __init__(self, field: str = "", store: str = "") -> None:
        super().__init__()
        self.field = field
        self.store = store

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """The index of the value."""
        if value is None:
            return None
        provider = getattr(dialect, "provider", None)
        if provider is None:
            raise ConfigurationError(_ELSEWHERE)
        number = value.number if isinstance(value, Variant) else 0
        sought = value.value if isinstance(value, Variant) else value
        store = store_of(provider, self.store)
        found = on_loop(dialect.background, lambda: await_(store.index_of(self.field, sought)))
        return found[min(number, len(found) - 1)]

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Whatever is compared with it becomes an index."""
        return self


def _sought(expression: Any, other: Any) -> Any:
    """What a sealed column is compared with: a value, or the same column of another alias of its table."""
    if hasattr(other, "__clause_element__"):
        other = other.__clause_element__()
    if not isinstance(other, sa.ColumnElement) or isinstance(other, sa.BindParameter):
        return other
    name, table = getattr(other, "name", None), getattr(other, "table", None)
    if table is None or name != expression.name or _store_name(table) != _store_name(expression.table):
        raise ConfigurationError(
            f"{expression.name} is sealed: what is compared with it is looked up, so it is a value, or the same column"
        )
    return table.c[f"{name}_lookup"]


def _store_name(table: Any) -> str:
    """The name of the table that a column is of, through aliases and subqueries."""
    while not isinstance(table, sa.Table):
        inner = getattr(table, "element", None)
        if inner is None:
            raise ConfigurationError("a sealed column is compared in a table, or an alias of one")
        table = inner
    return str(table.fullname)

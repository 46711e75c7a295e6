"""Opening what a statement reads: after it ran, before SQLAlchemy looks at the rows."""

from __future__ import annotations

from collections import deque
from typing import Any

import sqlalchemy as sa
from sqlalchemy.util.concurrency import await_

from datavern.contracts.errors import ConfigurationError
from datavern.engines.alchemy.stores import store_of
from datavern.engines.alchemy.types import ROW_TAG, Sealed
from datavern.engines.alchemy.waiting import on_loop

__all__ = ["SealedContext"]


class _Group:
    """The sealed columns of one table (or alias of it) in a statement's rows.

    Attributes:
        store: the table's name.
        names: position → column.
        needed: position → column, of the row's tag and its subject.
        places: both of them.
        columns: column → position, of all that are there.
    """

    __slots__ = ("columns", "names", "needed", "places", "store")

    def __init__(self, store: str) -> None:
        self.store = store
        self.names: dict[int, str] = {}
        self.needed: dict[int, str] = {}
        self.places: dict[int, str] = {}
        self.columns: dict[str, int] = {}


class SealedContext:
    """A mixin for a dialect's execution context."""

    compiled: Any
    cursor: Any
    dialect: Any
    _insertmanyvalues_rows: Any
    _dbapi_connection: Any

    def post_exec(self) -> None:
        """Open the sealed values of the rows that are there, and of those that will come."""
        super().post_exec()  # type: ignore[misc]  # of the dialect's context
        self._dbapi_connection.dbapi_connection.audited = False
        compiled = self.compiled
        if compiled is None:
            return
        plan = compiled.__dict__.get("_datavern")
        if plan is None:
            plan = compiled.__dict__["_datavern"] = _plan(compiled, self.dialect.provider)
        if plan:
            on_loop(self.dialect.background, self._open, plan)

    def _open(self, plan: list[_Group]) -> None:
        if self._insertmanyvalues_rows is not None:
            self._insertmanyvalues_rows = await_(self._opened(plan, self._insertmanyvalues_rows))
        elif self.cursor.server_side:
            self.cursor.open_with(lambda rows: self._opened(plan, rows))
        else:
            self.cursor._rows = deque(await_(self._opened(plan, self.cursor._rows)))

    async def _opened(self, plan: list[_Group], rows: Any) -> list[Any]:
        session = self._dbapi_connection.dbapi_connection.session()
        for group in plan:
            store = store_of(self.dialect.provider, group.store)
            await store.whole()
            rows = await store.open_placed(rows, group.places, session)
        return list(map(tuple, rows))


def _plan(compiled: Any, provider: Any) -> list[_Group]:
    """Which columns of a statement's rows are sealed, and where what they open with stands.

    Raises:
        ConfigurationError: it is not among them.
    """
    columns = compiled._result_columns or ()
    if not any(isinstance(entry.type, Sealed) for entry in columns):
        return []
    groups = _groups(columns)
    for group in groups:
        subject = store_of(provider, group.store).dataset.subject
        for name in (ROW_TAG, subject):
            if name is None:
                continue
            if name not in group.columns:
                raise ConfigurationError(
                    f"{group.store}: a sealed column opens with {ROW_TAG} and the subject beside it: select "
                    f"{name} too, or the whole entity"
                )
            group.needed[group.columns[name]] = name
        group.places = {**group.names, **group.needed}
    return groups


def _groups(columns: Any) -> list[_Group]:
    """The columns of a statement's rows by the table, or the alias of one, that they are of."""
    groups: dict[int, _Group] = {}
    for at, entry in enumerate(columns):
        sealed = isinstance(entry.type, Sealed)
        column = next((c for c in map(_column, entry.objects) if c is not None), None)
        if column is None or (sealed and not isinstance(column.type, Sealed)):
            if sealed:
                raise ConfigurationError("a sealed value is read as a column, not in an expression")
            continue
        base = next((c for c in column.base_columns if isinstance(c, sa.Column) and c.table is not None), None)
        if base is None:
            continue
        group = groups.setdefault(id(column.table), _Group(base.table.fullname))
        group.columns.setdefault(base.name, at)
        if sealed:
            group.names[at] = base.name
    return [group for group in groups.values() if group.names]


def _column(found: Any) -> Any:
    """The column of a table that stands there, under its own name or another; None of anything else."""
    if isinstance(found, sa.Label):
        found = found.element
    return found if isinstance(found, sa.ColumnClause) and found.table is not None else None

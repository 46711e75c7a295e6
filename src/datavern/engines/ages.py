"""Rows by their age, in engines that speak SQL: see `datavern.contracts.ages.Ages`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from datavern.contracts.errors import ConfigurationError
from datavern.engines.relational import RelationalSubjects, arranged, conditions

__all__ = ["RelationalAges"]


class RelationalAges:
    """`Ages` of an engine that speaks SQL.

    Args:
        provider: the provider.
        subjects: its rows.
    """

    __slots__ = ("_kinds", "_provider", "_subjects")

    def __init__(self, provider: Any, subjects: RelationalSubjects) -> None:
        self._provider = provider
        self._subjects = subjects
        self._kinds: dict[tuple[str, str], str] = {}

    def day(self, kind: str, day: dt.date) -> Any:
        """The beginning of a day, as a column of that type is compared with it; None where it holds no dates."""
        if kind == "date":
            return day
        if kind.startswith(("timestamp", "datetime", "smalldatetime")):
            aware = "with time zone" in kind or kind.startswith("datetimeoffset")
            return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC if aware else None)
        return day.isoformat() if "char" in kind or "text" in kind else None

    async def past(
        self,
        store: str,
        column: str,
        before: dt.date,
        *,
        where: Mapping[str, Any],
        keys: Sequence[str],
        after: Sequence[Any] | None,
        limit: int,
        columns: Sequence[str] | None = None,
        transaction: Any = None,
    ) -> list[dict[str, Any]]:
        """A batch of rows whose date lies before a day, the oldest first."""
        bound = await self._bound(store, column, before, transaction)
        wanted = None if columns is None else tuple(columns)
        form, values = conditions(where, self._subjects.most_values)
        if form is None:
            return []
        lock = transaction is not None
        texts = isinstance(bound, str)
        key = ("past", store, column, form, tuple(keys), after is None, wanted, lock, texts)
        sql, order = self._texts.get(key) or self._past(key)
        given = [bound, *values, *(after or ()), limit]
        session = transaction or self._provider
        return [dict(row) for row in await session.query(sql, arranged(order, given))]

    def behind(self, row: Mapping[str, Any], column: str, keys: Sequence[str]) -> Sequence[Any]:
        """Date and key: the order of `past`."""
        return [row[column], *(row[name] for name in keys)]

    async def count(self, store: str, column: str, before: dt.date, *, where: Mapping[str, Any]) -> tuple[int, Any]:
        """How many such rows there are, and the oldest date."""
        bound = await self._bound(store, column, before, None)
        form, values = conditions(where, self._subjects.most_values)
        if form is None:
            return 0, None
        key = ("count past", store, column, form, isinstance(bound, str))
        sql, order = self._texts.get(key) or self._count(key)
        row = await self._provider.query_one(sql, arranged(order, [bound, *values]))
        return (0, None) if row is None else (int(row[0]), row[1])

    async def _bound(self, store: str, column: str, before: dt.date, transaction: Any) -> Any:
        kind = self._kinds.get((store, column))
        if kind is None:
            found = await self._subjects.describe(store, transaction=transaction)
            kind = next((c.type for c in found.columns if c.name == column), "") if found is not None else ""
            self._kinds[store, column] = kind
        bound = self.day(kind, before)
        if bound is None:
            raise ConfigurationError(f"{store}.{column}: its type {kind or '(none)'} holds no dates to count from")
        return bound

    @property
    def _texts(self) -> Any:
        return self._subjects._texts  # noqa: SLF001  (a part of them)

    def _past(self, key: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        import sqlalchemy as sa  # noqa: PLC0415  (loaded with the first statement that is not compiled yet)

        _, store, column, form, keys, first, wanted, lock, texts = key
        subjects: Any = self._subjects
        table = subjects._table(store, [column, *(wanted or ()), *(name for name, _, _ in form), *keys])  # noqa: SLF001  (a part of them)
        names: Any = [sa.text("*")] if wanted is None else [table.c[name] for name in wanted]
        clauses, used = subjects._clauses(table, form, 1)  # noqa: SLF001  (the same)
        clauses = [*_before(table.c[column], texts=texts), *clauses]
        order = [table.c[name] for name in dict.fromkeys((column, *keys))]
        if not first:
            marks: list[Any] = [sa.bindparam(f"p{used + i}") for i in range(len(keys) + 1)]
            used += len(marks)
            clauses.append(sa.tuple_(table.c[column], *(table.c[name] for name in keys)) > sa.tuple_(*marks))
        statement = sa.select(*names).select_from(table).where(*clauses).order_by(*order)
        statement = statement.limit(sa.bindparam(f"p{used}"))
        if lock:
            statement = statement.with_for_update(skip_locked=True)
        return subjects._keep(key, statement)  # type: ignore[no-any-return]  # noqa: SLF001  (the same)

    def _count(self, key: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        _, store, column, form, texts = key
        subjects: Any = self._subjects
        table = subjects._table(store, [column, *(name for name, _, _ in form)])  # noqa: SLF001  (a part of them)
        clauses, _ = subjects._clauses(table, form, 1)  # noqa: SLF001  (the same)
        counted = sa.select(sa.func.count(), sa.func.min(table.c[column])).select_from(table)
        counted = counted.where(*_before(table.c[column], texts=texts), *clauses)
        return subjects._keep(key, counted)  # type: ignore[no-any-return]  # noqa: SLF001  (the same)


def _before(column: Any, *, texts: bool) -> list[Any]:
    """The conditions under which a date lies before the first parameter; an empty text is none."""
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    return [column < sa.bindparam("p0"), *([column >= dt.date.min.isoformat()] if texts else [])]

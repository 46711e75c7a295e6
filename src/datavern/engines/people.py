"""Who is in a table, and how often: the part that relational engines share."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.people import Held, Window
from datavern.contracts.statements import Statement
from datavern.engines.relational import conditions

if TYPE_CHECKING:
    from types import TracebackType

    from datavern.contracts.stores import Column
    from datavern.engines.relational import RelationalSubjects

__all__ = ["Moments", "RelationalPeople", "moments_by_type"]

_BATCH: Final = 5000

Moments = Callable[["Column", Any, Window], list[Any]]
"""The conditions of a window on a column: the column as the schema and as the statement has it."""


def moments_by_type(column: Column, expression: Any, window: Window) -> list[Any]:
    """For engines with types for moments and days. A day counts whole; a moment without a zone is one in UTC.

    Raises:
        ConfigurationError: the column has another type.
    """
    kind = column.type
    if kind == "date":
        from zoneinfo import ZoneInfo  # noqa: PLC0415  (reads the system's tables of time zones)

        oslo = ZoneInfo("Europe/Oslo")
        since = window.since and window.since.astimezone(oslo).date()
        until = window.until and (window.until - dt.timedelta(microseconds=1)).astimezone(oslo).date()
        return [
            *([expression >= since] if since is not None else []),
            *([expression <= until] if until is not None else []),
        ]
    if not kind.startswith(("timestamp", "datetime", "smalldatetime")):
        raise ConfigurationError(f"window: the column {column.name} holds {kind}, and no moments")
    aware = "with time zone" in kind or kind in {"timestamptz", "datetimeoffset"}
    since, until = (
        moment if aware or moment is None else moment.astimezone(dt.UTC).replace(tzinfo=None)
        for moment in (window.since, window.until)
    )
    return [
        *([expression >= since] if since is not None else []),
        *([expression < until] if until is not None else []),
    ]


class RelationalPeople:
    """`datavern.contracts.people.People` over SQL.

    Args:
        provider: the provider: its session and its dialect.
        subjects: its tables.
        moments: how a window is asked for.
        hidden: a statement of one parameter, a table's quoted name, that is true where its rows are hidden from this
            user by a policy; None where there is no such thing.
    """

    __slots__ = ("_hidden", "_moments", "_provider", "_subjects")

    def __init__(
        self,
        provider: Any,
        subjects: RelationalSubjects,
        moments: Moments = moments_by_type,
        *,
        hidden: str | None = None,
    ) -> None:
        self._provider = provider
        self._subjects = subjects
        self._moments = moments
        self._hidden = hidden

    def people(self, store: str, subject: str, where: Mapping[str, Any], *, window: Window | None = None) -> _People:
        """See `People.people`."""
        return _People(self, store, subject, where, window)

    async def _statement(
        self, store: str, subject: str, where: Mapping[str, Any], window: Window | None
    ) -> tuple[str, list[Any]] | None:
        import sqlalchemy as sa  # noqa: PLC0415  (loaded when the first statement is built)

        subjects = self._subjects
        form, values = conditions(where, subjects.most_values)
        if form is None:
            return None
        if self._hidden and await self._provider.query_value(self._hidden, [subjects.quoted_store(store)]):
            raise ConfigurationError(
                f"{store}: a policy hides rows of it from this user (row-level security): count as a user whom it lets "
                "see everything (BYPASSRLS, or the table's owner where it is not forced)"
            )
        wanted = [subject, *(name for name, _, _ in form), *([window.column] if window else [])]
        table = subjects._table(store, wanted)  # noqa: SLF001  (a part of it)
        clauses, _ = subjects._clauses(table, form, 0)  # noqa: SLF001  (the same)
        if window is not None:
            described = await subjects.describe(store)
            column = None if described is None else described.column(window.column)
            if column is None:
                raise ConfigurationError(f"window: {store} has no column {window.column}")
            clauses += self._moments(column, table.c[window.column], window)
        person = table.c[subject]
        select = sa.select(person, sa.func.count().label("rows")).where(*clauses).group_by(person)
        compiled = Statement(lambda: select).compiled(subjects.dialect)
        given = {f"p{i}": value for i, value in enumerate(values)}
        return compiled.sql, [given[name] if name in given else compiled.constants[name] for name in compiled.names]


class _People:
    """The block of `RelationalPeople.people`."""

    __slots__ = ("_asked", "_of", "_stream")

    def __init__(
        self, of: RelationalPeople, store: str, subject: str, where: Mapping[str, Any], window: Window | None
    ) -> None:
        self._of = of
        self._asked = (store, subject, where, window)
        self._stream: Any = None

    async def __aenter__(self) -> AsyncIterator[Held]:
        statement = await self._of._statement(*self._asked)  # noqa: SLF001  (the same file)
        if statement is None:
            return _nobody()
        self._stream = self._of._provider.stream(*statement, batch_size=_BATCH)  # noqa: SLF001  (the same file)
        return _held(await self._stream.__aenter__())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            await self._stream.__aexit__(kind, error, trace)


async def _held(rows: AsyncIterator[Any]) -> AsyncIterator[Held]:
    async for row in rows:
        person = row[0]
        yield Held(() if person is None else (person,), row[1])


async def _nobody() -> AsyncIterator[Held]:
    return
    yield  # an iterator that gives nothing

"""A change with its audit entry, its idempotency key, its conditions: one job of the writer.

The writer runs one job at a time and keeps or undoes each as a whole, with the others of its group or in a transaction,
so a key that is not there when the job begins is not there when it is written: no second call can come between.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from datavern.contracts.errors import QueryRejected
from datavern.contracts.fused import Entry, Guard, checked_key, entry_statement
from datavern.contracts.values import Parameters, timestamp
from datavern.engines import idempotency
from datavern.engines.sqlite.bind import bound
from datavern.engines.sqlite.dialect import dialect
from datavern.engines.sqlite.jobs import Kind, classify, run_count

if TYPE_CHECKING:
    from datavern.engines.sqlite.provider import SQLiteProvider

__all__ = ["Fusing", "SQLiteGuarded", "run_claim", "run_fused", "run_fused_or_none"]

T = TypeVar("T")
_Statement = tuple[str, Sequence[Any]]


class _Keyed(NamedTuple):
    """An idempotency key, when it was used, what was asked under it, and before when keys are to go."""

    key: str
    at: str
    asked: int
    purge_before: str | None
    provider: str


class Fused(NamedTuple):
    """A statement and what goes with it. It stands where a job has its statement."""

    sql: str
    entry: _Statement | None
    keyed: _Keyed | None


class Fusing:
    """What ``execute(…, audit=…, idempotency_key=…)`` is made of, on a provider and in its transactions."""

    __slots__ = ("_provider", "_used")

    def __init__(self, provider: SQLiteProvider) -> None:
        self._provider = provider
        self._used = 0

    def fused(self, sql: Any, parameters: Any, audit: Entry | None, key: str | None) -> Fused:
        """A statement with what goes with it.

        Raises:
            ConfigurationError: the audit entry is not one for this database, or the key may not be one.
            QueryRejected: the statement runs in no transaction, or would end one.
        """
        provider = self._provider
        if classify(sql) is Kind.ALONE:
            raise QueryRejected(
                "PRAGMA and VACUUM run in no transaction, so they cannot be kept together with an audit entry or an "
                "idempotency key",
                provider=provider.name,
            )
        if audit is None and provider._mapped is not None:  # noqa: SLF001  (one engine)
            provider._mapped.check(sql)  # noqa: SLF001
        entry = None if audit is None else entry_statement(audit, provider.face)
        keyed = None if key is None else self._keyed(key, partial(idempotency.asked, sql=sql, parameters=parameters))
        return Fused(sql, entry, keyed)

    def claimed(self, key: str) -> _Keyed:
        """A key that a transaction uses now.

        Raises:
            ConfigurationError: it may not be one.
        """
        return self._keyed(key, lambda _: idempotency.WORK)

    def _keyed(self, key: str, asked: Callable[[str], int]) -> _Keyed:
        checked = checked_key(key)
        _create()
        due = self._used % idempotency.EVERY == 0
        self._used += 1
        before = idempotency.expired(idempotency.KEPT) if due else None
        return _Keyed(checked, timestamp(), asked(checked), before, self._provider.name)

    async def purge(self, older_than: dt.timedelta) -> int:
        """Delete the keys that are older, a part at a time, so that nobody waits for long; how many."""
        before = idempotency.expired(older_than)
        _create()
        gone = 0
        while True:
            deleted: int = await self._provider._run(partial(_purge, before))  # noqa: SLF001  (one engine)
            gone += deleted
            if deleted < idempotency.MOST:
                return gone


def run_fused(connection: sqlite3.Connection, what: Fused, parameters: Parameters) -> int:
    """How many rows the caller's statement changed. What it has begun when it fails is the writer's to undo."""
    keyed = what.keyed
    if keyed is not None and (made := _made(connection, keyed)) is not None:
        return idempotency.count_of(made, keyed.asked, provider=keyed.provider)
    count = run_count(connection, what.sql, parameters)
    if keyed is not None:
        _write(connection, keyed, count)
    if what.entry is not None:
        connection.execute(*what.entry)
    return count


def run_fused_or_none(connection: sqlite3.Connection, what: Fused, parameters: Parameters) -> int:
    """The same inside a transaction that goes on after a failure."""
    return _or_none(connection, run_fused, what, parameters)


def run_claim(connection: sqlite3.Connection, keyed: _Keyed, mark: int) -> int | None:
    """Write a key for a transaction: None. Else the mark of the one that wrote it before."""
    return _or_none(connection, _claim, keyed, mark)


def _claim(connection: sqlite3.Connection, keyed: _Keyed, mark: int) -> int | None:
    made = _made(connection, keyed)
    if made is not None:
        return idempotency.mark_of(made, provider=keyed.provider)
    _write(connection, keyed, idempotency.changed_of(mark))
    return None


def _or_none(connection: sqlite3.Connection, run: Callable[[sqlite3.Connection, Any, Any], T], *given: Any) -> T:
    connection.execute("SAVEPOINT datavern_fused")
    try:
        result = run(connection, *given)
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO datavern_fused")
            connection.execute("RELEASE datavern_fused")
        raise
    connection.execute("RELEASE datavern_fused")
    return result


# ---- keys -----------------------------------------------------------------------------------------------------------


@cache
def _create() -> tuple[str, ...]:
    """What makes the table of keys. Loads SQLAlchemy, so it is called before a job is on the writer's thread."""
    from sqlalchemy.schema import CreateIndex, CreateTable  # noqa: PLC0415  (loaded when the first key is used)

    table = idempotency.keys().table
    steps: list[Any] = [CreateTable(table, if_not_exists=True)]
    steps += [CreateIndex(index, if_not_exists=True) for index in table.indexes]
    return tuple(str(step.compile(dialect=dialect())) for step in steps)


def _late(connection: sqlite3.Connection) -> tuple[str, ...]:
    from datavern.engines.own_tables import later_columns  # noqa: PLC0415  (SQLAlchemy is there: see _create)
    from datavern.engines.sqlite.ledger import COLUMNS  # noqa: PLC0415  (as above)

    there = {name for (name,) in connection.execute(COLUMNS, [idempotency.TABLE])}
    return tuple(later_columns(idempotency.keys().table, there, dialect()))


def _write(connection: sqlite3.Connection, keyed: _Keyed, changed: int) -> None:
    insert = idempotency.keys().insert.bind(dialect(), key=keyed.key, at=keyed.at, changed=changed, asked=keyed.asked)
    connection.execute(*insert)
    if keyed.purge_before is not None:
        _purge(keyed.purge_before, connection)


def _made(connection: sqlite3.Connection, keyed: _Keyed) -> Sequence[Any] | None:
    """What stands at that key; None where it was not made. Makes the table, or what it lacks, where it is missing."""
    find = idempotency.keys().find.bind(dialect(), of_key=keyed.key)
    try:
        row: Sequence[Any] | None = connection.execute(*find).fetchone()
    except sqlite3.OperationalError:
        steps = _create()
        if _is_there(connection):
            steps = _late(connection)
            if not steps:
                raise
        for step in steps:
            connection.execute(step)
        row = connection.execute(*find).fetchone()
    return row


def _is_there(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT count(*) FROM main.sqlite_master WHERE name = ?", [idempotency.TABLE])
    return bool(found.fetchone()[0])


def _purge(before: str, connection: sqlite3.Connection) -> int:
    """Delete some keys that are older; how many."""
    if not _is_there(connection):
        return 0
    purge = idempotency.keys().purge.bind(dialect(), before=before, most=idempotency.MOST)
    return connection.execute(*purge).rowcount


# ---- conditions -----------------------------------------------------------------------------------------------------


class SQLiteGuarded:
    """`Guarded` on SQLite: guards, row and entry are one job. No lock is needed: nobody else writes meanwhile."""

    __slots__ = ("_provider",)

    def __init__(self, provider: SQLiteProvider) -> None:
        self._provider = provider

    async def insert(self, store: str, row: Mapping[str, Any], *, guards: Sequence[Guard], audit: Entry) -> bool:
        """See `datavern.contracts.fused.Guarded`."""
        provider = self._provider
        entry = entry_statement(audit, provider.face)
        insert = provider._subjects.insert_statement(store, row)  # noqa: SLF001  (one engine)
        done: bool = await provider._run(partial(_insert, guards, insert, entry))  # noqa: SLF001
        return done


def _insert(guards: Sequence[Guard], insert: _Statement, entry: _Statement, connection: sqlite3.Connection) -> bool:
    for sql, values in guards:
        if not connection.execute(sql, bound(values)).fetchall():
            return False
    connection.execute(insert[0], bound(insert[1]))
    connection.execute(*entry)
    return True

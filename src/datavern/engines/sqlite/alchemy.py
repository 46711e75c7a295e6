"""SQLAlchemy on this provider's own lanes: readers that no writer blocks, and one writer with group commit.

As with SQLAlchemy's other drivers for SQLite, a transaction begins with the first statement that writes; until then
each SELECT sees the database as it is at its moment. From there on everything runs on the writer, until the end.
"""

from __future__ import annotations

import re
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.sqlite.base import SQLiteDialect, SQLiteExecutionContext
from sqlalchemy.util.concurrency import await_

from datavern.contracts.errors import ProviderError
from datavern.engines.alchemy.dbapi import Connection, Context, Cursor, Module, PlaceDialect, Streaming
from datavern.engines.alchemy.errors import as_dbapi
from datavern.engines.alchemy.waiting import waiting, waiting_connection
from datavern.engines.sqlite.bind import bound
from datavern.engines.sqlite.jobs import DONE, Kind, classify

if TYPE_CHECKING:
    from datavern.engines.sqlite.provider import SQLiteProvider
    from datavern.engines.sqlite.transactions import SQLiteTransaction

__all__ = ["Dialect", "WaitingDialect"]

_CONTROL = re.compile(r"\s*(?:SAVEPOINT|RELEASE|ROLLBACK TO)\b", re.IGNORECASE)
_CHANGES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_WITH = re.compile(r"\s*WITH\b", re.IGNORECASE)


def _run(connection: sqlite3.Connection, sql: str, parameters: Any) -> tuple[Any, list[tuple[Any, ...]], int, Any]:
    """A statement with all that a DB-API tells of it."""
    cursor = connection.execute(sql, bound(parameters))
    rows = [] if cursor.description is None else list(map(tuple, cursor))
    return cursor.description, rows, cursor.rowcount, cursor.lastrowid


def _run_many(connection: sqlite3.Connection, sql: str, parameters: Any) -> tuple[Any, list[tuple[Any, ...]], int, Any]:
    cursor = connection.executemany(sql, [bound(one) for one in parameters])
    return None, [], cursor.rowcount, cursor.lastrowid


def _describe(connection: sqlite3.Connection, sql: str, parameters: Any) -> Any:
    cursor = connection.execute(sql, bound(parameters))
    description = cursor.description
    cursor.close()
    return description


class _Cursor(Cursor):
    """A statement's answer."""

    __slots__ = ()

    def execute(self, operation: str, parameters: Any = None) -> None:
        self._take(await_(self._connection.run(_run, operation, parameters or ())))

    def executemany(self, operation: str, seq_of_parameters: Any) -> None:
        self._take(await_(self._connection.run(_run_many, operation, seq_of_parameters)))

    def _take(self, answer: Any) -> None:
        self.description, rows, self.rowcount, self.lastrowid = answer
        self._rows = deque(rows)


class _StreamCursor(Streaming, _Cursor):
    """Rows as they are fetched, from one snapshot."""

    __slots__ = ("_found", "_open", "_stream")

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection)
        self._stream: Any = None
        self._found: Any = None
        self._open: Any = None

    def execute(self, operation: Any, parameters: Any = None) -> None:
        await_(self._begin(operation, parameters or ()))

    async def _begin(self, operation: str, parameters: Any) -> None:
        connection = self._connection
        self.description = await connection.run(_describe, operation, parameters)
        try:
            self._stream = (connection.session() or connection.dbapi.provider).stream(operation, parameters)
            self._found = await self._stream.__aenter__()
        except ProviderError as error:
            connection.tell(error)

    async def _next(self) -> Any:
        return None if self._found is None else await anext(self._found, None)

    def close(self) -> None:
        stream, self._stream, self._found = self._stream, None, None
        if stream is not None:
            await_(stream.__aexit__(None, None, None))


class _Connection(Connection):
    """A place in the lanes: nothing is held until the first write."""

    __slots__ = ("autocommit",)

    def __init__(self, dbapi: Any) -> None:
        super().__init__(dbapi)
        self.autocommit = False

    async def begun(self) -> SQLiteTransaction:
        """The open transaction, begun if it was not."""
        if self._tx is None:
            tx = self.dbapi.provider.transaction()
            await tx.__aenter__()
            self._tx = tx
        return self._tx  # type: ignore[no-any-return]  # one of the provider's

    async def run(self, run: Any, sql: str, parameters: Any) -> Any:
        """A statement, where it belongs."""
        provider: SQLiteProvider = self.dbapi.provider
        try:
            if _CONTROL.match(sql):
                job = (await self.begun())._send(run, sql, parameters)
            else:
                kind = classify(sql)
                if provider._mapped is not None and not self.audited:
                    provider._mapped.check(sql)
                writes = kind is Kind.WRITE or (kind is Kind.READ and bool(_WITH.match(sql) and _CHANGES.search(sql)))
                if self._tx is None and writes and not self.autocommit:
                    await self.begun()
                if self._tx is not None:
                    job = self._tx._send(run, sql, parameters)
                else:
                    job = provider._submit(run, sql, parameters)
            holder = self._tx or provider
            try:
                return await job
            except BaseException:
                if job.state != DONE:
                    holder._abandon(job)
                raise
        except ProviderError as error:
            self.tell(error)

    def _leave(self, tx: Any) -> None:
        tx.roll_back()


class _Module(Module):
    """The DB-API of one provider."""

    connection_class = _Connection
    cursor_class = _Cursor
    stream_cursor_class = _StreamCursor
    paramstyle = "qmark"
    sqlite_version = sqlite3.sqlite_version
    sqlite_version_info = sqlite3.sqlite_version_info

    def __init__(self) -> None:
        super().__init__(sqlite3)

    def connect(self, *_: Any, **__: Any) -> _Connection:
        problem: BaseException
        try:
            self.provider._ready()
            return self.connection_class(self)
        except ProviderError as error:
            problem = as_dbapi(self, error)
        raise problem


class _Context(Context, SQLiteExecutionContext):
    pass


class Dialect(PlaceDialect, SQLiteDialect):
    """``sqlite+datavern``: made by `SQLiteProvider.sqlalchemy_engine`."""

    supports_statement_cache = True
    default_paramstyle = "qmark"
    execution_ctx_cls = _Context

    @classmethod
    def import_dbapi(cls) -> Any:
        return _Module()

    def _get_server_version_info(self, connection: Any) -> Any:
        return sqlite3.sqlite_version_info

    def get_isolation_level_values(self, dbapi_connection: Any) -> Any:
        return ["SERIALIZABLE", "AUTOCOMMIT"]

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        return "AUTOCOMMIT" if dbapi_connection.autocommit else "SERIALIZABLE"

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        return "SERIALIZABLE"

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        dbapi_connection.autocommit = level == "AUTOCOMMIT"

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        return bool(dbapi_conn.autocommit)

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return False  # there is no connection that could break


class _WaitingModule(_Module):
    """The DB-API of a provider that lives on a background's loop."""

    connection_class = waiting_connection(_Connection)
    cursor_class = waiting(_Cursor, "execute", "executemany")
    stream_cursor_class = waiting(_StreamCursor, "execute", "fetchone", "fetchmany", "fetchall", "close")


class WaitingDialect(Dialect):
    """``sqlite+datavern_background``: made by ``SQLiteProvider.sqlalchemy_engine(background=…)``."""

    driver = "datavern_background"
    supports_statement_cache = True
    is_async = False

    @classmethod
    def import_dbapi(cls) -> Any:
        return _WaitingModule()

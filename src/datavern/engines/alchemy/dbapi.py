"""A DB-API over transactions of Datavern's: what the dialects share whose connections hold nothing until they must.

SQLite's lanes and Azure SQL's threads lend no connection to SQLAlchemy. Its connection is a place there, and its
transaction is one of the provider's.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NoReturn

from sqlalchemy.connectors.asyncio import (
    AsyncAdapt_dbapi_connection,
    AsyncAdapt_dbapi_module,
    AsyncAdapt_Error,
    AsyncAdapt_terminate,
)
from sqlalchemy.util.concurrency import await_

from datavern.contracts.errors import ProviderError
from datavern.engines.alchemy.context import SealedContext
from datavern.engines.alchemy.errors import as_dbapi

__all__ = ["Connection", "Context", "Cursor", "Module", "PlaceDialect", "Streaming"]


class Cursor:
    """A statement's answer. An engine fills in `execute` and `executemany`."""

    __slots__ = ("_connection", "_rows", "arraysize", "description", "lastrowid", "rowcount")

    server_side = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: Any = None
        self.arraysize = 1

    @property
    def background(self) -> Any:
        """Where it waits, without asyncio."""
        return self._connection.dbapi.background

    def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> Any:
        count = min(self.arraysize if size is None else size, len(self._rows))
        return [self._rows.popleft() for _ in range(count)]

    def fetchall(self) -> Any:
        rows, self._rows = list(self._rows), deque()
        return rows

    def close(self) -> None:
        self._rows = deque()

    async def _async_soft_close(self) -> None:
        """Nothing is open: the rows are here."""

    def setinputsizes(self, *inputsizes: Any) -> None:
        """Values have types of their own."""


class Streaming:
    """A mixin for a cursor whose rows are read as they are fetched. An engine fills in `_next` and `close`."""

    __slots__ = ()

    server_side = True

    arraysize: int
    _open: Any

    def open_with(self, opener: Any) -> None:
        """What opens the rows that are fetched."""
        self._open = opener

    async def _next(self) -> Any:
        """The next row, or None."""
        raise NotImplementedError

    async def _fetch(self, size: int | None) -> list[Any]:
        rows: list[Any] = []
        while size is None or len(rows) < size:
            row = await self._next()
            if row is None:
                break
            rows.append(tuple(row))
        return rows if self._open is None else await self._open(rows)

    def fetchone(self) -> Any:
        return next(iter(await_(self._fetch(1))), None)

    def fetchmany(self, size: int | None = None) -> Any:
        return await_(self._fetch(self.arraysize if size is None else size))

    def fetchall(self) -> Any:
        return await_(self._fetch(None))


class Connection(AsyncAdapt_terminate, AsyncAdapt_dbapi_connection):
    """A place for a transaction: nothing is held until it begins. An engine fills in `begun` and `_leave`."""

    __slots__ = ("_tx", "audited")

    def __init__(self, dbapi: Any) -> None:
        nothing: Any = None  # there is no driver's connection to speak of
        super().__init__(dbapi, nothing)
        self._tx: Any = None
        self.audited = False

    @property
    def background(self) -> Any:
        """Where it waits, without asyncio."""
        return self.dbapi.background

    def cursor(self, server_side: bool = False) -> Any:
        module = self.dbapi
        return (module.stream_cursor_class if server_side else module.cursor_class)(self)

    def session(self) -> Any:
        """The open transaction, as Datavern's own; None where there is none."""
        return self._tx

    def tell(self, error: ProviderError) -> NoReturn:
        """Raise an error as the DB-API does."""
        raise as_dbapi(self.dbapi, error) from error

    def commit(self) -> None:
        await_(self._end(None))

    def rollback(self) -> None:
        await_(self._end(_RolledBack()))

    async def _end(self, error: BaseException | None) -> None:
        tx, self._tx = self._tx, None
        if tx is not None:
            try:
                await tx.__aexit__(None if error is None else type(error), error, None)
            except ProviderError as failed:
                self.tell(failed)

    def close(self) -> None:
        self.rollback()

    async def _terminate_graceful_close(self) -> None:
        self._terminate_force_close()

    def _terminate_force_close(self) -> None:
        tx, self._tx = self._tx, None
        if tx is not None:
            self._leave(tx)

    def _leave(self, tx: Any) -> None:
        """Let go of a transaction from where nothing can be awaited."""
        raise NotImplementedError


class _RolledBack(Exception):
    """What a transaction is told that SQLAlchemy rolls back."""


class _Error(AsyncAdapt_Error):
    """Anything that went wrong."""

    def __init__(self, message: str, error: Any = None) -> None:
        super().__init__(message, error)


class Module(AsyncAdapt_dbapi_module):
    """The DB-API of one provider. An engine fills in `connect`, and its own classes."""

    provider: Any
    background: Any = None
    connection_class: type[Any]
    cursor_class: type[Any]
    stream_cursor_class: type[Any]
    Binary = bytes

    class Error(_Error):
        """Anything that went wrong (these names are PEP 249's)."""

    class DatabaseError(Error):
        """What the database said."""

    class InterfaceError(Error):
        """A connection that was given back."""

    class OperationalError(DatabaseError):
        """It could not be done now."""

    class ProgrammingError(DatabaseError):
        """The statement was refused."""

    class IntegrityError(DatabaseError):
        """A constraint stands against it."""

    class NotSupportedError(DatabaseError):
        """The database has no such thing."""


class Context(SealedContext):
    """A mixin for a dialect's execution context."""

    def create_server_side_cursor(self) -> Any:
        return self._dbapi_connection.cursor(server_side=True)


class PlaceDialect:
    """A mixin for a dialect whose connections are these."""

    driver = "datavern"
    supports_statement_cache = True
    supports_server_side_cursors = True
    is_async = True
    has_terminate = True
    provider: Any
    background: Any = None

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.terminate()

    def get_driver_connection(self, connection: Any) -> Any:
        return connection

"""SQLAlchemy on this provider's own pool: its dialect for SQL Server, over transactions of Datavern's.

As with any DB-API a transaction begins with the first statement. What SQLAlchemy's own drivers for SQL Server do with a
connection (savepoints, isolation, what the server is) is said here through the transaction, whose errors, retries and
resets are the pool's.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.dialects.mssql.base import MSDialect, MSExecutionContext
from sqlalchemy.util.concurrency import await_

from datavern.contracts.errors import ConnectionFailed, OutcomeUnknown, ProviderError
from datavern.engines.alchemy.dbapi import Connection, Context, Cursor, Module, PlaceDialect, Streaming
from datavern.engines.alchemy.errors import as_dbapi
from datavern.engines.alchemy.waiting import on_loop, waiting, waiting_connection
from datavern.engines.azuresql.compiler import AzureSQLCompiler, ModelDDL, ModelTypes
from datavern.engines.azuresql.streams import RowStream
from datavern.engines.azuresql.transaction import AzureSQLTransaction

if TYPE_CHECKING:
    from datavern.engines.azuresql.provider import AzureSQLProvider
    from datavern.engines.azuresql.wire import Answer

__all__ = ["Dialect", "WaitingDialect"]

_LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SNAPSHOT", "SERIALIZABLE")
_AUTOCOMMIT = "AUTOCOMMIT"
_SAVEPOINT = re.compile(r"\w{1,32}")
_VERSION = "SELECT CAST(SERVERPROPERTY('ProductVersion') AS nvarchar(128))"
_NEW_ENOUGH = (16, 0)
"""SQL Server 2022, and Azure SQL, which says less of itself."""


def _described(names: Any) -> Any:
    return [(name, None, None, None, None, None, None) for name in names]


class _Cursor(Cursor):
    """A statement's answer."""

    __slots__ = ("_sets",)

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection)
        self._sets: deque[Any] = deque()

    def execute(self, operation: str, parameters: Any = None) -> None:
        answer = await_(self._connection.run(operation, list(parameters or ())))
        self._sets = deque(zip(answer.names, answer.sets, strict=True))
        self.rowcount = answer.changed if answer.changed or not answer.sets else answer.count
        if not self.nextset():
            self.description, self._rows = None, deque()

    def executemany(self, operation: str, seq_of_parameters: Any) -> None:
        self.rowcount = await_(self._connection.run_many(operation, [list(one) for one in seq_of_parameters]))
        self.description, self._rows = None, deque()

    def nextset(self) -> bool:
        """Go on to the next result set; whether there is one."""
        if not self._sets:
            return False
        names, rows = self._sets.popleft()
        self.description, self._rows = _described(names), deque(map(tuple, rows))
        return True


class _StreamCursor(Streaming, _Cursor):
    """Rows as they are fetched."""

    __slots__ = ("_open", "_stream")

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection)
        self._stream: RowStream | None = None
        self._open: Any = None

    def execute(self, operation: str, parameters: Any = None) -> None:
        self._stream = await_(self._connection.begin_stream(operation, list(parameters or ())))
        self.description = _described(self._stream.columns) if self._stream.columns else None

    async def _next(self) -> Any:
        try:
            return None if self._stream is None else await anext(self._stream, None)
        except ProviderError as error:
            self._connection.tell(error)

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await_(stream.__aexit__(None, None, None))


class _Connection(Connection):
    """A place for a transaction: nothing is held until the first statement."""

    __slots__ = ("_lost", "_provider", "level")

    def __init__(self, dbapi: Any, provider: Any) -> None:
        super().__init__(dbapi)
        self._provider: AzureSQLProvider = provider
        self._lost = False
        self.level: str | None = None

    @property
    def lost(self) -> bool:
        """Whether its transaction broke with the connection."""
        return self._lost

    async def begun(self) -> AzureSQLTransaction:
        """The open transaction, begun if it was not."""
        if self._tx is None:
            level = None if self.level in {None, _AUTOCOMMIT} else self.level
            tx = AzureSQLTransaction(self._provider, level, read_only=False)
            await tx.__aenter__()
            self._tx = tx
        return self._tx  # type: ignore[no-any-return]  # of that class

    async def run(self, sql: str, parameters: list[Any]) -> Answer:
        """A statement; with AUTOCOMMIT in no transaction of SQLAlchemy's."""
        provider = self._provider
        try:
            if self.level != _AUTOCOMMIT:
                return await (await self.begun()).answer(sql, parameters, audited=self.audited)
            does = provider._effect_of(sql, audited=self.audited)
            _, answer = await provider._send(sql, provider._values(sql, parameters), does)
        except ProviderError as error:
            self.tell(error)
        return answer

    async def run_many(self, sql: str, sets: list[list[Any]]) -> int:
        """A statement for each set of parameters; how many rows they changed."""
        return sum([(await self.run(sql, one)).changed for one in sets])

    async def begin_stream(self, sql: str, parameters: list[Any]) -> RowStream:
        """A statement whose rows are read as they are fetched."""
        try:
            stream = (await self.begun()).stream(sql, parameters)
            return await stream.__aenter__()
        except ProviderError as error:
            self.tell(error)

    async def save(self, name: str, *, back: bool) -> None:
        """Make a savepoint, or go back to one."""
        if not _SAVEPOINT.fullmatch(name):
            raise self.dbapi.ProgrammingError("a savepoint's name has 32 letters and digits at the most")
        try:
            await (await self.begun()).save(name, back=back)
        except ProviderError as error:
            self.tell(error)

    def tell(self, error: ProviderError) -> NoReturn:
        """Raise an error as the DB-API does."""
        if isinstance(error, ConnectionFailed | OutcomeUnknown):
            self._lost = True
        super().tell(error)

    def _leave(self, tx: Any) -> None:
        tx.leave()


class _Module(Module):
    """The DB-API of one provider."""

    connection_class = _Connection
    cursor_class = _Cursor
    stream_cursor_class = _StreamCursor
    paramstyle = "numeric_dollar"

    def __init__(self) -> None:
        super().__init__(sys.modules[__name__])

    def connect(self, *_: Any, **__: Any) -> _Connection:
        return on_loop(self.background, lambda: await_(self._place()))  # type: ignore[no-any-return]  # a _Connection

    async def _place(self) -> _Connection:
        problem: BaseException
        face: Any = self.provider.face
        try:
            if face is self.provider:
                member = await _open(self.provider)
            else:  # a failover group: whoever is the primary by now, waited for if there is none
                member = await face.on_primary(_open, counts=False)
            return self.connection_class(self, member)
        except ProviderError as error:
            problem = as_dbapi(self, error)
        raise problem


async def _open(provider: Any) -> Any:
    provider._open_pool()
    return provider


class _Context(Context, MSExecutionContext):
    pass


class Dialect(PlaceDialect, MSDialect):
    """``mssql+datavern``: made by `AzureSQLProvider.sqlalchemy_engine`."""

    supports_statement_cache = True
    default_paramstyle = "numeric_dollar"
    statement_compiler = AzureSQLCompiler
    type_compiler_cls = ModelTypes
    ddl_compiler = ModelDDL
    execution_ctx_cls = _Context
    supports_native_decimal = True
    supports_native_uuid = True
    supports_sane_rowcount_returning = True
    supports_sane_multi_rowcount = True
    scope_identity_must_be_embedded = True
    insertmanyvalues_max_parameters = 2000  # a statement takes 2098

    @classmethod
    def import_dbapi(cls) -> Any:
        return _Module()

    def _get_server_version_info(self, connection: Any) -> Any:
        said = connection.exec_driver_sql(_VERSION).scalar()
        found = tuple(int(part) for part in re.findall(r"\d+", str(said or "")))
        return max(found, _NEW_ENOUGH)  # Azure SQL calls itself 12 and is as new as the newest

    def get_isolation_level_values(self, dbapi_connection: Any) -> Any:
        return [*_LEVELS, _AUTOCOMMIT]

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        return dbapi_connection.level or _LEVELS[0]

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        return _LEVELS[0]

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        dbapi_connection.level = level  # of the transactions to come

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        return bool(dbapi_conn.level == _AUTOCOMMIT)

    def do_savepoint(self, connection: Any, name: Any) -> None:
        self._save(connection, name, back=False)

    def do_rollback_to_savepoint(self, connection: Any, name: Any) -> None:
        self._save(connection, name, back=True)

    def do_release_savepoint(self, connection: Any, name: Any) -> None:
        """T-SQL's need no release."""

    def _save(self, connection: Any, name: str, *, back: bool) -> None:
        adapter = connection.connection.dbapi_connection
        on_loop(self.background, lambda: await_(adapter.save(name, back=back)))

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        if connection is None:
            return False
        adapter = getattr(connection, "dbapi_connection", connection)
        return adapter is None or adapter.lost


class _WaitingModule(_Module):
    """The DB-API of a provider that lives on a background's loop."""

    connection_class = waiting_connection(_Connection)
    cursor_class = waiting(_Cursor, "execute", "executemany")
    stream_cursor_class = waiting(_StreamCursor, "execute", "fetchone", "fetchmany", "fetchall", "close")


class WaitingDialect(Dialect):
    """``mssql+datavern_background``: made by ``AzureSQLProvider.sqlalchemy_engine(background=…)``."""

    driver = "datavern_background"
    supports_statement_cache = True
    is_async = False

    @classmethod
    def import_dbapi(cls) -> Any:
        return _WaitingModule()

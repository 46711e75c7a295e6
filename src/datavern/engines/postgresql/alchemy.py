"""SQLAlchemy on this provider's own pool: its asyncpg dialect, with connections that are borrowed and given back.

SQLAlchemy makes a DB-API connection for each checkout (`NullPool`) and closes it afterwards; here making one borrows a
connection of the pool and closing it gives it back. The adapter with SQLAlchemy's prepared statements stays with the
connection, so that the next checkout finds them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_connection,
    AsyncAdapt_asyncpg_cursor,
    AsyncAdapt_asyncpg_dbapi,
    AsyncAdapt_asyncpg_ss_cursor,
    PGDialect_asyncpg,
    PGExecutionContext_asyncpg,
)
from sqlalchemy.util.concurrency import await_

from datavern.contracts.errors import DatavernError
from datavern.engines.alchemy.context import SealedContext
from datavern.engines.alchemy.errors import as_dbapi
from datavern.engines.alchemy.waiting import on_loop, waiting, waiting_connection
from datavern.engines.postgresql.connection import Json
from datavern.engines.postgresql.errors import Stage, fault
from datavern.engines.postgresql.statements import Effect, effect
from datavern.engines.postgresql.transaction import affected

if TYPE_CHECKING:
    from datavern.connectors.pool import Slot
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["Dialect", "WaitingDialect"]

_KNOWN = 2048
_NESTED = re.compile(r"\s*(?:SAVEPOINT|RELEASE|ROLLBACK TO)\b", re.IGNORECASE)


class _Cursor(AsyncAdapt_asyncpg_cursor):
    __slots__ = ()

    _adapt_connection: _Connection

    @property
    def background(self) -> Any:
        """Where it waits, without asyncio."""
        return self._adapt_connection.dbapi.background

    async def _prepare_and_execute(self, operation: Any, parameters: Any) -> None:
        self._adapt_connection.note(operation)
        await super()._prepare_and_execute(operation, parameters)

    async def _executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        self._adapt_connection.note(operation)
        return await super()._executemany(operation, seq_of_parameters)


class _StreamCursor(AsyncAdapt_asyncpg_ss_cursor):
    __slots__ = ()

    _adapt_connection: _Connection

    @property
    def background(self) -> Any:
        """Where it waits, without asyncio."""
        return self._adapt_connection.dbapi.background

    async def _prepare_and_execute(self, operation: Any, parameters: Any) -> None:
        self._adapt_connection.note(operation)
        await super()._prepare_and_execute(operation, parameters)

    def open_with(self, opener: Any) -> None:
        """What opens the rows that are fetched."""
        self._cursor = _Opening(self._cursor, opener)


class _Opening:
    """A server's cursor whose rows are opened as they come."""

    def __init__(self, cursor: Any, opener: Any) -> None:
        self._cursor = cursor
        self._opener = opener

    async def fetch(self, size: int) -> Any:
        return await self._opener(await self._cursor.fetch(size))


class _Session:
    """SQLAlchemy's open transaction as Datavern's own: what belongs to a write goes with it."""

    __slots__ = ("_adapter", "_name", "provider")

    def __init__(self, adapter: _Connection, provider: PostgreSQLProvider) -> None:
        self._adapter = adapter
        self._name = provider.name
        self.provider = provider.face

    async def _run(self, call: str, sql: str, parameters: Any) -> Any:
        found: Any
        try:
            method = getattr(self._adapter.driver_connection, call)
            return await method(sql, *parameters)
        except Exception as error:  # noqa: BLE001  (translated)
            found = fault(error, name=self._name, stage="transaction", parameters=parameters).error
        raise found

    async def query(self, sql: str, parameters: Any = ()) -> Any:
        return await self._run("fetch", sql, parameters)

    async def query_one(self, sql: str, parameters: Any = ()) -> Any:
        return await self._run("fetchrow", sql, parameters)

    async def query_value(self, sql: str, parameters: Any = ()) -> Any:
        return await self._run("fetchval", sql, parameters)

    async def execute(self, sql: str, parameters: Any = ()) -> int:
        return affected(await self._run("execute", sql, parameters))

    async def execute_many(self, sql: str, parameters: Any) -> int:
        await self._run("executemany", sql, (list(parameters),))
        return len(parameters)

    def savepoint(self) -> Any:
        return _Savepoint(self, self._adapter.driver_connection.transaction())


class _Savepoint:
    __slots__ = ("_block", "_session")

    def __init__(self, session: _Session, block: Any) -> None:
        self._session = session
        self._block = block

    async def __aenter__(self) -> _Session:
        await self._block.__aenter__()
        return self._session

    async def __aexit__(self, *exc: object) -> None:
        await self._block.__aexit__(*exc)


class _Connection(AsyncAdapt_asyncpg_connection):
    """A connection of the pool, for as long as it is borrowed."""

    __slots__ = ("__weakref__", "_own_session", "_provider", "_slot", "_stage", "audited")

    _cursor_cls = _Cursor
    _ss_cursor_cls = _StreamCursor

    @property
    def background(self) -> Any:
        """Where it waits, without asyncio."""
        return self.dbapi.background

    def __init__(self, dbapi: Any, connection: Any, **settings: Any) -> None:
        super().__init__(dbapi, connection, **settings)
        self._provider: PostgreSQLProvider = dbapi.provider
        self._slot: Slot[asyncpg.Connection] | None = None
        self._stage: Stage = "transaction"
        self._own_session = _Session(self, self._provider)
        self.audited = False

    def borrowed(self, slot: Slot[asyncpg.Connection], provider: PostgreSQLProvider) -> _Connection:
        """Ready for somebody else: the settings of whoever had it before are gone."""
        self._slot, self._provider = slot, provider
        self.isolation_level = self._isolation_setting = None
        self.readonly = self.deferrable = self.audited = False
        self._transaction = None
        return self

    def session(self) -> _Session | None:
        """The open transaction, as Datavern's own; None where there is none."""
        return None if self._transaction is None else self._own_session

    async def begun(self) -> _Session:
        """The open transaction, begun if it was not."""
        if self._transaction is None:
            await self._start_transaction()
        return self._own_session

    @property
    def lost(self) -> bool:
        """Whether it was taken away, or broke."""
        return self._slot is None or self._connection.is_closed()

    def note(self, operation: str) -> None:
        """Mark the connection where a statement may leave something in its session, so that the pool resets it."""
        slot, provider = self._slot, self._provider
        if slot is None:
            raise self.dbapi.InterfaceError("the connection was given back")
        mapped = provider._mapped
        if mapped is not None and not self.audited:
            mapped.check(operation)
        if not slot.touched:
            known = self.dbapi.effects
            does = known.get(operation)
            if does is None:
                if len(known) >= _KNOWN:
                    known.clear()
                does = known[operation] = effect(operation)
            slot.touched = does is Effect.TOUCHES and not _NESTED.match(operation)

    def _handle_exception(self, error: Exception) -> Any:
        if isinstance(error, self.dbapi.Error):
            raise error
        if isinstance(error, DatavernError):
            raise as_dbapi(self.dbapi, error)
        found = fault(error, name=self._provider.name, stage=self._stage)
        pool, slot = self._provider._pool, self._slot
        if found.connection != "keep" and slot is not None:
            self._slot = self._transaction = None
            (pool.renew if found.connection == "renew" else pool.discard)(slot)
        elif self._connection.is_closed():
            self._transaction = None
        if isinstance(error, asyncpg.InvalidCachedStatementError):
            raise self.dbapi.InvalidCachedStatementError(str(found.error)) from found.error
        raise as_dbapi(self.dbapi, found.error) from found.error

    def commit(self) -> None:
        self._stage = "commit"
        try:
            super().commit()
        finally:
            self._stage = "transaction"

    def rollback(self) -> None:
        if self._slot is None or self._connection.is_closed():
            self._transaction = None
        else:
            super().rollback()

    def close(self) -> None:
        """Give it back."""
        self.rollback()
        slot, self._slot = self._slot, None
        if slot is None:
            return
        pool = self._provider._pool
        if slot.connection.is_closed():
            pool.discard(slot)
        elif slot.connection.is_in_transaction():
            pool.recover(slot)
        else:
            pool.give(slot)

    async def _terminate_graceful_close(self) -> None:
        self._terminate_force_close()

    def _terminate_force_close(self) -> None:
        slot, self._slot = self._slot, None
        self._transaction = None
        if slot is not None:
            self._provider._pool.recover(slot)


async def _taken(provider: Any) -> tuple[PostgreSQLProvider, Slot[asyncpg.Connection]]:
    """A connection of that provider's pool."""
    pool = provider._pool
    return provider, pool.take() or await pool.acquire()


class _Module(AsyncAdapt_asyncpg_dbapi):
    """The DB-API of one provider."""

    provider: PostgreSQLProvider
    background: Any = None
    connection_class: type[Any] = _Connection

    def __init__(self, driver: Any) -> None:
        super().__init__(driver)
        self.effects: dict[str, Effect] = {}
        self._adapters: WeakKeyDictionary[asyncpg.Connection, _Connection] = WeakKeyDictionary()

    def connect(self, *_: Any, **__: Any) -> _Connection:
        return on_loop(self.background, lambda: await_(self._borrow()))  # type: ignore[no-any-return]  # a _Connection

    async def _borrow(self) -> _Connection:
        problem: BaseException
        face: Any = self.provider.face
        try:
            if face is self.provider:
                member, slot = await _taken(self.provider)
            else:  # a failover group: whoever is the primary by now, waited for if there is none
                member, slot = await face.on_primary(_taken, counts=False)
        except Exception as error:  # noqa: BLE001  (told as the DB-API does)
            problem = as_dbapi(self, error)
        else:
            adapter = self._adapters.get(slot.connection)
            if adapter is None:
                adapter = self._adapters[slot.connection] = self.connection_class(self, slot.connection)
            return adapter.borrowed(slot, member)
        raise problem


class _Context(SealedContext, PGExecutionContext_asyncpg):
    pass


class Dialect(PGDialect_asyncpg):
    """``postgresql+datavern``: made by `PostgreSQLProvider.sqlalchemy_engine`."""

    driver = "datavern"
    supports_statement_cache = True
    execution_ctx_cls = _Context
    ischema_names = {**PGDialect_asyncpg.ischema_names, "xid8": sa.BigInteger}  # noqa: RUF012  (as SQLAlchemy has it; in Datavern's own tables)
    provider: PostgreSQLProvider
    background: Any = None

    def __init__(self, *, json_serializer: Any = None, json_deserializer: Any = None, **settings: Any) -> None:
        if json_deserializer is not None:
            raise TypeError("json_deserializer: the pool's connections read JSON by themselves")
        dump = json_serializer or Json.dumped
        super().__init__(json_serializer=lambda value: Json(dump(value)), **settings)

    @classmethod
    def import_dbapi(cls) -> Any:
        return _Module(asyncpg)

    def on_connect(self) -> None:
        """The pool has set up its connections."""

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        if connection is None:
            return False
        adapter = getattr(connection, "dbapi_connection", connection)
        return adapter is None or adapter.lost


class _WaitingModule(_Module):
    """The DB-API of a provider that lives on a background's loop."""

    connection_class = waiting_connection(
        _Connection,
        "ping",
        _cursor_cls=waiting(_Cursor, "execute", "executemany"),
        _ss_cursor_cls=waiting(_StreamCursor, "execute", "fetchone", "fetchmany", "fetchall", "close"),
    )


class WaitingDialect(Dialect):
    """``postgresql+datavern_background``: made by ``PostgreSQLProvider.sqlalchemy_engine(background=…)``."""

    driver = "datavern_background"
    supports_statement_cache = True
    is_async = False

    @classmethod
    def import_dbapi(cls) -> Any:
        return _WaitingModule(asyncpg)

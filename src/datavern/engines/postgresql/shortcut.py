"""asyncpg's connection, with a shorter way for a statement that it has prepared before.

On its way to the socket asyncpg passes five coroutines, of which four ask what a pooled connection has settled: the
timeout, the record class, whether anybody logs, whether another task is using it. They take a tenth of a round trip to
a server on the same machine. Here a statement that is in the connection's own cache goes straight to the protocol; all
others, and a prepared one that the server does not take any more, go asyncpg's way.

What is used of asyncpg's inside is its cache and `bind_execute`, alike in asyncpg 0.30 to 0.32. Where a later one has
them no more, `connection_class` gives asyncpg's own class; a test says so.
"""

from __future__ import annotations

import inspect
import os
import secrets
from typing import Any, Final

import asyncpg
from asyncpg.exceptions import InvalidCachedStatementError, OutdatedSchemaCacheError

__all__ = ["PooledConnection", "ShortConnection", "connection_class"]

_STALE: Final = (InvalidCachedStatementError, OutdatedSchemaCacheError)
_TOKEN: Final = secrets.token_hex(4)
_TAKES: Final = ["self", "state", "args", "portal_name", "limit", "return_extra", "timeout"]


class ShortConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg's class is untyped to us
    """A connection that one task uses at a time, with no timeouts of its own; with a query logger, asyncpg's way."""

    __slots__ = ()

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        """All rows."""
        known = self._stmt_cache.get((query, asyncpg.Record, False))
        if known is not None and not options and not self._query_loggers:
            self._check_open()
            try:
                return await self._protocol.bind_execute(known, args, "", 0, False, None)
            except _STALE as error:
                await self._stale(error)
        return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        """The first row, or None."""
        known = self._stmt_cache.get((query, asyncpg.Record, False))
        if known is not None and not options and not self._query_loggers:
            self._check_open()
            try:
                rows = await self._protocol.bind_execute(known, args, "", 1, False, None)
            except _STALE as error:
                await self._stale(error)
            else:
                return rows[0] if rows else None
        return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        """The first value of the first row, or None."""
        known = self._stmt_cache.get((query, asyncpg.Record, False))
        if known is not None and not options and not self._query_loggers:
            self._check_open()
            try:
                rows = await self._protocol.bind_execute(known, args, "", 1, False, None)
            except _STALE as error:
                await self._stale(error)
            else:
                return rows[0][0] if rows else None
        return await super().fetchval(query, *args, **options)

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """The command tag. Without arguments a text may hold several statements, and none is prepared."""
        known = self._stmt_cache.get((query, asyncpg.Record, False)) if args else None
        if known is not None and not options and not self._query_loggers:
            self._check_open()
            try:
                _, status, _ = await self._protocol.bind_execute(known, args, "", 0, True, None)
            except _STALE as error:
                await self._stale(error)
            else:
                return status.decode()  # type: ignore[no-any-return]  # bytes
        return await super().execute(query, *args, **options)  # type: ignore[no-any-return]  # a str

    def remember(self, most: int) -> None:
        """Keep so many prepared statements from here on; it was opened with none."""
        self._stmt_cache.set_max_size(most)
        self._stmt_cache_enabled = most > 0  # type: ignore[misc]  # a slot of asyncpg's

    async def _stale(self, error: Exception) -> None:
        """As asyncpg does: forget what is outdated; returns where the statement was refused before it did anything."""
        if isinstance(error, OutdatedSchemaCacheError):
            await self.reload_schema_state()
            raise error
        self._drop_local_statement_cache()
        if self._protocol.is_in_transaction():
            raise error


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]  # as above
    """A connection to a pooler that gives each transaction another session.

    It is opened without a cache: a statement is parsed, bound and executed before one Sync, which is in one session.
    What asyncpg names all the same (the statement of a cursor) lives in one transaction, and its name stays behind on
    the server if that breaks off: so it is one that no other process gives.
    """

    __slots__ = ()

    def _get_unique_id(self, prefix: str) -> str:
        return f"{super()._get_unique_id(prefix)}{_TOKEN}_{os.getpid():x}"

    async def tidy(self) -> None:
        """Close the named statements that nobody uses any more, while their session is at hand."""
        await self._cleanup_stmts()


def connection_class() -> type[asyncpg.Connection]:
    """The class to connect with."""
    try:
        takes = list(inspect.signature(asyncpg.protocol.Protocol.bind_execute).parameters)
    except (AttributeError, TypeError, ValueError):
        takes = []
    inside = (
        "_stmt_cache",
        "_stmt_cache_enabled",
        "_protocol",
        "_query_loggers",
        "_check_open",
        "_drop_local_statement_cache",
        "reload_schema_state",
    )
    fits = takes == _TAKES and all(hasattr(asyncpg.Connection, name) for name in inside)
    return ShortConnection if fits else asyncpg.Connection

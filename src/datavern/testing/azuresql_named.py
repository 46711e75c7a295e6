"""Empty databases on a real Azure SQL or SQL Server, where ``DATAVERN_TEST_AZURESQL`` names one.

It names databases that are there (``mssql://user:password@host/app_test``, several with spaces between them), whose
names hold "test" since everything in them is dropped; or the server itself (``mssql://sa:password@localhost/master``):
then databases are made as they are needed, and dropped when the process ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import secrets
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from datavern.contracts.errors import ConfigurationError, ProviderError

__all__ = ["NamedDatabase", "named_server"]

VARIABLE: Final = "DATAVERN_TEST_AZURESQL"
_FORM: Final = "mssql://user:password@host/test_database?driver=python-tds"
_MADE: Final = "datavern_test_"

_EMPTY: Final = """
DECLARE @text nvarchar(max) = N'';
SELECT @text += N'ALTER TABLE ' + QUOTENAME(SCHEMA_NAME(t.schema_id)) + N'.' + QUOTENAME(t.name)
    + N' DROP CONSTRAINT ' + QUOTENAME(f.name) + N';'
FROM sys.foreign_keys f JOIN sys.tables t ON t.object_id = f.parent_object_id;
SELECT @text += N'DROP ' + CASE o.type WHEN 'V' THEN N'VIEW ' WHEN 'P' THEN N'PROCEDURE ' WHEN 'U' THEN N'TABLE '
    WHEN 'SO' THEN N'SEQUENCE ' WHEN 'SN' THEN N'SYNONYM ' ELSE N'FUNCTION ' END
    + QUOTENAME(SCHEMA_NAME(o.schema_id)) + N'.' + QUOTENAME(o.name) + N';'
FROM sys.objects o WHERE o.is_ms_shipped = 0 AND o.type IN ('V', 'P', 'U', 'SO', 'SN', 'FN', 'IF', 'TF')
ORDER BY CASE o.type WHEN 'V' THEN 0 WHEN 'P' THEN 0 WHEN 'U' THEN 2 WHEN 'SO' THEN 3 ELSE 1 END;
SELECT @text += N'DROP TYPE ' + QUOTENAME(SCHEMA_NAME(t.schema_id)) + N'.' + QUOTENAME(t.name) + N';'
FROM sys.types t WHERE t.is_user_defined = 1;
SELECT @text += N'DROP SCHEMA ' + QUOTENAME(s.name) + N';'
FROM sys.schemas s WHERE s.schema_id > 4 AND s.schema_id < 16384;
EXEC sp_executesql @text;
"""
"""Everything that somebody has made in the database."""
_LOCK: Final = """
DECLARE @taken int;
EXEC @taken = sp_getapplock @Resource = N'datavern tests', @LockMode = 'Exclusive', @LockOwner = 'Transaction',
    @LockTimeout = 0;
SELECT @taken;
"""
_MAKE: Final = """
DECLARE @text nvarchar(max) = N'CREATE DATABASE ' + QUOTENAME(N'{name}') + N';'
    + N'ALTER DATABASE ' + QUOTENAME(N'{name}') + N' SET ALLOW_SNAPSHOT_ISOLATION ON;'
    + N'ALTER DATABASE ' + QUOTENAME(N'{name}') + N' SET READ_COMMITTED_SNAPSHOT ON;';
IF SERVERPROPERTY('EngineEdition') = 5 SET @text = N'CREATE DATABASE ' + QUOTENAME(N'{name}') + N';';
EXEC (@text);
"""
"""A database that is as Azure's are: readers do not wait for writers. Azure's own (edition 5) are so."""
_DROP: Final = """
DECLARE @text nvarchar(max) = N'ALTER DATABASE ' + QUOTENAME(N'{name}') + N' SET SINGLE_USER WITH ROLLBACK IMMEDIATE;'
    + N'DROP DATABASE ' + QUOTENAME(N'{name}') + N';';
IF SERVERPROPERTY('EngineEdition') = 5 SET @text = N'DROP DATABASE ' + QUOTENAME(N'{name}') + N';';
IF DB_ID(N'{name}') IS NOT NULL EXEC (@text);
"""

_taken: set[str] = set()
"""URLs of databases that this process uses now."""
_made: list[str] = []
"""URLs of databases that this process has made."""


def named_server() -> str | None:
    """What ``DATAVERN_TEST_AZURESQL`` holds, or None."""
    return os.environ.get(VARIABLE, "").strip() or None


class NamedDatabase:
    """A database on the named server, empty, and nobody else's meanwhile.

    A database that is there is one process's at a time: the others wait, or take the next of those that are named. The
    lock belongs to a transaction that is open meanwhile.

    Raises:
        ConfigurationError: on entering: none is named, or its name does not hold "test"; or this process uses all of
            those that are named already: a test that needs two at once takes two.
    """

    def __init__(self) -> None:
        self._keeper: Any = None
        self._holding: Any = None
        self._url = ""

    async def __aenter__(self) -> dict[str, Any]:
        """The settings of a provider."""
        url = named_server()
        if url is None:
            raise ConfigurationError(f"{VARIABLE} names no server: {_FORM}")
        urls = url.split()
        await (self._make_one(urls[0]) if len(urls) == 1 and _name(urls[0]) == "master" else self._take_one(urls))
        try:
            await self._keeper.execute(_EMPTY)
        except BaseException:
            await self._leave()
            raise
        return {"url": self._url}

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._keeper.execute(_EMPTY)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        keeper, self._keeper = self._keeper, None
        holding, self._holding = self._holding, None
        try:
            if holding is not None:
                await holding.__aexit__(None, None, None)
        finally:
            _taken.discard(self._url)
            await keeper.close()

    async def _take_one(self, urls: list[str]) -> None:
        """The first of them that nobody uses; waits for one."""
        for url in urls:
            if "test" not in _name(url).lower():
                raise ConfigurationError(
                    f"{VARIABLE}: everything in the database is dropped: its name must hold 'test'"
                )
        if _taken.issuperset(urls):
            raise ConfigurationError(
                f"{VARIABLE}: {len(urls)} at once is not enough: name another, after a space, or the server's master"
            )
        while True:
            for url in urls:
                if url not in _taken and await self._locked(url):
                    return
            await asyncio.sleep(1.0)  # another process tests with them

    async def _locked(self, url: str) -> bool:
        keeper = _provider(url)
        await keeper.connect()
        holding = keeper.transaction()
        try:
            await holding.__aenter__()
            if int(await holding.query_value(_LOCK)) >= 0:
                self._keeper, self._holding, self._url = keeper, holding, url
                _taken.add(url)
                return True
            await holding.__aexit__(None, None, None)
        except BaseException:
            await keeper.close()
            raise
        await keeper.close()
        return False

    async def _make_one(self, server: str) -> None:
        """One that this process has made for an earlier test, or a new one."""
        url = next((url for url in _made if url not in _taken), None)
        if url is None:
            name = f"{_MADE}{secrets.token_hex(6)}"
            url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
            async with _provider(server) as admin:
                await admin.execute(_MAKE.format(name=name))
            if not _made:
                atexit.register(_drop_all, server)
            _made.append(url)
        self._keeper, self._url = _provider(url), url
        _taken.add(url)
        await self._keeper.connect()


def _provider(url: str) -> Any:
    from datavern.config import Pool  # noqa: PLC0415  (with the first provider)
    from datavern.engines.azuresql.provider import AzureSQLProvider  # noqa: PLC0415  (the same)

    return AzureSQLProvider.from_settings("keeper", {"url": url, "pool": Pool(max=2), "location": "norway"})


def _name(url: str) -> str:
    return urlsplit(url).path.strip("/")


def _drop_all(server: str) -> None:
    async def drop() -> None:
        async with _provider(server) as admin:
            for url in _made:
                with contextlib.suppress(ProviderError):
                    await admin.execute(_DROP.format(name=_name(url)))

    with contextlib.suppress(ProviderError):
        asyncio.run(drop())

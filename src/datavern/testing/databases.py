"""Empty databases for tests, on real servers, gone afterwards."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.manager.loading import provider_class
from datavern.testing.recycling import emptied, kept, spares

if TYPE_CHECKING:
    from datavern.testing.postgresql import PostgreSQLServer

__all__ = ["EmptyDatabase", "create_test_database"]


@dataclass(frozen=True)
class EmptyDatabase:
    """A database that nobody else uses.

    Attributes:
        engine: "postgresql", "sqlite" or "azuresql".
        settings: what its provider's ``from_settings`` takes, and what a ``[databases.…]`` table holds.
    """

    engine: str
    settings: dict[str, Any] = field(repr=False)

    def provider(self, name: str = "main", **settings: Any) -> Any:
        """A provider for it, not connected; `settings` add to its own or replace them."""
        kind: Any = provider_class(self.engine)
        return kind.from_settings(name, {**self.settings, **settings})


class create_test_database:  # noqa: N801  (used as a function is: `async with create_test_database() as database`)
    """Make an empty database and drop it afterwards, with everything in it and whoever is still connected.

    Args:
        engine: "sqlite" (a file in a temporary folder), "postgresql", or "azuresql" (the database that
            ``DATAVERN_TEST_AZURESQL`` names, emptied).
        server: the PostgreSQL server to make it on; the process's shared one when None: the one that
            ``DATAVERN_TEST_POSTGRESQL`` names, or an ephemeral one.

    Raises:
        ConfigurationError: on entering: no such engine, or no server and none to start.
    """

    def __init__(self, engine: str = "sqlite", *, server: PostgreSQLServer | None = None) -> None:
        if engine not in {"sqlite", "postgresql", "azuresql"}:
            raise ConfigurationError(
                f"create_test_database: expected 'sqlite', 'postgresql' or 'azuresql', not {engine}"
            )
        self._engine = engine
        self._named: Any = None
        self._server = server
        self._folder: Path | None = None
        self._name = ""

    async def __aenter__(self) -> EmptyDatabase:
        if self._engine == "sqlite":
            self._folder = Path(tempfile.mkdtemp(prefix="datavern-sqlite-"))
            return EmptyDatabase("sqlite", {"path": str(self._folder / "test.db")})
        if self._engine == "azuresql":
            from datavern.testing.azuresql_named import NamedDatabase  # noqa: PLC0415  (only where it is needed)

            self._named = NamedDatabase()
            return EmptyDatabase("azuresql", await self._named.__aenter__())
        if self._server is None:
            from datavern.testing.postgresql import shared_server  # noqa: PLC0415  (only where it is needed)

            self._server = shared_server()
        spare = spares(self._server)
        if spare:
            self._name = spare.pop()
        else:
            self._name = f"datavern_{secrets.token_hex(6)}"
            # template0: nobody can be connected to it, so that many tests can copy it at once.
            await self._run(f'CREATE DATABASE "{self._name}" TEMPLATE template0')
        return EmptyDatabase("postgresql", {"url": self._server.url_of(self._name)})

    async def __aexit__(self, *exc: object) -> None:
        if self._named is not None:
            await self._named.__aexit__(*exc)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        name, self._name = self._name, ""
        if name and not await self._recycled(name):
            await self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _recycled(self, name: str) -> bool:
        """Whether the database is empty again, and kept for the next test."""
        import asyncpg  # noqa: PLC0415  (only where it is needed)

        assert self._server is not None  # noqa: S101  (for the type checker: __aenter__ set it)
        if spares(self._server) is None:
            return False
        try:
            connection = await asyncpg.connect(self._server.url_of(name))
            try:
                empty = await emptied(connection)
            finally:
                await connection.close()
        except asyncpg.PostgresError:  # the test left it in a state in which not even that works
            return False
        return empty and kept(self._server, name)

    async def _run(self, statement: str) -> None:
        import asyncpg  # noqa: PLC0415  (only where it is needed)

        assert self._server is not None  # noqa: S101  (for the type checker: __aenter__ set it)
        connection = await asyncpg.connect(self._server.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

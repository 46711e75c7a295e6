"""Fixtures that are open when a test gets them, on the test's own event loop: with pytest-asyncio, in any mode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest_asyncio

if TYPE_CHECKING:
    from datavern.manager.manager import DatabaseManager
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.testing.databases import EmptyDatabase

__all__ = ["datavern_manager", "datavern_provider"]


@pytest_asyncio.fixture
async def datavern_provider(datavern_database: EmptyDatabase) -> AsyncIterator[Any]:
    """A connected provider of the empty database."""
    async with datavern_database.provider(location="norway") as provider:
        yield provider


@pytest_asyncio.fixture
async def datavern_manager(
    datavern_database: EmptyDatabase, datavern_keyring: str, datavern_data_map: DataMap | None
) -> AsyncIterator[DatabaseManager]:
    """An open manager: the empty database as ``main``, a new key ring, and the stores of your data map, made."""
    from datavern.manager.manager import DatabaseManager  # noqa: PLC0415  (only when a test asks for it)

    databases = {"main": datavern_database.provider(location="norway")}
    async with DatabaseManager(databases, data_map=datavern_data_map, keyring=datavern_keyring, ledger="main") as db:
        for dataset in datavern_data_map or ():
            await db.prepare(dataset.name)
        yield db

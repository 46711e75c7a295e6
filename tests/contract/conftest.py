"""Managers over empty databases, for the tests of what spans them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from speech import SPEECHES, Checked, Speech

from datavern import DatabaseManager, DataMap, Dataset, Field, Keyring
from datavern.testing import EmptyDatabase
from datavern.testing.mongodb import MongoDBServer
from datavern.testing.valkey import ValkeyServer

PURPOSE = "customer-account"


def users(**changes: Any) -> Dataset:
    """The dataset of USAGE.md §3."""
    settings: dict[str, Any] = {
        "database": "main",
        "subject": "id",
        "classification": "CONFIDENTIAL",
        "purposes": [PURPOSE],
        "erasure": "anonymize",
        "fields": {
            "personal_number": Field(sealed=True, lookup=True, kind="fodselsnummer"),
            "name": Field(sealed=True),
            "email": Field(sealed=True, lookup=True),
        },
    }
    return Dataset("users", **{**settings, **changes})


@pytest.fixture
async def keyring(tmp_path: Path) -> str:
    """The URL of a new key ring."""
    url = f"file:{tmp_path / 'keys'}"
    ring = await Keyring.create(url)
    await ring.close()
    return url


@pytest.fixture
def managed(database: EmptyDatabase, keyring: str) -> Callable[..., DatabaseManager]:
    """Makes a manager, not open, over the empty database; `main` in it unless `databases` says otherwise."""

    def make(*datasets: Dataset, **settings: Any) -> DatabaseManager:
        databases = settings.pop("databases", None) or {"main": database.provider(location="norway")}
        given = {"keyring": keyring, "ledger": "main", "organisation": "Eksempel kommune", **settings}
        return DatabaseManager(databases, data_map=DataMap(datasets), **given)

    return make


@pytest.fixture
async def db(managed: Callable[..., DatabaseManager]) -> AsyncIterator[DatabaseManager]:
    """A manager with the users of USAGE.md, prepared."""
    async with managed(users()) as db:
        await db.prepare("users")
        yield db


@pytest.fixture
def placeholder(engine: str) -> Callable[[int], str]:
    """How the engine writes its n-th parameter."""
    return lambda n: {"postgresql": f"${n}", "azuresql": f"@P{n}"}.get(engine, "?")


@pytest.fixture
def sql(engine: str) -> Speech:
    """The engine's way of saying things: ``sql("SELECT $1")``; what it would say to Azure SQL is T-SQL."""
    return Checked(SPEECHES[engine])


# ---- stores without tables ------------------------------------------------------------------------------------------


@pytest.fixture
def documents(mongodb_server: MongoDBServer) -> Callable[..., Any]:
    """Makes providers of one empty database of MongoDB, called `documents`."""
    from datavern import MongoDBProvider

    uri = mongodb_server.uri(f"t{uuid4().hex[:12]}", serverMonitoringMode="poll", heartbeatFrequencyMS=500)
    return lambda **more: MongoDBProvider(**{"name": "documents", "uri": uri, "location": "norway", **more})


@pytest.fixture
def cache(valkey_server: ValkeyServer) -> Callable[..., Any]:
    """Makes providers of an empty Redis, called `cache`."""
    from datavern import RedisProvider

    valkey_server.command("FLUSHALL")
    return lambda **more: RedisProvider(**{"name": "cache", "port": valkey_server.port, "location": "norway", **more})

"""A real server that speaks MongoDB's wire protocol, and a real key store for what is sealed."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from datavern.crypto.keyring import Keyring
from datavern.crypto.keystore import KeyStore
from datavern.testing.mongodb import ENVIRONMENT, MongoDBServer, available

pytest.importorskip("pymongo", reason="mongodb: the driver pymongo is not installed")

from datavern.engines.mongodb.provider import MongoDBProvider

QUICK = {"serverMonitoringMode": "poll", "heartbeatFrequencyMS": 500}
"""So that a client notices within half a second what became of the server."""


class KeptKeys:
    """What a manager gives its providers, as far as sealing goes."""

    def __init__(self, keys: KeyStore, subjects: dict[str, str] | None = None) -> None:
        self.keys = keys
        self.subjects = subjects or {}

    def subject_path(self, _provider: Any, store: str) -> str | None:
        return self.subjects.get(store)

    async def store_personal_data(self, provider: Any, data: Any, consent: Any) -> Any:
        raise NotImplementedError


@pytest.fixture(scope="session", autouse=True)
def _there_is_a_server() -> None:
    if not available() and ENVIRONMENT not in os.environ:
        reason = "mongodb: the package SecantusDB, whose server these tests run, is not installed"
        if "mongodb" in os.environ.get("DATAVERN_REQUIRE", "").split():
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def left_sockets() -> Iterator[None]:
    """For tests that close a client while it connects: PyMongo leaves such a socket to the garbage collector.

    asyncio's `create_connection` and PyMongo's own wait both keep it open when they are cancelled early.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def server() -> Iterator[MongoDBServer]:
    """One server for all tests that leave it running: an ephemeral one, or the one that the environment names."""
    with MongoDBServer(os.environ.get(ENVIRONMENT)) as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[MongoDBServer]:
    """A server that the test may kill. What it acknowledged is on the disk."""
    with MongoDBServer(durable=True) as server:
        yield server


@pytest.fixture
def make(server: MongoDBServer) -> Callable[..., MongoDBProvider]:
    """Makes providers of an empty database of the shared server."""
    database = f"t{uuid4().hex[:12]}"

    def made(uri_options: dict[str, Any] | None = None, **settings: Any) -> MongoDBProvider:
        uri = server.uri(database, **QUICK, **(uri_options or {}))
        return MongoDBProvider(**{"name": "documents", "uri": uri, "location": "norway", **settings})

    return made


@pytest.fixture
async def keys(tmp_path: Path, sqlite_database: Any) -> AsyncIterator[KeyStore]:
    """A key store."""
    keyring = await Keyring.create(f"file:{tmp_path / 'keys'}")
    async with sqlite_database.provider(location="norway") as ledger:
        store = KeyStore(keyring, ledger)
        await store.open()
        yield store
    await keyring.close()


@pytest.fixture
async def mongo(make: Callable[..., MongoDBProvider], keys: KeyStore) -> AsyncIterator[MongoDBProvider]:
    """A connected provider with keys, of an empty database."""
    async with make() as mongo:
        mongo.attach(KeptKeys(keys))
        yield mongo
        await mongo.client.drop_database(mongo.database.name)


async def erase(keys: KeyStore, subject: str) -> None:
    """The part of an erasure that concerns the keys."""
    await keys.start_erasure(subject)
    await keys.destroy(subject)


class FailPoint:
    """``async with FailPoint(mongo, "insert", errorCode=10107): …`` the server fails those commands so many times."""

    def __init__(self, mongo: MongoDBProvider, *commands: str, times: int = 1, **data: Any) -> None:
        self.mongo = mongo
        self.mode = {"times": times}
        self.data = {"failCommands": list(commands), **data}

    async def __aenter__(self) -> None:
        admin = self.mongo.client.admin
        await admin.command({"configureFailPoint": "failCommand", "mode": self.mode, "data": self.data})

    async def __aexit__(self, *exc: object) -> None:
        await self.mongo.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})

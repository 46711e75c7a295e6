"""Redis: get and set of 1 KiB values, sealed, against redis.asyncio with hiredis, which stores them in the clear.

Client and server have a core each. Of ours there are two: sealed under the subject's key (AES-256-GCM), and under the
dataset's (XAES-256-GCM); the promises are made for both.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import Figure, apart, fan, interleave
from datavern.crypto.keyring import Keyring
from datavern.crypto.keystore import KeyStore
from datavern.engines.redis.provider import RedisProvider
from datavern.engines.sqlite.provider import SQLiteProvider
from datavern.testing.valkey import ValkeyServer

PEER = "redis.asyncio + hiredis, in the clear"
VALUE = "v" * 1024
KEYS = 1000
NOTE = "1 KiB text; keys 1 to 1000; ours is sealed, the peer's is not."


class _Kept:
    """What a manager gives its providers, as far as sealing goes."""

    def __init__(self, keys: KeyStore) -> None:
        self.keys = keys

    async def store_personal_data(self, provider: Any, data: Any, consent: Any) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def _key_store() -> AsyncIterator[KeyStore]:
    with tempfile.TemporaryDirectory() as folder:
        keyring = await Keyring.create(f"file:{Path(folder) / 'keys'}")
        async with SQLiteProvider(path=str(Path(folder) / "ledger.db"), location="norway") as ledger:
            store = KeyStore(keyring, ledger)
            await store.open()
            yield store
        await keyring.close()


async def figures() -> list[Figure]:
    """The figures."""
    with ValkeyServer() as server, apart(server.pid):
        return await _figures(server)


async def _figures(server: ValkeyServer) -> list[Figure]:
    import redis.asyncio

    peer = redis.asyncio.Redis(host=server.host, port=server.port, max_connections=60)
    found = []
    async with _key_store() as keys, RedisProvider(port=server.port, encryption=True, retention="30d") as ours:
        ours.attach(_Kept(keys))
        for i in range(KEYS):
            await ours.set(f"s{i}", VALUE, subject="u1")
            await ours.set(f"d{i}", VALUE)
            await peer.set(f"k{i}", VALUE)

        async def get_subject(i: int) -> None:
            await ours.get(f"s{i % KEYS}")

        async def get_dataset(i: int) -> None:
            await ours.get(f"d{i % KEYS}")

        async def get_peer(i: int) -> None:
            await peer.get(f"k{i % KEYS}")

        async def set_subject(i: int) -> None:
            await ours.set(f"s{i % KEYS}", VALUE, ex=3600, subject="u1")

        async def set_dataset(i: int) -> None:
            await ours.set(f"d{i % KEYS}", VALUE, ex=3600)

        async def set_peer(i: int) -> None:
            await peer.set(f"k{i % KEYS}", VALUE, ex=3600)

        runs = {
            "get": ((get_subject, "under the subject's key"), (get_dataset, "under the dataset's key"), get_peer),
            "set": ((set_subject, "under the subject's key"), (set_dataset, "under the dataset's key"), set_peer),
        }
        for tasks, n in ((50, 2000), (1, 300)):
            for name, (subject, dataset, theirs) in runs.items():
                variants = {
                    subject[1]: fan(subject[0], tasks),
                    dataset[1]: fan(dataset[0], tasks),
                    PEER: fan(theirs, tasks),
                }
                times = await interleave(variants, n, rounds=15)
                many = "task" if tasks == 1 else "tasks"
                found += [
                    _figure(f"{name}, {tasks} {many}, sealed {mine}", mine, times, tasks)
                    for mine in (subject[1], dataset[1])
                ]
    await peer.aclose()
    return found


def _figure(title: str, ours: str, times: dict[str, list[float]], tasks: int) -> Figure:
    shown = {ours: times[ours], PEER: times[PEER]}
    if tasks == 1:
        return Figure(title, ours, shown, at_most={PEER: 1.0}, note=NOTE)
    return Figure(title, ours, shown, at_least={PEER: 3.0}, note=NOTE)

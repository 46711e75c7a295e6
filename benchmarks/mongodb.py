"""What `insert_document` adds to PyMongo's `insert_one` of the same 1 KiB document, over a stub of the network.

The server's answer is replaced by one in memory, so that its time hides nothing: what is left is this process. Each
round measures both, in processor time, and the difference is the figure. `watch_pool=True` is shown beside it:
PyMongo's events cost that much for each call, which is why it is not the default.
"""

from __future__ import annotations

import gc
import struct
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import Figure, Run

DOCUMENT: dict[str, Any] = {
    "title": "Søknad om tilskudd til vedlikehold",
    "number": 2026_004711,
    "status": {"code": "received", "by": "portal", "steps": [1, 2, 3]},
    "text": "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 15,
}
LIMITS = {
    "OPEN": 10e-6,
    "CONFIDENTIAL with subject": 40e-6,
    "CONFIDENTIAL": 40e-6,
}


async def figures() -> list[Figure]:  # noqa: C901  (three clients and their stubs)
    """The figures."""
    from bson import encode
    from pymongo import AsyncMongoClient

    from datavern import SQLiteProvider
    from datavern.crypto.keyring import Keyring
    from datavern.crypto.keystore import KeyStore
    from datavern.engines.mongodb.provider import MongoDBProvider
    from datavern.testing.mongodb import MongoDBServer

    size = len(encode(DOCUMENT))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(MongoDBServer())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keyring = await Keyring.create(f"file:{folder / 'keys'}")
        ledger = await stack.enter_async_context(SQLiteProvider(folder / "ledger.db", location="norway"))
        store = KeyStore(keyring, ledger)
        await store.open()
        providers = []
        for watched in (False, True):
            provider = MongoDBProvider(uri=server.uri("app"), location="norway", watch_pool=watched)
            provider.attach(_Kept(store))
            providers.append(await stack.enter_async_context(provider))
        raw: AsyncMongoClient[Any] = AsyncMongoClient(server.uri("app"), uuidRepresentation="standard")
        stack.push_async_callback(raw.close)
        ours, watched = providers
        for collection in (raw["app"]["cases"], ours.collection("cases"), watched.collection("cases")):
            await collection.insert_one({})
        for client in (raw, ours.client, watched.client):
            _stub(client)
        cases = raw["app"]["cases"]

        def insert_one(collection):
            async def run(n: int) -> None:
                for _ in range(n):
                    await collection.insert_one(dict(DOCUMENT))

            return run

        def insert_document(classification: str, subject: str | None):
            async def run(n: int) -> None:
                for _ in range(n):
                    await ours.insert_document("cases", dict(DOCUMENT), classification=classification, subject=subject)

            return run

        variants = {
            "insert_one": insert_one(cases),
            "OPEN": insert_document("OPEN", None),
            "OPEN with subject": insert_document("OPEN", "test-user"),
            "CONFIDENTIAL with subject": insert_document("CONFIDENTIAL", "test-user"),
            "CONFIDENTIAL": insert_document("CONFIDENTIAL", None),
            "watch_pool=True": insert_one(watched.collection("cases")),
        }
        times = await _processor_time(variants, 100, rounds=61)
        await keyring.close()
    base = times.pop("insert_one")
    found = []
    for name, spent in times.items():
        added = [a - b for a, b in zip(spent, base, strict=True)]
        limit = LIMITS.get(name)
        peers = {f"limit, {limit * 1e6:g} µs": [limit] * len(added)} if limit else {"insert_one": base}
        found.append(
            Figure(
                f"MongoDB: what {name} adds to insert_one ({size} bytes)",
                "added",
                {"added": added, **peers},
                at_most=dict.fromkeys(peers, 1.0) if limit else {},
            )
        )
    return found


async def _processor_time(variants: dict[str, Run], n: int, *, rounds: int) -> dict[str, list[float]]:
    """As `benchmarks.interleave`, in time of the loop's own thread: nothing here waits, and what others do on the
    machine meanwhile is not the figure's affair."""
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        await variants[name](n)
    gc.collect()
    gc.freeze()
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.thread_time()
            await variants[name](n)
            times[name].append((time.thread_time() - started) / n)
    gc.unfreeze()
    return times


class _Kept:
    """What a manager gives its providers, as far as sealing goes."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys

    async def store_personal_data(self, provider: Any, data: Any, consent: Any) -> Any:
        raise NotImplementedError


def _stub(client: Any) -> None:
    """Let the client's connections answer by themselves, as a server that has inserted one document."""
    from bson import encode
    from pymongo.message import _OpMsg

    answer = struct.pack("<IB", 0, 0) + encode({"n": 1, "ok": 1.0})

    async def send(_message: bytes, _max_doc_size: int) -> None:
        return None

    async def receive(_request_id: int) -> Any:
        return _OpMsg.unpack(answer)

    for server in client._topology._servers.values():
        for connection in server.pool.conns:
            connection.send_message = send
            connection.receive_message = receive

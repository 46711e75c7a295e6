"""What becomes of calls when the server is killed, the network cut or frozen, or the caller goes away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from pymongo import AsyncMongoClient
from tests.engines.mongodb.conftest import QUICK, KeptKeys

from datavern.config import Pool
from datavern.contracts.errors import ConnectionFailed, NoHealthyConnection, OutcomeUnknown, ProviderError
from datavern.engines.mongodb.provider import MongoDBProvider
from datavern.testing.mongodb import MongoDBServer
from datavern.testing.proxy import TCPProxy

pytestmark = [
    pytest.mark.usefixtures("left_sockets"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


def of(port: int, **options: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in {**QUICK, "directConnection": "true", **options}.items())
    return f"mongodb://127.0.0.1:{port}/app?{query}"


def provider(uri: str, **settings: object) -> MongoDBProvider:
    return MongoDBProvider(**{"uri": uri, "name": "documents", "location": "norway", **settings})


@pytest.fixture
def proxy(server: MongoDBServer) -> Iterator[TCPProxy]:
    with TCPProxy("127.0.0.1", server.port) as proxy:
        yield proxy


async def test_a_killed_server_loses_nothing_that_was_acknowledged_and_comes_back(own_server, keys):
    async with provider(own_server.uri("app", **QUICK, serverSelectionTimeoutMS=300)) as mongo:
        mongo.attach(KeptKeys(keys))
        ids = [
            await mongo.insert_document("cases", {"n": n}, classification="SECRET", subject=f"u{n % 3}")
            for n in range(20)
        ]
        file = await mongo.files.upload("a", b"x" * 300_000, classification="SECRET")
        own_server.halt(immediate=True)
        with pytest.raises((ConnectionFailed, OutcomeUnknown)):
            await mongo.insert_document("cases", {"n": 99}, classification="OPEN")
        with pytest.raises(ConnectionFailed) as caught:
            await mongo.find_document("cases")
        assert caught.value.retry == "safe"
        health = await mongo.health()
        assert (health.status, health.role) == ("unhealthy", "unknown")
        own_server.start()
        for _ in range(50):
            with contextlib.suppress(ConnectionFailed):
                assert (await mongo.find_document("cases", {"_id": ids[0]}))["n"] == 0
                break
        assert [d["n"] async for d in mongo.find_documents("cases", sort=[("_id", 1)])] == list(range(20))
        assert await mongo.files.read(file) == b"x" * 300_000
        assert (await mongo.health()).status == "healthy"


async def test_writes_under_a_killed_server_are_there_once_or_said_to_be_unknown(own_server):
    async with provider(own_server.uri("app", **QUICK, serverSelectionTimeoutMS=300)) as mongo:
        acknowledged, unknown, refused = [], [], []

        async def write(k: int) -> None:
            for n in range(k * 1000, k * 1000 + 400):
                try:
                    acknowledged.append(await mongo.insert_document("cases", {"_id": n}, classification="OPEN"))
                except OutcomeUnknown:
                    unknown.append(n)
                except ConnectionFailed:
                    refused.append(n)
                    return

        tasks = [asyncio.create_task(write(k)) for k in range(4)]
        await asyncio.sleep(0.3)
        own_server.halt(immediate=True)
        await asyncio.gather(*tasks)
        own_server.start()
        there: set[int] = set()
        for _ in range(50):
            with contextlib.suppress(ProviderError):
                async with mongo.translated(wrote=False):
                    there = {d["_id"] for d in await mongo.collection("cases").find().to_list()}
                break
        assert acknowledged
        assert set(acknowledged) <= there
        assert not there & set(refused)
        assert there <= set(acknowledged) | set(unknown)


async def test_a_cut_connection_is_replaced(proxy):
    async with provider(of(proxy.port)) as mongo:
        await mongo.insert_document("cuts", {"n": 0}, classification="OPEN")
        for n in range(1, 4):
            proxy.cut()
            for _ in range(20):
                try:
                    await mongo.insert_document("cuts", {"_id": n}, classification="OPEN")
                    break
                except (OutcomeUnknown, ConnectionFailed, NoHealthyConnection):
                    if await mongo.collection("cuts").find_one({"_id": n}):
                        break
        assert await mongo.collection("cuts").count_documents({"_id": {"$in": [1, 2, 3]}}) == 3
        await mongo.collection("cuts").drop()


async def test_a_frozen_network_holds_nobody_longer_than_the_timeout(proxy):
    mongo = provider(of(proxy.port), timeout=0.5, connect_timeout=0.5)
    async with mongo:
        await mongo.insert_document("frozen", {"_id": 1}, classification="OPEN")
        proxy.freeze()
        with pytest.raises((OutcomeUnknown, ConnectionFailed)):
            await mongo.insert_document("frozen", {"_id": 2}, classification="OPEN")
        with pytest.raises(ConnectionFailed):
            await mongo.find_document("frozen")
        assert (await mongo.health()).status == "unhealthy"
    # Leaving the block closed it, without waiting for a server that does not answer.
    proxy.thaw()
    async with mongo:
        assert (await mongo.find_document("frozen"))["_id"] == 1
        await mongo.collection("frozen").drop()


async def test_connections_that_a_firewall_forgot(proxy):
    """Only what was open is frozen: each call ends at its deadline, and the service comes back by itself."""
    async with provider(of(proxy.port), timeout=0.5, connect_timeout=0.5, pool=Pool(max=3)) as mongo:
        await mongo.collection("forgotten").insert_one({"_id": 1})
        proxy.freeze(newcomers=False)
        failed = 0
        async with asyncio.timeout(60):
            while True:
                try:
                    found = await mongo.find_document("forgotten")
                except ConnectionFailed:
                    failed += 1
                else:
                    break
        assert found == {"_id": 1}
        assert failed
        assert await mongo.find_document("forgotten") == {"_id": 1}
        await mongo.collection("forgotten").drop()


@pytest.mark.parametrize("moment", ["before", "after", "midway"])
async def test_a_connection_that_breaks_at_the_worst_moment(proxy, moment):
    """The driver writes again where the server knows such writes; else it is told that nobody knows. Never twice."""
    async with provider(of(proxy.port)) as mongo:
        rows = mongo.collection("struck")
        await rows.insert_one({"word": "blåbær"})
        for n in range(3):
            proxy.strike(b"fjellrev", moment)
            try:
                await mongo.insert_document("struck", {"word": "fjellrev", "n": n}, classification="OPEN")
                told = {1}
            except OutcomeUnknown:
                told = {0, 1}
            assert await rows.count_documents({"n": n}) in told
        assert proxy.struck == 3
        await rows.drop()


async def test_a_transaction_in_a_frozen_network_ends(proxy):
    async with provider(of(proxy.port), timeout=0.5, connect_timeout=0.5) as mongo:
        await mongo.collection("frozen").insert_one({"_id": 1})
        with pytest.raises((OutcomeUnknown, ConnectionFailed)):
            async with mongo.transaction() as session:
                await mongo.insert_document("frozen", {"_id": 2}, classification="OPEN", session=session)
                proxy.freeze()
        proxy.thaw()
    async with provider(of(proxy.port)) as mongo:
        await mongo.collection("frozen").drop()


async def test_a_cancelled_call_hands_on_no_connection_with_an_unread_answer(proxy):
    async with provider(of(proxy.port), pool=Pool(max=1)) as mongo:
        cases = mongo.collection("answers")
        await cases.insert_many([{"_id": n} for n in range(5)])
        for n in range(5):
            proxy.freeze()
            task = asyncio.create_task(mongo.find_document("answers", {"_id": n}))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            proxy.thaw()
            other = (n + 1) % 5
            assert await mongo.find_document("answers", {"_id": other}) == {"_id": other}
        assert mongo.stats().in_use == 0
        assert mongo.stats().size <= 1
        await cases.drop()


@pytest.mark.timeout(1800)  # the long form
async def test_calls_that_are_cancelled_at_any_moment_leave_the_pool_whole(server, faults_long):
    async with provider(of(server.port), pool=Pool(max=3)) as mongo:
        await mongo.collection("storm").insert_one({"_id": -1})

        async def one(n: int) -> None:
            await mongo.insert_document("storm", {"_id": n}, classification="OPEN")
            found = await mongo.find_document("storm", {"_id": n})
            assert found is not None
            assert found["_id"] == n

        for first in range(1000, 1000 + (20_000 if faults_long else 240), 60):
            tasks = [asyncio.create_task(one(n)) for n in range(first, first + 60)]
            asked = []
            for n, task in enumerate(tasks):
                if n % 2:
                    await asyncio.sleep(0.001 * (n % 5))
                    asked.append(task.cancel())
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)] == []
            assert sum(isinstance(r, asyncio.CancelledError) for r in results) == sum(asked), "swallowed"
            assert any(asked)
        await asyncio.gather(*(one(n) for n in range(100, 130)))
        assert mongo.stats().in_use == 0
        await mongo.collection("storm").drop()


async def test_a_cancellation_that_the_driver_swallows_is_raised_all_the_same(server, monkeypatch):
    """As `asyncio.wait_for` does in Python 3.11, in the one method of PyMongo's that every operation passes through."""
    original = AsyncMongoClient._retry_internal

    async def swallows(self, *args, **kwargs):
        asyncio.current_task().cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return await original(self, *args, **kwargs)

    async with provider(of(server.port)) as mongo:
        rows = mongo.collection("swallowed")
        calls = [
            lambda: mongo.find_document("swallowed"),
            lambda: mongo.insert_document("swallowed", {"_id": 1}, classification="OPEN"),
            lambda: rows.find().to_list(),
            lambda: rows.update_one({"_id": 1}, {"$set": {"n": 1}}),
            lambda: rows.count_documents({}),
            lambda: mongo.database.command("ping"),
        ]
        with monkeypatch.context() as patch:
            patch.setattr(AsyncMongoClient, "_retry_internal", swallows)
            for call in calls:
                task = asyncio.ensure_future(call())
                await asyncio.wait([task])
                assert task.cancelled()
        await rows.drop()


async def test_closing_ends_everything(server):
    mongo = provider(of(server.port))
    await mongo.connect()
    await mongo.connect()
    await mongo.close()
    await mongo.close()
    with pytest.raises(ConnectionFailed, match="not open"):
        await mongo.find_document("a")
    async with mongo:
        assert (await mongo.health()).status == "healthy"

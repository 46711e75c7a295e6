"""A cluster of six processes: by slot, wherever the slots go, and clear words when a node is down."""

from __future__ import annotations

import asyncio

import pytest
from redis.crc import key_slot as their_key_slot
from tests.waiting import until

from datavern.contracts.errors import ConnectionFailed, NoHealthyConnection, OutcomeUnknown, QueryRejected
from datavern.engines.redis.cluster import key_slot
from datavern.engines.redis.provider import RedisProvider
from datavern.engines.redis.pubsub import Gap
from datavern.engines.redis.retention import RetentionCut
from datavern.testing.valkey import ValkeyCluster


@pytest.mark.parametrize(
    "key", [b"", b"a", b"{}x", b"x{}y{z}", b"{user}:1", b"a{b{c}d}", b"}{", b"{a", "æ{ø}å".encode()]
)
def test_slots_are_those_of_the_specification(key):
    assert key_slot(key) == their_key_slot(key)


async def test_keys_go_where_their_slots_are(clustered, cluster):
    values = {f"k{i}": i for i in range(300)}
    await clustered.set_many(values, ex=600)
    assert await clustered.get_many(values) == list(values.values())
    sizes = [int(cluster.command(n, "DBSIZE")[1:]) for n in range(3)]
    assert sum(sizes) == 300
    assert all(sizes)
    assert await clustered.exists(*values, "none") == 300
    assert {key async for key in clustered.scan("k*")} == set(values)
    assert await clustered.delete(*values) == 300
    assert [key async for key in clustered.scan()] == []


async def test_pipelines_and_counters(clustered):
    async with clustered.pipeline() as pipe:
        for i in range(30):
            pipe.set(f"p{i}", i).get(f"p{i}")
        assert await pipe.execute() == [r for i in range(30) for r in (True, i)]
    async with clustered.pipeline(transaction=True) as pipe:
        assert await pipe.set("{u1}:a", 1).incr("{u1}:n").get("{u1}:a").execute() == [True, 1, 1]
        with pytest.raises(QueryRejected, match="one slot"):
            await pipe.set("a", 1).set("b", 1).execute()
    with pytest.raises(QueryRejected, match="different slots"):
        await clustered.execute("MGET", "a", "b", read=True)


async def test_channels_streams_and_health(clustered):
    async with clustered.subscribe("news", patterns=["n?ws"]) as messages:
        await clustered.publish("news", 1)
        assert {(await anext(messages)).data, (await anext(messages)).data} == {1}
    for i in range(6):
        waiting = asyncio.create_task(clustered.xread({f"s{i}": "$"}, wait=30))
        while not (found := waiting.done()):
            await clustered.xadd(f"s{i}", {"n": i})
            await asyncio.sleep(0.01)
        assert found
        assert (await waiting)[f"s{i}"][0].fields == {"n": i}
    health = await clustered.health()
    assert (health.status, health.role, health.facts["primaries"]) == ("healthy", "primary", 3)
    assert health.version.startswith("Valkey 9")
    assert health.pool.size >= 3


async def test_retention_holds_on_every_node(cluster, clustered):
    await clustered.set_many({f"k{i}": i for i in range(30)})
    async with RedisProvider(name="cache", cluster=cluster.nodes, retention="1h") as bounded:
        await bounded.incr("count")
        with pytest.warns(RetentionCut):
            await bounded.set("x", 1, ex=7200)
        report = await bounded.audit_retention(fix=True)
        assert (report.keys, report.without, report.fixed) == (32, 30, 30)
        assert (await bounded.audit_retention()).ok


async def test_redis_pys_cluster_client(clustered):
    await clustered.client.set("k", 1)
    assert await clustered.client.get("k") == b"1"


async def test_any_node_will_do_to_begin_with(cluster, clustered):
    await clustered.set("k", 1)
    for node in cluster.nodes:
        async with RedisProvider(cluster=[("127.0.0.1", 1), node]) as redis:
            assert await redis.get("k") == 1
    with pytest.raises(
        ConnectionFailed, match="no node of the cluster says how it looks.*nothing listens at 127.0.0.1:1"
    ):
        await RedisProvider(cluster=[("127.0.0.1", 1)]).connect()


async def test_a_slot_that_moves_is_followed(cluster, clustered):
    """MOVED and ASK, in the middle of everything, and back again."""
    ids = [cluster.command(n, "CLUSTER", "MYID").split("\r\n")[1] for n in range(3)]
    keys = [f"{{m}}:{i}" for i in range(20)]
    slot = str(key_slot(b"m"))
    home = next(n for n in range(3) if "MOVED" not in cluster.command(n, "GET", "{m}"))
    away = (home + 1) % 3
    await clustered.set_many(dict.fromkeys(keys, 0))
    async with RedisProvider(cluster=cluster.nodes) as other:
        assert await other.get_many(keys) == [0] * 20
        for source, target in ((home, away), (away, home)):
            cluster.command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
            cluster.command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
            port = str(cluster.nodes[target][1])
            for key in keys[:10]:
                assert "OK" in cluster.command(source, "MIGRATE", "127.0.0.1", port, key, "0", "5000")
            for redis in (clustered, other):  # half of the keys are here, half are there
                before = await redis.get_many(keys)
                await redis.set_many({key: value + 1 for key, value in zip(keys, before, strict=True)}, ex=600)
                assert await redis.get_many(keys) == [value + 1 for value in before]
            async with other.pipeline(transaction=True) as pipe:  # a transaction is asked for as a whole
                assert await pipe.get(keys[0]).ttl(keys[1]).execute()
            for key in [*keys[10:], *(["{m}:n"] if target == home else [])]:
                assert "OK" in cluster.command(source, "MIGRATE", "127.0.0.1", port, key, "0", "5000")
            for n in (target, source, 3 - home - away):
                cluster.command(n, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])
            assert await asyncio.gather(*(other.incr("{m}:n") for _ in range(10)))
            assert len(set(await clustered.get_many(keys))) == 1
            async with other.pipeline(transaction=True) as pipe:
                assert len(await pipe.get(keys[0]).ttl(keys[1]).execute()) == 2
        assert await other.counter("{m}:n") == 20
    cluster.settle()


async def test_a_cluster_is_not_a_server_and_a_server_no_cluster(server, cluster):
    with pytest.raises(ConnectionFailed, match="not a cluster: leave cluster out"):
        await RedisProvider(cluster=[("127.0.0.1", server.port)]).connect()
    async with RedisProvider(port=cluster.nodes[0][1]) as redis:
        with pytest.raises(NoHealthyConnection):
            for i in range(10):
                await redis.set(f"k{i}", 1)


async def test_a_node_that_is_down_is_named_and_its_replica_takes_over():
    with ValkeyCluster(node_timeout=1000) as cluster:
        async with RedisProvider(name="cache", cluster=cluster.nodes, timeout=2.0) as redis:
            key = next(f"k{i}" for i in range(100) if key_slot(f"k{i}".encode()) < 5461)
            safe = next(f"k{i}" for i in range(100) if key_slot(f"k{i}".encode()) > 6000)
            await redis.set(key, 1)
            for number in range(6):
                cluster.command(number, "CONFIG", "SET", "cluster-require-full-coverage", "no")
            for replica in (3, 4, 5):  # it takes over when the test has seen what is between
                cluster.command(replica, "CONFIG", "SET", "cluster-replica-no-failover", "yes")
            async with redis.subscribe("news", gaps=True) as messages:
                await asyncio.to_thread(cluster.kill, 0)
                with pytest.raises((ConnectionFailed, OutcomeUnknown)):
                    await redis.set(key, 2)
                with pytest.raises(
                    ConnectionFailed, match=rf"the node 127.0.0.1:{cluster.nodes[0][1]} of the cluster"
                ) as caught:
                    while True:
                        await redis.set(key, 2)
                assert caught.value.retry == "safe"
                tag = f"{{{key}}}"
                with pytest.raises((ConnectionFailed, NoHealthyConnection)):
                    async with redis.pipeline(transaction=True) as pipe:
                        await pipe.set(f"{tag}:a", 1).set(f"{tag}:b", 1).execute()
                await redis.set(safe, 1)
                assert redis.stats().discarded >= 1
                health = await redis.health()
                assert health.status in {"degraded", "unhealthy"}
                assert str(cluster.nodes[0][1]) in health.detail
                for replica in (3, 4, 5):
                    cluster.command(replica, "CONFIG", "SET", "cluster-replica-no-failover", "no")
                while True:
                    try:
                        await redis.set(key, 3)
                        break
                    except (ConnectionFailed, OutcomeUnknown):
                        await asyncio.sleep(0.1)
                    except NoHealthyConnection:  # while the slots have no owner
                        await asyncio.sleep(0.1)
                assert await redis.get(key) == 3
                assert await redis.exists(f"{tag}:a", f"{tag}:b") == 0  # nothing was half written
                assert sorted([k async for k in redis.scan("k*")]) == sorted([key, safe])
                assert isinstance(await anext(messages), Gap)

                async def well():
                    return (await redis.health()).status == "healthy"

                await until(well)
                await asyncio.to_thread(cluster.restart, 0)
                await asyncio.to_thread(cluster.settle)
                assert await redis.get(key) == 3


async def test_a_cluster_that_is_down_says_so():
    with ValkeyCluster(node_timeout=500, password="the cluster's") as cluster:
        with pytest.raises(ConnectionFailed, match="asks for a password"):
            await RedisProvider(cluster=cluster.nodes).connect()
        async with RedisProvider(cluster=cluster.nodes, timeout=1.0, password="the cluster's") as redis:
            await redis.set("k", "secret")
            assert await redis.client.get("k") == b'"secret"'
            for number in (0, 1, 3, 4):
                cluster.kill(number)
            while True:
                with pytest.raises((ConnectionFailed, OutcomeUnknown, Exception)) as caught:
                    await redis.get_many([f"k{i}" for i in range(30)])
                assert "secret" not in str(caught.value)
                if getattr(caught.value, "code", None) == "CLUSTERDOWN":
                    break
                await asyncio.sleep(0.05)
            assert caught.value.retry == "safe"
            with pytest.raises((ConnectionFailed, Exception)) as caught:
                [k async for k in redis.scan()]  # what cannot be seen in full is no answer
            assert getattr(caught.value, "retry", None) == "safe"

"""Streams: entries as they were written, groups, and waiting without holding anybody up."""

from __future__ import annotations

import asyncio

import pytest
from tests.waiting import until

from datavern.contracts.errors import ConfigurationError, ConnectionFailed, QueryRejected
from datavern.testing.proxy import TCPProxy


async def test_entries_come_back_as_they_went_in(redis, sealed):
    for provider in (redis, sealed):
        await provider.delete("s")
        first = await provider.xadd("s", {"a": 1, "å": {"x": [1.5, None]}})
        second = await provider.xadd("s", {"raw": b"\xff"})
        assert await provider.xlen("s") == 2
        assert await provider.xrange("s") == [(first, {"a": 1, "å": {"x": [1.5, None]}}), (second, {"raw": b"\xff"})]
        assert [e.id for e in await provider.xrange("s", start=second)] == [second]
        assert [e.id for e in await provider.xrange("s", count=1)] == [first]
        assert await provider.xread({"s": first}) == {"s": [(second, {"raw": b"\xff"})]}
        assert await provider.xread({"s": second, "none": "0"}) == {}
        assert await provider.xdel("s", first) == 1
        assert await provider.xlen("s") == 1


async def test_groups(sealed):
    await sealed.xgroup_create("s", "g")
    with pytest.raises(QueryRejected, match="exists already") as caught:
        await sealed.xgroup_create("s", "g")
    assert caught.value.code == "BUSYGROUP"
    ids = [await sealed.xadd("s", {"n": n}, subject="u1") for n in range(3)]
    one = await sealed.xreadgroup("g", "c1", {"s": ">"}, count=2)
    two = await sealed.xreadgroup("g", "c2", {"s": ">"})
    assert [e.fields["n"] for e in one["s"]] == [0, 1]
    assert [e.fields["n"] for e in two["s"]] == [2]
    assert await sealed.xack("s", "g", ids[0]) == 1
    assert [e.id for e in (await sealed.xreadgroup("g", "c1", {"s": "0"}))["s"]] == [ids[1]]
    await sealed.xdel("s", ids[1])
    assert (await sealed.xreadgroup("g", "c1", {"s": "0"}))["s"] == [(ids[1], {})]
    with pytest.raises(QueryRejected, match="no such stream or consumer group"):
        await sealed.xreadgroup("none", "c", {"s": ">"})
    with pytest.raises(QueryRejected, match="no such stream"):
        await sealed.xgroup_create("none", "g", make=False)


async def test_waiting_for_an_entry_holds_nobody_up(redis):
    waits = [asyncio.create_task(redis.xread({"s": "$"}, wait=30)) for _ in range(3)]
    while b"blocked_clients:3" not in await redis.execute("INFO", "clients", read=True):
        assert await redis.set("k", 1)
    await redis.xadd("s", {"n": 1})
    for wait in waits:
        assert (await wait)["s"][0].fields == {"n": 1}
    assert await redis.xread({"s": "$"}, wait=0.01) == {}
    assert sum(map(len, redis._spare.values())) == 3  # kept for the next who wait


async def test_a_cancelled_wait_leaves_nothing_behind(redis):
    for _ in range(5):
        wait = asyncio.create_task(redis.xread({"s": "$"}, wait=30))
        await asyncio.sleep(0.01)
        wait.cancel()
        await asyncio.wait([wait])
        assert wait.cancelled()

    async def nobody_waits():
        return b"blocked_clients:0" in await redis.execute("INFO", "clients", read=True)

    await until(nobody_waits)
    assert not any(redis._spare.values())


async def test_a_wait_on_a_frozen_socket_ends(make, server):
    with TCPProxy("127.0.0.1", server.port) as proxy:
        async with make(port=proxy.port, timeout=0.2, connect_timeout=0.2) as redis:
            await redis.xread({"s": "$"}, wait=0.01)
            proxy.freeze()
            with pytest.raises(ConnectionFailed) as caught:
                await redis.xread({"s": "$"}, wait=0.1)
            assert caught.value.retry == "safe"
            proxy.thaw()


async def test_entries_beyond_the_retention_go(make, redis):
    async with make(retention="1h") as keeping:
        await redis.execute("XADD", "s", "1-1", "field", "1")
        assert await keeping.xread({"s": "0"}) == {}
        assert await keeping.xrange("s") == []
        assert await redis.xlen("s") == 1
        await keeping.xadd("s", {"a": 1})
        assert await redis.xlen("s") == 1
        assert 0 < await redis.ttl("s") <= 3600
        with pytest.raises(ConfigurationError, match="id"):
            await keeping.xadd("s", {"a": 1}, id="5-5")
    for _ in range(300):
        await redis.xadd("bounded", {"a": 1}, maxlen=10)
    assert await redis.xlen("bounded") < 300


@pytest.mark.parametrize("wait", [0, -1, float("inf"), float("nan")])
async def test_what_makes_no_sense_is_refused(redis, wait):
    with pytest.raises(ConfigurationError, match="wait"):
        await redis.xread({"s": "0"}, wait=wait)
    with pytest.raises(ConfigurationError, match="at least one stream"):
        await redis.xread({})
    with pytest.raises(ConfigurationError, match="at least one field"):
        await redis.xadd("s", {})
    with pytest.raises(QueryRejected, match="not the id"):
        await redis.xrange("s", start="secret")

"""Channels outlive their connection, and say when messages may have been missed."""

from __future__ import annotations

import asyncio

import pytest
from tests.waiting import until

from datavern.contracts.errors import ConfigurationError, ConnectionFailed, QueryRejected
from datavern.engines.redis.provider import RedisProvider
from datavern.engines.redis.pubsub import Gap, Message
from datavern.testing.proxy import TCPProxy
from datavern.testing.valkey import ValkeyServer


@pytest.fixture
def proxy(server):
    with TCPProxy("127.0.0.1", server.port) as proxy:
        yield proxy


async def test_messages_come_as_they_were_published(redis):
    async with redis.subscribe("news", "æøå") as messages:
        assert await redis.publish("news", {"type": "alert"}) == 1
        await redis.publish("æøå", b"\x00\xff")
        await redis.publish("other", "not for us")
        await redis.publish("news", "last")
        assert await anext(messages) == Message("news", {"type": "alert"})
        assert await anext(messages) == Message("æøå", b"\x00\xff")
        assert await anext(messages) == Message("news", "last")

    async def nobody_listens():  # the server learns that we left when it reads that we did
        return await redis.publish("news", "nobody") == 0

    await until(nobody_listens)


async def test_patterns(redis):
    async with redis.subscribe("exact", patterns=["notifications:*"]) as messages:
        await redis.publish("notifications:u1", 1)
        await redis.publish("notification", 2)
        await redis.publish("exact", 3)
        assert await anext(messages) == Message("notifications:u1", 1, "notifications:*")
        assert await anext(messages) == Message("exact", 3)


async def test_subscriptions_share_a_connection_and_end_one_by_one(redis):
    async with redis.subscribe("a", "b") as first:
        async with redis.subscribe("b", "c") as second:
            await redis.publish("b", 1)
            assert (await anext(first)).data == (await anext(second)).data == 1

        async def nobody_listens():
            return await redis.publish("c", 2) == 0

        await until(nobody_listens)
        assert await redis.publish("b", 3) == 1
        assert (await anext(first)).data == 3
        async with redis.subscribe("b", "c") as third:
            await redis.publish("c", 4)
            assert (await anext(third)).data == 4
        assert await redis.publish("a", 5) == 1


async def test_a_subscription_outlives_its_connection_and_says_what_it_missed(make, redis, proxy):
    async with (
        make(name="listener", port=proxy.port) as listener,
        listener.subscribe("news", patterns=["n*"], gaps=True) as messages,
        listener.subscribe("news") as plain,
    ):
        await redis.publish("news", "before")
        assert {(await anext(messages)).data, (await anext(messages)).data} == {"before"}
        assert (await anext(plain)).missed is False
        proxy.cut()
        gap = await anext(messages)
        assert isinstance(gap, Gap)
        assert "broke" in gap.reason
        await redis.publish("news", "after")
        after = await anext(messages)
        assert (after.data, after.missed) == ("after", True)
        assert (await anext(messages)).missed is False
        assert (await anext(plain)).missed is True
        await redis.publish("news", "later")
        assert (await anext(plain)).missed is False


async def test_a_frozen_connection_for_channels_is_found_without_a_message(make, redis, proxy):
    impatient = make(name="listener", port=proxy.port, keepalive=0.05, timeout=0.2, connect_timeout=0.5)
    async with impatient as listener, listener.subscribe("news", gaps=True) as messages:
        proxy.freeze()
        await until(lambda: listener._hub._wire is None)
        proxy.thaw()
        assert isinstance(await anext(messages), Gap)
        await redis.publish("news", "after")
        assert (await anext(messages)).data == "after"


async def test_a_subscription_outlives_the_server():
    with ValkeyServer() as server:
        async with RedisProvider(port=server.port) as redis, redis.subscribe("news", gaps=True) as messages:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            assert isinstance(await anext(messages), Gap)
            await redis.publish("news", 1)
            assert await anext(messages) == Message("news", 1, missed=True)


async def test_more_messages_than_are_kept_are_missed_and_that_is_said(redis):
    async with redis.subscribe("news", most=10) as messages, redis.subscribe("news") as all_of_them:
        for i in range(25):
            await redis.publish("news", i)
        assert [(await anext(all_of_them)).data for _ in range(25)] == list(range(25))
        first = await anext(messages)
        assert (first.data, first.missed) == (15, True)
        assert [(m.data, m.missed) for m in [await anext(messages) for _ in range(9)]] == [
            (i, False) for i in range(16, 25)
        ]


async def test_a_cancelled_wait_loses_no_message(redis):
    async with redis.subscribe("news") as messages:
        found = []
        for i in range(20):
            waiting = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            if not waiting.cancelled():  # it had its message already
                found.append(waiting.result().data)
            await redis.publish("news", i)
        while len(found) < 20:
            found.append((await anext(messages)).data)
        assert found == list(range(20))


async def test_closing_the_provider_ends_the_iteration(make):
    redis = make()
    await redis.connect()
    async with redis.subscribe("news") as messages:
        await redis.publish("news", 1)

        async def listen():
            return [message.data async for message in messages]

        task = asyncio.ensure_future(listen())
        await asyncio.sleep(0)
        await redis.close()
        assert await task in ([1], [])
        with pytest.raises(StopAsyncIteration):
            await anext(messages)
    with pytest.raises(ConnectionFailed, match="not open"):
        redis.subscribe("news")


async def test_what_cannot_be_subscribed_says_why(make, server):
    server.command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "+@all", "resetchannels", "&heard")
    try:
        async with make(username="deaf", password="pw") as redis, redis.subscribe("heard") as messages:
            with pytest.raises(QueryRejected, match="may not do that"):
                async with redis.subscribe("secret"):
                    pass
            await redis.publish("heard", 1)
            assert (await anext(messages)).data == 1
            with pytest.raises(ConfigurationError, match="name a channel"):
                redis.subscribe()
    finally:
        server.command("ACL", "DELUSER", "deaf")


async def test_a_server_that_is_not_there_is_said_on_entering(make, proxy):
    async with make(port=proxy.port, connect_timeout=0.5) as redis:
        proxy.refuse()
        with pytest.raises(ConnectionFailed) as caught:
            async with redis.subscribe("news"):
                pass
        assert caught.value.retry == "safe"
        proxy.refuse(refusing=False)
        async with redis.subscribe("news") as messages:
            await redis.publish("news", 1)
            assert (await anext(messages)).data == 1

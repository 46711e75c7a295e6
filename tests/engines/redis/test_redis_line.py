"""One connection for everybody: what happens when it freezes, breaks, or its callers go away."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from tests.waiting import until

from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    DatavernError,
    OutcomeUnknown,
    PoolTimeout,
    QueryRejected,
)
from datavern.engines.redis.provider import RedisProvider
from datavern.engines.redis.wire import Wire, pack
from datavern.testing.proxy import TCPProxy
from datavern.testing.valkey import ValkeyServer


@pytest.fixture
def proxy(server):
    with TCPProxy("127.0.0.1", server.port) as proxy:
        yield proxy


def line_of(redis):
    return redis._router._line


async def test_the_commands_of_one_turn_go_out_in_one_write(redis, monkeypatch):
    writes = []
    line = line_of(redis)
    transport = line.wire.transport

    class Counting:
        def __getattr__(self, name):
            return getattr(transport, name)

        def write(self, data):
            writes.append(data)
            transport.write(data)

    line.wire.transport = Counting()
    await redis.get_many([f"k{i}" for i in range(50)])
    await redis.get_many([f"k{i}" for i in range(50)])
    assert len(writes) <= 3  # the very first command goes at once: nobody could know of the others
    assert writes[-1].count(b"GET") == 50


async def test_replies_go_to_whom_they_belong(redis):
    async def work(n):
        for i in range(100):
            await redis.set(f"k{n}", [n, i])
            assert await redis.get(f"k{n}") == [n, i]

    await asyncio.gather(*(work(n) for n in range(50)))
    assert redis.stats().created == 1


async def test_cancellations_at_random(redis, faults_long):
    """Whoever is left gets its own reply, nothing is lost or mixed up, and nothing hangs."""
    chance = random.Random(4)
    await redis.set_many({f"k{i}": i for i in range(100)})
    cancelled = answered = rounds = 0

    async def call(i):
        if i % 3:
            return await redis.get(f"k{i % 100}")
        await redis.set(f"k{i % 100}", i % 100)
        return await redis.get(f"k{i % 100}")

    while cancelled < (10_000 if faults_long else 2000):
        tasks = [asyncio.create_task(call(i)) for i in range(200)]
        victims = chance.sample(tasks, 150)
        for at in range(0, 150, 50):
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            for victim in victims[at : at + 50]:
                victim.cancel()
        for i, result in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            if isinstance(result, asyncio.CancelledError):
                cancelled += 1
            else:
                assert result == i % 100
                answered += 1
        rounds += 1
    assert cancelled + answered == rounds * 200
    assert answered
    assert await redis.get("k7") == 7
    assert redis.stats().created == 1
    assert not line_of(redis).wire.flying


async def test_a_call_that_is_cancelled_before_it_is_sent_is_not_sent(redis):
    await redis.get_many(["a", "b", "c"])  # more than one a turn: what comes next waits for its turn
    first, second = (asyncio.ensure_future(redis.set(k, 1)) for k in ("a", "b"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([first, second])
    assert second.cancelled()
    assert await redis.exists("a", "b") == 1


async def test_a_frozen_socket_ends_every_call_at_its_deadline(make, proxy):
    async with make(port=proxy.port, timeout=0.3, connect_timeout=0.3) as redis:
        await redis.set("k", 1)
        proxy.freeze()
        calls = [redis.get("k"), redis.set("k", 2), redis.incr("n"), redis.get("k")]
        read, write, count, again = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(read, ConnectionFailed)
        assert read.retry == again.retry == "safe"
        assert isinstance(write, OutcomeUnknown)
        assert isinstance(count, OutcomeUnknown)
        assert write.retry == "never"
        assert redis.stats().discarded == 1
        with pytest.raises(ConnectionFailed, match="in time") as caught:
            await redis.set("k", 3)  # was never sent: no connection can be made
        assert caught.value.retry == "safe"
        proxy.thaw()
        with contextlib.suppress(ConnectionFailed):  # an attempt to connect may just be meeting its own deadline
            await redis.get("k")
        assert await redis.get("k") in {1, 2}
        await redis.set("k", 4)
        assert await redis.get("k") == 4


async def test_a_connection_that_a_firewall_forgot(make, proxy):
    """Only what was open is frozen: one call meets its deadline, and the next has a new connection."""
    async with make(port=proxy.port, timeout=0.5) as redis:
        await redis.set("k", 1)
        proxy.freeze(newcomers=False)
        with pytest.raises(ConnectionFailed):
            await redis.get("k")
        for _ in range(20):
            assert await redis.get("k") == 1
        assert redis.stats().created == 2


@pytest.mark.parametrize("moment", ["before", "after", "midway"])
async def test_a_connection_that_breaks_at_the_worst_moment(make, proxy, moment):
    async with make(port=proxy.port) as redis:
        await redis.set("k", "blåbær")
        proxy.strike(b"GET", moment)
        with pytest.raises(ConnectionFailed) as caught:
            await redis.get("k")
        assert caught.value.retry == "safe"
        proxy.strike(b"fjellrev", moment)
        with pytest.raises(OutcomeUnknown):
            await redis.set("k", "fjellrev")
        assert await redis.get("k") == ("blåbær" if moment == "before" else "fjellrev")
        assert proxy.struck == 2


async def test_a_ledger_through_a_bad_network(make, proxy, faults_long):
    """What was acknowledged was done, what was denied was not, and nothing was done twice."""
    dice = random.Random(3)
    acknowledged, unknown, over = set(), set(), False
    async with make(port=proxy.port) as redis:

        async def write(first):
            key = first
            while not over:
                key += 10
                try:
                    assert await redis.incr(f"k{key}") == 1, "twice"
                    acknowledged.add(key)
                except OutcomeUnknown:
                    unknown.add(key)
                except ConnectionFailed:
                    assert not await again(lambda key=key: redis.exists(f"k{key}")), "denied, and done"

        async def again(call):
            while True:
                with contextlib.suppress(ConnectionFailed):
                    return await call()

        tasks = [asyncio.ensure_future(write(n)) for n in range(10)]
        for _ in range(500 if faults_long else 25):
            goal = len(acknowledged) + len(unknown) + dice.randrange(1, 30)
            await until(lambda goal=goal: len(acknowledged) + len(unknown) >= goal)
            if dice.random() < 0.5:
                await asyncio.to_thread(dice.choice([proxy.cut, proxy.reset]))
            else:
                proxy.strike(b"INCR", dice.choice(["before", "after", "midway"]))
        over = True
        await asyncio.gather(*tasks)
        assert unknown
        for key in acknowledged:
            assert await redis.get(f"k{key}") == 1
        for key in unknown:
            assert await redis.get(f"k{key}") in {None, 1}, "twice"


async def test_later_calls_keep_their_own_deadline(make, proxy):
    """A connection that met one deadline takes nothing new, and what waits on it is still answered."""
    async with make(port=proxy.port, timeout=1.0) as redis:
        await redis.set("k", 1)
        proxy.freeze()
        early = asyncio.ensure_future(redis.get("k"))
        await asyncio.sleep(0.6)
        late = asyncio.ensure_future(redis.get("k"))
        with pytest.raises(ConnectionFailed):
            await early
        proxy.thaw()
        assert await late == 1
        assert await redis.get("k") == 1
        assert redis.stats().created == 2


async def test_calls_whose_callers_are_gone_still_unmask_a_frozen_socket(make, proxy):
    async with make(port=proxy.port, timeout=0.2) as redis:
        await redis.set("k", 1)
        proxy.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await redis.get("k")
        await until(lambda: redis.stats().discarded)
        proxy.thaw()
        assert await redis.get("k") == 1


async def test_a_broken_connection_fails_what_was_sent_and_the_next_call_has_a_new_one(make, proxy):
    async with make(port=proxy.port) as redis:
        await redis.set("k", 1)
        proxy.freeze()
        calls = [asyncio.ensure_future(c) for c in (redis.get("k"), redis.set("k", 2), redis.delete("k"))]
        await until(lambda: proxy.held)
        proxy.cut()
        proxy.thaw()
        read, write, delete = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(read, ConnectionFailed)
        assert isinstance(write, OutcomeUnknown)
        assert isinstance(delete, OutcomeUnknown)
        assert await redis.get("k") == 1
        assert redis.stats().created == 2


async def test_an_idle_connection_that_broke_costs_no_call(make, proxy):
    async with make(port=proxy.port) as redis:
        for _ in range(5):
            await redis.set("k", 1)
            proxy.cut()
            await until(lambda: not redis.stats().size)
        assert redis.stats().created == 5


async def test_what_was_never_sent_is_sent_on_the_next_connection(make, proxy):
    """While a connection is being made, calls wait for it; none is lost, none is sent twice."""
    async with make(port=proxy.port) as redis:
        proxy.cut()
        await until(lambda: not redis.stats().size)
        counts = await asyncio.gather(*(redis.incr("n") for _ in range(100)))
        assert sorted(counts) == list(range(1, 101))
        assert redis.stats().created == 2


async def test_a_socket_that_takes_no_more_leaves_the_rest_unsent(make, proxy):
    """What did not fit into a frozen socket is known not to be sent, and is said to be safe to try again."""
    async with make(port=proxy.port, timeout=0.5, connect_timeout=0.3) as redis:
        await redis.set("k", 1)
        proxy.freeze()
        results = await asyncio.gather(
            *(redis.set(f"k{i}", b"x" * 1_000_000) for i in range(30)), return_exceptions=True
        )
        unknown = [r for r in results if isinstance(r, OutcomeUnknown)]
        unsent = [r for r in results if isinstance(r, ConnectionFailed)]
        assert len(unknown) + len(unsent) == 30
        assert unknown
        assert unsent
        assert {r.retry for r in unsent} == {"safe"}
        # Whatever was said to be unsent is not there, and what is there was said to be unknown.
        proxy.cut()
        proxy.thaw()
        with contextlib.suppress(ConnectionFailed):  # a connection that was being made was cut too
            await redis.get("k")
        there = await redis.get_many([f"k{i}" for i in range(30)])
        assert all(value is None for value, r in zip(there, results, strict=True) if isinstance(r, ConnectionFailed))


async def test_nothing_listens_and_then_something_does(make, server):
    with TCPProxy("127.0.0.1", server.port) as proxy:
        async with make(port=proxy.port) as redis:
            proxy.refuse()
            proxy.cut()
            results = await asyncio.gather(*(redis.get("k") for _ in range(10)), return_exceptions=True)
            assert all(isinstance(r, ConnectionFailed) and r.retry == "safe" for r in results)
            assert len({id(r) for r in results}) == 10  # each has an error of its own
            proxy.refuse(refusing=False)
            assert await redis.get("k") is None


async def test_a_bounded_number_of_calls_waits(make, proxy):
    async with make(port=proxy.port, max_pending=10, timeout=0.3) as redis:
        await redis.set("k", 1)
        proxy.freeze()
        results = await asyncio.gather(*(redis.get("k") for _ in range(15)), return_exceptions=True)
        assert sum(isinstance(r, PoolTimeout) for r in results) == 5
        assert all(r.retry == "safe" for r in results)
        assert redis.stats().timeouts == 5
        proxy.thaw()


async def test_an_idle_connection_is_asked_for_a_sign_of_life(make, proxy):
    async with make(port=proxy.port, keepalive=0.05, timeout=0.2) as redis:
        sent = redis.stats().acquired
        await until(lambda: redis.stats().acquired >= sent + 2)
        assert redis.stats().discarded == 0
        proxy.freeze()
        await until(lambda: redis.stats().discarded)  # found without a call
        proxy.thaw()
        assert await redis.get("k") is None


async def test_kill_nine_and_a_restart(tmp_path):
    """Every count that was acknowledged is there afterwards; what is unknown happened or not, and never twice."""
    with ValkeyServer(durable=True) as server:
        async with RedisProvider(port=server.port, timeout=2.0) as redis:
            acknowledged = unknown = 0
            retries = set()
            done = asyncio.Event()

            async def count():
                nonlocal acknowledged, unknown
                while not done.is_set():
                    try:
                        await redis.incr("n")
                        acknowledged += 1
                    except OutcomeUnknown:
                        unknown += 1
                    except ConnectionFailed as error:
                        retries.add(error.retry)

            tasks = [asyncio.create_task(count()) for _ in range(20)]
            for _ in range(3):
                target = acknowledged + 200
                await until(lambda target=target: acknowledged >= target)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
            target = acknowledged + 200
            await until(lambda: acknowledged >= target)
            done.set()
            await asyncio.gather(*tasks)
            assert acknowledged <= await redis.counter("n") <= acknowledged + unknown
            assert retries <= {"safe"}


async def test_closing_waits_for_what_is_due_and_never_for_a_frozen_server(make, proxy):
    redis = make(port=proxy.port)
    await redis.connect()
    call = asyncio.ensure_future(redis.incr("n"))
    await asyncio.sleep(0)
    await redis.close()
    assert await call == 1
    await redis.close()
    await redis.connect()
    proxy.freeze()
    call = asyncio.ensure_future(redis.incr("n"))
    await asyncio.sleep(0.01)
    await redis.close()
    with pytest.raises(OutcomeUnknown):
        await call
    proxy.thaw()
    for later in (redis.get("k"), redis.set("k", 1)):
        with pytest.raises(ConnectionFailed, match="not open") as caught:
            await later
        assert caught.value.retry == "safe"
    assert (await redis.health()).status == "unhealthy"


async def test_a_provider_opens_again_after_it_was_closed(make):
    redis = make()
    for i in range(3):
        async with redis:
            await redis.connect()
            await redis.set("k", i)
            assert await redis.get("k") == i


async def test_a_server_that_became_a_replica_is_let_go(server, make):
    with ValkeyServer() as other:
        async with RedisProvider(port=other.port) as redis:
            await redis.set("k", 1)
            other.command("REPLICAOF", "127.0.0.1", str(server.port))
            with pytest.raises(ConnectionFailed, match="takes no writes") as caught:
                await redis.set("k", 2)
            assert (caught.value.code, caught.value.retry) == ("READONLY", "safe")
            assert redis.stats().generation == 1
            assert (await redis.health()).role == "secondary"
            other.command("REPLICAOF", "NO", "ONE")
            await redis.set("k", 3)
            assert (await redis.health()).role == "primary"
            assert redis.stats().created == 2


class Owner:
    name = "x"

    def __init__(self):
        self.gone = []

    def lost(self, wire):
        self.gone.append(wire)

    def outdated(self, wire): ...
    def resumed(self, wire): ...
    def pushed(self, wire, message): ...
    def refused(self, wire, error):  # noqa: ARG002  (as its owner is told)
        wire.abort()


@pytest.mark.parametrize(
    "noise", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+and more\r\n", b"$-5\r\n", b"*9999999999\r\n"]
)
async def test_what_is_not_the_protocol_ends_the_connection(noise):
    async def answer(reader, writer):
        await reader.read(100)
        writer.write(noise)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        owner = Owner()
        host, port = listener.sockets[0].getsockname()
        _, wire = await asyncio.get_running_loop().create_connection(lambda: Wire(owner), host, port)
        (reply,) = wire.ask((b"PING",))
        await asyncio.wait([reply])
        await until(lambda: owner.gone)
        if noise.startswith(b"+OK"):  # an answer, and then one to nothing
            assert reply.result() == b"OK"
        else:
            assert isinstance(reply.exception(), DatavernError)


async def test_commands_of_a_transaction_are_not_mixed_with_others(redis):
    async def alone(n):
        async with redis.pipeline(transaction=True) as pipe:
            first, second = await pipe.incr("n").incr("n").execute()
            assert second == first + 1

    async def others():
        for _ in range(200):
            await redis.incr("n")

    await asyncio.gather(others(), *(alone(n) for n in range(100)))


async def test_why_a_transaction_was_refused(redis):
    with pytest.raises(QueryRejected, match="too many or too few arguments") as caught:
        await redis._transact([(b"SET", b"k", b"secret"), (b"GET",)], b"k")
    assert caught.value.code == "ERR"
    assert await redis.exists("k") == 0
    assert await redis.set("k", 1)


async def test_everything_else_goes_through_redis_py(redis):
    assert await redis.client.hset("h", mapping={"a": "1"}) == 1
    assert await redis.client.hgetall("h") in ({b"a": b"1"}, {"a": "1"})
    await redis.set("k", 1)
    assert await redis.client.get("k") == b"1"


@pytest.mark.parametrize(
    "command",
    [("SUBSCRIBE", "c"), ("BLPOP", "k", 0), ("multi",), ("SELECT", 1), ("XREAD", "block", 0, "STREAMS", "s", "0"),
     ("CLIENT", "REPLY", "OFF"), ("MONITOR",), (), (b"GET",), ("GET", None), ("GET", True)],
)  # fmt: skip
async def test_what_would_disturb_the_others_is_refused(redis, command):
    with pytest.raises(ConfigurationError):
        await redis.execute(*command)
    assert await redis.set("k", 1)


async def test_any_command(redis):
    assert await redis.execute("HSET", "h", "field", b"\x00", "n", 1.5) == 2
    assert await redis.execute("HGETALL", "h", read=True) == {b"field": b"\x00", b"n": b"1.5"}
    assert await redis.execute("EVAL", "return {1, redis.error_reply('ERR x')}", 0) is not None


async def test_a_packed_command_is_what_the_protocol_says():
    assert pack((b"SET", "æ", 1)) == b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa6\r\n$1\r\n1\r\n"

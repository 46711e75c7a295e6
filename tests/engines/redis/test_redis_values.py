"""Values by key: what goes in comes back, lives as long as it may, and says clearly what it cannot be."""

from __future__ import annotations

import datetime as dt
import json
import warnings
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datavern.contracts.errors import ConfigurationError, QueryRejected
from datavern.engines.redis.retention import RetentionCut
from datavern.engines.redis.values import from_clear, to_clear

VALUES = [
    "", "text", "æøå ÆØÅ 𝄞", "\0", "null", "123", '"', b"", b"\x00\xff", "æ".encode(), 0, -1, 2**80, True, False, 0.1,
    -0.0, 1e300, float("inf"), [], {}, [1, "a", None, True, 2.5, {"æ": [None]}], {"user": "u1", "": ""},
    Decimal("1.10"),
    dt.date(2026, 11, 23), dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC), UUID(int=7),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_comes_back_as_it_went_in(redis, sealed, value):
    for provider in (redis, sealed):
        assert await provider.set("k", value) is True
        found = await provider.get("k")
        assert found == value
        assert type(found) is type(value)


TEXT = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(JSON.filter(lambda v: v is not None) | st.binary())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_value_is_read_as_it_was_written(value):
    found = from_clear(to_clear(value))
    assert found == value
    assert type(found) is type(value)


@given(st.binary())
@settings(max_examples=300, deadline=None)
def test_what_another_program_wrote_is_read_without_an_error(raw):
    found = from_clear(raw)
    assert found is None or type(found) in {bytes, str, int, float, bool, list, dict} or raw[:1] == b"\0"


async def test_values_in_the_clear_are_json(redis):
    await redis.set("k", {"user": "å", "n": 1})
    assert json.loads(await redis.execute("GET", "k", read=True)) == {"user": "å", "n": 1}
    await redis.execute("SET", "foreign", "not json")
    assert await redis.get("foreign") == b"not json"


@pytest.mark.parametrize("key", ["", "æøå", b"", bytes(range(256)), "a b\r\nc", "{tag}x"], ids=repr)
async def test_a_key_may_be_any_text_or_bytes(redis, sealed, key):
    for provider in (redis, sealed):
        await provider.set(key, "value")
        assert await provider.get(key) == "value"
        assert await provider.exists(key) == 1
        assert [k async for k in provider.scan()] == [key.decode() if isinstance(key, bytes) and key.isascii() else key]
        assert await provider.delete(key) == 1
        assert await provider.get(key) is None


@pytest.mark.parametrize("value", [b"x" * 10_000_000, "å" * 5_000_000], ids=["bytes", "text"])
async def test_ten_megabytes(redis, sealed, value):
    for provider in (redis, sealed):
        await provider.set("large", value)
        assert await provider.get("large") == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        pytest.param(object(), id="object"),
        {1: 2},
        (1, 2),
        {"a": {1, 2}},
        "\ud800",
        {"a": "\ud800"},
        [float("nan")],
    ],
    ids=repr,
)
async def test_what_would_not_come_back_is_refused(redis, sealed, value):
    for provider in (redis, sealed):
        with pytest.raises(ConfigurationError) as caught:
            await provider.set("k", value)
        assert caught.value.__context__ is None
        assert await provider.exists("k") == 0


@pytest.mark.parametrize("key", [None, 1, "\ud800secret", ["k"]], ids=repr)
async def test_what_is_no_key_is_refused(redis, key):
    for call in (redis.get(key), redis.set(key, 1), redis.delete(key), redis.publish(key, 1), redis.incr(key)):
        with pytest.raises(ConfigurationError) as caught:
            await call
        assert "secret" not in str(caught.value)
        assert caught.value.__context__ is None


async def test_conditions(redis):
    assert await redis.set("k", 1, xx=True) is False
    assert await redis.set("k", 1, nx=True) is True
    assert await redis.set("k", 2, nx=True) is False
    assert await redis.set("k", 3, xx=True) is True
    assert await redis.get("k") == 3
    with pytest.raises(ConfigurationError, match="exclude each other"):
        await redis.set("k", 1, nx=True, xx=True)


async def test_several_at_once(redis):
    await redis.set_many({f"k{i}": i for i in range(100)}, ex=60)
    assert await redis.get_many([f"k{i}" for i in range(101)]) == [*range(100), None]
    assert await redis.exists("k1", "k2", "k2", "none") == 3
    assert await redis.delete("k1", "k2", "none") == 2
    assert await redis.delete() == 0


async def test_lives(redis):
    await redis.set("k", 1)
    assert await redis.ttl("k") == -1
    assert await redis.ttl("none") == -2
    await redis.set("k", 1, ex=dt.timedelta(hours=1))
    assert 3590 <= await redis.ttl("k") <= 3600
    assert await redis.expire("k", 60) is True
    assert 50 <= await redis.ttl("k") <= 60
    assert await redis.expire("none", 60) is False
    assert await redis.persist("k") is True
    assert await redis.ttl("k") == -1
    await redis.set("short", 1, ex=0.001)
    while await redis.exists("short"):
        pass


@pytest.mark.parametrize("ex", [0, -1, float("nan"), float("inf"), 1e12, "60", True], ids=repr)
async def test_what_is_no_time_to_live_is_refused(redis, ex):
    for call in (redis.set("k", "value", ex=ex), redis.expire("k", ex)):
        with pytest.raises(ConfigurationError, match="how long a key lives"):
            await call
    assert await redis.exists("k") == 0


async def test_counters(redis, sealed):
    for provider in (redis, sealed):
        await provider.delete("hits")
        assert await provider.counter("hits") == 0
        assert await provider.incr("hits") == 1
        assert await provider.incr("hits", 9) == 10
        assert await provider.decr("hits", 3) == 7
        assert await provider.counter("hits") == 7
    await redis.set("text", "secret")
    with pytest.raises(QueryRejected, match="not a whole number") as caught:
        await redis.incr("text")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="holds a value"):
        await redis.counter("text")
    with pytest.raises(ConfigurationError, match="whole numbers"):
        await redis.incr("hits", 1.5)


# ---- retention -------------------------------------------------------------------------------------------------------


async def test_no_key_outlives_the_retention(make):
    async with make(retention="30d") as redis:
        cap = 30 * 86_400
        await redis.set("k", 1)
        assert cap - 10 <= await redis.ttl("k") <= cap
        await redis.set("k", 1, ex=60)
        assert await redis.ttl("k") <= 60
        with pytest.warns(RetentionCut, match="60 days.*cuts it to.*30 days") as told:
            await redis.set("k", 1, ex=dt.timedelta(days=60))
        assert told[0].filename == __file__
        assert cap - 10 <= await redis.ttl("k") <= cap
        with pytest.warns(RetentionCut):
            assert await redis.expire("k", cap * 2) is True
        assert await redis.ttl("k") <= cap
        await redis.incr("count")
        assert 0 < await redis.ttl("count") <= cap
        await redis.expire("count", 60)
        await redis.incr("count")
        assert await redis.ttl("count") <= 60
        await redis.xadd("stream", {"a": 1})
        assert 0 < await redis.ttl("stream") <= cap
        with pytest.raises(ConfigurationError, match="persist"):
            await redis.persist("k")
        async with redis.pipeline() as pipe:
            await pipe.set("piped", 1).incr("piped-count").execute()
        assert await redis.ttl("piped") > 0
        assert await redis.ttl("piped-count") > 0


async def test_a_warning_that_is_an_error_leaves_nothing_behind(make):
    async with make(retention=60) as redis:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RetentionCut):
                await redis.set("k", 1, ex=61)
        assert await redis.exists("k") == 0


async def test_keys_without_an_expiry_are_found(make):
    async with make() as other, make(retention="1h") as redis:
        for i in range(1200):
            await redis.set(f"good{i}", i)
        await other.set("for ever", 1)
        await other.set("too long", 1, ex=7200)
        await other.execute("SADD", "set", "member")
        report = await redis.audit_retention()
        assert (report.keys, report.without, report.longer, report.fixed, report.ok) == (1203, 2, 1, 0, False)
        assert set(report.examples) == {"for ever", "too long", "set"}
        assert "for ever" not in repr(report)
        assert (await redis.audit_retention(fix=True)).fixed == 3
        assert (await redis.audit_retention()).ok
        with pytest.raises(ConfigurationError, match="no retention"):
            await other.audit_retention(fix=True)


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "new", "v"),
        ("SET", "new", "v", "EX", "999999"),
        ("MSET", "new", "v", "other", "v"),
        ("HSET", "new", "f", "v"),
        ("LPUSH", "new", "v"),
        ("RENAME", "forever", "new"),
        ("COPY", "forever", "new"),
        ("PERSIST", "kept"),
        ("EXPIRE", "kept", "999999"),
        ("GETEX", "kept", "PERSIST"),
        ("RESTORE", "new", "0", "dumped"),
        ("EVAL", "redis.call('SET', KEYS[1], 'v')", "1", "new"),
        ("SORT", "list", "STORE", "new"),
    ],
    ids=" ".join,
)
async def test_no_command_leads_around_the_retention(make, command):
    async with make() as other, make(retention="1h") as redis:
        await other.set("forever", 1)  # by a program that knows of no retention
        await other.execute("RPUSH", "list", "1", "2")
        dumped = await other.execute("DUMP", "forever")
        await redis.set("kept", 1)
        await redis.execute(*(dumped if word == "dumped" else word for word in command))
        written = [k for k in ("new", "other", "kept") if await redis.exists(k)]
        assert written
        for key in written:
            assert 3590 <= await redis.ttl(key) <= 3600


async def test_a_command_that_changes_nothing_stays_as_it_is_under_a_retention(make):
    async with make() as other, make(retention="1h") as redis:
        await other.set("forever", "v")
        assert await redis.execute("GET", "forever") == b'"v"'
        assert await redis.execute("STRLEN", "forever", read=True) == 3
        assert await redis.ttl("forever") == -1  # audit_retention finds it; reading does not touch it
        assert await redis.execute("PING") == b"PONG"
        await redis.set("short", 1, ex=10)
        await redis.execute("APPEND", "short", "2")
        assert await redis.ttl("short") <= 10
        with pytest.raises(ConfigurationError, match="GETDEL changes keys: leave read=True out"):
            await redis.execute("GETDEL", "forever", read=True)
        with pytest.raises(QueryRejected):
            await redis.execute("NONSENSE", "forever")
        with pytest.raises(QueryRejected):
            await redis.execute("HSET", "forever", "f", "v")  # of another type: nothing of the transaction counts
        assert await redis.ttl("forever") in {-1, 3600, 3599}


async def test_a_user_who_may_not_ask_what_a_command_writes_is_told(make, server):
    server.command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-command")
    async with make(username="narrow", password="pw", retention="1h") as redis:
        with pytest.raises(QueryRejected, match="NOPERM"):
            await redis.execute("SET", "k", "v")
        assert await redis.get("k") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 2_592_000), ("1d12h", 129_600), ("90min", 5400), ("2w", 1_209_600), (60, 60), ("1s", 1)],
)
async def test_a_retention_is_a_length_of_time(make, text, seconds):
    assert make(retention=text).settings.retention == seconds


@pytest.mark.parametrize("text", ["", "0d", "18m", "5y", "30", -1, 0, "d30", "1.5h", True])
async def test_what_is_no_length_of_time_is_refused(make, text):
    with pytest.raises(ConfigurationError, match=r"cache\.retention: expected how long"):
        make(retention=text)


async def test_a_count_without_its_expiry_is_an_error(make, server):
    server.command("ACL", "SETUSER", "counter", "on", ">pw", "~*", "&*", "+@all", "-pexpire")
    async with make(username="counter", password="pw", retention="1h") as redis:
        with pytest.raises(QueryRejected) as caught:
            await redis.incr("hits")
        assert caught.value.code == "NOPERM"
        async with redis.pipeline(transaction=True) as pipe:
            with pytest.raises(QueryRejected):
                await pipe.incr("hits").execute()
        assert await redis.exists("hits") == 0
    server.command("ACL", "DELUSER", "counter")


# ---- pipelines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transaction", [False, True])
async def test_a_pipeline_gives_its_results_in_order(redis, sealed, transaction):
    for provider in (redis, sealed):
        async with provider.pipeline(transaction=transaction) as pipe:
            pipe.set("a", {"x": "å"}).get("a").incr("pn").decr("pn", 5).exists("a").ttl("a").expire("a", 10).delete("a")
            assert len(pipe) == 8
            results = await pipe.execute()
            assert results[:6] == [True, {"x": "å"}, 1, -4, 1, -1]
            assert results[6:] == [True, 1]
            assert await pipe.execute() == []
            pipe.set("never", 1)
        assert await provider.exists("never") == 0
        await provider.delete("pn")


@pytest.mark.parametrize("transaction", [False, True])
async def test_an_error_in_a_pipeline_is_its_own(redis, transaction):
    await redis.execute("SADD", "s", "member")
    async with redis.pipeline(transaction=transaction) as pipe:
        results = await pipe.set("a", 1).get("s").set("b", 2).execute(raise_on_error=False)
        assert results[0] is True
        assert isinstance(results[1], QueryRejected)
        assert results[1].code == "WRONGTYPE"
        assert results[2] is True
        with pytest.raises(QueryRejected, match="another kind of value"):
            await pipe.get("s").execute()


async def test_nothing_of_a_pipeline_is_sent_when_a_part_is_refused(redis):
    async with redis.pipeline() as pipe:
        with pytest.raises(ConfigurationError):
            await pipe.set("a", 1).set("b", object()).execute()
    assert await redis.exists("a", "b") == 0

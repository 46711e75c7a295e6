"""What lies in the keys, a sample of it, and the personal data in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datavern import DataMap, Dataset
from datavern.contracts.capabilities import needs
from datavern.engines.redis.provider import RedisProvider
from datavern.engines.redis.samples import family
from datavern.privacy.scanning.scanner import scan
from datavern.testing.people import people


def test_families() -> None:
    assert family("user:session:u1") == "user:session:*"
    assert family("config") == "config"
    assert family("mail:kari@example.no:box") == "mail:*:box"


async def test_every_type_of_value(redis: RedisProvider) -> None:
    client = redis.client
    for n, person in enumerate(people(30)):
        await redis.set(f"profile:{n}", {"who": {"mail": person.email}, "tags": ["a"]})
        await client.hset(f"customer:{n}", mapping={"c1": person.personal_number})
        await client.rpush(f"recent:{n}", person.email)
        await client.sadd(f"known:{n}", person.email)
        await client.zadd(f"score:{n}", {person.email: n})
        await client.set(f"by-number:{person.personal_number}", "1")
    await client.xadd("log", {"x": "y"})
    samples = needs(redis, "samples")
    assert await samples.stores() == [
        "by-number:*", "customer:*", "known:*", "log", "profile:*", "recent:*", "score:*",
    ]  # fmt: skip
    found = await scan({"cache": redis}, None)
    assert {(f.store, f.column, f.seems.kind) for f in found.findings} == {
        ("by-number:*", "key", "fodselsnummer"), ("customer:*", "value.c1", "fodselsnummer"),
        ("known:*", "value", "email"), ("profile:*", "value.who.mail", "email"), ("recent:*", "value", "email"),
        ("score:*", "value", "email"),
    }  # fmt: skip
    assert found.skipped == ()


async def test_across_a_cluster_and_an_odd_name(clustered: RedisProvider) -> None:
    for n, person in enumerate(people(60)):
        await clustered.set(f"p[{n}]:*?\\{n}", person.email)
    found = await scan({"cache": clustered}, None)
    assert sum(f.seems.values for f in found.findings) == 60


async def test_what_is_sealed_or_named_shows_nothing(sealed: RedisProvider, make: Callable[..., Any]) -> None:
    for person in people(20):
        await sealed.set(f"session:{person.id}", {"mail": person.email}, subject=person.id)
    assert (await scan({"cache": sealed}, None)).findings == ()
    async with make() as clear:
        await clear.client.flushall()
        for person in people(20):
            await clear.set(f"session:{person.id}", {"mail": person.email})
        assert len((await scan({"cache": clear}, None)).findings) == 1
        named = DataMap([Dataset("sessions", database="cache", key="session:{subject}", erasure="delete")])
        assert (await scan({"cache": clear}, named)).findings == ()


async def test_an_empty_server(redis: RedisProvider) -> None:
    assert await needs(redis, "samples").stores() == []
    assert await needs(redis, "samples").sample("nothing:*", 10) == {}

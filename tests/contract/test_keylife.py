"""The life of keys, on every engine: no value is written under a key after its end, in any process."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tests.waiting import waits

from datavern.contracts.errors import KeyErased
from datavern.crypto.life import KeyLife


@pytest.fixture
async def life(provider: Any) -> KeyLife:
    life = KeyLife(provider)
    await life.open()
    await life.open()
    return life


@pytest.fixture
async def elsewhere(database: Any, life: KeyLife):
    """Another process's provider and its life of keys."""
    async with database.provider(name="elsewhere") as provider:
        other = KeyLife(provider)
        await other.open()
        yield provider, other


async def end(provider: Any, life: KeyLife, *key_ids: bytes) -> None:
    async with provider.transaction() as tx:
        await life.end(tx, key_ids)


async def hold(provider: Any, life: KeyLife, *key_ids: bytes) -> None:
    async with provider.transaction() as tx:
        await life.hold(tx, key_ids)


async def rows(provider: Any) -> dict[bytes, int]:
    return {bytes(row[0]): row[1] for row in await provider.query("SELECT key_id, dead FROM datavern_key_life")}


async def test_a_key_is_registered_once_and_held_from_then_on(life, provider):
    key = os.urandom(16)
    await hold(provider, life, key)
    await hold(provider, life, key, key)
    assert await rows(provider) == {key: 0}
    await hold(provider, life)
    assert await rows(provider) == {key: 0}


async def test_a_known_key_costs_one_statement(life, provider, monkeypatch):
    key = os.urandom(16)
    await hold(provider, life, key)
    async with provider.transaction() as tx:
        asked = []
        for name in ("query", "query_one", "query_value", "execute", "execute_many"):

            def counted(self, sql, *rest, real=getattr(type(tx), name)):  # noqa: B008  (the method of this turn)
                asked.append(sql)
                return real(self, sql, *rest)

            monkeypatch.setattr(type(tx), name, counted)
        await life.hold(tx, [key])
        assert len(asked) == 1


async def test_after_its_end_nothing_is_written_under_a_key(life, elsewhere, provider):
    key, other = os.urandom(16), os.urandom(16)
    await hold(provider, life, key)
    await end(provider, life, key)
    await end(provider, life, key)
    for who, their in ((provider, life), elsewhere):
        with pytest.raises(KeyErased):
            await hold(who, their, key)
        with pytest.raises(KeyErased):
            await hold(who, their, other, key)
    await hold(provider, life, other)
    assert await rows(provider) == {key: 1, other: 0}


async def test_a_key_that_was_never_used_here_ends_too(life, provider):
    """Another process may have it at hand, and not have written yet."""
    key = os.urandom(16)
    await end(provider, life, key)
    with pytest.raises(KeyErased):
        await hold(provider, life, key)
    assert await rows(provider) == {key: 1}


async def test_an_end_that_rolls_back_is_none(life, provider):
    key = os.urandom(16)
    await hold(provider, life, key)
    with pytest.raises(ZeroDivisionError):
        async with provider.transaction() as tx:
            await life.end(tx, [key])
            1 / 0  # noqa: B018
    await hold(provider, life, key)


async def test_a_registration_that_rolls_back_is_made_again(life, provider):
    key = os.urandom(16)
    with pytest.raises(ZeroDivisionError):
        async with provider.transaction() as tx:
            await life.hold(tx, [key])
            1 / 0  # noqa: B018
    assert await rows(provider) == {}
    await hold(provider, life, key)
    assert await rows(provider) == {key: 0}


async def test_many_keys(life, provider):
    keys = [os.urandom(16) for _ in range(600)]
    await hold(provider, life, *keys[:300])
    await hold(provider, life, *keys)
    await end(provider, life, *keys[::2])
    assert sum((await rows(provider)).values()) == 300
    await hold(provider, life, *keys[1::2])
    with pytest.raises(KeyErased):
        await hold(provider, life, *keys)


async def test_writers_that_register_the_same_keys_at_once(life, elsewhere, provider):
    other, theirs = elsewhere
    keys = [os.urandom(16) for _ in range(20)]
    await asyncio.gather(
        *(hold(provider, life, *keys) for _ in range(4)),
        *(hold(other, theirs, *reversed(keys)) for _ in range(4)),
    )
    assert await rows(provider) == dict.fromkeys(keys, 0)


async def test_of_a_write_and_an_end_at_once_one_sees_the_other(life, elsewhere, provider):
    """Whatever the order: a row that is there was seen by the erasure, or it was never written."""
    other, theirs = elsewhere
    await provider.execute("CREATE TABLE written (n INTEGER)")
    for n in range(15):
        key = os.urandom(16)
        if n % 2:
            await hold(provider, life, key)

        async def write(key=key, n=n) -> bool:
            try:
                async with provider.transaction() as tx:
                    await life.hold(tx, [key])
                    await tx.execute(f"INSERT INTO written (n) VALUES ({n})")
            except KeyErased:
                return False
            return True

        async def erase(key=key, n=n) -> int:
            async with other.transaction() as tx:
                await theirs.end(tx, [key])
                return await tx.execute(f"DELETE FROM written WHERE n = {n}")

        first, second = (write, erase) if n % 3 else (erase, write)
        done = await asyncio.gather(first(), second())
        wrote, erased = done if first is write else reversed(done)
        assert erased == int(wrote)
    assert await provider.query_value("SELECT count(*) FROM written") == 0


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize("known", [True, False], ids=["known key", "new key"])
async def test_the_end_waits_for_a_writer_that_holds_the_key(life, elsewhere, provider, known):
    other, theirs = elsewhere
    key = os.urandom(16)
    if known:
        await hold(provider, life, key)
    await provider.execute("CREATE TABLE written (n INTEGER)")

    async def erase() -> int:
        async with other.transaction() as tx:
            await theirs.end(tx, [key])
            return await tx.execute("DELETE FROM written")

    async with provider.transaction() as tx:
        await life.hold(tx, [key])
        erasing = asyncio.create_task(erase())
        await waits(provider)
        await tx.execute("INSERT INTO written (n) VALUES (1)")
        assert not erasing.done()
    assert await erasing == 1  # what was written meanwhile is seen, and erased
    with pytest.raises(KeyErased):
        await hold(provider, life, key)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize("known", [True, False], ids=["known key", "new key"])
async def test_a_writer_waits_for_an_end_that_is_under_way(life, elsewhere, provider, known):
    other, theirs = elsewhere
    key = os.urandom(16)
    if known:
        await hold(provider, life, key)
    async with other.transaction() as tx:
        await theirs.end(tx, [key])
        writing = asyncio.create_task(hold(provider, life, key))
        await waits(other)
        assert not writing.done()
    with pytest.raises(KeyErased):
        await writing


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_writers_do_not_wait_for_one_another(life, elsewhere, provider):
    other, theirs = elsewhere
    key = os.urandom(16)
    await hold(provider, life, key)
    async with provider.transaction() as tx:
        await life.hold(tx, [key])
        await asyncio.wait_for(hold(other, theirs, key), 10)


async def test_a_transaction_goes_on_after_a_registration_that_somebody_else_made_first(
    life, elsewhere, provider, engine
):
    key = os.urandom(16)
    other, theirs = elsewhere
    await provider.execute("CREATE TABLE written (n INTEGER)")
    if engine == "sqlite":
        await hold(other, theirs, key)
        async with provider.transaction() as tx:
            await life.hold(tx, [key])
            await tx.execute("INSERT INTO written (n) VALUES (1)")
    else:

        async def write() -> None:
            async with provider.transaction() as tx:
                await tx.execute("INSERT INTO written (n) VALUES (1)")
                await life.hold(tx, [key])
                await tx.execute("INSERT INTO written (n) VALUES (2)")

        async with other.transaction() as tx:
            await theirs.hold(tx, [key])
            writing = asyncio.create_task(write())
            await waits(other)
        await writing
    assert await provider.query_value("SELECT count(*) FROM written") == (1 if engine == "sqlite" else 2)

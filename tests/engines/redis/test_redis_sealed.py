"""Sealed values open under their own key, for their own subject, in their own store, and nowhere else."""

from __future__ import annotations

import time

import pytest

from datavern import DatabaseManager, SubjectRequest
from datavern.contracts.errors import ConfigurationError, DecryptionFailed, KeyErased
from datavern.crypto.keyring import Keyring
from datavern.crypto.sealed import DataKey
from datavern.crypto.sealed_values import ValueSealer, key_id, sealed_at
from datavern.engines.redis.provider import RedisProvider


async def raw(redis, key):
    return await redis.execute("GET", key, read=True)


async def put(redis, key, value):
    await redis.execute("SET", key, value)


async def test_the_server_sees_nothing_of_a_value(sealed):
    secret = "hemmelig æøå 13097248022"
    await sealed.set("k", {"number": secret}, subject="u1")
    await sealed.set("shared", secret)
    await sealed.xadd("s", {"field": secret}, subject="u1")
    stream = await sealed.execute("XRANGE", "s", "-", "+", read=True)
    for stored in (await raw(sealed, "k"), await raw(sealed, "shared"), stream[0][1][1]):
        assert secret.encode() not in stored
        assert b"13097248022" not in stored
        assert b"u1" not in stored
    assert (await raw(sealed, "k"))[:1] == b"\x03"
    assert (await raw(sealed, "shared"))[:1] == b"\x04"


@pytest.mark.parametrize("subject", [None, "u1"])
async def test_a_value_does_not_open_under_another_key(sealed, subject):
    await sealed.set("mine", "value", subject=subject)
    await put(sealed, "yours", await raw(sealed, "mine"))
    with pytest.raises(DecryptionFailed):
        await sealed.get("yours")
    assert await sealed.get("mine") == "value"


async def test_a_value_does_not_open_as_another_subjects(sealed):
    await sealed.set("k", "value", subject="u1")
    assert await sealed.get("k", subject="u1") == "value"
    for other in ("u2", "U1", "u1 "):
        with pytest.raises(DecryptionFailed):
            await sealed.get("k", subject=other)
    await sealed.set("nobody's", "value")
    with pytest.raises(DecryptionFailed):
        await sealed.get("nobody's", subject="u1")


async def test_an_id_names_the_same_subject_whatever_its_type(sealed):
    await sealed.set("k", "value", subject=42)
    assert await sealed.get("k", subject="42") == "value"


async def test_a_value_does_not_open_in_another_store(sealed, make, attach):
    await sealed.set("k", "value")
    async with make(name="other", encryption=True) as other:
        attach(other)
        with pytest.raises(DecryptionFailed):
            await other.get("k")


async def test_a_value_does_not_open_as_a_message_or_a_stream(sealed):
    await sealed.set("place", "value")
    stolen = await raw(sealed, "place")
    async with sealed.subscribe("place") as messages:
        await sealed.execute("PUBLISH", "place", stolen)
        await sealed.publish("place", "good")
        with pytest.raises(DecryptionFailed):
            await anext(messages)
        assert (await anext(messages)).data == "good"
    await sealed.execute("XADD", "stream", "*", "", stolen)
    with pytest.raises(DecryptionFailed):
        await sealed.xrange("stream")


async def test_a_changed_byte_is_noticed_wherever_it_is(sealed):
    for subject in (None, "u1"):
        await sealed.set("k", "planted", subject=subject)
        stored = await raw(sealed, "k")
        for at in range(len(stored)):
            await put(sealed, "k", stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
            with pytest.raises(Exception, match="did not open|does not know the key") as caught:
                await sealed.get("k")
            assert "planted" not in str(caught.value)
        for short in (b"", stored[:1], stored[:17], stored[:25], stored[:-1]):
            await put(sealed, "k", short)
            with pytest.raises(DecryptionFailed):
                await sealed.get("k")


@pytest.mark.parametrize("planted", [b'{"user": "admin"}', b"1", b"", b"\x00\x01text", b"\x03" * 60, b"\xff" * 100])
async def test_what_somebody_planted_in_the_clear_is_not_believed(sealed, planted):
    await put(sealed, "k", planted)
    with pytest.raises(Exception, match="did not open|does not know the key"):
        await sealed.get("k")


async def test_an_erased_subjects_values_are_beyond_reach(sealed, keys):
    await sealed.set("k", "value", subject="u1")
    await sealed.set("other", "value", subject="u2")
    await keys.start_erasure("u1")
    with pytest.raises(KeyErased):
        await sealed.set("k", "new", subject="u1")
    await keys.destroy("u1")
    with pytest.raises(KeyErased):
        await sealed.get("k")
    assert await sealed.get("other") == "value"
    await sealed.set("k", "a new life", subject="u1")
    assert await sealed.get("k", subject="u1") == "a new life"


async def test_a_value_older_than_the_retention_is_gone_even_when_it_is_brought_back(make, attach, sealed):
    await sealed.set("k", "old", subject="u1")
    await sealed.xadd("s", {"f": "old"})
    stored = await raw(sealed, "k")
    while time.time() * 1000 < sealed_at(stored) + 20:
        pass
    async with make(encryption=True, retention=0.01) as brief, make(encryption=True, retention=3600) as lasting:
        attach(brief)
        attach(lasting)
        assert await brief.get("k") is None
        assert await brief.xrange("s") == []
        assert await lasting.get("k") == "old"
        assert len(await lasting.xrange("s")) == 1


async def test_the_moment_of_sealing_cannot_be_changed(sealed):
    await sealed.set("k", "old", subject="u1")
    stored = await raw(sealed, "k")
    later = stored[:17] + (int.from_bytes(stored[17:25]) + 10**9).to_bytes(8) + stored[25:]
    await put(sealed, "k", later)
    with pytest.raises(DecryptionFailed):
        await sealed.get("k")


async def test_messages_and_entries_open_again(sealed):
    async with sealed.subscribe("news") as messages:
        await sealed.publish("news", {"type": "alert", "text": "æøå"}, subject="u1")
        assert (await anext(messages)).data == {"type": "alert", "text": "æøå"}
    entry = await sealed.xadd("s", {"a": 1, "b": b"\x00"}, subject="u1")
    assert await sealed.xrange("s") == [(entry, {"a": 1, "b": b"\x00"})]


async def test_fields_of_an_entry_do_not_change_places(sealed):
    await sealed.xadd("s", {"a": "1", "b": "2"})
    ((_, flat),) = await sealed.execute("XRANGE", "s", "-", "+", read=True)
    await sealed.execute("XADD", "swapped", "*", flat[0], flat[3], flat[2], flat[1])
    await sealed.execute("DEL", "s")
    await sealed.execute("RENAME", "swapped", "s")
    with pytest.raises(DecryptionFailed):
        await sealed.xrange("s")


async def test_a_provider_without_keys_says_so(make, redis):
    async with make(encryption=True) as alone:
        for call in (alone.set("k", 1), alone.publish("c", 1), alone.xadd("s", {"f": 1})):
            with pytest.raises(
                ConfigurationError, match="needs keys: put the provider in a DatabaseManager, or give it"
            ):
                await call
        assert await alone.exists("k", "s") == 0
    await redis.set("clear", 1)
    for call in (
        redis.set("k", 1, subject="u1"),
        redis.get("clear", subject="u1"),
        redis.publish("c", 1, subject="u1"),
    ):
        with pytest.raises(ConfigurationError, match="encryption=True"):
            await call


async def test_a_personal_number_is_no_subject(sealed):
    with pytest.raises(ConfigurationError, match="fødselsnummer") as caught:
        await sealed.set("k", 1, subject="13097248022")
    assert "13097248022" not in str(caught.value)


@pytest.mark.parametrize("tag", [None, bytes(32)])
def test_the_format_is_what_the_page_says(tag):
    key = DataKey(bytes(range(16)), "d", tag, bytes(32))
    sealed = ValueSealer("d", "value").seal(key, b"name", "text")
    form, nonce = (b"\x04", 24) if tag is None else (b"\x03", 12)
    assert sealed[:17] == form + bytes(range(16))
    assert key_id(sealed) == key.id
    assert len(sealed) == 25 + nonce + 1 + len("text") + 16
    bound = (
        b"\x00\x01d" + b"\x00\x05value" + sealed[:25] + (b"\x00\x00" if tag is None else b"\x00\x20" + tag)
        + b"\x00\x00\x00\x04name"
    )  # fmt: skip
    assert key.decrypt(sealed[25 : 25 + nonce], sealed[25 + nonce :], bound) == b"\x01text"
    assert ValueSealer("d", "value").open(key, b"name", sealed) == "text"
    for other, name, part in (("message", b"name", b""), ("value", b"nam", b"e"), ("value", b"name", b"x")):
        with pytest.raises(DecryptionFailed):
            ValueSealer("d", other).open(key, name, sealed, part)
    with pytest.raises(ConfigurationError):
        ValueSealer("e", "value").seal(key, b"name", "text")


def test_the_store_is_called_after_the_provider():
    assert RedisProvider(name="cache").dataset == "datavern.redis.cache"


# ---- in a manager ----------------------------------------------------------------------------------------------------


async def test_a_manager_gives_its_keys_and_an_erasure_takes_them(make, tmp_path, sqlite_database):
    url = f"file:{tmp_path / 'ring'}"
    await (await Keyring.create(url)).close()
    databases = {"main": sqlite_database.provider(location="norway"), "cache": make(encryption=True, retention="30d")}
    async with DatabaseManager(databases, keyring=url, ledger="main") as db:
        await db["cache"].set("user:session:u1", {"user": "u1"}, ex=3600, subject="u1")
        await db["cache"].set("user:session:u2", {"user": "u2"}, ex=3600, subject="u2")
        assert await db["cache"].get("user:session:u1") == {"user": "u1"}
        assert (await db.health())["cache"].status == "healthy"
        await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
        with pytest.raises(KeyErased):
            await db["cache"].get("user:session:u1")
        assert await db["cache"].get("user:session:u2") == {"user": "u2"}
    async with make(encryption=True, keyring="env:KEYS") as alone:
        with pytest.raises(ConfigurationError, match=r"keyring=env: has no folder.*relational database"):
            await alone.set("k", 1)

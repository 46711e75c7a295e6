"""A provider of documents or of keys and values, used alone: it seals with a key ring of its own."""

import asyncio
import stat

import pytest

from datavern import ConfigurationError, Keyring

PLANTED = "Planted Åse 7F3"


@pytest.fixture(params=["mongodb", "redis"])
def alone(request, documents, cache):
    """Makes such a provider, and says how it writes and reads."""
    if request.param == "redis":
        make = cache

        async def write(provider, subject):
            await provider.set(f"k:{subject}", PLANTED, subject=subject)

        async def read(provider, subject):
            return await provider.get(f"k:{subject}")

        return lambda **more: make(encryption=True, **more), write, read
    make_documents = documents

    async def insert(provider, subject):
        await provider.insert_document(
            "cases", {"_id": subject, "t": PLANTED}, classification="CONFIDENTIAL", subject=subject
        )

    async def find(provider, subject):
        found = await provider.find_document("cases", {"_id": subject})
        return found["t"]

    return make_documents, insert, find


async def test_it_keeps_its_keys_beside_its_key_ring(alone, keyring, tmp_path):
    make, write, read = alone
    async with make(keyring=keyring) as provider:
        await asyncio.gather(*(write(provider, f"u{n}") for n in range(5)))  # the first use by several at once
        assert await read(provider, "u1") == PLANTED
    file = tmp_path / "keys-store.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys", "keys-store.db"]  # closed: no log is left
    async with make(keyring=keyring) as provider, make(keyring=keyring) as other:
        assert [await read(provider, f"u{n}") for n in range(5)] == [PLANTED] * 5
        await write(other, "u9")
        assert await read(provider, "u9") == PLANTED
    async with provider:  # opened again
        assert await read(provider, "u9") == PLANTED


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "needs keys: put the provider in a DatabaseManager, or give it keyring="),
        ("azure-keyvault:https://vault.example", "has no folder"),
        ("file:nothing", "nothing"),
    ],
)
async def test_without_a_place_for_keys_it_says_so_and_writes_nothing(alone, url, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, write, _ = alone
    more = {} if url is None else {"keyring": url}
    async with make(**more) as provider:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=message):
                await write(provider, "u1")
    assert list(tmp_path.iterdir()) == []


async def test_a_manager_comes_before_a_key_ring_of_ones_own(alone, keyring, managed, tmp_path):
    from datavern import SQLiteProvider

    make, write, read = alone
    await (await Keyring.create(f"file:{tmp_path / 'own'}")).close()
    provider = make(keyring=f"file:{tmp_path / 'own'}")
    databases = {"main": SQLiteProvider(tmp_path / "main.db", name="main", location="norway"), "it": provider}
    async with managed(databases=databases) as db:
        await write(provider, "u1")
        assert await read(provider, "u1") == PLANTED
        assert await db["main"].query_value("SELECT count(*) FROM datavern_keys WHERE subject_tag IS NOT NULL") == 1
    assert not (tmp_path / "own-store.db").exists()

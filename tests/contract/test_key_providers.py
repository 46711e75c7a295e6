"""Key providers: the same ring wherever it is kept, and what each does that cannot be reached or does not destroy."""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import threading
import traceback

import pytest

from conftest import PURPOSE, users
from datavern import ConfigurationError, DatabaseManager, DataMap, ErasureIncomplete, Keyring, SubjectRequest
from datavern.contracts.errors import DecryptionFailed, KeyUnavailable
from datavern.crypto import azure_key_vault, remembered, vault_ring
from datavern.crypto import keyring as keyring_module
from datavern.crypto.azure_key_vault import AzureKeyVaultProvider
from datavern.testing.vaults import LocalAzureKeyVault, LocalVault, StaticCredential

KINDS = ("file", "vault", "azure")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remembered, "FRESH", 0.05)
    monkeypatch.setattr(keyring_module, "_registered", {})
    monkeypatch.setattr(azure_key_vault, "_SETTLE", 0.0)
    monkeypatch.setenv("VAULT_TOKEN", "local")


@pytest.fixture
def vault():
    with LocalVault() as server:
        yield server


@pytest.fixture
def azure():
    with LocalAzureKeyVault() as server:
        Keyring.register("local-azure", azure_provider)
        yield server


def azure_provider(where, retry_total=0):
    settings = {"verify_challenge_resource": False, "retry_total": retry_total, "retry_backoff_factor": 0.01}
    return AzureKeyVaultProvider(where, credential=StaticCredential(), **settings)


def azure_url(server):
    return f"local-azure:{server.url}/datavern?ca_file={server.ca_file}"


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    """The URL of a ring that is not there yet, of each kind in turn, and its server."""
    if request.param == "file":
        return f"file:{tmp_path}/keys", None
    server = request.getfixturevalue(request.param)
    return (f"vault:{server.url}/datavern" if request.param == "vault" else azure_url(server)), server


async def test_a_ring_is_made_once_and_opens_again(place):
    url, _ = place
    with pytest.raises(ConfigurationError, match="there is no key ring .* `datavern keys import-recovery`"):
        await Keyring.from_url(url).open()
    ring = await Keyring.create(url)
    assert (ring.epoch, ring.epochs, ring.generation) == (1, {1}, 1)
    wrapped = await ring.wrap(b"k" * 32, b"context")
    with pytest.raises(ConfigurationError, match="never overwritten"):
        await Keyring.create(url)
    async with Keyring.from_url(url) as again:
        assert again.ring_id == ring.ring_id
        assert again.signer.verifier == ring.signer.verifier
        assert await again.unwrap(wrapped, b"context") == b"k" * 32
        with pytest.raises(DecryptionFailed):
            await again.unwrap(wrapped, b"another")


async def test_epochs_come_and_go_and_other_processes_follow(place):
    url, _ = place
    ring = await Keyring.create(url)
    async with Keyring.from_url(url) as other:
        old = await ring.wrap(b"k" * 32, b"context")
        await ring.add_epoch(2)
        await ring.add_epoch(2)
        assert (ring.epoch, ring.epochs) == (2, {1, 2})
        with pytest.raises(ConfigurationError, match="the next epoch"):
            await ring.add_epoch(4)
        (new,) = await ring.rewrap([(old, b"context")])
        assert await other.unwrap(new, b"context") == b"k" * 32  # it reads the ring again by itself
        assert other.epoch == 2
        with pytest.raises(ConfigurationError, match="in use"):
            await ring.destroy_epoch(2)
        assert (await ring.destroy_epoch(1)).gone
        assert (await ring.destroy_epoch(1)).gone
        assert (ring.epochs, ring.generation) == ({2}, 3)
        with pytest.raises(KeyUnavailable, match="no key of epoch 1"):
            await ring.unwrap(old, b"context")
        await other.reload()
        with pytest.raises(KeyUnavailable, match="no key of epoch 1"):
            await other.unwrap(old, b"context")
        assert await other.unwrap(new, b"context") == b"k" * 32


async def test_what_a_vault_holds_is_no_key(vault, azure):
    ring = await Keyring.create(f"vault:{vault.url}/datavern")
    secrets = await ring.secrets()
    shown = repr(vault.values)
    for key in (*secrets.epochs.values(), secrets.signing_seed):
        assert base64.b64encode(key).decode() not in shown
        assert key.hex() not in shown
    assert repr(secrets.epochs[1]) not in repr(secrets)
    for record in vault.values.values():
        record["wrapped"] = base64.b64encode(b"vault:v1:" + base64.b64encode(os.urandom(60))).decode()
    with pytest.raises(KeyUnavailable, match="refused"):
        await Keyring.from_url(f"vault:{vault.url}/datavern").open()
    await Keyring.create(azure_url(azure))
    azure.keys["datavern-epoch-1"]["tags"]["fingerprint"] = "0"
    with pytest.raises(ConfigurationError, match="damaged"):
        await Keyring.from_url(azure_url(azure)).open()


@pytest.mark.parametrize("place", ["vault", "azure"], indirect=True)
async def test_a_vault_that_does_not_answer_is_told_without_its_secrets(place):
    url, server = place
    ring = await Keyring.create(url)
    server.down = True
    with pytest.raises(KeyUnavailable, match="cannot be reached") as caught:
        await Keyring.from_url(url).open()
    told = "".join(traceback.format_exception(caught.value))
    assert "local" not in told.replace("local-azure", "").replace("localhost", "").replace("datavern/testing", "")
    with pytest.raises(KeyUnavailable):
        await ring.add_epoch(2)
    assert await ring.unwrap(await ring.wrap(b"k" * 32, b""), b"") == b"k" * 32  # what is at hand goes on
    server.down = False
    await ring.add_epoch(2)


@pytest.mark.parametrize("place", ["vault", "azure"], indirect=True)
async def test_an_epoch_key_that_is_in_use_is_never_written_over(place, monkeypatch):
    """A process that is given up on, and comes through after all: everything that was wrapped since would be lost."""
    url, server = place
    slow, ring = await Keyring.create(url), Keyring.from_url(url)
    await ring.open()
    kept = ring.url.startswith("vault:")
    server.held = ("POST", "data/datavern/epoch-2") if kept else ("GET", "keys/datavern-epoch-2/")
    if not kept:  # the last request before the one that writes
        server.held = None
        made, server_make = threading.Event(), azure_key_vault._AzureKeyVault.keep

        def keep(self, *arguments):
            made.set()
            assert server.go.wait(60)
            return server_make(self, *arguments)

        monkeypatch.setattr(azure_key_vault._AzureKeyVault, "keep", keep)
    monkeypatch.setattr(vault_ring, "DEADLINE", 1.0)
    with pytest.raises(KeyUnavailable, match="did not answer within 1 seconds"):
        await slow.add_epoch(2)
    monkeypatch.undo()
    monkeypatch.setenv("VAULT_TOKEN", "local")
    monkeypatch.setattr(azure_key_vault, "_SETTLE", 0.0)
    await ring.add_epoch(2)
    wrapped = await ring.wrap(b"k" * 32, b"context")
    server.go.set()
    await slow.add_epoch(2)  # behind what was held back
    for one in (slow, ring):
        await one.close()
        await one.open()
        assert await one.unwrap(wrapped, b"context") == b"k" * 32


async def test_of_two_that_make_an_epoch_key_at_once_one_is_taken_away_again(azure, monkeypatch):
    """The service has no condition on tags, so both are written; all agree on the first, whatever happens later."""
    url = azure_url(azure)
    await (await Keyring.create(url)).close()
    rings = [Keyring.from_url(url) for _ in range(3)]
    for ring in rings:
        await ring.open()
    vault, both, keeping = azure_key_vault._AzureKeyVault, threading.Barrier(3), threading.local()
    keep, versions = vault.keep, vault._of_versions

    def kept(self, *arguments):
        keeping.now = True
        return keep(self, *arguments)

    def looked(self, name):
        found = versions(self, name)
        if getattr(keeping, "now", False):
            keeping.now = False
            both.wait(60)  # nobody has written yet
        return found

    monkeypatch.setattr(vault, "keep", kept)
    monkeypatch.setattr(vault, "_of_versions", looked)
    monkeypatch.setattr(azure_key_vault, "_SETTLE", 1.5)
    await asyncio.gather(*(ring.add_epoch(2) for ring in rings))
    wrapped = [await ring.wrap(bytes([n]) * 32, b"context") for n, ring in enumerate(rings)]
    for ring in rings:
        await ring.close()
        await ring.open()
        assert [await ring.unwrap(one, b"context") for one in wrapped] == [bytes([n]) * 32 for n in range(3)]
    there = azure_provider(url.partition(":")[2])._vault()
    assert len(there._of_versions("epoch-2")) == 1
    there.close()
    for ring in rings:
        await ring.close()


@pytest.mark.parametrize("place", ["vault", "azure"], indirect=True)
async def test_of_two_that_make_a_ring_at_once_one_does(place, monkeypatch):
    monkeypatch.setattr(azure_key_vault, "_SETTLE", 0.5)
    url, _ = place
    made = await asyncio.gather(*(Keyring.create(url) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(one, Keyring | ConfigurationError) for one in made), made
    assert [type(one) for one in made].count(Keyring) == 1
    (one,) = (ring for ring in made if isinstance(ring, Keyring))
    async with Keyring.from_url(url) as ring:
        assert ring.ring_id == one.ring_id
        assert await one.unwrap(await ring.wrap(b"k" * 32, b"context"), b"context") == b"k" * 32


@pytest.mark.parametrize("place", ["vault", "azure"], indirect=True)
@pytest.mark.parametrize("garbage", [b"", b"<html>Sign in</html>", b"{}", b"[]", b'{"data": {}}', b'{"value": 5}'])
async def test_what_is_no_answer_of_a_vault_is_told(place, garbage):
    url, server = place
    ring = await Keyring.create(url)
    server.garbage = garbage
    for work in (Keyring.from_url(url).open(), ring.add_epoch(2), ring.reload()):
        with pytest.raises((KeyUnavailable, ConfigurationError)):
            await work
    server.garbage = None
    await ring.add_epoch(2)
    assert ring.epoch == 2


@pytest.mark.parametrize("place", ["azure"], indirect=True)
async def test_a_vault_that_asks_for_patience_gets_it(place):
    url, server = place
    Keyring.register("patient-azure", functools.partial(azure_provider, retry_total=2))
    url = url.replace("local-azure", "patient-azure")
    ring = await Keyring.create(url)
    server.throttled = 2
    await ring.add_epoch(2)
    server.throttled = 100
    with pytest.raises(KeyUnavailable, match="answered 429"):
        await ring.reload()
    server.throttled = 0
    await ring.reload()


async def test_a_vault_that_does_not_serve_is_not_called_a_refusal(vault):
    ring = await Keyring.create(f"vault:{vault.url}/datavern")
    vault.throttled = 100
    with pytest.raises(KeyUnavailable, match="does not serve now"):
        await ring.reload()


@pytest.mark.parametrize("tagged", [True, False])
async def test_a_rotation_policy_of_the_vault_takes_no_ring_away(azure, tagged):
    """A further version of the vault's key wraps what is new; what an older one has wrapped, only that one unwraps."""
    ring = await Keyring.create(azure_url(azure))
    await ring.add_epoch(2)
    wrapped = await ring.wrap(b"k" * 32, b"context")
    for name, key in list(azure.keys.items()):
        azure.renew(name, {"cost-centre": "42", **(key["tags"] if tagged else {})})
    async with Keyring.from_url(azure_url(azure)) as again:
        assert await again.unwrap(wrapped, b"context") == b"k" * 32
        await again.add_epoch(3)
        assert (await again.destroy_epoch(1)).gone
    signing = azure.keys["datavern-signing"]
    for version in (signing, *signing["older"]):
        version["tags"]["pieces"] = "many"
    with pytest.raises((KeyUnavailable, ConfigurationError)):
        await Keyring.from_url(azure_url(azure)).open()


async def test_a_wrong_token_is_told(vault, monkeypatch):
    monkeypatch.setenv("VAULT_TOKEN", "planted-token")
    with pytest.raises(KeyUnavailable, match="token and its policy") as caught:
        await Keyring.from_url(f"vault:{vault.url}/datavern").open()
    assert "planted-token" not in "".join(traceback.format_exception(caught.value))


def manager(database, url, tmp_path):
    provider = database.provider("main", location="norway")
    return DatabaseManager({"main": provider}, data_map=DataMap([users()]), keyring=url, key_copies=tmp_path / "copies")


async def fill(db):
    await db.prepare("users")
    for name in ("u1", "u2"):
        consent = await db.consents.grant(subject=name, purpose=PURPOSE)
        row = {"id": name, "personal_number": "13097248022", "name": "Åse", "email": f"{name}@x.no"}
        await db.personal("users").insert(row, consent=consent)
    await db.subject_requests.process(SubjectRequest("erasure", subject="u2"))


@pytest.mark.parametrize("place", ["vault", "azure"], indirect=True)
@pytest.mark.parametrize("answers", [2, 9, 19])
async def test_a_vault_that_goes_down_in_the_middle_of_a_rotation(place, sqlite_database, tmp_path, answers):
    url, server = place
    await (await Keyring.create(url)).close()
    async with manager(sqlite_database, url, tmp_path) as db:
        await fill(db)
        server.down_after = answers
        failed = False
        try:
            await db.keys.rotate()
        except KeyUnavailable:
            failed = True
        server.down, server.down_after = False, None
        assert [row["id"] for row in await db.personal("users").find(email="u1@x.no")] == ["u1"]
        if failed:
            await db.keys.rotate()
        status = await db.keys.status()
        assert (status.rotation, len(status.epochs)) == (None, 1)
        assert await db.keys.verify() == []
        statement = await db.subject_requests.shredded("u2")
        assert "deleted" in statement.body["rotation"]["how"]
    async with manager(sqlite_database, url, tmp_path) as db:
        assert (await db.personal("users").get("u1"))["name"] == "Åse"


async def test_shredded_waits_for_a_purge(azure, sqlite_database, tmp_path):
    azure.purge_protected = True
    await (await Keyring.create(azure_url(azure))).close()
    async with manager(sqlite_database, azure_url(azure), tmp_path) as db:
        await fill(db)
        done = await db.keys.rotate()
        assert done.state == "purge"
        assert (await db.keys.status()).epochs == (2,)
        assert [r.previous for r in (await db.keys.status()).purging] == [1]
        with pytest.raises(ErasureIncomplete, match="its vault still keeps it"):
            await db.subject_requests.shredded("u2")
        assert (await db.keys.rotate()).epoch == 3  # one that waits holds up no other
        azure.deleted.clear()  # ninety days later
        assert (await db.subject_requests.shredded("u2")).body["rotation"]["epoch"] == 2
        assert (await db.keys.status()).purging == ()


async def test_keys_in_the_environment_are_for_development(monkeypatch, sqlite_database, tmp_path):
    with pytest.raises(ConfigurationError, match="32 random bytes in base64"):
        await Keyring.create("env:PLANTED_KEY")
    monkeypatch.setenv("PLANTED_KEY", "planted-nonsense")
    with pytest.raises(ConfigurationError, match="holds no key") as caught:
        await Keyring.from_url("env:PLANTED_KEY").open()
    assert "planted-nonsense" not in str(caught.value)
    monkeypatch.setenv("PLANTED_KEY", base64.b64encode(os.urandom(32)).decode())
    async with Keyring.from_url("env:PLANTED_KEY") as one, Keyring.from_url("env:PLANTED_KEY") as other:
        assert await other.unwrap(await one.wrap(b"k" * 32, b"c"), b"c") == b"k" * 32
        for call in (one.add_epoch(2), one.destroy_epoch(1)):
            with pytest.raises(ConfigurationError, match="cannot be rotated or destroyed"):
                await call
    async with manager(sqlite_database, "env:PLANTED_KEY", tmp_path) as db:
        await fill(db)
        with pytest.raises(ConfigurationError, match="cannot be rotated or destroyed"):
            await db.keys.rotate()
        assert (await db.keys.status()).rotation is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("vault:", "needs an https address"),
        ("vault:vault.example", "needs an https address"),
        ("vault:http://vault.example/ring", "use https"),
        ("vault:https://vault.example", "the path is the ring's name"),
        ("vault:https://vault.example/'; DROP TABLE", "the path is the ring's name"),
        ("vault:https://vault.example/ring?mount=x", "mount is no option"),
        ("azure-keyvault:http://127.0.0.1/ring", "https alone"),
        ("azure-keyvault:https://u:p@vault.example/ring", "needs an https address"),
        ("env:", "name of a variable"),
        ("env:A B", "name of a variable"),
    ],
)
def test_an_address_that_is_none_is_refused(url, told):
    with pytest.raises(ConfigurationError, match=told):
        Keyring.from_url(url)


async def test_a_vault_ring_needs_a_place_for_the_copies(vault, sqlite_database):
    url = f"vault:{vault.url}/datavern"
    await (await Keyring.create(url)).close()
    provider = sqlite_database.provider("main", location="norway")
    async with DatabaseManager({"main": provider}, data_map=DataMap([users()]), keyring=url) as db:
        with pytest.raises(ConfigurationError, match="key_copies"):
            await db.keys.rotate()
        assert (await db.keys.status()).rotation is None


def test_a_scheme_of_datavern_is_not_taken():
    with pytest.raises(ConfigurationError, match="none of Datavern's own"):
        Keyring.register("file", azure_provider)

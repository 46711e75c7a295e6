"""The key ring in files: made whole, opened carefully, and it never shows a key."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import stat
from pathlib import Path

import pytest

from datavern.contracts.errors import ConfigurationError, DecryptionFailed, KeyUnavailable
from datavern.crypto import key_files
from datavern.crypto.key_files import write_document
from datavern.crypto.keyring import Keyring

FILES = ["epoch-1.json", "ring.json", "signing.json"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file:{tmp_path}/keys"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
async def ring(url: str) -> Keyring:
    return await Keyring.create(url)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def problem(url: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        await Keyring.from_url(url).open()
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, OSError)
    return str(caught.value)


def rewrite(path: Path, **changes: object) -> None:
    """Change fields of a key file and give it a check that fits."""
    fields = {k: v for k, v in json.loads(path.read_text()).items() if k != "check"}
    write_document(path, {**fields, **changes})


async def test_a_new_ring(ring, url, folder):
    assert ring.epoch == 1
    assert ring.epochs == {1}
    assert len(bytes.fromhex(ring.ring_id)) == 16
    assert ring.url == url
    assert names(folder) == [*FILES, "verifier.txt"]
    assert names(folder.parent) == ["keys"]  # no draft is left
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in FILES:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "verifier.txt").stat().st_mode) == 0o644
    assert (folder / "verifier.txt").read_text() == ring.signer.verifier + "\n"


async def test_another_process_opens_the_same_ring(ring, url):
    wrapped = await ring.wrap(b"k" * 32, b"context")
    other = Keyring.from_url(url)
    await other.open()
    await other.open()
    assert other.ring_id == ring.ring_id
    assert other.signer.verifier == ring.signer.verifier
    assert await other.unwrap(wrapped, b"context") == b"k" * 32
    await other.close()
    await other.close()
    with pytest.raises(KeyUnavailable, match="not open"):
        await other.unwrap(wrapped, b"context")
    async with other:
        assert other.epoch == 1


async def test_rings_differ(tmp_path):
    rings = [await Keyring.create(f"file:{tmp_path}/{name}") for name in "ab"]
    assert rings[0].ring_id != rings[1].ring_id
    assert rings[0].signer.verifier != rings[1].signer.verifier
    with pytest.raises(DecryptionFailed):
        await rings[1].unwrap(await rings[0].wrap(b"k" * 32, b""), b"")


async def test_a_wrapped_key_is_bound_to_its_context_and_every_bit(ring):
    wrapped = await ring.wrap(b"k" * 32, b"context")
    assert b"k" * 32 not in wrapped
    assert wrapped != await ring.wrap(b"k" * 32, b"context")
    for context in (b"", b"contex", b"context\0", b"Context"):
        with pytest.raises(DecryptionFailed) as caught:
            await ring.unwrap(wrapped, context)
        assert caught.value.__context__ is None
    for size in range(len(wrapped)):
        with pytest.raises((DecryptionFailed, KeyUnavailable)):
            await ring.unwrap(wrapped[:size], b"context")
    for at in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[at] ^= 1
        expected = KeyUnavailable if at in range(1, 5) else DecryptionFailed  # 1 to 4 name the epoch
        with pytest.raises(expected):
            await ring.unwrap(bytes(changed), b"context")


@pytest.mark.parametrize("wrong", [b"", b"\0" * 80, b"\xff" * 80, b"\1" * 44, "x" * 80, 5, None])
async def test_what_is_no_wrapped_key_does_not_open(ring, wrong):
    """Versions 0 and 255, what is too short, and what SQLite keeps in a column of bytes if somebody puts it there."""
    for work in (ring.unwrap(wrong, b""), ring.rewrap([(wrong, b"")])):
        with pytest.raises(DecryptionFailed):
            await work


async def test_create_refuses_an_existing_ring_and_leaves_it_alone(ring, url, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigurationError, match="never overwritten"):
        await Keyring.create(url)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert names(folder.parent) == ["keys"]


async def test_create_takes_an_empty_folder_and_no_other(tmp_path):
    (tmp_path / "empty").mkdir()
    await Keyring.create(f"file:{tmp_path}/empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(ConfigurationError, match="not an empty folder"):
            await Keyring.create(f"file:{tmp_path}/{name}")
    with pytest.raises(ConfigurationError, match="could not be made"):
        await Keyring.create(f"file:{tmp_path}/file/keys")
    assert names(tmp_path) == ["empty", "file", "full", "link"]


async def test_of_many_that_make_a_ring_at_once_one_does(url, folder):
    made = await asyncio.gather(*(Keyring.create(url) for _ in range(8)), return_exceptions=True)
    rings = [ring for ring in made if isinstance(ring, Keyring)]
    assert len(rings) == 1
    assert all(isinstance(other, ConfigurationError) for other in made if other is not rings[0])
    assert names(folder) == [*FILES, "verifier.txt"]
    assert names(folder.parent) == ["keys"]


async def test_a_missing_ring_says_how_to_put_it_back_and_how_to_make_one(url):
    message = await problem(url)
    assert "no key ring" in message
    assert "datavern keys import-recovery" in message
    assert "datavern init" in message
    assert "datavern.Keyring.create" in message


@pytest.mark.parametrize("name", FILES)
async def test_a_missing_file_is_named(ring, url, folder, name):
    (folder / name).unlink()
    message = await problem(url)
    assert f"{name} is missing" in message
    assert "restore" in message


async def test_the_verifier_s_file_is_not_needed(ring, url, folder):
    (folder / "verifier.txt").unlink()
    await Keyring.from_url(url).open()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o644, 0o666])
async def test_a_file_that_others_reach_is_refused(ring, url, folder, name, mode):
    (folder / name).chmod(mode)
    assert f"chmod 600 {folder / name}" in await problem(url)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711, 0o777])
async def test_a_folder_that_others_reach_is_refused(ring, url, folder, mode):
    folder.chmod(mode)
    assert f"chmod 700 {folder}" in await problem(url)


@pytest.mark.parametrize("name", [*FILES, ""])
async def test_a_file_of_another_user_is_refused(ring, url, folder, name, monkeypatch):
    if os.geteuid() == 0:
        os.chown(folder / name, 65534, 65534)
    else:  # nobody else can give a file away: be another user than the files' owner instead
        others = (folder / name).stat().st_ino
        real = os.fstat

        def of_another(descriptor):
            found = real(descriptor)
            return os.stat_result([*found[:4], found.st_uid + 1, *found[5:]]) if found.st_ino == others else found

        monkeypatch.setattr(os, "fstat", of_another)
        if not name:
            monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    message = await problem(url)
    assert "belongs to another user" in message
    assert "chown" in message


@pytest.mark.parametrize("name", FILES)
async def test_damage_is_found_wherever_it_is(ring, url, folder, name):
    path = folder / name
    whole = path.read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        assert name in await problem(url)
    for size in (0, 1, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        assert "damaged" in await problem(url)
    for content in (b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"format": 5}', bytes(2 << 20)):
        path.write_bytes(content)
        assert f"{name} is damaged" in await problem(url)


async def test_something_else_in_a_file_s_place_is_refused(ring, url, folder):
    (folder / "signing.json").unlink()
    os.mkfifo(folder / "signing.json", 0o600)
    assert "damaged" in await problem(url)
    (folder / "signing.json").unlink()
    (folder / "signing.json").mkdir(0o700)
    assert "signing.json" in await problem(url)


@pytest.mark.parametrize("name", FILES)
async def test_a_later_version_says_so(ring, url, folder, name):
    rewrite(folder / name, version=2)
    message = await problem(url)
    assert "version 2" in message
    assert "install a later Datavern" in message


@pytest.mark.parametrize("name", ["epoch-1.json", "signing.json"])
async def test_a_file_of_another_ring_is_refused(ring, url, folder, name, tmp_path):
    await Keyring.create(f"file:{tmp_path}/other")
    (tmp_path / "other" / name).replace(folder / name)
    assert "another key ring" in await problem(url)


async def test_a_key_that_the_ring_does_not_name_is_refused(ring, url, folder):
    rewrite(folder / "epoch-1.json", key=base64.b64encode(os.urandom(32)).decode())
    assert "is not the key that" in await problem(url)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 2},
        {"epoch": 0},
        {"epoch": "1"},
        {"epoch": True},
        {"epochs": []},
        {"epochs": [5]},
        {"generation": -1},
        {"ring": "00"},
        {"ring": 5},
        {"epochs": [{"epoch": 1}]},
    ],
)
async def test_a_ring_that_says_impossible_things_is_damaged(ring, url, folder, changes):
    rewrite(folder / "ring.json", **changes)
    assert "damaged" in await problem(url) or "another key ring" in await problem(url)


async def test_a_time_that_is_not_valid_unicode_is_damage(ring, url, folder):
    """It is told when the ring is opened, and not when the next epoch is to be written."""
    whole = json.loads((folder / "ring.json").read_text())
    whole["epochs"][0]["created"] = "\ud800"
    whole["check"] = key_files._check(whole)
    (folder / "ring.json").write_text(json.dumps(whole))
    assert "damaged" in await problem(url)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
async def test_a_key_of_another_size_is_damaged(ring, url, folder, size):
    rewrite(folder / "signing.json", key=base64.b64encode(bytes(size)).decode())
    assert "damaged" in await problem(url)


@pytest.mark.parametrize("url", ["", "keys", "hsm:x", "FILE:keys", "/srv/keys", ":"])
def test_an_unknown_kind_of_ring_is_refused_with_those_there_are(url):
    with pytest.raises(ConfigurationError, match="there are: azure-keyvault:, env:, file:, vault:"):
        Keyring.from_url(url)


@pytest.mark.parametrize("url", ["file:", "file://host/keys", "file://", "file:a\0b"])
def test_a_file_ring_needs_a_folder(url):
    with pytest.raises(ConfigurationError, match="file:"):
        Keyring.from_url(url)


async def test_ways_to_write_the_same_folder(ring, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for url in ("file:keys", "file:./keys", f"file:{folder}", f"file://{folder}"):
        async with Keyring.from_url(url) as other:
            assert other.ring_id == ring.ring_id


def test_from_url_does_no_io(tmp_path):
    Keyring.from_url(f"file:{tmp_path}/nothing/here")
    assert names(tmp_path) == []


async def test_a_closed_ring_says_that_it_is_closed(url):
    ring = Keyring.from_url(url)
    for ask in (lambda: ring.ring_id, lambda: ring.epoch, lambda: ring.epochs, lambda: ring.signer):
        with pytest.raises(KeyUnavailable, match="not open"):
            ask()
    with pytest.raises(KeyUnavailable, match="not open"):
        await ring.wrap(b"", b"")


async def test_no_key_shows_in_a_repr_or_an_error(ring, url, folder):
    secrets = []
    for name in ("epoch-1.json", "signing.json"):
        key = json.loads((folder / name).read_text())["key"]
        raw = base64.b64decode(key)
        secrets += [key, raw.hex(), repr(raw)[2:-1]]
    provider = ring._provider
    shown = [repr(ring), str(ring), repr(provider), repr(ring.signer), repr(provider._ring.ciphers)]
    for name in ("epoch-1.json", "signing.json"):
        path = folder / name
        whole = path.read_text()
        path.write_text(whole.replace('"check": "', '"check": "x'))
        shown.append(await problem(url))
        path.write_text(whole[: len(whole) // 2 + 60])
        shown.append(await problem(url))
        path.write_text(whole)
    for secret in secrets:
        assert not any(secret in text for text in shown)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(ring)

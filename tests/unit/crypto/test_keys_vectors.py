"""Released bytes of rings, copies of the key store and recoveries: they open for ever."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto import copies
from datavern.crypto.keyring import Keyring
from datavern.crypto.lookup_keys import life_ids
from datavern.crypto.recovery import combine
from datavern.crypto.ring import fingerprint

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "keys-1.json").read_text(encoding="utf-8"))


@pytest.fixture
async def ring(tmp_path: Path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    for name, text in VECTORS["ring"].items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o600)
    async with Keyring.from_url(f"file:{folder}") as ring:
        yield ring


async def test_a_ring_in_the_middle_of_a_rotation_opens(ring: Any):
    assert (ring.epoch, ring.epochs, ring.generation) == (3, {2, 3}, 4)
    for vector in VECTORS["wrapped"]:
        key = await ring.unwrap(bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["context"]))
        assert key.hex() == vector["key"]
    secrets = await ring.secrets()
    assert {str(n): key.hex() for n, key in secrets.epochs.items()} == VECTORS["epochs"]
    assert {str(n): fingerprint(key) for n, key in secrets.epochs.items()} == VECTORS["fingerprints"]


async def test_a_copy_of_the_key_store_opens_and_a_changed_one_does_not(ring: Any, tmp_path: Path):
    path = tmp_path / "copy"
    raw = base64.b64decode(VECTORS["copy"])
    path.write_bytes(raw)
    found = await copies.read_back(path, ring)
    assert found.rows == {"datavern_epochs": 1, "datavern_keys": 1, "datavern_store": 1}
    assert (found.epoch, found.created_at) == (3, "2026-11-28T14:00:00.000000Z")
    for at in (raw.index(b"2026"), len(raw) - 1, raw.index(b"\n") + 60):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(DecryptionFailed):
            await copies.read_back(path, ring)
    line, _, rest = raw.partition(b"\n")
    wrong_fields = ({"key_id": ""}, {"key_id": 5}, {"key_id": "00" * 17}, {"key": "AAAA"}, {"version": 9}, {"ring": ""})
    for changes in wrong_fields:
        path.write_bytes(json.dumps({**json.loads(line), **changes}).encode() + b"\n" + rest)
        with pytest.raises((ConfigurationError, DecryptionFailed)):
            await copies.read_back(path, ring)
    for wrong in (b"", b"[" * 4000, raw[:100], line, line + b"\n"):
        path.write_bytes(wrong)
        with pytest.raises((ConfigurationError, DecryptionFailed)):
            await copies.read_back(path, ring)


def test_a_recovery_opens():
    recovery = VECTORS["recovery"]
    secrets = combine(recovery["file"], recovery["shares"][1:])
    assert {str(n): key.hex() for n, key in secrets.epochs.items()} == VECTORS["epochs"]
    assert secrets.signing_seed.hex() == VECTORS["signing_seed"]


async def test_a_ring_in_the_environment(monkeypatch):
    expected = VECTORS["environment"]
    monkeypatch.setenv("PLANTED_KEY", expected["variable"])
    async with Keyring.from_url("env:PLANTED_KEY") as ring:
        secrets = await ring.secrets()
    assert secrets.ring_id.hex() == expected["ring"]
    assert secrets.epochs[1].hex() == expected["epoch_1"]
    assert secrets.signing_seed.hex() == expected["signing"]


def test_the_lives_of_a_lookup_key():
    expected = VECTORS["lookup_lives"]
    assert [life.hex() for life in life_ids(bytes.fromhex(expected["key_id"]))] == expected["ids"]

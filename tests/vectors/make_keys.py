"""Writes keys-1.json from src/datavern/crypto/FORMAT.md (2, 4, 13 to 16), with primitives alone.

What it wrote is kept for ever, so it refuses to write over a file that is there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path

import shamir_mnemonic
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from make_crypto import document, xaes

TARGET = Path(__file__).with_name("keys-1.json")

RING = bytes(range(0xA0, 0xB0))
EPOCHS = {2: bytes(range(32)), 3: bytes(range(0x20, 0x40))}
SEED = bytes(range(0xC0, 0xE0))
CREATED = "2026-11-28T14:00:00.000000Z"
NAME = f"datavern/{RING.hex()[:16]}"
KEY_ID = bytes(range(0x40, 0x50))
COPY_KEY = bytes(range(0x60, 0x80))
RECOVERY_KEY = bytes(range(0x80, 0xA0))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def text(value: str) -> bytes:
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def fingerprint(key: bytes) -> str:
    return hashlib.sha256(b"datavern-epoch-key\x00" + key).hexdigest()


def wrapped(key: bytes, context: bytes, epoch: int, at: int) -> bytes:
    number, nonce = epoch.to_bytes(4, "big"), at.to_bytes(24, "big")
    associated = b"datavern-wrap\x00\x01" + RING + number + context
    return b"\x01" + number + nonce + xaes(EPOCHS[epoch], nonce, key, associated)


def ring() -> dict[str, str]:
    common: dict[str, object] = {"version": 1, "ring": RING.hex(), "created": CREATED}
    epochs = [{"epoch": n, "created": CREATED, "fingerprint": fingerprint(k)} for n, k in EPOCHS.items()]
    head = {"format": "datavern-keyring", **common, "generation": 4, "epoch": 3, "epochs": epochs}
    signing = {"format": "datavern-signing-key", **common, "name": NAME, "key": b64(SEED)}
    files = {"ring.json": document(head), "signing.json": document(signing)}
    for n, k in EPOCHS.items():
        files[f"epoch-{n}.json"] = document({"format": "datavern-epoch-key", **common, "epoch": n, "key": b64(k)})
    return files


def copy() -> bytes:
    header = {
        "format": "datavern-key-store",
        "version": 1,
        "ring": RING.hex(),
        "epoch": 3,
        "created": CREATED,
        "key_id": KEY_ID.hex(),
        "key": b64(wrapped(COPY_KEY, b"key-store-copy\x00", 3, 1)),
    }
    line = json.dumps(header).encode() + b"\n"
    key_id = bytes(range(0x10, 0x20))
    context = b"data-key\x00" + text("users") + text("") + key_id
    rows: list[list[object]] = [
        ["datavern_epochs", {"epoch": 3, "created_at": CREATED}],
        [
            "datavern_keys",
            {
                "key_id": {"b": b64(key_id)},
                "slot": {"b": b64(hashlib.sha256(b"slot\x00" + text("users") + text("")).digest())},
                "dataset": "users",
                "subject_tag": None,
                "state": "living",
                "wrapped": {"b": b64(wrapped(bytes(32), context, 3, 2))},
                "epoch": 3,
                "changed": 0,
                "created_at": CREATED,
                "destroyed_at": None,
            },
        ],
        [
            "datavern_store",
            {
                "id": 1,
                "version": 2,
                "ring": RING.hex(),
                "epoch": 3,
                "tag_key": {"b": b64(wrapped(bytes(32), b"tag-key\x00", 3, 3))},
                "changes": 7,
                "created_at": CREATED,
            },
        ],
    ]
    plain = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    # A sealed stream (11) under a dataset's key; its labels are those of a document (10), all empty.
    labels = text("") + text("") + bytes(8) + b"\x00" + text("") + hashlib.sha256(line).digest()
    head, nonce, stream_key = b"\x08" + KEY_ID, (4).to_bytes(24, "big"), bytes(range(0x70, 0x90))
    associated = text("datavern.key-store") + b"\x00\x00" + head + labels
    sealed_key = xaes(COPY_KEY, nonce, stream_key, associated)
    segment = AESGCM(stream_key).encrypt(bytes(11) + b"\x01", plain, None)
    return line + head + nonce + sealed_key + segment


def recovery() -> dict[str, object]:
    header = {
        "format": "datavern-recovery",
        "version": 1,
        "id": "0123456789abcdef",
        "ring": RING.hex(),
        "generation": 4,
        "threshold": 2,
        "shares": 3,
        "created": CREATED,
    }
    held = {
        "epochs": {str(n): b64(k) for n, k in EPOCHS.items()},
        "created": {str(n): CREATED for n in EPOCHS},
        "signing_name": NAME,
        "signing_seed": b64(SEED),
    }
    canonical = [json.dumps(value, sort_keys=True, separators=(",", ":")).encode() for value in (held, header)]
    nonce = (5).to_bytes(24, "big")
    sealed = nonce + xaes(RECOVERY_KEY, nonce, *canonical)
    (shares,) = shamir_mnemonic.generate_mnemonics(1, [(2, 3)], RECOVERY_KEY, iteration_exponent=0)
    return {"file": json.dumps({**header, "sealed": b64(sealed)}), "shares": shares}


def environment() -> dict[str, str]:
    master = bytes(range(0xE0, 0x100))

    def derived(what: str, length: int) -> str:
        return HKDF(SHA256(), length, None, b"datavern-environment-ring\x00" + what.encode()).derive(master).hex()

    return {
        "variable": b64(master),
        "ring": derived("ring", 16),
        "epoch_1": derived("epoch 1", 32),
        "signing": derived("signing", 32),
    }


def main() -> None:
    vectors = {
        "ring": ring(),
        "epochs": {str(n): k.hex() for n, k in EPOCHS.items()},
        "signing_seed": SEED.hex(),
        "wrapped": [
            {"epoch": n, "context": b"tag-key\x00".hex(), "key": bytes(32).hex(), "bytes": raw.hex()}
            for n, raw in ((n, wrapped(bytes(32), b"tag-key\x00", n, 9)) for n in EPOCHS)
        ],
        "lookup_lives": {
            "key_id": KEY_ID.hex(),
            "ids": [hashlib.sha256(b"lookup-life\x00" + KEY_ID + bytes([n])).digest()[:16].hex() for n in range(16)],
        },
        "copy": b64(copy()),
        "recovery": recovery(),
        "environment": environment(),
        "fingerprints": {str(n): fingerprint(k) for n, k in EPOCHS.items()},
    }
    if TARGET.exists():
        sys.exit(f"{TARGET.name} is there already: released vectors are never written again")
    TARGET.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

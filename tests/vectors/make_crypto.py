"""Writes crypto-1.json from src/datavern/crypto/FORMAT.md, with primitives alone and without Datavern's own code.

What it wrote is kept for ever, so it refuses to write over a file that is there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

TARGET = Path(__file__).with_name("crypto-1.json")

KEY = bytes(range(32))
KEY_ID = bytes(range(0x40, 0x50))
ROW_TAG = bytes(range(0x60, 0x70))
SUBJECT = bytes(range(0x80, 0xA0))
RING = bytes(range(0xA0, 0xB0))
SEED = bytes(range(0xC0, 0xE0))

VALUES = [
    ("str", "Åse Bjørnsdatter", "01" + "Åse Bjørnsdatter".encode().hex()),
    ("str", "", "01"),
    ("int", "0", "0200"),
    ("int", "-1", "02ff"),
    ("int", "128", "020080"),
    ("int", str(-(2**64)), "02ff0000000000000000"),
    ("float", "1.5", "033ff8000000000000"),
    ("float", "-0.0", "038000000000000000"),
    ("bool", "False", "0400"),
    ("bool", "True", "0401"),
    ("bytes", "00ff", "0500ff"),
    ("date", "2026-11-23", "0607ea0b17"),
    ("datetime", "2026-11-23T02:39:51.123456", "07" + b"2026-11-23T02:39:51.123456".hex()),
    ("datetime", "2026-11-23T02:39:51+01:00", "08" + b"2026-11-23T02:39:51+01:00".hex()),
    ("time", "23:59:59.000001", "09" + b"23:59:59.000001".hex()),
    ("time", "12:00:00-03:30", "09" + b"12:00:00-03:30".hex()),
    ("Decimal", "-0.00", "0a" + b"-0.00".hex()),
    ("Decimal", "1E+3", "0a" + b"1E+3".hex()),
    ("UUID", "12345678-1234-5678-1234-567812345678", "0b12345678123456781234567812345678"),
    ("json", '{"navn":"Bø","tall":[1,2.5,null,true]}', "0c" + '{"navn":"Bø","tall":[1,2.5,null,true]}'.encode().hex()),
]

LOOKUPS = [
    (None, "test@example.no", b"\x01test@example.no"),
    ("fodselsnummer", "130972 48022", b"\x0113097248022"),
    ("email", "  Test.Person@Example.NO ", b"\x01test.person@example.no"),
    ("phone", "22 22 22 22", b"\x01+4722222222"),
    ("phone", "0047 22222222", b"\x01+4722222222"),
    ("phone", "+44 (0)20 7946 0000", b"\x01+442079460000"),
    ("name", " Åse\u00a0 BJØRNSDATTER ", "\x01åse bjørnsdatter".encode()),
]


def block(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw


def xaes(key: bytes, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    derive = KBKDFCMAC(
        algorithm=algorithms.AES,
        mode=Mode.CounterMode,
        length=32,
        rlen=2,
        llen=None,
        location=CounterLocation.BeforeFixed,
        label=None,
        context=None,
        fixed=b"X\x00" + nonce[:12],
    )
    return AESGCM(derive.derive(key)).encrypt(nonce[12:], plain, associated)


def sealed(form: int, at: int, encoded: bytes) -> bytes:
    head = bytes([form]) + KEY_ID
    associated = block(b"users") + block("fødselsnummer".encode()) + head + ROW_TAG
    if form == 1:
        nonce = at.to_bytes(12, "big")
        return head + nonce + AESGCM(KEY).encrypt(nonce, encoded, associated)
    nonce = at.to_bytes(24, "big")
    return head + nonce + xaes(KEY, nonce, encoded, associated)


def wrapped(key: bytes, context: bytes, epoch: int, at: int) -> bytes:
    number, nonce = epoch.to_bytes(4, "big"), at.to_bytes(24, "big")
    return b"\x01" + number + nonce + xaes(KEY, nonce, key, b"datavern-wrap\x00\x01" + RING + number + context)


def document(fields: dict[str, object]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps({**fields, "check": hashlib.sha256(text.encode()).hexdigest()}, indent=1)


def ring() -> dict[str, str]:
    created = "2026-11-23T02:39:51.123456Z"
    common: dict[str, object] = {"version": 1, "ring": RING.hex(), "created": created}
    fingerprint = hashlib.sha256(b"datavern-epoch-key\x00" + KEY).hexdigest()
    epochs = [{"epoch": 1, "created": created, "fingerprint": fingerprint}]
    return {
        "ring.json": document({"format": "datavern-keyring", **common, "generation": 1, "epoch": 1, "epochs": epochs}),
        "epoch-1.json": document(
            {"format": "datavern-epoch-key", **common, "epoch": 1, "key": base64.b64encode(KEY).decode()}
        ),
        "signing.json": document(
            {
                "format": "datavern-signing-key",
                **common,
                "name": f"datavern/{RING.hex()[:16]}",
                "key": base64.b64encode(SEED).decode(),
            }
        ),
    }


def signatures() -> dict[str, str]:
    key, name = Ed25519PrivateKey.from_private_bytes(SEED), f"datavern/{RING.hex()[:16]}"
    public = b"\x01" + key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
    text = "eksempel.no/main\n42\nå være\n"
    note = base64.b64encode(key_id + key.sign(text.encode())).decode()
    return {
        "verifier": f"{name}+{key_id.hex()}+{base64.b64encode(public).decode()}",
        "text": text,
        "note": f"{text}\n— {name} {note}\n",
        "data": b"any data".hex(),
        "plain": key.sign(b"datavern-signature\x00\x01" + b"any data").hex(),
    }


def main() -> None:
    data_key = b"data-key\x00" + block(b"users") + block(SUBJECT) + KEY_ID
    dataset_key = b"data-key\x00" + block(b"users") + block(b"") + KEY_ID
    lookup_key = b"lookup-key\x00" + block(b"users") + block(b"email")
    vectors = {
        "key": KEY.hex(),
        "key_id": KEY_ID.hex(),
        "row_tag": ROW_TAG.hex(),
        "subject_tag": SUBJECT.hex(),
        "dataset": "users",
        "field": "fødselsnummer",
        "values": [{"type": kind, "text": text, "encoded": raw} for kind, text, raw in VALUES],
        "sealed": [
            {"form": form, "encoded": raw, "bytes": sealed(form, at, bytes.fromhex(raw)).hex()}
            for form in (1, 2)
            for at, (_, _, raw) in enumerate(VALUES)
        ],
        "wrapped": [
            {
                "context": context.hex(),
                "key": bytes(range(at, at + 32)).hex(),
                "bytes": wrapped(bytes(range(at, at + 32)), context, 1, at).hex(),
            }
            for at, context in enumerate([data_key, dataset_key, lookup_key, b"tag-key\x00"])
        ],
        "subject_tags": [
            {"subject": s, "tag": hmac.digest(KEY, b"subject\x00" + s.encode(), "sha256").hex()} for s in ("42", "ås")
        ],
        "slots": [
            {"subject_tag": tag.hex(), "slot": hashlib.sha256(b"slot\x00" + block(b"users") + block(tag)).hexdigest()}
            for tag in (SUBJECT, b"")
        ],
        "lookup": [
            {
                "kind": kind,
                "value": value,
                "index": "01" + hmac.digest(KEY, b"\x01" + block(b"email") + normal, "sha256").hex(),
            }
            for kind, value, normal in LOOKUPS
        ],
        "ring": ring(),
        "signatures": signatures(),
    }
    if TARGET.exists():
        sys.exit(f"{TARGET.name} is there already: released vectors are never written again")
    TARGET.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
